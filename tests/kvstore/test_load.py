"""The load generator against small nodes in threads: what it sends and believes, and does in trouble.

The nodes here speak the client protocol over a real ROUTER and keep the promises of sessions; each test
bends one of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import zmq

from kvstore import protocol
from kvstore.client import load
from kvstore.client.load import LoadFailed, LoadRefused, LoadSettings, run_load
from tests.kvstore.pretended_nodes import (
    DEADLINE_SECONDS,
    Answer,
    Node,
    Store,
    is_put,
    refusal_frame,
    results_frame,
)


@pytest.fixture
def start() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def start_node(store: Store, answer: Answer | None = None) -> Node:
        nodes.append(Node(store, answer))
        return nodes[-1]

    yield start_node
    for node in nodes:
        node.stop()
    assert [problem for node in nodes for problem in node.problems] == []


def settings(kind: load.LoadKind, *nodes: Node, **changes: Any) -> LoadSettings:
    defaults: dict[str, Any] = {
        "connections": 4, "in_flight": 8, "value_bytes": 32, "total": 500, "keys": 50,
        "timeout_seconds": DEADLINE_SECONDS, "silence_seconds": 0.2,
    }  # fmt: skip
    return LoadSettings(kind=kind, endpoints=[node.endpoint for node in nodes], **(defaults | changes))


# ---- what a sound cluster gets


def test_every_put_is_applied_once_and_timed_on_its_own(start: Callable[..., Node]) -> None:
    node = start(Store())
    result = run_load(settings("put", node))
    assert (result.completed, result.errors, result.retries) == (500, 0, 0)
    assert node.store.puts == 500
    assert len(node.connections) == 4
    assert 0 < result.p50_ms <= result.p99_ms <= result.p999_ms <= result.max_ms
    assert result.ops_per_second == pytest.approx(500 / result.seconds)


def test_a_frame_has_as_many_requests_as_the_window_has_room_for(start: Callable[..., Node]) -> None:
    node = start(Store())
    run_load(settings("put", node, connections=2, in_flight=8, total=160))
    sizes = [len(request.bodies) for request in node.requests if is_put(request)]
    assert max(sizes) == 8
    assert sum(sizes) == 160
    # Answered in whole frames, so asked again in whole frames.
    assert len(sizes) == 20


def test_sessions_are_opened_for_each_connection_and_closed_at_the_end(start: Callable[..., Node]) -> None:
    node = start(Store())
    run_load(settings("put", node, connections=5))
    assert len(node.store.sessions) == 5
    assert node.store.closed == {1, 2, 3, 4, 5}


def test_keys_are_drawn_from_the_key_space_alike_for_the_same_seed(start: Callable[..., Node]) -> None:
    def keys_of(seed: int) -> list[bytes]:
        node = start(Store())
        run_load(settings("put", node, connections=1, in_flight=4, keys=20, seed=seed, total=300))
        puts = [body for request in node.requests if is_put(request) for body in request.bodies]
        return [msgpack.unpackb(body)[4] for body in puts]

    first, again, other = keys_of(7), keys_of(7), keys_of(8)
    assert first == again != other
    assert set(first) == {b"/bench/k%04d" % number for number in range(20)}


def test_a_frame_stays_below_the_limit_of_the_protocol(start: Callable[..., Node]) -> None:
    node = start(Store())
    result = run_load(settings("put", node, connections=1, in_flight=6, value_bytes=1 << 20, total=12))
    assert (result.completed, result.errors) == (12, 0)


@pytest.mark.parametrize(("kind", "frame_kind"), [("get", protocol.READ), ("local-get", protocol.STALE_READ)])
def test_gets_find_keys_that_were_written_before(
    start: Callable[..., Node], kind: load.LoadKind, frame_kind: int
) -> None:
    node = start(Store())
    result = run_load(settings(kind, node))
    assert (result.completed, result.errors) == (500, 0)
    assert node.store.puts == 50
    asked = sum(len(request.bodies) for request in node.requests if request.kind == frame_kind)
    assert asked == 500


def test_local_gets_are_dealt_to_all_endpoints(start: Callable[..., Node]) -> None:
    store = Store()
    leader, follower = start(store), start(store)
    leader.leader_endpoint = follower.leader_endpoint = leader.endpoint
    run_load(settings("local-get", leader, follower))
    counts = [
        sum(request.kind == protocol.STALE_READ for request in node.requests) for node in (leader, follower)
    ]
    assert min(counts) > 0
    assert not any(is_put(request) for request in follower.requests)


def test_the_result_is_plain_data(start: Callable[..., Node]) -> None:
    result = run_load(settings("put", start(Store()), total=20))
    told = json.loads(json.dumps(result.as_dict()))
    assert told["completed"] == 20
    assert told["p999_ms"] == result.p999_ms


# ---- what is wrong is counted as wrong


def test_failed_puts_are_errors_and_not_completed(start: Callable[..., Node]) -> None:
    def refuse_some(node: Node, request: protocol.Request) -> list[bytes] | None:
        if not is_put(request):
            return None
        results = [
            [protocol.TOO_LARGE, "too large"]
            if (request.first_request_id + place) % 10 == 0
            else node.store.write(body)
            for place, body in enumerate(request.bodies)
        ]
        return [results_frame(request, results)]

    # The first body of a retry would be told apart from others by the store; a failed put is not retried.
    node = start(AnyAcknowledgement(), refuse_some)
    result = run_load(settings("put", node, connections=1, total=100))
    assert result.completed == 90
    assert result.failures == {"too_large": 10}
    assert result.errors == 10


class AnyAcknowledgement(Store):
    """For nodes that fail some puts: those were answered, though the store never saw them."""

    def write(self, body: bytes) -> list[Any]:
        session_id, sequence, _below, op, *arguments = msgpack.unpackb(body)
        below = 0 if op == protocol.PUT else _below
        return super().write(msgpack.packb([session_id, sequence, below, op, *arguments]))


def test_two_puts_with_one_revision_are_an_error(start: Callable[..., Node]) -> None:
    def same_revision(node: Node, request: protocol.Request) -> list[bytes] | None:
        if not is_put(request):
            return None
        return [results_frame(request, [[protocol.OK, 7, None]] * len(request.bodies))]

    result = run_load(settings("put", start(Store(), same_revision), total=40))
    assert result.failures == {"repeated_revision": 39}
    assert result.completed == 1


@pytest.mark.parametrize("damage", ["shorter value", "other key", "no key", "not a range"])
def test_gets_with_another_answer_are_errors(start: Callable[..., Node], damage: str) -> None:
    def wrong(node: Node, request: protocol.Request) -> list[bytes] | None:
        if request.kind != protocol.READ:
            return None
        results = [node.store.read(body) for body in request.bodies]
        [found] = results[0][4]
        results[0][4] = {
            "shorter value": [[found[0], found[1][:-1]]],
            "other key": [[b"/other", found[1]]],
            "no key": [],
            "not a range": 5,
        }[damage]
        return [results_frame(request, results)]

    result = run_load(settings("get", start(Store(), wrong), in_flight=1, total=40))
    assert result.failures == {"wrong_value": 40}
    assert (result.completed, result.p50_ms) == (0, 0.0)


def test_answers_to_nothing_and_garbage_are_errors(start: Callable[..., Node]) -> None:
    def noisy(node: Node, request: protocol.Request) -> list[bytes] | None:
        if not is_put(request):
            return None
        stray = protocol.encode_results(10**6, 1, msgpack.packb([protocol.OK, 5, None]))
        return [stray, b"\x01garbage", *node.sound_answer(request)]

    result = run_load(settings("put", start(Store(), noisy), connections=1, in_flight=1, total=5))
    assert result.completed == 5
    assert result.failures == {"answer_to_nothing": 5, "malformed_reply": 5}
    assert result.errors == 10


def test_a_request_which_the_node_cannot_read_is_no_retry(start: Callable[..., Node]) -> None:
    def bad_frame(node: Node, request: protocol.Request) -> list[bytes] | None:
        return [refusal_frame(request, protocol.BAD_FRAME)] if is_put(request) else None

    result = run_load(settings("put", start(Store(), bad_frame), total=30))
    assert result.failures == {"bad_frame": 30}
    assert result.retries == 0


# ---- trouble


def test_a_follower_sends_the_load_to_the_leader(start: Callable[..., Node]) -> None:
    store = Store()
    leader = start(store)
    follower = start(store, lambda _, request: [refusal_frame(request, protocol.NOT_LEADER, leader.endpoint)])
    result = run_load(settings("put", follower))
    assert (result.completed, result.errors, store.puts) == (500, 0, 500)
    assert len(follower.requests) == 4


def test_the_leader_named_by_any_node_is_used_from_the_start(start: Callable[..., Node]) -> None:
    store = Store()
    leader, follower = start(store), start(store)
    leader.leader_endpoint = follower.leader_endpoint = leader.endpoint
    assert run_load(settings("put", follower)).completed == 500
    assert follower.requests == []


@pytest.mark.parametrize(
    "code",
    [
        protocol.NO_LEADER,
        protocol.OVERLOADED,
        protocol.SHUTTING_DOWN,
        protocol.CONFLICT_WITH_LEADER,
        protocol.OUTCOME_UNKNOWN,
        protocol.DEADLINE_EXCEEDED,
    ],
)
def test_refused_puts_are_sent_again_with_the_same_session_and_sequence(
    start: Callable[..., Node], code: int
) -> None:
    refused: list[bytes] = []

    def refuse_first(node: Node, request: protocol.Request) -> list[bytes] | None:
        if refused or not is_put(request):
            return None
        if code == protocol.OUTCOME_UNKNOWN:  # it was applied, after all
            node.sound_answer(request)
        refused.extend(request.bodies)
        return [refusal_frame(request, code)]

    node = start(Store(), refuse_first)
    node.leader_endpoint = node.endpoint
    result = run_load(settings("put", node, total=64))
    sent = [body for request in node.requests for body in request.bodies]
    assert (result.completed, result.errors, node.store.puts) == (64, 0, 64)
    assert [sent.count(body) for body in refused] == [2] * 8
    assert result.refusals == {protocol.CODE_NAMES[code]: 8}


def test_a_part_of_a_frame_that_was_refused_is_sent_again_alone(start: Callable[..., Node]) -> None:
    refused: list[int] = []

    def refuse_the_middle(node: Node, request: protocol.Request) -> list[bytes] | None:
        if refused or not is_put(request):
            return None
        first = request.first_request_id
        refused.extend([first + 2, first + 3])
        parts = [(first, request.bodies[:2]), (first + 4, request.bodies[4:])]
        frames = [
            results_frame(request._replace(first_request_id=at), list(map(node.store.write, bodies)))
            for at, bodies in parts
        ]
        return [*frames, protocol.encode_refused(first + 2, 2, protocol.OVERLOADED, "no")]

    node = start(Store(), refuse_the_middle)
    node.leader_endpoint = node.endpoint
    result = run_load(settings("put", node, connections=1, total=80))
    assert (result.completed, result.errors, node.store.puts) == (80, 0, 80)
    assert result.refusals == {"overloaded": 2}


def test_a_silent_node_is_left_and_nothing_applies_twice(start: Callable[..., Node]) -> None:
    """The reply is lost after the put was applied; the retry elsewhere gets the first result."""
    store = Store()

    def apply_in_silence(node: Node, request: protocol.Request) -> list[bytes] | None:
        if not is_put(request) or len(node.requests) < 20:
            return None
        node.sound_answer(request)
        return []

    dying, other = start(store, apply_in_silence), start(store)
    dying.leader_endpoint = other.leader_endpoint = dying.endpoint
    result = run_load(settings("put", dying, other))
    assert (result.completed, result.errors) == (500, 0)
    assert store.puts == 500
    assert result.refusals["silence"] > 0
    assert result.max_ms >= 200


def test_many_connections_may_move_at_once_and_again(start: Callable[..., Node]) -> None:
    store = Store()
    moves = 0

    def send_away(node: Node, request: protocol.Request) -> list[bytes] | None:
        nonlocal moves
        if not is_put(request) or moves >= 600:
            return None
        moves += 1
        return [refusal_frame(request, protocol.SHUTTING_DOWN)]

    nodes = [start(store, send_away), start(store, send_away)]
    result = run_load(settings("put", *nodes, connections=60, in_flight=1, total=200))
    assert (result.completed, result.errors, store.puts) == (200, 0, 200)
    assert result.refusals["shutting_down"] == 600


def test_two_nodes_that_point_at_each_other_are_not_hammered(start: Callable[..., Node]) -> None:
    store = Store()
    nodes: list[Node] = []

    def point_away(node: Node, request: protocol.Request) -> list[bytes] | None:
        if not is_put(request):
            return None
        [other] = [each for each in nodes if each is not node]
        return [refusal_frame(request, protocol.NOT_LEADER, other.endpoint)]

    nodes += [start(store, point_away), start(store, point_away)]
    nodes[0].leader_endpoint = nodes[0].endpoint
    result = run_load(settings("put", *nodes, connections=1, in_flight=1, total=1, timeout_seconds=0.7))
    assert result.failures == {"unanswered": 1}
    assert 2 < sum(len(node.requests) for node in nodes) < 25


def test_the_load_ends_at_its_deadline_and_tells_what_is_missing(start: Callable[..., Node]) -> None:
    node = start(Store(), lambda _, request: [] if is_put(request) else None)
    node.leader_endpoint = node.endpoint
    begun = time.monotonic()
    result = run_load(settings("put", node, timeout_seconds=0.5))
    assert time.monotonic() - begun < 3
    assert result.failures == {"unanswered": 500}
    assert (result.completed, result.errors, result.ops_per_second) == (0, 500, 0)


def test_without_any_node_the_load_fails_and_names_the_endpoints() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        endpoint = f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
    with pytest.raises(LoadFailed) as failed:
        run_load(LoadSettings(kind="put", endpoints=[endpoint], timeout_seconds=0.2))
    assert failed.value.endpoints == [endpoint]
    assert endpoint in str(failed.value)


def test_without_sessions_the_load_fails_and_says_why(start: Callable[..., Node]) -> None:
    node = start(Store(), lambda _, request: [refusal_frame(request, protocol.NO_LEADER)])
    node.leader_endpoint = node.endpoint
    with pytest.raises(LoadFailed, match="no_leader"):
        run_load(settings("put", node, timeout_seconds=0.4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"connections": 0}, {"connections": 10_001}, {"in_flight": 0}, {"in_flight": 4097}, {"total": 0},
        {"keys": 0}, {"value_bytes": -1}, {"value_bytes": (1 << 20) + 1}, {"timeout_seconds": 0},
        {"silence_seconds": -1}, {"kind": "delete"}, {"endpoints": []},
    ],
)  # fmt: skip
def test_settings_which_cannot_be_run_are_named(wrong: dict[str, Any]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(LoadRefused) as refused:
        LoadSettings(**({"kind": "put", "endpoints": ["tcp://127.0.0.1:1"]} | wrong))
    assert (refused.value.setting, refused.value.value) == (name, value)
    assert name in str(refused.value)


# ---- the figures


def test_percentiles_of_a_known_row() -> None:
    latencies = [number / 1000 for number in range(1, 1001)]
    shares = {0.5: 501, 0.99: 991, 0.999: 1000, 1.0: 1000}
    assert {share: round(load.percentile_ms(latencies, share)) for share in shares} == shares
    assert load.percentile_ms([], 0.5) == 0


def test_latency_is_that_of_the_answer_and_not_of_the_frame_before_it(start: Callable[..., Node]) -> None:
    def slow(node: Node, request: protocol.Request) -> list[bytes] | None:
        if is_put(request):
            time.sleep(0.03)
        return None

    result = run_load(settings("put", start(Store(), slow), connections=1, in_flight=1, total=5))
    assert 30 <= result.p50_ms < 300
    assert result.seconds >= 0.15
