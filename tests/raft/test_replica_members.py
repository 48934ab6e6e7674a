"""Replicas that come, go and hand over, as a program of one's own asks for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actors import MemoryFrame
from raft.changes import Verb
from raft.errand import Errand
from raft.errors import (
    ConfigurationReason,
    ConfigurationRefused,
    NotApplied,
    NotLeader,
    OutcomeUnknown,
    ShuttingDown,
    TransferReason,
    TransferRefused,
)
from raft.membership import Configuration
from raft.proposer_actor import LINGER_SECONDS
from raft.ready import Role
from raft.replica import Hooks, Replica, ReplicaSettings
from raft.storage import MemoryStorage
from tests.raft.replicas import Adder, HandCluster

PATIENCE_SECONDS = 10.0


def voters(cluster: HandCluster, name: str) -> set[str]:
    return set(cluster.replicas[name].members.voters)


def test_a_replica_joins_catches_up_and_votes() -> None:
    cluster = HandCluster()
    cluster.finish(cluster.leader().propose(b"7"))
    cluster.start("n4")
    addition = cluster.leader().change(Verb.ADD_VOTER, "n4", addresses={"n4": cluster.members["n4"]})
    then = cluster.finish(addition)
    assert isinstance(then, Configuration)
    assert then.voters == {"n1", "n2", "n3", "n4"}
    cluster.run(0.2)
    assert all(voters(cluster, name) == {"n1", "n2", "n3", "n4"} for name in cluster.replicas)
    assert cluster.machines["n4"].total == 7
    for name in [name for name in ("n1", "n2", "n3") if name != cluster.leader().node_id][:1]:
        cluster.crash(name)  # three of four go on
    assert cluster.finish(cluster.leader().propose(b"1")) == b"8"


def test_the_whole_cluster_may_be_exchanged_one_by_one() -> None:
    cluster = HandCluster()
    cluster.finish(cluster.leader().propose(b"7"))
    for old, new in (("n1", "n4"), ("n2", "n5"), ("n3", "n6")):
        cluster.start(new)
        change = cluster.leader().change(
            Verb.REPLACE, old, new, addresses={new: cluster.members[new]}, timeout_seconds=20.0
        )
        try:
            cluster.finish(change)
        except OutcomeUnknown:  # the leader was the one who left
            assert cluster.run_until(lambda old=old, new=new: old not in voters(cluster, new))  # type: ignore[misc]
        cluster.run(0.5)
        cluster.replicas.pop(old).stop()
    assert voters(cluster, "n6") == {"n4", "n5", "n6"}
    assert cluster.finish(cluster.leader().propose(b"1")) == b"8"
    for name in ("n4", "n5", "n6"):  # what is in the log counts, not what they were made with
        cluster.crash(name)
        cluster.start(name)
    assert cluster.finish(cluster.leader().ask(b"")) == b"8"


def test_a_change_that_makes_no_sense_is_refused_with_its_reason() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    cluster.finish(leader.propose(b"7"))
    with pytest.raises(ConfigurationRefused) as refusal:
        cluster.finish(leader.change(Verb.REMOVE, "n9"))
    assert refusal.value.reason is ConfigurationReason.UNKNOWN_MEMBER
    follower = next(replica for replica in cluster.replicas.values() if replica is not leader)
    with pytest.raises(NotLeader) as redirection:
        cluster.finish(follower.change(Verb.REMOVE, "n1"))
    assert redirection.value.leader_id == leader.node_id


def test_leadership_is_handed_to_whom_is_named() -> None:
    cluster = HandCluster()
    first = cluster.leader()
    cluster.finish(first.propose(b"7"))
    target = next(name for name in cluster.members if name != first.node_id)
    before = cluster.clock.now()
    assert cluster.finish(first.transfer_leadership(target)) == target
    assert cluster.clock.now() - before < 0.1  # no election timeout had to pass
    assert cluster.leader().node_id == target
    with pytest.raises(TransferRefused) as refusal:
        cluster.finish(cluster.leader().transfer_leadership("n9"))
    assert refusal.value.reason is TransferReason.NOT_A_VOTER


def test_what_is_open_at_the_end_is_ended() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    cluster.cut_off.add(leader.node_id)
    begun = leader.change(Verb.REMOVE, next(name for name in cluster.members if name != leader.node_id))
    leader.turn()
    waiting = leader.transfer_leadership()
    leader.stop()
    with pytest.raises(OutcomeUnknown):
        begun.outcome()
    with pytest.raises(ShuttingDown):
        waiting.outcome()


def test_a_leader_that_is_stopped_hands_over_first(tmp_path: Path) -> None:
    members = {name: f"ipc://{tmp_path}/{name}" for name in ("n1", "n2", "n3")}
    roles: list[Role] = []
    settings = ReplicaSettings(election_timeout_seconds=0.5)
    replicas = {
        name: Replica(
            name,
            Adder(),
            members=members,
            storage=MemoryStorage(),
            settings=settings,
            hooks=Hooks(on_role=lambda change: roles.append(change.role)),
        ).start()
        for name in members
    }
    first = replicas.pop(replicas["n1"].wait_for_leader(PATIENCE_SECONDS))
    first.apply(b"7")
    term = first.term
    roles.clear()
    first.stop()
    second = leader_of(replicas, term + 1)
    assert Role.CANDIDATE in roles
    assert Role.PRE_CANDIDATE not in roles  # nobody had to find out by silence
    assert second.apply(b"1") == b"8"
    done = second.wait_for(second.change(Verb.REMOVE, first.node_id, force=True))
    assert isinstance(done, Configuration) and len(done.voters) == 2
    for replica in replicas.values():
        replica.stop()


def leader_of(replicas: dict[str, Replica], term: int) -> Replica:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for replica in replicas.values():
            if replica.is_leader and replica.term == term:
                return replica
        time.sleep(0.001)
    raise AssertionError(f"nobody leads in term {term}")


def test_a_replica_that_lost_its_directory_is_not_listened_to_under_its_old_name(tmp_path: Path) -> None:
    """It has forgotten what it voted for and acknowledged (a member with a new disk is a new member)."""
    members = {name: f"ipc://{tmp_path}/{name}.peer" for name in ("n1", "n2", "n3")}

    def start(name: str, directory: str) -> Replica:
        return Replica(name, Adder(), members=members, storage=tmp_path / directory).start()

    replicas = {name: start(name, name) for name in members}
    leader = replicas[replicas["n1"].wait_for_leader(PATIENCE_SECONDS)]
    leader.apply(b"7")
    lost, other = (name for name in members if name != leader.node_id)
    for name in members:  # all have heard of all
        assert replicas[name].read(b"", timeout_seconds=PATIENCE_SECONDS) == b"7"
    replicas.pop(lost).stop()
    stranger = replicas[lost] = start(lost, "a new disk")
    with pytest.raises(NotApplied):
        stranger.read(b"", timeout_seconds=0.5)
    assert leader.apply(b"1") == b"8"
    replicas.pop(other).stop()
    with pytest.raises((OutcomeUnknown, NotApplied)):  # what forgot everything counts for no majority
        leader.apply(b"1", timeout_seconds=0.5)
    for replica in replicas.values():
        replica.stop()


def test_who_has_left_is_disconnected_after_a_while() -> None:
    cluster = HandCluster()
    leader = cluster.leader()
    cluster.finish(leader.propose(b"7"))
    old = next(name for name in cluster.members if name != leader.node_id)
    cluster.finish(leader.change(Verb.REMOVE, old))
    sent: set[str] = set()
    deliver = cluster.network.deliver

    def listen(frame: MemoryFrame) -> None:
        if frame.source == leader.node_id:
            sent.add(frame.destination)
        deliver(frame)

    cluster.network.route = listen
    cluster.run(LINGER_SECONDS + 1.0)
    sent.clear()
    cluster.run(1.0)
    assert old not in sent and sent


def test_a_change_that_nobody_confirms_has_an_unknown_outcome_at_its_deadline() -> None:
    settings = ReplicaSettings(election_timeout_seconds=60.0, heartbeat_interval_seconds=0.05)
    cluster = HandCluster(size=2, settings=settings)
    assert cluster.run_until(lambda: any(r.is_leader for r in cluster.replicas.values()), seconds=130.0)
    leader = cluster.leader()
    cluster.finish(leader.propose(b"7"))
    cluster.cut_off.add(next(name for name in cluster.members if name != leader.node_id))
    ended: list[Errand] = []
    change = leader.change(
        Verb.ADD_LEARNER, "n9", addresses={"n9": "memory://n9"}, timeout_seconds=0.5, on_end=ended.append
    )
    with pytest.raises(OutcomeUnknown):
        cluster.finish(change)
    assert ended == [change]


def test_an_address_that_cannot_be_used_is_logged_and_ends_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members: list[Configuration] = []
    with Replica(
        "n1",
        Adder(),
        members={"n1": f"ipc://{tmp_path}/n1"},
        storage=MemoryStorage(),
        hooks=Hooks(on_members=members.append),
    ) as replica:
        replica.wait_for_leader(PATIENCE_SECONDS)
        replica.apply(b"7")
        change = replica.change(Verb.ADD_LEARNER, "n9", addresses={"n9": "nowhere"})
        replica.wait_for(change)
        assert replica.apply(b"1") == b"8"
        assert members[-1].learners == {"n9"}
    assert any("member_unreachable" in record.message for record in caplog.records)


def test_names_that_have_no_bytes_are_refused_at_once() -> None:
    """They could not even be told to the loop, which would end over it."""
    cluster = HandCluster()
    leader = cluster.leader()
    for nodes, addresses in ((["\ud800"], {}), (["n4"], {"n4": "\ud800"}), (["n" * 300], {})):
        with pytest.raises(ConfigurationRefused) as refusal:
            leader.change(Verb.ADD_LEARNER, *nodes, addresses=addresses)
        assert refusal.value.reason is ConfigurationReason.BAD_REQUEST
    with pytest.raises(ConfigurationRefused):
        leader.transfer_leadership("\ud800")
    assert cluster.finish(leader.propose(b"1")) == b"1"
