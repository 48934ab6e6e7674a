"""Commands take time in these runs: a turn of the applier ends all the same, and an oracle sees it if not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raft.unapplied import Share
from tests.simulator.run import merged, run_seed
from tests.simulator.swarm import Swarm, plain

SEEDS = range(1, 7)
SECONDS = 4.0


def busy(swarm: Swarm) -> Swarm:
    """Three milliseconds for each command, and nodes that were away and have much to apply at once."""
    return replace(
        plain(swarm),
        size=3,
        clients=6,
        think_seconds=0.05,
        kills=True,
        tiny_windows=False,
        snapshot_interval=0,
        calm=4.0,
        busy_apply=0.003,
    )


def test_no_turn_is_longer_than_it_may_be_where_commands_take_time() -> None:
    outcomes = [run_seed(seed, SECONDS, change=busy) for seed in SEEDS]
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []
    assert merged(outcomes)["applier behind"] > 0


def test_a_turn_without_an_end_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "is_used_up", lambda share: False)
    failures = (run_seed(seed, SECONDS, change=busy).failure for seed in SEEDS)
    assert any(failure is not None and "s in one turn, and may for" in failure for failure in failures)
