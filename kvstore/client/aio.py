"""The asyncio face of the client.

May know: the engine and the event loop. Rules: an operation is a plain future, with no task and no timer of
its own; what is asked for in one iteration of the loop leaves in one frame; the loop waits for descriptors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from kvstore import errors
from kvstore.client import calls
from kvstore.client.aio_leases import AsyncLeases
from kvstore.client.aio_watch import AsyncClusterWatch, AsyncWatch
from kvstore.client.calls import Call
from kvstore.client.cluster import Cluster
from kvstore.client.core import DEFAULT_MAX_OUTSTANDING
from kvstore.client.engine import Engine
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
from kvstore.client.transactions import Txn, TxnResult
from kvstore.client.trees import Steps
from kvstore.client.watch import Watch
from kvstore.protocol_admin import Membership

if TYPE_CHECKING:
    from kvstore.client.saving import Progress, SavedSnapshot, TakenSnapshot

CLOSE_SECONDS = 0.25
STATUS_ALL_SECONDS = 1.0

StateListener = Callable[[State], None]


class AsyncClient(
    KeyRequests[
        asyncio.Future[PutResult],
        asyncio.Future[KeyValue | None],
        asyncio.Future[RangeResult],
        asyncio.Future[DeleteResult],
        asyncio.Future[CompactResult],
    ],
    PathRequests[
        asyncio.Future[ChildrenResult],
        AsyncIterator[RangeResult],
        AsyncIterator[KeyValue],
        Coroutine[Any, Any, TreeDeleted],
    ],
    WatchRequests[AsyncWatch],
    NodeRequests[asyncio.Future[NodeStatus], asyncio.Future[Membership]],
    AsyncLeases,
):
    """A client of one cluster, of one event loop, and of the process that made it.

    `endpoints` are client endpoints, one or more, as a sequence or separated by commas. Each method returns
    a future to be awaited. It ends within `timeout_seconds`, with a result or with an error of
    kvstore.errors. To cancel a future abandons the wait, not the request.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        timeout_seconds: float = 5.0,
        max_outstanding: int = DEFAULT_MAX_OUTSTANDING,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._engine = Engine(calls.endpoint_list(endpoints), max_outstanding=max_outstanding)
        self._engine.connections.on_descriptor = self._on_descriptor
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process_id = os.getpid()
        self._is_pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._listeners: list[StateListener] = []
        self._is_closed = False
        self.cluster = AsyncCluster(self)

    async def __aenter__(self) -> Self:
        self._running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- operations ------------------------------------------------------------------------------------

    def txn(self) -> Txn[asyncio.Future[TxnResult]]:
        """A transaction, to be built and then committed: compares, and what is done if all of them hold."""
        return Txn(self._ask)

    async def status_all(
        self, *, timeout_seconds: float = STATUS_ALL_SECONDS
    ) -> dict[str, NodeStatus | None]:
        """By endpoint given; None where nobody answers."""
        endpoints = self._engine.core.links.configured
        asked = [self.status(endpoint, timeout_seconds=timeout_seconds) for endpoint in endpoints]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return dict(zip(endpoints, (calls.status_or_none(answer) for answer in answers), strict=True))

    def watch_cluster(self, *, timeout_seconds: float | None = None) -> AsyncClusterWatch:
        """Follows who leads (leader_elected, leader_lost), who is a member (member_added, member_promoted,
        member_demoted, member_removed) and whom the leader hears (member_unhealthy, member_healthy).

        What happens while it is on its way to another node is missed; who leads is told again there.
        """
        return AsyncClusterWatch(self, self._timeout_seconds if timeout_seconds is None else timeout_seconds)

    # -- states ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._engine.core.state

    @property
    def counters(self) -> Counter[str]:
        """What happened to this client so far, for operators and tests."""
        return self._engine.core.counters.copy()

    def add_listener(self, listener: StateListener) -> None:
        """`listener` is called in the event loop with each new state."""
        self._listeners.append(listener)

    def remove_listener(self, listener: StateListener) -> None:
        self._listeners.remove(listener)

    # -- inner works -------------------------------------------------------------------------------------

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return loop

    def _ask(self, call: Call, timeout_seconds: float | None) -> asyncio.Future[Any]:
        loop = self._loop or self._running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        now = loop.time()
        call.token = future
        call.callback = _resolve
        call.deadline = now + (self._timeout_seconds if timeout_seconds is None else timeout_seconds)
        try:
            self._engine.submit(call, now)
        except errors.AssentError as error:
            future.set_exception(error)
        if not self._is_pump_due:
            self._is_pump_due = True
            loop.call_soon(self._pump)
        return future

    def _ask_node(self, endpoint: str, call: Call, timeout_seconds: float | None) -> asyncio.Future[Any]:
        call.pinned = self._engine.core.links.pin(endpoint)
        return self._ask(call, timeout_seconds)

    async def _pages_of(self, pager: Pager, timeout_seconds: float | None) -> AsyncIterator[RangeResult]:
        while (call := pager.next_call()) is not None:
            page: RangeResult = await self._ask(call, timeout_seconds)
            pager.took(page)
            yield page

    async def _items_of(self, pager: Pager, timeout_seconds: float | None) -> AsyncIterator[KeyValue]:
        async for page in self._pages_of(pager, timeout_seconds):
            for item in page.items:
                yield item

    async def _carry_out(self, steps: Steps, timeout_seconds: float | None) -> TreeDeleted:
        try:
            call = next(steps)
            while True:
                try:
                    result = await self._ask(call, timeout_seconds)
                except errors.AssentError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            deleted: TreeDeleted = end.value
            return deleted

    def _follow(self, watch: Watch, timeout_seconds: float | None) -> AsyncWatch:
        return AsyncWatch(self, watch, self._timeout_seconds if timeout_seconds is None else timeout_seconds)

    def _start_watch(self, watch: Watch) -> None:
        loop = self._running_loop()
        if self._is_closed:
            raise errors.ClientClosed
        self._engine.watches.start(watch, loop.time())
        self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._is_pump_due and self._loop is not None:
            self._is_pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pump_due = False
        loop, engine = self._loop, self._engine
        if loop is None or self._is_closed:
            return
        engine.pump(loop.time())
        deadline = engine.next_deadline()
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            # A timer that fires too early costs one pump; to move it for each answer would cost more.
            self._timer_at = deadline
            self._timer = loop.call_at(deadline, self._on_timer)
        if engine.core.state_changes:
            for state in engine.take_state_changes():
                for listener in list(self._listeners):
                    loop.call_soon(listener, state)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    def _on_descriptor(self, descriptor: int, is_open: bool) -> None:
        loop = self._running_loop()
        if is_open:
            loop.add_reader(descriptor, self._on_readable, descriptor)
        elif not loop.is_closed():
            loop.remove_reader(descriptor)

    def _on_readable(self, descriptor: int) -> None:
        self._engine.connections.touch((descriptor,))
        self._pump()

    async def close(self) -> None:
        """Ends what is outstanding; the cluster is told that the session is over if that is quickly done."""
        if self._is_closed or self._process_id != os.getpid():
            return
        self._close_leases()
        loop = self._running_loop()
        call = self._engine.core.begin_close(loop.time())
        try:
            if call is not None:
                with suppress(errors.AssentError):
                    await self._ask(call, CLOSE_SECONDS)
        finally:  # also when whoever closes is cancelled, and must hear of it
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._engine.close()


