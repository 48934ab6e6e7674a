"""Damage that is found at the next start, and what is promised of it.

Each kind of damage looks for something to harm in a scene, and says what must come of it. The promises are
derived from docs/disk.md and from what is on the disk; DAMAGES at the end of the file has them all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from raft.storage import CorruptLog, CorruptSnapshot, DamagedIdentity, StorageError, WrongDirectory
from tests.faults.hard_disk import Image
from tests.faults.judge import CUT, REFUSED, WHOLE
from tests.faults.points import ENTRIES, HARD_STATE, MARK, SEAL, SEGMENT_HEAD_BYTES
from tests.faults.scenes import DATA, IDENTITY, WAL, Scene, index_of

SECTOR_BYTES = 512
PAGE_BYTES = 4096


class Hurt(NamedTuple):
    """Files as they are after the damage, and what must come of it."""

    image: Image
    promise: str
    error: type[StorageError] | None = None  # that it is refused with
    floor: int | None = None  # of a cut: the place in the history that must be there all the same
    what: str = ""


Damage = Callable[[Scene, Random], Hurt | None]  # None: there is nothing of the kind to harm
NO_LOG = "n/a: no log yet"


class Column(NamedTuple):
    """One kind of damage: what it is called, what must come of it, and how it is done."""

    name: str
    promise: str  # in words, for the reader
    damage: Damage
    absent: str = "n/a: no such record"


def flip(data: bytes, place: int, rng: Random) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def changed(scene: Scene, path: Path, content: bytes | None) -> Image:
    """The image with another content of one file, or without it."""
    image = dict(scene.image)
    if content is None:
        del image[path]
    else:
        image[path] = content
    return image


# -- a flipped bit ---------------------------------------------------------------------------------------


def flip_record(kind: int) -> Damage:
    """Anywhere in a record of that kind: header, payload or padding."""

    def damage(scene: Scene, rng: Random) -> Hurt | None:
        places = [
            (name, record) for name in scene.segments for record in scene.records(name) if record.kind == kind
        ]
        if not places:
            return None
        name, record = rng.choice(places)
        place = rng.randrange(record.start, record.stop)
        image = changed(scene, WAL / name, flip(scene.content(name), place, rng))
        return Hurt(image, REFUSED, CorruptLog, what=f"{name} byte {place}")

    return damage


def flip_segment_head(scene: Scene, rng: Random) -> Hurt | None:
    if not is_begun(scene):
        return None
    name = rng.choice(scene.segments)
    place = rng.randrange(SEGMENT_HEAD_BYTES)
    image = changed(scene, WAL / name, flip(scene.content(name), place, rng))
    return Hurt(image, REFUSED, CorruptLog, what=f"{name} byte {place}")


def flip_unused_space(scene: Scene, rng: Random) -> Hurt | None:
    """Refused, or of no effect: never is something acknowledged cut off for it."""
    if not is_begun(scene):
        return None
    name = scene.segments[-1]
    content = scene.content(name)
    used = len(content.rstrip(b"\0"))
    if used >= len(content):
        return None
    place = rng.randrange(used, len(content))
    return Hurt(changed(scene, WAL / name, flip(content, place, rng)), f"{WHOLE} or {REFUSED}", CorruptLog)


def flip_identity(scene: Scene, rng: Random) -> Hurt | None:
    content = scene.image.get(IDENTITY)
    if content is None:
        return None
    return Hurt(
        changed(scene, IDENTITY, flip(content, rng.randrange(len(content)), rng)), REFUSED, DamagedIdentity
    )


def hurt_snapshot(hurt: Callable[[bytes, Random], bytes | None]) -> Damage:
    """The newest one. Whole if an older one and the log make up for it."""

    def damage(scene: Scene, rng: Random) -> Hurt | None:
        if not scene.snapshots:
            return None
        name = scene.snapshots[-1]
        content = hurt(scene.content(name), rng)
        image = changed(scene, WAL / name, content)
        if scene.is_made_up_for(name):
            return Hurt(image, WHOLE, what=name)
        return Hurt(image, REFUSED, CorruptLog if content is None else CorruptSnapshot, what=name)

    return damage


def header_bytes(content: bytes) -> int:
    """Of a snapshot: all before its first chunk."""
    cluster_bytes, configuration_bytes = struct.unpack_from("<II", content, 44)
    return 56 + int(cluster_bytes) + int(configuration_bytes)


def flip_snapshot_header(content: bytes, rng: Random) -> bytes:
    return flip(content, rng.randrange(header_bytes(content)), rng)


def flip_snapshot_chunk(content: bytes, rng: Random) -> bytes:
    return flip(content, rng.randrange(header_bytes(content), len(content)), rng)


def zero_snapshot_page(content: bytes, rng: Random) -> bytes:
    start = rng.randrange(0, len(content), PAGE_BYTES)
    return zeroed(content, start, min(len(content), start + PAGE_BYTES))


def cut_snapshot(content: bytes, rng: Random) -> bytes:
    return content[: rng.randrange(len(content))]


# -- a zeroed page ---------------------------------------------------------------------------------------


def zeroed(content: bytes, start: int, stop: int) -> bytes:
    return content[:start] + bytes(stop - start) + content[stop:]


def zero_page(*, is_vouched_for: bool) -> Damage:
    """A sector or a page of the log that is not zero, and of which something else tells, or nothing."""

    def damage(scene: Scene, rng: Random) -> Hurt | None:
        if not is_begun(scene):
            return None
        places = []
        for name in scene.segments if is_vouched_for else scene.segments[-1:]:
            content = scene.content(name)
            for size in (SECTOR_BYTES, PAGE_BYTES):
                for start in range(0, len(content), size):
                    stop = min(start + size, len(content))
                    touched = any(r.start < stop and r.stop > start for r in scene.records(name))
                    if not (touched or start < SEGMENT_HEAD_BYTES) or not any(content[start:stop]):
                        continue
                    if scene.is_vouched_for(name, start, stop) == is_vouched_for:
                        places.append((name, start, stop))
        if not places:
            return None
        name, start, stop = rng.choice(places)
        image = changed(scene, WAL / name, zeroed(scene.content(name), start, stop))
        what = f"{name} bytes {start} to {stop}"
        if is_vouched_for:
            return Hurt(image, REFUSED, CorruptLog, what=what)
        return Hurt(image, CUT, floor=floor_of(scene, name, start, stop), what=what)

    return damage


def floor_of(scene: Scene, name: str, start: int, stop: int) -> int:
    """What was acknowledged before the first record that is hurt."""
    hurt = [r.start for r in scene.records(name) if r.start < stop and r.stop > start]
    return scene.told.acknowledged_before(name, min(hurt, default=start))


# -- a truncated file ------------------------------------------------------------------------------------


def truncate_newest_segment(scene: Scene, rng: Random) -> Hurt | None:
    """Behind its head: it is shorter than its head says. What the disk had no room to fill is another thing:
    what is cut off there is as if it had never been written."""
    if not is_begun(scene):
        return None
    name = scene.segments[-1]
    head, content = scene.records(name)[0], scene.content(name)
    place = rng.randrange(head.stop, len(content))
    image = changed(scene, WAL / name, content[:place])
    if place < scene.filled_bytes(name):
        return Hurt(image, REFUSED, CorruptLog, what=f"{name} at {place}")
    return Hurt(image, CUT, floor=floor_of(scene, name, place, len(content)), what=f"{name} at {place}")


def truncate_in_head(scene: Scene, rng: Random) -> Hurt | None:
    if not is_begun(scene):
        return None
    name = scene.segments[-1]
    place = rng.randrange(scene.records(name)[0].stop)
    return Hurt(changed(scene, WAL / name, scene.content(name)[:place]), REFUSED, CorruptLog, what=name)


def truncate_older_segment(scene: Scene, rng: Random) -> Hurt | None:
    if len(scene.segments) < 2:
        return None
    name = rng.choice(scene.segments[:-1])
    place = rng.randrange(scene.records(name)[-1].stop)
    image = changed(scene, WAL / name, scene.content(name)[:place])
    if scene.is_spare_seal(name, place) and place >= scene.filled_bytes(name):
        return Hurt(image, WHOLE, what=f"{name} at {place}")
    return Hurt(image, REFUSED, CorruptLog, what=f"{name} at {place}")


def truncate_identity(scene: Scene, rng: Random) -> Hurt | None:
    content = scene.image.get(IDENTITY)
    if content is None:
        return None
    return Hurt(changed(scene, IDENTITY, content[: rng.randrange(len(content))]), REFUSED, DamagedIdentity)


# -- a missing file --------------------------------------------------------------------------------------


def miss_newest_segment(scene: Scene, rng: Random) -> Hurt | None:
    """The segment before it is sealed before anything is acknowledged from the new one."""
    if len(scene.segments) < 2:
        return None
    name, before = scene.segments[-1], scene.segments[-2]
    image = changed(scene, WAL / name, None)
    return Hurt(image, REFUSED, CorruptLog) if scene.is_sealed(before) else Hurt(image, WHOLE)


def miss_oldest_segment(scene: Scene, rng: Random) -> Hurt | None:
    """As if it had been released, if a snapshot stands for all that was in it."""
    if len(scene.segments) < 2:
        return None
    covered = max((index_of(name) for name in scene.snapshots), default=0)
    image = changed(scene, WAL / scene.segments[0], None)
    if scene.first_index(scene.segments[1]) - 1 <= covered:
        return Hurt(image, WHOLE)
    return Hurt(image, REFUSED, CorruptLog)


def miss_middle_segment(scene: Scene, rng: Random) -> Hurt | None:
    if len(scene.segments) < 3:
        return None
    name = rng.choice(scene.segments[1:-1])
    return Hurt(changed(scene, WAL / name, None), REFUSED, CorruptLog, what=name)


def miss_identity(scene: Scene, rng: Random) -> Hurt | None:
    """Whose log it is, nobody knows; one with nothing in it is begun anew."""
    if IDENTITY not in scene.image:
        return None
    image = changed(scene, IDENTITY, None)
    return Hurt(image, REFUSED, WrongDirectory) if has_data(scene) else Hurt(image, WHOLE)


def miss_log(scene: Scene, rng: Random) -> Hurt | None:
    """A directory with an identity has lost its log; without one, it is new."""
    if WAL not in scene.image:
        return None
    image = {
        path: content for path, content in scene.image.items() if path != WAL and WAL not in path.parents
    }
    return Hurt(image, REFUSED, CorruptLog) if IDENTITY in image else Hurt(image, WHOLE)


def miss_byproduct(scene: Scene, rng: Random) -> Hurt | None:
    """The lock, the spare, the reserve, a draft, a copy of a torn tail: nothing depends on them."""
    names = [DATA / "lock", WAL / "next.tmp", WAL / "snapshot.tmp", DATA / "identity.tmp"]
    names += [WAL / "reserve", WAL / "reserve.tmp"]
    names += [path for path in scene.image if path.suffix == ".broken"]
    there = [path for path in names if path in scene.image]
    if not there:
        return None
    path = rng.choice(there)
    content = scene.image[path] or b""
    harmed = rng.choice([None, content[: len(content) // 2], content and flip(content, 0, rng)])
    return Hurt(changed(scene, path, harmed), WHOLE, what=str(path))


def is_begun(scene: Scene) -> bool:
    """The directory is a node's: with an identity, and a log that must be there."""
    return IDENTITY in scene.image and bool(scene.segments)


