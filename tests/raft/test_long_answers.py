"""Reads that take many steps: between two turns of them everything else has its turn, and all is bounded."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raft import long_answers
from raft.actor_messages import Applied, LocalRead, NodeFenced, Reason, Refused
from raft.applier_actor import TICK_SECONDS, ApplierActor
from raft.long_answers import LONGEST_WAIT_SECONDS, LONGEST_WORK_SECONDS, MAX_AT_WORK, TURN_SECONDS
from raft.state_machine import LongAnswer
from tests.raft.lone_actor import Surroundings
from tests.raft.test_applier_actor import Counting, committed

STEP_SECONDS = 0.002


class Slow(Counting):
    """A read b"3" takes three steps of 2 ms each, b"0" none."""

    def __init__(self) -> None:
        super().__init__()
        self.world: Surroundings
        self.ticks = 0
        self.half_made = 0  # answers behind their second step, not at their end

    def begin_query(self, bodies: Sequence[bytes]) -> list[bytes | LongAnswer]:
        return [self.steps(int(body)) if int(body) else b"0" for body in bodies]

    def steps(self, left: int) -> LongAnswer:
        for step in range(left, 0, -1):
            self.half_made += (step == left - 1) - (step == 1)
            self.world.seconds += STEP_SECONDS
            yield b"%d@%d" % (left, len(self.applied)) if step == 1 else None

    def tidy(self) -> None:
        self.ticks += 1


def make() -> tuple[Surroundings, Slow]:
    machine = Slow()
    machine.world = world = Surroundings(ApplierActor(machine))
    world.start()
    return world, machine


def slices(world: Surroundings) -> list[tuple[int, int, int, bytes]]:
    return [each for applied in world.take(Applied) for each in applied.slices]


def turns(world: Surroundings, until_seconds: float, *, others_seconds: float = 0.0) -> list[list[int]]:
    """Turn by turn, with some time for all else, until then or the end: tickets answered, tickets refused."""
    answered: list[int] = []
    refused: list[int] = []
    assert isinstance(world.actor, ApplierActor)
    while world.seconds < until_seconds and world.actor._long_answers:
        world.seconds += others_seconds
        world.wait()
        happened = list(world.happened)
        answered += [each[0] for each in slices(world)]
        world.happened = happened
        refused += [ticket for message in world.take(Refused) for ticket in message.tickets]
    return [answered, refused]


def test_no_turn_takes_longer_than_its_share_however_much_is_asked_for() -> None:
    world, machine = make()
    world.tell(LocalRead([1, 2], [3, 1], [b"20", b"0", b"2", b"9"]))
    assert slices(world) == [] and world.seconds == 0.0
    answered = []
    for turn in range(1, 100):
        before = world.seconds
        assert world.actor._deadline == before  # it goes on at once
        world.wait()
        assert world.seconds - before < TURN_SECONDS + STEP_SECONDS
        answered += slices(world)
        world.tell(committed(turn, b"x"))  # commands are not held up
        world.take(Applied)
        if len(answered) == 3:
            break
    assert answered == [(2, 0, 1, b"9@5"), (1, 0, 2, b"20@9" + b"0"), (1, 2, 1, b"2@10")]
    assert machine.ticks == 0


def test_what_is_there_at_once_is_answered_at_once_from_the_start_of_its_ticket_on() -> None:
    """What a gateway refuses of a ticket later is its end."""
    world, _ = make()
    world.tell(LocalRead([1, 2, 3], [3, 2, 1], [b"0", b"0", b"1", b"1", b"0", b"0"]))
    assert slices(world) == [(1, 0, 2, b"00"), (3, 0, 1, b"0")]
    world.wait()
    assert slices(world) == [(1, 2, 1, b"1@0"), (2, 0, 2, b"1@00")]


def test_long_answers_do_not_keep_the_tick_from_its_time() -> None:
    world, machine = make()
    world.tell(LocalRead([1], [1], [b"400"]))
    while world.seconds < 3 * TICK_SECONDS:
        world.wait()
    assert machine.ticks == 2
    while not slices(world):
        world.wait()
    assert 0 < world.wait() <= TICK_SECONDS  # and then there is nothing to do until the next


def test_a_ticket_that_waits_or_takes_too_long_is_refused_for_what_is_left_of_it() -> None:
    world, _ = make()
    for ticket in range(2, MAX_AT_WORK + 1):
        world.tell(LocalRead([ticket], [1], [b"100000"]))
    world.tell(LocalRead([1, 77], [2, 1], [b"1", b"100000", b"4"]))
    assert turns(world, 0.9 * LONGEST_WAIT_SECONDS) == [[1, 77], []]
    world.tell(LocalRead([10], [3], [b"0", b"1", b"9"]))
    late = world.seconds
    assert turns(world, late + LONGEST_WAIT_SECONDS) == [[10, 10], []]
    assert turns(world, late + LONGEST_WAIT_SECONDS + 0.1) == [[], [10]]
    assert turns(world, LONGEST_WORK_SECONDS + 0.2) == [[], [2, 3, 4, 1]]
    assert 0 < world.wait() <= TICK_SECONDS


def test_answers_of_one_ticket_that_take_long_one_after_the_other_are_all_given() -> None:
    """The last was refused for what the others had taken, though it never waited."""
    world, _ = make()
    seconds = 0.6 * LONGEST_WAIT_SECONDS
    world.tell(LocalRead([1], [3], [b"%d" % (seconds / STEP_SECONDS)] * 3))
    assert turns(world, 4 * seconds) == [[1, 1, 1], []]


def test_more_reads_than_can_be_served_leave_some_served() -> None:
    """Each got its share of the steps, none came to its end within its time, and all were asked for again."""
    world, _ = make()
    count = 40
    for ticket in range(count):
        world.tell(LocalRead([ticket], [1], [b"%d" % (150 + ticket)]))
    served: list[int] = []
    refused: list[int] = []
    while world.seconds < 3 * LONGEST_WORK_SECONDS and len(served) + len(refused) < count:
        for numbers, more in zip((served, refused), turns(world, world.seconds + 0.01, others_seconds=0.02)):
            numbers += more
    assert sorted(served + refused) == list(range(count))
    assert len(served) > MAX_AT_WORK and max(served) < min(refused)
    assert world.seconds < LONGEST_WORK_SECONDS + LONGEST_WAIT_SECONDS


def test_few_answers_are_half_made_at_a_time_however_many_wait() -> None:
    """What one of them keeps may be sixteen megabytes."""
    world, machine = make()
    world.tell(LocalRead(list(range(30)), [2] * 30, [b"20", b"30"] * 30))
    most = 0
    assert isinstance(world.actor, ApplierActor)
    while world.actor._long_answers:
        world.wait()
        most = max(most, machine.half_made)
    assert most == MAX_AT_WORK and len(slices(world)) == 60


def test_a_short_read_waits_for_no_long_one() -> None:
    world, _ = make()
    world.tell(LocalRead(list(range(30)), [1] * 30, [b"500"] * 30))
    assert turns(world, 0.5) == [[], []]
    world.tell(LocalRead([77], [2], [b"1", b"1"]))
    began = world.seconds
    assert turns(world, began + 4 * TURN_SECONDS)[0] == [77, 77]


def test_the_oldest_gets_half_of_the_steps_and_the_others_at_work_take_turns() -> None:
    world, _ = make()
    world.tell(LocalRead([1, 2, 3], [1] * 3, [b"60", b"5", b"60"]))
    assert turns(world, 9.0) == [[2, 1, 3], []]


def test_no_more_tickets_wait_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_answers, "MAX_TICKETS", 2)
    world, _ = make()
    world.tell(LocalRead([1, 2, 3, 4], [1, 1, 2, 1], [b"1", b"1", b"0", b"1", b"0"]))
    happened = list(world.happened)
    assert slices(world) == [(3, 0, 1, b"0"), (4, 0, 1, b"0")]
    world.happened = happened
    assert world.take(Refused) == [Refused([3], Reason.OVERLOADED, None)]
    monkeypatch.setattr(long_answers, "MAX_TICKETS", 9)
    monkeypatch.setattr(long_answers, "MAX_KEPT_BYTES", 1)
    world.tell(LocalRead([5, 6], [3, 2], [b"1", b"0", b"0", b"1", b"0"]))
    assert world.take(Refused) == [Refused([5], Reason.OVERLOADED, None)]
    world.wait()
    world.wait()
    assert slices(world)[-1] == (6, 0, 2, b"1@00")
    world.tell(LocalRead([7], [2], [b"1", b"0"]))  # what was kept is kept no more
    assert world.take(Refused) == []


def test_behind_the_fence_no_long_answer_goes_on() -> None:
    world, machine = make()
    world.tell(LocalRead([1], [1], [b"3"]))
    applier = world.actor
    assert isinstance(applier, ApplierActor)
    applier._retire(applier._guard.judge_damage(0, Exception("damaged")))  # type: ignore[arg-type]
    world.flush(applier)
    assert len(world.take(NodeFenced)) == 2
    assert applier._deadline is None and not applier._long_answers and machine.ticks == 0
