"""node and status: running a cluster and looking at it.

`node` hands over to kvstore.node, which is imported for nothing else; `status` knows the client only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli import exits, output
from kvstore.cli.invocation import Invocation
from kvstore.errors import AssentError

if TYPE_CHECKING:
    from kvstore.client import Client, NodeStatus

_ENDPOINT = "tcp://HOST:PORT"
_FLAGS = (
    ("--name", "NAME", "This node's name in the cluster."),
    ("--data-dir", "DIR", "The directory of this node's log, its own alone."),
    ("--cluster", "n1=ENDPOINT,…", "A cluster that begins: every node and its peer endpoint."),
    ("--join", "ENDPOINTS", "Instead: client endpoints of the cluster that will add this node."),
    ("--peer", _ENDPOINT, "Where the other nodes connect.  [default: as in --cluster]"),
    ("--client", _ENDPOINT, "Where clients connect.  [default: tcp://127.0.0.1:7001]"),
    ("--watch", _ENDPOINT, "Where watchers subscribe.  [default: tcp://127.0.0.1:7201]"),
    ("--cluster-token", "TEXT", "Tells apart two clusters at the same endpoints."),
    ("--heartbeat-interval-ms", "N", "How often a leader speaks.  [default: 50]"),
    ("--election-timeout-ms", "N", "How long a leader may be silent.  [default: 200]"),
    ("--priority", "N", "In elections: 0 never leads, a higher one tends to.  [default: 1]"),
    ("--snapshot-interval-entries", "N", "Take a snapshot after so many entries.  [default: 100000]"),
    ("--trailing-entries", "N", "Keep so many entries before a snapshot.  [default: 10000]"),
    ("--disk-reserve-mib", "N", "Refuse growth when less of the disk is free.  [default: 64]"),
    ("--max-log-mib", "N", "Take a snapshot when the log is that large.  [default: 256]"),
    ("--history-revisions", "N", "Keep at least so many revisions of the past.  [default: 100000]"),
    ("--quota-mib", "N", "Refuse puts while the store and its past are larger.  [default: 0, no quota]"),
    ("--history-mib", "N", "Keep at least so much of the past.  [default: 64]"),
    ("--history-seconds", "N", "Keep the past for at least so long; 0: no bound.  [default: 0]"),
    ("--log-format", "text|json", "How log lines are written.  [default: text]"),
    ("--log-level", "LEVEL", "debug, info, warning or error.  [default: info]"),
)

STATUS_SECONDS = 1.0
STATUS_HEADER = ("NODE", "ROLE", "MEMBER", "TERM", "COMMIT", "APPLIED", "REVISION", "ENDPOINT")
# In json only: the table is as wide as a terminal without them.
_MORE = ("priority", "last_index", "log_first_index", "log_bytes", "snapshot_index", "snapshot_term")
_SPACE = (
    "space",
    "space_free_bytes",
    "space_wanted_bytes",
    "space_low",
    "store_bytes",
    "quota_bytes",
    "quota_exceeded",
)
_WATCH = ("watchers", "memory_bytes")


def _flags(command: Callable[..., Any]) -> Callable[..., Any]:
    # Values stay text here: kvstore.settings reads them, so that it can name all that is wrong at once.
    for flag, metavar, text in reversed(_FLAGS):
        command = click.option(flag, metavar=metavar, default=None, help=text)(command)
    return command


@click.command("node")
@click.option(
    "--config", type=click.Path(path_type=Path), envvar="ASSENT_CONFIG", help="A TOML file of settings."
)
@_flags
@click.option("--insecure", is_flag=True, default=None, help="Allow addresses that other machines can reach.")
@click.pass_context
def node(ctx: click.Context, /, config: Path | None, **flags: object) -> None:
    """Run one node of a cluster until SIGTERM or Ctrl-C.

    Every option can come from the environment as ASSENT_NAME, ASSENT_DATA_DIR and so on, or from the
    file that --config names; an option goes before the environment, the environment before the file.
    """
    from kvstore.settings import SettingsError, load_settings

    try:
        settings = load_settings(flags, os.environ, config)
    except SettingsError as error:
        count = len(error.problems)
        click.echo(
            f"assent node: {count} {'problem' if count == 1 else 'problems'} with the settings", err=True
        )
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
        ctx.exit(exits.USAGE)
    from kvstore.node import run_node

    run_node(settings)


@click.command("status")
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show every node that the endpoints lead to. Fails only if none of them answers."""
    invocation: Invocation = ctx.obj
    seconds = min(invocation.timeout_seconds, STATUS_SECONDS)
    with invocation.client() as client:
        rows = status_rows(client, seconds)
    if invocation.write_out == "json":
        output.write_json({"nodes": rows})
    elif invocation.write_out == "simple":
        for row in rows:
            output.write_line(*(_cell(row[name.lower()]) for name in STATUS_HEADER))
    else:
        output.write_table(
            STATUS_HEADER, [[_cell(row[name.lower()]) for name in STATUS_HEADER] for row in rows]
        )
    for line in (*_differences(rows), *_shortages(rows)):
        click.echo(line, err=True)
    if all(row["role"] == "unreachable" for row in rows):
        click.echo(f"assent: no node answered at {', '.join(invocation.endpoints)}", err=True)
        ctx.exit(exits.UNREACHABLE)


