"""The applier, alone with a machine that counts: order, no repetition, reads that wait for their index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from actors import Actor
from raft.actor_messages import (
    Applied,
    Committed,
    LocalRead,
    MembershipChanged,
    NextSlice,
    PartWanted,
    QueryStatus,
    ReadReady,
    RestoreSnapshot,
    RoleChanged,
    SnapshotPart,
    SnapshotRestored,
    SnapshotSlice,
    StatusReport,
    TakeSnapshot,
)
from raft.applier_actor import ApplierActor
from raft.membership import Configuration
from raft.slices import SLICE_BYTES
from raft.state_machine import Frame
from tests.raft.lone_actor import Surroundings


class Counting:
    """Answers each command with its index, and each read with how much was applied."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, bytes | None]] = []
        self.restorers: list[CountingRestorer] = []

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        entries = list(enumerate(bodies, first_index))
        self.applied += entries
        return [None if body is None else b"<%d>" % index for index, body in entries]

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [body + b"@%d" % len(self.applied) for body in bodies]

    def snapshot(self) -> Iterator[bytes]:
        return iter([b"%d," % index for index, _ in self.applied])

    def restorer(self) -> CountingRestorer:
        return CountingRestorer(self)

    def status(self) -> dict[str, object]:
        return {"machine": "counting"}


class CountingRestorer:
    """Keeps what it is fed, and in which parts."""

    def __init__(self, machine: Counting) -> None:
        self._machine = machine
        self.parts: list[bytes] = []
        machine.restorers.append(self)

    def feed(self, data: bytes) -> None:
        self.parts.append(data)

    def finish(self) -> None:
        indexes = b"".join(self.parts).split(b",")[:-1]
        self._machine.applied = [(int(index), b"restored") for index in indexes]


class Speaking:
    """An announcer that says what it was asked."""

    def subscribed(self, frames: Sequence[bytes]) -> list[Frame]:
        return [[b"subscribed", *frames]]

    def announcements(self) -> list[Frame]:
        return [[b"announcements"]]

    def heartbeats(self, now_seconds: float) -> list[Frame]:
        return [[b"heartbeat", b"%g" % now_seconds]]

    def cut_off(self) -> list[Frame]:
        return [[b"cut off"]]

    def role_changed(self, role: str, term: int, leader_id: str | None) -> list[Frame]:
        return [[b"role", role.encode()]]

    def members_changed(self, configuration: Configuration) -> list[Frame]:
        return [[b"members", *(name.encode() for name in sorted(configuration.members))]]

    def health_changed(self, term: int, silent: Sequence[str]) -> list[Frame]:
        return [[b"silent", *(name.encode() for name in silent)]]


def make() -> tuple[Surroundings, Counting]:
    machine = Counting()
    world = Surroundings(ApplierActor(machine))
    world.start()
    return world, machine


def committed(first_index: int, *bodies: bytes | None) -> Committed:
    return Committed(first_index, list(bodies), [], [])


def test_results_go_to_the_tickets_that_asked() -> None:
    world, _ = make()
    world.tell(Committed(1, [None, b"x", b"y", b"z"], [(7, 0, 1), (8, 2, 2)], [1, 2]))
    assert world.take(Applied) == [Applied([(7, 0, 1, b"<2>"), (8, 2, 2, b"<3><4>")])]


@pytest.mark.parametrize("first_index", [1, 2, 4])
def test_what_does_not_follow_is_refused(first_index: int) -> None:
    """An entry applied twice or skipped is a state that no other node has; the process must end."""
    world, machine = make()
    world.tell(committed(1, b"a", b"b"))
    with pytest.raises(AssertionError, match="handed over while 2"):
        world.tell(committed(first_index, b"c"))
    assert machine.applied == [(1, b"a"), (2, b"b")]


def test_a_read_waits_until_its_index_is_applied_here() -> None:
    """Dissertation 6.4, step 4: an index that is not applied yet is the future of this node."""
    world, _ = make()
    world.tell(ReadReady(2, [5], [1], [b"r"]))
    world.tell(committed(1, b"a"))
    assert world.take(Applied) == []
    world.tell(committed(2, b"b"))
    assert world.take(Applied) == [Applied([(5, 0, 1, b"r@2")])]


