"""Keys as paths: `/`-separated names, children found by leaps, in steps, at any revision that is kept."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import hierarchy, protocol
from kvstore import store as store_module
from kvstore.query_batch import QUERY_KEYS
from tests.kvstore.dumb_store import DumbStore
from tests.kvstore.machine_log import Log
from tests.kvstore.test_range_steps import begun, finish, long_answer

children = protocol.children_body


def filled(*keys: bytes) -> Log:
    log = Log()
    for key in keys:
        log.put(key)
    return log


def names(result: list[object]) -> list[bytes]:
    assert result[0] == protocol.OK and isinstance(result[3], list)
    return [name for name, _, _ in result[3]]


def test_children_are_direct_and_say_what_they_have() -> None:
    log = filled(b"/a", b"/a/b", b"/a/b/c/d", b"/a/e/f", b"/a/g", b"/ab", b"/a-", b"other", b"/z/y/x")
    assert log.ask(children(b"/a")) == [
        0, 10, False, [[b"b", True, True], [b"e", False, True], [b"g", True, False]]
    ]  # fmt: skip
    assert names(log.ask(children(b"/"))) == [b"a", b"a-", b"ab", b"z"]
    assert log.ask(children(b"/a/b/c/d")) == [0, 10, False, []]
    assert log.ask(children(b"/none")) == [0, 10, False, []]


def test_slashes_at_the_ends_of_a_path_matter_nowhere() -> None:
    log = filled(b"/a/b", b"/c")
    for path in (b"a", b"/a", b"a/", b"/a/", b"//a//"):
        assert log.ask(children(path)) == [0, 3, False, [[b"b", True, False]]]
    for root in (b"", b"/", b"//"):
        assert names(log.ask(children(root))) == [b"a", b"c"]


def test_children_are_in_order_of_their_names_though_keys_are_not() -> None:
    """The key of b-c comes between that of b and what is below b; a name must come once."""
    log = filled(b"/b", b"/b-c", b"/b/d", b"/e-f", b"/e/g", b"/e.h/i", b"/e")
    expected = [b"b", b"b-c", b"e", b"e-f", b"e.h"]
    assert names(log.ask(children(b""))) == expected
    log.delete(b"/e")
    log.delete(b"/b")
    assert names(log.ask(children(b""))) == expected
    log.delete(b"/b/d")
    assert names(log.ask(children(b""))) == expected[1:]


def test_an_empty_name_is_nobodys_child() -> None:
    log = filled(b"/a/", b"/a//b", b"/a/c", b"/a/-")
    assert names(log.ask(children(b"/a"))) == [b"-", b"c"]


def test_children_are_given_page_by_page() -> None:
    keys = [b"/%d" % number for number in range(10)] + [b"/5-x", b"/5/y", b"/7.1/z", b"/7/z"]
    log = filled(*keys)
    expected = names(log.ask(children(b"")))
    for limit in (1, 2, 3, 5, 12, 13):
        found: list[bytes] = []
        more = True
        while more:
            page = log.ask(children(b"", limit=limit, start_after=found[-1] if found else b""))
            more = bool(page[2])
            assert len(names(page)) == limit if more else len(names(page)) <= limit
            found += names(page)
        assert found == expected


def test_an_answer_has_no_more_names_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    log = filled(*(b"/%d" % number for number in range(10)))
    monkeypatch.setattr(hierarchy, "MAX_CHILDREN", 4)
    page = log.ask(children(b"", limit=7))
    assert (len(names(page)), page[2]) == (4, True)
    monkeypatch.setattr(hierarchy, "MAX_CHILDREN_BYTES", 2)
    page = log.ask(children(b""))
    assert (len(names(page)), page[2]) == (3, True)


def test_children_at_a_past_revision() -> None:
    log = filled(b"/a/b", b"/a/c/d")  # revisions 2 and 3
    log.delete(b"/a/b")
    log.put(b"/a/e")  # 5
    assert names(log.ask(children(b"/a", revision=3))) == [b"b", b"c"]
    assert names(log.ask(children(b"/a", revision=2))) == [b"b"]
    assert names(log.ask(children(b"/a"))) == [b"c", b"e"]
    assert log.ask(children(b"/a", revision=6))[0] == protocol.FUTURE_REVISION
    log.apply(protocol.compact_body(0, 0, 0, 4))
    assert log.ask(children(b"/a", revision=3))[0] == protocol.COMPACTED
    assert names(log.ask(children(b"/a", revision=4))) == [b"c"]


@pytest.mark.parametrize(
    "arguments",
    [(b"/a", 0, b""), (b"/a", 0, b"", 0, 0), ("/a", 0, b"", 0), (b"/a", -1, b"", 0), (b"", 0, 0, 0)],
)
def test_what_is_no_such_read_is_refused(arguments: tuple[object, ...]) -> None:
    log = filled(b"/a")
    assert log.ask(msgpack.packb((protocol.CHILDREN, *arguments)))[0] == protocol.BAD_REQUEST
    assert log.ask(children(b"a" * 4098))[0] == protocol.TOO_LARGE


def test_what_is_below_a_child_is_passed_over_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three children with ten thousand keys below them cost no more than three."""
    log = Log()
    keys = [b"/%d/%05d" % (child, number) for child in range(3) for number in range(10_000)]
    log.machine.apply(1, [protocol.put_body(0, 0, 0, key, b"") for key in keys])
    looked_at: list[int] = []
    look = store_module.Store._names

    def counted(self: store_module.Store, *arguments: object) -> tuple[list[bytes], bytes | None]:
        found = look(self, *arguments)  # type: ignore[arg-type]
        looked_at.append(len(found[0]))
        return found

    monkeypatch.setattr(store_module.Store, "_names", counted)
    assert names(log.ask(children(b"/"))) == [b"0", b"1", b"2"]
    assert sum(looked_at) <= 3 * hierarchy.FEW_KEYS


