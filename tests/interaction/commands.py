"""Commands that make things happen at nodes: clusters, clocks, clients and disks."""

from __future__ import annotations

from dataclasses import fields, replace

from raft.config import RaftConfig
from raft.entries import EntryKind, HardState
from raft.messages import PreVoteResponse, RequestPreVote, RequestVote, VoteResponse
from raft.ready import Role
from raft.storage import Recovered
from tests.interaction.cluster import Cluster
from tests.interaction.stage import ScenarioError, Stage, command
from tests.interaction.words import body_of, message_text
from tests.raft.network import entries_of

_OPTIONS = {field.name for field in fields(RaftConfig)} - {"incarnation"}
_OF_ELECTIONS = {RequestPreVote, PreVoteResponse, RequestVote, VoteResponse}


# -- the cluster -----------------------------------------------------------------------------------------


@command("cluster NODE... [learners NODE...] [with OPTION=NUMBER...]")
def cluster(stage: Stage, words: list[str]) -> None:
    """Start these nodes with empty disks; learners have no vote. Options are those of RaftConfig."""
    words, options = _split(words, "with")
    voters, learners = _split(words, "learners")
    stage.set_cluster(Cluster(voters, learners, _with_options(RaftConfig(), options)))


@command("given NODE... log TERM... [term TERM] [vote NODE] [commit INDEX]")
def given(stage: Stage, words: list[str]) -> None:
    """Start these nodes from disks that hold a log with entries of these terms; the first has the members."""
    names, rest = _split(words, "log")
    fields_found: dict[str, list[str]] = {"log": []}
    current = "log"
    for word in rest:
        if word in ("term", "vote", "commit"):
            current = word
        else:
            fields_found.setdefault(current, []).append(word)
    terms = [int(word) for word in fields_found["log"]]
    last_term = terms[-1] if terms else 0
    term = int(fields_found.get("term", [str(last_term)])[0])
    vote = fields_found.get("vote", [None])[0]
    commit_index = int(fields_found.get("commit", ["0"])[0])
    entries = entries_of(terms)
    if entries:
        members = stage.cluster.configuration.encode()  # as the first leader of a cluster begins its log
        entries[0] = (terms[0], int(EntryKind.CONFIGURATION), members)
    for name in stage.names(names):
        stage.cluster.give(name, Recovered(HardState(term, vote, commit_index), 1, list(entries)))


@command("crash NODE... [keeping writes]")
def crash(stage: Stage, words: list[str]) -> None:
    """These nodes stop at once. What their disks have not synced is lost, unless writes are kept."""
    names, keeping = _split(words, "keeping")
    for name in stage.names(names):
        stage.cluster.crash(name, writes_survive=bool(keeping))


@command("restart NODE... [with OPTION=NUMBER...]")
def restart(stage: Stage, words: list[str]) -> None:
    """Start these nodes from what is on their disks, maybe with options of their own."""
    names, options = _split(words, "with")
    for name in names:
        stage.cluster.configs[name] = _with_options(stage.cluster.config, options)
        if name in stage.cluster.cores:
            stage.cluster.crash(name)
        stage.cluster.start(name)


@command("disk NODE slow|sync|fast")
def disk(stage: Stage, words: list[str]) -> None:
    """A slow disk syncs a write only when told to; what waits for the sync stays in the node."""
    name, what = words
    cluster = stage.cluster
    stage.core(name)
    if what == "slow":
        cluster.slow_disks.add(name)
    elif what in ("sync", "fast"):
        if what == "fast":
            cluster.slow_disks.discard(name)
        if name in cluster.writing:
            cluster.finish_write(name)
    else:
        raise ScenarioError(f"a disk is slow, fast, or made to sync; not {what}")


# -- clocks ----------------------------------------------------------------------------------------------


@command("campaign NODE...")
def campaign(stage: Stage, words: list[str]) -> None:
    """The election timeout of these nodes runs out, at the same moment."""
    for name in stage.names(words):
        stage.core(name).campaign()


@command("silent [NODE...]")
def silent(stage: Stage, words: list[str]) -> None:
    """These nodes (or all) did not hear their leader for an election timeout: their vote gates open."""
    for name in stage.names(words):
        stage.core(name).leader_silent()


@command("heartbeat NODE")
def heartbeat(stage: Stage, words: list[str]) -> None:
    """It is time for this leader's heartbeats."""
    for name in stage.names(words):
        stage.core(name).heartbeat()


