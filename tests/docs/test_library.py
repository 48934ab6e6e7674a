"""The guide for users of the library: its code is run from top to bottom, its table is that of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from bench.ports import free_ports
from kvstore import errors, protocol
from kvstore.refusals import CODES
from raft.actor_messages import Reason
from raft.life import Abandonment
from raft.replica import Replica
from tests.docs.markdown import ROOT, blocks

GUIDE = ROOT / "docs" / "library.md"
TEXT = GUIDE.read_text(encoding="utf-8")


def test_every_snippet_runs_after_those_before_it(tmp_path: Path) -> None:
    ports = iter(free_ports(3))
    lines = [""] * TEXT.count("\n")  # so that an error has the line of the guide
    found = [block for block in blocks(GUIDE) if block.info == "python"]
    assert len(found) >= 6
    for block in found:
        code = re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{next(ports)}", block.text).splitlines()
        lines[block.line : block.line + len(code)] = code
    script = tmp_path / "library.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    assert run(script) == "leader: None\n"


MACHINE = """
class MyMachine:
    def apply(self, first_index, bodies):
        return [None if body is None else b"did " + body for body in bodies]

    def query(self, bodies):
        return [b"about " + body for body in bodies]

"""


def test_the_readme_shows_how_it_begins(tmp_path: Path) -> None:
    [block] = [block for block in blocks(ROOT / "README.md") if "raft.replica" in block.text]
    [port] = free_ports(1)
    alone = re.sub(r"members = \{.*\}", f'members = {{"n1": "tcp://127.0.0.1:{port}"}}', block.text)
    assert alone != block.text
    script = tmp_path / "readme.py"
    script.write_text(MACHINE + alone, encoding="utf-8")
    assert run(script) == "b'did a command'\nb'about a query'\n"


def run(script: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=script.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_of_ends_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| `(\w+)[^|]*\| `(\w+)`[^|]*\| (\d+) \|$", TEXT, re.MULTILINE)
    assert {reason for reason, *_ in rows} == {reason.value for reason in Reason}
    for text, library_error, client_error, code in rows:
        reason = Reason(text)
        is_unknown = library_error in ("OutcomeUnknown", "ConflictWithLeader")
        assert type(Abandonment(reason, is_unknown).error()).__name__ == library_error
        refusal = errors.error_of_refusal(protocol.Refusal(1, 1, int(code), "why", None, None))
        assert type(refusal).__name__ == client_error
        assert isinstance(refusal, errors.MaybeApplied if is_unknown else errors.NotApplied)
        if not (reason is Reason.SHUTTING_DOWN and is_unknown):
            assert CODES[reason][0] == int(code)


def test_every_call_of_the_table_exists() -> None:
    table = TEXT[TEXT.index("| call | does |") : TEXT.index("A command that is given")]
    calls = re.findall(r"`(\w+)\(.*?\)`|`(role|term|leader_id|is_leader)`", table)
    names = {first or second for first, second in calls} - {"Hooks", "ReplicaSettings"}
    assert len(names) > 8
    assert [name for name in names if not hasattr(Replica, name)] == []
    told = set(re.findall(r"`(\w+)", table))
    public = {name for name in vars(Replica) if not name.startswith("_")}
    assert public - told == set()
