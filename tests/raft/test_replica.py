"""Raft as a library: a replica by hand, the life of a command, and what is told when things break."""

from __future__ import annotations

import pytest

from raft.actor_messages import Reason
from raft.config import RaftConfig
from raft.errors import (
    ConflictWithLeader,
    Expired,
    NotApplied,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    TooLarge,
    Transferring,
)
from raft.life import Abandonment, Command, Stage
from raft.replica import Replica, ReplicaSettings
from tests.raft.replicas import HandCluster


class Diary:
    """Writes down each stage that a command goes through, with what is known at that moment."""

    def __init__(self) -> None:
        self.pages: list[tuple[Stage, int | None, int | None, bytes | None]] = []

    def note(self, command: Command) -> None:
        self.pages.append((command.stage, command.index, command.term, command.result))

    def propose(self, replica: Replica, body: bytes, timeout_seconds: float = 10.0) -> Command:
        return replica.propose(
            body,
            timeout_seconds=timeout_seconds,
            on_queued=self.note,
            on_committed=self.note,
            on_applied=self.note,
            on_abandoned=self.note,
        )


def test_a_command_goes_through_all_stages_and_every_replica_applies_it() -> None:
    cluster = HandCluster()
    diary, leader = Diary(), cluster.leader()
    command = diary.propose(leader, b"7")
    assert (command.stage, command.is_over) == (Stage.SUBMITTED, False)
    assert cluster.finish(command) == b"7"
    assert diary.pages == [
        (Stage.QUEUED, 2, 1, None),
        (Stage.COMMITTED, 2, 1, None),
        (Stage.APPLIED, 2, 1, b"7"),
    ]
    cluster.run(0.2)
    assert {machine.total for machine in cluster.machines.values()} == {7}


def test_the_only_member_tells_the_same_stages_though_all_happen_in_one_turn() -> None:
    cluster = HandCluster(size=1)
    diary = Diary()
    cluster.finish(diary.propose(cluster.leader(), b"7"))
    assert [page[0] for page in diary.pages] == [Stage.QUEUED, Stage.COMMITTED, Stage.APPLIED]


