"""`python -m tests.cluster.harmed_node node …`: a node whose memory goes bad when it is told to.

Once it applies a put of the key /harm/NAME, with its own name, the value of the key /victim is another one in
its memory. Everything else is what everybody runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import kvstore.node
from kvstore.cli import main
from kvstore.state_machine import StoreMachine

VICTIM = b"/victim"


class HarmedMachine(StoreMachine):
    """Owned by the one node of this process, whose name is on the command line."""

    _word = b"/harm/" + sys.argv[sys.argv.index("--name") + 1].encode() if "--name" in sys.argv else b""

    def apply_some(
        self,
        first_index: int,
        bodies: Sequence[bytes | None],
        *,
        is_time_up: Callable[[], bool] = lambda: False,
    ) -> list[bytes | None]:
        results = super().apply_some(first_index, bodies, is_time_up=is_time_up)
        if any(body is not None and self._word in body for body in bodies[: len(results)]):
            name, value, *rest = self._store._records[VICTIM]
            self._store._records[VICTIM] = (name, b"not " + value, *rest)  # type: ignore[assignment]
        return results


if __name__ == "__main__":
    setattr(kvstore.node, "StoreMachine", HarmedMachine)  # noqa: B010
    main()
