"""A run that failed is run again by the command that its failure prints, whatever was made of its swarm."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from kvstore import watch_streams
from kvstore.client import watched
from tests.simulator.__main__ import main
from tests.simulator.campaign import Campaign
from tests.simulator.run import Outcome, first_failure, passed, run_seed
from tests.simulator.shapes import SHAPES
from tests.simulator.test_planted_bugs import sync_that_writes_and_does_not_sync

SEED, SECONDS = 3, 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_failure_prints_the_command_that_runs_it_again(
    shape: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync_that_writes_and_does_not_sync(monkeypatch)
    with pytest.raises(AssertionError) as raised:
        passed([SEED], SECONDS, shape)
    found = re.search(r"failed: (.*)\n  replay: python -m tests\.simulator (.*)", str(raised.value))
    assert found is not None, raised.value
    failure, words = found.groups()
    monkeypatch.setattr(sys, "argv", ["simulator", *shlex.split(words)])
    assert main() == 1
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"seed {SEED}: {failure}"
    assert told[-2] == f"seed {SEED}: {run_seed(SEED, SECONDS, shape=shape).swarm}"
    assert first_failure([SEED], SECONDS, shape) == str(raised.value).split("\nassert ")[0]


def test_shapes_differ_and_so_do_their_runs() -> None:
    """The names stand for different things, among which is what makes a stream take its time."""
    swarms = {run_seed(SEED, 0.0, shape=name).swarm for name in SHAPES}
    assert len(swarms) == len(SHAPES)
    assert "crowds" in run_seed(SEED, 0.0, shape="crowded").swarm


def test_what_a_run_bounds_is_as_it_was_afterwards() -> None:
    before = watch_streams.PAUSE_SECONDS_PER_SUBSCRIBER, watched.MAX_BATCHES
    run_seed(SEED, 0.0, shape="crowded")
    assert before == (watch_streams.PAUSE_SECONDS_PER_SUBSCRIBER, watched.MAX_BATCHES)


def test_a_campaign_may_be_of_one_shape() -> None:
    outcomes: list[Outcome] = []
    campaign = Campaign(SEED, 1, SECONDS, 1, "peaceful")
    campaign.run(outcomes.append)
    assert [outcome.command for outcome in outcomes] == [
        f"python -m tests.simulator --seed {SEED} --seconds {SECONDS} --shape peaceful --trace"
    ]
    assert (campaign.failures, campaign.missing()) == ([], [])
