"""Whoever builds on `raft` finds a sentence at every public name."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest

import raft
from raft.core import Core
from raft.storage import Storage

MODULES = ["life", "errand", "changes", "replica", "replica_settings", "rehearsal", "storage_contract"]
# What a protocol explains is explained there.
PROTOCOLS = {name for name in vars(Storage) if not name.startswith("_")}


def silent(owner: str, kind: type) -> list[str]:
    """The public names of a class that say nothing of themselves; the class itself, if it does not."""
    text = kind.__doc__ or ""
    found = (
        [owner] if not text or text.startswith(f"{kind.__name__}(") else []
    )  # as a dataclass writes itself
    for name, member in vars(kind).items():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        if not function.__doc__ and name not in PROTOCOLS:
            found.append(f"{owner}.{name}")
    return found


@pytest.mark.parametrize("name", raft.__all__)
def test_what_raft_exports_is_explained(name: str) -> None:
    exported = getattr(raft, name)
    if exported is Core:
        return  # its door is explained, and most of its names are for its own roles
    if inspect.isclass(exported) and exported.__module__.startswith("raft."):  # no alias of a builtin type
        assert silent(name, exported) == []


@pytest.mark.parametrize("module", [importlib.import_module(f"raft.{name}") for name in MODULES])
def test_what_a_program_imports_is_explained(module: ModuleType) -> None:
    for name, member in vars(module).items():
        if name.startswith("_") or getattr(member, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(member):
            assert silent(name, member) == []
        elif inspect.isfunction(member):
            assert member.__doc__, name


def test_a_silent_name_is_seen() -> None:
    class Quiet:
        def work(self) -> None: ...

        @property
        def state(self) -> int:
            return 0

        def known(self) -> None:
            """It says so."""

    assert silent("Quiet", Quiet) == ["Quiet", "Quiet.work", "Quiet.state"]
