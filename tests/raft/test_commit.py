"""What is committed, when, and in which order it is given out to be applied (Raft §5.3, §5.4)."""

from __future__ import annotations

from raft.config import RaftConfig
from raft.entries import Entry, HardState
from raft.messages import AppendEntries, AppendResponse, VoteResponse
from raft.ready import Role
from tests.raft.network import (
    Network,
    batch,
    become_candidate,
    drain,
    make_core,
    make_leader,
)

# -- counting --------------------------------------------------------------------------------------------


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


def test_b14_what_is_proposed_during_the_sync_is_not_confirmed_by_it() -> None:
    core = make_leader(voters="a")
    core.propose([b"x"])
    core.ready()
    core.propose([b"y"])
    core.advance()
    assert (core.stable_index, core.commit_index) == (2, 2)
    drain(core)
    assert core.commit_index == 3


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
