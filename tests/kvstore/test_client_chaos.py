"""The client's core against servers that send anything, and networks that lose anything."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import errors, protocol
from kvstore.client.calls import Call, delete_call
from kvstore.protocol import OK, STATUS
from tests.kvstore.fake_wire import Desk, Sent

values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**64 - 1) | st.binary(max_size=8) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=7), st.booleans(), st.binary(max_size=40))
def test_no_frame_of_a_server_can_hurt(items: list[object], is_framed: bool, noise: bytes) -> None:
    """Random results, refusals and bytes."""
    desk = Desk().started()
    call = desk.submit(delete_call(b"k", b"", False), 5.0)
    desk.flush()
    sent = desk.take_one()
    first = sent.first_request_id
    frames = [noise, b"\x01" + noise, b"\x01" + msgpack.packb(items)]
    if is_framed:
        blob = msgpack.packb([0, *items])
        frames.append(protocol.encode_results(first, 1, blob))
        frames.append(b"\x01" + msgpack.packb([protocol.REFUSED, first, 2**62, *items[:4]]))
        frames.append(protocol.encode_results(desk.core.links.links[0].probe_id, 1, blob))
    for frame in frames:
        desk.receive(sent.connection, frame)
    if not call.done:
        desk.receive(sent.connection, protocol.encode_results(first, 1, msgpack.packb([OK, 9, 1, []])))
    assert call.done or call.link is None


def test_a_refusal_for_more_than_there_is_costs_no_more_than_there_is() -> None:
    desk = Desk().started()
    call = desk.put()
    desk.flush()
    sent = desk.take_one()
    frame = protocol.encode_refused(0, protocol.MAX_INTEGER, protocol.OVERLOADED, "no")
    desk.receive(sent.connection, frame)
    desk.pass_time(0.1)
    desk.reply(desk.take_one(), [OK, 3, None])
    assert call.done


# ---------------------------------------------------------------- exactly once, whatever happens


class Chaos:
    """Three nodes with one memory, and a chance of anything between them and the client."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.desk = Desk(seed=seed)
        self.applied: dict[tuple[int, int], int] = {}  # (session, sequence) to revision
        self.revision = 1
        self.calls: list[Call] = []

    def put(self) -> None:
        self.calls.append(self.desk.put(f"k{len(self.calls)}", seconds=self.chance.uniform(0.05, 3.0)))

    def step(self) -> None:
        chance, desk = self.chance, self.desk
        if chance.random() < 0.1 and len(self.calls) < 300:
            self.put()
        if chance.random() < 0.01:
            desk.leader, desk.term = chance.choice(["a", "b", "c", None]), desk.term + 1
        if chance.random() < 0.01 and desk.wire.endpoints:
            desk.core.on_lost(chance.choice(list(desk.wire.endpoints)), desk.now)
        desk.pass_time(chance.uniform(0.0, 0.005))
        desk.flush()
        for sent in desk.take(STATUS, protocol.WRITE):
            if sent.connection in desk.wire.endpoints and chance.random() > 0.05:
                desk.core.on_connected(sent.connection, desk.now)
                self.receive(sent)

    def receive(self, sent: Sent) -> None:
        chance, desk = self.chance, self.desk
        name = desk.name_of(sent)
        if sent.kind == STATUS:
            desk.reply(sent, [OK, desk.status(name)])
        elif name != desk.leader:
            code = protocol.NO_LEADER if desk.leader is None else protocol.NOT_LEADER
            desk.refuse(sent, code, desk.leader)
        elif chance.random() < 0.1:
            code = chance.choice([protocol.OVERLOADED, protocol.CONFLICT_WITH_LEADER])
            desk.refuse(sent, code, desk.leader)
        else:
            results = [self.apply(body) for body in sent.bodies]
            fate = chance.random()
            if fate < 0.1:
                desk.refuse(sent, protocol.OUTCOME_UNKNOWN, desk.leader)
            elif fate < 0.9:
                desk.reply(sent, *results)

    def apply(self, body: list[Any]) -> list[Any]:
        session_id, sequence, below, operation = body[:4]
        if operation == protocol.OPEN_SESSION:
            return [OK, self.revision, 7]
        assert below <= sequence
        if (session_id, sequence) not in self.applied:
            self.revision += 1
            self.applied[session_id, sequence] = self.revision
        return [OK, self.applied[session_id, sequence], None]


@pytest.mark.parametrize("seed", range(12))
def test_every_write_happens_once_or_is_of_unknown_outcome(seed: int) -> None:
    """Random loss of requests, answers and connections, refusals and changes of leader."""
    chaos = Chaos(seed)
    for _ in range(3000):
        chaos.step()
    chaos.desk.pass_time(5.0)
    calls = chaos.calls
    assert chaos.desk.core.outstanding == 0
    assert len(chaos.desk.finished) == len(calls)
    answered = [call.value.revision for call in calls if call.error is None]
    assert len(answered) > len(calls) / 4
    assert len(set(answered)) == len(answered)  # no two writes share an effect
    for call in calls:
        happened = chaos.applied.get((call.session_id, call.sequence))
        if call.error is None:
            assert happened == call.value.revision
        elif not isinstance(call.error, errors.OutcomeUnknown):
            assert happened is None, f"{call.error!r}, and yet it happened"
