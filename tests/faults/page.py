"""The tables in docs/faults.md, between their two marks: what is promised."""

from __future__ import annotations

from pathlib import Path

from tests.faults.damage import DAMAGES
from tests.faults.matrix import NODE, NODE_COLUMNS, Row, table
from tests.faults.promises import FAULTS

PATH = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
BEGIN, END = "<!-- begin: make faults -->\n", "<!-- end: make faults -->\n"

AT_WORK_TITLE = "### Faults at work"
NODE_TITLE = "### Faults at a whole node that serves clients"
AT_WORK = [fault.name for fault in FAULTS]
DECAY = [column.name for column in DAMAGES if column.name.startswith(("flip", "zeroed"))]
LOSS = [column.name for column in DAMAGES if column.name not in DECAY]


def tables(rows: dict[str, Row], *, counted: bool = False) -> str:
    """All of them, with words alone, or with how often each came."""
    parts = [
        (AT_WORK_TITLE, AT_WORK),
        ("### Decay, found at the next start", DECAY),
        ("### Lost files, found at the next start", LOSS),
        (NODE_TITLE, NODE_COLUMNS),
    ]
    return (
        "\n\n".join(f"{title}\n\n{table(rows, columns, counted=counted)}" for title, columns in parts) + "\n"
    )


def read() -> str:
    return PATH.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def write(text: str) -> None:
    before, begin, rest = PATH.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"the marks are not in {PATH}"
    PATH.write_text(before + begin + text + end + after, encoding="utf-8")


def cells() -> dict[tuple[str, str], str]:
    """What the page says of each cell, by point and column."""
    found: dict[tuple[str, str], str] = {}
    columns: list[str] = []
    prefix = ""
    for line in read().splitlines():
        if line.startswith("### "):
            prefix = NODE if line == NODE_TITLE else ""
        parts = [part.strip() for part in line.strip("|").split("|")]
        if parts[0] == "point":
            columns = [prefix + name for name in parts[1:]]
        elif line.startswith("| "):
            found |= {(parts[0], column): cell for column, cell in zip(columns, parts[1:])}
    return found
