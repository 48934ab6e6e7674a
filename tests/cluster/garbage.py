"""Garbage of every kind, thrown at the sockets of running nodes. Seeded, bounded, and never waiting."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import msgpack
import zmq

from actors.address import Address
from actors.header import Header, encode_prefix
from kvstore import protocol

GIANT_BYTES = 100 << 20
GIANTS = 4  # each is copied by this process: a few are enough
SUBSCRIPTIONS = 200
# To XPUB the first byte 0 or 1 is a subscription, and the sender itself keeps those: this one only travels.
GIANT_BYTE = b"\x02"
HANG_UP_SECONDS = 10.0


def pack(item: object) -> bytes:
    packed: bytes = msgpack.packb(item)
    return packed


def random_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(2048))


def truncated(rng: random.Random) -> bytes:
    whole = b"\x01" + pack([1, 1, 1000, [rng.randbytes(200) for _ in range(3)]])
    return whole[: rng.randrange(len(whole))]


def deep(rng: random.Random) -> bytes:
    return b"\x01" + b"\x91" * rng.randrange(100_000)


def bomb(rng: random.Random) -> bytes:
    """Empty containers: each byte would become some sixty in memory."""
    return b"\x01\xdd\x00\x0f\xff\xff" + rng.choice([b"\x90", b"\x80", b"\xc4\x00"]) * 500_000


def false_lengths(rng: random.Random) -> bytes:
    return (
        b"\x01" + rng.choice([b"\xdd", b"\xc6", b"\xdf", b"\xdb"]) + b"\xff\xff\xff\xff" + rng.randbytes(20)
    )


def wrong_version(rng: random.Random) -> bytes:
    return bytes([rng.randrange(2, 256)]) + pack([1, 1, 1000, [b"x"]])


def unknown_tag(rng: random.Random) -> bytes:
    return b"\x01" + pack([rng.randrange(5, 1 << 40), 1, 1000, [b"x"]])


def wrong_types(rng: random.Random) -> bytes:
    oddities: list[object] = [None, -1, 1.5, float("nan"), "text", b"bin", [], {}, True, 2**64 - 1]
    return b"\x01" + pack([rng.choice(oddities) for _ in range(rng.randrange(7))])


def poison_body(rng: random.Random) -> bytes:
    """A good envelope around a body that makes no sense: it goes through the log of a leader."""
    body = rng.choice([rng.randbytes(50), b"", b"\x91" * 500, pack([0, 0, 0, 1, "text", None, -1, 2**63])])
    return b"\x01" + pack([rng.choice([1, 2, 3]), 7, 1000, [body]])


PAYLOADS: list[Callable[[random.Random], bytes]] = [
    random_bytes, truncated, deep, bomb, false_lengths, wrong_version, unknown_tag, wrong_types, poison_body,
]  # fmt: skip


class Thrower:
    """One attacker of one cluster's sockets; owned by one thread. `throw` never blocks."""

    def __init__(self, clients: list[str], peers: list[str], watches: list[str], cluster_id: int) -> None:
        self._rng = random.Random(1)
        self._context = zmq.Context()
        self._clients = [self._connect(zmq.DEALER, endpoint) for endpoint in clients]
        self._peers = [self._connect(zmq.DEALER, endpoint) for endpoint in peers]
        self._watches = [self._connect(zmq.XSUB, endpoint) for endpoint in watches]
        self._endpoints = [*clients, *peers, *watches]
        self._planes = [(zmq.DEALER, clients), (zmq.DEALER, peers), (zmq.XSUB, watches)]
        self._deaf = self._connect(zmq.DEALER, clients[0])
        self._cluster_id = cluster_id
        self._giants = 0
        self._topics = 0
        self._asked = 0
        self.thrown = 0

    def _connect(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        found: zmq.Socket[bytes] = self._context.socket(kind)
        found.setsockopt(zmq.LINGER, 0)
        found.setsockopt(zmq.SNDHWM, 100)
        found.setsockopt(zmq.RCVHWM, 1)  # nothing is ever received here
        found.connect(endpoint)
        return found

    def throw(self) -> None:
        rng = self._rng
        self._send(rng.choice(self._clients), [rng.choice(PAYLOADS)(rng)])
        self._send(rng.choice(self._clients), [random_bytes(rng) for _ in range(rng.randrange(1, 5))])
        self._send(rng.choice(self._peers), [self._header(), rng.choice(PAYLOADS)(rng)])
        self._send(rng.choice(self._peers), [random_bytes(rng) for _ in range(rng.randrange(1, 5))])
        self._send(rng.choice(self._watches), [random_bytes(rng)])
        if self._topics < SUBSCRIPTIONS:
            self._topics += 1
            topic = rng.choice([b"\x01", b"\x00"]) + rng.choice([b"\x00S", b"", b"/"]) + random_bytes(rng)
            self._send(rng.choice(self._watches), [topic])
        if self._giants < GIANTS and self.thrown % 200 == 0:
            self._giants += 1
            self._send(rng.choice([*self._clients, *self._peers, *self._watches]), [GIANT_BYTE * GIANT_BYTES])
        if self.thrown % 20 == 0:
            self._raw(rng.choice(self._endpoints))
        self.thrown += 1

    def throw_giants(self) -> None:
        """One frame that is far too large to each plane: its node must hang up, and not take it in first."""
        for kind, endpoints in self._planes:
            thrower = self._connect(kind, self._rng.choice(endpoints))
            hung_up = thrower.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            thrower.send(GIANT_BYTE * GIANT_BYTES)
            assert hung_up.poll(int(1e3 * HANG_UP_SECONDS)), f"{endpoints} took in {GIANT_BYTES} bytes"
            thrower.disable_monitor()
            hung_up.close()
            thrower.close()

    def ask_and_never_read(self, key: bytes, range_end: bytes) -> None:
        """One local read; all of them are of one connection of the first node, and no answer is received."""
        self._asked += 1
        body = protocol.range_body(key, range_end)
        self._send(self._deaf, [protocol.encode_request(protocol.STALE_READ, self._asked, 60_000, [body])])

    def _header(self) -> bytes:
        """Of a peer that nobody knows, or of another cluster, or none at all."""
        rng = self._rng
        source = Address(rng.choice(["n9", "n1", ""]) or "x", rng.choice(["replication", "gateway", "none"]))
        cluster_id = self._cluster_id if source.node == "n9" else self._cluster_id ^ 1
        header = Header(cluster_id, rng.getrandbits(63), source, Address("n1", "replication"))
        return encode_prefix(header) + rng.randbytes(rng.choice([8, 8, 3]))

    def _raw(self, endpoint: str) -> None:
        """Bytes that are no ZMTP at all, and half of a greeting that is never finished."""
        address = urlsplit(endpoint)
        try:
            with socket.create_connection((address.hostname, address.port), timeout=0.5) as connection:
                connection.sendall(
                    self._rng.choice([self._rng.randbytes(300), b"\xff" + bytes(8) + b"\x7f\x03"])
                )
        except OSError:
            pass  # the node hung up: as it should

    @staticmethod
    def _send(to: zmq.Socket[bytes], parts: list[bytes]) -> None:
        try:
            to.send_multipart(parts, zmq.DONTWAIT)
        except zmq.Again:
            pass

    def close(self) -> None:
        self._context.destroy(0)
