"""How many seeds the simulator needs to notice: `python -m tests.mutants.seeds 50 10` in a mutated tree.

Ends at the first seed that fails, and says which and why.
"""

from __future__ import annotations

import sys

from tests.simulator.run import run_seed


def first_failure(count: int, seconds: float) -> str:
    """Empty if there is none."""
    for seed in range(1, count + 1):
        outcome = run_seed(seed, seconds)
        if outcome.failure is not None:
            return f"seed {seed}: {outcome.failure}"
    return ""


if __name__ == "__main__":
    print(first_failure(int(sys.argv[1]), float(sys.argv[2])))
