"""What befalls the nodes and the network, and when: troubles begin at random and end after a while.

Knows the swarm, which says what kinds of trouble a run has, and the cluster, to which it does them. Each
trouble counts for coverage under its own name.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, pairwise
from random import Random

from raft.actor_messages import ChangeConfiguration, TransferLeadership
from raft.changes import Verb
from tests.raft.disk import PowerLoss
from tests.simulator.cluster import Cluster, SimulatedNode, names_of
from tests.simulator.disk import LANDMARKS, disk_error
from tests.simulator.old_copies import OldCopies

Link = tuple[str, str]
LARGEST_CLUSTER = 7
MOST_NODES = 10  # with those that wait, and those that left


class Nemesis:
    """Owned by one simulation. All times are drawn in election timeouts, the measure that matters."""

    def __init__(self, cluster: Cluster, rng: Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._trace = cluster.trace
        self._timeout = cluster.swarm.election_seconds
        self._is_over = False
        self._is_bent = False
        self._copies = OldCopies(cluster, rng)
        self._tickets = count(1 << 40)  # beyond those of any gateway
        swarm = cluster.swarm
        kinds: list[tuple[bool, float, Callable[[], None]]] = [
            (swarm.partitions and swarm.size > 1, 1.0, self._partition),
            (swarm.clogs and swarm.size > 1, 1.0, self._clog),
            (swarm.pauses, 1.5, self._pause),
            (swarm.kills, 1.5, self._kill),
            (swarm.power, 1.5, self._power),
            (swarm.blackouts, 4.0, self._blackout),
            (swarm.crash_points, 1.0, self._lay_ambush),
            (swarm.disk_errors, 2.0, self._break_disk),
            (swarm.jumps, 2.0, self._jump),
            (swarm.transfers and swarm.size > 1, 1.0, self._transfer),
            (swarm.changes, 1.0, self._change),
            (swarm.bends, 0.5, self._bend),
            (swarm.old_copies, 0.5, self._old_copy),
        ]
        self._kinds = [(mean, begin) for is_on, mean, begin in kinds if is_on]

    def start(self) -> None:
        for mean, begin in self._kinds:
            self._arrange(mean, begin)

    def _arrange(self, mean: float, begin: Callable[[], None]) -> None:
        def happen() -> None:
            if not self._is_over:
                begin()
                self._arrange(mean, begin)

        seconds = self._rng.expovariate(1.0 / (mean * self._cluster.swarm.calm * self._timeout))
        self._cluster.schedule.after(seconds, happen)

    def end(self, spared: list[SimulatedNode]) -> None:
        """Heal everything that concerns these nodes; the others stay dead or unreachable."""
        self._is_over = True
        cluster = self._cluster
        cluster.network.heal()
        cluster.slow_sync = 0.0
        for node in cluster.nodes.values():
            node.sends_left = -1
            node.disk.clear_ambush()
            if node not in spared:
                if node.alive:
                    cluster.kill(node)
                continue
            if not node.alive:
                cluster.start(node)
            node.busy_until = cluster.schedule.now  # a sync that would have taken seconds is done
            cluster.resume(node)
        self._trace.say("*", "healed", names_of(spared))

    # -- the network -----------------------------------------------------------------------------------

    def _life_seconds(self, shortest: float = 0.1) -> float:
        """How long a trouble lasts: mostly about as long as an election, now and then much longer."""
        return float(self._timeout * shortest * (10.0 / shortest) ** self._rng.random())

    def _victim(self) -> SimulatedNode:
        """Half of the time the leader."""
        leader = self._cluster.leader()
        if leader is not None and self._rng.random() < 0.5:
            self._trace.counts["trouble for the leader"] += 1
            return leader
        return self._rng.choice(list(self._cluster.nodes.values()))

    def _partition(self) -> None:
        names = list(self._cluster.nodes)
        self._rng.shuffle(names)
        victim = self._victim().name
        kind = self._rng.choice(["isolate", "halves", "bridge", "ring", "mute", "deaf", "one way"])
        links = self._links(kind, names, victim)
        fresh = links - self._cluster.network.cut
        self._trace.say("*", f"partition {kind}", f"{victim} {' '.join(names)}")
        self._cluster.network.cut |= fresh

        def mend() -> None:
            self._cluster.network.cut -= fresh
            self._trace.say("*", "partition over")

        self._cluster.schedule.after(self._life_seconds(0.5), mend)

    def _links(self, kind: str, names: list[str], victim: str) -> set[Link]:
        every = {(one, other) for one in names for other in names if one != other}
        half = set(names[: len(names) // 2])
        middle = names[-1]
        if kind == "isolate":
            return {link for link in every if victim in link}
        if kind == "mute":
            return {link for link in every if link[0] == victim}
        if kind == "deaf":
            return {link for link in every if link[1] == victim}
        if kind == "one way":
            return {link for link in every if link[0] in half and link[1] not in half}
        apart = {link for link in every if (link[0] in half) != (link[1] in half)}
        if kind == "bridge":  # one node reaches both halves
            return {link for link in apart if middle not in link}
        if kind == "ring":  # each reaches its two neighbours only
            neighbours = {frozenset(pair) for pair in pairwise([*names, names[0]])}
            return {link for link in every if frozenset(link) not in neighbours}
        return apart

    def _clog(self) -> None:
        one, other = self._rng.sample(list(self._cluster.nodes), 2)
        self._trace.say(one, "clog", f"to {other}")
        self._cluster.network.clog((one, other))
        self._cluster.schedule.after(self._life_seconds(), lambda: self._cluster.network.unclog((one, other)))

    # -- processes -------------------------------------------------------------------------------------

    def _pause(self) -> None:
        node = self._victim()
        if node.runs:
            self._cluster.pause(node)
            life = node.life
            self._cluster.schedule.after(
                self._life_seconds(), lambda: self._cluster.resume(node) if node.life == life else None
            )

    def _kill(self) -> None:
        self._crash(self._victim(), power=False)

    def _power(self) -> None:
        self._crash(self._victim(), power=True)

    def _blackout(self) -> None:
        self._trace.say("*", "blackout")
        for node in self._cluster.nodes.values():
            self._crash(node, power=True)

    def _crash(self, node: SimulatedNode, *, power: bool) -> None:
        if node.alive:
            self._cluster.kill(node, power=power)
        self.see_to_restart(node)

    def see_to_restart(self, node: SimulatedNode) -> None:
        """A supervisor starts it again, after a while; and again, should it die of that."""

        def restart() -> None:
            if self._is_over or node.alive:
                return
            if self._cluster.swarm.crash_points and self._rng.random() < 0.2:
                node.disk.lay_ambush(self._rng.randint(0, 15), PowerLoss())  # in the midst of its recovery
            self._cluster.start(node)
            if not node.alive:
                self.see_to_restart(node)

        self._cluster.schedule.after(self._life_seconds(), restart)

    def _lay_ambush(self) -> None:
        """A crash in the middle of a turn: power is lost at a call of the disk, or a frame is the last."""
        node = self._victim()
        if not node.alive:
            return
        if self._rng.random() < 0.6:
            only = self._rng.choice(LANDMARKS)
            calls = self._rng.randint(0, 12 if only in ("", "pwrite") else 2)
            self._trace.say(node.name, "ambush disk", f"at {only or 'any call'}, {calls} further")
            node.disk.lay_ambush(calls, PowerLoss(), only)
        else:
            self._trace.say(node.name, "ambush send")
            node.sends_left = self._rng.randint(0, 6)

    def _break_disk(self) -> None:
        node = self._victim()
        if node.alive:
            self._trace.say(node.name, "ambush error")
            node.disk.lay_ambush(self._rng.randint(0, 8), disk_error(self._rng))

    def _jump(self) -> None:
        node = self._victim()
        if node.runs:
            self._cluster.jump_clock(node, self._life_seconds())

    def _bend(self) -> None:
        """One node, once: with two of them there might be no majority that is right. When it is found out,
        it loses power: it must not forget its fence."""
        victim = self._victim()
        fenced = [node for node in self._cluster.nodes.values() if node.is_fenced]
        if not self._is_bent and victim.runs:
            self._is_bent = self._cluster.bend(victim)
        elif fenced:
            self._crash(fenced[0], power=True)

    def _old_copy(self) -> None:
        self._copies.trouble()

    # -- administration --------------------------------------------------------------------------------

    def _transfer(self) -> None:
        node = self._cluster.leader() or self._victim()
        if node.runs:
            target = self._rng.choice([None, *self._cluster.nodes])
            self._trace.say(node.name, "transfer", f"to {target or 'anybody'}")
            self._cluster.post(node, "replication", TransferLeadership(next(self._tickets), target))

    def _change(self) -> None:
        """Ask the leader, or whoever takes itself for it, for another membership."""
        node = self._cluster.leader() or self._victim()
        if not node.runs:
            return
        voters, learners = (
            sorted(names) for names in (node.core.configuration.voters, node.core.configuration.learners)
        )
        verb, nodes = self._propose(voters, learners) if voters else (Verb.SET, [])
        if nodes:
            self._trace.say(node.name, f"change {verb}", " ".join(nodes))
            force = self._rng.random() < 0.3
            told = nodes[1:] if verb is Verb.REPLACE else nodes
            addresses = self._cluster.addresses_of(told) if verb in _WITH_ADDRESSES else {}
            self._cluster.post(
                node, "replication", ChangeConfiguration(next(self._tickets), verb, nodes, addresses, force)
            )

    def _propose(self, voters: list[str], learners: list[str]) -> tuple[Verb, list[str]]:
        rng = self._rng
        verb = rng.choice(list(Verb))
        if verb in (Verb.ADD_LEARNER, Verb.ADD_VOTER):
            return verb, self._recruits({*voters, *learners})
        if verb is Verb.REPLACE:
            recruits = self._recruits({*voters, *learners})
            return verb, [rng.choice(voters), *recruits] if recruits else []
        if verb is Verb.PROMOTE:
            return verb, learners[:1]
        if verb is Verb.SET:  # all learners become voters, and some voters may leave: a joint configuration
            nodes = [*learners, *rng.sample(voters, max(1, len(voters) - rng.randint(0, 1)))]
            return verb, nodes + (self._recruits({*voters, *learners}) if rng.random() < 0.3 else [])
        if verb is Verb.REMOVE and len(voters) + len(learners) <= 2:
            return verb, []
        return verb, rng.sample([*voters, *learners] if verb is Verb.REMOVE else voters, 1)

    def _recruits(self, members: set[str]) -> list[str]:
        """One that waits to be added, unless the cluster is large enough."""
        nodes = self._cluster.nodes
        waiting = [name for name, node in nodes.items() if not node.is_founder and name not in members]
        # Who left must not come back; to ask for it now and then is part of the trouble.
        if waiting and self._rng.random() < 0.7:
            return [self._rng.choice(waiting)]
        if len(members) >= LARGEST_CLUSTER or len(nodes) >= MOST_NODES:
            return []
        return [self._cluster.recruit().name]


# Their addresses are told along; of who is a member already, it is the same.
_WITH_ADDRESSES = frozenset({Verb.ADD_LEARNER, Verb.ADD_VOTER, Verb.REPLACE, Verb.SET, Verb.MOVE})
