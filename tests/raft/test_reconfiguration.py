"""Changes of membership: in force when appended, and one at a time (Raft §6, dissertation 4.1)."""

from __future__ import annotations

import pytest

from raft.core import Core
from raft.entries import EntryBatch, EntryKind, HardState, SnapshotMeta
from raft.errors import ConfigurationReason, ConfigurationRefused, InvariantBroken, NotLeader
from raft.membership import Configuration, CorruptConfiguration
from raft.messages import (
    AppendEntries,
    AppendResponse,
)
from raft.ready import Role
from raft.storage import Recovered
from tests.raft.changes import (
    CONFIGURATION,
    ask,
    configuration_batch,
    refused,
)
from tests.raft.cores import settled_leader
from tests.raft.network import Network, drain, entry, make_core, make_leader

# -- in force when appended ------------------------------------------------------------------------------


def test_the_first_leader_begins_with_the_founding_members() -> None:
    network = Network("abc", learners="l")
    network.elect("a")
    founding = (1, CONFIGURATION, Configuration("abc", "l").encode())
    for name in "abcl":
        assert network[name].log.slice(1, 1) == [founding]
    network.elect("b")
    assert [kind for _, kind, _ in network["b"].log.slice(1, 2)] == [CONFIGURATION, EntryKind.NOOP]


def test_4_1_a_configuration_is_in_force_as_soon_as_it_is_appended() -> None:
    core = settled_leader()
    ask(core, "remove", "c")
    assert core.configuration == Configuration("ab", removed="c")
    assert core.committed_configuration == Configuration("abc")
    ready = drain(core)
    assert ready.configuration == core.configuration
    assert {to for to, _ in ready.messages} == {"b"}
    follower = make_core("b")
    follower.step("a", AppendEntries(1, 0, 0, 0, configuration_batch(1, 1, Configuration("ab"))))
    assert follower.configuration == Configuration("ab")
    assert follower.committed_configuration == Configuration("abc")
    assert drain(follower).configuration == Configuration("ab")
    assert drain(follower).configuration is None
    follower.step("a", AppendEntries(1, 1, 1, 1, EntryBatch(2, [])))
    assert drain(follower).configuration == follower.committed_configuration == Configuration("ab")


def test_4_1_a_configuration_goes_with_its_entry() -> None:
    core = make_core("b")
    two = configuration_batch(2, 1, Configuration("ab"), Configuration("a"))
    core.step("a", AppendEntries(1, 0, 0, 1, EntryBatch(1, [entry(1), *two.entries])))
    assert core.configuration == Configuration("a")
    drain(core)
    core.step("c", AppendEntries(2, 2, 1, 0, EntryBatch(3, [entry(2)])))
    assert core.configuration == Configuration("ab")
    assert drain(core).configuration == Configuration("ab")
    core.step("c", AppendEntries(3, 1, 1, 0, EntryBatch(2, [entry(3), entry(3)])))
    assert core.configuration == Configuration("abc")
    assert drain(core).configuration == Configuration("abc")


def test_a_configuration_that_is_not_committed_is_in_force_after_a_restart() -> None:
    network = Network("abc")
    leader = network.elect("a")
    network.isolate("a")
    ask(leader, "remove", "c")
    network.settle()
    assert network.restart("a").configuration == Configuration("ab", removed="c")
    assert network["a"].committed_configuration == Configuration("abc")
    network.heal()
    network.elect("b")
    assert network["a"].configuration == network["b"].configuration == Configuration("abc")
    assert network.restart("a").configuration == Configuration("abc")


def test_a_restart_from_a_snapshot_goes_on_with_its_configuration() -> None:
    """The entry that held it is compacted away. What the command line says is of the past."""
    now = Configuration("abd", "l", removed="c")
    snapshot = SnapshotMeta(7, 2, now.encode(), 0, 0)
    core = Core("a", Configuration("abc"), Recovered(HardState(2), 8, [entry(2)], 2, snapshot))
    assert core.configuration == core.committed_configuration == now
    later = Configuration("abde", "l", removed="c")
    logged = Recovered(HardState(2), 8, configuration_batch(8, 2, later).entries, 2, snapshot)
    core = Core("a", Configuration("abc"), logged)
    assert (core.configuration, core.committed_configuration) == (later, now)


def test_a_removed_node_is_not_contacted_after_a_restart() -> None:
    network = Network("abc")
    ask(network.elect("a"), "remove", "c")
    network.settle()
    network.restart("a")
    network.elect("a")
    network.heartbeats()
    assert "c" not in network["a"].progress


def test_a_follower_takes_only_configurations_that_can_be_read() -> None:
    core = make_core("b")
    core.step("a", AppendEntries(1, 0, 0, 0, EntryBatch(1, [(1, CONFIGURATION, b"nonsense")])))
    assert (core.last_index, core.ignored_messages) == (0, 1)
    with pytest.raises(CorruptConfiguration):
        Core("b", Configuration("abc"), Recovered(HardState(1), 1, [(1, CONFIGURATION, b"nonsense")]))


def test_a_leader_takes_no_change_that_nobody_could_read() -> None:
    """It would stay in the log: every follower would refuse it, and every snapshot of it would fail."""
    core = settled_leader()
    large = dict.fromkeys("abc", "x" * 200000)
    for target in (
        Configuration("abc", ["d" * 256]),
        Configuration("abc", ["\ud800"]),
        Configuration("abc", [""]),
        Configuration("abc", "d", addresses={"d": "\ud800"}),
        Configuration("abc", "d", addresses=large),
    ):
        last_index = core.last_index
        with pytest.raises(ConfigurationRefused) as refusal:
            core.propose_configuration(target)
        assert refusal.value.reason is ConfigurationReason.BAD_REQUEST
        assert refusal.value.detail.isascii() and len(refusal.value.detail) < 1000
        assert core.last_index == last_index


