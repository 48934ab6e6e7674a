"""What a system needs from the world outside its actors: protocols and limits, no I/O.

`zeromq` implements it on sockets, `memory` on queues; the frames' bytes are the same in both. Rules for every
implementation: nothing blocks but `wait`, nothing grows without a bound, and a frame that cannot go is lost
and counted. One thread owns a transport; only `wake` may be called from others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from actors.counters import Counters

PEER_PORT = "peer"  # the name under which `endpoint` gives the address that other nodes connect to


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """Bounds of a transport. The defaults are those of the service; tests make them small."""

    # Taken from one socket in one turn, so that no sender can starve the others.
    drain_frames: int = 1024
    drain_bytes: int = 4 << 20
    # A frame larger than its receiver takes would cost the connection: the sender checks first.
    peer_frame_bytes: int = 8 << 20
    client_frame_bytes: int = 2 << 20
    # Frames that wait between two sockets. What waits for a peer is old news by the time the peer reads it.
    mailbox_frames: int = 1000
    peer_frames: int = 256
    client_frames: int = 1000
    publisher_frames: int = 1000
    # A subscription is kept in memory by libzmq for as long as the subscriber stays.
    topic_bytes: int = 4096
    client_connections: int = 4096  # for each client port and each publisher
    # Connections that answer nothing for three times as long are taken for dead.
    peer_heartbeat_seconds: float = 0.5
    client_heartbeat_seconds: float = 2.0
    # Connections that have not said hello after this are cut.
    peer_handshake_seconds: float = 5.0
    client_handshake_seconds: float = 2.0
    # A subscriber over tcp:// that takes nothing for so long is cut off, and what waited for it is freed.
    publisher_stall_seconds: float = 10.0


class Transport(Protocol):
    """Moves frames; owned by the System that it was given to."""

    limits: TransportLimits

    def attach(self, node: str, counters: Counters) -> None:
        """Called once, by the System, before anything else."""
        ...

    def open_mailbox(self, actor: str) -> None: ...

    def open_peer_port(self, endpoint: str) -> None: ...

    def open_client_port(self, port: str, endpoint: str) -> None: ...

    def open_publisher(self, port: str, endpoint: str) -> None: ...

    def connect_peer(self, node: str, endpoint: str) -> None:
        """Frames for `node` go to `endpoint` from now on, whatever it was before."""
        ...

    def disconnect_peer(self, node: str) -> None: ...

    def endpoint(self, port: str) -> str:
        """Where the port is really bound, with the number that the system chose in place of port 0."""
        ...

    def connections(self, port: str) -> int:
        """How many are connected to a client port or a publisher."""
        ...

    def local_waiting(self) -> bool:
        """True if a mailbox holds a frame, so that the next wait will not wait."""
        ...

    def wait(self, timeout_seconds: float | None) -> None:
        """Return when a frame can be received, after the timeout (None: never), or when woken."""
        ...

    def settle(self) -> None:
        """After a stall: give what already reached the machine a moment to become receivable."""
        ...

    def wake(self) -> None:
        """End the present or the next `wait`; from any thread, or from a signal handler."""
        ...

    def send_local(self, sender: str, actor: str, frame: bytes) -> bool:
        """Into another actor's mailbox; False if it was full, and the frame is lost and counted."""
        ...

    def send_peer(self, node: str, header: bytes, frame: bytes) -> bool: ...

    def send_frame(self, port: str, connection: bytes, payload: bytes) -> bool: ...

    def publish(self, port: str, parts: list[bytes]) -> bool: ...

    def receive_local(self, actor: str) -> list[tuple[str, bytes]]:
        """(sending actor, frame) in order of arrival, at most as many as the limits allow."""
        ...

    def receive_peers(self) -> list[tuple[bytes, bytes]]:
        """(header, frame) of all peers, at most as many as the limits allow."""
        ...

    def peers_waiting(self) -> bool:
        """True if the last `receive_peers` stopped at a limit and left frames unread."""
        ...

    def receive_port(self, port: str) -> list[tuple[bytes, bytes]]:
        """(connection, payload) of a client port; (b"", subscription frame) of a publisher."""
        ...

    def close(self) -> None: ...
