"""Exactly once, also while the alarm of a quota or of a disk is on: only what is new is refused."""

from __future__ import annotations

import msgpack
import pytest

from kvstore import protocol, settings
from kvstore.protocol import Results, close_session_body, delete_body, open_session_body, put_body
from kvstore.protocol_lease import grant_body
from kvstore.query_batch import MAX_QUERY_BYTES
from kvstore.transaction_bodies import encode_list, transaction_body
from tests.kvstore.machine_log import Log
from tests.kvstore.memory_cluster import STEP_SECONDS, MemoryCluster

NONCE = bytes(16)


def txn_body(session_id: int, sequence: int, key: bytes) -> bytes:
    puts = encode_list([(protocol.PUT, key, b"v", 0, 0)])
    return transaction_body(session_id, sequence, 1, b"", puts, b"")


def results(cluster: MemoryCluster, *bodies: bytes) -> list[list[object]]:
    """Of one frame to the leader, whichever parts of it are answered first."""
    client, found = cluster.client(cluster.leader()), dict[int, list[object]]()
    client.ask(protocol.WRITE, list(bodies))
    for _ in range(400):
        cluster.run(STEP_SECONDS)
        for reply in client.replies():
            assert isinstance(reply, Results), reply
            answers = protocol.split_results(reply.blob, reply.request_count)
            found.update(enumerate(answers, reply.first_request_id))
        if len(found) == len(bodies):
            return [found[number] for number in sorted(found)]
    raise AssertionError(f"no answer but {found}")


def opened(cluster: MemoryCluster, nonce: bytes = NONCE) -> int:
    [[_, _, session]] = results(cluster, open_session_body(nonce))
    assert type(session) is int
    return session


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> MemoryCluster:
    """With a quota of 50 000 bytes."""
    monkeypatch.setattr(settings, "MEBIBYTE", 1)
    monkeypatch.setattr("kvstore.node.MEBIBYTE", 1)
    return MemoryCluster(7, quota_mib=50_000, history_mib=1 << 30)


def raise_alarm(cluster: MemoryCluster) -> None:
    results(cluster, *(put_body(0, 0, 0, b"/%02d" % number, bytes(1000)) for number in range(60)))
    cluster.run(0.6)
    assert cluster.status(cluster.leader())["quota_exceeded"] is True


def test_a_retry_has_its_first_result_though_puts_are_refused(cluster: MemoryCluster) -> None:
    """The answer was lost, and by the time of the retry the store is above its quota."""
    session = opened(cluster)
    writes = [
        put_body(session, 1, 1, b"k", b"v"), txn_body(session, 2, b"l"), grant_body(session, 3, 1, 30, 7)
    ]  # fmt: skip
    first = results(cluster, *writes)
    assert [result[0] for result in first] == [protocol.OK] * 3
    raise_alarm(cluster)
    new = [put_body(session, 4, 1, b"k", b"w"), txn_body(session, 5, b"l"), grant_body(session, 6, 1, 30, 8)]
    both = [body for pair in zip(writes, new) for body in pair]
    answers = results(cluster, *both, delete_body(session, 7, 1, b"k"))
    assert answers[:6:2] == first
    assert [answer[0] for answer in answers[1:6:2]] == [protocol.SPACE_EXCEEDED] * 3
    assert "quota" in str(answers[1][1])
    assert answers[6][::2] == [protocol.OK, 1], "deletes go on, in the midst of it"


def test_so_it_is_under_another_leader(cluster: MemoryCluster) -> None:
    first_leader = cluster.leader()
    session = opened(cluster)
    first = results(cluster, put_body(session, 1, 1, b"k", b"v"))
    raise_alarm(cluster)
    cluster.crash(first_leader)
    cluster.run(2.0)
    assert cluster.status(cluster.leader())["quota_exceeded"] is True
    assert results(cluster, put_body(session, 1, 1, b"k", b"v")) == first
    assert results(cluster, put_body(session, 2, 1, b"k", b"v"))[0][0] == protocol.SPACE_EXCEEDED


def test_what_is_refused_is_refused_for_its_own_reason(cluster: MemoryCluster) -> None:
    """As with room: what nobody can read, what is acknowledged, what belongs to no session any more."""
    session, closed = opened(cluster), opened(cluster, NONCE[1:] + b"c")
    results(cluster, put_body(session, 1, 1, b"k", b"v"), put_body(session, 2, 2, b"k", b"w"))
    results(cluster, close_session_body(closed, 1, 1))
    raise_alarm(cluster)
    asked = [
        put_body(session, 1, 1, b"k", b"v"),
        put_body(closed, 1, 1, b"k", b"v"),
        b"nonsense",
        put_body(session, 3, 1, b"", b"v"),
        put_body(0, 0, 0, b"k", b"v"),
    ]
    codes = [result[0] for result in results(cluster, *asked)]
    assert codes == [
        protocol.SEQUENCE_FORGOTTEN,
        protocol.SESSION_EXPIRED,
        protocol.BAD_REQUEST,
        protocol.EMPTY_KEY,
        protocol.SPACE_EXCEEDED,
    ]


def test_to_ask_for_a_result_changes_nothing() -> None:
    """Nor does it keep a session alive: that would be known to one node alone."""
    log = Log()
    [[_, _, session]] = log.apply(open_session_body(NONCE))
    [first] = log.apply(put_body(session, 2, 1, b"k", b"v"))
    log.apply(open_session_body(NONCE[1:] + b"c"))
    before = log.machine.digest()
    refusal = msgpack.packb((protocol.SPACE_EXCEEDED, "no room"))
    asked = [protocol.remembered_body(session, sequence, refusal) for sequence in (2, 1, 3)]
    asked += [protocol.remembered_body(99, 1, refusal), protocol.remembered_body(0, 0, refusal)]
    answers = [msgpack.unpackb(answer) for answer in log.machine.query(asked)]
    assert answers[0] == first
    assert [answer[0] for answer in answers[1:]] == [
        protocol.SPACE_EXCEEDED, protocol.SPACE_EXCEEDED, protocol.SESSION_EXPIRED, protocol.SPACE_EXCEEDED
    ]  # fmt: skip
    assert log.machine.digest() == before


@pytest.mark.parametrize("kind", [protocol.READ, protocol.STALE_READ])
def test_a_client_cannot_ask_that_itself(cluster: MemoryCluster, kind: int) -> None:
    """What a session remembers is for whoever repeats the write, and nobody else's business."""
    session = opened(cluster)
    results(cluster, put_body(session, 1, 1, b"k", b"v"))
    [answer] = cluster.client(cluster.leader()).call(kind, [protocol.remembered_body(session, 1, b"\x00")])
    assert answer[0] == protocol.BAD_REQUEST


def test_a_large_result_is_given_however_much_else_is_asked_for() -> None:
    """To say "too much" of a write would be to say that it was not carried out."""
    log = Log()
    session = log.open_session()
    log.put(b"k", bytes(1_000_000))
    log.apply(delete_body(session, 1, 1, b"k", flags=protocol.PREV_KV))
    asked = protocol.remembered_body(session, 1, msgpack.packb((protocol.SPACE_EXCEEDED, "no room")))
    answers = log.machine.query([asked] * 80)
    assert len(answers[0]) * 80 > MAX_QUERY_BYTES
    assert {msgpack.unpackb(answer)[0] for answer in answers} == {protocol.OK}
