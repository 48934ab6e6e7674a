"""Between nodes: delivery, restarts, peers that are down, stopped or flooded, frames that are too large."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from actors import (
    Address,
    Counters,
    EndpointUnusable,
    ManualClock,
    MemoryFrame,
    TransportLimits,
    UnusableLibrary,
    ZeroMqTransport,
)
from tests.actors.world import (
    DEADLINE_SECONDS,
    Inward,
    MemoryWorld,
    Node,
    Note,
    Recorder,
    SocketWorld,
    World,
    connect_all,
    link,
    pump,
    settle,
)

QUICK = TransportLimits(peer_heartbeat_seconds=0.1)


def linked(world: World, limits: TransportLimits | None = None) -> tuple[Node, Node]:
    first, second = Node(world, "n1", limits=limits), Node(world, "n2", limits=limits)
    connect_all(first, second)
    link(first, second)
    link(second, first)
    return first, second


def test_messages_reach_the_named_actor_of_another_node(world: World) -> None:
    first, second = linked(world)
    first.recorder.send(Address("n2", "recorder"), Note(1, b"a"))
    first.recorder.send(Address("n2", "recorder"), Note(2, b"b"))
    first.recorder.flush()
    pump([first.system, second.system], lambda: len(second.recorder.numbers()) >= 3)
    assert second.recorder.events[-2:] == [
        ("message", Address("n1", "recorder"), Note(1, b"a")),
        ("message", Address("n1", "recorder"), Note(2, b"b")),
    ]
    first.close()
    second.close()


def test_messages_over_ipc_and_the_directory_is_private(
    sockets: SocketWorld, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("s") / "run"
    nodes = [Node(sockets, name, endpoint=f"ipc://{directory}/{name}") for name in ("n1", "n2")]
    connect_all(*nodes)
    link(*nodes)
    assert directory.stat().st_mode & 0o777 == 0o700
    for node in nodes:
        node.close()


def test_an_endpoint_in_use_is_named(world: World) -> None:
    node = Node(world, "n1")
    with pytest.raises(EndpointUnusable) as caught:
        Node(world, "n2", endpoint=node.endpoint)
    assert caught.value.endpoint == node.endpoint
    assert "in use" in str(caught.value)
    node.close()


@pytest.mark.parametrize(
    "endpoint", ["nowhere", "tcp://127.0.0.1", "carrier-pigeon://roof", "ipc://" + "x" * 200]
)
def test_an_endpoint_that_is_none_is_named(sockets: SocketWorld, endpoint: str) -> None:
    node = Node(sockets, "n1")
    with pytest.raises(EndpointUnusable, match=endpoint[:20]):
        node.system.connect_peer("n2", endpoint)
    with pytest.raises(EndpointUnusable, match=endpoint[:20]):
        node.system.open_client_port(node.recorder, "client", endpoint)
    node.close()


def test_a_libzmq_with_known_holes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 3, 2))
    with pytest.raises(UnusableLibrary, match=r"4\.3\.3 or newer"):
        ZeroMqTransport()


def test_one_flush_is_one_frame_for_each_destination(memory: MemoryWorld) -> None:
    first, second = Node(memory, "n1"), Node(memory, "n2")
    connect_all(first, second)
    frames: list[MemoryFrame] = []
    memory.network.route = frames.append
    first.system.start()
    for number in range(5):
        first.recorder.send(Address("n2", "recorder"), Note(number))
    first.recorder.flush()
    assert len(frames) == 1
    memory.network.deliver(frames[0])
    second.turn()
    assert second.recorder.numbers() == [0, 1, 2, 3, 4]


def test_frames_doubled_late_or_lost_on_the_way(memory: MemoryWorld) -> None:
    """What a simulator does to frames shows as gaps, never as a message twice or out of order."""
    first, second = Node(memory, "n1"), Node(memory, "n2")
    connect_all(first, second)
    held: list[MemoryFrame] = []
    memory.network.route = held.append
    for number in range(4):
        first.send("n2", Note(number))
    for position in (0, 0, 2, 1):
        memory.network.deliver(held[position])
    second.turn()
    assert second.recorder.numbers() == [0, 2]
    assert second.counters["peer_stale_sequence"] == 2


@pytest.mark.parametrize("close_first", [False, True], ids=["old alive", "old closed"])
def test_a_restarted_node_is_heard_though_its_old_connection_lives(
    sockets: SocketWorld, close_first: bool
) -> None:
    """The new life gets through at once; what the old one still says is dropped and counted."""
    old, receiver = linked(sockets)
    if close_first:
        old.close()
    new = Node(sockets, "n1")
    new.system.connect_peer("n2", receiver.endpoint)
    started_at = time.monotonic()
    link(new, receiver)
    assert time.monotonic() - started_at < 2.0
    if not close_first:
        heard = len(receiver.recorder.numbers())

        def both_talk() -> None:
            old.send("n2", Note(666))
            new.send("n2", Note(1))

        pump(
            [receiver.system],
            lambda: receiver.counters["peer_stale_incarnation"] > 0,
            each=both_talk,
        )
        assert 666 not in receiver.recorder.numbers()[heard:]
        old.close()
    new.close()
    receiver.close()


def test_a_restarted_receiver_is_reached_again(sockets: SocketWorld) -> None:
    first, second = linked(sockets)
    endpoint = second.endpoint
    second.close()
    for number in range(10, 20):
        first.send("n2", Note(number))
        first.turn(0.005)
    second = Node(sockets, "n2", endpoint=endpoint)
    second.system.connect_peer("n1", first.endpoint)
    link(first, second)
    assert set(second.recorder.numbers()) == {0}
    first.close()
    second.close()


def test_nothing_is_queued_for_a_peer_that_is_down(world: World) -> None:
    """On return it receives what is fresh, not what was said while it was away."""
    first = Node(world, "n1")
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    endpoint = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    probe.close()
    first.system.connect_peer("n2", endpoint)
    for number in range(1, 1001):
        first.send("n2", Note(number))
    assert first.counters["peer_unreachable"] == 1000
    second = Node(world, "n2", endpoint=endpoint)
    second.system.connect_peer("n1", first.endpoint)
    link(first, second)
    assert set(second.recorder.numbers()) == {0}
    first.close()
    second.close()


def test_a_stopped_peer_stalls_nobody(sockets: SocketWorld) -> None:
    """Frames for a peer that reads nothing are dropped and counted; the others hear each message."""
    limits = TransportLimits(peer_frames=32, peer_heartbeat_seconds=60.0)
    nodes = [Node(sockets, name, limits=limits) for name in ("n1", "n2", "n3")]
    first, stopped, live = nodes
    connect_all(*nodes)
    link(first, stopped)
    link(first, live)
    body = bytes(256 * 1024)
    longest_seconds = 0.0
    for number in range(1, 301):
        started_at = time.monotonic()
        first.send("n2", Note(number, body))
        longest_seconds = max(longest_seconds, time.monotonic() - started_at)
        assert longest_seconds < 0.5
        first.send("n3", Note(number))
        pump([live.system], lambda number=number: live.recorder.numbers()[-1] == number)  # type: ignore[misc]
    assert [number for number in live.recorder.numbers() if number] == list(range(1, 301))
    assert first.counters["peer_unreachable"] > 100
    # What it reads when it goes on is bounded by the marks of both ends, the kernel's buffers aside.
    settle([stopped.system], stopped.recorder)
    heard = [number for number in stopped.recorder.numbers() if number]
    assert 0 < len(heard) < 200
    assert heard == sorted(set(heard))
    for node in nodes:
        node.close()


def test_a_peer_that_vanished_without_a_word_is_noticed(sockets: SocketWorld) -> None:
    """A black hole between two nodes is found by heartbeats; when it clears, a new connection is made."""
    first, second = Node(sockets, "n1", limits=QUICK), Node(sockets, "n2", limits=QUICK)
    with Proxy(second.endpoint) as proxy:
        first.system.connect_peer("n2", proxy.endpoint)
        second.system.connect_peer("n1", first.endpoint)
        link(first, second)
        proxy.frozen.set()
        pump(
            [first.system, second.system],
            lambda: first.counters["peer_unreachable"] > 5,
            each=lambda: first.send("n2", Note(1)),
        )
        proxy.frozen.clear()
        pump(
            [first.system, second.system],
            lambda: 2 in second.recorder.numbers(),
            each=lambda: first.send("n2", Note(2)),
        )
        first.close()
        second.close()


class Proxy:
    """Passes bytes between any number of connections and an endpoint; while frozen it reads nothing."""

    def __init__(self, endpoint: str) -> None:
        self._target = ("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.frozen = threading.Event()
        self._open = True
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        for each in (self._listener, *self._sockets):
            each.close()
        for thread in self._threads:
            thread.join(DEADLINE_SECONDS)
            assert not thread.is_alive()

    def _accept(self) -> None:
        for near in self._accepted():
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                source.settimeout(0.05)
                thread = threading.Thread(target=self._pass, args=(source, sink))
                self._threads.append(thread)
                thread.start()

    def _accepted(self) -> Iterator[socket.socket]:
        self._listener.settimeout(0.05)
        while self._open:
            try:
                yield self._listener.accept()[0]
            except TimeoutError:
                continue
            except OSError:
                return

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        while self._open:
            if self.frozen.is_set():
                time.sleep(0.02)
                continue
            try:
                taken = source.recv(65536)
                if not taken:
                    break
                sink.sendall(taken)
            except TimeoutError:
                continue
            except OSError:
                break
        sink.close()


def test_a_frame_too_large_for_the_receiver_is_refused_by_the_sender(world: World) -> None:
    """It would cost the connection, and what else is on it."""
    limits = TransportLimits(peer_frame_bytes=10_000)
    first, second = linked(world, limits)
    for message in (Note(1), Note(2, bytes(10_000)), Note(3, bytes(9_900))):
        first.recorder.send(Address("n2", "recorder"), message)
    first.recorder.flush()
    pump([first.system, second.system], lambda: 3 in second.recorder.numbers())
    assert [number for number in second.recorder.numbers() if number] == [1, 3]
    assert first.counters["peer_frame_too_large"] == 1
    first.close()
    second.close()


def test_many_messages_are_split_into_frames_that_the_receiver_takes(world: World) -> None:
    limits = TransportLimits(peer_frame_bytes=10_000)
    first, second = linked(world, limits)
    messages = [Note(number, bytes(1 + number * 37)) for number in range(1, 150)]
    for message in messages:
        first.recorder.send(Address("n2", "recorder"), message)
    first.recorder.flush()
    pump([first.system, second.system], lambda: 149 in second.recorder.numbers())
    assert [message for message in second.recorder.messages() if message != Note(0)] == messages
    assert first.counters["peer_frame_too_large"] == 0
    first.close()
    second.close()


def test_bulk_is_not_joined_into_frames_that_a_heartbeat_would_wait_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame is a sign of life; one of many mebibytes would let its receiver wait too long for it."""
    first, second = linked(world)
    sizes: list[int] = []
    send_peer = first.system._transport.send_peer

    def noting(node: str, header: bytes, frame: bytes) -> bool:
        sizes.append(len(frame))
        return send_peer(node, header, frame)

    monkeypatch.setattr(first.system._transport, "send_peer", noting)
    for number in range(1, 7):
        first.recorder.send(Address("n2", "recorder"), Note(number, bytes(700_000)))
    first.recorder.send(Address("n2", "recorder"), Note(7))
    first.recorder.flush()
    pump([first.system, second.system], lambda: 7 in second.recorder.numbers())
    assert [number for number in second.recorder.numbers() if number] == list(range(1, 8))
    assert len(sizes) == 6 and max(sizes) <= 1 << 20
    first.close()
    second.close()


