"""Every test that docs/testing.md names exists, and every letter in a test's name is explained there."""

from __future__ import annotations

import re

from tests.mutants.registry import all_bugs
from tests.project.suite import known_test_ids
from tests.project.tree import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
NAME = re.compile(r"`([\w/]+\.py(?:::\w+)?)`")
NAMED = NAME.findall(PAGE)


def test_every_test_that_is_named_exists() -> None:
    assert len(NAMED) > 150
    unknown = [name for name in NAMED if f"tests/{name}" not in known_test_ids() | other_files()]
    assert unknown == []


def test_each_fact_of_the_store_names_a_test() -> None:
    """A class stands for all of its tests."""
    facts = PAGE.split("the facts of the store", 1)[1].split("\n### ", 1)[0]
    rows = [line for line in facts.splitlines() if line.startswith("| ") and not line.endswith("| tests |")]
    assert len(rows) > 40
    assert [row for row in rows if not re.search(r"\.py::[tT]est\w+`", row.rsplit(" | ", 1)[1])] == []


def other_files() -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}


def test_every_letter_and_number_in_a_name_of_a_test_is_explained() -> None:
    """A name such as test_b2_… refers to a line of the tables."""
    explained = set()
    for cell in re.findall(r"^\| ([A-JPT]\d+[^|]*) \|", PAGE, re.MULTILINE):
        explained |= set(cell.lower().split(", "))
        if " to " in cell:
            first, last = (int(name[1:]) for name in cell.split(" to "))
            explained |= {f"{cell[0].lower()}{number}" for number in range(first, last + 1)}
    for name in known_test_ids():
        prefix = re.match(r".*::test_((?:[a-jpt]\d+_)+)", name)
        if prefix is not None:
            missing = set(prefix[1].strip("_").split("_")) - explained
            assert not missing, f"{name}: nothing on the page explains {missing}"


# Of the known bugs of Raft systems, those that must be planted whatever else is.
FLOOR = """
    A1 A2 A4 A6 A7 A18 B1 B2 B3 B4 B5 B14 B15 B16 B17 C1 C2 C3 C4 C6 C8 D1 D2 D3 D5
    E1 E2 E4 E5 E7 E12 E13 E15 F1 F2 F4 F6 F7 F11 F18 G1 G2 G3 G4 G8 G10 H1 H2 H4 H5 H8 I4 I11
"""


def planted_rows() -> list[tuple[str, set[str]]]:
    """The number of each line that is called planted, empty if it has none, and the tests that it names."""
    rows = [line for line in PAGE.splitlines() if re.search(r"^\|.*; planted\b", line)]
    numbers = [re.match(r"\| ([A-J]\d+) \|", row) for row in rows]
    return [
        (number[1] if number else "", {f"tests/{name}" for name in NAME.findall(row)})
        for number, row in zip(numbers, rows)
    ]


def test_what_is_called_planted_is_planted() -> None:
    """Each line has a bug of its own, and tests that are to catch it."""
    rows = planted_rows()
    assert len(rows) > 100
    bugs = all_bugs()
    for number, named in rows:
        own = [bug for bug in bugs if number in bug.covers] if number else bugs
        caught = [bug for bug in own if named & set(bug.checks)]
        assert caught, f"no planted bug is caught by any test of {number or named}"
        assert not number or caught == own, f"what covers {number} is caught by other tests"


def test_what_a_planted_bug_covers_is_called_planted() -> None:
    numbers = {number for number, _ in planted_rows()}
    assert {number for bug in all_bugs() for number in bug.covers} <= numbers
    assert [number for number in FLOOR.split() if number not in numbers] == []


def test_every_scenario_of_the_paper_and_the_dissertation_has_a_line() -> None:
    """38 of the one, 26 of the other, by their numbers."""
    for letter, count in (("P", 38), ("T", 26)):
        listed: set[int] = set()
        for cell in re.findall(rf"^\| ({letter}\d+[^|]*) \|", PAGE, re.MULTILINE):
            numbers = [int(number) for number in re.findall(r"\d+", cell)]
            listed |= set(range(numbers[0], numbers[1] + 1)) if " to " in cell else set(numbers)
        assert listed == set(range(1, count + 1))
