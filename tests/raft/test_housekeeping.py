"""What the leader's machine wants by itself is proposed: on the leader alone, and within bounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from actors import Address
from raft import Housekeeper, Restorer, WholeRestorer
from raft.actor_messages import Committed, Propose, Refused, RoleChanged
from raft.applier_actor import TICK_SECONDS, ApplierActor
from raft.arrivals import Moment
from raft.housekeeping import MAX_BYTES, MAX_COMMANDS, REPEAT_SECONDS, Housekeeping
from raft.messages import AppendResponse
from raft.rehearsal import Rehearsal
from tests.raft.lone_actor import Surroundings
from tests.raft.test_replication_actor import Bench


class Wishing:
    """Wants what the test says, and remembers when it was asked."""

    def __init__(self, *wishes: bytes) -> None:
        self.wishes = list(wishes)
        self.asked_at: list[float] = []

    def due_commands(self, now_seconds: float) -> list[bytes]:
        self.asked_at.append(now_seconds)
        return list(self.wishes)


class Attic:
    """A replicated machine that wants to be swept whenever more than `room` commands lie about in it."""

    def __init__(self, room: int = 3) -> None:
        self.room = room
        self.kept: list[bytes] = []
        self.sweeps = 0  # commands of its own that were applied, with or without an effect
        self.asked = 0

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        return [None if body is None else self._apply(body) for body in bodies]

    def _apply(self, body: bytes) -> bytes:
        if body.startswith(b"sweep "):
            self.sweeps += 1
            self.kept = [each for each in self.kept if each > body[6:]]
        else:
            self.kept.append(body)
        return b"done"

    def due_commands(self, now_seconds: float) -> list[bytes]:
        self.asked += 1
        return [b"sweep " + self.kept[-2]] if len(self.kept) > self.room else []

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        return [b"" for _ in bodies]

    def snapshot(self) -> Iterator[bytes]:
        return iter([b"\n".join(self.kept)])

    def restorer(self) -> Restorer:
        return WholeRestorer(self.restore)

    def restore(self, content: bytes) -> None:
        self.kept = content.split(b"\n")

    def status(self) -> dict[str, object]:
        return {}


def lone(wishing: Wishing) -> Surroundings:
    world = Surroundings(ApplierActor(Attic(), housekeeper=wishing))
    world.start()
    return world


def told_to(world: Surroundings, seconds: float) -> list[tuple[Address, Propose]]:
    """What was proposed within so long."""
    until = world.seconds + seconds
    while world.seconds < until:
        world.wait()
    return [each for each in world.happened if isinstance(each[1], Propose)]


def test_the_leaders_machine_is_heard_and_no_other() -> None:
    wishing = Wishing(b"sweep")
    world = lone(wishing)
    world.tell(RoleChanged("follower", 1, "b"))
    assert told_to(world, 2.0) == []
    world.tell(RoleChanged("candidate", 2, None))
    assert told_to(world, 1.0) == []
    assert wishing.asked_at == []
    world.tell(RoleChanged("leader", 2, "a"))
    assert told_to(world, TICK_SECONDS) == [(Address("a", "replication"), Propose([], [], [b"sweep"]))]
    world.happened.clear()
    world.tell(RoleChanged("follower", 3, "b"))
    assert told_to(world, 5.0) == []


def test_a_node_without_housekeeper_or_announcer_does_not_wake_up_for_it() -> None:
    world = Surroundings(ApplierActor(Attic()))
    world.start()
    assert world.actor._deadline is None


def test_the_same_wish_at_each_tick_does_not_flood_the_log() -> None:
    world = lone(Wishing(b"sweep"))
    world.tell(RoleChanged("leader", 1, "a"))
    proposed = told_to(world, 60.0)
    assert len(proposed) == 60.0 / REPEAT_SECONDS
    assert all(message.bodies == [b"sweep"] for _, message in proposed)


def test_many_wishes_are_proposed_over_several_ticks_the_first_ones_first() -> None:
    wishes = [b"%d" % number for number in range(2 * MAX_COMMANDS + 1)]
    housekeeping = Housekeeping(Wishing(*wishes))
    housekeeping.lead(True)
    rounds = [housekeeping.due(0.25 * number) for number in range(4)]
    assert [len(bodies) for bodies in rounds] == [MAX_COMMANDS, MAX_COMMANDS, 1, 0]
    assert [body for bodies in rounds for body in bodies] == wishes
    large = [bytes([number]) * (MAX_BYTES // 2) for number in range(5)]
    housekeeping = Housekeeping(Wishing(*large))
    housekeeping.lead(True)
    assert [len(housekeeping.due(0.25 * number)) for number in range(4)] == [2, 2, 1, 0]


def test_a_command_that_alone_exceeds_the_bound_does_not_stand_in_the_way_for_ever() -> None:
    housekeeping = Housekeeping(Wishing(b"x" * (MAX_BYTES + 1), b"y"))
    housekeeping.lead(True)
    assert [len(body) for body in housekeeping.due(0.0)] == [MAX_BYTES + 1]
    assert housekeeping.due(0.25) == [b"y"]


def test_who_leads_anew_does_not_rely_on_what_it_proposed_before() -> None:
    """A new leader overwrote it, as it may be: it is wanted at once, and not after a pause."""
    housekeeping = Housekeeping(Wishing(b"sweep"))
    housekeeping.lead(True)
    assert housekeeping.due(1.0) == [b"sweep"]
    housekeeping.lead(True)  # the term's leader is told again
    assert housekeeping.due(1.25) == []
    housekeeping.lead(False)
    assert housekeeping.due(1.5) == []
    housekeeping.lead(True)
    assert housekeeping.due(1.75) == [b"sweep"]


class Punctual(Wishing):
    """Counts time, too: wants to be asked when the test says so."""

    def __init__(self, *wishes: bytes) -> None:
        super().__init__(*wishes)
        self.at: float | None = None
        self.heard: list[list[Moment] | None] = []  # when what was applied came; None: it leads

    def begin_leading(self) -> None:
        self.heard.append(None)

    def was_applied(self, arrivals: Sequence[Moment]) -> None:
        self.heard.append(list(arrivals))

    def due_at(self) -> float | None:
        return self.at

    def due_commands(self, now_seconds: float) -> list[bytes]:
        self.at = None
        return super().due_commands(now_seconds)


def test_a_new_leaders_machine_is_not_asked_before_it_has_what_earlier_leaders_left() -> None:
    """It would want what is done already, or count from a time that is not the last that was told."""
    wishing = Punctual(b"sweep")
    world = lone(wishing)
    world.tell(RoleChanged("leader", 2, "a", 3))
    world.tell(Committed(1, [b"x", b"y"], [], []))
    wishing.at = world.seconds
    assert told_to(world, 2.0) == [] and wishing.asked_at == []
    world.tell(Committed(3, [None], [], []))
    world.wait()
    assert [message.bodies for message in world.take(Propose)] == [[b"sweep"]]


def test_the_machine_is_asked_when_it_wants_to_be_and_not_only_at_each_tick() -> None:
    wishing = Punctual()
    world = lone(wishing)
    world.tell(RoleChanged("leader", 2, "a"))
    wishing.at = world.seconds + 0.1
    world.tell(Committed(1, [None], [], []))
    assert world.wait() == pytest.approx(0.1) and len(wishing.asked_at) == 1
    assert world.wait() == pytest.approx(TICK_SECONDS - 0.1) and len(wishing.asked_at) == 2
    world.tell(RoleChanged("follower", 3, "b"))
    wishing.at = world.seconds
    world.tell(Committed(2, [None], [], []))
    assert world.wait() == pytest.approx(TICK_SECONDS) and len(wishing.asked_at) == 2


def test_every_node_hears_when_what_it_applies_came_into_its_log() -> None:
    wishing = Punctual()
    world = lone(wishing)
    world.seconds = 50.0
    world.tell(RoleChanged("follower", 1, "b"))
    world.tell(Committed(1, [b"x"], [], [], [(1, 40.0)]))
    world.tell(Committed(2, [b"y"], [], []))
    world.tell(RoleChanged("leader", 2, "a", 3))
    assert wishing.heard == [[(1, 40.0)], [(2, 50.0)], None]


def test_a_proposal_without_a_ticket_is_answered_to_nobody() -> None:
    """Neither when it is applied, nor when this node does not lead (any more)."""
    bench = Bench()
    bench.hear("a", Propose([], [], [b"sweep"]))
    bench.hear("a", Propose([7], [1], [b"put"]))
    bench.hear("b", AppendResponse(1, 3))
    [_, committed] = bench.applier.told(Committed)
    assert isinstance(committed, Committed) and committed.bodies == [b"sweep", b"put"]
    assert [tuple(each) for each in committed.slices] == [(7, 0, 1)] and committed.starts == [1]
    bench.actor._core.become_follower(5, "b")
    bench.gateway.heard.clear()
    bench.hear("a", Propose([], [], [b"sweep"]))
    assert bench.gateway.told(Refused) == []
    bench.hear("a", Propose([8], [1], [b"put"]))
    assert bench.gateway.told(Refused) == [Refused([8], "not_leader", "b")]


def test_every_replica_is_swept_by_the_one_that_leads() -> None:
    assert isinstance(Attic(), Housekeeper)
    world = Rehearsal(Attic, seed=1)
    leader = world.leader()
    for number in range(5):
        world.finish(leader.propose(b"%03d" % number))
    assert world.run_until(
        lambda: all(machine.kept == [b"004"] for machine in world.machines.values()), seconds=3.0
    )
    world.run(5.0)
    asked = {name: machine.asked for name, machine in world.machines.items()}
    assert [name for name, times in asked.items() if times] == [leader.node_id]
    assert {machine.sweeps for machine in world.machines.values()} == {1}


def test_housekeeping_goes_on_under_loss_and_changes_of_leader_and_all_end_alike() -> None:
    """What deposed leaders proposed comes late or never, beside what the next one wants: it does no harm."""
    for seed in range(3):
        world = Rehearsal(Attic, seed=seed)
        world.loss, world.delay, world.repetition = 0.1, 0.2, 0.1
        for number in range(24):
            leader = world.leader()
            world.finish(leader.propose(b"%03d" % number))
            if number % 8 == 7:
                world.cut_off = {leader.node_id}  # it goes on to want things of nobody
                world.run(1.0)
                world.leader()
                world.cut_off = set()
        world.loss = world.delay = world.repetition = 0.0

        def is_swept(world: Rehearsal[Attic] = world) -> bool:
            kept = [machine.kept for machine in world.machines.values()]
            return kept[0] == kept[1] == kept[2] and len(kept[0]) <= 3 and kept[0][-1:] == [b"023"]

        assert world.run_until(is_swept), seed
        assert 24 > max(machine.sweeps for machine in world.machines.values()) > 0
