"""What transactions mean, as the plain model has it: every world that might come to pass, one by one.

Knows the numbers of the protocol; compares and operations come as lists, nested transactions in them, too.
"""

from __future__ import annotations

from itertools import product
from typing import Any

from kvstore import protocol

Record = list[Any]


def is_in(name: bytes, key: bytes, range_end: bytes) -> bool:
    if not range_end:
        return name == key
    return name >= key and (range_end == b"\x00" or name < range_end)


def worlds(operations: list[Any]) -> list[list[Any]]:
    """All sequences of puts, deletes and reads that the operations may come to."""
    ways = []
    for operation in operations:
        if operation[0] == protocol.TXN:
            ways.append(worlds(operation[2]) + worlds(operation[3]))
        else:
            ways.append([[operation]])
    return [[each for part in parts for each in part] for parts in product(*ways)]


def is_ambiguous(operations: list[Any]) -> bool:
    """In some world a key is put twice, or put and deleted."""
    for world in worlds(operations):
        keys = [operation[1] for operation in world if operation[0] == protocol.PUT]
        spans = [operation[1:3] for operation in world if operation[0] == protocol.DELETE]
        if len(set(keys)) < len(keys) or any(is_in(key, *span) for key in keys for span in spans):
            return True
    return False


def holds(contents: dict[bytes, Record], compare: list[Any]) -> bool:
    target, result, key, range_end, operand = compare
    found = [record for name, record in contents.items() if is_in(name, key, range_end)]
    if not found:
        if target == protocol.COMPARE_VALUE:
            return False
        found = [[key, b"", 0, 0, 0, 0]]
    for _, value, create_revision, mod_revision, version, lease in found:
        actual: Any = {1: version, 2: create_revision, 3: mod_revision, 4: value, 5: lease}[target]
        if result == protocol.EQUAL and actual != operand:
            return False
        if result == protocol.NOT_EQUAL and actual == operand:
            return False
        if result == protocol.GREATER and actual <= operand:
            return False
        if result == protocol.LESS and actual >= operand:
            return False
    return True
