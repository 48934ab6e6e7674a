"""The socket options of every kind of socket, each with its reason: may know zmq and limits, nothing of
frames' content.

The defaults of ZeroMQ queue without telling, wait for ever and trust sizes; what is set here is what keeps a
node's loop from ever waiting for another node. Needs libzmq 4.3.3: older ones can be brought down, or taken
over, by a stranger.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import zmq

from actors.errors import EndpointUnusable, UnusableLibrary
from actors.transport import TransportLimits

LEAST_LIBRARY = (4, 3, 3)

Socket = zmq.Socket[bytes]
Send = Callable[[bytes, int], object]


def library_version() -> str:
    """The version of libzmq that is in use, not that of its Python binding."""
    return zmq.zmq_version()


def make_context() -> zmq.Context[Socket]:
    """A context with one I/O thread, which outruns what one Python loop can make or take."""
    if zmq.zmq_version_info() < LEAST_LIBRARY:
        raise UnusableLibrary(library_version(), ".".join(map(str, LEAST_LIBRARY)))
    context: zmq.Context[Socket] = zmq.Context()
    context.set(zmq.IO_THREADS, 1)
    return context


def mailbox_socket(context: zmq.Context[Socket], limits: TransportLimits) -> Socket:
    """ROUTER of an actor: the routing id of a frame is the name of the actor that sent it."""
    socket = context.socket(zmq.ROUTER)
    socket.set(zmq.LINGER, 0)
    # Over inproc the bound of a pipe is the sum of both ends' marks; the sender's is the whole of it here.
    socket.set(zmq.RCVHWM, 1)
    return socket


def mailbox_sender(context: zmq.Context[Socket], limits: TransportLimits, sender: str) -> Socket:
    """DEALER of one actor to another's mailbox."""
    socket = context.socket(zmq.DEALER)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, max(1, limits.mailbox_frames - 1))
    socket.set(zmq.ROUTING_ID, sender.encode())
    return socket


def peer_listener(context: zmq.Context[Socket], limits: TransportLimits) -> Socket:
    """ROUTER that receives from all other nodes.

    Routing ids are those that libzmq makes up anew for each connection. With an id of its own a node that
    reconnects while its old connection is half open would stay mute (libzmq #4503), and taking over an id is
    a hijack; who sends is said, and judged, in the header of each frame.
    """
    socket = context.socket(zmq.ROUTER)
    _set_common(
        socket,
        frames=limits.peer_frames,
        largest_bytes=limits.peer_frame_bytes,
        handshake_seconds=limits.peer_handshake_seconds,
    )
    _set_heartbeat(socket, limits.peer_heartbeat_seconds)
    return socket


def peer_sender(context: zmq.Context[Socket], limits: TransportLimits) -> Socket:
    """DEALER to one other node. It only sends: one for each peer, lest frames be dealt out in turns."""
    socket = context.socket(zmq.DEALER)
    _set_common(
        socket, frames=limits.peer_frames, largest_bytes=1024, handshake_seconds=limits.peer_handshake_seconds
    )
    socket.set(zmq.RCVHWM, 1)
    # Without a connection there is no queue: a peer that comes back must not first read what was said long
    # ago.
    socket.set(zmq.IMMEDIATE, 1)
    # Soon again after a restart, but not ten times a second for the hours that a machine may be away.
    socket.set(zmq.RECONNECT_IVL, 50)
    socket.set(zmq.RECONNECT_IVL_MAX, 2000)
    # A SYN into a void must not hold up the next attempt for the two minutes that the kernel would take.
    socket.set(zmq.CONNECT_TIMEOUT, 2000)
    _set_heartbeat(socket, limits.peer_heartbeat_seconds)
    return socket


def client_listener(context: zmq.Context[Socket], limits: TransportLimits) -> Socket:
    """ROUTER for clients."""
    socket = context.socket(zmq.ROUTER)
    _set_common(
        socket,
        frames=limits.client_frames,
        largest_bytes=limits.client_frame_bytes,
        handshake_seconds=limits.client_handshake_seconds,
    )
    # Replies made before a clean stop should still reach their clients.
    socket.set(zmq.LINGER, 500)
    # A client that vanished without a word is forgotten, with its queue.
    _set_heartbeat(socket, limits.client_heartbeat_seconds)
    return socket


