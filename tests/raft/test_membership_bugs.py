"""Known bugs of membership changes, one test for each: the situation in which it loses or stops something."""

from __future__ import annotations

import pytest

from raft.core import Core
from raft.entries import EntryBatch, EntryKind, HardState, SnapshotMeta
from raft.errors import (
    ConfigurationReason,
    ConfigurationRefused,
    TransferReason,
    TransferRefused,
    Transferring,
)
from raft.membership import Configuration
from raft.messages import (
    AppendEntries,
    AppendResponse,
    Heartbeat,
    HeartbeatResponse,
    PreVoteResponse,
    Removed,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
)
from raft.ready import Role
from raft.storage import Recovered
from tests.paper.figures import elect
from tests.raft.cores import settled_leader
from tests.raft.network import Network, drain, entry, make_core, outgoing

CONFIGURATION = int(EntryKind.CONFIGURATION)


def configuring(term: int, index: int, configuration: Configuration, *terms: int) -> EntryBatch:
    """An entry with that configuration, and commands behind it."""
    return EntryBatch(
        index, [(term, CONFIGURATION, configuration.encode()), *(entry(each, b"x") for each in terms)]
    )


def caught_up(leader: Core, learner: str) -> None:
    """The learner has all, in a round that took no time."""
    leader.heartbeat()
    drain(leader)
    leader.step(learner, AppendResponse(leader.term, leader.last_index))
    leader.step(learner, HeartbeatResponse(leader.term, 0))
    leader.heartbeat()
    drain(leader)


def refusal(leader: Core, target: Configuration, *, force: bool = False) -> ConfigurationReason:
    with pytest.raises(ConfigurationRefused) as caught:
        leader.propose_configuration(target, force=force)
    return caught.value.reason


def acknowledge(leader: Core, *peers: str) -> None:
    for peer in peers:
        leader.step(peer, AppendResponse(leader.term, leader.last_index))


# -- one change at a time, on majorities that meet ------------------------------------------------------


def test_d1_two_leaders_cannot_change_by_one_voter_each_on_majorities_that_do_not_meet() -> None:
    """The erratum of 2015 to dissertation 4.1. S1 adds S5 in a log that nobody else has; S2 leads, removes
    S1, and has that on S2 and S3; S1 leads again with S4 and S5: two histories, each with its majority."""
    network = Network(["s1", "s2", "s3", "s4"], learners=["s5"])
    s1 = network.elect("s1")
    caught_up(s1, "s5")
    s1.propose_configuration(Configuration(["s1", "s2", "s3", "s4", "s5"]))
    network.turn("s1")
    network.mail.clear()  # lost on the way
    elect(network, "s2")  # by S3 and S4, and nothing else of it arrives anywhere
    s2 = network["s2"]
    assert s2.role is Role.LEADER and s2.commit_index < s2.last_index
    # Nothing of its term is committed yet, so it may not change anything: not even by force.
    without_s1 = Configuration(["s2", "s3", "s4"])
    assert refusal(s2, without_s1) is ConfigurationReason.NO_COMMIT_IN_TERM
    assert refusal(s2, without_s1, force=True) is ConfigurationReason.NO_COMMIT_IN_TERM
    s2.heartbeat()
    network.settle()
    s2.propose_configuration(Configuration(["s2", "s3", "s4"], ["s5"]))
    network.settle()
    # Now S1 cannot win any more: whoever would vote for it has the entry of S2's term.
    elect(network, "s1")
    assert s1.role is not Role.LEADER


def test_d2_a_second_change_waits_for_the_first() -> None:
    leader = settled_leader("abcd")
    leader.propose_configuration(Configuration("abc"))
    assert refusal(leader, Configuration("ab")) is ConfigurationReason.IN_FLIGHT
    assert refusal(leader, Configuration("ab"), force=True) is ConfigurationReason.IN_FLIGHT
    drain(leader)
    acknowledge(leader, "b", "c")
    leader.propose_configuration(Configuration("ab"), force=True)


def test_several_voters_change_by_way_of_both_majorities() -> None:
    """Raft figure 10: a direct switch from three servers to five makes two majorities at once."""
    leader = settled_leader("abc", learners="de")
    caught_up(leader, "d")
    caught_up(leader, "e")
    leader.propose_configuration(Configuration("abcde"))
    assert leader.configuration.quorums == (frozenset("abcde"), frozenset("abc"))
    drain(leader)
    acknowledge(leader, "d", "e")  # with a itself three of five, and one of the old three
    assert leader.commit_index == 1
    acknowledge(leader, "b")
    assert leader.commit_index == 2


def test_a_majority_of_the_new_voters_alone_elects_nobody_while_both_decide() -> None:
    """Raft §6: elections too need both majorities."""
    joint = Configuration("cde", outgoing="abc")
    core = Core("c", Configuration(), Recovered(HardState(1), 1, configuring(1, 1, joint).entries))
    core.campaign()
    asked = outgoing(drain(core), RequestPreVote)
    assert len(asked) == 4
    for peer in "de":
        core.step(peer, pre_vote(core))
    assert (core.role, core.term) == (Role.PRE_CANDIDATE, 1)
    core.step("a", pre_vote(core))
    assert (core.role, core.term) == (Role.CANDIDATE, 2)