def test_reads_that_wait_do_not_keep_others_back_and_each_is_answered_once() -> None:
    world, _ = make()
    world.tell(ReadReady(3, [1], [1], [b"far"]), ReadReady(1, [2], [2], [b"near", b"by"]), committed(1, b"a"))
    assert world.take(Applied) == [Applied([(2, 0, 2, b"near@1by@1")])]
    world.tell(committed(2, b"b", b"c"))
    assert world.take(Applied) == [Applied([(1, 0, 1, b"far@3")])]
    world.tell(committed(4, b"d"))
    assert world.take(Applied) == []


def test_a_local_read_waits_for_nothing() -> None:
    world, _ = make()
    world.tell(LocalRead([3, 4], [1, 1], [b"p", b"q"]))
    assert world.take(Applied) == [Applied([(3, 0, 1, b"p@0"), (4, 0, 1, b"q@0")])]


def test_a_status_has_what_each_actor_knows() -> None:
    world, _ = make()
    world.tell(committed(1, b"a"))
    world.tell(QueryStatus(9, {"term": 2}))
    known: dict[str, object] = {"applied_index": 1, "fenced": None, "divergence": {}}
    fields = {"term": 2, **known, "machine": "counting"}
    assert world.take(StatusReport) == [StatusReport(9, fields)]


def test_what_is_announced_is_published_in_its_turn() -> None:
    world = Surroundings(ApplierActor(Counting(), Speaking()))
    world.start()
    world.tell(RoleChanged("leader", 1, "a"))
    assert world.happened == [("watch", [b"role", b"leader"]), ("watch", [b"announcements"])]
    world.happened.clear()
    world.actor.receive_frames("watch", [(b"", b"\x01topic")])
    assert world.happened == [("watch", [b"subscribed", b"\x01topic"])]
    world.happened.clear()
    assert world.wait() == world.wait() == 0.25
    assert world.happened == [("watch", [b"heartbeat", b"0.25"]), ("watch", [b"heartbeat", b"0.5"])]


def test_a_node_that_was_removed_sends_its_watchers_away_and_says_nothing_more() -> None:
    """Heartbeats of a store in which nothing happens any more would keep them for ever."""
    world = Surroundings(ApplierActor(Counting(), Speaking()))
    world.start()
    configuration = Configuration(frozenset("bc"), removed=frozenset("a"))
    news = MembershipChanged(7, configuration.encode(), is_committed=True, is_removed=False)
    world.tell(news)
    assert world.happened[0] == ("watch", [b"members", b"b", b"c"])
    world.happened.clear()
    news.is_removed = True
    world.tell(news)
    assert world.happened[1:] == [("watch", [b"cut off"])]
    world.happened.clear()
    world.actor.receive_frames("watch", [(b"", b"\x01topic")])
    world.wait()
    assert world.happened == []


