"""`assent wal` and `assent snapshot inspect`: what they show, and that nothing is changed by looking."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kvstore.cli import cli, exits
from kvstore.cli.wal import CLEAN, NOT_CLEAN
from kvstore.settings import derive_cluster_id
from raft.directory import DataDirectory
from raft.segment import segment_name
from tests.kvstore.damaged import (
    DAMAGES,
    ENTRIES,
    Damage,
    flip,
    make_directory,
    segments_in,
    state_at,
)

GOLDEN = Path(__file__).parents[1] / "golden"
MEMBERS = {"n1": "tcp://127.0.0.1:1"}
CLUSTER = f"{derive_cluster_id(MEMBERS):016x}"


def run(*words: str | Path, expect: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == expect, f"{words}: {result.output} {result.exception!r}"
    return result


def fingerprint(path: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below, and when it was changed."""
    return {
        str(found.relative_to(path)): (found.read_bytes(), found.stat().st_mtime_ns)
        for found in sorted(path.rglob("*"))
        if found.is_file()
    }


def start_and_stop(data: Path) -> None:
    """As much of a node as reads its disk."""
    with closing(DataDirectory(data, CLUSTER, "n1")) as node:
        node.open_log().load()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    make_directory(tmp_path / "data", MEMBERS)
    return tmp_path / "data"


def test_a_whole_log_is_told_of(data: Path) -> None:
    facts = json.loads(run("-w", "json", "wal", "check", data).stdout)
    assert (facts["node_id"], facts["term"], facts["voted_for"]) == ("n1", 2, "n1")
    assert (facts["first_index"], facts["last_index"], facts["snapshots"]) == (1, ENTRIES, [])
    assert (facts["unfinished_write"], facts["start"]) == (None, "would succeed")
    segments = facts["segments"]
    assert [segment["file"] for segment in segments] == [path.name for path in segments_in(data)]
    assert [segment["is_sealed"] for segment in segments] == [True] * (len(segments) - 1) + [False]
    assert segments[1]["first_index"] == segments[0]["last_index"] + 1
    table = run("wal", "check", data).stdout
    assert re.search(r"^start +would succeed$", table, re.MULTILINE)
    assert re.search(r"^SEGMENT +VERSION +FIRST", table, re.MULTILINE)
    simple = run("-w", "simple", "wal", "check", data / "wal").stdout
    assert "last index\t24\n" in simple


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_log_is_refused_as_a_start_would_and_nothing_is_changed(tmp_path: Path, damage: Damage) -> None:
    data = tmp_path / "data"
    make_directory(data, MEMBERS, compacted_at=damage.compacted_at, snapshot_at=damage.snapshot_at)
    damage.do(data)
    before = fingerprint(data)
    with pytest.raises(Exception, match=damage.reason) as refusal:
        start_and_stop(data)
    (data / "lock").unlink(missing_ok=True)
    for words in (("check",), ("dump",), ("check", "-w", "json")):
        result = run("wal", *words, data, expect=damage.code)
        assert str(refusal.value) in result.stderr
    assert fingerprint(data) == before
    assert exits.code_of(refusal.value) == damage.code


def test_an_unfinished_write_is_said_and_left_for_the_start(data: Path) -> None:
    last = segments_in(data)[-1]
    whole = last.read_bytes()
    end = len(whole.rstrip(b"\0"))
    last.write_bytes(whole[: end - 100].ljust(len(whole), b"\0"))
    before = fingerprint(data)
    facts = json.loads(run("wal", "check", data, "-w", "json").stdout)
    torn = facts["unfinished_write"]
    assert facts["start"] == "would succeed" and torn["file"] == last.name and torn["bytes"] > 0
    assert fingerprint(data) == before
    node = DataDirectory(data, facts["cluster_id"], "n1")
    log = node.open_log()
    assert log.load().last_index == facts["last_index"]
    log.close()
    node.close()
    assert (data / "wal" / f"{last.name}.{torn['offset']}.broken").stat().st_size == torn["bytes"]


