"""cluster, member, change-membership and move-leader: who takes part, and who leads.

Knows the client only. Each command shows the membership as it then is.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from kvstore.cli import output
from kvstore.cli.invocation import Invocation
from kvstore.errors import AssentError, OutcomeUnknown, Unreachable

if TYPE_CHECKING:
    from kvstore.client import Client, Membership, NodeStatus

HEADER = ("NAME", "ROLE", "LEADS", "PEER ENDPOINT", "CLIENT ENDPOINT")
_ENDPOINT = "tcp://HOST:PORT"
INITIALISE_AGAIN_SECONDS = 0.1


class InitRefused(AssentError):
    """The nodes are not in a state in which a cluster can begin."""

    __slots__ = ()


# ---------------------------------------------------------------- groups


@click.group("cluster")
def cluster() -> None:
    """Begin a cluster."""


@click.group("member")
def member() -> None:
    """Show and change who takes part."""


# ---------------------------------------------------------------- member


@member.command("list")
@click.pass_context
def list_members(ctx: click.Context) -> None:
    """Show the members, as the leader knows them."""
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.members())


@member.command("add")
@click.argument("name")
@click.argument("endpoint", metavar=_ENDPOINT)
@click.option("--learner", is_flag=True, help="It receives everything and never votes.")
@click.pass_context
def add(ctx: click.Context, name: str, endpoint: str, learner: bool) -> None:
    """Add a node that runs and waits, at its peer endpoint.

    It begins as a learner and becomes a voter once it has caught up, also if this command has ended by then.
    """
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.add_member(name, endpoint, learner=learner))


@member.command("promote")
@click.argument("name")
@click.pass_context
def promote(ctx: click.Context, name: str) -> None:
    """Make a learner a voter, once it has caught up."""
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.promote_member(name))


@member.command("demote")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also if no majority of the others is alive.")
@click.pass_context
def demote(ctx: click.Context, name: str, force: bool) -> None:
    """Make a voter a learner: it receives everything and votes no more."""
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.demote_member(name, force=force))


@member.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Also if no majority of the others is alive.")
@click.pass_context
def remove(ctx: click.Context, name: str, force: bool) -> None:
    """Remove a member for good: its name is never used again."""
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.remove_member(name, force=force))


@member.command("replace")
@click.argument("old")
@click.argument("new")
@click.argument("endpoint", metavar=_ENDPOINT)
@click.pass_context
def replace(ctx: click.Context, old: str, new: str, endpoint: str) -> None:
    """Have NEW, a node that runs and waits, catch up and take the place of OLD in one step."""
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.replace_member(old, new, endpoint))


@click.command("change-membership")
@click.argument("members", metavar="n1,n2,n4=ENDPOINT")
@click.option("--force", is_flag=True, help="Also if no majority of the new voters is alive.")
@click.pass_context
def change_membership(ctx: click.Context, members: str, force: bool) -> None:
    """Have exactly these voters: who is new catches up, who is not named leaves for good, all in one step."""
    wanted: dict[str, str] = {}
    for part in members.split(","):
        name, _, endpoint = part.strip().partition("=")
        if name in wanted:
            raise click.BadParameter(f"{name!r} is there twice")
        wanted[name] = endpoint
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.set_members(wanted, force=force))


@click.command("move-leader")
@click.argument("target", default="")
@click.pass_context
def move_leader(ctx: click.Context, target: str) -> None:
    """Have TARGET lead, or the best prepared of the other voters."""
    with ctx.obj.client() as client:
        _show(ctx.obj, client.cluster.move_leader(target))


# ---------------------------------------------------------------- cluster


@cluster.command("init")
@click.option("--cluster", "members", metavar="n1=ENDPOINT,…", help="The members and their peer endpoints.")
@click.pass_context
def init(ctx: click.Context, members: str | None) -> None:
    """Make one cluster of nodes that wait; once, and never again.

    The members are the nodes at --endpoints, or those of --cluster. The first by name begins as a cluster of
    its own, the others are added to it: so it cannot begin twice, whoever runs this at the same time.
    """
    invocation: Invocation = ctx.obj
    with invocation.client() as client:
        waiting = _find_waiting(client, invocation.timeout_seconds)
        wanted = _wanted(members, waiting, invocation)
        founder = min(wanted)
        if founder not in waiting:
            found = ", ".join(sorted(waiting)) or "nobody"
            raise InitRefused(
                f"{founder}, the first by name, does not wait at {', '.join(invocation.endpoints)}; "
                f"there {'is' if len(waiting) == 1 else 'are'} {found}"
            )
        _initialise(client, waiting[founder].client_endpoint, invocation.timeout_seconds)
    with invocation.client() as client:
        membership = client.cluster.members()
        for name in sorted(wanted.keys() - {founder}):
            membership = client.cluster.add_member(name, wanted[name])
        _show(invocation, membership)


def _initialise(client: Client, endpoint: str, seconds: float) -> None:
    """The node lets go of its connections when it ceases to wait, which somebody else may have asked of it at
    this moment: so it is asked again, and the nonce tells it whether that was us."""
    nonce = os.urandom(16)
    give_up_at = time.monotonic() + seconds
    while True:
        try:
            client.initialise(endpoint, nonce, timeout_seconds=max(0.1, give_up_at - time.monotonic()))
            return
        except (OutcomeUnknown, Unreachable):
            if time.monotonic() + INITIALISE_AGAIN_SECONDS >= give_up_at:
                raise
            time.sleep(INITIALISE_AGAIN_SECONDS)


def _find_waiting(client: Client, seconds: float) -> dict[str, NodeStatus]:
    """The nodes that answer, by name. All of them must wait."""
    answers = client.status_all(timeout_seconds=min(seconds, 1.0))
    found = [answer for answer in answers.values() if answer is not None]
    for status in found:
        if status.member != "waiting" or status.cluster_id.strip("0"):
            raise InitRefused(
                f"{status.node} at {status.client_endpoint} is of cluster {status.cluster_id} already: "
                "see `assent member list`, and add nodes with `assent member add`"
            )
    return {status.node: status for status in found}


def _wanted(members: str | None, waiting: dict[str, NodeStatus], invocation: Invocation) -> dict[str, str]:
    if members is not None:
        pairs = [part.strip().partition("=") for part in members.split(",")]
        wanted = {name: endpoint for name, _, endpoint in pairs}
        if len(wanted) < len(pairs) or not all(wanted.values()):
            expected = "expected n1=tcp://HOST:PORT,n2=…, each name once"
            raise click.BadParameter(f"{members!r}: {expected}", param_hint="--cluster")
        return wanted
    if len(waiting) < len(invocation.endpoints):
        answered = ", ".join(sorted(waiting)) or "none"
        raise InitRefused(
            f"of {len(invocation.endpoints)} endpoints, only these answered: {answered}. Start the others, "
            "or name with --endpoints only the nodes that are to begin"
        )
    return {name: status.peer_endpoint for name, status in waiting.items()}


# ---------------------------------------------------------------- output


def _show(invocation: Invocation, membership: Membership) -> None:
    if invocation.write_out == "json":
        members = [one._asdict() for one in membership.members]
        output.write_json(membership._asdict() | {"members": members})
        return
    rows = [
        [
            one.name,
            one.role,
            "leads" if one.name == membership.leader else "-",
            one.peer_endpoint or "-",
            one.client_endpoint or "-",
        ]
        for one in membership.members
    ]
    if invocation.write_out == "table":
        output.write_table(HEADER, rows)
    else:
        for row in rows:
            output.write_line(*(cell.encode() for cell in row))
