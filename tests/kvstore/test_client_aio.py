"""The asyncio client against a cluster of real sockets whose faults are planned."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from kvstore import errors, protocol
from kvstore.client import AsyncClient, AsyncWatch, PutResult, State
from tests.kvstore.fake_server import FakeCluster, Plan


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as cluster:
        yield cluster


def run(cluster: FakeCluster, scenario: Callable[[AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.endpoints) as client, asyncio.timeout(10.0):
            await scenario(client)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(3.0):
        while not condition():
            await asyncio.sleep(0.002)


def test_each_operation_answers_with_what_the_store_did(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        assert await client.put("/a", "1") == PutResult(2, None)
        replaced = await client.put("/a", "2", previous=True)
        assert replaced.previous is not None
        assert replaced.previous.value == b"1"
        item = await client.get("/a")
        assert item == (b"/a", b"2", 2, 3, 2, 0)
        assert await client.get("/none") is None
        assert (await client.range("/a", "/b")).items == [item]
        assert (await client.prefix("/", count_only=True)).count == 1
        assert (await client.delete("/a", previous=True)).previous == [item]
        assert (await client.delete_prefix("/")).deleted == 0
        assert (await client.status()).node == "n1"
        found = await client.status_all()
        assert [status.node for status in found.values() if status is not None] == ["n1", "n2", "n3"]
        assert client.state is State.CONNECTED

    run(cluster, scenario)


def test_what_is_asked_in_one_turn_of_the_loop_leaves_in_one_frame(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.put("/a", "1")
        before = len(cluster.nodes["n1"].seen)
        results = await asyncio.gather(*(client.put(f"/{number}", "1") for number in range(256)))
        assert [result.revision for result in results] == list(range(3, 259))
        frames = cluster.nodes["n1"].seen[before:]
        assert [len(frame.bodies) for frame in frames] == [256]

    run(cluster, scenario)


def test_an_operation_is_a_future_and_no_task(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        await client.put("/a", "1")
        pending = [client.put("/a", "1") for _ in range(10)]
        assert len(asyncio.all_tasks()) == 1
        assert all(type(future) is asyncio.Future or not asyncio.iscoroutine(future) for future in pending)
        await asyncio.gather(*pending)

    run(cluster, scenario)


def test_a_cancelled_call_leaves_the_connection_usable(cluster: FakeCluster) -> None:

    async def scenario(client: AsyncClient) -> None:
        await client.put("/a", "1")
        cluster.mute("n1")
        asked = [asyncio.ensure_future(client.put(f"/{number}", "1")) for number in range(20)]
        waiting = asyncio.create_task(take(client))
        await asyncio.sleep(0.02)
        for number, future in enumerate(asked):
            if number % 2:
                future.cancel()
        waiting.cancel()
        cluster.unmute("n1")
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(result, PutResult) for result in results] == [True, False] * 10
        assert (await client.prefix("/", count_only=True)).count == 21  # the wait was cancelled, not the put
        assert client._engine.core.outstanding == 0
        assert client.counters["connections_lost"] == 0

    async def take(client: AsyncClient) -> None:
        await client.get("/a")

    run(cluster, scenario)


def test_a_put_survives_the_death_of_the_leader_and_happens_once(cluster: FakeCluster) -> None:
    """In the middle of a stream of puts."""

    async def scenario(client: AsyncClient) -> None:
        states: list[State] = []
        client.add_listener(states.append)
        await client.put("/a", "0")
        cluster.nodes["n1"].plan.extend([Plan.DIE_AFTER])
        threading.Timer(0.1, cluster.lead, ["n3"]).start()
        results = await asyncio.gather(*(client.put("/a", str(number)) for number in range(100)))
        assert [result.revision for result in results] == list(range(3, 103))
        assert cluster.applied(b"/a") == 101
        await asyncio.sleep(0)
        assert states == [State.CONNECTED, State.SUSPENDED, State.CONNECTED]

    run(cluster, scenario)


def test_each_call_has_its_own_deadline(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        await client.put("/a", "1")
        cluster.mute("n1")
        begun = loop.time()
        with pytest.raises(errors.DeadlineExceeded):
            await client.get("/a", timeout_seconds=0.05)
        assert loop.time() - begun < 0.2
        with pytest.raises(errors.OutcomeUnknown):
            await client.put("/a", "1", timeout_seconds=0.1)
        assert loop.time() - begun < 0.4
        patient = client.put("/a", "2", timeout_seconds=5.0)
        cluster.unmute("n1")
        await patient

    run(cluster, scenario)


def test_no_leader_is_an_error_after_the_deadline(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        cluster.lead(None)
        answers = await asyncio.gather(
            *(client.put("/a", "1", timeout_seconds=0.1) for _ in range(3)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [errors.NoLeader] * 3

    run(cluster, scenario)


def test_too_much_at_once_is_refused_in_the_future(cluster: FakeCluster) -> None:
    async def scenario(_: AsyncClient) -> None:
        async with AsyncClient(cluster.endpoints, max_outstanding=2) as client:
            asked = [client.put(f"/{number}", "1") for number in range(40)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in answers] == [PutResult] * 32 + [errors.Overloaded] * 8
            frames = [frame for frame in cluster.nodes["n1"].seen if frame.kind == protocol.WRITE]
            assert max(len(frame.bodies) for frame in frames) == 2

    run(cluster, scenario)


def test_an_expired_session_is_told_and_then_replaced(cluster: FakeCluster) -> None:

    async def scenario(client: AsyncClient) -> None:
        await client.put("/a", "1")
        cluster.expire_session(cluster.nodes["n1"].writes()[-1][0])
        answers = await asyncio.gather(client.put("/a", "2"), client.put("/a", "3"), return_exceptions=True)
        assert [type(answer) for answer in answers] == [errors.SessionExpired] * 2
        await client.put("/a", "4")
        assert cluster.applied(b"/a") == 2

    run(cluster, scenario)


def test_a_watch_can_be_awaited_iterated_and_left(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        watch = await client.watch("/a/", prefix=True)
        await client.put("/a/1", "x")
        await client.put("/b", "x")
        await client.put("/a/2", "y")
        await client.delete_prefix("/a/")
        seen = []
        async for batch in watch:
            seen.append((batch.revision, [(event.key, event.is_delete) for event in batch.events]))
            if len(seen) == 3:
                watch.cancel()
        assert seen == [
            (2, [(b"/a/1", False)]),
            (4, [(b"/a/2", False)]),
            (5, [(b"/a/1", True), (b"/a/2", True)]),
        ]
        async with client.watch("/b", start_revision=2) as another:
            assert [event.value for event in (await anext(another)).events] == [b"x"]
        async for batch in client.watch("/a/2", start_revision=2):
            assert batch.revision == 4
            break

    run(cluster, scenario)


def test_a_cancelled_wait_for_a_watch_loses_nothing(cluster: FakeCluster) -> None:

    async def scenario(client: AsyncClient) -> None:
        watch = await client.watch("/a")
        values = []
        for number in range(50):
            waiting = asyncio.create_task(take(watch))
            await client.put("/a", str(number))
            await asyncio.sleep(0.0005 * (number % 3))
            waiting.cancel()
            values += [value async for value in finished(waiting)]
        while len(values) < 50:
            values.append(await take(watch))
        assert values == [str(number).encode() for number in range(50)]

    async def take(watch: AsyncWatch) -> bytes:
        return (await anext(watch)).events[0].value

    async def finished(waiting: asyncio.Task[bytes]) -> AsyncIterator[bytes]:
        with suppress(asyncio.CancelledError):
            yield await waiting

    run(cluster, scenario)


def test_closing_ends_whoever_waits(cluster: FakeCluster) -> None:
    async def main() -> None:
        client = AsyncClient(cluster.endpoints)
        await client.put("/a", "1")
        watch = await client.watch("/a")
        cluster.mute("n1")
        put, read = client.put("/a", "2"), client.get("/a")
        watching = asyncio.create_task(take(watch.__anext__))
        await asyncio.sleep(0.02)
        await client.close()
        answers = await asyncio.gather(put, read, watching, return_exceptions=True)
        assert [type(answer) for answer in answers] == [
            errors.OutcomeUnknown,
            errors.ClientClosed,
            errors.ClientClosed,
        ]
        with pytest.raises(errors.ClientClosed):
            await client.get("/a")
        await client.close()

    async def take(what: Callable[[], Awaitable[object]]) -> None:
        await what()

    asyncio.run(main())


def test_garbage_before_an_answer_is_counted_and_dropped(cluster: FakeCluster) -> None:
    async def scenario(client: AsyncClient) -> None:
        cluster.nodes["n1"].plan.extend([Plan.GARBAGE] * 2)
        await asyncio.gather(*(client.put("/a", "1") for _ in range(10)))
        assert client.counters["malformed_frames"] >= 3
        assert cluster.applied(b"/a") == 10

    run(cluster, scenario)


def test_who_is_cancelled_while_closing_is_cancelled_and_the_client_closed(cluster: FakeCluster) -> None:
    """The cancellation was swallowed: the task went on as if nobody had told it to end."""

    async def main() -> None:
        client = AsyncClient(cluster.endpoints)
        await client.put("/a", "1")
        for node in cluster.nodes.values():
            node.plan.extend([Plan.LOSE] * 20)
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(errors.ClientClosed):
            await client.put("/a", "2")

    asyncio.run(main())
