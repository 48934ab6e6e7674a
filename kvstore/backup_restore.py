"""A data directory for a node of a new cluster that begins with what a snapshot file holds.

May know: snapshot files, the state machine (to see that it can read the content) and data directories; no
network. The new cluster's id follows from the file, the members and a token, so that it is the same for every
node that is made of the same: and never the old one's, so that neither nodes nor running clients mix the two.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from kvstore.backup_file import USE_ANOTHER, reading
from kvstore.protocol_snapshot import SLICE_BYTES
from kvstore.unusable import restored_in_memory
from raft import Configuration
from raft.restoration import restore_directory
from raft.snapshot import SnapshotHeader, SnapshotReader


class RestoredNode(NamedTuple):
    """What a new directory holds."""

    node: str
    cluster_id: str
    old_cluster_id: str
    members: dict[str, str]  # name to peer endpoint
    log_index: int
    term: int
    revision: int
    keys: int
    size_bytes: int


def restore_node(
    file: Path, *, name: str, data_dir: Path, members: Mapping[str, str], token: str = ""
) -> RestoredNode:
    """Make `data_dir` of the snapshot in `file`, for the node `name` of `members`.

    Everything is verified first. Raises DamagedBackup, UnusableSnapshot, UnknownFormat, WrongDirectory,
    DirectoryInUse, StorageFailed.
    """
    assert name in members, f"{name} is not among {sorted(members)}"
    with reading(file) as reader:
        revision, keys = _contents(file, reader)
        header = reader.header
        cluster_id = derive_restored_id(header, members, token)
        configuration = Configuration(members, addresses=members).encode()
        meta = header.meta._replace(configuration=configuration)
        storage_id = f"{secrets.randbits(63) or 1:016x}"
        restore_directory(data_dir, f"{cluster_id:016x}", name, storage_id, meta, _slices(reader))
    return RestoredNode(
        name,
        f"{cluster_id:016x}",
        header.cluster_id,
        dict(members),
        meta.index,
        meta.term,
        revision,
        keys,
        meta.size_bytes,
    )


def derive_restored_id(header: SnapshotHeader, members: Mapping[str, str], token: str) -> int:
    """63 bits of SHA-256 over which snapshot it is, "name=endpoint" of each member, sorted, and the token."""
    meta = header.meta
    origin = f"{header.cluster_id} {meta.index} {meta.term} {meta.size_bytes} {meta.checksum}"
    parts = [origin, *(f"{name}={members[name]}" for name in sorted(members)), token]
    for attempt in range(1000):
        digest = sha256("\0".join(["assent restore", str(attempt), *parts]).encode()).digest()
        cluster_id = int.from_bytes(digest[:8], "big") >> 1
        if cluster_id and f"{cluster_id:016x}" != header.cluster_id:
            return cluster_id
    raise AssertionError("a thousand digests are the same")


def _contents(file: Path, reader: SnapshotReader) -> tuple[int, int]:
    """Revision and number of keys, once the state machine has taken all of it in: as the node will."""
    status = restored_in_memory(reader, file, remedy=USE_ANOTHER).status()
    revision, keys = status["revision"], status["keys"]
    assert isinstance(revision, int) and isinstance(keys, int)
    return revision, keys


def _slices(reader: SnapshotReader) -> Iterator[bytes]:
    for offset in range(0, reader.meta.size_bytes, SLICE_BYTES):
        yield reader.read(offset, SLICE_BYTES)
