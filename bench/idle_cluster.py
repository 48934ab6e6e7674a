"""What does a cluster cost that nobody asks anything? Processor time of each of three idle nodes.

`python -m bench.idle_cluster`. No client is connected and nothing is written; what is left are heartbeats,
their answers, and each node's own looks at its clock and its disk. Counted from outside by the system, so
that the count costs a node nothing, over `--seconds` that begin once the cluster is up and a while has
passed. The leader has more to do than a follower, so they are told apart; of the followers the busier one
counts. Exit code 1 if a node takes more than `MAX_PERCENT` of one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ClusterFailed, ProcessCluster

SECONDS = 20.0
SETTLE_SECONDS = 3.0  # after a start there are things to be done once
MAX_PERCENT = 1.5
UNIT = "% of a core"


def percent_of_a_core(cluster: ProcessCluster, seconds: float) -> dict[str, float]:
    """Of each node, from now on for so long."""
    before, began = {name: cluster.cpu_seconds(name) for name in cluster.names}, time.monotonic()
    time.sleep(seconds)
    after, lasted = {name: cluster.cpu_seconds(name) for name in cluster.names}, time.monotonic() - began
    return {name: 100 * (after[name] - before[name]) / lasted for name in cluster.names}


def rows_of(used: Mapping[str, float], leader: str) -> list[Row]:
    follower = max(percent for name, percent in used.items() if name != leader)
    return [
        row("idle leader", used[leader], UNIT, limit=MAX_PERCENT),
        row("idle follower", follower, UNIT, limit=MAX_PERCENT),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.idle_cluster", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that are looked at (default 20)")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument(
        "--output", type=Path, default=LATEST, help="rows as JSON (default bench/results/latest.json)"
    )
    parser.add_argument("node_arguments", nargs="*", metavar="-- ARGUMENTS", help="of the nodes")
    chosen = parser.parse_args(arguments)
    end_orderly()
    with (
        data_directory(chosen.directory) as directory,
        ProcessCluster(directory / "nodes", arguments=chosen.node_arguments) as cluster,
    ):
        facts = machine(directory)
        leader = cluster.wait_for_leader()
        time.sleep(min(SETTLE_SECONDS, chosen.seconds))
        used = percent_of_a_core(cluster, chosen.seconds)
        if cluster.leader() != leader:
            raise ClusterFailed("an idle cluster elected another leader")
    say(", ".join(f"{name} {percent:.2f} {UNIT}" for name, percent in used.items()))
    rows = rows_of(used, leader)
    write_rows(rows, chosen.output)
    print(f"{facts}\n{chosen.seconds:g} s without a request")
    for each in rows:
        print(f"{each.name:16} {each.value:8.2f} {each.unit:12} {each.goal}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
