"""Transactions of whole nodes: through failover, read on any of them, and told to watchers as one."""

from __future__ import annotations

import msgpack
import pytest

from kvstore import protocol, watch_frames
from kvstore.protocol import OK, Results
from tests.kvstore.machine_log import NONCE, Log
from tests.kvstore.memory_cluster import MemoryCluster
from tests.kvstore.transaction_log import asked, compare, delete, nested, put, read, transact, written


def test_a_transaction_is_read_on_every_node_as_it_was_written() -> None:
    cluster = MemoryCluster(seed=11)
    leader = cluster.leader()
    inner = nested([compare("version", b"/a", "=", 0)], [put(b"/b"), read(b"/a")], [delete(b"/c")])
    [[code, revision, succeeded, results]] = cluster.client(leader).call(
        protocol.WRITE, [written([], [put(b"/a"), inner])]
    )
    record = [b"/a", b"v", 2, 2, 1, 0]
    assert [code, revision, succeeded] == [OK, 2, True]
    assert results == [[OK, 2, None], [OK, 2, True, [[OK, 2, None], [OK, 2, 1, False, [record]]]]]
    for name in cluster.names:
        body = asked([compare("mod", b"/a", "=", 2, range_end=b"/c")], [read(b"/a")], [read(b"/b")])
        [answer] = cluster.client(name).call(protocol.READ, [body])
        assert answer == [OK, 2, True, [[OK, 2, 1, False, [record]]]]


@pytest.mark.parametrize("seed", range(12, 16))
def test_g1_a_compare_and_put_is_done_once_though_its_leader_dies(seed: int) -> None:
    """It is asked for again at the next leader. Were it done again there, its compare would fail."""
    cluster = MemoryCluster(seed)
    first = cluster.leader()
    [[_, _, session_id]] = cluster.client(first).call(protocol.WRITE, [protocol.open_session_body(NONCE)])
    assert isinstance(session_id, int)
    body = written(
        [compare("create", b"/lock", "=", 0)],
        [put(b"/lock", b"me")],
        [read(b"/lock")],
        (session_id, 1, 1),
    )
    cluster.client(first).ask(protocol.WRITE, [body])
    for _ in range(seed - 10):
        cluster.turn_all()  # the seeds differ in how far it came
    cluster.crash(first)
    second = cluster.leader()
    expected = None
    for _ in range(3):
        caller = cluster.client(second)
        caller.ask(protocol.WRITE, [body])
        cluster.run(0.5)
        [reply] = caller.replies()
        assert isinstance(reply, Results)
        [result] = protocol.split_results(reply.blob, 1)
        assert result[2] is True and result == (expected or result)
        expected = result
    [[_, revision, _, _, records]] = cluster.client(second).call(
        protocol.READ, [protocol.range_body(b"/lock")]
    )
    assert records == [[b"/lock", b"me", 2, 2, 1, 0]] and revision == 2


def test_h7_a_transaction_of_50_keys_is_one_message_and_one_revision_of_the_history() -> None:
    log = Log()
    topic = watch_frames.stream_topic(b"/k", b"/l")
    log.machine.watch_plane.subscribed([b"\x01" + topic])
    for number in range(0, 50, 2):
        log.put(b"/k%02d" % number)
    log.machine.watch_plane.announcements()
    changes = [(delete if number % 4 else put)(b"/k%02d" % number) for number in range(0, 50, 2)]
    changes += [put(b"/k%02d" % number) for number in range(1, 50, 2)]
    result = transact(log, [], [nested([], changes[:20]), *changes[20:], put(b"/other")])
    revision = result[1]
    [[sent_on, header, packed]] = log.machine.watch_plane.announcements()
    events = msgpack.unpackb(packed)
    assert (sent_on, len(events)) == (topic, 50)
    assert watch_frames.decode_stream_message(header, packed)[0].revision == revision
    assert [event[1] for event in events] == [b"/k%02d" % number for number in range(50)]
    assert {event[4] for event in events} == {revision}
    page = log.ask(protocol.watch_history_body(b"/k", b"/l", start_revision=revision, limit_bytes=1))
    assert page[5] == [[revision, events]]


def test_c8_of_many_who_compare_and_put_at_the_same_moment_one_succeeds() -> None:
    """All of them are proposed before any of them is applied, and go to the log together."""
    cluster = MemoryCluster(seed=17)
    leader = cluster.leader()
    for round_number in range(1, 4):
        is_as_it_was = compare("version", b"/counter", "=", round_number - 1)
        callers = [cluster.client(leader) for _ in range(5)]
        for number, caller in enumerate(callers):
            mine = put(b"/counter", b"%d" % number)
            caller.ask(protocol.WRITE, [written([is_as_it_was], [mine], [read(b"/counter")])])
        cluster.run(0.5)
        answers = []
        for caller in callers:
            [reply] = caller.replies()
            assert isinstance(reply, Results)
            answers += protocol.split_results(reply.blob, 1)
        assert sorted(answer[2] for answer in answers) == [False] * 4 + [True]
        [winner] = [number for number, answer in enumerate(answers) if answer[2]]
        seen = [answer[3][0][4][0][1] for answer in answers if not answer[2]]
        assert seen == [b"%d" % winner] * 4
