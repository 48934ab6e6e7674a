"""The cluster's own topic: at the client, over sockets, and in a cluster of which a member goes silent.

And what watchers hear of a leader that is cut off.
"""

from __future__ import annotations

import asyncio

from kvstore import protocol, watch_frames
from kvstore.client import AsyncClient, Client, ClusterEvent
from kvstore.client.watch import MAX_BATCHES, Phase
from kvstore.client.watched import ClusterWatch
from raft import Configuration
from tests.kvstore.fake_server import FakeCluster
from tests.kvstore.memory_cluster import MemoryCluster
from tests.kvstore.watch_desk import WatchDesk

MEMBERS = Configuration(["a", "b", "c"], [])


def watching(desk: WatchDesk) -> ClusterWatch:
    watch = ClusterWatch()
    desk.watches.start(watch, desk.now)
    desk.run(0.3)
    assert watch.is_established and watch.phase is Phase.STREAMING
    return watch


def lead(desk: WatchDesk, leader: str | None, term: int, names: str = "abc") -> None:
    for name in names:
        plane = desk.machines[name].watch_plane
        desk.publish(name, plane.role_changed("follower", term, leader))


def taken(watch: ClusterWatch) -> list[tuple[str, int, str]]:
    found = [tuple(event) for event in watch.events]
    watch.events.clear()
    return found  # type: ignore[return-value]


# ---------------------------------------------------------------- at the client


def test_who_leads_now_is_told_first_and_then_what_changes() -> None:
    desk = WatchDesk()
    lead(desk, "b", 3)
    watch = watching(desk)
    assert taken(watch) == [("leader_elected", 3, "b")]
    lead(desk, None, 4)
    lead(desk, "c", 4)
    for name in "abc":
        plane = desk.machines[name].watch_plane
        desk.publish(name, plane.members_changed(MEMBERS))
        desk.publish(name, plane.members_changed(Configuration(["a", "b", "c"], ["d"])))
        desk.publish(name, plane.health_changed(4, ["b"]))
        desk.publish(name, plane.health_changed(4, []))
    assert taken(watch) == [
        ("leader_lost", 4, ""),
        ("leader_elected", 4, "c"),
        ("member_added", 4, "d"),
        ("member_unhealthy", 4, "b"),
        ("member_healthy", 4, "b"),
    ]
    desk.run(2.0)
    assert taken(watch) == [], "heartbeats are no events"
    assert desk.core.counters["watch_silences"] == 0


def test_on_another_node_only_what_is_news_is_told() -> None:
    desk = WatchDesk()
    lead(desk, "b", 3)
    for name in "abc":
        plane = desk.machines[name].watch_plane
        plane.members_changed(MEMBERS)
        desk.publish(name, plane.health_changed(3, ["c"]))
    watch = watching(desk)
    assert taken(watch) == [("leader_elected", 3, "b"), ("member_unhealthy", 3, "c")]
    first = desk.place_of(watch)
    desk.lose_subscriber(desk.subscribers(first)[0])
    desk.run(0.5)
    assert desk.place_of(watch) != first and taken(watch) == []
    desk.lose_subscriber(desk.subscribers(desk.place_of(watch))[0])
    lead(desk, "c", 4)
    desk.run(0.5)
    assert taken(watch) == [("leader_elected", 4, "c")], "though it was elected when nobody listened"


def test_a_node_that_lags_does_not_bring_an_old_leader_back() -> None:
    desk = WatchDesk()
    lead(desk, "b", 3)
    watch = watching(desk)
    here = desk.place_of(watch)
    lead(desk, "c", 4, here)
    assert taken(watch) == [("leader_elected", 3, "b"), ("leader_elected", 4, "c")]
    desk.lose_subscriber(desk.subscribers(here)[0])
    desk.run(0.5)
    assert desk.place_of(watch) != here and taken(watch) == []


def test_a_silent_node_is_left() -> None:
    desk = WatchDesk()
    watch = watching(desk)
    here = desk.place_of(watch)
    desk.mute = {here}
    desk.run(3.5)
    assert desk.place_of(watch) != here
    assert desk.core.counters["watch_silences"] == 1


