"""Reads that can be asked of the state machine: kinds of the table in model_operations.py."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack

from kvstore import protocol
from kvstore.codes import UNCOUNTED
from kvstore.protocol import COUNT_ONLY, KEYS_ONLY, PREV_KV
from tests.kvstore.model_operations import EVERYTHING, Pair, kind, without_text


@kind
def get(pair: Pair, chance: Random) -> None:
    pair.query([protocol.RANGE, pair.some_key(chance), b"", 0, 0, 0])


@kind
def get_past(pair: Pair, chance: Random) -> None:
    pair.query([protocol.RANGE, pair.some_key(chance), b"", 0, pair.some_past(chance), 0])


@kind
def range_of_records(pair: Pair, chance: Random) -> None:
    pair.query([protocol.RANGE, *pair.some_range(chance), 0, 0, 0])


@kind
def range_with_limit(pair: Pair, chance: Random) -> None:
    past = chance.choice([0, pair.some_past(chance)])
    pair.query([protocol.RANGE, *pair.some_range(chance), chance.randint(1, 4), past, 0])


@kind
def range_of_keys(pair: Pair, chance: Random) -> None:
    past = chance.choice([0, pair.some_past(chance)])
    pair.query([protocol.RANGE, *pair.some_range(chance), chance.randint(0, 3), past, KEYS_ONLY])


@kind
def count(pair: Pair, chance: Random) -> None:
    past = chance.choice([0, pair.some_past(chance)])
    pair.query([protocol.RANGE, *pair.some_range(chance), chance.randint(0, 3), past, COUNT_ONLY])


@kind
def range_past(pair: Pair, chance: Random) -> None:
    pair.query([protocol.RANGE, *pair.some_range(chance), 0, pair.some_past(chance), 0])


@kind
def range_compacted(pair: Pair, chance: Random) -> None:
    if pair.model.compact_revision > 1:
        past = chance.randint(1, pair.model.compact_revision - 1)
        result = pair.query([protocol.RANGE, *pair.some_range(chance), 0, past, 0])
        assert result[0] == protocol.COMPACTED


@kind
def range_of_the_future(pair: Pair, chance: Random) -> None:
    future = pair.model.revision + chance.choice([1, 100])
    result = pair.query([protocol.RANGE, *pair.some_range(chance), 0, future, 0])
    assert result == [protocol.FUTURE_REVISION, pair.model.revision]


@kind
def history(pair: Pair, chance: Random) -> None:
    key, range_end = pair.some_range(chance)
    if not protocol.range_is_inverted(key, range_end):
        start, flags = pair.some_past(chance), chance.choice([0, PREV_KV])
        pair.pages((key, range_end), start, chance.choice([1, 200, 1 << 20]), flags)


@kind
def history_that_is_compacted_or_to_come(pair: Pair, chance: Random) -> None:
    compacted = pair.model.compact_revision
    start = chance.randint(1, compacted - 1) if compacted > 1 else pair.model.revision + 100
    [given] = pair.machine.query([msgpack.packb([protocol.WATCH_HISTORY, *EVERYTHING, start, 0, 0])])
    result = without_text(msgpack.unpackb(given))
    if compacted > 1:
        assert result == [protocol.COMPACTED, compacted]
    else:
        assert result == [protocol.OK, pair.model.revision, 0, 0, False, []]
    pair.codes[protocol.CODE_NAMES[result[0]]] += 1


# ---------------------------------------------------------------- the long form of a range, and paths


def some_selection(pair: Pair, chance: Random) -> list[Any]:
    target = chance.randint(0, 5)
    bounds = [chance.choice([0, chance.randint(0, pair.model.revision + 1)]) for _ in range(4)]
    return [target, chance.randint(0, 1) if target else 0, *bounds]


@kind
def range_sorted_and_chosen(pair: Pair, chance: Random) -> None:
    past = chance.choice([0, pair.some_past(chance)])
    flags = chance.choice([0, KEYS_ONLY, UNCOUNTED, COUNT_ONLY, KEYS_ONLY | UNCOUNTED])
    read = [protocol.RANGE, *pair.some_range(chance), chance.randint(0, 4), past, flags]
    pair.query(read + some_selection(pair, chance))


@kind
def range_uncounted(pair: Pair, chance: Random) -> None:
    pair.query([protocol.RANGE, *pair.some_range(chance), chance.randint(0, 3), 0, UNCOUNTED])


@kind
def transaction_that_sorts(pair: Pair, chance: Random) -> None:
    """What it put is in order with the rest."""
    put = [protocol.PUT, pair.some_key(chance), b"s", 0, 0]
    read = [protocol.RANGE, *pair.some_range(chance), chance.randint(0, 2), 0, chance.choice([0, UNCOUNTED])]
    pair.write(chance, protocol.TXN, [], [put, read + some_selection(pair, chance)], [])


@kind
def children(pair: Pair, chance: Random) -> None:
    path = chance.choice([b"", b"/", b"a", pair.some_key(chance)])
    past = chance.choice([0, pair.some_past(chance), pair.model.revision + 1])
    after = chance.choice([b"", b"", b"a", b"ab"])
    pair.query([protocol.CHILDREN, path, chance.choice([0, 0, 1]), after, past])
