"""A node's data directory, made without the node, and the ways in which one is found damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zlib import crc32

import msgpack

from kvstore import protocol
from kvstore.cli import exits
from kvstore.settings import derive_cluster_id
from raft.directory import DataDirectory
from raft.entries import EntryBatch, HardState, SnapshotMeta
from raft.fields import decode_fields, encode_fields
from raft.membership import Configuration
from raft.record import RecordType, stored_payload
from raft.segment import SegmentReader, decode_segment_header, segment_name
from raft.snapshot import CHUNK_BYTES, SnapshotHeader, encode_chunk, snapshot_name
from tests.kvstore.machine_log import Log
from tests.raft.disk import compact_wholly

SEGMENT_BYTES = 4096
STORAGE_ID = "0011223344556677"
ENTRIES = 24


def put_at(index: int) -> bytes:
    """The command of the entry at `index`."""
    return protocol.put_body(0, 0, 0, b"/key/%d" % index, b"value %d " % index * 60)


def make_directory(
    path: Path,
    members: dict[str, str],
    node: str = "n1",
    *,
    compacted_at: int = 0,
    snapshot_at: int = 0,
    content: bytes | None = None,
    segment_bytes: int = SEGMENT_BYTES,
) -> None:
    """A log of several segments and 24 entries of term 2, all of them puts but the first.

    With `content`, that is what is in its snapshots, instead of the store's state."""
    cluster_id = f"{derive_cluster_id(members):016x}"
    directory = DataDirectory(path, cluster_id, node, storage_id=STORAGE_ID, members=members)
    log, machine = directory.open_log(segment_bytes=segment_bytes), Log().machine
    log.load()
    for index in range(1, ENTRIES + 1):
        entry = (2, 1, put_at(index)) if index > 1 else (2, 0, b"")
        log.append(HardState(2, node, index - 1), EntryBatch(index, [entry]))
        log.sync()
        machine.apply(index, [entry[2] or None])
        if index in (compacted_at, snapshot_at):
            log.begin_snapshot(index, 2, Configuration(members, addresses=members).encode())
            for piece in machine.snapshot() if content is None else [content]:
                log.append_snapshot(piece)
            log.commit_snapshot(replaces_log=False)
        if index == compacted_at:
            compact_wholly(log, index)
    log.close()
    directory.close()
    (path / "lock").unlink()


def state_at(index: int) -> bytes:
    """What a store would write that has applied so many entries."""
    machine = Log().machine
    machine.apply(1, [None] * index)
    return b"".join(machine.snapshot())


def bent_state(index: int) -> bytes:
    """One bit of the fingerprint in its header is another one, as bad memory leaves it."""
    header, *rest = msgpack.Unpacker(BytesIO(state_at(index)))
    header[5] ^= 1
    return b"".join(map(msgpack.packb, (header, *rest)))


def later_state(index: int) -> bytes:
    """What a later version would write: of its content no more is known than that version."""
    return b"".join(map(msgpack.packb, ([4, index, {"colour": "blue"}], "and so on")))


