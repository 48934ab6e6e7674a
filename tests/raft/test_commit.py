"""What is committed, when, and in which order it is given out to be applied (Raft §5.3, §5.4)."""

from __future__ import annotations

import pytest

from raft.config import RaftConfig
from raft.entries import Entry, EntryKind, HardState
from raft.messages import AppendEntries, AppendResponse, Heartbeat, VoteResponse
from raft.ready import Role
from tests.raft.network import (
    Disk,
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


def disk_of(terms: list[int], term: int, voted_for: str | None = None) -> Disk:
    return Disk(HardState(term, voted_for, 0), entries_of(terms))


# -- counting --------------------------------------------------------------------------------------------


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
def test_p12_an_entry_commits_when_a_majority_has_it(
    voters: str, matches: dict[str, int], committed: int
) -> None:
    core = make_leader(voters=voters)
    core.propose([b"x", b"y"])
    drain(core)
    for peer, match_index in matches.items():
        core.step(peer, AppendResponse(1, match_index))
    assert core.commit_index == committed


def test_p12_committed_entries_are_applied_everywhere_in_the_order_of_the_log() -> None:
    network = Network("abc")
    leader = network.elect("a")
    for number in range(7):
        leader.propose([b"%d" % number, b"%d!" % number])
        network.settle()
    expected = [body for number in range(7) for body in (b"%d" % number, b"%d!" % number)]
    for applied in network.applied.values():
        assert [body for _, kind, body in applied if kind == EntryKind.COMMAND] == expected
        assert len(applied) == 15  # and the entry that began the term


def test_b1_entries_of_an_earlier_term_do_not_commit_by_being_counted() -> None:
    core = make_leader(log=[1, 2, 2])
    core.step("b", AppendResponse(3, 3))
    core.step("c", AppendResponse(3, 3))
    assert core.commit_index == 0
    core.step("b", AppendResponse(3, 4))
    assert core.commit_index == 4  # with an entry of its own term, all before it


def test_b17_an_earlier_leaders_entries_commit_without_any_proposal() -> None:
    network = Network("abc", disks={"a": disk_of([1, 1], 1), "b": disk_of([1, 1], 1)})
    network.elect("a")
    assert [len(applied) for applied in network.applied.values()] == [3, 3, 3]


def figure_8_c() -> Network:
    """Raft figure 8 (c): S1 leads term 4 and has entry 2 (of term 2) on a majority, S5 has one of term 3."""
    network = Network(
        ["s1", "s2", "s3", "s4", "s5"],
        disks={
            "s1": disk_of([1, 2], 3),
            "s2": disk_of([1, 2], 2),
            "s3": disk_of([1], 3),
            "s4": disk_of([1], 3),
            "s5": disk_of([1, 3], 3, "s5"),
        },
    )
    network.isolate("s5")
    leader = network["s1"]
    become_candidate(leader)
    for voter in ("s2", "s3"):
        leader.step(voter, VoteResponse(4, True))
    assert (leader.role, leader.term, terms_of(leader)) == (Role.LEADER, 4, [1, 2, 4])
    return network


def test_b1_p20_figure_8_d_an_entry_on_a_majority_is_overwritten_since_it_was_not_committed() -> None:
    network = figure_8_c()
    leader = network["s1"]
    # S3 gets entry 2, and not yet the entry of term 4.
    network["s3"].step("s1", AppendEntries(4, 1, 1, 0, batch(2, [2])))
    network.turn("s3")
    network["s2"].step("s1", Heartbeat(4, 0, 0))
    for peer in ("s2", "s3"):
        leader.step(peer, AppendResponse(4, 2))
    assert leader.commit_index == 0  # it is on S1, S2 and S3, and must not count
    network.heal()
    network.mail.clear()
    network.isolate("s1")
    network["s5"].campaign()
    network.settle()  # refused, and so told of term 4
    assert network.elect("s5").term == 5
    for name in ("s2", "s3", "s4", "s5"):
        assert terms_of(network[name]) == [1, 3, 5]
        assert [term for term, _, _ in network.applied[name]] == [1, 3, 5]
    network.heal()
    network["s5"].heartbeat()
    network.settle()
    assert network.applied["s1"] == network.applied["s5"]


def test_b1_p20_figure_8_e_with_an_entry_of_its_term_committed_s5_cannot_win() -> None:
    network = figure_8_c()
    leader = network["s1"]
    network.settle()
    assert leader.commit_index == 3
    network.heal()
    network.isolate("s1")
    for core in network.cores.values():
        core.leader_silent()
    network["s5"].campaign()
    network.settle()
    assert network["s5"].role is not Role.LEADER
    assert network.elect("s2").term == 5
    for name in ("s2", "s3", "s4", "s5"):
        assert [term for term, _, _ in network.applied[name]] == [1, 2, 4, 5]


def test_p21_figure_9_a_leader_without_a_committed_entry_cannot_be_elected() -> None:
    network = Network("abcde")
    leader = network.elect("a")
    network.isolate("d", "e")
    leader.propose([b"committed"])
    network.settle()
    network.heal()
    network.isolate("a")
    for candidate in ("d", "e"):
        for core in network.cores.values():
            core.leader_silent()
        network[candidate].campaign()
        network.settle()
        assert network[candidate].role is not Role.LEADER
    assert network.elect("b").last_index == 3
    assert network.applied["e"][1][2] == b"committed"


def test_b5_acknowledgements_out_of_order_take_nothing_back() -> None:
    core = make_leader(voters="abcde")
    core.propose([b"x"] * 5)
    drain(core)
    for peer, match_index in [("b", 5), ("c", 4), ("b", 2), ("c", 1), ("d", 3), ("b", 0), ("c", 4)]:
        before = core.commit_index
        core.step(peer, AppendResponse(1, match_index))
        assert core.commit_index >= before
    assert core.commit_index == 4
    assert {peer: core.progress[peer].match_index for peer in "bcd"} == {"b": 5, "c": 4, "d": 3}


def test_an_acknowledgement_of_more_than_the_log_is_ignored() -> None:
    core = make_leader()
    core.step("b", AppendResponse(1, 5))
    core.step("c", AppendResponse(1, 5))
    assert core.commit_index == 0 and core.ignored_messages == 2


# -- the own disk ----------------------------------------------------------------------------------------


def test_b14_the_leaders_own_entries_count_when_they_are_on_its_disk() -> None:
    core = make_leader()
    core.step("b", AppendResponse(1, 1))
    drain(core)
    core.propose([b"x"])
    ready = core.ready()
    assert outgoing(ready, AppendEntries, to="b")
    core.step("b", AppendResponse(1, 2))  # faster than the own disk
    assert core.commit_index == 1
    core.advance()
    assert core.commit_index == 2
    committed = drain(core).committed
    assert committed is not None and committed.last_index == 2


def test_b14_what_is_proposed_during_the_sync_is_not_confirmed_by_it() -> None:
    core = make_leader(voters="a")
    core.propose([b"x"])
    core.ready()
    core.propose([b"y"])
    core.advance()
    assert (core.stable_index, core.commit_index) == (2, 2)
    drain(core)
    assert core.commit_index == 3


def test_t25_a_majority_of_others_is_enough_before_the_own_sync() -> None:
    core = make_leader()
    for peer in "bc":
        core.step(peer, AppendResponse(1, 1))
    drain(core)
    core.propose([b"x"])
    core.ready()
    for peer in "bc":
        core.step(peer, AppendResponse(1, 2))
    assert (core.commit_index, core.stable_index) == (2, 1)
    core.advance()


def test_b15_nothing_commits_through_a_follower_that_has_not_synced() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("c")
    leader.propose([b"x"])
    network.turn("a")
    for mail in network.mail:
        network.deliver(mail)
    network.mail.clear()
    ready = network["b"].ready()
    network.post("b", ready.messages)  # what may leave before the sync
    assert ready.must_sync and ready.batch is not None
    for mail in network.mail:
        network.deliver(mail)
    assert leader.commit_index == 1


def test_b16_an_own_write_that_ends_in_a_later_term_confirms_only_what_is_still_there() -> None:
    core = make_leader(log=[1])  # leads term 2 with entry 2
    core.propose([b"old", b"old"])
    core.ready()  # entries 3 and 4 are being written
    core.step("b", AppendEntries(3, 2, 2, 0, batch(3, [3, 3])))
    become = core.term
    core.advance()
    assert (become, core.stable_index, core.last_index) == (3, 2, 4)
    become_candidate(core)
    core.step("b", VoteResponse(4, True))
    assert core.role is Role.LEADER and core.stable_index == 4
    core.step("b", AppendResponse(4, 5))
    assert core.commit_index == 0  # its entry 5 is not written yet
    drain(core)
    assert core.commit_index == 5


# -- giving out ------------------------------------------------------------------------------------------


def taken(core_config: RaftConfig, bodies: list[bytes]) -> list[list[Entry]]:
    core = make_leader(voters="a", config=core_config)
    core.propose(bodies)
    drain(core)
    parts = []
    next_index = 2
    while core.has_ready():
        ready = drain(core)
        assert ready.committed is not None and ready.committed.first_index == next_index
        next_index = ready.committed.last_index + 1
        parts.append(ready.committed.entries)
    assert next_index == len(bodies) + 2
    return parts


def test_b13_committed_entries_come_in_bounded_parts_without_gap_or_repetition() -> None:
    config = RaftConfig(max_committed_bytes_per_ready=500)
    parts = taken(config, [b"%03d" % number + bytes(97) for number in range(10)])
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [body[:3] for part in parts for _, _, body in part] == [b"%03d" % n for n in range(10)]


def test_b13_an_entry_larger_than_the_bound_comes_alone() -> None:
    config = RaftConfig(max_committed_bytes_per_ready=100)
    assert [len(part) for part in taken(config, [b"1", bytes(500), b"2", b"3"])] == [1, 1, 2]


def test_b13_parts_are_bounded_by_count_too() -> None:
    config = RaftConfig(max_committed_entries_per_ready=4)
    assert [len(part) for part in taken(config, [b""] * 9)] == [4, 4, 1]


def test_b13_parts_go_on_while_the_commit_index_moves() -> None:
    core = make_leader(voters="a", config=RaftConfig(max_committed_entries_per_ready=2))
    seen: list[bytes] = []
    for number in range(6):
        core.propose([b"%d" % number, b"%d'" % number])
        ready = drain(core)
        seen += [body for _, _, body in ready.committed.entries] if ready.committed else []
    while core.has_ready():
        committed = drain(core).committed
        assert committed is not None
        seen += [body for _, _, body in committed.entries]
    assert seen == [body for n in range(6) for body in (b"%d" % n, b"%d'" % n)]


# -- restart ---------------------------------------------------------------------------------------------


def test_t2_after_a_restart_committed_entries_are_given_out_from_the_first() -> None:
    core = make_core(log=[1, 1, 2], commit_index=2)
    assert core.has_ready()
    committed = drain(core).committed
    assert committed is not None and (committed.first_index, committed.last_index) == (1, 2)
    assert not core.has_ready()


def test_t2_the_stored_commit_index_is_a_hint_that_never_leads() -> None:
    core = make_core(log=[1, 1], commit_index=9)
    assert core.commit_index == 2
    assert make_core(commit_index=9).commit_index == 0


def test_the_commit_index_is_stored_along_with_others_and_never_alone() -> None:
    core = make_core()
    core.step("b", AppendEntries(1, 0, 0, 0, batch(1, [1])))
    assert drain(core).hard_state == HardState(1, None, 0)
    core.step("b", AppendEntries(1, 1, 1, 1, batch(2)))
    ready = drain(core)
    assert ready.committed is not None and ready.hard_state is None and not ready.must_sync
    core.step("b", AppendEntries(1, 1, 1, 1, batch(2, [1])))
    assert drain(core).hard_state == HardState(1, None, 1)
    core.step("b", AppendEntries(1, 2, 1, 1, batch(3, [1])))
    ready = drain(core)
    assert ready.hard_state is None and ready.must_sync


def test_everything_committed_is_there_after_all_nodes_restart() -> None:
    network = Network("abc")
    leader = network.elect("a")
    for number in range(5):
        leader.propose([b"%d" % number])
        network.settle()
    before = list(network.applied["a"])
    for name in "abc":
        network.restart(name)
    network.elect("b")
    for applied in network.applied.values():
        assert applied[: len(before)] == before and len(applied) == len(before) + 1
