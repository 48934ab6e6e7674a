"""Logs as the paper draws them: a line for each server, with the terms of its entries from index 1 on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raft.entries import NodeId
from raft.messages import PreVoteResponse, RequestPreVote, RequestVote, VoteResponse
from raft.ready import Role
from tests.raft.network import Network, terms_of

ELECTION = (RequestPreVote, PreVoteResponse, RequestVote, VoteResponse)


def drawn(figure: str) -> dict[NodeId, list[int]]:
    """The logs of a drawing; what follows a | is said to the reader alone."""
    lines = [line.partition("|")[0].split() for line in figure.strip().splitlines()]
    return {name: [int(term) for term in terms] for name, *terms in lines}


def logs(network: Network, names: Iterable[NodeId]) -> dict[NodeId, list[int]]:
    return {name: terms_of(network[name]) for name in names}


def carry(network: Network, kinds: tuple[type, ...], until: Callable[[], bool] = lambda: False) -> None:
    """Messages of these kinds arrive, and those that answer them; what else is sent meanwhile is lost."""
    for _ in range(100):
        for name, core in network.cores.items():
            while core.has_ready():
                network.turn(name)
        mails, network.mail = network.mail, []
        mails = [mail for mail in mails if isinstance(mail[2], kinds)]
        if not mails or until():
            return
        for mail in mails:
            network.deliver(mail)
    raise AssertionError("the servers talk without end")


def elect(network: Network, name: NodeId) -> int:
    """That server wins an election, if it can, before any of its entries leaves it. Returns its term.

    It may take two attempts: the first tells it of a term that it does not know.
    """
    for _ in range(2):
        if network[name].role is not Role.LEADER:
            for core in network.cores.values():
                core.leader_silent()
            network[name].campaign()
            carry(network, ELECTION)
    return network[name].term
