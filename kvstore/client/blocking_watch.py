"""Watches of the blocking client.

May know: the client that it belongs to, whose threads move the bytes and whose lock guards the engine, and
the clock. Whoever waits for a batch drives the sockets, as for any other answer.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from kvstore.client.driver import Waiter
from kvstore.client.results import WatchBatch
from kvstore.client.watched import ClusterWatch, Phase, Watch
from kvstore.watch_frames import ClusterEvent

if TYPE_CHECKING:
    from kvstore.client.blocking import Client

Item = TypeVar("Item")


class _Following(ABC, Generic[Item]):
    """What a watch of keys and one of the cluster have in common. Owned by the thread that iterates."""

    _watch: Watch

    def __init__(self, client: Client, watch: Watch) -> None:
        self._client = client
        self._watch = watch
        self._waiter: Waiter | None = None
        watch.on_ready = self._on_ready

    @abstractmethod
    def _take(self) -> Item | None:
        """The next that was queued, under the client's lock."""

    @abstractmethod
    def _has_item(self) -> bool:
        """Whether _take() would give one, under the client's lock."""

    def _establish(self, timeout_seconds: float) -> None:
        client, watch = self._client, self._watch
        deadline = time.monotonic() + timeout_seconds
        with client._lock:
            client._check_usable()
            now = time.monotonic()
            client._engine.watches.start(watch, now)
            client._pump(now)
        try:
            while not self._is_settled():
                if time.monotonic() >= deadline:
                    raise client._engine.core.links.why_unserved()
                self._wait(deadline, self._is_settled)
        except BaseException:
            self.cancel()
            raise
        if not watch.is_established and watch.error is not None:
            raise watch.error

    def _is_settled(self) -> bool:
        return self._watch.is_established or self._watch.phase is Phase.ENDED

    def _has_something(self) -> bool:
        return self._has_item() or self._watch.phase is Phase.ENDED

    def _wait(self, deadline: float, is_met: Callable[[], bool]) -> None:
        waiter = Waiter()
        with self._client._lock:
            if is_met():
                return
            self._waiter = waiter
        self._client._wait(waiter, deadline)

    def _on_ready(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.ready()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self.next()
            if item is None:
                return
            yield item

    def next(self, timeout_seconds: float = float("inf")) -> Item | None:
        """The next one; None if there is none in time, or never, because the watch was cancelled."""
        client, watch = self._client, self._watch
        deadline = time.monotonic() + timeout_seconds
        while True:
            with client._lock:
                item = self._take()
                if item is not None:
                    if watch.phase is not Phase.STREAMING:
                        client._pump(time.monotonic())
                    return item
                if watch.phase is Phase.ENDED:
                    if watch.error is not None:
                        raise watch.error
                    return None
            if time.monotonic() >= deadline:
                return None
            self._wait(deadline, self._has_something)

    def cancel(self) -> None:
        """Ends the watch; whoever iterates over it comes to an end."""
        client = self._client
        with client._lock:
            if self._watch.phase is Phase.ENDED:
                return
            client._engine.watches.cancel(self._watch)
            client._pump(time.monotonic())


class BlockingWatch(_Following[WatchBatch]):
    """`for batch in watch`, by one thread; cancel() by any. Raises what ended it, unless it was cancelled."""

    @property
    def revision(self) -> int:
        """All up to here was delivered; a watch from the next revision on misses nothing."""
        with self._client._lock:
            return self._watch.revision

    def request_progress(self) -> None:
        """A batch without events comes soon: up to its revision there is nothing more to come."""
        client = self._client
        with client._lock:
            now = time.monotonic()
            client._engine.watches.request_progress(self._watch, now)
            client._pump(now)

    def _take(self) -> WatchBatch | None:
        return self._client._engine.watches.take(self._watch, time.monotonic())

    def _has_item(self) -> bool:
        return bool(self._watch.queue)


class BlockingClusterWatch(_Following[ClusterEvent]):
    """`for event in watch`, by one thread; cancel() by any. What comes is told as far as it is heard."""

    _watch: ClusterWatch

    def __init__(self, client: Client) -> None:
        super().__init__(client, ClusterWatch())

    def _take(self) -> ClusterEvent | None:
        return self._watch.events.popleft() if self._watch.events else None

    def _has_item(self) -> bool:
        return bool(self._watch.events)
