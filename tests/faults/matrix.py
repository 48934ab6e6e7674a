"""The matrix as a table: which cells are run, what came of them, and how that is printed.

A row is a point of the write path, a column a fault or a kind of damage. Of each cell some moments are
picked: calls of that point in the life of tests/faults/script.py, before or after them. Only those count at
which the fault strikes, or something is there to be harmed.
"""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from random import Random

from tests.faults.damage import DAMAGES, Column
from tests.faults.judge import Wrong
from tests.faults.moments import NOT_REACHED, Stop
from tests.faults.nodes import NODE_FAULTS, node_steps, run_node
from tests.faults.points import POINTS
from tests.faults.promises import FAULTS, Fault, harm, run_damage, run_fault
from tests.faults.scenes import Scene, record_life
from tests.faults.script import small_chunks

NONE = "n/a"
BROKEN = "BROKEN"
MOMENTS = ("before", "after")
NODE = "node: "
NODE_COLUMNS = [f"{NODE}{fault}" for fault in NODE_FAULTS]
COLUMNS = [fault.name for fault in FAULTS] + [column.name for column in DAMAGES]
WORDS = {fault.name: fault.words for fault in FAULTS}


@dataclass
class Row:
    """What came of all cells of one point that were run."""

    point: str
    cells: dict[str, Counter[str]] = field(default_factory=dict)  # by column: words
    broken: list[str] = field(default_factory=list)  # promises, in words

    def struck(self, column: str) -> int:
        """How many runs of this cell there were in which something happened."""
        return sum(count for word, count in self.cells[column].items() if not word.startswith(NONE))


@dataclass(frozen=True)
class Effort:
    """How many moments of a point are looked at for each column, and with which chance."""

    picks: int = 1
    seed: int = 1

    def stops(self, point: str, column: str) -> list[Stop]:
        """All moments, in an order of chance."""
        moments = [Stop(number, moment, point) for number in steps()[point] for moment in MOMENTS]
        Random(f"{point} {column} {self.seed}").shuffle(moments)
        return moments


@cache
def steps() -> dict[str, list[int]]:
    """The numbers of the calls of each point, in a life that nothing happens to."""
    with small_chunks(), workplace() as root:
        made, _ = record_life(root, set())
    return {point: [step.number for step in made if step.point == point] for point in POINTS}


@cache
def steps_of_node(size: int) -> dict[str, list[int]]:
    """The same of a whole node among `size`."""
    with small_chunks(), workplace() as root:
        made = node_steps(root, size)
    return {point: [step.number for step in made if step.point == point] for point in POINTS}


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="assent-faults-") as folder:
        yield Path(folder)


@cache
def scenes() -> dict[tuple[int, str], Scene]:
    """The disk at every moment of a life that nothing happens to."""
    wanted = {(number, moment) for numbers in steps().values() for number in numbers for moment in MOMENTS}
    with small_chunks(), workplace() as root:
        _, found = record_life(root, wanted)
    return {(scene.step.number, scene.moment): scene for scene in found}


def run_row(point: str, effort: Effort) -> Row:
    row = Row(point)
    with small_chunks(), workplace() as root:
        for fault in FAULTS:
            _run_faults(row, fault, root, effort)
        for column in DAMAGES:
            _run_damages(row, column, root, effort)
    return row


def run_node_row(point: str, effort: Effort, faults: Iterable[str], *, size: int = 1) -> Row:
    """The same with a whole node and its clients; with three nodes, one of them meets the fault."""
    row = Row(point)
    with small_chunks(), workplace() as root:
        for fault in faults:
            column = f"{NODE}{fault}"
            row.cells[column] = Counter()
            rng = Random(f"{point} {fault} {size} {effort.seed}")
            numbers = steps_of_node(size)[point]
            for number in rng.sample(numbers, len(numbers)):
                stop = Stop(number, rng.choice(MOMENTS), point)
                _count(row, column, stop, partial(_node_word, fault, root, stop, rng, size))
                if row.struck(column) >= effort.picks:
                    break
    return row


