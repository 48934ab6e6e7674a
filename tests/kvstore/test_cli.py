"""The command line against a store in memory: what is written where, and every documented exit code."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kvstore import errors
from kvstore.cli import COMMANDS, cli, exits
from kvstore.client import KeyValue, NodeStatus
from tests.kvstore.fake_clients import FakeCluster, event

ROOT = Path(__file__).resolve().parents[2]
ENDPOINTS = ("tcp://127.0.0.1:7001", "tcp://127.0.0.1:7002", "tcp://127.0.0.1:7003")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def run(cluster: FakeCluster, *words: str, data: bytes | None = None, expect: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(words), obj=cluster, input=data, env={"ASSENT_ENDPOINTS": None})
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


# ---- put, get, del ----


def test_put_then_get(cluster: FakeCluster) -> None:
    assert run(cluster, "put", "/a", "30").stdout == "revision 2\n"
    assert run(cluster, "get", "/a").stdout == "30\n"
    assert cluster.opened_with == (ENDPOINTS, 5.0)


def test_a_value_goes_through_pipes_byte_for_byte(cluster: FakeCluster) -> None:
    value = bytes(range(256)) + b"\r\n\n"
    run(cluster, "put", "/a", "-", data=value)
    assert run(cluster, "get", "/a", "--raw").stdout_bytes == value
    assert run(cluster, "get", "/a").stdout_bytes == value + b"\n"


def test_a_value_may_begin_with_a_dash_and_be_empty(cluster: FakeCluster) -> None:
    run(cluster, "put", "--", "/a", "-1")
    run(cluster, "put", "/b", "")
    assert cluster.records[b"/a"].value == b"-1"
    assert cluster.records[b"/b"].value == b""


def test_keys_are_the_bytes_of_the_shell(cluster: FakeCluster) -> None:
    run(cluster, "put", os.fsdecode(b"/\xff"), os.fsdecode(b"\xfe"))
    assert cluster.records[b"/\xff"].value == b"\xfe"


def test_put_shows_what_was_there_before(cluster: FakeCluster) -> None:
    assert run(cluster, "put", "/a", "1", "--previous").stdout == "revision 2\n"
    assert run(cluster, "put", "/a", "2", "--previous").stdout == "revision 3\n1\n"
    shown = json.loads(run(cluster, "-w", "json", "put", "/a", "3", "--previous").stdout)
    assert shown["revision"] == 4 and shown["previous"]["value"] == "2"
    assert json.loads(run(cluster, "-w", "json", "put", "/a", "3").stdout) == {"revision": 5}


def test_get_in_json_has_text_where_it_is_text(cluster: FakeCluster) -> None:
    run(cluster, "put", "/a", "grün")
    run(cluster, "put", "/b", "-", data=b"\xff\x00")
    assert json.loads(run(cluster, "-w", "json", "get", "/a").stdout) == {
        "key": "/a", "value": "grün", "create_revision": 2, "mod_revision": 2, "version": 1, "lease": 0,
    }  # fmt: skip
    value = json.loads(run(cluster, "-w", "json", "get", "/b").stdout)["value"]
    assert base64.b64decode(value["base64"]) == b"\xff\x00"


def fill(cluster: FakeCluster, *keys: str) -> None:
    for key in keys:
        run(cluster, "put", key, f"v{key}")


def test_get_prefix(cluster: FakeCluster) -> None:
    fill(cluster, "/a/2", "/a/1", "/b")
    assert run(cluster, "get", "--prefix", "/a/").stdout == "/a/1\tv/a/1\n/a/2\tv/a/2\n"
    assert run(cluster, "get", "--prefix", "/a/", "--keys-only").stdout == "/a/1\n/a/2\n"
    assert run(cluster, "get", "--prefix", "/a/", "--limit", "1").stdout == "/a/1\tv/a/1\n"
    assert run(cluster, "get", "--prefix", "/none").stdout == ""
    table = run(cluster, "-w", "table", "get", "--prefix", "/a/").stdout.splitlines()
    assert table[0].split() == ["KEY", "REVISION", "VERSION", "VALUE"]
    assert table[1].split() == ["/a/1", "3", "1", "v/a/1"]
    shown = json.loads(
        run(cluster, "-w", "json", "get", "--prefix", "/a/", "--keys-only", "--limit", "1").stdout
    )
    assert (shown["revision"], shown["count"], shown["more"]) == (4, 2, True)
    assert [item["key"] for item in shown["items"]] == ["/a/1"] and "value" not in shown["items"][0]


def test_get_is_linearizable_unless_local(cluster: FakeCluster) -> None:
    fill(cluster, "/a")
    run(cluster, "get", "/a")
    run(cluster, "get", "/a", "--local")
    run(cluster, "get", "--prefix", "/", "--local")
    assert cluster.consistencies == ["linearizable", "local", "local"]


def test_del_says_how_many(cluster: FakeCluster) -> None:
    fill(cluster, "/a/1", "/a/2", "/b")
    assert run(cluster, "del", "/b").stdout == "deleted 1\n"
    assert run(cluster, "del", "/b").stdout == "deleted 0\n"
    assert json.loads(run(cluster, "-w", "json", "del", "--prefix", "/a").stdout) == {
        "revision": 6,
        "deleted": 2,
        "pieces": 1,
    }
    assert cluster.records == {}


def test_an_unset_variable_does_not_delete_the_store(cluster: FakeCluster) -> None:
    fill(cluster, "/a")
    assert "would delete everything" in run(cluster, "del", "--prefix", "", expect=exits.BAD_KEY).stderr
    assert len(cluster.records) == 1


# ---- status ----


def status_of(number: int, role: str) -> NodeStatus:
    peers = {f"n{other}": ENDPOINTS[other - 1] for other in (1, 2, 3)}
    return NodeStatus(
        "c1", f"n{number}", role, 4, "n1", ENDPOINTS[0], 10, 9, 10, 7, ENDPOINTS[number - 1],
        "tcp://w", peers, "0.1.0", "4.3.5", "voter", {}, False, "tcp://p", "0" * 16, {}, None, {},
    )  # fmt: skip


def test_status_shows_every_node_and_who_does_not_answer(cluster: FakeCluster) -> None:
    cluster.statuses = {ENDPOINTS[0]: status_of(1, "leader"), ENDPOINTS[1]: status_of(2, "follower")}
    table = [line.split() for line in run(cluster, "status").stdout.splitlines()]
    assert table == [
        ["NODE", "ROLE", "MEMBER", "TERM", "COMMIT", "APPLIED", "REVISION", "ENDPOINT"],
        ["n1", "leader", "voter", "4", "10", "9", "7", ENDPOINTS[0]],
        ["n2", "follower", "voter", "4", "10", "9", "7", ENDPOINTS[1]],
        ["n3", "unreachable", "-", "-", "-", "-", "-", ENDPOINTS[2]],
    ]


def test_status_finds_the_others_from_one_endpoint(cluster: FakeCluster) -> None:
    cluster.statuses = {ENDPOINTS[0]: status_of(1, "leader"), ENDPOINTS[1]: status_of(2, "follower")}
    shown = json.loads(run(cluster, "--endpoints", ENDPOINTS[1], "-w", "json", "status").stdout)
    assert [(row["node"], row["role"]) for row in shown["nodes"]] == [
        ("n1", "leader"), ("n2", "follower"), ("n3", "unreachable"),
    ]  # fmt: skip


def test_status_says_which_node_is_fenced_and_who_differs(cluster: FakeCluster) -> None:
    values = {"index": 512, "own": "00" * 8, "theirs": "0f" * 8}
    fenced = status_of(2, "follower")._replace(fenced={**values, "reason": "because"})
    leader = status_of(1, "leader")._replace(divergence={"n2": values, "n3": values})
    cluster.statuses = {ENDPOINTS[0]: leader, ENDPOINTS[1]: fenced}
    result = run(cluster, "status")
    assert [line.split()[2] for line in result.stdout.splitlines()] == ["MEMBER", "voter", "fenced", "-"]
    assert result.stderr.splitlines() == [
        f"assent: n1 has another state than n3: index 512, own {'00' * 8}, theirs {'0f' * 8}",
        f"assent: n2 is fenced: because, index 512, own {'00' * 8}, theirs {'0f' * 8}",
    ]
    shown = json.loads(run(cluster, "-w", "json", "status").stdout)
    assert shown["nodes"][0]["divergence"]["n3"] == values
    assert shown["nodes"][1]["fenced"] == {**values, "reason": "because"}


def test_status_in_json_tells_of_the_log_the_snapshot_and_the_priority(cluster: FakeCluster) -> None:
    told: dict[str, Any] = {
        "priority": 0, "last_index": 10, "log_first_index": 6, "log_bytes": 99,
        "snapshot_index": 8, "snapshot_term": 3,
    }  # fmt: skip
    cluster.statuses = {ENDPOINTS[0]: status_of(1, "leader")._replace(**told)}
    rows = json.loads(run(cluster, "-w", "json", "status").stdout)["nodes"]
    assert [{name: row[name] for name in told} for row in rows] == [told, *[dict.fromkeys(told)] * 2]


def test_status_fails_when_nobody_answers(cluster: FakeCluster) -> None:
    result = run(cluster, "status", expect=exits.UNREACHABLE)
    assert "no node answered at" in result.stderr and result.stdout.count("unreachable") == 3


# ---- import and export ----

TREE = {
    "db": {"host": "db.internal", "ports": [1, 2], "tls": None},
    "a b": {"x.y": True},
    "n": 1.5,
    "e": {},
    "t": "7",
}
TOML_TREE = {
    "top": 'ü"\\\n\x7f',
    "db": {"host": "h", "deep": {"on": True}, "no": {}},
    "l": [[1], {"a b": 2.5}],
}


def test_a_json_tree_comes_out_as_it_went_in(cluster: FakeCluster, tmp_path: Path) -> None:
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(TREE))
    assert run(cluster, "import", str(file), "--prefix", "/p/").stdout == "imported 8\n"
    assert cluster.records[b"/p/db/host"].value == b"db.internal"
    assert json.loads(run(cluster, "export", "/p").stdout) == TREE


def test_a_toml_tree_comes_out_as_it_went_in(cluster: FakeCluster) -> None:
    run(cluster, "import", "-", "--format", "json", "--prefix", "/p", data=json.dumps(TOML_TREE).encode())
    toml = run(cluster, "export", "/p", "--format", "toml").stdout
    again = FakeCluster()
    run(again, "import", "-", "--format", "toml", "--prefix", "/p", data=toml.encode())
    assert json.loads(run(again, "export", "/p").stdout) == TOML_TREE


def test_an_export_does_not_take_the_neighbours_along(cluster: FakeCluster) -> None:
    fill(cluster, "/p/a", "/pq", "/p.x")
    assert json.loads(run(cluster, "export", "/p").stdout) == {"a": "v/p/a"}


def test_an_export_is_of_one_revision_whatever_changes_meanwhile(cluster: FakeCluster) -> None:
    fill(cluster, *(f"/p/{number}" for number in "abcdefg"))
    cluster.before_page = lambda: cluster.put(b"/p/g", b"new") and None
    result = run(cluster, "export", "/p")
    assert json.loads(result.stdout)["g"] == "v/p/g" and result.stderr == ""


def test_an_export_whose_revision_is_compacted_is_read_again_and_not_for_ever(cluster: FakeCluster) -> None:
    fill(cluster, "/p/a", "/p/b")
    readings = 0

    def compact_once() -> None:
        nonlocal readings
        readings += 1
        if readings < 3:
            raise errors.Compacted("required revision has been compacted", 9)

    cluster.before_page = compact_once
    assert json.loads(run(cluster, "export", "/p").stdout) == {"a": "v/p/a", "b": "v/p/b"}
    readings = -99
    run(cluster, "export", "/p", expect=8)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.json", "{", "not JSON"),
        ("t.json", '{"a": 1, "a": 2}', "the name 'a' is twice"),
        ("t.json", "[1]", "only a table"),
        ("t.json", "[" * 100_000, "nested too deeply"),
        ("t.json", json.dumps({"k" * 5000: 1}), "more than 4096"),
        ("t.json", json.dumps({"k": "v" * 1_048_577}), "more than 1048576"),
        ("t.json", b"\xff", "not UTF-8 at byte 0"),
        ("t.toml", "a = ", "not TOML"),
    ],
)
def test_a_file_that_is_no_tree_changes_nothing(
    cluster: FakeCluster, tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said in run(cluster, "import", str(file), expect=exits.BAD_TREE).stderr
    assert cluster.revision == 1


def test_an_import_needs_a_file_and_a_format(cluster: FakeCluster, tmp_path: Path) -> None:
    assert "No such file" in run(cluster, "import", str(tmp_path / "no.json"), expect=exits.BAD_TREE).stderr
    assert "--format is needed" in run(cluster, "import", "-", data=b"{}", expect=exits.USAGE).stderr


def test_toml_cannot_say_null(cluster: FakeCluster) -> None:
    run(cluster, "import", "-", "--format", "json", data=b'{"a": {"b": null}}')
    assert (
        "a.b: TOML has no null"
        in run(cluster, "export", "/", "--format", "toml", expect=exits.BAD_TREE).stderr
    )


def test_an_import_that_fails_says_how_far_it_came(cluster: FakeCluster) -> None:
    cluster.failure = errors.NoLeader("no leader is known at the moment")
    result = run(cluster, "import", "-", "--format", "json", data=b'{"a": 1, "b": 2}', expect=exits.NO_LEADER)
    assert "stopped after 0 of 2 keys; import again to go on" in result.stderr


# ---- failures ----


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (errors.Unreachable(("tcp://127.0.0.1:7001",)), 3, "no node answered at tcp://127.0.0.1:7001"),
        (errors.EmptyKey("a key has at least one byte"), 5, "a key has at least one byte"),
        (errors.NoLeader("no leader is known at the moment"), 6, "no leader is known"),
        (errors.DeadlineExceeded("too late"), 6, "too late"),
        (errors.OutcomeUnknown("leadership was lost"), 7, "(the write may or may not have been applied)"),
        (errors.SessionExpired("session expired"), 7, "may or may not"),
        (errors.Compacted("required revision has been compacted", 9), 8, "compacted"),
        (errors.TreeError("/a", "no"), 9, "/a: no"),
        (errors.TooLarge("a value has at most 1048576 bytes"), 10, "at most"),
        (errors.Overloaded("too much is waiting"), 10, "too much"),
        (errors.ClientClosed(), 1, "ClientClosed"),
    ],
)
def test_a_failure_has_its_code_and_its_sentence(
    cluster: FakeCluster, failure: Exception, code: int, said: str
) -> None:
    cluster.failure = failure
    result = run(cluster, "put", "/a", "1", expect=code)
    assert result.stderr.startswith("assent: ") and said in result.stderr
    assert result.stdout == "" and result.stderr.count("\n") == 1


def test_a_key_that_is_not_there(cluster: FakeCluster) -> None:
    result = run(cluster, "get", "/no", expect=exits.KEY_NOT_FOUND)
    assert (result.stdout, result.stderr) == ("", "assent: key not found: /no\n")
    run(cluster, "-w", "json", "get", "/no", expect=exits.KEY_NOT_FOUND)
    run(cluster, "export", "/no", expect=exits.KEY_NOT_FOUND)


def test_a_key_that_is_too_long(cluster: FakeCluster) -> None:
    assert "4097 bytes, more than 4096" in run(cluster, "get", "k" * 4097, expect=exits.BAD_KEY).stderr


def test_a_defect_is_not_hidden(cluster: FakeCluster) -> None:
    cluster.failure = ZeroDivisionError("a defect")
    result = run(cluster, "get", "/a", expect=1)
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["get"],
        ["get", "/a", "--limit", "2"],
        ["get", "--prefix", "/a", "--raw"],
        ["--endpoints", "127.0.0.1:7001", "get", "/a"],
        ["--endpoints", ",", "get", "/a"],
        ["--timeout", "0", "get", "/a"],
        ["watch", "/a", "--rev", "0"],
        ["watch", "/a", "--no-puts", "--no-deletes"],
    ],
)
def test_wrong_usage_is_code_2(cluster: FakeCluster, words: list[str]) -> None:
    assert run(cluster, *words, expect=exits.USAGE).stderr.startswith("Usage: ")


def test_endpoints_come_from_flag_or_environment(cluster: FakeCluster) -> None:
    fill(cluster, "/a")
    environment = {"ASSENT_ENDPOINTS": "tcp://127.0.0.1:1, ipc://x"}
    CliRunner().invoke(cli, ["get", "/a"], obj=cluster, env=environment)
    assert cluster.opened_with == (("tcp://127.0.0.1:1", "ipc://x"), 5.0)
    words = ["--endpoints", "ipc://y", "--timeout", "0.5", "get", "/a"]
    CliRunner().invoke(cli, words, obj=cluster, env=environment)
    opened: list[object] = [cluster.opened_with]
    assert opened == [(("ipc://y",), 0.5)]


def test_every_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert documented == {
        value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)
    }


def test_every_error_class_that_has_a_code_exists() -> None:
    """The table names classes by text; a renamed class would silently lose its code."""
    import importlib

    for name in exits._CODES:
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception), name


def test_every_error_that_leaves_the_outcome_open_has_the_code_that_says_so() -> None:
    for kind in (*errors._REFUSALS.values(), *errors._PLAIN_FAILURES.values()):
        code = exits.code_of(kind("why"))
        assert (code == exits.OUTCOME_UNKNOWN) is kind.may_be_applied, kind


# ---- node ----


def test_a_node_with_wrong_settings_names_all_of_them(cluster: FakeCluster) -> None:
    result = run(cluster, "node", "--name", "N", "--client", "x", expect=exits.USAGE)
    assert "3 problems with the settings" in result.stderr
    for name in ("name: 'N'", "data_dir: missing", "client: 'x'"):
        assert f"\n  {name}" in result.stderr


# ---- the process ----


def python(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )


def test_help_lists_every_command_and_imports_none() -> None:
    code = "import sys; from kvstore.cli import run; run(['--help'])\nprint(*sys.modules)"
    shown = python("-c", code).stdout
    for name, (_module, _attribute, line) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(line[:30])}", shown, re.MULTILINE), name
    modules = shown.splitlines()[-1].split()
    assert not {"zmq", "msgpack", "asyncio", "psutil", "json", "kvstore.cli.kv"} & set(modules)


def test_a_get_loads_nothing_that_it_does_not_need() -> None:
    """asyncio alone would cost as much as the request and all the rest of the start together."""
    code = "import sys; before = set(sys.modules); from kvstore.cli import run\n"
    code += "run(['--timeout', '0.05', '--endpoints', 'ipc:///nowhere/x', 'get', '/a'])\n"
    code += "print(*(set(sys.modules) - before))"
    modules = set(python("-c", code).stdout.split())
    assert "kvstore.client.blocking" in modules
    libraries = {"asyncio", "logging", "hashlib", "pathlib", "psutil", "sortedcontainers"}
    assert not (libraries | {"raft", "actors", "kvstore.node", "kvstore.client.transactions"}) & modules


def test_no_cluster_is_told_quickly_and_without_a_traceback() -> None:
    done = python(
        "-m", "kvstore.cli", "--timeout", "0.2", "get", "/a", env={"ASSENT_ENDPOINTS": "ipc:///nowhere/x"}
    )
    assert done.returncode == exits.UNREACHABLE
    assert done.stderr == "assent: no node answered at ipc:///nowhere/x\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "writes", ["while True: o.write_line(b'x' * 1000)", "o.write_json([*range(1_000_000)], indent=0)"]
)
def test_a_reader_that_goes_away_is_no_error(writes: str, unbuffered: str) -> None:
    """Be it many lines or one document, and whether or not Python has a buffer before the pipe."""
    code = "from kvstore.cli import run\nimport sys, kvstore.cli.output as o, kvstore.cli as c, click\n"
    code += f"@click.command()\ndef spam():\n    {writes}\n"
    code += "c.COMMANDS['spam'] = ('__main__', 'spam', '')\nsys.exit(run(['spam']))"
    spam = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert spam.stdout is not None and spam.stderr is not None
    with spam:
        assert spam.stdout.readline().strip() in (b"x" * 1000, b"[")
        spam.stdout.close()
        assert spam.stderr.read() == b""
        assert spam.wait(30) == exits.BROKEN_PIPE


def test_a_record_is_not_mistaken_for_an_event() -> None:
    """item_json takes both: the fields which it shows have the same names in either."""
    assert set(KeyValue._fields) < set(event(0, b"k", b"v", 1)._fields)


# ---- global options behind the command ----


def test_global_options_may_stand_behind_the_command_and_go_before_those_in_front(
    cluster: FakeCluster,
) -> None:
    run(cluster, "put", "/a", "30")
    written = run(cluster, "-w", "simple", "get", "/a", "-w", "json").stdout
    assert json.loads(written)["value"] == "30"
    run(cluster, "--timeout", "9", "get", "/a", "--timeout", "2", "--endpoints", "tcp://127.0.0.1:1")
    assert cluster.opened_with == (("tcp://127.0.0.1:1",), 2.0)


def test_a_wrong_endpoint_behind_the_command_is_named_too(cluster: FakeCluster) -> None:
    result = run(cluster, "get", "/a", "--endpoints", "nonsense", expect=exits.USAGE)
    assert "nonsense" in result.output
