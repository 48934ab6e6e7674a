"""A tree of JSON or TOML as keys: a `/`-separated key for each leaf, its value kept as text; and back again.

Pure: knows neither files nor the store. What `rebuild` gives flattens to exactly the items it was given,
and what `flatten` gives rebuilds to an equal tree; whatever cannot keep that promise is a TreeError that
names the place.

Names. `/` ends matter nowhere in a prefix; below it each level of the tree is one segment of the key. In
a segment `~1` stands for `/`, and `~0` for a `~` that would otherwise begin such an escape. The items of
a list are the segments 0, 1, 2 … A table whose names happen to be exactly these has `~2` before each of
them.

Values. A string is its own UTF-8 text, `30` and `true` and `null` are numbers, booleans and null as JSON
writes them, `{}` and `[]` are an empty table and list. A string that reads exactly like one of these is
kept in JSON's quotes, and so is one that already reads like such a quoted string; every other string,
"1.10" or "yes" too, is as it is. Dates and times of TOML become strings. Bytes that are no UTF-8 become
lone surrogates, as in Python's file names, and turn back into the same bytes.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from kvstore.errors import TreeError

Scalar: TypeAlias = str | int | float | bool | None
Tree: TypeAlias = "Scalar | dict[str, Tree] | list[Tree]"
Item: TypeAlias = tuple[bytes, bytes]

_SEPARATOR = "/"
_NOT_AN_INDEX = "~2"
_TO_ESCAPE = re.compile(r"/|~(?=[012])")
_ESCAPED = re.compile(r"~[01]")
_UNESCAPED = {"~0": "~", "~1": "/"}
# What the text of a number, boolean, null or quoted string begins with.
_MARKED = re.compile(r'["\-0-9tfnNI]')


def normal_prefix(prefix: str) -> str:
    """The form "/a/b" of "a/b", "/a/b" and "/a/b/"; "" for the root."""
    path = prefix.strip(_SEPARATOR)
    return _SEPARATOR + path if path else ""


# ---------------------------------------------------------------- tree to keys


def flatten(tree: Tree, prefix: str = "/") -> list[Item]:
    """(key, value) of every leaf, in the order of the tree. Raises TreeError.

    An empty tree at the root is no key at all; at another prefix it is that one key.
    """
    root = normal_prefix(prefix)
    if not root and tree == {} and type(tree) is dict:
        return []
    if not root and (type(tree) is not dict):
        raise TreeError("/", "only a table can be kept at the root")
    items: list[Item] = []
    pending: list[tuple[str, Any]] = [(root, tree)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, dict) and node:
            pending.extend(reversed([(path + "/" + name, child) for name, child in _segments(path, node)]))
        elif isinstance(node, (list, tuple)) and node:
            pending.extend(reversed([(f"{path}/{index}", child) for index, child in enumerate(node)]))
        else:
            items.append((_encode(path, path), _encode(encode_value(node, path), path)))
    return items


def _segments(path: str, table: dict[Any, Any]) -> list[tuple[str, Any]]:
    for name in table:
        if not isinstance(name, str):
            raise TreeError(path or "/", f"the name {name!r} is no string")
    mark = _NOT_AN_INDEX if _is_index_run(table) else ""
    return [(mark + _TO_ESCAPE.sub(_escape, name), child) for name, child in table.items()]


def _escape(found: re.Match[str]) -> str:
    return "~1" if found[0] == _SEPARATOR else "~0"


def _is_index_run(names: Iterable[str]) -> bool:
    """Exactly 0, 1, 2 … in decimal, in any order, and at least one."""
    known = set(names)
    return bool(known) and all(str(index) in known for index in range(len(known)))


def encode_value(leaf: Any, path: str = "") -> str:
    """The text of a scalar, or of an empty table or list. Raises TreeError on anything else."""
    if isinstance(leaf, str):
        return leaf if decode_value(leaf) == leaf else json.dumps(leaf, ensure_ascii=False)
    if isinstance(leaf, (datetime.datetime, datetime.date, datetime.time)):
        return leaf.isoformat()
    if leaf is None or isinstance(leaf, (bool, int, float, dict, list, tuple)):
        try:
            return json.dumps(leaf)
        except ValueError:
            raise TreeError(path or "/", "a number with too many digits") from None
    raise TreeError(path or "/", f"a {type(leaf).__name__} is no part of a tree")


def _encode(text: str, path: str) -> bytes:
    try:
        data = text.encode("utf-8", "surrogateescape")
        if data.decode("utf-8", "surrogateescape") == text:
            return data
    except UnicodeEncodeError:
        pass
    raise TreeError(ascii(path), "a lone surrogate cannot be kept")


# ---------------------------------------------------------------- keys to tree


def rebuild(items: Iterable[Item], prefix: str = "/") -> Tree:
    """The tree below `prefix`; {} if there are no items. Raises TreeError.

    The items may come in any order; lists come out in theirs, and tables in the order of their first item.
    """
    root = normal_prefix(prefix)
    given = dict(items)
    if not given:
        return {}
    # Tables only, at first: which of them are lists is known when all their names are.
    top: dict[str, Any] = {}
    tables: list[tuple[dict[str, Any], str, dict[str, Any]]] = []  # (parent, segment, table), parents first
    for key, value in given.items():
        _plant(top, tables, _path_below(key, root), decode_value(_decode(value)), key)
    for parent, segment, table in reversed(tables):
        parent[segment] = _finished(table)
    tree: Tree = top[""]
    _check_same(given, tree, prefix)
    return tree


def _path_below(key: bytes, root: str) -> list[str]:
    """The segments below the root, after one for the root itself."""
    text = _decode(key)
    if text != root and not text.startswith(root + _SEPARATOR):
        raise TreeError(ascii(text), f"is not below {root or '/'}")
    return text[len(root) :].split(_SEPARATOR)


def _plant(
    top: dict[str, Any],
    tables: list[tuple[dict[str, Any], str, dict[str, Any]]],
    segments: list[str],
    leaf: Any,
    key: bytes,
) -> None:
    table = top
    for segment in segments[:-1]:
        if segment not in table:
            table[segment] = _Table()
            tables.append((table, segment, table[segment]))
        child = table[segment]
        if type(child) is not _Table:
            raise TreeError(ascii(_decode(key)), "the key above it has a value of its own")
        table = child
    if segments[-1] in table:
        raise TreeError(ascii(_decode(key)), "has both a value and keys below it")
    table[segments[-1]] = leaf


class _Table(dict[str, Any]):
    """A table under construction, as opposed to a leaf that is an empty one."""


def _finished(table: dict[str, Any]) -> Any:
    if _is_index_run(table):
        return [table[str(index)] for index in range(len(table))]
    marked = all(segment.startswith(_NOT_AN_INDEX) for segment in table)
    start = len(_NOT_AN_INDEX) if marked else 0
    return {_ESCAPED.sub(_unescape, segment[start:]): child for segment, child in table.items()}


def _unescape(found: re.Match[str]) -> str:
    return _UNESCAPED[found[0]]


def _check_same(given: dict[bytes, bytes], tree: Tree, prefix: str) -> None:
    """Keys that another hand has written may use escapes that no tree has: better refused than changed."""
    again = dict(flatten(tree, prefix))
    if again != given:
        differing = sorted(key for key in given if again.get(key) != given[key])
        raise TreeError(ascii(_decode(differing[0])), "cannot be written as part of a tree and read back")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def decode_value(text: str) -> Tree:
    """What `encode_value` has made this text of: exactly the canonical texts are more than strings."""
    if text == "{}":
        return {}
    if text == "[]":
        return []
    if not _MARKED.match(text):
        return text
    try:
        value: Tree = json.loads(text)
    except ValueError:
        return text
    if isinstance(value, str):
        # Quoted only if it had to be; else the quotes are part of the string.
        return value if encode_value(value) == text else text
    return value if json.dumps(value) == text else text
