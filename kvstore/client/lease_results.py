"""What commands and reads of leases answer with, and how a result of the protocol becomes it.

May know: the client protocol's results. Every decoder takes one result whose code is OK, believes nothing of
it, and raises MalformedFrame when its shape is not the promised one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from kvstore.protocol import MalformedFrame, is_integer


class LeaseGranted(NamedTuple):
    """`ttl_seconds` may be more than was asked for: there is a least one."""

    revision: int
    id: int
    ttl_seconds: int


class LeaseRevoked(NamedTuple):
    """`deleted` keys went with it."""

    revision: int
    deleted: int


class LeasesRenewed(NamedTuple):
    """The TTL of each lease, in the order of the request; 0 for one that is not there."""

    revision: int
    ttls: list[int]


class LeaseInfo(NamedTuple):
    """`remaining_seconds` and `ttl_seconds` are None for a lease that is not there.

    `keys` are those that were asked for, and may be fewer than `key_count`.
    """

    revision: int
    remaining_seconds: int | None
    ttl_seconds: int | None
    key_count: int
    keys: list[bytes]


class LeaseList(NamedTuple):
    """All ids, ascending."""

    revision: int
    ids: list[int]


def _check(is_good: bool) -> None:
    if not is_good:
        raise MalformedFrame("a result of leases has another shape")


def decode_lease_granted(result: list[Any]) -> LeaseGranted:
    _check(len(result) >= 4 and all(map(is_integer, result[1:4])) and result[2] > 0 and result[3] > 0)
    return LeaseGranted(*result[1:4])


def decode_lease_revoked(result: list[Any]) -> LeaseRevoked:
    _check(len(result) >= 3 and all(map(is_integer, result[1:3])))
    return LeaseRevoked(*result[1:3])


def _integer_list(result: list[Any]) -> list[int]:
    _check(len(result) >= 3 and is_integer(result[1]) and type(result[2]) is list)
    _check(all(map(is_integer, result[2])))
    found: list[int] = result[2]
    return found


def decode_leases_renewed(result: list[Any]) -> LeasesRenewed:
    ttls = _integer_list(result)
    return LeasesRenewed(result[1], ttls)


def decode_lease_list(result: list[Any]) -> LeaseList:
    ids = _integer_list(result)
    return LeaseList(result[1], ids)


def decode_lease_info(result: list[Any]) -> LeaseInfo:
    _check(len(result) >= 6 and is_integer(result[1]) and all(map(is_integer, result[3:5])))
    remaining, keys = result[2], result[5]
    _check((is_integer(remaining) or remaining == -1) and type(keys) is list)
    _check(all(type(key) is bytes for key in keys))
    if remaining == -1:
        return LeaseInfo(result[1], None, None, 0, [])
    return LeaseInfo(result[1], remaining, result[3], result[4], keys)
