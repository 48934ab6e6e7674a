"""The asyncio face of the client.

May know: the engine and the event loop. Rules: an operation is a plain future, with no task and no timer of
its own; what is asked for in one iteration of the loop leaves in one frame; the loop waits for descriptors.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, Unpack

from kvstore import errors
from kvstore.client import calls
from kvstore.client.aio_leases import AsyncLease, AsyncLeases
from kvstore.client.aio_watch import AsyncClusterWatch, AsyncWatch
from kvstore.client.calls import Call, Chosen, Consistency
from kvstore.client.cluster import Cluster
from kvstore.client.core import DEFAULT_MAX_OUTSTANDING
from kvstore.client.engine import Engine
from kvstore.client.paths import AsyncPaths
from kvstore.client.results import (
    CompactResult,
    DeleteResult,
    KeyValue,
    NodeStatus,
    PutResult,
    RangeResult,
    State,
)
from kvstore.client.transactions import Txn, TxnResult
from kvstore.client.watch import Watch
from kvstore.protocol import NONCE_BYTES
from kvstore.protocol_admin import Initialise, Membership

if TYPE_CHECKING:
    from kvstore.client.saving import Progress, SavedSnapshot

CLOSE_SECONDS = 0.25
STATUS_ALL_SECONDS = 1.0

StateListener = Callable[[State], None]


class AsyncClient(AsyncPaths, AsyncLeases):
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

    def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        previous: bool = False,
        lease: int | AsyncLease = 0,
        ignore_value: bool = False,
        ignore_lease: bool = False,
        timeout_seconds: float | None = None,
    ) -> asyncio.Future[PutResult]:
        """Stores a value; with `previous`, answers with what was there before.

        With a `lease` the key is deleted when that ends; without, it has none, whatever it had.
        With `ignore_value` the key keeps its value, and an empty one is given; with `ignore_lease` its
        lease.
        """
        call = calls.put_call(
            key, value, previous, lease=lease, ignore_value=ignore_value, ignore_lease=ignore_lease
        )
        return self._submit(call, timeout_seconds)

    def txn(self) -> Txn[asyncio.Future[TxnResult]]:
        """A transaction, to be built and then committed: compares, and what is done if all of them hold."""
        return Txn(self._submit)

    def get(
        self,
        key: str | bytes,
        *,
        revision: int = 0,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
    ) -> asyncio.Future[KeyValue | None]:
        """The key, or None. "local" is what the first endpoint that answers has now, which may be old.

        With a `revision` the answer is exactly as of that one, now and later, until it is compacted.
        """
        return self._submit(calls.get_call(key, consistency, revision), timeout_seconds)

    def range(
        self,
        key: str | bytes,
        end: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> asyncio.Future[RangeResult]:
        """All keys from `key` on and below `end`, in order; `end` of one zero byte is no end.

        With a `revision`: as of that one. `sort_by` ("key", "version", "create", "mod" or "value") and
        `descending` give another order, of which `limit` takes the first; min_mod_revision, max_mod_revision,
        min_create_revision and max_create_revision choose. `count` is of the whole range all the same.
        """
        call = calls.range_call(
            calls.key_range(key, end),
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            **chosen,
        )
        return self._submit(call, timeout_seconds)

    def prefix(
        self,
        prefix: str | bytes,
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        consistency: Consistency = "linearizable",
        timeout_seconds: float | None = None,
        **chosen: Unpack[Chosen],
    ) -> asyncio.Future[RangeResult]:
        """All keys that begin with `prefix`, in order; all keys if it is empty. The rest as in range()."""
        call = calls.range_call(
            calls.key_prefix(prefix),
            consistency,
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            **chosen,
        )
        return self._submit(call, timeout_seconds)

    def delete(
        self, key: str | bytes, *, previous: bool = False, timeout_seconds: float | None = None
    ) -> asyncio.Future[DeleteResult]:
        return self._submit(calls.delete_call(*calls.one_key(key), previous), timeout_seconds)

    def delete_prefix(
        self, prefix: str | bytes, *, previous: bool = False, timeout_seconds: float | None = None
    ) -> asyncio.Future[DeleteResult]:
        """Deletes all keys that begin with `prefix`, in one revision; of more than 100 000: TooLarge."""
        return self._submit(calls.delete_call(*calls.key_prefix(prefix), previous), timeout_seconds)

    def compact(
        self, revision: int, *, timeout_seconds: float | None = None
    ) -> asyncio.Future[CompactResult]:
        """Gives up what older revisions than this one had: reads and watches of these fail from now on."""
        return self._submit(calls.compact_call(revision), timeout_seconds)

    def status(
        self, endpoint: str | None = None, *, timeout_seconds: float | None = None
    ) -> asyncio.Future[NodeStatus]:
        """The node at `endpoint` about itself, or whichever of the cluster answers first."""
        call = calls.status_call()
        if endpoint is not None:
            return self._ask_node(endpoint, call, timeout_seconds)
        return self._submit(call, timeout_seconds)

    async def status_all(
        self, *, timeout_seconds: float = STATUS_ALL_SECONDS
    ) -> dict[str, NodeStatus | None]:
        """By endpoint given; None where nobody answers."""
        endpoints = self._engine.core.links.configured
        asked = [self.status(endpoint, timeout_seconds=timeout_seconds) for endpoint in endpoints]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return dict(zip(endpoints, (calls.status_or_none(answer) for answer in answers), strict=True))

    def initialise(
        self, endpoint: str, nonce: bytes | None = None, *, timeout_seconds: float | None = None
    ) -> asyncio.Future[Membership]:
        """The node at `endpoint`, which waits, becomes the first and only member of a new cluster."""
        call = calls.admin_call(Initialise(nonce or os.urandom(NONCE_BYTES)))
        return self._ask_node(endpoint, call, timeout_seconds)

    def watch(
        self,
        key: str | bytes,
        *,
        prefix: bool = False,
        start_revision: int = 0,
        progress: bool = False,
        previous: bool = False,
        puts: bool = True,
        deletes: bool = True,
        timeout_seconds: float | None = None,
    ) -> AsyncWatch:
        """Follows a key or a prefix. To await the watch is to wait until nothing can be missed any more.

        It begins with `start_revision`, inclusive, or with now. With `progress`, a batch without events
        tells now and then up to which revision there is nothing more to come. With `previous`, an event has
        what was there before it. Without `puts` or `deletes`, there are none of these.
        """
        span = calls.watch_span(key, is_prefix=prefix, start_revision=start_revision)
        watch = Watch(*span, start_revision, progress=progress, previous=previous, puts=puts, deletes=deletes)
        return self._follow(watch, timeout_seconds)

    def _follow(self, watch: Watch, timeout_seconds: float | None) -> AsyncWatch:
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return AsyncWatch(self, watch, seconds)

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

    def _submit(self, call: Call, timeout_seconds: float | None) -> asyncio.Future[Any]:
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
        return self._submit(call, timeout_seconds)

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
        if call is not None:
            with suppress(errors.AssentError, asyncio.CancelledError):
                await self._submit(call, CLOSE_SECONDS)
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
        super().__init__(client._submit)
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
