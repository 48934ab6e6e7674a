"""cluster, member, change-membership and move-leader on the command line, with a pretended client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kvstore.cli import cli, exits
from kvstore.client import Member, Membership, NodeStatus
from kvstore.errors import ChangeRefused, ChangeUnfinished, NotMember, OutcomeUnknown, Unreachable

ENDPOINTS = [f"tcp://127.0.0.1:700{number}" for number in (1, 2, 3)]
PEERS = [f"tcp://127.0.0.1:710{number}" for number in (1, 2, 3)]
FOUND = Membership(
    "00ff",
    "n1",
    False,
    [Member("n1", "voter", PEERS[0], ENDPOINTS[0]), Member("n2", "learner", PEERS[1], "")],
)


def status_of(number: int, member: str = "waiting", cluster_id: str = "0" * 16) -> NodeStatus:
    return NodeStatus(
        cluster_id, f"n{number}", "waiting", 0, None, None, 0, 0, 0, 0, ENDPOINTS[number - 1], "tcp://w",
        {}, "", "", member, {}, False, PEERS[number - 1], "0" * 16, {}, None, {},
    )  # fmt: skip


class Pretended:
    """Notes what it is asked, and answers with FOUND or fails. Owned by one test; its own client."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.failures: list[Exception] = []  # before that, one for each question
        self.statuses: dict[str, NodeStatus | None] = {}
        self.cluster = self

    def client(self, endpoints: tuple[str, ...], timeout_seconds: float) -> Pretended:
        self.endpoints = endpoints
        return self

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., Membership]:
        def answer(*words: object, **options: object) -> Membership:
            self.asked.append(
                (name, *words, *(value for value in options.values() if not isinstance(value, float)))
            )
            if self.failures:
                raise self.failures.pop(0)
            if self.failure is not None:
                raise self.failure
            return FOUND

        return answer

    def status_all(self, *, timeout_seconds: float) -> dict[str, NodeStatus | None]:
        return {endpoint: self.statuses.get(endpoint) for endpoint in self.endpoints}


@pytest.fixture
def cluster() -> Pretended:
    return Pretended()


def run(cluster: Pretended, *words: str, expect: int = exits.OK) -> Result:
    result = CliRunner().invoke(cli, list(words), obj=cluster, env={"ASSENT_ENDPOINTS": None})
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("member list", ("members",)),
        ("member add n4 tcp://h:1", ("add_member", "n4", "tcp://h:1", False)),
        ("member add --learner n4 tcp://h:1", ("add_member", "n4", "tcp://h:1", True)),
        ("member promote n4", ("promote_member", "n4")),
        ("member demote n4", ("demote_member", "n4", False)),
        ("member demote --force n4", ("demote_member", "n4", True)),
        ("member remove n4", ("remove_member", "n4", False)),
        ("member remove n4 --force", ("remove_member", "n4", True)),
        ("member replace n2 n4 tcp://h:1", ("replace_member", "n2", "n4", "tcp://h:1")),
        (
            "change-membership n1,n2,n4=tcp://h:1",
            ("set_members", {"n1": "", "n2": "", "n4": "tcp://h:1"}, False),
        ),
        ("change-membership --force n1", ("set_members", {"n1": ""}, True)),
        ("move-leader", ("move_leader", "")),
        ("move-leader n2", ("move_leader", "n2")),
    ],
)
def test_each_command_asks_for_what_it_says_and_shows_the_members(
    cluster: Pretended, words: str, asked: tuple[Any, ...]
) -> None:
    shown = run(cluster, *words.split())
    assert cluster.asked == [asked]
    assert shown.stdout == f"n1\tvoter\tleads\t{PEERS[0]}\t{ENDPOINTS[0]}\nn2\tlearner\t-\t{PEERS[1]}\t-\n"


