"""The checks themselves: each fact that they guard is broken here once, and must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest

from raft import Configuration, RaftConfig
from raft.core import Core
from raft.errors import InvariantBroken
from raft.invariants import Facts, check_log, check_state, check_succession, facts_of
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    ReadIndexRefused,
    ReadIndexRequest,
    RequestPreVote,
    RequestVote,
    VoteResponse,
)
from raft.progress import Progress
from raft.ready import Role
from raft.storage import Recovered
from tests.raft.network import batch, drain, make_core, make_leader, role_object


def commit_beyond_the_log(core: Core) -> None:
    core.commit_index = core.last_index + 1


def deliver_beyond_the_commit(core: Core) -> None:
    core.delivered_index = core.commit_index + 1


def forget_deliveries(core: Core) -> None:
    core.log.snapshot_index = core.delivered_index + 1


def sync_before_writing(core: Core) -> None:
    core.log.stable_index = core.log.persisting_index + 1


def write_what_is_not_there(core: Core) -> None:
    core.log.persisting_index = core.log.last_index + 1


def fall_behind_the_log(core: Core) -> None:
    core.term = core.log.last_term - 1


@pytest.mark.parametrize(
    "break_it",
    [
        commit_beyond_the_log,
        deliver_beyond_the_commit,
        forget_deliveries,
        sync_before_writing,
        write_what_is_not_there,
        fall_behind_the_log,
    ],
)
def test_facts_about_one_state(break_it: Callable[[Core], None]) -> None:
    core = make_core(log=[1, 2, 2], commit_index=2)
    check_state(core)
    break_it(core)
    with pytest.raises(InvariantBroken):
        check_state(core)


def test_facts_about_a_leader() -> None:
    for name, value in (("leader_id", "b"), ("voted_for", "b"), ("term", 9)):
        core = make_leader()
        check_state(core)
        setattr(core, name, value)
        with pytest.raises(InvariantBroken):
            check_state(core)


def test_a_candidate_follows_nobody() -> None:
    core = make_core()
    core.campaign()
    check_state(core)
    core.leader_id = "b"
    with pytest.raises(InvariantBroken):
        check_state(core)


BEFORE = Facts(Role.FOLLOWER, 3, "a", 5, 4, 9)


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (BEFORE._replace(term=2), "term"),
        (BEFORE._replace(commit_index=4), "commit"),
        (BEFORE._replace(delivered_index=3), "delivered"),
        (BEFORE._replace(voted_for="b"), "vote"),
        (BEFORE._replace(voted_for=None), "vote"),
    ],
)
def test_facts_about_two_successive_states(after: Facts, message: str) -> None:
    with pytest.raises(InvariantBroken, match=message):
        check_succession(BEFORE, after)


def test_what_may_change_does() -> None:
    check_succession(BEFORE, BEFORE._replace(term=4, voted_for=None, last_index=6, role=Role.CANDIDATE))
    check_succession(BEFORE._replace(voted_for=None), BEFORE)
    check_succession(BEFORE, BEFORE._replace(last_index=6))


def test_p17_a_leaders_log_never_becomes_shorter() -> None:
    leading = BEFORE._replace(role=Role.LEADER)
    check_succession(leading, leading._replace(last_index=10))
    with pytest.raises(InvariantBroken, match="leader"):
        check_succession(leading, leading._replace(last_index=8))
    check_succession(leading, BEFORE._replace(term=4, voted_for=None, last_index=8))


def test_every_ready_is_checked_against_the_one_before() -> None:
    core = make_core(log=[1, 1])
    core.step("b", Heartbeat(1, 2, 0))
    drain(core)
    core.commit_index = core.delivered_index = 1
    with pytest.raises(InvariantBroken, match="commit"):
        core.ready()


def test_transitions_that_would_lose_safety_are_refused() -> None:
    core = make_core(log=[1, 1], term=3)
    with pytest.raises(InvariantBroken, match="term"):
        core.become_follower(2, None)
    with pytest.raises(InvariantBroken, match="beyond"):
        core.commit_to(3)
    core.commit_to(2)
    for index in (1, 2):
        with pytest.raises(InvariantBroken, match="committed"):
            core.truncate_from(index)
    with pytest.raises(InvariantBroken, match="no snapshot stands for"):
        core.compact(1)


def test_every_ready_is_checked_by_itself() -> None:
    core = make_core(log=[1, 1])
    core.log.stable_index += 1
    with pytest.raises(InvariantBroken, match="stable"):
        core.ready()


def test_recovered_state_is_checked() -> None:
    with pytest.raises(InvariantBroken, match="ahead"):
        make_core(log=[1, 5], term=4)


def test_ready_and_advance_alternate() -> None:
    core = make_core()
    with pytest.raises(InvariantBroken):
        core.advance()
    core.ready()
    with pytest.raises(InvariantBroken):
        core.ready()


def test_each_thing_to_do_makes_a_core_ready() -> None:
    def after(act: Callable[[Core], object], core: Core) -> bool:
        while core.has_ready():
            drain(core)
        act(core)
        return core.has_ready()

    def follower() -> Core:
        core = make_core(log=[1, 1])
        core.step("b", Heartbeat(1, 0, 0))
        return core

    single = make_leader(voters="a")
    leader = make_leader()
    leader.step("b", AppendResponse(1, 1))
    assert after(lambda core: core.propose([b"x"]), single)  # entries
    assert after(Core.advance, committing(single))  # committed entries
    assert after(lambda core: core.read_index(1), leader)  # a round to begin
    assert after(lambda core: core.step("b", HeartbeatResponse(1, 1)), leader)  # an answer to a read
    assert after(lambda core: core.read_index(1), follower())  # a request to send
    assert after(lambda core: core.step("b", AppendEntries(1, 2, 1, 0, batch(3))), follower())  # an answer
    assert after(lambda core: core.step("b", RequestPreVote(2, 0, 0)), make_core())  # a message
    assert after(lambda core: core.step("b", RequestVote(2, 0, 0)), make_core())  # one after the sync
    assert after(lambda core: core.step("b", VoteResponse(2, False)), make_core())  # another term
    assert not after(lambda core: core.step("b", VoteResponse(0, False)), make_core())
    waiting = follower()
    waiting.read_index(1)
    asked = next(m for _, m in drain(waiting).messages if isinstance(m, ReadIndexRequest))
    assert after(lambda core: core.step("b", ReadIndexRefused(1, asked.context)), waiting)  # a read refused


def committing(single: Core) -> Core:
    """A lone voter that has something on its way to the disk."""
    drain(single)
    drain(single)
    single.propose([b"x"])
    single.ready()
    return single


def test_a_log_whose_terms_decrease_is_found() -> None:
    core = make_core(log=[1, 1, 3])
    check_log(core)
    core.log._entries[1] = (4, 1, b"")
    with pytest.raises(InvariantBroken, match="decrease"):
        check_log(core)
    core.log._entries[1] = (3, 1, b"")
    core.log.last_term = 2
    with pytest.raises(InvariantBroken, match="last term"):
        check_log(core)


def test_progress_out_of_order_is_found() -> None:
    for match_index, next_index in ((0, 6), (3, 3), (-1, 1)):
        core = make_leader(log=[1, 1, 1])
        progress = role_object(core).progress["b"]
        progress.match_index, progress.next_index = 4, 5
        check_log(core)
        progress.match_index, progress.next_index = match_index, next_index
        with pytest.raises(InvariantBroken, match="order"):
            check_log(core)
    core = make_leader()
    role_object(core).progress["b"].inflights.bytes = -1
    with pytest.raises(InvariantBroken, match="in flight"):
        check_log(core)


def test_facts_are_those_of_the_core() -> None:
    core = make_leader(log=[1])
    core.step("b", AppendResponse(2, 2))
    drain(core)
    assert facts_of(core) == Facts(Role.LEADER, 2, "a", 2, 2, 2)


def test_the_bounds_of_a_configuration_are_checked() -> None:
    for field in fields(RaftConfig):
        if field.name not in ("incarnation", "priority", "trailing_entries"):
            with pytest.raises(AssertionError, match=field.name):
                RaftConfig(**{field.name: 0})
    for incarnation in (-1, 1 << 31):
        with pytest.raises(AssertionError, match="incarnation"):
            RaftConfig(incarnation=incarnation)


def test_a_core_has_ordinary_bounds_if_none_are_given() -> None:
    assert Core("a", Configuration("a"), Recovered()).config == RaftConfig()


def test_a_new_progress_knows_nothing() -> None:
    progress = Progress(7, RaftConfig(), is_active=False)
    assert (progress.match_index, progress.next_index, progress.read_round) == (0, 7, 0)
    assert not progress.is_active


def test_a_breach_names_the_numbers() -> None:
    core = make_core(log=[1, 1, 1], commit_index=3)
    with pytest.raises(InvariantBroken, match="3"):
        core.step("b", AppendEntries(2, 2, 1, 0, batch(3, [2])))
    assert core.leader_id == "b"


def test_configurations_that_are_not_those_of_the_log_are_found() -> None:
    core = make_leader()
    check_log(core)
    core.configurations.append(9, Configuration("ab"))
    with pytest.raises(InvariantBroken, match="in the log"):
        check_log(core)
    core = make_leader()
    core.configuration = Configuration("abc")  # equal, and not the one that is kept
    with pytest.raises(InvariantBroken, match="in force"):
        check_log(core)


def test_a_leaders_table_of_others_than_its_peers_is_found() -> None:
    core = make_leader()
    del role_object(core).progress["b"]
    with pytest.raises(InvariantBroken, match="of others"):
        check_log(core)


def test_two_changes_under_way_are_found() -> None:
    core = make_leader()
    core.step("b", AppendResponse(1, 1))
    for voters in ("ab", "a"):
        configuration = Configuration(voters)
        core.log.append([(1, 2, configuration.encode())])
        core.adopt([(core.last_index, configuration)])
    with pytest.raises(InvariantBroken, match="two changes"):
        check_log(core)
