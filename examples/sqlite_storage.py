"""A storage of one's own: everything that a replica must not forget, in an SQLite file.

    Replica("n1", Counter(), members=members, storage=SqliteStorage("n1.sqlite"))

raft.storage_contract says whether it does what it must.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from zlib import crc32

from raft import EntryBatch, HardState, Recovered
from raft.storage import SnapshotMeta

SCHEMA = """PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY, term INT, voted_for TEXT, commit_index INT);
CREATE TABLE IF NOT EXISTS entries (place INTEGER PRIMARY KEY, term INT, kind INT, body BLOB);
CREATE TABLE IF NOT EXISTS snapshots (place INTEGER PRIMARY KEY, term INT, configuration, content);"""
GONE = -1  # the kind of the last entry that was compacted: its place and term are still needed


class SqliteStorage:
    """A transaction is open from the first append to the sync, which commits it."""

    def __init__(self, path: Path | str) -> None:
        self.db = sqlite3.connect(path, check_same_thread=False)  # made here, used by the loop's thread
        self.db.executescript(SCHEMA)
        self.draft = (0, 0, b"", bytearray())  # of a snapshot: index, term, configuration, content

    def load(self) -> Recovered:
        state = self.db.execute("SELECT term, voted_for, commit_index FROM state").fetchone() or ()
        rows = self.db.execute("SELECT * FROM entries ORDER BY place").fetchall()
        gone, previous_term, *_ = rows.pop(0) if rows and rows[0][2] == GONE else (0, 0)
        found = self.db.execute("SELECT * FROM snapshots ORDER BY place DESC LIMIT 1").fetchone()
        snapshot = describe(*found) if found else None
        entries = [(term, kind, body) for _, term, kind, body in rows]
        return Recovered(HardState(*state), gone + 1, entries, previous_term, snapshot)

    def append(self, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        if hard_state is not None:
            self.db.execute("REPLACE INTO state VALUES (0, ?, ?, ?)", hard_state)
        if batch is not None:
            self.db.execute("DELETE FROM entries WHERE place >= ?", (batch.first_index,))
            rows = [(place, *entry) for place, entry in enumerate(batch.entries, batch.first_index)]
            self.db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)

    def sync(self) -> None:
        self.db.commit()

    def begin_snapshot(self, index: int, term: int, configuration: bytes) -> None:
        self.draft = (index, term, configuration, bytearray())

    def append_snapshot(self, data: bytes) -> None:
        self.draft[3].extend(data)

    def commit_snapshot(self, *, replaces_log: bool) -> SnapshotMeta:
        index, term, *_ = self.draft
        self.db.execute("REPLACE INTO snapshots VALUES (?, ?, ?, ?)", self.draft)
        if replaces_log:
            self.db.execute("DELETE FROM entries")
            self.db.execute("INSERT INTO entries VALUES (?, ?, ?, '')", (index, term, GONE))
        self.db.commit()
        return describe(*self.draft)

    def abandon_snapshot(self) -> None:
        """Nothing is to be undone: it is in memory until it is committed."""

    def read_snapshot(self, index: int, offset: int, size_bytes: int) -> bytes:
        part = "SELECT substr(content, ?, ?) FROM snapshots WHERE place = ?"
        return bytes(self.db.execute(part, (offset + 1, size_bytes, index)).fetchone()[0])

    def compact(self, index: int, keep_snapshots: frozenset[int] = frozenset()) -> None:
        self.db.execute("DELETE FROM entries WHERE place < ?", (index,))
        self.db.execute("UPDATE entries SET kind = ?, body = '' WHERE place = ?", (GONE, index))
        kept = ", ".join(str(place) for place in keep_snapshots)
        older = "place < (SELECT max(place) FROM snapshots)"
        self.db.execute(f"DELETE FROM snapshots WHERE {older} AND place NOT IN ({kept})")

    def close(self) -> None:
        self.db.close()


def describe(index: int, term: int, configuration: bytes, content: bytes | bytearray) -> SnapshotMeta:
    return SnapshotMeta(index, term, configuration, len(content), crc32(content))
