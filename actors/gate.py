"""Decides which frames of other nodes are let in: may know headers and counters, nothing of sockets or
payloads.

A frame is refused and counted if it is of another version or cluster, not for this node, not from a peer
(unless strangers are welcome), from a peer whose data directory is another one than it was, from a former
life of its sender, or not later than one already let in. What is let in may still be old, or follow a gap:
the receiver must be able to live with both.
"""

from __future__ import annotations

from actors.address import Address
from actors.counters import Counters
from actors.errors import MalformedFrame
from actors.header import (
    LONGEST_HEADER_BYTES,
    SEQUENCE_BYTES,
    Header,
    WrongVersion,
    decode_prefix,
    encode_prefix,
)

# How long the present life of a peer must be silent before frames of a former one are believed to be the
# present. Lives are random numbers and have no order. A process that died sends no more once its last
# connection is drained, so what talks on while the other is silent is the living one; without this rule a
# pair of lives first seen in the wrong order would leave the peer unheard until its next restart.
SILENCE_SECONDS = 1.0
# Only senders that forge headers could make these grow.
MOST_LIVES = 16
MOST_KNOWN_PREFIXES = 4096
# Those heard of longest ago are forgotten first; a cluster has few nodes that this one does not know yet.
MOST_STRANGERS = 64


class _Life:
    """What was heard of one incarnation of a peer; owned by its _Source."""

    __slots__ = ("heard_at", "incarnation", "sequence")

    def __init__(self, incarnation: int, now: float) -> None:
        self.incarnation = incarnation
        self.sequence = -1  # highest let in; the next must be higher
        self.heard_at = now


class _Source:
    """A node as the gate knows it; owned by the Gate."""

    __slots__ = ("life", "lives", "storage_id")

    def __init__(self, storage_id: int = 0) -> None:
        # Of its data directory, as told by `allow` or else as first heard; 0: not known yet. A node of the
        # same name with another one has forgotten what it promised.
        self.storage_id = storage_id
        self.life: _Life | None = None  # the present one
        self.lives: dict[int, _Life] = {}  # oldest first; includes the present one


