"""What can go wrong in the runtime, split by who is to blame; may know nothing else of the package."""

from __future__ import annotations


class MalformedFrame(Exception):
    """Bytes from outside that are not a frame of this protocol; the sender is to blame, and the frame is
    dropped."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnusableLibrary(Exception):
    """The installed libzmq has known holes; the operator has to install a newer one."""

    __slots__ = ("installed", "needed")

    def __init__(self, installed: str, needed: str) -> None:
        super().__init__(f"libzmq {installed} has known security holes; {needed} or newer is needed")
        self.installed = installed
        self.needed = needed


class EndpointUnusable(Exception):
    """A port could not be opened, or a peer not be connected to, at this endpoint; the configuration is to
    blame."""

    __slots__ = ("endpoint", "reason")

    def __init__(self, endpoint: str, reason: str) -> None:
        super().__init__(f"cannot use endpoint {endpoint}: {reason}")
        self.endpoint = endpoint
        self.reason = reason
