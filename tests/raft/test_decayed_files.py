"""Every small file of a data directory, with each of its bits flipped, and cut off at each of its bytes.

What comes of it is a refusal that says which file and what to do, or no harm at all; never something else
that is believed, and never an error that nobody thought of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from raft.directory import DataDirectory, Founding, read_founding, read_identity
from raft.fence import UNREADABLE, FenceMark
from raft.files import OsFiles
from raft.storage import REPLACE_THE_MEMBER, DamagedIdentity, DirectoryInUse, WrongDirectory

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CLUSTER, NODE = "golden", "n1"
STORAGE = "00112233445566778899aabbccddeeff"
MEMBERS = {f"n{number}": f"tcp://127.0.0.1:{7100 + number}" for number in (1, 2, 3)}


class Unsynced(OsFiles):
    """Thousands of starts on one directory need not wait for a disk."""

    __slots__ = ()

    def fsync_directory(self, path: Path) -> None:
        pass

    def fdatasync(self, descriptor: int) -> None:
        pass


def decayed(data: bytes) -> Iterator[bytes]:
    """Every flipped bit, every cut, and something behind the end."""
    for place in range(len(data)):
        for bit in range(8):
            yield data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    for length in range(len(data)):
        yield data[:length]
    yield from (data + more for more in (b"\0", b" ", b"\n", b"{}", data))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_directory(tmp_path / "data").close()
    return tmp_path / "data"


def open_directory(path: Path) -> DataDirectory:
    return DataDirectory(path, CLUSTER, NODE, Unsynced(), storage_id=STORAGE, members=MEMBERS)


def test_no_bit_of_an_identity_flips_unnoticed(home: Path) -> None:
    """Whoever looks at it refuses, and nothing in the directory changes."""
    path = home / "identity"
    whole = path.read_bytes()
    assert whole == (GOLDEN / "identity-2").read_bytes()
    for data in decayed(whole):
        path.write_bytes(data)
        for look in (open_directory, read_founding, lambda home: read_identity(home, OsFiles())):
            with pytest.raises(DamagedIdentity) as caught:
                look(home)
            said = str(caught.value)
            assert said.startswith(f"{path} is damaged: ") and REPLACE_THE_MEMBER in said, data
        assert path.read_bytes() == data
    assert sorted(file.name for file in home.iterdir()) == ["identity", "lock", "wal"]


def test_an_identity_without_a_checksum_decays_into_a_refusal_or_another_letter(home: Path) -> None:
    """What has the right form and stands where nothing can be compared is believed: that is why there is a
    checksum now. What is believed is usable, and neither cluster nor node are another one."""
    path = home / "identity"
    whole = (GOLDEN / "identity-1").read_bytes()
    believed = 0
    for data in decayed(whole):
        path.write_bytes(data)
        try:
            with closing(open_directory(home)) as directory:
                founding = directory.founding
        except WrongDirectory as error:
            assert str(home) in str(error) and error.remedy, data
            continue
        believed += 1
        assert len(data) == len(whole) and founding == read_founding(home)
        assert founding.cluster_id == CLUSTER and int(founding.storage_id, 16) < 1 << 128
        assert founding.members is not None and len(founding.members) in (2, 3)
        assert founding != Founding(CLUSTER, STORAGE, MEMBERS), data
    assert 0 < believed < 8 * len(whole)


@pytest.mark.parametrize("other", [b"true", b"1.0"])
def test_what_is_only_equal_to_a_format_is_none(home: Path, other: bytes) -> None:
    """Python holds `true` for 1, and a node has never written it."""
    (home / "identity").write_bytes(
        (GOLDEN / "identity-1").read_bytes().replace(b'"format": 1', b'"format": ' + other)
    )
    with pytest.raises(DamagedIdentity):
        open_directory(home)
    (home / "identity").write_bytes((GOLDEN / "identity-1").read_bytes())
    fenced = (GOLDEN / "fenced-1").read_bytes()
    for data in (
        fenced.replace(b'"format": 1', b'"format": ' + other),
        fenced.replace(b'"index": ', b'"index": -'),
    ):
        assert data != fenced
        (home / "fenced").write_bytes(data)
        with closing(open_directory(home)) as directory:
            assert directory.fence().mark == FenceMark(0, 0, 0, UNREADABLE, True)


@pytest.mark.parametrize("version", [1, 2])
def test_a_fence_stands_whatever_becomes_of_its_bits(home: Path, version: int) -> None:
    """With a checksum, why it stands is said as it was written, or not at all."""
    unreadable = FenceMark(0, 0, 0, UNREADABLE, True)
    for data in decayed((GOLDEN / f"fenced-{version}").read_bytes()):
        (home / "fenced").write_bytes(data)
        with closing(open_directory(home)) as directory:
            mark = directory.fence().mark
        assert mark is not None, data
        assert mark == unreadable or version == 1, data
        assert 0 <= mark.index < 1 << 63 and min(mark.own, mark.theirs) >= 0, data
        assert max(mark.own, mark.theirs) < 1 << 64 and mark.fields()["reason"] == mark.reason


def test_whatever_is_in_the_lock_it_is_held_or_not(home: Path) -> None:
    path = home / "lock"
    for data in [*decayed(path.read_bytes()), b"9" * 5000, b"-1", "٣".encode()]:
        path.write_bytes(data)
        with closing(open_directory(home)):
            path.write_bytes(data)
            with pytest.raises(DirectoryInUse, match=r"in use by (another process|process \d+)\. Stop"):
                open_directory(home)


@pytest.mark.parametrize("name", ["identity.tmp", "fenced.tmp", "restoring"])
def test_what_a_step_that_broke_off_left_behind_is_of_no_meaning(home: Path, name: str) -> None:
    for data in decayed((GOLDEN / "identity-2").read_bytes()[:40]):
        (home / name).write_bytes(data)
        with closing(open_directory(home)) as directory:
            assert directory.founding == Founding(CLUSTER, STORAGE, MEMBERS)
            assert directory.fence().mark is None


def test_a_directory_in_the_making_is_one_whatever_is_in_the_file_that_says_so(home: Path) -> None:
    (home / "identity").unlink()
    for data in (b"", b"\0", b"{}\n", b"\xff" * 600):
        (home / "restoring").write_bytes(data)
        with pytest.raises(WrongDirectory, match="restoring"):
            open_directory(home)
