"""Commands that take long: a turn of the applier ends in time, and what waits is bounded and in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from raft.actor_messages import (
    Applied,
    ApplierBehind,
    NodeFenced,
    ReadReady,
    RestoreSnapshot,
    SnapshotRestored,
    SnapshotSlice,
    TakeSnapshot,
)
from raft.applier_actor import ApplierActor
from raft.errors import Overloaded, StateDamaged
from raft.messages import AppendResponse
from raft.unapplied import APPLY_SECONDS
from tests.raft.cores import settled_leader
from tests.raft.lone_actor import Surroundings
from tests.raft.network import drain
from tests.raft.test_applier_actor import Counting, committed

LONG_SECONDS = 0.02


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
        assert world.seconds - before <= APPLY_SECONDS + 2 * LONG_SECONDS
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
    assert world.seconds <= APPLY_SECONDS + 2 * LONG_SECONDS
    assert told(world) == [True]
    assert finish(world) > 20
    assert told(world) == [True, False]
    assert [index for index, _ in machine.applied] == list(range(1, 101))


def test_commands_that_take_no_time_are_applied_in_one_turn_and_nobody_is_told() -> None:
    world, machine = make()
    world.tell(committed(1, *[b"x"] * 5000), committed(5001, b"long", b"y"))
    assert len(machine.applied) == 5002 and told(world) == []


def test_a_ticket_is_answered_when_all_of_its_commands_are_applied_and_reads_wait_for_their_index() -> None:
    world, _ = make()
    message = committed(1, *[b"long"] * 8)
    message.slices, message.starts = [(7, 0, 8)], [0]
    world.tell(message, ReadReady(8, [9], [1], [b"r"]))
    assert world.take(Applied) == []
    finish(world)
    [applied] = world.take(Applied)
    joined = b"".join(b"<%d>" % index for index in range(1, 9))
    assert sorted(applied.slices) == [(7, 0, 8, joined), (9, 0, 1, b"r@8")]


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


def test_while_the_applier_is_behind_nothing_is_handed_out_and_proposals_are_refused_in_time() -> None:
    """Else what is committed would grow without a bound in memory."""
    core = settled_leader()
    core.snapshots.is_applier_behind = True
    before = core.delivered_index
    core.propose([b"one"])
    drain(core)
    core.step("b", AppendResponse(1, core.last_index))
    assert core.delivered_index == before < core.commit_index
    while core.has_ready():
        assert drain(core).committed is None
    with pytest.raises(Overloaded):
        core.propose([b"two"])
    core.snapshots.is_applier_behind = False
    assert drain(core).committed is not None and core.delivered_index == core.commit_index
    core.propose([b"two"])