def test_members_as_a_table_and_as_json(cluster: Pretended) -> None:
    table = run(cluster, "member", "list", "-w", "table").stdout.splitlines()
    assert table[0].split() == ["NAME", "ROLE", "LEADS", "PEER", "ENDPOINT", "CLIENT", "ENDPOINT"]
    assert table[2].split() == ["n2", "learner", "-", PEERS[1], "-"]
    found = json.loads(run(cluster, "-w", "json", "member", "list").stdout)
    assert found == {
        "cluster_id": "00ff",
        "leader": "n1",
        "is_joint": False,
        "members": [member._asdict() for member in FOUND.members],
    }


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ChangeRefused("no majority: --force", "loses_quorum"), exits.REFUSED),
        (ChangeUnfinished("n4 must catch up first"), exits.OUTCOME_UNKNOWN),
        (NotMember("n4 waits"), exits.NO_LEADER),
    ],
)
def test_a_refusal_has_its_code_and_its_words(cluster: Pretended, failure: Exception, code: int) -> None:
    cluster.failure = failure
    shown = run(cluster, "member", "remove", "n4", expect=code)
    assert shown.stderr == f"assent: {failure}\n"


def test_a_name_that_is_there_twice_is_a_mistake(cluster: Pretended) -> None:
    run(cluster, "change-membership", "n1,n1", expect=exits.USAGE)
    assert cluster.asked == []


# ---- cluster init ----


def test_init_begins_with_the_first_by_name_and_adds_the_others(cluster: Pretended) -> None:
    cluster.statuses = {ENDPOINTS[number - 1]: status_of(number) for number in (1, 2, 3)}
    run(cluster, "cluster", "init")
    assert [asked[0] for asked in cluster.asked] == ["initialise", "members", "add_member", "add_member"]
    assert cluster.asked[0][1] == ENDPOINTS[0]
    assert [asked[1:3] for asked in cluster.asked[2:]] == [("n2", PEERS[1]), ("n3", PEERS[2])]


def test_init_with_a_list_needs_the_first_of_it_only(cluster: Pretended) -> None:
    cluster.statuses = {ENDPOINTS[0]: status_of(1)}
    run(cluster, "cluster", "init", "--cluster", f"n2={PEERS[1]},n1={PEERS[0]}")
    assert [asked[0] for asked in cluster.asked] == ["initialise", "members", "add_member"]


@pytest.mark.parametrize("lost", [Unreachable(("tcp://h:1",)), OutcomeUnknown("the connection ended")])
def test_init_asks_again_with_its_nonce_if_the_node_begins_for_another_meanwhile(
    cluster: Pretended, lost: Exception
) -> None:
    cluster.statuses = {ENDPOINTS[0]: status_of(1)}
    cluster.failures = [lost, lost, ChangeRefused("n1 is of cluster 00ff already", "already_initialised")]
    shown = run(cluster, "cluster", "init", "--cluster", f"n1={PEERS[0]}", expect=exits.REFUSED)
    assert "already" in shown.stderr
    assert [asked[0] for asked in cluster.asked] == ["initialise"] * 3
    assert len({asked[2] for asked in cluster.asked}) == 1


@pytest.mark.parametrize(
    ("statuses", "words", "said"),
    [
        ([status_of(1), status_of(2, "voter", "00ff")], [], "of cluster 00ff already"),
        ([status_of(1), status_of(2, "waiting", "00ff")], [], "of cluster 00ff already"),
        ([status_of(1)], [], "of 3 endpoints, only these answered: n1"),
        ([], [], "only these answered: none"),
        ([status_of(2)], ["--cluster", "n1=tcp://h:1,n2=tcp://h:2"], "n1, the first by name, does not wait"),
    ],
)
def test_init_is_refused_where_it_might_begin_twice_or_half(
    cluster: Pretended, statuses: list[NodeStatus], words: list[str], said: str
) -> None:
    cluster.statuses = {status.client_endpoint: status for status in statuses}
    assert said in run(cluster, "cluster", "init", *words, expect=exits.REFUSED).stderr
    assert cluster.asked == []


def test_init_wants_endpoints_with_its_names(cluster: Pretended) -> None:
    cluster.statuses = {ENDPOINTS[0]: status_of(1)}
    for members in ("n1", "n1=", "n1=tcp://h:1,n1=tcp://h:2"):
        said = run(cluster, "cluster", "init", "--cluster", members, expect=exits.USAGE).stderr
        assert f"--cluster: {members!r}: expected" in said
    assert cluster.asked == []
