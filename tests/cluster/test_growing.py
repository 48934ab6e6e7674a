"""Members that come, go and fail, as real processes under load: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.processes import ROOT, ProcessCluster
from kvstore import protocol
from kvstore.cli import exits
from kvstore.client import AsyncClient, Client, Membership
from kvstore.errors import AssentError, ChangeRefused
from tests.cluster.growing import GrowingCluster, Load, local_read


def roles(membership: Membership) -> dict[str, str]:
    return {member.name: member.role for member in membership.members}


def assent(cluster: ProcessCluster, *words: str, expect: int = exits.OK) -> subprocess.CompletedProcess[str]:
    """The command line, with the endpoints of all that run."""
    running = [cluster.client_endpoints[name] for name in cluster.names if cluster.is_running(name)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASSENT_")}
    done = subprocess.run(
        [sys.executable, "-m", "kvstore.cli", "--endpoints", ",".join(running), "--timeout", "20", *words],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done


def test_a_cluster_grows_from_one_to_five_and_shrinks_again_under_load(tmp_path: Path) -> None:
    """The members it began with are all gone in the end; the client learned of the others by itself."""
    with GrowingCluster(tmp_path) as cluster:
        cluster.begin("n1")
        with Load(cluster.running_endpoints()) as load, cluster.client() as admin:
            for number in range(2, 6):
                name = f"n{number}"
                cluster.join = cluster.running_endpoints()
                cluster.launch(name)
                found = admin.cluster.add_member(name, cluster.peer_endpoints[name])
                assert roles(found)[name] == "voter"
                load.wait_for_more()
            for name in ("n1", "n2", "n3"):
                admin.cluster.remove_member(name)
                load.wait_for_more()
                cluster.terminate(name)
                load.wait_for_more()
            assert roles(admin.cluster.members()) == {"n4": "voter", "n5": "voter"}
        assert not load.failures
        with cluster.client() as reader:
            load.verify(reader)


def test_a_dead_node_is_replaced_by_one_command_under_load(tmp_path: Path) -> None:
    with GrowingCluster(tmp_path) as cluster:
        cluster.begin("n1", "n2", "n3")
        with Load(cluster.running_endpoints()) as load:
            load.wait_for_more()
            cluster.kill("n2")
            cluster.launch("n4")
            shown = assent(
                cluster, "-w", "json", "member", "replace", "n2", "n4", cluster.peer_endpoints["n4"]
            )
            load.wait_for_more()
        members = {member["name"]: member["role"] for member in json.loads(shown.stdout)["members"]}
        assert members == {"n1": "voter", "n3": "voter", "n4": "voter"}
        assert not load.failures
        with Client([cluster.client_endpoints["n4"]]) as reader:
            load.verify(reader)
        # Its name is used up, and what it has on its disk is of no use any more.
        cluster.start("n2")
        cluster.wait_for(
            "n2 to hear that it was removed", lambda: (cluster.status("n2") or {}).get("member") == "removed"
        )
        answer = local_read(cluster.client_endpoints["n2"], b"/load/00000000")
        assert isinstance(answer, protocol.Refusal) and answer.code == protocol.NOT_MEMBER


def test_leadership_moves_under_load_and_nobody_notices_but_by_a_moment(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster, Load(cluster.endpoints) as load:
        for _ in range(4):
            before = cluster.wait_for_leader()
            target = next(name for name in cluster.names if name != before)
            assent(cluster, "move-leader", target)
            assert cluster.wait_for_leader() == target
            load.wait_for_more()
        assert not load.failures
        assert load.longest_pause_seconds < 2.0
        with Client(cluster.endpoints) as reader:
            load.verify(reader)


def test_a_leader_that_is_told_to_stop_hands_over_first(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster, Load(cluster.endpoints) as load:
        for _ in range(3):
            leader = cluster.wait_for_leader()
            term = cluster.terms()[leader]
            load.wait_for_more()
            began_at = time.monotonic()
            assert cluster.terminate(leader, 2.0) == exits.OK
            assert time.monotonic() - began_at < 2.0
            successor = cluster.wait_for_leader()
            # It saw its successor lead before it ended: nobody had to notice a silence first.
            assert f"role=follower term={term + 1} leader={successor}" in cluster.log_tail(leader, 5)
            cluster.start(leader)
            cluster.wait_until_caught_up(leader)
        assert not load.failures
        with Client(cluster.endpoints) as reader:
            load.verify(reader)


def test_a_wiped_disk_is_refused_under_the_old_name_and_said_on_both_sides(tmp_path: Path) -> None:
    with ProcessCluster(tmp_path) as cluster:
        with Client(cluster.endpoints, timeout_seconds=10) as client:
            client.put("/a", "1")
        leader = cluster.wait_for_leader()
        cluster.wait_for_storage_ids()
        wiped, other = (name for name in cluster.names if name != leader)
        cluster.kill(wiped)
        for path in sorted(cluster.data_directory(wiped).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        cluster.start(wiped)
        cluster.wait_for(
            "the wiped node to hear that it is refused",
            lambda: len((cluster.status(wiped) or {}).get("refused_by", {})) == 2,
        )
        assert "peer_other_storage" in cluster.log(leader).read_text()
        assert "under a new name" in cluster.log(wiped).read_text()
        assert "refused" in assent(cluster, "status").stdout
        cluster.kill(other)  # with the wiped one it would be a majority
        alone = Client([cluster.client_endpoints[leader]], timeout_seconds=1.5)
        with alone, pytest.raises(AssentError):
            alone.put("/a", "2")
        assert (cluster.status(wiped) or {})["role"] != "leader"


def test_a_waiting_node_does_not_begin_by_itself_and_init_happens_once(tmp_path: Path) -> None:
    with GrowingCluster(tmp_path) as cluster:
        cluster.launch("n1", "n2", "n3")
        time.sleep(0.5)  # more than two election timeouts
        assert {(cluster.status(name) or {})["role"] for name in cluster.names} == {"waiting"}
        assert "waits to be added" in assent(cluster, "member", "list", expect=exits.NO_LEADER).stderr
        commands = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "kvstore.cli",
                    "--timeout",
                    "20",
                    "--endpoints",
                    ",".join(endpoints),
                    "cluster",
                    "init",
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for endpoints in (cluster.running_endpoints(), cluster.running_endpoints()[::-1])
        ]
        try:
            said = [command.communicate(timeout=60) for command in commands]
        finally:
            for command in commands:
                command.kill()
        codes = sorted(command.returncode for command in commands)
        assert codes == [exits.OK, exits.REFUSED], said
        refusal = assent(cluster, "cluster", "init", expect=exits.REFUSED).stderr
        assert "already" in refusal and "assent member" in refusal
        with cluster.client() as client:
            assert roles(client.cluster.members()) == dict.fromkeys(cluster.names, "voter")
            with pytest.raises(ChangeRefused) as caught:
                client.initialise(cluster.client_endpoints["n2"])
            assert caught.value.reason == "already_initialised"
            client.put("/a", "1")


def test_nodes_come_back_without_their_cluster_setting_and_with_an_outdated_one(tmp_path: Path) -> None:
    """What the log says counts; the setting counted once."""
    with GrowingCluster(tmp_path) as cluster:
        cluster.begin("n1", "n2", "n3")
        with cluster.client() as client:
            client.put("/a", "1")
        for name in cluster.names:
            cluster.terminate(name)
        for name in cluster.names:
            cluster.start(name)
        with cluster.client() as client:
            found = client.get("/a")
            assert found is not None and found.value == b"1"
            assert roles(client.cluster.members()) == dict.fromkeys(cluster.names, "voter")

        async def moved() -> str:
            async with AsyncClient(cluster.running_endpoints(), timeout_seconds=10) as client:
                leader = (await client.cluster.members()).leader
                target = next(name for name in cluster.names if name != leader)
                return f"{target} {(await client.cluster.move_leader(target)).leader}"

        asked, leads = asyncio.run(moved()).split()
        assert asked == leads
