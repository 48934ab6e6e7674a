"""What a call answers with, and how a result of the protocol becomes it.

May know: the client protocol's results; nothing of sockets, sessions or time. Every decoder takes one result
whose code is OK, believes nothing of it, and raises MalformedFrame when its shape is not the promised one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from kvstore import protocol
from kvstore.protocol import MalformedFrame, is_integer

_MAX_NAME_CHARACTERS = 1024


class KeyValue(NamedTuple):
    """A key as it is in the store. `version` counts its changes since creation, from 1; `lease` 0 is none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int


class PutResult(NamedTuple):
    """`revision` is the one that the put made; `previous` what was there before, if asked for."""

    revision: int
    previous: KeyValue | None


class DeleteResult(NamedTuple):
    """`revision` is the store's after the delete, which is unchanged when nothing was `deleted`."""

    revision: int
    deleted: int
    previous: list[KeyValue]


class CompactResult(NamedTuple):
    """`revision` is the store's, which a compaction leaves as it is."""

    revision: int


@dataclass(slots=True)
class RangeResult:
    """`count` is the number of keys in the range whatever the limit; `more` is true if `items` was cut."""

    revision: int
    count: int
    more: bool
    items: list[KeyValue]


class Child(NamedTuple):
    """One name right below a path: with a value, with keys below it, or both."""

    name: bytes
    has_value: bool
    has_children: bool


@dataclass(slots=True)
class ChildrenResult:
    """In order of their names; `more` is true if `items` was cut."""

    revision: int
    more: bool
    items: list[Child]


class TreeDeleted(NamedTuple):
    """`deleted` keys in so many `pieces`, each of one revision; `revision` is the store's after them."""

    revision: int
    deleted: int
    pieces: int


class Event(NamedTuple):
    """One change of one key. A delete carries key and mod_revision only.

    `previous` is what was there before, if the watch was asked for it, and if that is not compacted.
    """

    type: int  # protocol.EVENT_PUT or protocol.EVENT_DELETE
    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int
    previous: KeyValue | None = None

    @property
    def is_delete(self) -> bool:
        return self.type == protocol.EVENT_DELETE

    @property
    def is_create(self) -> bool:
        """The key was not there before."""
        return self.type == protocol.EVENT_PUT and self.create_revision == self.mod_revision


class WatchBatch(NamedTuple):
    """All events of one revision in the watched range; none: a progress notification up to `revision`."""

    revision: int
    events: list[Event]


class NodeStatus(NamedTuple):
    """A node about itself. `leader` and `leader_client` are None while it knows of no leader."""

    cluster_id: str
    node: str
    role: str
    term: int
    leader: str | None
    leader_client: str | None
    commit_index: int
    applied_index: int
    last_index: int
    revision: int
    client_endpoint: str
    watch_endpoint: str
    peers: dict[str, str]  # node name to client endpoint, as far as the node knows them
    version: str
    libzmq: str
    member: str  # "voter", "learner", "leaving", "waiting" (to be added) or "removed"
    members: dict[str, str]  # name to "voter", "learner" or "leaving", as the node has it in force
    is_joint: bool  # a change is under way in which old and new voters must agree separately
    peer_endpoint: str
    storage_id: str  # of its data directory; another one is another node, whatever its name
    refused_by: dict[str, str]  # nodes that do not let it in, and why
    # Why it serves nothing: index, own, theirs (fingerprints in hexadecimal digits), reason. None: it serves.
    fenced: dict[str, Any] | None
    divergence: dict[str, dict[str, Any]]  # name of a node with another state, to index, own, theirs
    priority: int = 1  # in elections; 0: it never leads
    snapshot_index: int = 0  # the newest snapshot stands for the log up to here; 0: there is none
    snapshot_term: int = 0
    log_first_index: int = 1  # last_index + 1 if the log has no entry
    space: str = "ok"  # or "low": its disk has too little room
    space_low: tuple[str, ...] = ()  # the nodes of which it knows that; while there are any, nothing may grow
    space_free_bytes: int = 0  # of its disk
    space_wanted_bytes: int = 0  # so much has to be free
    log_bytes: int = 0  # of the committed entries since the snapshot
    store_bytes: int = 0  # keys, values, and the past
    quota_bytes: int = 0  # of the former; 0: no quota
    quota_exceeded: bool = False  # as this node sees it; where the leader does, puts are refused
    memory_bytes: int = 0  # resident, of its process
    watchers: int = 0  # connections to its watch plane


