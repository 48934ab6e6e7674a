"""Spectators notice when the watch plane or the client's watches lie: planted bugs are caught."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.client.watch import Watch, Watches
from kvstore.history import History, HistoryPage
from kvstore.watch_plane import WatchPlane
from raft.applier_actor import ApplierActor
from tests.simulator.run import first_failure, passed

SECONDS = 3.0
MOST_SEEDS = 90

Plant = Callable[[pytest.MonkeyPatch], None]


def gaps_that_are_passed_over(patch: pytest.MonkeyPatch) -> None:
    advance = Watches._advance

    def careless(watches: Watches, watch: Watch, header: Any, batch: Any, now: float) -> None:
        if header.epoch == watch.epoch and header.sequence > watch.sequence:
            watch.sequence = header.sequence - (1 if batch.events else 0)
        advance(watches, watch, header, batch, now)

    patch.setattr(Watches, "_advance", careless)


def a_history_that_begins_one_too_late(patch: pytest.MonkeyPatch) -> None:
    read = History.read

    def late(history: History, key: bytes, end: bytes, start: int, *rest: Any) -> HistoryPage | None:
        return read(history, key, end, start + 1, *rest)

    patch.setattr(History, "read", late)


def a_history_without_an_end(patch: pytest.MonkeyPatch) -> None:
    """What is compacted is not said to be."""

    def read(history: History, *arguments: Any) -> HistoryPage | None:
        history.oldest_start, before = 0, history.oldest_start
        try:
            return honest(history, *arguments)
        finally:
            history.oldest_start = before

    honest = History.read
    patch.setattr(History, "read", read)


def a_node_that_keeps_its_watchers_when_it_is_removed(patch: pytest.MonkeyPatch) -> None:
    """Neither because it is told so, nor because no leader is heard any more."""
    patch.setattr(WatchPlane, "_is_left_alone", lambda plane, now_seconds: False)
    follow = ApplierActor._follow_members

    def keeping(applier: Any, message: Any) -> None:
        message.is_removed = False
        follow(applier, message)

    patch.setattr(ApplierActor, "_follow_members", keeping)


def consumers_that_are_believed_to_have_taken_what_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watch, "revision", property(lambda watch: max(watch.next_revision, 1) - 1))


def full_watches_that_never_go_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Watches, "_resume", lambda watches, watch, now: None)


MISSED = r"is not reliable: nothing of revision \d+"
PROMISED = r"is not bookmarkable: all up to \d+ was promised"
LEFT = "some watch has not heard of all"

PLANTS = [
    (gaps_that_are_passed_over, "attentive", MISSED),
    (a_history_that_begins_one_too_late, "attentive", MISSED),
    (a_history_without_an_end, "attentive", PROMISED),
    (a_node_that_keeps_its_watchers_when_it_is_removed, "coming-and-going", LEFT),
    (consumers_that_are_believed_to_have_taken_what_waits, "attentive", PROMISED),
    (full_watches_that_never_go_on, "attentive", LEFT),
]


@pytest.mark.parametrize(("plant", "shape", "words"), PLANTS)
def test_a_planted_bug_is_noticed_by_a_spectator(
    plant: Plant, shape: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    found = first_failure(range(1, MOST_SEEDS + 1), SECONDS, shape)
    assert re.search(words, found), found or "no seed failed"


def test_a_watch_meets_everything_that_can_befall_it() -> None:
    outcomes = passed(range(44, 48), SECONDS, "attentive")
    for name in ("watch gaps", "watch moves", "watch resumed", "watch overflows", "watch compacted"):
        assert any(outcome.counts[name] for outcome in outcomes), name


def test_nobody_is_blamed_where_members_come_and_go() -> None:
    """In the very runs in which a node that keeps its watchers is noticed."""
    outcomes = passed(range(1, 5), SECONDS, "coming-and-going")
    assert all(outcome.counts["watch batches"] for outcome in outcomes)
