"""A call: one request of the caller's, from its submission to its one outcome, over however many attempts.

May know: the protocol's bodies and limits, and how each operation's result is decoded. Decides nothing: the
core sends, retries and ends calls; the builders here only turn arguments into calls, for both faces alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypedDict, Unpack

from kvstore import protocol, protocol_admin
from kvstore.client import results
from kvstore.codes import UNCOUNTED
from kvstore.errors import AssentError, EmptyKey, OutcomeUnknown, TooLarge

if TYPE_CHECKING:
    from kvstore.client.links import Link

Consistency = Literal["linearizable", "local"]
SortTarget = Literal["key", "version", "create", "mod", "value"]
_SORT_TARGETS: Final = {name: number for number, name in enumerate(SortTarget.__args__, 1)}  # type: ignore[attr-defined]
_CONSISTENCIES: Final = {"linearizable": protocol.READ, "local": protocol.STALE_READ}
CHANGES: Final = frozenset({protocol.WRITE, protocol.ADMIN})  # of unknown outcome if no answer comes
ANYWHERE: Final = frozenset({protocol.STALE_READ, protocol.STATUS})  # any node will do
ALONE: Final = frozenset({protocol.STATUS, protocol.ADMIN, protocol.SNAPSHOT})  # never two in one frame
LAST_ATTEMPT_SECONDS: Final = 0.01  # nearer to its deadline a refused change is not tried again
_OVERHEAD_BYTES: Final = 64  # of a body, beside key and value
FRAME_BYTES: Final = 2 << 20  # of a request frame, its envelope included
_ENVELOPE_BYTES: Final = 64
_PER_BODY_BYTES: Final = 5
_NO_DEADLINE: Final = float("inf")
_SERVER_TIMEOUT_MILLISECONDS: Final = 5000  # told to the server for a call without a deadline


class Call:
    """Owned by the core from submit() until `callback` has run, once; the callback reads value and error."""

    # The defaults live on the class, so that making a call stores only what differs from them: one is made
    # for each operation.
    body: bytes = b""  # complete; empty for a write with a sequence, whose body `encode` makes per attempt
    encode: Callable[..., bytes] | None = None
    key: bytes = b""
    argument: bytes = b""  # value of a put, range end of a delete
    flags: int = 0
    callback: Callable[[Call], None]
    token: Any = None  # the callback's own
    deadline: float = _NO_DEADLINE
    pinned: Link | None = None  # only this link will do, and no other is tried
    is_internal: bool = False  # not counted against what callers may have outstanding
    session_id: int = 0
    sequence: int = 0  # 0 until the first attempt; never changes after it
    link: Link | None = None  # where the attempt in flight is
    request_id: int = -1  # of the attempt in flight; a later attempt has a later one
    sent_at: float = 0.0  # of the attempt in flight
    may_be_applied: bool = False  # an attempt ended without anyone knowing how
    refusal: int = 0  # code of the last refusal
    floor: int = 0  # a linearizable result must not be of a revision below
    done: bool = False
    value: Any = None
    error: Exception | None = None

    def __init__(self, kind: int, decode: Callable[[list[Any]], Any], size_bytes: int) -> None:
        self.kind = kind
        self.decode = decode
        self.size_bytes = size_bytes  # about what one attempt sends

    def is_too_late(self, now: float) -> bool:
        """It was refused, and another attempt might not be answered before its deadline: that it was surely
        not applied is worth more than a try after which nobody knows."""
        is_sure = self.kind in CHANGES and not self.may_be_applied
        return is_sure and self.deadline - now < LAST_ATTEMPT_SECONDS

    def release(self) -> None:
        """Frees what only attempts need: finished calls wait in the deadline queue for some time."""
        self.key = self.argument = self.body = b""
        self.encode = None
        self.link = self.pinned = None


def unsure(error: AssentError, call: Call) -> AssentError:
    """What one attempt ended with, as the outcome of the whole call: an earlier one may have been applied."""
    if call.may_be_applied and not error.may_be_applied:
        return OutcomeUnknown(f"{error}; an earlier attempt may have been applied")
    return error


def to_bytes(text: str | bytes) -> bytes:
    """Keys and values as the store has them: str as UTF-8. Raises TypeError for neither text nor bytes."""
    if type(text) is bytes:
        return text
    # Of a number bytes() makes as many zeros: whoever puts 5 means something else.
    return text.encode() if isinstance(text, str) else bytes(memoryview(text))


def _too_large(what: str, encoded: bytes, limit_bytes: int) -> TooLarge:
    return TooLarge(f"the {what} has {len(encoded)} bytes, more than {limit_bytes}")


def _checked_key(key: str | bytes) -> bytes:
    encoded = to_bytes(key)
    if not encoded:
        raise EmptyKey("a key has at least one byte")
    if len(encoded) > protocol.MAX_KEY_BYTES:
        raise _too_large("key", encoded, protocol.MAX_KEY_BYTES)
    return encoded


class AnyLease(Protocol):
    """What lease() of either face gives, and whatever else has the id of one."""

    id: int


def lease_id(lease: int | AnyLease) -> int:
    number = lease if isinstance(lease, int) else getattr(lease, "id", None)
    if not protocol.is_integer(number) or not number:
        raise ValueError(f"lease: {lease!r} is none")
    assert isinstance(number, int), f"{number!r}"
    return number


def checked_value(value: str | bytes) -> bytes:
    encoded = to_bytes(value)
    if len(encoded) > protocol.MAX_VALUE_BYTES:
        raise _too_large("value", encoded, protocol.MAX_VALUE_BYTES)
    return encoded


def put_flags(previous: bool, *, ignore_value: bool, ignore_lease: bool) -> int:
    flags = protocol.PREV_KV if previous else 0
    flags |= protocol.IGNORE_VALUE if ignore_value else 0
    return flags | (protocol.IGNORE_LEASE if ignore_lease else 0)


def put_call(
    key: str | bytes,
    value: str | bytes,
    previous: bool,
    *,
    lease: int | AnyLease = 0,
    ignore_value: bool = False,
    ignore_lease: bool = False,
) -> Call:
    encoded_key, encoded_value = _checked_key(key), checked_value(value)
    size_bytes = len(encoded_key) + len(encoded_value) + _OVERHEAD_BYTES
    call = Call(protocol.WRITE, results.decode_put, size_bytes)
    call.encode = partial(protocol.put_body, lease=lease_id(lease)) if lease else protocol.put_body
    call.key, call.argument = encoded_key, encoded_value
    call.flags = put_flags(previous, ignore_value=ignore_value, ignore_lease=ignore_lease)
    return call


def delete_call(key: bytes, range_end: bytes, previous: bool) -> Call:
    call = Call(protocol.WRITE, results.decode_delete, len(key) + len(range_end) + _OVERHEAD_BYTES)
    call.encode = protocol.delete_body
    call.key, call.argument = key, range_end
    call.flags = protocol.PREV_KV if previous else 0
    return call


def _encode_compact(
    revision: int, session_id: int, sequence: int, below: int, *_: bytes, flags: int
) -> bytes:
    assert flags == 0, f"flags {flags}"
    return protocol.compact_body(session_id, sequence, below, revision)


def compact_call(revision: int) -> Call:
    if not (protocol.is_integer(revision) and revision):
        raise ValueError(f"revision: {revision!r} is no revision")
    call = Call(protocol.WRITE, results.decode_compact, _OVERHEAD_BYTES)
    call.encode = partial(_encode_compact, revision)
    return call


def one_key(key: str | bytes) -> tuple[bytes, bytes]:
    return _checked_key(key), b""


def key_range(key: str | bytes, end: str | bytes) -> tuple[bytes, bytes]:
    """Either may be a byte longer than a key: a range is continued behind the longest one, too."""
    bound, range_end = to_bytes(key), to_bytes(end)
    if not range_end or len(bound) != protocol.MAX_BOUND_BYTES:
        bound = _checked_key(bound)
    if len(range_end) > protocol.MAX_BOUND_BYTES:
        raise _too_large("end", range_end, protocol.MAX_BOUND_BYTES)
    return bound, range_end


def key_prefix(prefix: str | bytes) -> tuple[bytes, bytes]:
    encoded = to_bytes(prefix)
    if len(encoded) > protocol.MAX_KEY_BYTES:
        raise _too_large("prefix", encoded, protocol.MAX_KEY_BYTES)
    return protocol.prefix_range(encoded)


class Chosen(TypedDict, total=False):
    """Which records of a range, and in which order. Those that are equal in it are in order of their keys."""

    sort_by: SortTarget
    descending: bool
    min_mod_revision: int
    max_mod_revision: int
    min_create_revision: int
    max_create_revision: int


def selection_of(chosen: Chosen) -> tuple[int, ...]:
    """As the long form of RANGE has it. Raises ValueError."""
    sort_by = chosen.get("sort_by", "key")
    if sort_by not in _SORT_TARGETS:
        raise ValueError(f"sort_by: {sort_by!r} is none of {', '.join(_SORT_TARGETS)}")
    bounds = (
        chosen.get("min_mod_revision", 0),
        chosen.get("max_mod_revision", 0),
        chosen.get("min_create_revision", 0),
        chosen.get("max_create_revision", 0),
    )
    if not all(map(protocol.is_integer, bounds)):
        raise ValueError(f"bounds of revisions: {bounds} are not all revisions")
    return (_SORT_TARGETS[sort_by], int(chosen.get("descending", False)), *bounds)


def range_item(
    span: tuple[bytes, bytes],
    *,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
    count_only: bool = False,
    uncounted: bool = False,
    **chosen: Unpack[Chosen],
) -> tuple[Any, ...]:
    """A RANGE with its arguments, as the protocol has them. Raises ValueError."""
    flags = (protocol.KEYS_ONLY if keys_only else 0) | (protocol.COUNT_ONLY if count_only else 0)
    flags |= UNCOUNTED if uncounted else 0
    if not protocol.is_integer(limit):
        raise ValueError(f"limit: {limit!r} is none")
    if not protocol.is_integer(revision):
        raise ValueError(f"revision: {revision!r} is no revision")
    selection = selection_of(chosen) if chosen else ()
    return (protocol.RANGE, *span, limit, revision, flags, *selection)


def range_call(
    span: tuple[bytes, bytes],
    consistency: Consistency,
    *,
    limit: int = 0,
    revision: int = 0,
    keys_only: bool = False,
    count_only: bool = False,
    uncounted: bool = False,
    **chosen: Unpack[Chosen],
) -> Call:
    _, key, end, limit, revision, flags, *selection = range_item(
        span,
        limit=limit,
        revision=revision,
        keys_only=keys_only,
        count_only=count_only,
        uncounted=uncounted,
        **chosen,
    )
    body = protocol.range_body(key, end, *selection, limit=limit, revision=revision, flags=flags)
    call = Call(read_kind(consistency), results.decode_range, len(body))
    call.body = body
    return call


def read_kind(consistency: Consistency) -> int:
    """Raises ValueError."""
    if consistency not in _CONSISTENCIES:
        raise ValueError(f"consistency: {consistency!r} is neither 'linearizable' nor 'local'")
    return _CONSISTENCIES[consistency]


def first_item(result: list[Any]) -> results.KeyValue | None:
    items = results.decode_range(result).items
    return items[0] if items else None


def get_call(key: str | bytes, consistency: Consistency, revision: int = 0) -> Call:
    call = range_call(one_key(key), consistency, revision=revision)
    call.decode = first_item
    return call


def status_call() -> Call:
    return Call(protocol.STATUS, results.decode_status, _OVERHEAD_BYTES)


def admin_call(request: protocol_admin.AdminRequest) -> Call:
    body = protocol_admin.encode_admin(request)
    call = Call(protocol.ADMIN, protocol_admin.decode_membership, len(body))
    call.body = body
    return call


def history_call(
    key: bytes, range_end: bytes, start_revision: int, limit_bytes: int, *, is_full: bool = False
) -> Call:
    body = protocol.watch_history_body(
        key,
        range_end,
        start_revision=start_revision,
        limit_bytes=limit_bytes,
        flags=protocol.PREV_KV if is_full else 0,
    )
    decode = results.decode_full_history if is_full else results.decode_history
    call = Call(protocol.STALE_READ, decode, len(body))
    call.body = body
    call.is_internal = True
    return call


def open_session_call(nonce: bytes) -> Call:
    call = Call(protocol.WRITE, results.decode_open_session, _OVERHEAD_BYTES)
    call.body = protocol.open_session_body(nonce)
    call.is_internal = True
    return call


def _encode_close(session_id: int, sequence: int, below: int, *_: bytes, flags: int) -> bytes:
    assert flags == 0, f"flags {flags}"
    return protocol.close_session_body(session_id, sequence, below)


def close_session_call() -> Call:
    call = Call(protocol.WRITE, results.decode_close_session, _OVERHEAD_BYTES)
    call.encode = _encode_close
    call.is_internal = True
    return call


def split_frames(calls: list[Call], acknowledged_below: int) -> Iterator[tuple[list[Call], list[bytes]]]:
    """The calls with their bodies, in as few frames as the limits allow. Nothing is yielded empty."""
    batch: list[Call] = []
    bodies: list[bytes] = []
    size_bytes = _ENVELOPE_BYTES
    for call in calls:
        body, encode = call.body, call.encode
        if encode is not None:
            body = encode(
                call.session_id, call.sequence, acknowledged_below, call.key, call.argument, flags=call.flags
            )
        size_bytes += len(body) + _PER_BODY_BYTES
        if batch and (size_bytes > FRAME_BYTES or len(batch) >= protocol.MAX_REQUESTS_PER_FRAME):
            yield batch, bodies
            batch, bodies = [], []
            size_bytes = _ENVELOPE_BYTES + len(body) + _PER_BODY_BYTES
        batch.append(call)
        bodies.append(body)
    if batch:
        yield batch, bodies


# Refusals after which a write may have been applied, or may yet be.
# The node serves nobody, and will not by itself: all go elsewhere, and none is sent there again.
OUT_OF_SERVICE = (protocol.NOT_MEMBER, protocol.FENCED)
OPEN_OUTCOMES = (protocol.OUTCOME_UNKNOWN, protocol.CONFLICT_WITH_LEADER)


def encode_frame(
    kind: int, first: int, batch: list[Call], bodies: list[bytes], confirmed_below: int, now: float
) -> bytes:
    """One frame for the whole batch; only readers confirm, for only their answers are large."""
    timeout_ms = frame_timeout_milliseconds(batch, now)
    return protocol.encode_request(
        kind, first, timeout_ms, bodies, confirmed_below if kind != protocol.WRITE else 0
    )


def frame_timeout_milliseconds(batch: list[Call], now: float) -> int:
    """The longest time left: better a node that answers some too late than one that refuses others."""
    left_seconds = max(call.deadline for call in batch) - now
    if left_seconds == _NO_DEADLINE:
        return _SERVER_TIMEOUT_MILLISECONDS
    return min(max(int(left_seconds * 1000), 1), protocol.MAX_TIMEOUT_MILLISECONDS)


def endpoint_list(endpoints: str | Sequence[str]) -> list[str]:
    """Endpoints as given to a client: one, several separated by commas, or a sequence."""
    given = endpoints.split(",") if isinstance(endpoints, str) else endpoints
    return [endpoint.strip() for endpoint in given if endpoint.strip()]


def watch_span(key: str | bytes, *, is_prefix: bool, start_revision: int) -> tuple[bytes, bytes]:
    if not protocol.is_integer(start_revision):
        raise ValueError(f"start_revision: {start_revision!r} is no revision")
    return key_prefix(key) if is_prefix else one_key(key)


def status_or_none(answer: object) -> results.NodeStatus | None:
    """For a table of nodes: why one did not answer is not told, but what is no answer at all is raised."""
    if isinstance(answer, results.NodeStatus):
        return answer
    if isinstance(answer, BaseException) and not isinstance(answer, AssentError):
        raise answer
    return None
