"""Snapshots between cores (Raft §7, figures 12, 13): taken, sent in chunks, installed, compacted behind."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from raft.entries import EntryBatch
from raft.errors import InvariantBroken
from raft.invariants import check_log
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    RequestVote,
    VoteResponse,
)
from raft.progress import ProgressState
from raft.ready import Ready
from raft.storage import MemoryStorage
from tests.raft.network import Mail, drain, entries_of, make_core, outgoing
from tests.raft.snapshot_network import (
    BODIES,
    WHO,
    SnapshotNetwork,
    behind,
    chunks_of,
    converge,
    find_out,
    install,
    snapshot_of,
)

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
    del network.cores["c"]
    network.restart("a")
    network.elect("a")  # in another term: to its leader the node has acknowledged nothing
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


def test_a_snapshot_that_begins_in_the_turn_in_which_another_ends_is_begun_in_the_next() -> None:
    """Its chunk would be written into the other one, and be installed in its place."""
    core = make_core(term=4)
    older, newer = chunks_of([1, 2, 3], term=4), chunks_of([1, 2, 3, 3], term=4)
    install(core, older[:-1])
    ready = install(core, [older[-1], *newer])
    assert ready.snapshots is not None
    assert [chunk.meta.index for chunk in ready.snapshots.received] == [3]
    assert ready.snapshots.installed is not None and ready.snapshots.installed.index == 3
    assert {answer.offset for answer in outgoing(ready, InstallSnapshotResponse)} == {0}
    core.snapshots.note_restored(3)
    ready = install(core, newer)
    assert ready.snapshots is not None and ready.snapshots.installed is not None
    assert ready.snapshots.installed.index == core.commit_index == 4


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


def test_a_chunk_that_came_damaged_counts_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    core = make_core(term=4)
    first, *others = chunks_of([1, 2, 3], term=4)
    assert offsets(install(core, [first, replace(others[0], data=b"?" * 30)])) == [30]
    assert offsets(install(core, [replace(others[0], offset=0)])) == []  # another place is damage, too
    assert core.ignored_messages == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "index=3 offset=30 bytes=30 from=b" in caplog.records[0].getMessage()
    install(core, others)
    assert core.commit_index == 3


def test_damaged_chunks_are_told_once_for_each_snapshot_and_then_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On a path that damages all that goes over it there was a line for each chunk, for ever."""
    core = make_core(term=4)
    for terms in ([1, 2, 3], [1, 2, 3, 3]):
        first, *others = chunks_of(terms, term=4)
        broken = replace(others[0], data=b"?" * 30)
        install(core, [broken, first, *[broken] * 50])
        assert [record.getMessage()[:28] for record in caplog.records] == ["a chunk of a snapshot came d"]
        core.snapshots.note_restored(3)
        install(core, others)
        assert core.commit_index == len(terms)
        assert "came damaged chunks=51" in caplog.records[1].getMessage()
        caplog.clear()
    assert core.ignored_messages == 2 * 51


def test_damage_of_a_snapshot_that_is_given_up_is_not_that_of_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = make_core(term=4)
    for terms in ([1, 2, 3], [1, 2, 3, 3]):
        first, second, *_ = chunks_of(terms, term=4)
        install(core, [first, *[replace(second, data=b"?" * 30)] * 3])
    told = [record.getMessage() for record in caplog.records]
    assert [("chunks=3" in line, "offset=30" in line) for line in told] == [
        (False, True),
        (True, False),
        (False, True),
    ]


def test_a_configuration_that_came_damaged_is_not_believed() -> None:
    core = make_core(term=4)
    first = chunks_of([1, 2, 3], term=4)[0]
    other = Configuration("abd").encode()
    assert offsets(install(core, [replace(first, configuration=other)])) == []
    assert not core.snapshots.installation.is_under_way


