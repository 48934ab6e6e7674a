"""Watchers whose nodes hold events for a moment, as they do for crowds: what is told stays true."""

from __future__ import annotations

import pytest

from kvstore.watch_plane import WatchPlane
from kvstore.watch_streams import Stream
from tests.simulator.run import first_failure, passed

SEEDS = 6
SECONDS = 3.0


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many revisions each message had."""
    found: list[int] = []
    release = WatchPlane._release

    def counting(plane: WatchPlane, stream: Stream) -> None:
        if stream.held:
            found.append(len(stream.held))
        release(plane, stream)

    monkeypatch.setattr(WatchPlane, "_release", counting)
    return found


def test_watchers_in_a_crowd_are_told_the_truth(held: list[int]) -> None:
    passed(range(1, SEEDS + 1), SECONDS, "crowded")
    assert sum(size > 1 for size in held) > SEEDS, "nothing was held"


def test_what_is_held_and_forgotten_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
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
    found = first_failure(range(1, SEEDS + 1), SECONDS, "crowded")
    assert "is not reliable: nothing of revision" in found, found or "no seed failed"
