"""The command line of a node that writes down how much processor time its turns take.

    python -m tests.cluster.timed_node node --name n1 --data-dir DIR …

`DIR.turns` has a line for each run of an actor that took longer than those before: thousandths of a second,
and the actor. Processor time, not the time that passed: neither the disk nor other processes are in it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from actors.system import System
from kvstore.cli import main

TURNS_SUFFIX = ".turns"


def longest_run(home: Path) -> tuple[float, str]:
    """In milliseconds, and whose."""
    lines = home.with_name(home.name + TURNS_SUFFIX).read_text().splitlines()
    return max((float(spent), actor) for spent, actor in map(str.split, lines))


def write_down_runs(path: Path) -> None:
    run_actor = System._run_actor
    longest = 0.0

    def timed(self: System, cell: Any, now: float, held: bool) -> None:
        nonlocal longest
        before = time.thread_time()
        run_actor(self, cell, now, held)
        spent = time.thread_time() - before
        if spent > longest:
            longest = spent
            with path.open("a") as file:
                file.write(f"{spent * 1000:.1f} {cell.actor.name}\n")

    System._run_actor = timed  # type: ignore[method-assign]


if __name__ == "__main__":
    home = Path(sys.argv[sys.argv.index("--data-dir") + 1])
    write_down_runs(home.with_name(home.name + TURNS_SUFFIX))
    main()
