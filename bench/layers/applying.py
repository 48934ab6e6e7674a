"""The state machine: session, store, history, result, for puts that were committed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.layers.material import KEYS, SESSION, bodies, new_key, overwritten_key
from bench.layers.timing import Laps, Layer
from kvstore.protocol import NONCE_BYTES, open_session_body
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane


def applied(count: int, key: Callable[[int], bytes], what: str) -> Layer:
    """Runs of so many commands, as they come when so many were committed together."""

    def laps(_: Path, calls: int) -> Laps:
        machine = StoreMachine(WatchPlane(1))
        machine.apply(1, [open_session_body(bytes(NONCE_BYTES))])  # at index 1, and so it is session 1
        assert SESSION == 1, f"the session that was opened is not {SESSION}"
        machine.apply(2, bodies(1, KEYS, overwritten_key))
        while True:
            first = machine.applied_index
            runs = [bodies(first + call * count, count, key) for call in range(calls)]

            def lap(runs: list[list[bytes]] = runs) -> None:
                for run in runs:
                    machine.apply(machine.applied_index + 1, run)

            yield lap
            done = machine.revision - 1
            assert done == machine.applied_index - 1, f"{done} of {machine.applied_index - 1} puts applied"

    return Layer(f"apply {what}, {count} at a time", 10_000, laps, count)


LAYERS = [
    applied(1, overwritten_key, "1000 keys over and over"),
    applied(256, overwritten_key, "1000 keys over and over"),
    applied(256, new_key, "new keys"),
]
