"""How do puts per second and their latency go with the load, the size of a value, the nodes and the keys?

`python -m bench.curves`. Four figures, each a curve of puts and no single number:

    load    throughput against latency, with 1, 4, 16, 64, 256 and 1024 requests in flight in all
    values  throughput by size of the value, from 16 bytes to 16 KiB, with 16x16 in flight
    nodes   throughput of clusters of 1, 3 and 5 nodes, all on this machine, with 16x16 in flight
    keys    throughput with 1 000 to 1 000 000 keys in the store, all of them put to, with 16x16 in flight

In turns with etcd, as in `bench.run`, where it is found; but of `keys` only Assent, since etcd's load has
one key. The points go to `--output`, medians of the rounds, and figures are drawn from that file into
`--figures`: a line each for who was measured, and for p50 and p99 in `load`. `--draw` draws them again and
measures nothing. Nothing is judged: exit code 1 only if an operation failed, and then nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median

from bench.curve_figures import Point, draw, read_points, table, write_points
from bench.filling import fill, puts
from bench.harness import LATEST, data_directory, end_orderly, say
from bench.machine import machine
from bench.peers.etcd_cluster import etcd_version, find_etcd
from bench.processes import ROOT, ClusterFailed, ProcessCluster
from bench.run import VALUE_BYTES, WARM_UP, Measured, Side, Workload, assent_side, etcd_side

CURVES = LATEST.with_name("curves.json")
FIGURES = ROOT / "docs" / "figures"
LOADS = ((1, 1, 2_000), (4, 1, 6_000), (16, 1, 15_000), (16, 4, 30_000), (16, 16, 60_000), (64, 16, 60_000))
VALUES = (16, 256, 1024, 4096, 16_384)
NODES = (1, 3, 5)
KEYS = (1_000, 10_000, 100_000, 1_000_000)
PUTS = 40_000
MOST_VALUE_BYTES = 64 << 20  # of all puts of one point: large values are put less often
LEAST_PUTS = 50
ASSENT = "Assent"

SideOf = Callable[[int], Side]
"""Of a number of nodes."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on which curve a point will be, and what is done for it."""

    figure: str
    x: int
    work: Workload
    nodes: int = 3


def places(scale: float) -> list[Place]:
    """Those where etcd is beside it."""

    def work(connections: int, in_flight: int, total: int, value_bytes: int = VALUE_BYTES) -> Workload:
        total = max(LEAST_PUTS, int(scale * total))
        return Workload("put", connections, in_flight, total, value_bytes=value_bytes)

    found = [Place("load", each * of_each, work(each, of_each, total)) for each, of_each, total in LOADS]
    for size in VALUES:
        found.append(Place("values", size, work(16, 16, min(PUTS, MOST_VALUE_BYTES // size), size)))
    return found + [Place("nodes", nodes, work(16, 16, PUTS), nodes) for nodes in NODES]


Results = dict[tuple[str, str, int], list[Measured]]
"""By figure, side and x; one of each round."""


def measure_places(
    sides: Mapping[str, SideOf], chosen: Sequence[Place], scale: float, directory: Path | None
) -> Iterator[tuple[tuple[str, str, int], Measured]]:
    """One round. A cluster is new for each figure and number of nodes, and one lives at a time."""
    warm_up = Workload("put", 16, 16, max(LEAST_PUTS, int(scale * WARM_UP.total)))
    for (figure, nodes), some in groupby(chosen, key=lambda place: (place.figure, place.nodes)):
        together = list(some)
        for name, side_of in sides.items():
            with data_directory(directory) as data, side_of(nodes)(data) as measure:
                measure(warm_up)
                for place in together:
                    yield (figure, name, place.x), measure(place.work)


def measure_keys(
    keys: Sequence[int], scale: float, directory: Path | None
) -> Iterator[tuple[tuple[str, str, int], Measured]]:
    """One round. The keys of one point stay there for the next, which has ten times as many."""
    with data_directory(directory) as data, ProcessCluster(data) as cluster:
        for count in keys:
            fill(cluster.endpoints, count, VALUE_BYTES)
            result = puts(
                cluster.endpoints,
                total=max(LEAST_PUTS, int(scale * PUTS)),
                keys=count,
                value_bytes=VALUE_BYTES,
                connections=16,
                in_flight=16,
            )
            yield ("keys", ASSENT, count), result


def measure(sides: Mapping[str, SideOf], chosen: argparse.Namespace) -> list[Point]:
    """All rounds of all figures that were asked for. Raises ClusterFailed if an operation failed."""
    wanted = [place for place in places(chosen.scale) if place.figure.startswith(chosen.only)]
    keys = [int(chosen.scale * count) for count in KEYS if "keys".startswith(chosen.only)]
    results: Results = {}
    for number in range(1, chosen.rounds + 1):
        runs = [measure_places(sides, wanted, chosen.scale, chosen.directory)]
        if keys:
            runs.append(measure_keys([max(1, count) for count in keys], chosen.scale, chosen.directory))
        for run in runs:
            for (figure, side, x), result in run:
                if result.errors:
                    raise ClusterFailed(f"{figure} {x} of {side}: {result.errors} operations failed")
                results.setdefault((figure, side, x), []).append(result)
                latencies = f"p50 {result.p50_ms:.2f}, p99 {result.p99_ms:.2f} ms"
                say(
                    f"round {number}/{chosen.rounds} {side:12} {figure:6} {x:9,} "
                    f"{result.ops_per_second:9,.0f} ops/s, {latencies}"
                )
    return points_of(results)


def points_of(results: Results) -> list[Point]:
    def middle(some: Sequence[Measured], metric: str) -> float:
        return round(float(median(getattr(each, metric) for each in some)), 3)

    return [
        Point(*key, *(middle(some, metric) for metric in ("ops_per_second", "p50_ms", "p99_ms")))
        for key, some in results.items()
    ]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.curves", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument(
        "--only", default="", help="figures whose name begins so: load, values, nodes or keys"
    )
    parser.add_argument("--rounds", type=int, default=3, help="the medians count (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer operations, and keys")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument(
        "--output", type=Path, default=CURVES, help="points as JSON (default bench/results/curves.json)"
    )
    parser.add_argument(
        "--figures", type=Path, default=FIGURES, help="where figures are drawn (default docs/figures)"
    )
    parser.add_argument("--draw", action="store_true", help="only draw what is in the file of points")
    parser.add_argument("--without-etcd", action="store_true", help="Assent alone")
    return parser.parse_args(arguments)


def _sides(without_etcd: bool) -> dict[str, SideOf]:
    sides: dict[str, SideOf] = {ASSENT: lambda nodes: partial(assent_side, size=nodes)}
    binary = None if without_etcd else find_etcd()
    if binary is not None:
        sides[etcd_version(binary)] = lambda nodes: etcd_side(binary, nodes)
    elif not without_etcd:
        say("etcd was not found, so there is nothing beside Assent: see bench/README.md")
    return sides


def main(arguments: Sequence[str]) -> int:
    chosen = _arguments(arguments)
    end_orderly()
    if not chosen.draw:
        with data_directory(chosen.directory) as directory:
            facts = str(machine(directory))
        points = measure(_sides(chosen.without_etcd), chosen)
        write_points(points, facts, chosen.output)
        print(f"{facts}\nmedians of {chosen.rounds} rounds\n\n{table(points)}")
    chosen.figures.mkdir(parents=True, exist_ok=True)
    for name, text in draw(read_points(chosen.output)).items():
        (chosen.figures / name).write_text(text, encoding="utf-8")
        say(f"{chosen.figures / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