def test_events_that_nobody_takes_are_bounded() -> None:
    desk = WatchDesk()
    watch = watching(desk)
    for term in range(MAX_BATCHES + 10):
        lead(desk, "b", term + 1)
    assert [event.term for event in watch.events] == list(range(11, MAX_BATCHES + 11))


def test_a_watch_of_the_cluster_that_is_cancelled_leaves_nothing_behind() -> None:
    desk = WatchDesk()
    watch = watching(desk)
    desk.watches.cancel(watch)
    desk.run(0.1)
    assert desk.wire.topics == {} and watch.phase is Phase.ENDED


def test_garbage_on_the_cluster_topic_is_counted() -> None:
    desk = WatchDesk()
    watch = watching(desk)
    [number] = desk.subscribers(desk.place_of(watch))
    topic = protocol.CLUSTER_TOPIC
    event = watch_frames.encode_cluster_event("leader_elected", 3, "b")
    for parts in ([topic], [topic, b""], [topic, event, event], [topic, b"\x90"]):
        desk.watches.on_message(number, parts, desk.now)
    assert desk.core.counters["malformed_stream_messages"] == 4
    assert taken(watch) == []


# ---------------------------------------------------------------- over sockets


def test_both_clients_watch_the_cluster() -> None:
    async def follow(endpoints: list[str]) -> list[ClusterEvent]:
        async with AsyncClient(endpoints) as client, client.watch_cluster() as watch:
            return [await anext(watch)]

    with FakeCluster(3) as cluster:
        for node in cluster.nodes.values():
            node.machine.watch_plane.role_changed("follower", 3, "n2")
        with Client(cluster.endpoints) as client, client.watch_cluster() as watch:
            assert watch.next(5.0) == ("leader_elected", 3, "n2")
            assert watch.next(0.01) is None
            watch.cancel()
            assert list(watch) == []
        assert asyncio.run(follow(cluster.endpoints)) == [("leader_elected", 3, "n2")]


# ---------------------------------------------------------------- in a whole cluster


def test_every_node_tells_of_a_member_that_its_leader_does_not_hear() -> None:
    cluster = MemoryCluster(seed=5)
    leader = cluster.leader()
    silent, other = [name for name in cluster.names if name != leader]
    listeners = {
        name: cluster.network.connect_subscriber(f"ipc:///memory/{name}/watch") for name in (leader, other)
    }
    for listener in listeners.values():
        listener.subscribe(protocol.CLUSTER_TOPIC)
    cluster.run(1.0)
    cluster.crash(silent)
    cluster.run(5.0)
    cluster.start(silent)
    cluster.run(5.0)
    for name, listener in listeners.items():
        events = [watch_frames.decode_cluster_event(parts[1]) for parts in listener.receive()]
        about = [(event.name, event.node) for event in events if event.name.startswith("member")]
        assert about == [("member_unhealthy", silent), ("member_healthy", silent)], name


def test_no_event_of_what_is_not_committed_is_told() -> None:
    """A leader by itself proposes, syncs and waits; its watchers hear nothing of it, until others have it."""
    cluster = MemoryCluster(seed=6)
    leader = cluster.leader()
    listener = cluster.network.connect_subscriber(f"ipc:///memory/{leader}/watch")
    topic = watch_frames.stream_topic(b"/k/", b"/k0")
    listener.subscribe(topic)
    listener.subscribe(b"/k/")
    cluster.run(0.2)
    listener.receive()
    others = [name for name in cluster.names if name != leader]
    for name in others:
        cluster.crash(name)
    cluster.client(leader).ask(protocol.WRITE, [protocol.put_body(0, 0, 0, b"/k/a", b"v")])
    cluster.run(0.5)
    assert all(told_events(parts, topic) == 0 for parts in listener.receive())
    for name in others:
        cluster.start(name)
    cluster.run(5.0)
    cluster.client(cluster.leader()).ask(protocol.WRITE, [protocol.put_body(0, 0, 0, b"/k/b", b"v")])
    cluster.run(1.0)
    assert sum(told_events(parts, topic) for parts in listener.receive()) >= 2


def told_events(parts: list[bytes], topic: bytes) -> int:
    if parts[0] != topic:
        return 1
    return len(watch_frames.decode_stream_message(*parts[1:])[1])
