"""Leases that end too early, too late, or never, are noticed: bugs planted for a moment are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kvstore.lease_keeper import Count, LeaseKeeper
from kvstore.leases import Leases
from raft.applier_actor import ApplierActor
from raft.housekeeping import Housekeeping
from tests.simulator.run import merged, run_seed
from tests.simulator.swarm import Swarm, plain

SECONDS = 4.0
MOST_SEEDS = 25

Plant = Callable[[pytest.MonkeyPatch], None]


def leasing(swarm: Swarm) -> Swarm:
    return replace(plain(swarm), lessees=4, watchers=0, jumps=False, drift=0.0)


def renewals_that_are_answered_and_do_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "renew", lambda leases, lease, index: leases.ttl_seconds(lease))


def expiry_at_a_moment_that_the_keeper_makes_up(patch: pytest.MonkeyPatch) -> None:
    """Of its own clock, whatever the time of the cluster is."""
    patch.setattr(LeaseKeeper, "_counting", lambda keeper, leases, now: Count(0, 0.0))


def leases_that_nobody_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "ended", lambda leases, time_ms: [])


def leaders_that_do_not_count_the_time_without_one(patch: pytest.MonkeyPatch) -> None:
    def counting(keeper: Any, leases: Leases, now: float) -> Count:
        keeper._count = keeper._count or Count(leases.time_ms, now)
        return keeper._count  # type: ignore[no-any-return]

    patch.setattr(LeaseKeeper, "_counting", counting)


def leaders_that_count_before_they_know_all_that_earlier_ones_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Housekeeping, "_is_up_to_it", lambda keeping: keeping._leads_from is not None)


def ticks_that_count_from_when_they_are_applied(patch: pytest.MonkeyPatch) -> None:
    date = ApplierActor._date
    patch.setattr(ApplierActor, "_date", lambda applier, arrivals=(): date(applier))


def renewals_that_count_from_the_next_tick(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseKeeper, "_note_arrival", lambda keeper, last_index, since: None)


def leaders_that_look_now_and_then(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LeaseKeeper, "due_at", lambda keeper: None)


@pytest.mark.parametrize(
    "plant",
    [
        renewals_that_are_answered_and_do_not_count,
        expiry_at_a_moment_that_the_keeper_makes_up,
        leases_that_nobody_ends,
        leaders_that_do_not_count_the_time_without_one,
        leaders_that_count_before_they_know_all_that_earlier_ones_told,
        ticks_that_count_from_when_they_are_applied,
        renewals_that_count_from_the_next_tick,
        leaders_that_look_now_and_then,
    ],
)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    outcomes = (run_seed(seed, SECONDS, change=leasing) for seed in range(1, MOST_SEEDS + 1))
    failure: Any = next((outcome.failure for outcome in outcomes if outcome.failure), None)
    assert failure is not None


def test_g9_g10_g11_leases_live_as_long_as_was_promised_and_end_afterwards() -> None:
    outcomes = [run_seed(seed, SECONDS, change=leasing) for seed in range(30, 38)]
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []
    counts = merged(outcomes)
    for name in ("lease granted", "lease renewed", "lease revoked", "lease expired", "put with a lease"):
        assert counts[name], name


def test_a_lease_that_ends_in_a_long_turn_ends_at_its_true_moment() -> None:
    """A lone node proposes the expiry, has a slow sync and applies it, all in one turn."""
    assert run_seed(921, 10.0, change=plain).failure is None
