"""compact: the past of the keys is forgotten, and the log is given up behind a snapshot.

Knows the blocking client only. The first is one command of the cluster, the second every node does by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kvstore.cli import exits, output
from kvstore.cli.invocation import Invocation
from kvstore.cli.numbers import POSITIVE
from kvstore.errors import AssentError, Unreachable

if TYPE_CHECKING:
    from kvstore.client import Client


@click.command("compact")
@click.argument("revision", type=POSITIVE, metavar="[REV]", required=False)
@click.option("--log", "is_log", is_flag=True, help="Have nodes take a snapshot, and give up the log before.")
@click.option("--node", "names", multiple=True, metavar="NAME", help="With --log: only this one; repeatable.")
@click.pass_context
def compact(ctx: click.Context, revision: int | None, is_log: bool, names: tuple[str, ...]) -> None:
    """Forget what the keys were before revision REV: it is the oldest that can be read from now on.

    With --log every node takes a snapshot now, one after the other, and gives its log up behind it: what was
    forgotten or deleted before is then off its disk, too.
    """
    if revision is None and not is_log:
        raise click.UsageError("give a REV, --log, or both")
    if names and not is_log:
        raise click.UsageError("--node goes with --log")
    invocation: Invocation = ctx.obj
    shown: dict[str, object] = {}
    code = exits.OK
    with invocation.client() as client:
        if revision is not None:
            shown |= {"revision": client.compact(revision).revision, "compact_revision": revision}
            if invocation.write_out != "json":
                output.write_line(f"compacted {revision}".encode())
        if is_log:
            shown["logs"], code = _compact_logs(invocation, client, names)
    if invocation.write_out == "json":
        output.write_json(shown)
    ctx.exit(code)


def _compact_logs(
    invocation: Invocation, client: Client, names: tuple[str, ...]
) -> tuple[list[dict[str, object]], int]:
    """What came of each node, and the exit code: one that fails keeps none of the others from it."""
    from kvstore.cli.admin import STATUS_SECONDS, status_rows

    rows = status_rows(client, min(invocation.timeout_seconds, STATUS_SECONDS))
    known = {row["node"] for row in rows}
    if missing := sorted(set(names) - known):
        raise click.BadParameter(f"no node is called {', '.join(missing)}", param_hint="--node")
    done: list[dict[str, object]] = []
    code = exits.OK
    for row in rows:
        if names and row["node"] not in names:
            continue
        try:
            done.append(_compact_log(invocation, client, row))
        except AssentError as error:
            click.echo(f"assent: {row['node'] or row['endpoint']}: {exits.message_of(error)}", err=True)
            code = code or exits.code_of(error) or exits.GENERAL
    return done, code


def _compact_log(invocation: Invocation, client: Client, row: dict[str, Any]) -> dict[str, object]:
    if row["role"] == "unreachable":
        raise Unreachable((row["endpoint"],))
    taken = client.cluster.take_snapshot(row["endpoint"], timeout_seconds=invocation.timeout_seconds)
    if invocation.write_out != "json":
        text = f"{taken.node} has a snapshot at index {taken.log_index} of {taken.size_bytes} bytes"
        output.write_line(text.encode())
    return {
        "node": taken.node,
        "snapshot_index": taken.log_index,
        "snapshot_term": taken.term,
        "snapshot_bytes": taken.size_bytes,
    }
