"""The checker is checked: good histories pass, changed ones do not, and on small ones it agrees with a search
through all orders."""

from __future__ import annotations

import math
from itertools import permutations
from random import Random

import pytest

from tests.simulator.linearizability import (
    Delete,
    Get,
    If,
    Operation,
    Put,
    Toggle,
    Verdict,
    check,
    register_step,
)


def verdict(*operations: Operation) -> Verdict:
    return check(operations, register_step, None)


def test_a_read_may_see_either_side_of_a_write_that_it_overlaps() -> None:
    write = Operation(0, 10, Put(b"a"))
    assert verdict(write, Operation(1, 2, Get(None))) is Verdict.LINEARIZABLE
    assert verdict(write, Operation(1, 2, Get(b"a"))) is Verdict.LINEARIZABLE


def test_a_read_behind_a_write_sees_it() -> None:
    write = Operation(0, 1, Put(b"a"))
    assert verdict(write, Operation(2, 3, Get(b"a"))) is Verdict.LINEARIZABLE
    assert verdict(write, Operation(2, 3, Get(None))) is Verdict.NOT_LINEARIZABLE


def test_two_readers_must_not_see_a_write_come_and_go() -> None:
    write = Operation(0, 10, Put(b"a"))
    seen, then_not = Operation(1, 2, Get(b"a")), Operation(3, 4, Get(None))
    assert verdict(write, seen, then_not) is Verdict.NOT_LINEARIZABLE


def test_a_write_without_an_answer_may_have_happened_or_not_or_later() -> None:
    lost = Operation(0, math.inf, Put(b"a"))
    assert verdict(lost, Operation(1, 2, Get(None)), Operation(3, 4, Get(b"a"))) is Verdict.LINEARIZABLE
    assert verdict(lost, Operation(1, 2, Get(None))) is Verdict.LINEARIZABLE
    assert verdict(lost, Operation(1, 2, Get(b"b"))) is Verdict.NOT_LINEARIZABLE


def test_a_delete_knows_whether_there_was_something() -> None:
    assert verdict(Operation(0, 1, Delete(False))) is Verdict.LINEARIZABLE
    assert verdict(Operation(0, 1, Delete(True))) is Verdict.NOT_LINEARIZABLE
    put = Operation(0, 1, Put(b"a"))
    assert verdict(put, Operation(2, 3, Delete(True)), Operation(4, 5, Get(None))) is Verdict.LINEARIZABLE
    assert verdict(put, Operation(2, 3, Delete(False))) is Verdict.NOT_LINEARIZABLE


def test_a_compare_and_swap_saw_what_it_was_compared_with() -> None:
    put, swap = Operation(0, 1, Put(b"a")), Operation(2, 3, If(b"a", True, Put(b"b")))
    seen = Operation(4, 5, Get(b"b"))
    assert verdict(put, swap, seen) is Verdict.LINEARIZABLE
    assert verdict(put, swap._replace(action=If(b"x", True, Put(b"b")))) is Verdict.NOT_LINEARIZABLE
    assert verdict(put, swap._replace(action=If(b"a", False, Get(b"a")))) is Verdict.NOT_LINEARIZABLE
    assert verdict(put, swap._replace(action=If(None, False, Get(b"a")))) is Verdict.LINEARIZABLE
    assert verdict(put, swap._replace(action=If(None, False, Get(None)))) is Verdict.NOT_LINEARIZABLE


def test_of_two_swaps_at_once_from_the_same_value_one_fails() -> None:
    both = [Operation(0, 10, If(None, True, Put(value))) for value in (b"a", b"b")]
    assert verdict(*both) is Verdict.NOT_LINEARIZABLE
    assert verdict(both[0], both[1]._replace(action=If(None, False, Get(b"a")))) is Verdict.LINEARIZABLE


def test_a_toggle_puts_what_is_not_there_and_removes_what_is() -> None:
    first, second = Operation(0, 1, Toggle(b"a", False)), Operation(2, 3, Toggle(b"b", True))
    assert verdict(first, second, Operation(4, 5, Get(None))) is Verdict.LINEARIZABLE
    assert verdict(first, second, Operation(4, 5, Get(b"b"))) is Verdict.NOT_LINEARIZABLE
    assert verdict(first, second._replace(action=Toggle(b"b", False))) is Verdict.NOT_LINEARIZABLE
    unknown = second._replace(action=Toggle(b"b", None), returned=math.inf)
    for seen in (None, b"a"):
        assert verdict(first, unknown, Operation(4, 5, Get(seen))) is Verdict.LINEARIZABLE


