"""`python -m tests.faults`: the whole fault matrix, with what came of each cell and how often.

Ends with 1 if a promise is broken, or if nothing was run of a cell that has one. `--write` puts the promises
into docs/faults.md, and runs nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.faults import page
from tests.faults.matrix import Effort, idle_cells, merge, promised, run_quietly
from tests.faults.points import POINTS


def main() -> int:
    arguments = parsed()
    if arguments.write:
        page.write(page.tables(promised()))
        return 0
    began = time.monotonic()
    tasks = [
        (point, Effort(arguments.picks, seed)) for seed in range(1, arguments.seeds + 1) for point in POINTS
    ]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(run_quietly, tasks))
    rows = merge(done)
    print(page.tables(rows, counted=True))
    words: Counter[str] = Counter()
    for row in rows.values():
        for cell in row.cells.values():
            words += cell
    for broken in (broken for row in rows.values() for broken in row.broken):
        print(f"BROKEN {broken}")
    idle = idle_cells(done, page.cells())
    for name in idle:
        print(f"NOTHING RUN {name}")
    ran = sum(count for word, count in words.items() if not word.startswith("n/a"))
    print(f"\n{ran} runs in {time.monotonic() - began:.0f} s: {dict(words.most_common())}")
    return int(bool(idle) or any(row.broken for row in rows.values()))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The fault matrix of the disk side.")
    parser.add_argument("--picks", type=int, default=24, help="moments of each point, for each column")
    parser.add_argument("--seeds", type=int, default=1, help="so many times, with another chance each")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--write", action="store_true", help="only put what is promised into the documentation"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
