"""A replica whose state is wrong stops using it: when states are compared, what a fenced one still does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from raft.actor_messages import (
    Applied,
    Committed,
    LocalRead,
    MembershipChanged,
    NextSlice,
    NodeFenced,
    QueryStatus,
    ReadReady,
    RestoreSnapshot,
    SnapshotRestored,
    SnapshotSlice,
    StatusReport,
    TakeSnapshot,
)
from raft.applier_actor import ApplierActor
from raft.changes import Verb
from raft.config import RaftConfig
from raft.divergence import CHECK_EVERY
from raft.errors import Fenced, OutcomeUnknown, StateDamaged
from raft.fence import FenceMark, MemoryFence
from raft.guard import REPEAT_SECONDS
from raft.membership import Configuration
from raft.messages import StateReport
from raft.rehearsal import Rehearsal
from raft.replica import Replica, ReplicaSettings
from tests.raft.lone_actor import Surroundings
from tests.raft.replicas import Adder
from tests.raft.test_divergence import pairs

EVERY = 8
THREE = Configuration(["a", "b", "c"])


class Compared(Adder):
    """An adder that has fingerprints, and counts how often it is asked and in which pieces it applies."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[int, int]] = []
        self.asked = 0
        self.damage = ""  # where it finds out that it is damaged

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        self.pieces.append((first_index, len(bodies)))
        if self.damage == "apply":
            raise StateDamaged("a sum is not what it was")
        return super().apply(first_index, bodies)

    def fingerprint(self) -> int:
        self.asked += 1
        if self.damage == "fingerprint":
            raise StateDamaged("a sum is not what it was")
        return self.total

    def snapshot(self) -> Iterator[bytes]:
        if self.damage == "snapshot":
            raise StateDamaged("a sum is not what it was")
        yield from super().snapshot()


def alone(
    configuration: Configuration = THREE, fence: MemoryFence | None = None, machine: Adder | None = None
) -> tuple[Surroundings, ApplierActor, Compared]:
    machine = machine or Compared()
    actor = ApplierActor(machine, fence=fence, check_every=EVERY)
    world = Surroundings(actor)
    world.start()
    world.tell(MembershipChanged(1, configuration.encode(), True, False))
    assert isinstance(actor._machine, Adder)
    return world, actor, machine  # type: ignore[return-value]


def ones(first_index: int, count: int) -> Committed:
    return Committed(first_index, [b"1"] * count, [(first_index, 0, count)], [0])


def reports(world: Surroundings) -> list[tuple[str, StateReport]]:
    happened = list(world.happened)
    world.happened.clear()
    return [(each[0].node, each[1]) for each in happened if type(each[1]) is StateReport]


# -- when it compares --------------------------------------------------------------------------------


def test_a_batch_is_split_only_where_a_check_is_due() -> None:
    world, _, machine = alone()
    world.tell(ones(1, 3))
    world.tell(ones(4, 4))
    assert (machine.pieces, machine.asked) == ([(1, 3), (4, 4)], 0)
    world.tell(ones(8, 20))
    assert (machine.pieces[2:], machine.asked) == ([(8, 1), (9, 8), (17, 8), (25, 3)], 3)
    applied = world.take(Applied)[-1]
    assert applied.slices == [(8, 0, 20, b"".join(b"%d" % number for number in range(8, 28)))]


def test_who_is_alone_compares_nothing() -> None:
    world, _, machine = alone(Configuration(["a"]))
    world.tell(ones(1, 20))
    for _ in range(30):
        world.wait()
    assert (machine.pieces, machine.asked, reports(world)) == ([(1, 20)], 0, [])


def test_a_machine_without_fingerprints_is_not_compared() -> None:
    world, actor, _ = alone(machine=Adder())
    world.tell(ones(1, 20))
    world.tell(StateReport(0, pairs((8, 7))), node="b", actor="applier")
    world.tell(StateReport(0, pairs((8, 7))), node="c", actor="applier")
    assert actor._deadline is None and reports(world) == []


