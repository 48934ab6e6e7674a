"""Assent and etcd side by side on this machine: the same work, in turns, medians and ratios.

Knows the load generators of both and how to start both. Rules: only one cluster lives at a time; the rounds
alternate (Assent, etcd, Assent, etcd, …), so that a machine which slows down slows both; every operation is
acknowledged on its own, and a figure from a run with errors says so.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal, Protocol, TypeAlias

from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.mixed import PUT_EVERY, mixed_load
from bench.peers.etcd_cluster import EtcdCluster, etcd_version, find_etcd
from bench.peers.etcd_load import etcd_load, etcd_mixed_load
from bench.processes import ProcessCluster
from kvstore.client.load import LoadKind, LoadSettings, run_load

VALUE_BYTES = 256
LOAD_SECONDS = 120.0

METRICS = {
    "ops_per_second": ("", "ops/s"),
    "p50_ms": (" p50", "ms"),
    "p99_ms": (" p99", "ms"),
    "p999_ms": (" p99.9", "ms"),
}


@dataclass(slots=True, frozen=True)
class Workload:
    kind: LoadKind | Literal["mixed"]
    connections: int
    in_flight: int
    total: int
    targets: dict[str, float] = field(default_factory=dict)  # by metric: the ratio to etcd that is asked for
    value_bytes: int = VALUE_BYTES

    @property
    def name(self) -> str:
        return f"{self.kind} {self.connections}x{self.in_flight}"


WORKLOADS = [
    Workload("put", 1, 1, 3_000, {"p50_ms": 0.7}),
    Workload("put", 16, 16, 60_000, {"ops_per_second": 2.0, "p99_ms": 0.7}),
    Workload("put", 100, 10, 60_000, {"ops_per_second": 2.0, "p99_ms": 0.7}),
    Workload("get", 1, 1, 5_000),
    Workload("get", 16, 16, 80_000, {"ops_per_second": 1.0}),
    Workload("get", 100, 10, 80_000, {"ops_per_second": 1.0}),
    Workload("local-get", 16, 16, 80_000, {"ops_per_second": 1.0}),
    Workload("mixed", 16, 16, 80_000, {"ops_per_second": 1.2}),
]
WARM_UP = Workload("put", 16, 16, 3_000)


class Measured(Protocol):
    """What a load of either side came to."""

    @property
    def ops_per_second(self) -> float: ...
    @property
    def p50_ms(self) -> float: ...
    @property
    def p99_ms(self) -> float: ...
    @property
    def p999_ms(self) -> float: ...
    @property
    def errors(self) -> int: ...


Measure: TypeAlias = Callable[[Workload], Measured]
Side: TypeAlias = Callable[[Path], contextlib.AbstractContextManager[Measure]]
"""Starts a cluster below a directory, and gives what runs a workload on it."""


@contextlib.contextmanager
def assent_side(directory: Path, size: int = 3) -> Iterator[Measure]:
    with ProcessCluster(directory, size) as cluster:

        def measure(work: Workload) -> Measured:
            if work.kind == "mixed":
                return mixed_load(
                    cluster.endpoints,
                    work.connections,
                    work.in_flight,
                    work.total,
                    value_bytes=work.value_bytes,
                    timeout_seconds=LOAD_SECONDS,
                )
            # Local gets all ask one node, as they do on etcd's side; asking all three is another figure.
            one = [cluster.client_endpoints[cluster.wait_for_leader()]]
            return run_load(
                LoadSettings(
                    kind=work.kind,
                    endpoints=one if work.kind == "local-get" else cluster.endpoints,
                    connections=work.connections,
                    in_flight=work.in_flight,
                    value_bytes=work.value_bytes,
                    total=work.total,
                    timeout_seconds=LOAD_SECONDS,
                )
            )

        yield measure


def etcd_side(binary: Path, size: int = 3) -> Side:
    @contextlib.contextmanager
    def side(directory: Path) -> Iterator[Measure]:
        with EtcdCluster(binary, directory, size) as cluster:

            def measure(work: Workload) -> Measured:
                url = cluster.urls[cluster.wait_for_leader(10.0)]
                if work.kind == "mixed":
                    return etcd_mixed_load(
                        work.connections,
                        work.in_flight,
                        work.total,
                        url,
                        put_every=PUT_EVERY,
                        value_bytes=work.value_bytes,
                        timeout_seconds=LOAD_SECONDS,
                    )
                return etcd_load(
                    work.kind,
                    work.connections,
                    work.in_flight,
                    work.total,
                    url,
                    value_bytes=work.value_bytes,
                    timeout_seconds=LOAD_SECONDS,
                )

            yield measure

    return side


def measure_in_turns(
    sides: dict[str, Side], works: Sequence[Workload], rounds: int, directory: Path
) -> dict[tuple[str, str], list[Measured]]:
    """Results by (side, workload), one of each round; a cluster is new in every round."""
    results: dict[tuple[str, str], list[Measured]] = {}
    for number in range(1, rounds + 1):
        for side_name, side in sides.items():
            with data_directory(directory) as data, side(data) as measure:
                measure(WARM_UP)
                for work in works:
                    result = measure(work)
                    results.setdefault((side_name, work.name), []).append(result)
                    rate, errors = result.ops_per_second, f", {result.errors} ERRORS" if result.errors else ""
                    say(
                        f"round {number}/{rounds} {side_name:9} {work.name:15} {rate:9.0f} ops/s, "
                        f"p50 {result.p50_ms:.2f}, p99 {result.p99_ms:.2f} ms{errors}"
                    )
    return results


def rows_of(
    results: dict[tuple[str, str], list[Measured]], works: Sequence[Workload], peer: str | None
) -> list[Row]:
    rows = []
    for work in works:
        for metric, (suffix, unit) in METRICS.items():
            value = median(getattr(result, metric) for result in results["assent", work.name])
            others = results.get(("etcd", work.name))
            peer_value = median(getattr(result, metric) for result in others) if others else None
            target = work.targets.get(metric)
            rows.append(row(work.name + suffix, value, unit, peer=peer, peer_value=peer_value, target=target))
    return rows


def table(rows: Sequence[Row]) -> str:
    """One line a row; the ratio is Assent's figure over the peer's."""
    lines = [f"{'work':22}{'Assent':>12}{'etcd':>12}  {'unit':6}{'ratio':>7}  target"]
    for each in rows:
        peer = f"{each.peer_value:,.2f}" if each.peer_value is not None else "-"
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else "-"
        lines.append(
            f"{each.name:22}{each.value:>12,.2f}{peer:>12}  {each.unit:6}{ratio:>7}  {each.goal}".rstrip()
        )
    return "\n".join(lines)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="runs of each side; the medians count (default 3)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer operations than usual")
    parser.add_argument("--only", default="", help="workloads whose name begins so, such as put or 'get 16'")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument(
        "--output", type=Path, default=LATEST, help="rows as JSON (default bench/results/latest.json)"
    )
    parser.add_argument("--without-etcd", action="store_true", help="Assent alone")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    chosen = _arguments(arguments)
    end_orderly()
    works = [
        Workload(
            work.kind,
            work.connections,
            work.in_flight,
            max(100, int(work.total * chosen.scale)),
            work.targets,
        )
        for work in WORKLOADS
        if work.name.startswith(chosen.only)
    ]
    sides: dict[str, Side] = {"assent": assent_side}
    binary = None if chosen.without_etcd else find_etcd()
    if binary is not None:
        sides["etcd"] = etcd_side(binary)
    elif not chosen.without_etcd:
        say("etcd was not found, so there is nothing beside Assent: see bench/README.md")
    with data_directory(chosen.directory) as directory:
        facts = machine(directory)
        say(str(facts))
        results = measure_in_turns(sides, works, chosen.rounds, directory)
    rows = rows_of(results, works, etcd_version(binary) if binary else None)
    write_rows(rows, chosen.output)
    print(f"{facts}\n{VALUE_BYTES}-byte values, medians of {chosen.rounds} rounds\n\n{table(rows)}")
    failed = {name: sum(result.errors for result in each) for name, each in results.items()}
    for (side_name, work_name), errors in failed.items():
        if errors:
            print(f"{side_name} {work_name}: {errors} operations failed")
    return 1 if any(failed.values()) else exit_code(rows)