class State(Enum):
    """CONNECTED: the leader is reachable. SUSPENDED: not now. LOST: the session is gone, and what it held."""

    CONNECTED = "connected"
    SUSPENDED = "suspended"
    LOST = "lost"


class SessionOpened(NamedTuple):
    revision: int
    session_id: int


class SessionClosed(NamedTuple):
    revision: int


class History(NamedTuple):
    """A page of a watch's past, and where in the stream it ends."""

    revision: int
    epoch: int
    sequence: int
    more: bool
    batches: list[WatchBatch]


def _integers(result: list[Any], least_length: int, *positions: int) -> None:
    if len(result) < least_length:
        raise MalformedFrame("a result is too short")
    for position in positions:
        if not is_integer(result[position]):
            raise MalformedFrame("a result has something else where an integer belongs")


def decode_key_value(item: Any) -> KeyValue:
    if type(item) is not list or len(item) != 6 or type(item[0]) is not bytes or type(item[1]) is not bytes:
        raise MalformedFrame("a key-value has key, value and four integers")
    if not all(map(is_integer, item[2:])):
        raise MalformedFrame("a key-value has key, value and four integers")
    return KeyValue._make(item)


def _key_values(items: Any) -> list[KeyValue]:
    if type(items) is not list:
        raise MalformedFrame("the key-values are not an array")
    return [decode_key_value(item) for item in items]


def decode_put(result: list[Any]) -> PutResult:
    _integers(result, 3, 1)
    previous = result[2]
    return PutResult(result[1], None if previous is None else decode_key_value(previous))


def decode_delete(result: list[Any]) -> DeleteResult:
    _integers(result, 4, 1, 2)
    return DeleteResult(result[1], result[2], _key_values(result[3] or []))


def decode_compact(result: list[Any]) -> CompactResult:
    _integers(result, 2, 1)
    return CompactResult(result[1])


def decode_range(result: list[Any]) -> RangeResult:
    _integers(result, 5, 1, 2)
    return RangeResult(result[1], result[2], bool(result[3]), _key_values(result[4]))


def decode_children(result: list[Any]) -> ChildrenResult:
    _integers(result, 4, 1)
    items = result[3]
    if type(items) is not list or not all(type(item) is list and len(item) == 3 for item in items):
        raise MalformedFrame("children are names with two flags each")
    if any(type(name) is not bytes for name, _, _ in items):
        raise MalformedFrame("the name of a child is not bytes")
    children = [Child(name, bool(has_value), bool(has_children)) for name, has_value, has_children in items]
    return ChildrenResult(result[1], bool(result[2]), children)


def decode_open_session(result: list[Any]) -> SessionOpened:
    _integers(result, 3, 1, 2)
    return SessionOpened(result[1], result[2])


def decode_close_session(result: list[Any]) -> SessionClosed:
    _integers(result, 2, 1)
    return SessionClosed(result[1])


def make_batch(revision: int, events: list[protocol.Event]) -> WatchBatch:
    return WatchBatch(revision, [Event(*event) for event in events])


def make_full_batch(revision: int, events: list[protocol.FullEvent]) -> WatchBatch:
    """Of events that have the record before."""
    return WatchBatch(
        revision,
        [Event(*event[:7], None if event[7] is None else KeyValue._make(event[7])) for event in events],
    )


