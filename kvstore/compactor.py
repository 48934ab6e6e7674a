"""The policy of compaction: which revisions of the past a cluster may forget, and when it is worth a command.

Pure: it is shown what the store keeps and told the time, and answers with a command or with none. Only the
leader's applier asks, so only the leader's policy counts; a new leader has not seen the time pass, and so
keeps more for a while, never less.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from kvstore import protocol
from kvstore.quota import Quota

WORTHWHILE: Final = 10  # one part in so many of what is to be kept, beyond it: before that, no command
SAMPLES: Final = 64  # that a span of time is divided into; what is kept is too much by one of them at most
PATIENCE_SECONDS: Final = 2.0  # for a command to be applied, before another one is wanted


class KeptHistory(NamedTuple):
    """What a store has of the past."""

    revision: int  # the current one
    oldest_revision: int  # that can be read; 0 or 1 if nothing was forgotten yet
    size_bytes: int  # that would be given back if the current one became the oldest
    is_sweeping: bool  # there is something in size_bytes that is forgotten already
    total_bytes: int = 0  # size_bytes, and what is not of the past


class HistoryPolicy(NamedTuple):
    """How much of the past is kept at least; of each, 0 is no bound. The bound reached first counts."""

    revisions: int = 100_000
    size_bytes: int = 64 << 20
    seconds: float = 0.0
    quota_bytes: int = 0  # of the past and the present together: above it, no past is kept that is in the way


class Compactor:
    """Implements raft's Housekeeper; owned by one applier."""

    def __init__(self, policy: HistoryPolicy, look: Callable[[], KeptHistory]) -> None:
        self._policy = policy
        self._look = look
        self._quota = Quota(policy.quota_bytes)
        # (when, the revision of that moment), the oldest first. All but the first are younger than is kept.
        self._samples: deque[tuple[float, int]] = deque()
        self._wanted_revision = 0  # of the last command
        self._wanted_until = 0.0  # it is waited for so long

    def due_commands(self, now_seconds: float) -> list[bytes]:
        """One command, or none; again and again, with some patience, until the store shows its effect."""
        kept = self._look()
        self._sample(now_seconds, kept.revision)
        if kept.oldest_revision < self._wanted_revision and now_seconds < self._wanted_until:
            return []
        wanted = max(
            self._by_count(kept), self._by_size(kept), self._by_time(kept, now_seconds), self._by_quota(kept)
        )
        if wanted <= max(kept.oldest_revision, 1):
            return []
        self._wanted_revision, self._wanted_until = wanted, now_seconds + PATIENCE_SECONDS
        return [protocol.compact_body(0, 0, 0, wanted)]  # without a session: a second time it is refused

    # -- each answers with the revision that may become the oldest, 0 for none --------------------------

    def _by_count(self, kept: KeptHistory) -> int:
        bound = self._policy.revisions
        count = kept.revision - max(kept.oldest_revision, 1) + 1
        if not bound or (count - bound) * WORTHWHILE < bound or count <= bound:
            return 0
        return kept.revision - bound + 1

    def _by_size(self, kept: KeptHistory) -> int:
        """As if all revisions were of one size: where they are not, it takes more commands, or keeps less.

        What is not swept away yet does not show: then the next command has to wait.
        """
        bound, excess = self._policy.size_bytes, kept.size_bytes - self._policy.size_bytes
        if not bound or kept.is_sweeping or excess * WORTHWHILE < bound:
            return 0
        oldest = max(kept.oldest_revision, 1)
        # Rounded up, for each command is to have an effect.
        return oldest - (oldest - kept.revision) * excess // kept.size_bytes

    def _by_quota(self, kept: KeptHistory) -> int:
        """All of the past, once that is enough; before, keys have to be deleted, which adds to the past."""
        if not self._quota.judge(kept.total_bytes) or kept.is_sweeping:
            return 0
        present_bytes = kept.total_bytes - kept.size_bytes
        return kept.revision if self._quota.is_clear(present_bytes) else 0

    def _by_time(self, kept: KeptHistory, now_seconds: float) -> int:
        """What was the current revision so long ago is the oldest that may be asked for."""
        if not self._policy.seconds or not self._samples:
            return 0
        sampled_at, revision = self._samples[0]
        oldest = max(kept.oldest_revision, 1)
        is_old = now_seconds - sampled_at >= self._policy.seconds
        if not is_old or (revision - oldest) * WORTHWHILE < kept.revision - oldest:
            return 0
        return revision

    def _sample(self, now_seconds: float, revision: int) -> None:
        span, samples = self._policy.seconds, self._samples
        if not span:
            return
        if not samples or (revision > samples[-1][1] and now_seconds - samples[-1][0] >= span / SAMPLES):
            samples.append((now_seconds, revision))
        while len(samples) > 1 and now_seconds - samples[1][0] >= span:
            samples.popleft()
