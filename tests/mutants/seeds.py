"""How many seeds the simulator needs to notice: `python -m tests.mutants.seeds 50 10` in a mutated tree.

Ends at the first seed that fails, and says which and why.
"""

from __future__ import annotations

import sys

from tests.simulator.run import first_failure

if __name__ == "__main__":
    print(first_failure(range(1, int(sys.argv[1]) + 1), float(sys.argv[2])))
