"""How a node comes to its cluster, before it is part of one: from its directory, its settings, or by waiting.

May know: settings, the data directory, the client library (to ask a cluster who it is) and the waiting room.
What is found here is written into the data directory once, and is what counts at every later start, whatever
the settings say then.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvstore.client import Client
from kvstore.errors import AssentError
from kvstore.protocol_admin import endpoints_of
from kvstore.settings import NodeSettings
from kvstore.waiting_room import wait_to_be_added
from raft.directory import IDENTITY_NAME, DataDirectory, Founding, read_founding
from raft.storage import DamagedIdentity

log = logging.getLogger("assent.founding")

ASK_SECONDS = 1.0  # for one answer
PAUSE_SECONDS = 0.25
_ID = re.compile("[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class Origin:
    """What a node begins with. `members` are those until its log has a configuration; none: it waits."""

    cluster_id: int
    storage_id: int = 0
    members: dict[str, str] | None = None


def open_directory(settings: NodeSettings, is_stopping: Callable[[], bool]) -> DataDirectory | None:
    """The node's data directory, made if it is not there yet: which may take until somebody adds the node to
    a cluster, or until it is told to stop (None)."""
    found = read_founding(settings.data_dir)
    if found is not None:
        _check_ids(settings, found)
        if settings.cluster and found.members in (None, settings.cluster):
            # The same members, so the id must be the same: unless the token is another one.
            return _open(settings, f"{settings.cluster_id:016x}", None)
        if settings.cluster:
            log.info(
                "cluster_setting=ignored reason='the data directory has a cluster' id=%s", found.cluster_id
            )
        return _open(settings, found.cluster_id, None)
    if settings.cluster:
        return _open(settings, f"{settings.cluster_id:016x}", settings.cluster)
    if settings.join:
        cluster_id_found = _ask_cluster(settings.join, is_stopping)
        return None if cluster_id_found is None else _open(settings, cluster_id_found, {})
    return wait_to_be_added(settings, partial(_found, settings), is_stopping)


def origin_of(directory: DataDirectory, settings: NodeSettings) -> Origin:
    founding = directory.founding
    members = settings.cluster if founding.members is None else dict(founding.members)
    storage_id = int(founding.storage_id or "0", 16)
    return Origin(int(founding.cluster_id, 16), storage_id, members)


def _check_ids(settings: NodeSettings, found: Founding) -> None:
    """An identity of before there were checksums may be damaged and look whole."""
    for field, value in (("cluster_id", found.cluster_id), ("storage_id", found.storage_id or "0")):
        if not _ID.fullmatch(value):
            raise DamagedIdentity(settings.data_dir / IDENTITY_NAME, f"{field} is {value!r}")


def _open(settings: NodeSettings, cluster_id: str, members: dict[str, str] | None) -> DataDirectory:
    storage_id = f"{secrets.randbits(63) or 1:016x}"
    return DataDirectory(settings.data_dir, cluster_id, settings.name, storage_id=storage_id, members=members)


def _found(settings: NodeSettings, cluster_id: int, members: dict[str, str]) -> DataDirectory:
    return _open(settings, f"{cluster_id:016x}", endpoints_of(members))


def _ask_cluster(endpoints: tuple[str, ...], is_stopping: Callable[[], bool]) -> str | None:
    """The id of the cluster at these client endpoints, as soon as one of its members answers."""
    log.info("joining=%s", ",".join(endpoints))
    with Client(endpoints, timeout_seconds=ASK_SECONDS) as client:
        while not is_stopping():
            for endpoint in endpoints:
                if is_stopping():
                    return None
                try:
                    status = client.status(endpoint)
                except AssentError:
                    continue
                if status.member not in ("waiting", "removed"):
                    return status.cluster_id
            time.sleep(PAUSE_SECONDS)
    return None