class Gate:
    """Judges headers; one per System."""

    __slots__ = (
        "_cluster_id",
        "_counters",
        "_known",
        "_node",
        "_sources",
        "_strangers",
        "_welcomes_strangers",
        "turned_away",
    )

    def __init__(
        self, node: str, cluster_id: int | None, counters: Counters, *, welcomes_strangers: bool = False
    ) -> None:
        self._node = node
        self._cluster_id = cluster_id  # None: any will do
        self._counters = counters
        self._welcomes_strangers = welcomes_strangers
        self._sources: dict[str, _Source] = {}
        self._strangers: dict[str, _Source] = {}  # those heard first come first
        # Prefixes that passed every check which does not depend on time.
        self._known: dict[bytes, tuple[_Source, Header]] = {}
        # The header that `admit` refused last for its storage id alone; the owner clears it.
        self.turned_away: Header | None = None

    def allow(self, node: str, storage_id: int = 0) -> None:
        """Let `node` in; with `storage_id`, only if it has that data directory."""
        source = self._sources.get(node)
        if source is None:
            source = self._sources[node] = self._strangers.pop(node, _Source())
        if storage_id and storage_id != source.storage_id:
            source.storage_id = storage_id
            self._known.clear()

    def refuse(self, node: str) -> None:
        self._sources.pop(node, None)
        self._strangers.pop(node, None)
        self._known.clear()

    def storage_of(self, node: str) -> int:
        """The data directory of a peer as far as it is known, else 0."""
        source = self._sources.get(node)
        return source.storage_id if source is not None else 0

    def admit(self, encoded: bytes, now: float) -> Header | None:
        """The header of a frame that may come in, else None."""
        if len(encoded) > LONGEST_HEADER_BYTES:
            self._counters.report("peer_malformed_header", "reason='a header is too long'")
            return None
        prefix = encoded[:-SEQUENCE_BYTES]
        known = self._known.get(prefix)
        if known is None:
            known = self._examine(prefix)
            if known is None:
                return None
        source, header = known
        life = source.life
        if life is None or life.incarnation != header.incarnation:
            life = self._change_life(source, header, now)
            if life is None:
                return None
        sequence = int.from_bytes(encoded[-SEQUENCE_BYTES:], "big")
        if sequence <= life.sequence:
            self._counters.report("peer_stale_sequence", f"peer={header.source.node}")
            return None
        life.sequence = sequence
        life.heard_at = now
        return header

    def _examine(self, prefix: bytes) -> tuple[_Source, Header] | None:
        """All checks that do not depend on time; None, and counted, if one fails."""
        report = self._counters.report
        try:
            header = decode_prefix(prefix)
        except WrongVersion as error:
            report("peer_wrong_version", f"reason={error.reason!r}")
            return None
        except MalformedFrame as error:
            report("peer_malformed_header", f"reason={error.reason!r}")
            return None
        if self._cluster_id is not None and header.cluster_id != self._cluster_id:
            report("peer_wrong_cluster", f"theirs={header.cluster_id} ours={self._cluster_id}")
        elif header.destination.node != self._node:
            report("peer_wrong_destination", f"destination={header.destination.node!r}")
        else:
            return self._examine_source(prefix, header)
        return None

    def _examine_source(self, prefix: bytes, header: Header) -> tuple[_Source, Header] | None:
        node = header.source.node
        source = self._sources.get(node) or self._strangers.get(node)
        if source is None:
            if not self._welcomes_strangers or node == self._node:
                self._counters.report("peer_unknown_source", f"source={node!r}")
                return None
            source = self._meet(node)
        if source.storage_id == 0:
            source.storage_id = header.storage_id
        elif source.storage_id != header.storage_id:
            detail = f"peer={node} known={source.storage_id:016x} found={header.storage_id:016x}"
            self._counters.report("peer_other_storage", detail)
            self.turned_away = header
            return None
        if len(self._known) >= MOST_KNOWN_PREFIXES:
            self._known.clear()
        self._known[prefix] = (source, header)
        return source, header

    def _meet(self, node: str) -> _Source:
        if len(self._strangers) >= MOST_STRANGERS:
            del self._strangers[next(iter(self._strangers))]
            self._known.clear()
        source = self._strangers[node] = _Source()
        return source

    def _change_life(self, source: _Source, header: Header, now: float) -> _Life | None:
        present = source.life
        life = source.lives.get(header.incarnation)
        if life is None:
            life = source.lives[header.incarnation] = _Life(header.incarnation, now)
            if len(source.lives) > MOST_LIVES:
                del source.lives[next(iter(source.lives))]
        elif present is not None and now - present.heard_at < SILENCE_SECONDS:
            self._counters.report("peer_stale_incarnation", f"peer={header.source.node}")
            return None
        source.life = life
        return life


class Prefixes:
    """Writes headers: remembers the constant part for each pair of actors and counts each peer's sequence."""

    __slots__ = ("_cluster_id", "_incarnation", "_next", "_node", "_prefixes", "_storage_id")

    def __init__(self, node: str, cluster_id: int, incarnation: int, storage_id: int = 0) -> None:
        self._node = node
        self._storage_id = storage_id
        self._cluster_id = cluster_id
        self._incarnation = incarnation
        self._prefixes: dict[tuple[str, Address], bytes] = {}
        self._next: dict[str, int] = {}

    def header(self, actor: str, destination: Address) -> bytes:
        """The header of the next frame from this node's `actor` to `destination`."""
        prefix = self._prefixes.get((actor, destination))
        if prefix is None:
            source = Address(self._node, actor)
            prefix = encode_prefix(
                Header(self._cluster_id, self._incarnation, source, destination, self._storage_id)
            )
            self._prefixes[(actor, destination)] = prefix
        sequence = self._next.get(destination.node, 0)
        self._next[destination.node] = sequence + 1
        return prefix + sequence.to_bytes(SEQUENCE_BYTES, "big")

    def forget(self, node: str) -> None:
        """No more frames go to `node` for now. The count of its sequence goes on, should it come back."""
        for pair in [pair for pair in self._prefixes if pair[1].node == node]:
            del self._prefixes[pair]
