"""The setting `priority` in whole nodes: who never leads, and who tends to."""

from __future__ import annotations

import pytest

from kvstore import protocol
from kvstore.protocol_admin import MoveLeader
from raft.election_actor import ElectionActor
from tests.kvstore.memory_cluster import MemoryCluster


def put(cluster: MemoryCluster) -> None:
    [[code, *_]] = cluster.client(cluster.leader()).call(
        protocol.WRITE, [protocol.put_body(0, 0, 0, b"/a", b"1")]
    )
    assert code == protocol.OK


@pytest.mark.parametrize("seed", range(3))
def test_a_node_of_priority_0_never_leads_though_every_leader_dies(seed: int) -> None:
    cluster = MemoryCluster(seed, priorities={"n1": 0})
    led = set()
    for _ in range(4):
        leader = cluster.leader()
        led.add(leader)
        put(cluster)
        cluster.run(0.3)
        cluster.crash(leader)
        for _ in range(20):  # as long as two election timeouts and more
            cluster.run(0.05)
            assert cluster.status("n1")["role"] == "follower"
        cluster.start(leader)
    assert led == {"n2", "n3"}
    assert cluster.status("n1")["priority"] == 0
    assert cluster.status("n1")["applied_index"]  # it takes part as any other


def test_leadership_does_not_move_to_a_node_of_priority_0() -> None:
    cluster = MemoryCluster(seed=4, priorities={"n1": 0})
    cluster.leader()
    cluster.run(1.0)
    code, _, reason = cluster.admin(MoveLeader("n1"))
    assert (code, reason) == (protocol.CHANGE_REFUSED, "never_leads")


@pytest.mark.parametrize("seed", range(3))
def test_a_node_of_higher_priority_gets_leadership_and_gets_it_back(seed: int) -> None:
    cluster = MemoryCluster(seed, priorities={"n3": 5})
    cluster.leader()
    cluster.run(3.0)
    assert cluster.leader() == "n3"
    cluster.crash("n3")
    cluster.run(1.0)
    assert cluster.leader() in ("n1", "n2")
    put(cluster)
    cluster.start("n3")
    cluster.run(4.0)
    assert cluster.leader() == "n3"
    assert {name: cluster.status(name)["priority"] for name in cluster.names} == {"n1": 1, "n2": 1, "n3": 5}


def test_a_node_of_higher_priority_waits_less_long_before_it_campaigns() -> None:
    """From the least timeout, when votes are free again, to the campaign: an eighth of the others' time."""
    cluster = MemoryCluster(seed=5, priorities={"n2": 8, "n3": 8})
    cluster.leader()
    cluster.run(3.0)
    preferred = {"n2": "n3", "n3": "n2"}[cluster.leader()]  # the one of both that follows
    waits: dict[str, list[float]] = {"n1": [], preferred: []}
    for _ in range(20):
        cluster.run(0.06)
        for name, seen in waits.items():
            election = cluster.systems[name]._by_name["election"].actor
            assert isinstance(election, ElectionActor) and election._gate_opens_at is not None
            seen.append(election._campaign_at - election._gate_opens_at)
    assert min(waits[preferred]) >= 0 and max(waits[preferred]) <= 0.2 / 8 + 1e-6
    assert max(waits["n1"]) > 2 * 0.2 / 8
