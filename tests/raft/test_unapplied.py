"""Commands that take long: a turn of the applier ends in time, and what waits is bounded and in order."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from raft.actor_messages import (
    Applied,
    ApplierBehind,
    Committed,
    LocalRead,
    NodeFenced,
    ReadReady,
    RestoreSnapshot,
    SnapshotRestored,
    SnapshotSlice,
    TakeSnapshot,
)
from raft.applier_actor import ApplierActor
from raft.config import RaftConfig
from raft.errors import Overloaded, StateDamaged
from raft.messages import AppendResponse
from raft.replica import Replica, ReplicaSettings
from raft.unapplied import PART_BYTES, PIECE_ENTRIES, READ_SHARE, TURN_RESULT_BYTES, TURN_SHARE
from tests.raft.cores import settled_leader
from tests.raft.lone_actor import Surroundings
from tests.raft.network import drain
from tests.raft.test_applier_actor import Counting, committed
from tests.simulator.clocks import Schedule
from tests.simulator.cluster import Cluster
from tests.simulator.oracles import Oracles
from tests.simulator.swarm import draw
from tests.simulator.tracing import Trace

LONG_SECONDS = 0.02
HEARTBEAT_SECONDS = 0.05
TURN_SECONDS = HEARTBEAT_SECONDS * TURN_SHARE


class Toiling(Counting):
    """A command b"long" takes 20 ms, and any other no time."""

    def __init__(self) -> None:
        super().__init__()
        self.world: Surroundings

    def apply_some(
        self, first_index: int, bodies: Sequence[bytes | None], *, is_time_up: Callable[[], bool]
    ) -> list[bytes | None]:
        results: list[bytes | None] = []
        for index, body in enumerate(bodies, first_index):
            if body == b"broken":
                raise StateDamaged("a cell of memory")
            results += self.apply(index, [body])
            if body == b"long":
                self.world.seconds += LONG_SECONDS
                if is_time_up():
                    break
        return results

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        self.world.seconds += LONG_SECONDS * bodies.count(b"long")
        return super().query(bodies)


def make() -> tuple[Surroundings, Toiling]:
    machine = Toiling()
    machine.world = world = Surroundings(ApplierActor(machine))
    world.start()
    return world, machine


def finish(world: Surroundings) -> int:
    """Turns until nothing waits any more; none of them takes longer than it may."""
    assert isinstance(world.actor, ApplierActor)
    turns = 0
    while world.actor._unapplied.waiting:
        before = world.seconds
        assert world.actor._deadline == before  # it goes on at once
        world.wait()
        assert world.seconds - before <= TURN_SECONDS + LONG_SECONDS
        turns += 1
    return turns


def told(world: Surroundings) -> list[bool]:
    happened = list(world.happened)
    found = [message.is_behind for message in world.take(ApplierBehind)]
    world.happened = happened
    return found


def test_no_turn_takes_longer_than_its_share_however_much_was_committed() -> None:
    world, machine = make()
    world.tell(committed(1, *[b"long"] * 100))
    assert world.seconds <= TURN_SECONDS + LONG_SECONDS
    assert told(world) == [True]
    assert finish(world) > 20
    assert told(world) == [True, False]
    assert [index for index, _ in machine.applied] == list(range(1, 101))


def test_commands_that_take_no_time_are_applied_in_one_turn_and_nobody_is_told() -> None:
    world, machine = make()
    world.tell(committed(1, *[b"x"] * 5000), committed(5001, b"long", b"y"))
    assert len(machine.applied) == 5002 and told(world) == []


def test_each_turn_answers_what_it_has_applied_of_a_ticket_and_reads_wait_for_their_index() -> None:
    world, _ = make()
    message = committed(1, *[b"long"] * 5)
    message.slices, message.starts = [(7, 0, 5)], [0]
    world.tell(message, ReadReady(5, [9], [1], [b"r"]))
    assert world.take(Applied) == [Applied([(7, 0, 2, b"<1><2>")])]
    finish(world)
    assert world.take(Applied) == [
        Applied([(7, 2, 2, b"<3><4>")]),
        Applied([(7, 4, 1, b"<5>"), (9, 0, 1, b"r@5")]),
    ]


def test_a_snapshot_is_of_the_state_at_which_it_was_asked_for_and_what_follows_waits_behind_it() -> None:
    world, machine = make()
    world.tell(committed(1, *[b"long"] * 8), TakeSnapshot(), committed(9, b"after"))
    assert world.take(SnapshotSlice) == []
    finish(world)
    [piece] = world.take(SnapshotSlice)
    assert (piece.index, piece.data) == (8, b"1,2,3,4,5,6,7,8,")
    assert machine.applied[-1] == (9, b"after")


def test_a_snapshot_that_is_installed_comes_behind_what_was_committed_before() -> None:
    world, machine = make()
    world.tell(committed(1, *[b"long"] * 8), RestoreSnapshot(20, 0))
    assert world.take(SnapshotRestored) == []
    finish(world)
    assert world.take(SnapshotRestored) == [SnapshotRestored(20)]
    assert machine.applied == []  # that of an empty snapshot
    world.tell(committed(21, b"x"))
    assert machine.applied == [(21, b"x")]


def test_behind_a_fence_nothing_waits_and_replication_goes_on() -> None:
    world, machine = make()
    world.tell(committed(1, *[b"long"] * 8), committed(9, b"broken"), RestoreSnapshot(20, 0))
    finish(world)
    assert isinstance(world.actor, ApplierActor)
    assert world.actor.applied_index == 20 and len(machine.applied) == 8
    assert told(world) == [True, False]
    happened = list(world.happened)
    assert world.take(SnapshotRestored) == [SnapshotRestored(20)]
    world.happened = happened
    assert len(world.take(NodeFenced)) == 2  # to replication and to the gateway
    world.tell(committed(21, b"x"))
    assert world.actor.applied_index == 21 and len(machine.applied) == 8


class Plain(Counting):
    """Has no apply_some(): each command takes a millisecond or so, and has a result of `result_bytes`."""

    def __init__(self, result_bytes: int, command_seconds: float) -> None:
        super().__init__()
        self.world: Surroundings
        self.result_bytes = result_bytes
        self.command_seconds = command_seconds

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        results = super().apply(first_index, bodies)
        self.world.seconds += self.command_seconds * len(bodies)
        return [None if result is None else bytes(self.result_bytes) for result in results]


def plain_world(result_bytes: int = 1, command_seconds: float = 0.001) -> tuple[Surroundings, Plain]:
    machine = Plain(result_bytes, command_seconds)
    machine.world = world = Surroundings(ApplierActor(machine))
    world.start()
    return world, machine


def pass_with(world: Surroundings, *messages: object) -> None:
    """A turn of the node in which these arrive: then the deadline is met, if it was due when it began."""
    began = world.seconds
    world.tell(*messages)
    deadline = world.actor._deadline
    if deadline is not None and deadline <= began:
        world.actor._deadline = None
        world.actor.on_deadline()
        world.flush(world.actor)


def test_a_turn_ends_in_time_that_gets_several_lots_of_commands_for_a_machine_that_asks_for_no_time() -> None:
    world, machine = plain_world()
    world.tell(*[committed(1 + 256 * number, *[b"x"] * 256) for number in range(4)])
    assert world.seconds <= TURN_SECONDS + 0.001 * PIECE_ENTRIES
    turns = 1
    while len(machine.applied) < 1024:
        began = world.seconds
        world.wait()
        assert world.seconds - began <= TURN_SECONDS + 0.001 * PIECE_ENTRIES
        turns += 1
    assert turns > 10 and told(world) == [True, False]


def test_what_a_turn_does_before_the_first_command_counts_too() -> None:
    world, machine = make()
    world.tell(LocalRead([1], [2], [b"long", b"long"]), committed(1, b"long", b"long"))
    assert world.seconds <= TURN_SECONDS + 2 * LONG_SECONDS
    assert machine.applied == []
    finish(world)
    assert len(machine.applied) == 2


@pytest.mark.parametrize(
    ("heartbeat_seconds", "turn_seconds"), [(0.005, 0.0025), (0.05, 0.025), (60.0, 0.025)]
)
def test_a_turn_takes_half_a_heartbeat_interval_and_never_more_than_it_need(
    heartbeat_seconds: float, turn_seconds: float
) -> None:
    machine = Toiling()
    applier = ApplierActor(machine, heartbeat_interval_seconds=heartbeat_seconds)
    machine.world = world = Surroundings(applier)
    world.start()
    world.tell(committed(1, *[b"long"] * 100))
    assert turn_seconds <= world.seconds <= turn_seconds + LONG_SECONDS


def test_what_waits_goes_on_though_something_comes_in_every_turn() -> None:
    """Each message put it off: the deadline was moved to behind it."""
    world, machine = make()
    world.tell(committed(1, *[b"long"] * 20))
    for _ in range(20):
        world.seconds += 0.001
        pass_with(world, LocalRead([1], [1], [b"long"]))
    assert len(machine.applied) == 20


def test_results_that_nobody_asked_for_are_not_kept() -> None:
    """On a follower nobody has: and what is applied there may be gigabytes of results."""
    world, machine = plain_world(100_000)
    tracemalloc.start()
    try:
        world.tell(committed(1, *[b"x"] * 1000))
        while len(machine.applied) < 1000:
            world.wait()
            held_bytes, _ = tracemalloc.get_traced_memory()
            assert held_bytes < 1 << 20
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * PIECE_ENTRIES * 100_000
    assert world.take(Applied) == []


def test_the_results_of_a_ticket_leave_in_parts_that_follow_one_another() -> None:
    world, machine = plain_world(300_000)
    world.tell(Committed(1, [None, *[b"x"] * 99], [(7, 5, 60), (8, 0, 1), (9, 0, 38)], [1, 61, 62]))
    while len(machine.applied) < 100:
        world.wait()
    found: dict[int, list[tuple[int, int]]] = {7: [], 8: [], 9: []}
    for ticket, offset, count, results in [part for each in world.take(Applied) for part in each.slices]:
        assert len(results) == 300_000 * count <= PART_BYTES + 300_000
        found[ticket].append((offset, count))
    for ticket, at, last in ((7, 5, 65), (8, 0, 1), (9, 0, 38)):
        for offset, count in found[ticket]:
            assert offset == at
            at += count
        assert at == last


def test_a_turn_ends_early_that_has_many_megabytes_of_results() -> None:
    """All of them are in memory until it ends."""
    world, machine = plain_world(1 << 18, command_seconds=0.0)
    world.tell(Committed(1, [b"x"] * 1000, [(7, 0, 1000)], [0]))
    most = 0
    while True:
        sizes = [len(results) for each in world.take(Applied) for *_, results in each.slices]
        most = max(most, sum(sizes))
        if len(machine.applied) == 1000:
            break
        world.wait()
    assert most <= TURN_RESULT_BYTES + (PIECE_ENTRIES << 18)


def test_results_of_a_turn_are_in_one_part_if_they_are_small() -> None:
    world, _ = plain_world()
    world.tell(Committed(1, [b"x"] * 20, [(7, 0, 20)], [0]))
    assert world.take(Applied) == [Applied([(7, 0, 20, bytes(20))])]


def test_reads_that_waited_are_answered_within_the_time_of_a_turn_and_in_order() -> None:
    world, _ = make()
    world.tell(*[ReadReady(1, [number], [1], [b"long"]) for number in range(100)])
    world.tell(ReadReady(3, [200], [1], [b"r"]), ReadReady(2, [201], [1], [b"r"]))
    assert world.take(Applied) == [] and world.actor._deadline is None
    began = world.seconds
    world.tell(committed(1, b"x"))
    answered, turns = [], 1
    while True:
        assert world.seconds - began <= TURN_SECONDS + LONG_SECONDS
        answered += [ticket for each in world.take(Applied) for ticket, *_ in each.slices]
        if world.actor._deadline is None:
            break
        began = world.seconds
        world.wait()
        turns += 1
    assert answered == list(range(100)) and turns > 20
    world.tell(committed(2, b"x", b"x"))
    assert [ticket for each in world.take(Applied) for ticket, *_ in each.slices] == [200, 201]


def test_reads_get_further_though_commands_take_all_of_each_turn() -> None:
    world, machine = make()
    world.tell(committed(1, b"x"), committed(2, *[b"long"] * 50))
    world.tell(*[ReadReady(1, [number], [1], [b"r"]) for number in range(100)])
    began = world.seconds
    world.wait()
    assert len(machine.applied) < 10
    assert len(world.take(Applied)[0].slices) == 100
    assert world.seconds - began <= TURN_SECONDS * (1 + READ_SHARE) + LONG_SECONDS


def test_behind_a_fence_nothing_of_a_ticket_is_kept() -> None:
    world, _ = make()
    message = committed(1, *[b"long"] * 8, b"broken")
    message.slices, message.starts = [(7, 0, 9)], [0]
    world.tell(message, ReadReady(1, [9], [1], [b"long"]), ReadReady(1, [10], [1], [b"long"]))
    while world.actor._deadline is not None:
        world.wait()
    assert isinstance(world.actor, ApplierActor)
    assert world.take(NodeFenced) and world.actor._unapplied._kept == [] and not world.actor._has_left()
    world.tell(committed(10, b"x"))
    assert world.actor.applied_index == 10


@pytest.mark.parametrize("bound", ["entries", "bytes"])
def test_while_the_applier_is_behind_nothing_is_handed_out_and_too_much_is_refused(bound: str) -> None:
    """Else what is committed would grow without a bound in memory. A bulk load that ends a turn early is no
    reason to refuse it."""
    few = {"entries": {"max_unapplied_entries": 3}, "bytes": {"max_unapplied_bytes": 3 * 1013}}[bound]
    core = settled_leader(config=RaftConfig(**few))
    core.snapshots.is_applier_behind = True
    before = core.delivered_index
    for number in range(4):
        core.propose([bytes(1000)])
        drain(core)
        core.step("b", AppendResponse(1, core.last_index))
        assert core.delivered_index == before and core.commit_index == before + number + 1
    while core.has_ready():
        assert drain(core).committed is None
    with pytest.raises(Overloaded) as refusal:
        core.propose([b"two"])
    assert refusal.value.amount > refusal.value.limit > 0
    core.snapshots.is_applier_behind = False
    assert drain(core).committed is not None and core.delivered_index == core.commit_index
    core.propose([b"two"])
    core.snapshots.is_applier_behind = True
    core.propose([b"two"])  # there is room again


def test_a_replica_and_a_node_tell_their_applier_the_heartbeat_interval(tmp_path: Path) -> None:
    """One whose election timeout is 15 ms was silent for 50 ms whenever commands took long."""
    replica = Replica(
        "n1",
        Counting(),
        members={"n1": f"ipc://{tmp_path}/peer"},
        storage=tmp_path / "data",
        settings=ReplicaSettings(heartbeat_interval_seconds=0.006),
    )
    applier = replica._system._by_name["applier"].actor
    assert isinstance(applier, ApplierActor) and applier._share._seconds == 0.006 * TURN_SHARE
    replica.stop()
    schedule = Schedule()
    trace = Trace(schedule, keep=False)
    swarm = replace(draw(Random(1), 1), heartbeat_ms=30)
    oracles = Oracles(trace)
    cluster = oracles.cluster = Cluster(schedule, Random(1), swarm, trace, oracles)
    [node] = cluster.nodes.values()
    cluster.start(node)
    assert node.applier._share._seconds == 0.03 * TURN_SHARE
