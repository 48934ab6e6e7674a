"""Raft §5.3: how a leader gets its log to the others, when an entry commits, and what a follower refuses."""

from __future__ import annotations

import pytest

from raft.entries import EntryKind, HardState
from raft.messages import AppendEntries, AppendRejected, AppendResponse, Heartbeat, RequestVote, VoteResponse
from raft.ready import Role
from tests.raft.cores import append_of, disk_of
from tests.raft.network import (
    Disk,
    Network,
    drain,
    entries_of,
    make_core,
    make_leader,
    outgoing,
    terms_of,
)


def test_appends_leave_in_parallel_with_what_precedes_them() -> None:
    """Raft §5.3: a leader appends and replicates in parallel; an append names the entry before its first.

    It leaves before the own disk has the entries (dissertation 10.2.1).
    """
    core = make_leader(log=[1, 2])
    core.step("b", AppendResponse(3, 3))
    drain(core)
    assert core.propose([b"x", b"y"]) == 4
    ready = core.ready()
    assert ready.must_sync and ready.batch is not None and ready.batch.first_index == 4
    ((to, message),) = ready.messages  # c has not answered its probe yet
    assert (to, message) == ("b", AppendEntries(3, 3, 3, 3, ready.batch))
    assert ready.messages_after_sync == []


@pytest.mark.parametrize(
    ("voters", "matches", "committed"),
    [
        ("a", {}, 3),
        ("ab", {}, 0),
        ("ab", {"b": 2}, 2),
        ("abc", {"b": 3}, 3),
        ("abc", {"b": 1, "c": 2}, 2),
        ("abcd", {"b": 3}, 0),
        ("abcd", {"b": 3, "c": 2}, 2),
        ("abcde", {"b": 3, "c": 1}, 1),
        ("abcde", {"b": 3, "c": 2, "d": 2, "e": 3}, 3),
    ],
)
def test_an_entry_commits_when_a_majority_has_it(
    voters: str, matches: dict[str, int], committed: int
) -> None:
    """Raft §5.3: an entry is committed once a majority of the servers holds it."""
    core = make_leader(voters=voters)
    core.propose([b"x", b"y"])
    drain(core)
    for peer, match_index in matches.items():
        core.step(peer, AppendResponse(1, match_index))
    assert core.commit_index == committed


def test_committed_entries_are_applied_everywhere_in_the_order_of_the_log() -> None:
    """Raft §5.3: every server applies the committed entries, each once, in the order of the log."""
    network = Network("abc")
    leader = network.elect("a")
    for number in range(7):
        leader.propose([b"%d" % number, b"%d!" % number])
        network.settle()
    expected = [body for number in range(7) for body in (b"%d" % number, b"%d!" % number)]
    for applied in network.applied.values():
        assert [body for _, kind, body in applied if kind == EntryKind.COMMAND] == expected
        assert len(applied) == 15  # and the entry that began the term


def test_followers_learn_the_commit_index_with_the_next_append_or_when_it_is_wanted() -> None:
    """Raft §5.3: the leader includes its commit index in appends, those without entries included."""
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


def test_news_of_the_commit_index_is_not_answered() -> None:
    """Raft §5.3: a follower that learns that an entry is committed applies it; there is nothing to answer."""
    network = Network("abc")
    leader = network.elect("a")
    leader.propose([b"x"])
    network.settle()
    assert [core.commit_index for core in network.cores.values()] == [2, 2, 2]
    news = [message for message in network.sent(AppendEntries, to="b") if message.commit_index == 2]
    assert [len(message.batch) for message in news] == [0]
    answers = [message.match_index for message in network.sent(AppendResponse, "b")]
    assert answers == [1, 2]


def test_an_earlier_leaders_entries_commit_without_any_proposal() -> None:
    """Raft §5.3: committing an entry commits all before it, those of earlier leaders included."""
    network = Network("abc", disks={"a": disk_of([1, 1], 1), "b": disk_of([1, 1], 1)})
    network.elect("a")
    assert [len(applied) for applied in network.applied.values()] == [3, 3, 3]


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
def test_an_append_that_does_not_fit_is_rejected_with_a_place_to_go_on(
    prev_index: int, prev_term: int, conflict_index: int, conflict_term: int
) -> None:
    """Raft §5.3: without the preceding entry a follower refuses, and names the term in conflict."""
    core = make_core(log=[1, 2, 2, 4, 4])
    core.step("b", append_of(6, prev_index, prev_term, [6], commit_index=99))
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
def test_a_conflicting_suffix_is_removed_and_nothing_else(
    prev_index: int, prev_term: int, terms: list[int], log: list[int], stored: list[int] | None
) -> None:
    """Raft §5.3: an entry that conflicts goes, with all that follow it; an entry that agrees stays."""
    core = make_core(log=[1, 2])
    core.step("b", append_of(4, prev_index, prev_term, terms))
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


def test_a_leader_only_appends_to_its_log() -> None:
    """Raft §5.3, figure 3: a leader never overwrites or deletes entries of its own log."""
    core = make_leader(log=[1, 2, 2])
    core.propose([b"x"])
    drain(core)
    before = core.log.slice(1, core.last_index)
    for message in (
        append_of(3, 1, 1, [3, 3]),
        append_of(2, 0, 0, [2]),
        AppendRejected(3, 4, 1, 1),
        AppendRejected(3, 3, 1, 0),
        AppendResponse(3, 2),
        Heartbeat(3, 4, 0),
        RequestVote(9, 99, 9),
        VoteResponse(3, False),
    ):
        for sender in ("b", "c", "stranger"):
            core.step(sender, message)
    drain(core)
    assert (core.role, core.term) == (Role.LEADER, 3)
    assert core.log.slice(1, core.last_index) == before


def test_one_rejection_skips_a_whole_conflicting_term() -> None:
    """Raft §5.3: one rejection for each conflicting term, rather than one for each entry."""
    disks = {
        "a": Disk(HardState(9, None, 0), entries_of([1, *[4] * 30, *[9] * 30])),
        "b": Disk(HardState(8, None, 0), entries_of([1, *[2] * 20, *[3] * 20, *[5] * 20])),
        "c": Disk(HardState(9, None, 0), entries_of([1])),
    }
    network = Network("abc", disks=disks)
    network.elect("a")
    assert network["b"].log.slice(1, 62) == network["a"].log.slice(1, 62)
    assert len(network.sent(AppendRejected, "b")) <= 3
    assert len(network.sent(AppendRejected, "c")) == 1


def test_the_leader_goes_on_at_its_own_last_entry_of_the_conflicting_term() -> None:
    """Raft §5.3: the leader goes back to its own last entry of the conflicting term, or skips that term."""
    core = make_leader(voters="ab", log=[1, 2, 2, 2, 5, 5])
    core.step("b", AppendRejected(6, 6, 4, 2))
    (probe,) = outgoing(drain(core), AppendEntries)
    assert (probe.prev_index, probe.prev_term) == (4, 2)
    core.step("b", AppendRejected(6, 4, 2, 3))  # a term that this log does not have: go to where it begins
    (probe,) = outgoing(drain(core), AppendEntries)
    assert (probe.prev_index, probe.prev_term) == (1, 1)
