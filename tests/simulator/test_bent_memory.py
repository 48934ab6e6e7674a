"""One node's memory goes bad: it is found out and fenced, and from then on it answers nothing.

What it answers before that is withheld from its clients here: that much is the bound of what can be promised.
The other direction is in every seed of the simulator: nobody is fenced whose memory did not go bad.
"""

from __future__ import annotations

import pytest

from tests.simulator.run import merged, run_seed
from tests.simulator.swarm import bent

GROUPS = 4
SEEDS_PER_GROUP = 4
SECONDS = 4.0


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_node_whose_memory_goes_bad_is_fenced_and_no_other(group: int) -> None:
    first = 1 + group * SEEDS_PER_GROUP
    outcomes = [run_seed(seed, SECONDS, change=bent) for seed in range(first, first + SEEDS_PER_GROUP)]
    failed = [
        f"{outcome.failure}\n  replay: {outcome.command} --bent" for outcome in outcomes if outcome.failure
    ]
    assert not failed, "\n".join(failed)
    counts = merged(outcomes)
    assert counts["bent"] == counts["fenced"] > len(outcomes) // 2  # not all have a key in time
