"""The longest steps are measured with what they are said to be: none of them is refused."""

from __future__ import annotations

import msgpack
import pytest

from bench import steps
from kvstore import protocol


def test_each_step_does_what_it_is_called_after(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("MAX_DELETE_KEYS", 20), ("MAX_TXN_KEYS", 1020), ("MAX_LEASE_KEYS", 5)):
        monkeypatch.setattr(steps, name, small)
    monkeypatch.setattr(steps, "LARGE_VALUES", 2)
    monkeypatch.setattr(steps, "MAX_LEASES", 20)
    monkeypatch.setattr(steps, "HISTORY", 2000)
    made = [prepare()() for prepare in steps.STEPS.values()]
    results = [result for result in made if isinstance(result, list)]
    codes = [msgpack.unpackb(result[0])[0] for result in results if isinstance(result[0], bytes)]
    assert codes == [protocol.OK] * 4
    assert [len(result) for result in results] == [20, 2, 5, 1, 1, 1, 1]
    assert all(milliseconds >= 0 for _, milliseconds in steps.measured(1))
