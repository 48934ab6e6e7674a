"""What the applier asks of a replicated state machine, and of one that also has something to announce.

Pure protocols: no I/O, no clock. Command and query bodies are opaque bytes here; only the state machine
decodes them. Equal logs must give equal results on every node, so an implementation may look at nothing but
the bodies it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from raft.arrivals import Moment
from raft.membership import Configuration

Frame = list[bytes]
"""The parts of one message on the watch plane; part 0 is the topic."""


LongAnswer = Iterator[bytes | None]
"""An answer that takes several steps: None after each, and then the answer."""


class Restorer(Protocol):
    """Takes the content of one snapshot, as it comes. Given up without a word if a newer one comes first."""

    def feed(self, data: bytes) -> None:
        """The next piece, cut anywhere. The old state stays in force: apply() and query() may go on.

        Between two calls the node does everything else, so a call should take a few milliseconds.
        """

    def finish(self) -> None:
        """All has come: the new state takes the place of the old one. Raises if the content is not whole."""


class StateMachine(Protocol):
    """A deterministic machine; owned by one applier, called by nobody else."""

    def apply(self, first_index: int, bodies: Sequence[bytes | None]) -> list[bytes | None]:
        """Apply consecutive committed entries; the first has log position `first_index`.

        A few dozen at once, and other things are done between two calls if these take long. A body of None is
        an entry without a command (a leader's no-op, a configuration). Returns one encoded
        result per body, None for None. Must not raise for any body that a client can send: a command
        that makes no sense has a result that says so, the same on every node.
        """

    def query(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Answer reads against the state as applied so far; one encoded result per body."""

    def snapshot(self) -> Iterator[bytes]:
        """The state as of this call, in pieces of any size.

        They are asked for one by one while apply() goes on, which must not change them: so whatever apply()
        changes in place has to be copied in this call. Equal states should give equal bytes, on every node.
        An empty piece says that it took work enough for now: commands get their turn before the next one.
        """

    def restorer(self) -> Restorer:
        """To replace the whole state by that of a snapshot. `WholeRestorer` is one for a small state."""

    def status(self) -> dict[str, object]:
        """Facts for an operator, such as the store's revision."""


@runtime_checkable
class Housekeeper(Protocol):
    """What knows, of a state machine, which commands it needs by itself: such as to forget what is old.

    It is asked a few times a second on the leader, and nowhere else; not before the leader has applied all
    that earlier leaders left. Here, and here alone, time may decide: the command that comes of it is in the
    log, and has the same effect everywhere.
    """

    def due_commands(self, now_seconds: float) -> list[bytes]:
        """Bodies to be proposed now, the most urgent first; `now_seconds` is of this node's monotonic clock.

        Nobody is told what becomes of them: a command may be lost, and may be applied late, after others that
        this state has not seen, or by another leader. So it has to be harmless then, and it is asked for
        again until the state shows its effect. Of many only the first are proposed.
        """


@runtime_checkable
class Timekeeper(Protocol):
    """What a housekeeper has beside, if it counts time."""

    def begin_leading(self) -> None:
        """This node leads, and did not just before, or does so in another term: others led meanwhile."""

    def was_applied(self, arrivals: Sequence[Moment]) -> None:
        """On every node, whenever entries were applied, or a snapshot restored. When they came into the log
        of this node, by its clock; so each of them was proposed before, on whatever node. There may be more
        of them than were applied."""

    def due_at(self) -> float | None:
        """When it wants to be asked, if that is before its turn comes anyway: later than now, once it was
        asked. Asked for on the leader alone."""


class Restorable(Protocol):
    """What a snapshot can be restored into: a state machine."""

    def restorer(self) -> Restorer: ...


class WholeRestorer:
    """For a state that is small: collects the content, and hands it to `restore` in one piece."""

    __slots__ = ("_content", "_restore")

    def __init__(self, restore: Callable[[bytes], None]) -> None:
        self._restore = restore
        self._content = bytearray()

    def feed(self, data: bytes) -> None:
        """Keep it."""
        self._content += data

    def finish(self) -> None:
        """Hand over all that came."""
        self._restore(bytes(self._content))


def restore_all(machine: Restorable, chunks: Iterable[bytes]) -> None:
    """Restore a snapshot in one go, for a program that does nothing else meanwhile."""
    restorer = machine.restorer()
    for chunk in chunks:
        restorer.feed(chunk)
    restorer.finish()


class Fingerprinted(Protocol):
    """What a state machine may have beside: then the replicas compare their states, and one that differs
    from a majority is fenced.

    With `fingerprint_version`, an int, it says in which way it computes fingerprints; without, 0. To be
    changed together with the way, or with what any command does: unlike versions are never compared.
    """

    def fingerprint(self) -> int:
        """64 bits that depend on all of the state as applied so far, and on nothing else.

        Equal on all nodes with an equal log, in every process, and after restore() as before snapshot().
        Asked for every few hundred entries, so it should be kept up to date by apply(), not computed here.
        """


class Tidying(Protocol):
    """What a state machine may have beside, if it gives memory back bit by bit."""

    def tidy(self) -> None:
        """The next step of it, of a millisecond or so; called a few times a second on every node.

        Each node calls it at other moments, so nothing of the state may change by it: no result, no
        snapshot and no fingerprint.
        """


class Interruptible(Protocol):
    """What a state machine may have beside, if some of its commands take long."""

    def apply_some(
        self, first_index: int, bodies: Sequence[bytes | None], *, is_time_up: Callable[[], bool]
    ) -> list[bytes | None]:
        """Called in place of apply(): as that, but it may end early, after at least one of the bodies.

        It asks `is_time_up` behind whatever may have taken long, small commands that touch much included, and
        once in so many others, each millisecond or so. It ends if so, and also when its results are some
        megabytes, for they are all in memory; the rest comes in another call, soon. What it has applied by
        then must depend on nothing but the log.
        """


class Unhurried(Protocol):
    """What a state machine may have beside, if some of its reads take long."""

    def begin_query(self, bodies: Sequence[bytes]) -> list[bytes | LongAnswer]:
        """Called in place of query(): one answer per body, or what gives it when it is asked often enough.

        This call and each step of a LongAnswer should take a few milliseconds. Between the steps apply() goes
        on, and a snapshot may be restored; an answer may be of any moment since the call. A LongAnswer is
        given up without a word if nobody waits for it any more. A thousand of them may wait with their first
        step done, or none, so they should keep next to nothing until the second; a few at a time go on then.
        """


class Announcer(Protocol):
    """A state machine's voice on the watch plane: says what to publish, and never does I/O itself."""

    def subscribed(self, frames: Sequence[bytes]) -> list[Frame]:
        """Note raw XPUB frames (b"\\x01topic" or b"\\x00topic"); returns what to publish at once."""

    def announcements(self) -> list[Frame]:
        """What was applied since the last call and somebody subscribes to."""

    def heartbeats(self, now_seconds: float) -> list[Frame]:
        """Signs of life for subscribers of idle topics, due at `now_seconds` on the caller's clock."""

    def cut_off(self) -> list[Frame]:
        """The last call: the state is wrong. What makes subscribers look elsewhere; nothing of the state."""

    def role_changed(self, role: str, term: int, leader_id: str | None) -> list[Frame]:
        """What subscribers of the cluster's own topic should hear of a change of leader."""

    def members_changed(self, configuration: Configuration) -> list[Frame]:
        """The same of a change of membership, once it is committed and no joint one."""

    def health_changed(self, term: int, silent: Sequence[str]) -> list[Frame]:
        """The same of the members that the leader of `term` does not hear. Told again though unchanged."""


class Silent:
    """An announcer for state machines that announce nothing."""

    def subscribed(self, frames: Sequence[bytes]) -> list[Frame]:
        return []

    def announcements(self) -> list[Frame]:
        return []

    def heartbeats(self, now_seconds: float) -> list[Frame]:
        return []

    def cut_off(self) -> list[Frame]:
        return []

    def role_changed(self, role: str, term: int, leader_id: str | None) -> list[Frame]:
        return []

    def members_changed(self, configuration: Configuration) -> list[Frame]:
        return []

    def health_changed(self, term: int, silent: Sequence[str]) -> list[Frame]:
        return []
