"""Is a history linearizable? Decided without looking at revisions, from calls, returns and values alone.

The algorithm of Wing and Gong with Lowe's memory: take the calls in some order that respects real time, one
by one, as long as the model agrees; go back where it does not; never visit the same set of operations with
the same state twice. Knows nothing of stores: what an operation means is told by a function. Exponential
in how many operations overlap, so it is asked about one key and a few hundred operations at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from typing import Any, NamedTuple

State = Any  # hashable


class Verdict(Enum):
    LINEARIZABLE = "linearizable"
    NOT_LINEARIZABLE = "not linearizable"
    UNDECIDED = "undecided"  # the budget was used up


class Operation(NamedTuple):
    """One call as its client saw it. It may be left out if it never returned (`returned` is infinite)."""

    called: float
    returned: float
    action: Any  # what `step` is given


Step = Callable[[State, Any], tuple[bool, State]]
"""(may this action have happened in this state?, the state behind it)."""


class _Node:
    """A call or a return in a doubly linked list, in order of time."""

    __slots__ = ("after", "before", "match", "number")

    def __init__(self, number: int, match: _Node | None) -> None:
        self.number = number
        self.match = match  # of a call: its return; of a return: None
        self.before: _Node | None = None
        self.after: _Node | None = None


def check(
    operations: Sequence[Operation], step: Step, initial: Hashable, most_steps: int = 1_000_000
) -> Verdict:
    """`most_steps` bounds the work: a bad history with much overlap may need more than anybody waits for."""
    head = _linked(operations)
    optional = sum(1 << number for number, each in enumerate(operations) if math.isinf(each.returned))
    everything = (1 << len(operations)) - 1
    state: State = initial
    done = 0  # the operations that are linearized, as bits
    seen: set[tuple[int, State]] = set()
    path: list[tuple[_Node, State]] = []
    entry = head.after
    while done | optional != everything:
        most_steps -= 1
        if most_steps < 0:
            return Verdict.UNDECIDED
        if entry is not None and entry.match is not None:
            agrees, then = step(state, operations[entry.number].action)
            marked = done | 1 << entry.number
            if agrees and (marked, then) not in seen:
                seen.add((marked, then))
                path.append((entry, state))
                state, done = then, marked
                _lift(entry)
                entry = head.after
            else:
                entry = entry.after
            continue
        # A return whose call is not linearized yet, or the end: some choice before was wrong.
        if not path:
            return Verdict.NOT_LINEARIZABLE
        last, state = path.pop()
        done &= ~(1 << last.number)
        _unlift(last)
        entry = last.after
    return Verdict.LINEARIZABLE


def _linked(operations: Sequence[Operation]) -> _Node:
    """All calls and returns in order of time; of one moment, calls first: then they overlap."""
    events: list[tuple[float, int, int, _Node]] = []
    for number, operation in enumerate(operations):
        end = _Node(number, None)
        events.append((operation.called, 0, number, _Node(number, end)))
        events.append((operation.returned, 1, number, end))
    head = last = _Node(-1, None)
    for _, _, _, node in sorted(events, key=lambda event: event[:3]):
        last.after, node.before = node, last
        last = node
    return head


def _lift(call: _Node) -> None:
    end = call.match
    assert end is not None and call.before is not None and end.before is not None
    for node in (call, end):
        before, after = node.before, node.after
        assert before is not None
        before.after = after
        if after is not None:
            after.before = before


def _unlift(call: _Node) -> None:
    end = call.match
    assert end is not None
    for node in (end, call):
        assert node.before is not None
        node.before.after = node
        if node.after is not None:
            node.after.before = node


# -- what operations on one key mean ---------------------------------------------------------------------


class Put(NamedTuple):
    value: bytes


class Delete(NamedTuple):
    existed: bool | None  # None: the answer is not known


class Get(NamedTuple):
    value: bytes | None


class Toggle(NamedTuple):
    """Removes what is there; puts the value where nothing is."""

    value: bytes
    existed: bool | None  # None: the answer is not known


class If(NamedTuple):
    """A comparison and what it led to, at one moment."""

    expected: bytes | None
    held: bool
    then: Put | Get


Action = Put | Delete | Get | Toggle | If


def register_step(state: bytes | None, action: Action) -> tuple[bool, bytes | None]:
    """One key as a register that may be empty."""
    if isinstance(action, If):
        if (state == action.expected) != action.held:
            return False, state
        action = action.then
    if isinstance(action, Toggle):
        return action.existed in (None, state is not None), action.value if state is None else None
    if isinstance(action, Put):
        return True, action.value
    if isinstance(action, Get):
        return action.value == state, state
    return action.existed in (None, state is not None), None