def test_the_work_is_bounded() -> None:
    overlapping = [Operation(0, 100, Put(b"%d" % number)) for number in range(14)]
    impossible = Operation(0, 100, Get(b"never"))
    assert check([*overlapping, impossible], register_step, None, most_steps=1000) is Verdict.UNDECIDED


def generated(rng: Random, clients: int, count: int) -> list[Operation]:
    """A history of a real register: each operation has its effect at a moment between call and return."""
    state: bytes | None = None
    busy_until = [0.0] * clients
    effects: list[tuple[float, float, float, int]] = []  # effect, call, return, what
    for number in range(count):
        client = rng.randrange(clients)
        called = busy_until[client] + rng.random()
        returned = called + rng.random() * 3
        busy_until[client] = returned
        effects.append((rng.uniform(called, returned), called, returned, number))
    operations = []
    for _, called, returned, number in sorted(effects):
        draw = rng.random()
        if draw < 0.4:
            state = b"%d" % number
            operations.append(Operation(called, returned, Put(state)))
        elif draw < 0.5:
            operations.append(Operation(called, returned, Delete(state is not None)))
            state = None
        else:
            operations.append(Operation(called, returned, Get(state)))
    rng.shuffle(operations)
    return operations


@pytest.mark.parametrize("seed", range(20))
def test_histories_of_a_real_register_pass(seed: int) -> None:
    rng = Random(seed)
    operations = generated(rng, clients=rng.randint(1, 6), count=150)
    assert check(operations, register_step, None) is Verdict.LINEARIZABLE


def by_all_orders(operations: list[Operation]) -> bool:
    """The definition itself: is there an order that respects real time and the register?"""
    for order in permutations(operations):
        if any(
            order[late].returned < order[early].called for late in range(len(order)) for early in range(late)
        ):
            continue
        state: bytes | None = None
        for operation in order:
            agrees, state = register_step(state, operation.action)
            if not agrees:
                break
        else:
            return True
    return False


def changed(rng: Random, operations: list[Operation]) -> list[Operation]:
    """Somebody saw something else."""
    at = rng.randrange(len(operations))
    values = [each.action.value for each in operations if isinstance(each.action, Put)]
    other = operations.copy()
    other[at] = other[at]._replace(action=Get(rng.choice([None, *values])))
    return other


def test_it_agrees_with_the_definition_on_small_histories() -> None:
    rng = Random(5)
    verdicts = {True: 0, False: 0}
    for _ in range(300):
        operations = generated(rng, clients=3, count=rng.randint(1, 6))
        if rng.random() < 0.7:
            operations = changed(rng, operations)
        expected = by_all_orders(operations)
        verdicts[expected] += 1
        found = check(operations, register_step, None)
        assert found is (Verdict.LINEARIZABLE if expected else Verdict.NOT_LINEARIZABLE), operations
    assert min(verdicts.values()) > 30, verdicts


def test_a_dropped_write_or_two_swapped_reads_are_found_in_long_histories() -> None:
    """Not every change makes a history wrong; but one that nobody overlaps does."""
    rng = Random(9)
    for _ in range(20):
        operations = generated(rng, clients=4, count=60)
        end = max(each.returned for each in operations)
        tail = [
            Operation(end + 1, end + 2, Put(b"x")),
            Operation(end + 3, end + 4, Get(b"x")),
            Operation(end + 5, end + 6, Put(b"y")),
            Operation(end + 7, end + 8, Get(b"y")),
        ]
        assert verdict(*operations, *tail) is Verdict.LINEARIZABLE
        assert verdict(*operations, *tail[1:]) is Verdict.NOT_LINEARIZABLE
        swapped = [tail[0], tail[1]._replace(action=Get(b"y")), tail[2], tail[3]._replace(action=Get(b"x"))]
        assert verdict(*operations, *swapped) is Verdict.NOT_LINEARIZABLE
