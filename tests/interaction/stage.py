"""What commands have in common: the stage that they act on, how they are found, and how they go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raft.core import Core
from tests.interaction.cluster import Cluster


class ScenarioError(Exception):
    """The scenario itself is wrong: no such command, node or option."""


class Stage:
    """Owned by one run of one scenario."""

    def __init__(self) -> None:
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            raise ScenarioError("there is no cluster yet")
        return self._cluster

    def set_cluster(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def core(self, name: str) -> Core:
        core = self.cluster.cores.get(name)
        if core is None:
            raise ScenarioError(f"no node {name} is running")
        return core

    def names(self, words: list[str]) -> list[str]:
        """These nodes; all that run if none is named."""
        for name in words:
            self.core(name)
        return words or sorted(self.cluster.cores)


Action = Callable[[Stage, list[str]], None]


@dataclass(frozen=True, slots=True)
class Command:
    usage: str
    action: Action

    @property
    def explanation(self) -> str:
        return " ".join((self.action.__doc__ or "").split())


COMMANDS: dict[str, Command] = {}


def command(usage: str) -> Callable[[Action], Action]:
    """Make a function the command that its usage begins with."""

    def register(action: Action) -> Action:
        name = usage.split()[0]
        assert name not in COMMANDS, f"two commands are called {name}"
        COMMANDS[name] = Command(usage, action)
        return action

    return register
