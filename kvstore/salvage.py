"""What is left of a damaged data directory, as a snapshot file that a new cluster can begin with.

May know: what raft finds in a log, the state machine, and snapshot files; no network. Nothing in that
directory is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from kvstore.backup_file import BackupFile
from kvstore.state_machine import StoreMachine
from kvstore.unusable import UnusableSnapshot, why_unusable
from kvstore.watch_plane import WatchPlane
from raft.entries import SnapshotMeta
from raft.inspection import Inspection, ReadOnlyFiles
from raft.salvage import Remains, find_remains
from raft.snapshot import CHUNK_BYTES, SnapshotHeader, encode_chunk
from raft.state_machine import restore_all
from raft.storage import CorruptLog, CorruptSnapshot, StorageError, StorageFailed, WrongDirectory

ENTRIES_AT_ONCE: Final = 1000


class Salvaged(NamedTuple):
    """What was saved, and what was wrong with the rest."""

    cluster_id: str
    node: str  # empty if nothing that could be read says it
    fenced: str | None  # why it had fenced itself, and what may be wrong because of that
    log_index: int
    term: int
    revision: int
    keys: int
    damages: list[str]  # none: a start would have refused nothing


def salvage(directory: Path, file: Path, *, overwrite: bool = False) -> Salvaged:
    """Write all that can be believed of the data directory, or log, of a node that does not run to `file`.

    Of a node that had fenced itself `fenced` says so: then another member's directory is to be preferred.

    Raises BackupRefused, DirectoryInUse, UnknownFormat where a later version has written, and if nothing is
    left, what is wrong with the log. Takes as much memory as the node.
    """
    with closing(Inspection(directory, makes_do=True)) as inspection:
        cluster_id, node = inspection.identity.cluster_id, inspection.identity.node_id
        mark = inspection.fence()
        remains = find_remains(
            inspection, lambda found: why_unusable(found.file, ReadOnlyFiles(), cluster_id)
        )
        machine = _rebuilt(remains)
        term, index = remains.end
        _write(file, SnapshotMeta(index, term, remains.configuration, 0, 0), cluster_id, machine, overwrite)
    status = machine.status()
    revision, keys = status["revision"], status["keys"]
    assert isinstance(revision, int) and isinstance(keys, int)
    fenced = None if mark is None else mark.warning()
    damages = [_place(damage) for damage in remains.damages]
    return Salvaged(cluster_id, node, fenced, index, term, revision, keys, damages)


def _place(damage: StorageError) -> str:
    """Where and what it is, without what is advised to those who have another copy."""
    if isinstance(damage, UnusableSnapshot):
        return f"{damage.file}, log index {damage.index}: the store cannot restore it: {damage.reason}"
    if isinstance(damage, CorruptLog | CorruptSnapshot):
        return f"{damage.file} at byte {damage.offset}, log index {damage.index}: {damage.reason}"
    remedy = damage.remedy if isinstance(damage, StorageFailed | WrongDirectory) else ""
    return str(damage).removesuffix(f". {remedy}")


def _rebuilt(remains: Remains) -> StoreMachine:
    machine = StoreMachine(WatchPlane(1))
    if remains.snapshot is not None:
        restore_all(machine, remains.content())
    for first_index, bodies in remains.commands(ENTRIES_AT_ONCE):
        machine.apply(first_index, bodies)
    return machine


def _write(file: Path, meta: SnapshotMeta, cluster_id: str, machine: StoreMachine, overwrite: bool) -> None:
    """Twice through the state, which gives the same bytes: what is known of all of it comes first."""
    size_bytes = checksum = 0
    for piece in machine.snapshot():
        size_bytes += len(piece)
        checksum = crc32(piece, checksum)
    meta = meta._replace(size_bytes=size_bytes, checksum=checksum)
    backup = BackupFile(file, overwrite=overwrite)
    try:
        backup.write(SnapshotHeader(cluster_id, CHUNK_BYTES, meta).encode())
        for number, chunk in enumerate(_chunks(machine.snapshot())):
            backup.write(encode_chunk(meta, number, chunk))
        backup.commit()
    finally:
        backup.abandon()


def _chunks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, cut as a snapshot file has them."""
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        while len(buffer) >= CHUNK_BYTES:
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer:
        yield bytes(buffer)
