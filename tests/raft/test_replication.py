"""Log replication: consistency check, conflicts, batches, and what leaves before and after the sync."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import EntryKind
from raft.errors import InvariantBroken
from raft.messages import (
    AppendEntries,
    AppendRejected,
    AppendResponse,
    Heartbeat,
    VoteResponse,
)
from tests.raft.network import (
    Network,
    batch,
    become_candidate,
    drain,
    entries_of,
    make_core,
    make_leader,
    outgoing,
    terms_of,
)


def append(
    term: int, prev_index: int, prev_term: int, terms: list[int], commit_index: int = 0
) -> AppendEntries:
    return AppendEntries(term, prev_index, prev_term, commit_index, batch(prev_index + 1, terms))


def compacted(snapshot_index: int, snapshot_term: int, terms: list[int]) -> Core:
    """A follower whose log begins after a snapshot."""
    core = make_core(log=[snapshot_term] * snapshot_index + terms, commit_index=snapshot_index)
    core.log._entries = core.log.slice(snapshot_index + 1, core.last_index)
    core.log.snapshot_index, core.log.snapshot_term = snapshot_index, snapshot_term
    core.delivered_index = snapshot_index
    return core


# -- the leader's side -----------------------------------------------------------------------------------


def test_b17_a_leader_begins_its_term_with_an_entry_of_its_own() -> None:
    core = make_core(log=[1, 2])
    become_candidate(core)
    core.step("b", VoteResponse(3, True))
    ready = drain(core)
    assert ready.batch is not None
    assert (ready.batch.first_index, ready.batch.entries) == (3, [(3, EntryKind.NOOP, b"")])
    assert [to for to, _ in ready.messages] == ["b", "c"]
    assert outgoing(ready, AppendEntries)[0] == AppendEntries(3, 2, 2, 0, ready.batch)


def test_p11_appends_leave_before_the_own_sync_with_what_precedes_them() -> None:
    core = make_leader(log=[1, 2])
    core.step("b", AppendResponse(3, 3))
    drain(core)
    assert core.propose([b"x", b"y"]) == 4
    ready = core.ready()
    assert ready.must_sync and ready.batch is not None and ready.batch.first_index == 4
    ((to, message),) = ready.messages  # c has not answered its probe yet
    assert (to, message) == ("b", AppendEntries(3, 3, 3, 3, ready.batch))
    assert ready.messages_after_sync == []


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


def test_p4_heartbeats_go_to_all_and_name_no_more_than_each_is_known_to_have() -> None:
    """Heartbeats have no prev_index, so the leader bounds the commit index that they carry."""
    core = make_leader(voters="abcd", learners="l", log=[1, 1])
    core.step("b", AppendResponse(2, 3))
    core.step("c", AppendResponse(2, 3))
    core.step("l", AppendResponse(2, 2))
    assert core.commit_index == 3
    drain(core)
    core.heartbeat()
    ready = core.ready()
    sent = {to: message for to, message in ready.messages if isinstance(message, Heartbeat)}
    assert {to: message.commit_index for to, message in sent.items()} == {"b": 3, "c": 3, "d": 0, "l": 2}
    assert sent["b"] is sent["c"]


def test_p12_news_of_the_commit_index_waits_for_entries_or_until_the_owner_wants_it_told() -> None:
    core = make_leader()
    for peer in "bc":
        core.step(peer, AppendResponse(1, 1))
    drain(core)
    assert core.commit_index == 1 and core.is_commit_untold() and not core.has_ready()
    core.propose([b"x"])
    assert {m.commit_index for m in outgoing(drain(core), AppendEntries)} == {1}
    assert not core.is_commit_untold()
    core.step("b", AppendResponse(1, 2))
    drain(core)
    core.tell_commit()
    news = outgoing(drain(core), AppendEntries)
    assert [(m.prev_index, len(m.batch), m.commit_index) for m in news] == [(2, 0, 2)] * 2
    assert not core.is_commit_untold() and not core.has_ready()


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


def test_p12_news_of_the_commit_index_is_not_answered() -> None:
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.settle()
    assert [core.commit_index for core in network.cores.values()] == [2, 2, 2]
    news = [message for message in network.sent(AppendEntries, to="b") if message.commit_index == 2]
    assert [len(message.batch) for message in news] == [0]
    answers = [message.match_index for message in network.sent(AppendResponse, "b")]
    assert answers == [1, 2]


def test_an_append_with_entries_is_always_answered() -> None:
    """It may have been sent again because the first answer was lost; the commit index moved on meanwhile."""
    core = make_core()
    core.step("b", append(1, 0, 0, [1, 1]))
    drain(core)
    core.step("b", append(1, 0, 0, [1, 1], commit_index=2))
    assert outgoing(drain(core), AppendResponse) == [AppendResponse(1, 2)]


def test_p28_learners_get_the_log_and_are_not_counted() -> None:
    core = make_leader(voters="abc", learners="lm")
    core.step("l", AppendResponse(1, 1))
    core.step("m", AppendResponse(1, 1))
    core.propose([b"x"])
    assert len(outgoing(drain(core), AppendEntries, to="l")) == 1
    core.step("l", AppendResponse(1, 2))
    core.step("m", AppendResponse(1, 2))
    assert core.commit_index == 0


# -- the follower's side ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "conflict_index", "conflict_term"),
    [
        (3, 3, 2, 2),  # terms differ: where that term begins here
        (2, 1, 2, 2),
        (5, 5, 4, 4),
        (6, 4, 6, 0),  # beyond the end: where the log ends
        (99, 4, 6, 0),
    ],
)
def test_p14_an_append_that_does_not_fit_is_rejected_with_a_place_to_go_on(
    prev_index: int, prev_term: int, conflict_index: int, conflict_term: int
) -> None:
    core = make_core(log=[1, 2, 2, 4, 4])
    core.step("b", append(6, prev_index, prev_term, [6], commit_index=99))
    ready = drain(core)
    assert ready.messages_after_sync == [("b", AppendRejected(6, prev_index, conflict_index, conflict_term))]
    assert (terms_of(core), core.commit_index, ready.batch) == ([1, 2, 2, 4, 4], 0, None)


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "terms", "log", "stored"),
    [
        (2, 2, [3], [1, 2, 3], [3]),  # right after the end
        (1, 1, [3, 4], [1, 3, 4], [3, 4]),  # a conflict in the middle
        (0, 0, [1], [1, 2], None),  # a part of what is there
        (0, 0, [3], [3], [3]),  # a conflict at the very first
        (0, 0, [1, 2, 3], [1, 2, 3], [3]),  # only the new part is stored
        (1, 1, [2], [1, 2], None),
        (2, 2, [], [1, 2], None),
    ],
)
def test_p15_a_conflicting_suffix_is_removed_and_nothing_else(
    prev_index: int, prev_term: int, terms: list[int], log: list[int], stored: list[int] | None
) -> None:
    core = make_core(log=[1, 2])
    core.step("b", append(4, prev_index, prev_term, terms))
    ready = drain(core)
    assert terms_of(core) == log
    if stored is None:
        assert ready.batch is None and ready.truncated_from is None
    else:
        assert ready.batch is not None and [term for term, _, _ in ready.batch.entries] == stored
        assert ready.batch.last_index == len(log)
        overwritten = ready.batch.first_index if ready.batch.first_index <= 2 else None
        assert ready.truncated_from == overwritten
    assert outgoing(ready, AppendResponse) == [AppendResponse(4, prev_index + len(terms))]


def test_b2_a_late_append_does_not_shorten_the_log() -> None:
    core = make_core()
    core.step("b", append(1, 0, 0, [1] * 5))
    drain(core)
    core.step("b", append(1, 0, 0, [1] * 3))
    core.step("b", append(1, 2, 1, []))
    ready = drain(core)
    assert core.last_index == 5 and ready.batch is None and ready.truncated_from is None


def test_b3_a_committed_entry_is_never_removed() -> None:
    core = make_core(log=[1, 1, 1], commit_index=2)
    with pytest.raises(InvariantBroken, match="2"):
        core.step("b", append(3, 1, 1, [2, 2]))
    assert terms_of(core) == [1, 1, 1]
    with pytest.raises(InvariantBroken):
        core.truncate_from(2)


def test_b3_b7_late_rejections_and_appends_around_the_commit_index_are_harmless() -> None:
    core = make_core(log=[1, 1, 1, 2], commit_index=3)
    core.step("b", append(3, 0, 0, [1, 1]))
    core.step("b", append(3, 1, 1, [1, 1, 3]))  # the uncommitted end conflicts
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
    core.step("b", append(3, 0, 0, [1, 2, 2, 2, 2, 2, 3, 3]))
    ready = drain(core)
    assert terms_of(core) == [2, 3, 3] and core.last_index == 8
    assert ready.truncated_from == 7 and outgoing(ready, AppendResponse) == [AppendResponse(3, 8)]


def test_b9_an_append_that_ends_below_the_snapshot_is_acknowledged_and_changes_nothing() -> None:
    core = compacted(5, 2, [2])
    core.step("b", append(3, 0, 0, [1, 1], commit_index=9))
    ready = drain(core)
    assert (terms_of(core), core.commit_index) == ([2], 5)
    assert outgoing(ready, AppendResponse) == [AppendResponse(3, 5)]


def test_b9_the_end_of_the_snapshot_matches_with_its_own_term_only() -> None:
    core = compacted(5, 2, [])
    core.step("b", append(3, 5, 0, [3]))
    core.step("b", append(3, 5, 1, [3]))
    core.step("b", append(3, 4, 0, []))
    ready = drain(core)
    assert core.last_index == 5 and [m.prev_index for m in outgoing(ready, AppendRejected)] == [5, 5]
    core.step("b", append(3, 5, 2, [3]))
    assert core.last_index == 6


def test_b10_a_commit_index_beyond_the_log_moves_nothing_beyond_it() -> None:
    core = make_core(log=[1, 1])
    core.step("b", Heartbeat(1, 99, 0))
    assert core.commit_index == 0  # a heartbeat that claims more than is here proves nothing
    core.step("b", append(1, 2, 1, [], commit_index=99))
    assert core.commit_index == 2
    core.step("b", append(1, 2, 1, [1], commit_index=99))
    assert core.commit_index == 3


def test_b4_what_was_not_compared_is_neither_committed_nor_acknowledged() -> None:
    """The tail after index 3 is of a leader that is gone; the new leader has not come to it yet."""
    core = make_core(log=[1, 1, 1, 2, 2, 2, 2])
    core.step("b", append(3, 3, 1, [], commit_index=7))
    ready = drain(core)
    assert core.commit_index == 3
    assert outgoing(ready, AppendResponse) == [AppendResponse(3, 3)]
    core.step("b", append(3, 1, 1, [1], commit_index=7))
    assert core.commit_index == 3


def test_p23_t1_appends_repeated_and_reordered_have_one_effect() -> None:
    core = make_core()
    messages = [append(1, 0, 0, [1, 1]), append(1, 2, 1, [1, 1]), append(1, 4, 1, [1])]
    for index in (1, 0, 0, 2, 1, 1, 0, 2):
        core.step("b", messages[index])
    ready = drain(core)
    assert core.last_index == 5
    assert ready.batch is not None and len(ready.batch) == 5
    assert outgoing(ready, AppendResponse) == [AppendResponse(1, 5)]


def test_b15_an_acknowledgement_waits_for_the_sync_and_there_is_one_for_a_turn() -> None:
    core = make_core()
    core.step("b", append(1, 0, 0, [1, 1]))
    core.step("b", append(1, 2, 1, [1]))
    ready = core.ready()
    assert ready.messages == [] and ready.must_sync
    assert ready.messages_after_sync == [("b", AppendResponse(1, 3))]
    assert ready.batch is not None and len(ready.batch) == 3


def test_a_follower_stores_the_very_batch_that_came() -> None:
    """Its bytes were encoded by the leader: what is written here is what was received."""
    core = make_core()
    first = append(1, 0, 0, [1, 1])
    core.step("b", first)
    assert drain(core).batch is first.batch
    core.step("b", append(1, 1, 1, [1, 1]))
    partly_new = drain(core).batch
    assert partly_new is not None and (partly_new.first_index, len(partly_new)) == (3, 1)


def test_a_batch_overwritten_within_a_turn_is_not_stored() -> None:
    core = make_core(log=[1])
    core.step("b", append(2, 1, 1, [2, 2, 2]))
    core.step("c", append(3, 1, 1, [3]))
    ready = drain(core)
    assert ready.batch is not None and ready.batch.entries == entries_of([3], 2)
    assert core.stable_index == core.last_index == 2


def test_b16_a_sync_confirms_nothing_that_was_overwritten_meanwhile() -> None:
    """Entries 2 to 4 were on their way to the disk when another leader replaced 3 and 4."""
    core = make_core(log=[1])
    core.step("b", append(2, 1, 1, [2, 2, 2]))
    core.ready()
    core.step("c", append(3, 2, 2, [3, 3, 3]))
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
    core.step("b", append(2, 1, 1, [2, 2]))
    core.step("c", append(3, 2, 2, [3]))
    assert drain(core).truncated_from == 2
    core.step("c", append(3, 3, 3, [3]))
    assert drain(core).truncated_from is None


def test_an_acknowledgement_is_not_carried_over_to_another_leader() -> None:
    core = make_core()
    core.step("b", append(1, 0, 0, [1, 1]))
    core.step("c", append(2, 0, 0, []))
    ready = drain(core)
    assert outgoing(ready, AppendResponse, to="b") == []
    assert outgoing(ready, AppendResponse, to="c") == [AppendResponse(2, 0)]
