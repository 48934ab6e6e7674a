"""The checks that every Storage must pass, on those that are here; and that each of them can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raft.entries import EntryBatch, HardState
from raft.files import OsFiles
from raft.segment import Identity
from raft.storage import MemoryStorage, Recovered, SnapshotMeta
from raft.storage_contract import CHECKS, ContractBroken, Opener
from raft.wal import WriteAheadLog

by_name = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


@by_name
def test_the_storage_in_memory(check: Callable[[Opener], None]) -> None:
    storage = MemoryStorage()
    check(lambda: storage)


@by_name
def test_the_write_ahead_log(check: Callable[[Opener], None], tmp_path: Path) -> None:
    identity = Identity("1", "n1")
    WriteAheadLog.create(tmp_path / "wal", OsFiles(), identity)
    check(lambda: WriteAheadLog(tmp_path / "wal", OsFiles(), identity))


class Broken(MemoryStorage):
    """A storage with one mistake, by name."""

    __slots__ = ("_state", "mistake")

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake
        self._state: HardState | None = None

    def load(self) -> Recovered:
        found = super().load()
        if self.mistake == "forgets the vote":
            found.hard_state = found.hard_state._replace(voted_for=None)
        if self.mistake == "begins in term 1" and not found.hard_state.term:
            found.hard_state = HardState(1)
        if self.mistake == "forgets the snapshot":
            found.snapshot = None
        if self.mistake == "forgets the term before the log":
            found.previous_term = 0
        return found

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        if self.mistake == "forgets a vote without entries" and batch is None:
            return
        if self.mistake == "keeps what should be overwritten" and batch is not None:
            batch = EntryBatch(self._durable.last_index + 1, batch.entries)
        if self.mistake == "writes entries before the term" and self._durable.entries:
            super().append(None, batch)
            super().sync()
            return
        super().append(hard_state, batch)

    def sync(self) -> None:
        if self.mistake == "syncs nothing":
            self._unsynced.clear()
        if self.mistake == "syncs the last append only":
            del self._unsynced[:-1]
        super().sync()

    def commit_snapshot(self, *, replaces_log: bool) -> SnapshotMeta:
        kept = self.mistake == "keeps the log that a snapshot replaces"
        return super().commit_snapshot(replaces_log=replaces_log and not kept)

    def append_snapshot(self, data: bytes) -> None:
        if self.mistake == "keeps the last part of a snapshot" and self._draft is not None and data:
            self._draft[3].clear()
        super().append_snapshot(data)

    def begin_snapshot(self, index: int, term: int, configuration: bytes) -> None:
        before = self._draft
        super().begin_snapshot(index, term, configuration)
        if self.mistake == "goes on with a snapshot that was given up" and before and self._draft:
            self._draft[3].extend(before[3])

    def compact(self, index: int, keep_snapshots: frozenset[int] = frozenset()) -> bool:
        if self.mistake == "compacts up to the snapshot" and self._durable.snapshot is not None:
            index = self._durable.snapshot.index
        if self.mistake == "keeps one snapshot only":
            keep_snapshots = frozenset()
        return super().compact(index, keep_snapshots)


@pytest.mark.parametrize(
    "mistake",
    [
        "forgets the vote",
        "begins in term 1",
        "forgets the snapshot",
        "forgets the term before the log",
        "forgets a vote without entries",
        "keeps what should be overwritten",
        "writes entries before the term",
        "syncs nothing",
        "syncs the last append only",
        "keeps the log that a snapshot replaces",
        "keeps the last part of a snapshot",
        "goes on with a snapshot that was given up",
        "compacts up to the snapshot",
        "keeps one snapshot only",
    ],
)
def test_a_mistake_is_found(mistake: str) -> None:
    found = 0
    for check in CHECKS:
        storage = Broken(mistake)
        try:
            check(lambda storage=storage: storage)  # type: ignore[misc]
        except (ContractBroken, AssertionError, KeyError):
            found += 1
    assert found, mistake


def test_no_mistake_is_found_where_there_is_none() -> None:
    for check in CHECKS:
        storage = Broken("")
        check(lambda storage=storage: storage)  # type: ignore[misc]