@command("check-quorum NODE")
def check_quorum(stage: Stage, words: list[str]) -> None:
    """An election timeout has passed for this leader: did it hear a quorum meanwhile?"""
    for name in stage.names(words):
        stage.core(name).check_quorum()


@command("election-timeouts NODE COUNT")
def election_timeouts(stage: Stage, words: list[str]) -> None:
    """So many election timeouts pass for this leader, with heartbeats that whoever can answers.

    Messages are not shown.
    """
    name, count = words
    for _ in range(int(count)):
        heartbeat(stage, [name])
        settle(stage, [])
        check_quorum(stage, [name])
        settle(stage, [])


@command("tell-commit NODE")
def tell_commit(stage: Stage, words: list[str]) -> None:
    """This leader's node has time to tell the others what is committed, though it has no entries to send."""
    for name in stage.names(words):
        stage.core(name).tell_commit()


@command("elect NODE")
def elect(stage: Stage, words: list[str]) -> None:
    """All have lost their leader, this node campaigns, and everything is delivered. Says what came of it."""
    (name,) = words
    cluster = stage.cluster
    notes = cluster.notes.copy()
    silent(stage, [])
    campaign(stage, [name])
    settle(stage, [])
    cluster.notes[:] = notes
    core = stage.core(name)
    if core.role is Role.LEADER:
        others = sorted(cluster.cores.keys() - {name})
        followers = [other for other in others if cluster.cores[other].leader_id == name]
        cluster.note(f"{name} leads term {core.term}, followed by {' '.join(followers) or 'nobody'}")
    else:
        cluster.note(f"{name} is not elected")


@command("win NODE")
def win(stage: Stage, words: list[str]) -> None:
    """Like elect, but only the messages of the election are delivered: shows what the new leader sends."""
    (name,) = words
    cluster = stage.cluster
    notes = cluster.notes.copy()
    cluster.shows_messages = False
    silent(stage, [])
    campaign(stage, [name])
    cluster.take_turns()
    while votes := cluster.take_from_mail(lambda mail: type(mail[2]) in _OF_ELECTIONS):
        cluster.deliver_all(votes)
    cluster.shows_messages = True
    cluster.notes[:] = notes
    core = stage.core(name)
    cluster.note(f"{name} leads term {core.term}" if core.role is Role.LEADER else f"{name} is not elected")
    for sender, receiver, message in cluster.mail:
        cluster.note(f"{sender} -> {receiver} {message_text(message)}")


@command("settle")
def settle(stage: Stage, words: list[str]) -> None:
    """Deliver everything, answers and their answers included, until nobody has more to say.

    Messages are not shown.
    """
    stage.cluster.shows_messages = False
    stage.cluster.settle()
    stage.cluster.shows_messages = True


# -- clients ---------------------------------------------------------------------------------------------


@command("propose NODE BODY...")
def propose(stage: Stage, words: list[str]) -> None:
    """A client gives this node commands, all at once. A body of 300B is one of 300 bytes."""
    name, *bodies = words
    stage.core(name).propose([body_of(body) for body in bodies])


@command("fill NODE COUNT")
def fill(stage: Stage, words: list[str]) -> None:
    """That many small commands, one after the other, each delivered everywhere. Shows nothing."""
    name, count = words
    notes = stage.cluster.notes.copy()
    for number in range(int(count)):
        stage.core(name).propose([b"f%d" % number])
        settle(stage, [])
    stage.cluster.notes[:] = notes


@command("read NODE NAME...")
def read(stage: Stage, words: list[str]) -> None:
    """A client wants a linearizable read of this node. The name is to know it again."""
    name, *reads = words
    known = stage.cluster.read_names
    for read_name in reads:
        known[len(known) + 1] = read_name
        stage.core(name).read_index(len(known))


def _with_options(config: RaftConfig, options: list[str]) -> RaftConfig:
    for option in options:
        name, _, value = option.partition("=")
        if name not in _OPTIONS:
            raise ScenarioError(f"no option {name}; there are {', '.join(sorted(_OPTIONS))}")
        config = replace(config, **{name: int(value)})
    return config


def _split(words: list[str], separator: str) -> tuple[list[str], list[str]]:
    """What is before the separator, and what after; nothing after if it is not there."""
    if separator not in words:
        return words, []
    position = words.index(separator)
    return words[:position], words[position + 1 :]
