"""Real processes, one of which has its memory go bad: it fences itself, the others serve, it is replaced."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from kvstore import protocol
from kvstore.client import Client
from tests.cluster.growing import GrowingCluster, Load, local_read
from tests.cluster.test_growing import assent


class HarmableCluster(GrowingCluster):
    """Its first nodes can be harmed."""

    def __enter__(self) -> HarmableCluster:
        super().__enter__()
        return self

    def module_of(self, name: str) -> str:
        return "kvstore.cli" if name == "n4" else "tests.cluster.harmed_node"

    def is_fenced(self, name: str) -> bool:
        return bool((self.status(name) or {}).get("fenced"))


class Watcher:
    """Follows a range on a thread, from one node's client on; notes the revisions."""

    def __init__(self, endpoint: str) -> None:
        self.revisions: list[int] = []
        self._client = Client([endpoint], timeout_seconds=20)
        self._watch = self._client.watch("/load/", prefix=True)
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for batch in self._watch:
            if batch.events:
                self.revisions.append(batch.revision)

    def close(self) -> None:
        self._watch.cancel()
        self._thread.join(30)
        self._client.close()


def harm(cluster: HarmableCluster, name: str) -> None:
    """What was changed in its memory comes to light when it is replaced."""
    with cluster.client() as client:
        client.put("/victim", "true")
        client.put(f"/harm/{name}", "now")
        client.put("/victim", "true again")


@pytest.mark.parametrize("leads", [False, True])
def test_a_node_whose_memory_goes_bad_fences_itself_and_is_replaced_by_one_command(
    tmp_path: Path, leads: bool
) -> None:
    with HarmableCluster(tmp_path) as cluster:
        cluster.begin("n1", "n2", "n3")
        leader = cluster.wait_for_leader()
        bad = leader if leads else next(name for name in cluster.names if name != leader)
        watcher = Watcher(cluster.client_endpoints[bad])
        with Load(cluster.running_endpoints()) as load:
            load.wait_for_more()
            harm(cluster, bad)
            cluster.wait_for(f"{bad} to fence itself", lambda: cluster.is_fenced(bad))
            load.wait_for_more(100)
            refusal = local_read(cluster.client_endpoints[bad], b"/victim")
            assert isinstance(refusal, protocol.Refusal) and refusal.code == protocol.FENCED
            if not leads:
                cluster.kill(bad)
                cluster.start(bad)
                cluster.wait_for(f"{bad} to be back behind its fence", lambda: cluster.is_fenced(bad))
            rows = _status(cluster)
            assert {name for name, row in rows.items() if row["member"] == "fenced"} == {bad}
            assert (
                rows[bad]["role"] == "follower"
                and rows[bad]["fenced"]["own"] != rows[bad]["fenced"]["theirs"]
            )
            cluster.launch("n4")
            assent(cluster, "member", "replace", bad, "n4", cluster.peer_endpoints["n4"])
            load.wait_for_more()
            cluster.terminate(bad)
            load.wait_for_more()
        assert not load.failures
        with Client([cluster.client_endpoints["n4"]], timeout_seconds=20) as reader:
            load.verify(reader)
            found = reader.get("/victim")
            assert found is not None and found.value == b"true again"
        watcher.close()
        assert len(watcher.revisions) > 100 and watcher.revisions == sorted(set(watcher.revisions))
        rows = _status(cluster)
        assert not any(row["fenced"] or row["divergence"] for row in rows.values())


def _status(cluster: HarmableCluster) -> dict[str, dict[str, Any]]:
    nodes = json.loads(assent(cluster, "-w", "json", "status").stdout)["nodes"]
    return {row["node"]: row for row in nodes}
