"""The example frames of docs/protocol.md, made by the code that the service itself uses.

Each entry is a name and the parts of one message; the document shows them in hexadecimal under that name.
"""

from __future__ import annotations

import msgpack

from kvstore import codes, protocol, watch_frames
from kvstore.transaction_bodies import encode_list, transaction_body

KEY, VALUE = b"/app/x", b"30"
LOCK = b"/lock"
PREFIX, PREFIX_END = protocol.prefix_range(b"/app/")
RECORD = (KEY, VALUE, 2, 2, 1, 0)
EVENT: protocol.Event = (protocol.EVENT_PUT, *RECORD)
TOPIC = watch_frames.stream_topic(PREFIX, PREFIX_END)
EPOCH = 5 << 32


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def examples() -> dict[str, list[bytes]]:
    """Name to the parts of the message."""
    nonce = bytes(range(16))
    open_session = protocol.open_session_body(nonce)
    put = protocol.put_body(9, 1, 1, KEY, VALUE)
    get_prefix = protocol.range_body(PREFIX, PREFIX_END)
    newest = protocol.range_body(
        PREFIX, PREFIX_END, codes.SORT_MOD, codes.SORT_DESCENDING, 0, 0, 0, 0, limit=1
    )
    listed = _packed((protocol.OK, 2, False, ((b"app", False, True),)))
    history = protocol.watch_history_body(PREFIX, PREFIX_END, start_revision=2)
    when = encode_list([(protocol.COMPARE_CREATE, protocol.EQUAL, LOCK, b"", 0)])
    take = encode_list([(protocol.PUT, LOCK, b"me", 0, 0)])
    look = encode_list([(protocol.RANGE, LOCK, b"", 0, 0, 0)])
    lock = transaction_body(9, 2, 2, when, take, look)
    locked = _packed((protocol.OK, 3, True, ((protocol.OK, 3, None),)))
    opened = _packed((protocol.OK, 1, 9))
    stored = _packed((protocol.OK, 2, None))
    found = _packed((protocol.OK, 2, 1, False, (RECORD,)))
    remembered = _packed((protocol.OK, 2, EPOCH, 1, False, ((2, (EVENT,)),)))
    not_leader = (protocol.NOT_LEADER, "another node leads", "n2", "tcp://127.0.0.1:7002")
    return {
        "open-session request": [protocol.encode_request(protocol.WRITE, 1, 5000, [open_session])],
        "open-session reply": [protocol.encode_results(1, 1, opened)],
        "put request": [protocol.encode_request(protocol.WRITE, 2, 5000, [put])],
        "put reply": [protocol.encode_results(2, 1, stored)],
        "put refused": [protocol.encode_refused(2, 1, *not_leader)],
        "range request": [protocol.encode_request(protocol.READ, 3, 5000, [get_prefix])],
        "range reply": [protocol.encode_results(3, 1, found)],
        "sorted range request": [protocol.encode_request(protocol.READ, 8, 5000, [newest])],
        "children request": [protocol.encode_request(protocol.READ, 7, 5000, [protocol.children_body(b"/")])],
        "children reply": [protocol.encode_results(7, 1, listed)],
        "txn request": [protocol.encode_request(protocol.WRITE, 6, 5000, [lock])],
        "txn reply": [protocol.encode_results(6, 1, locked)],
        "status request": [protocol.encode_request(protocol.STATUS, 4, 1000, [])],
        "history request": [protocol.encode_request(protocol.STALE_READ, 5, 5000, [history])],
        "history reply": [protocol.encode_results(5, 1, remembered)],
        "stream subscription": [b"\x01" + TOPIC],
        "stream message": [
            TOPIC,
            watch_frames.encode_stream_header(EPOCH, 1, 2),
            watch_frames.encode_events([EVENT]),
        ],
        "stream heartbeat": [
            TOPIC,
            watch_frames.encode_stream_header(EPOCH, 1, 7),
            watch_frames.encode_events([]),
        ],
        "path message": [KEY, watch_frames.encode_path_header(EVENT), VALUE],
        "cluster message": [
            protocol.CLUSTER_TOPIC,
            watch_frames.encode_cluster_event("leader_elected", 3, "n2"),
        ],
    }