def test_majorities_that_need_not_overlap_end_the_process() -> None:
    core = make_core("b")
    for index, wrong in enumerate(
        [
            Configuration("a"),
            Configuration("abcde"),
            Configuration("d", outgoing="abd"),
            Configuration("ade"),
        ],
    ):
        core = make_core("b")
        with pytest.raises(InvariantBroken, match="overlap"):
            core.step(
                "a",
                AppendEntries(1, 0, 0, 0, configuration_batch(1, 1, Configuration("abc"), wrong)),
            )
        assert core.configuration == Configuration("abc"), index
    core = make_core("b")
    joint = Configuration("ade", outgoing="abc")
    core.step("a", AppendEntries(1, 0, 0, 0, configuration_batch(1, 1, Configuration("abc"), joint)))
    with pytest.raises(InvariantBroken, match="overlap"):
        core.step("a", AppendEntries(1, 2, 1, 0, configuration_batch(3, 1, Configuration("abc"))))


# -- one at a time ---------------------------------------------------------------------------------------


def test_only_a_leader_changes_the_membership() -> None:
    core = make_core()
    for act in (lambda: ask(core, "remove", "c"), lambda: core.transfer_leadership("b")):
        with pytest.raises(NotLeader):
            act()


def test_a_change_is_refused_until_an_entry_of_the_own_term_is_committed() -> None:
    """The erratum of 2015 to dissertation 4.1."""
    core = make_leader(log=[1, 1])
    core.step("b", AppendResponse(2, 2))  # all of the earlier terms is on a quorum
    assert refused(core, Configuration("ab")) is ConfigurationReason.NO_COMMIT_IN_TERM
    core.step("b", AppendResponse(2, 3))
    core.propose_configuration(Configuration("ab"))


@pytest.mark.parametrize("is_heard_by_d", [True, False])
def test_the_bug_of_single_server_changes_cannot_happen(is_heard_by_d: bool) -> None:
    """Four servers: a begins to add e, b begins to remove a, neither knows of the other (the 2015 erratum).

    If b could commit its removal with c alone, a could win with d and e: two majorities that share nobody.
    """
    network = Network("abcd")
    first = network.elect("a")
    network.join("e")
    network.isolate("a")
    first.propose_configuration(Configuration("abcde"), force=True)
    network.settle()  # appended at a alone
    second = network["b"]
    if is_heard_by_d:
        network.elect("b")
        ask(second, "remove", "a")
        network.settle()
        assert second.committed_configuration == Configuration("bcd", removed="a")
    else:
        for core in network.cores.values():
            core.leader_silent()
        second.campaign()
        for _ in range(8):  # d votes for b, and gets nothing of what b appends
            for name in "bcd":
                network.turn(name)
            mails, network.mail = network.mail, []
            for mail in mails:
                if mail[1] != "d" or not isinstance(mail[2], AppendEntries):
                    network.deliver(mail)
        assert refused(second, Configuration("bcd")) is ConfigurationReason.NO_COMMIT_IN_TERM
    network.heal()
    network.isolate("b", "c")
    for _ in range(2):
        first.check_quorum()
    for core in network.cores.values():
        core.leader_silent()
    for _ in range(3):  # its term is behind at first
        first.campaign()
        network.settle()
        for name in "de":
            network[name].leader_silent()
    assert (first.role is Role.LEADER) == (not is_heard_by_d)


def test_while_a_change_is_not_committed_another_is_refused() -> None:
    core = settled_leader(voters="abcd")
    ask(core, "remove", "d")
    assert refused(core, Configuration("ab")) is ConfigurationReason.IN_FLIGHT
    assert refused(core, Configuration("ab"), force=True) is ConfigurationReason.IN_FLIGHT
    drain(core)
    core.step("b", AppendResponse(1, 2))
    core.propose_configuration(Configuration("ab"))


def test_while_a_configuration_is_joint_another_change_is_refused() -> None:
    core = settled_leader(voters="abcde")
    core.propose_configuration(Configuration("abc"))
    assert core.configuration.is_joint
    drain(core)
    assert refused(core, Configuration("ab")) is ConfigurationReason.IN_FLIGHT
    for name in "bcd":
        core.step(name, AppendResponse(1, 2))
    assert not core.configuration.is_joint  # appended, and not committed yet
    assert refused(core, Configuration("ab")) is ConfigurationReason.IN_FLIGHT


def test_what_is_no_change_is_refused() -> None:
    core = settled_leader()
    assert refused(core, Configuration("abc")) is ConfigurationReason.UNCHANGED
    assert refused(core, Configuration((), "abc")) is ConfigurationReason.NO_VOTERS
    assert refused(core, Configuration((), "abc"), force=True) is ConfigurationReason.NO_VOTERS
    core.propose_configuration(Configuration("abc", addresses={"a": "elsewhere"}))
    assert core.configuration.addresses == {"a": "elsewhere"}


def test_a_name_that_left_is_refused_whatever_the_force() -> None:
    network = Network("abc", learners="l")
    leader = network.elect("a")
    for name in "cl":
        ask(leader, "remove", name)
        network.settle()
        for target in (Configuration("ab" + name), Configuration("ab", name)):
            assert refused(leader, target) is ConfigurationReason.NAME_USED_BEFORE
            assert refused(leader, target, force=True) is ConfigurationReason.NAME_USED_BEFORE
