"""Trees of keys by way of both faces of the client, against a cluster of real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kvstore import errors, protocol, range_steps, state_machine, transactions
from kvstore.client import AsyncClient, Client, paging
from tests.kvstore.fake_server import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(1) as cluster:
        yield cluster


def fill(client: Client, *keys: str) -> None:
    for key in keys:
        client.put(key, "v" + key)


def test_children_of_a_path(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        fill(client, "/a", "/a/b", "/a/b/c", "/a/d/e", "/ab")
        found = client.children("a/")
        assert (found.revision, found.more) == (6, False)
        assert found.items == [(b"b", True, True), (b"d", False, True)]
        assert client.children("/").items == [(b"a", True, True), (b"ab", True, False)]
        page = client.children("/a", limit=1)
        assert page.more and [child.name for child in page.items] == [b"b"]
        rest = client.children("/a", start_after="b", revision=page.revision, consistency="local")
        assert [child.name for child in rest.items] == [b"d"]
        with pytest.raises(errors.FutureRevision):
            client.children("/a", revision=99)
        with pytest.raises(errors.TooLarge):
            client.children("/" + "a" * 5000)
        with pytest.raises(ValueError):
            client.children("/a", limit=-1)


def test_a_walk_is_of_one_revision_and_leaves_the_neighbours_out(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE_KEYS", 2)
    with Client(cluster.endpoints) as client:
        fill(client, "/a", "/a/1", "/a/2", "/a/3/4", "/a-", "/ab", "/a0")
        walk = client.walk("a/")
        keys = [next(walk).key]
        client.delete_tree("/a")
        client.put("/a/9", "new")
        keys += [item.key for item in walk]
        assert keys == [b"/a", b"/a/1", b"/a/2", b"/a/3/4"]
        assert [item.key for item in client.walk("/a", revision=5, limit=3)] == [b"/a", b"/a/1", b"/a/2"]
        assert [item.key for item in client.walk("")] == [b"/a-", b"/a/9", b"/a0", b"/ab"]
        assert [item.value for item in client.walk("/a-", keys_only=True)] == [b""]
        assert list(client.walk("/none")) == []


@pytest.fixture
def small_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (state_machine, range_steps):
        # Room for two records of the test, counted as they are or encoded, and not for three.
        monkeypatch.setattr(module, "MAX_RANGE_REPLY_BYTES", 130)


def test_what_a_node_cuts_is_read_on(cluster: FakeCluster, small_replies: None) -> None:
    """An answer has 16 MiB at most, and the rest of the range was lost to whoever asked only once."""
    with Client(cluster.endpoints) as client:
        for number in range(10):
            client.put(f"/a/{number}", bytes(40))
        assert client.prefix("/a/").more
        pages = list(client.pages("/a/"))
        assert [len(page.items) for page in pages] == [2] * 5 and pages[0].count == 10
        assert len(list(client.walk("/a"))) == 10
        backwards = [item.key[3:] for page in client.pages("/a/", descending=True) for item in page.items]
        assert b"".join(backwards) == b"9876543210"
        [page] = client.pages("/a/", sort_by="mod")
        assert page.more and len(page.items) == 2, "what comes after it cannot be asked for, and that is told"


def test_delete_tree_takes_a_path_and_what_is_below_it(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        fill(client, "/a", "/a/b", "/a/b/c", "/ab", "/a-b", "/a0")
        assert client.delete_tree("a/") == (8, 3, 1), "in one revision"
        assert [item.key for item in client.prefix("").items] == [b"/a-b", b"/a0", b"/ab"]
        assert client.delete_tree("/a") == (8, 0, 0)


def test_a_tree_is_gone_for_everybody_at_the_same_moment(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        fill(client, "/a", "/a/b", "/a/c/d")
        with client.watch("/a", prefix=True) as watch:
            client.delete_tree("/a")
            batch = watch.next(5.0)
            assert batch is not None and [event.key for event in batch.events] == [b"/a", b"/a/b", b"/a/c/d"]


def test_a_tree_with_too_many_keys_for_one_delete_is_deleted_in_pieces(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_machine, "MAX_DELETE_KEYS", 10)
    monkeypatch.setattr(transactions, "MAX_TXN_KEYS", 10)
    monkeypatch.setattr(protocol, "MAX_DELETE_KEYS", 10)
    with Client(cluster.endpoints) as client:
        fill(client, "/a", *(f"/a/{number:02}" for number in range(25)), "/a0", "/a-")
        with pytest.raises(errors.TooLarge):
            client.delete_prefix("/a/")
        assert client.delete_tree("/a") == (33, 26, 4)
        assert [item.key for item in client.prefix("").items] == [b"/a-", b"/a0"]


def test_a_prefix_with_too_many_keys_for_one_delete_is_deleted_in_pieces_by_who_says_so(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else in one revision or not at all."""
    monkeypatch.setattr(state_machine, "MAX_DELETE_KEYS", 10)
    monkeypatch.setattr(protocol, "MAX_DELETE_KEYS", 10)
    with Client(cluster.endpoints) as client:
        fill(client, *(f"/a{number:02}" for number in range(25)), "/b")
        with pytest.raises(errors.TooLarge):
            client.delete_prefix("/a")
        assert client.delete_all("/a") == (30, 25, 3)
        assert client.delete_all("/a") == (30, 0, 0)
        assert client.delete_all("/") == (31, 1, 1), "in one revision"


