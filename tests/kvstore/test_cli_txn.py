"""`assent txn`: what the words mean, what is written, and what is refused before anything is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kvstore.cli import cli, exits
from kvstore.cli.wal import _cells, _command
from kvstore.client import Txn
from kvstore.client.calls import Call
from kvstore.errors import AssentError, error_of_result
from kvstore.protocol_lease import grant_body
from tests.kvstore.machine_log import Log
from tests.kvstore.transaction_log import compare, delete, nested, put, read, written


class MachineClient:
    """A client, as far as transactions need one, of a state machine of its own."""

    def __init__(self) -> None:
        self.log = Log()

    def client(self, endpoints: tuple[str, ...], timeout_seconds: float) -> MachineClient:
        return self

    def __enter__(self) -> MachineClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def txn(self) -> Txn[Any]:
        return Txn(self._ask)

    def _ask(self, call: Call, timeout_seconds: float | None) -> Any:
        if call.encode is None:
            result = self.log.ask(call.body)
        else:
            [result] = self.log.apply(call.encode(0, 0, 0, b"", b"", flags=0))
        if result[0] != 0:
            raise error_of_result(result)
        return call.decode(result)


@pytest.fixture
def cluster() -> MachineClient:
    return MachineClient()


def run(cluster: MachineClient, *words: str, data: bytes | None = None, expect: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["txn", *words], obj=cluster, input=data)
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


def test_one_branch_or_the_other_is_taken_and_said(cluster: MachineClient) -> None:
    words = ("--when", "absent /lock", "--then", "put /lock 'my own'", "--else", "get /lock")
    assert run(cluster, *words).stdout == "then\trevision 2\n"
    assert run(cluster, *words).stdout == "else\trevision 2\n/lock\tmy own\n"


def test_all_operations_write_what_they_write_alone(cluster: MachineClient) -> None:
    for key in ("/a", "/b", "/c"):
        run(cluster, "--then", f"put {key} 1")
    shown = run(
        cluster,
        *("--then", "put /a 2 --previous", "--then", "get /a", "--then", "get /none"),
        *("--then", "get / --prefix --keys-only --limit 2", "--then", "del /b --previous"),
        *("--then", "del /x --prefix"),
    ).stdout
    assert shown == "then\trevision 5\n/a\t1\n/a\t2\n/a\t\n/b\t\ndeleted 1\n/b\t1\ndeleted 0\n"


@pytest.mark.parametrize(
    ("compare", "holds"),
    [
        ("version /a = 2", True),
        ("version /a > 2", False),
        ("create /a = 2", True),
        ("mod /a < 3", False),
        ("mod /a != 2", True),
        ("lease /a = 0", True),
        ("value /a = 'b c'", True),
        ("value /a < b", False),
        ("value /none != x", False),
        ("exists /a", True),
        ("absent /a", False),
        ("version / --prefix > 0", True),
        ("version / > 1 --prefix", False),
        ("value -- --odd = -1", True),
    ],
)
def test_a_compare_says_what_it_says(cluster: MachineClient, compare: str, holds: bool) -> None:
    run(cluster, "--then", "put /a x")
    run(cluster, "--then", "put /a 'b c'", "--then", "put /b x", "--then", "put -- --odd -1")
    branch = run(cluster, "--when", compare).stdout.split("\t")[0]
    assert branch == ("then" if holds else "else")


def test_a_file_has_the_same_words_a_line_each(cluster: MachineClient) -> None:
    text = b"# take it\nwhen absent /lock\n\nthen put /lock \xff\n  else get /lock\n"
    assert run(cluster, "--file", "-", data=text).stdout == "then\trevision 2\n"
    shown = run(cluster, "--file", "-", "--else", "get /none", data=text)
    assert shown.stdout_bytes == b"else\trevision 2\n/lock\t\xff\n"


def test_json_has_all_of_it(cluster: MachineClient) -> None:
    run(cluster, "--then", "put /a 1")
    shown = json.loads(
        run(
            cluster,
            *("-w", "json", "--then", "put /a 2 --previous", "--then", "get /a", "--then", "get /none"),
            *("--then", "get / --prefix", "--then", "del /b"),
        ).stdout
    )
    before = {"key": "/a", "value": "1", "create_revision": 2, "mod_revision": 2, "version": 1, "lease": 0}
    after = {**before, "value": "2", "mod_revision": 3, "version": 2}
    assert shown == {
        "revision": 3,
        "succeeded": True,
        "results": [
            {"previous": before},
            after,
            None,
            {"count": 1, "more": False, "items": [after]},
            {"deleted": 0, "previous": []},
        ],
    }


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--when", "nonsense /a"),
        ("--when", ""),
        ("--when", "version /a == 1"),
        ("--when", "version /a = x"),
        ("--when", "version /a = -1"),
        ("--when", "exists"),
        ("--when", "value /a = 'unfinished"),
        ("--then", "absent /a"),
        ("--then", "put /a"),
        ("--then", "put /a x --ignore-value"),
        ("--then", "put /a x y"),
        ("--then", "get /a --limit 1"),
        ("--then", "get /a --unknown"),
        ("--file", "/no/such/file"),
    ],
)
def test_words_that_make_no_sense_are_a_usage_error_that_quotes_them(
    cluster: MachineClient, words: tuple[str, ...]
) -> None:
    result = run(cluster, *words, expect=exits.USAGE)
    assert not words or repr(words[1])[1:-1].split("'")[0] in result.stderr
    assert cluster.log.machine.applied_index == 0


def test_a_line_of_a_file_that_begins_otherwise_is_a_usage_error(cluster: MachineClient) -> None:
    assert "'maybe put /a 1'" in run(cluster, "--file", "-", data=b"maybe put /a 1\n", expect=2).stderr


def test_bad_keys_and_refused_transactions_have_their_codes(cluster: MachineClient) -> None:
    run(cluster, "--then", "del '' --prefix", expect=exits.BAD_KEY)
    run(cluster, "--then", "put '' x", expect=exits.BAD_KEY)
    run(cluster, "--then", "put /a 1", "--then", "put /a 2", expect=exits.REFUSED)
    run(cluster, "--then", "put /a 1 --lease 7", expect=exits.REFUSED)
    run(cluster, "--then", "put /a --ignore-value", expect=exits.KEY_NOT_FOUND)
    assert cluster.log.machine.revision == 1
    assert issubclass(type(error_of_result([13, "key not found"])), AssentError)


def test_a_log_shows_a_transaction_down_to_its_operations() -> None:
    inner = nested([], [delete(b"/b", b"/c")])
    body = written(
        [compare("value", b"/a", "=", b"\xff")], [put(b"/a", b"1", 7), inner], [read(b"/a")], (9, 2, 1)
    )
    row = _command(body, values=True)
    assert row == {
        "operation": "txn",
        "bytes": len(body),
        "session": 9,
        "sequence": 2,
        "compares": [[4, 0, "/a", "", {"base64": "/w=="}]],
        "then": [
            {"operation": "put", "key": "/a", "value_bytes": 1, "value": "1", "lease": 7},
            {
                "operation": "txn",
                "compares": [],
                "then": [{"operation": "delete", "key": "/b", "range_end": "/c"}],
                "else": [],
            },
        ],
        "else": [{"operation": "range", "key": "/a"}],
    }
    assert json.loads(json.dumps(row)) == row
    assert '"key": "/a"' in _cells(row)[-1] and "\n" not in _cells(row)[-1]
    assert _command(grant_body(0, 0, 0, 60, 7), values=False)["operation"] == "lease_grant"
