"""What one call of the command line was told, and the way from there to a client.

The client library is imported when a command asks for a client, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from kvstore.client import Client

DEFAULT_ENDPOINTS = "tcp://127.0.0.1:7001,tcp://127.0.0.1:7002,tcp://127.0.0.1:7003"

ClientFactory = Callable[[tuple[str, ...], float], "AbstractContextManager[Any]"]


class Invocation:
    """The global options of one call; owned by click's context, read by the subcommand."""

    __slots__ = ("endpoints", "factory", "timeout_seconds", "write_out")

    def __init__(
        self,
        endpoints: tuple[str, ...],
        timeout_seconds: float,
        write_out: str | None,
        factory: ClientFactory | None,
    ) -> None:
        self.endpoints = endpoints
        self.timeout_seconds = timeout_seconds
        self.write_out = write_out
        self.factory = factory  # None: the real client

    def client(self) -> AbstractContextManager[Client]:
        """A client of the cluster, closed at the end of the `with`."""
        if self.factory is not None:
            return self.factory(self.endpoints, self.timeout_seconds)
        from kvstore.client import Client

        return Client(self.endpoints, timeout_seconds=self.timeout_seconds)


def parse_endpoints(_ctx: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Endpoints separated by commas; a usage error names the one that is none."""
    from kvstore.endpoints import EXPECTED, parse_endpoint

    endpoints = tuple(part.strip() for part in value.split(",") if part.strip())
    if not endpoints:
        raise click.BadParameter(f"no endpoint given; expected {EXPECTED}")
    for endpoint in endpoints:
        try:
            parse_endpoint(endpoint)
        except ValueError as error:
            raise click.BadParameter(f"{endpoint!r} {error}; expected {EXPECTED}") from None
    return endpoints
