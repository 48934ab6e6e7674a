"""What a watcher that does not read costs a node: a bound in messages, one in bytes, and its connection."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from itertools import count

import psutil
import pytest
import zmq

from actors import TransportLimits
from kvstore import protocol, watch_frames
from kvstore.client.watch import Phase
from kvstore.protocol import MAX_PUBLISHED_BYTES, prefix_range
from kvstore.watch_frames import stream_topic
from kvstore.watch_plane import WatchPlane
from tests.actors.test_raw_planes import Service
from tests.actors.world import SocketWorld, pump
from tests.kvstore.machine_log import Log
from tests.kvstore.watch_desk import WatchDesk

APP = prefix_range(b"/app/")
VALUE = b"x" * (MAX_PUBLISHED_BYTES - 1000)
QUEUE_BYTES = TransportLimits().publisher_frames * MAX_PUBLISHED_BYTES


@pytest.fixture
def sockets() -> Iterator[SocketWorld]:
    world = SocketWorld()
    yield world
    world.close()


# ---------------------------------------------------------------- no message is large


def test_events_that_are_too_large_leave_a_gap_that_shows_at_once() -> None:
    log = Log()
    plane = log.machine.watch_plane
    plane.subscribed([b"\x01" + stream_topic(*APP), b"\x01/app/"])
    log.put(b"/app/small", VALUE)
    log.put(b"/app/large", b"x" * MAX_PUBLISHED_BYTES * 2)
    log.put(b"/app/small", b"1")
    frames = plane.announcements()
    assert max(len(part) for frame in frames for part in frame) <= MAX_PUBLISHED_BYTES
    told = [
        watch_frames.decode_stream_message(*frame[1:]) for frame in frames if frame[0] == stream_topic(*APP)
    ]
    assert [(header.sequence, header.revision, len(events)) for header, events in told] == [
        (1, 2, 1),
        (2, 3, 0),
        (3, 4, 1),
    ]
    assert [frame[0] for frame in frames if frame[0][:1] == b"/"] == [b"/app/small"] * 2
    assert plane.status()["large_frames"] == 2


def test_a_watch_gets_what_is_too_large_to_be_published_from_the_history() -> None:
    desk = WatchDesk()
    watch = desk.established()
    desk.store("/small")
    desk.store("/large", b"x" * MAX_PUBLISHED_BYTES * 2)
    desk.turn()
    desk.store("/small")
    desk.turn()
    batches = desk.taken(watch)
    assert [(batch.revision, len(batch.events[0].value)) for batch in batches] == [
        (2, 1),
        (3, 2 * MAX_PUBLISHED_BYTES),
        (4, 1),
    ]
    assert desk.core.counters["watch_gaps"] == 1 and watch.phase is Phase.STREAMING


def test_a_delete_of_many_keys_is_too_large_and_still_comes_as_one() -> None:
    desk = WatchDesk()
    for number in range(3000):
        desk.log.append(protocol.put_body(0, 0, 0, b"/%04d" % number, b"v"))
    desk.store("/last")
    watch = desk.established()
    desk.remove_prefix("/")
    desk.run(0.1)
    [batch] = desk.taken(watch)
    assert len(batch.events) == 3001


# ---------------------------------------------------------------- a watcher that does not read


class Stuck:
    """A subscriber by hand, which subscribes and then reads nothing more. Its queue is the kernel's alone."""

    def __init__(self, service: Service, topic: bytes) -> None:
        port = int(service.watch_endpoint.rsplit(":", 1)[1])
        self._connection = socket.socket()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.connect(("127.0.0.1", port))
        ready = b"\x05READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
        self._connection.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
        self._connection.setblocking(False)
        answered = bytearray()
        pump([service.system], lambda: b"XPUB" in answered, each=lambda: answered.extend(self._receive()))
        self._connection.sendall(b"\x00" + bytes([len(topic) + 1]) + b"\x01" + topic)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self._connection.close()


class Publishing:
    """A watch plane behind a real publisher. Its store is made up: each change has a value of its own, which
    nobody keeps but who has yet to send it."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.plane = WatchPlane(1)
        self._revisions = count(2)

    def subscribe(self) -> None:
        self.plane.subscribed([b"\x01" + stream_topic(*APP)])

    def put(self) -> None:
        revision = next(self._revisions)
        value = revision.to_bytes(8, "big") + VALUE[8:]
        self.plane.feed([(b"/app/k", value, 2, revision, revision - 1, 0)], lambda *_: None)
        for frame in self.plane.announcements():
            self.service.actor.publish("watch", frame)


def give_back_free_memory() -> None:
    """What former tests here have freed would be used first, and so nothing would be seen to grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def memory_bytes() -> int:
    return int(psutil.Process(os.getpid()).memory_info().rss)


def test_a_slow_watcher_does_not_grow_the_memory_of_the_server_without_bound(sockets: SocketWorld) -> None:
    """Four times what its queue may hold is published to it; a second of the same kind costs hardly more,
    since they wait for the same messages."""
    service = Service(sockets, TransportLimits(publisher_stall_seconds=600.0, client_heartbeat_seconds=600.0))
    publishing = Publishing(service)
    stuck = [Stuck(service, stream_topic(*APP)) for _ in range(2)]
    pump([service.system], lambda: len(service.subscriptions()) == 2)
    publishing.subscribe()
    give_back_free_memory()
    before = memory_bytes()
    largest = 0
    for _ in range(4 * TransportLimits().publisher_frames):
        publishing.put()
        largest = max(largest, memory_bytes() - before)
    assert QUEUE_BYTES * 0.5 < largest < QUEUE_BYTES * 1.5, f"{largest / 2**20:.0f} MiB"
    assert service.system.connections("watch") == 2
    for each in stuck:
        each.close()
    service.system.close()


def test_a_watcher_that_reads_nothing_is_cut_off_and_others_miss_nothing(
    sockets: SocketWorld,
) -> None:
    service = Service(sockets, TransportLimits(publisher_stall_seconds=0.5, client_heartbeat_seconds=600.0))
    publishing = Publishing(service)
    stuck = Stuck(service, stream_topic(*APP))
    live = sockets.subscriber(service.watch_endpoint)
    live.subscribe(stream_topic(*APP))
    pump([service.system], lambda: len(service.subscriptions()) == 2)
    publishing.subscribe()
    assert service.system.connections("watch") == 2
    heard: list[list[bytes]] = []
    published = count(1)

    def publish() -> None:
        next(published)
        publishing.put()
        heard.extend(live.receive())

    pump([service.system], lambda: service.system.connections("watch") == 1, each=publish)
    total = next(published) - 1
    pump([service.system], lambda: len(heard) == total, each=lambda: heard.extend(live.receive()))
    sequences = [watch_frames.decode_stream_message(*parts[1:])[0].sequence for parts in heard]
    assert sequences == list(range(1, total + 1)), "one that reads misses nothing of it"
    stuck.close()
    service.system.close()


def test_the_queue_of_a_publisher_has_its_bounds(sockets: SocketWorld) -> None:
    service = Service(sockets)
    limits, publisher = service.transport.limits, service.transport._ports["watch"].socket  # type: ignore[attr-defined]
    assert publisher.get(zmq.SNDHWM) == limits.publisher_frames == 1000
    assert publisher.get(zmq.TCP_MAXRT) == 10_000
    assert QUEUE_BYTES <= 64 << 20
    service.system.close()
