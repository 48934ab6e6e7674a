"""A replica on a thread of its own, over real sockets and a real disk: what blocks, and what is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import EndpointUnusable
from raft.errors import NotApplied, NotLeader, OutcomeUnknown, ShuttingDown
from raft.life import Command
from raft.replica import MOST_COMMAND_BYTES, Hooks, Replica, ReplicaSettings
from raft.storage import DirectoryInUse, MemoryStorage
from tests.raft.replicas import Adder

PATIENCE_SECONDS = 10.0


class Trio:
    """Three replicas on ipc sockets and write-ahead logs below `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = {name: f"ipc://{path}/{name}.peer" for name in ("n1", "n2", "n3")}
        self.replicas = {name: self.make(name).start() for name in self.members}

    def make(self, name: str) -> Replica:
        return Replica(name, Adder(), members=self.members, storage=self.path / name)

    def leader(self) -> Replica:
        return self.replicas[next(iter(self.replicas.values())).wait_for_leader(PATIENCE_SECONDS)]


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Trio]:
    found = Trio(tmp_path)
    yield found
    for replica in found.replicas.values():
        replica.stop()


def test_apply_returns_the_answer_and_any_replica_reads_it(trio: Trio) -> None:
    assert trio.leader().apply(b"5", timeout_seconds=PATIENCE_SECONDS) == b"5"
    for replica in trio.replicas.values():
        assert replica.read(b"", timeout_seconds=PATIENCE_SECONDS) == b"5"


def test_threads_may_apply_side_by_side(trio: Trio) -> None:
    leader = trio.leader()
    threads = [threading.Thread(target=lambda: [leader.apply(b"1") for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert leader.read(b"") == b"100"


def test_callbacks_run_on_the_thread_of_the_loop_and_must_not_wait_for_it(trio: Trio) -> None:
    leader = trio.leader()
    seen: list[object] = []
    done = threading.Event()

    def look(command: Command) -> None:
        seen.append(threading.current_thread().name)
        try:
            leader.apply(b"1")
        except AssertionError as error:
            seen.append(str(error))
        done.set()

    leader.propose(b"1", on_applied=look)
    assert done.wait(PATIENCE_SECONDS)
    assert seen == [f"replica-{leader.node_id}", "a callback must not wait for the loop that runs it"]


def test_a_follower_does_not_apply_and_says_who_does(trio: Trio) -> None:
    leader = trio.leader()
    follower = next(replica for replica in trio.replicas.values() if replica is not leader)
    assert follower.wait_for_leader(PATIENCE_SECONDS) == leader.node_id
    with pytest.raises(NotLeader) as refusal:
        follower.apply(b"1")
    assert refusal.value.leader_id == leader.node_id


def test_a_replica_that_comes_back_has_what_was_applied(trio: Trio) -> None:
    name = trio.leader().node_id
    assert trio.replicas[name].apply(b"5") == b"5"
    trio.replicas.pop(name).stop()
    again = trio.replicas[name] = trio.make(name).start()
    assert again.read(b"", timeout_seconds=PATIENCE_SECONDS) == b"5"


def test_a_directory_belongs_to_one_replica_at_a_time(trio: Trio) -> None:
    with pytest.raises(DirectoryInUse):
        trio.make("n1")
    trio.replicas.pop("n1").stop()
    trio.replicas["n1"] = trio.make("n1").start()


def test_without_a_majority_apply_gives_up_at_its_deadline_with_an_open_outcome(trio: Trio) -> None:
    leader = trio.leader()
    leader.apply(b"1")
    for name in [name for name in trio.replicas if name != leader.node_id]:
        trio.replicas.pop(name).stop()
    with pytest.raises((OutcomeUnknown, NotLeader)):
        leader.apply(b"1", timeout_seconds=0.1)
    with pytest.raises(NotApplied):
        leader.read(b"", timeout_seconds=0.3)


def test_a_failed_machine_stops_its_replica_and_frees_its_directory(tmp_path: Path) -> None:
    members = {"n1": f"ipc://{tmp_path}/n1.peer"}
    ended: list[BaseException | None] = []
    replica = Replica(
        "n1", Adder(), members=members, storage=tmp_path / "n1", hooks=Hooks(on_stop=ended.append)
    )
    with replica:
        replica.wait_for_leader(PATIENCE_SECONDS)
        with pytest.raises(OutcomeUnknown):
            replica.apply(b"boom")
        with pytest.raises(ShuttingDown):
            replica.apply(b"1")
    assert [type(failure) for failure in ended] == [RuntimeError]
    with pytest.raises(RuntimeError, match="the machine broke"):  # it is in the log, and breaks it again
        again = Replica("n1", Adder(), members=members, storage=tmp_path / "n1")
        while True:
            again.turn(0.1)


def test_a_stop_before_the_start_gives_everything_back(tmp_path: Path) -> None:
    members = {"n1": f"ipc://{tmp_path}/n1.peer"}
    Replica("n1", Adder(), members=members, storage=tmp_path / "n1").stop()
    with Replica("n1", Adder(), members=members, storage=tmp_path / "n1") as replica:
        assert replica.wait_for_leader(PATIENCE_SECONDS) == "n1"


def test_to_wait_without_a_thread_is_a_mistake_that_is_told(tmp_path: Path) -> None:
    members = {"n1": f"ipc://{tmp_path}/n1.peer"}
    replica = Replica("n1", Adder(), members=members, storage=MemoryStorage())
    with pytest.raises(AssertionError, match="start"):
        replica.apply(b"1")
    replica.stop()


def test_an_endpoint_that_cannot_be_bound_is_told_and_the_directory_is_free_again(tmp_path: Path) -> None:
    with pytest.raises(EndpointUnusable):
        Replica("n1", Adder(), members={"n1": "tcp://256.256.256.256:1"}, storage=tmp_path / "n1")
    Replica("n1", Adder(), members={"n1": f"ipc://{tmp_path}/n1.peer"}, storage=tmp_path / "n1").stop()


def test_a_local_read_needs_nobody_and_a_loop_that_is_busy_leaves_the_outcome_open(trio: Trio) -> None:
    leader = trio.leader()
    leader.apply(b"5")
    assert leader.read_local(b"") == b"5"
    stuck = threading.Event()

    def wait(command: Command) -> None:
        stuck.wait(PATIENCE_SECONDS)

    leader.propose(b"1", on_applied=wait)
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        leader.apply(b"1", timeout_seconds=0.05)
    with pytest.raises(NotApplied):
        leader.read(b"", timeout_seconds=0.05)
    assert time.monotonic() - started < 3.0
    stuck.set()


def test_a_callback_may_stop_its_replica(tmp_path: Path) -> None:
    members = {"n1": f"ipc://{tmp_path}/n1.peer"}
    ended = threading.Event()
    hooks = Hooks(on_stop=lambda _: ended.set())
    replica = Replica("n1", Adder(), members=members, storage=MemoryStorage(), hooks=hooks).start()
    replica.wait_for_leader(PATIENCE_SECONDS)
    replica.propose(b"1", on_applied=lambda _: replica.stop())
    assert ended.wait(PATIENCE_SECONDS)
    replica.stop()  # again, from here: it waits for the thread
    with pytest.raises(NotLeader):
        replica.wait_for_leader(0.0)


def test_the_largest_commands_pass_sockets_and_disks(tmp_path: Path) -> None:
    members = {name: f"ipc://{tmp_path}/{name}.peer" for name in ("n1", "n2", "n3")}
    settings = ReplicaSettings(max_command_bytes=MOST_COMMAND_BYTES, election_timeout_seconds=1.0)
    machines = {name: Adder() for name in members}
    replicas = {
        name: Replica(
            name, machines[name], members=members, storage=tmp_path / name, settings=settings
        ).start()
        for name in members
    }
    leader = replicas[replicas["n1"].wait_for_leader(PATIENCE_SECONDS)]
    largest = b" " * (MOST_COMMAND_BYTES - 1) + b"1"
    assert [leader.apply(largest, timeout_seconds=PATIENCE_SECONDS) for _ in range(2)] == [b"1", b"2"]
    for replica in replicas.values():
        assert replica.read(b"", timeout_seconds=PATIENCE_SECONDS) == b"2"
    for replica in replicas.values():
        replica.stop()
