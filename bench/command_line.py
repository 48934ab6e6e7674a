"""How long does one `assent get` take from the command line, and what is that made of?

`python -m bench.command_line`. Three nodes and one key. Each step is a process of its own, from its start
to its end: python that does nothing; python that imports zmq, msgpack and click; that imports all that a
`get` does; and a `get`, which also finds the leader, asks it and prints the value. In turns, `--calls`
times each, after one that does not count. The medians count: what a step takes beyond the one before is the
price of what it does more. Exit code 1 if a `get` takes longer than `MAX_MS`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, write_rows
from bench.machine import machine
from bench.processes import ROOT, ProcessCluster

CALLS = 20
MAX_MS = 100.0
CALL_SECONDS = 10.0
KEY, VALUE = "/bench/greeting", "hello"
GET = "assent get"


class CommandFailed(Exception):
    """A command did not print what it should; the message has what it said."""


def command(endpoints: Sequence[str], *words: str) -> list[str]:
    """As `bin/assent` runs it."""
    return [sys.executable, "-m", "kvstore.cli", "--endpoints", ",".join(endpoints), *words]


def steps(endpoints: Sequence[str]) -> dict[str, list[str]]:
    """Each does what the one before does, and something more."""
    return {
        "python alone": [sys.executable, "-c", "pass"],
        "python, libraries": [sys.executable, "-c", "import zmq, msgpack, click"],
        "python, all imports": [sys.executable, "-c", "import kvstore.cli.kv, kvstore.client"],
        GET: command(endpoints, "get", KEY),
    }


def seconds_of(words: Sequence[str]) -> tuple[float, str]:
    """From the start of the process to its end, and what it printed. Raises CommandFailed."""
    # What is set for the developer's own cluster must not reach it.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
    environment["PYTHONPATH"] = str(ROOT)
    began = time.perf_counter()
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=CALL_SECONDS
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise CommandFailed(f"{words} ended with {done.returncode}: {done.stderr}")
    return seconds, done.stdout


def measure(endpoints: Sequence[str], calls: int) -> dict[str, list[float]]:
    """Seconds of each step, in turns."""
    found: dict[str, list[float]] = {name: [] for name in steps(endpoints)}
    seconds_of(command(endpoints, "put", KEY, VALUE))
    for number in range(calls + 1):
        for name, words in steps(endpoints).items():
            seconds, printed = seconds_of(words)
            if name == GET and VALUE not in printed:
                raise CommandFailed(f"the value is not in {printed!r}")
            if number > 0:  # python keeps compiled modules from the first time on
                found[name].append(seconds)
    return found


def rows_of(found: Mapping[str, Sequence[float]]) -> list[Row]:
    return [
        row(
            f"command line, {name}",
            1e3 * statistics.median(seconds),
            "ms",
            limit=MAX_MS if name == GET else None,
        )
        for name, seconds in found.items()
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.command_line", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--calls", type=int, default=CALLS, help="of each step; the median counts")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument(
        "--output", type=Path, default=LATEST, help="rows as JSON (default bench/results/latest.json)"
    )
    chosen = parser.parse_args(arguments)
    end_orderly()
    with data_directory(chosen.directory) as directory, ProcessCluster(directory / "nodes") as cluster:
        facts = machine(directory)
        found = measure(cluster.endpoints, chosen.calls)
    rows = rows_of(found)
    write_rows(rows, chosen.output)
    print(f"{facts}\nmedians of {chosen.calls}; what is more than the line above, and the least of all")
    above = 0.0
    for each, seconds in zip(rows, found.values(), strict=True):
        more, least = each.value - above, 1e3 * min(seconds)
        print(f"{each.name:34} {each.value:8.1f} ms {more:+8.1f} {least:8.1f}  {each.goal}".rstrip())
        above = each.value
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
