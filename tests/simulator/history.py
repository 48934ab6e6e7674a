"""What the clients saw, and whether a linearizable store could have shown it to them.

Two checks that share nothing but the history. The first takes the revisions that the store named for the
truth, orders by them, and asks whether that order respects real time and whether every value is that of its
revision. The second ignores revisions altogether, so that a wrong revision cannot hide a wrong value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.simulator.linearizability import Delete, Get, Operation, Put, Verdict, check, register_step
from tests.simulator.model import Record, StoreModel
from tests.simulator.tracing import Violation

LONGEST_PER_KEY = 500  # operations that the second check takes at once
MOST_STEPS = 200_000  # of the second check, for one key


@dataclass(slots=True)
class Seen:
    """One operation of one client. Never returned, as long as `returned` is infinite."""

    client: str
    kind: str  # "put", "delete", "get", "list" or "past"
    key: bytes  # of a list: its prefix
    called: float
    value: bytes = b""  # of a put; no two puts have the same
    returned: float = math.inf
    revision: int = 0  # that the answer named
    records: list[Record] = field(default_factory=list)  # that a read found
    deleted: int = 0
    past: int = 0  # of a "past": the revision that it asked for

    @property
    def is_write(self) -> bool:
        return self.kind in ("put", "delete")

    @property
    def is_done(self) -> bool:
        return not math.isinf(self.returned)


class History:
    """Owned by one simulation; its clients add to it in order of their calls."""

    def __init__(self) -> None:
        self.operations: list[Seen] = []
        self.undecided = 0  # keys whose history the second check could not decide

    def add(self, operation: Seen) -> Seen:
        self.operations.append(operation)
        return operation

    def check(self, model: StoreModel) -> None:
        self.check_revisions(model)
        self.check_values(written={record[1] for _, _, record in model.changes if record is not None})

    # -- by revisions ----------------------------------------------------------------------------------

    def check_revisions(self, model: StoreModel) -> None:
        done = [each for each in self.operations if each.is_done]
        # A write has a revision of its own, unless it found nothing to delete; reads of it come behind it.
        done.sort(key=lambda each: (each.revision, not self._changes(each), each.called))
        latest_call = -math.inf
        for each in done:
            if each.returned < latest_call:
                raise Violation(f"{each} came back before an operation was called that is ordered before it")
            latest_call = max(latest_call, each.called)
            self._check_content(each, model)
        revisions = [each.revision for each in done if self._changes(each)]
        if len(set(revisions)) != len(revisions):
            raise Violation("two writes were told the same revision")

    @staticmethod
    def _changes(each: Seen) -> bool:
        return each.kind == "put" or (each.kind == "delete" and each.deleted > 0)

    def _check_content(self, each: Seen, model: StoreModel) -> None:
        if each.revision > model.revision:
            raise Violation(f"{each} names a revision that was never reached")
        if each.kind == "put":
            record = model.at(each.key, each.revision)
            if record is None or (record[1], record[3]) != (each.value, each.revision):
                raise Violation(f"{each} was acknowledged; the log has {record} there")
        elif each.kind == "delete":
            before = model.at(each.key, each.revision - (1 if each.deleted else 0))
            if (before is not None) != bool(each.deleted):
                raise Violation(f"{each} deleted {each.deleted}; there was {before}")
        else:
            found = [
                model.at(key, each.past or each.revision)
                for key in sorted(model.keys)
                if _concerns(each, key)
            ]
            if each.records != [record for record in found if record is not None]:
                raise Violation(f"{each} does not show what there was at its revision: {found}")

    # -- by values -------------------------------------------------------------------------------------

    def check_values(self, written: set[bytes]) -> None:
        """`written` settles what became of puts without an answer: those that never came to be are left out,
        since each one left open doubles the work."""
        keys = sorted({each.key for each in self.operations if each.kind != "list"})
        for key in keys:
            operations = [
                Operation(each.called, each.returned, action)
                for each in self.operations
                if _concerns(each, key)
                and (each.is_done or each.kind != "put" or each.value in written)
                and (action := _action(each, key)) is not None
            ]
            for part, initial in _parts(operations):
                verdict = check(part, register_step, initial, MOST_STEPS)
                if verdict is Verdict.NOT_LINEARIZABLE:
                    raise Violation(f"the history of {key!r} is not linearizable ({len(part)} operations)")
                self.undecided += verdict is Verdict.UNDECIDED


def _concerns(each: Seen, key: bytes) -> bool:
    return key.startswith(each.key) if each.kind == "list" else each.key == key


def _action(each: Seen, key: bytes) -> Put | Delete | Get | None:
    """What the operation says about one key; None if nothing."""
    if each.kind == "put":
        return Put(each.value)
    if each.kind == "delete":
        return Delete(each.deleted > 0 if each.is_done else None)
    if not each.is_done or each.kind == "past":
        return None
    values = [record[1] for record in each.records if record[0] == key]
    return Get(values[0] if values else None)


def _parts(operations: list[Operation]) -> list[tuple[list[Operation], bytes | None]]:
    """Cut a long history at moments when nothing was under way and the value is certain: after a put that
    overlapped with nothing. Each part has the value with which it begins."""
    ordered = sorted(operations, key=lambda each: each.called)
    parts: list[tuple[list[Operation], bytes | None]] = []
    part: list[Operation] = []
    initial: bytes | None = None
    latest_return = -math.inf
    for position, each in enumerate(ordered):
        alone_before = latest_return < each.called
        part.append(each)
        latest_return = max(latest_return, each.returned)
        following = ordered[position + 1].called if position + 1 < len(ordered) else math.inf
        if (
            len(part) >= LONGEST_PER_KEY // 5
            and alone_before
            and latest_return < following
            and isinstance(each.action, Put)
        ):
            parts.append((part, initial))
            part, initial = [], each.action.value
    parts.append((part, initial))
    return parts
