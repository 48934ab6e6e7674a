"""put, get, del and watch: the commands on keys.

They know the blocking client and how results are written; `exits` says what a failure means to the shell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli import output
from kvstore.cli.exits import AnswerCut, BadKey, KeyNotFound
from kvstore.cli.invocation import Invocation
from kvstore.cli.numbers import POSITIVE
from kvstore.codes import MAX_KEY_BYTES
from kvstore.paths import normal_path

if TYPE_CHECKING:
    from kvstore.client import Event, KeyValue, RangeResult, TreeDeleted
    from kvstore.client.calls import Chosen, Consistency

EVENT_NAMES = ("put", "delete")
SORT_TARGETS = ("key", "version", "create", "mod", "value")


@click.command("put")
@click.argument("key")
@click.argument("value")
@click.option("--previous", is_flag=True, help="Show the value that was there before.")
@click.option("--lease", type=POSITIVE, metavar="ID", help="Delete it when this lease ends.")
@click.pass_obj
def put(invocation: Invocation, key: str, value: str, previous: bool, lease: int | None) -> None:
    """Store VALUE under KEY; VALUE - is read from standard input, byte for byte.

    Put -- before a value that begins with a dash.
    """
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    with invocation.client() as client:
        result = client.put(key_bytes(key), data, previous=previous, lease=lease or 0)
    before = result.previous
    if invocation.write_out == "json":
        shown: dict[str, object] = {"revision": result.revision}
        if previous:
            shown["previous"] = None if before is None else item_json(before)
        output.write_json(shown)
        return
    output.write_line(f"revision {result.revision}".encode())
    if previous and before is not None:
        output.write_line(before.value)


@click.command("get")
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Everything whose key begins with KEY.")
@click.option("--keys-only", is_flag=True, help="With --prefix: no values.")
@click.option("--limit", type=POSITIVE, help="With --prefix: at most so many keys.")
@click.option("--sort-by", type=click.Choice(SORT_TARGETS), help="With --prefix: in this order.")
@click.option("--order", type=click.Choice(["ascending", "descending"]), help="With --prefix.")
@click.option("--min-mod-rev", type=POSITIVE, help="With --prefix: changed at this revision or later.")
@click.option("--max-mod-rev", type=POSITIVE, help="With --prefix: not changed after this revision.")
@click.option("--min-create-rev", type=POSITIVE, help="With --prefix: created then or later.")
@click.option("--max-create-rev", type=POSITIVE, help="With --prefix: created then or before.")
@click.option("--local", is_flag=True, help="What the asked node has now, which may be old.")
@click.option("--rev", "revision", type=POSITIVE, help="As of this revision, not as of now.")
@click.option("--raw", is_flag=True, help="The value alone, without a newline after it.")
@click.pass_obj
def get(
    invocation: Invocation,
    /,
    key: str,
    prefix: bool,
    keys_only: bool,
    limit: int | None,
    local: bool,
    revision: int | None,
    raw: bool,
    **chosen: str | int | None,
) -> None:
    """Show the value of KEY, or with --prefix every key that begins with KEY and its value."""
    if not prefix and (keys_only or limit is not None or any(chosen.values())):
        raise click.UsageError("--keys-only, --limit, an order and revisions to choose by need --prefix")
    if raw and (prefix or invocation.write_out not in (None, "simple")):
        raise click.UsageError("--raw is for the value of one key, written simply")
    consistency: Consistency = "local" if local else "linearizable"
    if prefix:
        with invocation.client() as client:
            pages = client.pages(
                key_bytes(key),
                limit=limit or 0,
                revision=revision or 0,
                keys_only=keys_only,
                consistency=consistency,
                **_chosen(chosen),
            )
            _write_pages(invocation, pages, limit=limit or 0, keys_only=keys_only)
        return
    with invocation.client() as client:
        item = client.get(key_bytes(key), revision=revision or 0, consistency=consistency)
    if item is None:
        raise KeyNotFound(key)
    if raw:
        output.write_raw(item.value)
    elif invocation.write_out == "json":
        output.write_json(item_json(item))
    elif invocation.write_out == "table":
        _write_items(invocation, [item], keys_only=False)
    else:
        output.write_line(item.value)


def _chosen(options: dict[str, str | int | None]) -> Chosen:
    """The options of an order and of revisions, as the client has them."""
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    order = given.pop("order", "ascending")
    chosen: Any = {name.replace("_rev", "_revision"): value for name, value in given.items()}
    if order == "descending":
        chosen["descending"] = True
    found: Chosen = chosen
    return found


def _write_pages(
    invocation: Invocation, pages: Iterator[RangeResult], *, limit: int, keys_only: bool
) -> None:
    """All of them, of whatever size, as of one revision; simply written, each leaves when it is there."""
    first = page = next(pages)
    count = len(first.items)
    is_simple = invocation.write_out in (None, "simple")
    if is_simple:
        _write_items(invocation, first.items, keys_only=keys_only)
    kept = first.items
    for page in pages:
        count += len(page.items)
        if is_simple:
            _write_items(invocation, page.items, keys_only=keys_only)
        else:
            kept += page.items
    if invocation.write_out == "json":
        items = [item_json(item, keys_only=keys_only) for item in kept]
        output.write_json(
            {"revision": first.revision, "count": first.count, "more": page.more, "items": items}
        )
    elif invocation.write_out == "table":
        _write_items(invocation, kept, keys_only=keys_only)
    if page.more and not 0 < limit <= count:
        output.flush()
        raise AnswerCut(count)


@click.command("del")
@click.argument("key")
@click.option("--prefix", is_flag=True, help="Everything whose key begins with KEY.")
@click.option("--recursive", is_flag=True, help="KEY and everything below it, as a path.")
@click.pass_obj
def delete(invocation: Invocation, key: str, prefix: bool, recursive: bool) -> None:
    """Delete KEY, or with --prefix every key that begins with KEY. A key that is not there is no failure.

    More than 20000 keys are deleted in pieces of as many, each in a revision of its own: whoever looks
    meanwhile sees a part gone.
    """
    if recursive:
        _delete_tree(invocation, key, prefix)
        return
    if prefix and not key:
        # It is what an unset variable of a script would mean: the whole store.
        raise BadKey("bad key: an empty prefix would delete everything; name at least one byte")
    with invocation.client() as client:
        if prefix:
            _write_deleted(invocation, client.delete_all(key_bytes(key)))
            return
        result = client.delete(key_bytes(key))
    if invocation.write_out == "json":
        output.write_json({"revision": result.revision, "deleted": result.deleted})
    else:
        output.write_line(f"deleted {result.deleted}".encode())


def _delete_tree(invocation: Invocation, key: str, prefix: bool) -> None:
    if prefix:
        raise click.UsageError("--prefix and --recursive are two different things")
    if not normal_path(key_bytes(key)):
        raise BadKey("bad key: the root would delete everything; name a path below it")
    with invocation.client() as client:
        _write_deleted(invocation, client.delete_tree(key_bytes(key)))


def _write_deleted(invocation: Invocation, result: TreeDeleted) -> None:
    if invocation.write_out == "json":
        output.write_json(result._asdict())
    else:
        output.write_line(f"deleted {result.deleted}".encode())


@click.command("watch")
@click.argument("key", required=False)
@click.option("--cluster", is_flag=True, help="In place of a KEY: leaders and members.")
@click.option("--prefix", is_flag=True, help="Everything whose key begins with KEY.")
@click.option("--rev", "start_revision", type=POSITIVE, help="Begin with this revision, not with now.")
@click.option("--count", type=POSITIVE, help="End after so many events.")
@click.option("--previous", is_flag=True, help="Show the value that was there before, too.")
@click.option("--no-puts", is_flag=True, help="Show deletes only.")
@click.option("--no-deletes", is_flag=True, help="Show puts only.")
@click.option("--recursive", is_flag=True, help="KEY and everything below it, as a path.")
@click.pass_obj
def watch(
    invocation: Invocation,
    key: str | None,
    cluster: bool,
    prefix: bool,
    start_revision: int | None,
    count: int | None,
    previous: bool,
    no_puts: bool,
    no_deletes: bool,
    recursive: bool,
) -> None:
    """Follow KEY: one line per change, with revision, put or delete, key, and value. Ctrl-C ends it.

    With --cluster: one line with the term for each change of leader and of membership, and for each member
    which the leader hears no more, or again.
    """
    if (key is None) != cluster:
        raise click.UsageError("either a KEY or --cluster")
    if key is None:
        if prefix or start_revision or previous or no_puts or no_deletes or recursive:
            raise click.UsageError("with --cluster there is --count and nothing else")
        _watch_cluster(invocation, count)
        return
    if no_puts and no_deletes:
        raise click.UsageError("with --no-puts and --no-deletes there is nothing to show")
    if prefix and recursive:
        raise click.UsageError("--prefix and --recursive are two different things")
    left = count if count is not None else -1
    with invocation.client() as client:
        follow = client.watch_tree if recursive else partial(client.watch, prefix=prefix)
        stream = follow(
            key_bytes(key),
            start_revision=start_revision or 0,
            previous=previous,
            puts=not no_puts,
            deletes=not no_deletes,
        )
        try:
            for batch in stream:
                for event in batch.events:
                    _write_event(invocation, event, previous=previous)
                    left -= 1
                    if left == 0:
                        return
                output.flush()
        finally:
            stream.cancel()


def _watch_cluster(invocation: Invocation, count: int | None) -> None:
    with invocation.client() as client:
        stream = client.watch_cluster()
        try:
            for event in islice(stream, count):
                if invocation.write_out == "json":
                    output.write_json({"type": event.name, "term": event.term, "node": event.node or None})
                else:
                    output.write_line(str(event.term).encode(), event.name.encode(), event.node.encode())
                output.flush()
        finally:
            stream.cancel()


def _write_event(invocation: Invocation, event: Event, *, previous: bool) -> None:
    name, before = EVENT_NAMES[event.type], event.previous
    if invocation.write_out == "json":
        shown: dict[str, object] = {"type": name, **item_json(event)}
        if previous:
            shown["previous"] = None if before is None else item_json(before)
        output.write_json(shown)
        return
    columns = [str(event.mod_revision).encode(), name.encode(), event.key, event.value]
    if previous:
        columns.append(b"" if before is None else before.value)
    output.write_line(*columns)


def key_bytes(text: str) -> bytes:
    """A key as the bytes that the shell handed over; raises BadKey."""
    key = os.fsencode(text)
    if len(key) > MAX_KEY_BYTES:
        raise BadKey(f"bad key: it has {len(key)} bytes, more than {MAX_KEY_BYTES}")
    return key


def item_json(item: KeyValue | Event, *, keys_only: bool = False) -> dict[str, object]:
    """A key, its value and its revisions as JSON has them."""
    shown: dict[str, object] = {"key": output.json_bytes(item.key)}
    if not keys_only:
        shown["value"] = output.json_bytes(item.value)
    for field in ("create_revision", "mod_revision", "version", "lease"):
        shown[field] = getattr(item, field)
    return shown


def _write_items(invocation: Invocation, items: list[KeyValue], *, keys_only: bool) -> None:
    if invocation.write_out == "table":
        header = ["KEY", "REVISION", "VERSION"] + ([] if keys_only else ["VALUE"])
        rows = []
        for item in items:
            row: list[bytes | str] = [item.key, str(item.mod_revision), str(item.version)]
            rows.append(row if keys_only else [*row, item.value])
        output.write_table(header, rows)
        return
    for item in items:
        if keys_only:
            output.write_line(item.key)
        else:
            output.write_line(item.key, item.value)
