"""Many watchers on one prefix: is all delivered, what do they cost the nodes, and what do they cost writers?

`python -m bench.watchers`. Three nodes; `--watchers` watchers in a few processes, each with a connection of
its own, spread over the nodes and all on the same prefix; `--rate` changes a second there. Beside that,
puts as fast as they go on other keys (16 connections with 16 in flight), in turns without the watchers and
with them, on the same cluster; the changes go on in both. Medians of the turns are compared.

All of it shares the cores of one machine, so what the watchers need is missing elsewhere. They are bare SUB
sockets, therefore: as little as a watcher can be that decodes each event of the documented stream and
checks epoch, sequence and order. They look at their sockets 20 times a second, which adds 25 ms to the
delays that are told, 50 ms at most. `--clients` has whole clients of the library in their place, each an
event loop's work of its own: what is measured then is Python, more than the nodes. Exit code 1 if an event
is missed, or if puts fall below `PUT_RATIO` of what they are without watchers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.filling import puts, resident_bytes
from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ROOT, ClusterFailed, ProcessCluster
from bench.watching import Heard

WATCHERS = 1000
PROCESSES = 4  # of watchers
RATE = 100.0  # changes a second
SECONDS = 10.0
ROUNDS = 3
VALUE_BYTES = 100
PUT_RATIO = 0.7
PUT_KEYS = 10_000


class Child:
    """A process of `bench.watching`; owned by one run, which ends it."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.watching", *words],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None, "a child without standard input"
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None, "a child without standard output"
        return self._process.stdout.readline().strip()

    def wait_until_ready(self) -> None:
        if self.line() != "ready":
            raise ClusterFailed("watchers could not be established")


def crowd(cluster: ProcessCluster, watchers: int, chosen: argparse.Namespace) -> list[Child]:
    """Each process begins at another node."""
    way = "clients" if chosen.clients else "bare"
    endpoints = cluster.endpoints if chosen.clients else list(cluster.watch_endpoints.values())
    shares = [len(range(number, watchers, chosen.processes)) for number in range(chosen.processes)]
    children = []
    for number, share in enumerate(filter(None, shares)):
        first = number % len(endpoints)
        turned = ",".join([*endpoints[first:], *endpoints[:first]])
        children.append(Child(way, turned, str(share)))
    return children


@dataclass(slots=True)
class Run:
    """Puts with or without watchers, and what the nodes came to."""

    puts_per_second: float
    memory: list[int]  # resident bytes of each node at the end
    node_cores: float  # that all nodes together had in use
    changes: int
    seconds: float
    heard: list[Heard]


def cpu_seconds(cluster: ProcessCluster) -> float:
    """Of all nodes together."""
    return sum(map(cluster.cpu_seconds, cluster.names))


def run(cluster: ProcessCluster, *, watchers: int, chosen: argparse.Namespace) -> Run:
    with ExitStack() as stack:
        children = [stack.enter_context(child) for child in crowd(cluster, watchers, chosen)]
        for child in children:
            child.wait_until_ready()
        where = ",".join(cluster.endpoints)
        changes = stack.enter_context(Child("changes", where, str(chosen.rate), str(chosen.value_size)))
        changes.wait_until_ready()
        used, began, done = cpu_seconds(cluster), time.monotonic(), 0
        while time.monotonic() - began < chosen.seconds:
            if not chosen.puts:
                time.sleep(chosen.seconds)
                continue
            load = puts(
                cluster.endpoints,
                total=chosen.puts,
                keys=PUT_KEYS,
                value_bytes=chosen.value_size,
                connections=16,
                in_flight=16,
            )
            done += load.completed
        seconds = time.monotonic() - began
        cores = (cpu_seconds(cluster) - used) / seconds
        changes.tell("enough")
        total = int(changes.line())
        for child in children:
            child.tell(str(total))
        heard = [Heard(**json.loads(child.line())) for child in children]
        return Run(done / seconds, resident_bytes(cluster), cores, total, seconds, heard)


def percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def rows_of(without: Sequence[Run], having: Sequence[Run]) -> list[Row]:
    heard = [each for turn in having for each in turn.heard]
    delays = sorted(delay for each in heard for delay in each.delays)
    events, messages = sum(each.events for each in heard), sum(each.messages for each in heard)
    growth = max(
        late - early
        for before, turn in zip(without, having, strict=True)
        for early, late in zip(before.memory, turn.memory, strict=True)
    )
    seconds = sum(turn.seconds for turn in having)

    def median(turns: Sequence[Run]) -> float:
        return statistics.median(turn.puts_per_second for turn in turns)

    return [
        row("watchers events missed", sum(each.missed for each in heard), "events", limit=0),
        row("watchers out of order", sum(each.disorder for each in heard), "events", limit=0),
        row("watchers gaps", sum(each.gaps for each in heard), "gaps"),
        row("watchers deliveries", events / seconds, "events/s"),
        row("watchers events a message", events / messages if messages else float("nan"), "events"),
        row("watchers delay p50", percentile(delays, 0.5) * 1000, "ms"),
        row("watchers delay p99", percentile(delays, 0.99) * 1000, "ms"),
        row("watchers node memory", growth / 2**20, "MiB"),
        row("watchers, their own use", sum(each.cpu_seconds for each in heard) / seconds, "cores"),
        row("nodes with watchers", statistics.median(turn.node_cores for turn in having), "cores"),
        row("nodes without", statistics.median(turn.node_cores for turn in without), "cores"),
        row(
            "put beside watchers",
            median(having),
            "ops/s",
            peer="without watchers",
            peer_value=median(without),
            target=PUT_RATIO,
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watchers")
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--clients", action="store_true", help="whole clients, not bare SUB sockets")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="that the watchers are spread over")
    parser.add_argument("--rate", type=float, default=RATE, help="changes a second on the watched prefix")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each turn")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="a turn without watchers, and one with")
    parser.add_argument(
        "--puts", type=int, default=10_000, help="of one load; loads follow each other; 0: none"
    )
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("node_arguments", nargs="*", metavar="-- ARGUMENTS", help="of the nodes")
    chosen = parser.parse_args(arguments)
    end_orderly()
    without, having = [], []
    with (
        data_directory(chosen.directory) as directory,
        ProcessCluster(directory / "nodes", arguments=chosen.node_arguments) as cluster,
    ):
        facts = machine(directory)
        for _ in range(chosen.rounds):
            without.append(run(cluster, watchers=0, chosen=chosen))
            having.append(run(cluster, watchers=chosen.watchers, chosen=chosen))
            rates = without[-1].puts_per_second, having[-1].puts_per_second
            if not chosen.puts:
                continue
            say("{:,.0f} puts/s without watchers, {:,.0f} with: {:.2f}".format(*rates, rates[1] / rates[0]))
    rows = rows_of(without, having)
    write_rows(rows)
    kind = "clients" if chosen.clients else "bare SUB sockets"
    print(f"{facts}\n{chosen.watchers:,} {kind}, {sum(turn.changes for turn in having):,} changes")
    for each in rows:
        print(f"{each.name:32} {each.value:12.2f} {each.unit:8} {each.goal}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