def pre_vote(core: Core) -> PreVoteResponse:
    return PreVoteResponse(core.term + 1, True)


def test_d12_a_leader_leaves_the_joint_configuration_by_itself() -> None:
    leader = settled_leader("abc", learners="de")
    caught_up(leader, "d")
    caught_up(leader, "e")
    leader.propose_configuration(Configuration("ade"))
    drain(leader)
    acknowledge(leader, "b", "d", "e")
    assert not leader.configuration.is_joint
    assert leader.configuration.voters == frozenset("ade")
    assert leader.configuration.removed == frozenset("bc")


def test_d12_a_new_leader_leaves_the_joint_configuration_that_it_found() -> None:
    """Raft §6: the leader that began it may have crashed."""
    joint = Configuration("ade", outgoing="abc")
    recovered = Recovered(HardState(1), 1, configuring(1, 1, joint).entries)
    network = Network("abcde")
    network.cores["a"] = leader = Core("a", Configuration(), recovered)
    for peer in "bcde":
        network.disks[peer].hard_state = HardState(1)
        network.disks[peer].entries = list(configuring(1, 1, joint).entries)
        network.start(peer)
    network.disks["a"].hard_state, network.disks["a"].entries = HardState(1), list(recovered.entries)
    network.elect("a")
    assert leader.configuration.voters == frozenset("ade") and not leader.configuration.is_joint
    assert leader.commit_index == leader.last_index


# -- in force when appended -----------------------------------------------------------------------------


def test_d3_a_configuration_is_in_force_when_appended_and_goes_with_its_entry() -> None:
    """Raft §6, dissertation 4.1."""
    core = make_core("a", "abc")
    old, new = Configuration("abc"), Configuration("abcd")
    first = EntryBatch(1, [*configuring(1, 1, old).entries, *configuring(1, 2, new, 1).entries])
    core.step("b", AppendEntries(1, 0, 0, 1, first))
    ready = drain(core)
    assert core.configuration == new == ready.configuration
    assert core.committed_configuration == old
    core.step("c", AppendEntries(2, 1, 1, 1, EntryBatch(2, [entry(2)])))
    ready = drain(core)
    assert core.configuration == old == ready.configuration


def test_d3_an_uncommitted_configuration_counts_after_a_restart() -> None:
    old, new = Configuration("abc"), Configuration("abcd")
    entries = [*configuring(1, 1, old).entries, *configuring(1, 2, new).entries]
    core = Core("a", Configuration("abc"), Recovered(HardState(1, None, 1), 1, entries))
    assert core.configuration == new and core.committed_configuration == old
    core.campaign()
    assert len(outgoing(drain(core), RequestPreVote)) == 3


def test_d5_a_restart_from_a_snapshot_goes_on_with_its_configuration() -> None:
    """The entry that held it is compacted away. What the command line says is of the past."""
    now = Configuration("abd", "l", removed="c")
    snapshot = SnapshotMeta(7, 2, now.encode(), 0, 0)
    core = Core("a", Configuration("abc"), Recovered(HardState(2), 8, [entry(2)], 2, snapshot))
    assert core.configuration == core.committed_configuration == now
    later = Configuration("abde", "l", removed="c")
    logged = Recovered(HardState(2), 8, configuring(2, 8, later).entries, 2, snapshot)
    core = Core("a", Configuration("abc"), logged)
    assert (core.configuration, core.committed_configuration) == (later, now)


def test_d8_who_is_in_no_configuration_here_may_lead_and_be_voted_for() -> None:
    """Dissertation 4.1: the configuration here may be the old one."""
    core = Core("e", Configuration(), Recovered())
    core.step("x", AppendEntries(3, 0, 0, 0, configuring(3, 1, Configuration("xe"))))
    assert outgoing(drain(core), AppendResponse) == [AppendResponse(3, 1)]
    assert core.leader_id == "x" and core.configuration == Configuration("xe")
    voter = make_core("a", "abc")
    voter.step("x", RequestVote(1, 5, 1))
    assert voter.voted_for == "x"


# -- who may come, who may go ---------------------------------------------------------------------------


def test_d9_who_has_not_caught_up_does_not_become_a_voter() -> None:
    """Dissertation 4.2.1: an empty voter stalls the commits of a cluster in which one is down."""
    leader = settled_leader("abc", learners="d")
    assert refusal(leader, Configuration("abcd")) is ConfigurationReason.NOT_CAUGHT_UP
    assert refusal(leader, Configuration("abcx")) is ConfigurationReason.NOT_CAUGHT_UP
    caught_up(leader, "d")
    leader.propose_configuration(Configuration("abcd"))


def test_d7_a_name_that_left_never_comes_back() -> None:
    leader = settled_leader("abcd")
    leader.propose_configuration(Configuration("abc"))
    drain(leader)
    acknowledge(leader, "b", "c")
    for target in (Configuration("abcd"), Configuration("abc", "d")):
        assert refusal(leader, target, force=True) is ConfigurationReason.NAME_USED_BEFORE


