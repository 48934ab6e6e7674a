"""Two hundred seeds of the simulator: nothing wrong may happen, and all that is right must, after healing.

A seed that fails names the command that replays it with its trace. In groups, which run beside each other.
"""

from __future__ import annotations

import pytest

from tests.simulator.campaign import missing_coverage
from tests.simulator.run import merged, passed

GROUPS = 10
SEEDS_PER_GROUP = 20
SECONDS = 3.0
# What a single group of short runs need not have seen; `make sim` asks for all of it.
RARE = 20


@pytest.mark.parametrize("group", range(GROUPS))
def test_seeds_pass(group: int) -> None:
    first = 1 + group * SEEDS_PER_GROUP
    outcomes = passed(range(first, first + SEEDS_PER_GROUP), SECONDS)
    counts = merged(outcomes)
    counts["runs"] = len(outcomes)
    missing = missing_coverage(counts)
    assert len(missing) <= RARE, f"too little has happened, for example no {', '.join(missing)}"
