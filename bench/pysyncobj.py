"""Puts beside PySyncObj, a replicated object in Python: 256 outstanding, three nodes on each side, in turns.

`python -m bench.pysyncobj`. Assent's side is `put 16x16` of the table: clients, sessions, and a sync of the
disk on a quorum before each answer. PySyncObj's puts are calls in the very process that leads, without any
client between, and it syncs nothing: what leans, leans its way. It is looked for as an interpreter that can
import it, `$PYSYNCOBJ_PYTHON` or one of `.venv*/bin/python` of the clone; without one Assent stands alone.
Exit code 1 if Assent is less than 20 times as fast, or if an operation failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.peers import pysyncobj_load
from bench.ports import free_ports
from bench.processes import ROOT
from bench.run import Measure, Measured, Side, Workload, assent_side, measure_in_turns

TARGET = 20.0
NODES = 3
WORK = Workload("put", 16, 16, 60_000)
PEER_SHARE = 10  # the peer makes a tenth of the puts: it takes that much longer for each
_LOOK = "import pysyncobj, importlib.metadata; print(importlib.metadata.version('pysyncobj'))"
_LOOK_SECONDS = 20.0
_PATIENCE_SECONDS = pysyncobj_load.READY_SECONDS + pysyncobj_load.LOAD_SECONDS


class PySyncObjFailed(Exception):
    """A replica ended by itself, was silent for too long, or not exactly one of them leads."""


@dataclass(slots=True)
class PySyncObjResult:
    ops_per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int


def pysyncobj_version(python: Path) -> str | None:
    """Such as "PySyncObj 0.3.17"; None when this interpreter cannot import it."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        looked = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, timeout=_LOOK_SECONDS)
        if looked.returncode == 0:
            return f"PySyncObj {looked.stdout.strip()}"
    return None


def find_pysyncobj() -> tuple[Path, str] | None:
    """An interpreter that can import it, and the version that it has."""
    named = os.environ.get("PYSYNCOBJ_PYTHON")
    places = [Path(named)] if named else sorted(ROOT.glob(".venv*/bin/python"))
    found = ((python, pysyncobj_version(python)) for python in places)
    return next(((python, version) for python, version in found if version), None)


def pysyncobj_side(python: Path) -> Side:
    @contextlib.contextmanager
    def side(directory: Path) -> Iterator[Measure]:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(NODES)]
        with contextlib.ExitStack() as stack:
            replicas = []
            for place in range(NODES):
                words = [pysyncobj_load.__file__, *addresses[place:], *addresses[:place]]
                replica = subprocess.Popen(
                    [python, *words], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                replicas.append(stack.enter_context(replica))
                stack.callback(replica.kill)  # before it is waited for

            def measure(work: Workload) -> Measured:
                outstanding = work.connections * work.in_flight
                answers = ask(replicas, max(outstanding, work.total // PEER_SHARE), outstanding)
                return led(answers)

            yield measure

    return side


def ask(replicas: Sequence[subprocess.Popen[str]], puts: int, outstanding: int) -> list[str]:
    """The line that each has for an answer."""
    for replica in replicas:
        assert replica.stdin is not None, "a replica without standard input"
        replica.stdin.write(f"{puts} {outstanding}\n")
        replica.stdin.flush()
    answers = []
    for replica in replicas:
        assert replica.stdout is not None, "a replica without standard output"
        if not select.select([replica.stdout], [], [], _PATIENCE_SECONDS)[0]:
            raise PySyncObjFailed(f"a replica is silent for {_PATIENCE_SECONDS} s")
        answers.append(replica.stdout.readline())
    return answers


def led(answers: Sequence[str]) -> PySyncObjResult:
    """The figures of the one that leads."""
    try:
        figures = [figure for answer in answers if (figure := json.loads(answer)) is not None]
    except ValueError:
        raise PySyncObjFailed("a replica ended by itself") from None
    if len(figures) != 1:
        raise PySyncObjFailed(f"{len(figures)} of {len(answers)} replicas say that they lead")
    return PySyncObjResult(**figures[0])


def rows_of(results: Mapping[str, Sequence[Measured]], peer: str | None) -> list[Row]:
    """By side; the rate is what is judged."""
    rows = []
    for metric, suffix, unit, target in (
        ("ops_per_second", "", "ops/s", TARGET),
        ("p50_ms", " p50", "ms", None),
        ("p99_ms", " p99", "ms", None),
    ):
        values = {
            side: median(getattr(each, metric) for each in measured) for side, measured in results.items()
        }
        rows.append(
            row(
                f"{WORK.name} beside PySyncObj{suffix}",
                values["assent"],
                unit,
                peer=peer,
                peer_value=values.get("pysyncobj"),
                target=target,
            )
        )
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pysyncobj")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each side; the medians count")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer operations than usual")
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("--output", type=Path, default=LATEST, help="rows as JSON")
    chosen = parser.parse_args(arguments)
    end_orderly()
    sides: dict[str, Side] = {"assent": assent_side}
    found = find_pysyncobj()
    if found is not None:
        sides["pysyncobj"] = pysyncobj_side(found[0])
    else:
        say("PySyncObj was not found, so there is nothing beside Assent: see bench/README.md")
    work = Workload(WORK.kind, WORK.connections, WORK.in_flight, max(100, int(WORK.total * chosen.scale)))
    with data_directory(chosen.directory) as directory:
        facts = machine(directory)
        measured = measure_in_turns(sides, [work], chosen.rounds, directory)
    results = {side: measured[side, work.name] for side in sides}
    rows = rows_of(results, found and found[1])
    write_rows(rows, chosen.output)
    print(f"{facts}\n256-byte values, medians of {chosen.rounds} rounds")
    for each in rows:
        peer = f"{each.peer_value:,.2f}" if each.peer_value is not None else "-"
        ratio = f"{each.ratio:.2f}" if each.ratio is not None else "-"
        print(f"{each.name:32} {each.value:12,.2f} {peer:>12} {each.unit:6} {ratio:>7}  {each.goal}".rstrip())
    errors = sum(each.errors for measured in results.values() for each in measured)
    if errors:
        print(f"{errors} operations failed")
    return 1 if errors else exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
