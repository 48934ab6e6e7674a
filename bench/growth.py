"""What becomes of put throughput as a cluster grows: with keys, with nodes, with idle connections.

`python -m bench.growth`. The base is three nodes with 1 000 keys and nobody else connected. Beside it, in
turns and each in a new cluster, the same with 1 000 000 keys, with five nodes, and with 10 000 client
connections which were greeted and do nothing. All get the same load, puts 16x16 over all their keys; medians
of the rounds are compared.

Each cluster is left alone after it was filled until the snapshots that this made due have been taken. A run
is too short for many more of them: bench.snapshots says what those cost. Connections are held by a process
for each node: what those need comes off the cores that are measured, as all of it does on one machine.
Exit code 1 if throughput falls below 0.85 (keys), 0.7 (nodes) or 0.8 (connections) of the base.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import psutil

from bench.filling import fill, puts, settle
from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.idle import NotHeld, idle_connections, most_connections, raise_descriptor_limit
from bench.machine import machine
from bench.processes import ProcessCluster

KEYS = 1_000_000
NODES = 5
CONNECTIONS = 10_000
PUTS = 60_000
WARM_UP_PUTS = 3_000
VALUE_BYTES = 256
ROUNDS = 3
OTHER_DESCRIPTORS = (
    64  # of three nodes, that may have been closed meanwhile: files, and the filling's sockets
)
TARGETS = {"keys": 0.85, "nodes": 0.7, "connections": 0.8}


@dataclass(slots=True, frozen=True)
class Shape:
    """What a cluster is like while it is loaded."""

    keys: int = 1_000
    nodes: int = 3
    connections: int = 0  # that are idle, beside those of the load

    def __str__(self) -> str:
        idle = f", {self.connections:,} idle connections" if self.connections else ""
        return f"{self.nodes} nodes, {self.keys:,} keys{idle}"


BASE = Shape()


def shapes_of(chosen: argparse.Namespace) -> dict[str, Shape]:
    """What is measured beside the base, by the name of what has grown."""
    grown = {
        "keys": replace(BASE, keys=chosen.keys),
        "nodes": replace(BASE, nodes=chosen.nodes),
        "connections": replace(BASE, connections=chosen.connections),
    }
    return {what: shape for what, shape in grown.items() if chosen.only in (None, what)}


def measure(shape: Shape, directory: Path, chosen: argparse.Namespace) -> float:
    """Puts per second in a new cluster of this shape."""
    with data_directory(directory) as data, ProcessCluster(data, shape.nodes) as cluster:
        fill(cluster.endpoints, shape.keys, chosen.value_size)
        settle(cluster)
        before = descriptors(cluster)
        with idle_connections(cluster.endpoints, shape.connections):
            cluster.wait_for_leader()  # to open so many is work, which may have cost the old one its place
            load(cluster, shape, WARM_UP_PUTS, chosen)
            rate = load(cluster, shape, chosen.puts, chosen)
            held = descriptors(cluster) - before
        if shape.connections - held > OTHER_DESCRIPTORS:
            raise NotHeld(f"of {shape.connections:,} idle connections {held:,} are left at the end")
    return rate


def load(cluster: ProcessCluster, shape: Shape, total: int, chosen: argparse.Namespace) -> float:
    size = chosen.value_size
    ran = puts(
        cluster.endpoints, total=total, keys=shape.keys, value_bytes=size, connections=16, in_flight=16
    )
    return ran.ops_per_second


def descriptors(cluster: ProcessCluster) -> int:
    """That the nodes have open, all together: connections are most of what comes and goes."""
    return sum(psutil.Process(cluster.pid(name)).num_fds() for name in cluster.names)


def rows_of(base: Sequence[float], grown: dict[str, list[float]], shapes: dict[str, Shape]) -> list[Row]:
    return [
        row(
            f"put 16x16 with {grown_figure(what, shapes[what])}",
            median(grown[what]),
            "ops/s",
            peer=f"with {grown_figure(what, BASE)}",
            peer_value=median(base),
            target=TARGETS[what],
        )
        for what in shapes
    ]


def grown_figure(what: str, shape: Shape) -> str:
    """Such as "5 nodes"."""
    return f"{getattr(shape, what):,} {'idle connections' if what == 'connections' else what}"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.growth")
    parser.add_argument("--only", choices=list(TARGETS), help="what grows (default: each of them by itself)")
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="that do nothing")
    parser.add_argument("--puts", type=int, default=PUTS, help="of each run")
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="runs of each; the medians count")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("--output", type=Path, default=LATEST, help="rows as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    chosen = _arguments(arguments)
    end_orderly()
    possible = most_connections(raise_descriptor_limit(), BASE.nodes)
    if chosen.connections > possible and chosen.only in (None, "connections"):
        print(f"only {possible:,} idle connections, not {chosen.connections:,}: more are beyond the limit of")
        print("open files of a process (ulimit -Hn), or beyond what nodes take")
        chosen.connections = possible
    shapes = shapes_of(chosen)
    base: list[float] = []
    grown: dict[str, list[float]] = {what: [] for what in shapes}
    with data_directory(chosen.directory) as directory:
        facts = machine(directory)
        for number in range(1, chosen.rounds + 1):
            for shape, rates in ((BASE, base), *((shapes[what], grown[what]) for what in shapes)):
                rates.append(measure(shape, directory, chosen))
                say(f"round {number}/{chosen.rounds} {shape}: {rates[-1]:,.0f} puts/s")
    rows = rows_of(base, grown, shapes)
    write_rows(rows, chosen.output)
    print(f"{facts}\n{chosen.value_size}-byte values, medians of {chosen.rounds} rounds; base: {BASE}")
    for each in rows:
        figures = f"{each.value:12,.0f} {each.peer_value or 0:12,.0f} {each.unit:6} {each.ratio or 0:5.2f}"
        print(f"{each.name:42} {figures}  {each.goal}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