def test_the_other_members_are_told_at_most_four_times_a_second() -> None:
    world, _, _ = alone()
    for first_index in range(1, 161, 40):
        world.tell(ones(first_index, 40))
        assert reports(world) == [], "not before the tick"
        assert world.wait() >= 0.25
        told = reports(world)
        assert [node for node, _ in told] == ["b", "c"]
        newest = first_index + 39
        assert pairs((newest, newest)) in told[0][1].pairs


def test_a_log_that_stands_still_is_compared_where_it_stands() -> None:
    """Of a cluster that writes seldom: all nodes come to stand at the same index."""
    world, _, machine = alone()
    world.tell(ones(1, 3))
    world.wait()
    assert reports(world) == [], "it may only be in between"
    world.wait()
    assert [report.pairs for _, report in reports(world)] == [pairs((3, 3))] * 2
    world.wait()
    assert (reports(world), machine.asked) == ([], 1)


def test_a_report_is_repeated_for_who_missed_it() -> None:
    world, _, _ = alone()
    world.tell(ones(1, 8))
    world.wait()
    [(_, first), _] = reports(world)
    slept = 0.0
    while not (told := reports(world)):
        slept += world.wait()
    assert told[0][1] == first and REPEAT_SECONDS - 0.5 <= slept <= REPEAT_SECONDS + 0.5


# -- the verdict -------------------------------------------------------------------------------------


def outvote(world: Surroundings, index: int, fingerprint: int) -> None:
    for node in ("b", "c"):
        world.tell(StateReport(0, pairs((index, fingerprint))), node=node, actor="applier")


def test_nothing_leaves_that_was_computed_behind_the_difference() -> None:
    world, actor, machine = alone(fence=MemoryFence())
    outvote(world, 8, 99)
    world.tell(ones(1, 7), ones(8, 20), LocalRead([5], [1], [b""]), ReadReady(3, [6], [1], [b""]))
    assert world.take(Applied) == [], "not even what came before, in the same turn"
    assert machine.pieces == [(1, 7), (8, 1)], "and nothing was applied upon it"
    world.tell(ones(28, 4))
    world.tell(QueryStatus(1, {}))
    [status] = world.take(StatusReport)
    mark = {"index": 8, "own": f"{8:016x}", "theirs": f"{99:016x}", "reason": "a majority of the voters has"}
    assert status.fields["applied_index"] == 31
    fenced = status.fields["fenced"]
    assert isinstance(fenced, dict) and {**fenced, "reason": mark["reason"]} == mark
    assert machine.pieces == [(1, 7), (8, 1)] and actor._deadline is None


def test_the_fence_is_durable_before_anybody_hears_of_it() -> None:
    class Witness(MemoryFence):
        def put_up(self, mark: FenceMark) -> None:
            assert not [each for each in world.happened if type(each[1]) is NodeFenced]
            super().put_up(mark)

    fence = Witness()
    world, _, _ = alone(fence=fence)
    world.tell(ones(1, 8))
    assert fence.mark is None
    outvote(world, 8, 99)
    assert fence.mark is not None and fence.mark[:3] == (8, 8, 99)
    told = [(to.actor, message) for to, message in world.happened if type(message) is NodeFenced]
    assert told == [(actor, NodeFenced(*fence.mark)) for actor in ("replication", "gateway")]


def test_a_fenced_node_starts_fenced() -> None:
    fence = MemoryFence()
    fence.put_up(FenceMark(8, 1, 2, "because"))
    world, actor, machine = alone(fence=fence)
    assert world.take(NodeFenced) == [NodeFenced(8, 1, 2, "because")] * 2
    world.tell(
        ones(1, 8), TakeSnapshot(), NextSlice(8), LocalRead([1], [1], [b""]), ReadReady(1, [2], [1], [b""])
    )
    assert world.happened == [] and machine.pieces == []
    world.tell(RestoreSnapshot(100, 5))
    assert world.take(SnapshotRestored) == [SnapshotRestored(100)] and machine.total == 0
    world.tell(ones(101, 1))
    assert actor.applied_index == 101


