"""The machine that figures were taken on: without it they mean nothing. Reads /proc and times one disk."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import zmq

_SYNCS = 200
_SYNC_BYTES = 4096


@dataclass(slots=True)
class Machine:
    cores: int
    processor: str
    memory_bytes: int
    kernel: str
    python: str
    libzmq: str
    file_system: str
    sync_p50_ms: float  # an append of 4 KiB and its fdatasync, where the nodes have their data
    load_before: float  # of the last minute: anything else at work makes the figures worthless

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.processor}), {self.memory_bytes / 2**30:.0f} GiB, {self.kernel}, "
            f"Python {self.python}, libzmq {self.libzmq}, {self.file_system} with fdatasync p50 "
            f"{self.sync_p50_ms:.2f} ms, load before {self.load_before:.2f}"
        )


def machine(directory: Path) -> Machine:
    """Facts of this machine, and of the disk below `directory`."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        processor=_processor(),
        memory_bytes=int(psutil.virtual_memory().total),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        libzmq=zmq.zmq_version(),
        file_system=_file_system(directory),
        sync_p50_ms=1e3 * _sync_seconds(directory),
        load_before=os.getloadavg()[0],
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _file_system(directory: Path) -> str:
    """Such as ext4. On tmpfs a sync costs nothing, and the figures say nothing about durable writes."""
    real = directory.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if real.is_relative_to(part.mountpoint)]
    return str(max(mounts, key=lambda part: len(part.mountpoint)).fstype) if mounts else "unknown"


def _sync_seconds(directory: Path) -> float:
    path = directory / "sync-probe"
    seconds = []
    with path.open("wb", buffering=0) as probe:
        for _ in range(_SYNCS):
            begun = time.perf_counter()
            probe.write(b"x" * _SYNC_BYTES)
            os.fdatasync(probe.fileno())
            seconds.append(time.perf_counter() - begun)
    path.unlink()
    return median(seconds)
