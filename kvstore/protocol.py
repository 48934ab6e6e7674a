"""The client plane as bytes: frames, bodies, and the numbers in them, which `codes` has and this file names.

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

from kvstore.codes import (
    ADMIN as ADMIN,
    BAD_FRAME as BAD_FRAME,
    BAD_REQUEST as BAD_REQUEST,
    CHANGE_REFUSED as CHANGE_REFUSED,
    CHANGE_UNFINISHED as CHANGE_UNFINISHED,
    CLOSE_SESSION as CLOSE_SESSION,
    CLUSTER_TOPIC as CLUSTER_TOPIC,
    CHILDREN as CHILDREN,
    CODE_NAMES as CODE_NAMES,
    COMPACT as COMPACT,
    COMPACTED as COMPACTED,
    CONFLICT_WITH_LEADER as CONFLICT_WITH_LEADER,
    COUNT_ONLY as COUNT_ONLY,
    DEADLINE_EXCEEDED as DEADLINE_EXCEEDED,
    DELETE as DELETE,
    EMPTY_KEY as EMPTY_KEY,
    EVENT_DELETE as EVENT_DELETE,
    EVENT_PUT as EVENT_PUT,
    EXPIRED as EXPIRED,
    FENCED as FENCED,
    FUTURE_REVISION as FUTURE_REVISION,
    INTERNAL_BYTE as INTERNAL_BYTE,
    KEYS_ONLY as KEYS_ONLY,
    LEASE_EXPIRE as LEASE_EXPIRE,
    LEASE_GRANT as LEASE_GRANT,
    LEASE_KEEPALIVE as LEASE_KEEPALIVE,
    LEASE_KEYS as LEASE_KEYS,
    LEASE_LIST as LEASE_LIST,
    LEASE_REVOKE as LEASE_REVOKE,
    LEASE_TICK as LEASE_TICK,
    LEASE_TIME_TO_LIVE as LEASE_TIME_TO_LIVE,
    MAX_BODY_BYTES as MAX_BODY_BYTES,
    MAX_BOUND_BYTES as MAX_BOUND_BYTES,
    MAX_DELETE_KEYS as MAX_DELETE_KEYS,
    MAX_FRAME_BYTES as MAX_FRAME_BYTES,
    MAX_INTEGER as MAX_INTEGER,
    MAX_KEEPALIVES as MAX_KEEPALIVES,
    MAX_KEY_BYTES as MAX_KEY_BYTES,
    MAX_PREV_KVS_BYTES as MAX_PREV_KVS_BYTES,
    MAX_PREVIOUS_BYTES as MAX_PREVIOUS_BYTES,
    MAX_RANGE_REPLY_BYTES as MAX_RANGE_REPLY_BYTES,
    MAX_PUBLISHED_BYTES as MAX_PUBLISHED_BYTES,
    MAX_REQUESTS_PER_FRAME as MAX_REQUESTS_PER_FRAME,
    MAX_TIMEOUT_MILLISECONDS as MAX_TIMEOUT_MILLISECONDS,
    MAX_TOPIC_BYTES as MAX_TOPIC_BYTES,
    MAX_TTL_SECONDS as MAX_TTL_SECONDS,
    MAX_UNACKNOWLEDGED as MAX_UNACKNOWLEDGED,
    MAX_VALUE_BYTES as MAX_VALUE_BYTES,
    NO_LEADER as NO_LEADER,
    NONCE_BYTES as NONCE_BYTES,
    NOT_LEADER as NOT_LEADER,
    NOT_MEMBER as NOT_MEMBER,
    OK as OK,
    OPEN_SESSION as OPEN_SESSION,
    OUTCOME_UNKNOWN as OUTCOME_UNKNOWN,
    OVERLOADED as OVERLOADED,
    PREV_KV as PREV_KV,
    PREVIOUS_TOPIC_PREFIX as PREVIOUS_TOPIC_PREFIX,
    PROTOCOL_VERSION as PROTOCOL_VERSION,
    PUT as PUT,
    RANGE as RANGE,
    READ as READ,
    REFUSED as REFUSED,
    REQUEST_KINDS as REQUEST_KINDS,
    RESERVED_TOPIC_BYTE as RESERVED_TOPIC_BYTE,
    RESULTS as RESULTS,
    SEQUENCE_FORGOTTEN as SEQUENCE_FORGOTTEN,
    SESSION_EXPIRED as SESSION_EXPIRED,
    SHUTTING_DOWN as SHUTTING_DOWN,
    SINGLE_KINDS as SINGLE_KINDS,
    SNAPSHOT as SNAPSHOT,
    SNAPSHOT_GONE as SNAPSHOT_GONE,
    SPACE_EXCEEDED as SPACE_EXCEEDED,
    STALE_READ as STALE_READ,
    STATUS as STATUS,
    STREAM_TOPIC_PREFIX as STREAM_TOPIC_PREFIX,
    TOO_LARGE as TOO_LARGE,
    TRANSFERRING as TRANSFERRING,
    VERSION_BYTE as VERSION_BYTE,
    WATCH_HEARTBEAT_SECONDS as WATCH_HEARTBEAT_SECONDS,
    WATCH_HISTORY as WATCH_HISTORY,
    WATCH_RANGE_EMPTY as WATCH_RANGE_EMPTY,
    WATCH_SILENCE_SECONDS as WATCH_SILENCE_SECONDS,
    WRITE as WRITE,
    COMPARE_CREATE as COMPARE_CREATE,
    COMPARE_LEASE as COMPARE_LEASE,
    COMPARE_MOD as COMPARE_MOD,
    COMPARE_VALUE as COMPARE_VALUE,
    COMPARE_VERSION as COMPARE_VERSION,
    DUPLICATE_KEY as DUPLICATE_KEY,
    EQUAL as EQUAL,
    GREATER as GREATER,
    IGNORE_LEASE as IGNORE_LEASE,
    IGNORE_VALUE as IGNORE_VALUE,
    KEY_NOT_FOUND as KEY_NOT_FOUND,
    LEASE_EXISTS as LEASE_EXISTS,
    LEASE_NOT_FOUND as LEASE_NOT_FOUND,
    LEASE_PROVIDED as LEASE_PROVIDED,
    LEASE_TTL_TOO_LARGE as LEASE_TTL_TOO_LARGE,
    LESS as LESS,
    MAX_TXN_DEPTH as MAX_TXN_DEPTH,
    MAX_TXN_ITEMS as MAX_TXN_ITEMS,
    MAX_TXN_KEYS as MAX_TXN_KEYS,
    MAX_TXN_OPERATIONS as MAX_TXN_OPERATIONS,
    MAX_TXN_REPLY_BYTES as MAX_TXN_REPLY_BYTES,
    NOT_EQUAL as NOT_EQUAL,
    READ_TXN as READ_TXN,
    REMEMBERED as REMEMBERED,
    TOO_MANY_OPERATIONS as TOO_MANY_OPERATIONS,
    TXN as TXN,
    VALUE_PROVIDED as VALUE_PROVIDED,
)

KeyValue: TypeAlias = tuple[bytes, bytes, int, int, int, int]
"""(key, value, create_revision, mod_revision, version, lease)."""

Event: TypeAlias = tuple[int, bytes, bytes, int, int, int, int]
"""(type, key, value, create_revision, mod_revision, version, lease); a delete has key, mod_revision only."""

FullEvent: TypeAlias = tuple[int, bytes, bytes, int, int, int, int, KeyValue | None]
"""An event, and what the key was before it; None if it was not there, or nobody knows any more."""


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
    elif kind in SINGLE_KINDS and len(bodies) != 1:
        raise MalformedFrame(f"a request of kind {REQUEST_KINDS[kind]} has one body")
    elif len(bodies) > MAX_REQUESTS_PER_FRAME:
        raise MalformedFrame("too many requests in one frame")
    elif set(map(type, bodies)) != {bytes}:
        raise MalformedFrame("a body is not of type bin")
    elif max(map(len, bodies)) > MAX_BODY_BYTES:
        raise MalformedFrame("a body is too large")
    if INTERNAL_BYTE in payload:
        # A command that only a leader may propose becomes one that nobody could read, and is answered so.
        bodies = [b"" if body[:1] == INTERNAL_BYTE else body for body in bodies]
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


def compact_body(session_id: int, sequence: int, acknowledged_below: int, revision: int) -> bytes:
    return _pack((session_id, sequence, acknowledged_below, COMPACT, revision))


# ---------------------------------------------------------------- bodies of reads


def range_body(
    key: bytes, range_end: bytes = b"", *selection: int, limit: int = 0, revision: int = 0, flags: int = 0
) -> bytes:
    """limit 0: no limit. revision 0: the current one. `selection`: nothing, or the rest of the long form."""
    return _pack((RANGE, key, range_end, limit, revision, flags, *selection))


def children_body(path: bytes, *, limit: int = 0, start_after: bytes = b"", revision: int = 0) -> bytes:
    """start_after: a name; the children after it are wanted."""
    return _pack((CHILDREN, path, limit, start_after, revision))


def watch_history_body(
    key: bytes, range_end: bytes = b"", *, start_revision: int = 0, limit_bytes: int = 0, flags: int = 0
) -> bytes:
    """start_revision is inclusive, 0: from now on. limit_bytes 0: the server's own limit."""
    return _pack((WATCH_HISTORY, key, range_end, start_revision, limit_bytes, flags))


def remembered_body(session_id: int, sequence: int, otherwise: bytes) -> bytes:
    """A leader's own read: the result that this write has already, or else this one."""
    return INTERNAL_BYTE + _pack((REMEMBERED, session_id, sequence, otherwise))


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


# ---------------------------------------------------------------- events


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


def decode_full_events(items: Any) -> list[FullEvent]:
    """The same of events with the record before. Raises MalformedFrame."""
    if type(items) is not list or any(type(item) is not list or len(item) != 8 for item in items):
        raise MalformedFrame("a full event has one item more than an event")
    events = decode_events([item[:7] for item in items])
    return [(*event, _record_or_none(item[7])) for event, item in zip(events, items, strict=True)]


def _record_or_none(item: Any) -> KeyValue | None:
    if item is None:
        return None
    if type(item) is not list or len(item) != 6 or [type(item[0]), type(item[1])] != [bytes, bytes]:
        raise MalformedFrame("a record has key, value and four integers")
    if not all(map(is_integer, item[2:])):
        raise MalformedFrame("a record has key, value and four integers")
    key, value, create_revision, mod_revision, version, lease = item
    return key, value, create_revision, mod_revision, version, lease