def test_more_messages_than_a_frame_may_have_are_split(world: World) -> None:
    first, second = linked(world)
    for number in range(1, 9001):
        first.recorder.send(Address("n2", "recorder"), Note(number))
    first.recorder.flush()
    pump([first.system, second.system], lambda: 9000 in second.recorder.numbers())
    assert [number for number in second.recorder.numbers() if number] == list(range(1, 9001))
    first.close()
    second.close()


def test_messages_of_the_own_node_are_not_taken_from_a_peer(world: World) -> None:
    first, second = linked(world)
    pump(
        [first.system, second.system],
        lambda: second.counters["peer_malformed_frame"] > 0,
        each=lambda: first.send("n2", Inward([b"x"])),
    )
    assert not any(isinstance(message, Inward) for message in second.recorder.messages())
    first.close()
    second.close()


def test_a_peer_may_move_and_may_be_removed(world: World) -> None:
    first, second = linked(world)
    moved = Node(world, "n2")
    moved.system.connect_peer("n1", first.endpoint)
    first.system.connect_peer("n2", moved.endpoint)
    link(first, moved)
    first.system.disconnect_peer("n2")
    first.send("n2", Note(9))
    assert first.counters["peer_unreachable"] >= 1
    pump(
        [first.system, moved.system],
        lambda: first.counters["peer_unknown_source"] > 0,
        each=lambda: moved.send("n1", Note(9)),
    )
    assert 9 not in first.recorder.numbers()
    for node in (first, second, moved):
        node.close()


