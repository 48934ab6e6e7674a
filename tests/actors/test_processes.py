"""A system as a process of its own: how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.actors.world import DEADLINE_SECONDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("peers", ["none", "dead and deaf"])
def test_a_process_ends_soon_after_sigterm_whatever_its_peers_do(peers: str) -> None:
    """I5: neither a wait without end, nor frames for peers that will never read them, hold it up."""
    endpoints = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        if peers != "none":
            endpoints = ["tcp://127.0.0.1:9", f"tcp://127.0.0.1:{deaf.getsockname()[1]}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.actors.stopping_node", *endpoints],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.1)
            stopped_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_SECONDS) == 0
            assert time.monotonic() - stopped_at < 2.0
            assert process.stdout.read() == "stopped\n"
