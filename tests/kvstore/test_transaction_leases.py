"""Transactions and leases: what a put in one attaches and detaches, and when it must not be done at all."""

from __future__ import annotations

import pytest

from kvstore import lease_commands, protocol
from kvstore.protocol import IGNORE_LEASE, IGNORE_VALUE, OK
from tests.kvstore.test_leases import LeaseLog
from tests.kvstore.transaction_log import compare, delete, nested, put, read, transact

EVERYTHING = (b"\x00", b"\x00")


def test_puts_and_deletes_in_a_transaction_attach_and_detach() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.grant(60, 8)
    log.put(b"a", lease=7)
    log.put(b"b", lease=7)
    log.put(b"c", lease=7)
    inner = nested([], [put(b"d", lease=8), put(b"e", lease=7)])
    assert transact(log, [], [put(b"a"), put(b"b", lease=8), delete(b"c"), inner])[0] == OK
    assert log.time_to_live(7)[2:] == [1, [b"e"]]
    assert log.time_to_live(8)[2:] == [2, [b"b", b"d"]]
    log.revoke(8)
    keys = [record[0] for record in log.ask(protocol.range_body(*EVERYTHING))[4]]
    assert keys == [b"a", b"e"]


@pytest.mark.parametrize("in_transaction", [False, True], ids=["alone", "in a transaction"])
def test_ignore_lease_keeps_the_lease_and_ignore_value_may_change_it(in_transaction: bool) -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.grant(60, 8)
    log.put(b"a", b"old", lease=7)
    for value, lease, flags, expected in (
        (b"new", 0, IGNORE_LEASE, [b"new", 7]),
        (b"", 8, IGNORE_VALUE, [b"new", 8]),
        (b"", 0, IGNORE_VALUE | IGNORE_LEASE, [b"new", 8]),
        (b"", 0, IGNORE_VALUE, [b"new", 0]),
    ):
        if in_transaction:
            assert transact(log, [], [put(b"a", value, lease, flags)])[0] == OK
        else:
            assert log.put(b"a", value, lease=lease, flags=flags)[0] == OK
        [record] = log.ask(protocol.range_body(b"a"))[4]
        assert [record[1], record[5]] == expected
    assert log.time_to_live(7)[2] == log.time_to_live(8)[2] == 0


def test_the_lease_of_a_key_is_compared_and_seen_by_what_comes_later() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.put(b"a", lease=7)
    result = transact(log, [compare("lease", b"a", "=", 7)], [put(b"b", lease=7), read(b"b")])
    assert result[2] is True and result[3][1][4] == [[b"b", b"v", 3, 3, 1, 7]]


def test_g8_a_lease_that_has_ended_refuses_the_whole_transaction() -> None:
    log = LeaseLog()
    log.grant(60, 7)
    log.revoke(7)
    before = log.machine.digest()
    result = transact(log, [], [put(b"a"), nested([], [put(b"b", lease=7)])])
    assert result == [protocol.LEASE_NOT_FOUND, "requested lease not found"]
    assert log.machine.digest() == before


def test_a_transaction_gives_no_lease_more_keys_than_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_commands, "MAX_LEASE_KEYS", 3)
    log = LeaseLog()
    log.grant(60, 7)
    log.put(b"a", lease=7)
    before = log.machine.digest()
    puts = [put(b"%d" % number, lease=7) for number in range(3)]
    assert transact(log, [], puts)[0] == protocol.TOO_LARGE
    assert log.machine.digest() == before
    assert transact(log, [], puts[:2])[0] == OK
    again = [put(b"a", b"again", lease=7), put(b"0", b"again", lease=7)]
    assert transact(log, [], [delete(b"1")])[0] == OK
    assert transact(log, [], [*again, puts[1]])[0] == OK  # what it has already does not come to it
    assert transact(log, [], [*again, puts[2]])[0] == protocol.TOO_LARGE
    assert transact(log, [], [put(b"a", b"again", lease=7)])[0] == OK