class Tidy(Counting):
    """Counts how often it was asked to give memory back."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def tidy(self) -> None:
        self.steps += 1


def test_a_machine_is_tidied_at_each_tick_whoever_leads() -> None:
    machine = Tidy()
    world = Surroundings(ApplierActor(machine))
    world.start()
    world.tell(RoleChanged("follower", 1, "b"))
    assert world.wait() == world.wait() == world.wait() == 0.25
    assert machine.steps == 3


def test_nothing_is_announced_where_nobody_announces() -> None:
    world, _ = make()
    assert world.actor._deadline is None
    world.tell(RoleChanged("leader", 1, "a"))
    world.actor.receive_frames("watch", [(b"", b"\x01topic")])
    world.actor.on_deadline()
    assert world.happened == []


def test_a_snapshot_is_of_the_moment_it_is_asked_for() -> None:
    world, _ = make()
    world.tell(committed(1, b"a", b"b"))
    world.tell(TakeSnapshot(), committed(3, b"c"))
    assert world.take(SnapshotSlice) == [SnapshotSlice(2, 0, b"1,2,", True)]
    world.tell(NextSlice(2))
    assert world.take(SnapshotSlice) == []


class Large(Counting):
    """Of ten slices; each takes its time."""

    seconds = 0.0
    world: Surroundings

    def snapshot(self) -> Iterator[bytes]:
        for _ in range(10):
            self.world.seconds += self.seconds
            yield bytes(SLICE_BYTES)


def test_many_slices_are_given_at_once_but_for_no_longer_than_was_said() -> None:
    """Where others have the processor, slices take long; more and more of them would leave none of the time
    to the commands."""
    machine = Large()
    machine.world = world = Surroundings(ApplierActor(machine))
    world.tell(committed(1, b"a"), TakeSnapshot())
    assert [len(message.data) for message in world.take(SnapshotSlice)] == [SLICE_BYTES]
    world.tell(NextSlice(1, 4, 1.0))
    assert [len(message.data) for message in world.take(SnapshotSlice)] == [4 * SLICE_BYTES]
    machine.seconds = 0.4
    world.tell(NextSlice(1, 4, 1.0))
    assert [(each.offset, len(each.data)) for each in world.take(SnapshotSlice)] == [
        (5 * SLICE_BYTES, 3 * SLICE_BYTES)
    ]
    world.tell(NextSlice(1, 4, 0.1))
    assert [len(message.data) for message in world.take(SnapshotSlice)] == [SLICE_BYTES]
    world.tell(NextSlice(1, 4, 9.0))
    [last] = world.take(SnapshotSlice)
    assert last.is_last and len(last.data) == SLICE_BYTES


def test_an_installed_snapshot_is_asked_for_part_by_part_and_then_applied_upon() -> None:
    """Reads wait for it; local ones see the old state until all of it is there."""
    world, machine = make()
    world.tell(committed(1, b"a"), RestoreSnapshot(3, 6), ReadReady(3, [5], [1], [b"?"]))
    assert world.take(PartWanted) == [PartWanted(3, 0)]
    world.tell(SnapshotPart(3, 0, b"1,2"), TakeSnapshot())
    assert world.take(PartWanted) == [PartWanted(3, 3)]
    assert machine.applied == [(1, b"a")] and machine.restorers[0].parts == [b"1,2"]
    assert held_bytes(world.actor) == 0
    world.tell(SnapshotPart(3, 0, b"1,2"), LocalRead([8], [1], [b"!"]))  # it came before
    assert machine.restorers[0].parts == [b"1,2"]
    assert world.take(Applied) == [Applied([(8, 0, 1, b"!@1")])]
    world.tell(SnapshotPart(2, 3, b"of another"), SnapshotPart(3, 3, b",3,"))
    assert world.take(Applied) == [Applied([(5, 0, 1, b"?@3")])]
    world.tell(committed(4, b"d"))
    assert len(machine.applied) == 4


def held_bytes(actor: Actor) -> int:
    """Of parts that the actor itself keeps: none, or a snapshot would be in memory twice."""
    return sum(len(part) for value in vars(actor).values() if type(value) is list for part in value)


def test_a_newer_snapshot_takes_the_place_of_one_that_is_being_restored() -> None:
    world, machine = make()
    world.tell(RestoreSnapshot(3, 6), SnapshotPart(3, 0, b"1,2"), RestoreSnapshot(4, 8))
    world.tell(SnapshotPart(3, 3, b",3,"), SnapshotPart(4, 0, b"1,2,3,4,"))
    assert world.take(SnapshotRestored) == [SnapshotRestored(4)]
    assert len(machine.applied) == 4
    assert [restorer.parts for restorer in machine.restorers] == [[b"1,2"], [b"1,2,3,4,"]]


def test_a_snapshot_without_content_is_restored_at_once() -> None:
    world, machine = make()
    world.tell(committed(1, b"a"), RestoreSnapshot(3, 0))
    assert world.take(SnapshotRestored) == [SnapshotRestored(3)]
    assert machine.applied == []
