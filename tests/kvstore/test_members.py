"""Changes of membership and leadership as a client asks for them: whole nodes on a network of memory."""

from __future__ import annotations

import pytest

from kvstore import protocol
from kvstore.gateway_actor import GatewayActor
from kvstore.protocol import Refusal
from kvstore.protocol_admin import (
    AddMember,
    AdminRequest,
    DemoteMember,
    Initialise,
    ListMembers,
    Membership,
    MoveLeader,
    PromoteMember,
    RemoveMember,
    ReplaceMember,
    SetMembers,
    cluster_id_of,
    encode_admin,
    split_address,
)
from kvstore.settings import derive_cluster_id
from tests.kvstore.memory_cluster import MemoryCluster, peer_of


def put(key: bytes, value: bytes) -> bytes:
    return protocol.put_body(0, 0, 0, key, value)


def roles(membership: Membership) -> dict[str, str]:
    return {member.name: member.role for member in membership.members}


def voters(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "voter")


def add(name: str, *, stays_learner: bool = False) -> AddMember:
    return AddMember(name, peer_of(name), stays_learner)


def refused(cluster: MemoryCluster, request: AdminRequest, seconds: float = 1.0) -> str:
    """The reason."""
    code, message, reason = cluster.admin(request, seconds=seconds)
    assert code == protocol.CHANGE_REFUSED and message
    return str(reason)


def test_the_leader_lists_the_members_and_where_they_are() -> None:
    cluster = MemoryCluster(seed=21)
    leader = cluster.leader()
    cluster.run(1.2)
    found = cluster.change(ListMembers())
    assert (found.leader, found.is_joint, found.cluster_id) == (leader, False, f"{7:016x}")
    assert [tuple(member) for member in found.members] == [
        (name, "voter", peer_of(name), f"ipc:///memory/{name}/client") for name in ("n1", "n2", "n3")
    ]


def test_a_follower_sends_who_asks_to_the_leader() -> None:
    cluster = MemoryCluster(seed=22)
    leader = cluster.leader()
    cluster.run(1.2)
    follower = next(name for name in cluster.names if name != leader)
    caller = cluster.client(follower)
    caller.ask(protocol.ADMIN, [b"\x91\x01"])
    cluster.run(0.05)
    [refusal] = caller.replies()
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.leader_name) == (protocol.NOT_LEADER, leader)


def test_a_cluster_of_one_grows_to_five_and_shrinks_to_one_again() -> None:
    """Everything written on the way is on every node that stays."""
    cluster = MemoryCluster(seed=23, size=1)
    written = 0

    def write() -> None:
        nonlocal written
        written += 1
        cluster.client(cluster.leader()).call(protocol.WRITE, [put(b"/%d" % written, b"x")])

    write()
    for number in range(2, 6):
        cluster.start_waiting(f"n{number}")
        assert roles(cluster.change(add(f"n{number}"))) == voters(*cluster.names)
        write()
    cluster.run(0.5)
    assert {cluster.status(name)["keys"] for name in cluster.names} == {written}
    for number in range(1, 5):
        members = cluster.change(RemoveMember(f"n{number}", False))
        assert roles(members) == voters(*cluster.names[number:])
        write()
    assert cluster.leader() == "n5"
    assert cluster.status("n5")["keys"] == written


def test_every_change_may_be_asked_for_again() -> None:
    """An answer may be lost: what is so already is no failure."""
    cluster = MemoryCluster(seed=24)
    for name in ("n4", "n5"):
        cluster.start_waiting(name)
    for request, expected in (
        (add("n4", stays_learner=True), {**voters("n1", "n2", "n3"), "n4": "learner"}),
        (PromoteMember("n4"), voters("n1", "n2", "n3", "n4")),
        (DemoteMember("n4", False), {**voters("n1", "n2", "n3"), "n4": "learner"}),
        (PromoteMember("n4"), voters("n1", "n2", "n3", "n4")),
        (add("n4", stays_learner=True), voters("n1", "n2", "n3", "n4")),  # it is there, and more than that
        (RemoveMember("n4", False), voters("n1", "n2", "n3")),
        (ReplaceMember("n3", "n5", peer_of("n5")), voters("n1", "n2", "n5")),
        (SetMembers((("n1", ""), ("n2", "")), False), voters("n1", "n2")),
    ):
        for _ in range(2):
            assert roles(cluster.change(request)) == expected, request


def test_a_change_that_may_not_be_is_refused_with_its_reason_and_changes_nothing() -> None:
    cluster = MemoryCluster(seed=25)
    cluster.start_waiting("n4")
    cluster.change(add("n4"))
    cluster.change(RemoveMember("n4", False))
    for request, reason in (
        (add("n4"), "name_used_before"),
        (ReplaceMember("n1", "n4", peer_of("n4")), "name_used_before"),
        (AddMember("n1", peer_of("n9"), False), "bad_request"),  # it is a member, and elsewhere
        (PromoteMember("n9"), "unknown_member"),
        (DemoteMember("n9", False), "unknown_member"),
        (RemoveMember("n9", False), "unknown_member"),
        (ReplaceMember("n8", "n9", peer_of("n9")), "unknown_member"),
        (SetMembers((("n1", ""), ("n9", "")), False), "bad_request"),  # where would n9 be?
        (MoveLeader("n9"), "not_a_voter"),
        (Initialise(bytes(16)), "already_initialised"),
    ):
        assert refused(cluster, request) == reason, request
    assert roles(cluster.change(ListMembers())) == voters("n1", "n2", "n3")