def test_the_asyncio_face_does_the_same(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_machine, "MAX_DELETE_KEYS", 3)
    monkeypatch.setattr(transactions, "MAX_TXN_KEYS", 3)
    monkeypatch.setattr(protocol, "MAX_DELETE_KEYS", 3)
    monkeypatch.setattr(paging, "PAGE_KEYS", 2)

    async def scenario() -> None:
        async with AsyncClient(cluster.endpoints) as client:
            for key in ("/a", "/a/b", "/a/b/c", "/a/d", "/a/e", "/ab"):
                await client.put(key, key)
            assert [child.name for child in (await client.children("/a")).items] == [b"b", b"d", b"e"]
            expected = [b"/a", b"/a/b", b"/a/b/c", b"/a/d", b"/a/e"]
            assert [item.key async for item in client.walk("/a")] == expected
            pages = [page async for page in client.pages("/a", keys_only=True)]
            assert [len(page.items) for page in pages] == [2, 2, 2]
            assert await client.delete_tree("/a") == (10, 5, 3)
            assert await client.delete_all("/none") == (10, 0, 0)
            assert [page.count async for page in client.pages("/")] == [1]

    asyncio.run(scenario())


def test_a_tree_is_watched_without_its_neighbours(cluster: FakeCluster) -> None:
    """Their keys lie in the range of the tree. A revision that is theirs alone is no batch."""
    with Client(cluster.endpoints) as client:
        fill(client, "/a/0")
        with client.watch_tree("a/", start_revision=2) as watch, client.watch_tree("/", puts=False) as root:
            fill(client, "/a", "/a-b", "/a/b", "/a.b", "/a/b/c", "/ab", "/a0")
            client.delete_prefix("/a")
            keys: list[bytes] = []
            while len(keys) < 8:
                batch = watch.next(5.0)
                assert batch is not None and batch.events, keys
                keys += [event.key for event in batch.events]
            assert keys == [b"/a/0", b"/a", b"/a/b", b"/a/b/c", b"/a", b"/a/0", b"/a/b", b"/a/b/c"]
            gone = root.next(5.0)
            assert gone is not None and len(gone.events) == 8
        with client.watch_tree("/" + "a" * 4095):
            pass
        with pytest.raises(ValueError):
            client.watch_tree("/a", start_revision=-1)


def test_a_tree_is_watched_by_the_asyncio_face(cluster: FakeCluster) -> None:
    async def scenario() -> None:
        async with AsyncClient(cluster.endpoints) as client, client.watch_tree("/a") as watch:
            for key in ("/ab", "/a-", "/a/b"):
                await client.put(key, key)
            async for batch in watch:
                assert [event.key for event in batch.events] == [b"/a/b"]
                break

    asyncio.run(scenario())
