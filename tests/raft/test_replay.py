"""Records that are intact and yet cannot be, and logs that go with a snapshot or do not.

Only a defect of a program writes such records, so they are made here by hand. This is about snapshots; what
holds of entries and hard states alone is in test_wal.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from raft.entries import HardState, SnapshotMeta
from raft.record import RecordType
from raft.replay import Replay, encode_mark
from raft.segment import Identity, encode_hard_state
from tests.raft.network import batch, entries_of

Record = tuple[int, bytes]


def state(term: int, voted_for: str | None = None) -> Record:
    return RecordType.HARD_STATE, encode_hard_state(HardState(term, voted_for))


def entries(first_index: int, *terms: int) -> Record:
    return RecordType.ENTRIES, batch(first_index, terms).encode()


def mark(index: int, term: int, *, replaces_log: bool) -> Record:
    return RecordType.SNAPSHOT_MARK, encode_mark(index, term, replaces_log=replaces_log)


def replayed(records: Iterable[Record]) -> tuple[Replay, str]:
    """What is rebuilt of these, and the reason why the last of them cannot be."""
    replay, reason = Replay(Identity("cluster", "n1")), ""
    for record_type, payload in records:
        assert reason == "", "only the last one may be refused"
        reason = replay._take(record_type, payload)
    return replay, reason


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([state(1), (RecordType.SNAPSHOT_MARK, b"x")], "has 1 bytes"),
        ([state(1), entries(1, 1), mark(2, 1, replaces_log=False)], "taken of a log up to 1"),
        ([state(1), mark(9, 1, replaces_log=True), mark(8, 1, replaces_log=True)], "begins after 9"),
        ([state(1), mark(9, 1, replaces_log=True), entries(9, 1)], "which a snapshot covers"),
    ],
)
def test_what_cannot_be_is_refused(records: list[Record], reason: str) -> None:
    assert reason in replayed(records)[1]


def test_a_snapshot_that_replaces_the_log_is_followed_by_what_comes_after_it() -> None:
    replay, reason = replayed(
        [state(2), entries(1, 1, 1), mark(9, 2, replaces_log=True), entries(10, 2), entries(10, 2, 2)]
    )
    assert reason == ""
    assert (replay.base_index, replay.base_term, replay.next_index) == (9, 2, 12)
    assert replay.entries == entries_of([2, 2], 10)


def test_a_snapshot_of_the_own_state_leaves_the_log_as_it_is() -> None:
    replay, reason = replayed([state(1), entries(1, 1, 1), mark(2, 1, replaces_log=False)])
    assert (reason, replay.base_index, len(replay.entries)) == ("", 0, 2)


@pytest.mark.parametrize(("index", "term", "kept"), [(1, 1, 3), (3, 1, 3), (3, 2, 0), (5, 1, 0)])
def test_a_log_goes_with_a_snapshot_only_if_it_has_its_last_entry(index: int, term: int, kept: int) -> None:
    """Raft figure 13, rules 6 and 7, in a restart: the power went before the mark of the snapshot did."""
    replay, _ = replayed([state(2), entries(1, 1, 1, 1)])
    recovered = replay.joined(SnapshotMeta(index, term, b"", 0, 0))
    assert not isinstance(recovered, str)
    assert len(recovered.entries) == kept
    assert recovered.first_index == (1 if kept else index + 1)
    assert recovered.last_index >= index
