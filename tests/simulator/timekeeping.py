"""What leaders say of the time, and of when leases end: never more than has passed, and hardly less.

Held against the very clock of who says so, and against when entries came into its log in its present life. So
it holds in every run, however clocks drift or jump, that no time is made up. That none is lost is asked for
where nodes do at once what is due: none is paused, waits for its disk, is busy with commands, or has a clock
that jumps. And that a lease is given up when it ends, where moreover no proposal is refused.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

import msgpack

from kvstore.codes import INTERNAL_BYTE, LEASE_TICK
from kvstore.lease_keeper import GRAIN_SECONDS, LOOK_SECONDS, Count
from raft.entries import EntryBatch, Index, Term
from tests.simulator.model import StoreModel
from tests.simulator.tracing import Violation

if TYPE_CHECKING:
    from tests.simulator.cluster import SimulatedNode
    from tests.simulator.swarm import Swarm

ROUNDING_MS = 1
# From a look at the clock until what comes of it is in the log, and from a deadline until it is met.
SLACK_MS = 50
LATE_MS = round(1000 * LOOK_SECONDS) + SLACK_MS


class Life:
    """What a node did in its present life, by its clock."""

    def __init__(self, last_index: Index, now: float) -> None:
        self.came: list[float] = [now] * last_index  # by index - 1: when the entry was in the log
        self.applied_index: Index = 0
        self.ticks: dict[Index, float] = {}  # when each was applied
        # Of entries up to these it is known only that they came no earlier than this:
        self.found = last_index, now  # at the start
        self.restored: tuple[Index, float] = 0, now  # with a snapshot
        self.led: dict[Term, float] = {}  # from when on it leads and has applied all of earlier leaders
        self.latest = now
        self.went_back = False  # its clock did: a sync that was to take long was healed

    def at(self, now: float) -> float:
        self.went_back = self.went_back or now < self.latest
        self.latest = max(self.latest, now)
        return now


class Told(NamedTuple):
    """A leader's command, when it came into its own log."""

    node: str
    term: Term
    at: float
    came: list[float]
    found: tuple[Index, float]
    restored: tuple[Index, float]
    ticks: dict[Index, float]
    led_at: float


