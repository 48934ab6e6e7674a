"""A node that runs on an old copy of its disk is found out by the leader that had its acknowledgements."""

from __future__ import annotations

from typing import Any

import pytest

from raft.core import Core
from tests.simulator.run import first_failure, merged, passed

GROUPS = 3
SEEDS_PER_GROUP = 4
SECONDS = 5.0


@pytest.mark.parametrize("group", range(GROUPS))
def test_f13_a_node_on_an_old_copy_fences_itself_while_the_same_leader_leads(group: int) -> None:
    first = 1 + group * SEEDS_PER_GROUP
    outcomes = passed(range(first, first + SEEDS_PER_GROUP), SECONDS, "forgetful")
    counts = merged(outcomes)
    assert counts["old copy"] == counts["fenced"] >= SEEDS_PER_GROUP // 2


def test_a_node_that_goes_on_as_if_nothing_were_forgotten_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def believe(core: Any, forgotten: object = None) -> None:
        """It is not withdrawn, and takes again what it is sent."""

    monkeypatch.setattr(Core, "withdraw", believe)
    found = first_failure(range(1, 5), SECONDS, "forgetful")
    assert "the nodes are not alike" in found, found or "no seed failed"
