"""What a node begins with when it has a data directory: from its identity, damaged or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstore.founding import open_directory, origin_of
from kvstore.settings import NodeSettings, derive_cluster_id, load_settings
from raft import Configuration
from raft.directory import DataDirectory
from raft.storage import CorruptLog, WrongDirectory

MEMBERS = {"n1": "tcp://127.0.0.1:7101", "n2": "tcp://127.0.0.1:7102"}
STORAGE = "0011223344556677"


def settings_of(path: Path, *, names_cluster: bool) -> NodeSettings:
    cluster = ",".join(f"{name}={where}" for name, where in MEMBERS.items()) if names_cluster else None
    flags = {"name": "n1", "data_dir": str(path), "peer": MEMBERS["n1"], "cluster": cluster}
    return load_settings(flags, {})


@pytest.mark.parametrize("names_cluster", [True, False])
def test_an_identity_of_before_there_were_checksums_never_ends_a_start_in_an_unknown_way(
    tmp_path: Path, names_cluster: bool
) -> None:
    """Each of its bits flipped: the start is refused as documented, or goes on with ids that are some. If no
    setting names the cluster, the log does."""
    path = tmp_path / "data"
    cluster_id = f"{derive_cluster_id(MEMBERS):016x}"
    DataDirectory(path, cluster_id, "n1", storage_id=STORAGE, members=MEMBERS).close()
    settings = settings_of(path, names_cluster=names_cluster)
    content = {"format": 1, "cluster_id": cluster_id, "node_id": "n1"}
    whole = (json.dumps(content | {"storage_id": STORAGE, "members": MEMBERS}) + "\n").encode()
    refused = 0
    for place in range(len(whole)):
        for bit in range(8):
            (path / "identity").write_bytes(
                whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            )
            try:
                directory = open_directory(settings, lambda: False)
            except WrongDirectory:
                refused += 1
                continue
            assert directory is not None
            origin = origin_of(directory, settings)
            if origin.cluster_id != int(cluster_id, 16):
                assert not names_cluster
                with pytest.raises(CorruptLog, match="identity"):
                    directory.open_log().load()
                refused += 1
            directory.close()
            assert 0 <= origin.storage_id < 1 << 64
            members = origin.members or {}
            Configuration(members, addresses=members).encode()
    assert refused > 4 * len(whole)