def test_a_judge_hears_its_leader_after_the_process_was_stopped(sockets: SocketWorld) -> None:
    """A deadline that passed while the whole process stood still is called after the frames of that time."""
    first, second = linked(sockets)
    judge = Recorder("judge")
    judge.runs_last = True
    watching = Node(sockets, "n3")
    watching.system.add(judge)
    connect_all(first, watching)
    link(first, watching)
    judge.set_deadline(watching.system.now() + 0.2)
    first.send("n3", Note(5))
    time.sleep(0.35)
    watching.turn()
    assert judge.events[-1][0] == "deadline"
    assert watching.recorder.numbers()[-1] == 5
    for node in (first, second, watching):
        node.close()


def test_attempts_to_reach_a_peer_that_is_down_grow_rare(sockets: SocketWorld) -> None:
    """The pause between attempts doubles from 50 ms up to 2 s."""
    transport = ZeroMqTransport()
    node = Node(sockets, "n1")
    node.system.close()
    transport.attach("n1", Counters(ManualClock()))
    transport.connect_peer("n2", node.endpoint)
    monitor = transport._peers["n2"].socket.get_monitor_socket(zmq.EVENT_CONNECT_RETRIED)
    pauses_ms: list[int] = []
    ends_at = time.monotonic() + 1.0
    while time.monotonic() < ends_at:
        if monitor.poll(50):
            pauses_ms.append(int.from_bytes(monitor.recv_multipart()[0][2:6], "little"))
    assert 2 <= len(pauses_ms) <= 8
    assert pauses_ms[-1] > 2 * pauses_ms[0]
    assert transport._peers["n2"].socket.get(zmq.RECONNECT_IVL_MAX) == 2000
    transport._peers["n2"].socket.disable_monitor()
    monitor.close()
    transport.close()
