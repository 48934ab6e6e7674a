"""A system as a process of its own: how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from tests.actors.world import DEADLINE_SECONDS, SocketWorld

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("peers", ["none", "dead and deaf", "stopped"])
def test_a_process_ends_soon_after_sigterm_whatever_its_peers_do(sockets: SocketWorld, peers: str) -> None:
    """Neither a wait without end, nor frames for peers that will never read them, hold it up."""
    endpoints = []
    stopped = sockets.listener(most_frames=1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        if peers == "stopped":  # it took part in the handshake, and reads nothing any more
            endpoints = [stopped]
        elif peers == "dead and deaf":
            endpoints = ["tcp://127.0.0.1:9", f"tcp://127.0.0.1:{deaf.getsockname()[1]}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.actors.stopping_node", *endpoints],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "ready\n"
            if peers == "stopped":
                # Dropped for want of a connection at first, which is logged; then they arrive.
                assert "event=peer_unreachable" in process.stderr.readline()
                assert sockets.made[-1].socket.poll(5000, zmq.POLLIN)
            time.sleep(0.2)
            stopped_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=DEADLINE_SECONDS)
            assert time.monotonic() - stopped_at < 2.0
            assert (process.returncode, output) == (0, "stopped\n")
        finally:
            process.kill()
            process.communicate()
