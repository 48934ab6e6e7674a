"""What an operator may ask of a cluster, as bytes: the bodies of ADMIN requests and the answer to them.

May know: msgpack by way of `protocol`, names and endpoints; nothing of Raft, sockets or time. Encoders trust
their caller; `decode_admin` trusts nobody. Every request says what is to be, not what is to be done: asked
again, after a lost answer or of another leader, it finds that it is so already, and succeeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgpack

from kvstore import protocol
from kvstore.endpoints import parse_endpoint
from kvstore.protocol import NONCE_BYTES, UNPACK_ERRORS, MalformedFrame, unpack_guarded

MAX_MEMBERS: Final = 64
NAME: Final = re.compile(r"[a-z0-9-]{1,63}")

# Why a change is refused, beside the reasons of raft/errors.py.
ALREADY_INITIALISED: Final = "already_initialised"
NOT_INITIALISED: Final = "not_initialised"


class ListMembers(NamedTuple):
    """Who takes part, as the leader knows it."""


class AddMember(NamedTuple):
    """`name`, whose peer endpoint is `address`, as a learner first; as a voter once it has caught up, unless
    it is to stay a learner."""

    name: str
    address: str
    stays_learner: bool


class PromoteMember(NamedTuple):
    """A learner becomes a voter once it has caught up."""

    name: str


class DemoteMember(NamedTuple):
    """A voter becomes a learner. `is_forced`: also if the voters that are left and alive are no majority."""

    name: str
    is_forced: bool


class RemoveMember(NamedTuple):
    """`is_forced`: also if the voters that are left and alive are no majority."""

    name: str
    is_forced: bool


class ReplaceMember(NamedTuple):
    """`new` catches up as a learner; then, in one step, it becomes a voter and `old` leaves."""

    old: str
    new: str
    address: str


class SetMembers(NamedTuple):
    """These are to be the voters, all others leave. An address may be empty for who is a member already."""

    members: tuple[tuple[str, str], ...]
    is_forced: bool


class MoveLeader(NamedTuple):
    """To `target`, or to whoever is best prepared if that is empty."""

    target: str


class Initialise(NamedTuple):
    """A node that waits becomes the first member of a new cluster, whose id follows from the nonce."""

    nonce: bytes


AdminRequest = (
    ListMembers
    | AddMember
    | PromoteMember
    | RemoveMember
    | ReplaceMember
    | SetMembers
    | MoveLeader
    | Initialise
    | DemoteMember
)

_VERBS: Final[dict[int, type[AdminRequest]]] = {
    1: ListMembers,
    2: AddMember,
    3: PromoteMember,
    4: RemoveMember,
    5: ReplaceMember,
    6: SetMembers,
    7: MoveLeader,
    8: Initialise,
    9: DemoteMember,
}
_NUMBERS: Final = {kind: number for number, kind in _VERBS.items()}


def encode_admin(request: AdminRequest) -> bytes:
    """The body of an ADMIN request."""
    packed: bytes = msgpack.packb((_NUMBERS[type(request)], *request))
    return packed


def decode_admin(body: bytes) -> AdminRequest:
    """Raises MalformedFrame, with a reason that helps whoever typed the request."""
    try:
        items = unpack_guarded(body, max_arrays=2 + MAX_MEMBERS)
    except UNPACK_ERRORS:
        raise MalformedFrame("the body is not one msgpack array") from None
    if type(items) is not list or not items or type(items[0]) is not int:
        raise MalformedFrame("the body is not an array that begins with a verb")
    kind = _VERBS.get(items[0])
    if kind is None:
        raise MalformedFrame("unknown verb")
    fields = kind._fields
    if len(items) != len(fields) + 1:
        raise MalformedFrame(f"verb {items[0]} has {len(fields)} arguments")
    return kind(*(_CHECKS[field](item) for field, item in zip(fields, items[1:], strict=True)))


def check_name(name: object) -> str:
    if type(name) is not str or not NAME.fullmatch(name):
        raise MalformedFrame(f"{name!r} is not a name: 1 to 63 of a-z, 0-9 and '-'")
    return name


def check_address(address: object) -> str:
    """The peer endpoint of a member: one that others can connect to."""
    if type(address) is not str or "#" in address:
        raise MalformedFrame(f"{address!r} is not an endpoint")
    try:
        endpoint = parse_endpoint(address)
    except ValueError as error:
        raise MalformedFrame(f"{address!r} {error}") from None
    if endpoint.is_wildcard:
        raise MalformedFrame(f"{address!r} is an endpoint to which no other node can connect")
    return address


def _check_flag(flag: object) -> bool:
    if type(flag) is not bool:
        raise MalformedFrame("a flag is true or false")
    return flag


def _check_members(members: object) -> tuple[tuple[str, str], ...]:
    if type(members) is not list or not 1 <= len(members) <= MAX_MEMBERS:
        raise MalformedFrame(f"members are an array of 1 to {MAX_MEMBERS}")
    if not all(type(member) is list and len(member) == 2 for member in members):
        raise MalformedFrame("a member is a name and an endpoint")
    pairs = tuple((check_name(name), address and check_address(address)) for name, address in members)
    if len({name for name, _ in pairs}) < len(pairs):
        raise MalformedFrame("a name is there twice")
    return pairs


def _check_nonce(nonce: object) -> bytes:
    if type(nonce) is not bytes or len(nonce) != NONCE_BYTES:
        raise MalformedFrame(f"a nonce is {NONCE_BYTES} bytes")
    return nonce


_CHECKS: Final[dict[str, Callable[[object], Any]]] = {
    "name": check_name,
    "old": check_name,
    "new": check_name,
    "target": lambda target: target if target == "" else check_name(target),
    "address": check_address,
    "stays_learner": _check_flag,
    "is_forced": _check_flag,
    "members": _check_members,
    "nonce": _check_nonce,
}


def cluster_id_of(nonce: bytes) -> int:
    """The id of the cluster that is initialised with this nonce: 63 bits, and never 0."""
    from hashlib import sha256  # takes long to load, and few need it

    return int.from_bytes(sha256(b"assent cluster" + nonce).digest()[:8], "big") >> 1 or 1


# ---------------------------------------------------------------- answers


class Member(NamedTuple):
    """`role` is "voter", "learner", or "leaving" for a voter whom the change under way takes out."""

    name: str
    role: str
    peer_endpoint: str  # empty if it is not known
    client_endpoint: str  # empty until it was heard


class Membership(NamedTuple):
    """Who takes part. While `is_joint`, old and new voters must agree separately (Raft §6)."""

    cluster_id: str
    leader: str
    is_joint: bool
    members: list[Member]


def encode_membership(membership: Membership) -> bytes:
    """As the result of an ADMIN request."""
    cluster_id, leader, is_joint, members = membership
    packed: bytes = msgpack.packb((protocol.OK, cluster_id, leader, is_joint, members))
    return packed


def encode_change_refused(message: str, reason: str) -> bytes:
    packed: bytes = msgpack.packb((protocol.CHANGE_REFUSED, message, reason))
    return packed


def encode_change_unfinished(message: str) -> bytes:
    packed: bytes = msgpack.packb((protocol.CHANGE_UNFINISHED, message))
    return packed


def decode_membership(result: list[Any]) -> Membership:
    """Of a result whose code is OK. Raises MalformedFrame."""
    if len(result) != 5 or type(result[4]) is not list:
        raise MalformedFrame("a membership has cluster id, leader, joint and members")
    _, cluster_id, leader, is_joint, members = result
    if type(cluster_id) is not str or type(leader) is not str or type(is_joint) is not bool:
        raise MalformedFrame("a membership has cluster id, leader, joint and members")
    for member in members:
        if type(member) is not list or len(member) != 4 or set(map(type, member)) != {str}:
            raise MalformedFrame("a member has name, role and two endpoints")
    return Membership(cluster_id, leader, is_joint, [Member(*member) for member in members])


def split_address(address: str) -> tuple[str, int]:
    """The peer endpoint and the storage id, 0 if it has none, of an address as configurations have it:
    "tcp://host:port#0123456789abcdef"."""
    endpoint, mark, storage = address.rpartition("#")
    if mark and len(storage) == 16 and not set(storage) - set("0123456789abcdef"):
        return endpoint, int(storage, 16)
    return address, 0


def join_address(endpoint: str, storage_id: int) -> str:
    return f"{endpoint}#{storage_id:016x}" if storage_id else endpoint


def endpoints_of(addresses: Mapping[str, str]) -> dict[str, str]:
    """The peer endpoints alone."""
    return {name: split_address(address)[0] for name, address in addresses.items()}
