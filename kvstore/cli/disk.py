"""snapshot: all keys of a cluster in one file, and a new cluster that begins with them.

`save` knows the client only, `restore` no network at all; what each of them needs is imported when it is
asked for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvstore.cli import output
from kvstore.cli.invocation import Invocation
from kvstore.cli.wal import inspect

if TYPE_CHECKING:
    from kvstore.backup_restore import RestoredNode
    from kvstore.client.saving import SavedSnapshot
    from kvstore.salvage import Salvaged

_FILE = click.Path(path_type=Path, dir_okay=False)
_PROGRESS_SECONDS = 0.1


@click.group("snapshot")
def snapshot() -> None:
    """Save all keys to a file, and begin a cluster with it."""


snapshot.add_command(inspect)


@snapshot.command("save")
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.pass_context
def save(ctx: click.Context, file: Path, force: bool) -> None:
    """Save all keys, as of one moment that is not before this command, to FILE.

    They are read from the first of the endpoints that answers, while others go on writing. FILE is whole
    and verified, or it is not there.
    """
    invocation: Invocation = ctx.obj
    with invocation.client() as client, _Progress() as progress:
        saved = client.cluster.save_snapshot(
            file, overwrite=force, on_progress=progress.tell, timeout_seconds=invocation.timeout_seconds
        )
    _show_saved(invocation, file, saved)


@snapshot.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--name", required=True, help="The node's name, one of those in --cluster.")
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory that is made: empty, or not there yet.",
)
@click.option("--cluster", required=True, metavar="n1=ENDPOINT,…", help="All members of the new cluster.")
@click.option("--token", default="", metavar="TEXT", help="Tells apart clusters made of the same FILE.")
@click.pass_context
def restore(ctx: click.Context, file: Path, name: str, data_dir: Path, cluster: str, token: str) -> None:
    """Make the data directory of one node of a new cluster that begins with what is in FILE.

    Run it once for each member, with the same FILE, --cluster and --token; then start the nodes. The old
    cluster's members, and running clients of it, do not speak to the new one.
    """
    from kvstore.settings import parse_cluster

    try:
        members = parse_cluster(cluster)
    except ValueError as error:
        expected = "expected n1=tcp://HOST:PORT,n2=…"
        raise click.BadParameter(f"{error}; {expected}", param_hint="--cluster") from None
    if name not in members:
        among = ", ".join(sorted(members))
        raise click.BadParameter(f"{name!r} is not among the members {among}", param_hint="--name")
    from kvstore.backup_restore import restore_node

    _show_restored(
        ctx.obj,
        data_dir,
        restore_node(file, name=name, data_dir=data_dir, members=members, token=token),
    )


@snapshot.command("salvage")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.pass_context
def salvage(ctx: click.Context, directory: Path, file: Path, force: bool) -> None:
    """Write what can still be read of a node's data directory to FILE, for `snapshot restore`.

    For when no majority and no backup is left: acknowledged commands may be missing from FILE, and commands
    that nobody acknowledged may be in it. DIR is a data directory, or the log in it, of a node that does not
    run. Nothing in it is changed.
    """
    from kvstore.salvage import salvage as write_remains

    _show_salvaged(ctx.obj, file, write_remains(directory, file, overwrite=force))


class _Progress:
    """A line on standard error that is written over, if somebody looks. Owned by one command."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._is_seen = sys.stderr.isatty()
        self._now = now
        self._told_at = float("-inf")
        self._width = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)

    def tell(self, done_bytes: int, size_bytes: int) -> None:
        if not self._is_seen or self._now() - self._told_at < _PROGRESS_SECONDS:
            return
        self._told_at = self._now()
        text = f"the node takes the snapshot: {_mebibytes(done_bytes)}"
        if size_bytes:
            share = 100 * done_bytes // size_bytes
            text = f"{share:3} % of {_mebibytes(size_bytes)}"
        self._width = max(self._width, len(text))
        click.echo(f"\r{text.ljust(self._width)}", nl=False, err=True)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.1f} MiB"


def _show_saved(invocation: Invocation, file: Path, saved: SavedSnapshot) -> None:
    facts = {
        "file": str(file),
        "cluster_id": saved.cluster_id,
        "node": saved.node,
        "index": saved.log_index,
        "term": saved.term,
        "revision": saved.revision,
        "keys": saved.keys,
        "bytes": saved.file_bytes,
        "checksum": f"{saved.checksum:08x}",
    }
    _show(invocation, facts, f"saved {saved.keys} keys at revision {saved.revision} to {file}")


def _show_salvaged(invocation: Invocation, file: Path, found: Salvaged) -> None:
    facts: dict[str, object] = {
        "file": str(file),
        "cluster_id": found.cluster_id,
        "node": found.node,
        "fenced": found.fenced,
        "index": found.log_index,
        "term": found.term,
        "revision": found.revision,
        "keys": found.keys,
        "damages": found.damages,
    }
    if found.fenced is not None:
        click.echo(f"assent: {found.fenced}", err=True)
    for damage in found.damages:
        click.echo(f"assent: left out: {damage}", err=True)
    _show(invocation, facts, f"found {found.keys} keys at revision {found.revision}, saved to {file}")


def _show_restored(invocation: Invocation, data_dir: Path, restored: RestoredNode) -> None:
    facts = {
        "data_dir": str(data_dir),
        "node": restored.node,
        "cluster_id": restored.cluster_id,
        "old_cluster_id": restored.old_cluster_id,
        "members": restored.members,
        "index": restored.log_index,
        "term": restored.term,
        "revision": restored.revision,
        "keys": restored.keys,
    }
    text = (
        f"{data_dir} is the directory of {restored.node} in the new cluster {restored.cluster_id}, "
        f"with {restored.keys} keys at revision {restored.revision}"
    )
    _show(invocation, facts, text)


def _show(invocation: Invocation, facts: dict[str, object], text: str) -> None:
    if invocation.write_out == "json":
        output.write_json(facts)
    elif invocation.write_out == "table":
        output.write_table(("WHAT", "IS"), [(name.upper(), _cell(value)) for name, value in facts.items()])
    else:
        output.write_line(text.encode())


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={where}" for name, where in value.items())
    return str(value)
