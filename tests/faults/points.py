"""What each call of the disk is for: the points of the write path, named in words.

Judges a call by the file that it concerns and by the bytes that it writes. Knows the names and layouts of
docs/disk.md from there, and asks nothing of the code that wrote them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

HEADER_BYTES = 32
SEGMENT_HEAD_BYTES = 512
ENTRIES, HARD_STATE, MARK, SEAL = 1, 2, 3, 5
RECORD_NAMES = {ENTRIES: "entries", HARD_STATE: "hard state", MARK: "snapshot mark", SEAL: "seal"}

FIRST = "first start: "
TORN = "torn tail: "
START = "start: "

# Every point of the write path, in the order in which a life passes them.
POINTS = (
    FIRST + "write segment",
    FIRST + "sync segment",
    FIRST + "rename segment",
    FIRST + "sync directory",
    FIRST + "write identity",
    FIRST + "sync identity",
    FIRST + "rename identity",
    START + "make directory",
    START + "write lock",
    START + "read",
    START + "sync segment",
    START + "sync directory",
    "write entries",
    "sync entries",
    "write hard state",
    "sync hard state",
    "segment switch: create next",
    "segment switch: fill next",
    "segment switch: write head",
    "segment switch: sync head",
    "segment switch: rename",
    "segment switch: sync directory",
    "segment switch: write seal",
    "segment switch: sync seal",
    "reserve: create draft",
    "reserve: fill",
    "reserve: sync",
    "reserve: rename",
    "reserve: sync directory",
    "reserve: write head",
    "snapshot: create draft",
    "snapshot: write chunk",
    "snapshot: write header",
    "snapshot: sync draft",
    "snapshot: rename",
    "snapshot: sync directory",
    "snapshot: write mark",
    "snapshot: sync mark",
    "compaction: unlink segment",
    "compaction: unlink snapshot",
    "compaction: unlink copy",
    "compaction: sync directory",
    "compaction: give back space",
    TORN + "create copy",
    TORN + "write copy",
    TORN + "sync copy",
    TORN + "overwrite",
    "unlink draft",
    "unlink spare",
)

_SPARES = ("next.tmp",)
_RECORD_POINTS = {
    SEAL: "segment switch: write seal",
    MARK: "snapshot: write mark",
    ENTRIES: "write entries",
    HARD_STATE: "write hard state",
}


def kind_of(path: Path) -> str:
    """Which of the files of a data directory this is."""
    name = path.name
    for suffix, kind in ((".wal", "segment"), (".broken", "copy")):
        if name.endswith(suffix):
            return kind
    if name in _SPARES:
        return "spare"
    if name.startswith("snapshot-"):
        return "snapshot"
    return {
        "snapshot.tmp": "draft",
        "identity.tmp": "identity draft",
        "reserve.tmp": "reserve draft",
    }.get(name, name)


class Record(NamedTuple):
    """Where one record of a segment stands."""

    start: int
    stop: int
    kind: int
    turn: int  # where its turn begins: everything before was synced when it was written


def records_in(data: bytes, start: int = 0) -> list[Record]:
    """The whole records from `start` on, one behind the other, in bytes that nobody has harmed yet."""
    found = []
    while start + HEADER_BYTES <= len(data) and data[start + HEADER_BYTES - 1] == 0xA5:
        length, crc, _, _, turn, _, kind = struct.unpack_from("<IIIIIIB", data, start + 4)
        stop = start + (length + 2 * HEADER_BYTES & -HEADER_BYTES)
        if crc32(data[start + HEADER_BYTES : stop]) != crc:
            break  # torn
        found.append(Record(start, stop, kind, turn))
        start = stop
    return found


def point_of_write(path: Path, data: bytes, offset: int, *, is_first: bool) -> str:
    kind = kind_of(path)
    if kind == "segment":
        kinds = {record.kind for record in records_in(data)}
        for record_kind, point in _RECORD_POINTS.items():
            if record_kind in kinds:
                return point
        return TORN + "overwrite"
    if kind == "spare":
        if is_first:
            return FIRST + "write segment"
        return "segment switch: write head" if data.startswith(b"ASSENT") else "segment switch: fill next"
    if kind == "draft":
        return "snapshot: write chunk" if offset else "snapshot: write header"
    return {
        "copy": TORN + "write copy",
        "identity draft": FIRST + "write identity",
        "lock": START + "write lock",
        "reserve draft": "reserve: fill",
        "reserve": "reserve: write head",
    }[kind]


def point_of_sync(path: Path, last_write: str, *, is_first: bool) -> str:
    """`last_write`: the point at which the file was written to last; empty if all of it is synced."""
    kind = kind_of(path)
    if kind == "segment":
        is_record = last_write in _RECORD_POINTS.values()
        return last_write.replace("write", "sync") if is_record else START + "sync segment"
    if kind == "spare":
        return FIRST + "sync segment" if is_first else "segment switch: sync head"
    return {
        "draft": "snapshot: sync draft",
        "reserve draft": "reserve: sync",
        "reserve": "segment switch: sync head",
        "copy": TORN + "sync copy",
        "identity draft": FIRST + "sync identity",
    }[kind]


def point_of_rename(target: Path, *, is_first: bool) -> str:
    kind = kind_of(target)
    if kind == "segment":
        return FIRST + "rename segment" if is_first else "segment switch: rename"
    return {
        "snapshot": "snapshot: rename",
        "reserve": "reserve: rename",
        "identity": FIRST + "rename identity",
    }[kind]


def point_of_directory_sync(last_change: str) -> str:
    """`last_change`: the point at which a name in it was changed last; empty if all names are durable."""
    if last_change.startswith(FIRST):
        return FIRST + "sync directory"
    if last_change.startswith("compaction"):
        return "compaction: sync directory"
    if last_change.endswith(": rename"):
        return last_change.removesuffix("rename") + "sync directory"
    return START + "sync directory"


def point_of_create(path: Path, *, is_first: bool) -> str:
    kind = kind_of(path)
    if kind == "spare":
        return FIRST + "write segment" if is_first else "segment switch: create next"
    return {
        "draft": "snapshot: create draft",
        "reserve draft": "reserve: create draft",
        "copy": TORN + "create copy",
        "identity draft": FIRST + "write identity",
    }[kind]


def point_of_unlink(path: Path) -> str:
    kind = kind_of(path)
    if kind in ("segment", "snapshot", "copy"):
        return f"compaction: unlink {kind}"
    return "unlink spare" if kind == "spare" else "unlink draft"
