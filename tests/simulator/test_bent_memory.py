"""One node's memory goes bad: it is found out and fenced, and from then on it answers nothing.

What it answers before that is withheld from its clients here: that much is the bound of what can be promised.
The other direction is in every seed of the simulator: nobody is fenced whose memory did not go bad.
"""

from __future__ import annotations

import pytest

from tests.simulator.run import merged, passed

GROUPS = 4
SEEDS_PER_GROUP = 4
SECONDS = 4.0


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_node_whose_memory_goes_bad_is_fenced_and_no_other(group: int) -> None:
    first = 1 + group * SEEDS_PER_GROUP
    outcomes = passed(range(first, first + SEEDS_PER_GROUP), SECONDS, "bent")
    counts = merged(outcomes)
    assert counts["bent"] == counts["fenced"] > len(outcomes) // 2  # not all have a key in time
