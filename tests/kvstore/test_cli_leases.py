"""The command line on leases, against a cluster of real sockets."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from kvstore import protocol, protocol_lease
from kvstore.cli import cli, wal
from kvstore.client import Client
from tests.kvstore.fake_server import FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster(1) as cluster:
        yield cluster


def run(cluster: FakeCluster, *words: str, expect: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["--endpoints", ",".join(cluster.endpoints), *words])
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


def test_a_lease_is_granted_used_and_revoked(cluster: FakeCluster) -> None:
    assert run(cluster, "lease", "grant", "60", "--id", "77").stdout == "lease 77 ttl 60\n"
    assert re.fullmatch(r"lease \d+ ttl 2\n", run(cluster, "lease", "grant", "0.5").stdout)
    run(cluster, "put", "--lease", "77", "/a", "1")
    assert json.loads(run(cluster, "get", "/a", "-w", "json").stdout)["lease"] == 77
    assert run(cluster, "lease", "ttl", "77").stdout == "remaining 60 ttl 60 keys 1\n"
    assert run(cluster, "lease", "ttl", "77", "--keys").stdout == "remaining 60 ttl 60 keys 1\n/a\n"
    assert "77" in run(cluster, "lease", "list").stdout.split()
    assert run(cluster, "lease", "keep-alive", "77", "--once").stdout == "lease 77 ttl 60\n"
    assert run(cluster, "lease", "revoke", "77").stdout == "deleted 1\n"
    run(cluster, "get", "/a", expect=4)


def test_leases_as_json(cluster: FakeCluster) -> None:
    assert json.loads(run(cluster, "-w", "json", "lease", "grant", "60", "--id", "7").stdout) == {
        "id": 7,
        "ttl": 60,
    }
    shown = json.loads(run(cluster, "-w", "json", "lease", "ttl", "7", "--keys").stdout)
    assert shown == {"id": 7, "remaining": 60, "ttl": 60, "key_count": 0, "keys": []}
    assert json.loads(run(cluster, "-w", "json", "lease", "list").stdout) == {"revision": 1, "ids": [7]}
    once = run(cluster, "-w", "json", "lease", "keep-alive", "7", "--once").stdout
    assert json.loads(once) == {"id": 7, "ttl": 60}
    assert json.loads(run(cluster, "-w", "json", "lease", "revoke", "7").stdout) == {
        "revision": 1,
        "deleted": 0,
    }


def test_a_lease_that_is_not_there(cluster: FakeCluster) -> None:
    assert run(cluster, "lease", "ttl", "5").stdout == "remaining -1 ttl 0 keys 0\n"
    assert "not found" in run(cluster, "lease", "revoke", "5", expect=10).stderr
    assert "not there" in run(cluster, "lease", "keep-alive", "5", expect=10).stderr
    run(cluster, "put", "--lease", "5", "/a", "1", expect=10)
    run(cluster, "lease", "ttl", "0", expect=2)


def test_keep_alive_ends_when_the_lease_is_gone(cluster: FakeCluster) -> None:
    run(cluster, "lease", "grant", "2", "--id", "7")

    def revoke() -> None:
        with Client(cluster.endpoints) as client:
            client.revoke_lease(7)

    revoking = threading.Timer(0.3, revoke)
    revoking.start()
    result = run(cluster, "lease", "keep-alive", "7", expect=10)
    revoking.join()
    assert result.stdout == "lease 7 ttl 2\n"


def test_commands_of_leases_in_a_log_have_names() -> None:
    row = wal._command(protocol_lease.tick_body(5, 6), False)
    assert row == {"operation": "lease_tick", "bytes": 5, "arguments": ["5", "6"]}
    row = wal._command(protocol_lease.keepalive_body([7, 8]), False)
    assert (row["operation"], row["arguments"]) == ("lease_keepalive", ["7", "8"])
    assert wal._command(protocol.put_body(0, 0, 0, b"a", b"v", lease=7), False)["lease"] == 7


FAR = str(2**63)


@pytest.mark.parametrize(
    "words",
    [
        ("get", "/a", "--rev", FAR),
        ("get", "--prefix", "/a", "--limit", FAR),
        ("get", "--prefix", "/a", "--min-mod-rev", FAR),
        ("ls", "/a", "--rev", FAR),
        ("tree", "/a", "--rev", FAR),
        ("watch", "/a", "--rev", FAR),
        ("compact", FAR),
        ("put", "/a", "1", "--lease", FAR),
        ("lease", "ttl", FAR),
        ("txn", "--then", f"get --prefix /a --limit {FAR}"),
        ("txn", "--when", f"mod /a = {FAR}"),
        ("lease", "grant", "nan"),
        ("lease", "grant", "inf"),
        ("--timeout", "nan", "get", "/a"),
        ("bench", "put", "--deadline", "nan"),
    ],
)
def test_a_number_that_cannot_be_one_is_wrong_usage_and_no_traceback(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["--endpoints", "tcp://127.0.0.1:1", *words])
    assert result.exit_code == 2, f"{words}: {result.output} {result.exception!r}"
    assert "Invalid value" in result.stderr
