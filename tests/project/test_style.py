"""The rules of CONTRIBUTING.md that a machine can hold: sizes, docstrings, what is never written."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.tree import PACKAGES, python_files, source, text_files

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_SLEEP_SECONDS = 0.5

# Formats that run what they read.
REFUSED_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
REFUSED_CALLS = {"eval", "exec", "__import__"}
REFUSED_METHODS = {"recv_pyobj", "send_pyobj", "recv_serialized"}
# Joined here, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:" + "|".join(["root", "home", "work", "Users"]) + r")/\w")
# Numbers of a list that is not in this repository: a sentence has to stand without them.
FOREIGN_CODE = re.compile(
    r"""(?i:catalogue\s+)[A-Z]\d|\([A-KP]\d{1,2}[,;)]|(?:\"{3}|#\s)[A-KP]\d{1,2}(?:[,:. "]|$)"""
)

FILES = python_files(*PACKAGES, "tests", "bench", "examples")


def broken_rules(path: Path, code: str) -> Iterator[str]:
    """Every rule that this source breaks, with the line."""
    lines = code.count("\n") + 1
    if lines > MAX_FILE_LINES + 1:
        yield f"{path}: {lines - 1} lines, more than {MAX_FILE_LINES}"
    tree = ast.parse(code)
    if not ast.get_docstring(tree):
        yield f"{path}:1: no module docstring"
    for node in ast.walk(tree):
        for rule in _broken_by(node, in_test=path.parts[0] == "tests"):
            yield f"{path}:{getattr(node, 'lineno', 0)}: {rule}"


def _broken_by(node: ast.AST, *, in_test: bool) -> Iterator[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"
        case ast.Import(names=names):
            yield from (
                f"{alias.name} runs what it reads" for alias in names if _top(alias.name) in REFUSED_MODULES
            )
        case ast.ImportFrom(module=module, names=names):
            if _top(module or "") in REFUSED_MODULES:
                yield f"{module} runs what it reads"
            if any(alias.name == "*" for alias in names):
                yield "a star import hides where names come from"
        case ast.Call(func=ast.Name(id=name)) if name in REFUSED_CALLS:
            yield f"{name} runs data as code"
        case ast.Attribute(attr=name) if name in REFUSED_METHODS:
            yield f"{name} runs what it reads"
        case ast.Attribute(attr="xfail" | "skip"):
            if in_test:
                yield "a test that does not run proves nothing"
        case ast.Call(
            func=ast.Attribute(attr="sleep"), args=[ast.Constant(value=int() | float() as seconds)]
        ):
            if in_test and seconds > MAX_SLEEP_SECONDS:
                yield f"a test sleeps {seconds} s, more than {MAX_SLEEP_SECONDS}"


def _top(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_file_keeps_the_rules(path: Path) -> None:
    assert list(broken_rules(path, source(path))) == []


@pytest.mark.parametrize(
    "code",
    [
        '"""Rule."""\nimport pickle\n',
        '"""Rule."""\nfrom marshal import loads\n',
        '"""Rule."""\nimport yaml\nyaml.load("")\n',
        '"""Rule."""\neval("1")\n',
        '"""Rule."""\nexec("pass")\n',
        '"""Rule."""\nfrom os import *\n',
        '"""Rule."""\ndef take(socket):\n    return socket.recv_pyobj()\n',
        '"""Rule."""\nimport time\ntime.sleep(3)\n',
        '"""Rule."""\nimport pytest\n\n@pytest.mark.xfail\ndef test_it():\n    pass\n',
        "x = 1\n",
        '"""Rule."""\ndef long():\n' + "    pass\n" * MAX_FUNCTION_LINES,
        '"""Rule."""\n' + "x = 1\n" * MAX_FILE_LINES,
    ],
)
def test_a_broken_rule_is_seen(code: str) -> None:
    assert len(list(broken_rules(Path("tests/example.py"), code))) == 1


def test_a_file_at_the_limits_keeps_the_rules() -> None:
    code = '"""Rule."""\ndef long():\n' + "    pass\n" * (MAX_FUNCTION_LINES - 1)
    code += "x = 1\n" * (MAX_FILE_LINES - code.count("\n"))
    assert list(broken_rules(Path("raft/example.py"), code)) == []


@pytest.mark.parametrize("path", text_files(), ids=str)
def test_no_text_is_unfinished_or_tied_to_one_machine(path: Path) -> None:
    for number, line in enumerate(source(path).splitlines(), start=1):
        assert not UNFINISHED.search(line), f"{path}:{number}: {line.strip()}"
        assert not MACHINE_PATH.search(line), f"{path}:{number}: {line.strip()}"
        assert not FOREIGN_CODE.search(line), f"{path}:{number}: {line.strip()}"


def test_unfinished_text_and_machine_paths_are_seen() -> None:
    assert UNFINISHED.search("# TO" + "DO: later")
    assert MACHINE_PATH.search("see " + "/ro" + "ot/notes")
    assert not MACHINE_PATH.search("https://example.org/home/page")


@pytest.mark.parametrize(
    "line",
    [
        "# it may come twice (catalogue " + "A6).",
        '"""Nothing is lost (' + 'H1, H2)."""',
        '"""' + 'A4: one vote."""',
        '"""' + 'I13"""',
        "assert vote  # " + "A4",
    ],
)
def test_a_number_that_nobody_can_look_up_is_seen(line: str) -> None:
    assert FOREIGN_CODE.search(line)


def test_sections_of_the_paper_and_ordinary_names_are_not_foreign() -> None:
    for line in (
        "(Raft §5.4.2)",
        "(dissertation 6.4)",
        "--endpoints E1,E2",
        "x = 1  # noqa: N802",
        "f(A, B1=2)",
    ):
        assert not FOREIGN_CODE.search(line)
