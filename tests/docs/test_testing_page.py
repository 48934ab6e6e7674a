"""Every test that docs/testing.md names exists, and every letter in a test's name is explained there."""

from __future__ import annotations

import re

from tests.mutants.registry import all_bugs
from tests.project.suite import known_test_ids
from tests.project.tree import ROOT

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py(?:::\w+)?)`", PAGE)


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


def test_what_is_called_planted_is_planted() -> None:
    """Some test of such a line is the check of a planted bug: at least in the same file."""
    checks = {check.removeprefix("tests/") for bug in all_bugs() for check in bug.checks}
    files = {check.split("::")[0] for check in checks}
    rows = [line for line in PAGE.splitlines() if line.endswith("; planted |")]
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)(?:::\w+)?`", row)
        assert files & set(named), f"no planted bug is caught by any of these: {row}"


def test_every_scenario_of_the_paper_and_the_dissertation_has_a_line() -> None:
    """38 of the one, 26 of the other, by their numbers."""
    for letter, count in (("P", 38), ("T", 26)):
        listed: set[int] = set()
        for cell in re.findall(rf"^\| ({letter}\d+[^|]*) \|", PAGE, re.MULTILINE):
            numbers = [int(number) for number in re.findall(r"\d+", cell)]
            listed |= set(range(numbers[0], numbers[1] + 1)) if " to " in cell else set(numbers)
        assert listed == set(range(1, count + 1))
