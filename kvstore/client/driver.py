"""Waiting for sockets on behalf of threads.

May know: descriptors, poll() and the engine; nothing of calls. Everything but sleep() happens under the lock
of the client that owns both.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Final

from kvstore.client.engine import Engine

LONGEST_SLEEP_SECONDS: Final = 60.0


class Waiter:
    """One thread that waits for something; owned by that thread."""

    __slots__ = ("is_ready", "signal", "token")

    def __init__(self) -> None:
        self.is_ready = False  # set under the client's lock
        self.signal: threading.Lock | None = None  # held while the thread sleeps beside a driver

    def wake(self) -> None:
        """Under the client's lock."""
        signal = self.signal
        if signal is not None and signal.locked():
            signal.release()

    def ready(self) -> None:
        self.is_ready = True
        self.wake()


class Driver:
    """Waits for the sockets of one engine, one thread at a time; owned by the client."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._poll = select.poll()
        self._alarm_in, self._alarm_out = socket.socketpair()
        for end in (self._alarm_in, self._alarm_out):
            end.setblocking(False)
        self._alarm_descriptor = self._alarm_out.fileno()
        self._poll.register(self._alarm_descriptor, select.POLLIN)
        self.is_sleeping = False  # under the client's lock
        self._sleeps_until = 0.0
        self._is_changed = False  # descriptors came or went since it fell asleep
        engine.connections.on_descriptor = self._on_descriptor

    def _on_descriptor(self, descriptor: int, is_open: bool) -> None:
        self._is_changed = True
        if is_open:
            self._poll.register(descriptor, select.POLLIN)
        else:
            self._poll.unregister(descriptor)

    def until(self, now: float) -> float:
        """Under the lock, before sleep(): when the sleeper has to come back."""
        deadline = self._engine.next_deadline()
        latest = now + LONGEST_SLEEP_SECONDS
        self._sleeps_until = latest if deadline is None else min(deadline, latest)
        self._is_changed = False
        return self._sleeps_until

    def sleep(self, seconds: float) -> list[int]:
        """Without the lock. The descriptors that are readable."""
        found = self._poll.poll(max(seconds, 0.0) * 1000)
        return [descriptor for descriptor, _ in found]

    def heard(self, descriptors: list[int]) -> None:
        """Under the lock, after sleep()."""
        if self._alarm_descriptor in descriptors:
            with suppress(BlockingIOError):
                self._alarm_out.recv(4096)
        self._engine.connections.touch(descriptors)

    def alarm_if_needed(self) -> None:
        """Under the lock, by a thread that is not driving: does the sleeper have to look again?"""
        if not self.is_sleeping:
            return
        deadline = self._engine.next_deadline()
        if self._is_changed or (deadline is not None and deadline < self._sleeps_until):
            self._is_changed = False
            self._sleeps_until = float("-inf")
            self.alarm()

    def alarm(self) -> None:
        with suppress(BlockingIOError):
            self._alarm_in.send(b"\0")

    def close(self) -> None:
        self._alarm_in.close()
        self._alarm_out.close()
