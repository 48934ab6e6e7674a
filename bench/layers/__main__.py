"""What each layer of a put costs by itself, in microseconds an operation: the one that got slower has a name.

`python -m bench.layers`. One process, one thread, no cluster; the classes are those of a node. Each figure
is of one put or entry, also where many go together; of `mailbox` it is one message, or one turn. A layer has
a lap to warm up and then `--repeat` laps: the median says how it is, the least what it takes when nothing
else is running. All of it is processor time, but for the syncs of `log`, which are the disk's.

The layers do not add up to a put: in a cluster three nodes append and apply it, a frame goes through sockets,
and how many puts go together is a matter of the load.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.harness import LATEST, Row, data_directory, end_orderly, exit_code, row, say, write_rows
from bench.layers import applying, codec, core, edge, log, mailbox
from bench.layers.timing import Cost, Layer, cost
from bench.machine import machine

LAYERS: list[Layer] = [
    layer for module in (codec, edge, mailbox, core, log, applying) for layer in module.LAYERS
]


def rows_of(costs: Sequence[Cost]) -> list[Row]:
    """Two for each layer."""
    return [
        each
        for found in costs
        for each in (
            row(f"layer {found.name}", found.median, "µs"),
            row(f"layer {found.name}, least", found.least, "µs"),
        )
    ]


def table(costs: Sequence[Cost]) -> str:
    lines = [f"{'layer':44}{'median':>10}{'least':>10}  µs"]
    lines += [f"{each.name:44}{each.median:>10.2f}{each.least:>10.2f}" for each in costs]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.layers", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--only", default="", help="layers whose name begins so, such as log or 'codec req'")
    parser.add_argument("--repeat", type=int, default=7, help="laps of each layer (default 7)")
    parser.add_argument("--scale", type=float, default=1.0, help="more or fewer operations than usual")
    parser.add_argument("--directory", type=Path, help="where the log is written (default: temporary)")
    parser.add_argument(
        "--output", type=Path, default=LATEST, help="rows as JSON (default bench/results/latest.json)"
    )
    chosen = parser.parse_args(arguments)
    end_orderly()
    layers = [layer for layer in LAYERS if layer.name.startswith(chosen.only)]
    if not layers or chosen.repeat < 1:
        parser.error("nothing to measure")
    costs = []
    with data_directory(chosen.directory) as directory:
        facts = machine(directory)
        for number, layer in enumerate(layers):
            found = cost(layer, directory / str(number), repeat=chosen.repeat, scale=chosen.scale)
            say(f"{found.name}: {' '.join(f'{each:.2f}' for each in found.microseconds)} µs")
            costs.append(found)
    rows = rows_of(costs)
    write_rows(rows, chosen.output)
    print(f"{facts}\n{table(costs)}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