def test_damaged_snapshots_that_are_made_up_for_are_shown(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_directory(data, MEMBERS, snapshot_at=9)
    [snapshot] = (data / "wal").glob("snapshot-*")
    flip(snapshot, 300)
    facts = json.loads(run("wal", "check", data, "-w", "json").stdout)
    assert facts["start"] == "would succeed" and facts["snapshot_index"] is None
    assert f"{snapshot} is damaged at byte" in facts["snapshots"][0]["damage"]
    assert "log index 9" in facts["snapshots"][0]["damage"]


def test_what_is_in_snapshots_is_restored_by_the_store(tmp_path: Path) -> None:
    """A start restores the newest, and behind a fence none; an older one that could not be is shown, too."""
    data = tmp_path / "data"
    make_directory(data, MEMBERS, snapshot_at=9)
    assert json.loads(run("wal", "check", data, "-w", "json").stdout)["snapshots"][0]["index"] == 9
    shutil.rmtree(data)
    make_directory(data, MEMBERS, snapshot_at=9, content=state_at(8)[:-1])
    [snapshot] = (data / "wal").glob("snapshot-*")
    said = f"the snapshot {snapshot} is whole, and the store cannot restore it: log index 9: "
    before = fingerprint(data)
    result = run("wal", "check", data, "-w", "json", expect=exits.CORRUPT)
    facts = json.loads(result.stdout)
    assert said in result.stderr and facts["start"] == "would refuse"
    [shown] = facts["snapshots"]
    assert (shown["file"], facts["snapshot_index"]) == (snapshot.name, 9) and said in shown["damage"]
    assert json.loads(run("wal", "check", data, "-w", "json", "--no-restore").stdout)["snapshots"] == [
        {"file": snapshot.name, "index": 9, "bytes": len(state_at(8)) - 1}
    ]
    assert fingerprint(data) == before
    (data / "fenced").write_text("")
    facts = json.loads(run("wal", "check", data, "-w", "json").stdout)
    assert facts["start"] == "would succeed" and said in facts["snapshots"][0]["damage"]


def test_a_directory_in_use_is_refused(data: Path) -> None:
    node = DataDirectory(data, CLUSTER, "n1")
    for directory in (data, data / "wal"):
        result = run("wal", "check", directory, expect=exits.DATA_DIRECTORY)
        assert "is in use by process" in result.stderr
    node.close()
    run("wal", "check", data)


@pytest.mark.parametrize("name", ["log-1", "log-2"])
def test_what_is_no_directory_of_a_node_is_told_from_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes").write_text("x")
    assert 'expected "a node\'s data or its log"' in run("wal", "check", tmp_path, expect=11).stderr
    run("wal", "check", tmp_path / "none", expect=2)
    run("wal", "check", GOLDEN / name, "--no-restore")
    assert "store cannot restore" in run("wal", "check", GOLDEN / name, expect=exits.CORRUPT).stderr
    shutil.copytree(GOLDEN / name / "wal", tmp_path / "taken out")
    facts = json.loads(run("wal", "check", tmp_path / "taken out", "-w", "json", "--no-restore").stdout)
    assert (facts["cluster_id"], facts["node_id"], facts["term"]) == ("golden", "n1", 5)


def test_a_log_is_shown_record_by_record(data: Path) -> None:
    rows = [json.loads(line) for line in run("-w", "json", "wal", "dump", data).stdout.splitlines()]
    entries = [row for row in rows if row["record"] == "entry"]
    assert [row["index"] for row in entries] == list(range(1, ENTRIES + 1))
    assert entries[0]["kind"] == "no-op"
    assert entries[4] == {
        "segment": segment_name(1), "offset": entries[4]["offset"], "record": "entry", "index": 5, "term": 2,
        "kind": "command", "operation": "put", "bytes": entries[4]["bytes"],
        "key": "/key/5", "value_bytes": 480,
    }  # fmt: skip
    assert sum(row["record"] == "seal" for row in rows) == len(segments_in(data)) - 1
    assert rows[1] | {"offset": 0} == {
        "segment": segment_name(1), "offset": 0, "record": "hard_state", "term": 2, "voted_for": "n1",
        "commit_index": 0,
    }  # fmt: skip


def test_a_part_of_a_log_is_shown(data: Path) -> None:
    text = run("wal", "dump", data, "--from", "20", "--limit", "3", "--values").stdout
    lines = text.splitlines()
    assert len(lines) == 3
    assert lines[0].split("\t")[2:6] == ["entry", "20", "2", "command"]
    assert 'key="/key/20"' in lines[0] and 'value="value 20 value 20' in lines[0]
    assert "value" not in run("wal", "dump", data, "--limit", "9").stdout.replace("value_bytes", "")
    assert run("wal", "dump", data, "--from", "99").stdout == ""
    assert run("-w", "table", "wal", "dump", data, "--limit", "1").stdout.split()[:3] == [
        "SEGMENT",
        "OFFSET",
        "RECORD",
    ]


def test_configurations_marks_and_replaced_entries_are_shown() -> None:
    rows = [
        json.loads(line) for line in run("-w", "json", "wal", "dump", GOLDEN / "log-1").stdout.splitlines()
    ]
    [configuration] = [row for row in rows if row.get("kind") == "configuration"]
    assert (configuration["voters"], configuration["learners"]) == (["n1", "n2"], ["n3"])
    assert configuration["addresses"]["n3"] == "tcp://127.0.0.1:7103"
    assert [row["term"] for row in rows if row["record"] == "entry" and row["index"] == 3] == [1, 3]
    [mark] = [row for row in rows if row["record"] == "snapshot_mark"]
    assert (mark["index"], mark["term"], mark["replaces_log"]) == (3, 3, False)


def test_what_is_before_damage_is_shown_and_then_the_refusal(data: Path) -> None:
    flip(segments_in(data)[1], 700)
    result = run("-w", "json", "wal", "dump", data, expect=exits.CORRUPT)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["segment"] for row in rows} <= {segment_name(1), segment_name(2)}
    assert rows[-1]["segment"] == segment_name(2) and "checksum" in result.stderr


