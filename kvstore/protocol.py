"""The client and watch planes as bytes: constants, limits, frames, bodies and topics.

May know: msgpack, and nothing of sockets, actors, clocks or the store. Gateway, state machine and clients
share this file, so that a number of the protocol is written once. Encoders trust their caller (a wrong type
is a programmer error); decoders trust nobody and answer every malformed input with `MalformedFrame`,
allocating no more than a small multiple of what arrived. docs/protocol.md tells the same to people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

import msgpack

KeyValue: TypeAlias = tuple[bytes, bytes, int, int, int, int]
"""(key, value, create_revision, mod_revision, version, lease)."""

Event: TypeAlias = tuple[int, bytes, bytes, int, int, int, int]
"""(type, key, value, create_revision, mod_revision, version, lease); a delete has key, mod_revision only."""

# ---------------------------------------------------------------- constants
PROTOCOL_VERSION: Final = 1
VERSION_BYTE: Final = b"\x01"

# Kinds of a request frame.
WRITE: Final = 1
READ: Final = 2  # linearizable
STALE_READ: Final = 3  # whatever the asked node has applied
STATUS: Final = 4
ADMIN: Final = 5  # protocol_admin has its bodies
REQUEST_KINDS: Final = {1: "write", 2: "read", 3: "stale_read", 4: "status", 5: "admin"}

# Kinds of a reply frame.
RESULTS: Final = 129
REFUSED: Final = 130

# Operations of a write body.
PUT: Final = 1
DELETE: Final = 2
OPEN_SESSION: Final = 3
CLOSE_SESSION: Final = 4
# Operations of a read body.
RANGE: Final = 16
WATCH_HISTORY: Final = 17

# Flags of PUT and DELETE.
PREV_KV: Final = 1
# Flags of RANGE.
KEYS_ONLY: Final = 1
COUNT_ONLY: Final = 2

EVENT_PUT: Final = 0
EVENT_DELETE: Final = 1

# First element of a result.
OK: Final = 0
BAD_REQUEST: Final = 1
SESSION_EXPIRED: Final = 2
SEQUENCE_FORGOTTEN: Final = 3
COMPACTED: Final = 4  # [code, message, compact_revision]
FUTURE_REVISION: Final = 5  # [code, message, current_revision]
EMPTY_KEY: Final = 6
TOO_LARGE: Final = 7
WATCH_RANGE_EMPTY: Final = 8
CHANGE_REFUSED: Final = 9  # [code, message, reason]
CHANGE_UNFINISHED: Final = 10
# Codes of a REFUSED frame.
NOT_LEADER: Final = 32
NO_LEADER: Final = 33
OVERLOADED: Final = 34
SHUTTING_DOWN: Final = 35
CONFLICT_WITH_LEADER: Final = 36  # an OUTCOME_UNKNOWN: overwritten here, and maybe committed elsewhere
OUTCOME_UNKNOWN: Final = 37  # may or may not be applied
BAD_FRAME: Final = 38
DEADLINE_EXCEEDED: Final = 39  # of a read
EXPIRED: Final = 40  # of a write, before it was proposed
TRANSFERRING: Final = 42  # leadership is being handed to another node
NOT_MEMBER: Final = 41  # the node waits to be added to a cluster, or was removed from it

CODE_NAMES: Final = {
    OK: "ok",
    BAD_REQUEST: "bad_request",
    SESSION_EXPIRED: "session_expired",
    SEQUENCE_FORGOTTEN: "sequence_forgotten",
    COMPACTED: "compacted",
    FUTURE_REVISION: "future_revision",
    EMPTY_KEY: "empty_key",
    TOO_LARGE: "too_large",
    WATCH_RANGE_EMPTY: "watch_range_empty",
    CHANGE_REFUSED: "change_refused",
    CHANGE_UNFINISHED: "change_unfinished",
    NOT_LEADER: "not_leader",
    NO_LEADER: "no_leader",
    OVERLOADED: "overloaded",
    SHUTTING_DOWN: "shutting_down",
    CONFLICT_WITH_LEADER: "conflict_with_leader",
    OUTCOME_UNKNOWN: "outcome_unknown",
    BAD_FRAME: "bad_frame",
    DEADLINE_EXCEEDED: "deadline_exceeded",
    EXPIRED: "expired",
    TRANSFERRING: "transferring",
    NOT_MEMBER: "not_member",
}

# ---------------------------------------------------------------- limits

MAX_INTEGER: Final = 2**63 - 1  # every integer of the protocol is in 0..MAX_INTEGER
MAX_KEY_BYTES: Final = 4096
MAX_VALUE_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 1_572_864  # 1.5 MiB: one command or read
MAX_FRAME_BYTES: Final = 4 << 20  # a request frame: many bodies
MAX_REQUESTS_PER_FRAME: Final = 16_384
MAX_TIMEOUT_MILLISECONDS: Final = 86_400_000
NONCE_BYTES: Final = 16
MAX_UNACKNOWLEDGED: Final = 4096  # sequences which a session remembers; a client keeps fewer in flight
MAX_RANGE_REPLY_BYTES: Final = 16 << 20  # a longer range is cut here, with `more` set
MAX_PREV_KVS_BYTES: Final = 1 << 20  # a delete that would answer with more is refused, nothing deleted
MAX_TOPIC_BYTES: Final = 2 * MAX_KEY_BYTES + 6  # the longest stream topic

# ---------------------------------------------------------------- watch plane constants

STREAM_TOPIC_PREFIX: Final = b"\x00S"
CLUSTER_TOPIC: Final = b"\x00C"
RESERVED_TOPIC_BYTE: Final = 0  # a topic that starts with it is never a path topic

WATCH_HEARTBEAT_SECONDS: Final = 0.5
WATCH_SILENCE_SECONDS: Final = 2.0  # a stream silent for longer is lost: ask for the history again


class MalformedFrame(ValueError):
    """Bytes from outside that are not a frame of this protocol; `reason` is fit to be sent back."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# ---------------------------------------------------------------- decoding, guarded

