"""Each scenario of the paper and the dissertation has its place, and each test here its section."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.paper.dissertation_scenarios import DISSERTATION
from tests.paper.scenarios import NOT_TESTED, PAPER

HERE = Path(__file__).parent
TESTS = HERE.parent
SECTION = re.compile(r"^(Raft (§\d|figure \d)|Dissertation \d)")


def functions_of(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


FILES = sorted(path for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)


@pytest.mark.parametrize(
    "place", sorted({place for each in (*PAPER, *DISSERTATION) for place in each.places})
)
def test_every_place_exists(place: str) -> None:
    path, _, name = place.partition("::")
    assert (TESTS / path).is_file()
    assert not name or name in functions_of(TESTS / path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_test_here_says_its_section_and_what_must_hold(path: Path) -> None:
    for name, function in functions_of(path).items():
        if name.startswith("test_"):
            docstring = ast.get_docstring(function) or ""
            assert SECTION.match(docstring), f"{name}: {docstring}"
            assert len(docstring.partition(":")[2]) > 20, f"{name} does not say what must hold"


def test_every_file_here_is_in_the_index() -> None:
    places = {place.partition("::")[0] for each in (*PAPER, *DISSERTATION) for place in each.places}
    assert {f"paper/{path.name}" for path in FILES} <= places


def test_what_is_not_tested_says_why() -> None:
    assert all(section and what and len(why) > 20 for section, what, why in NOT_TESTED)
