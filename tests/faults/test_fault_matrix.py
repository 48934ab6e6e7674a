"""The fault matrix, in a bounded form: each promised cell once. `make faults` runs many more of each."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults import page
from tests.faults.matrix import (
    COLUMNS,
    NODE_COLUMNS,
    Effort,
    Row,
    idle_cells,
    promised,
    run_node_row,
    run_row,
    steps,
    steps_of_node,
    words_of,
)
from tests.faults.nodes import NODE_FAULTS
from tests.faults.points import POINTS

BOUNDED = Effort(picks=1)


@pytest.mark.parametrize("point", POINTS)
def test_every_fault_at_every_point_ends_as_promised(point: str) -> None:
    check(run_row(point, BOUNDED))


@pytest.mark.parametrize("point", POINTS)
def test_a_node_that_serves_clients_meets_faults_at_every_point(point: str) -> None:
    check(run_node_row(point, BOUNDED, NODE_FAULTS))


@pytest.mark.parametrize(
    ("point", "fault"),
    [
        ("write entries", "torn write"),
        ("sync entries", "EIO on the call"),
        ("segment switch: rename", "unsynced data lost"),
        ("snapshot: sync draft", "EIO on the call"),
        ("compaction: unlink segment", "crash"),
        ("snapshot: write mark", "torn write"),
        ("segment switch: fill next", "ENOSPC"),
        ("start: sync segment", "disk full"),
    ],
)
def test_two_of_three_serve_on_and_the_third_comes_back_with_everything(point: str, fault: str) -> None:
    check(run_node_row(point, BOUNDED, [fault], size=3))


def check(row: Row) -> None:
    """No promise is broken, the page says so, and of each cell of the row that has one something was run."""
    assert row.broken == []
    assert idle_cells([row], page.cells()) == []
    cells = page.cells()
    for column, words in row.cells.items():
        cell = cells[row.point, column]
        for word in (word for word in words if not word.startswith("n/a")):
            # What may be cut off may be there as well, if nobody was told of it or a snapshot has it.
            assert word in cell or (word, cell) == ("whole", "cut"), (column, word)


def test_a_promised_cell_that_nothing_was_run_of_is_found() -> None:
    """`make faults` ends with 1 then, too."""
    found = Row("write entries", {"crash": Counter(["n/a: no such call follows"]), "torn write": Counter()})
    other = Row(
        "write entries", {"crash": Counter(["whole"]), "flip: mark": Counter(["n/a: no such record"])}
    )
    assert idle_cells([found], page.cells()) == ["write entries, crash", "write entries, torn write"]
    assert idle_cells([found, other], page.cells()) == [
        "write entries, flip: mark",
        "write entries, torn write",
    ]
    nothing = Row("first start: write segment", {"flip: mark": Counter(["n/a: no such record"])})
    assert idle_cells([nothing], page.cells()) == [], "the page promises nothing there"


def test_the_script_passes_every_point() -> None:
    assert [point for point, numbers in steps().items() if not numbers] == []
    passed = [point for point, numbers in steps_of_node(1).items() if numbers]
    assert len(passed) > 30 and "compaction: unlink snapshot" in passed


def test_the_page_has_every_promise_and_no_other() -> None:
    """`python -m tests.faults --write` puts them there."""
    assert set(page.cells()) == {(point, column) for point in POINTS for column in COLUMNS + NODE_COLUMNS}
    assert page.read() == page.tables(promised())


def test_a_cell_says_what_came_of_it() -> None:
    assert words_of(Counter({"whole": 2, "n/a: no such file": 1, "cut": 1})) == "cut, whole"
    assert words_of(Counter(["cut", "cut", "n/a: no such file"]), counted=True) == "cut 2"
    assert words_of(Counter(["n/a: no such file"])) == "–"
