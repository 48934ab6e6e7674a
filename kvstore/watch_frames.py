"""The watch plane as bytes: topics, and the parts of what is published under them.

May know: the protocol's numbers and msgpack; nothing of sockets, streams or the store. Shared by whoever
publishes and whoever watches. As in `protocol`, encoders trust their caller and decoders trust nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from kvstore.protocol import (
    MAX_KEY_BYTES,
    MAX_TOPIC_BYTES,
    PREVIOUS_TOPIC_PREFIX,
    PROTOCOL_VERSION,
    STREAM_TOPIC_PREFIX,
    UNPACK_ERRORS,
    Event,
    FullEvent,
    MalformedFrame,
    decode_events,
    decode_full_events,
    is_integer,
    unpack_guarded,
)

STREAM_PREFIXES: Final = (STREAM_TOPIC_PREFIX, PREVIOUS_TOPIC_PREFIX)

_pack: Callable[[Any], bytes] = msgpack.Packer().pack
_pack_array_header: Callable[[int], bytes] = msgpack.Packer().pack_array_header


class StreamHeader(NamedTuple):
    """sequence counts the messages of one stream in one epoch; a heartbeat repeats the last one.

    revision is that of the message's last events, in a heartbeat that of the store.
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


def stream_topic(key: bytes, range_end: bytes, *, is_full: bool = False) -> bytes:
    """Lengths come before the bytes, so that no stream's topic is a prefix of another's.

    The events of a full stream have the record before.
    """
    prefix = PREVIOUS_TOPIC_PREFIX if is_full else STREAM_TOPIC_PREFIX
    return b"".join((prefix, len(key).to_bytes(2, "big"), key, len(range_end).to_bytes(2, "big"), range_end))


def is_full_topic(topic: bytes) -> bool:
    return topic[:2] == PREVIOUS_TOPIC_PREFIX


def parse_stream_topic(topic: bytes) -> tuple[bytes, bytes] | None:
    """(key, range_end), or None if this is no stream topic, or one with a key which the store refuses."""
    if topic[:2] not in STREAM_PREFIXES or not 7 <= len(topic) <= MAX_TOPIC_BYTES:
        return None
    end_at = 4 + int.from_bytes(topic[2:4], "big")
    key = topic[4:end_at]
    range_end = topic[end_at + 2 :]
    if not 0 < len(key) <= MAX_KEY_BYTES or len(range_end) > MAX_KEY_BYTES:
        return None
    if topic[2:] != stream_topic(key, range_end)[2:]:
        return None
    return key, range_end


def encode_stream_header(epoch: int, sequence: int, revision: int) -> bytes:
    return _pack((PROTOCOL_VERSION, epoch, sequence, revision))


def encode_events(events: Sequence[Event] | Sequence[FullEvent]) -> bytes:
    return _pack(events)


def encode_bodies(events: Sequence[Event] | Sequence[FullEvent]) -> bytes:
    """Some of the events of a message, one after the other."""
    return b"".join(map(_pack, events))


def join_events(count: int, bodies: Sequence[bytes]) -> bytes:
    """All of them, of which there are so many."""
    return b"".join((_pack_array_header(count), *bodies))


def encode_path_header(event: Event) -> bytes:
    kind, _, _, create_revision, mod_revision, version, lease = event
    return _pack((PROTOCOL_VERSION, kind, create_revision, mod_revision, version, lease))


def encode_cluster_event(name: str, term: int, node: str) -> bytes:
    return _pack((PROTOCOL_VERSION, name, term, node))


def decode_stream_message(header: bytes, events: bytes) -> tuple[StreamHeader, list[Event]]:
    """Parts 1 and 2 of a range stream's message. Raises MalformedFrame."""
    return _stream_header(header), decode_events(_unpack_events(events))


def decode_full_message(header: bytes, events: bytes) -> tuple[StreamHeader, list[FullEvent]]:
    """The same of a full stream."""
    return _stream_header(header), decode_full_events(_unpack_events(events))


def check_revisions(header: StreamHeader, events: Sequence[Event] | Sequence[FullEvent]) -> None:
    """A message has the events of whole revisions, one after the other, up to that of its header. Raises
    MalformedFrame."""
    revisions = [event[4] for event in events]
    if revisions and (revisions[-1] != header.revision or sorted(revisions) != revisions):
        raise MalformedFrame("a message has revisions in ascending order, up to that of its header")


def _stream_header(header: bytes) -> StreamHeader:
    fields = _unpack_header(header, 4)
    if not all(map(is_integer, fields)):
        raise MalformedFrame("a stream header is four integers")
    return StreamHeader(*fields[1:])


def _unpack_events(events: bytes) -> Any:
    try:
        return msgpack.unpackb(events)
    except UNPACK_ERRORS:
        raise MalformedFrame("the events are not msgpack") from None


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
