"""docs/protocol.md against the numbers in the code: each in its table, under its name, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

from kvstore import codes, protocol_admin, protocol_snapshot
from raft.errors import ConfigurationReason, TransferReason
from tests.docs.markdown import ROOT

TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
WRITES = [
    *("PUT", "DELETE", "OPEN_SESSION", "CLOSE_SESSION", "COMPACT", "TXN"),
    *("LEASE_GRANT", "LEASE_REVOKE", "LEASE_KEEPALIVE"),
]
READS = ["RANGE", "WATCH_HISTORY", "READ_TXN", "LEASE_TIME_TO_LIVE", "LEASE_LIST", "CHILDREN"]
SPOKEN = re.compile(r"(?<=\d) (?=\d{3})")


def section(number: int) -> str:
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, number
    return found[0]


def rows(number: int, pattern: str) -> dict[int, str]:
    """The numbers of a section's tables, and their names."""
    found = re.findall(pattern, section(number), re.MULTILINE)
    numbers = {int(value): name.lower() for value, name in found}
    assert len(numbers) == len(set(found)), "a number is there twice"
    return numbers


def of_codes(names: Iterable[str]) -> dict[int, str]:
    return {getattr(codes, name): name.lower() for name in names}


def test_each_kind_of_request_is_in_its_table() -> None:
    assert rows(2, r"^\| (\d+) \| (\w+) \|") == codes.REQUEST_KINDS
    assert f"**{codes.RESULTS} RESULTS**" in TEXT and f"**{codes.REFUSED} REFUSED**" in TEXT


def test_each_operation_is_in_its_table() -> None:
    assert rows(4, r"^\| (\d+) ([A-Z_]+)\b") == of_codes(WRITES)
    assert rows(5, r"^\| (\d+) ([A-Z_]+) \|") == of_codes(READS)
    numbers = {getattr(codes, name) for name in (*WRITES, *READS)}
    assert numbers == {*range(codes.PUT, codes.LEASE_KEEPALIVE + 1), *range(codes.RANGE, codes.CHILDREN + 1)}
    for internal in (codes.LEASE_TICK, codes.LEASE_EXPIRE):
        assert f"`c1` and `[{internal}, time, " in section(14)


def test_each_code_is_in_its_table_and_is_said_where_it_comes() -> None:
    assert rows(6, r"^\| (\d+) \| (?:result|refused) \| (\w+) \|") == codes.CODE_NAMES
    for number, where in re.findall(r"^\| (\d+) \| (result|refused) \|", section(6), re.MULTILINE):
        assert (where == "refused") is (int(number) >= codes.NOT_LEADER), number


def test_each_verb_and_each_reason_of_a_change_is_in_its_table() -> None:
    verbs = rows(12, r"^\| (\d+) ([A-Z_]+) \|")
    assert sorted(verbs) == sorted(protocol_admin._VERBS)
    reasons = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", section(12), re.MULTILINE))))
    said = {*ConfigurationReason, *TransferReason} - {ConfigurationReason.UNCHANGED}  # that is a success
    assert said <= reasons, said - reasons


def test_each_operation_on_a_snapshot_is_in_its_table() -> None:
    assert sorted(rows(13, r"^\| (\d) ([A-Z]+) \|")) == sorted(protocol_snapshot._OPERATIONS)


def test_each_target_and_each_sign_of_a_compare_is_in_its_table() -> None:
    targets = rows(15, r"^\| (\d) \| (\w+)\b")
    assert targets == {
        codes.COMPARE_VERSION: "version",
        codes.COMPARE_CREATE: "create_revision",
        codes.COMPARE_MOD: "mod_revision",
        codes.COMPARE_VALUE: "value",
        codes.COMPARE_LEASE: "lease",
    }
    signs = re.findall(r"\| \| (\d) \| ([\w ]+)", section(15))
    words = {int(number): " ".join(name.split()) for number, name in signs}
    assert words == {
        codes.EQUAL: "equal to",
        codes.NOT_EQUAL: "not equal",
        codes.GREATER: "greater",
        codes.LESS: "less",
    }


@pytest.mark.parametrize(
    "bound",
    [
        codes.MAX_KEY_BYTES,
        codes.MAX_BOUND_BYTES,
        codes.MAX_VALUE_BYTES,
        codes.MAX_REQUESTS_PER_FRAME,
        codes.MAX_TIMEOUT_MILLISECONDS,
        codes.MAX_UNACKNOWLEDGED,
        codes.MAX_DELETE_KEYS,
        codes.MAX_TXN_OPERATIONS,
        codes.MAX_TXN_ITEMS,
        codes.MAX_TTL_SECONDS,
        codes.MAX_KEEPALIVES,
        codes.MAX_PUBLISHED_BYTES,
        protocol_snapshot.SLICE_BYTES,
    ],
)
def test_each_bound_is_on_the_page(bound: int) -> None:
    assert re.search(rf"(?<!\d){bound}(?!\d)", SPOKEN.sub("", TEXT)), bound
