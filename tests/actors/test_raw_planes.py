"""Client ports and publishers: raw frames in both directions, subscriptions, and what strangers may do
there."""

from __future__ import annotations

import socket
import time

import pytest
import zmq

from actors import Subscription, System, SystemClock, TransportLimits, ZeroMqTransport, read_subscription
from tests.actors.world import DEADLINE_SECONDS, Recorder, SocketWorld, World, make_codec, pump

ANY = "tcp://127.0.0.1:0"


class Service:
    """A system whose one actor has a client port and a publisher."""

    def __init__(self, world: World, limits: TransportLimits | None = None) -> None:
        self.actor = Recorder("service")
        self.transport = world.transport(limits)
        self.system = System("n1", self.transport, SystemClock(), make_codec())
        self.system.add(self.actor)
        self.system.open_client_port(self.actor, "client", ANY)
        self.system.open_publisher(self.actor, "watch", ANY)
        self.system.start()

    @property
    def client_endpoint(self) -> str:
        return self.system.endpoint("client")

    @property
    def watch_endpoint(self) -> str:
        return self.system.endpoint("watch")

    def await_frames(self, count: int) -> None:
        pump([self.system], lambda: len(self.actor.frames()) >= count)

    def subscriptions(self) -> list[Subscription]:
        return [
            read_subscription(event[3])
            for event in self.actor.events
            if event[0] == "frame" and event[1] == "watch" and isinstance(event[3], bytes)
        ]


