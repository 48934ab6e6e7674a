"""ls and tree: what is below a path.

They know the blocking client and how results are written. A path is a key with or without slashes at its
ends; what both show is of one revision.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from kvstore.cli import output
from kvstore.cli.invocation import Invocation
from kvstore.cli.kv import key_bytes
from kvstore.cli.numbers import POSITIVE
from kvstore.client.results import Child
from kvstore.paths import SEPARATOR, normal_path


@click.command("ls")
@click.argument("path", default="/")
@click.option("--rev", "revision", type=POSITIVE, help="As of this revision, not as of now.")
@click.pass_obj
def ls(invocation: Invocation, path: str, revision: int | None) -> None:
    """Show the names right below PATH, with a slash behind those that have something below them."""
    root = key_bytes(path)
    children: list[Child] = []
    at, last, more = revision or 0, b"", True
    with invocation.client() as client:
        while more:
            page = client.children(root, start_after=last, revision=at)
            at = at or page.revision
            children += page.items
            more = page.more
            last = page.items[-1].name if page.items else last
    if invocation.write_out == "json":
        items = [child._asdict() | {"name": output.json_bytes(child.name)} for child in children]
        output.write_json({"revision": at, "items": items})
    elif invocation.write_out == "table":
        marks = {False: "-", True: "yes"}
        rows = [(child.name, marks[child.has_value], marks[child.has_children]) for child in children]
        output.write_table(["NAME", "VALUE", "BELOW"], rows)
    else:
        for child in children:
            output.write_line(child.name + SEPARATOR * child.has_children)


@click.command("tree")
@click.argument("path", default="/")
@click.option("--values", is_flag=True, help="Show the values, too.")
@click.option("--rev", "revision", type=POSITIVE, help="As of this revision, not as of now.")
@click.pass_obj
def tree(invocation: Invocation, path: str, values: bool, revision: int | None) -> None:
    """Show all that is below PATH, each name indented below the one that it belongs to."""
    root = normal_path(key_bytes(path))
    with invocation.client() as client:
        walked = client.walk(root, revision=revision or 0, keys_only=not values)
        found = {item.key: item.value for item in walked}
    rows = _rows(root, found)
    if invocation.write_out == "json":
        items = []
        for depth, key, _ in rows:
            shown: dict[str, object] = {"path": output.json_bytes(key), "depth": depth}
            shown["has_value"] = key in found
            if values and key in found:
                shown["value"] = output.json_bytes(found[key])
            items.append(shown)
        output.write_json({"path": output.json_bytes(root or SEPARATOR), "items": items})
        return
    for depth, key, name in rows:
        line = b"  " * depth + name
        output.write_line(line, found[key]) if values and key in found else output.write_line(line)


def _rows(root: bytes, keys: dict[bytes, bytes]) -> Iterator[tuple[int, bytes, bytes]]:
    """(depth, path, name) of the root, if it is a key, and of each name below it, once, parents first.

    In order of the names of the paths, which is not quite that of the keys: "/a-b" comes before "/a/b".
    """
    before: list[bytes] = []
    if root in keys:
        yield 0, root, root
    shift = 1 if root in keys else 0
    for names in sorted(key[len(root) + 1 :].split(SEPARATOR) for key in keys if key != root):
        depth = 0
        while depth < min(len(before), len(names)) and before[depth] == names[depth]:
            depth += 1
        for level in range(depth, len(names)):
            path = root + SEPARATOR + SEPARATOR.join(names[: level + 1])
            yield level + shift, path, names[level]
        before = names
