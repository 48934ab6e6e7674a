"""import and export: a JSON or TOML file as keys, and back.

They know the client, the formats and kvstore.tree. An import is many puts in flight, each acknowledged by
itself; it is no single change, and may be repeated, since the same puts give the same keys.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvstore.cli import formats, output
from kvstore.cli.exits import KeyNotFound
from kvstore.cli.invocation import Invocation
from kvstore.errors import Compacted, TreeError
from kvstore.protocol import MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvstore.tree import Item, flatten, normal_prefix, rebuild

if TYPE_CHECKING:
    from kvstore.client import AsyncClient, Client

PROGRESS_SECONDS = 1.0
MAX_READINGS = 5  # of an export whose revision is compacted before it is read


@click.command("import")
@click.argument("file")
@click.option("--prefix", default="/", show_default=True, help="The key above all others.")
@click.option(
    "--format", "format_name", type=click.Choice(formats.FORMATS), help="[default: by the file's name]"
)
@click.option(
    "--in-flight", type=click.IntRange(1, 4096), default=256, show_default=True, help="Puts at a time."
)
@click.pass_obj
def import_file(
    invocation: Invocation, file: str, prefix: str, format_name: str | None, in_flight: int
) -> None:
    """Store the tree in FILE (- for standard input), one key for each leaf, joined with slashes.

    It can be repeated after a failure. Keys that are there and not in FILE stay as they are.
    """
    tree = formats.parse(_read(file), format_name or _format_of(file))
    items = flatten(tree, prefix)
    _check_sizes(items)
    progress = Progress(len(items))
    _put_all(invocation, items, in_flight, progress)
    progress.say()
    if invocation.write_out == "json":
        output.write_json({"imported": len(items), "prefix": normal_prefix(prefix) or "/"})
    else:
        output.write_line(f"imported {len(items)}".encode())


@click.command("export")
@click.argument("prefix")
@click.option(
    "--format", "format_name", type=click.Choice(formats.FORMATS), default="json", show_default=True
)
@click.pass_obj
def export_prefix(invocation: Invocation, prefix: str, format_name: str) -> None:
    """Write everything below PREFIX as a tree. What import has stored comes out as it went in."""
    root = os.fsencode(normal_prefix(prefix))
    with invocation.client() as client:
        items = _read_all(client, root)
    if not items:
        raise KeyNotFound(f"{prefix} has nothing below it")
    output.write_raw(formats.dump(rebuild(items, prefix), format_name))


class Progress:
    """How far an import is, on standard error, once a second and at its end; owned by the command."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._next = time.monotonic() + PROGRESS_SECONDS
        self._said = False

    def add(self) -> None:
        """One more put was acknowledged."""
        self.done += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            self._said = True
            click.echo(f"{self.done} of {self.total} keys", err=True)

    def say(self) -> None:
        """The last word, if there was a first."""
        if self._said:
            click.echo(f"{self.done} of {self.total} keys", err=True)


def _put_all(invocation: Invocation, items: list[Item], in_flight: int, progress: Progress) -> None:
    import asyncio

    async def put_some(client: AsyncClient, left: Iterator[Item]) -> None:
        for key, value in left:
            await client.put(key, value)
            progress.add()

    async def put_all() -> None:
        left = iter(items)
        async with invocation.async_client() as client:
            workers = [
                asyncio.ensure_future(put_some(client, left)) for _ in range(min(in_flight, len(items)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    try:
        asyncio.run(put_all())
    except BaseException:
        click.echo(f"stopped after {progress.done} of {progress.total} keys; import again to go on", err=True)
        raise


def _read_all(client: Client, root: bytes) -> list[Item]:
    """All items at and below the root, as of one revision; of a later one if that is compacted meanwhile."""
    for _ in range(MAX_READINGS - 1):
        with suppress(Compacted):
            return _walk(client, root)
    return _walk(client, root)


def _walk(client: Client, root: bytes) -> list[Item]:
    return [(item.key, item.value) for item in client.walk(root)]


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TreeError(file, f"not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise TreeError(file, error.strerror or str(error)) from None


def _format_of(file: str) -> str:
    suffix = Path(file).suffix.lower().lstrip(".")
    if suffix in formats.FORMATS:
        return suffix
    raise click.UsageError(f"--format is needed: the name {file!r} does not tell (expected .json or .toml)")


def _check_sizes(items: list[Item]) -> None:
    """Before the first put: an import that must fail should fail as a whole."""
    for key, value in items:
        where = ascii(key.decode("utf-8", "replace"))
        if len(key) > MAX_KEY_BYTES:
            raise TreeError(where, f"a key of {len(key)} bytes, more than {MAX_KEY_BYTES}")
        if len(value) > MAX_VALUE_BYTES:
            raise TreeError(where, f"a value of {len(value)} bytes, more than {MAX_VALUE_BYTES}")
