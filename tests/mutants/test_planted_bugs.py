"""The planted bugs fit the tree as it is, so that they cannot rot between two runs of `make mutants`."""

from __future__ import annotations

import ast

import pytest

from tests.mutants.registry import ROOT, BadBug, Bug, Edit, all_bugs, parse
from tests.project.suite import known_test_ids

BUGS = all_bugs()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_fits_the_tree(bug: Bug) -> None:
    for name, text in bug.mutate(ROOT).items():
        assert name.split("/")[0] in ("actors", "raft", "kvstore"), f"{name} is not what is tested"
        assert ast.parse(text, name)
    for check in bug.checks:
        assert check in known_test_ids(), f"{check} does not exist"


def test_there_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len(BUGS) >= 30
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_a_bug_says_which_lines_of_the_page_it_is_of() -> None:
    text = "## a bug\nHarm.\ncheck: t.py::test_x\n{}file: x.py\n-a\n+b\n"
    [none], [two] = parse("example", text.format("")), parse("example", text.format("covers: A4 B2\n"))
    assert (none.covers, two.covers, two.harm) == ([], ["A4", "B2"], "Harm.")
    assert none.edits == two.edits


def test_an_edit_must_fit_in_exactly_one_place() -> None:
    edit = Edit("x.py", old=["a = 1"], new=["a = 2"])
    assert edit.apply("b = 1\na = 1\n") == "b = 1\na = 2\n"
    for text in ("b = 1\n", "a = 1\na = 1\nb = 1\na = 1\n", "aa = 1\n", "a = 11\n"):
        with pytest.raises(BadBug):
            edit.apply(text)


@pytest.mark.parametrize(
    "text",
    [
        "## no harm\ncheck: t.py::test_x\nfile: x.py\n-a\n+b\n",
        "## no check\nHarm.\nfile: x.py\n-a\n+b\n",
        "## no edit\nHarm.\ncheck: t.py::test_x\n",
        "## no patch\nHarm.\ncheck: t.py::test_x\nfile: x.py\n*a\n",
    ],
)
def test_a_section_that_lacks_something_is_refused(text: str) -> None:
    with pytest.raises(BadBug):
        parse("example", text)
