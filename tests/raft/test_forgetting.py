"""A follower whose disk lost what it had acknowledged: it finds out from its leader, and takes part no more.

By an old copy of its directory that was put back, or a log that was cut behind its back.
"""

from __future__ import annotations

import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from raft.changes import Verb
from raft.core import Core
from raft.errors import Fenced
from raft.fence import FENCE_NAME
from raft.messages import (
    AppendRejected,
    AppendResponse,
    Heartbeat,
    PreVoteResponse,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteResponse,
)
from raft.ready import Forgotten, Role
from raft.replica import Replica
from tests.raft.cores import append_of
from tests.raft.network import Disk, Network, drain, make_core, outgoing
from tests.raft.test_fencing import Trial

# -- one core ----------------------------------------------------------------------------------------


def forgetful() -> Core:
    """Its leader knows that it held three entries; there are two."""
    core = make_core(log=[1, 1], term=2)
    core.step("b", Heartbeat(2, 3, 0))
    return core


def test_f13_a_heartbeat_that_names_more_than_is_here_is_proof_of_what_was_lost() -> None:
    core = forgetful()
    assert core.has_ready()
    ready = drain(core)
    assert ready.forgotten == Forgotten("b", 2, known_index=3, held_index=2)
    assert ready.messages == ready.messages_after_sync == [] and core.commit_index == 0
    assert not core.has_ready() and core.is_withdrawn


@pytest.mark.parametrize("commit_index", [0, 1, 2])
def test_what_is_all_here_was_not_forgotten(commit_index: int) -> None:
    core = make_core(log=[2, 2], term=2)
    core.step("b", Heartbeat(2, commit_index, 0))
    assert drain(core).forgotten is None and not core.is_withdrawn
    assert (core.commit_index, core.leader_id) == (commit_index, "b")


def test_entries_of_a_former_leader_in_place_of_what_was_acknowledged_are_not_committed() -> None:
    """An old copy that is long enough: what it has at the index is what the leader has replaced."""
    core = make_core(log=[1, 2, 2], term=3)
    core.step("b", Heartbeat(3, 2, 0))
    assert core.commit_index == 0, "for all that is known"
    core.step("b", append_of(3, 3, 3, [3], commit_index=2))
    assert [each.prev_index for each in outgoing(drain(core), AppendRejected)] == [3], "as anybody might"
    core.step("b", append_of(3, 2, 3, [3], commit_index=2))
    assert drain(core).forgotten == Forgotten("b", 3, known_index=2, held_index=1)
    assert core.is_withdrawn and core.commit_index == 0


def test_entries_of_former_terms_commit_once_they_were_compared() -> None:
    core = make_core(log=[1, 2, 2], term=3)
    core.step("b", Heartbeat(3, 2, 0))
    core.step("b", append_of(3, 3, 2, [], commit_index=0))
    drain(core)
    core.step("b", Heartbeat(3, 2, 0))
    assert core.commit_index == 2 and not core.is_withdrawn


def test_only_the_leader_of_the_term_knows() -> None:
    """A late heartbeat of a former leader, and one of who does not lead at all, prove nothing."""
    core = make_core(log=[1, 1], term=2)
    core.step("b", Heartbeat(2, 2, 0))
    core.step("c", Heartbeat(1, 9, 0))
    core.step("c", Heartbeat(2, 9, 0))
    assert drain(core).forgotten is None and not core.is_withdrawn


def test_who_has_forgotten_neither_votes_nor_acknowledges_nor_campaigns() -> None:
    core = forgetful()
    drain(core)
    for message in (
        append_of(2, 2, 1, [2], commit_index=3),
        Heartbeat(2, 3, 1),
        RequestPreVote(3, 9, 2),
        RequestVote(3, 9, 2),
        RequestVote(3, 9, 2, transfer=True),
        TimeoutNow(2),
        TimeoutNow(3),
        PreVoteResponse(3, True),
        VoteResponse(3, True),
        append_of(4, 2, 1, [4], commit_index=3),
    ):
        core.leader_silent()
        for sender in ("b", "c"):
            core.step(sender, message)
        core.campaign()
        core.heartbeat()
        assert not core.has_ready(), message
    assert (core.role, core.term, core.voted_for, core.last_index) == (Role.FOLLOWER, 2, None, 2)


