"""When entries came into the log: never said to have been earlier than they were."""

from __future__ import annotations

import random

import pytest

from raft import arrivals
from raft.actor_messages import Committed
from raft.arrivals import MOST, Arrivals
from raft.messages import Heartbeat
from tests.raft.test_replication_turns import Node, append


def test_what_is_there_at_the_start_comes_then() -> None:
    known = Arrivals(7, 100.0)
    assert [known.until(1), known.until(7)] == [[(1, 100.0)], [(7, 100.0)]]


def test_entries_are_there_since_the_last_of_their_batch_came() -> None:
    known = Arrivals(0, 0.0)
    known.came(1, 3, 1.0)
    known.came(4, 4, 2.0)
    known.came(5, 9, 3.0)
    known.came(10, 12, 4.0)
    assert known.until(2) == [(0, 0.0), (2, 1.0)]
    assert known.until(7) == [(3, 1.0), (4, 2.0), (7, 3.0)]
    assert known.until(8) == [(8, 3.0)]
    assert known.until(12) == [(9, 3.0), (12, 4.0)]


def test_what_another_leader_wrote_in_place_of_it_came_when_that_did() -> None:
    known = Arrivals(0, 0.0)
    known.came(1, 3, 1.0)
    known.came(4, 9, 2.0)
    known.came(3, 5, 3.0)
    assert known.until(5) == [(0, 0.0), (2, 1.0), (5, 3.0)]


def test_what_was_before_that_is_there_since_it_came() -> None:
    """Though it came together with what was replaced: it would count from then, for ever."""
    known = Arrivals(7, 100.0)
    known.came(7, 9, 200.0)
    assert known.until(8) == [(6, 100.0), (8, 200.0)]


@pytest.mark.parametrize("most", [4, MOST])
@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_nothing_is_said_to_be_earlier(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor later, unless more is waiting to be committed than is remembered."""
    monkeypatch.setattr(arrivals, "MOST", most)
    chance = random.Random(seed)
    known, came_at, committed = Arrivals(0, 0.0), list[float](), 0
    for now in range(1, 500):
        first = chance.randint(committed + 1, len(came_at) + 1)
        count = chance.randint(1, 5)
        came_at[first - 1 :] = [float(now)] * count
        known.came(first, first + count - 1, float(now))
        if chance.random() < 0.3:
            committed = chance.randint(committed + 1, len(came_at))
            for last_index, since in known.until(committed):
                came = max(came_at[:last_index], default=0.0)
                assert came == since if most == MOST else came <= since <= now
            assert last_index == committed
        assert len(known._ends) <= most + 1


def test_the_applier_hears_since_when_an_entry_is_in_the_log_though_it_is_committed_later() -> None:
    node = Node()
    node.world.seconds = 5.0
    node.hear("b", append(1, 1, 1))
    node.world.seconds = 6.0
    node.hear("b", append(1, 1, prev=(2, 1)))
    node.world.seconds = 9.0
    node.hear("b", Heartbeat(1, 3, 1))
    [committed] = node.world.take(Committed)
    assert committed.first_index == 1
    assert [tuple(each) for each in committed.arrivals] == [(0, 0.0), (2, 5.0), (3, 6.0)]
