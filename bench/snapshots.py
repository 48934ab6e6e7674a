"""What clients notice of snapshots: the latency of puts at a fixed rate, without and with snapshots taken.

`python -m bench.snapshots --keys 1000000`. Three nodes are filled, and started again twice a round: once told
to take no snapshots, once to take one for each MiB of log. Puts come at a fixed rate, are timed from when
they were due, and overwrite keys at random. Of the second run only those count that were due while any of the
nodes had a snapshot in the making, or shortly before or after; and of those, in figures of their own, the
ones that were due while the leader had: a put needs the leader and one other, so it may notice nothing of a
follower's. The median of the rounds counts, of each figure. Exit code 1 if p99 with snapshots, of the one or
of the other, is more than three times that without.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.filling import fill, resident_bytes
from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.open_loop import OpenLoop, Timeline
from bench.processes import ProcessCluster
from kvstore.client.load import percentile_ms
from raft.directory import LOG_NAME
from raft.snapshot import DRAFT_NAME

KEYS = 1_000_000
VALUE_BYTES = 100
RATE = 1_000.0
SECONDS = 20.0
ROUNDS = 3
P99_LIMIT = 3.0  # with snapshots, divided by without
RESTART_SECONDS = 120.0
_WARM_UP_SECONDS = 2.0
# The state is frozen before its first slice is on the disk, and the log is compacted after the last.
_MARGIN_SECONDS = 0.25
NEVER = ("--snapshot-interval-entries", "1000000000", "--max-log-mib", "1048576")
ALWAYS = ("--max-log-mib", "1")


@dataclass(slots=True)
class Run:
    """One run of puts, in ms; `snapshots` were finished by the three nodes together."""

    puts: int  # that count
    p50: float
    p99: float
    longest: float
    snapshots: int
    leader_puts: int = 0  # that were due while the leader had a draft
    leader_p99: float = 0.0

    def __str__(self) -> str:
        figures = f"p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, max {self.longest:.1f} ms"
        leader = f"; {self.leader_puts} puts during the leader's, p99 {self.leader_p99:.2f} ms"
        return f"{self.puts} puts, {figures}, {self.snapshots} snapshots" + leader * bool(self.leader_puts)


def measure(cluster: ProcessCluster, chosen: argparse.Namespace, *, takes: bool) -> Run:
    """The nodes are started again, such that they take snapshots or do not, and loaded."""
    cluster.arguments = list(ALWAYS if takes else NEVER)
    cluster.restart_all(RESTART_SECONDS)
    load = OpenLoop(cluster.endpoints, chosen.keys, chosen.value_size)
    try:
        load.run(chosen.rate, _WARM_UP_SECONDS)
        before = snapshots_taken(cluster)
        drafts = Drafts(cluster, load.leader)
        timeline = load.run(chosen.rate, chosen.seconds, drafts.look if takes else None)
        taken = snapshots_taken(cluster) - before
    finally:
        load.close()
    if not takes:
        return run_of(timeline.latencies(), taken)
    of_leader = Timeline(timeline.puts, drafts.of_leader).busy_latencies(_MARGIN_SECONDS)
    return run_of(timeline.busy_latencies(_MARGIN_SECONDS), taken, of_leader)


class Drafts:
    """Who has a snapshot in the making. Owned by one run."""

    def __init__(self, cluster: ProcessCluster, leader: str) -> None:
        self._drafts = {
            cluster.client_endpoints[name]: cluster.data_directory(name) / LOG_NAME / DRAFT_NAME
            for name in cluster.names
        }
        self._leader = self._drafts[leader]
        self.of_leader: list[float] = []  # moments at which the leader had one

    def look(self) -> bool:
        if os.path.exists(self._leader):
            self.of_leader.append(time.perf_counter())
            return True
        return any(map(os.path.exists, self._drafts.values()))


def run_of(latencies: Sequence[float], taken: int, of_leader: Sequence[float] = ()) -> Run:
    """Of latencies in seconds, ascending; `of_leader`: of those due during the leader's snapshots."""
    p50, p99, longest = (percentile_ms(latencies, share) for share in (0.5, 0.99, 1.0))
    leader_p99 = percentile_ms(of_leader, 0.99) if of_leader else 0.0
    return Run(len(latencies), p50, p99, longest, taken, len(of_leader), leader_p99)


def snapshots_taken(cluster: ProcessCluster) -> int:
    """Told by the nodes' logs, so that nobody has to be asked while the load runs."""
    return sum(cluster.log(name).read_bytes().count(b"snapshot index=") for name in cluster.names)


def rows_of(without: Sequence[Run], with_snapshots: Sequence[Run]) -> list[Row]:
    """Medians over the rounds, and the ratio of the medians of p99."""
    rows = []
    for name, runs in (("without", without), ("with", with_snapshots)):
        rows += [
            row(f"puts {name} snapshots p50", median(run.p50 for run in runs), "ms"),
            row(f"puts {name} snapshots p99", median(run.p99 for run in runs), "ms"),
            row(f"puts {name} snapshots max", median(run.longest for run in runs), "ms"),
        ]
    base = median(run.p99 for run in without)
    ratio = median(run.p99 for run in with_snapshots) / base
    of_leader = median(run.leader_p99 for run in with_snapshots)
    return [
        *rows,
        row("puts with the leader's snapshots p99", of_leader, "ms"),
        row("puts with the leader's snapshots, p99 ratio", of_leader / base, "times", limit=P99_LIMIT),
        row("puts with snapshots, p99 ratio", ratio, "times", limit=P99_LIMIT),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.snapshots")
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument("--rate", type=float, default=RATE, help="puts a second")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each of the two runs of a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    chosen = parser.parse_args(arguments)
    end_orderly()
    without: list[Run] = []
    with_snapshots: list[Run] = []
    with data_directory(chosen.directory) as directory, ProcessCluster(directory / "nodes") as cluster:
        facts = machine(directory)
        fill(cluster.endpoints, chosen.keys, chosen.value_size)
        for number in range(chosen.rounds):
            for runs, takes in ((without, False), (with_snapshots, True)):
                begun = time.monotonic()
                runs.append(measure(cluster, chosen, takes=takes))
                how = "with" if takes else "without"
                say(f"round {number + 1}, {how}: {runs[-1]} ({time.monotonic() - begun:.0f} s)")
        memory = resident_bytes(cluster)
    rows = rows_of(without, with_snapshots)
    write_rows(rows)
    print(
        f"{facts}\n{chosen.keys:,} keys of {chosen.value_size} bytes, {chosen.rate:,.0f} puts/s, "
        f"median of {chosen.rounds} rounds"
    )
    for each in rows:
        print(f"{each.name:45} {each.value:10.2f} {each.unit:6} {each.goal}")
    print(
        f"snapshots finished meanwhile: {[run.snapshots for run in with_snapshots]} by the three nodes, "
        f"at least 3 a round are needed; memory {max(memory) / 2**20:.0f} MiB"
    )
    is_idle = min(run.snapshots for run in with_snapshots) < len(cluster.names)
    is_idle = is_idle or not all(run.leader_puts for run in with_snapshots)
    return 1 if is_idle else exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
