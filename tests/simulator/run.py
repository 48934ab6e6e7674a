"""One run: calm, then trouble, then healing; and many runs, one for each seed.

A run has two phases. While trouble lasts, nothing wrong may happen (safety). After a majority is healed, what
is right must happen within bounds (liveness): a leader, an answer to everything that was asked, and one state
on all nodes.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from kvstore.node import YOUNG_OBJECTS
from raft.space_watch import CHECK_SECONDS, MISGIVING_CHECKS
from tests.simulator.audience import Audience, bounded_watches
from tests.simulator.clocks import Schedule
from tests.simulator.cluster import Cluster, SimulatedNode
from tests.simulator.lessees import Lessees
from tests.simulator.nemesis import Nemesis
from tests.simulator.oracles import Oracles
from tests.simulator.shapes import DRAWN, SHAPES
from tests.simulator.swarm import draw, is_all_together
from tests.simulator.tracing import Trace, Violation
from tests.simulator.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT_SECONDS = 30.0
CALM_SECONDS = 1.5  # for the first leader and the first answers
LEADER_TIMEOUTS = 10  # election timeouts until a healed majority has a leader
FINISH_TIMEOUTS = 40  # and until everything is answered
CONVERGE_TIMEOUTS = 20  # and until all have the same state
# An error of the disk that means a lack of room is believed for so long, and puts are refused meanwhile.
ALARM_SECONDS = (MISGIVING_CHECKS + 1) * CHECK_SECONDS
# The longest TTL, by a clock that runs slow, and what ticks, patience and a client's last attempts take.
LEASE_SECONDS = 20.0
# A watch whose node is silent notices it in two seconds, and may meet another one that is dead.
WATCH_SECONDS = 20.0
# Writes a key until one whose value is damaged was surely replaced: that is when it shows.
WRITES_A_KEY = 20


@dataclass(slots=True)
class Outcome:
    """What a run showed."""

    seed: int
    failure: str | None
    swarm: str
    counts: Counter[str]
    simulated_seconds: float
    lines: list[str] = field(default_factory=list)
    seconds: float = DEFAULT_SECONDS
    shape: str = DRAWN

    @property
    def command(self) -> str:
        return replay_command(self.seed, self.seconds, self.shape)

    @property
    def report(self) -> str:
        """Of a failure, and how to see it again."""
        return f"seed {self.seed} failed: {self.failure}\n  replay: {self.command}"


def replay_command(seed: int, seconds: float, shape: str) -> str:
    words = [f"python -m tests.simulator --seed {seed} --seconds {seconds:g}"]
    if shape != DRAWN:
        words.append(f"--shape {shape}")
    return " ".join([*words, "--trace"])


class Simulation:
    """One seed. Everything random comes from it, so it can be run again."""

    def __init__(
        self,
        seed: int,
        seconds: float,
        *,
        keep_trace: bool = False,
        shape: str = DRAWN,
    ) -> None:
        rng = Random(seed)
        self.swarm = SHAPES[shape](draw(Random(rng.getrandbits(64))))
        self.seconds = seconds
        self.command = replay_command(seed, seconds, shape)
        self.schedule = Schedule()
        self.trace = Trace(self.schedule, keep=keep_trace)
        self.oracles = Oracles(self.trace)
        self.cluster = Cluster(
            self.schedule, Random(rng.getrandbits(64)), self.swarm, self.trace, self.oracles
        )
        self.oracles.cluster = self.cluster
        self.oracles.model.max_sessions = self.swarm.max_sessions
        self.workload = Workload(self.cluster, self.oracles, Random(rng.getrandbits(64)))
        self.nemesis = Nemesis(self.cluster, Random(rng.getrandbits(64)))
        self.cluster.died = self.nemesis.see_to_restart
        self._rng = Random(rng.getrandbits(64))
        self.audience = Audience(
            self.cluster,
            self.oracles,
            Random(rng.getrandbits(64)),
            lambda: self.workload.newest_revision,
        )
        self.lessees = Lessees(self.workload, self.oracles.model, Random(rng.getrandbits(64)))
        self._acknowledged: dict[str, int] = {}  # writes, by phase

    def run(self) -> None:
        """Raises Violation, with a note that says how to see it again."""
        try:
            with bounded_watches(self.swarm):
                self._run()
        except Violation as violation:
            violation.add_note(f"replay: {self.command}")
            raise

    def _run(self) -> None:
        for node in self.cluster.nodes.values():
            self.cluster.start(node)
        self.workload.start()
        self.audience.start()
        self.lessees.start()
        self._count_phase("before", lambda: self.schedule.run_until(CALM_SECONDS))
        self.nemesis.start()
        self._count_phase("during", lambda: self.schedule.run_until(CALM_SECONDS + self.seconds))
        self._count_phase("after", self._heal)
        self.workload.history.check(self.oracles.model)
        self.audience.check()
        counts = self.trace.counts
        counts["runs with watches"] += self.swarm.watchers > 0
        counts["runs of all together"] += is_all_together(self.swarm)
        counts["undecided histories"] += self.workload.history.undecided
        counts["writes"] += self.workload.acknowledged
        counts["reads"] += self.workload.answered_reads
        counts["repeated commands"] += self.oracles.model.repeats
        counts["compactions"] += self.oracles.model.compactions
        counts["committed entries"] += len(self.oracles.committed)
        for phase, number in self._acknowledged.items():
            counts[f"runs with writes {phase}"] += number > 0

    def _count_phase(self, name: str, phase: Callable[[], object]) -> None:
        before = self.workload.acknowledged
        phase()
        self._acknowledged[name] = self.workload.acknowledged - before

    def _wait(self, timeouts: float, is_done: Callable[[], bool], what: str) -> None:
        seconds = timeouts * self.swarm.election_seconds
        if timeouts == FINISH_TIMEOUTS and self.swarm.disk_errors:
            seconds += ALARM_SECONDS
        # Who begins anew, or was away, applies all of it.
        seconds += self.swarm.busy_apply * len(self.oracles.committed)
        if not self.schedule.run_until(self.schedule.now + seconds, is_done):
            raise Violation(f"{seconds:.1f} s after healing: {what}")

    def _heal(self) -> None:
        spared = self._spared()
        self.nemesis.end(spared)
        self._wait(LEADER_TIMEOUTS, lambda: self._has_leader(spared), "there is no leader")
        # A little more work for the healed cluster, then the rest of what was begun.
        before = self.workload.acknowledged
        self.schedule.run_until(self.schedule.now + 2 * self.swarm.election_seconds)
        self._wait(FINISH_TIMEOUTS, lambda: self.workload.acknowledged > before, "nothing was written")
        if self.swarm.bends:
            enough = before + WRITES_A_KEY * self.swarm.keys
            self._wait(FINISH_TIMEOUTS, lambda: self.workload.acknowledged > enough, "too little was written")
        self.workload.is_closing = True
        self._wait(FINISH_TIMEOUTS, self.workload.is_idle, "some requests are not answered")
        if not self.schedule.run_until(self.schedule.now + LEASE_SECONDS, self.lessees.are_done):
            raise Violation(f"{LEASE_SECONDS:.1f} s after the last renewal there are leases")
        self._wait(CONVERGE_TIMEOUTS, lambda: self._has_converged(spared), "the nodes are not alike")
        self._wait(CONVERGE_TIMEOUTS, self._has_room, "the quota is exceeded")
        self.oracles.check_equal_states(self._members(spared))
        self.audience.close()
        if not self.schedule.run_until(self.schedule.now + WATCH_SECONDS, self.audience.have_seen_all):
            raise Violation(f"{WATCH_SECONDS:.1f} s after all was still, some watch has not heard of all")

    def _spared(self) -> list[SimulatedNode]:
        """All nodes, or in one run of three no more than a majority of them: with one that is wrong among
        them, nobody could tell which."""
        nodes = list(self.cluster.nodes.values())
        swarm = self.swarm
        needs_all = swarm.changes or swarm.bends or swarm.old_copies
        if self._rng.random() < 1 / 3 and not needs_all:
            nodes = sorted(self._rng.sample(nodes, len(nodes) // 2 + 1), key=lambda node: node.name)
        return nodes

    def _has_leader(self, spared: list[SimulatedNode]) -> bool:
        """One whose followers know it, and who has committed an entry of its own term."""
        leader = self.cluster.leader()
        if leader is None:
            return False
        core = leader.core
        following = {node.name for node in spared if node.alive and node.core.leader_id == leader.name}
        has_quorum = core.configuration.has_quorum(following)
        return has_quorum and core.log.term_at(core.commit_index) == core.term

    def _has_converged(self, spared: list[SimulatedNode]) -> bool:
        members = self._members(spared)
        applied = {node.machine.inner.applied_index if node.alive else -1 for node in members}
        if any(node.is_bent and not node.is_fenced for node in members):
            return False  # it has to be found out
        leader = self.cluster.leader()
        if any(
            node.copy_of_term and not node.is_fenced
            for node in members
            if leader is not None and leader.core.term == node.copy_of_term
        ):
            return False  # its leader has to prove what it has forgotten
        return applied == {len(self.oracles.committed)}

    def _has_room(self) -> bool:
        """The past is given up: what is present is less than the quota."""
        leader = self.cluster.leader()
        if leader is None or not self.swarm.quota_bytes:
            return leader is not None
        return leader.machine.inner.size_bytes() <= self.swarm.quota_bytes

    def _members(self, spared: list[SimulatedNode]) -> list[SimulatedNode]:
        """Those of these who take part: who was removed need not hear of what happens afterwards."""
        _, configuration = self.oracles.membership.committed[-1]
        return [node for node in spared if node.name in configuration.members and not node.is_fenced]


def run_seed(
    seed: int,
    seconds: float = DEFAULT_SECONDS,
    *,
    keep_trace: bool = False,
    shape: str = DRAWN,
) -> Outcome:
    """One run, whose failure is part of its outcome. `shape` names what is made of the swarm that the seed
    draws."""
    with _quiet():
        simulation = Simulation(seed, seconds, keep_trace=keep_trace, shape=shape)
        failure = None
        try:
            simulation.run()
        except Violation as violation:
            failure = str(violation)
            simulation.trace.line("*", "VIOLATION", failure)
    return Outcome(
        seed,
        failure,
        simulation.swarm.describe(),
        simulation.trace.counts,
        simulation.schedule.now,
        simulation.trace.lines,
        seconds,
        shape,
    )


def passed(seeds: Iterable[int], seconds: float, shape: str = DRAWN) -> list[Outcome]:
    """For tests: what all of these runs showed, none of which failed."""
    outcomes = [run_seed(seed, seconds, shape=shape) for seed in seeds]
    failures = [outcome.report for outcome in outcomes if outcome.failure is not None]
    assert not failures, "\n".join(failures)
    return outcomes


def first_failure(seeds: Iterable[int], seconds: float, shape: str = DRAWN) -> str:
    """For tests of planted bugs: what the first of these runs that fails says; empty if all pass."""
    for seed in seeds:
        outcome = run_seed(seed, seconds, shape=shape)
        if outcome.failure is not None:
            return outcome.report
    return ""


def merged(outcomes: Iterable[Outcome]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts.update(outcome.counts)
    return counts


@contextmanager
def _quiet() -> Iterator[None]:
    """Nodes that die and recover have much to say, and nobody to say it to; and young garbage may grow as it
    may in production."""
    before = logging.root.manager.disable
    thresholds = gc.get_threshold()
    logging.disable(logging.CRITICAL)
    gc.set_threshold(YOUNG_OBJECTS, 20, 100)
    try:
        yield
    finally:
        logging.disable(before)
        gc.set_threshold(*thresholds)
