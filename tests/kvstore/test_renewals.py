"""Renewals of leases that come one by one: few go to the log, all are answered, none waits long."""

from __future__ import annotations

import pytest

from kvstore import protocol
from kvstore.pending import Batch
from kvstore.protocol import Refusal, Results, put_body
from kvstore.protocol_admin import MoveLeader
from kvstore.protocol_lease import grant_body, keepalive_body, revoke_body
from kvstore.renewals import GATHER_SECONDS, Renewals, is_renewal
from raft.entries import EntryBatch, HardState
from raft.storage import MemoryStorage
from tests.kvstore.memory_cluster import Caller, MemoryCluster

TTL_SECONDS = 60
LEASES = 40


def granted(client: Caller) -> list[int]:
    bodies = [grant_body(0, 0, 0, TTL_SECONDS) for _ in range(LEASES)]
    results = client.call(protocol.WRITE, bodies)
    return [int(str(lease)) for _, _, lease, _ in results]


def ttls(reply: Results | Refusal) -> list[int]:
    assert isinstance(reply, Results), reply
    [[code, _, renewed]] = protocol.split_results(reply.blob, 1)
    assert code == protocol.OK and isinstance(renewed, list)
    return renewed


def test_renewals_of_many_clients_go_to_the_log_together_and_all_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = MemoryCluster(3)
    leader = cluster.leader()
    leases = granted(cluster.client(leader))
    clients = [cluster.client(leader) for _ in leases]
    appends: list[int] = []
    append = MemoryStorage.append

    def count(disk: MemoryStorage, hard_state: HardState | None, batch: EntryBatch | None) -> None:
        if batch is not None and disk is cluster.disks[leader]:
            appends.append(len(batch.entries))
        append(disk, hard_state, batch)

    monkeypatch.setattr(MemoryStorage, "append", count)
    for client, lease in zip(clients, leases, strict=True):
        client.ask(protocol.WRITE, [keepalive_body([lease])])
        cluster.run(0.01)
    cluster.run(GATHER_SECONDS + 0.05)
    answers = [reply for client in clients for reply in client.replies()]
    assert list(map(ttls, answers)) == [[TTL_SECONDS]] * LEASES
    seconds = LEASES * 0.01 + GATHER_SECONDS + 0.05
    assert len(appends) <= seconds / GATHER_SECONDS + seconds / 0.5 + 2 and max(appends) >= 5, appends


def test_a_lone_renewal_leaves_at_once() -> None:
    cluster = MemoryCluster(4)
    client = cluster.client(cluster.leader())
    [lease, *_] = granted(client)
    cluster.run(2 * GATHER_SECONDS)
    asked_at = cluster.clock.now()
    assert client.call(protocol.WRITE, [keepalive_body([lease])])[0][2] == [TTL_SECONDS]
    assert cluster.clock.now() - asked_at < GATHER_SECONDS / 2


def test_a_renewal_is_carried_out_in_its_place_among_other_writes() -> None:
    """What a client sends behind it, without waiting, is behind it; and what it sends before is before."""
    cluster = MemoryCluster(5)
    client = cluster.client(cluster.leader())
    [first, second, *_] = granted(client)
    client.call(protocol.WRITE, [keepalive_body([first])])
    client.ask(protocol.WRITE, [keepalive_body([first])])
    client.ask(protocol.WRITE, [revoke_body(0, 0, 0, first)])
    client.ask(protocol.WRITE, [revoke_body(0, 0, 0, second)])
    client.ask(protocol.WRITE, [keepalive_body([second])])
    cluster.run(0.05)
    renewed, _, _, late = client.replies()
    assert ttls(renewed) == [TTL_SECONDS] and ttls(late) == [0]


def test_what_a_leader_held_when_it_lost_its_place_is_answered() -> None:
    cluster = MemoryCluster(6)
    leader = cluster.leader()
    client = cluster.client(leader)
    [lease, *_] = granted(client)
    client.call(protocol.WRITE, [keepalive_body([lease])])
    cluster.change(MoveLeader(next(name for name in cluster.names if name != leader)))
    client.ask(protocol.WRITE, [keepalive_body([lease])])
    cluster.run(2 * GATHER_SECONDS)
    [reply] = client.replies()
    assert isinstance(reply, Refusal) and reply.code == protocol.NOT_LEADER


def test_only_renewals_of_few_leases_are_held() -> None:
    assert is_renewal([keepalive_body([7])]) and is_renewal([keepalive_body([1 << 60, 2])])
    others = [grant_body(0, 0, 0, 5), revoke_body(0, 0, 0, 5), put_body(0, 0, 0, b"k", b"v"), b"", b"\x94"]
    others.append(keepalive_body(range(1, 100)))
    assert not any(is_renewal([body]) for body in others)
    assert not is_renewal([keepalive_body([7]), keepalive_body([8])])


def test_what_is_held_leaves_with_the_next_writes_or_when_its_time_has_come() -> None:
    renewals, writes = Renewals(), Batch()
    renewals.held.add(1, [b"a"])
    assert renewals.is_due(5.0)
    renewals.join(writes, 5.0)
    assert writes.tickets == [1] and not renewals and renewals.due_at() is None
    renewals.held.add(2, [b"b"])
    assert not renewals.is_due(5.0) and renewals.due_at() == 5.0 + GATHER_SECONDS
    renewals.join(writes, 5.01)
    assert (writes.tickets, writes.counts, writes.bodies) == ([1, 2], [1, 1], [b"a", b"b"])
