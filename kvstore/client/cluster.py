"""What an operator asks of a cluster, for both faces of the client: each method makes one call.

May know: calls and names. Every method says what is to be, so that it may be repeated: what is so already is
no error. `Answer` is what a face gives for a call: the membership itself, or a future of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

from kvstore import protocol_admin as admin
from kvstore.client.calls import Call, admin_call
from kvstore.errors import BadRequest
from kvstore.protocol import MalformedFrame
from kvstore.protocol_admin import Membership

if TYPE_CHECKING:
    from pathlib import Path

    from kvstore.client.saving import Progress, SavedSnapshot, TakenSnapshot

AskNode = Callable[[str, Call, float | None], Any]
"""Ask the node at this endpoint and no other."""

Answer = TypeVar("Answer")


class Cluster(Generic[Answer]):
    """`client.cluster`. Each answer is the membership as the leader then knows it.

    Raises ChangeRefused, with a reason, if the change is not begun; and OutcomeUnknown if it was not known to
    be done by the deadline.
    """

    def __init__(self, ask: Callable[[Call, float | None], Answer]) -> None:
        self._ask_call = ask

    def members(self, *, timeout_seconds: float | None = None) -> Answer:
        return self._ask(admin.ListMembers(), timeout_seconds)

    def add_member(
        self, name: str, address: str, *, learner: bool = False, timeout_seconds: float | None = None
    ) -> Answer:
        """A node that runs and waits, at the peer endpoint `address`. It becomes a voter once it has caught
        up, unless it is to stay a `learner`."""
        return self._ask(admin.AddMember(_name(name), _address(address), learner), timeout_seconds)

    def promote_member(self, name: str, *, timeout_seconds: float | None = None) -> Answer:
        """A learner becomes a voter once it has caught up."""
        return self._ask(admin.PromoteMember(_name(name)), timeout_seconds)

    def demote_member(
        self, name: str, *, force: bool = False, timeout_seconds: float | None = None
    ) -> Answer:
        """A voter becomes a learner. With `force` also if no majority of the others is alive."""
        return self._ask(admin.DemoteMember(_name(name), force), timeout_seconds)

    def remove_member(
        self, name: str, *, force: bool = False, timeout_seconds: float | None = None
    ) -> Answer:
        """For good: its name is never used again. With `force` also if no majority of the others is alive."""
        return self._ask(admin.RemoveMember(_name(name), force), timeout_seconds)

    def replace_member(
        self, old: str, new: str, address: str, *, timeout_seconds: float | None = None
    ) -> Answer:
        """`new` catches up, and takes the place of `old` in one step."""
        return self._ask(admin.ReplaceMember(_name(old), _name(new), _address(address)), timeout_seconds)

    def set_members(
        self, members: Mapping[str, str], *, force: bool = False, timeout_seconds: float | None = None
    ) -> Answer:
        """These are the voters from now on; the endpoint of one that is a member already may be empty."""
        pairs = tuple((_name(name), address and _address(address)) for name, address in members.items())
        return self._ask(admin.SetMembers(pairs, force), timeout_seconds)

    def move_leader(self, target: str = "", *, timeout_seconds: float | None = None) -> Answer:
        """Hands leadership over to `target`, or to the best prepared voter."""
        return self._ask(admin.MoveLeader(target and _name(target)), timeout_seconds)

    def _ask(self, request: admin.AdminRequest, timeout_seconds: float | None) -> Answer:
        return self._ask_call(admin_call(request), timeout_seconds)


class BlockingCluster(Cluster[Membership]):
    """Of the client that blocks. It can save the cluster's state, too."""

    def __init__(
        self, ask: Callable[[Call, float | None], Membership], ask_node: AskNode, endpoints: tuple[str, ...]
    ) -> None:
        super().__init__(ask)
        self._ask_node = ask_node
        self._endpoints = endpoints

    def save_snapshot(
        self,
        target: str | Path | BinaryIO,
        *,
        endpoint: str | None = None,
        overwrite: bool = False,
        on_progress: Progress | None = None,
        timeout_seconds: float = 5.0,
    ) -> SavedSnapshot:
        """Writes all keys as of one moment, which is not before this call, to a file: docs/operations.md.

        It is read from the node at `endpoint`, or from the first one that answers. `timeout_seconds` is for
        each answer, and for a node that gets no further before it sends, after which the next one is asked;
        all of it takes as long as it takes. At a path there is a whole file or none in the end; to a file
        object the bytes are written as they come, and after an error they are of no use.
        Raises SnapshotBroken, SnapshotDamaged, SnapshotOfLaterVersion, BackupRefused, or what a request
        raises.
        """
        from kvstore.client.saving import drive, save_steps, saving_to

        endpoints = self._endpoints if endpoint is None else (endpoint,)
        with saving_to(target, overwrite=overwrite) as sink:
            steps = save_steps(
                endpoints,
                sink,
                timeout_seconds=timeout_seconds,
                now=time.monotonic,
                on_progress=on_progress,
            )
            return drive(steps, lambda one: self._ask_node(*one), time.sleep)

    def take_snapshot(self, endpoint: str, *, timeout_seconds: float = 5.0) -> TakenSnapshot:
        """The node at `endpoint` takes a snapshot now, for itself, and then gives up its log behind that, but
        for what its settings and the other members keep of it.

        If it has one that is no older than this call, that is as good. `timeout_seconds` is for each answer,
        and for a node that gets no further with it. Raises SnapshotBroken, or what a request raises.
        """
        from kvstore.client.saving import drive, take_steps

        steps = take_steps(endpoint, timeout_seconds=timeout_seconds, now=time.monotonic)
        return drive(steps, lambda one: self._ask_node(*one), time.sleep)


def _name(name: str) -> str:
    try:
        return admin.check_name(name)
    except MalformedFrame as error:
        raise BadRequest(error.reason) from None


def _address(address: str) -> str:
    try:
        return admin.check_address(address)
    except MalformedFrame as error:
        raise BadRequest(error.reason) from None