def _node_word(fault: str, root: Path, stop: Stop, rng: Random, size: int) -> str:
    word = run_node(fault, root, stop, rng, size=size)
    if word not in (*WORDS[fault], NOT_REACHED):
        raise Wrong(f"{word}, and not {WORDS[fault]}")
    return word


def run_quietly(task: tuple[str, Effort]) -> Row:
    """For a process of a pool. Each refusal is an error in the log, and wanted here."""
    logging.disable(logging.CRITICAL)
    point, effort = task
    row = run_row(point, effort)
    for size, picks in ((1, effort.picks), (3, 1 + effort.picks // 8)):
        nodes = run_node_row(point, Effort(picks, effort.seed), NODE_FAULTS, size=size)
        row.broken += nodes.broken
        for column, words in nodes.cells.items():
            row.cells[column] = row.cells.get(column, Counter()) + words
    return row


def _run_faults(row: Row, fault: Fault, root: Path, effort: Effort) -> None:
    row.cells[fault.name] = Counter()
    for stop in effort.stops(row.point, fault.name):
        _count(row, fault.name, stop, partial(run_fault, fault, root, stop, effort.seed))
        if row.struck(fault.name) >= effort.picks:
            return


def _run_damages(row: Row, column: Column, root: Path, effort: Effort) -> None:
    row.cells[column.name] = Counter()
    for stop in effort.stops(row.point, column.name):
        scene = scenes().get(stop[:2])
        if scene is None:  # a list is read before and after it is made, and that is the same
            continue
        _count(row, column.name, stop, partial(run_damage, column, root, scene, effort.seed))
        if row.struck(column.name) >= effort.picks:
            return


def _count(row: Row, column: str, stop: Stop, run: Callable[[], str]) -> None:
    try:
        row.cells[column][run()] += 1
    except Exception as error:
        row.cells[column][BROKEN] += 1
        row.broken.append(f"{column}, {stop}: {type(error).__name__}: {error}")


def promised() -> dict[str, Row]:
    """What is promised for every cell, derived at every moment of a life, without running anything."""
    at_node = steps_of_node(1)
    rows = merge([])
    for scene in scenes().values():
        for column in DAMAGES:
            hurt = harm(column, scene, 1)
            if hurt is not None:
                rows[scene.step.point].cells[column.name] += Counter(hurt.promise.split(" or "))
    for point, row in rows.items():
        for fault in FAULTS:
            row.cells[fault.name] += Counter(fault.words)
            if at_node[point] and fault.name in NODE_FAULTS:
                row.cells[f"{NODE}{fault.name}"] += Counter(fault.words)
    return rows


def idle_cells(rows: Iterable[Row], promises: dict[tuple[str, str], str]) -> list[str]:
    """Cells of these rows that have a promise, and in which nothing has struck."""
    struck: Counter[tuple[str, str]] = Counter()
    for row in rows:
        for column in row.cells:
            struck[row.point, column] += row.struck(column)
    return sorted(
        ", ".join(cell) for cell, runs in struck.items() if not runs and promises[cell] != words_of(Counter())
    )


def merge(rows: Iterable[Row]) -> dict[str, Row]:
    """One row for each point."""
    merged = {point: Row(point, {column: Counter() for column in COLUMNS + NODE_COLUMNS}) for point in POINTS}
    for row in rows:
        target = merged[row.point]
        target.broken += row.broken
        for column, words in row.cells.items():
            target.cells[column] += words
    return merged


def words_of(words: Counter[str], *, counted: bool = False) -> str:
    """What stands in a cell: the words that came, and how often, or that there are none."""
    found = sorted(word for word in words if not word.startswith(NONE))
    return ", ".join(f"{word} {words[word]}" if counted else word for word in found) or "–"


def table(rows: dict[str, Row], columns: list[str], *, counted: bool = False) -> str:
    """In markdown."""
    names = [column.removeprefix(NODE) for column in columns]
    lines = ["| point | " + " | ".join(names) + " |", "|---" * (len(columns) + 1) + "|"]
    for point, row in rows.items():
        cells = " | ".join(words_of(row.cells[column], counted=counted) for column in columns)
        lines.append(f"| {point} | {cells} |")
    return "\n".join(lines)
