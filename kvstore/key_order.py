"""Filling a sorted list with what is sorted already, a part at a time.

May know: how `sortedcontainers` lays a SortedList out (2.x: lists of about a thousand each, the last of each,
their number, and an index that is made when it is wanted). Its own update() sorts everything again when much
is added, which for a million keys is one long turn; or adds the keys one by one, which takes three times as
long as reading them. The layout is checked by the tests, with the library's own check.
"""

from __future__ import annotations

from typing import Any, Final

RUN_KEYS: Final = 1000  # of one inner list: what the library fills them with


def extend_in_order(index: Any, keys: list[bytes]) -> None:
    """Add `keys`, which are in order and follow all that is there; the work is in proportion to them."""
    if not keys:
        return
    lists, maxes = index._lists, index._maxes
    assert not maxes or maxes[-1] < keys[0], f"{keys[0]!r} does not follow {maxes[-1]!r}"
    start = 0
    if lists and len(lists[-1]) < RUN_KEYS:
        start = min(len(keys), RUN_KEYS - len(lists[-1]))
        lists[-1].extend(keys[:start])
        maxes[-1] = keys[start - 1]
    for at in range(start, len(keys), RUN_KEYS):
        run = keys[at : at + RUN_KEYS]
        lists.append(run)
        maxes.append(run[-1])
    index._len += len(keys)
    index._index.clear()