def test_a_body_that_is_none_is_a_bad_request() -> None:
    cluster = MemoryCluster(seed=26, size=1)
    caller = cluster.client(cluster.leader())
    for body in (b"", b"\xc1", b"\x90", b"\x91\x63", b"\x92\x01\x01", b"\x94\x02\xa2N4\xa1x\xc2"):
        [[code, message]] = caller.call(protocol.ADMIN, [body])
        assert code == protocol.BAD_REQUEST and message


def test_a_member_that_never_comes_is_begun_as_a_learner_and_may_be_called_off() -> None:
    """The answer says that the change goes on; and so it does, whoever leads, until it is called off."""
    cluster = MemoryCluster(seed=27)
    leader = cluster.leader()
    code, message = cluster.admin(add("n4"), seconds=1.0)
    assert code == protocol.CHANGE_UNFINISHED and "n4" in str(message)
    cluster.crash(leader)
    assert roles(cluster.change(ListMembers()))["n4"] == "learner"
    cluster.start_waiting("n4")
    cluster.run(2.0)
    assert roles(cluster.change(ListMembers()))["n4"] == "voter"
    assert cluster.status("n4")["member"] == "voter"
    code, _ = cluster.admin(add("n5"), seconds=1.0)
    assert code == protocol.CHANGE_UNFINISHED
    assert "n5" not in roles(cluster.change(RemoveMember("n5", False)))


def test_removing_who_is_needed_for_a_majority_is_refused_unless_forced() -> None:
    cluster = MemoryCluster(seed=28)
    leader = cluster.leader()
    first, second = (name for name in cluster.names if name != leader)
    cluster.crash(first)
    cluster.run(1.0)
    assert refused(cluster, RemoveMember(second, False)) == "loses_quorum"
    assert roles(cluster.change(RemoveMember(first, False))) == voters(leader, second)
    cluster.change(RemoveMember(second, True))
    assert roles(cluster.change(ListMembers())) == voters(leader)


def test_leadership_moves_to_whom_it_is_asked_to() -> None:
    cluster = MemoryCluster(seed=29)
    before = cluster.leader()
    target = next(name for name in cluster.names if name != before)
    assert cluster.change(MoveLeader(target)).leader == target
    assert cluster.leader() == target
    assert cluster.change(MoveLeader(target)).leader == target
    assert cluster.change(MoveLeader("")).leader != target


def test_a_leader_that_is_demoted_hands_on_and_stays_as_a_learner() -> None:
    """It goes on receiving everything, and may be promoted again."""
    cluster = MemoryCluster(seed=36)
    first = cluster.leader()
    others = [name for name in cluster.names if name != first]
    cluster.client(first).ask(protocol.ADMIN, [encode_admin(DemoteMember(first, False))])
    cluster.run(1.0)
    second = cluster.leader()
    assert second in others
    assert roles(cluster.change(DemoteMember(first, False))) == {**voters(*others), first: "learner"}
    cluster.client(second).call(protocol.WRITE, [put(b"/a", b"1")])
    cluster.run(0.5)
    status = cluster.status(first)
    assert (status["member"], status["role"], status["keys"]) == ("learner", "follower", 1)
    assert roles(cluster.change(PromoteMember(first))) == voters("n1", "n2", "n3")


def test_demoting_who_is_needed_for_a_majority_is_refused_and_so_is_the_last_voter() -> None:
    cluster = MemoryCluster(seed=37)
    leader = cluster.leader()
    first, second = (name for name in cluster.names if name != leader)
    cluster.crash(first)
    cluster.run(1.0)
    assert refused(cluster, DemoteMember(second, False)) == "loses_quorum"
    cluster.change(DemoteMember(first, False))  # who is dead may be, and comes back as a learner
    cluster.change(DemoteMember(second, False))
    assert refused(cluster, DemoteMember(leader, True)) == "no_voters"
    cluster.start(first)
    cluster.run(1.0)
    assert cluster.status(first)["member"] == "learner"


def test_a_member_that_is_to_become_a_voter_is_demoted_before_it_has_caught_up() -> None:
    """It stays a learner, and does not become a voter when it comes."""
    cluster = MemoryCluster(seed=38)
    cluster.leader()
    code, _ = cluster.admin(add("n4"), seconds=0.5)
    assert code == protocol.CHANGE_UNFINISHED
    cluster.change(DemoteMember("n4", False))
    cluster.start_waiting("n4")
    cluster.run(2.0)
    assert roles(cluster.change(ListMembers())) == {**voters("n1", "n2", "n3"), "n4": "learner"}


