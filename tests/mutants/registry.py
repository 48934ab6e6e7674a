"""The planted bugs, read from the text files beside this one. Knows nothing of how they are run.

A file has one section for each bug:

    ## name in words
    What goes wrong, in one or two lines.
    check: tests/raft/test_x.py::test_y        (narrow first; one line for each)
    covers: A4                                 (the lines of docs/testing.md that it is the bug of, if any)
    seeds: yes                                 (the simulator is measured against it too)
    file: raft/x.py
     a line that stays, for context
    -    a line that goes
    +    a line that comes

The lines behind `file:` are a patch without numbers: what stays and goes must be there exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class BadBug(Exception):
    """A section that does not say what it must, or does not fit the tree."""


@dataclass(slots=True)
class Edit:
    """Whole lines of one file and what stands in their place."""

    file: str
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def apply(self, text: str) -> str:
        """The text with the bug in it; BadBug unless the lines are there exactly once."""
        # With a line break on both sides, so that lines match as a whole.
        text, old = "\n" + text, "\n" + "\n".join(self.old) + "\n"
        found = text.count(old)
        if found != 1 or self.old == self.new:
            raise BadBug(f"{self.file}: these lines are there {found} times: {self.old}")
        return text.replace(old, "\n" + "\n".join([*self.new, ""]))[1:]


@dataclass(slots=True)
class Bug:
    """One planted bug. Owned by whoever read it."""

    section: str  # name of the file that it is in
    name: str
    harm: str = ""
    checks: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    wants_seeds: bool = False
    covers: list[str] = field(default_factory=list)  # lines of docs/testing.md

    def mutate(self, root: Path) -> dict[str, str]:
        """What each file of the tree becomes."""
        changed: dict[str, str] = {}
        for edit in self.edits:
            text = changed.get(edit.file)
            if text is None:
                text = (root / edit.file).read_text(encoding="utf-8")
            changed[edit.file] = edit.apply(text)
        return changed


def parse(section: str, text: str) -> list[Bug]:
    bugs: list[Bug] = []
    for line in text.splitlines():
        if line.startswith("## "):
            bugs.append(Bug(section, line[3:].strip()))
        elif bugs and not line.startswith("# "):
            _take(bugs[-1], line)
    for bug in bugs:
        if not (bug.harm and bug.checks and bug.edits):
            raise BadBug(f"{section}: {bug.name!r} lacks its harm, its checks or its edits")
    return bugs


def _take(bug: Bug, line: str) -> None:
    word, _, rest = line.partition(": ")
    if word == "check":
        bug.checks.append(rest)
    elif word == "covers":
        bug.covers += rest.split()
    elif word == "seeds":
        bug.wants_seeds = True
    elif word == "file":
        bug.edits.append(Edit(rest))
    elif bug.edits and line:
        mark, content = line[0], line[1:]
        if mark not in " -+":
            raise BadBug(f"{bug.section}: {bug.name!r}: no line of a patch: {line}")
        if mark != "+":
            bug.edits[-1].old.append(content)
        if mark != "-":
            bug.edits[-1].new.append(content)
    elif line:
        bug.harm = f"{bug.harm} {line}".strip()


def all_bugs() -> list[Bug]:
    """Section by section, each in the order of its file."""
    return [
        bug
        for path in sorted(HERE.glob("*.txt"))
        for bug in parse(path.stem, path.read_text(encoding="utf-8"))
    ]
