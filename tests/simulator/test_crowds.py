"""Watchers whose nodes hold events for a moment, as they do for crowds: what is told stays true."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvstore import watch_streams
from kvstore.watch_plane import WatchPlane
from kvstore.watch_streams import MOST_PAUSE_SECONDS, Stream
from tests.simulator.run import run_seed
from tests.simulator.swarm import Swarm, plain

SEEDS = 6
SECONDS = 3.0


def attentive(swarm: Swarm) -> Swarm:
    return replace(plain(swarm), watchers=8, clients=4, think_seconds=0.02, impatient=0.0)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each stream has a crowd from its first subscriber on. How many revisions each message had."""
    monkeypatch.setattr(watch_streams, "PAUSE_SECONDS_PER_SUBSCRIBER", MOST_PAUSE_SECONDS)
    found: list[int] = []
    release = WatchPlane._release

    def counting(plane: WatchPlane, stream: Stream) -> None:
        if stream.held:
            found.append(len(stream.held))
        release(plane, stream)

    monkeypatch.setattr(WatchPlane, "_release", counting)
    return found


def test_watchers_in_a_crowd_are_told_the_truth(held: list[int]) -> None:
    failures = [run_seed(seed, SECONDS, change=attentive).failure for seed in range(1, SEEDS + 1)]
    assert not any(failures), failures
    assert sum(size > 1 for size in held) > SEEDS, "nothing was held"


def test_what_is_held_and_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch, held: list[int]) -> None:
    """A planted bug: the sequence goes on without it, and the heartbeats promise that it was sent."""
    release = WatchPlane._release

    def forgetful(plane: WatchPlane, stream: Stream) -> None:
        if len(stream.held) > 1:
            plane._held_bytes -= len(stream.held[0])
            stream.held_bytes -= len(stream.held[0])
            stream.held_events -= 1
            del stream.held[0]
        release(plane, stream)

    monkeypatch.setattr(WatchPlane, "_release", forgetful)
    assert any(run_seed(seed, SECONDS, change=attentive).failure for seed in range(1, SEEDS + 1))
