"""Commands take time in these runs: a turn of the applier ends all the same, and an oracle sees it if not."""

from __future__ import annotations

import pytest

from raft.unapplied import Share
from tests.simulator.run import first_failure, merged, passed

SEEDS = range(1, 7)
SECONDS = 4.0


def test_no_turn_is_longer_than_it_may_be_where_commands_take_time() -> None:
    assert merged(passed(SEEDS, SECONDS, "busy"))["applier behind"] > 0


def test_a_turn_without_an_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "is_used_up", lambda share: False)
    assert "s in one turn, and may for" in first_failure(SEEDS, SECONDS, "busy")