# What msgpack raises on foreign bytes. MemoryError is deliberately not among them.
UNPACK_ERRORS: Final = (ValueError, TypeError, OverflowError, msgpack.UnpackException)

# One packer for all of this module: pack() of builtin types neither releases the GIL nor calls Python code.
_pack: Callable[[Any], bytes] = msgpack.Packer().pack


def _refuse_map(_: object) -> NoReturn:
    raise ValueError("a map is not expected here")


def unpack_guarded(blob: bytes | memoryview, *, max_arrays: int) -> Any:
    """Unpacks one object that holds no map and at most `max_arrays` arrays.

    A megabyte of empty arrays or maps would otherwise become sixty megabytes of objects; here the
    first one too many ends it.
    """
    arrays_left = max_arrays

    def count_array(items: list[Any]) -> list[Any]:
        nonlocal arrays_left
        arrays_left -= 1
        if arrays_left < 0:
            raise ValueError("too many arrays")
        return items

    return msgpack.unpackb(blob, list_hook=count_array, object_hook=_refuse_map)


def is_integer(value: object) -> bool:
    """A protocol integer: exactly int (a bool is none), in 0..MAX_INTEGER."""
    return type(value) is int and 0 <= value <= MAX_INTEGER


# ---------------------------------------------------------------- request frames


class Request(NamedTuple):
    """A decoded request frame; the bodies have the ids first_request_id, +1, … and are still opaque."""

    kind: int
    first_request_id: int
    timeout_milliseconds: int
    bodies: list[bytes]
    confirmed_below: int = 0  # answers to requests below this one, on this connection, have been received


