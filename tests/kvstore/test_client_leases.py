"""Leases of a client: renewed in time and together, and lost no later than the client may say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import msgpack
import pytest

from kvstore import errors, protocol, protocol_lease
from kvstore.client import AsyncClient, Client, upkeep
from kvstore.client.lease_results import (
    decode_lease_granted,
    decode_lease_info,
    decode_lease_list,
    decode_lease_revoked,
    decode_leases_renewed,
)
from kvstore.client.upkeep import Held, Upkeep, keep_alive_call
from kvstore.protocol import MalformedFrame
from tests.kvstore.fake_server import FakeCluster, Plan, wait_for


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as cluster:
        yield cluster


def keepalives(cluster: FakeCluster) -> list[list[int]]:
    """The ids of each keepalive that came to any node."""
    bodies = [
        msgpack.unpackb(body)
        for node in cluster.nodes.values()
        for request in list(node.seen)
        if request.kind == protocol.WRITE
        for body in request.bodies
    ]
    return [body[4:] for body in bodies if body[3] == protocol.LEASE_KEEPALIVE]


# ---------------------------------------------------------------- the upkeep


def hold(kept: Upkeep, lease: int, ttl_seconds: int, asked_at: float) -> Held:
    held = Held(lease, ttl_seconds, asked_at, lambda: None)
    kept.hold(held)
    return held


def test_a_lease_is_renewed_when_a_third_of_its_ttl_has_passed() -> None:
    kept = Upkeep()
    held = hold(kept, 7, 9, 100.0)
    assert kept.next_at() == 103.0
    assert kept.due(102.9) == []
    assert kept.due(103.0) == [held]
    assert kept.due(103.5) == [], "it is on its way"
    assert kept.next_at() == 109.0
    assert kept.renewed([held], [9], 103.0) == []
    assert kept.next_at() == 106.0
    assert held.remaining_seconds(104.0) == 8.0


def test_all_leases_of_a_client_are_renewed_together_but_for_what_was_renewed_just_now() -> None:
    kept = Upkeep()
    early, late = hold(kept, 1, 9, 100.0), hold(kept, 2, 9, 101.4)
    long, fresh = hold(kept, 3, 600, 100.0), hold(kept, 4, 9, 102.9)
    assert kept.due(103.0) == [early, late]
    assert not long.is_renewing and not fresh.is_renewing


def test_one_request_renews_no_more_than_the_protocol_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_KEEPALIVES", 3)
    kept = Upkeep()
    for lease in range(1, 8):
        hold(kept, lease, 9, 100.0)
    assert [len(kept.due(104.0)) for _ in range(4)] == [3, 3, 1, 0]


def test_g11_the_time_is_counted_from_the_asking_not_from_the_answer() -> None:
    kept = Upkeep()
    held = hold(kept, 7, 9, 100.0)
    batch = kept.due(103.0)
    kept.renewed(batch, [9], 103.0)  # whenever the answer came
    assert kept.overdue(111.9) == []
    assert kept.overdue(112.0) == [held]
    assert held.is_lost and held.remaining_seconds(112.0) == 0.0


def test_an_attempt_that_failed_is_made_again_soon_and_until_the_time_has_passed() -> None:
    kept = Upkeep()
    held = hold(kept, 7, 10, 100.0)
    kept.failed(kept.due(104.0), 105.0)
    assert kept.due(105.4) == []
    assert kept.due(105.5) == [held]
    kept.failed([held], 109.9)
    assert kept.next_at() == 110.0
    assert kept.overdue(110.0) == [held] and len(kept) == 0 and kept.next_at() is None


def test_a_lease_that_the_cluster_has_no_more_is_lost_at_once() -> None:
    kept = Upkeep()
    gone, there = hold(kept, 7, 9, 100.0), hold(kept, 8, 9, 100.0)
    assert kept.renewed(kept.due(103.0), [0, 9], 103.0) == [gone]
    assert gone.is_lost and not there.is_lost and len(kept) == 1


def test_a_lease_that_was_given_up_while_it_was_renewed_is_neither_lost_nor_kept() -> None:
    kept = Upkeep()
    held = hold(kept, 7, 9, 100.0)
    batch = kept.due(103.0)
    kept.release(held)
    held.expires_at = 0.0
    assert kept.renewed(batch, [9], 103.0) == [] == kept.renewed(batch, [0], 103.0)
    assert (held.expires_at, held.is_lost, len(kept)) == (0.0, False, 0)


def test_an_answer_is_waited_for_until_the_first_of_all_leases_is_lost() -> None:
    kept = Upkeep()
    hold(kept, 7, 30, 100.0)
    hold(kept, 8, 4, 108.0)
    assert kept.answer_seconds(110.0) == 2.0


def test_an_answer_is_not_waited_for_longer_than_a_lease_that_is_granted_meanwhile_may_live() -> None:
    """Whoever holds a long one and a short one heard of the short one's loss when the long one was lost."""
    kept = Upkeep()
    hold(kept, 7, 300, 100.0)
    asked_at = 200.0
    gives_up_at = asked_at + kept.answer_seconds(asked_at)
    hold(kept, 8, 2, asked_at)
    assert gives_up_at <= 202.0
    assert [held.id for held in kept.overdue(max(gives_up_at, 202.0))] == [8]


