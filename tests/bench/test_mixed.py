"""The mixed workload of the table: one operation in ten is a put, on both sides; a wrong answer is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import mixed
from bench.mixed import mixed_load, puts_among
from bench.peers.etcd_cluster import EtcdFailed
from bench.peers.etcd_load import mixed_parts, together
from bench.processes import ProcessCluster
from kvstore.client.load_work import Gets


@pytest.mark.parametrize("step", [1, 3, 7, 10, 16])
def test_one_operation_in_ten_is_a_put_however_they_are_dealt(step: int) -> None:
    dealt = [puts_among(first, min(step, 1000 - first)) for first in range(0, 1000, step)]
    assert sum(dealt) == 100
    assert max(dealt[:-1]) - min(dealt[:-1]) <= 1


def test_two_loads_share_requests_and_requests_in_flight() -> None:
    put, get = mixed_parts(16, 16, 80_000, 10)
    assert (put.kind, put.total, get.kind, get.total) == ("put", 8_000, "get", 72_000)
    assert put.in_flight + get.in_flight == 16
    lone_put, lone_get = mixed_parts(1, 1, 5, 10)
    assert min(lone_put.in_flight, lone_get.in_flight, lone_put.total, lone_get.total) == 1


def test_the_rate_of_two_loads_is_over_the_time_until_the_later_is_through() -> None:
    puts_log = "1000000\t200\t500000\n1500000\t200\t500000\n"  # two puts from 1.0 to 2.0 s
    gets_log = "".join(f"{start}\t200\t1000\n" for start in range(1_100_000, 1_109_000, 1000))
    result = together([puts_log, gets_log + "1200000\t-1\t7\n"])
    assert result.ops_per_second == pytest.approx(11.0)
    assert (result.completed, result.errors) == (11, 1)
    assert (result.p50_ms, result.max_ms) == pytest.approx((1.0, 500.0))
    with pytest.raises(EtcdFailed):
        together([puts_log, ""])


def test_a_mixed_load_reads_and_writes_and_judges_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProcessCluster(tmp_path / "nodes", 1) as cluster:
        result = mixed_load(cluster.endpoints, 3, 4, 205, value_bytes=32, keys=40)
        status = cluster.status("n1")
        assert (result.completed, result.puts, result.errors) == (205, 21, 0)
        assert status is not None and (status["keys"], status["revision"]) == (40, 1 + 40 + 21)
        # Values of another size than those that are there: every read is wrong, and counts for nothing.
        monkeypatch.setattr(mixed, "Gets", lambda kind, keys, value_bytes: Gets(kind, keys, value_bytes + 1))
        wrong = mixed_load(cluster.endpoints, 3, 4, 100, value_bytes=32, keys=40)
        assert (wrong.completed, wrong.puts, wrong.errors) == (10, 10, 90)
