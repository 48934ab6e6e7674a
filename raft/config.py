"""The bounds of one core. Each queue, window and batch in the core is limited by a number in this file."""

from __future__ import annotations

from dataclasses import dataclass

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Shared by all who want it; never changes. Sizes of entries include their framing (see raft/log.py)."""

    # One AppendEntries carries at most so much, but always at least one entry.
    max_append_bytes: int = MEBIBYTE
    max_append_entries: int = 4096
    # The pipeline to one peer: appends sent and not yet acknowledged (dissertation 10.2.2). A heartbeat waits
    # behind all of it. It is twice what a peer takes in one turn: one half is written, the other on its way.
    max_inflight_messages: int = 64
    max_inflight_bytes: int = 8 * MEBIBYTE
    # Proposals of this leader that are not committed yet; beyond it propose() raises Overloaded.
    max_uncommitted_bytes: int = 64 * MEBIBYTE
    # What one ready() hands to the state machine at most, but always at least one entry.
    max_committed_bytes_per_ready: int = 4 * MEBIBYTE
    max_committed_entries_per_ready: int = 4096
    # While the state machine is behind nothing more is handed to it. What is committed and waits for that may
    # be so much: beyond either of these propose() raises Overloaded. The bytes are those of this leader's own
    # proposals.
    max_unapplied_entries: int = 65_536
    max_unapplied_bytes: int = 64 * MEBIBYTE
    # Reads, of this node or of followers, that wait for a quorum round; beyond it read_index() raises
    # Overloaded.
    max_waiting_reads: int = 65536
    # A snapshot is taken after so many entries at the earliest, and not before the log since the last one is
    # half as large as that one; but at once when the log is larger than max_log_bytes.
    snapshot_interval_entries: int = 100_000
    max_log_bytes: int = 256 * MEBIBYTE
    # Entries before a snapshot that are kept, for peers that are only a little behind.
    trailing_entries: int = 10_000
    # Snapshots travel in chunks; so many of them may be on their way to one peer.
    snapshot_chunk_bytes: int = 256 * KIBIBYTE
    max_inflight_snapshot_chunks: int = 4
    # In elections: 0 never leads; of the others a higher one tends to lead (see raft/transfer.py).
    priority: int = 1
    # A number below 2**31 that differs between two runs of a node. It marks this run's read requests, so that
    # a late answer to an earlier run is never taken for an answer to this one.
    incarnation: int = 0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            least = 0 if name in ("incarnation", "priority", "trailing_entries") else 1
            assert value >= least, f"{name} is {value}, and must be at least {least}"
        assert self.incarnation < 1 << 31, f"incarnation {self.incarnation} does not fit in 31 bits"
