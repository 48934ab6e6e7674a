"""What the judge of the fault matrix asks of a refusal."""

from __future__ import annotations

from pathlib import Path

import pytest

from raft.storage import CorruptLog, CorruptSnapshot
from tests.faults.judge import Wrong, check_refusal

FILE = Path("/d/wal/snapshot-00000000000000000009-00000000000000000002")


@pytest.mark.parametrize(
    "error", [CorruptSnapshot(FILE, "bad", offset=128, index=9), CorruptLog(FILE, 128, 9, "bad")]
)
def test_a_refusal_that_says_all_is_one(error: CorruptSnapshot | CorruptLog) -> None:
    check_refusal(error)


@pytest.mark.parametrize("error", [CorruptSnapshot(FILE, "bad", offset=128), CorruptLog(FILE, 128, 0, "bad")])
def test_a_refusal_without_an_index_is_wrong(error: CorruptSnapshot | CorruptLog) -> None:
    with pytest.raises(Wrong, match="does not say"):
        check_refusal(error)


@pytest.mark.parametrize(
    "left_out", [f"{FILE}", " at byte 128", ", log index 9", "bad", "remove this member"]
)
@pytest.mark.parametrize("kind", [CorruptSnapshot, CorruptLog])
def test_a_refusal_that_leaves_out_file_place_index_reason_or_remedy_is_wrong(
    monkeypatch: pytest.MonkeyPatch, kind: type[CorruptSnapshot | CorruptLog], left_out: str
) -> None:
    whole = kind.__str__
    monkeypatch.setattr(kind, "__str__", lambda error: whole(error).replace(left_out, ""))
    error = (
        CorruptSnapshot(FILE, "bad", offset=128, index=9)
        if kind is CorruptSnapshot
        else CorruptLog(FILE, 128, 9, "bad")
    )
    with pytest.raises(Wrong, match="does not say"):
        check_refusal(error)
