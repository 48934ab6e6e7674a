"""The oracles can fail: classic bugs, put into the production code for a moment, are caught by a few seeds.

A handful, one for each kind of oracle; `make mutants` has many more. The words are those of the oracle that
sees what is wrong: a run that fails for another reason has caught nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kvstore.sessions import EXPIRED, Session, Sessions
from raft.applier_actor import ApplierActor
from raft.configuration_history import Logged
from raft.core import Core
from raft.entries import EntryBatch
from raft.follower import Follower
from raft.leader import Leader
from raft.progress import Progress
from raft.wal import WriteAheadLog
from tests.simulator.run import first_failure

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
    def take(follower: Any, batch: EntryBatch, configurations: list[Logged]) -> None:
        core = follower._core
        if batch.entries:
            if batch.first_index <= core.log.last_index:
                core.truncate_from(batch.first_index)
            core.log.extend(batch)
            core.adopt(configurations)

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


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (sync_that_writes_and_does_not_sync, "says that it has synced; .* is not on the disk"),
        (vote_that_is_not_worth_a_write, "grants .*; on its disk is HardState"),
        (answers_that_do_not_wait_for_the_sync, r"acknowledges \d+; on its disk is \d+"),
        (appends_that_truncate_what_matches, r"acknowledges \d+; on its disk is \d+"),
        (match_that_goes_back_with_a_late_answer, "goes back from match"),
        (reads_without_a_round, "had been told to somebody before it began"),
        (followers_that_answer_before_they_have_applied, "had been told to somebody before it began"),
        (sessions_that_remember_nothing, r"answers .* at \d+, expected"),
    ],
)
def test_a_planted_bug_is_caught(plant: Plant, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = first_failure(range(1, MOST_SEEDS + 1), SECONDS, "restless")
    assert re.search(words, found), found or "no seed failed"
