"""Watches on a desk: the client's watches and nodes' real watch planes, no sockets, a clock set by hand.

Every turn carries everything both ways, except what the test has said is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import msgpack

from kvstore import protocol
from kvstore.client.results import WatchBatch
from kvstore.client.watch import Phase, Watch, Watches
from kvstore.history import MAX_SCANNED_VERSIONS
from kvstore.state_machine import StoreMachine
from kvstore.watch_plane import WatchPlane
from tests.kvstore.fake_wire import Desk, Sent

Frame = list[bytes]
STEP_SECONDS = 0.01


class WatchDesk(Desk):
    """Nodes a, b, c, each with a replica of its own."""

    def __init__(self, names: str = "abc", *, max_scanned_versions: int = MAX_SCANNED_VERSIONS) -> None:
        super().__init__(names)
        self.watches = Watches(self.core, self.wire)
        self.names = names
        self.max_scanned_versions = max_scanned_versions
        self.log: list[bytes] = []
        self.incarnations = 0
        self.machines = {name: self.new_machine() for name in names}
        self.lagging: set[str] = set()
        self.mute: set[str] = set()  # their watch planes publish to nobody
        self.lost: Callable[[Frame], bool] = lambda _: False
        self.holds_answers = False  # histories wait to be answered
        self.known: dict[int, set[bytes]] = {}  # subscriptions that the nodes have seen, by connection

    def new_machine(self) -> StoreMachine:
        self.incarnations += 1
        return StoreMachine(WatchPlane(self.incarnations), max_scanned_versions=self.max_scanned_versions)

    # -- the store ---------------------------------------------------------------------------------------

    def store(self, key: str, value: str | bytes = b"v") -> int:
        data = value.encode() if isinstance(value, str) else value
        return self._commit(protocol.put_body(0, 0, 0, key.encode(), data))

    def remove_prefix(self, prefix: str) -> int:
        return self._commit(protocol.delete_body(0, 0, 0, *protocol.prefix_range(prefix.encode())))

    def _commit(self, body: bytes) -> int:
        self.log.append(body)
        for name in self.names:
            self.catch_up(name)
        return max(machine.revision for machine in self.machines.values())

    def compact(self, revision: int, names: str = "abc") -> None:
        for name in names:
            self.machines[name]._store.compact(revision)

    def catch_up(self, name: str) -> None:
        machine = self.machines[name]
        if name not in self.lagging and machine.applied_index < len(self.log):
            machine.apply(machine.applied_index + 1, self.log[machine.applied_index :])
            self.publish(name, machine.watch_plane.announcements())

    def renew_streams(self, name: str) -> None:
        machine = self.machines[name]
        self.incarnations += 1
        plane = WatchPlane(self.incarnations)
        plane.revision = machine.revision
        machine.watch_plane = plane
        topics = {topic for number in self.subscribers(name) for topic in self.known.get(number, set())}
        self.publish(name, plane.subscribed([b"\x01" + topic for topic in topics]))

    def restart(self, name: str) -> None:
        """The replica is made again from the log; its streams are new ones."""
        for number in self.subscribers(name):
            self.lose_subscriber(number)
        self.machines[name] = self.new_machine()
        self.catch_up(name)

    # -- the watch planes --------------------------------------------------------------------------------

    def subscribers(self, name: str) -> list[int]:
        return [number for number in self.wire.topics if self.wire.endpoints[number] == f"tcp://{name}:2"]

    def place_of(self, watch: Watch) -> str:
        assert watch.subscriber is not None
        return watch.subscriber.link.endpoint.removeprefix("tcp://")[0]

    def lose_subscriber(self, number: int) -> None:
        self.known.pop(number, None)
        self.watches.on_lost(number, self.now)

    def publish(self, name: str, frames: list[Frame]) -> None:
        for frame in frames:
            if name in self.mute or self.lost(frame):
                continue
            for number in self.subscribers(name):
                if frame[0] in self.known.get(number, set()):
                    self.watches.on_message(number, frame, self.now)

    def _subscriptions(self, name: str) -> None:
        plane = self.machines[name].watch_plane
        for number in self.subscribers(name):
            known = self.known.setdefault(number, set())
            for topic in sorted(self.wire.topics[number] - known):
                known.add(topic)
                self.publish(name, plane.subscribed([b"\x01" + topic]))
            for topic in sorted(known - self.wire.topics[number]):
                known.remove(topic)
                plane.subscribed([b"\x00" + topic])
        for number in set(self.known) - set(self.wire.topics):
            del self.known[number]

    # -- turns -------------------------------------------------------------------------------------------

    def turn(self) -> None:
        core, watches = self.core, self.watches
        watches.on_time(self.now)
        core.on_time(self.now)
        for name in self.names:
            self._subscriptions(name)
            self.publish(name, self.machines[name].watch_plane.heartbeats(self.now))
        kinds = (protocol.STATUS,) if self.holds_answers else (protocol.STATUS, protocol.STALE_READ)
        for sent in self.take(*kinds):
            if sent.connection in self.wire.endpoints:
                self.answer(sent)
        watches.on_time(self.now)
        core.flush(self.now)

    def answer(self, sent: Sent) -> None:
        name = self.name_of(sent)
        self.core.on_connected(sent.connection, self.now)
        if sent.kind == protocol.STATUS:
            self.reply(sent, [protocol.OK, self.status(name)])
            return
        bodies = [msgpack.packb(body) for body in sent.bodies]
        results = self.machines[name].query(bodies)
        frame = protocol.encode_results(sent.first_request_id, len(results), b"".join(results))
        self.receive(sent.connection, frame)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.turn()
            self.now += STEP_SECONDS
        self.turn()

    # -- consumers ---------------------------------------------------------------------------------------

    def watch(
        self, prefix: str = "/", start_revision: int = 0, *, progress: bool = False, **options: bool
    ) -> Watch:
        span = protocol.prefix_range(prefix.encode())
        watch = Watch(span[0], span[1], start_revision, progress=progress, **options)
        self.watches.start(watch, self.now)
        return watch

    def established(
        self, prefix: str = "/", start_revision: int = 0, *, progress: bool = False, **options: bool
    ) -> Watch:
        watch = self.watch(prefix, start_revision, progress=progress, **options)
        self.run(0.3)
        assert watch.phase is Phase.STREAMING
        return watch

    def taken(self, watch: Watch) -> list[WatchBatch]:
        batches = []
        while (batch := self.watches.take(watch, self.now)) is not None:
            batches.append(batch)
        return batches

    def revisions(self, watch: Watch) -> list[int]:
        return [batch.revision for batch in self.taken(watch)]
