"""The settings of a node: precedence, every wrong value named with its source, all of them at once."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvstore.compactor import HistoryPolicy
from kvstore.settings import MAX_PRIORITY, NodeSettings, SettingsError, derive_cluster_id, load_settings

CLUSTER = "n1=tcp://127.0.0.1:7101,n2=tcp://127.0.0.1:7102,n3=tcp://127.0.0.1:7103"
ENOUGH = {"name": "n1", "data_dir": "data/n1", "cluster": CLUSTER}


def refused(
    flags: Mapping[str, object], environment: dict[str, str] | None = None, config: Path | None = None
) -> str:
    """What is said when these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        load_settings(flags, environment or {}, config)
    return str(caught.value)


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_three_values_are_enough() -> None:
    settings = load_settings(ENOUGH, {})
    assert settings == NodeSettings(
        name="n1",
        data_dir=Path("data/n1"),
        peer="tcp://127.0.0.1:7101",
        client="tcp://127.0.0.1:7001",
        watch="tcp://127.0.0.1:7201",
        cluster={f"n{number}": f"tcp://127.0.0.1:710{number}" for number in (1, 2, 3)},
        cluster_id=derive_cluster_id(settings.cluster),
    )
    assert (settings.heartbeat_interval_ms, settings.election_timeout_ms) == (50, 200)


def test_flag_before_environment_before_file_before_default(tmp_path: Path) -> None:
    levels = {"flag": "error", "environment": "warning", "file": "debug"}
    config = toml(tmp_path, f'log-level = "{levels["file"]}"')
    environment = {"ASSENT_LOG_LEVEL": levels["environment"]}
    assert load_settings({**ENOUGH, "log_level": levels["flag"]}, environment, config).log_level == "error"
    assert load_settings({**ENOUGH, "log_level": None}, environment, config).log_level == "warning"
    assert load_settings(ENOUGH, {}, config).log_level == "debug"
    assert load_settings(ENOUGH, {}).log_level == "info"


def test_everything_from_the_environment() -> None:
    environment = {
        "ASSENT_NAME": "n2",
        "ASSENT_DATA_DIR": "data/n2",
        "ASSENT_CLUSTER": CLUSTER,
        "ASSENT_CLIENT": "ipc://data/client.sock",
        "ASSENT_HEARTBEAT_INTERVAL_MS": "20",
        "ASSENT_INSECURE": "no",
        "ASSENT_ENDPOINTS": "this one belongs to the client and is left alone",
    }
    settings = load_settings({}, environment)
    assert settings.peer == "tcp://127.0.0.1:7102"
    assert settings.client == "ipc://data/client.sock"
    assert settings.heartbeat_interval_ms == 20
    assert not settings.insecure


def test_everything_from_a_file(tmp_path: Path) -> None:
    config = toml(
        tmp_path,
        """
        name = "n1"
        data_dir = "data/n1"
        election-timeout-ms = 900
        insecure = false
        [cluster]
        n1 = "tcp://127.0.0.1:7101"
        n2 = "ipc://data/n2.sock"
        """,
    )
    settings = load_settings({}, {}, config)
    assert settings.cluster == {"n1": "tcp://127.0.0.1:7101", "n2": "ipc://data/n2.sock"}
    assert settings.election_timeout_ms == 900


