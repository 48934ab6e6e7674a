"""Watchers of a node that is told nothing any more: cut off from its cluster, or removed while away."""

from __future__ import annotations

import pytest

from actors.memory import MemoryFrame
from kvstore import protocol, watch_frames
from kvstore.client.watch import Phase
from kvstore.protocol import Refusal
from kvstore.protocol_admin import AddMember, RemoveMember
from kvstore.watch_plane import LEADERLESS_SECONDS, WatchPlane
from tests.kvstore.memory_cluster import MemoryCluster, peer_of
from tests.kvstore.watch_desk import WatchDesk

TOPIC = watch_frames.stream_topic(b"/", b"0")
ENOUGH_SECONDS = LEADERLESS_SECONDS + 2 * protocol.WATCH_HEARTBEAT_SECONDS


def beats(plane: WatchPlane, start: float, seconds: float) -> list[float]:
    """When there were heartbeats, of steps of half a second."""
    times = [start + 0.5 * step for step in range(int(seconds * 2))]
    return [at for at in times if plane.heartbeats(at)]


@pytest.mark.parametrize("topic", [TOPIC, protocol.CLUSTER_TOPIC])
def test_a_node_without_a_leader_for_long_falls_silent(topic: bytes) -> None:
    plane = WatchPlane(1)
    plane.subscribed([b"\x01" + topic])
    assert len(beats(plane, 0.0, 10.0)) == 20, "nobody has said anything of leaders"
    plane.role_changed("follower", 1, "n2")
    assert len(beats(plane, 10.0, 10.0)) == 20
    plane.role_changed("candidate", 2, None)
    assert beats(plane, 20.0, 10.0) == [20.0 + 0.5 * step for step in range(int(LEADERLESS_SECONDS * 2))]
    assert plane.subscribed([b"\x01" + topic]), "who comes is greeted, and may have the history"
    plane.role_changed("follower", 3, "n3")
    assert len(beats(plane, 30.0, 10.0)) == 20
    plane.role_changed("candidate", 4, None)
    assert beats(plane, 40.0, 1.0) == [40.0, 40.5], "each loss is counted from its own beginning"


def test_a_node_that_falls_silent_still_publishes_what_it_applies() -> None:
    plane = WatchPlane(1)
    plane.subscribed([b"\x01" + TOPIC])
    plane.role_changed("follower", 1, None)
    beats(plane, 0.0, 10.0)
    plane.feed([(b"/a", b"1", 2, 2, 1, 0)], lambda *_: None)
    [frame] = plane.heartbeats(10.0)
    assert watch_frames.decode_stream_message(*frame[1:])[0].revision == 2


def test_a_watch_leaves_a_node_that_is_cut_off_and_misses_nothing() -> None:
    desk = WatchDesk()
    for machine in desk.machines.values():
        machine.watch_plane.role_changed("follower", 1, "b")
    watch = desk.established()
    assert desk.place_of(watch) == "a"
    desk.lagging = {"a"}
    desk.machines["a"].watch_plane.role_changed("candidate", 1, None)
    missed = [desk.store(f"/k{number}") for number in range(3)]
    desk.run(ENOUGH_SECONDS + protocol.WATCH_SILENCE_SECONDS + 1.0)
    assert watch.phase is Phase.STREAMING and desk.place_of(watch) != "a"
    assert desk.revisions(watch) == missed


def test_a_watch_stays_where_nobody_else_is_and_goes_on_when_there_is_a_leader_again() -> None:
    desk = WatchDesk("a")
    plane = desk.machines["a"].watch_plane
    plane.role_changed("leader", 1, "a")
    watch = desk.established()
    plane.role_changed("follower", 1, None)
    desk.run(20.0)
    assert watch.phase is not Phase.ENDED
    assert desk.core.counters["watch_moves"] < 12, "it asks again each few seconds, not in a loop"
    plane.role_changed("leader", 2, "a")
    revision = desk.store("/k")
    desk.run(3.0)
    assert desk.revisions(watch) == [revision]


def say(desk: WatchDesk, **facts: dict[str, object]) -> None:
    """What these nodes say of themselves from now on, beside what they say anyway."""
    status = WatchDesk("ab").status
    desk.status = lambda name: status(name) | facts.get(name, {})  # type: ignore[method-assign]


