"""Bodies of admin requests and their answers: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import protocol
from kvstore.errors import ChangeRefused, ChangeUnfinished, error_of_result
from kvstore.protocol import MalformedFrame
from kvstore.protocol_admin import (
    MAX_MEMBERS,
    AddMember,
    AdminRequest,
    DemoteMember,
    Initialise,
    ListMembers,
    Member,
    Membership,
    MoveLeader,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    SetMembers,
    decode_admin,
    decode_membership,
    encode_admin,
    encode_change_refused,
    encode_change_unfinished,
    encode_membership,
    join_address,
    split_address,
)

WHERE = "tcp://127.0.0.1:7104"
REQUESTS: list[AdminRequest] = [
    ListMembers(),
    AddMember("n4", WHERE, False),
    AddMember("n4", "ipc:///run/n4", True),
    PromoteMember("n4"),
    DemoteMember("n4", False),
    DemoteMember("n4", True),
    RemoveMember("n4", True),
    ReplaceMember("n2", "n4", WHERE),
    SetMembers((("n1", ""), ("n4", WHERE)), False),
    MoveLeader(""),
    MoveLeader("n2"),
    Initialise(bytes(range(16))),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_request_comes_back(request_: AdminRequest) -> None:
    assert decode_admin(encode_admin(request_)) == request_


@pytest.mark.parametrize(
    "items",
    [
        None,
        7,
        [],
        ["1"],
        [True],
        [0],
        [99],
        [1, 1],
        [2, "n4", WHERE],
        [2, "n4", WHERE, 1],
        [2, "N4", WHERE, False],
        [2, b"n4", WHERE, False],
        [2, "", WHERE, False],
        [2, "n" * 64, WHERE, False],
        [2, "n4", "", False],
        [2, "n4", "tcp://0.0.0.0:1", False],
        [2, "n4", "udp://127.0.0.1:1", False],
        [2, "n4", WHERE + "#0123456789abcdef", False],
        [3, None],
        [4, "n4", None],
        [6, [], False],
        [6, "n1", False],
        [6, [["n1"]], False],
        [6, [["n1", ""], ["n1", ""]], False],
        [6, [["n1", 5]], False],
        [6, [[f"n{number}", ""] for number in range(MAX_MEMBERS + 1)], False],
        [7, None],
        [7, "N"],
        [8, bytes(15)],
        [8, "x" * 16],
        [9, "n4"],
        [9, "n4", 0],
        [9, "", False],
    ],
)
def test_what_makes_no_sense_is_malformed_and_says_why(items: object) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_admin(msgpack.packb(items))
    assert caught.value.reason


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(noise: bytes) -> None:
    for body in (noise, b"\x94" + noise, b"\x94\x02" + noise):
        try:
            assert decode_admin(encode_admin(decode_admin(body))) == decode_admin(body)
        except MalformedFrame:
            pass


def test_a_frame_holds_one_admin_request() -> None:
    body = encode_admin(ListMembers())
    protocol.decode_request(protocol.encode_request(protocol.ADMIN, 1, 1000, [body]))
    for bodies in ([], [body, body]):
        with pytest.raises(MalformedFrame):
            protocol.decode_request(protocol.encode_request(protocol.ADMIN, 1, 1000, bodies))


def test_a_membership_comes_back_and_nothing_else_is_one() -> None:
    membership = Membership(
        "00ff", "n1", True, [Member("n1", "voter", WHERE, ""), Member("n2", "learner", "", "")]
    )
    result = msgpack.unpackb(encode_membership(membership))
    assert decode_membership(result) == membership
    for wrong in (
        [0],
        [0, 1, "", False, []],
        [0, "", "", 0, []],
        [0, "", "", False, [["n1"]]],
        [0, "", "", False, 1],
    ):
        with pytest.raises(MalformedFrame):
            decode_membership(wrong)


def test_refusals_are_errors_with_their_reason() -> None:
    refused = error_of_result(msgpack.unpackb(encode_change_refused("no", "in_flight")))
    assert isinstance(refused, ChangeRefused) and refused.reason == "in_flight" and not refused.may_be_applied
    begun = error_of_result(msgpack.unpackb(encode_change_unfinished("wait")))
    assert isinstance(begun, ChangeUnfinished) and begun.may_be_applied and str(begun) == "wait"


def test_an_address_may_carry_a_storage_id() -> None:
    assert split_address(join_address(WHERE, 0xABC)) == (WHERE, 0xABC)
    assert split_address(join_address(WHERE, 0)) == (WHERE, 0)
    for plain in (WHERE, "", "ipc:///a#b", "ipc:///a#0123456789ABCDEF", "ipc:///a#0123"):
        assert split_address(plain) == (plain, 0)
