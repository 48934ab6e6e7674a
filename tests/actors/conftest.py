"""The worlds that the tests of this folder run in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.actors.world import MemoryWorld, SocketWorld, World


@pytest.fixture(params=[MemoryWorld, SocketWorld], ids=["memory", "sockets"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each test that takes this runs over both transports."""
    made: World = request.param()
    yield made
    made.close()


@pytest.fixture
def sockets() -> Iterator[SocketWorld]:
    made = SocketWorld()
    yield made
    made.close()


@pytest.fixture
def memory() -> MemoryWorld:
    return MemoryWorld()
