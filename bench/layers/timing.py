"""How a layer is timed: laps of many calls, each with its input made before the clock starts.

Knows nothing of what is called. A lap is one function without arguments, so that between two looks at the
clock there is the layer, a Python loop, and nothing else. Garbage is collected as in a node: rarely, and
without a look at what was there before.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

from kvstore.node import YOUNG_OBJECTS

Lap: TypeAlias = Callable[[], None]

Laps: TypeAlias = Generator[Lap, None, None]
"""Without an end; what it opened is closed with it."""

MakeLaps: TypeAlias = Callable[[Path, int], Laps]
"""Of an empty directory of the layer's own, and the number of calls in each lap."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One figure. `operations` are those of a lap, at the scale 1."""

    name: str
    operations: int
    laps: MakeLaps
    batch: int = 1  # operations of one call

    def calls(self, scale: float) -> int:
        """Of a lap; at least one."""
        return max(1, round(self.operations * scale / self.batch))


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one operation, by the laps."""

    name: str
    microseconds: list[float]

    @property
    def median(self) -> float:
        return median(self.microseconds)

    @property
    def least(self) -> float:
        """What it takes when nothing else gets in the way."""
        return min(self.microseconds)


def cost(layer: Layer, directory: Path, *, repeat: int, scale: float = 1.0) -> Cost:
    """One lap to warm up, then `repeat` that count."""
    calls = layer.calls(scale)
    directory.mkdir()
    found: list[float] = []
    with closing(layer.laps(directory, calls)) as laps, _collecting_as_a_node_does():
        next(laps)()
        for _ in range(repeat):
            lap = next(laps)
            gc.collect()  # what making it has left
            began = time.perf_counter()
            lap()
            found.append((time.perf_counter() - began) * 1e6 / (calls * layer.batch))
    return Cost(layer.name, found)


@contextmanager
def _collecting_as_a_node_does() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
