"""What a failure means to the shell: one number and one sentence for each, the table of docs/cli.md.

Errors are known here by their names, so that deciding about one imports nothing that did not raise it.
"""

from __future__ import annotations

from kvstore.errors import AssentError

OK = 0
GENERAL = 1
USAGE = 2
UNREACHABLE = 3
KEY_NOT_FOUND = 4
BAD_KEY = 5
NO_LEADER = 6
OUTCOME_UNKNOWN = 7
COMPACTED = 8
BAD_TREE = 9
REFUSED = 10
DATA_DIRECTORY = 11
CORRUPT = 12
DISK_FAILED = 13
ADDRESS_UNUSABLE = 14
INTERRUPTED = 130
BROKEN_PIPE = 141

# The most special class of an error that is in the table decides.
_CODES = {
    "kvstore.cli.exits.KeyNotFound": KEY_NOT_FOUND,
    "kvstore.cli.exits.BadKey": BAD_KEY,
    "kvstore.cli.exits.AnswerCut": REFUSED,
    "kvstore.cli.members.InitRefused": REFUSED,
    "kvstore.errors.Unreachable": UNREACHABLE,
    "kvstore.errors.KeyNotFound": KEY_NOT_FOUND,
    "kvstore.errors.EmptyKey": BAD_KEY,
    "kvstore.errors.WatchRangeEmpty": BAD_KEY,
    "kvstore.errors.NoLeader": NO_LEADER,
    "kvstore.errors.NotLeader": NO_LEADER,
    "kvstore.errors.Transferring": NO_LEADER,
    "kvstore.errors.NotMember": NO_LEADER,
    "kvstore.errors.Fenced": NO_LEADER,
    "kvstore.errors.DeadlineExceeded": NO_LEADER,
    "kvstore.errors.Expired": NO_LEADER,
    "kvstore.errors.MaybeApplied": OUTCOME_UNKNOWN,
    "kvstore.errors.Compacted": COMPACTED,
    "kvstore.errors.TreeError": BAD_TREE,
    "kvstore.errors.RequestFailed": REFUSED,
    "kvstore.errors.RequestRefused": REFUSED,
    "kvstore.errors.AssentError": GENERAL,
    "kvstore.backup_file.BackupRefused": REFUSED,
    "kvstore.client.errors.RevisionWentBack": GENERAL,
    "kvstore.client.errors.SnapshotBroken": UNREACHABLE,
    "kvstore.client.errors.SnapshotDamaged": CORRUPT,
    "kvstore.client.errors.SnapshotOfLaterVersion": DATA_DIRECTORY,
    "kvstore.client.load.LoadRefused": USAGE,
    "kvstore.client.load.LoadFailed": UNREACHABLE,
    "kvstore.settings.SettingsError": USAGE,
    "raft.storage.DirectoryInUse": DATA_DIRECTORY,
    "raft.storage.WrongDirectory": DATA_DIRECTORY,
    "raft.storage.CorruptLog": CORRUPT,
    "raft.storage.CorruptSnapshot": CORRUPT,
    "kvstore.snapshots.CorruptState": CORRUPT,
    "raft.storage.StorageFailed": DISK_FAILED,
    "raft.storage.StorageError": DISK_FAILED,
    "actors.errors.EndpointUnusable": ADDRESS_UNUSABLE,
}


class KeyNotFound(AssentError):
    """The key that was asked for is not there."""

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        super().__init__(f"key not found: {key}")
        self.key = key


class AnswerCut(AssentError):
    """A sorted answer was too large for one, and what comes after it cannot be asked for."""

    __slots__ = ()

    def __init__(self, count: int) -> None:
        super().__init__(
            f"only the first {count} in this order fit into one answer: set a --limit, or choose fewer"
        )


class BadKey(AssentError):
    """The key cannot be one."""

    __slots__ = ()


def code_of(error: Exception) -> int | None:
    """The exit code for an error, None if it is no failure that was thought of."""
    for kind in type(error).__mro__:
        code = _CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return None


def message_of(error: Exception) -> str:
    """What is said of it on standard error."""
    text = str(error) or type(error).__name__
    if code_of(error) == OUTCOME_UNKNOWN and type(error).__name__ != "ChangeUnfinished":
        return f"{text} (the write may or may not have been applied)"
    return text