def put_snapshot(
    path: Path, index: int, content: bytes, *, chunk_bytes: int = CHUNK_BYTES, version: int = 1
) -> None:
    """A snapshot file in the log of the directory, in which every checksum is right."""
    identity = json.loads((path / "identity").read_bytes())
    configuration = Configuration(identity["members"], addresses=identity["members"]).encode()
    meta = SnapshotMeta(index, 2, configuration, len(content), crc32(content))
    header = SnapshotHeader(identity["cluster_id"], chunk_bytes, meta).encode()[:-4]
    header = header[:8] + version.to_bytes(4, "little") + header[12:]
    starts = range(0, len(content), chunk_bytes)
    chunks = [
        encode_chunk(meta, place // chunk_bytes, content[place : place + chunk_bytes]) for place in starts
    ]
    file = path / "wal" / snapshot_name(index, 2)
    file.write_bytes(b"".join((header, crc32(header).to_bytes(4, "little"), *chunks)))


def segments_in(path: Path) -> list[Path]:
    return sorted((path / "wal").glob("*.wal"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def _record_decays(path: Path) -> None:
    flip(segments_in(path)[1], 700)


def _last_record_decays(path: Path) -> None:
    last = segments_in(path)[-1]
    flip(last, len(last.read_bytes().rstrip(b"\0")) - 40)


def _snapshot_decays(path: Path) -> None:
    [snapshot] = (path / "wal").glob("snapshot-*")
    flip(snapshot, snapshot.stat().st_size - 100)


def _entries_of_a_later_term(path: Path) -> None:
    """As though the hard state that belongs to them had never been written."""
    last = segments_in(path)[-1]
    data = last.read_bytes()
    header = decode_segment_header(data)
    assert not isinstance(header, str)
    reader = SegmentReader(data, header)
    for _ in reader.records():
        pass
    entries = EntryBatch(ENTRIES + 1, [(3, 0, b"")]).encode()
    record = b"".join(reader.writer().encode(RecordType.ENTRIES, stored_payload(entries)))
    last.write_bytes(data[: reader.end] + record + data[reader.end + len(record) :])


def _segment_is_missing(path: Path) -> None:
    segments_in(path)[1].unlink()


def _newest_segment_is_missing(path: Path) -> None:
    segments_in(path)[-1].unlink()


def _log_is_missing(path: Path) -> None:
    shutil.rmtree(path / "wal")


def _identity_decays(path: Path) -> None:
    (path / "identity").write_bytes(b"\0" * 100)


def _identity_of_a_later_version(path: Path) -> None:
    content = decode_fields((path / "identity").read_bytes())
    assert content is not None
    (path / "identity").write_bytes(encode_fields(content | {"format": 9, "colour": "blue"}))


def _log_of_a_later_version(path: Path) -> None:
    last = segments_in(path)[-1]
    data = last.read_bytes()
    block = data[:8] + (9).to_bytes(4, "little") + data[12:508]
    last.write_bytes(block + crc32(block).to_bytes(4, "little") + data[512:])


def _log_of_another_node(path: Path) -> None:
    """One disk's log in another one's directory."""
    members = json.loads((path / "identity").read_bytes())["members"]
    make_directory(path.parent / "other", members, "n2")
    shutil.rmtree(path / "wal")
    (path.parent / "other" / "wal").rename(path / "wal")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to a directory, and how a start refuses it."""

    do: Callable[[Path], None]
    code: int
    file: str  # that is named
    reason: str
    where: str = r"at byte \d+, log index \d+"
    remedy: str = "remove this member"
    snapshot_at: int = 0
    compacted_at: int = 0

    @property
    def name(self) -> str:
        return self.do.__name__.strip("_")


SECOND = segment_name(2)
DAMAGES = (
    Damage(_record_decays, exits.CORRUPT, SECOND, "checksum"),
    Damage(_last_record_decays, exits.CORRUPT, ".wal", "no unfinished write leaves that"),
    Damage(_snapshot_decays, exits.CORRUPT, "snapshot-", "chunk 0 is damaged", compacted_at=20),
    Damage(_entries_of_a_later_term, exits.CORRUPT, ".wal", "in a log of term 2"),
    Damage(_segment_is_missing, exits.CORRUPT, SECOND, "this segment is missing"),
    Damage(_newest_segment_is_missing, exits.CORRUPT, ".wal", "this segment is missing: the one before it"),
    Damage(_log_is_missing, exits.CORRUPT, "wal", "no segment of it is there"),
    Damage(_log_of_another_node, exits.CORRUPT, segment_name(1), "the identity in the segment header"),
    Damage(_identity_decays, exits.DATA_DIRECTORY, "identity", "it is not what was written", where=""),
    Damage(
        _identity_of_a_later_version,
        exits.DATA_DIRECTORY,
        "data",
        "format is 9, expected 2",
        where="",
        remedy="or with a later one",
    ),
    Damage(
        _log_of_a_later_version,
        exits.DATA_DIRECTORY,
        ".wal",
        "has format version 9, this program reads versions up to 3",
        where="",
        remedy="or with a later one",
    ),
)