def encode_request(
    kind: int,
    first_request_id: int,
    timeout_milliseconds: int,
    bodies: Sequence[bytes],
    confirmed_below: int = 0,
) -> bytes:
    if confirmed_below:
        return VERSION_BYTE + _pack((kind, first_request_id, timeout_milliseconds, bodies, confirmed_below))
    return VERSION_BYTE + _pack((kind, first_request_id, timeout_milliseconds, bodies))


def decode_request(payload: bytes) -> Request:
    """The gateway's only look at a client's frame. Raises MalformedFrame."""
    items = _unpack_frame(payload, MAX_FRAME_BYTES)
    if not 4 <= len(items) <= 5:
        raise MalformedFrame("a request has 4 or 5 elements")
    kind, first_request_id, timeout_milliseconds, bodies = items[:4]
    confirmed_below = items[4] if len(items) == 5 else 0
    if not is_integer(confirmed_below):
        raise MalformedFrame("confirmed_below is not an integer in range")
    if type(kind) is not int or kind not in REQUEST_KINDS:
        raise MalformedFrame("unknown kind of request")
    if type(bodies) is not list:
        raise MalformedFrame("the bodies are not an array")
    if not is_integer(first_request_id) or first_request_id > MAX_INTEGER - len(bodies):
        raise MalformedFrame("the request id is not an integer in range")
    if not is_integer(timeout_milliseconds) or timeout_milliseconds > MAX_TIMEOUT_MILLISECONDS:
        raise MalformedFrame("the timeout is not an integer in range")
    if kind == STATUS:
        if bodies:
            raise MalformedFrame("a status request has no bodies")
    elif not bodies:
        raise MalformedFrame("a request without bodies")
    elif kind == ADMIN and len(bodies) != 1:
        raise MalformedFrame("an admin request has one body")
    elif len(bodies) > MAX_REQUESTS_PER_FRAME:
        raise MalformedFrame("too many requests in one frame")
    elif set(map(type, bodies)) != {bytes}:
        raise MalformedFrame("a body is not of type bin")
    elif max(map(len, bodies)) > MAX_BODY_BYTES:
        raise MalformedFrame("a body is too large")
    return Request(kind, first_request_id, timeout_milliseconds, bodies, confirmed_below)


def _unpack_frame(payload: bytes, max_bytes: int) -> list[Any]:
    if len(payload) > max_bytes:
        raise MalformedFrame("the frame is too large")
    if not payload or payload[0] != PROTOCOL_VERSION:
        raise MalformedFrame("unknown protocol version")
    try:
        items = unpack_guarded(memoryview(payload)[1:], max_arrays=2)
    except UNPACK_ERRORS:
        raise MalformedFrame("the frame is not one msgpack array") from None
    if type(items) is not list:
        raise MalformedFrame("the frame is not one msgpack array")
    return items


# ---------------------------------------------------------------- reply frames


class Results(NamedTuple):
    """Answers to `request_count` requests from first_request_id on; `blob` holds as many msgpack objects."""

    first_request_id: int
    request_count: int
    blob: bytes


class Refusal(NamedTuple):
    """None of `request_count` requests from first_request_id on was carried out (but: OUTCOME_UNKNOWN)."""

    first_request_id: int
    request_count: int
    code: int
    message: str
    leader_name: str | None
    leader_endpoint: str | None


def encode_results(first_request_id: int, request_count: int, blob: bytes) -> bytes:
    return VERSION_BYTE + _pack((RESULTS, first_request_id, request_count, blob))


def encode_refused(
    first_request_id: int,
    request_count: int,
    code: int,
    message: str,
    leader_name: str | None = None,
    leader_endpoint: str | None = None,
) -> bytes:
    refusal = (REFUSED, first_request_id, request_count, code, message, leader_name, leader_endpoint)
    return VERSION_BYTE + _pack(refusal)


