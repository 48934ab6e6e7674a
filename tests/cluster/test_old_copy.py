"""Real processes, one of which is started on an old copy of its directory: it finds out, and is replaced."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from kvstore import protocol
from kvstore.client import Client
from raft.fence import FENCE_NAME
from tests.cluster.growing import GrowingCluster, Load, local_read
from tests.cluster.test_growing import assent


def fence_of(cluster: GrowingCluster, name: str) -> dict[str, Any]:
    return (cluster.status(name) or {}).get("fenced") or {}


def test_f13_a_node_on_an_old_copy_of_its_directory_fences_itself_and_is_replaced(tmp_path: Path) -> None:
    with GrowingCluster(tmp_path) as cluster:
        cluster.begin("n1", "n2", "n3")
        leader = cluster.wait_for_leader()
        term = cluster.terms()[leader]
        forgetful = next(name for name in cluster.names if name != leader)
        directory, copy = cluster.data_directory(forgetful), tmp_path / "copy"
        with Load(cluster.running_endpoints()) as load:
            load.wait_for_more()
            cluster.kill(forgetful)
            shutil.copytree(directory, copy)
            cluster.start(forgetful)
            cluster.wait_until_caught_up(forgetful)
            load.wait_for_more(50)
            cluster.kill(forgetful)
            shutil.rmtree(directory)
            copy.rename(directory)
            cluster.start(forgetful)
            cluster.wait_for(f"{forgetful} to fence itself", lambda: fence_of(cluster, forgetful))
            assert cluster.terms()[leader] == term, "the leader that knew it leads on"
            reason = str(fence_of(cluster, forgetful)["reason"])
            assert f"to {leader} in term {term}" in reason and "old copy" in reason
            assert (directory / FENCE_NAME).exists()
            refusal = local_read(cluster.client_endpoints[forgetful], b"/load/")
            assert isinstance(refusal, protocol.Refusal) and refusal.code == protocol.FENCED
            logged = cluster.log(forgetful).read_text()
            assert reason in logged and f"assent member replace {forgetful} NEW" in logged

            cluster.kill(forgetful)
            cluster.start(forgetful)
            cluster.wait_for("the fence to be found again", lambda: fence_of(cluster, forgetful))
            assert fence_of(cluster, forgetful)["reason"] == reason
            shown = assent(cluster, "status")
            assert f"{forgetful} is fenced: {reason}" in shown.stderr

            cluster.launch("n4")
            address = cluster.peer_endpoints["n4"]
            assent(cluster, "member", "replace", forgetful, "n4", address)
            load.wait_for_more()
            cluster.terminate(forgetful)
            load.wait_for_more()
        assert not load.failures
        with Client([cluster.client_endpoints["n4"]], timeout_seconds=20) as reader:
            load.verify(reader)
        nodes = json.loads(assent(cluster, "-w", "json", "status").stdout)["nodes"]
        assert not any(row["fenced"] or row["divergence"] for row in nodes)