def test_a_leader_that_is_removed_hands_on_and_answers_not_member() -> None:
    """Its clients must not go on reading what was true once."""
    cluster = MemoryCluster(seed=30)
    first = cluster.leader()
    caller = cluster.client(first)
    caller.call(protocol.WRITE, [put(b"/a", b"1")])
    caller.ask(protocol.ADMIN, [b"\x93\x04\xa2" + first.encode() + b"\xc2"])
    cluster.run(1.0)
    second = cluster.leader()
    assert second != first and first not in roles(cluster.change(ListMembers()))
    cluster.run(1.5)
    assert cluster.status(first)["member"] == "removed"
    for kind, body in (
        (protocol.WRITE, put(b"/a", b"2")),
        (protocol.READ, protocol.range_body(b"/a")),
        (protocol.STALE_READ, protocol.range_body(b"/a")),
    ):
        late = cluster.client(first)
        late.ask(kind, [body])
        cluster.run(0.1)
        [refusal] = late.replies()
        assert isinstance(refusal, Refusal) and refusal.code == protocol.NOT_MEMBER
    term = cluster.status(second)["term"]
    cluster.run(3.0)  # it campaigns no more, and disturbs nobody
    assert (cluster.leader(), cluster.status(second)["term"]) == (second, term)


def test_a_member_that_was_removed_while_it_was_down_hears_of_it_when_it_is_back() -> None:
    cluster = MemoryCluster(seed=31)
    leader = cluster.leader()
    absent = next(name for name in cluster.names if name != leader)
    cluster.crash(absent)
    cluster.run(0.5)
    cluster.change(RemoveMember(absent, False))
    term = cluster.status(leader)["term"]
    cluster.start(absent)
    cluster.run(4.0)
    assert cluster.status(absent)["member"] == "removed"
    assert (cluster.leader(), cluster.status(leader)["term"]) == (leader, term)


def test_a_waiting_node_never_campaigns_and_answers_not_member() -> None:
    """Alone, for many election timeouts, it does not make itself a cluster."""
    cluster = MemoryCluster(seed=32, size=0)
    cluster.start_waiting("n1")
    cluster.run(10.0)
    status = cluster.status("n1")
    assert (status["role"], status["term"], status["member"]) == ("follower", 0, "waiting")
    caller = cluster.client("n1")
    caller.ask(protocol.STALE_READ, [protocol.range_body(b"/a")])
    cluster.run(0.1)
    [refusal] = caller.replies()
    assert isinstance(refusal, Refusal) and refusal.code == protocol.NOT_MEMBER


def test_storage_ids_are_written_down_in_the_configuration() -> None:
    cluster = MemoryCluster(seed=33)
    cluster.leader()
    cluster.run(3.0)
    for name in cluster.names:
        gateway = cluster.systems[name]._by_name["gateway"].actor
        assert isinstance(gateway, GatewayActor)
        addresses = gateway.desk.configuration.addresses
        assert {node: split_address(addresses[node]) for node in addresses} == {
            node: (peer_of(node), cluster.storage_ids[node]) for node in cluster.names
        }


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_node_that_lost_its_disk_is_refused_under_its_old_name(is_restarted: bool) -> None:
    """It would vote a second time. The others refuse it, and it says so itself."""
    cluster = MemoryCluster(seed=34)
    leader = cluster.leader()
    cluster.run(3.0)
    wiped, other = (name for name in cluster.names if name != leader)
    cluster.crash(wiped)
    if is_restarted:  # nobody remembers but by the configuration
        for name in (leader, other):
            cluster.crash(name)
            cluster.start(name)
        leader = cluster.leader()
    cluster.lose_disk(wiped)
    cluster.start(wiped)
    cluster.crash(other if leader != other else next(n for n in cluster.names if n not in (wiped, other)))
    survivor = next(name for name in cluster.systems if name != wiped)
    cluster.run(5.0)
    assert cluster.systems[survivor].counters["peer_other_storage"] > 0
    assert cluster.status(survivor)["role"] != "leader"  # the wiped one's vote does not count
    status = cluster.status(wiped)
    assert status["refused_by"] and list(status["refused_by"]) == [survivor]  # type: ignore[call-overload]
    assert status["role"] != "leader"


def test_a_wiped_node_is_replaced_under_a_new_name() -> None:
    cluster = MemoryCluster(seed=35)
    leader = cluster.leader()
    cluster.run(3.0)
    wiped = next(name for name in cluster.names if name != leader)
    cluster.crash(wiped)
    cluster.start_waiting("n4")
    found = cluster.change(ReplaceMember(wiped, "n4", peer_of("n4")), seconds=5.0)
    assert roles(found) == voters(*(name for name in ("n1", "n2", "n3", "n4") if name != wiped))


def test_ids_of_clusters_are_never_zero_and_follow_from_the_nonce() -> None:
    assert cluster_id_of(bytes(16)) == cluster_id_of(bytes(16)) != cluster_id_of(b"x" * 16)
    assert derive_cluster_id({"n1": "tcp://127.0.0.1:1"}) > 0