def test_a_snapshot_is_read_to_the_last_byte_and_told_of(tmp_path: Path) -> None:
    make_directory(tmp_path / "data", MEMBERS, snapshot_at=9)
    [file] = (tmp_path / "data" / "wal").glob("snapshot-*")
    facts = json.loads(run("-w", "json", "snapshot", "inspect", file).stdout)
    assert (facts["index"], facts["term"], facts["keys"], facts["sessions"]) == (9, 2, 8, 0)
    assert facts["applied_index"] == 9 and facts["configuration"]["voters"] == ["n1"]
    elsewhere = tmp_path / "backup.snapshot"
    elsewhere.write_bytes(file.read_bytes())
    assert "keys\t8\n" in run("snapshot", "inspect", elsewhere).stdout
    flip(elsewhere, 400)
    said = run("snapshot", "inspect", elsewhere, expect=exits.CORRUPT).stderr
    assert "backup.snapshot is damaged at byte 128, log index 9: chunk 0" in said
    assert "use another copy" in said
    elsewhere.write_bytes(b"something else, and long enough for a header of a snapshot file")
    assert "does not begin as a snapshot does" in run("snapshot", "inspect", elsewhere, expect=12).stderr


def test_an_intact_snapshot_of_another_state_machine_is_refused() -> None:
    [file] = (GOLDEN / "log-1" / "wal").glob("snapshot-*")
    assert "Traceback" not in run("snapshot", "inspect", file, expect=exits.CORRUPT).output


def test_wal_check_says_whether_anything_vouches_for_the_end(tmp_path: Path) -> None:
    """Zeros in place of the last turns, however acknowledged, look as if nothing had been written."""
    make_directory(tmp_path / "clean", MEMBERS)
    assert json.loads(run("wal", "check", tmp_path / "clean", "-w", "json").stdout)["end"] == CLEAN
    [segment] = segments_in(tmp_path / "clean")[-1:]
    content = bytearray(segment.read_bytes())
    shown = run("wal", "dump", tmp_path / "clean", "-w", "json").stdout.splitlines()
    places = [row["offset"] for row in map(json.loads, shown) if row["segment"] == segment.name]
    for place in sorted(set(places))[-1:-4:-1]:
        content[place:] = bytes(len(content) - place)
        segment.write_bytes(content)
        facts = json.loads(run("wal", "check", tmp_path / "clean", "-w", "json").stdout)
        assert (facts["start"], facts["end"]) == ("would succeed", NOT_CLEAN)
