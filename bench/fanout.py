"""How many events a second reach a thousand watchers of one prefix, all on one machine?

`python -m bench.fanout`. Three nodes; `--watchers` bare SUB sockets in a few processes, each with a
connection of its own, spread over the nodes and all on the same prefix. There `--changes` puts are made as
fast as they go, `--in-flight` at a time, so that events come many to a message. The time ends when the last
watcher has the last event, so what had to wait on the way counts; the rate is that of all events at all
watchers together. A delay is from the sending of a put until a watcher has looked: here it tells how much
was waiting, not how quick a watch is (see bench.watchers for that).

Watchers decode each event, and check epoch, sequence and order; they need most of the processor time, which
is told beside that of the nodes. Exit code 1 if an event is missed or out of order, or below `LEAST_RATE`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ProcessCluster
from bench.watchers import PROCESSES, VALUE_BYTES, WATCHERS, Child, cpu_seconds, crowd, percentile
from bench.watching import Heard

CHANGES = 5000
IN_FLIGHT = 256
ROUNDS = 3
LEAST_RATE = 300_000.0  # events a second


@dataclass(slots=True)
class Run:
    """What one round came to."""

    put_seconds: float  # from the first put to the answer of the last
    seconds: float  # from the first put until the last watcher has all
    node_seconds: float  # of processor time, of all nodes, meanwhile
    changes: int
    heard: list[Heard]

    @property
    def events_per_second(self) -> float:
        return sum(each.events for each in self.heard) / self.seconds


def run(cluster: ProcessCluster, chosen: argparse.Namespace) -> Run:
    with ExitStack() as stack:
        children = [stack.enter_context(child) for child in crowd(cluster, chosen.watchers, chosen)]
        for child in children:
            child.wait_until_ready()
        words = map(str, (chosen.changes, chosen.in_flight, chosen.value_size))
        changes = stack.enter_context(Child("changes-at-once", ",".join(cluster.endpoints), *words))
        changes.wait_until_ready()
        used, began = cpu_seconds(cluster), time.monotonic()
        changes.tell("go")
        total = int(changes.line())
        put_seconds = time.monotonic() - began
        for child in children:
            child.tell(str(total))
        heard = [Heard(**json.loads(child.line())) for child in children]
        seconds = time.monotonic() - began
        return Run(put_seconds, seconds, cpu_seconds(cluster) - used, total, heard)


def rows_of(runs: Sequence[Run]) -> list[Row]:
    """Medians of the rounds; of what must not be at all the sum."""
    heard = [each for turn in runs for each in turn.heard]
    delays = sorted(delay for each in heard for delay in each.delays)
    events, messages = sum(each.events for each in heard), sum(each.messages for each in heard)
    seconds = sum(turn.seconds for turn in runs)
    return [
        row(
            "fanout deliveries",
            statistics.median(turn.events_per_second for turn in runs),
            "events/s",
            limit=LEAST_RATE,
        ),
        row("fanout events missed", sum(each.missed for each in heard), "events", limit=0),
        row("fanout out of order", sum(each.disorder for each in heard), "events", limit=0),
        row("fanout put", statistics.median(turn.changes / turn.put_seconds for turn in runs), "ops/s"),
        row("fanout events a message", events / messages if messages else float("nan"), "events"),
        row("fanout delay p50", percentile(delays, 0.5) * 1000, "ms"),
        row("fanout delay p99", percentile(delays, 0.99) * 1000, "ms"),
        row("fanout watchers, their own use", sum(each.cpu_seconds for each in heard) / seconds, "cores"),
        row("fanout nodes", sum(turn.node_seconds for turn in runs) / seconds, "cores"),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.fanout", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--processes", type=int, default=PROCESSES, help="that the watchers are spread over")
    parser.add_argument("--changes", type=int, default=CHANGES, help="puts on the prefix in each round")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help="of these, unanswered at a time")
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the median counts (default 3)")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument(
        "--output", type=Path, default=LATEST, help="rows as JSON (default bench/results/latest.json)"
    )
    parser.add_argument("node_arguments", nargs="*", metavar="-- ARGUMENTS", help="of the nodes")
    chosen = parser.parse_args(arguments, argparse.Namespace(clients=False))
    end_orderly()
    runs: list[Run] = []
    with (
        data_directory(chosen.directory) as directory,
        ProcessCluster(directory / "nodes", arguments=chosen.node_arguments) as cluster,
    ):
        facts = machine(directory)
        for _ in range(chosen.rounds):
            runs.append(run(cluster, chosen))
            say(f"{runs[-1].events_per_second:,.0f} events/s, {runs[-1].seconds:.1f} s until all had all")
    rows = rows_of(runs)
    write_rows(rows, chosen.output)
    print(f"{facts}\n{chosen.watchers:,} watchers, {chosen.changes:,} changes in each round")
    for each in rows:
        print(f"{each.name:32} {each.value:14,.2f} {each.unit:9} {each.goal}".rstrip())
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
