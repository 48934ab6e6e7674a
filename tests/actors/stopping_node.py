"""A process with one actor and peers that do not exist, for test_processes: it ends when it gets SIGTERM.

Its arguments are the endpoints of the peers. It says "ready" when it runs and "stopped" when its actor was
stopped.
"""

from __future__ import annotations

import signal
import sys

from actors import Actor, Address, Codec, System, SystemClock, TransportLimits, ZeroMqTransport
from tests.actors.world import Note


class Talker(Actor):
    """Talks to its peers all the time, so that its queues are never empty; has no other deadline."""

    name = "talker"

    def on_start(self) -> None:
        self.set_deadline(self.now())
        print("ready", flush=True)

    def on_deadline(self) -> None:
        for peer in range(len(sys.argv) - 1):
            self.send(Address(f"peer{peer}", "talker"), Note(1, bytes(100_000)))
        self.set_deadline(self.now() + 0.001)

    def on_stop(self) -> None:
        print("stopped", flush=True)


def main() -> None:
    codec = Codec()
    codec.register(1, Note, remote=True)
    # Heartbeats so rare that they cannot be what ends a connection to a peer that is stopped.
    limits = TransportLimits(peer_heartbeat_seconds=60.0)
    system = System("n1", ZeroMqTransport(limits), SystemClock(), codec)
    system.add(Talker())
    system.open_peer_port("tcp://127.0.0.1:0")
    for number, endpoint in enumerate(sys.argv[1:]):
        system.connect_peer(f"peer{number}", endpoint)
    signal.signal(signal.SIGTERM, lambda number, frame: system.stop())
    system.run()


if __name__ == "__main__":
    main()
