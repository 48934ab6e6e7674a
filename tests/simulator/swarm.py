"""What a seed means: which dimensions of trouble a run has, and how much of each.

Each dimension is off with probability one half, so that runs differ in kind and not only in luck: what
troubles in company may hide, alone they may show. Pure data, drawn once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

# Some have what looks like a child and is none, and some children have no parent that is a key.
PATHS = (b"/k", b"/k/0", b"/k/0/1", b"/k-1", b"/k1/0", b"/k1/0/2")
SIZES = (1, 2, 3, 3, 3, 3, 4, 5, 5, 7)


@dataclass(frozen=True, slots=True)
class Swarm:
    """The shape of one run. A probability or mean of 0 and a False are a dimension that is off."""

    size: int
    heartbeat_ms: int
    election_ms: int
    # The network.
    loss: float
    duplicate: float
    delay_seconds: float  # mean of what comes on top of the base delay, with a heavy tail
    reorder: bool  # frames of one link may overtake one another
    restamp: bool  # headers are made to look fresh, so that the core itself sees what was overtaken
    partitions: bool
    clogs: bool
    # Processes.
    pauses: bool
    kills: bool
    power: bool
    blackouts: bool  # all nodes lose power at once
    crash_points: bool  # crashes in the middle of a turn: at a call of the disk, or behind a frame
    # Disks.
    keep: float  # probability that an unsynced sector survives a loss of power
    slow_sync: float
    disk_errors: bool
    segment_bytes: int
    # Clocks.
    drift: float  # rates lie within 1 - drift and 1 + drift
    jumps: bool
    # Bounds.
    tiny_windows: bool
    tiny_queues: bool
    # Snapshots.
    snapshot_interval: int  # entries; 0: none is taken
    trailing_entries: int
    chunk_bytes: int
    history_revisions: int  # of the past, kept by compaction; 0: all of it
    # Administration.
    transfers: bool
    changes: bool  # of the membership
    # Clients.
    clients: int
    keys: int
    think_seconds: float
    hedge: float  # probability that an attempt goes to two nodes at once
    impatient: float  # probability that a client gives an operation up when an attempt fails
    batches: bool
    watchers: int  # clients that watch
    lessees: int  # clients with leases
    slow_apply: float  # the share of the commands other than puts behind which a turn of the applier ends
    # Memory.
    old_copies: bool  # an old copy of one node's disk is put back, where its leader can prove it
    bends: bool  # one node's state goes bad; what else would heal or spread that is off then
    # Watchers.
    crowds: bool  # each stream holds what it has to say for a moment, as for many who hear it
    # How often troubles begin: mean time between two of one kind, in election timeouts.
    calm: float
    # What else clients do.
    transactions: bool
    range_deletes: bool
    compacting: bool  # clients give up the past, too
    # What the store may hold.
    quota_bytes: int  # more than is ever present, so that the past alone exceeds it; 0: none
    few_sessions: bool  # one less than there are clients
    trees: bool  # keys are paths, and clients ask for children and watch trees
    busy_apply: float  # seconds that each command takes a node to apply

    @property
    def election_seconds(self) -> float:
        return self.election_ms / 1000

    @property
    def key_names(self) -> list[bytes]:
        """In their order."""
        return sorted(PATHS[: self.keys]) if self.trees else [b"k%d" % number for number in range(self.keys)]

    @property
    def all_keys(self) -> tuple[bytes, bytes]:
        """The range of these."""
        return (b"/k", b"/l") if self.trees else (b"k", b"l")

    @property
    def max_sessions(self) -> int:
        """0: as many as in production."""
        return max(1, self.clients + self.lessees - 1) if self.few_sessions else 0

    def describe(self) -> str:
        """Everything that is on."""
        shown = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value:
                shown.append(each.name if value is True else f"{each.name}={value:.4g}")
        return " ".join(shown)


class _Coin:
    """What is drawn of a seed, in the order of the calls."""

    def __init__(self, rng: Random) -> None:
        self._random = rng.random

    def on(self) -> bool:
        return self._random() < 0.5

    def some(self, low: float, high: float) -> float:
        """Off in half of all runs; else spread evenly over the orders of magnitude."""
        is_on, exponent = self.on(), self._random()
        return float(low * (high / low) ** exponent) if is_on else 0.0


def draw(rng: Random, size: int | None = None) -> Swarm:
    """The swarm of a seed. `size` overrides the drawn number of nodes, and changes nothing else."""
    coin = _Coin(rng)
    on, some = coin.on, coin.some
    drawn_size = rng.choice(SIZES)
    heartbeat_ms, election_ms = rng.choice([(50, 200), (100, 400), (100, 400), (100, 300)])
    return Swarm(
        size=size or drawn_size,
        heartbeat_ms=heartbeat_ms,
        election_ms=election_ms,
        loss=some(0.005, 0.3),
        duplicate=some(0.01, 0.2),
        delay_seconds=some(0.001, 0.1),
        reorder=on(),
        restamp=on(),
        partitions=on(),
        clogs=on(),
        pauses=on(),
        kills=on(),
        power=on(),
        blackouts=on(),
        crash_points=on(),
        keep=rng.choice([0.0, 0.05, 0.2, 0.5, 0.9]),
        slow_sync=some(0.001, 0.3),
        disk_errors=on(),
        segment_bytes=rng.choice([4096, 8192, 32768]),
        drift=rng.choice([0.0, 0.0, 0.05, 0.3]),
        jumps=on(),
        tiny_windows=on(),
        tiny_queues=on(),
        snapshot_interval=rng.choice([5, 20, 100]) if on() else 0,
        trailing_entries=rng.choice([0, 3, 20]),
        chunk_bytes=rng.choice([64, 400, 4096]),
        transfers=on(),
        changes=on(),
        clients=rng.choice([2, 3, 4, 6]),
        keys=rng.choice([1, 3, 6]),
        think_seconds=rng.choice([0.05, 0.1, 0.4]),
        hedge=some(0.02, 0.3),
        impatient=some(0.02, 0.3),
        batches=on(),
        bends=False,
        old_copies=False,
        crowds=False,
        calm=rng.choice([4.0, 8.0, 16.0]),
        history_revisions=rng.choice([1, 5, 30]) if on() else 0,
        # What comes later is drawn later, so that it changes nothing about what a seed meant before.
        watchers=rng.choice([1, 2, 4]) if on() else 0,
        lessees=rng.choice([1, 3]) if on() else 0,
        slow_apply=some(0.05, 0.9),
        transactions=on(),
        range_deletes=on(),
        compacting=on(),
        quota_bytes=rng.choice([5000, 20_000]) if on() else 0,
        few_sessions=on(),
        trees=on(),
        busy_apply=some(0.0002, 0.003),
    )


def is_all_together(swarm: Swarm) -> bool:
    """Whatever the store has may meet in this run: watches, leases, compaction, snapshots, transactions, and
    members that come and go."""
    return bool(
        swarm.watchers and swarm.lessees and swarm.history_revisions and swarm.changes and swarm.transactions
    )
