"""The loop: in what order actors run, when deadlines are due, and what happens when an actor fails."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from actors import Actor, Address, ManualClock, System, SystemClock, TransportLimits
from actors.system import MOST_TURNS_HELD
from tests.actors.world import (
    DEADLINE_SECONDS,
    Inward,
    MemoryWorld,
    Node,
    Note,
    Recorder,
    World,
    connect_all,
    make_codec,
)


def make_system(world: World, *actors: Actor, clock: ManualClock | None = None) -> System:
    system = System("n1", world.transport(), clock or ManualClock(), make_codec())
    for actor in actors:
        system.add(actor)
    return system


class Relay(Recorder):
    """Sends on every note that it receives."""

    def __init__(self, name: str, to: str) -> None:
        super().__init__(name)
        self.to = to

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        super().receive(batch)
        for _, message in batch:
            self.send_local(self.to, message)


def test_a_message_passes_through_all_later_actors_in_one_turn(world: World) -> None:
    first, second, third = Relay("first", "second"), Relay("second", "third"), Recorder("third")
    system = make_system(world, first, second, third)
    system.start()
    first.send_local("first", Note(1))
    first.flush()
    system.turn()
    assert third.events == [("start",), ("message", Address("n1", "second"), Note(1))]
    system.close()


def test_an_answer_to_an_earlier_actor_arrives_within_the_turn(world: World) -> None:
    first, second = Recorder("first"), Relay("second", "first")
    system = make_system(world, first, second)
    system.start()
    first.send_local("second", Note(1))
    first.flush()
    system.turn()
    assert first.numbers() == [1]
    system.close()


def test_what_is_posted_from_another_thread_wakes_the_loop_and_keeps_its_order(world: World) -> None:
    recorder = Recorder("first")
    system = make_system(world, recorder)
    loop = threading.Thread(target=system.run)
    loop.start()
    for number in range(1000):
        system.post("first", Note(number))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(recorder.numbers()) < 1000 and time.monotonic() < deadline:
        time.sleep(0.001)
    system.stop()
    loop.join(DEADLINE_SECONDS)
    assert recorder.numbers() == list(range(1000))


def test_what_is_posted_arrives_as_the_very_object_behind_what_came_before(world: World) -> None:
    recorder = Recorder("first")
    system = make_system(world, recorder)
    system.start()
    note = Note(1)
    system.post("first", note)
    system.turn(5.0)  # which does not wait: there is something to do
    assert recorder.events[1] == ("message", Address("n1", ""), note)
    assert recorder.messages()[0] is note
    system.close()


def test_what_is_posted_while_an_actor_runs_is_received_in_the_next_turn(world: World) -> None:
    class Poster(Recorder):
        def receive(self, batch: list[tuple[Address, object]]) -> None:
            super().receive(batch)
            if len(self.numbers()) < 3:
                system.post("first", Note(len(self.numbers())))

    poster = Poster("first")
    system = make_system(world, poster)
    system.start()
    system.post("first", Note(0))
    for _ in range(3):
        system.turn(5.0)
    assert poster.numbers() == [0, 1, 2]
    system.close()


def test_actors_that_answer_each_other_without_end_do_not_keep_a_turn(world: World) -> None:
    """Twice a turn and no more; and the next turn must not wait while a mailbox holds a message."""
    first, second = Relay("first", "second"), Relay("second", "first")
    system = make_system(world, first, second)
    system.start()
    first.send_local("second", Note(1))
    first.flush()
    for turns in range(1, 4):
        system.turn(5.0)
        assert len(first.events) - 1 <= 2 * turns
    assert len(first.events) > 3
    system.close()


def test_an_actor_that_runs_last_does_so_wherever_it_was_added(world: World) -> None:
    judge, worker = Recorder("judge"), Relay("worker", "judge")
    judge.runs_last = True
    system = make_system(world, judge, worker)
    system.start()
    judge.send_local("worker", Note(1))
    judge.flush()
    system.turn()
    assert judge.numbers() == [1]
    system.close()


def test_messages_of_one_turn_arrive_in_one_batch_in_order(world: World) -> None:
    batches: list[list[tuple[Address, object]]] = []

    class Receiver(Recorder):
        def receive(self, batch: list[tuple[Address, object]]) -> None:
            batches.append(batch)

    sender, receiver = Recorder("sender"), Receiver("receiver")
    system = make_system(world, sender, receiver)
    system.start()
    for number in range(3):
        sender.send_local("receiver", Note(number))
        sender.send_local("receiver", Inward([b"x" * number, b""]))
        if number == 1:
            sender.flush()
    receiver.send_local("receiver", Note(9))
    sender.flush()
    receiver.flush()
    system.turn()
    assert len(batches) == 1
    origin = Address("n1", "sender")
    from_sender = [message for source, message in batches[0] if source == origin]
    assert from_sender == [
        each for number in range(3) for each in (Note(number), Inward([b"x" * number, b""]))
    ]
    assert (Address("n1", "receiver"), Note(9)) in batches[0]
    system.close()


def test_a_message_for_several_destinations_is_encoded_once(world: World) -> None:
    encoded: list[Note] = []

    class Counted(Note):
        pass

    def take_apart(message: Note) -> tuple[int]:
        encoded.append(message)
        return (message.number,)

    codec = make_codec()
    codec.register(9, Counted, remote=True, encode=take_apart, decode=_counted)
    system = System("n1", world.transport(), ManualClock(), codec)
    sender, one, two = Recorder("sender"), Recorder("one"), Recorder("two")
    for actor in (sender, one, two):
        system.add(actor)
    system.connect_peer("n2", "tcp://127.0.0.1:9")
    system.start()
    shared = Counted(1)
    for to in (Address("n1", "one"), Address("n1", "two"), Address("n2", "one"), Address("n2", "two")):
        sender.send(to, shared)
    sender.send_local("two", Note(2))
    sender.flush()
    system.turn()
    assert encoded == [shared]
    assert one.numbers() == [1]
    assert two.numbers() == [1, 2]
    system.close()


def _counted(number: int) -> Note:
    return Note(number)


def test_a_deadline_is_called_once_and_not_before_its_time(world: World) -> None:
    clock = ManualClock(100.0)
    actor = Recorder("actor")
    system = make_system(world, actor, clock=clock)
    system.start()
    actor.set_deadline(100.5)
    assert system.next_deadline() == 100.5
    clock.advance(0.25)
    system.turn()
    assert actor.events == [("start",)]
    clock.advance(0.5)
    system.turn()
    system.turn()
    assert actor.events == [("start",), ("deadline", 100.75)]
    assert system.next_deadline() is None
    system.close()


def test_a_deadline_can_be_moved_and_cleared(world: World) -> None:
    clock = ManualClock()
    actor = Recorder("actor")
    system = make_system(world, actor, clock=clock)
    system.start()
    actor.set_deadline(1.0)
    actor.set_deadline(2.0)
    clock.advance(1.5)
    system.turn()
    actor.set_deadline(None)
    clock.advance(10.0)
    system.turn()
    assert actor.events == [("start",)]
    system.close()


def test_what_has_arrived_is_received_before_the_deadline_is_called(world: World) -> None:
    clock = ManualClock()
    actor = Recorder("actor")
    system = make_system(world, actor, clock=clock)
    system.start()
    actor.set_deadline(1.0)
    actor.send_local("actor", Note(1))
    actor.flush()
    clock.advance(2.0)
    system.turn()
    assert [event[0] for event in actor.events] == ["start", "message", "deadline"]
    system.close()


def test_a_deadline_that_passes_within_a_turn_waits_for_what_arrived_meanwhile(memory: MemoryWorld) -> None:
    """A slow sync must not make election judge a leader whose heartbeat came in during the sync."""
    clock = ManualClock()
    node, peer = Node(memory, "n1", clock=clock), Node(memory, "n2", clock=clock)
    connect_all(node, peer)

    class Slow(Recorder):
        def receive(self, batch: list[tuple[Address, object]]) -> None:
            clock.advance(5.0)
            peer.send("n1", Note(7))

    judge, slow = Recorder("judge"), Slow("slow")
    judge.runs_last = True
    node.system.add(slow)
    node.system.add(judge)
    node.system.start()
    judge.set_deadline(1.0)
    judge.send_local("slow", Note(0))
    judge.flush()
    node.turn()
    assert judge.events == [("start",)]
    node.turn()
    assert node.recorder.numbers() == [7]
    assert judge.events[1][0] == "deadline"


def test_peers_frames_left_unread_hold_the_judges_deadline_but_not_for_ever(memory: MemoryWorld) -> None:
    clock = ManualClock()
    node = Node(memory, "n1", clock=clock, limits=TransportLimits(drain_frames=2))
    peer = Node(memory, "n2", clock=clock)
    connect_all(node, peer)
    judge = Recorder("judge")
    judge.runs_last = True
    node.system.add(judge)
    node.system.start()
    for number in range(6):
        peer.send("n1", Note(number))
    judge.set_deadline(1.0)
    node.recorder.set_deadline(1.0)
    clock.advance(2.0)
    node.turn()
    assert ("deadline", 2.0) in node.recorder.events
    assert judge.events == [("start",)]
    node.turn()
    node.turn()  # the last of the frames are read now
    assert judge.events == [("start",), ("deadline", 2.0)]
    judge.set_deadline(2.0)
    turns = 0
    while len(judge.events) == 2:
        for number in range(3):
            peer.send("n1", Note(number))
        node.turn()
        turns += 1
        assert turns <= MOST_TURNS_HELD + 1
    assert turns > 1


class Failing(Recorder):
    """Fails in the named method."""

    def __init__(self, where: str) -> None:
        super().__init__("failing")
        self.where = where

    def on_start(self) -> None:
        self._fail("on_start")
        self.send_local("failing", Note(1))
        self.set_deadline(0.0)

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        self._fail("receive")

    def on_deadline(self) -> None:
        self._fail("on_deadline")

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        self._fail("receive_frames")

    def _fail(self, where: str) -> None:
        if where == self.where:
            raise ZeroDivisionError(where)


@pytest.mark.parametrize("where", ["on_start", "receive", "on_deadline", "receive_frames"])
def test_an_exception_out_of_an_actor_ends_the_run(world: World, where: str) -> None:
    """Nothing catches it, no actor is stopped as if all were well, and the ports are closed."""
    failing, other = Failing(where), Recorder("other")
    system = make_system(world, other, failing)
    system.open_client_port(failing, "client", "tcp://127.0.0.1:0")
    endpoint = system.endpoint("client")
    client = world.client(endpoint)
    client.send(b"hello")
    too_late = threading.Timer(DEADLINE_SECONDS / 5, system.stop)
    too_late.start()
    with pytest.raises(ZeroDivisionError, match=where):
        system.run()
    too_late.cancel()
    assert ("stop",) not in other.events
    again = make_system(world, recorder := Recorder("recorder"))
    again.open_client_port(recorder, "client", endpoint)
    again.close()


@pytest.mark.parametrize("method", ["receive", "receive_frames"])
def test_an_actor_without_the_method_that_is_needed_says_so(memory: MemoryWorld, method: str) -> None:
    actor = Actor()
    actor.name = "plain"
    system = make_system(memory, actor)
    system.open_client_port(actor, "client", "tcp://127.0.0.1:0")
    system.start()
    if method == "receive":
        actor.send_local("plain", Note(1))
        actor.flush()
    else:
        memory.client(system.endpoint("client")).send(b"x")
    with pytest.raises(NotImplementedError, match="plain"):
        system.turn()


def test_stop_from_another_thread_ends_a_wait_and_stops_the_actors(world: World) -> None:
    actor = Recorder("actor")
    system = System("n1", world.transport(), SystemClock(), make_codec())
    system.add(actor)
    runner = threading.Thread(target=system.run)
    runner.start()
    system.stop()
    runner.join(DEADLINE_SECONDS)
    assert not runner.is_alive()
    assert actor.events == [("start",), ("stop",)]


def test_what_an_actor_sends_when_stopped_still_leaves(memory: MemoryWorld) -> None:
    node, peer = Node(memory, "n1"), Node(memory, "n2")
    connect_all(node, peer)

    class Parting(Recorder):
        def on_stop(self) -> None:
            self.send(Address("n2", "recorder"), Note(5))

    node.system.add(Parting("parting"))
    node.system.stop()
    node.system.run()
    peer.turn()
    assert peer.recorder.numbers() == [5]


def test_another_thread_can_neither_turn_nor_send(world: World) -> None:
    """A system belongs to the thread that started it."""
    actor = Recorder("actor")
    system = make_system(world, actor)
    system.start()
    failures: list[str] = []

    def trespass() -> None:
        actor.send_local("actor", Note(1))
        for call in (system.turn, actor.flush):
            try:
                call()
            except AssertionError as error:
                failures.append(str(error))

    thread = threading.Thread(target=trespass)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    assert len(failures) == 2
    assert all("thread" in failure for failure in failures)
    system.close()


def test_a_flooded_mailbox_is_bounded_and_recovers(world: World) -> None:
    """The sender is not blocked, the loss is counted, and the next turn's message arrives."""
    limits = TransportLimits(mailbox_frames=20)
    sender, receiver = Recorder("sender"), Recorder("receiver")
    system = System("n1", world.transport(limits), ManualClock(), make_codec())
    system.add(sender)
    system.add(receiver)
    system.start()
    for number in range(100):
        sender.send_local("receiver", Note(number))
        sender.flush()
    system.turn()
    received = receiver.numbers()
    assert received == list(range(20))
    assert system.counters["mailbox_full"] == 80
    sender.send_local("receiver", Note(1000))
    sender.flush()
    system.turn()
    assert receiver.numbers()[20:] == [1000]
    system.close()


