"""Peers that come, go, move and are refused while the loop runs, and a stop that waits for its actors."""

from __future__ import annotations

import threading
import time

from actors import Address, System, SystemClock
from tests.actors.world import (
    CLUSTER_ID,
    MemoryWorld,
    Node,
    Note,
    Recorder,
    SocketWorld,
    World,
    link,
    make_codec,
    pump,
)


class Host(Recorder):
    """A recorder that also hears of those who are refused, and may ask for a delay of the stop."""

    def __init__(self) -> None:
        super().__init__("recorder")
        self.refused: list[tuple[Address, object]] = []
        self.turns_needed = 0

    def receive_refused(self, batch: list[tuple[Address, object]]) -> None:
        self.refused += batch

    def may_stop(self) -> bool:
        self.turns_needed -= 1
        self.set_deadline(self.now())
        return self.turns_needed < 0


class HostNode(Node):
    """A node whose actor hosts strangers, of a data directory of its own."""

    def __init__(self, world: World, name: str, *, storage_id: int = 0) -> None:
        self.name = name
        self.system = System(
            name,
            world.transport(),
            SystemClock(),
            make_codec(),
            cluster_id=CLUSTER_ID,
            storage_id=storage_id,
            welcomes_strangers=True,
        )
        self.host = self.recorder = Host()
        self.system.add(self.host)
        self.system.open_peer_port("tcp://127.0.0.1:0")
        self.counters = self.system.counters


def test_an_actor_connects_and_disconnects_a_peer_while_the_loop_runs(world: World) -> None:
    """A new member is reached, a removed one no longer; what was queued for it is lost, and nothing fails."""
    first, second = HostNode(world, "n1"), HostNode(world, "n2")
    first.send("n2", Note(1))
    assert first.counters["peer_unreachable"] == 1
    first.host.connect_peer("n2", second.endpoint)
    link(first, second)
    first.host.connect_peer("n2", second.endpoint)  # again, as it is: the connection stays
    first.send("n2", Note(2))
    pump([first.system, second.system], lambda: 2 in second.recorder.numbers())
    first.host.disconnect_peer("n2")
    first.host.disconnect_peer("n2")
    before = first.counters["peer_unreachable"]
    first.send("n2", Note(3))
    assert first.counters["peer_unreachable"] == before + 1
    second.host.connect_peer("n1", first.endpoint)
    link(second, first)  # its late frames are those of a stranger, which are welcome here
    assert 3 not in second.recorder.numbers()
    first.close()
    second.close()


def test_a_node_of_the_same_name_with_another_data_directory_is_refused(world: World) -> None:
    """A disk that was lost took its promises along: the name alone is not enough."""
    first, kept = HostNode(world, "n1"), HostNode(world, "n2", storage_id=21)
    first.host.connect_peer("n2", kept.endpoint, 21)
    kept.host.connect_peer("n1", first.endpoint)
    link(kept, first)
    assert first.host.storage_of("n2") == 21
    kept.close()
    wiped = HostNode(world, "n2", storage_id=22)
    wiped.host.connect_peer("n1", first.endpoint)
    pump(
        [first.system, wiped.system],
        lambda: bool(first.host.refused),
        each=lambda: wiped.send("n1", Note(8)),
    )
    assert first.host.refused[0] == (Address("n2", "recorder"), Note(8))
    assert 8 not in first.recorder.numbers()
    assert first.counters["peer_other_storage"] >= 1
    first.close()
    wiped.close()


def test_a_stop_waits_for_actors_that_are_not_done_yet(memory: MemoryWorld) -> None:
    node = HostNode(memory, "n1")
    node.host.turns_needed = 3
    node.system.stop(grace_seconds=5.0)
    node.system.run()
    assert node.host.turns_needed == -1
    assert node.recorder.events[-1] == ("stop",)
    assert [event[0] for event in node.recorder.events].count("deadline") == 3  # and they turn meanwhile


def test_a_stop_waits_no_longer_than_its_grace_and_a_second_one_ends_it(sockets: SocketWorld) -> None:
    for hurried in (False, True):
        node = HostNode(sockets, "n1")
        node.host.turns_needed = 10**9
        node.system.stop(grace_seconds=30.0 if hurried else 0.1)
        if hurried:
            threading.Timer(0.1, node.system.stop).start()
        began_at = time.monotonic()
        node.system.run()
        assert 0.09 < time.monotonic() - began_at < 5.0
        assert node.recorder.events[-1] == ("stop",)
