"""The blocking face of the client, for any number of threads.

May know: the engine, threads and the clock. Rules: no thread of its own moves the bytes. A caller that waits
drives the sockets itself, so that a lone caller's answer passes through no other thread; when several wait,
one of them drives for all and hands over when its own answer is there. The lock guards the engine and is not
held while waiting. Only listeners, who want to hear of states while nobody calls, cost a background thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from kvstore import errors
from kvstore.client import calls
from kvstore.client.blocking_watch import BlockingClusterWatch, BlockingWatch
from kvstore.client.calls import Call
from kvstore.client.client_log import client_log
from kvstore.client.cluster import BlockingCluster
from kvstore.client.core import DEFAULT_MAX_OUTSTANDING
from kvstore.client.driver import LONGEST_SLEEP_SECONDS, Driver, Waiter
from kvstore.client.engine import Engine
from kvstore.client.leases import BlockingLeases
from kvstore.client.paging import Pager
from kvstore.client.paths import PathRequests, WatchRequests
from kvstore.client.requests import KeyRequests, NodeRequests
from kvstore.client.results import (
    ChildrenResult,
    CompactResult,
    DeleteResult,
    KeyValue,
    NodeStatus,
    PutResult,
    RangeResult,
    State,
    TreeDeleted,
)
from kvstore.client.trees import Steps
from kvstore.client.watch import Watch
from kvstore.protocol_admin import Membership

if TYPE_CHECKING:
    from kvstore.client.transactions import Txn, TxnResult

CLOSE_SECONDS: Final = 0.25
STATUS_ALL_SECONDS: Final = 1.0
HOUSEKEEPING_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 0.01  # since the sockets were last looked at
FRESH_SECONDS: Final = 0.001

StateListener = Callable[[State], None]


class Client(
    KeyRequests[PutResult, KeyValue | None, RangeResult, DeleteResult, CompactResult],
    PathRequests[ChildrenResult, Iterator[RangeResult], Iterator[KeyValue], TreeDeleted],
    WatchRequests[BlockingWatch],
    NodeRequests[NodeStatus, Membership],
    BlockingLeases,
):
    """A client of one cluster, for any number of threads of the process that made it.

    `endpoints` are client endpoints, one or more, as a sequence or separated by commas. Each method ends
    within `timeout_seconds`, with a result or with an error of kvstore.errors.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        timeout_seconds: float = 5.0,
        max_outstanding: int = DEFAULT_MAX_OUTSTANDING,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._engine = Engine(calls.endpoint_list(endpoints), max_outstanding=max_outstanding)
        self._driver = Driver(self._engine)
        self._driving: Waiter | None = None  # whose thread drives
        self._sleeping: deque[Waiter] = deque()  # whose threads wait for a driver to serve them
        self._process_id = os.getpid()
        self._listeners: list[StateListener] = []
        self._is_telling = False  # a thread is telling them of changes
        self._housekeeper: threading.Thread | None = None
        self._end_of_housekeeping = threading.Event()
        self._pumped_at = 0.0
        self._is_closed = False
        # Who takes part, and who leads; and all that they keep, as one file.
        self.cluster = BlockingCluster(self._ask, self._ask_node, self._engine.core.links.configured)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- operations ------------------------------------------------------------------------------------

    def txn(self) -> Txn[TxnResult]:
        """A transaction, to be built and then committed: compares, and what is done if all of them hold."""
        from kvstore.client.transactions import Txn  # takes long to load, and many need none

        return Txn(self._ask)

    def status_all(self, *, timeout_seconds: float = STATUS_ALL_SECONDS) -> dict[str, NodeStatus | None]:
        """By endpoint given; None where nobody answers."""
        endpoints = self._engine.core.links.configured
        asked = [
            self._begin(self._pinned(endpoint, calls.status_call()), timeout_seconds)
            for endpoint in endpoints
        ]
        found: dict[str, NodeStatus | None] = {}
        for endpoint, (call, waiter) in zip(endpoints, asked, strict=True):
            self._wait(waiter)
            found[endpoint] = calls.status_or_none(call.value if call.error is None else call.error)
        return found

    def watch_cluster(self, *, timeout_seconds: float | None = None) -> BlockingClusterWatch:
        """Follows who leads (leader_elected, leader_lost), who is a member (member_added, member_promoted,
        member_demoted, member_removed) and whom the leader hears (member_unhealthy, member_healthy).

        What happens while it is on its way to another node is missed; who leads is told again there.
        """
        watch = BlockingClusterWatch(self)
        watch._establish(self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        return watch

    # -- states ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._engine.core.state

    @property
    def counters(self) -> Counter[str]:
        """What happened to this client so far, for operators and tests."""
        with self._lock:
            return self._engine.core.counters.copy()

    def add_listener(self, listener: StateListener) -> None:
        """`listener` is called with each new state, by any thread, which it must not hold up."""
        with self._lock:
            self._check_usable()
            if not self._listeners:
                self._engine.take_state_changes()  # of the time before anybody listened
            self._listeners.append(listener)
            if self._housekeeper is None:
                name = "assent-client-housekeeper"
                self._housekeeper = threading.Thread(target=self._keep_house, name=name, daemon=True)
                self._housekeeper.start()

    def remove_listener(self, listener: StateListener) -> None:
        with self._lock:
            self._listeners.remove(listener)

    def _keep_house(self) -> None:
        """While nobody drives, this thread does, a little late."""
        while not self._end_of_housekeeping.wait(HOUSEKEEPING_SECONDS):
            with self._lock:
                if self._is_closed:
                    return
                if self._driving is None:
                    self._driver.heard(self._driver.sleep(0.0))
                    self._engine.pump(time.monotonic())
            self._tell_listeners()

    def _tell_listeners(self) -> None:
        """One thread at a time, which tells what comes meanwhile too: the last state told is the last one."""
        if not self._listeners or not self._engine.core.state_changes:
            return
        with self._lock:
            if self._is_telling:
                return
            self._is_telling = True
        while True:
            with self._lock:
                changes, listeners = self._engine.take_state_changes(), list(self._listeners)
                if not changes:
                    self._is_telling = False
                    return
            for state in changes:
                for listener in listeners:
                    try:
                        listener(state)
                    except Exception:
                        client_log().exception("event=listener_failed state=%s", state.value)

    # -- inner works -------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._is_closed or self._process_id != os.getpid():
            raise errors.ClientClosed

    def _ask(self, call: Call, timeout_seconds: float | None) -> Any:
        call, waiter = self._begin(call, timeout_seconds)
        self._wait(waiter)
        if call.error is not None:
            raise call.error
        return call.value

    def _ask_node(self, endpoint: str, call: Call, timeout_seconds: float | None) -> Any:
        return self._ask(self._pinned(endpoint, call), timeout_seconds)

    def _pinned(self, endpoint: str, call: Call) -> Call:
        with self._lock:
            call.pinned = self._engine.core.links.pin(endpoint)
        return call

    def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> Iterator[RangeResult]:
        while (call := pager.next_call()) is not None:
            page: RangeResult = self._ask(call, timeout_seconds)
            pager.took(page)
            yield page

    def _items_of(self, pager: Pager, timeout_seconds: float | None) -> Iterator[KeyValue]:
        return (item for page in self._pages_of(pager, timeout_seconds) for item in page.items)

    def _carry_out(self, steps: Steps, timeout_seconds: float | None) -> TreeDeleted:
        try:
            call = next(steps)
            while True:
                try:
                    result = self._ask(call, timeout_seconds)
                except errors.AssentError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            deleted: TreeDeleted = end.value
            return deleted

    def _follow(self, watch: Watch, timeout_seconds: float | None) -> BlockingWatch:
        following = BlockingWatch(self, watch)
        following._establish(self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        return following

    def _begin(self, call: Call, timeout_seconds: float | None) -> tuple[Call, Waiter]:
        waiter = Waiter()
        call.callback = _answered
        call.token = waiter
        with self._lock:
            self._check_usable()
            now = time.monotonic()
            call.deadline = now + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)
            if self._driving is None and now - self._pumped_at > IDLE_SECONDS:
                # A connection may have ended while nobody looked: better known before than after sending.
                self._driver.heard(self._driver.sleep(0.0))
                self._engine.pump(now)
            self._engine.submit(call, now)
            self._pump(now)
        return call, waiter

    def _pump(self, now: float) -> None:
        """Under the lock, by a thread that may not be the driving one."""
        self._engine.pump(now)
        self._pumped_at = now
        self._driver.alarm_if_needed()

    def _wait(self, waiter: Waiter, deadline: float = float("inf")) -> None:
        """Until `waiter` is ready or the deadline has passed. Drives the sockets unless another one does."""
        try:
            while not waiter.is_ready and time.monotonic() < deadline:
                with self._lock:
                    if waiter.is_ready:
                        break
                    may_drive = self._driving is None
                    if may_drive:
                        self._driving = waiter
                    else:
                        signal = waiter.signal = waiter.signal or threading.Lock()
                        signal.acquire(blocking=False)
                        self._sleeping.append(waiter)
                if may_drive:
                    self._drive(waiter, deadline)
                else:
                    self._sleep(waiter, signal, deadline)
        finally:
            with self._lock:
                # Whoever drove, or was woken to drive and then did not have to, leaves it to another.
                if self._driving is None and self._sleeping:
                    self._sleeping.popleft().wake()
            if self._listeners:
                self._tell_listeners()

    def _sleep(self, waiter: Waiter, signal: threading.Lock, deadline: float) -> None:
        left_seconds = deadline - time.monotonic()
        try:
            signal.acquire(timeout=-1 if left_seconds > LONGEST_SLEEP_SECONDS else max(left_seconds, 0.0))
        finally:
            with self._lock:
                if waiter in self._sleeping:
                    self._sleeping.remove(waiter)

    def _drive(self, waiter: Waiter, deadline: float) -> None:
        driver, engine, lock = self._driver, self._engine, self._lock
        is_pumped = time.monotonic() - self._pumped_at < FRESH_SECONDS
        try:
            while True:
                with lock:
                    now = time.monotonic()
                    if is_pumped:
                        is_pumped = False
                    else:
                        engine.pump(now)
                        self._pumped_at = now
                    if waiter.is_ready or now >= deadline:
                        return
                    until = min(driver.until(now), deadline)
                    driver.is_sleeping = True
                readable = driver.sleep(until - now)
                with lock:
                    driver.is_sleeping = False
                    driver.heard(readable)
                if self._listeners:
                    self._tell_listeners()
        finally:
            with lock:
                driver.is_sleeping = False
                self._driving = None

    def close(self) -> None:
        """Ends what is outstanding; the cluster is told that the session is over if that is quickly done."""
        if self._is_closed or self._process_id != os.getpid():
            return
        self._close_leases()
        with self._lock:
            call = self._engine.core.begin_close(time.monotonic())
        if call is not None:
            with suppress(errors.AssentError):
                self._ask(call, CLOSE_SECONDS)
        self._end_of_housekeeping.set()
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._engine.close()
            self._driver.alarm()
        self._let_go()

    def _let_go(self) -> None:
        """Nobody may be asleep on descriptors when these are closed."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            with self._lock:
                if self._driving is None:
                    self._driver.close()
                    return
            time.sleep(0.001)


def _answered(call: Call) -> None:
    call.token.ready()
