"""What a leader knows of one peer. A small machine of its own; knows no messages, and nothing of other peers.

PROBE: where the logs meet is not known; one append at a time. REPLICATE: it is known; appends are sent
ahead of their acknowledgements, within a window (dissertation 10.2.1, 10.2.2). SNAPSHOT: the peer needs
entries that are compacted away; nothing is appended until it holds the snapshot.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from raft.config import RaftConfig
from raft.entries import Index
from raft.snapshot_sender import SnapshotSender


class ProgressState(Enum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """Appends on their way to one peer, in log order, and their bytes."""

    __slots__ = ("_appends", "_max_bytes", "_max_messages", "bytes")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._appends: deque[tuple[Index, int]] = deque()  # (last index, bytes) of each
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.bytes = 0  # the sum over _appends

    def __len__(self) -> int:
        return len(self._appends)

    def has_room(self) -> bool:
        """The window may be passed by the last append that entered it, never by two."""
        return len(self._appends) < self._max_messages and self.bytes < self._max_bytes

    def add(self, last_index: Index, size_bytes: int) -> None:
        self._appends.append((last_index, size_bytes))
        self.bytes += size_bytes

    def release_through(self, match_index: Index) -> None:
        appends = self._appends
        while appends and appends[0][0] <= match_index:
            self.bytes -= appends.popleft()[1]

    def clear(self) -> None:
        self._appends.clear()
        self.bytes = 0


class Progress:
    """Owned by one leader; exists as long as its leadership."""

    __slots__ = (
        "commit_index_sent",
        "inflights",
        "is_active",
        "match_index",
        "next_index",
        "priority",
        "probe_sent",
        "read_round",
        "sender",
        "state",
        "verify_due",
        "was_active",
    )

    def __init__(self, next_index: Index, config: RaftConfig, *, is_active: bool) -> None:
        self.state = ProgressState.PROBE
        self.match_index: Index = 0  # durable at the peer; never decreases
        self.next_index: Index = next_index  # always > match_index
        self.inflights = Inflights(config.max_inflight_messages, config.max_inflight_bytes)
        self.probe_sent = False  # PROBE only: an answer is awaited, or a heartbeat to try again
        self.verify_due = False  # REPLICATE only: an empty append shall show whether appends got lost
        self.commit_index_sent: Index = 0  # highest that an append told the peer; it may have been lost
        self.read_round = 0  # highest round of heartbeats that the peer answered; never decreases
        self.is_active = is_active  # heard since the last check_quorum
        self.was_active = False  # heard in the election timeout before that
        self.priority = 1  # of the peer in elections, as it last said
        self.sender: SnapshotSender | None = None  # SNAPSHOT only, and there always

    def wants_append(self, last_index: Index, commit_index: Index) -> bool:
        """Is there anything to tell, and may it be told now?"""
        if self.state is ProgressState.REPLICATE:
            has_news = self.next_index <= last_index or self.commit_index_sent < commit_index
            return self.verify_due or (has_news and self.inflights.has_room())
        return self.state is ProgressState.PROBE and not self.probe_sent

    def can_be_told(self, commit_index: Index) -> bool:
        """Was the peer not told of this commit index, and is it in a state in which an append may tell it?"""
        return (
            self.commit_index_sent < commit_index
            and self.state is ProgressState.REPLICATE
            and self.inflights.has_room()
        )

    def note_sent(self, last_index: Index, size_bytes: int, commit_index: Index) -> None:
        """An append that ends at `last_index` leaves; an empty one ends where it begins."""
        self.verify_due = False
        self.commit_index_sent = max(self.commit_index_sent, commit_index)
        if self.state is ProgressState.PROBE:
            self.probe_sent = True
        elif last_index >= self.next_index:
            self.next_index = last_index + 1  # optimistic: the next append need not wait for this one
            self.inflights.add(last_index, size_bytes)

    def acknowledge(self, match_index: Index) -> bool:
        """The peer holds all up to `match_index`. True if that is news; late answers are none."""
        is_news = match_index > self.match_index
        if is_news:
            self.match_index = match_index
            self.next_index = max(self.next_index, match_index + 1)
            self.inflights.release_through(match_index)
            # The answers came along with the heartbeat's: nothing is owed, so there is nothing to ask.
            self.verify_due = self.verify_due and match_index + 1 < self.next_index
        # SNAPSHOT ends here too, once the peer is found to hold what it needed.
        if (
            self.state is not ProgressState.REPLICATE
            and match_index == self.match_index
            and (self.sender is None or match_index >= self.sender.meta.index)
        ):
            self._become_replicate()
        return is_news

    def reject(self, prev_index: Index, resume_index: Index) -> bool:
        """The peer's log does not match at `prev_index`. False if the answer is out of date.

        A rejection at or below match_index is always a late one: what matched in this term stays.
        """
        if not self.match_index < prev_index < self.next_index or self.state is ProgressState.SNAPSHOT:
            return False  # also if it is about more than was ever sent
        if self.state is ProgressState.PROBE and prev_index != self.next_index - 1:
            return False
        self.become_probe(max(self.match_index + 1, min(prev_index, resume_index)))
        return True

    @property
    def is_live(self) -> bool:
        """Was it heard within the last election timeout, or the one before?"""
        return self.is_active or self.was_active

    def end_timeout(self) -> None:
        """An election timeout has passed. Who was silent in it is presumed unreachable: one question at a
        time then, or all that it may have in flight would be lost, or waits for its return."""
        if not self.is_active and self.state is ProgressState.REPLICATE:
            self.become_probe(self.match_index + 1)
        elif not self.is_active and self.sender is not None:
            self.become_probe(self.match_index + 1)  # or an old snapshot would be kept for it for ever
        self.was_active, self.is_active = self.is_active, False

    def heard_heartbeat(self) -> None:
        """The peer is there. If it owes answers, find out whether it got the question."""
        self.is_active = True
        if self.state is ProgressState.PROBE:
            self.probe_sent = False
        elif self.state is ProgressState.REPLICATE and self.match_index + 1 < self.next_index:
            self.verify_due = True
        elif self.sender is not None:
            self.sender.heard_heartbeat()

    def become_probe(self, next_index: Index) -> None:
        self.state = ProgressState.PROBE
        self.next_index = next_index
        self.probe_sent = False
        self.verify_due = False
        self.sender = None
        self.inflights.clear()

    def become_snapshot(self, sender: SnapshotSender) -> None:
        self.state = ProgressState.SNAPSHOT
        self.sender = sender
        self.inflights.clear()

    def _become_replicate(self) -> None:
        self.state = ProgressState.REPLICATE
        self.next_index = self.match_index + 1
        self.sender = None