def test_nonsense_is_refused_before_it_is_sent() -> None:
    for ttl_seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError):
            upkeep.grant_call(ttl_seconds)
    for lease in (0, -1, True, "7", None):
        with pytest.raises(ValueError):
            upkeep.revoke_call(lease)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        keep_alive_call([])


@pytest.mark.parametrize(
    "result", [[0], [0, 1], [0, 1, 2], [0, 1, -1, 0, 0], [0, 1, [-1]], [0, 1, b"", 1, 1, []], [0, -1, 1, 1]]
)
def test_answers_of_another_shape_are_refused(result: list[object]) -> None:
    for decode in (decode_lease_granted, decode_lease_info, decode_lease_list, decode_leases_renewed):
        with pytest.raises(MalformedFrame):
            decode(result)
    if result != [0, 1, 2]:
        with pytest.raises(MalformedFrame):
            decode_lease_revoked([0, 1, -2])


# ---------------------------------------------------------------- the client that blocks


def test_a_lease_from_grant_to_revoke(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        with client.lease(1) as lease:
            assert lease.ttl_seconds == 2 and 1.0 < lease.remaining() <= 2.0
            client.put("/a", "1", lease=lease)
            client.put("/b", "1", lease=lease.id)
            client.put("/c", "1")
            info = client.lease_info(lease, keys=True)
            assert info[1:] == (2, 2, 2, [b"/a", b"/b"])
            assert client.leases().ids == [lease.id]
            item = client.get("/a")
            assert item is not None and item.lease == lease.id
        assert [item.key for item in client.prefix("/").items] == [b"/c"]
        assert client.lease_info(lease)[1:] == (None, None, 0, [])
        assert lease.remaining() == 0.0 and not lease.lost.is_set()
        with pytest.raises(errors.LeaseNotFound):
            lease.revoke()
        with pytest.raises(errors.LeaseNotFound):
            client.put("/a", "1", lease=lease)


def test_leases_by_their_ids(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        assert client.grant_lease(60, id=77)[1:] == (77, 60)
        with pytest.raises(errors.LeaseExists):
            client.grant_lease(60, id=77)
        with pytest.raises(errors.LeaseTtlTooLarge):
            client.grant_lease(9_000_000_001)
        assert client.keep_alive(77, 78).ttls == [60, 0]
        client.put("/a", "1", lease=77)
        assert client.revoke_lease(77).deleted == 1
        assert client.leases().ids == []


def test_leases_are_kept_alive_in_the_background_together(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        ids = sorted(client.lease(2).id for _ in range(5))
        wait_for(lambda: bool(keepalives(cluster)))
        assert sorted(keepalives(cluster)[0]) == ids
        threads = [thread for thread in threading.enumerate() if thread.name == "assent-client-leases"]
        assert len(threads) == 1
    wait_for(lambda: not threads[0].is_alive())


def test_a_lease_that_another_revoked_is_lost_and_its_holder_hears_of_it(cluster: FakeCluster) -> None:
    calls: list[int] = []

    def hear() -> None:
        calls.append(1)
        raise RuntimeError("a mistake of the program")

    with Client(cluster.endpoints) as client, Client(cluster.endpoints) as other:
        lease, kept = client.lease(2, on_lost=hear), client.lease(2)
        other.revoke_lease(lease.id)
        assert lease.lost.wait(2.0)
        assert calls == [1] and lease.remaining() == 0.0
        assert not kept.lost.is_set()


def test_a_lease_is_lost_when_its_time_has_passed_though_nobody_answers(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        lease = client.lease(2)
        for name in cluster.nodes:
            cluster.mute(name)
        assert lease.lost.wait(3.0)
        assert lease.remaining() == 0.0
        for name in cluster.nodes:
            cluster.unmute(name)


def test_a_retried_keepalive_renews_again_and_needs_no_session(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.grant_lease(60, id=7)
        cluster.do(lambda: cluster.nodes["n1"].plan.extend([protocol.NO_LEADER, Plan.DIE_AFTER]))
        thread = threading.Timer(0.1, lambda: cluster.lead("n2"))
        thread.start()
        assert client.keep_alive(7).ttls == [60]
        thread.join()
        assert len(keepalives(cluster)) == 3


def test_a_grant_whose_answer_was_lost_is_one_lease(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        cluster.do(lambda: cluster.nodes["n1"].plan.append(Plan.DIE_AFTER))
        thread = threading.Timer(0.1, lambda: cluster.lead("n2"))
        thread.start()
        granted = client.grant_lease(60)
        thread.join()
        assert client.leases().ids == [granted.id]


def test_a_lease_that_is_released_is_not_renewed_and_not_lost(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        released, kept = client.lease(2), client.lease(2)
        released.release()
        wait_for(lambda: len(keepalives(cluster)) > 1)
        assert keepalives(cluster)[-1] == [kept.id] and not released.lost.is_set()
        assert client.leases().ids == [released.id, kept.id]


def test_the_leases_of_a_client_that_is_closed_count_as_lost(cluster: FakeCluster) -> None:
    client = Client(cluster.endpoints)
    lease = client.lease(60)
    client.close()
    assert lease.lost.is_set() and lease.remaining() == 0.0
    with pytest.raises(errors.ClientClosed):
        client.lease(60)


# ---------------------------------------------------------------- asyncio


def test_the_client_for_asyncio_keeps_leases_too(cluster: FakeCluster) -> None:
    async def scenario() -> None:
        async with AsyncClient(cluster.endpoints) as client, asyncio.timeout(10.0):
            async with client.lease(1) as lease:
                assert lease.ttl_seconds == 2 and 1.0 < lease.remaining() <= 2.0
                await client.put("/a", "1", lease=lease)
                assert (await client.lease_info(lease, keys=True)).keys == [b"/a"]
            assert (await client.leases()).ids == []
            assert await client.get("/a") is None
            heard: list[int] = []
            lost, kept = await client.lease(2, on_lost=lambda: heard.append(1)), await client.lease(2)
            assert (await client.keep_alive(kept.id, 999)).ttls == [2, 0]
            await client.revoke_lease(lost)
            await lost.lost.wait()
            assert heard == [1] and lost.remaining() == 0.0 and not kept.lost.is_set()
            assert sorted(keepalives(cluster)[-1]) == [lost.id, kept.id]
            kept.release()
            granted = await client.grant_lease(60)
            assert (await client.lease_info(granted.id)).remaining_seconds == 60
            held = await client.lease(60)
        assert held.lost.is_set()

    asyncio.run(scenario())


def test_an_asyncio_lease_is_lost_when_its_time_has_passed(cluster: FakeCluster) -> None:
    async def scenario() -> None:
        async with AsyncClient(cluster.endpoints) as client, asyncio.timeout(10.0):
            lease = await client.lease(2)
            for name in cluster.nodes:
                cluster.mute(name)
            await lease.lost.wait()
            assert lease.remaining() == 0.0
            for name in cluster.nodes:
                cluster.unmute(name)

    asyncio.run(scenario())


def test_the_bodies_of_leases_are_what_the_protocol_says() -> None:
    assert msgpack.unpackb(protocol_lease.grant_body(9, 2, 1, 60, 7)) == [9, 2, 1, 7, 60, 7]
    assert msgpack.unpackb(protocol_lease.revoke_body(9, 3, 1, 7)) == [9, 3, 1, 8, 7]
    assert msgpack.unpackb(protocol_lease.keepalive_body([7, 8])) == [0, 0, 0, 9, 7, 8]
    assert msgpack.unpackb(protocol_lease.time_to_live_body(7, 1)) == [19, 7, 1]
    assert msgpack.unpackb(protocol_lease.list_body()) == [20]
