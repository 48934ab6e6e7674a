"""The settings of a node: where each value comes from, what it must be, and what is said when it is not.

Flags go before the environment, the environment before the file, the file before the default. All problems
are reported at once, each with the value, where it came from and what was expected. This file starts nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kvstore import endpoints
from kvstore.compactor import HistoryPolicy
from kvstore.leases import LEAST_TTL_SECONDS
from kvstore.quota import LEAST_MIB
from raft.config import MEBIBYTE, RaftConfig

ENVIRONMENT_PREFIX = "ASSENT_"
MAX_CLUSTER_NODES = 9
MAX_PRIORITY = 1000

_NAME = re.compile(r"[a-z0-9-]{1,63}")
_NAME_EXPECTED = "1 to 63 of a-z, 0-9 and '-'"
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_LOG_LEVELS = ("debug", "info", "warning", "error")


class Problem(NamedTuple):
    """One thing that is wrong: the setting, what is wrong with it, what was expected, where it came from."""

    setting: str
    wrong: str
    expected: str
    source: str

    def __str__(self) -> str:
        source = f" (from {self.source})" if self.source else ""
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{self.setting}: {self.wrong}{source}{expected}"


class SettingsError(Exception):
    """The settings cannot be used; `problems` has every reason."""

    __slots__ = ("problems",)

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(slots=True, frozen=True)
class NodeSettings:
    """What a node is told at its start; owned by the process, changed by nobody."""

    name: str
    data_dir: Path
    peer: str  # == cluster[name], if there is a cluster
    client: str
    watch: str
    # Node name -> peer endpoint, this node among them: the members of a cluster that begins. Empty for a node
    # that waits to be added to one. Of no meaning once the data directory is made.
    cluster: dict[str, str]
    cluster_id: int  # 63 bits; the same for every node that was given the same cluster and token, 0 if none
    join: tuple[str, ...] = ()  # client endpoints of the cluster that this node waits to be added to
    heartbeat_interval_ms: int = 50
    election_timeout_ms: int = 200  # at least three heartbeats
    priority: int = 1  # in elections; 0: it never leads
    snapshot_interval_entries: int = 100_000
    trailing_entries: int = 10_000
    max_log_mib: int = 256
    disk_reserve_mib: int = 64  # to be free beside one more snapshot and segment, or nothing may grow
    history_revisions: int = 100_000  # of the past, kept at least; 0: as many as there are
    history_mib: int = 64
    history_seconds: int = 0
    quota_mib: int = 0  # of the store, its past included; 0: none
    log_format: str = "text"
    log_level: str = "info"
    insecure: bool = False

    @property
    def raft_config(self) -> RaftConfig:
        return RaftConfig(
            snapshot_interval_entries=self.snapshot_interval_entries,
            trailing_entries=self.trailing_entries,
            max_log_bytes=self.max_log_mib * MEBIBYTE,
            priority=self.priority,
        )

    @property
    def history_policy(self) -> HistoryPolicy:
        kept = self.history_revisions, self.history_mib * MEBIBYTE, self.history_seconds
        return HistoryPolicy(*kept, self.quota_mib * MEBIBYTE)

    @property
    def advertised_client(self) -> str:
        """The client endpoint as others are told of it: a wildcard gives way to the peer endpoint's host."""
        return _advertised(self.client, self.peer)

    @property
    def advertised_watch(self) -> str:
        """The watch endpoint as others are told of it."""
        return _advertised(self.watch, self.peer)


