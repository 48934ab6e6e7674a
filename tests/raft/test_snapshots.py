"""Snapshots between cores (Raft §7, figures 12, 13): taken, sent in chunks, installed, compacted behind."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from raft.config import RaftConfig
from raft.core import Core
from raft.entries import EntryBatch, HardState, SnapshotMeta
from raft.errors import InvariantBroken
from raft.invariants import check_log
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    RequestVote,
    VoteResponse,
)
from raft.progress import ProgressState
from raft.ready import Ready, Role
from raft.storage import MemoryStorage, Recovered
from tests.raft.network import drain, entries_of, make_core, outgoing
from tests.raft.snapshot_network import SMALL, SnapshotNetwork

BODIES = [b"%02d" % number for number in range(10)]


def behind(config: RaftConfig = SMALL) -> SnapshotNetwork:
    """a leads; c missed ten entries, and a has compacted them."""
    network = SnapshotNetwork(config=config)
    network.elect("a")
    network.isolate("c")
    network.propose("a", *BODIES)
    fall_silent(network)
    network.snapshot("a")
    network.heal()
    return network


def fall_silent(network: SnapshotNetwork) -> None:
    """For two election timeouts the leader a does not hear c."""
    for _ in range(2):
        network["a"].check_quorum()
        network.beat("a")


def find_out(network: SnapshotNetwork) -> None:
    """c hears of the leader, and the leader of what c needs."""
    for _ in range(3):
        network.cores["a"].heartbeat()
        network.pump(2)
        if network["a"].progress["c"].state is ProgressState.SNAPSHOT:
            return
    raise AssertionError("c needs no snapshot")


def converge(network: SnapshotNetwork) -> None:
    leaders = [name for name, core in network.cores.items() if core.role is Role.LEADER]
    leader = max(leaders, key=lambda name: network[name].term)
    for _ in range(30):
        network.beat(leader)
    states = {name: tuple(network.applied[name]) for name in network.cores}
    assert len(set(states.values())) == 1, {name: len(state) for name, state in states.items()}


# -- the whole way ---------------------------------------------------------------------------------------


def test_a_slow_follower_is_sent_the_snapshot_and_then_appends() -> None:
    """Raft §7: what a peer needs and the leader has discarded."""
    network = behind()
    assert network["a"].log.first_index == 12
    network.beat("a")
    assert network.applied["c"] == network.applied["a"]
    assert network.sent(InstallSnapshot, "a", "c")
    progress = network["a"].progress["c"]
    assert (progress.state, progress.match_index) == (ProgressState.REPLICATE, 11)
    assert (network["c"].log.first_index, network["c"].log.snapshot_term) == (12, 1)
    assert network["c"].configuration == network["a"].configuration
    network.propose("a", b"more")
    network.beat("a")
    assert [body for _, _, body in network.applied["c"]][-1] == b"more"
    for core in network.cores.values():
        check_log(core)


def test_the_snapshot_replaces_the_prefix_and_keeps_its_last_index_and_term() -> None:
    """Raft figure 12."""
    network = behind()
    log = network["a"].log
    assert (log.snapshot_index, log.snapshot_term, log.last_index) == (11, 1, 11)
    assert (log.term_at(11), log.term_at(10)) == (1, None)
    network.propose("a", b"x")
    assert (log.first_index, log.last_index) == (12, 12)


def test_all_restart_from_their_snapshots_alone() -> None:
    """The configuration comes from there too, and nothing is applied twice."""
    network = SnapshotNetwork()
    network.elect("a")
    network.propose("a", *BODIES)
    network.beat("a")
    for name in "abc":
        network.snapshot(name)
    before = network.applied["a"]
    for name in "abc":
        network.restart(name)
        core = network[name]
        assert (core.commit_index, core.delivered_index, core.log.first_index) == (11, 11, 12)
        assert (
            core.configuration == Configuration("abc") and core.committed_configuration == core.configuration
        )
        assert network.applied[name] == before
    network.elect("b")
    network.propose("b", b"more")
    converge(network)
    assert len(network.applied["a"]) == 13


def test_a_node_that_knows_no_cluster_learns_its_members_from_the_snapshot() -> None:
    network = behind()
    network.disks["c"] = type(network.disks["c"])()
    configuration, network.configuration = network.configuration, Configuration()
    network.start("c")
    assert network["c"].configuration == Configuration()
    network.beat("a")
    network.beat("a")
    assert network["c"].configuration == configuration
    assert network.applied["c"] == network.applied["a"]


def test_a_follower_that_needs_a_snapshot_again_while_it_receives_one_still_catches_up() -> None:
    """Under load the leader compacts once more during the transfer: no loop of probe and snapshot."""
    network = behind()
    find_out(network)
    snapshots = 0
    for number in range(40):
        network.cores["a"].propose([b"load %d" % number])
        network.pump()
        if number % 4 == 3 and len(network.applied["a"]) > network["a"].snapshots.index:
            network.snapshot("a")
            snapshots += 1
        network.cores["a"].heartbeat()
    assert snapshots > 5
    assert network["a"].progress["c"].state is ProgressState.REPLICATE
    converge(network)
    assert len({message.index for message in network.sent(InstallSnapshot, "a", "c")}) <= 3


# -- what the receiver does with one message -------------------------------------------------------------

WHO = Configuration("abc").encode()


def snapshot_of(terms: list[int]) -> tuple[SnapshotMeta, bytes]:
    storage = MemoryStorage(Recovered(HardState(terms[-1], None, 0), 1, entries_of(terms)))
    data = EntryBatch(1, entries_of(terms)).encode()
    storage.begin_snapshot(len(terms), terms[-1], WHO)
    storage.append_snapshot(data)
    return storage.commit_snapshot(replaces_log=False), data


def chunks_of(terms: list[int], term: int, size: int = 30) -> list[InstallSnapshot]:
    meta, data = snapshot_of(terms)
    return [
        InstallSnapshot(
            term,
            meta.index,
            meta.term,
            meta.configuration if not at else b"",
            at,
            meta.size_bytes,
            meta.checksum,
            data[at : at + size],
        )
        for at in range(0, len(data), size)
    ]


def install(core: Core, chunks: list[InstallSnapshot]) -> Ready:
    """All chunks from b, in one turn."""
    for chunk in chunks:
        core.step("b", chunk)
    return drain(core)


def offsets(ready: Ready) -> list[int]:
    return [message.offset for message in outgoing(ready, InstallSnapshotResponse)]


def test_a_snapshot_of_an_old_term_is_refused() -> None:
    """Raft figure 13, rule 1."""
    core = make_core(term=5)
    chunks = chunks_of([1, 2], term=4)
    ready = install(core, chunks)
    assert outgoing(ready, InstallSnapshotResponse) == [InstallSnapshotResponse(5, 2, 0)] * len(chunks)
    assert ready.snapshots is None


def test_chunks_are_written_where_they_belong_and_acknowledged() -> None:
    """Raft figure 13, rules 2 to 4: a new one at offset 0, data at its offset, an answer to each."""
    core = make_core(term=4)
    chunks = chunks_of([1, 2, 3], term=4)
    for chunk in chunks[:-1]:
        core.step("b", chunk)
        ready = drain(core)
        assert offsets(ready) == [chunk.offset + 30]
        assert ready.snapshots is not None and ready.snapshots.installed is None
        assert [(part.offset, part.data) for part in ready.snapshots.received] == [(chunk.offset, chunk.data)]
        assert core.commit_index == 0


def test_the_last_chunk_installs_and_is_acknowledged_only_after_the_sync() -> None:
    """Raft figure 13, rules 5, 7 and 8."""
    core = make_core(term=4)
    ready = install(core, chunks_of([1, 2, 3], term=4))
    assert ready.snapshots is not None and ready.snapshots.installed is not None
    assert ready.snapshots.installed.index == 3
    assert ("b", AppendResponse(4, 3)) in ready.messages_after_sync
    assert not [message for _, message in ready.messages if isinstance(message, AppendResponse)]
    assert (core.commit_index, core.last_index, core.log.last_term) == (3, 3, 3)
    assert core.configuration == Configuration("abc")


def test_a_log_with_the_last_entry_of_the_snapshot_keeps_what_follows() -> None:
    """Raft figure 13, rule 6: and it needs no further chunk."""
    core = make_core(log=[1, 1, 2, 2, 2])
    ready = install(core, chunks_of([1, 1, 2], term=4)[:1])
    assert ready.snapshots is None
    assert (core.last_index, core.commit_index) == (5, 3)
    assert outgoing(ready, AppendResponse) == [AppendResponse(4, 3)]


def test_a_log_that_conflicts_is_discarded() -> None:
    """Raft figure 13, rule 7: longer than the snapshot, and yet of another history."""
    core = make_core(log=[1, 1, 1, 1, 1], commit_index=1)
    ready = install(core, chunks_of([1, 2, 2], term=4))
    assert ready.snapshots is not None and ready.snapshots.installed is not None
    assert (core.last_index, core.commit_index, core.log.last_term) == (3, 3, 2)
    assert ready.batch is None and not core.log.has_unpersisted()


def test_a_stale_snapshot_is_acknowledged_with_the_commit_index_and_changes_nothing() -> None:
    core = make_core(log=[1, 1, 2, 2, 2], commit_index=4)
    drain(core)
    ready = install(core, chunks_of([1, 1, 2], term=4)[-1:])
    assert outgoing(ready, AppendResponse) == [AppendResponse(4, 4)]
    assert ready.snapshots is None and (core.last_index, core.commit_index) == (5, 4)
    with pytest.raises(InvariantBroken, match="of the past"):
        core.restore(snapshot_of([1, 1, 2])[0], Configuration("abc"))


@pytest.mark.parametrize("seed", range(20))
def test_chunks_in_any_order_and_number(seed: int) -> None:
    """Late, early and repeated ones are answered with the offset that is wanted; the whole is checked."""
    chance = Random(seed)
    core = make_core(term=4)
    chunks = chunks_of([1, 2, 3, 3, 3], term=4, size=chance.choice([7, 30, 1000]))
    storage, installed = MemoryStorage(), False
    for _ in range(3000):
        core.step("b", chance.choice(chunks))
        ready = drain(core)
        if ready.snapshots is not None:
            for meta, offset, data in ready.snapshots.received:
                if offset == 0:
                    storage.begin_snapshot(meta.index, meta.term, meta.configuration)
                storage.append_snapshot(data)
            if ready.snapshots.installed is not None:
                assert storage.commit_snapshot(replaces_log=True) == ready.snapshots.installed
                installed = True
                break
    assert installed
    assert EntryBatch.decode(storage.read_snapshot(5, 0, 10_000)).entries == entries_of([1, 2, 3, 3, 3])


def test_a_chunk_too_early_is_not_written() -> None:
    core = make_core(term=4)
    chunks = chunks_of([1, 2, 3], term=4)
    assert offsets(install(core, [chunks[1]])) == [0]
    assert offsets(install(core, [chunks[0], chunks[2], chunks[0]])) == [30, 30, 30]


def test_a_chunk_of_another_snapshot_is_not_mixed_in() -> None:
    """Two transfers close together: the newer one is received, and late chunks of the older one ignored."""
    core = make_core(term=4)
    older, newer = chunks_of([1, 2, 3], term=4), chunks_of([1, 2, 3, 3], term=4)
    install(core, older[:1])
    assert offsets(install(core, newer[1:2])) == [0]  # it is not begun in the middle
    assert offsets(install(core, newer[:2])) == [30, 60]
    ignored = core.ignored_messages
    assert offsets(install(core, older)) == []
    assert core.ignored_messages == ignored + len(older)
    ready = install(core, newer[2:])
    assert ready.snapshots is not None and ready.snapshots.installed is not None
    assert core.commit_index == 4


def test_a_new_leader_may_begin_an_older_one() -> None:
    core = make_core(term=4)
    install(core, chunks_of([1, 2, 3, 3], term=4)[:2])
    for chunk in chunks_of([1, 2, 3], term=5):
        core.step("c", chunk)
    drain(core)
    assert core.commit_index == 3


def test_a_new_leader_goes_on_where_the_old_one_was_if_it_has_the_very_same_snapshot() -> None:
    core = make_core(term=4)
    install(core, chunks_of([1, 2, 3], term=4)[:2])
    again = chunks_of([1, 2, 3], term=5)
    core.step("c", again[0])
    ready = drain(core)
    assert offsets(ready) == [60] and ready.snapshots is None
    for chunk in again[2:]:
        core.step("c", chunk)
    drain(core)
    assert core.commit_index == 3


def test_a_whole_whose_checksum_is_wrong_is_received_again() -> None:
    core = make_core(term=4)
    chunks = chunks_of([1, 2, 3], term=4)
    bad = [*chunks[:-1], replace(chunks[-1], data=b"?" * len(chunks[-1].data))]
    ready = install(core, bad)
    assert offsets(ready)[-1] == 0 and core.commit_index == 0 and core.ignored_messages == 1
    assert ready.snapshots is not None and ready.snapshots.installed is None
    install(core, chunks)
    assert core.commit_index == 3


@pytest.mark.parametrize(
    "broken",
    [
        {"index": 0},
        {"index": 1 << 63},
        {"snapshot_term": 0},
        {"snapshot_term": 5},
        {"offset": -1},
        {"size_bytes": 3},
        {"configuration": b"?"},
    ],
)
def test_a_chunk_that_cannot_be_is_ignored(broken: dict[str, Any]) -> None:
    core = make_core(term=4)
    ready = install(core, [replace(chunks_of([1, 2, 3], term=4)[0], **broken)])
    assert ready.snapshots is None and not core.snapshots.installation.is_under_way
    assert core.ignored_messages == 1 or offsets(ready) == [0]


def test_an_empty_snapshot_is_one() -> None:
    """A state machine may have nothing to say."""
    core = make_core(term=4)
    install(core, [InstallSnapshot(4, 3, 2, WHO, 0, 0, 0, b"")])
    assert core.commit_index == 3


def test_appends_and_votes_between_the_chunks() -> None:
    """A candidate may win meanwhile; what was received is of use to the next leader, or overtaken."""
    core = make_core(term=4)
    chunks = chunks_of([1, 2, 3], term=4)
    install(core, chunks[:2])
    core.step("b", AppendEntries(4, 7, 3, 7, EntryBatch(8, entries_of([3], 8))))
    core.leader_silent()
    core.step("c", RequestVote(5, 9, 3))
    ready = drain(core)
    assert ("c", VoteResponse(5, True)) in ready.messages_after_sync
    assert core.log.last_index == 0
    core.step("c", AppendEntries(5, 0, 0, 3, EntryBatch(1, entries_of([1, 2, 3]))))
    drain(core)
    assert core.commit_index == 3 and not core.snapshots.installation.is_under_way


def test_nothing_is_handed_out_until_the_state_machine_holds_the_snapshot() -> None:
    network = behind()
    network.slow_restore.add("c")
    network.beat("a")
    network.propose("a", b"more")
    network.beat("a")
    assert network["c"].commit_index == 12 and network.applied["c"] != network.applied["a"]
    assert not network["c"].has_ready()
    network.restore("c")
    network.settle()
    assert network.applied["c"] == network.applied["a"]


def test_a_restored_snapshot_that_is_not_the_newest_opens_nothing() -> None:
    core = make_core(term=4)
    install(core, chunks_of([1, 2, 3], term=4))
    core.snapshots.note_restored(2)
    assert core.snapshots.is_restoring
    core.snapshots.note_restored(3)
    assert not core.snapshots.is_restoring


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


def test_a_snapshot_is_due_when_the_log_is_long_and_as_large_as_the_last_one() -> None:
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
    network.propose("a", *BODIES[:8])
    assert not snapshots.is_due()  # eight entries are less than it has bytes
    network.propose("a", bytes(400))
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
