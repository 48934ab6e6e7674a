"""The examples do what they say, with few lines: they are what somebody reads first who builds on `raft`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest

from bench.ports import free_ports
from examples import bank, replicated_log
from examples.counter import Counter
from examples.sqlite_storage import SqliteStorage
from raft.replica import Replica
from raft.storage_contract import CHECKS, Opener
from tests.project.tree import ROOT, python_files, source

MOST_LINES = 60
DEADLINE_SECONDS = 20.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def lines_of_code(code: str) -> int:
    """Lines that a user would have to write: neither blank, nor comment, nor docstring."""
    tree = ast.parse(code)
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not _is_docstring(node):
            is_block = isinstance(
                node, ast.FunctionDef | ast.ClassDef | ast.If | ast.For | ast.While | ast.With
            )
            last = node.body[0].lineno - 1 if is_block else node.end_lineno  # type: ignore[attr-defined]
            found.update(range(node.lineno, max(node.lineno, last or 0) + 1))
    texts = code.splitlines()
    return sum(1 for line in found if texts[line - 1].strip() and not texts[line - 1].strip().startswith("#"))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.parametrize("path", python_files("examples"), ids=str)
def test_an_example_is_short(path: Path) -> None:
    assert lines_of_code(source(path)) < MOST_LINES


def test_lines_are_counted() -> None:
    code = '"""Doc."""\n\nX = [\n    1,\n]\n# why\ndef f(\n    a,\n):\n    """Doc."""\n    return a\n'
    assert lines_of_code(code) == 7


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, f"examples/{name}.py", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_counter() -> None:
    assert run("counter").splitlines() == [
        "sum: 5",
        "sum: 12",
        "n1 says 12",
        "n2 says 12",
        "n3 says 12",
        "a follower does not take commands, and names the leader: True",
    ]


@pytest.mark.parametrize("seed", range(1, 7))
def test_the_bank_neither_loses_nor_makes_money(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    world = bank.main(seed)
    balances = [machine.balances for machine in world.machines.values()]
    assert [sum(balance.values()) for balance in balances] == [400] * 3
    assert balances[0] == balances[1] == balances[2]
    assert min(balances[0].values()) >= 0
    assert {len(machine.done) for machine in world.machines.values()} == {200}
    last = capsys.readouterr().out.splitlines()[-1]
    crashes, lost = int(last.split()[4]), int(last.split()[6])
    assert crashes > 5 and lost > 10, last


def test_the_bank_is_the_same_for_the_same_seed() -> None:
    assert run("bank", "5") == run("bank", "5")


def test_the_replicated_log_tells_the_life_of_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs = replicated_log.main(seed=1)
    told = capsys.readouterr().out.splitlines()
    assert {f"'line {number}'" for number in range(1, 6)} <= {line.split(" at")[0] for line in told}
    assert "'line 1' at 2: queued" in told
    assert "'line 1' at 2: applied" in told
    assert any("abandoned (outcome_unknown)" in line for line in told)
    assert told[-1] == "all alike: True"
    assert [line for line in logs[0].lines if line.startswith("line")] == [f"line {n}" for n in range(1, 6)]


@pytest.mark.parametrize("seed", range(2, 8))
def test_the_replicated_log_is_alike_everywhere_whatever_the_network_does(seed: int) -> None:
    logs = replicated_log.main(seed)
    assert logs[0].lines == logs[1].lines == logs[2].lines


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_storage_in_sqlite(check: Callable[[Opener], None], tmp_path: Path) -> None:
    check(lambda: SqliteStorage(tmp_path / "storage.sqlite"))


def test_a_replica_comes_back_from_sqlite(tmp_path: Path) -> None:
    for run_number in range(1, 4):
        storage = SqliteStorage(tmp_path / "n1.sqlite")
        members = {"n1": f"ipc://{tmp_path}/n1"}
        with Replica("n1", Counter(), members=members, storage=storage) as replica:
            replica.wait_for_leader(timeout_seconds=10)
            assert replica.apply(b"1") == str(run_number).encode()


class Shell:
    """One process of the example, as somebody at a terminal sees it."""

    def __init__(self, name: str, directory: Path, members: dict[str, str]) -> None:
        code = f"from examples.three_processes import main; main({name!r}, {str(directory)!r}, {members!r})"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def type(self, line: str) -> str:
        """What is shown next, of leaders apart."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        while (shown := self.next()).startswith("leader:"):
            pass
        return shown

    def next(self) -> str:
        return self.lines.get(timeout=DEADLINE_SECONDS)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(DEADLINE_SECONDS) == 0

    def wait(self) -> None:
        self.process.wait(DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def shells(tmp_path: Path) -> Iterator[dict[str, Shell]]:
    names = ("n1", "n2", "n3")
    members = {name: f"tcp://127.0.0.1:{port}" for name, port in zip(names, free_ports(3))}
    started = {name: Shell(name, tmp_path, members) for name in names}
    yield started
    for shell in started.values():
        shell.process.kill()
        shell.wait()


def test_three_processes_agree_and_survive_the_loss_of_their_leader(shells: dict[str, Shell]) -> None:
    set_anywhere(shells, "set colour green")
    assert [shell.type("get colour") for shell in shells.values()] == ["green"] * 3
    leader = set_anywhere(shells, "set colour blue")
    shells[leader].process.kill()
    shells.pop(leader).wait()
    set_anywhere(shells, "set shape round")
    assert [shell.type("get colour") for shell in shells.values()] == ["blue"] * 2
    for shell in shells.values():
        shell.end()


def set_anywhere(shells: dict[str, Shell], line: str) -> str:
    """Type it where it is taken; the name of that process."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        for name, shell in shells.items():
            try:
                if shell.type(line) == "done":
                    return name
            except Empty:
                break
        time.sleep(0.05)
    raise AssertionError(f"nobody takes {line!r}")
