"""All that a store can do, in one run: and what is wrong with any of it is noticed."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

import pytest

from kvstore import hierarchy, protocol
from kvstore.client.results import WatchBatch
from kvstore.client.trees import TreeWatch
from kvstore.client.watch import Watch
from kvstore.quota import Quota
from kvstore.sessions import Sessions
from kvstore.store import Store
from kvstore.transactions import Writing
from tests.simulator.campaign import EXPECTED
from tests.simulator.run import Simulation, first_failure, merged, passed
from tests.simulator.tracing import Violation

SEEDS = 4
SECONDS = 5.0
MOST_SEEDS = 12
# What the model of the store says of a command whose result is not its own.
RESULT = r"answers .* at \d+, expected"

Plant = Callable[[pytest.MonkeyPatch], None]


def test_all_together_goes_well() -> None:
    counts = merged(passed(range(1, SEEDS + 1), SECONDS, "together"))
    done = [name for name in EXPECTED if name.startswith("done ")]
    rest = [
        "swapped",
        "swap refused",
        "quota exceeded",
        "session expired",
        "watch of a tree",
        "lease expired",
    ]
    assert [name for name in [*done, *rest] if not counts[name]] == []
    assert counts["runs of all together"] == SEEDS


def compares_that_always_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "_holds", lambda writing, compare: True)


def transactions_that_forget_their_last_put(patch: pytest.MonkeyPatch) -> None:
    change = Store.change_together

    def forgetful(store: Store, puts: Any, ranges: Any) -> None:
        change(store, list(puts)[:1], ranges)

    patch.setattr(Store, "change_together", forgetful)


def half_of_a_revision(patch: pytest.MonkeyPatch) -> None:
    """What one transaction did to the last of its keys is not told."""

    def half(watch: Watch, batch: WatchBatch) -> WatchBatch:
        revision, events = wanted(watch, batch)
        return WatchBatch(revision, events[:1] if len(events) == 2 else events)

    wanted = Watch.wanted
    patch.setattr(Watch, "wanted", half)


def range_deletes_that_spare_the_last_key(patch: pytest.MonkeyPatch) -> None:
    delete = Store.delete

    def sparing(store: Store, key: bytes, range_end: bytes) -> Any:
        found = store.range(key, range_end).records
        return delete(store, key, found[-1][0] if len(found) > 1 else range_end)

    patch.setattr(Store, "delete", sparing)


def compacted_revisions_that_are_answered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Store, "oldest_revision", 0)


def a_quota_that_nothing_exceeds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quota, "judge", lambda quota, size_bytes: False)


def the_newest_session_makes_room(patch: pytest.MonkeyPatch) -> None:
    def evict(sessions: Sessions) -> None:
        sessions.close(next(reversed(sessions._sessions)))

    patch.setattr(Sessions, "_evict", evict)


def neighbours_of_a_tree(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TreeWatch, "wanted", Watch.wanted)


def children_that_are_all_parents(patch: pytest.MonkeyPatch) -> None:
    def there_is(*arguments: Any) -> Generator[None, None, bool]:
        yield from ()
        return True

    patch.setattr(hierarchy, "_is_any_below", there_is)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (compares_that_always_hold, RESULT),
        (transactions_that_forget_their_last_put, RESULT),
        (half_of_a_revision, "lacks"),
        (range_deletes_that_spare_the_last_key, RESULT),
        (compacted_revisions_that_are_answered, "oldest revision|what there was at its revision"),
        (a_quota_that_nothing_exceeds, "quota"),
        (the_newest_session_makes_room, RESULT),
        (neighbours_of_a_tree, "is not in the range"),
        (children_that_are_all_parents, "children of its revision"),
    ],
)
def test_a_planted_bug_is_noticed(plant: Plant, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = first_failure(range(1, MOST_SEEDS + 1), SECONDS, "calm")
    assert re.search(words, found), found or "no seed failed"


def test_a_session_that_is_gone_says_nothing_of_an_earlier_attempt() -> None:
    """A write was done, its session made room for another, the write was repeated: of the two answers the
    second may come first. Two results of one write are noticed all the same."""
    client = Simulation(1, SECONDS, shape="together").workload.clients[0]
    gone: list[Any] = [protocol.SESSION_EXPIRED, "gone"]
    done: list[Any] = [protocol.OK, 2, None]
    client._session = 5
    for answers in ([gone, done], [done, gone, done]):
        command = client._put(b"/k")
        client.pending = [command]
        for answer in answers:
            client._answered(command, answer)
    with pytest.raises(Violation, match="then"):
        client._answered(command, [protocol.OK, 4, None])