def test_a_client_that_only_watches_hears_of_a_node_that_came_to_the_cluster_since() -> None:
    """It had asked that one once, when it was no member yet; and went back again and again to the node that
    was one then, and had left."""
    desk = WatchDesk("ab")
    say(desk, b={"member": "waiting"})
    watch = desk.established()
    desk.core.links.open_all(desk.now)
    desk.run(0.1)
    assert desk.place_of(watch) == "a"
    assert [link.is_member for link in desk.core.links.links] == [True, False]
    say(desk, a={"member": "removed"})
    desk.mute = {"a"}
    desk.run(2 * protocol.WATCH_SILENCE_SECONDS + 1.0)
    assert watch.phase is Phase.STREAMING and desk.place_of(watch) == "b"


def test_a_leader_that_was_no_member_when_it_was_asked_is_asked_again() -> None:
    """Another node had named it since. So nobody was looked for, and no node was of use."""
    desk = WatchDesk("ab")
    say(desk, a={"member": "waiting"}, b={"role": "follower", "leader": "a", "leader_client": "tcp://a:1"})
    watch = desk.established()
    assert desk.place_of(watch) == "b"
    links = desk.core.links
    leader = links.leader()
    assert leader is not None and leader.node == "a" and not leader.is_member
    say(desk)
    assert watch.subscriber is not None
    subscription, link = watch.subscriber.connection, watch.subscriber.link
    desk.core.on_lost(link.connection, desk.now)
    desk.lose_subscriber(subscription)
    desk.run(3.0)
    assert watch.phase is Phase.STREAMING


# ---------------------------------------------------------------- in a whole cluster


def test_a_voter_that_is_cut_off_falls_silent_to_its_watchers_and_speaks_again() -> None:
    cluster = MemoryCluster(seed=7)
    leader = cluster.leader()
    lone = next(name for name in cluster.names if name != leader)
    listeners = {
        name: cluster.network.connect_subscriber(f"ipc:///memory/{name}/watch") for name in (leader, lone)
    }
    for listener in listeners.values():
        listener.subscribe(TOPIC)
    cluster.run(1.0)

    def keep_apart(frame: MemoryFrame) -> None:
        if frame.plane != "peer" or (lone != frame.source and peer_of(lone) != frame.endpoint):
            cluster.network.deliver(frame)

    cluster.network.route = keep_apart
    cluster.run(ENOUGH_SECONDS + 2.0)
    for listener in listeners.values():
        listener.receive()
    cluster.run(2.0)
    assert len(listeners[leader].receive()) >= 3
    assert listeners[lone].receive() == []
    cluster.network.route = cluster.network.deliver
    cluster.run(3.0)
    assert listeners[lone].receive()


def test_a_learner_that_was_removed_while_it_was_down_hears_of_it_when_it_is_back() -> None:
    """It never campaigns, so nobody is asked for a vote and could say so; its clients would read and watch
    there for ever what was so once."""
    cluster = MemoryCluster(seed=32)
    cluster.leader()
    cluster.start_waiting("n4")
    cluster.change(AddMember("n4", peer_of("n4"), True), seconds=5.0)
    cluster.run(1.0)
    assert cluster.status("n4")["member"] == "learner"
    cluster.crash("n4")
    cluster.run(0.5)
    cluster.change(RemoveMember("n4", False))
    cluster.start("n4")
    listener = cluster.network.connect_subscriber("ipc:///memory/n4/watch")
    listener.subscribe(TOPIC)
    cluster.run(3.0)
    assert cluster.status("n4")["member"] == "removed"
    caller = cluster.client("n4")
    caller.ask(protocol.STALE_READ, [protocol.range_body(b"/a")])
    cluster.run(0.1)
    [refusal] = caller.replies()
    assert isinstance(refusal, Refusal) and refusal.code == protocol.NOT_MEMBER
    listener.receive()
    cluster.run(2.0)
    assert listener.receive() == []
    assert {name for name in cluster.names if cluster.status(name)["member"] == "removed"} == {"n4"}
