"""A process without a descriptor left for one more socket: a clear error of the call, and no exception out of
whatever the client was doing; once there is room again, all goes on."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from kvstore import errors
from kvstore.client import AsyncClient, Client
from tests.kvstore.fake_server import FakeCluster

WHY = "Too many open files"


class Descriptors:
    """Says when there are none left. Owned by the test."""

    def __init__(self) -> None:
        self.refuses: set[int] = set()  # kinds of sockets
        self.refuses_monitors = False
        self.refused = 0

    def check(self, is_refused: bool) -> None:
        if is_refused:
            self.refused += 1
            raise zmq.ZMQError(errno.EMFILE)


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Descriptors:
    found = Descriptors()
    open_socket, open_monitor = zmq.Context.socket, zmq.Socket.get_monitor_socket

    def socket(context: Any, kind: int, **options: Any) -> Any:
        found.check(kind in found.refuses)
        return open_socket(context, kind, **options)

    def monitor(opened: Any, *arguments: Any) -> Any:
        found.check(found.refuses_monitors)
        return open_monitor(opened, *arguments)

    monkeypatch.setattr(zmq.Context, "socket", socket)
    monkeypatch.setattr(zmq.Socket, "get_monitor_socket", monitor)
    return found


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as cluster:
        yield cluster


@pytest.mark.parametrize("is_monitor", [False, True])
def test_a_call_without_a_socket_says_why_and_the_next_one_succeeds(
    cluster: FakeCluster, descriptors: Descriptors, is_monitor: bool
) -> None:
    with Client(cluster.endpoints, timeout_seconds=0.3) as client:
        descriptors.refuses, descriptors.refuses_monitors = set() if is_monitor else {zmq.DEALER}, is_monitor
        with pytest.raises(errors.Unreachable, match=WHY) as caught:
            client.put("/a", "1")
        assert WHY in caught.value.reason
        with pytest.raises(errors.Unreachable, match=WHY):
            client.status(cluster.endpoints[1])
        assert 2 < descriptors.refused < 300, "it is tried again, and not in a loop"
        descriptors.refuses, descriptors.refuses_monitors = set(), False
        client.put("/a", "1", timeout_seconds=5.0)


def test_a_watch_without_a_socket_says_why_and_leaves_its_client_whole(
    cluster: FakeCluster, descriptors: Descriptors
) -> None:
    with Client(cluster.endpoints, timeout_seconds=5.0) as client:
        client.put("/a", "1")
        descriptors.refuses = {zmq.SUB}
        with pytest.raises(errors.Unreachable, match=WHY):
            client.watch("/", prefix=True, timeout_seconds=0.3)
        revision = client.put("/a", "2").revision
        descriptors.refuses = set()
        with client.watch("/", prefix=True, start_revision=revision) as watch:
            batch = watch.next(5.0)
            assert batch is not None and batch.revision == revision


def test_an_established_watch_waits_for_a_socket_and_misses_nothing(
    cluster: FakeCluster, descriptors: Descriptors
) -> None:
    with Client(cluster.endpoints, timeout_seconds=5.0) as client:
        client.put("/a", "1")
        with client.watch("/", prefix=True) as watch:
            descriptors.refuses = {zmq.SUB}
            cluster.kill("n1")
            cluster.lead("n2")
            missed = client.put("/a", "2").revision
            assert watch.next(0.5) is None
            descriptors.refuses = set()
            batch = watch.next(5.0)
            assert batch is not None and batch.revision == missed


def test_the_asyncio_client_says_so_too(cluster: FakeCluster, descriptors: Descriptors) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.endpoints, timeout_seconds=5.0) as client:
            descriptors.refuses = {zmq.DEALER}
            with pytest.raises(errors.Unreachable, match=WHY):
                await client.put("/a", "1", timeout_seconds=0.3)
            descriptors.refuses = {zmq.SUB}
            await client.put("/a", "1")
            with pytest.raises(errors.Unreachable, match=WHY):
                await client.watch("/", prefix=True, timeout_seconds=0.3)
            descriptors.refuses = set()
            watch = await client.watch("/", prefix=True)
            revision = (await client.put("/a", "2")).revision
            assert (await asyncio.wait_for(anext(watch), 5.0)).revision == revision

    asyncio.run(main())
