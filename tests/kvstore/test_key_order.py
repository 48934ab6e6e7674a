"""Keys that come in order are laid out as the library lays them out itself."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from sortedcontainers import SortedList

from kvstore.key_order import RUN_KEYS, extend_in_order


@pytest.mark.parametrize("seed", range(10))
def test_parts_of_any_size_make_the_list_that_the_library_makes_and_checks(seed: int) -> None:
    chance = Random(seed)
    keys = [b"%06d" % number for number in range(0, 30_000, 3)]
    index: Any = SortedList()
    at = 0
    while at < len(keys):
        part = keys[at : at + chance.choice([0, 1, 7, RUN_KEYS - 1, RUN_KEYS, 2 * RUN_KEYS + 1])]
        extend_in_order(index, part)
        at += len(part)
        index._check()
        assert len(index) == at
    assert index == SortedList(keys) and index[4711] == keys[4711]
    for _ in range(3000):
        key = b"%06d" % chance.randrange(30_000)
        if key in index:
            index.remove(key)
        else:
            index.add(key)
    index._check()
    extend_in_order(index, [b"1", b"2"])
    index._check()


def test_the_positions_that_were_counted_before_are_counted_again() -> None:
    index: Any = SortedList()
    extend_in_order(index, [b"a", b"b"])
    assert index.bisect_left(b"c") == 2
    extend_in_order(index, [b"c%04d" % number for number in range(2500)])
    assert index.bisect_left(b"d") == len(index) == 2502 and index[2501] == b"c2499"


def test_what_does_not_follow_is_refused() -> None:
    index: Any = SortedList()
    extend_in_order(index, [b"b"])
    for key in (b"a", b"b"):
        with pytest.raises(AssertionError, match="does not follow"):
            extend_in_order(index, [key])
