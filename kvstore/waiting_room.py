"""Where a node waits that has no cluster yet: it keeps nothing, votes for nobody, and answers who asks.

May know: the client plane's frames, announcements, and an actor system of its own; of Raft the data directory
and a reason to refuse. It ends
when an operator makes the node the first member of a new cluster, or when a cluster that has added it says
so. Either is written down before it is answered or acted upon.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgpack

from actors import Actor, Address, Codec, System, SystemClock, Transport, TransportLimits, ZeroMqTransport
from kvstore import protocol
from kvstore.neighbours import Announce
from kvstore.protocol_admin import (
    NOT_INITIALISED,
    Initialise,
    Member,
    Membership,
    cluster_id_of,
    decode_admin,
    encode_change_refused,
    encode_membership,
)
from kvstore.settings import NodeSettings
from raft.directory import DataDirectory
from raft.errors import TransferReason
from raft.wire import FIRST_FREE_TAG

log = logging.getLogger("assent.waiting_room")

CLIENT_PORT = "client"
STOP_CHECK_SECONDS = 0.1

Found = Callable[[int, dict[str, str]], DataDirectory]
"""Makes the data directory of a cluster id, with the members to begin with; durable when it returns."""


class WaitingActor(Actor):
    """One per waiting room. It bears the gateway's name, since it is spoken to in its place."""

    name = "gateway"

    def __init__(self, settings: NodeSettings, found: Found, about: dict[str, object]) -> None:
        super().__init__()
        self._settings = settings
        self._found = found
        self._about = about
        self.directory: DataDirectory | None = None  # made: the waiting is over

    def receive(self, batch: list[tuple[Address, object]]) -> None:
        for sender, message in batch:
            if type(message) is Announce and message.cluster_id and self.directory is None:
                log.info("added_by=%s cluster=%016x", sender.node, message.cluster_id)
                self.directory = self._found(message.cluster_id, {})

    def receive_frames(self, port: str, frames: list[tuple[bytes, bytes]]) -> None:
        for connection, payload in frames:
            try:
                request = protocol.decode_request(payload)
            except protocol.MalformedFrame as error:
                refusal = protocol.encode_refused(0, 1, protocol.BAD_FRAME, error.reason)
                self.send_frame(port, connection, refusal)
                continue
            first, count = request.first_request_id, max(1, len(request.bodies))
            if request.kind == protocol.STATUS:
                reply = protocol.encode_results(first, 1, msgpack.packb((protocol.OK, self._status())))
            elif request.kind == protocol.ADMIN:
                reply = protocol.encode_results(first, 1, self._administer(request.bodies[0]))
            else:
                text = f"{self._settings.name} waits to be added to a cluster"
                reply = protocol.encode_refused(first, count, protocol.NOT_MEMBER, text)
            self.send_frame(port, connection, reply)

    def _administer(self, body: bytes) -> bytes:
        try:
            request = decode_admin(body)
        except protocol.MalformedFrame as error:
            packed: bytes = msgpack.packb((protocol.BAD_REQUEST, error.reason))
            return packed
        name, peer = self._settings.name, self._settings.peer
        if not isinstance(request, Initialise):
            text = (
                f"{name} is of no cluster yet: `assent cluster init` makes one, `assent member add` joins one"
            )
            return encode_change_refused(text, NOT_INITIALISED)
        cluster_id = cluster_id_of(request.nonce)
        if self._settings.priority == 0:
            # A cluster of one that never leads could add nobody.
            text = f"{name} has priority 0 and never leads: begin with another, or start it with --priority 1"
            return encode_change_refused(text, TransferReason.NEVER_LEADS)
        if self.directory is None:
            log.info("initialised cluster=%016x", cluster_id)
            self.directory = self._found(cluster_id, {name: peer})
        elif int(self.directory.identity.cluster_id, 16) != cluster_id:
            return encode_change_refused(f"{name} has joined a cluster at this moment", "already_initialised")
        member = Member(name, "voter", peer, self._settings.advertised_client)
        return encode_membership(Membership(f"{cluster_id:016x}", "", False, [member]))

    def _status(self) -> dict[str, object]:
        settings = self._settings
        numbers = ("term", "commit_index", "applied_index", "last_index", "log_bytes", "snapshot_index")
        return {
            **self._about,
            **dict.fromkeys((*numbers, "snapshot_term", "revision"), 0),
            "log_first_index": 1,
            "priority": settings.priority,
            "cluster_id": f"{0:016x}",
            "node": settings.name,
            "role": "waiting",
            "leader": None,
            "leader_client": None,
            "client_endpoint": settings.advertised_client,
            "watch_endpoint": settings.advertised_watch,
            "peer_endpoint": settings.peer,
            "storage_id": f"{0:016x}",
            "peers": {},
            "member": "waiting",
            "members": {},
            "is_joint": False,
            "storages_known": False,
            "refused_by": {},
            "fenced": None,
            "divergence": {},
        }


def build_room(
    settings: NodeSettings, found: Found, *, transport: Transport, about: dict[str, object]
) -> tuple[System, WaitingActor]:
    codec = Codec()
    codec.register(FIRST_FREE_TAG, Announce, remote=True)
    system = System(settings.name, transport, SystemClock(), codec, cluster_id=None, welcomes_strangers=True)
    actor = WaitingActor(settings, found, about)
    system.add(actor)
    system.open_peer_port(settings.peer)
    system.open_client_port(actor, CLIENT_PORT, settings.client)
    return system, actor


def wait_to_be_added(
    settings: NodeSettings,
    found: Found,
    is_stopping: Callable[[], bool],
    about: dict[str, object] | None = None,
) -> DataDirectory | None:
    """The data directory that was made when the waiting was over; None if the node is to stop."""
    limits = TransportLimits(client_frame_bytes=protocol.MAX_FRAME_BYTES)
    system, actor = build_room(settings, found, transport=ZeroMqTransport(limits), about=about or {})
    log.info(
        "waiting name=%s client=%s peer=%s", settings.name, system.endpoint("client"), system.endpoint("peer")
    )
    try:
        while actor.directory is None and not is_stopping():
            system.turn(STOP_CHECK_SECONDS)
    except BaseException:
        if actor.directory is not None:
            actor.directory.close()
        raise
    finally:
        system.close()
    if is_stopping() and actor.directory is not None:
        actor.directory.close()
        return None
    return actor.directory
