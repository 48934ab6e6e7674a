"""The first part of every frame between nodes: who sent it to whom, in which life, as which in order. Bytes
only.

Layout: magic "AP", version byte, cluster id, incarnation and storage id (8 bytes each, big-endian), then
source node, source actor, destination node and destination actor (a length byte and UTF-8 each), then the
sequence (8 bytes). Everything before the sequence is the same for all frames of one pair of actors, so both
ends remember it as one string.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from actors.address import Address
from actors.errors import MalformedFrame

MAGIC = b"AP"
HEADER_VERSION = 2
LONGEST_NAME_BYTES = 255
SEQUENCE_BYTES = 8
_FIXED = struct.Struct(">2sBQQQ")
LONGEST_HEADER_BYTES = _FIXED.size + 4 * (1 + LONGEST_NAME_BYTES) + SEQUENCE_BYTES


class Header(NamedTuple):
    """A header without its sequence."""

    cluster_id: int
    incarnation: int  # random for each start of a process
    source: Address
    destination: Address
    storage_id: int = 0  # random for each data directory; 0: the sender has none


class WrongVersion(MalformedFrame):
    """The sender speaks another version of the peer protocol."""

    __slots__ = ()


def encode_prefix(header: Header) -> bytes:
    """All of the header but the sequence."""
    parts = [_FIXED.pack(MAGIC, HEADER_VERSION, header.cluster_id, header.incarnation, header.storage_id)]
    for name in (*header.source, *header.destination):
        encoded = name.encode()
        assert 0 < len(encoded) <= LONGEST_NAME_BYTES, f"a name of {len(encoded)} bytes does not fit a header"
        parts.append(bytes([len(encoded)]) + encoded)
    return b"".join(parts)


def decode_prefix(prefix: bytes) -> Header:
    """The inverse of `encode_prefix`; raises MalformedFrame, or WrongVersion of another version's."""
    if len(prefix) < len(MAGIC) + 1 or prefix[:2] != MAGIC:
        raise MalformedFrame("not a header")
    if prefix[2] != HEADER_VERSION:
        raise WrongVersion(f"header version {prefix[2]}")
    if len(prefix) < _FIXED.size:
        raise MalformedFrame("a header ends too early")
    _, _, cluster_id, incarnation, storage_id = _FIXED.unpack_from(prefix)
    names: list[str] = []
    offset = _FIXED.size
    for _ in range(4):
        if offset >= len(prefix):
            raise MalformedFrame("a header ends too early")
        end = offset + 1 + prefix[offset]
        if end > len(prefix) or end == offset + 1:
            raise MalformedFrame("a header has a bad name")
        try:
            names.append(prefix[offset + 1 : end].decode())
        except UnicodeDecodeError as error:
            raise MalformedFrame("a name is not UTF-8") from error
        offset = end
    if offset != len(prefix):
        raise MalformedFrame("a header is too long")
    source, destination = Address(names[0], names[1]), Address(names[2], names[3])
    return Header(cluster_id, incarnation, source, destination, storage_id)
