"""Leases that end too early, too late, or never, are noticed: bugs planted for a moment are caught."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.lease_keeper import Count, LeaseKeeper
from kvstore.leases import Leases
from raft.applier_actor import ApplierActor
from raft.housekeeping import Housekeeping
from tests.simulator.run import first_failure, merged, passed

SECONDS = 4.0
MOST_SEEDS = 25

Plant = Callable[[pytest.MonkeyPatch], None]


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
    ("plant", "words"),
    [
        # The lease ends although the model knows of its renewal.
        (renewals_that_are_answered_and_do_not_count, r"answers .* at \d+, expected|was promised until"),
        (expiry_at_a_moment_that_the_keeper_makes_up, "was promised until"),
        (leases_that_nobody_ends, "after the last renewal there are leases"),
        (leaders_that_do_not_count_the_time_without_one, r"the time at \d+: leases end \d+ ms late"),
        (
            leaders_that_count_before_they_know_all_that_earlier_ones_told,
            r"the tick \d+ says \d+ ms after \d+ ms",
        ),
        (
            ticks_that_count_from_when_they_are_applied,
            r"the renewal of lease \d+ at \d+: leases end \d+ ms late",
        ),
        (renewals_that_count_from_the_next_tick, r"the renewal of lease \d+ at \d+: leases end \d+ ms late"),
        (leaders_that_look_now_and_then, r"ends lease \d+ at \d+ ms, not at \d+ ms"),
    ],
)
def test_a_planted_bug_is_noticed(plant: Plant, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = first_failure(range(1, MOST_SEEDS + 1), SECONDS, "leasing")
    assert re.search(words, found), found or "no seed failed"


def test_g9_g10_g11_leases_live_as_long_as_was_promised_and_end_afterwards() -> None:
    counts = merged(passed(range(30, 38), SECONDS, "leasing"))
    for name in ("lease granted", "lease renewed", "lease revoked", "lease expired", "put with a lease"):
        assert counts[name], name


def test_a_lease_that_ends_in_a_long_turn_ends_at_its_true_moment() -> None:
    """A lone node proposes the expiry, has a slow sync and applies it, all in one turn."""
    passed([921], 10.0, "plain")