def test_what_it_was_about_to_say_remains_unsaid() -> None:
    core = make_core(log=[1, 1], term=2)
    core.step("c", RequestVote(3, 9, 2))
    core.step("b", append_of(4, 2, 1, [4]))
    core.step("b", Heartbeat(4, 9, 0))
    ready = drain(core)
    assert ready.forgotten is not None and ready.messages == ready.messages_after_sync == []


def test_who_withdrew_in_an_earlier_life_hears_nobody_from_the_start() -> None:
    core = make_core(log=[1, 1], term=2)
    core.withdraw()
    core.step("b", RequestVote(3, 9, 2))
    core.step("b", Heartbeat(3, 1, 0))
    assert not core.has_ready() and drain(core).forgotten is None


# -- among others ------------------------------------------------------------------------------------


def old_copy_put_back() -> Network:
    """`c` has acknowledged five entries to `a`, which still leads; its disk is that of the time of three."""
    network = Network("abc")
    network.elect("a")
    network.cores["a"].propose([b"x"] * 2)
    network.settle()
    copy = deepcopy(network.disks["c"])
    network.cores["a"].propose([b"x"] * 2)
    network.settle()
    network.disks["c"] = copy
    network.start("c")
    assert network["c"].last_index == 3 and network["a"].progress["c"].match_index == 5
    return network


def test_a_follower_that_forgot_withdraws_and_the_others_go_on_without_it() -> None:
    network = old_copy_put_back()
    network.heartbeats()
    assert network["c"].is_withdrawn
    network["a"].propose([b"y"])
    network.settle()
    assert network["a"].commit_index == network["b"].commit_index == 6
    for _ in range(2):
        network.heartbeats()
        network["a"].check_quorum()
    assert network["a"].role is Role.LEADER


def test_who_forgot_counts_for_no_majority() -> None:
    network = old_copy_put_back()
    network.heartbeats()
    network.isolate("b")
    network["a"].propose([b"y"])
    network.heartbeats(2)
    assert network["a"].commit_index == 5
    for _ in range(2):
        network["a"].check_quorum()
    assert network["a"].role is Role.FOLLOWER
    network.heal()
    network.isolate("a")
    for core in network.cores.values():
        core.leader_silent()
    network["b"].campaign()
    network.settle()
    assert network["b"].role is Role.PRE_CANDIDATE, "one of three"


def test_to_a_leader_of_another_term_nobody_can_have_forgotten_anything() -> None:
    """The limit: what was acknowledged to a leader that is gone nobody knows. It is sent what it lacks."""
    network = old_copy_put_back()
    network.elect("b")
    network.heartbeats(2)
    assert not network["c"].is_withdrawn and network["c"].last_index == network["b"].last_index


def test_what_was_never_synced_may_be_lost() -> None:
    """A loss of power between the append and its sync: nothing was acknowledged, and nothing is forgotten."""
    network = Network("abc")
    leader = network.elect("a")
    for survivors in (0, 1):
        leader.propose([b"x"] * 3)
        network.turn("a")
        mail, network.mail = network.mail, []
        for each in mail:
            network.deliver(each)
        ready = network["c"].ready()
        network.disks["c"].append(ready.hard_state, ready.batch)
        assert outgoing(ready, AppendResponse)
        network.disks["c"].crash(survivors)
        del network.cores["c"]
        network.settle()
        assert leader.commit_index == leader.last_index, "the others have it"
        network.start("c")
        network.heartbeats(3)
        assert not network["c"].is_withdrawn and network["c"].commit_index == leader.last_index


def test_a_disk_that_was_emptied_is_found_out_too() -> None:
    network = old_copy_put_back()
    network.disks["c"] = Disk()
    network.start("c")
    network.heartbeats()
    assert network["c"].is_withdrawn