def test_a_change_that_would_lose_the_quorum_of_live_nodes_needs_force() -> None:
    leader = settled_leader("abc")
    leader.check_quorum()
    leader.step("b", HeartbeatResponse(1, 0))
    leader.check_quorum()
    leader.step("b", HeartbeatResponse(1, 0))
    assert refusal(leader, Configuration("ac")) is ConfigurationReason.LOSES_QUORUM
    leader.propose_configuration(Configuration("ac"), force=True)


def test_a13_a_new_voter_does_not_look_like_a_lost_quorum() -> None:
    leader = settled_leader("a")
    leader.propose_configuration(Configuration("ab"), force=True)
    roles = []
    for _ in range(2):
        leader.check_quorum()
        roles.append(leader.role)
    assert roles == [Role.LEADER, Role.FOLLOWER]


def test_d11_what_changes_nothing_or_leaves_nobody_is_refused() -> None:
    leader = settled_leader("abc", learners="l")
    assert refusal(leader, Configuration("abc", "l")) is ConfigurationReason.UNCHANGED
    assert refusal(leader, Configuration((), "abcl")) is ConfigurationReason.NO_VOTERS


# -- a leader that leaves, and who has left -------------------------------------------------------------


def test_d6_a_leader_that_removes_itself_does_not_count_itself_and_stays_until_it_is_committed() -> None:
    """Dissertation 4.2.2."""
    leader = settled_leader("abc")
    leader.propose_configuration(Configuration("bc"))
    drain(leader)
    acknowledge(leader, "b")
    assert (leader.role, leader.commit_index) == (Role.LEADER, 1)
    acknowledge(leader, "c")
    ready = drain(leader)
    assert (leader.role, leader.commit_index) == (Role.FOLLOWER, 2)
    assert len(outgoing(ready, TimeoutNow)) == 1


def test_a11_whose_removal_is_committed_is_told_so_and_gets_no_vote() -> None:
    left = Configuration("abc", removed="d")
    entries = configuring(1, 1, left).entries
    core = Core("a", Configuration(), Recovered(HardState(1, None, 1), 1, entries))
    core.step("d", RequestPreVote(2, 9, 9))
    core.step("d", RequestVote(2, 9, 9, transfer=True))
    ready = drain(core)
    assert outgoing(ready, Removed) == [Removed(1), Removed(1)]
    assert ready.messages_after_sync == [] and core.term == 1


def test_a11_who_was_told_of_its_removal_campaigns_no_more() -> None:
    core = make_core("d", "abcd", term=1)
    core.step("a", Removed(1))
    core.campaign()
    assert outgoing(drain(core), RequestPreVote) == []


# -- handing over ---------------------------------------------------------------------------------------


def test_a16_nothing_is_proposed_while_leadership_is_handed_over() -> None:
    """Dissertation 3.10: else the target never has everything."""
    leader = settled_leader("abc")
    leader.propose([b"x"])
    leader.transfer_leadership("b")
    with pytest.raises(Transferring):
        leader.propose([b"y"])
    assert refusal(leader, Configuration("ab")) is ConfigurationReason.TRANSFERRING
    leader.abort_transfer()
    leader.propose([b"y"])


def test_a16_the_target_campaigns_when_it_has_everything_and_not_before() -> None:
    leader = settled_leader("abc")
    leader.propose([b"x"])
    leader.transfer_leadership("b")
    assert outgoing(drain(leader), TimeoutNow) == []
    acknowledge(leader, "b")
    assert outgoing(drain(leader), TimeoutNow, to="b") == [TimeoutNow(1)]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("a", TransferReason.LEADS_ALREADY),
        ("l", TransferReason.NOT_A_VOTER),
        ("stranger", TransferReason.NOT_A_VOTER),
    ],
)
def test_a16_leadership_goes_to_voters_alone(target: str, reason: TransferReason) -> None:
    leader = settled_leader("abc", learners="l")
    with pytest.raises(TransferRefused) as caught:
        leader.transfer_leadership(target)
    assert caught.value.reason is reason


def test_a16_a_transfer_ends_when_its_target_leaves() -> None:
    leader = settled_leader("abc")
    leader.transfer_leadership("c")
    assert leader.transfer_target == "c"
    leader._leading().reconfiguration._append(Configuration("ab", removed="c"))
    assert leader.transfer_target is None


def test_a16_the_word_to_campaign_means_nothing_to_whom_may_not_lead() -> None:
    """It came late: its target is a learner, or no member any more."""
    for core in (make_core("l", "abc", learners="l"), make_core("x", "abc")):
        core.step("a", Heartbeat(1, 0, 0))
        core.step("a", TimeoutNow(1))
        assert (core.role, core.term) == (Role.FOLLOWER, 1)


def test_a16_the_word_of_an_old_term_moves_nobody() -> None:
    core = make_core("b", "abc")
    core.step("a", Heartbeat(3, 0, 0))
    core.step("a", TimeoutNow(2))
    assert (core.role, core.term) == (Role.FOLLOWER, 3)