def test_all_problems_are_told_at_once_each_with_value_source_and_expectation(tmp_path: Path) -> None:
    config = toml(tmp_path, 'clinet = "tcp://127.0.0.1:7001"\nelection_timeout_ms = "soon"\n')
    said = refused(
        {"name": "N 1", "watch": "tcp://127.0.0.1"},
        {"ASSENT_LOG_FORMAT": "xml", "ASSENT_CLUSTER": "n1"},
        config,
    )
    lines = said.splitlines()
    assert len(lines) == 7
    assert lines[0] == f"clinet: no such setting; did you mean 'client'? (from {config})"
    assert lines[1] == "name: 'N 1' is not a name (from --name); expected 1 to 63 of a-z, 0-9 and '-'"
    assert lines[2].startswith(
        "data_dir: missing (give --data-dir, ASSENT_DATA_DIR or 'data_dir' in the file)"
    )
    assert lines[3].startswith(
        "cluster: 'n1' has no '=' (from ASSENT_CLUSTER); expected 1 to 9 nodes as n1=tcp://"
    )
    assert lines[4].startswith(
        "watch: 'tcp://127.0.0.1' has no port (from --watch); expected tcp://host:port"
    )
    assert lines[5].startswith(f"election_timeout_ms: 'soon' is not a whole number (from {config}); expected")
    assert lines[6] == "log_format: 'xml' is not known (from ASSENT_LOG_FORMAT); expected text or json"


@pytest.mark.parametrize("name", ["", "N1", "n_1", "n1 ", "ñ", "a" * 64, "n1\n"])
def test_names_that_are_refused(name: str) -> None:
    assert f"name: {name!r} is not a name (from --name)" in refused({**ENOUGH, "name": name})


def test_the_longest_name_is_taken() -> None:
    name = "a" * 63
    assert load_settings({**ENOUGH, "name": name, "cluster": f"{name}=tcp://127.0.0.1:7101"}, {}).name == name


@pytest.mark.parametrize(
    ("endpoint", "wrong"),
    [
        ("127.0.0.1:7001", "does not begin with tcp:// or ipc://"),
        ("inproc://x", "does not begin with tcp:// or ipc://"),
        ("tcp://", "has neither host nor port"),
        ("tcp://:7001", "has no host"),
        ("tcp://127.0.0.1:", "has no port"),
        ("tcp://127.0.0.1:x", "has 'x' where the port belongs"),
        ("tcp://127.0.0.1:0", "has port 0"),
        ("tcp://127.0.0.1:65536", "has port 65536"),
        ("tcp://127.0.0.1:7001/x", "has '7001/x' where the port belongs"),
        ("tcp://lo;127.0.0.1:7001", "has 'lo;127.0.0.1' where the host belongs"),
        ("tcp://::1:7001", "has an IPv6 address without brackets"),
        ("tcp://[::1::]:7001", "has [::1::], which is not an IPv6 address"),
        ("ipc://", "has no path"),
        ("ipc://*", "has no path of its own"),
        ("ipc://@name", "is an abstract socket"),
        ("ipc://" + "x" * 108, "has a path of 108 bytes, more than 107"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, wrong: str) -> None:
    assert f"client: {endpoint!r} {wrong}" in refused({**ENOUGH, "client": endpoint})


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:1",
        "tcp://127.8.9.10:65535",
        "tcp://[::1]:7001",
        "tcp://localhost:7001",
        "ipc:///run/a.sock",
    ],
)
def test_endpoints_that_stay_on_the_machine_are_taken(endpoint: str) -> None:
    assert load_settings({**ENOUGH, "client": endpoint}, {}).client == endpoint


def _an_interface() -> str:
    return socket.if_nameindex()[0][1]


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "*",
        "[::]",
        "0",
        "0x0",
        "192.0.2.1",
        "[2001:db8::1]",
        "[::ffff:192.0.2.1]",
        "[::ffff:0.0.0.0]",
    ],
)
@pytest.mark.parametrize("plane", ["client", "watch"])
def test_an_address_that_others_can_reach_is_refused_unless_insecure(plane: str, host: str) -> None:
    endpoint = f"tcp://{host}:7777"
    said = refused({**ENOUGH, plane: endpoint})
    assert said.startswith(f"{plane}: {endpoint!r} can be reached from other machines")
    assert "nothing is encrypted and nobody is asked who they are" in said
    for way_out in ("tcp://127.0.0.1:port", "ipc://path", "--insecure"):
        assert way_out in said
    assert getattr(load_settings({**ENOUGH, plane: endpoint, "insecure": True}, {}), plane) == endpoint


