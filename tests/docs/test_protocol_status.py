"""docs/protocol.md against a running cluster: the fields of STATUS, each with its type, and no other."""

from __future__ import annotations

import re

from tests.docs.markdown import ROOT
from tests.kvstore.memory_cluster import MemoryCluster

ROW = re.compile(r"^\| `(\w+)` \| ([\w ]+) \| .+ \|$", re.MULTILINE)
TYPES = {
    "str": (str,),
    "str or nil": (str, type(None)),
    "int": (int,),
    "float": (float,),
    "bool": (bool,),
    "array": (list, tuple),
    "map": (dict,),
    "map or nil": (dict, type(None)),
}


def documented() -> dict[str, str]:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = text[text.index("STATUS answers") : text.index("## 6.")]
    rows = ROW.findall(section)
    fields = dict(rows)
    assert len(fields) == len(rows), "a field is there twice"
    return fields


def test_a_node_sends_the_documented_fields_and_no_other() -> None:
    cluster = MemoryCluster(seed=5)
    young = cluster.status("n1")  # knows of no leader and of no other node yet
    leader = cluster.leader()
    cluster.run(2.0)
    fields = documented()
    for status in (young, *map(cluster.status, cluster.names)):
        assert sorted(status) == sorted(fields)
        wrong = {name: value for name, value in status.items() if type(value) not in TYPES[fields[name]]}
        assert wrong == {}
    assert young["leader"] is None and young["peers"] == {}
    follower = next(name for name in cluster.names if name != leader)
    assert cluster.status(follower)["leader_client"] == cluster.status(leader)["client_endpoint"]
    assert {cluster.status(name)["cluster_id"] for name in cluster.names} == {f"{7:016x}"}