_revision: Callable[[Event], int] = attrgetter("mod_revision")


def split_batch(batch: WatchBatch) -> list[WatchBatch]:
    """Of events of several revisions, which follow one another: one batch for each revision."""
    if batch.events[0].mod_revision == batch.revision:  # most messages have one
        return [batch]
    return [WatchBatch(revision, list(some)) for revision, some in groupby(batch.events, _revision)]


def decode_full_history(result: list[Any]) -> History:
    return decode_history(result, is_full=True)


def decode_history(result: list[Any], *, is_full: bool = False) -> History:
    _integers(result, 6, 1, 2, 3)
    pages = result[5]
    if type(pages) is not list:
        raise MalformedFrame("a history is an array of revisions")
    batches: list[WatchBatch] = []
    last = 0
    for page in pages:
        if type(page) is not list or len(page) != 2 or not is_integer(page[0]) or page[0] <= last:
            raise MalformedFrame("a history has revisions in ascending order, each with its events")
        last = page[0]
        if is_full:
            batches.append(make_full_batch(last, protocol.decode_full_events(page[1])))
        else:
            batches.append(make_batch(last, protocol.decode_events(page[1])))
    if result[4] and not batches:
        raise MalformedFrame("a history that has more must have something")
    return History(result[1], result[2], result[3], bool(result[4]), batches)


def decode_status(result: list[Any]) -> NodeStatus:
    fields = result[1] if len(result) > 1 else None
    if type(fields) is not dict:
        raise MalformedFrame("a status is a map")
    for name in ("term", "commit_index", "applied_index", "last_index", "revision"):
        if not is_integer(fields.get(name)):
            raise MalformedFrame("a status lacks an integer")
    if type(fields.get("cluster_id")) is int:
        fields["cluster_id"] = str(fields["cluster_id"])
    for name in ("cluster_id", "node", "role", "client_endpoint", "watch_endpoint"):
        if not _is_name(fields.get(name)):
            raise MalformedFrame("a status lacks a name")
    for name in ("leader", "leader_client"):
        if fields.get(name) is not None and not _is_name(fields[name]):
            raise MalformedFrame("a status has a leader that is no name")
    peers = fields.get("peers", {})
    if type(peers) is not dict:
        raise MalformedFrame("the peers of a status are a map of names to endpoints")
    # A node can only repeat what its peers announce: one that announces nonsense must not spoil the rest.
    peers = {name: endpoint for name, endpoint in peers.items() if _is_name(name) and _is_name(endpoint)}
    known: dict[str, Any] = {name: fields.get(name) for name in NodeStatus._fields}
    known["peers"] = peers
    for name in ("version", "libzmq", "peer_endpoint", "storage_id"):
        known[name] = str(fields.get(name, ""))
    for name, default in NodeStatus._field_defaults.items():
        if not is_integer(known[name]):
            known[name] = default
    known["member"] = str(fields.get("member", "voter"))
    known["quota_exceeded"] = bool(fields.get("quota_exceeded", False))
    known["is_joint"] = bool(fields.get("is_joint", False))
    for name in ("members", "refused_by"):
        known[name] = {str(key): str(value) for key, value in _map(fields.get(name)).items()}
    known["space"] = str(fields.get("space", "ok"))
    low = fields.get("space_low")
    known["space_low"] = tuple(str(name) for name in low) if isinstance(low, list) else ()
    known["fenced"] = fields["fenced"] if isinstance(fields.get("fenced"), dict) else None
    differing = _map(fields.get("divergence")).items()
    known["divergence"] = {str(name): told for name, told in differing if isinstance(told, dict)}
    return NodeStatus(**known)


def _map(value: object) -> dict[object, object]:
    return value if isinstance(value, dict) else {}


def _is_name(value: object) -> bool:
    return type(value) is str and 0 < len(value) <= _MAX_NAME_CHARACTERS
