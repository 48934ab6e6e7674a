"""Many seeds on all cores, and whether together they went where they should have gone.

A campaign in which some trouble never came proves nothing about it: so every kind of trouble and every
important path has a counter, and one that stays at zero fails the campaign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from tests.simulator.run import Outcome, run_seed
from tests.simulator.shapes import DRAWN

# What must have happened at least once in a campaign of a few hundred seeds.
EXPECTED = (
    "ambush disk",
    "ambush error",
    "ambush send",
    "applier behind",
    "attempt timed out",
    "blackout",
    "clock jump",
    "clog",
    "change add_learner",
    "change add_voter",
    "change demote",
    "change move",
    "change promote",
    "change remove",
    "change replace",
    "change set",
    "committed entries",
    "compacted",
    "compactions",
    "configuration",
    "configuration rolled back",
    "death during start",
    "done children",
    "done clear",
    "done compact",
    "done delete",
    "done get",
    "done list",
    "done past",
    "done put",
    "done read txn",
    "done txn",
    "disk failed",
    "frame clogged",
    "frame cut off",
    "frame duplicated",
    "frame lost",
    "frame overtaken",
    "hedged",
    "joint configuration",
    "killed",
    "killed behind a frame",
    "late answer",
    "leader",
    "lease expired",
    "lease granted",
    "lease renewed",
    "lease revoked",
    "operation given up",
    "partition bridge",
    "partition deaf",
    "partition halves",
    "partition isolate",
    "partition mute",
    "partition one way",
    "partition ring",
    "pause",
    "power loss",
    "quota exceeded",
    "reads",
    "put with a lease",
    "recovery differs from the last sync",
    "refused conflict_with_leader",
    "refused no_leader",
    "refused not_leader",
    "refused outcome_unknown",
    "refused overloaded",
    "refused transferring",
    "repeated commands",
    "restart from a snapshot",
    "runs of all together",
    "runs with writes after",
    "runs with writes before",
    "runs with writes during",
    "sent AppendEntries",
    "sent AppendRejected",
    "sent AppendResponse",
    "sent Heartbeat",
    "sent HeartbeatResponse",
    "sent InstallSnapshot",
    "sent InstallSnapshotResponse",
    "sent PreVoteResponse",
    "sent ReadIndexRefused",
    "sent ReadIndexRequest",
    "sent ReadIndexResponse",
    "sent Removed",
    "sent RequestPreVote",
    "sent RequestVote",
    "sent TimeoutNow",
    "sent VoteResponse",
    "session expired",
    "slow sync",
    "snapshot installed",
    "snapshot taken",
    "state of an installed snapshot",
    "swap refused",
    "swapped",
    "transfer",
    "trouble for the leader",
    "truncation",
    "watch",
    "watch batches",
    "watch compacted",
    "watch gaps",
    "watch moves",
    "watch new epochs",
    "watch of a tree",
    "watch overflows",
    "watch resumed",
    "watch silences",
    "watcher's connection ended",
    "writes",
)
# More than one run in a hundred that the second check could not decide is a failure to look.
MOST_UNDECIDED = 0.01


def missing_coverage(counts: Counter[str]) -> list[str]:
    """What never happened, or too seldom."""
    missing = [name for name in EXPECTED if not counts[name]]
    runs = counts["runs"]
    if counts["undecided histories"] > MOST_UNDECIDED * runs:
        missing.append(f"a verdict on {counts['undecided histories']} histories")
    if counts["runs with writes after"] < runs:
        missing.append(f"a write after healing, in {runs - counts['runs with writes after']} runs")
    return missing


class Campaign:
    """Owned by whoever wants to know."""

    def __init__(self, first: int, count: int, seconds: float, workers: int, shape: str = DRAWN) -> None:
        self._seeds = range(first, first + count)
        self._seconds = seconds
        self._workers = workers
        self._shape = shape
        self.failures: list[Outcome] = []
        self.counts: Counter[str] = Counter()
        self.simulated_seconds = 0.0

    def run(self, tell: Callable[[Outcome], None]) -> None:
        """Every seed; `tell` hears of each when it is done, in order of the seeds."""
        # Spawned, not forked: a process begins with nothing of this one's.
        with ProcessPoolExecutor(self._workers, mp_context=get_context("spawn")) as pool:
            run = partial(run_seed, seconds=self._seconds, shape=self._shape)
            for outcome in pool.map(run, self._seeds, chunksize=4):
                self._note(outcome)
                tell(outcome)

    def missing(self) -> list[str]:
        """What never happened, or too seldom. In runs of one kind much cannot: of them nothing is missed."""
        return missing_coverage(self.counts) if self._shape == DRAWN else []

    def _note(self, outcome: Outcome) -> None:
        self.counts.update(outcome.counts)
        self.counts["runs"] += outcome.failure is None
        self.simulated_seconds += outcome.simulated_seconds
        if outcome.failure is not None:
            self.failures.append(outcome)
