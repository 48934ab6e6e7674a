"""The waiting room: a node without a cluster keeps nothing, and comes to one cluster at most."""

from __future__ import annotations

from pathlib import Path

import msgpack

from actors import Address, Codec, MemoryNetwork, System, SystemClock
from kvstore import protocol
from kvstore.neighbours import Announce
from kvstore.protocol import Refusal, Results
from kvstore.protocol_admin import (
    AdminRequest,
    Initialise,
    ListMembers,
    cluster_id_of,
    decode_membership,
    encode_admin,
)
from kvstore.settings import NodeSettings
from kvstore.waiting_room import build_room
from raft.directory import DataDirectory
from raft.wire import FIRST_FREE_TAG
from tests.actors.world import Recorder

NONCE = bytes(range(16))


class Room:
    """A waiting room on a network of memory, and one client. Owned by one test."""

    def __init__(self, directory: Path, priority: int = 1) -> None:
        self.network = MemoryNetwork()
        self.claims: list[tuple[int, dict[str, str]]] = []
        self._path = directory / "data"
        settings = NodeSettings(
            name="n1",
            data_dir=self._path,
            peer="ipc:///room/peer",
            client="ipc:///room/client",
            watch="ipc:///room/watch",
            cluster={},
            cluster_id=0,
            priority=priority,
        )
        self.system, self.actor = build_room(
            settings, self._claim, transport=self.network.transport(), about={}
        )
        self.client = self.network.connect_client("ipc:///room/client")

    def _claim(self, cluster_id: int, members: dict[str, str]) -> DataDirectory:
        self.claims.append((cluster_id, members))
        return DataDirectory(self._path, f"{cluster_id:016x}", "n1", members=members)

    def ask(self, kind: int, bodies: list[bytes]) -> Results | Refusal:
        self.client.send(protocol.encode_request(kind, 1, 1000, bodies))
        self.system.turn(0.0)
        [reply] = self.client.receive()
        return protocol.decode_reply(reply)

    def admin(self, request: AdminRequest) -> list[object]:
        reply = self.ask(protocol.ADMIN, [encode_admin(request)])
        assert isinstance(reply, Results)
        [result] = protocol.split_results(reply.blob, 1)
        return result


def announce(room: Room, node: str, cluster_id: int) -> None:
    """A node of some cluster says that it is there."""
    codec = Codec()
    codec.register(FIRST_FREE_TAG, Announce, remote=True)
    stranger = System(node, room.network.transport(), SystemClock(), codec, cluster_id=cluster_id)
    gateway = Recorder("gateway")
    stranger.add(gateway)
    stranger.connect_peer("n1", "ipc:///room/peer")
    stranger.start()
    gateway.send(Address("n1", "gateway"), Announce("ipc:///c", "ipc:///w", "ipc:///p", cluster_id))
    gateway.flush()
    room.system.turn(0.0)
    stranger.close()


def test_it_answers_who_it_is_and_refuses_everything_else(tmp_path: Path) -> None:
    room = Room(tmp_path)
    status = room.ask(protocol.STATUS, [])
    assert isinstance(status, Results)
    fields = msgpack.unpackb(status.blob)[1]
    assert (fields["node"], fields["role"], fields["member"]) == ("n1", "waiting", "waiting")
    for kind in (protocol.WRITE, protocol.READ, protocol.STALE_READ):
        refusal = room.ask(kind, [b"\x90", b"\x90"])
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.request_count) == (protocol.NOT_MEMBER, 2)
    bad = room.ask(9, [b""])
    assert isinstance(bad, Refusal) and bad.code == protocol.BAD_FRAME
    assert room.admin(ListMembers())[::2] == [protocol.CHANGE_REFUSED, "not_initialised"]
    refused = room.ask(protocol.ADMIN, [b"\xc1"])
    assert (
        isinstance(refused, Results) and protocol.split_results(refused.blob, 1)[0][0] == protocol.BAD_REQUEST
    )
    assert room.claims == [] and not (tmp_path / "data").exists()


def test_it_is_initialised_once_and_the_same_nonce_may_come_again(tmp_path: Path) -> None:
    room = Room(tmp_path)
    for _ in range(2):
        made = decode_membership(room.admin(Initialise(NONCE)))
        assert made.cluster_id == f"{cluster_id_of(NONCE):016x}"
        assert [(member.name, member.peer_endpoint) for member in made.members] == [
            ("n1", "ipc:///room/peer")
        ]
    assert room.admin(Initialise(bytes(16)))[::2] == [protocol.CHANGE_REFUSED, "already_initialised"]
    announce(room, "n9", 77)  # another cluster comes too late
    assert room.claims == [(cluster_id_of(NONCE), {"n1": "ipc:///room/peer"})]
    assert room.actor.directory is not None
    room.actor.directory.close()


def test_it_belongs_to_the_first_cluster_that_has_added_it(tmp_path: Path) -> None:
    room = Room(tmp_path)
    announce(room, "n8", 0)  # which has no cluster itself
    assert room.claims == []
    announce(room, "n9", 77)
    announce(room, "n7", 78)
    assert room.claims == [(77, {})]
    assert room.admin(Initialise(NONCE))[::2] == [protocol.CHANGE_REFUSED, "already_initialised"]
    assert room.actor.directory is not None
    room.actor.directory.close()


def test_a_node_of_priority_0_begins_no_cluster_since_it_would_never_lead_it(tmp_path: Path) -> None:
    room = Room(tmp_path, priority=0)
    code, text, reason = room.admin(Initialise(NONCE))
    assert (code, reason) == (protocol.CHANGE_REFUSED, "never_leads") and "--priority" in str(text)
    assert room.claims == [] and room.actor.directory is None