# -- whole replicas, on real files -------------------------------------------------------------------


class OnFiles(Trial):
    """Each replica has a data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__()

    def start(self, name: str) -> Replica:
        self.disks[name] = self.root / name  # type: ignore[assignment]  # a replica takes either
        return super().start(name)

    def put_back_old_copy(self, name: str) -> None:
        """Of a time before fifty more entries, which the same leader has from it."""
        self.crash(name)
        shutil.copytree(self.root / name, self.root / "copy")
        self.start(name)
        leader = self.leader()
        self.add_up(50)
        self.crash(name)
        shutil.rmtree(self.root / name)
        (self.root / "copy").rename(self.root / name)
        self.start(name)
        assert self.replicas[leader.node_id].is_leader


def test_f13_an_old_copy_of_a_directory_is_fenced_for_good_and_replaced(tmp_path: Path) -> None:
    cluster = OnFiles(tmp_path)
    cluster.add_up(10)
    name = cluster.follower().node_id
    leader = cluster.leader()
    cluster.put_back_old_copy(name)
    assert cluster.has_fenced(cluster.replicas[name])
    mark = cluster.replicas[name].fenced
    assert mark is not None and mark.has_forgotten and mark.index >= 60
    assert f"to {leader.node_id} in term {leader.term}" in mark.reason and "old copy" in mark.reason
    assert (tmp_path / name / FENCE_NAME).exists()
    with pytest.raises(Fenced):
        cluster.finish(cluster.replicas[name].ask(b"", is_local=True))

    # Started once more, without the leader that knew: it gives its vote to nobody.
    cluster.crash(name)
    cluster.crash(leader.node_id)
    cluster.start(name)
    cluster.run(5.0)
    assert cluster.replicas[name].fenced == mark
    assert not any(replica.is_leader for replica in cluster.replicas.values())

    cluster.start(leader.node_id)
    cluster.run_until(lambda: any(replica.is_leader for replica in cluster.replicas.values()))
    [now] = [replica for replica in cluster.replicas.values() if replica.is_leader]
    assert cluster.finish(now.propose(b"1")) == b"61"
    cluster.start("n4")
    cluster.finish(now.change(Verb.REPLACE, name, "n4", addresses={"n4": cluster.members["n4"]}))
    assert now.members.voters == {"n4", *cluster.founders} - {name}
    assert cluster.run_until(lambda: cluster.machines["n4"].total == 61)


def test_a_node_that_is_fenced_for_its_state_stops_voting_when_it_forgets(tmp_path: Path) -> None:
    """The mark on the disk is the stronger one afterwards."""
    cluster = OnFiles(tmp_path)
    cluster.add_up(10)
    bent = cluster.follower()
    cluster.bend(bent)
    cluster.add_up(256)
    assert cluster.has_fenced(bent)
    cluster.put_back_old_copy(bent.node_id)
    again = cluster.replicas[bent.node_id]
    assert cluster.run_until(lambda: again.fenced is not None and again.fenced.has_forgotten)
    cluster.crash(bent.node_id)
    cluster.start(bent.node_id)
    cluster.run(0.5)
    mark = cluster.replicas[bent.node_id].fenced
    assert mark is not None and mark.has_forgotten


def test_replicas_that_lose_power_again_and_again_have_forgotten_nothing(tmp_path: Path) -> None:
    cluster = OnFiles(tmp_path)
    for round_number in range(9):
        commands = [cluster.leader().propose(b"1") for _ in range(20)]
        cluster.step()
        name = f"n{round_number % 3 + 1}"
        cluster.crash(name)
        cluster.run(0.2)
        cluster.start(name)
        cluster.run_until(lambda: all(command.is_over for command in commands))  # noqa: B023
    cluster.run(1.0)
    assert all(replica.fenced is None for replica in cluster.replicas.values())
    assert len({machine.total for machine in cluster.machines.values()}) == 1