def test_commands_are_applied_in_the_order_in_which_they_were_proposed() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    commands = [leader.propose(b"%d" % number) for number in range(1, 101)]
    cluster.finish(commands[-1])
    assert [command.outcome() for command in commands] == [b"%d" % (n * (n + 1) // 2) for n in range(1, 101)]


def test_a_follower_refuses_a_command_and_names_the_leader() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    follower = next(replica for replica in cluster.replicas.values() if replica is not leader)
    diary = Diary()
    with pytest.raises(NotLeader) as refusal:
        cluster.finish(diary.propose(follower, b"7"))
    assert refusal.value.leader_id == leader.node_id
    assert [page[0] for page in diary.pages] == [Stage.ABANDONED]


def test_every_replica_answers_queries_no_older_than_what_was_applied() -> None:
    cluster = HandCluster()
    cluster.finish(cluster.leader().propose(b"7"))
    assert [cluster.finish(replica.ask(b"")) for replica in cluster.replicas.values()] == [b"7"] * 3


def test_a_replica_that_is_cut_off_answers_local_queries_only() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    cluster.finish(leader.propose(b"7"))
    cluster.run(0.2)
    lonely = next(name for name, replica in cluster.replicas.items() if replica is not leader)
    cluster.cut_off.add(lonely)
    with pytest.raises(NotApplied):
        cluster.finish(cluster.replicas[lonely].ask(b"", timeout_seconds=1.0))
    assert cluster.finish(cluster.replicas[lonely].ask(b"", is_local=True)) == b"7"


def test_a_command_that_a_new_leader_overwrites_has_an_unknown_outcome() -> None:
    """Raft figure 8: that it is gone from this log proves nothing."""
    cluster = HandCluster()
    old = cluster.leader()
    cluster.cut_off.add(old.node_id)
    lost = old.propose(b"100")
    new = cluster.leader()
    assert new is not old
    cluster.finish(new.propose(b"1"))
    cluster.cut_off.clear()
    with pytest.raises(OutcomeUnknown):
        cluster.finish(lost)
    assert cluster.finish(cluster.leader().ask(b"")) == b"1"


def test_a_leader_deposed_by_entries_in_place_of_its_own_names_the_conflict() -> None:
    """It is not heard any more, but hears: the next leader's first entry comes before it knows."""
    cluster = HandCluster()
    old = cluster.leader()
    cluster.mute.add(old.node_id)
    lost = old.propose(b"100")
    with pytest.raises(ConflictWithLeader):
        cluster.finish(lost)
    assert lost.abandonment == Abandonment(Reason.CONFLICT_WITH_LEADER, True)


def test_a_command_that_times_out_under_way_may_be_applied_after_all() -> None:
    settings = ReplicaSettings(election_timeout_seconds=60.0, heartbeat_interval_seconds=0.05)
    cluster = HandCluster(size=2, settings=settings)
    assert cluster.run_until(lambda: any(r.is_leader for r in cluster.replicas.values()), seconds=130.0)
    leader = cluster.leader()
    other = next(name for name in cluster.members if name != leader.node_id)
    cluster.cut_off.add(other)
    command = leader.propose(b"7", timeout_seconds=0.5)
    with pytest.raises(OutcomeUnknown):
        cluster.finish(command)
    assert command.abandonment == Abandonment(Reason.OUTCOME_UNKNOWN, True)
    cluster.cut_off.clear()
    cluster.run(0.5)
    assert cluster.machines[other].total == 7


def test_a_command_whose_deadline_passes_before_the_loop_sees_it_is_never_proposed() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    late = leader.propose(b"7", timeout_seconds=1.0)
    cluster.clock.advance(1.5)
    with pytest.raises(Expired):
        cluster.finish(late)
    assert not late.is_proposed
    assert cluster.finish(cluster.leader().ask(b"")) == b"0"


def test_what_waits_is_bounded_in_number_and_in_bytes() -> None:
    cluster = HandCluster(settings=ReplicaSettings(max_open=10, max_open_bytes=100))
    leader = cluster.leader()
    taken = [leader.propose(b"1") for _ in range(10)]
    diary = Diary()
    refused = diary.propose(leader, b"1")
    assert [page[0] for page in diary.pages] == [Stage.ABANDONED]  # within the call
    with pytest.raises(Overloaded):
        refused.outcome()
    assert cluster.finish(taken[-1]) == b"10"
    with pytest.raises(Overloaded):
        leader.propose(b"1" * 101).outcome()
    assert cluster.finish(leader.propose(b"1")) == b"11"


def test_the_bound_of_the_core_is_told_as_overloaded_too() -> None:
    config = RaftConfig(max_uncommitted_bytes=200)
    cluster = HandCluster(settings=ReplicaSettings(raft=config))
    leader = cluster.leader()
    for name in cluster.members:
        if name != leader.node_id:
            cluster.cut_off.add(name)
    leader.propose(b"1")
    leader.turn()
    with pytest.raises(Overloaded):
        command = leader.propose(b"0" * 300)
        leader.turn()
        command.outcome()


def test_a_stop_tells_apart_what_was_proposed_and_what_was_not() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    for name in cluster.members:
        if name != leader.node_id:
            cluster.cut_off.add(name)
    proposed = leader.propose(b"1")
    leader.turn()
    waiting = leader.propose(b"1")
    question = leader.ask(b"")
    leader.stop()
    with pytest.raises(OutcomeUnknown):
        proposed.outcome()
    with pytest.raises(ShuttingDown):
        waiting.outcome()
    with pytest.raises(ShuttingDown):
        question.outcome()
    with pytest.raises(ShuttingDown):
        leader.propose(b"1").outcome()
    assert cluster.heard[-1] == (leader.node_id, "stop", None)


def test_hooks_hear_who_leads() -> None:
    cluster = HandCluster()
    first = cluster.leader().node_id
    assert (first, "leader", first) in cluster.heard
    cluster.replicas.pop(first).stop()
    second = cluster.leader().node_id
    assert second != first
    others = [name for name in cluster.replicas if name != second]
    assert all((name, "follower", second) in cluster.heard for name in others)


def test_a_crash_loses_nothing_that_was_applied() -> None:
    cluster = HandCluster()
    cluster.finish(cluster.leader().propose(b"7"))
    for name in list(cluster.replicas):
        cluster.crash(name)
    for name in cluster.members:
        cluster.start(name)
    assert cluster.finish(cluster.leader().ask(b"")) == b"7"


def test_a_callback_that_raises_breaks_nothing_but_itself(caplog: pytest.LogCaptureFixture) -> None:
    cluster = HandCluster()
    leader = cluster.leader()

    def fail(command: Command) -> None:
        raise RuntimeError("of the user's")

    assert cluster.finish(leader.propose(b"7", on_applied=fail, on_queued=fail)) == b"7"
    assert cluster.finish(leader.propose(b"1")) == b"8"
    assert len([record for record in caplog.records if record.name == "assent.proposer"]) == 2


def test_a_callback_may_propose_the_next_command() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    chain: list[Command] = []

    def go_on(command: Command) -> None:
        if len(chain) < 5:
            chain.append(leader.propose(b"1", on_applied=go_on))

    go_on(leader.propose(b"1"))
    assert cluster.run_until(lambda: len(chain) == 5 and chain[-1].is_over)
    assert chain[-1].outcome() == b"6"


def test_a_machine_that_raises_ends_its_replica_and_is_told() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    command = leader.propose(b"boom")
    with pytest.raises(RuntimeError, match="the machine broke"):
        cluster.run(1.0)
    assert isinstance(leader.failure, RuntimeError)
    with pytest.raises(OutcomeUnknown):
        command.outcome()
    assert cluster.heard[-1] == (leader.node_id, "stop", leader.failure)


def test_frames_that_come_late_or_twice_change_nothing() -> None:
    for seed in range(3):
        cluster = HandCluster(seed)
        cluster.loss, cluster.delay, cluster.repetition = 0.1, 0.3, 0.2
        done = 0
        while done < 20:
            try:
                cluster.finish(cluster.leader().propose(b"1", timeout_seconds=2.0))
                done += 1
            except OutcomeUnknown:
                break  # it may have been applied: the sum is not known any more
            except NotApplied:
                continue
        else:
            assert cluster.run_until(lambda world=cluster: {m.total for m in world.machines.values()} == {20})  # type: ignore[misc]
            continue
        cluster.loss = cluster.delay = cluster.repetition = 0.0
        assert cluster.run_until(lambda world=cluster: len({m.total for m in world.machines.values()}) == 1)  # type: ignore[misc]


def test_a_request_that_is_under_way_has_no_outcome_yet() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    with pytest.raises(OutcomeUnknown, match="submitted"):
        leader.propose(b"1").outcome()
    with pytest.raises(Expired):
        leader.ask(b"").outcome()
    with pytest.raises(OutcomeUnknown, match="under_way"):
        leader.transfer_leadership().outcome()


@pytest.mark.parametrize("reason", list(Reason))
def test_every_end_is_of_one_of_two_families(reason: Reason) -> None:
    for may_be_applied in (False, True):
        error = Abandonment(reason, may_be_applied).error()
        assert isinstance(error, NotApplied) != isinstance(error, OutcomeUnknown)
        assert isinstance(error, OutcomeUnknown) or not may_be_applied


def test_while_leadership_is_handed_over_commands_are_refused_as_not_applied() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    cluster.finish(leader.propose(b"1"))
    cluster.mute.add(leader.node_id)  # so that the target does not hear of it
    leader.transfer_leadership()
    refused = leader.propose(b"1")
    with pytest.raises(Transferring):
        cluster.finish(refused)


def test_a_command_that_no_frame_could_carry_is_refused_at_once_and_the_largest_one_passes() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    limit = leader.settings.max_command_bytes
    with pytest.raises(TooLarge) as refusal:
        leader.propose(b"0" * (limit + 1))
    assert (refusal.value.amount, refusal.value.limit) == (limit + 1, limit)
    largest = [leader.propose(b" " * (limit - 1) + b"1") for _ in range(3)]
    assert cluster.finish(largest[-1]) == b"3"
    cluster.run(0.5)
    assert {machine.total for machine in cluster.machines.values()} == {3}


def test_what_is_no_bytes_is_refused_where_it_is_proposed_and_harms_nobody() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    with pytest.raises(TypeError, match="not str"):
        leader.propose("1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not int"):
        leader.ask(1)  # type: ignore[arg-type]
    assert cluster.finish(leader.propose(b"1")) == b"1"


def test_deadlines_are_judged_while_new_commands_keep_coming() -> None:
    settings = ReplicaSettings(election_timeout_seconds=60.0, heartbeat_interval_seconds=0.05)
    cluster = HandCluster(size=2, settings=settings)
    assert cluster.run_until(lambda: any(r.is_leader for r in cluster.replicas.values()), seconds=130.0)
    leader = cluster.leader()
    cluster.cut_off.add(next(name for name in cluster.members if name != leader.node_id))
    first = leader.propose(b"1", timeout_seconds=0.1)
    for _ in range(30):
        leader.propose(b"1")
        cluster.step()
    assert first.is_over
