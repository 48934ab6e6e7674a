"""How a request can end without a result: every error is of one of two families, and says which."""

from __future__ import annotations

import inspect

import pytest

from kvstore import errors, protocol
from kvstore.client import errors as client_errors
from kvstore.protocol import Refusal
from kvstore.refusals import CODES
from raft.actor_messages import Reason
from tests.kvstore.fake_wire import Desk
from tests.kvstore.memory_cluster import MemoryCluster

# Bases of several, and what does not end a request.
OTHERS = {
    "AssentError",
    "NotApplied",
    "MaybeApplied",
    "RequestFailed",
    "RequestRefused",
    "TreeError",
}


def ends_of_requests() -> list[type[errors.AssentError]]:
    return [
        kind
        for module in (errors, client_errors)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, errors.AssentError) and kind.__name__ not in OTHERS
    ]


@pytest.mark.parametrize("kind", ends_of_requests(), ids=lambda kind: kind.__name__)
def test_an_error_is_of_one_family_and_its_flag_agrees(kind: type[errors.AssentError]) -> None:
    assert issubclass(kind, errors.NotApplied) != issubclass(kind, errors.MaybeApplied)
    assert kind.may_be_applied == issubclass(kind, errors.MaybeApplied)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_of_replication_has_a_code_and_an_exception_of_its_own(reason: Reason) -> None:
    code, text = CODES[reason]
    error = errors.error_of_refusal(Refusal(1, 1, code, text, None, None))
    assert isinstance(error, errors.RequestRefused)
    assert protocol.CODE_NAMES[code] == reason.value
    assert len({code for code, _ in CODES.values()}) == len(CODES)


def test_a_write_that_is_overwritten_is_never_told_as_not_applied() -> None:
    """Raft figure 8: another node may hold it, lead, and commit it."""
    assert issubclass(errors.ConflictWithLeader, errors.OutcomeUnknown)


def test_a_write_whose_time_is_up_is_refused_before_it_is_proposed() -> None:
    cluster = MemoryCluster(seed=1)
    leader = cluster.leader()
    before = cluster.status(leader)["last_index"]
    connection = cluster.network.connect_client(f"ipc:///memory/{leader}/client")
    body = protocol.put_body(0, 0, 0, b"/a", b"1")
    connection.send(protocol.encode_request(protocol.WRITE, 1, 0, [body]))
    cluster.run(0.1)
    [reply] = [protocol.decode_reply(payload) for payload in connection.receive()]
    assert isinstance(reply, Refusal)
    assert reply.code == protocol.EXPIRED
    assert cluster.status(leader)["last_index"] == before


def test_a_write_that_waits_for_others_until_its_deadline_was_never_sent() -> None:
    desk = Desk(max_outstanding=1).started()
    under_way = desk.put(seconds=5.0)
    waiting = desk.put(seconds=0.1)
    desk.flush()
    desk.pass_time(0.2)
    assert type(waiting.error) is errors.Expired
    assert not under_way.done
