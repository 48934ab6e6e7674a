"""Leases that the blocking client keeps alive in the background.

May know: calls, the upkeep, threads and the clock. A client is made of BlockingLeases; a thread of its own
exists only while something is held.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from kvstore.client.calls import Call
from kvstore.client.client_log import client_log
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

Ask = Callable[[Call, float | None], Any]


class Lease:
    """A lease that its client keeps alive until it is revoked, released, or lost.

    `lost` is set once it may be gone: its time passed without an answer, or the cluster has it no more. As a
    context manager it is revoked at the end.
    """

    def __init__(
        self,
        keeper: BlockingKeeper,
        granted: LeaseGranted,
        asked_at: float,
        on_lost: Callable[[], None] | None,
    ) -> None:
        self.id = granted.id
        self.ttl_seconds = granted.ttl_seconds
        self.lost = threading.Event()
        self._on_lost = on_lost
        self._keeper = keeper
        self._held = Held(granted.id, granted.ttl_seconds, asked_at, self._lose)

    def remaining(self) -> float:
        """Seconds for which it is there for sure, if nobody revokes it; 0 once it is over."""
        return self._held.remaining_seconds(time.monotonic())

    def release(self) -> None:
        """Renew it no more: it ends by itself when its time has passed."""
        self._keeper.release(self._held)

    def revoke(self, *, timeout_seconds: float | None = None) -> LeaseRevoked:
        """Ends it now, and deletes all its keys. Raises LeaseNotFound if it has ended before."""
        self._keeper.release(self._held)
        self._held.expires_at = float("-inf")
        result: LeaseRevoked = self._keeper.ask(revoke_call(self.id), timeout_seconds)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(AssentError):  # it ends by itself
            self.revoke()

    def _lose(self) -> None:
        self.lost.set()
        tell(self._on_lost, self.id)


class BlockingKeeper:
    """One per client that has leases; its thread lives as long as any is held."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._upkeep = Upkeep()
        self._changed = threading.Condition()  # guards the upkeep
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def hold(self, held: Held) -> None:
        with self._changed:
            if self._is_closed:
                raise ClientClosed
            self._upkeep.hold(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="assent-client-leases", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def release(self, held: Held) -> None:
        with self._changed:
            self._upkeep.release(held)
            self._changed.notify_all()

    def close(self) -> None:
        """What is held is renewed no more: nobody may rely on it."""
        with self._changed:
            self._is_closed = True
            lost = self._upkeep.overdue(float("inf"))
            self._changed.notify_all()
        lose(lost)

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                lost, batch = self._upkeep.overdue(now), self._upkeep.due(now)
                if not lost and not batch:
                    next_at = self._upkeep.next_at()
                    if next_at is None:
                        self._thread = None
                        return
                    self._changed.wait(max(0.0, next_at - now))
                    continue
                seconds = self._upkeep.answer_seconds(now)
            lose(lost)
            if batch:
                self._renew(batch, now, seconds)

    def _renew(self, batch: list[Held], asked_at: float, seconds: float) -> None:
        try:
            ttls = ttls_of(self.ask(keep_alive_call([held.id for held in batch]), seconds), batch)
        except AssentError as error:
            client_log().debug("event=keepalive_failed leases=%d error=%r", len(batch), error)
            ttls = None
        with self._changed:
            lost = settle(self._upkeep, batch, ttls, asked_at, time.monotonic())
        lose(lost)


class BlockingLeases(LeaseRequests[LeaseGranted, LeaseRevoked, LeasesRenewed, LeaseInfo, LeaseList]):
    """A part of Client."""

    _lease_keeper: BlockingKeeper | None = None  # made with the first lease
    _lock: threading.Lock

    def lease(
        self,
        ttl_seconds: float,
        *,
        id: int = 0,
        on_lost: Callable[[], None] | None = None,
        timeout_seconds: float | None = None,
    ) -> Lease:
        """A new lease, which is renewed in the background until it is revoked, released or lost.

        Whatever is put with it is deleted when it ends. `on_lost` is called when it is lost, by a thread of
        the client, which it must not hold up. Without an `id`, one that is free is chosen.
        """
        with self._lock:
            keeper = self._lease_keeper = self._lease_keeper or BlockingKeeper(self._ask)
        asked_at = time.monotonic()
        lease = Lease(keeper, self._ask(grant_call(ttl_seconds, id), timeout_seconds), asked_at, on_lost)
        keeper.hold(lease._held)
        return lease

    def _close_leases(self) -> None:
        if self._lease_keeper is not None:
            self._lease_keeper.close()
