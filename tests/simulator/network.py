"""The network between nodes, and between nodes and clients, as bad as the swarm wants it.

Decides for every frame of actors.MemoryNetwork when it arrives, whether, and how often. May know headers,
and nothing of what is in a frame. Clients reach every node over links that lose and delay like any other, but
no partition is between them and a node: so a leader cut off from its peers goes on hearing its clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from actors import MemoryNetwork
from actors.header import SEQUENCE_BYTES
from actors.memory import MemoryFrame
from tests.simulator.clocks import Schedule
from tests.simulator.swarm import Swarm
from tests.simulator.tracing import Trace

BASE_DELAY_SECONDS = 0.0005
LONGEST_DELAY_SECONDS = 3.0
LONGEST_CLOG_FRAMES = 2000  # on one path; what comes beyond is lost
_INCARNATION = slice(11, 19)  # of an encoded header

Link = tuple[str, str]


class FaultyNetwork:
    """Owned by the cluster, which says when frames depart and is told when they arrive."""

    def __init__(
        self,
        schedule: Schedule,
        rng: Random,
        swarm: Swarm,
        trace: Trace,
        *,
        departure: Callable[[MemoryFrame], float],
        was_sent: Callable[[str, float, float], bool],
        landed: Callable[[MemoryFrame], None],
    ) -> None:
        self.memory = MemoryNetwork()
        self.memory.route = self._route
        self.loss = swarm.loss
        self.duplicate = swarm.duplicate
        self.delay_seconds = swarm.delay_seconds
        self.reorder = swarm.reorder
        self._restamp = swarm.restamp
        self.cut: set[Link] = set()  # links between nodes that carry nothing
        self.gagged: set[str] = set()  # nodes whose answers and events reach no client
        # Clients whose frames meet a luck of their own, so that they change nothing about that of others.
        self.apart: set[str] = set()
        # Held back, to arrive at once: frames with the times of their turn and their departure.
        self._clogged: dict[Link, list[tuple[MemoryFrame, float, float]]] = {}
        self._schedule = schedule
        self._rng = rng
        self._rng_apart = Random(rng.getstate()[1][0])
        self._trace = trace
        self._departure = departure  # when the frame really leaves; its sender may be busy till then
        self._was_sent = was_sent  # did the sender live on from its turn until the frame's departure?
        self._landed = landed  # the frame has arrived
        self._last_arrival: dict[Link, float] = {}  # links keep their order, unless told otherwise
        self._stamps = 0

    def heal(self) -> None:
        self.loss = self.duplicate = self.delay_seconds = 0.0
        self.reorder = False
        self.cut.clear()
        self._last_arrival.clear()  # what is still on its way from before holds nothing up
        for link in list(self._clogged):
            self.unclog(link)

    def clog(self, link: Link) -> None:
        self._clogged.setdefault(link, [])

    def unclog(self, link: Link) -> None:
        for frame, turn, departs in self._clogged.pop(link, []):
            self._send(frame, turn, departs, self._schedule.now + BASE_DELAY_SECONDS)

    def _route(self, frame: MemoryFrame) -> None:
        turn = self._schedule.now
        departs = self._departure(frame)
        if frame.plane == "subscribe":
            self._send(frame, turn, departs, departs + BASE_DELAY_SECONDS)  # TCP would repeat it: never lost
            return
        link = (frame.source, frame.destination)
        if link in self.cut:
            self._trace.counts["frame cut off"] += 1
            return
        if frame.plane in ("reply", "publish") and frame.source in self.gagged:
            self._trace.counts["answer withheld"] += 1
            return
        rng = self._rng
        if self.apart and (frame.source in self.apart or frame.destination in self.apart):
            rng = self._rng_apart
        if self.loss and rng.random() < self.loss:
            self._trace.counts["frame lost"] += 1
            return
        if self._clogged and link in self._clogged:
            held = self._clogged[link]
            if len(held) < LONGEST_CLOG_FRAMES:
                held.append((frame, turn, departs))
                self._trace.counts["frame clogged"] += 1
            return
        self._send(frame, turn, departs, self._arrival(link, departs, rng))
        if self.duplicate and rng.random() < self.duplicate:
            self._trace.counts["frame duplicated"] += 1
            self._send(frame, turn, departs, self._arrival(link, departs, rng))

    def _arrival(self, link: Link, departs: float, rng: Random) -> float:
        delay = BASE_DELAY_SECONDS * (1.0 + rng.random())
        if self.delay_seconds:
            # Most are quicker than the mean, and a few are very late: Pareto with a finite mean.
            tail = (1.0 - rng.random()) ** (-1.0 / 1.5) - 1.0
            delay += min(LONGEST_DELAY_SECONDS, self.delay_seconds * 0.5 * tail)
        arrival = departs + delay
        last = self._last_arrival.get(link, -math.inf)
        if arrival < last:
            if self.reorder:
                self._trace.counts["frame overtaken"] += 1
            else:
                arrival = last
        self._last_arrival[link] = max(last, arrival)
        return arrival

    def _send(self, frame: MemoryFrame, turn: float, departs: float, arrival: float) -> None:
        self._schedule.at(arrival, lambda: self._arrive(frame, turn, departs))

    def _arrive(self, frame: MemoryFrame, turn: float, departed: float) -> None:
        if departed > turn and not self._was_sent(frame.source, turn, departed):
            return
        if (frame.source, frame.destination) in self.cut:
            self._trace.counts["frame cut off"] += 1
            return
        if frame.plane == "peer" and self._restamp:
            frame = frame._replace(parts=(self._restamped(frame.parts[0]), *frame.parts[1:]))
        self.memory.deliver(frame)
        self._landed(frame)

    def _restamped(self, header: bytes) -> bytes:
        """As if it were the newest frame of its sender's only life: the gate lets everything in."""
        self._stamps += 1
        life = bytes(_INCARNATION.stop - _INCARNATION.start)
        constant = header[: _INCARNATION.start] + life + header[_INCARNATION.stop : -SEQUENCE_BYTES]
        return constant + self._stamps.to_bytes(SEQUENCE_BYTES, "big")
