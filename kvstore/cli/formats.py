"""Trees as files: JSON and TOML, read and written.

Text in, text out, and no files. The standard library reads TOML and does not write it, so the writer is here.
Whatever a format cannot say, or says twice, is a TreeError that names the place.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from kvstore.errors import TreeError
from kvstore.tree import Tree

FORMATS = ("json", "toml")

_BARE_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TO_ESCAPE = re.compile(r'["\\\x00-\x1f\x7f]')


def parse(text: str, format_name: str) -> Tree:
    """The tree in a file's text; raises TreeError."""
    try:
        if format_name == "toml":
            return tomllib.loads(text)
        tree: Tree = json.loads(text, object_pairs_hook=_table)
        return tree
    except tomllib.TOMLDecodeError as error:
        raise TreeError("the file", f"not TOML: {error}") from None
    except json.JSONDecodeError as error:
        raise TreeError("the file", f"not JSON: {error}") from None
    except RecursionError:
        raise TreeError("the file", "nested too deeply") from None
    except ValueError as error:
        # Python's own limit on the digits of a number.
        raise TreeError("the file", str(error)) from None


def dump(tree: Tree, format_name: str) -> bytes:
    """The tree as a file; raises TreeError for what the format cannot say."""
    try:
        text = _toml(tree) if format_name == "toml" else json.dumps(tree, ensure_ascii=False, indent=2) + "\n"
    except RecursionError:
        raise TreeError("the tree", "nested too deeply") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        if format_name == "toml":
            raise TreeError("the tree", "TOML has no way to write bytes that are not UTF-8") from None
    # In JSON they become escapes, which import turns back into the same bytes.
    return (json.dumps(tree, indent=2) + "\n").encode()


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _value in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise TreeError("the file", f"the name {twice!r} is twice in one table")
    return table


# ---- writing TOML ----


def _toml(tree: Tree) -> str:
    if not isinstance(tree, dict):
        raise TreeError("the tree", "TOML has a table at its root, and nothing else; JSON can say this")
    lines: list[str] = []
    pending: list[tuple[list[str], dict[str, Any]]] = [([], tree)]
    while pending:
        path, table = pending.pop()
        tables = {name: value for name, value in table.items() if isinstance(value, dict)}
        plain = {name: value for name, value in table.items() if name not in tables}
        # A header is needed for what has no table below it that would imply it, and for what follows it.
        if path and (plain or not tables):
            lines += ["", f"[{'.'.join(path)}]"]
        for name, value in plain.items():
            lines.append(f"{_name(name)} = {_value(value, [*path, _name(name)])}")
        pending += [([*path, _name(name)], child) for name, child in reversed(tables.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _name(name: str) -> str:
    return name if _BARE_NAME.fullmatch(name) else _string(name)


def _value(value: Any, path: list[str]) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)  # which is also how TOML writes inf and nan
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item, path) for item in value) + "]"
    if isinstance(value, dict):
        inside = ", ".join(f"{_name(name)} = {_value(child, path)}" for name, child in value.items())
        return "{" + inside + "}"
    raise TreeError(".".join(path), "TOML has no null; JSON can say this")


def _string(text: str) -> str:
    return '"' + _TO_ESCAPE.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return "\\" + character if character in '"\\' else f"\\u{ord(character):04x}"
