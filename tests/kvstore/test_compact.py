"""COMPACT as a command: its results, once in a session, from both faces of the client, and by policy."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgpack
import pytest

from kvstore import errors, protocol
from kvstore.client import AsyncClient, Client, CompactResult
from tests.kvstore.fake_server import FakeCluster, Plan
from tests.kvstore.machine_log import Log
from tests.kvstore.memory_cluster import MemoryCluster


def compact(log: Log, revision: int) -> list[object]:
    [result] = log.apply(protocol.compact_body(0, 0, 0, revision))
    found: list[object] = result
    return found


def test_compaction_leaves_the_revision_as_it_is_and_is_not_done_twice() -> None:
    log = Log()
    for number in range(5):
        log.put(b"a", b"%d" % number)
    assert log.machine.revision == 6
    assert compact(log, 4) == [protocol.OK, 6]
    for revision in (4, 3, 0):
        assert compact(log, revision) == [protocol.COMPACTED, "required revision has been compacted", 4]
    assert compact(log, 7) == [protocol.FUTURE_REVISION, "required revision is a future revision", 6]
    assert compact(log, 6) == [protocol.OK, 6]
    assert log.machine.revision == 6


def test_reading_at_the_compacted_revision_works_and_below_it_fails() -> None:
    log = Log()
    for number in range(5):
        log.put(b"a", b"%d" % number)
    compact(log, 4)
    code, _, oldest = log.ask(protocol.range_body(b"a", revision=3))
    assert (code, oldest) == (protocol.COMPACTED, 4)
    for revision in (4, 5, 6):
        assert log.ask(protocol.range_body(b"a", revision=revision))[4][0][1] == b"%d" % (revision - 2)
    assert log.ask(protocol.range_body(b"a", revision=7))[::2] == [protocol.FUTURE_REVISION, 6]


def test_a_repeated_compaction_of_a_session_has_its_first_result() -> None:
    """Its answer got lost: asked again, it must not hear that somebody else had compacted."""
    log = Log()
    session = log.open_session()
    log.put(b"a")
    body = protocol.compact_body(session, 1, 1, 2)
    assert log.apply(body, body) == [[protocol.OK, 2], [protocol.OK, 2]]
    assert log.apply(protocol.compact_body(session, 2, 1, 2))[0][0] == protocol.COMPACTED
    assert log.apply(protocol.compact_body(session + 1, 1, 1, 2))[0][0] == protocol.SESSION_EXPIRED


def test_the_blocking_client_compacts_and_reads_the_past() -> None:
    with FakeCluster(3) as cluster, Client(cluster.endpoints, timeout_seconds=5) as client:
        for number in range(4):
            client.put("/a", str(number))
        client.put("/b", "late")
        assert client.compact(3) == CompactResult(6)
        past = client.get("/a", revision=3)
        assert past is not None and (past.value, past.mod_revision) == (b"1", 3)
        assert client.get("/b", revision=3) is None
        assert [item.value for item in client.prefix("/", revision=5).items] == [b"3"]
        assert [item.value for item in client.range("/a", "/z", revision=6).items] == [b"3", b"late"]
        with pytest.raises(errors.Compacted) as compacted:
            client.get("/a", revision=2)
        assert compacted.value.compact_revision == 3 and not compacted.value.may_be_applied
        with pytest.raises(errors.Compacted):
            client.compact(3)
        with pytest.raises(errors.FutureRevision) as future:
            client.compact(7)
        assert future.value.current_revision == 6
        for nonsense in (0, -1, 2**63, True):
            with pytest.raises(ValueError, match="is no revision"):
                client.compact(nonsense)
        with pytest.raises(ValueError, match="is no revision"):
            client.get("/a", revision=-1)


def test_a_compaction_whose_answer_is_lost_succeeds_all_the_same() -> None:
    with FakeCluster(3) as cluster, Client(cluster.endpoints, timeout_seconds=10) as client:
        client.put("/a", "1")
        cluster.nodes["n1"].plan.append(Plan.DIE_AFTER)
        threading.Timer(0.05, cluster.revive, ["n1"]).start()
        assert client.compact(2) == CompactResult(2)


def test_the_asyncio_client_compacts_and_reads_the_past() -> None:
    async def scenario(client: AsyncClient) -> None:
        for number in range(3):
            await client.put("/a", str(number))
        assert await client.compact(3) == CompactResult(4)
        past = await client.get("/a", revision=3)
        assert past is not None and past.value == b"1"
        assert [item.value for item in (await client.prefix("/", revision=3)).items] == [b"1"]
        assert [item.value for item in (await client.range("/a", "/z", revision=3)).items] == [b"1"]
        with pytest.raises(errors.Compacted):
            await client.prefix("/", revision=2)
        with pytest.raises(errors.FutureRevision):
            await client.get("/a", revision=5)

    async def main(endpoints: list[str]) -> None:
        async with AsyncClient(endpoints) as client, asyncio.timeout(10.0):
            await scenario(client)

    with FakeCluster(3) as cluster:
        asyncio.run(main(cluster.endpoints))


# ---- by policy, in whole nodes ----

KEPT = 40
ROUNDS = 60


def overwrite(cluster: MemoryCluster, rounds: int) -> None:
    """Five keys, again and again: revision r has the value r."""
    caller = cluster.client(cluster.leader())
    for _ in range(rounds):
        revision = int(str(cluster.status(cluster.leader())["revision"]))
        bodies = [
            protocol.put_body(0, 0, 0, b"/k%d" % ((revision + offset) % 5), b"%d" % (revision + offset))
            for offset in range(1, 6)
        ]
        assert [result[0] for result in caller.call(protocol.WRITE, bodies)] == [protocol.OK] * 5
        cluster.run(0.05)


def compacted_at(cluster: MemoryCluster) -> int:
    """The oldest revision, once all nodes have applied the same."""
    cluster.run(3.0)
    states = {
        tuple(cluster.status(name)[field] for field in ("revision", "compact_revision"))
        for name in cluster.names
    }
    [(revision, oldest)] = states
    assert isinstance(revision, int) and isinstance(oldest, int)
    assert KEPT <= revision - oldest + 1 <= KEPT + KEPT // 10 + 5
    return oldest


def check_the_past(cluster: MemoryCluster, oldest: int, newest: int) -> None:
    for name in cluster.names:
        caller = cluster.client(name)
        for kind in (protocol.READ, protocol.STALE_READ):
            for revision in (oldest, oldest + 7, newest - 1):
                answer: Any
                [answer] = caller.call(kind, [protocol.range_body(b"/", b"0", revision=revision)])
                shown = {key: int(value) for key, value, *_ in answer[4]}
                expected = {b"/k%d" % (number % 5): number for number in range(revision - 4, revision + 1)}
                assert shown == expected, (name, revision)
            [refused] = caller.call(kind, [protocol.range_body(b"/k0", revision=oldest - 1)])
            assert refused[::2] == [protocol.COMPACTED, oldest], name
        for key, end in ((b"/k0", b""), (b"/", b"0")):
            body = protocol.watch_history_body(key, end, start_revision=oldest - 1)
            [gone] = caller.call(protocol.STALE_READ, [body])
            assert gone[::2] == [protocol.COMPACTED, oldest], name
            body = protocol.watch_history_body(key, end, start_revision=oldest)
            kept: Any
            [kept] = caller.call(protocol.STALE_READ, [body])
            revisions = [revision for revision, _ in kept[5]]
            assert kept[0] == protocol.OK and revisions[-1] > newest - 5 and revisions[0] >= oldest
            if end:
                assert revisions == list(range(oldest, newest + 1))


def test_all_nodes_forget_the_same_and_have_the_rest_exactly_and_after_a_restart_still() -> None:
    cluster = MemoryCluster(seed=1, history_revisions=KEPT)
    overwrite(cluster, ROUNDS)
    oldest = compacted_at(cluster)
    newest = 1 + 5 * ROUNDS
    check_the_past(cluster, oldest, newest)
    for name in cluster.names:
        cluster.crash(name)
    for name in cluster.names:
        cluster.start(name)
    cluster.leader()
    assert compacted_at(cluster) == oldest
    check_the_past(cluster, oldest, newest)


def test_the_next_leader_goes_on_and_a_node_that_was_away_gets_the_past_with_the_snapshot() -> None:
    cluster = MemoryCluster(seed=2, history_revisions=KEPT, snapshot_interval_entries=50, trailing_entries=5)
    overwrite(cluster, 10)
    first = cluster.leader()
    cluster.crash(first)
    overwrite(cluster, ROUNDS)
    cluster.start(first)
    newest = 1 + 5 * (10 + ROUNDS)
    check_the_past(cluster, compacted_at(cluster), newest)
    assert int(str(cluster.status(first)["snapshot_index"])) > 0


def test_only_the_leaders_settings_count_and_without_bounds_nothing_is_forgotten() -> None:
    cluster = MemoryCluster(seed=3, history_revisions=0)
    overwrite(cluster, ROUNDS)
    cluster.run(3.0)
    assert {cluster.status(name)["compact_revision"] for name in cluster.names} == {0}


def test_an_idle_node_gives_back_what_was_compacted_whoever_leads() -> None:
    """More than one call of apply() gives back; after it nobody writes, and nobody reads."""
    cluster = MemoryCluster(seed=5, history_revisions=0)
    caller = cluster.client(cluster.leader())
    bodies = [protocol.put_body(0, 0, 0, b"/k", b"%d" % number) for number in range(500)]
    for _ in range(12):
        assert [code for code, *_ in caller.call(protocol.WRITE, bodies)] == [protocol.OK] * 500
    last = 1 + 12 * 500
    assert caller.call(protocol.WRITE, [protocol.compact_body(0, 0, 0, last)]) == [[protocol.OK, last]]
    cluster.run(3.0)
    for name in cluster.names:
        machine = cluster.status(name)
        assert (machine["compact_revision"], machine["keys"]) == (last, 1)
        assert int(str(machine["history_bytes"])) < 100, name


def test_giving_memory_back_changes_nothing_of_the_state_and_comes_to_an_end() -> None:
    log, tidied = Log(), Log()
    for one in (log, tidied):
        one.apply(*(protocol.put_body(0, 0, 0, b"k%d" % (number % 3), b"v") for number in range(9000)))
        compact(one, 9000)
    kept: list[int] = []
    while tidied.machine.kept_history().is_sweeping:
        tidied.machine.tidy()
        kept.append(tidied.machine.kept_history().size_bytes)
        assert tidied.machine.fingerprint() == log.machine.fingerprint()
        assert b"".join(tidied.machine.snapshot()) == b"".join(log.machine.snapshot())
    assert len(kept) > 2 and kept == sorted(kept, reverse=True) and kept[-1] < 300
    tidied.machine.tidy()
    assert tidied.machine.kept_history().size_bytes == kept[-1]
    assert tidied.machine.digest() == log.machine.digest()


def test_an_idle_cluster_writes_nothing_into_its_log_for_the_sake_of_its_past() -> None:
    cluster = MemoryCluster(seed=4, history_revisions=KEPT)
    overwrite(cluster, ROUNDS)
    compacted_at(cluster)
    before = cluster.status("n1")["last_index"]
    cluster.run(20.0)
    assert cluster.status("n1")["last_index"] == before


def test_the_body_is_what_the_protocol_says() -> None:
    assert msgpack.unpackb(protocol.compact_body(9, 3, 2, 77)) == [9, 3, 2, 5, 77]
