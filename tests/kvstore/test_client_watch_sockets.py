"""Watches of both clients over real sockets, while nodes die and messages are lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import zmq

from kvstore import errors
from kvstore.client import AsyncClient, BlockingWatch, Client
from kvstore.protocol import MAX_PUBLISHED_BYTES
from tests.kvstore.fake_server import FakeCluster, wait_for


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as cluster:
        yield cluster


def revisions(watch: BlockingWatch, count: int) -> list[int]:
    found: list[int] = []
    for _ in range(count):
        batch = watch.next(5.0)
        assert batch is not None, f"only {found}"
        found.append(batch.revision)
    return found


def test_from_the_past_and_on(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        for number in range(10):
            client.put(f"/{number}", "v")
        with client.watch("/", prefix=True, start_revision=5) as watch:
            client.put("/more", "v")
            assert revisions(watch, 8) == list(range(5, 13))
            assert watch.revision == 12
            assert watch.next(0.01) is None
        assert list(watch) == []


def test_lost_messages_are_made_good(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        watch = client.watch("/", prefix=True)
        for number in range(50):
            if number % 10 == 5:
                cluster.nodes["n1"].stream_messages_to_lose = 3
            client.put(f"/{number}", "v")
        assert revisions(watch, 50) == list(range(2, 52))
        assert client.counters["watch_gaps"] >= 5


def test_the_watched_node_dies_in_the_middle(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client, Client(cluster.endpoints) as watcher:
        watch = watcher.watch("/", prefix=True)
        with ThreadPoolExecutor(1) as threads:
            seen = threads.submit(revisions, watch, 60)
            for number in range(60):
                if number == 30:
                    cluster.kill("n1")
                    cluster.lead("n2")
                client.put(f"/{number}", "v")
            assert seen.result(5.0) == list(range(2, 62))
        assert watcher.counters["watch_moves"] >= 1


def test_streams_of_a_new_epoch(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        watch = client.watch("/", prefix=True)
        client.put("/1", "v")
        cluster.nodes["n1"].stream_messages_to_lose = 1
        client.put("/2", "v")
        cluster.do(cluster.nodes["n1"].renew_streams)
        client.put("/3", "v")
        assert revisions(watch, 3) == [2, 3, 4]
        assert client.counters["watch_new_epochs"] + client.counters["watch_gaps"] >= 1


def test_a_compacted_start_is_an_error_of_the_call() -> None:
    with FakeCluster(1) as cluster, Client(cluster.endpoints) as client:
        for number in range(20):
            client.put(f"/{number}", "v")
        cluster.do(lambda: cluster.nodes["n1"].machine._store.compact(17))
        with pytest.raises(errors.Compacted) as caught:
            client.watch("/", prefix=True, start_revision=3)
        assert caught.value.compact_revision == 17
        assert revisions(client.watch("/", prefix=True, start_revision=17), 5) == list(range(17, 22))


def test_a_range_that_ends_before_it_begins_cannot_be_watched(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        with pytest.raises(errors.EmptyKey):
            client.watch("")
        with pytest.raises(ValueError, match="start_revision"):
            client.watch("/", start_revision=-1)


def test_another_thread_cancels_a_watch(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        watch = client.watch("/", prefix=True)
        threading.Timer(0.05, watch.cancel).start()
        begun = time.monotonic()
        assert list(watch) == []
        assert time.monotonic() - begun < 1.0


def test_many_threads_watch_and_write_by_one_client(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client, ThreadPoolExecutor(8) as threads:
        watches = [client.watch("/", prefix=True) for _ in range(4)]
        seen = [threads.submit(revisions, watch, 80) for watch in watches]

        def write(number: int) -> None:
            for turn in range(20):
                client.put(f"/{number}/{turn}", "v")

        for done in [threads.submit(write, number) for number in range(4)]:
            done.result(5.0)
        assert [done.result(5.0) for done in seen] == [list(range(2, 82))] * 4


def test_progress_tells_how_far_an_idle_watch_is(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        watch = client.watch("/", prefix=True, progress=True)
        client.put("elsewhere", "v")
        wait_for(lambda: (batch := watch.next(1.0)) is not None and batch == (2, []))


def test_the_node_of_an_asyncio_watch_dies_in_the_middle(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(8.0),
            AsyncClient(cluster.endpoints) as client,
            client.watch("/", prefix=True) as watch,
            client.watch("/1") as other,
        ):
            seen = []
            await asyncio.gather(*(client.put(f"/{number}", "v") for number in range(100)))
            cluster.kill("n1")
            cluster.lead("n3")
            await asyncio.gather(*(client.put(f"/{number}", "v") for number in range(100)))
            async for batch in watch:
                seen.append(batch.revision)
                if len(seen) == 200:
                    break
            assert seen == list(range(2, 202))
            assert [(await anext(other)).revision for _ in range(2)] == [3, 103]

    asyncio.run(main())


def test_an_asyncio_watch_that_cannot_begin_says_why() -> None:
    async def main() -> None:
        with FakeCluster(1) as cluster:
            async with AsyncClient(cluster.endpoints) as client:
                for number in range(20):
                    await client.put(f"/{number}", "v")
                cluster.do(lambda: cluster.nodes["n1"].machine._store.compact(17))
                with pytest.raises(errors.Compacted):
                    await client.watch("/", prefix=True, start_revision=3)
                cluster.mute("n1")
                with pytest.raises(errors.DeadlineExceeded):
                    await client.watch("/other", timeout_seconds=0.1)
                cluster.unmute("n1")

    asyncio.run(main())


def test_a_watch_whose_awaiting_is_given_up_leaves_nothing_behind(cluster: FakeCluster) -> None:
    """Nobody has it in hand to cancel it; it would go on, and keep its queue full, as long as its client."""

    async def entered(client: AsyncClient) -> None:
        async with client.watch("/", prefix=True):
            raise AssertionError("it was established without a node")

    async def awaited(client: AsyncClient) -> None:
        await client.watch("/", prefix=True)

    async def main() -> None:
        async with AsyncClient(cluster.endpoints, timeout_seconds=5.0) as client:
            for begin in (entered, awaited):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(begin(client), 0.2)
            assert not client._engine.watches._watches
            watch = client.watch("/", prefix=True)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(watch), 0.2)
            assert len(client._engine.watches._watches) == 1, "to wait for a batch again is allowed"
            watch.cancel()
            assert not client._engine.watches._watches

    for name in cluster.nodes:
        cluster.kill(name)
    asyncio.run(main())


def test_a_watch_that_never_began_can_be_cancelled(cluster: FakeCluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.endpoints) as client:
            idle = client.watch("/a")
            idle.cancel()
            assert [batch async for batch in idle] == []
            refused = client.watch("/a", start_revision=1)
            refused._watch.key = b""
            with pytest.raises(errors.EmptyKey):
                await refused
            refused.cancel()

    asyncio.run(main())


def test_what_waits_in_the_watchers_process_is_bounded(cluster: FakeCluster) -> None:
    """Nobody reads for a blocking client while its program is busy. Eight times as many may wait of replies:
    it has asked for these."""
    with Client(cluster.endpoints) as client, client.watch("/", prefix=True):
        connections = client._engine.connections._connections.values()
        [unread] = [found.socket.get(zmq.RCVHWM) for found in connections if found.is_subscriber]
        assert isinstance(unread, int) and unread * MAX_PUBLISHED_BYTES <= 128 << 20