def derive_cluster_id(cluster: Mapping[str, str], token: str = "") -> int:
    """The first 63 bits of SHA-256 over "name=endpoint", sorted, each ended by a zero byte, and the token."""
    description = "".join(f"{name}={cluster[name]}\0" for name in sorted(cluster))
    digest = hashlib.sha256(f"{description}\0{token}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# ---- one value each: from what was written to what is meant; ValueError says what is wrong ----


def _name(value: object) -> str:
    text = _text(value)
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a name")
    return text


def _path(value: object) -> Path:
    text = _text(value)
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    path = Path(text).expanduser()
    if path.exists() and not path.is_dir():
        raise ValueError(f"{text!r} exists and is not a directory")
    return path


def _endpoint(value: object) -> str:
    text = _text(value)
    try:
        endpoints.parse_endpoint(text)
    except ValueError as error:
        raise ValueError(f"{text!r} {error}") from None
    return text


def _whole_number(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{value!r} is not a whole number")
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"{value!r} is not a whole number") from None
        if not least <= number <= most:
            raise ValueError(f"{number} is out of range")
        return number

    return parse


def _quota(value: object) -> int:
    number = _whole_number(0, 1 << 24)(value)
    if 0 < number < LEAST_MIB:
        raise ValueError(f"{number} is out of range")
    return number


_milliseconds = _whole_number(5, 60_000)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = _text(value).lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither true nor false")
    return text in _TRUE


def _one_of(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = _text(value)
        if text not in choices:
            raise ValueError(f"{text!r} is not known")
        return text

    return parse


def _endpoints(value: object) -> tuple[str, ...]:
    words = value if isinstance(value, list) else [part.strip() for part in _text(value).split(",")]
    if not words:
        raise ValueError("names no endpoint")
    return tuple(_endpoint(word) for word in words)


def _cluster(value: object) -> dict[str, str]:
    pairs = list(_cluster_pairs(value))
    if not 1 <= len(pairs) <= MAX_CLUSTER_NODES:
        raise ValueError(f"{len(pairs)} nodes")
    cluster: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name, endpoint in pairs:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name")
        if name in cluster:
            raise ValueError(f"the name {name!r} is there twice")
        _endpoint(endpoint)
        if endpoints.parse_endpoint(endpoint).is_wildcard:
            raise ValueError(f"{name} has {endpoint!r}, to which no other node can connect")
        if endpoint in owners:
            raise ValueError(f"{owners[endpoint]} and {name} have the same endpoint {endpoint!r}")
        cluster[name] = endpoint
        owners[endpoint] = name
    return cluster


def parse_cluster(text: str) -> dict[str, str]:
    """Members and their peer endpoints, from n1=ENDPOINT,n2=…; ValueError says what is wrong."""
    return _cluster(text)


def _cluster_pairs(value: object) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, endpoint in value.items():
            yield name, _text(endpoint)
        return
    text = _text(value)
    for part in text.split(",") if text else ():
        name, equals, endpoint = part.strip().partition("=")
        if not equals:
            raise ValueError(f"{part.strip()!r} has no '='")
        yield name, endpoint


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


class _Setting(NamedTuple):
    """One line of the table below; `default` None means that there is none."""

    name: str
    parse: Callable[[object], object]
    expected: str
    default: object | None
    required: bool

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


# Leases are renewed each third of their TTL: so much of the shortest is left when a leader falls, at least.
MOST_ELECTION_MS = LEAST_TTL_SECONDS * 2000 // 3
_MILLISECONDS_EXPECTED = "a whole number of milliseconds, 5 to 60000"
_ELECTION_EXPECTED = f"a whole number of milliseconds, at most {MOST_ELECTION_MS}"
_SETTINGS = (
    _Setting("name", _name, _NAME_EXPECTED, None, True),
    _Setting("data_dir", _path, "the path of a directory of this node's own", None, True),
    _Setting("cluster", _cluster, f"1 to {MAX_CLUSTER_NODES} nodes as n1=tcp://host:port,n2=…", None, False),
    _Setting("join", _endpoints, f"client endpoints, separated by commas: {endpoints.EXPECTED}", (), False),
    _Setting("peer", _endpoint, endpoints.EXPECTED, None, False),
    _Setting("client", _endpoint, endpoints.EXPECTED, "tcp://127.0.0.1:7001", False),
    _Setting("watch", _endpoint, endpoints.EXPECTED, "tcp://127.0.0.1:7201", False),
    _Setting("cluster_token", _text, "any text, the same on every node", "", False),
    _Setting("heartbeat_interval_ms", _milliseconds, _MILLISECONDS_EXPECTED, 50, False),
    _Setting("election_timeout_ms", _milliseconds, _ELECTION_EXPECTED, 200, False),
    _Setting(
        "priority",
        _whole_number(0, MAX_PRIORITY),
        f"a whole number, 0 (never leads) to {MAX_PRIORITY}",
        1,
        False,
    ),
    _Setting(
        "snapshot_interval_entries", _whole_number(1, 10**9), "a whole number, at least 1", 100_000, False
    ),
    _Setting("trailing_entries", _whole_number(0, 10**9), "a whole number, at least 0", 10_000, False),
    _Setting("disk_reserve_mib", _whole_number(0, 1 << 20), "a whole number of MiB", 64, False),
    _Setting("max_log_mib", _whole_number(1, 1 << 20), "a whole number of MiB, at least 1", 256, False),
    _Setting("history_revisions", _whole_number(0, 10**9), "a whole number; 0: no bound", 100_000, False),
    _Setting("history_mib", _whole_number(0, 1 << 20), "a whole number of MiB; 0: no bound", 64, False),
    _Setting("history_seconds", _whole_number(0, 10**9), "a whole number of seconds; 0: no bound", 0, False),
    _Setting("quota_mib", _quota, f"a whole number of MiB, at least {LEAST_MIB}; 0: none", 0, False),
    _Setting("log_format", _one_of("text", "json"), "text or json", "text", False),
    _Setting("log_level", _one_of(*_LOG_LEVELS), ", ".join(_LOG_LEVELS), "info", False),
    _Setting("insecure", _flag, "true or false", False, False),
)
SETTING_NAMES = tuple(setting.name for setting in _SETTINGS)


# ---- all of them together ----


def load_settings(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    config: Path | None = None,
) -> NodeSettings:
    """Read the settings of a node; raises SettingsError with every problem.

    `flags` maps setting names to what the command line gave, None or absent where it gave nothing.
    """
    unknown = [name for name in flags if name not in SETTING_NAMES]
    assert not unknown, f"flags that no setting has: {unknown}"
    problems: list[Problem] = []
    written = _read_file(config, problems) if config is not None else {}
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for setting in _SETTINGS:
        raw, source = _find(setting, flags, environment, written, config)
        if raw is None:
            if setting.required:
                ways = f"{setting.flag}, {setting.variable} or {setting.name!r} in the file"
                problems.append(Problem(setting.name, f"missing (give {ways})", setting.expected, ""))
            else:
                values[setting.name], sources[setting.name] = setting.default, "the default"
            continue
        try:
            values[setting.name], sources[setting.name] = setting.parse(raw), source
        except ValueError as error:
            problems.append(Problem(setting.name, str(error), setting.expected, source))
    _check_together(values, sources, problems)
    if problems:
        raise SettingsError(problems)
    return _settings(values)


def _find(
    setting: _Setting,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    written: Mapping[str, object],
    config: Path | None,
) -> tuple[object | None, str]:
    given = flags.get(setting.name)
    if given is not None:
        return given, setting.flag
    if setting.variable in environment:
        return environment[setting.variable], setting.variable
    if setting.name in written:
        return written[setting.name], str(config)
    return None, ""


def _read_file(config: Path, problems: list[Problem]) -> dict[str, object]:
    source = f"{config}"
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(Problem("config", error.strerror or str(error), "a file that can be read", source))
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(Problem("config", f"not TOML: {error}", "", source))
        return {}
    written: dict[str, object] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name in SETTING_NAMES:
            written[name] = value
            continue
        near = difflib.get_close_matches(name, SETTING_NAMES, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(SETTING_NAMES)}"
        problems.append(Problem(key, f"no such setting{meant}", "", source))
    return written


def _check_together(values: dict[str, object], sources: dict[str, str], problems: list[Problem]) -> None:
    _check_membership(values, sources, problems)
    _check_planes(values, sources, problems)
    _check_times(values, sources, problems)
    if values.get("insecure") is False:
        _check_reach(values, sources, problems)


def _check_membership(values: dict[str, object], sources: dict[str, str], problems: list[Problem]) -> None:
    name, cluster = values.get("name"), values.get("cluster")
    if not isinstance(name, str):
        return
    if not isinstance(cluster, dict):
        if cluster is None and "cluster" in values:
            _check_waiting(values, sources, problems)
        return
    if values.get("join"):
        wrong = "a node either begins with the members of --cluster or waits to be added, as --join has it"
        problems.append(Problem("join", wrong, "one of the two", sources["join"]))
    if name not in cluster:
        among = ", ".join(sorted(cluster))
        problems.append(Problem("cluster", f"has no node {name!r}, only {among}", "", sources["cluster"]))
        return
    if values.get("peer", "") is None:
        values["peer"], sources["peer"] = cluster[name], f"{name} in {sources['cluster']}"
    elif "peer" in values and values["peer"] != cluster[name]:
        wrong = f"{values['peer']!r} is not what the cluster has for {name}"
        problems.append(Problem("peer", wrong, f"{cluster[name]!r}, or none at all", sources["peer"]))


def _check_waiting(values: dict[str, object], sources: dict[str, str], problems: list[Problem]) -> None:
    """A node without a cluster must say where it will be found by the one that adds it."""
    peer = values.get("peer", "")
    if peer is None:
        ways = "give --peer, ASSENT_PEER or 'peer' in the file; or the cluster with --cluster"
        problems.append(Problem("peer", f"missing ({ways})", endpoints.EXPECTED, ""))
    elif isinstance(peer, str) and peer and endpoints.parse_endpoint(peer).is_wildcard:
        wrong = f"{peer!r} is an endpoint to which no other node can connect"
        problems.append(Problem("peer", wrong, "the address by which others reach it", sources["peer"]))


def _check_planes(values: dict[str, object], sources: dict[str, str], problems: list[Problem]) -> None:
    owners: dict[str, str] = {}
    name, cluster = values.get("name"), values.get("cluster")
    if isinstance(cluster, dict):
        owners = {endpoint: f"{node} in cluster" for node, endpoint in cluster.items() if node != name}
    for plane in ("peer", "client", "watch"):
        endpoint = values.get(plane)
        if not isinstance(endpoint, str):
            continue
        if endpoint in owners:
            wrong = f"{endpoint!r} is also the endpoint of {owners[endpoint]}"
            problems.append(Problem(plane, wrong, "an endpoint of its own", sources[plane]))
        owners.setdefault(endpoint, plane)


def _check_times(values: dict[str, object], sources: dict[str, str], problems: list[Problem]) -> None:
    heartbeat, election = values.get("heartbeat_interval_ms"), values.get("election_timeout_ms")
    if isinstance(heartbeat, int) and isinstance(election, int) and election < 3 * heartbeat:
        # With fewer than three heartbeats in a timeout, one late packet costs the leader its office.
        wrong = f"{election} is less than three heartbeats of {heartbeat} ms"
        expected = f"at least {3 * heartbeat}"
        problems.append(Problem("election_timeout_ms", wrong, expected, sources["election_timeout_ms"]))
    if isinstance(election, int) and election > MOST_ELECTION_MS:
        wrong = (
            f"{election} is so long that a lease of {LEAST_TTL_SECONDS} s, the least there is, would be lost "
            "with its leader, though it is renewed in time"
        )
        expected = f"at most {MOST_ELECTION_MS}, and heartbeats of a third of that at most"
        problems.append(Problem("election_timeout_ms", wrong, expected, sources["election_timeout_ms"]))


def _check_reach(values: dict[str, object], sources: dict[str, str], problems: list[Problem]) -> None:
    open_planes: dict[str, str] = {}
    for plane in ("peer", "client", "watch"):
        endpoint = values.get(plane)
        if isinstance(endpoint, str):
            why = endpoints.reach(endpoints.parse_endpoint(endpoint))
            if why is not None:
                open_planes[plane] = f"{endpoint!r} can be reached from other machines ({why})"
    if not open_planes:
        return
    wrong = " and ".join(open_planes.values())
    wrong += ". This is refused, since nothing is encrypted and nobody is asked who they are"
    expected = (
        "a loopback address (tcp://127.0.0.1:port), a socket file (ipc://path), or --insecure where the "
        "network itself keeps everyone else out"
    )
    came_from = ", ".join(dict.fromkeys(sources[plane] for plane in open_planes))
    problems.append(Problem(", ".join(open_planes), wrong, expected, came_from))


def _settings(values: dict[str, object]) -> NodeSettings:
    cluster, token = values["cluster"] or {}, values.pop("cluster_token")
    assert isinstance(cluster, dict) and isinstance(token, str)
    values["cluster"] = cluster
    cluster_id = derive_cluster_id(cluster, token) if cluster else 0
    return NodeSettings(cluster_id=cluster_id, **values)  # type: ignore[arg-type]


def _advertised(endpoint: str, peer: str) -> str:
    own, other = endpoints.parse_endpoint(endpoint), endpoints.parse_endpoint(peer)
    if not own.is_wildcard or not other.host:
        return endpoint
    return f"tcp://{other.host}:{own.port}"
