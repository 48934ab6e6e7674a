"""Log replication: consistency check, conflicts, batches, and what leaves before and after the sync."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import EntryBatch, SnapshotMeta
from raft.errors import InvariantBroken
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
)
from raft.ready import Role
from tests.raft.cores import append_of
from tests.raft.network import (
    batch,
    drain,
    entries_of,
    make_core,
    make_leader,
    outgoing,
    terms_of,
)


def compacted(snapshot_index: int, snapshot_term: int, terms: list[int]) -> Core:
    """A follower whose log begins after a snapshot."""
    core = make_core(log=[snapshot_term] * snapshot_index + terms, commit_index=snapshot_index)
    drain(core)
    core.snapshots.note_taken(SnapshotMeta(snapshot_index, snapshot_term, b"", 0, 0))
    core.compact(snapshot_index)
    return core


# -- the leader's side -----------------------------------------------------------------------------------


def test_three_proposals_of_a_turn_make_one_append_to_each_peer() -> None:
    core = make_leader(voters="abcd")
    for peer in "bcd":
        core.step(peer, AppendResponse(1, 1))
    drain(core)
    assert [core.propose([b"1"]), core.propose([b"2", b"3"]), core.propose([b"4"])] == [2, 3, 5]
    ready = drain(core)
    assert [to for to, _ in ready.messages] == ["b", "c", "d"]
    appends = outgoing(ready, AppendEntries)
    assert [body for _, _, body in appends[0].batch.entries] == [b"1", b"2", b"3", b"4"]
    # One object for all: the codec encodes it once, and the write-ahead log writes the same bytes.
    assert appends[0] is appends[1] is appends[2]
    assert appends[0].batch is ready.batch


def test_an_append_is_built_once_for_each_place_in_the_log() -> None:
    core = make_leader(voters="abcde", log=[1] * 4)
    core.step("b", AppendResponse(2, 5))
    core.step("c", AppendRejected(2, 4, 3, 0))
    core.step("d", AppendRejected(2, 4, 3, 0))
    core.propose([b"x"])
    sent = {to: m for to, m in drain(core).messages if isinstance(m, AppendEntries)}
    assert {to: (m.prev_index, len(m.batch)) for to, m in sent.items()} == {
        "b": (5, 1),
        "c": (2, 4),
        "d": (2, 4),
    }
    assert sent["c"] is sent["d"]


def test_an_append_is_bounded_by_entries() -> None:
    core = make_leader(voters="ab", config=RaftConfig(max_append_entries=3))
    core.step("b", AppendResponse(1, 1))
    core.propose([b"x"] * 8)
    ready = drain(core)
    assert [(m.prev_index, len(m.batch)) for m in outgoing(ready, AppendEntries)] == [(1, 3), (4, 3), (7, 2)]
    assert ready.batch is not None and len(ready.batch) == 8
    core.step("b", AppendResponse(1, 9))
    core.propose([b"x"] * 3)
    ready = drain(core)
    assert [m.batch is ready.batch for m in outgoing(ready, AppendEntries)] == [True]


def test_an_append_is_bounded_by_bytes_but_carries_at_least_one_entry() -> None:
    core = make_leader(voters="ab", config=RaftConfig(max_append_bytes=300))
    core.step("b", AppendResponse(1, 1))
    core.propose([bytes(100), bytes(100), bytes(100), bytes(5000), bytes(10)])
    appends = outgoing(drain(core), AppendEntries)
    assert [(m.prev_index, len(m.batch)) for m in appends] == [(1, 2), (3, 1), (4, 1), (5, 1)]
    core.propose([bytes(5000)])
    (single,) = outgoing(drain(core), AppendEntries)
    assert len(single.batch) == 1


def test_entries_are_plain_tuples_of_atoms() -> None:
    """So that the garbage collector need not walk the log: an enum member would keep a tuple tracked."""
    core = make_leader(voters="a")
    core.propose([b"x"])
    batch_ = drain(core).batch
    assert batch_ is not None and [type(part) for part in batch_.entries[0]] == [int, int, bytes]


def test_there_is_no_news_for_peers_that_are_silent() -> None:
    """Or the owner would ask for a message, again and again, that is never made."""
    core = make_leader(config=RaftConfig(max_inflight_messages=1))
    core.step("b", AppendResponse(1, 1))
    drain(core)
    core.propose([b"x"])
    drain(core)  # b's window is full, c has not answered its probe
    core.commit_to(2)
    core.tell_commit()
    assert not core.is_commit_untold()
    drain(core)
    assert not core.has_ready()
    core.step("b", AppendResponse(1, 2))
    assert core.is_commit_untold()
    assert [m.commit_index for m in outgoing(drain(core), AppendEntries, to="b")] == [2]


def test_an_append_with_entries_is_always_answered() -> None:
    """It may have been sent again because the first answer was lost; the commit index moved on meanwhile."""
    core = make_core()
    core.step("b", append_of(1, 0, 0, [1, 1]))
    drain(core)
    core.step("b", append_of(1, 0, 0, [1, 1], commit_index=2))
    assert outgoing(drain(core), AppendResponse) == [AppendResponse(1, 2)]


# -- the follower's side ---------------------------------------------------------------------------------


def test_b2_a_late_append_does_not_shorten_the_log() -> None:
    core = make_core()
    core.step("b", append_of(1, 0, 0, [1] * 5))
    drain(core)
    core.step("b", append_of(1, 0, 0, [1] * 3))
    core.step("b", append_of(1, 2, 1, []))
    ready = drain(core)
    assert core.last_index == 5 and ready.batch is None and ready.truncated_from is None


def test_b3_a_committed_entry_is_never_removed() -> None:
    core = make_core(log=[1, 1, 1], commit_index=2)
    with pytest.raises(InvariantBroken, match="2"):
        core.step("b", append_of(3, 1, 1, [2, 2]))
    assert terms_of(core) == [1, 1, 1]
    with pytest.raises(InvariantBroken):
        core.truncate_from(2)


def test_b3_b7_late_rejections_and_appends_around_the_commit_index_are_harmless() -> None:
    core = make_core(log=[1, 1, 1, 2], commit_index=3)
    core.step("b", append_of(3, 0, 0, [1, 1]))
    core.step("b", append_of(3, 1, 1, [1, 1, 3]))  # the uncommitted end conflicts
    ready = drain(core)
    assert terms_of(core) == [1, 1, 1, 3] and ready.truncated_from == 4
    assert outgoing(ready, AppendResponse) == [AppendResponse(3, 4)]


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(3, 1, 1, 0, batch(3, [3])),  # a gap
        AppendEntries(3, 1, 1, 0, batch(1, [1])),  # an overlap that prev_index does not tell of
        AppendEntries(3, 1, 1, 0, batch(2, [4])),  # an entry from the future
        AppendEntries(3, 2, 2, 0, batch(3, [1])),  # an entry older than what precedes it
        AppendEntries(3, 2, -1, 0, batch(3)),
        AppendEntries(3, 2, 2, -1, batch(3)),
    ],
)
def test_b8_an_append_whose_parts_disagree_is_dropped(message: AppendEntries) -> None:
    core = make_core(log=[1, 2])
    core.step("b", message)
    ready = drain(core)
    assert terms_of(core) == [1, 2] and core.ignored_messages == 1
    assert not outgoing(ready, AppendResponse) and not outgoing(ready, AppendRejected)


def test_b9_an_append_from_below_the_snapshot_is_taken_from_where_the_log_begins() -> None:
    core = compacted(5, 2, [2, 2])
    core.step("b", append_of(3, 0, 0, [1, 2, 2, 2, 2, 2, 3, 3]))
    ready = drain(core)
    assert terms_of(core) == [2, 3, 3] and core.last_index == 8
    assert ready.truncated_from == 7 and outgoing(ready, AppendResponse) == [AppendResponse(3, 8)]


def test_b9_an_append_that_ends_below_the_snapshot_is_acknowledged_and_changes_nothing() -> None:
    core = compacted(5, 2, [2])
    core.step("b", append_of(3, 0, 0, [1, 1], commit_index=9))
    ready = drain(core)
    assert (terms_of(core), core.commit_index) == ([2], 5)
    assert outgoing(ready, AppendResponse) == [AppendResponse(3, 5)]


def test_b9_the_end_of_the_snapshot_matches_with_its_own_term_only() -> None:
    core = compacted(5, 2, [])
    core.step("b", append_of(3, 5, 0, [3]))
    core.step("b", append_of(3, 5, 1, [3]))
    core.step("b", append_of(3, 4, 0, []))
    ready = drain(core)
    assert core.last_index == 5 and [m.prev_index for m in outgoing(ready, AppendRejected)] == [5, 5]
    core.step("b", append_of(3, 5, 2, [3]))
    assert core.last_index == 6


def test_b10_a_commit_index_beyond_the_log_moves_nothing_beyond_it() -> None:
    core = make_core(log=[1, 1])
    core.step("b", Heartbeat(1, 99, 0))
    assert core.commit_index == 0 and core.is_withdrawn  # it would have been acknowledged
    core = make_core(log=[1, 1])
    core.step("b", append_of(1, 2, 1, [], commit_index=99))
    assert core.commit_index == 2
    core.step("b", append_of(1, 2, 1, [1], commit_index=99))
    assert core.commit_index == 3


def test_b4_what_was_not_compared_is_neither_committed_nor_acknowledged() -> None:
    """The tail after index 3 is of a leader that is gone; the new leader has not come to it yet."""
    core = make_core(log=[1, 1, 1, 2, 2, 2, 2])
    core.step("b", append_of(3, 3, 1, [], commit_index=7))
    ready = drain(core)
    assert core.commit_index == 3
    assert outgoing(ready, AppendResponse) == [AppendResponse(3, 3)]
    core.step("b", append_of(3, 1, 1, [1], commit_index=7))
    assert core.commit_index == 3


def test_b15_an_acknowledgement_waits_for_the_sync_and_there_is_one_for_a_turn() -> None:
    core = make_core()
    core.step("b", append_of(1, 0, 0, [1, 1]))
    core.step("b", append_of(1, 2, 1, [1]))
    ready = core.ready()
    assert ready.messages == [] and ready.must_sync
    assert ready.messages_after_sync == [("b", AppendResponse(1, 3))]
    assert ready.batch is not None and len(ready.batch) == 3
    core.advance()
    core.step("b", append_of(1, 3, 1, [1]))  # in a term that is on disk already
    ready = core.ready()
    assert (ready.messages, ready.messages_after_sync) == ([], [("b", AppendResponse(1, 4))])


def test_a_follower_stores_the_very_batch_that_came() -> None:
    """Its bytes were encoded by the leader: what is written here is what was received."""
    core = make_core()
    first = append_of(1, 0, 0, [1, 1])
    core.step("b", first)
    assert drain(core).batch is first.batch
    core.step("b", append_of(1, 1, 1, [1, 1]))
    partly_new = drain(core).batch
    assert partly_new is not None and (partly_new.first_index, len(partly_new)) == (3, 1)


def test_a_batch_overwritten_within_a_turn_is_not_stored() -> None:
    core = make_core(log=[1])
    core.step("b", append_of(2, 1, 1, [2, 2, 2]))
    core.step("c", append_of(3, 1, 1, [3]))
    ready = drain(core)
    assert ready.batch is not None and ready.batch.entries == entries_of([3], 2)
    assert core.stable_index == core.last_index == 2


def test_b16_a_sync_confirms_nothing_that_was_overwritten_meanwhile() -> None:
    """Entries 2 to 4 were on their way to the disk when another leader replaced 3 and 4."""
    core = make_core(log=[1])
    core.step("b", append_of(2, 1, 1, [2, 2, 2]))
    core.ready()
    core.step("c", append_of(3, 2, 2, [3, 3, 3]))
    core.advance()
    assert (core.stable_index, core.last_index) == (2, 5)
    ready = core.ready()
    assert ready.batch is not None and ready.batch.first_index == 3
    assert ready.truncated_from == 3
    core.advance()
    assert core.stable_index == 5


def test_truncation_is_told_from_the_lowest_index_of_the_turn() -> None:
    """Proposals of a leader that was deposed: of those from that index on, this node cannot tell more."""
    core = make_leader()
    core.propose([b"x", b"y", b"z"])
    drain(core)
    core.step("b", append_of(2, 1, 1, [2, 2]))
    core.step("c", append_of(3, 2, 2, [3]))
    assert drain(core).truncated_from == 2
    core.step("c", append_of(3, 3, 3, [3]))
    assert drain(core).truncated_from is None


def test_an_acknowledgement_is_not_carried_over_to_another_leader() -> None:
    core = make_core()
    core.step("b", append_of(1, 0, 0, [1, 1]))
    core.step("c", append_of(2, 0, 0, []))
    ready = drain(core)
    assert outgoing(ready, AppendResponse, to="b") == []
    assert outgoing(ready, AppendResponse, to="c") == [AppendResponse(2, 0)]


def test_a_leader_that_is_deposed_in_the_middle_of_a_write_keeps_its_log_whole() -> None:
    core = make_leader(log=[1])
    core.propose([b"x"])
    ready = core.ready()
    core.step("b", AppendEntries(3, 1, 1, 0, batch(2, [3])))
    core.advance()
    assert core.role is Role.FOLLOWER and ready.batch is not None
    assert terms_of(core) == [1, 3] and core.stable_index == 1
    second = drain(core)
    assert second.batch == EntryBatch(2, entries_of([3], 2)) and second.truncated_from == 2
