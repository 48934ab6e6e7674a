"""Every test that the suite has, by the name under which pytest would run it."""

from __future__ import annotations

import ast
import functools

from tests.project.tree import python_files, source


@functools.cache
def known_test_ids() -> frozenset[str]:
    """Files, functions and classes as file::name; without parameters."""
    found: set[str] = set()
    for path in python_files("tests"):
        if path.name.startswith("test_"):
            found.add(path.as_posix())
            found |= {
                f"{path.as_posix()}::{node.name}"
                for node in ast.parse(source(path)).body
                if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and node.name.startswith(("test_", "Test"))
            }
    return frozenset(found)
