"""Leases that end too early, or never, are noticed: bugs planted for a moment are caught."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from kvstore.lease_keeper import LeaseKeeper
from kvstore.leases import Leases
from tests.simulator.run import first_failure, merged, passed

SECONDS = 4.0
MOST_SEEDS = 25

Plant = Callable[[pytest.MonkeyPatch], None]


def renewals_that_are_answered_and_do_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "renew", lambda leases, lease, index: leases.ttl_seconds(lease))


def expiry_at_a_moment_that_the_keeper_makes_up(patch: pytest.MonkeyPatch) -> None:
    """Of its own clock, whatever the time of the cluster is."""
    patch.setattr(LeaseKeeper, "_time", lambda keeper, seen, now: int(now * 1000))


def leases_that_nobody_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "ended", lambda leases, time_ms: [])


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        # The lease ends although the model knows of its renewal.
        (renewals_that_are_answered_and_do_not_count, r"answers .* at \d+, expected|was promised until"),
        (expiry_at_a_moment_that_the_keeper_makes_up, "after the last renewal there are leases"),
        (leases_that_nobody_ends, "after the last renewal there are leases"),
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
