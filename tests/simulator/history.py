"""What the clients saw, and whether a linearizable store could have shown it to them.

Two checks that share nothing but the history. The first takes the revisions that the store named for the
truth, orders by them, and asks whether that order respects real time and whether every value is that of its
revision. The second ignores revisions altogether, so that a wrong revision cannot hide a wrong value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.kvstore.plain_transaction import is_in
from tests.simulator.linearizability import (
    Action,
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
from tests.simulator.model import Record, StoreModel
from tests.simulator.tracing import Violation

LONGEST_PER_KEY = 500  # operations that the second check takes at once
MOST_STEPS = 200_000  # of the second check, for one key


@dataclass(slots=True)
class Seen:
    """One operation of one client. Never returned, as long as `returned` is infinite."""

    client: str
    # "put", "delete", "get" or "past" of one key; of a range "clear", "list", "children", "read txn", "txn".
    kind: str
    key: bytes
    called: float
    value: bytes = b""  # of what puts; no two have the same for one key
    returned: float = math.inf
    revision: int = 0  # that the answer named
    records: list[Record] = field(default_factory=list)  # that it found, or removed; of a "txn": left behind
    deleted: int = 0
    past: int = 0  # of a "past": the revision that it asked for; of a "compact": what may be forgotten
    range_end: bytes = b""
    # Of a "txn": if `compared` has the value that is expected, it is put, `toggled` is removed if it is there
    # and else put; then, and if not, the range is read. Of a "read txn": a key that is read, too.
    compared: bytes = b""
    expected: bytes | None = None  # the value; None: that it is not there
    toggled: bytes = b""
    succeeded: bool = False
    existed: bool | None = None  # what was to be toggled

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
        return each.kind == "put" or each.deleted > 0 or each.succeeded

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
        elif each.kind == "children":
            children = _children(each.key, [record[0] for record in model.contents(each.revision)])
            if each.records != children:
                raise Violation(f"{each} does not show the children of its revision: {children}")
        else:
            self._check_range(each, model)

    @staticmethod
    def _check_range(each: Seen, model: StoreModel) -> None:
        """All that it found is of one revision: a transaction's own, or the one before what it cleared."""
        revision = each.past or each.revision - bool(each.deleted)
        found = [record for record in model.contents(revision) if _concerns(each, record[0])]
        if each.records != found:
            raise Violation(f"{each} does not show what there was at its revision: {found}")
        if each.kind != "txn":
            return
        was = {record[0]: record[1] for record in model.contents(each.revision - each.succeeded)}
        if (was.get(each.compared) == each.expected) != each.succeeded:
            raise Violation(f"{each} compares with what was not there: {was}")
        if not each.succeeded:
            return
        written = [record for record in found if record[1] == each.value and record[3] == each.revision]
        puts = {each.compared} if each.existed else {each.compared, each.toggled} - {b""}
        if {record[0] for record in written} != puts or each.existed not in (None, each.toggled in was):
            raise Violation(f"{each} did something else: {found}, before that {was}")

    # -- by values -------------------------------------------------------------------------------------

    def check_values(self, written: set[bytes]) -> None:
        """`written` settles what became of puts without an answer: those that never came to be are left out,
        since each one left open doubles the work."""
        keys = sorted({each.compared or each.key for each in self.operations if _is_of_one_key(each)})
        for key in keys:
            operations = [
                Operation(each.called, each.returned, action)
                for each in self.operations
                if _concerns(each, key)
                and (each.is_done or not each.value or each.value in written)
                and (action := _action(each, key)) is not None
            ]
            for part, initial in _parts(operations):
                verdict = check(part, register_step, initial, MOST_STEPS)
                if verdict is Verdict.NOT_LINEARIZABLE:
                    raise Violation(f"the history of {key!r} is not linearizable ({len(part)} operations)")
                self.undecided += verdict is Verdict.UNDECIDED


def _children(prefix: bytes, keys: list[bytes]) -> list[Record]:
    """[name, has a value, has children] of all names right behind the prefix."""
    rests = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
    names = sorted({rest.partition(b"/")[0] for rest in rests} - {b""})
    return [[name, name in rests, any(rest.startswith(name + b"/") for rest in rests)] for name in names]


def _is_of_one_key(each: Seen) -> bool:
    return bool(each.compared) or not each.range_end


def _concerns(each: Seen, key: bytes) -> bool:
    return is_in(key, each.key, each.range_end)


def _action(each: Seen, key: bytes) -> Action | None:
    """What the operation says about one key; None if nothing."""
    values = [record[1] for record in each.records if record[0] == key]
    if each.kind == "put":
        return Put(each.value)
    if each.kind == "delete":
        return Delete(each.deleted > 0 if each.is_done else None)
    if each.kind == "clear":
        return Delete(bool(values) if each.is_done else None)
    is_written = each.succeeded or not each.is_done  # without an answer only what was written is asked about
    if each.kind == "txn" and key == each.compared:
        then = Put(each.value) if is_written else Get(values[0] if values else None)
        return If(each.expected, is_written, then)
    if each.kind == "txn" and key == each.toggled and is_written:
        return Toggle(each.value, each.existed)
    if not each.is_done or each.kind in ("past", "children"):
        return None
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