def test_a_snapshot_on_its_way_in_does_not_keep_the_log_from_going_on() -> None:
    world, actor, _ = alone()
    world.tell(ones(1, 8), RestoreSnapshot(50, 5))
    outvote(world, 8, 99)
    assert world.take(SnapshotRestored) == [SnapshotRestored(50)]
    world.tell(ones(51, 1))
    assert actor.applied_index == 51


@pytest.mark.parametrize("where", ["apply", "fingerprint", "snapshot"])
def test_a_machine_that_finds_its_own_damage_is_fenced(where: str) -> None:
    fence = MemoryFence()
    world, actor, machine = alone(fence=fence)
    world.tell(ones(1, 6))
    machine.damage = where
    world.tell(TakeSnapshot(), ones(7, 4), ones(11, 4))
    assert fence.mark is not None and fence.mark[1:] == (0, 0, "a sum is not what it was", False)
    assert (world.take(SnapshotSlice) != []) == (where != "snapshot")
    assert actor.applied_index == 14


@pytest.mark.parametrize("where", ["apply", "snapshot"])
def test_the_only_voter_ends_instead(where: str) -> None:
    """Nobody else could serve; its next start makes the state anew, from the disk."""
    fence = MemoryFence()
    world, _, machine = alone(Configuration(["a"], ["l"]), fence=fence)
    machine.damage = where
    with pytest.raises(StateDamaged):
        world.tell(TakeSnapshot(), ones(1, 4))
    assert fence.mark is None


# -- whole replicas ----------------------------------------------------------------------------------

SETTINGS = ReplicaSettings(
    raft=RaftConfig(snapshot_interval_entries=50, trailing_entries=10, snapshot_chunk_bytes=4096)
)


class Trial(Rehearsal[Compared]):
    """Replicas of a machine that is compared; one of which is bent."""

    def __init__(self, size: int = 3, settings: ReplicaSettings | None = None) -> None:
        super().__init__(Compared, seed=3, size=size, settings=settings)

    def add_up(self, count: int) -> None:
        commands = [self.leader().propose(b"1") for _ in range(count)]
        for command in commands:
            self.finish(command)
        self.run(0.3)

    def bend(self, replica: Replica) -> None:
        self.machines[replica.node_id].total += 1000

    def follower(self) -> Replica:
        leader = self.leader()
        return next(replica for replica in self.replicas.values() if replica is not leader)

    def has_fenced(self, replica: Replica) -> bool:
        return self.run_until(lambda: replica.fenced is not None)


def test_a_follower_that_differs_is_fenced_and_the_others_serve() -> None:
    cluster = Trial()
    cluster.add_up(10)
    bent = cluster.follower()
    cluster.bend(bent)
    cluster.add_up(CHECK_EVERY)
    assert cluster.has_fenced(bent)
    assert [replica.fenced is None for replica in cluster.replicas.values()].count(True) == 2
    for is_local in (False, True):
        with pytest.raises(Fenced):
            cluster.finish(bent.ask(b"", is_local=is_local))
    assert cluster.finish(cluster.leader().propose(b"1")) == b"%d" % (CHECK_EVERY + 11)


def test_an_idle_cluster_finds_out_too() -> None:
    cluster = Trial()
    cluster.add_up(3)
    cluster.run(2.0)
    bent = cluster.follower()
    cluster.bend(bent)
    cluster.add_up(1)
    assert cluster.has_fenced(bent)