def status_rows(client: Client, seconds: float) -> list[dict[str, Any]]:
    """The nodes at the given endpoints, and those which they know of besides."""
    answers = client.status_all(timeout_seconds=seconds)
    known = {
        endpoint: name for answer in answers.values() if answer for name, endpoint in answer.peers.items()
    }
    heard = {answer.client_endpoint for answer in answers.values() if answer}
    for endpoint in known.keys() - answers.keys() - heard:
        try:
            answers[endpoint] = client.status(endpoint, timeout_seconds=seconds)
        except AssentError:
            answers[endpoint] = None
    rows = [_status_row(endpoint, known.get(endpoint), answer) for endpoint, answer in answers.items()]
    return sorted(rows, key=lambda row: (row["node"] is None, row["node"], row["endpoint"]))


def _status_row(endpoint: str, name: str | None, answer: NodeStatus | None) -> dict[str, Any]:
    """A line about one node; of one that did not answer, what the others know of it."""
    row: dict[str, Any] = dict.fromkeys(
        [*(name.lower() for name in STATUS_HEADER), "leader", "watch_endpoint", *_MORE, *_SPACE, *_WATCH]
    )
    if answer is None:
        return row | {"node": name, "role": "unreachable", "endpoint": endpoint, "version": None}
    return row | {
        "node": answer.node,
        "role": answer.role,
        "member": _member(answer),
        "term": answer.term,
        "commit": answer.commit_index,
        "applied": answer.applied_index,
        "revision": answer.revision,
        "endpoint": answer.client_endpoint,
        "leader": answer.leader,
        "watch_endpoint": answer.watch_endpoint,
        "version": answer.version,
        "members": answer.members,
        "is_joint": answer.is_joint,
        "refused_by": answer.refused_by,
        "fenced": answer.fenced,
        "divergence": answer.divergence,
        **{name: getattr(answer, name) for name in (*_MORE, *_SPACE, *_WATCH)},
    }


def _differences(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence about each node that is fenced, and about those that differ where nobody can say who is
    right: they do not fit into a table."""
    lines = []
    fenced = {row["node"] for row in rows if row.get("fenced")}
    for row in rows:
        if found := row.get("fenced"):
            lines.append(f"assent: {row['node']} is fenced: {found.get('reason')}, {_values(found)}")
        for other, found in (row.get("divergence") or {}).items():
            if not fenced & {row["node"], other}:
                lines.append(f"assent: {row['node']} has another state than {other}: {_values(found)}")
    return lines


def _shortages(rows: list[dict[str, Any]]) -> list[str]:
    quotas = [
        "assent: the store is above its quota, so puts are refused: "
        f"{row['store_bytes'] >> 20} MiB of {row['quota_bytes'] >> 20} MiB, {row['node']} says, which leads"
        for row in rows
        if row.get("quota_exceeded") and row["role"] == "leader"
    ]
    return quotas + [
        f"assent: the disk of {row['node']} is nearly full, so puts are refused: "
        f"{row['space_free_bytes'] >> 20} MiB free, {row['space_wanted_bytes'] >> 20} MiB wanted"
        for row in rows
        if row.get("space") == "low"
    ]


def _values(found: dict[str, Any]) -> str:
    if found.get("own") == found.get("theirs"):
        return f"index {found.get('index')}"  # it found out by itself: there is nothing to compare
    return f"index {found.get('index')}, own {found.get('own')}, theirs {found.get('theirs')}"


def _member(answer: NodeStatus) -> str:
    """What the node is to the cluster. "joint" while old and new voters decide together."""
    if answer.refused_by:
        return "refused"
    if answer.fenced is not None:
        return "fenced"
    return f"{answer.member}, joint" if answer.is_joint else answer.member


def _cell(value: object) -> bytes:
    return b"-" if value is None else str(value).encode()