def test_replies_go_to_the_connection_that_asked(world: World) -> None:
    service = Service(world)
    clients = [world.client(service.client_endpoint) for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(b"ask %d" % number)
        client.send(b"ask %d again" % number)
    service.await_frames(6)
    for connection, payload in service.actor.frames():
        assert isinstance(connection, bytes)
        assert isinstance(payload, bytes)
        service.actor.send_frame("client", connection, b"re: " + payload)
    for number, client in enumerate(clients):
        replies: list[bytes] = []
        pump(
            [service.system],
            lambda replies=replies: len(replies) >= 2,  # type: ignore[misc]
            each=lambda replies=replies, client=client: replies.extend(client.receive()),  # type: ignore[misc]
        )
        assert replies == [b"re: ask %d" % number, b"re: ask %d again" % number]
    service.system.close()


def test_a_reply_to_nobody_is_counted(world: World) -> None:
    """No exception reaches the actor, and nothing is kept."""
    service = Service(world)
    service.actor.send_frame("client", b"\x00none", b"reply")
    assert service.system.counters["client_unreachable"] == 1
    service.system.close()


def test_replies_to_a_client_that_does_not_read_are_bounded(sockets: SocketWorld) -> None:
    service = Service(sockets, TransportLimits(client_frames=10))
    client = sockets.client(service.client_endpoint, most_frames=1)
    client.send(b"hello")
    service.await_frames(1)
    [(connection, _)] = service.actor.frames()
    assert isinstance(connection, bytes)
    started_at = time.monotonic()
    for _ in range(300):
        service.actor.send_frame("client", connection, bytes(1 << 20))
    assert time.monotonic() - started_at < 5.0
    assert service.system.counters["client_full"] > 200
    client.socket.close()
    service.system.close()


@pytest.mark.parametrize("parts", [[b"", b"body"], [b"a", b"b", b"c"], [b""] * 200])
def test_a_request_of_several_parts_is_dropped_and_counted(sockets: SocketWorld, parts: list[bytes]) -> None:
    service = Service(sockets)
    client = sockets.client(service.client_endpoint)
    client.send_parts(parts)
    client.send(b"whole")
    service.await_frames(1)
    assert service.actor.payloads() == [b"whole"]
    assert service.system.counters["client_wrong_parts"] == 1
    service.system.close()


def test_a_request_beyond_the_limit_is_not_read(world: World) -> None:
    service = Service(world, TransportLimits(client_frame_bytes=1000))
    large, small = world.client(service.client_endpoint), world.client(service.client_endpoint)
    small.send(b"before")
    service.await_frames(1)
    large.send(bytes(1001))
    large.send(bytes(1000))
    small.send(b"after")
    # The large client may have lost its connection with its second request; the small one has not noticed.
    pump([service.system], lambda: b"after" in service.actor.payloads())
    assert bytes(1001) not in service.actor.payloads()
    service.system.close()


def test_one_client_cannot_starve_another(world: World) -> None:
    """One turn takes a bounded part of a port."""
    service = Service(world, TransportLimits(drain_frames=10))
    busy = world.client(service.client_endpoint)
    for number in range(100):
        busy.send(b"%d" % number)
    longest = 0
    ends_at = time.monotonic() + DEADLINE_SECONDS
    while len(service.actor.frames()) < 100 and time.monotonic() < ends_at:
        before = len(service.actor.frames())
        service.system.turn(0.01)
        longest = max(longest, len(service.actor.frames()) - before)
    assert longest == 10
    assert service.actor.payloads() == [b"%d" % number for number in range(100)]
    service.system.close()


def test_connections_are_bounded_and_those_beyond_wait(sockets: SocketWorld) -> None:
    """A flood of clients is refused, those inside are served, and who leaves makes room."""
    service = Service(sockets, TransportLimits(client_connections=3, client_handshake_seconds=0.2))
    inside = [sockets.client(service.client_endpoint) for _ in range(3)]
    for client in inside:
        client.send(b"in")
    service.await_frames(3)
    outside = sockets.client(service.client_endpoint)
    outside.socket.set(zmq.SNDTIMEO, 0)
    outside.send(b"out")
    pump([service.system], lambda: service.system.counters["connection_refused"] >= 1)
    inside[0].send(b"still in")
    service.await_frames(4)
    assert b"out" not in service.actor.payloads()
    inside[2].socket.close()
    pump([service.system], lambda: b"out" in service.actor.payloads())
    service.system.close()


def test_connections_that_say_nothing_hold_no_place_for_long(sockets: SocketWorld) -> None:
    """A port counts what is connected now, however much has come and gone."""
    service = Service(sockets, TransportLimits(client_connections=3))
    assert isinstance(service.transport, ZeroMqTransport)
    door = service.transport._door
    port = int(service.client_endpoint.rsplit(":", 1)[1])
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            service.system.turn(0.002)
    pump([service.system], lambda: door.connections("client") == 0)
    client = sockets.client(service.client_endpoint)
    client.send(b"in")
    service.await_frames(1)
    service.system.close()


def test_subscribers_get_what_their_topics_are_a_prefix_of(world: World) -> None:
    service = Service(world)
    config, everything = world.subscriber(service.watch_endpoint), world.subscriber(service.watch_endpoint)
    config.subscribe(b"/config/")
    everything.subscribe(b"")
    pump([service.system], lambda: len(service.subscriptions()) >= 2)
    for key in (b"/config/a", b"/config", b"/other", b"/config/b"):
        service.actor.publish("watch", [key, b"meta", b"value of " + key])
    heard: dict[str, list[list[bytes]]] = {"config": [], "everything": []}

    def receive() -> None:
        heard["config"] += config.receive()
        heard["everything"] += everything.receive()

    pump([service.system], lambda: len(heard["everything"]) >= 4, each=receive)
    pump([service.system], lambda: len(heard["config"]) >= 2, each=receive)
    assert [parts[0] for parts in heard["config"]] == [b"/config/a", b"/config/b"]
    assert heard["everything"][1] == [b"/config", b"meta", b"value of /config"]
    service.system.close()


def test_each_subscription_is_told_and_only_the_last_to_leave(world: World) -> None:
    """A stream says its state to each newcomer, and is dropped when nobody is left."""
    service = Service(world)
    first, second = world.subscriber(service.watch_endpoint), world.subscriber(service.watch_endpoint)
    first.subscribe(b"topic")
    pump([service.system], lambda: service.subscriptions() == [Subscription(True, b"topic")])
    second.subscribe(b"topic")
    pump([service.system], lambda: service.subscriptions() == [Subscription(True, b"topic")] * 2)
    first.unsubscribe(b"topic")
    for _ in range(5):
        service.system.turn(0.01)
    assert len(service.subscriptions()) == 2
    second.unsubscribe(b"topic")
    pump([service.system], lambda: service.subscriptions()[2:] == [Subscription(False, b"topic")])
    service.system.close()


def test_a_subscriber_that_goes_away_unsubscribes(sockets: SocketWorld) -> None:
    service = Service(sockets)
    subscriber = sockets.subscriber(service.watch_endpoint)
    subscriber.subscribe(b"topic")
    pump([service.system], lambda: len(service.subscriptions()) == 1)
    sockets.made[-1].socket.close()
    pump([service.system], lambda: service.subscriptions()[1:] == [Subscription(False, b"topic")])
    service.system.close()


def test_a_topic_beyond_the_limit_is_counted_and_not_passed_on(world: World) -> None:
    """4 KiB are enough for a topic."""
    service = Service(world)
    subscriber = world.subscriber(service.watch_endpoint)
    subscriber.subscribe(b"x" * 4097)
    subscriber.subscribe(b"y" * 4096)
    pump([service.system], lambda: len(service.subscriptions()) == 1)
    assert service.subscriptions()[0].topic == b"y" * 4096
    assert service.system.counters["publisher_bad_subscription"] == 1
    service.system.close()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except BlockingIOError:
        return b""


def test_a_topic_of_a_megabyte_costs_its_subscriber_the_connection(sockets: SocketWorld) -> None:
    """It is not even read. (A SUB socket cannot be used to ask for it: libzmq's own would crash.)"""
    service = Service(sockets)
    port = int(service.watch_endpoint.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        ready = b"\x05READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"
        connection.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
        connection.setblocking(False)
        answered = bytearray()
        pump(
            [service.system], lambda: b"XPUB" in answered, each=lambda: answered.extend(_receive(connection))
        )
        connection.setblocking(True)
        connection.sendall(b"\x00\x06\x01small")
        pump([service.system], lambda: service.subscriptions() == [Subscription(True, b"small")])
        topic = b"\x01" + b"z" * (1 << 20)
        try:
            connection.sendall(b"\x02" + len(topic).to_bytes(8, "big") + topic)
        except OSError:
            pass  # cut off in the middle
        pump([service.system], lambda: service.subscriptions()[1:] == [Subscription(False, b"small")])
    service.system.close()


def test_what_is_no_subscription_is_counted(sockets: SocketWorld) -> None:
    service = Service(sockets)
    stranger = sockets.client(service.watch_endpoint)
    stranger.socket.close()
    upward = sockets.context.socket(zmq.XSUB)
    upward.set(zmq.LINGER, 0)
    upward.connect(service.watch_endpoint)
    for parts in ([b"\x07noise"], [b""], [b"\x02", b"more"]):
        upward.send_multipart(parts)
    upward.send(b"\x01topic")
    pump([service.system], lambda: len(service.subscriptions()) == 1)
    assert service.subscriptions() == [Subscription(True, b"topic")]
    assert service.system.counters["publisher_bad_subscription"] >= 1
    upward.close()
    service.system.close()


def test_a_subscriber_that_does_not_read_stalls_nobody(sockets: SocketWorld) -> None:
    service = Service(sockets, TransportLimits(publisher_frames=10))
    stalled, live = sockets.subscriber(service.watch_endpoint), sockets.subscriber(service.watch_endpoint)
    stalled.subscribe(b"")
    live.subscribe(b"live")
    pump([service.system], lambda: len(service.subscriptions()) == 2)
    heard: list[list[bytes]] = []
    started_at = time.monotonic()
    for number in range(100):
        service.actor.publish("watch", [b"bulk", bytes(1 << 20)])
        service.actor.publish("watch", [b"live", b"%d" % number])
        pump(
            [service.system],
            lambda number=number: len(heard) > number,  # type: ignore[misc]
            each=lambda: heard.extend(live.receive()),
        )
    assert time.monotonic() - started_at < DEADLINE_SECONDS
    assert [parts[1] for parts in heard] == [b"%d" % number for number in range(100)]
    service.system.close()
