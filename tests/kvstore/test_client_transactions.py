"""Transactions through both faces of the client, against the store itself behind planned faults."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kvstore import errors, protocol
from kvstore.client import AsyncClient, Client, Compare, KeyValue, Operation, TxnResult
from kvstore.client.transactions import Tree, Txn, transaction_call
from kvstore.operations import decode_write
from kvstore.protocol import MalformedFrame
from tests.kvstore.fake_server import FakeCluster, Plan


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(3) as cluster:
        yield cluster


def test_a_transaction_takes_one_branch_and_answers_with_what_each_operation_did(
    cluster: FakeCluster,
) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "1")
        take = (
            client.txn()
            .when(Compare.is_absent("/lock"), Compare.value("/a", "=", "1"))
            .then(
                Operation.put("/lock", "me"),
                Operation.put("/a", "2", previous=True),
                Operation.get("/lock"),
                Operation.get("/none"),
                Operation.prefix("/", keys_only=True, limit=1),
                Operation.delete_prefix("/x"),
            )
            .otherwise(Operation.get("/lock"), Operation.range("/a", "/b", sort_by="mod", descending=True))
        )
        first = take.commit()
        assert bool(first) is True
        assert (first.revision, first.succeeded) == (3, True)
        lock, replaced, read_back, missing, keys, deleted = first.results
        assert lock == (3, None)
        assert replaced == (3, (b"/a", b"1", 2, 2, 1, 0))
        assert read_back == (b"/lock", b"me", 3, 3, 1, 0)
        assert missing is None
        assert [(item.key, item.value) for item in keys.items] == [(b"/a", b"")]  # type: ignore[union-attr]
        assert (keys.count, keys.more) == (2, True)  # type: ignore[union-attr]
        assert deleted == (3, 0, [])
        second = take.commit()
        assert bool(second) is False
        assert (second.revision, second.succeeded) == (3, False)
        held, found = second.results
        assert held == (b"/lock", b"me", 3, 3, 1, 0)
        assert [item.value for item in found.items] == [b"2"]  # type: ignore[union-attr]


def test_the_asyncio_face_does_the_same_and_many_at_a_time(cluster: FakeCluster) -> None:
    async def run() -> None:
        async with AsyncClient(cluster.endpoints) as client:
            create = client.txn().when(Compare.is_absent("/once")).then(Operation.put("/once", "x"))
            outcomes = await asyncio.gather(*(create.commit() for _ in range(20)))
            assert sorted(outcome.succeeded for outcome in outcomes) == [False] * 19 + [True]
            result = await client.txn().then(Operation.get("/once")).commit(timeout_seconds=2.0)
            assert result == TxnResult(2, True, [KeyValue(b"/once", b"x", 2, 2, 1, 0)])

    asyncio.run(run())


def test_a_transaction_nests(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        inner = Operation.nested(
            [Compare.exists("/a")], [Operation.get("/a")], [Operation.put("/a", "1"), Operation.get("/a")]
        )
        result = client.txn().then(inner, Operation.put("/b", "2")).commit()
        assert list(result) == [2, True, [(2, False, [(2, None), (b"/a", b"1", 2, 2, 1, 0)]), (2, None)]]
        assert isinstance(result.results[0], TxnResult)


def test_what_is_built_is_never_changed() -> None:
    base: Txn[Any] = Txn(lambda call, timeout_seconds: call)
    one = base.when(Compare.exists("/a"))
    two = one.when(Compare.version("/a", ">", 1)).then(Operation.get("/a")).otherwise(Operation.get("/b"))
    assert base.tree == Tree() and one.tree == Tree((Compare.exists("/a"),))
    assert len(two.tree.compares) == 2 and len(two.tree.operations) == len(two.tree.alternatives) == 1
    with pytest.raises(AttributeError):
        two.tree.operations = ()  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Operation.get("/a").is_write = True  # type: ignore[misc]


def test_only_one_that_may_write_goes_through_the_log(cluster: FakeCluster) -> None:
    read = Operation.get("/a")
    for operation, kind in (
        (read, protocol.READ),
        (Operation.nested([], [read], [read]), protocol.READ),
        (Operation.put("/a", "1"), protocol.WRITE),
        (Operation.delete("/a"), protocol.WRITE),
        (Operation.nested([], [], [Operation.delete_range("/a", "/b")]), protocol.WRITE),
    ):
        assert transaction_call(Tree((), (), (operation,))).kind == kind
    with Client(cluster.endpoints) as client:
        for value in "12":
            client.put("/a", value)
        past = client.txn().then(Operation.get("/a", revision=2), read).commit()
        assert [item.value for item in past.results] == [b"1", b"2"]  # type: ignore[union-attr]
        assert len(cluster.log) == 3, "two puts and a session"
        with pytest.raises(errors.FutureRevision):
            client.txn().then(Operation.get("/a", revision=9)).commit()
        assert client.txn().then(read).commit(consistency="local").results == past.results[1:]
        assert cluster.nodes["n1"].seen[-1].kind == protocol.STALE_READ
        with pytest.raises(ValueError):
            client.txn().otherwise(Operation.delete("/a")).commit(consistency="local")


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([Operation.put("/a", "", ignore_value=True)], errors.KeyNotFound),
        ([Operation.put("/a", "1", ignore_value=True)], errors.ValueProvided),
        ([Operation.put("/a", "1", lease=7, ignore_lease=True)], errors.LeaseProvided),
        ([Operation.put("/a", "1", lease=7)], errors.LeaseNotFound),
        ([Operation.put("/a", "1"), Operation.delete_prefix("/")], errors.DuplicateKey),
        ([Operation.get("/a")] * 128 + [Operation.put("/b", "")], errors.TooManyOperations),
        ([Operation.put("/a", "1"), Operation.get("/a", revision=1)], errors.BadRequest),
    ],
)
def test_an_error_is_raised_and_nothing_was_done(
    cluster: FakeCluster, operations: list[Operation], error: type[errors.AssentError]
) -> None:
    with Client(cluster.endpoints) as client:
        with pytest.raises(error) as caught:
            client.txn().then(*operations).commit()
        assert not caught.value.may_be_applied and not caught.value.retry_helps
        assert client.prefix("").count == 0


def test_what_cannot_be_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(errors.EmptyKey):
        Compare.exists("")
    with pytest.raises(errors.EmptyKey):
        Operation.put("", "1")
    with pytest.raises(errors.TooLarge):
        Operation.put("/a", bytes((1 << 20) + 1))
    with pytest.raises(errors.TooLarge):
        Compare.value("k" * 4097, "=", "")
    with pytest.raises(ValueError):
        Compare.version("/a", "=", -1)
    with pytest.raises(ValueError):
        Compare.version("/a", "==", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Operation.prefix("/", limit=-1)
    large = (Operation.put("/a", bytes(1 << 20)), Operation.put("/b", bytes(1 << 20)))
    with pytest.raises(errors.TooLarge):
        transaction_call(Tree((), large))


def test_g1_a_transaction_whose_answer_is_lost_is_applied_once(cluster: FakeCluster) -> None:
    """It comes again, with the same session and sequence, and is answered as the first time."""
    with Client(cluster.endpoints) as client:
        client.put("/n", "0")
        cluster.nodes["n1"].plan.append(Plan.DIE_AFTER)
        threading.Timer(0.05, cluster.revive, ["n1"]).start()
        result = (
            client.txn()
            .when(Compare.value("/n", "=", "0"))
            .then(Operation.put("/n", "1"), Operation.get("/n"))
            .otherwise(Operation.get("/n"))
            .commit()
        )
        assert result.succeeded and result.results[1] == (b"/n", b"1", 2, 3, 2, 0)


def test_a_put_keeps_a_value_or_a_lease_if_asked(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        client.put("/a", "kept")
        assert client.put("/a", "", ignore_value=True, previous=True).previous is not None
        assert client.get("/a") == (b"/a", b"kept", 2, 3, 2, 0)
        assert client.put("/a", "new", ignore_lease=True).revision == 4
        with pytest.raises(errors.KeyNotFound):
            client.put("/b", "", ignore_value=True)
        with pytest.raises(errors.LeaseNotFound):
            client.put("/b", "1", lease=77)


def test_a_lease_is_named_by_itself_or_by_its_id(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client, client.lease(60) as lease:
        put = [Operation.put("/a", "1", lease=lease), Operation.put("/b", "1", lease=lease.id)]
        assert client.txn().when(Compare.lease("/a", "=", 0)).then(*put).commit()
        guards = [Compare.lease("/a", "=", lease), Compare.lease("/b", "=", lease.id)]
        assert client.txn().when(*guards).commit()
        with pytest.raises(ValueError):
            Operation.put("/a", "1", lease="7")  # type: ignore[arg-type]


def test_guards_that_are_one_call_away(cluster: FakeCluster) -> None:
    with Client(cluster.endpoints) as client:
        token = client.put("/lock", "me").revision
        item = client.get("/lock")
        assert item is not None
        for guard in (Compare.is_held("/lock", token), Compare.is_unchanged(item), Compare.exists("/lock")):
            assert client.txn().when(guard).commit()
        client.put("/lock", "still me")
        assert client.txn().when(Compare.is_held("/lock", token)).commit()
        assert not client.txn().when(Compare.is_unchanged(item)).commit()
        client.delete("/lock")
        client.put("/lock", "somebody else")
        assert not client.txn().when(Compare.is_held("/lock", token)).commit()
        assert client.txn().when(Compare.version("/", "=", 1, prefix=True)).commit()


@pytest.mark.parametrize(
    "result",
    [
        [0, 3, True],
        [0, "3", True, [[0, 3, None]]],
        [0, 3, 1, [[0, 3, None]]],
        [0, 3, True, None],
        [0, 3, True, []],
        [0, 3, False, [[0, 3, None]]],
        [0, 3, True, [None]],
        [0, 3, True, [[1, "no"]]],
        [0, 3, True, [[0, 4, None]]],
        [0, 3, True, [[0, 3, [b"k"]]]],
    ],
)
def test_a_damaged_result_is_refused(result: list[Any]) -> None:
    call = transaction_call(Tree((), (Operation.put("/a", "1"),)))
    assert call.decode([0, 3, True, [[0, 3, None]]]) == (3, True, [(3, None)])
    with pytest.raises(MalformedFrame):
        call.decode(result)


def test_each_compare_is_what_the_protocol_has() -> None:
    compares = (
        Compare.version("/a", "=", 1),
        Compare.create_revision("/a", "!=", 2),
        Compare.mod_revision("/a", ">", 3),
        Compare.value("/a", "<", "4"),
        Compare.lease("/a", "=", 5, prefix=True),
    )
    call = transaction_call(Tree(compares, (Operation.delete("/a"),)))
    assert call.encode is not None
    command = decode_write(call.encode(1, 1, 1, b"", b"", flags=0))
    assert isinstance(command, list)
    assert command[4].compares == [
        [1, 0, b"/a", b"", 1],
        [2, 1, b"/a", b"", 2],
        [3, 2, b"/a", b"", 3],
        [4, 3, b"/a", b"", b"4"],
        [5, 0, b"/a", b"/b", 5],
    ]
