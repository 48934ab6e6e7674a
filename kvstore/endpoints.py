"""What an endpoint is, and whether it can be reached from another machine.

This file knows the two transports and how a bind address is resolved; it opens no socket, reads no setting.
Whatever cannot be proved to be loopback counts as reachable from outside. The command line reads endpoints at
every start, so what only a node needs is imported where it is needed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

EXPECTED = "tcp://host:port (port 1 to 65535) or ipc://path"
WILDCARDS = frozenset({"*", "0.0.0.0", "[::]"})

_TCP = re.compile(r"tcp://(?P<host>\*|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})")
# The path of a Unix socket has 108 bytes in the kernel's structure, the closing zero among them.
_MAX_IPC_PATH_BYTES = 107


class Endpoint(NamedTuple):
    """An endpoint taken apart; host and port are empty for ipc, path is empty for tcp."""

    text: str
    host: str
    port: int
    path: str

    @property
    def is_wildcard(self) -> bool:
        """True if this binds every address of the machine, so that nobody can connect to it as written."""
        return self.host in WILDCARDS or (bool(self.host) and _literal_is_unspecified(self.host))


def parse_endpoint(text: str) -> Endpoint:
    """Take an endpoint apart; raises ValueError with what is wrong with it."""
    if text.startswith("ipc://"):
        return _parse_ipc(text)
    if not text.startswith("tcp://"):
        raise ValueError("does not begin with tcp:// or ipc://")
    match = _TCP.fullmatch(text)
    if match is None:
        raise ValueError(_why_not_tcp(text))
    host, port = match["host"], int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"has port {port}, which is not within 1 to 65535")
    if host.startswith("["):
        import ipaddress

        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(f"has {host}, which is not an IPv6 address") from None
    return Endpoint(text, host, port, "")


def reach(endpoint: Endpoint) -> str | None:
    """Why this bind address can be reached from another machine; None if it surely cannot."""
    if endpoint.path:
        return None
    import socket

    host = endpoint.host.strip("[]")
    if host == "*":
        return "* is every address of this machine"
    # A name of an interface goes first when it is bound, so it goes first here.
    if any(host == name for _index, name in socket.if_nameindex()):
        return f"{host} is a network interface, whose addresses may change"
    return _reach_of_host(host)


def _reach_of_host(host: str) -> str | None:
    import ipaddress
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"{host} resolves to nothing here, so it is not known to be loopback"
    for entry in found:
        address = ipaddress.ip_address(str(entry[4][0]).partition("%")[0])
        plain = getattr(address, "ipv4_mapped", None) or address
        if plain.is_unspecified:
            return f"{host} is every address of this machine"
        if not plain.is_loopback:
            return f"{address} is not a loopback address" if str(address) == host else f"{host} is {address}"
    return None


def _parse_ipc(text: str) -> Endpoint:
    path = text.removeprefix("ipc://")
    if not path:
        raise ValueError("has no path")
    if path.startswith("@"):
        # An abstract socket has no file, hence no file permissions to guard it.
        raise ValueError("is an abstract socket, which no file permission guards")
    if path == "*":
        raise ValueError("has no path of its own that another could connect to")
    if "\0" in path:
        raise ValueError("has a zero byte in its path")
    if len(path.encode()) > _MAX_IPC_PATH_BYTES:
        raise ValueError(f"has a path of {len(path.encode())} bytes, more than {_MAX_IPC_PATH_BYTES}")
    return Endpoint(text, "", 0, path)


def _why_not_tcp(text: str) -> str:
    rest = text.removeprefix("tcp://")
    if not rest:
        return "has neither host nor port"
    if rest.count(":") > 1 and not rest.startswith("["):
        return "has an IPv6 address without brackets, as in tcp://[::1]:7001"
    host, colon, port = rest.rpartition(":")
    if not colon or not port:
        return "has no port"
    if not host:
        return "has no host"
    if not port.isdecimal():
        return f"has {port!r} where the port belongs"
    return f"has {host!r} where the host belongs"


def _literal_is_unspecified(host: str) -> bool:
    import ipaddress
    import socket

    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        # The shorthand forms ("0", "0x0") of an IPv4 address; a name that needs a resolver is no literal.
        try:
            return socket.inet_aton(host) == b"\0\0\0\0"
        except OSError:
            return False
