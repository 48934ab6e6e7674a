"""The hand that plants bugs, on a tree of two files: what is caught, what survives, and what hangs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import run
from tests.mutants.registry import Bug, Edit
from tests.mutants.run import FAILED, PASSED, Plan, judge, run_checks, try_bug

CODE = "def double(number):\n    return 2 * number\n"
TESTS = "from code_under_test import double\n\ndef test_double():\n    assert double(3) == 6\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "code_under_test.py").write_text(CODE)
    (tmp_path / "test_code.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def bug_of(line: str, check: str = "test_code.py::test_double") -> Bug:
    edit = Edit("code_under_test.py", old=["    return 2 * number"], new=[f"    {line}"])
    return Bug("example", "a bug", "It harms.", [check], [edit])


def test_the_tree_as_it_is_passes(tree: Path) -> None:
    assert run_checks(tree, ["test_code.py"], 30.0, first_only=True)[0] == PASSED


def test_a_bug_is_caught_by_name_and_the_tree_stays_as_it_was(tree: Path) -> None:
    verdict = try_bug(bug_of("return number"), tree, Plan(wide=False))
    assert verdict.caught_by == "test_code.py::test_double" and verdict.is_narrow
    assert "assert 3 == 6" in verdict.error
    assert (tree / "code_under_test.py").read_text() == CODE


def test_a_change_that_nobody_notices_survives(tree: Path) -> None:
    verdict = try_bug(bug_of("return number + number"), tree, Plan(wide=False))
    assert (verdict.caught_by, verdict.error) == ("", "every check passed")


def test_what_its_own_checks_miss_others_may_catch(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "test_other.py").write_text("def test_nothing():\n    pass\n")
    monkeypatch.setattr(run, "WIDE", ("test_code.py",))
    verdict = try_bug(bug_of("return number", "test_other.py"), tree, Plan())
    assert verdict.caught_by == "test_code.py::test_double" and not verdict.is_narrow


def test_a_check_that_hangs_is_killed_and_has_caught_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "NARROW_SECONDS", 1.5)
    verdict = try_bug(bug_of("while True: pass"), tree, Plan(wide=False))
    assert verdict.caught_by == "" and verdict.error.startswith("no answer in time")


def test_a_bug_that_breaks_the_import_is_not_called_caught(tree: Path) -> None:
    code, output = run_checks(tree, ["no_such_test.py"], 30.0, first_only=True)
    assert code not in (PASSED, FAILED)
    assert judge(code, output)[0] == ""


def test_a_name_with_parameters_of_many_words_is_found() -> None:
    output = "x\nFAILED tests/a/test_b.py::test_c[two words - and more] - AssertionError: no\n1 failed\n"
    assert judge(FAILED, output) == (
        "tests/a/test_b.py::test_c[two words - and more]",
        "AssertionError: no",
    )
