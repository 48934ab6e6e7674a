"""What the programs of bench/ share: an orderly end, a place for data, rows of results in one file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

LATEST = Path(__file__).resolve().parent / "results" / "latest.json"


@dataclass(slots=True)
class Row:
    """One figure, maybe beside a peer's. More is better of rates, less of all else.

    `target` is the ratio to reach, `limit` the figure itself; a row has one of them at most.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None  # value / peer_value
    target: float | None = None
    limit: float | None = None  # in `unit`

    @property
    def is_rate(self) -> bool:
        return self.unit.endswith("/s")

    @property
    def verdict(self) -> str:
        """ "reached" or "missed"; empty where nothing was asked, or a ratio to a peer that was not there."""
        asked, found = (self.target, self.ratio) if self.limit is None else (self.limit, self.value)
        if asked is None or found is None:
            return ""
        return "reached" if (found >= asked if self.is_rate else found <= asked) else "missed"

    @property
    def goal(self) -> str:
        """What was asked and what became of it: "at most 500 ms  reached". Empty where nothing was asked."""
        bound = "at least" if self.is_rate else "at most"
        if self.limit is not None:
            return f"{bound} {self.limit:g} {self.unit}  {self.verdict}"
        return f"{bound} {self.target:g}  {self.verdict}".rstrip() if self.target is not None else ""


def row(
    name: str,
    value: float,
    unit: str,
    *,
    peer: str | None = None,
    peer_value: float | None = None,
    target: float | None = None,
    limit: float | None = None,
) -> Row:
    ratio = value / peer_value if peer_value else None
    return Row(
        name,
        round(value, 3),
        unit,
        peer,
        peer_value and round(peer_value, 3),
        ratio and round(ratio, 3),
        target,
        limit,
    )


def exit_code(rows: Sequence[Row]) -> int:
    """1 if anything that was asked is missed. What could not be judged, for want of a peer, is not."""
    return int(any(row.verdict == "missed" for row in rows))


def write_rows(rows: Sequence[Row], path: Path = LATEST) -> None:
    """Replaces the rows of the same names and keeps the others, so that programs can share the file."""
    kept: list[dict[str, object]] = []
    with contextlib.suppress(OSError, ValueError):
        kept = [old for old in json.loads(path.read_text()) if old["name"] not in {row.name for row in rows}]
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    written.write_text(json.dumps([*kept, *map(asdict, rows)], indent=1, ensure_ascii=False) + "\n")
    os.replace(written, path)


@contextlib.contextmanager
def data_directory(below: Path | None) -> Iterator[Path]:
    """A directory of this run's own, gone afterwards; `below` chooses the disk."""
    with tempfile.TemporaryDirectory(prefix="assent-bench-", dir=below) as directory:
        yield Path(directory)


def end_orderly() -> None:
    """SIGTERM unwinds the stack like Ctrl-C does, so that every process started here is ended on the way."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def keep_bytecode() -> None:
    """Nodes find their modules compiled when they are started again, as those of an installation do.

    Without it, where the environment says so, each start compiles all of them: seconds that no other has.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def say(text: str) -> None:
    """Progress goes to stderr; results go to stdout."""
    print(text, file=sys.stderr, flush=True)
