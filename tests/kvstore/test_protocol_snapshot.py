"""Bodies of SNAPSHOT requests and their results: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore import protocol
from kvstore.protocol import MalformedFrame
from kvstore.protocol_snapshot import (
    SLICE_BYTES,
    Close,
    Open,
    Opened,
    Pending,
    Read,
    Slice,
    SnapshotRequest,
    decode_opened,
    decode_slice,
    decode_snapshot_request,
    encode_opened,
    encode_pending,
    encode_slice,
    encode_snapshot_request,
)

NONCE = bytes(range(16))
OPENED = Opened("n1", "00ff", 7, 2, 100, 2**32 - 1, b"{}")


@pytest.mark.parametrize(
    "request_", [Open(NONCE), Read(NONCE, 0), Read(NONCE, 2**63 - 1), Close(NONCE)], ids=str
)
def test_a_request_comes_back(request_: SnapshotRequest) -> None:
    assert decode_snapshot_request(encode_snapshot_request(request_)) == request_


@pytest.mark.parametrize(
    "items",
    [
        [], [1], [0, NONCE], [4, NONCE], ["1", NONCE], [True, NONCE], [1, NONCE, 0], [1, NONCE[1:]],
        [1, NONCE + b"x"], [1, "0123456789abcdef"], [2, NONCE], [2, NONCE, -1], [2, NONCE, 2**63],
        [2, NONCE, 1.0], [2, NONCE, True], [2, NONCE, b""], [2, NONCE, 0, 0], [3, [NONCE]], {1: NONCE}, 1,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_request_is_refused(items: object) -> None:
    with pytest.raises(MalformedFrame):
        decode_snapshot_request(msgpack.packb(items))


@given(st.binary(max_size=100))
def test_garbage_is_refused_or_a_request(body: bytes) -> None:
    try:
        request = decode_snapshot_request(body)
    except MalformedFrame:
        return
    assert decode_snapshot_request(encode_snapshot_request(request)) == request


def result_of(encoded: bytes) -> list[Any]:
    [result] = protocol.split_results(encoded, 1)
    return result


def test_results_come_back() -> None:
    assert decode_opened(result_of(encode_opened(OPENED))) == OPENED
    assert decode_opened(result_of(encode_pending(5))) == Pending(5)
    assert decode_slice(result_of(encode_slice(Slice(5, 6, b"data")))) == Slice(5, 6, b"data")


@pytest.mark.parametrize(
    "result",
    [
        [0], [0, True], [0, False, -1], [0, False, b""], [0, 1, 5], [0, True, *OPENED[:-1]],
        [0, True, *OPENED, 0], [0, True, "", *OPENED[1:]], [0, True, *OPENED._replace(log_index=0)],
        [0, True, *OPENED._replace(term=0)], [0, True, *OPENED._replace(checksum=2**32)],
        [0, True, *OPENED._replace(size_bytes=-1)], [0, True, *OPENED._replace(configuration="")],  # type: ignore[arg-type]
        [0, True, *OPENED._replace(configuration=bytes(2 << 20))],
        [0, True, *OPENED._replace(cluster_id=7)],  # type: ignore[arg-type]
    ],
    ids=lambda result: str(result)[:60],
)  # fmt: skip
def test_what_is_no_opened_snapshot_is_refused(result: list[Any]) -> None:
    with pytest.raises(MalformedFrame):
        decode_opened(result)


@pytest.mark.parametrize(
    "result",
    [[0], [0, 0, 0], [0, -1, 0, b""], [0, 0, 0, "x"], [0, 0, 0, bytes(SLICE_BYTES + 1)], [0, 0, 0, b"", 0]],
    ids=lambda result: str(result)[:60],
)
def test_what_is_no_slice_is_refused(result: list[Any]) -> None:
    with pytest.raises(MalformedFrame):
        decode_slice(result)
