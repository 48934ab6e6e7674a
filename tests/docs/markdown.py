"""Fenced blocks of a Markdown document: what kind, what text, which line."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Block(NamedTuple):
    info: str
    text: str
    line: int


def blocks(path: Path) -> list[Block]:
    """All fenced blocks, in order; `info` is what stands after the opening fence."""
    found: list[Block] = []
    opened: tuple[str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.startswith("```"):
            lines.append(line)
        elif opened is None:
            opened, lines = (line[3:].strip(), number), []
        else:
            found.append(Block(opened[0], "\n".join(lines), opened[1]))
            opened = None
    assert opened is None, f"{path}:{opened}: a block that does not end"
    return found
