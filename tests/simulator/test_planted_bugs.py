"""The oracles can fail: classic bugs, put into the production code for a moment, are caught by a few seeds.

A handful, one for each kind of oracle; `make mutants` has many more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kvstore.sessions import EXPIRED, Session, Sessions
from raft.applier_actor import ApplierActor
from raft.core import Core
from raft.entries import EntryBatch
from raft.follower import Follower
from raft.leader import Leader
from raft.progress import Progress
from raft.wal import WriteAheadLog
from tests.simulator.run import run_seed
from tests.simulator.swarm import Swarm, plain

MOST_SEEDS = 60
SECONDS = 6.0

Plant = Callable[[pytest.MonkeyPatch], None]


def sync_that_writes_and_does_not_sync(patch: pytest.MonkeyPatch) -> None:
    def flush(log: Any) -> None:
        if log._pending:
            log._disk.write(log._path, log._descriptor, b"".join(log._pending), log._writer.durable)
            log._pending.clear()
            log._writer.durable = log._writer.end

    patch.setattr(WriteAheadLog, "_flush", flush)


def vote_that_is_not_worth_a_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_is_vote_changed", lambda core: core.term != core._saved.term)


def answers_that_do_not_wait_for_the_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "send_after_sync", Core.send)


def appends_that_truncate_what_matches(patch: pytest.MonkeyPatch) -> None:
    def take(follower: Any, batch: EntryBatch) -> None:
        core = follower._core
        if batch.entries and batch.first_index <= core.log.last_index:
            core.truncate_from(batch.first_index)
        core.log.extend(batch)

    patch.setattr(Follower, "_take", take)


def match_that_goes_back_with_a_late_answer(patch: pytest.MonkeyPatch) -> None:
    acknowledge = Progress.acknowledge

    def late(progress: Progress, match_index: int) -> bool:
        if match_index < progress.match_index:
            progress.match_index = match_index
        return acknowledge(progress, match_index)

    patch.setattr(Progress, "acknowledge", late)


def reads_without_a_round(patch: pytest.MonkeyPatch) -> None:
    def read_index(leader: Any, context: int) -> None:
        leader._core.grant_reads([context], leader._core.commit_index)

    patch.setattr(Leader, "read_index", read_index)


def followers_that_answer_before_they_have_applied(patch: pytest.MonkeyPatch) -> None:
    def answer(applier: Any) -> None:
        while applier._waiting_reads:
            applier._answer_now(applier._waiting_reads.popleft())

    patch.setattr(ApplierActor, "_answer_waiting", answer)


def sessions_that_remember_nothing(patch: pytest.MonkeyPatch) -> None:
    def admit(sessions: Any, session_id: int, sequence: int, acknowledged_below: int) -> Session | bytes:
        session: Session | None = sessions._sessions.get(session_id)
        return EXPIRED if session is None else session

    patch.setattr(Sessions, "admit", admit)


def restless(swarm: Swarm) -> Swarm:
    """Much of what makes reads stale: partitions, lagging followers, and clients who ask everybody."""
    return replace(
        plain(swarm),
        size=max(3, swarm.size),
        partitions=True,
        tiny_windows=True,
        clients=6,
        keys=1,
        think_seconds=0.05,
        calm=4.0,
        changes=False,
    )


@pytest.mark.parametrize(
    "plant",
    [
        sync_that_writes_and_does_not_sync,
        vote_that_is_not_worth_a_write,
        answers_that_do_not_wait_for_the_sync,
        appends_that_truncate_what_matches,
        match_that_goes_back_with_a_late_answer,
        reads_without_a_round,
        followers_that_answer_before_they_have_applied,
        sessions_that_remember_nothing,
    ],
)
def test_a_planted_bug_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(run_seed(seed, SECONDS, change=restless).failure for seed in range(1, MOST_SEEDS + 1))
