"""Raft figure 8: why a leader cannot take an entry of an earlier term for committed when a majority has it.

Every leader here begins its term with an entry of its own, and these are the entries of the figure: no client
is needed.
"""

from __future__ import annotations

from raft.config import RaftConfig
from raft.entries import HardState
from raft.messages import AppendEntries, AppendRejected, AppendResponse, Heartbeat, HeartbeatResponse
from raft.ready import Role
from tests.paper.figures import carry, drawn, elect, logs
from tests.raft.network import Disk, Network, entries_of

SERVERS = ["s1", "s2", "s3", "s4", "s5"]
REPLICATION = (AppendEntries, AppendResponse, AppendRejected, Heartbeat, HeartbeatResponse)

A = drawn(
    """
    s1  1 2   | leads term 2, and reaches s2 alone
    s2  1 2
    s3  1
    s4  1
    s5  1
    """
)
B = drawn(
    """
    s1  1 2   | has crashed
    s2  1 2
    s3  1
    s4  1
    s5  1 3   | leads term 3 by the votes of s3, s4 and its own, and reaches nobody
    """
)
C = drawn(
    """
    s1  1 2 4 | leads term 4, and reaches s3, which has got the first entry that it lacked
    s2  1 2
    s3  1 2   | so entry 2 is on a majority
    s4  1
    s5  1 3   | has crashed
    """
)
D = drawn(
    """
    s1  1 3 5 | comes back, and its entries 2 and 3 are overwritten
    s2  1 3 5
    s3  1 3 5
    s4  1 3 5
    s5  1 3 5 | leads term 5 by the votes of s3 and s4, since its last term is 3
    """
)
E = drawn(
    """
    s1  1 2 4 | has its entry 3, of its own term, on a majority before it crashes
    s2  1 2 4
    s3  1 2 4
    s4  1
    s5  1 3   | can get the vote of s4 alone
    """
)


def reach(network: Network, *names: str) -> None:
    """Only these servers hear each other; nobody else hears anything."""
    network.cut_links = {(a, b) for a in SERVERS for b in SERVERS if not {a, b} <= {*names}}


def figure_8_b() -> Network:
    """From the state in which all have entry 1 to (a), and from there to (b)."""
    disks = {name: Disk(HardState(1, None, 0), entries_of([1])) for name in SERVERS}
    network = Network(SERVERS, disks=disks, config=RaftConfig(max_append_entries=1))
    assert elect(network, "s1") == 2
    reach(network, "s1", "s2")
    network["s1"].heartbeat()
    network.settle()
    assert logs(network, SERVERS) == A

    reach(network, "s3", "s4", "s5")
    assert elect(network, "s5") == 3 and network["s5"].role is Role.LEADER
    assert logs(network, SERVERS) == B
    return network


def figure_8_c() -> Network:
    network = figure_8_b()
    reach(network, "s1", "s2", "s3", "s4")
    leader = network.restart("s1")
    assert elect(network, "s1") == 4 and leader.role is Role.LEADER
    # s2 was asked where its log ends, and s3 has been sent the first of the two entries that it lacks.
    leader.step("s2", AppendResponse(4, 2))
    reach(network, "s1", "s3")
    leader.heartbeat()
    carry(network, REPLICATION, until=lambda: leader.progress["s3"].match_index == 2)
    assert logs(network, SERVERS) == C
    return network


def test_c_an_entry_of_an_earlier_term_is_not_committed_though_a_majority_has_it() -> None:
    """Raft §5.4.2, figure 8 (c): s1 knows entry 2 on three of five servers, and commits nothing."""
    network = figure_8_c()
    leader = network["s1"]
    matches = {name: view.match_index for name, view in leader.progress.items()}
    assert matches == {"s2": 2, "s3": 2, "s4": 0, "s5": 0}
    assert leader.commit_index == 0 and not any(network.applied.values())


def test_d_the_entry_may_be_overwritten_on_the_majority_that_has_it() -> None:
    """Raft §5.4.2, figure 8 (d): s5 can still be elected, and replaces entry 2 everywhere."""
    network = figure_8_c()
    reach(network, "s2", "s3", "s4", "s5")
    network.restart("s5")
    assert elect(network, "s5") == 5 and network["s5"].role is Role.LEADER
    network.heal()
    network["s5"].heartbeat()
    network.settle()
    assert logs(network, SERVERS) == D
    assert all(applied == network.applied["s5"] for applied in network.applied.values())


def test_e_an_entry_of_its_own_term_commits_it_and_s5_cannot_win_any_more() -> None:
    """Raft §5.4.2, figure 8 (e): with entry 3 on a majority both are committed, whatever happens next."""
    network = figure_8_c()
    reach(network, "s1", "s2", "s3")
    network["s1"].heartbeat()
    network.settle()
    assert logs(network, SERVERS) == E
    assert [term for term, _, _ in network.applied["s1"]] == [1, 2, 4]

    reach(network, "s2", "s3", "s4", "s5")
    network.restart("s5")
    elect(network, "s5")
    assert network["s5"].role is not Role.LEADER
    # Whoever wins instead has the committed entries, and s5 gets them.
    assert elect(network, "s3") > 4
    network.heal()
    network["s3"].heartbeat()
    network.settle()
    assert {tuple(terms[:3]) for terms in logs(network, SERVERS).values()} == {(1, 2, 4)}
    assert all([term for term, _, _ in applied][:3] == [1, 2, 4] for applied in network.applied.values())