def test_no_step_looks_at_more_than_its_share() -> None:
    """Neither of many children, nor where all that is below a path was deleted, nor in one call."""
    log = Log()
    keys = [b"/a/%05d" % number for number in range(5000)]
    log.machine.apply(1, [protocol.put_body(0, 0, 0, key, b"") for key in keys])
    answer = long_answer(log.machine, children(b"/a"))
    assert sum(result is None for result in answer) >= 3
    log.delete(b"/a/", b"/a0")
    answer = long_answer(log.machine, children(b"/"))
    assert finish(answer)[3] == []
    answers = log.machine.begin_query([children(b"/a")] * 100)
    assert sum(isinstance(each, bytes) for each in answers) <= QUERY_KEYS // hierarchy.STEP_KEYS


def test_children_are_of_one_revision_though_others_write() -> None:
    log = Log()
    keys = [b"/a/%05d" % number for number in range(5000)]
    log.machine.apply(1, [protocol.put_body(0, 0, 0, key, b"") for key in keys])
    before = log.ask(children(b"/a"))
    answer = begun(log.machine, children(b"/a"))
    log.delete(b"/a/03000", b"/a/04000")
    log.put(b"/a/04000/new")
    assert finish(answer) == before
    past = begun(log.machine, children(b"/a", revision=log.machine.revision - 1))
    log.put(b"/b")
    log.apply(protocol.compact_body(0, 0, 0, log.machine.revision))
    assert finish(past)[0] == protocol.COMPACTED


KEYS = st.lists(st.sampled_from([b"a", b"b", b"-", b"/", b"/", b"0"]), min_size=1, max_size=6).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), KEYS), max_size=30),
    st.sampled_from([b"", b"a", b"a/b", b"-"]),
    st.sampled_from([b"", b"a", b"a-", b"b", b"a/"]),
    st.integers(0, 3),
)
def test_children_are_what_a_dumb_store_has(
    steps: list[tuple[bool, bytes]], path: bytes, start_after: bytes, limit: int
) -> None:
    log, dumb = Log(), DumbStore()
    for is_delete, key in steps:
        key = b"/" + key
        if is_delete:
            log.delete(key, b"")
            dumb.delete(key, b"")
        else:
            log.put(key)
            dumb.put(key, b"v")
    prefix = b"/" + path + b"/" if path else b"/"
    patch = pytest.MonkeyPatch()
    patch.setattr(hierarchy, "FEW_KEYS", 2)
    patch.setattr(hierarchy, "MANY_KEYS", 4)
    patch.setattr(hierarchy, "STEP_KEYS", 10)
    try:
        for revision in range(1, dumb.revision + 1):
            rests = [key[len(prefix) :] for key in dumb.contents[revision] if key.startswith(prefix)]
            expected = [
                [name, name in rests, any(rest.startswith(name + b"/") for rest in rests)]
                for name in sorted({rest.partition(b"/")[0] for rest in rests})
                if name > start_after
            ]
            shown = expected[: limit or None]
            found = log.ask(children(path, limit=limit, start_after=start_after, revision=revision))
            assert found == [0, log.machine.revision, len(shown) < len(expected), shown]
    finally:
        patch.undo()
