"""`python -m tests.simulator`: one seed with its trace, or a campaign over many seeds on all cores."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulator.campaign import Campaign
from tests.simulator.run import DEFAULT_SECONDS, Outcome, run_seed
from tests.simulator.shapes import DRAWN, SHAPES


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event")
    parser.add_argument(
        "--shape", choices=SHAPES, default=DRAWN, help="runs of this kind, whatever the seeds draw"
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default 100)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (default 1)")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="of trouble, for each seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.seconds, arguments.shape, keep_trace=arguments.trace)
    campaign = Campaign(
        arguments.first, arguments.seeds, arguments.seconds, arguments.workers, arguments.shape
    )
    return _many(campaign, arguments.seeds, arguments.workers)


def _one(seed: int, seconds: float, shape: str, *, keep_trace: bool) -> int:
    outcome = run_seed(seed, seconds, keep_trace=keep_trace, shape=shape)
    for line in outcome.lines:
        print(line)
    print(f"seed {seed}: {outcome.swarm}")
    print(f"seed {seed}: {outcome.failure or 'passed'}")
    return 1 if outcome.failure else 0


def _many(campaign: Campaign, count: int, workers: int) -> int:
    began = time.monotonic()
    done = 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.failure is not None:
            print(f"\n{outcome.report}", flush=True)
        elif done % 50 == 0:
            print(f"\r{done} of {count} seeds", end="", flush=True, file=sys.stderr)

    campaign.run(tell)
    wall_seconds = time.monotonic() - began
    print()
    for name, number in sorted(campaign.counts.items()):
        print(f"{number:12d}  {name}")
    hours = campaign.simulated_seconds / 3600
    print(f"{count} seeds, {hours:.2f} simulated hours in {wall_seconds / 60:.1f} minutes", end="")
    print(f" ({hours / (wall_seconds / 60):.2f} hours a minute, {workers} processes)")
    missing = campaign.missing()
    for name in missing:
        print(f"never happened: {name}")
    print(f"{len(campaign.failures)} failures")
    return 1 if campaign.failures or missing else 0


if __name__ == "__main__":
    sys.exit(main())
