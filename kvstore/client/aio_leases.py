"""Leases that the client for asyncio keeps alive in the background.

May know: calls, the upkeep and the event loop. A client is made of AsyncLeases; a task of its own exists only
while something is held.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Self

from kvstore.client.calls import Call
from kvstore.client.lease_results import LeaseGranted, LeaseInfo, LeaseList, LeaseRevoked, LeasesRenewed
from kvstore.client.requests import LeaseRequests
from kvstore.client.upkeep import (
    Held,
    Upkeep,
    grant_call,
    keep_alive_call,
    lose,
    revoke_call,
    settle,
    tell,
    ttls_of,
)
from kvstore.errors import AssentError, ClientClosed

log = logging.getLogger("assent.client")

Ask = Callable[[Call, float | None], Any]


class AsyncLease:
    """As Lease. It is granted when it is awaited, or entered with `async with`."""

    id = 0  # until it is granted
    ttl_seconds = 0

    def __init__(
        self,
        keeper: AsyncKeeper,
        call: Call,
        timeout_seconds: float | None,
        on_lost: Callable[[], None] | None,
    ) -> None:
        self.lost = asyncio.Event()
        self._keeper = keeper
        self._call = call
        self._timeout_seconds = timeout_seconds
        self._on_lost = on_lost
        self._held: Held | None = None

    def __await__(self) -> Generator[Any, None, Self]:
        return self._grant().__await__()

    async def _grant(self) -> Self:
        if self._held is None:
            asked_at = asyncio.get_running_loop().time()
            granted: LeaseGranted = await self._keeper.ask(self._call, self._timeout_seconds)
            self.id, self.ttl_seconds = granted.id, granted.ttl_seconds
            self._held = Held(granted.id, granted.ttl_seconds, asked_at, self._lose)
            self._keeper.hold(self._held)
        return self

    def remaining(self) -> float:
        """Seconds for which it is there for sure, if nobody revokes it; 0 once it is over."""
        held = self._held
        return 0.0 if held is None else held.remaining_seconds(asyncio.get_running_loop().time())

    def release(self) -> None:
        """Renew it no more: it ends by itself when its time has passed."""
        if self._held is not None:
            self._keeper.release(self._held)

    async def revoke(self, *, timeout_seconds: float | None = None) -> LeaseRevoked:
        """Ends it now, and deletes all its keys. Raises LeaseNotFound if it has ended before."""
        if self._held is not None:
            self._keeper.release(self._held)
            self._held.expires_at = float("-inf")
        result: LeaseRevoked = await self._keeper.ask(revoke_call(self.id), timeout_seconds)
        return result

    async def __aenter__(self) -> Self:
        return await self._grant()

    async def __aexit__(self, *_: object) -> None:
        with suppress(AssentError):  # it ends by itself
            await self.revoke()

    def _lose(self) -> None:
        self.lost.set()
        tell(self._on_lost, self.id)


class AsyncKeeper:
    """One per client that has leases; its task lives as long as any is held."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._upkeep = Upkeep()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def hold(self, held: Held) -> None:
        if self._is_closed:
            raise ClientClosed
        self._upkeep.hold(held)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        self._changed.set()

    def release(self, held: Held) -> None:
        self._upkeep.release(held)
        self._changed.set()

    def close(self) -> None:
        """What is held is renewed no more: nobody may rely on it."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
        lose(self._upkeep.overdue(float("inf")))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            now = loop.time()
            lose(self._upkeep.overdue(now))
            batch = self._upkeep.due(now)
            if batch:
                await self._renew(batch, now)
                continue
            next_at = self._upkeep.next_at()
            if next_at is None:
                self._task = None
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._changed.wait()

    async def _renew(self, batch: list[Held], asked_at: float) -> None:
        seconds = self._upkeep.answer_seconds(asked_at)
        try:
            answer = await self.ask(keep_alive_call([held.id for held in batch]), seconds)
            ttls = ttls_of(answer, batch)
        except AssentError as error:
            log.debug("event=keepalive_failed leases=%d error=%r", len(batch), error)
            ttls = None
        lose(settle(self._upkeep, batch, ttls, asked_at, asyncio.get_running_loop().time()))


class AsyncLeases(
    LeaseRequests[
        asyncio.Future[LeaseGranted],
        asyncio.Future[LeaseRevoked],
        asyncio.Future[LeasesRenewed],
        asyncio.Future[LeaseInfo],
        asyncio.Future[LeaseList],
    ]
):
    """A part of AsyncClient."""

    _lease_keeper: AsyncKeeper | None = None  # made with the first lease

    def lease(
        self,
        ttl_seconds: float,
        *,
        id: int = 0,
        on_lost: Callable[[], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncLease:
        """A new lease, once it is awaited or entered, which is renewed in the background from then on.

        Whatever is put with it is deleted when it ends. `on_lost` is called in the loop when it is lost.
        """
        keeper = self._lease_keeper = self._lease_keeper or AsyncKeeper(self._ask)
        return AsyncLease(keeper, grant_call(ttl_seconds, id), timeout_seconds, on_lost)

    def _close_leases(self) -> None:
        if self._lease_keeper is not None:
            self._lease_keeper.close()
