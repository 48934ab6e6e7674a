"""The same keys written over and over: disk and memory of the nodes must come to rest.

`python -m bench.overwrite --puts 5000000`. Three nodes; sizes are looked at fifty times on the way. Disk use
goes up and down with each snapshot and each segment, so what counts is the largest of the last looks before
one tenth of the puts, and before the end. Exit code 1 if any node's end is more than 1.5 times its tenth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.filling import disk_bytes, puts, resident_bytes
from bench.harness import Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.machine import machine
from bench.processes import ProcessCluster

PUTS = 5_000_000
KEYS = 10_000
VALUE_BYTES = 100
GROWTH_LIMIT = 1.5
LOOKS = 50
# So many looks count for one figure: with the defaults two snapshots of each node lie between them.
WINDOW = 3


@dataclass(slots=True)
class Look:
    """At all nodes, in the order of their names."""

    disk: list[int]
    memory: list[int]

    def __str__(self) -> str:
        return f"disk {_mib(self.disk)}, memory {_mib(self.memory)}"


def look(cluster: ProcessCluster) -> Look:
    return Look([disk_bytes(cluster.data_directory(name)) for name in cluster.names], resident_bytes(cluster))


def largest(looks: Sequence[Look]) -> Look:
    """Of each figure of each node, over some looks."""
    return Look(
        [max(sizes) for sizes in zip(*(each.disk for each in looks))],
        [max(sizes) for sizes in zip(*(each.memory for each in looks))],
    )


def figures(looks: Sequence[Look], window: int = WINDOW) -> tuple[Look, Look]:
    """At one tenth of all looks, and at the end."""
    tenth = max(1, len(looks) // 10)
    return largest(looks[max(0, tenth - window) : tenth]), largest(looks[-window:])


def rows_of(tenth: Look, end: Look) -> list[Row]:
    """Sizes at the end, of the largest node, and growth since the tenth, of the node that grew most."""
    rows = []
    for name, before, after in (("disk", tenth.disk, end.disk), ("memory", tenth.memory, end.memory)):
        growth = max(late / early for early, late in zip(before, after))
        rows += [
            row(f"overwrite {name}", max(after) / 2**20, "MiB"),
            row(f"overwrite {name} growth", growth, "times", limit=GROWTH_LIMIT),
        ]
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overwrite")
    parser.add_argument("--puts", type=int, default=PUTS)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--value-size", type=int, default=VALUE_BYTES)
    parser.add_argument(
        "--directory", type=Path, help="where the nodes' data go while it runs (default: temporary)"
    )
    parser.add_argument("arguments", nargs="*", help="for the nodes, after --")
    chosen = parser.parse_args(arguments)
    end_orderly()
    looks: list[Look] = []
    with (
        data_directory(chosen.directory) as directory,
        ProcessCluster(directory / "nodes", arguments=chosen.arguments) as cluster,
    ):
        facts = machine(directory)
        for number in range(LOOKS):
            load = puts(
                cluster.endpoints,
                total=max(1, chosen.puts // LOOKS),
                keys=chosen.keys,
                value_bytes=chosen.value_size,
                seed=number,
            )
            looks.append(look(cluster))
            say(f"{100 * (number + 1) // LOOKS:3} %  {looks[-1]}  {load.ops_per_second:,.0f} puts/s")
    tenth, end = figures(looks)
    rows = rows_of(tenth, end)
    write_rows(rows)
    print(
        f"{facts}\n{chosen.puts:,} puts over {chosen.keys:,} keys of {chosen.value_size} bytes\n"
        f"at one tenth: {tenth}\nat the end:   {end}"
    )
    for each in rows:
        print(f"{each.name:32} {each.value:10.2f} {each.unit:6} {each.goal}")
    return exit_code(rows)


def _mib(sizes: Sequence[int]) -> str:
    return " ".join(f"{size / 2**20:.1f}" for size in sizes) + " MiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