def test_the_name_of_an_interface_is_refused_even_that_of_the_loopback_one() -> None:
    said = refused({**ENOUGH, "client": f"tcp://{_an_interface()}:7001"})
    assert "is a network interface" in said


def test_a_host_name_counts_as_what_it_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"127.0.0.1": ["127.0.0.1"], "inside": ["127.0.0.1"], "outside": ["127.0.0.1", "192.0.2.7"]}

    def resolve(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        if host not in addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(0, 0, 0, "", (address, 0)) for address in addresses[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert load_settings({**ENOUGH, "client": "tcp://inside:7001", "watch": "ipc://w"}, {}).client
    assert "outside is 192.0.2.7" in refused({**ENOUGH, "client": "tcp://outside:7001", "watch": "ipc://w"})
    assert "nowhere resolves to nothing" in refused(
        {**ENOUGH, "client": "tcp://nowhere:7001", "watch": "ipc://w"}
    )


def test_an_open_peer_endpoint_is_refused_too() -> None:
    said = refused({**ENOUGH, "cluster": "n1=tcp://192.0.2.1:7101"})
    assert said.startswith("peer: 'tcp://192.0.2.1:7101' can be reached from other machines")
    assert "n1 in --cluster" in said


@pytest.mark.parametrize(
    ("cluster", "wrong"),
    [
        ("", "0 nodes"),
        (",".join(f"n{i}=tcp://127.0.0.1:71{i:02}" for i in range(1, 11)), "10 nodes"),
        ("n1=tcp://127.0.0.1:7101,n1=tcp://127.0.0.1:7102", "the name 'n1' is there twice"),
        ("n1=tcp://127.0.0.1:7101,n2=tcp://127.0.0.1:7101", "n1 and n2 have the same endpoint"),
        ("n1=tcp://127.0.0.1:7101,N2=tcp://127.0.0.1:7102", "'N2' is not a name"),
        ("n1=tcp://127.0.0.1:7101,n2=127.0.0.1:7102", "'127.0.0.1:7102' does not begin with"),
        ("n1=tcp://127.0.0.1:7101,n2", "'n2' has no '='"),
        ("n1=tcp://127.0.0.1:7101,", "'' has no '='"),
        ("n1=tcp://*:7101", "to which no other node can connect"),
        ("n1=tcp://0:7101", "to which no other node can connect"),
    ],
)
def test_clusters_that_are_refused(cluster: str, wrong: str) -> None:
    said = refused({**ENOUGH, "cluster": cluster})
    assert said.startswith("cluster: ") and wrong in said and "expected 1 to 9 nodes" in said


@pytest.mark.parametrize("size", [1, 2, 9])
def test_cluster_sizes_that_are_taken(size: int) -> None:
    cluster = ",".join(f"n{number}=tcp://127.0.0.1:710{number}" for number in range(1, size + 1))
    assert len(load_settings({**ENOUGH, "cluster": cluster}, {}).cluster) == size


def test_a_node_must_be_in_its_cluster_at_its_own_endpoint() -> None:
    assert "cluster: has no node 'n4', only n1, n2, n3 (from --cluster)" in refused({**ENOUGH, "name": "n4"})
    said = refused({**ENOUGH, "peer": "tcp://127.0.0.1:9999"})
    assert "peer: 'tcp://127.0.0.1:9999' is not what the cluster has for n1 (from --peer)" in said
    assert "expected 'tcp://127.0.0.1:7101'" in said


def test_two_planes_cannot_share_an_endpoint() -> None:
    assert "watch: 'tcp://127.0.0.1:7001' is also the endpoint of client" in refused(
        {**ENOUGH, "watch": "tcp://127.0.0.1:7001"}
    )
    assert "client: 'tcp://127.0.0.1:7102' is also the endpoint of n2 in cluster" in refused(
        {**ENOUGH, "client": "tcp://127.0.0.1:7102"}
    )


@pytest.mark.parametrize("value", ["4", "60001", "-5", "1.5", "", "fast"])
def test_times_that_are_refused(value: str) -> None:
    assert "election_timeout_ms: " in refused({**ENOUGH, "election_timeout_ms": value})


def test_a_boolean_is_no_time_and_a_number_is_no_boolean(tmp_path: Path) -> None:
    said = refused(ENOUGH, {}, toml(tmp_path, "heartbeat_interval_ms = true\ninsecure = 1\n"))
    assert "heartbeat_interval_ms: True is not a whole number" in said
    assert "insecure: 1 is not text" in said


def test_an_election_takes_at_least_three_heartbeats() -> None:
    said = refused({**ENOUGH, "heartbeat_interval_ms": 70})
    assert "election_timeout_ms: 200 is less than three heartbeats of 70 ms (from the default)" in said
    assert load_settings({**ENOUGH, "heartbeat_interval_ms": 66}, {}).heartbeat_interval_ms == 66


def test_the_least_lease_outlives_an_election_timeout() -> None:
    """Two thirds of it are left when the leader falls, if it was renewed in time."""
    said = refused({**ENOUGH, "election_timeout_ms": 1334})
    assert said == (
        "election_timeout_ms: 1334 is so long that a lease of 2 s, the least there is, would be lost with "
        "its leader, though it is renewed in time (from --election-timeout-ms); expected at most 1333, and "
        "heartbeats of a third of that at most"
    )
    assert load_settings({**ENOUGH, "election_timeout_ms": 1333}, {}).election_timeout_ms == 1333


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = toml(tmp_path, "")
    assert "exists and is not a directory (from --data-dir)" in refused({**ENOUGH, "data_dir": str(path)})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert f"config: No such file or directory (from {missing})" in refused(ENOUGH, {}, missing)
    broken = toml(tmp_path, "name = \n")
    assert re.search(rf"config: not TOML: .*\(from {re.escape(str(broken))}\)", refused(ENOUGH, {}, broken))


def test_the_cluster_id_depends_on_members_and_token_not_on_their_order() -> None:
    one = {"n1": "tcp://127.0.0.1:7101", "n2": "tcp://127.0.0.1:7102"}
    other_order = dict(reversed(list(one.items())))
    swapped = {"n1": one["n2"], "n2": one["n1"]}
    ids = {derive_cluster_id(one), derive_cluster_id(one, "token"), derive_cluster_id(swapped)}
    assert derive_cluster_id(other_order) == derive_cluster_id(one)
    assert len(ids) == 3
    assert all(0 <= value < 1 << 63 for value in ids)
    with_token = load_settings({**ENOUGH, "cluster_token": "token"}, {})
    assert with_token.cluster_id == derive_cluster_id(with_token.cluster, "token")


def test_a_wildcard_is_advertised_as_the_host_that_the_cluster_knows() -> None:
    flags = {**ENOUGH, "client": "tcp://*:7001", "watch": "tcp://127.0.0.1:7201", "insecure": True}
    settings = load_settings({**flags, "cluster": "n1=tcp://192.0.2.1:7101"}, {})
    assert settings.advertised_client == "tcp://192.0.2.1:7001"
    assert settings.advertised_watch == "tcp://127.0.0.1:7201"


# ---- nodes that wait to be added ----


def test_a_node_without_a_cluster_waits_and_says_where_it_is() -> None:
    alone = {"name": "n4", "data_dir": "data/n4", "peer": "tcp://127.0.0.1:7104"}
    settings = load_settings(alone, {})
    assert (settings.cluster, settings.cluster_id, settings.join) == ({}, 0, ())
    joining = load_settings({**alone, "join": "tcp://127.0.0.1:7001, tcp://127.0.0.1:7002"}, {})
    assert joining.join == ("tcp://127.0.0.1:7001", "tcp://127.0.0.1:7002")


def test_endpoints_to_join_may_be_a_list_in_the_file(tmp_path: Path) -> None:
    config = toml(tmp_path, 'join = ["tcp://127.0.0.1:7001"]\npeer = "tcp://127.0.0.1:7104"')
    settings = load_settings({"name": "n4", "data_dir": "data/n4"}, {}, config)
    assert settings.join == ("tcp://127.0.0.1:7001",)


def test_a_node_that_waits_must_be_reachable_and_does_one_thing_only() -> None:
    alone = {"name": "n4", "data_dir": "data/n4"}
    assert "peer: missing (give --peer" in refused(alone)
    assert "no other node can connect" in refused({**alone, "peer": "tcp://0.0.0.0:7104", "insecure": True})
    both = refused({**ENOUGH, "join": "tcp://127.0.0.1:7001"})
    assert "join: a node either begins" in both and "expected one of the two" in both
    for wrong in ("", "nowhere", "tcp://127.0.0.1:7001,"):
        assert "join: " in refused({**alone, "peer": "tcp://127.0.0.1:7104", "join": wrong})


def test_priority_comes_from_flag_environment_and_file_and_reaches_raft(tmp_path: Path) -> None:
    assert load_settings(ENOUGH, {}).raft_config.priority == 1
    for settings in (
        load_settings({**ENOUGH, "priority": "0"}, {"ASSENT_PRIORITY": "3"}),
        load_settings(ENOUGH, {"ASSENT_PRIORITY": "0"}, toml(tmp_path, "priority = 3")),
        load_settings(ENOUGH, {}, toml(tmp_path, "priority = 0")),
    ):
        assert settings.priority == settings.raft_config.priority == 0
    assert load_settings({**ENOUGH, "priority": str(MAX_PRIORITY)}, {}).priority == MAX_PRIORITY


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("-1", "-1 is out of range"),
        ("1001", "1001 is out of range"),
        ("high", "'high' is not a whole number"),
        ("0.5", "'0.5' is not a whole number"),
        ("", "'' is not a whole number"),
    ],
)
def test_a_priority_that_is_none_is_named_with_what_was_expected(value: str, wrong: str) -> None:
    expected = "a whole number, 0 (never leads) to 1000"
    said = refused(ENOUGH, {"ASSENT_PRIORITY": value})
    assert said == f"priority: {wrong} (from ASSENT_PRIORITY); expected {expected}"


