"""lease: grant, revoke, keep-alive, ttl and list.

Knows the blocking client and how results are written. A lease is named by its id, in decimal digits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kvstore.cli import output
from kvstore.cli.numbers import POSITIVE, Seconds
from kvstore.errors import AssentError, LeaseNotFound

if TYPE_CHECKING:
    from kvstore.client import Client

FAR_SECONDS = 1e12  # more than the cluster grants, which says so
RETRY_SECONDS = 0.1  # after a keepalive without answer, while there is time left


@click.group("lease")
def lease() -> None:
    """Keys that go when nobody keeps them: grant, renew and revoke leases."""


@lease.command("grant")
@click.argument("ttl", type=Seconds(0, FAR_SECONDS), metavar="TTL")
@click.option("--id", "lease_id", type=POSITIVE, help="This id, and not any that is free.")
@click.pass_context
def grant(ctx: click.Context, ttl: float, lease_id: int | None) -> None:
    """Make a lease of TTL seconds, which nobody renews by itself; show its id and the TTL it got."""
    with ctx.obj.client() as client:
        granted = client.grant_lease(ttl, id=lease_id or 0)
    if ctx.obj.write_out == "json":
        output.write_json({"id": granted.id, "ttl": granted.ttl_seconds})
    else:
        output.write_line(f"lease {granted.id} ttl {granted.ttl_seconds}".encode())


@lease.command("revoke")
@click.argument("lease_id", type=POSITIVE, metavar="ID")
@click.pass_context
def revoke(ctx: click.Context, lease_id: int) -> None:
    """End a lease now, and delete all its keys."""
    with ctx.obj.client() as client:
        result = client.revoke_lease(lease_id)
    if ctx.obj.write_out == "json":
        output.write_json({"revision": result.revision, "deleted": result.deleted})
    else:
        output.write_line(f"deleted {result.deleted}".encode())


@lease.command("keep-alive")
@click.argument("lease_id", type=POSITIVE, metavar="ID")
@click.option("--once", is_flag=True, help="Renew it now, and that is all.")
@click.pass_context
def keep_alive(ctx: click.Context, lease_id: int, once: bool) -> None:
    """Renew a lease again and again, until Ctrl-C or until it is not there any more."""
    with ctx.obj.client() as client:
        lost_at = time.monotonic()
        while True:
            asked_at = time.monotonic()
            ttl_seconds = _renew(client, lease_id, lost_at)
            lost_at = asked_at + ttl_seconds
            if ctx.obj.write_out == "json":
                output.write_json({"id": lease_id, "ttl": ttl_seconds})
            else:
                output.write_line(f"lease {lease_id} ttl {ttl_seconds}".encode())
            if once:
                return
            output.flush()
            time.sleep(ttl_seconds / 3)


def _renew(client: Client, lease_id: int, lost_at: float) -> int:
    """Its TTL. Without an answer it tries again until the lease may be lost."""
    while True:
        try:
            [ttl_seconds] = client.keep_alive(lease_id).ttls
        except AssentError:
            if time.monotonic() >= lost_at:
                raise
            time.sleep(RETRY_SECONDS)
            continue
        if not ttl_seconds:
            raise LeaseNotFound(f"lease {lease_id} is not there (any more)")
        return ttl_seconds


@lease.command("ttl")
@click.argument("lease_id", type=POSITIVE, metavar="ID")
@click.option("--keys", is_flag=True, help="Show its keys, too.")
@click.pass_context
def time_to_live(ctx: click.Context, lease_id: int, keys: bool) -> None:
    """Show how long a lease has left; -1 if there is none of that id, which is no failure."""
    with ctx.obj.client() as client:
        info = client.lease_info(lease_id, keys=keys)
    remaining = -1 if info.remaining_seconds is None else info.remaining_seconds
    ttl_seconds = info.ttl_seconds or 0
    if ctx.obj.write_out == "json":
        shown: dict[str, object] = {"id": lease_id, "remaining": remaining, "ttl": ttl_seconds}
        shown["key_count"] = info.key_count
        if keys:
            shown["keys"] = [output.json_bytes(key) for key in info.keys]
        output.write_json(shown)
        return
    output.write_line(f"remaining {remaining} ttl {ttl_seconds} keys {info.key_count}".encode())
    for key in info.keys:
        output.write_line(key)


@lease.command("list")
@click.pass_context
def list_leases(ctx: click.Context) -> None:
    """Show the ids of all leases, one in each line."""
    with ctx.obj.client() as client:
        found = client.leases()
    if ctx.obj.write_out == "json":
        output.write_json({"revision": found.revision, "ids": found.ids})
        return
    for number in found.ids:
        output.write_line(str(number).encode())
