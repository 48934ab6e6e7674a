"""Garbage to the peer port: nothing ends the loop, everything is counted, and true peers are still heard."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterator

import msgpack
import pytest

from actors import Actor, Address
from actors.gate import Prefixes
from tests.actors.world import (
    CLUSTER_ID,
    Node,
    Note,
    SocketWorld,
    connect_all,
    link,
    make_codec,
    pump,
)

HERE = Address("n1", "recorder")


class Siege:
    """Node n1 under fire from a stranger that can write anything, with a true peer n2."""

    def __init__(self, sockets: SocketWorld) -> None:
        self.node, self.peer = Node(sockets, "n1"), Node(sockets, "n2")
        connect_all(self.node, self.peer)
        # n3 is configured, and never there: the stranger knows that, and writes in its name.
        self.node.system.connect_peer("n3", "tcp://127.0.0.1:9")
        link(self.peer, self.node)
        self.stranger = sockets.client(self.node.endpoint)

    def fire(self, parts: list[bytes], reason: str) -> None:
        """Send this until it is counted under the reason, then be sure that the true peer is heard."""
        before = dict(self.node.counters)
        heard = len(self.node.recorder.events)
        self.stranger.send_parts(parts)
        pump([self.node.system], lambda: self.node.counters[reason] > before.get(reason, 0))
        assert len(self.node.recorder.events) == heard
        link(self.peer, self.node)

    def close(self) -> None:
        self.node.close()
        self.peer.close()


@pytest.fixture
def siege(sockets: SocketWorld) -> Iterator[Siege]:
    made = Siege(sockets)
    yield made
    made.close()


def header(
    node: str = "n3", cluster_id: int = CLUSTER_ID, to: Address = HERE, *, incarnation: int = 1, skip: int = 0
) -> bytes:
    writer = Prefixes(node, cluster_id, incarnation)
    for _ in range(skip):
        writer.header("recorder", to)
    return writer.header("recorder", to)


FRAME = make_codec().encode([Note(1)])


def changed(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes([value]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([b"one part"], "peer_wrong_parts"),
        ([b""], "peer_wrong_parts"),
        ([header(), FRAME, b"third"], "peer_wrong_parts"),
        ([b"x"] * 500, "peer_wrong_parts"),
        ([b"", b""], "peer_malformed_header"),
        ([b"\x00" * 30, FRAME], "peer_malformed_header"),
        ([b"AP\x02" + b"\xff" * 60, FRAME], "peer_malformed_header"),
        ([bytes(1 << 20), FRAME], "peer_malformed_header"),
        ([header()[:-9], FRAME], "peer_malformed_header"),
        ([changed(header(), 2, 1), FRAME], "peer_wrong_version"),
        ([header(cluster_id=CLUSTER_ID + 1), FRAME], "peer_wrong_cluster"),
        ([header(to=Address("n2", "recorder")), FRAME], "peer_wrong_destination"),
        ([header("n9"), FRAME], "peer_unknown_source"),
        ([header(to=Address("n1", "nobody")), FRAME], "peer_unknown_actor"),
        ([header(), b""], "peer_malformed_frame"),
        ([header(), FRAME[:-1]], "peer_malformed_frame"),
        ([header(), FRAME + b"\x00"], "peer_malformed_frame"),
        ([header(), changed(FRAME, 0, 9)], "peer_malformed_frame"),
        ([header(), b"\x01" + msgpack.packb([77, []])], "peer_malformed_frame"),
        ([header(), b"\x01" + msgpack.packb([1, ["one", b""]])], "peer_malformed_frame"),
        ([header(), b"\x01" + b"\x91" * 100_000], "peer_malformed_frame"),
        ([header(), b"\x01" + b"\x90" * (1 << 20)], "peer_malformed_frame"),
        ([header(), b"\x01\x92\x01" + b"\x92" * 1000], "peer_malformed_frame"),
    ],
)
def test_a_frame_that_is_none_is_counted_and_forgotten(siege: Siege, parts: list[bytes], reason: str) -> None:
    """Each under its own name."""
    siege.fire(parts, reason)


def test_a_frame_sent_again_is_counted(siege: Siege) -> None:
    siege.stranger.send_parts([header(skip=5), FRAME])
    pump([siege.node.system], lambda: 1 in siege.node.recorder.numbers())
    siege.fire([header(skip=5), FRAME], "peer_stale_sequence")
    siege.fire([header(skip=2), FRAME], "peer_stale_sequence")


def test_a_huge_part_costs_its_sender_the_connection_and_nobody_else(
    siege: Siege, sockets: SocketWorld
) -> None:
    """A part beyond the limit is not read into memory."""
    siege.stranger.send_parts([header(), bytes(9 << 20)])
    siege.stranger.send_parts([header(), FRAME])
    link(siege.peer, siege.node)
    other = sockets.client(siege.node.endpoint)
    pump(
        [siege.node.system],
        lambda: siege.node.counters["peer_wrong_parts"] > 0,
        each=lambda: other.send_parts([b"still served"]),
    )
    assert siege.node.counters["peer_malformed_frame"] == 0  # the huge part never came as far as the codec


def test_random_bytes_end_nothing(siege: Siege) -> None:
    """Noise, damaged headers and damaged frames by the thousand; the peer is heard among them."""
    noise = random.Random(4)
    good_header = header(skip=1000)
    makers: list[Callable[[], list[bytes]]] = [
        lambda: [noise.randbytes(noise.randrange(60)) for _ in range(noise.randrange(1, 5))],
        lambda: [changed(good_header, noise.randrange(len(good_header)), noise.randrange(256)), FRAME],
        lambda: [good_header, changed(FRAME, noise.randrange(len(FRAME)), noise.randrange(256))],
        lambda: [good_header[: noise.randrange(len(good_header))], noise.randbytes(20)],
    ]
    for _ in range(40):
        for _ in range(50):
            siege.stranger.send_parts(noise.choice(makers)())
        siege.node.turn()
    link(siege.peer, siege.node)
    assert sum(siege.node.counters[name] for name in siege.node.counters if name.startswith("peer_")) > 1000


def test_bytes_that_are_not_even_zeromq_end_nothing(siege: Siege) -> None:
    port = int(siege.node.endpoint.rsplit(":", 1)[1])
    for opening in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f", bytes(100), b"\xff" * 1000):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(opening)
            siege.node.turn(0.01)
    link(siege.peer, siege.node)


class Deaf(Actor):
    """Sends only, so it has no `receive`."""

    name = "deaf"


def test_a_peers_message_to_an_actor_that_receives_nothing_ends_nothing(sockets: SocketWorld) -> None:
    """From its own node that is a programmer's error, and the end; a stranger must not cause it."""
    node, peer = Node(sockets, "n1"), Node(sockets, "n2")
    node.system.add(Deaf())
    connect_all(node, peer)
    link(peer, node)
    pump(
        [node.system, peer.system],
        lambda: node.counters["peer_unknown_actor"] > 0,
        each=lambda: peer.recorder.send(Address("n1", "deaf"), Note(1)),
    )
    link(peer, node)
    assert 1 not in node.recorder.numbers()
    node.close()
    peer.close()