def test_how_much_of_the_past_is_kept_comes_from_flag_environment_and_file(tmp_path: Path) -> None:
    assert load_settings(ENOUGH, {}).history_policy == HistoryPolicy() == (100_000, 64 << 20, 0, 0)
    config = toml(tmp_path, "history_revisions = 1\nhistory-mib = 2\nhistory_seconds = 3")
    environment = {"ASSENT_HISTORY_REVISIONS": "10", "ASSENT_HISTORY_SECONDS": "30"}
    settings = load_settings({**ENOUGH, "history_seconds": "300"}, environment, config)
    assert settings.history_policy == (10, 2 << 20, 300, 0)
    nothing = {"ASSENT_HISTORY_REVISIONS": "0", "ASSENT_HISTORY_MIB": "0"}
    assert load_settings(ENOUGH, nothing).history_policy == (0, 0, 0, 0)


def test_a_quota_is_none_or_large_enough() -> None:
    assert load_settings({**ENOUGH, "quota_mib": "32"}, {}).history_policy.quota_bytes == 32 << 20
    for value in ("31", "1", "-1", "many"):
        said = refused({**ENOUGH, "quota_mib": value})
        assert said.startswith("quota_mib: ") and said.endswith("at least 32; 0: none")


@pytest.mark.parametrize("name", ["history_revisions", "history_mib", "history_seconds"])
@pytest.mark.parametrize("value", ["-1", "10000000000", "0.5", "all", ""])
def test_bounds_of_the_past_that_are_none_are_named(name: str, value: str) -> None:
    said = refused({**ENOUGH, name: value})
    assert (
        said.startswith(f"{name}: ") and f"(from --{name.replace('_', '-')}); expected a whole number" in said
    )
    assert said.endswith("; 0: no bound")