def _resolve(call: Call) -> None:
    """A future that was cancelled meanwhile is left alone."""
    future: asyncio.Future[Any] = call.token
    call.token = None
    if future.done():
        return
    if call.error is not None:
        future.set_exception(call.error)
    else:
        future.set_result(call.value)


class AsyncCluster(Cluster[asyncio.Future[Membership]]):
    """Of the client for asyncio. It can save the cluster's state, too."""

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client._ask)
        self._client = client

    async def save_snapshot(
        self,
        target: str | Path | BinaryIO,
        *,
        endpoint: str | None = None,
        overwrite: bool = False,
        on_progress: Progress | None = None,
        timeout_seconds: float = 5.0,
    ) -> SavedSnapshot:
        """As that of the client that blocks. The file is written to in the event loop."""
        from kvstore.client.saving import drive_async, save_steps, saving_to

        client = self._client
        endpoints = client._engine.core.links.configured if endpoint is None else (endpoint,)
        with saving_to(target, overwrite=overwrite) as sink:
            steps = save_steps(
                endpoints,
                sink,
                timeout_seconds=timeout_seconds,
                now=time.monotonic,
                on_progress=on_progress,
            )
            return await drive_async(steps, lambda one: client._ask_node(*one), asyncio.sleep)

    async def take_snapshot(self, endpoint: str, *, timeout_seconds: float = 5.0) -> TakenSnapshot:
        """As that of the client that blocks."""
        from kvstore.client.saving import drive_async, take_steps

        steps = take_steps(endpoint, timeout_seconds=timeout_seconds, now=time.monotonic)
        return await drive_async(steps, lambda one: self._client._ask_node(*one), asyncio.sleep)