def decode_reply(payload: bytes) -> Results | Refusal:
    """A client's look at a server's frame. Raises MalformedFrame."""
    items = _unpack_frame(payload, 1 << 31)
    if len(items) < 3 or not is_integer(items[1]) or not is_integer(items[2]) or items[2] < 1:
        raise MalformedFrame("a reply begins with kind, request id and count")
    kind, rest = items[0], items[1:]
    if kind == RESULTS and len(rest) == 3 and type(rest[2]) is bytes:
        return Results(*rest)
    if kind == REFUSED and len(rest) == 6 and is_integer(rest[2]) and type(rest[3]) is str:
        leader = rest[4:]
        if all(item is None or type(item) is str for item in leader):
            return Refusal(*rest)
    raise MalformedFrame("neither results nor a refusal")


def split_results(blob: bytes, request_count: int) -> list[list[Any]]:
    """The results in a Results frame, each [code, …]. Raises MalformedFrame on any other number of them."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(len(blob), 1))
    unpacker.feed(blob)
    try:
        results = list(islice(unpacker, request_count))
    except UNPACK_ERRORS:
        raise MalformedFrame("a result is not msgpack") from None
    if len(results) != request_count or unpacker.tell() != len(blob):
        raise MalformedFrame("the number of results is not what the frame announces")
    if any(type(result) is not list or not result or not is_integer(result[0]) for result in results):
        raise MalformedFrame("a result is not an array that begins with its code")
    return results


# ---------------------------------------------------------------- bodies of writes


def put_body(
    session_id: int,
    sequence: int,
    acknowledged_below: int,
    key: bytes,
    value: bytes,
    *,
    lease: int = 0,
    flags: int = 0,
) -> bytes:
    return _pack((session_id, sequence, acknowledged_below, PUT, key, value, lease, flags))


def delete_body(
    session_id: int,
    sequence: int,
    acknowledged_below: int,
    key: bytes,
    range_end: bytes = b"",
    *,
    flags: int = 0,
) -> bytes:
    return _pack((session_id, sequence, acknowledged_below, DELETE, key, range_end, flags))


def open_session_body(nonce: bytes) -> bytes:
    """`nonce` is 16 bytes chosen at random once; the same nonce always opens the same session."""
    return _pack((0, 0, 0, OPEN_SESSION, nonce))


def close_session_body(session_id: int, sequence: int, acknowledged_below: int) -> bytes:
    return _pack((session_id, sequence, acknowledged_below, CLOSE_SESSION))


# ---------------------------------------------------------------- bodies of reads


def range_body(
    key: bytes, range_end: bytes = b"", *, limit: int = 0, revision: int = 0, flags: int = 0
) -> bytes:
    """limit 0: no limit. revision 0: the current one."""
    return _pack((RANGE, key, range_end, limit, revision, flags))


def watch_history_body(
    key: bytes, range_end: bytes = b"", *, start_revision: int = 0, limit_bytes: int = 0, flags: int = 0
) -> bytes:
    """start_revision is inclusive, 0: from now on. limit_bytes 0: the server's own limit."""
    return _pack((WATCH_HISTORY, key, range_end, start_revision, limit_bytes, flags))


def prefix_range(prefix: bytes) -> tuple[bytes, bytes]:
    """(key, range_end) of all keys that start with `prefix`; of all keys when it is empty."""
    if not prefix:
        return b"\x00", b"\x00"
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return prefix, b"\x00"
    return prefix, stem[:-1] + bytes([stem[-1] + 1])


def range_is_inverted(key: bytes, range_end: bytes) -> bool:
    """Ends at or before its begin; the end forms "" (one key) and zero byte (all from key on) never do."""
    return range_end != b"" and range_end != b"\x00" and range_end <= key


# ---------------------------------------------------------------- watch plane


class StreamHeader(NamedTuple):
    """sequence counts the messages of one stream in one epoch; a heartbeat repeats the last one.

    revision is that of the message's events, in a heartbeat that of the store.
    """

    epoch: int
    sequence: int
    revision: int


class PathHeader(NamedTuple):
    type: int
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class ClusterEvent(NamedTuple):
    name: str
    term: int
    node: str


