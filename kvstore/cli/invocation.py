"""What one call of the command line was told, and the way from there to a client.

The client library is imported when a command asks for a client, not before.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from kvstore.client import AsyncClient, Client

DEFAULT_ENDPOINTS = "tcp://127.0.0.1:7001,tcp://127.0.0.1:7002,tcp://127.0.0.1:7003"


class Clients(Protocol):
    """Where clients come from; tests have another source than the cluster."""

    def client(
        self, endpoints: tuple[str, ...], timeout_seconds: float
    ) -> AbstractContextManager[Client]: ...

    def async_client(
        self, endpoints: tuple[str, ...], timeout_seconds: float
    ) -> AbstractAsyncContextManager[AsyncClient]: ...


class ClusterClients:
    """Real clients of the cluster."""

    def client(self, endpoints: tuple[str, ...], timeout_seconds: float) -> AbstractContextManager[Client]:
        from kvstore.client import Client

        return Client(endpoints, timeout_seconds=timeout_seconds)

    def async_client(
        self, endpoints: tuple[str, ...], timeout_seconds: float
    ) -> AbstractAsyncContextManager[AsyncClient]:
        from kvstore.client import AsyncClient

        return AsyncClient(endpoints, timeout_seconds=timeout_seconds)


class Invocation:
    """The global options of one call; owned by click's context, read by the subcommand."""

    __slots__ = ("_clients", "endpoints", "timeout_seconds", "write_out")

    def __init__(
        self,
        endpoints: tuple[str, ...],
        timeout_seconds: float,
        write_out: str | None,
        clients: Clients,
    ) -> None:
        self.endpoints = endpoints
        self.timeout_seconds = timeout_seconds
        self.write_out = write_out
        self._clients = clients

    def client(self) -> AbstractContextManager[Client]:
        """A client of the cluster, closed at the end of the `with`."""
        return self._clients.client(self.endpoints, self.timeout_seconds)

    def async_client(self) -> AbstractAsyncContextManager[AsyncClient]:
        """The same for many requests at a time."""
        return self._clients.async_client(self.endpoints, self.timeout_seconds)


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
