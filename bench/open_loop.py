"""Puts at a fixed rate, whatever becomes of those before: what a client sees that does not wait its turn.

A put is timed from the moment it was due, not from the one it was sent, so a stall counts for every put that
it held up. One connection, one session, one leader: a run in which that changes is no measurement, and fails.
"""

from __future__ import annotations

import os
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import zmq

from bench.filling import key_of
from kvstore import protocol
from kvstore.client.load import node_status

ANSWER_SECONDS = 10.0  # after the last put was due
_TIMEOUT_MILLISECONDS = 30_000
_BURST = 256  # puts in one frame at most, after a stall of this program
_VALUES = 64


Put: TypeAlias = tuple[float, float]
"""(when it was due, seconds from then to its answer)."""


class LoadBroken(Exception):
    """A put was refused, failed, or was never answered."""


@dataclass(slots=True)
class Timeline:
    """What became of the puts of a run; all times are of one clock."""

    puts: list[Put]
    busy: list[float]  # the moments at which somebody was found busy

    def latencies(self) -> list[float]:
        """In seconds, ascending."""
        return sorted(latency for _, latency in self.puts)

    def busy_latencies(self, margin_seconds: float) -> list[float]:
        """Of puts that were due while somebody was busy, or so long before or after; ascending."""
        busy = self.busy
        found = []
        for due, latency in self.puts:
            following = bisect_left(busy, due - margin_seconds)
            if following < len(busy) and busy[following] <= due + margin_seconds:
                found.append(latency)
        return sorted(found)


class OpenLoop:
    """Owns its socket and its session, until `close`. Keys are drawn from those that `filling` writes."""

    def __init__(self, endpoints: Sequence[str], keys: int, value_bytes: int, *, seed: int = 1) -> None:
        self.leader = leader = leader_endpoint(endpoints)  # its client endpoint
        self._random = random.Random(seed)
        self._keys = keys
        self._values = [self._random.randbytes(value_bytes) for _ in range(_VALUES)]
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.sndhwm = self._socket.rcvhwm = 0
        self._socket.connect(leader)
        self._due: dict[int, float] = {}  # when each unanswered request was due, by request id, ascending
        self._next_id = 0
        self._puts: list[Put] = []
        self._session_id = 0
        self._send([protocol.open_session_body(os.urandom(protocol.NONCE_BYTES))], [time.perf_counter()])
        self._receive_until_answered()

    def close(self) -> None:
        self._context.destroy(linger=0)

    def run(self, rate: float, seconds: float, is_busy: Callable[[], bool] | None = None) -> Timeline:
        """All puts that are due within `seconds`; `is_busy` is asked between them."""
        self._puts, busy = [], []
        begun, sent, total = time.perf_counter(), 0, int(rate * seconds)
        while sent < total:
            now = time.perf_counter()
            due = min(total, 1 + int((now - begun) * rate), sent + _BURST)
            if due > sent:
                self._put([begun + number / rate for number in range(sent, due)])
                sent = due
            else:
                wait_ms = 1e3 * (begun + sent / rate - now)
                self._socket.poll(max(1, int(wait_ms)))
            while self._socket.poll(0):
                self._receive()
            if is_busy is not None and is_busy():
                busy.append(time.perf_counter())
        self._receive_until_answered()
        return Timeline(self._puts, busy)

    def _put(self, due: list[float]) -> None:
        below = next(iter(self._due), self._next_id)
        bodies = [
            protocol.put_body(
                self._session_id,
                sequence,
                below,
                key_of(self._random.randrange(self._keys), self._keys),
                self._values[sequence % _VALUES],
            )
            for sequence in range(self._next_id, self._next_id + len(due))
        ]
        self._send(bodies, due)

    def _send(self, bodies: list[bytes], due: list[float]) -> None:
        first_id = self._next_id
        self._next_id += len(bodies)
        self._due.update(zip(range(first_id, self._next_id), due))
        self._socket.send(
            protocol.encode_request(protocol.WRITE, first_id, _TIMEOUT_MILLISECONDS, bodies), zmq.NOBLOCK
        )

    def _receive_until_answered(self) -> None:
        deadline = time.perf_counter() + ANSWER_SECONDS
        while self._due:
            if time.perf_counter() > deadline:
                raise LoadBroken(f"{len(self._due)} requests were not answered")
            if self._socket.poll(50):
                self._receive()

    def _receive(self) -> None:
        frame = self._socket.recv(zmq.NOBLOCK)
        now = time.perf_counter()
        reply = protocol.decode_reply(frame)
        if isinstance(reply, protocol.Refusal):
            raise LoadBroken(f"refused: {protocol.CODE_NAMES.get(reply.code, reply.code)}")
        request_id, count, blob = reply
        for result in protocol.split_results(blob, count):
            if result[0] != protocol.OK:
                raise LoadBroken(f"failed: {protocol.CODE_NAMES.get(result[0], result[0])}")
            due = self._due.pop(request_id)
            if request_id == 0:
                self._session_id = result[2]
            else:
                self._puts.append((due, now - due))
            request_id += 1


def leader_endpoint(endpoints: Sequence[str]) -> str:
    """As any node tells it."""
    for endpoint in endpoints:
        status = node_status(endpoint)
        if status and status.get("leader_client"):
            return str(status["leader_client"])
    raise LoadBroken("no node knows of a leader")
