"""Real processes: a leader sends snapshots that are whole, and that the new member's store cannot restore."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.cli import exits
from tests.cluster.growing import GrowingCluster
from tests.cluster.other_content_node import LATER

ARGUMENTS = ("--snapshot-interval-entries", "100", "--trailing-entries", "20")


class Cluster(GrowingCluster):
    """The first node is not as the others are."""

    def module_of(self, name: str) -> str:
        return "kvstore.cli" if name == "n2" else "tests.cluster.other_content_node"


def grown(cluster: GrowingCluster, name: str) -> str:
    """What the second node says last: a learner, which joins once the first one has given up the log."""
    cluster.begin(name)
    with cluster.client() as client:
        for number in range(250):
            client.put(f"/k/{number}", "v")
    cluster.wait_for("the log to be cut", lambda: (cluster.status(name) or {})["log_first_index"] > 1)
    cluster.launch("n2")
    with cluster.client() as client:
        client.cluster.add_member("n2", cluster.peer_endpoints["n2"], learner=True)
    cluster.wait_for("the new member to end", lambda: not cluster.is_running("n2"))
    return cluster.log("n2").read_text().splitlines()[-1]


@pytest.mark.parametrize("name", ["later", "bent"])
def test_a_member_that_is_sent_an_unusable_snapshot_names_it_as_its_next_start_does(
    tmp_path: Path, name: str
) -> None:
    with Cluster(tmp_path, ARGUMENTS) as cluster:
        said = grown(cluster, name)
        [snapshot] = (cluster.data_directory("n2") / "wal").glob("snapshot-*")
        index = int(snapshot.name.split("-")[1])
        if name == "later":
            code = exits.DATA_DIRECTORY
            assert f"the content of {snapshot} (log index {index}) has format version {LATER}" in said
            assert "Start this node with the version of Assent that wrote it" in said
        else:
            code = exits.CORRUPT
            assert (
                f"the snapshot {snapshot} is whole, and the store cannot restore it: log index {index}"
                in said
            )
            assert "the state has fingerprint" in said and "remove this member" in said
        assert cluster.terminate("n2") == code
        cluster.start("n2")
        cluster.wait_for("its next start to end", lambda: not cluster.is_running("n2"))
        assert cluster.terminate("n2") == code
        assert cluster.log("n2").read_text().splitlines()[-1] == said
        status = cluster.status(name)
        assert status is not None and status["role"] == "leader"