def stream_topic(key: bytes, range_end: bytes) -> bytes:
    """Lengths come before the bytes, so that no stream's topic is a prefix of another's."""
    return b"".join(
        (STREAM_TOPIC_PREFIX, len(key).to_bytes(2, "big"), key, len(range_end).to_bytes(2, "big"), range_end)
    )


def parse_stream_topic(topic: bytes) -> tuple[bytes, bytes] | None:
    """(key, range_end), or None if this is no stream topic, or one with a key which the store refuses."""
    if topic[:2] != STREAM_TOPIC_PREFIX or not 7 <= len(topic) <= MAX_TOPIC_BYTES:
        return None
    end_at = 4 + int.from_bytes(topic[2:4], "big")
    key = topic[4:end_at]
    range_end = topic[end_at + 2 :]
    if not 0 < len(key) <= MAX_KEY_BYTES or len(range_end) > MAX_KEY_BYTES:
        return None
    if topic != stream_topic(key, range_end):
        return None
    return key, range_end


def encode_stream_header(epoch: int, sequence: int, revision: int) -> bytes:
    return _pack((PROTOCOL_VERSION, epoch, sequence, revision))


def encode_events(events: Sequence[Event]) -> bytes:
    return _pack(events)


def encode_path_header(event: Event) -> bytes:
    kind, _, _, create_revision, mod_revision, version, lease = event
    return _pack((PROTOCOL_VERSION, kind, create_revision, mod_revision, version, lease))


def encode_cluster_event(name: str, term: int, node: str) -> bytes:
    return _pack((PROTOCOL_VERSION, name, term, node))


def decode_stream_message(header: bytes, events: bytes) -> tuple[StreamHeader, list[Event]]:
    """Parts 1 and 2 of a range stream's message. Raises MalformedFrame."""
    fields = _unpack_header(header, 4)
    if not all(map(is_integer, fields)):
        raise MalformedFrame("a stream header is four integers")
    try:
        unpacked = msgpack.unpackb(events)
    except UNPACK_ERRORS:
        raise MalformedFrame("the events are not msgpack") from None
    return StreamHeader(*fields[1:]), decode_events(unpacked)


def decode_events(items: Any) -> list[Event]:
    """Checks what msgpack made of a list of events. Raises MalformedFrame."""
    if type(items) is not list:
        raise MalformedFrame("the events are not an array")
    for item in items:
        if type(item) is not list or len(item) != 7 or [type(item[1]), type(item[2])] != [bytes, bytes]:
            raise MalformedFrame("an event has type, key, value and four integers")
        if item[0] not in (EVENT_PUT, EVENT_DELETE) or not all(map(is_integer, item[3:])):
            raise MalformedFrame("an event has type, key, value and four integers")
    return [tuple(item) for item in items]


def decode_path_header(header: bytes) -> PathHeader:
    """Part 1 of a path topic's message. Raises MalformedFrame."""
    fields = _unpack_header(header, 6)
    if not all(map(is_integer, fields)):
        raise MalformedFrame("a path header is six integers")
    return PathHeader(*fields[1:])


def decode_cluster_event(header: bytes) -> ClusterEvent:
    """Part 1 of the cluster topic's message. Raises MalformedFrame."""
    _, name, term, node = _unpack_header(header, 4)
    if type(name) is not str or not is_integer(term) or type(node) is not str:
        raise MalformedFrame("a cluster event has name, term and node")
    return ClusterEvent(name, term, node)


def _unpack_header(header: bytes, length: int) -> list[Any]:
    try:
        fields = unpack_guarded(header, max_arrays=1)
    except UNPACK_ERRORS:
        raise MalformedFrame("a header is not one msgpack array") from None
    if type(fields) is not list or len(fields) != length or fields[0] != PROTOCOL_VERSION:
        raise MalformedFrame("a header of another version or length")
    return fields
