"""Nothing fails, so nobody is elected: seconds of full load, and the terms they cost, which have to be none.

`python -m bench.steady --seconds 300`. A term that begins under load is an election without a fault: a
leader that was too busy to be heard, or a follower too busy to listen. The memory of the nodes before and
after is told as well. Exit code 1 after any election or failed put.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ProcessCluster
from kvstore.client.load import LoadResult, LoadSettings, run_load

SECONDS = 300.0
CHUNK_OPERATIONS = 100_000  # of one load; between two of them the terms are looked at
LOAD_SECONDS = 120.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.steady")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--value-size", type=int, default=256)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    chosen = parser.parse_args(arguments)
    end_orderly()
    with data_directory(chosen.directory) as directory, ProcessCluster(directory / "nodes") as cluster:
        facts = machine(directory)
        before = max(cluster.terms().values())
        memory_before = [cluster.resident_bytes(name) for name in cluster.names]
        loads: list[LoadResult] = []
        deadline = time.monotonic() + chosen.seconds
        while time.monotonic() < deadline:
            last = run_load(_settings(cluster.endpoints, chosen))
            loads.append(last)
            elections = max(cluster.terms().values(), default=before) - before
            say(f"{last.ops_per_second:.0f} puts/s, p99 {last.p99_ms:.1f} ms, elections so far {elections}")
        cluster.wait_for_leader()
        elections = max(cluster.terms().values()) - before
        memory_after = [cluster.resident_bytes(name) for name in cluster.names]
    puts, errors = sum(load.completed for load in loads), sum(load.errors for load in loads)
    rate = puts / sum(load.seconds for load in loads)
    rows = rows_of(elections, rate)
    write_rows(rows)
    print(
        f"{facts}\n{chosen.seconds:.0f} s of puts, {chosen.connections}x{chosen.in_flight}: "
        f"{elections} elections ({rows[0].goal}), {puts:,} puts at {rate:,.0f}/s, {errors} errors, "
        f"slowest {max(load.max_ms for load in loads):.0f} ms, "
        f"memory of the nodes {_mib(memory_before)} before, "
        f"{_mib(memory_after)} after"
    )
    return 1 if errors else exit_code(rows)


def rows_of(elections: int, rate: float) -> list[Row]:
    return [row("steady elections", elections, "elections", limit=0.0), row("steady put", rate, "ops/s")]


def _settings(endpoints: list[str], chosen: argparse.Namespace) -> LoadSettings:
    return LoadSettings(
        kind="put",
        endpoints=endpoints,
        connections=chosen.connections,
        in_flight=chosen.in_flight,
        value_bytes=chosen.value_size,
        total=CHUNK_OPERATIONS,
        timeout_seconds=LOAD_SECONDS,
    )


def _mib(sizes: Sequence[int]) -> str:
    return " ".join(f"{size / 2**20:.0f}" for size in sizes) + " MiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
