"""Watches of the client for asyncio.

May know: the client that it belongs to, whose event loop moves the bytes. A batch is taken by its consumer
alone, so one that is cancelled while it waits loses nothing.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from kvstore.client.results import WatchBatch
from kvstore.client.watched import ClusterWatch, Phase, Watch
from kvstore.watch_frames import ClusterEvent

if TYPE_CHECKING:
    from kvstore.client.aio import AsyncClient

Item = TypeVar("Item")


class _Following(ABC, Generic[Item]):
    """What a watch of keys and one of the cluster have in common. Owned by the one who iterates."""

    _watch: Watch

    def __init__(self, client: AsyncClient, watch: Watch, timeout_seconds: float) -> None:
        self._client = client
        self._watch = watch
        self._timeout_seconds = timeout_seconds
        self._waiter: asyncio.Future[None] | None = None
        self._is_started = False
        watch.on_ready = self._on_ready

    @abstractmethod
    def _take(self) -> Item | None:
        """The next that was queued."""

    def __await__(self) -> Generator[Any, None, Self]:
        return self._begin().__await__()

    async def _begin(self) -> Self:
        """For a caller who has no watch in hand before it is established, and so could not cancel it."""
        try:
            return await self._establish()
        except BaseException:
            self.cancel()
            raise

    async def _establish(self) -> Self:
        watch = self._watch
        if not self._is_started:
            self._is_started = True
            self._client._start_watch(watch)
        if not watch.is_established:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    while not watch.is_established and watch.phase is not Phase.ENDED:
                        await self._wait()
            except TimeoutError:
                self.cancel()
                raise self._client._engine.core.links.why_unserved() from None
        if watch.phase is Phase.ENDED and watch.error is not None and not watch.is_established:
            raise watch.error
        return self

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    async def __anext__(self) -> Item:
        await self._establish()
        watch, engine = self._watch, self._client._engine
        while True:
            item = self._take()
            if item is not None:
                if engine.connections.has_touched or watch.phase is not Phase.STREAMING:
                    self._client._pump_soon()
                return item
            if watch.phase is Phase.ENDED:
                if watch.error is not None:
                    raise watch.error
                raise StopAsyncIteration
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._client._running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _on_ready(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def __aenter__(self) -> Self:
        return await self._begin()

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Ends the watch; whoever iterates over it comes to an end."""
        self._is_started = True
        if self._watch.phase is Phase.ENDED:
            return
        self._client._engine.watches.cancel(self._watch)
        self._client._pump_soon()


class AsyncWatch(_Following[WatchBatch]):
    """`async for batch in watch`; one consumer. Ends when cancelled; raises what ended it otherwise."""

    @property
    def revision(self) -> int:
        """All up to here was delivered; a watch from the next revision on misses nothing."""
        return self._watch.revision

    def request_progress(self) -> None:
        """A batch without events comes soon: up to its revision there is nothing more to come."""
        client = self._client
        client._engine.watches.request_progress(self._watch, client._running_loop().time())
        client._pump_soon()

    def _take(self) -> WatchBatch | None:
        return self._client._engine.watches.take(self._watch, self._client._running_loop().time())


class AsyncClusterWatch(_Following[ClusterEvent]):
    """`async for event in watch`; one consumer. What comes is told as far as it is heard."""

    _watch: ClusterWatch

    def __init__(self, client: AsyncClient, timeout_seconds: float) -> None:
        super().__init__(client, ClusterWatch(), timeout_seconds)

    def _take(self) -> ClusterEvent | None:
        return self._watch.events.popleft() if self._watch.events else None
