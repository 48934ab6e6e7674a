"""Scenario files: prose, commands, and what each command is expected to say.

A line that begins with "> " is a command. The indented lines below it are its output. All else is prose,
and the first line is the heading. Knows the form of a file, and nothing of what the commands mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

PROMPT = "> "
INDENT = "    "


@dataclass(slots=True)
class Step:
    """One command, with the output that the file gives for it."""

    line_number: int
    command: str
    output: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    """A file in its order: lines of prose, and steps."""

    parts: list[str | Step]

    @property
    def heading(self) -> str:
        return self.parts[0] if self.parts and isinstance(self.parts[0], str) else ""

    @property
    def prose(self) -> list[str]:
        """Without the heading and empty lines."""
        return [part for part in self.parts[1:] if isinstance(part, str) and part.strip()]

    @property
    def steps(self) -> list[Step]:
        return [part for part in self.parts if isinstance(part, Step)]

    def played(self, play: Callable[[Step], list[str]]) -> Script:
        """The same file, with the output that `play` gives for each command in turn."""
        return Script(
            [
                Step(part.line_number, part.command, play(part)) if isinstance(part, Step) else part
                for part in self.parts
            ]
        )

    def text(self) -> str:
        lines: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                lines.append(part)
            else:
                lines.append(PROMPT + part.command)
                lines += [(INDENT + line).rstrip() for line in part.output]
        return "\n".join(lines) + "\n"


def parse(text: str) -> Script:
    parts: list[str | Step] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(PROMPT):
            parts.append(Step(number, line.removeprefix(PROMPT).strip()))
        elif line.startswith(INDENT) and parts and isinstance(parts[-1], Step):
            parts[-1].output.append(line.removeprefix(INDENT).rstrip())
        else:
            parts.append(line.rstrip())
    return Script(parts)
