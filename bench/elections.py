"""How long a cluster is without a leader, by the spread of its election timeouts (Raft §9.3, figure 16).

Pure cores, simulated time, chance from a seed: the same arguments draw the same figure. Five nodes; the
leader crashes at a random moment between two heartbeats; a message takes 6 to 9 ms, so a question with its
answer takes about 15 ms, as in the paper. Measured is the time from the crash to the next leader.

    python -m bench.elections                          the table
    python -m bench.elections --svg FILE               also the figure
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.svg import COLOURS, Axis, Line, figure
from raft.core import Core, Role
from raft.entries import NodeId
from raft.membership import Configuration
from raft.messages import Message
from raft.storage import MemoryStorage

NODES = ("a", "b", "c", "d", "e")
SPREADS_MS = ((150, 150), (150, 151), (150, 155), (150, 175), (150, 200), (150, 300))
SHORTER_MS = ((12, 24), (25, 50), (50, 100), (100, 200), (150, 300))
MESSAGE_MS = (6.0, 9.0)
GIVE_UP_MS = 20_000.0


@dataclass(slots=True)
class Node:
    """Owned by one Trial."""

    core: Core
    storage: MemoryStorage
    heard_ms: float = 0.0  # when it last had a reason to be quiet: then its timeout began
    campaign_at_ms: float = 0.0


class Trial:
    """One cluster from its first election until a leader has crashed and another was elected."""

    def __init__(self, timeout_ms: tuple[float, float], seed: str) -> None:
        self._timeout_ms = timeout_ms
        self._rng = random.Random(seed)
        self._now_ms = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()  # of events at the same time
        self._nodes: dict[NodeId, Node] = {}
        for name in NODES:
            storage = MemoryStorage()
            self._nodes[name] = Node(Core(name, Configuration(NODES), storage.load()), storage)

    def run_ms(self) -> float:
        """From the crash of the leader to the next leader; GIVE_UP_MS if there is none by then."""
        first_leader = NODES[0]
        self._nodes[first_leader].core.campaign()
        self._turn(first_leader)
        while self._events:
            self._step()
        del self._nodes[first_leader]
        # It crashed between two heartbeats, of which the last reached each of the others at its own time.
        last_heartbeat_ms = self._now_ms
        crash_at_ms = last_heartbeat_ms + self._rng.uniform(0.0, self._timeout_ms[0] / 2)
        for name in self._nodes:
            self._restart_timeout(name, last_heartbeat_ms + self._rng.uniform(*MESSAGE_MS))
            self._wait_for_timeout(name)
        while self._now_ms < crash_at_ms + GIVE_UP_MS:
            self._step()
            if any(node.core.role is Role.LEADER for node in self._nodes.values()):
                return max(0.0, self._now_ms - crash_at_ms)
        return GIVE_UP_MS

    def _step(self) -> None:
        self._now_ms, _, event = heapq.heappop(self._events)
        event()

    def _at(self, time_ms: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_ms, next(self._order), event))

    def _restart_timeout(self, name: NodeId, from_ms: float) -> None:
        node = self._nodes[name]
        node.heard_ms = from_ms
        node.campaign_at_ms = from_ms + self._rng.uniform(*self._timeout_ms)

    def _wait_for_timeout(self, name: NodeId) -> None:
        def time_out() -> None:
            node = self._nodes[name]
            if node.campaign_at_ms <= self._now_ms:
                self._restart_timeout(name, self._now_ms)
                node.core.campaign()
                self._turn(name)
            self._wait_for_timeout(name)  # again, or later: it had a reason to be quiet meanwhile

        self._at(self._nodes[name].campaign_at_ms, time_out)

    def _turn(self, name: NodeId) -> None:
        node = self._nodes[name]
        while node.core.has_ready():
            ready = node.core.ready()
            node.storage.append(ready.hard_state, ready.batch)
            node.storage.sync()
            if ready.role_change is not None:
                self._restart_timeout(name, self._now_ms)
            for receiver, message in ready.messages + ready.messages_after_sync:
                self._send(name, receiver, message)
            node.core.advance()

    def _send(self, sender: NodeId, receiver: NodeId, message: Message) -> None:
        def arrive() -> None:
            node = self._nodes.get(receiver)
            if node is None:
                return
            if self._now_ms >= node.heard_ms + self._timeout_ms[0]:
                node.core.leader_silent()  # votes may be given after the least timeout (dissertation 4.2.3)
            node.core.step(sender, message)
            self._turn(receiver)

        self._at(self._now_ms + self._rng.uniform(*MESSAGE_MS), arrive)


def measure(timeout_ms: tuple[float, float], trials: int) -> list[float]:
    """Milliseconds without a leader, from the shortest to the longest."""
    low, high = timeout_ms
    return sorted(Trial(timeout_ms, f"{low}-{high}-{trial}").run_ms() for trial in range(trials))


def percentile(times: Sequence[float], percent: float) -> float:
    return times[min(len(times) - 1, int(len(times) * percent / 100))]


def table(results: dict[tuple[int, int], list[float]]) -> str:
    """In Markdown."""
    lines = ["| timeouts, ms | p10 | p50 | p90 | p99 | longest |", "|---|---|---|---|---|---|"]
    for (low, high), times in results.items():
        cells = [f"{percentile(times, percent):.0f}" for percent in (10, 50, 90, 99)]
        longest = "none in 20 s" if times[-1] >= GIVE_UP_MS else f"{times[-1]:.0f}"
        lines.append(f"| {low} to {high} | {' | '.join(cells)} | {longest} |")
    return "\n".join(lines)


DECADES = (10, 100, 1000, 10_000)
TIMES = Axis(DECADES[0], GIVE_UP_MS, [(each, f"{each} ms") for each in DECADES], is_logarithmic=True)
SHARES = Axis(0.0, 1.0, [(percent / 100, f"{percent} %") for percent in (0, 25, 50, 75, 100)])


def svg(results: dict[tuple[int, int], list[float]]) -> str:
    """For each spread the share of crashes after which there was a leader by that time."""
    lines = []
    for number, ((low, high), times) in enumerate(results.items()):
        found = [(percentile(times, percent), percent / 100) for percent in range(101)]
        points = [(time_ms, share) for time_ms, share in found if time_ms < GIVE_UP_MS]
        lines.append(Line(f"{low} to {high} ms", points, COLOURS[number % len(COLOURS)]))
    return figure(TIMES, SHARES, lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.elections", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="crashes for each spread")
    parser.add_argument("--svg", type=Path, help="draw the figure into this file")
    options = parser.parse_args(arguments)
    spreads = {timeout_ms: measure(timeout_ms, options.trials) for timeout_ms in SPREADS_MS}
    shorter = {timeout_ms: measure(timeout_ms, options.trials) for timeout_ms in SHORTER_MS}
    print(table(spreads), table(shorter), sep="\n\n")
    if options.svg is not None:
        options.svg.write_text(svg(spreads), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
