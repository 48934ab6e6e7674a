"""Who may import whom: the layers of docs/architecture.md, held by a walk over every import statement."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.project.tree import PACKAGES, ROOT, python_files, source

OURS = frozenset(PACKAGES)
THIRD_PARTY = frozenset({"zmq", "msgpack", "click", "psutil", "sortedcontainers"})
NO_TIME_NO_CHANCE = frozenset({"time", "datetime", "random", "secrets", "uuid"})
NO_WORLD = frozenset(
    {"threading", "multiprocessing", "concurrent", "socket", "select", "selectors", "asyncio"}
)
NO_DISK = frozenset({"os", "io", "pathlib", "shutil", "tempfile", "fcntl", "mmap", "subprocess"})
STORAGE = frozenset(
    {"storage", "wal", "spare", "reserve", "supply", "replay", "snapshot", "record", "segment", "files"}
    | {"directory", "fields", "fence", "restoration", "discarded", "inspection"}
)
# Beside the *_actor files: what tells the runtime how raft's messages travel.
WIRING = frozenset({"wire"})
# Where all of raft meets: threads, luck and the machine's clock come in here, and nowhere else.
FACADE = frozenset({"replica", "rehearsal"})


class Layer(NamedTuple):
    """What a file may import beside the standard library, and what of that it may not."""

    name: str
    may: frozenset[str]
    never: frozenset[str]


RAFT_CORE = Layer("raft core", frozenset({"raft"}), NO_TIME_NO_CHANCE | NO_WORLD | NO_DISK)
RAFT_STORAGE = Layer("raft storage", frozenset({"raft"}), NO_TIME_NO_CHANCE | NO_WORLD)
RAFT_ACTORS = Layer("raft actors", frozenset({"raft", "actors"}), (NO_TIME_NO_CHANCE | NO_WORLD) - {"random"})
RAFT_FACADE = Layer(
    "raft facade",
    frozenset({"raft", "actors"}),
    (NO_TIME_NO_CHANCE | NO_WORLD | NO_DISK) - {"random", "threading", "pathlib"},
)
ACTORS = Layer("actors", frozenset({"actors", "zmq", "msgpack"}), frozenset({"asyncio"}))
KVSTORE = Layer("kvstore", OURS | THIRD_PARTY - {"zmq"}, frozenset())
KVSTORE_CLIENT = Layer("kvstore client", OURS | THIRD_PARTY, frozenset())


def layer_of(path: Path) -> Layer:
    if path.parts[0] == "raft" and path.stem in FACADE:
        return RAFT_FACADE
    if path.parts[0] == "raft":
        if path.stem.endswith("_actor") or path.stem in WIRING:
            return RAFT_ACTORS
        return RAFT_STORAGE if path.stem in STORAGE else RAFT_CORE
    if path.parts[0] == "kvstore":
        return KVSTORE_CLIENT if path.parts[1] == "client" else KVSTORE
    assert path.parts[0] == "actors", f"{path} is in no layer"
    return ACTORS


def imported_modules(code: str) -> set[str]:
    """Full names of all modules imported anywhere in the code, inside functions and type checks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its layer"
            assert node.module is not None
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def breaches(path: Path, code: str) -> list[str]:
    layer = layer_of(path)
    tops = {module.partition(".")[0] for module in imported_modules(code)}
    standard = tops & sys.stdlib_module_names
    foreign = sorted(tops - standard - layer.may)
    refused = sorted(tops & layer.never)
    return [f"{path}: {layer.name} may not import {name}" for name in (*foreign, *refused)]


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=str)
def test_every_file_keeps_to_its_layer(path: Path) -> None:
    assert breaches(path, source(path)) == []


def test_the_launcher_runs_the_command_line_and_nothing_else() -> None:
    """It is a shell script: a second Python before the right one would double the start-up time."""
    assert re.findall(r"\S*kvstore\S*|-m \S+", source(Path("bin/assent"))) == ["-m kvstore.cli"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("raft/core.py", "import time"),
        ("raft/core.py", "def late():\n    from random import random"),
        ("raft/core.py", "import os"),
        ("raft/core.py", "import msgpack"),
        ("raft/wal.py", "import threading"),
        ("raft/wal.py", "import actors"),
        ("raft/election_actor.py", "import zmq"),
        ("raft/election_actor.py", "import time"),
        ("raft/applier_actor.py", "import kvstore.store"),
        ("raft/replica.py", "import zmq"),
        ("raft/replica.py", "import time"),
        ("actors/system.py", "from raft import Core"),
        ("kvstore/gateway_actor.py", "import zmq"),
        ("kvstore/cli/kv.py", "from zmq import Context"),
        ("kvstore/store.py", "import requests"),
    ],
)
def test_a_breach_is_seen(path: str, code: str) -> None:
    assert len(breaches(Path(path), code)) == 1


@pytest.mark.parametrize(
    "path", [path for path in python_files("raft") if path.stem.endswith("_actor")], ids=str
)
def test_an_actor_of_raft_is_handed_its_chance(path: Path) -> None:
    """`random` is there for the type Random alone: a global source could not be replayed from a seed."""
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr == "Random", f"{path}:{node.lineno}"


def test_modules_are_loaded_by_name_in_one_place_only() -> None:
    """Whatever is loaded by a computed name would pass by the walk above."""
    users = []
    for path in python_files(*PACKAGES):
        for node in ast.walk(ast.parse(source(path))):
            name = (
                node.attr
                if isinstance(node, ast.Attribute)
                else node.id
                if isinstance(node, ast.Name)
                else ""
            )
            if name in ("import_module", "__import__"):
                users.append(str(path))
    assert users == ["kvstore/cli/__init__.py"]


def test_raft_works_with_nothing_but_python_installed(tmp_path: Path) -> None:
    alone = [path for path in python_files("raft") if layer_of(path) not in (RAFT_ACTORS, RAFT_FACADE)]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in alone]
    assert {"raft", "raft.core", "raft.entries"} <= set(modules)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import " + ", ".join(modules)
    code += "; print(sorted({'zmq', 'msgpack', 'actors', 'kvstore'} & set(sys.modules)))"
    # -I and -S: neither the environment nor any installed package is seen.
    bare = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.defpath},
        timeout=30,
    )
    assert bare.stderr == ""
    assert bare.stdout == "[]\n"