def test_a_leader_that_differs_hands_over_and_never_leads_again() -> None:
    cluster = Trial()
    cluster.add_up(10)
    bent = cluster.leader()
    cluster.bend(bent)
    cluster.add_up(CHECK_EVERY)
    assert cluster.has_fenced(bent)
    began = cluster.clock.now()
    assert cluster.run_until(lambda: not bent.is_leader and cluster._leader() is not None)
    assert cluster.clock.now() - began < cluster.replicas["n1"].settings.election_timeout_seconds, (
        "handed over"
    )
    assert cluster.finish(cluster.leader().propose(b"1")) == b"%d" % (CHECK_EVERY + 11)
    other = cluster.leader()
    third = next(each for each in cluster.replicas.values() if each not in (bent, other))
    cluster.crash(other.node_id)
    assert cluster.run_until(lambda: third.is_leader), "with the vote of the fenced one"
    cluster.crash(third.node_id)
    cluster.run(5.0)
    assert not bent.is_leader


def test_what_was_asked_of_a_leader_that_is_fenced_is_not_answered_by_it() -> None:
    cluster = Trial()
    cluster.add_up(10)
    bent = cluster.leader()
    cluster.bend(bent)
    commands = [bent.propose(b"1") for _ in range(CHECK_EVERY)]
    assert cluster.has_fenced(bent)
    late = [command for command in commands if command.is_over and command.abandonment is not None]
    for command in late:
        with pytest.raises((OutcomeUnknown, Fenced)):
            command.outcome()
    with pytest.raises(Fenced):
        cluster.finish(bent.propose(b"1"))


def test_nobody_is_fenced_where_one_stands_against_one() -> None:
    cluster = Trial(size=2)
    cluster.add_up(10)
    cluster.bend(cluster.follower())
    cluster.add_up(CHECK_EVERY)
    cluster.run(2.0)
    assert all(replica.fenced is None for replica in cluster.replicas.values())
    cluster.add_up(1)


def test_replicas_that_come_and_go_and_get_snapshots_are_not_fenced() -> None:
    cluster = Trial(settings=SETTINGS)
    for round_number in range(6):
        cluster.add_up(150)
        name = f"n{round_number % 3 + 1}"
        cluster.crash(name)
        cluster.add_up(120)
        cluster.start(name)
    cluster.run(3.0)
    assert all(replica.fenced is None for replica in cluster.replicas.values())
    assert {machine.total for machine in cluster.machines.values()} == {6 * 270}


def test_a_fenced_replica_takes_no_snapshot_keeps_its_log_and_can_be_replaced() -> None:
    cluster = Trial(settings=SETTINGS)
    cluster.add_up(10)
    bent = cluster.follower()
    cluster.bend(bent)
    cluster.add_up(CHECK_EVERY)
    assert cluster.has_fenced(bent)
    kept = cluster.disks[bent.node_id].load()
    for _ in range(4):
        cluster.add_up(100)
    now = cluster.disks[bent.node_id].load()
    assert (now.snapshot, now.first_index) == (kept.snapshot, kept.first_index)
    assert now.last_index > kept.last_index + 300, "its log goes on"
    cluster.start("n4")
    leader = cluster.leader()
    cluster.finish(leader.change(Verb.REPLACE, bent.node_id, "n4", addresses={"n4": cluster.members["n4"]}))
    assert leader.members.voters == {"n4", *cluster.founders} - {bent.node_id}
    cluster.add_up(1)
    assert cluster.machines["n4"].total == CHECK_EVERY + 411


def test_a_fence_outlives_the_process(tmp_path: Path) -> None:
    """Of a replica with a directory; alone, so that only the mark can make it so."""
    members = {"n1": f"ipc://{tmp_path}/n1"}
    with Replica("n1", Compared(), members=members, storage=tmp_path / "d") as replica:
        replica.wait_for_leader(10.0)
        assert replica.apply(b"5") == b"5"
        assert replica._directory is not None
        replica._directory.fence().put_up(FenceMark(1, 2, 3, "because"))
    with Replica("n1", Compared(), members=members, storage=tmp_path / "d") as replica:
        with pytest.raises(Fenced):
            replica.read_local(b"")
        assert replica.fenced == FenceMark(1, 2, 3, "because")