class Timekeeping:
    """Owned by the oracles, who tell it what they see."""

    def __init__(self, model: StoreModel) -> None:
        self._model = model
        self._lives: dict[str, Life] = {}
        self._told: dict[tuple[Index, bytes], Told] = {}
        self._tick_index: Index = 0  # of the last tick
        self._counts: dict[Term, Count | None] = {}  # with which its leader should count; None: nobody knows
        self._is_vague: dict[Term, bool] = {}  # that count may be too far ahead
        self._end_told: dict[int, Index] = {}  # by lease: the tick that gave it its end

    # -- what nodes do ---------------------------------------------------------------------------------

    def recovered(self, node: SimulatedNode, last_index: Index) -> None:
        self._lives[node.name] = Life(last_index, node.clock.turn_began())

    def appended(self, node: SimulatedNode, batch: EntryBatch, leader: str | None) -> None:
        """`leader` is that of the last entry's term."""
        life = self._lives[node.name]
        now = life.at(node.clock.now())
        life.came += [now] * (batch.first_index - 1 - len(life.came))  # a snapshot is being installed
        life.came[batch.first_index - 1 :] = [now] * len(batch.entries)
        for index, (term, _, body) in enumerate(batch.entries, batch.first_index):
            is_told = leader == node.name and body[:1] == INTERNAL_BYTE and not life.went_back
            if is_told and (index, body) not in self._told:
                self._told[index, body] = Told(
                    node.name,
                    term,
                    now,
                    life.came.copy(),
                    life.found,
                    life.restored,
                    life.ticks.copy(),
                    life.led.get(term, now),
                )

    def applied(self, node: SimulatedNode, first_index: Index, bodies: list[bytes | None]) -> None:
        life = self._lives[node.name]
        now = life.at(node.clock.now())
        for index, body in enumerate(bodies, first_index):
            if body is not None and body[:1] == INTERNAL_BYTE:
                life.ticks[index] = now
        life.applied_index = first_index + len(bodies) - 1

    def restored(self, node: SimulatedNode, index: Index) -> None:
        """What was in the log, and not applied, came with the snapshot."""
        life, now = self._lives[node.name], node.clock.turn_began()
        life.restored = index, now
        life.came[life.applied_index : index] = [now] * (index - life.applied_index)
        life.applied_index = index

    def turned(self, node: SimulatedNode) -> None:
        """Of one that leads."""
        core, led = node.core, self._lives[node.name].led
        if core.term not in led and core.log.term_at(node.applier.applied_index) == core.term:
            led[core.term] = node.clock.now()

    # -- what they say ---------------------------------------------------------------------------------

    def check(self, index: Index, body: bytes, swarm: Swarm) -> None:
        """Of an entry that is applied for the first time anywhere, before the model applies it."""
        if body[:1] != INTERNAL_BYTE:
            return
        is_prompt = not (swarm.pauses or swarm.slow_sync or swarm.busy_apply or swarm.jumps)
        told = self._told.get((index, body))  # None: who said it died before it was in its own log, or so
        operation, *arguments = msgpack.unpackb(body[1:])
        if told is not None and told.term not in self._counts:
            self._counts[told.term] = self._count_of(told)
        if operation == LEASE_TICK:
            self._check_tick(index, told, arguments, is_prompt)
            self._tick_index = index
        elif told is not None and is_prompt and not (swarm.transfers or swarm.tiny_windows):
            self._check_expiry(told, arguments)

    def _count_of(self, told: Told) -> Count | None:
        """From the last tick of another leader, since it was in the log here, or in the state."""
        if not self._tick_index:
            return None
        vague = [at for last_index, at in (told.found, told.restored) if self._tick_index <= last_index]
        self._is_vague[told.term] = bool(vague)
        return Count(self._model.time_ms, max([told.came[self._tick_index - 1], *vague]))

    def _check_tick(self, index: Index, told: Told | None, moments: list[int], is_prompt: bool) -> None:
        time_ms, seen_index = moments[-2:]
        if time_ms < self._model.time_ms:
            raise Violation(f"the tick {index} says {time_ms} ms after {self._model.time_ms} ms")
        count = self._counts[told.term] if told is not None else None
        if told is not None and count is not None:
            ahead_ms = time_ms - count.time_at(told.at)
            _judge(f"the time at {index}", ahead_ms, -SLACK_MS if is_prompt else -inf)
        if told is not None and (count is None or self._is_vague[told.term]):
            count = Count(time_ms, told.at)
        for lease, known in self._model.leases.items():
            if known.ends_at_ms is None and known.renewed_at <= seen_index:
                self._end_told[lease] = index
                since_ms = next(at for at, seen in _pairs(moments) if seen >= known.renewed_at)
                if told is not None and count is not None:
                    ahead_ms = count.time_at(told.came[known.renewed_at - 1]) - since_ms
                    least_ms = -1000 * GRAIN_SECONDS - SLACK_MS if is_prompt else -inf
                    _judge(f"the renewal of lease {lease} at {index}", ahead_ms, least_ms)

    def _check_expiry(self, told: Told, arguments: list[int]) -> None:
        time_ms, *leases = arguments
        count = self._counts[told.term]
        if count is None:
            return
        for lease in leases:
            known = self._model.leases.get(lease)
            if known is not None and known.ends_at_ms is not None and known.ends_at_ms <= time_ms:
                known_at = told.ticks.get(self._end_told[lease], told.led_at)
                due_ms = max(known.ends_at_ms, count.time_at(max(known_at, told.led_at)))
                if time_ms > due_ms + LATE_MS:
                    raise Violation(f"{told.node} ends lease {lease} at {time_ms} ms, not at {due_ms} ms")


def _judge(what: str, ahead_ms: float, least_ms: float) -> None:
    """By so much leases end earlier than they may."""
    if ahead_ms > ROUNDING_MS:
        raise Violation(f"{what}: leases end {ahead_ms} ms early")
    if ahead_ms < least_ms:
        raise Violation(f"{what}: leases end {-ahead_ms} ms late")


def _pairs(moments: list[int]) -> list[tuple[int, int]]:
    return list(zip(moments[::2], moments[1::2]))
