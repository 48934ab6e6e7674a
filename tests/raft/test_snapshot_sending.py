"""A leader that sends snapshots, and a node that decides when to take one and how far to compact."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from raft.errors import InvariantBroken
from raft.invariants import check_log
from raft.messages import (
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
)
from raft.progress import ProgressState
from raft.ready import Role
from tests.raft.network import drain, make_core
from tests.raft.snapshot_network import (
    BODIES,
    SMALL,
    SnapshotNetwork,
    behind,
    chunks_of,
    converge,
    fall_silent,
    find_out,
    install,
)

# -- the sender ------------------------------------------------------------------------------------------


def sent_offsets(network: SnapshotNetwork) -> list[int]:
    return [message.offset for message in network.sent(InstallSnapshot, "a", "c")]


def test_one_chunk_asks_and_then_a_window_of_them_is_on_the_way() -> None:
    network = behind()
    a = network["a"]
    a.progress["c"].become_probe(1)

    def chunks() -> list[tuple[int, bool]]:
        work = drain(a).snapshots
        return [] if work is None else [(each.offset, bool(each.configuration)) for _, each in work.chunks]

    assert chunks() == [(0, True)]
    a.step("c", HeartbeatResponse(1, 0))
    assert chunks() == [(0, True)]  # no answer yet, but a sign of life: it got lost
    a.step("c", InstallSnapshotResponse(1, 11, 40))
    assert chunks() == [(40, False), (60, False), (80, False)]
    a.step("c", InstallSnapshotResponse(1, 11, 60))
    assert chunks() == [(100, False)]
    a.step("c", InstallSnapshotResponse(1, 11, 40))  # late
    assert chunks() == []
    a.step("c", HeartbeatResponse(1, 0))
    assert chunks() == []  # answers are coming in
    a.step("c", HeartbeatResponse(1, 0))
    assert chunks() == [(60, False)]
    a.step("c", InstallSnapshotResponse(1, 11, 0))  # it was restarted
    assert chunks() == [(0, True), (20, False), (40, False)]


def test_others_are_served_while_a_snapshot_is_sent() -> None:
    network = behind()
    find_out(network)
    for number in range(3):
        network.cores["a"].propose([b"%d" % number])
        network.pump(2)
    assert network["a"].progress["c"].state is ProgressState.SNAPSHOT
    assert network["a"].commit_index >= 13 and len(network.applied["b"]) >= 12


def test_lost_chunks_are_sent_again_after_a_heartbeat() -> None:
    """Every chunk on the way is lost, twice; then the transfer goes on where the peer is."""
    network = behind()
    find_out(network)
    network.pump(3)
    for _ in range(10):
        network.are_chunks_lost = True
        network.cores["a"].heartbeat()
        network.pump()
    assert network["a"].progress["c"].state is ProgressState.SNAPSHOT
    network.are_chunks_lost = False
    for _ in range(3):
        network.beat("a")
    assert network.applied["c"] == network.applied["a"]


@pytest.mark.parametrize("rounds", range(2, 16))
def test_the_receiver_is_restarted_in_the_middle(rounds: int) -> None:
    """It has forgotten what it received, says so, and is sent all of it again."""
    network = behind()
    find_out(network)
    network.pump(rounds)
    network.restart("c")
    converge(network)


@pytest.mark.parametrize("rounds", range(2, 12, 2))
def test_the_leader_changes_in_the_middle(rounds: int) -> None:
    network = behind()
    network.snapshot("b")
    find_out(network)
    network.pump(rounds)
    network.isolate("a")
    network.elect("b")
    network.heal()
    converge(network)
    shared = [m for m in network.sent(InstallSnapshot, "b", "c") if m.offset == 0]
    assert len(shared) <= 1


def test_late_answers_of_an_earlier_transfer_move_nothing() -> None:
    network = behind()
    find_out(network)
    network.pump()
    a = network["a"]
    sender = a.progress["c"].sender
    assert sender is not None
    a.step("c", InstallSnapshotResponse(1, 5, 40))
    assert not sender.wants_chunk()
    a.step("c", InstallSnapshotResponse(1, 11, 1 << 40))
    drain(a)
    assert sender.wants_chunk() is False


# -- when to take one, and how far to compact ------------------------------------------------------------


def test_a_snapshot_is_due_when_the_log_is_long_and_half_as_large_as_the_last_one() -> None:
    """Dissertation 5.1.3; and whatever the count, when it is too large to be kept."""
    config = replace(SMALL, snapshot_interval_entries=5, max_log_bytes=2000)
    network = SnapshotNetwork("a", config=config)
    network.elect("a")
    snapshots = network["a"].snapshots
    network.propose("a", *BODIES[:3])
    assert not snapshots.is_due()
    network.propose("a", b"x")
    assert snapshots.is_due()
    network.propose("a", bytes(300))
    meta = network.snapshot("a")
    assert meta.size_bytes > 300 and not snapshots.is_due()
    network.propose("a", *BODIES[:6])
    assert snapshots.log_bytes < meta.size_bytes / 2
    assert not snapshots.is_due()  # six entries are less than half of its bytes
    network.propose("a", bytes(meta.size_bytes // 2))
    assert snapshots.log_bytes < meta.size_bytes
    assert snapshots.is_due()
    network.snapshot("a")
    network.propose("a", bytes(2000))
    assert snapshots.is_due()  # one entry


def test_none_is_due_while_a_leader_is_about_to_replace_everything() -> None:
    config = replace(SMALL, snapshot_interval_entries=1)
    core = make_core(log=[1, 1, 1], commit_index=3, config=config)
    drain(core)
    assert core.snapshots.is_due()
    install(core, chunks_of([1, 1, 1, 1, 2], term=4)[:2])
    assert not core.snapshots.is_due()


def test_trailing_entries_stay_and_what_live_peers_need_but_no_more_than_since_the_snapshot_before() -> None:
    config = replace(SMALL, trailing_entries=3)
    network = SnapshotNetwork(config=config)
    network.elect("a")
    network.propose("a", *BODIES)
    network.beat("a")
    network.snapshot("a")
    a = network["a"]
    assert a.log.first_index == 9  # 8 = 11 - 3 and all before it went
    network.isolate("c")
    network.propose("a", *BODIES)
    network.snapshot("a")
    assert a.log.first_index == 12  # c was heard not long ago, and has 11
    network.propose("a", *BODIES)
    network.snapshot("a")
    assert a.log.first_index == 22  # 21 is where the snapshot before was
    fall_silent(network)
    network.propose("a", *BODIES)
    network.snapshot("a")
    assert a.log.first_index == 39  # c is silent: nothing is kept for it
    with pytest.raises(InvariantBroken, match="no snapshot stands"):
        a.compact(42)


def test_a_snapshot_that_is_being_sent_is_in_use_until_its_peer_has_it() -> None:
    network = behind()
    find_out(network)
    a = network["a"]
    assert a.snapshots.in_use(a.progress) == frozenset({11})
    network.cores["a"].propose([b"x"])
    while len(network.applied["a"]) == 11:
        network.pump()
    network.snapshot("a")
    assert a.snapshots.in_use(a.progress) == frozenset({11})
    assert network.storages["a"].read_snapshot(11, 0, 1)
    converge(network)
    assert a.snapshots.in_use(a.progress) == frozenset()


# -- everything at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_random_snapshots_losses_restarts_and_elections(seed: int) -> None:
    """Every node applies one and the same history, whatever is lost, and all agree in the end."""
    chance = Random(seed)
    config = replace(
        SMALL, snapshot_chunk_bytes=chance.choice([10, 60, 1000]), trailing_entries=chance.choice([0, 3])
    )
    network = SnapshotNetwork(config=config)
    network.elect("a")
    history: list[object] = []
    for step in range(150):
        name = chance.choice("abc")
        core = network[name]
        action = chance.randrange(12)
        if action < 4 and core.role is Role.LEADER:
            core.propose([b"%d" % step] * chance.randrange(1, 4))
        elif action == 4 and len(network.applied[name]) > core.snapshots.index:
            network.snapshot(name)
        elif action == 5:
            network.restart(name)
        elif action == 6:
            for each in network.cores.values():
                each.leader_silent()
            core.campaign()
        elif action == 7:
            network.heal() if network.cut_links else network.isolate(name)
        elif action == 8:
            network.mail = [mail for mail in network.mail if chance.random() < 0.7]
        elif action == 9:
            chance.shuffle(network.mail)
        core.heartbeat()
        network.pump()
        for applied in network.applied.values():
            shared = min(len(applied), len(history))
            assert applied[:shared] == history[:shared]
            history += applied[shared:]
    network.heal()
    network.settle()
    for name in "abc":
        if not any(core.role is Role.LEADER for core in network.cores.values()):
            for core in network.cores.values():
                core.leader_silent()
            network[name].campaign()
            network.settle()
    converge(network)
    for core in network.cores.values():
        check_log(core)
