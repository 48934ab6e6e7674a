"""Runs checks against a copy of the tree with one bug in it, within a bound of time.

May know processes and pytest's way to say what failed; nothing of what the bugs are. A copy is thrown away
after its bug. What does not end in time is killed with all that it started, and counts as not caught: a
check that hangs does not say what is wrong.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.registry import Bug

TOPS = (
    "actors",
    "raft",
    "kvstore",
    "tests",
    "bin",
    "bench",
    "examples",
    "docs",
    "setup.cfg",
    "pyproject.toml",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
)
# For the bugs that no check of their own finds: whatever the suite has for the core and the disk.
WIDE = ("tests/raft", "tests/actors", "tests/kvstore/test_memory_cluster.py")
NARROW_SECONDS = 90.0
WIDE_SECONDS = 300.0
SEEDS_SECONDS = 240.0
# The first line of the summary that names a test, and its error in a few words.
_FAILED = re.compile(
    r"^(?:FAILED|ERROR) (?P<check>\S+?::\w+(?:\[.*?\](?= - |$))?)(?: - (?P<error>.*))?$", re.MULTILINE
)

PASSED, FAILED = 0, 1  # pytest's codes; every other one is trouble of another kind


@dataclass(slots=True)
class Verdict:
    """What became of one bug."""

    name: str
    caught_by: str  # the check; empty if none
    error: str  # what the check said, or why there is none
    seconds: float
    is_narrow: bool = True  # caught by a check of its own
    simulator: str = ""  # what the simulator made of it, if it was asked


@dataclass(frozen=True, slots=True)
class Plan:
    """How far to go for each bug."""

    wide: bool = True  # whoever passes its own checks meets WIDE
    seeds: int = 0  # of the simulator, for the bugs that want them
    seed_seconds: float = 10.0  # simulated, for each of them


def copy_tree(source: Path, target: Path) -> None:
    for name in TOPS:
        found = source / name
        if found.is_dir():
            shutil.copytree(found, target / name, ignore=shutil.ignore_patterns("*.egg-info", "data"))
        elif found.is_file():
            shutil.copy2(found, target / name)


def plant(bug: Bug, tree: Path) -> None:
    for name, text in bug.mutate(tree).items():
        path = tree / name
        path.write_text(text, encoding="utf-8")
        for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            stale.unlink()


def run_checks(tree: Path, checks: Sequence[str], seconds: float, *, first_only: bool) -> tuple[int, str]:
    """Exit code and output of pytest over these checks; code -9 if it was killed for lack of time."""
    options = ["-p", "no:cacheprovider", "--tb=line", "-rfE", *(["-x"] if first_only else [])]
    return run_module(tree, ["pytest", *checks, *options], seconds)


def run_module(tree: Path, arguments: Sequence[str], seconds: float) -> tuple[int, str]:
    """`python -m …` in that tree; code -9 if it did not end in time."""
    command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "400", "PYTHONHASHSEED": "0"}
    log = tree / "checks.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=tree, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            _kill_group(process)
    return code, log.read_text(encoding="utf-8", errors="replace")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The process leads a group of its own; nothing of it outlives its checks."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def judge(code: int, output: str) -> tuple[str, str]:
    """(check, what it said); no check if the bug was not found, or not by a failing test."""
    if code == FAILED and (found := _FAILED.search(output)) is not None:
        return found["check"], found["error"] or ""
    if code == PASSED:
        return "", "every check passed"
    reason = "no answer in time" if code == -signal.SIGKILL else f"pytest ended with code {code}"
    return "", f"{reason}: {output.strip().splitlines()[-1:]}"


def ask_simulator(tree: Path, plan: Plan) -> str:
    arguments = ["tests.mutants.seeds", str(plan.seeds), str(plan.seed_seconds)]
    code, output = run_module(tree, arguments, SEEDS_SECONDS)
    if code == PASSED:
        return output.strip() or f"not in {plan.seeds} seeds"
    return f"ended with code {code}: {output.strip().splitlines()[-1:]}"


def try_bug(bug: Bug, base: Path, plan: Plan) -> Verdict:
    """Plant it in a copy of `base`, and see who notices: its own checks, then, if asked for, all."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="assent-mutant-") as folder:
        tree = Path(folder)
        shutil.copytree(base, tree, dirs_exist_ok=True)
        plant(bug, tree)
        check, error = judge(*run_checks(tree, bug.checks, NARROW_SECONDS, first_only=True))
        is_narrow = bool(check)
        if not check and plan.wide:
            check, error = judge(*run_checks(tree, WIDE, WIDE_SECONDS, first_only=True))
        seconds = time.monotonic() - began
        simulator = ask_simulator(tree, plan) if plan.seeds and bug.wants_seeds else ""
    return Verdict(bug.name, check, error, seconds, is_narrow, simulator)


def try_all(
    bugs: Sequence[Bug], base: Path, plan: Plan, *, jobs: int, tell: Callable[[Bug, Verdict], None]
) -> list[Verdict]:
    """All of them, `jobs` at a time; `tell` hears of each in order."""
    verdicts = []
    with ThreadPoolExecutor(jobs) as pool:
        for bug, verdict in zip(bugs, pool.map(lambda bug: try_bug(bug, base, plan), bugs)):
            tell(bug, verdict)
            verdicts.append(verdict)
    return verdicts
