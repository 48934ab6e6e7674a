"""Commands for the network: what arrives, what is lost, and who can reach whom.

Mail is sent when a node speaks, and arrives when the scenario says so. Which mail is meant is said by a
route and a kind, both optional: "n1->n2", "n1->*", "AppendEntries".
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import raft.messages
from tests.interaction.stage import ScenarioError, Stage, command
from tests.interaction.words import message_text
from tests.raft.network import Mail


@command("deliver [ROUTE...] [KIND...] [first|last]")
def deliver(stage: Stage, words: list[str]) -> None:
    """This mail arrives, in the order in which it was sent; then every node takes its turn."""
    mails = _take(stage, words)
    if not mails:
        stage.cluster.note("there is no such mail")
    before = len(stage.cluster.notes)
    stage.cluster.deliver_all(mails)
    if mails and len(stage.cluster.notes) == before:
        stage.cluster.note("nobody has anything to say to that")


@command("drop [ROUTE...] [KIND...] [first|last]")
def drop(stage: Stage, words: list[str]) -> None:
    """This mail is lost."""
    for sender, receiver, message in _take(stage, words):
        stage.cluster.note(f"lost: {sender} -> {receiver} {message_text(message)}")


@command("copy [ROUTE...] [KIND...] [first|last]")
def copy(stage: Stage, words: list[str]) -> None:
    """The network makes a second copy of this mail, which comes last."""
    wanted = _wanted(stage, words)
    stage.cluster.mail += [
        (sender, receiver, message)
        for sender, receiver, message in stage.cluster.mail
        if wanted((sender, receiver, message))
    ]


@command("send ROUTE KIND NUMBER...")
def send(stage: Stage, words: list[str]) -> None:
    """Put a message into the mail that no core here would send now: of an older program, say.

    The numbers are its fields, in their order.
    """
    route, kind_name, *numbers = words
    sender, _, receiver = route.partition("->")
    kind = getattr(raft.messages, kind_name, None)
    if kind is None:
        raise ScenarioError(f"there is no message {kind_name}")
    message = kind(*map(int, numbers))
    stage.cluster.note(f"{sender} -> {receiver} {message_text(message)}")
    stage.cluster.mail.append((sender, receiver, message))


@command("mail [ROUTE...] [KIND...]")
def mail(stage: Stage, words: list[str]) -> None:
    """Show what is on its way."""
    wanted = _wanted(stage, words)
    for sender, receiver, message in filter(wanted, stage.cluster.mail):
        stage.cluster.note(f"{sender} -> {receiver} {message_text(message)}")
    if not any(map(wanted, stage.cluster.mail)):
        stage.cluster.note("no mail")


@command("partition NODE... | NODE... [| NODE...]")
def partition(stage: Stage, words: list[str]) -> None:
    """Between these groups nothing gets through any more; what is on its way between them is lost."""
    groups = [group.split() for group in " ".join(words).split("|")]
    for group in groups:
        for name in group:
            stage.cluster.cut_links |= {
                (name, other) for others in groups if others is not group for other in others
            }


@command("cut ROUTE...")
def cut(stage: Stage, words: list[str]) -> None:
    """Nothing gets through in this direction."""
    for route in words:
        sender, _, receiver = route.partition("->")
        everybody = sorted(stage.cluster.disks)
        stage.cluster.cut_links |= {
            (a, b)
            for a in everybody
            for b in everybody
            if a != b and fnmatchcase(a, sender) and fnmatchcase(b, receiver)
        }


@command("heal")
def heal(stage: Stage, words: list[str]) -> None:
    """Everything gets through again."""
    stage.cluster.heal()


def _take(stage: Stage, words: list[str]) -> list[Mail]:
    cluster = stage.cluster
    mails = list(filter(_wanted(stage, words), cluster.mail))
    if "first" in words:
        mails = mails[:1]
    elif "last" in words:
        mails = mails[-1:]
    taken = {id(mail) for mail in mails}
    return cluster.take_from_mail(lambda mail: id(mail) in taken)


def _wanted(stage: Stage, words: list[str]) -> Callable[[Mail], bool]:
    routes = [tuple(word.split("->")) for word in words if "->" in word]
    kinds = [word for word in words if "->" not in word and word not in ("first", "last")]
    for kind in kinds:
        if not hasattr(raft.messages, kind):
            raise ScenarioError(f"there is no message {kind}")

    def wanted(mail: Mail) -> bool:
        sender, receiver, message = mail
        return (
            not routes or any(fnmatchcase(sender, a) and fnmatchcase(receiver, b) for a, b in routes)
        ) and (not kinds or type(message).__name__ in kinds)

    return wanted