def publisher_listener(context: zmq.Context[Socket], limits: TransportLimits) -> Socket:
    """XPUB: a publisher that sees its subscriptions. A subscriber at its mark loses messages (XPUB_NODROP
    stays off)."""
    socket = context.socket(zmq.XPUB)
    # All that a subscriber may send is subscriptions; twice the longest, so that one too long is counted, not
    # cut off.
    _set_common(
        socket,
        frames=limits.publisher_frames,
        largest_bytes=2 * limits.topic_bytes,
        handshake_seconds=limits.client_handshake_seconds,
    )
    # One that does not read is cut off: until then its queue is full, and it costs as much as that holds. (Of
    # a socket file the system does not know how long nobody has read.)
    socket.set(zmq.TCP_MAXRT, max(1, int(limits.publisher_stall_seconds * 1000.0)))
    # Every subscription is passed up, not only a topic's first: each new subscriber wants the stream's state
    # at once.
    socket.set(zmq.XPUB_VERBOSE, 1)
    _set_heartbeat(socket, limits.client_heartbeat_seconds)
    return socket


def bind(socket: Socket, endpoint: str) -> str:
    """Bind and return the real endpoint; EndpointUnusable says why not."""
    try:
        if endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@"):
            _make_private_directory(os.path.dirname(endpoint.removeprefix("ipc://")))
        socket.bind(endpoint)
    except (zmq.ZMQError, OSError) as error:
        raise EndpointUnusable(endpoint, error.strerror or str(error)) from error
    real = socket.get(zmq.LAST_ENDPOINT)
    assert isinstance(real, bytes)
    return real.rstrip(b"\0").decode()


def connect(socket: Socket, endpoint: str) -> None:
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise EndpointUnusable(endpoint, error.strerror) from error


def quick_send(socket: Socket) -> Send:
    """The socket's send without the layer that looks for options we never use: half a microsecond less."""
    return super(zmq.Socket, socket).send


def descriptor(socket: Socket) -> int:
    """Readable when something came for the socket since it was last asked, not as long as it has frames."""
    return int(socket.get(zmq.FD))


def _set_common(socket: Socket, *, frames: int, largest_bytes: int, handshake_seconds: float) -> None:
    # Bounded queues on both sides; 0 would mean no bound.
    socket.set(zmq.SNDHWM, frames)
    socket.set(zmq.RCVHWM, frames)
    # A larger part costs its sender the connection, before it is read.
    socket.set(zmq.MAXMSGSIZE, largest_bytes)
    # The default, for ever, would keep a stopping node waiting for a dead peer.
    socket.set(zmq.LINGER, 0)
    # A connection that does not say hello, or was refused, holds a descriptor no longer than this.
    socket.set(zmq.HANDSHAKE_IVL, max(1, int(handshake_seconds * 1000.0)))
    if socket.type == zmq.ROUTER:
        # Otherwise a frame to a connection that is gone, or whose queue is full, vanishes without an error.
        socket.set(zmq.ROUTER_MANDATORY, 1)


def _set_heartbeat(socket: Socket, interval_seconds: float) -> None:
    # Finds half-open connections. The I/O thread answers these, so they say that a process is there, not that
    # its loop turns: that is what the heartbeats of actors are for.
    interval_ms = max(1, int(interval_seconds * 1000.0))
    socket.set(zmq.HEARTBEAT_IVL, interval_ms)
    socket.set(zmq.HEARTBEAT_TIMEOUT, 3 * interval_ms)
    socket.set(zmq.HEARTBEAT_TTL, 3 * interval_ms)


def _make_private_directory(directory: str) -> None:
    """Only the own user may connect to a socket file, for there is no other lock on it."""
    if not directory:
        return
    os.makedirs(directory, mode=stat.S_IRWXU, exist_ok=True)
