"""The checks of a whole history: they pass what a run really showed, and find whatever is changed in it."""

from __future__ import annotations

import copy
import functools

import pytest

from tests.simulator.history import History, Seen
from tests.simulator.model import StoreModel
from tests.simulator.run import Simulation
from tests.simulator.tracing import Violation

SEED, SECONDS = 11, 4.0


@functools.cache
def shown() -> tuple[History, StoreModel]:
    simulation = Simulation(SEED, SECONDS, shape="transacting")
    simulation.run()
    return simulation.workload.history, simulation.oracles.model


def fresh() -> tuple[History, StoreModel]:
    history, model = shown()
    return copy.deepcopy(history), model


def done(history: History, kind: str) -> list[Seen]:
    found = [each for each in history.operations if each.is_done and each.kind == kind]
    assert len(found) > 3, f"the run shows only {len(found)} of {kind}"
    return found


def test_what_a_run_showed_passes() -> None:
    history, model = fresh()
    history.check(model)
    assert len(history.operations) > 100
    assert not history.undecided


def test_a_read_that_shows_another_record_of_its_key_is_found() -> None:
    history, model = fresh()
    reads = [each for each in done(history, "get") if each.records]
    first = reads[0]
    other = next(each for each in reads if each.key == first.key and each.records != first.records)
    other.records = first.records
    with pytest.raises(Violation, match="does not show"):
        history.check_revisions(model)


def test_a_write_that_is_not_in_the_log_is_found() -> None:
    history, model = fresh()
    done(history, "put")[-1].value = b"never written"
    with pytest.raises(Violation, match="was acknowledged"):
        history.check_revisions(model)


def test_an_older_revision_than_was_known_before_the_call_is_found() -> None:
    """A stale read: content and revision agree, and yet somebody had been told of a later revision before."""
    history, model = fresh()
    early, late = done(history, "get")[0], done(history, "get")[-1]
    key, late.key, late.revision = late.key, early.key, early.revision
    late.records = early.records
    assert key is not None
    with pytest.raises(Violation, match="is ordered before it"):
        history.check_revisions(model)


def test_a_revision_that_was_never_reached_is_found() -> None:
    history, model = fresh()
    done(history, "list")[-1].revision = model.revision + 1
    with pytest.raises(Violation):
        history.check_revisions(model)


def test_a_delete_that_says_it_found_nothing_is_found() -> None:
    history, model = fresh()
    deletes = [each for each in done(history, "delete") if each.deleted]
    deletes[0].deleted = 0
    with pytest.raises(Violation):
        history.check(model)


def test_a_stale_value_with_a_false_revision_is_found_without_revisions() -> None:
    """The second check does not believe in revisions, so a false one does not help."""
    history, model = fresh()
    first = next(each for each in done(history, "put"))
    reads = [each for each in done(history, "get") if each.key == first.key and each.records]
    assert reads[-1].records[0][1] != first.value
    assert reads[-1].called > first.returned
    reads[-1].records = [[first.key, first.value, 0, 0, 0, 0]]
    written = {record[1] for _, _, record in model.changes if record is not None}
    with pytest.raises(Violation, match="not linearizable"):
        history.check_values(written)


def swaps(history: History, *, succeeded: bool) -> list[Seen]:
    return [each for each in done(history, "txn") if each.succeeded is succeeded]


def check_fails(history: History, model: StoreModel, match: str) -> None:
    with pytest.raises(Violation, match=match):
        history.check_revisions(model)


def test_a_swap_that_says_it_was_refused_is_found() -> None:
    """By the values: they are read, and nobody has put them."""
    history, model = fresh()
    swaps(history, succeeded=True)[0].succeeded = False
    with pytest.raises(Violation, match="not linearizable"):
        history.check(model)


def test_a_swap_that_compared_with_another_value_is_found() -> None:
    history, model = fresh()
    swaps(history, succeeded=True)[0].expected = b"something else"
    check_fails(history, model, "compares with what was not there")


def test_a_swap_whose_nested_part_went_the_other_way_is_found() -> None:
    history, model = fresh()
    swap = next(each for each in swaps(history, succeeded=True) if each.toggled)
    swap.existed = not swap.existed
    check_fails(history, model, "did something else")


@pytest.mark.parametrize("kind", ["txn", "read txn", "list", "clear"])
def test_a_range_that_lacks_a_key_is_found(kind: str) -> None:
    history, model = fresh()
    found = [each for each in history.operations if each.is_done and each.kind == kind and each.records]
    del found[0].records[-1]
    check_fails(history, model, "does not show what there was")


def test_children_that_are_none_are_found() -> None:
    history, model = fresh()
    found = [each for each in history.operations if each.is_done and each.kind == "children"]
    found[0].records.append([b"x", True, False])
    check_fails(history, model, "children of its revision")


@pytest.mark.parametrize("succeeded", [True, False])
def test_a_swap_that_cannot_have_been_is_found_without_revisions(succeeded: bool) -> None:
    history, model = fresh()
    swap = swaps(history, succeeded=succeeded)[0]
    # What was never written was not there; what was expected, and is not there, is said to have been.
    swap.expected = b"never written" if succeeded else _value_at(model, swap)
    written = {record[1] for _, _, record in model.changes if record is not None}
    with pytest.raises(Violation, match="not linearizable"):
        history.check_values(written)


def _value_at(model: StoreModel, swap: Seen) -> bytes | None:
    record = model.at(swap.compared, swap.revision)
    return None if record is None else bytes(record[1])