def has_data(scene: Scene) -> bool:
    return scene.segments != ["0000000001.wal"] or len(scene.records(scene.segments[0])) > 1


SNAPSHOT = "refused; whole while an older one and the log make up for it"
NO_FILE = "n/a: no such file"

# The promises. Nothing acknowledged is ever lost in silence but by `cut`, and nothing corrupt is ever served.
DAMAGES = (
    Column("flip: entries", "refused", flip_record(ENTRIES)),
    Column("flip: hard state", "refused", flip_record(HARD_STATE)),
    Column("flip: mark", "refused", flip_record(MARK)),
    Column("flip: seal", "refused", flip_record(SEAL)),
    Column("flip: segment head", "refused", flip_segment_head, NO_FILE),
    Column("flip: unused space", "refused, or no effect", flip_unused_space, NO_FILE),
    Column("flip: snapshot header", SNAPSHOT, hurt_snapshot(flip_snapshot_header), NO_FILE),
    Column("flip: snapshot chunk", SNAPSHOT, hurt_snapshot(flip_snapshot_chunk), NO_FILE),
    Column("flip: identity", "refused", flip_identity, NO_FILE),
    Column("zeroed page: log", "refused", zero_page(is_vouched_for=True), NO_FILE),
    Column(
        "zeroed page: end of the log", "cut, behind the last intact turn", zero_page(is_vouched_for=False)
    ),
    Column("zeroed page: snapshot", SNAPSHOT, hurt_snapshot(zero_snapshot_page), NO_FILE),
    Column("truncated: newest segment", "refused", truncate_newest_segment, NO_FILE),
    Column("truncated: segment head", "refused", truncate_in_head, NO_FILE),
    Column("truncated: older segment", "refused", truncate_older_segment, NO_FILE),
    Column("truncated: snapshot", SNAPSHOT, hurt_snapshot(cut_snapshot), NO_FILE),
    Column("truncated: identity", "refused", truncate_identity, NO_FILE),
    Column("missing: newest segment", "refused once the one before is sealed", miss_newest_segment, NO_FILE),
    Column("missing: middle segment", "refused", miss_middle_segment, NO_FILE),
    Column("missing: oldest segment", "refused, unless a snapshot covers it", miss_oldest_segment, NO_FILE),
    Column("missing: snapshot", SNAPSHOT, hurt_snapshot(lambda content, rng: None), NO_FILE),
    Column("missing: identity", "refused once the log has data", miss_identity, NO_FILE),
    Column("missing: log", "refused once there is an identity", miss_log, NO_FILE),
    Column("harmed: lock, drafts, copies", "whole", miss_byproduct, NO_FILE),
)