def test_of_a_snapshot_that_came_damaged_only_the_damaged_chunk_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it went to the follower once more, and once more was damaged."""
    network = behind()
    deliver = network.deliver
    spoilt: list[int] = []

    def damage(mail: Mail) -> None:
        sender, receiver, message = mail
        if isinstance(message, InstallSnapshot) and message.offset and not spoilt:
            spoilt.append(message.offset)
            message = replace(message, data=b"?" * len(message.data))
        deliver((sender, receiver, message))

    monkeypatch.setattr(network, "deliver", damage)
    converge(network)
    sent = [message.offset for message in network.sent(InstallSnapshot, "a", "c")]
    assert len(spoilt) == 1 and sent.count(spoilt[0]) >= 2
    assert sent.count(0) == 1 and not network["c"].snapshots.installation.is_suspended


def damaged(chunks: list[InstallSnapshot]) -> list[InstallSnapshot]:
    return [*chunks[:-1], chunks[-1].with_data(b"?" * len(chunks[-1].data))]


def test_a_whole_whose_checksum_is_wrong_is_received_again(caplog: pytest.LogCaptureFixture) -> None:
    core = make_core(term=4)
    chunks = chunks_of([1, 2, 3], term=4)
    ready = install(core, damaged(chunks))
    assert core.commit_index == 0 and core.ignored_messages == 1
    assert ready.snapshots is not None and ready.snapshots.installed is None
    [record] = caplog.records
    assert record.levelname == "WARNING" and "index=3 from=b" in record.getMessage()
    core.snapshots.installation.resume()
    install(core, chunks)
    assert core.commit_index == 3


def test_a_snapshot_that_comes_damaged_again_and_again_is_received_ever_more_rarely() -> None:
    """On a bad path, or from a leader whose memory is bad, each transfer was followed by the next one, for
    ever and without a word."""
    core = make_core(term=4)
    installation = core.snapshots.installation
    chunks = chunks_of([1, 2, 3], term=4)
    pauses = []
    for _ in range(10):
        assert offsets(install(core, damaged(chunks)))[0] == 30
        pauses.append(0)
        while installation.is_suspended:
            assert offsets(install(core, chunks)) == []  # passed over
            installation.resume()
            pauses[-1] += 1
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64, 64]
    install(core, chunks)
    assert core.commit_index == 3
    install(core, damaged(chunks_of([1, 2, 3, 4], term=4)))
    installation.resume()
    assert not installation.is_suspended  # what came whole ends the series


def test_a_leader_sends_a_damaged_snapshot_anew_once_the_follower_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Meanwhile it asks with each second heartbeat, and sends nothing else."""
    network = behind()
    deliver = network.deliver

    def damage(mail: Mail) -> None:
        sender, receiver, message = mail
        if isinstance(message, InstallSnapshot) and message.offset:
            message = message.with_data(b"?" * len(message.data))
        deliver((sender, receiver, message))

    monkeypatch.setattr(network, "deliver", damage)
    for _ in range(5):
        network.beat("a")
    assert network["c"].snapshots.installation.is_suspended
    whole = len(network.sent(InstallSnapshot, "a", "c"))
    for _ in range(10):
        network.beat("a")
    assert whole > 5 and len(network.sent(InstallSnapshot, "a", "c")) <= whole + 10
    monkeypatch.undo()
    network["c"].snapshots.installation.resume()
    converge(network)


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
    chunk = replace(chunks_of([1, 2, 3], term=4)[0], **broken)
    if chunk.offset >= 0:
        chunk = chunk.with_data(chunk.data)  # it came as it was sent
    ready = install(core, [chunk])
    assert ready.snapshots is None and not core.snapshots.installation.is_under_way
    assert core.ignored_messages == 1 or offsets(ready) == [0]


def test_an_empty_snapshot_is_one() -> None:
    """A state machine may have nothing to say."""
    core = make_core(term=4)
    install(core, [InstallSnapshot(4, 3, 2, WHO, 0, 0, 0, b"", 0).with_data(b"")])
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