def test_one_turn_takes_a_bounded_part_of_a_mailbox(world: World) -> None:
    """The bound is that of one run of the actor; what is left brings the second run that a turn may have."""
    for limits in (TransportLimits(drain_frames=10), TransportLimits(drain_bytes=10 * 1000)):
        receiver = Recorder("receiver")
        system = System("n1", world.transport(limits), ManualClock(), make_codec())
        system.add(receiver)
        system.start()
        for number in range(25):
            receiver.send_local("receiver", Note(number, bytes(1000)))
            receiver.flush()
        taken = []
        for _ in range(3):
            before = len(receiver.numbers())
            system.turn()
            taken.append(len(receiver.numbers()) - before)
        assert taken == [20, 5, 0]
        assert receiver.numbers() == list(range(25))
        system.close()


def test_a_slow_turn_is_measured_and_said_once(memory: MemoryWorld, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that stood still is seen in the counters and in the log, not in every line of it."""
    clock = ManualClock()

    class Slow(Recorder):
        def receive(self, batch: list[tuple[Address, object]]) -> None:
            clock.advance(0.3)

    slow = Slow("slow")
    system = make_system(memory, slow, clock=clock)
    system.start()
    for _ in range(3):
        slow.send_local("slow", Note(1))
        slow.flush()
        system.turn()
    system.turn()
    assert system.counters["slow_turn"] == 3
    assert 300_000 <= system.counters["turn_max_microseconds"] < 301_000
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage().split()[0] for record in warnings] == ["event=slow_turn"]


def test_two_actors_of_one_name_and_late_actors_are_mistakes(memory: MemoryWorld) -> None:
    system = make_system(memory, Recorder("twice"))
    with pytest.raises(AssertionError, match="twice"):
        system.add(Recorder("twice"))
    system.start()
    with pytest.raises(AssertionError, match="late"):
        system.add(Recorder("late"))


def test_a_message_to_an_actor_that_does_not_exist_here_is_a_mistake(memory: MemoryWorld) -> None:
    actor = Recorder("actor")
    system = make_system(memory, actor)
    system.start()
    actor.send_local("nobody", Note(1))
    with pytest.raises(AssertionError, match="nobody"):
        actor.flush()
