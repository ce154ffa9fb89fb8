"""Segment reader: against a model, from hostile bytes, from other people's files."""

from __future__ import annotations

import bisect
import functools
import itertools
import os
import random
import struct
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cesium._page import TableShape
from cesium._segment import UNBOUNDED_UPPER, SegmentReader
from cesium._segment_view import SegmentView
from cesium.errors import CorruptionError, Error
from cesium.files import Files, MemoryFiles
from segment_files import (
    NAME,
    PAGE_BYTES,
    UUID,
    Entry,
    Key,
    build,
    content,
    open_segment,
    seal,
    with_content,
)

SHAPES = {
    "fixed": lambda slots: TableShape(8, 12, (8, 4), slots),
    "fixed keys": lambda slots: TableShape(8, 0, (), slots),
    "fixed rows": lambda slots: TableShape(0, 6, (4, 2), slots),
    "variable": lambda slots: TableShape(0, 0, (), slots),
}
ROW_BYTES = {"fixed": 12, "fixed keys": 0, "fixed rows": 6, "variable": 0}


@pytest.fixture(autouse=True, scope="module")
def forget_big_segments() -> Iterator[None]:
    yield
    big_segment.cache_clear()


heads = st.one_of(
    st.integers(0, 40), st.integers(0, 2**64 - 1), st.sampled_from([0, 2**63, 2**64 - 1])
)
keys = st.one_of(
    st.binary(max_size=12),
    st.builds(
        lambda a, n, b: bytes([a]) * n + b,
        st.sampled_from([0, 97, 255]),
        st.sampled_from([0, 1, 7, 8, 9, 500, 504, 505, 511, 512, 513, 520, 700, 5000]),
        st.binary(max_size=3),
    ),
)
values = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.builds(
        lambda n, b: b * n,
        st.sampled_from([0, 1023, 1024, 1025, 4032, 9000]),
        st.binary(min_size=1, max_size=1),
    ),
)


def entries_of(form: str) -> st.SearchStrategy[list[Entry]]:
    width = ROW_BYTES[form]
    key = heads if form in ("fixed", "fixed keys") else keys
    value = st.one_of(st.none(), st.binary(min_size=width, max_size=width)) if width else values
    return st.dictionaries(key, value, max_size=60).map(lambda items: sorted(items.items()))


def neighbours(key: Key) -> list[Key]:
    if isinstance(key, int):
        return [other for other in (key - 1, key, key + 1) if 0 <= other < 2**64]
    return [key, key + b"\0", key[:-1], key[:-1] + b"\xff"]


def check_against_model(view: SegmentView, entries: list[Entry]) -> None:
    found = [key for key, _ in entries]
    model = dict(entries)
    assert list(view.entries()) == entries
    assert list(view.entries(reverse=True)) == entries[::-1]
    for key in {near for held in found for near in neighbours(held)}:
        rank = bisect.bisect_left(found, key)
        assert view.rank(key) == rank
        assert view.find(key) == ((key, model[key]) if key in model else None)
        assert next(view.entries(key), None) == next(iter(entries[rank:]), None)
        assert next(view.entries(key, reverse=True), None) == (entries[rank - 1] if rank else None)
        if key in model:
            assert view.may_contain(key)


@pytest.mark.parametrize("form", SHAPES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), slots=st.sampled_from([0, 1, 2, 3, 7]), filtered=st.booleans())
def test_round_trip_against_a_model(
    form: str, data: st.DataObject, slots: int, filtered: bool
) -> None:
    entries = data.draw(entries_of(form))
    shape = SHAPES[form](slots)
    files, record = build(shape, entries, filter_keys=len(entries) if filtered else 0)
    reader, view = open_segment(files, record, shape)
    check_against_model(view, entries)
    assert list(reader.verify()) == []
    assert record.rows == len(entries)
    assert record.delete_markers == sum(value is None for _, value in entries)
    footer = reader.footer()
    assert footer["entries"] == len(entries)
    assert footer["page_count"] == record.page_count


@functools.cache
def big_segment(form: str) -> tuple[TableShape, list[Entry], Files, SimpleNamespace]:
    """A segment with several fence levels, overflow runs, markers and a filter."""
    chance = random.Random(3)
    shape = SHAPES[form](4)
    width = ROW_BYTES[form]
    has_heads = form in ("fixed", "fixed keys")
    if has_heads:
        found: list[Key] = sorted(chance.sample(range(10_000), 400))
    else:
        found = sorted(
            {
                chance.choice([b"", b"a" * 600, b"key-" * 3, b"z" * 5000]) + b"%d" % i
                for i in range(400)
            }
        )
    entries: list[Entry] = []
    for i, key in enumerate(found):
        value = chance.randbytes(width) if width else bytes([i % 256]) * chance.choice([0, 5, 3000])
        entries.append((key, None if i % 17 == 0 else value))
    markers: list[tuple[Key, Key | None]] = (
        [(3, 9), (20, 30), (2**63, None)] if has_heads else [(b"b", b"c" * 5000), (b"y", None)]
    )
    files, record = build(shape, entries, markers, filter_keys=len(entries))
    return shape, entries, files, record


@pytest.mark.parametrize("form", SHAPES)
def test_deep_segments_with_everything(form: str) -> None:
    shape, entries, files, record = big_segment(form)
    reader, view = open_segment(files, record, shape)
    footer = reader.footer()
    assert int(str(footer["fence_levels"])) >= 3
    assert (footer["overflow_pages"] == 0) == (form == "fixed")
    check_against_model(view, entries)
    assert list(reader.verify()) == []
    assert view.markers()
    assert record.range_deletes == len(view.markers())
    reader.read_ahead(check=True, threads=2)


def test_markers_alone() -> None:
    shape = TableShape(0, 0)
    markers = [(b"a", b"b" * 6000), (b"c" * 65536, b"c" * 65536 + b"\0"), (b"d", None)]
    files, record = build(shape, [], reversed(markers))
    reader, view = open_segment(files, record, shape)
    assert view.markers() == markers
    assert list(view.entries()) == []
    assert list(view.entries(b"x", reverse=True)) == []
    assert view.find(b"a") is None
    assert view.route(b"a") is None
    assert view.rank(b"zz") == 0
    assert list(reader.verify()) == []
    assert record.upper == UNBOUNDED_UPPER


@pytest.mark.parametrize("slots", [2, 5, 0])
def test_many_heads_are_routed_as_one_by_one(slots: int) -> None:
    shape = TableShape(8, 8, (), slots)
    chance = np.random.default_rng(4)
    found = np.unique(chance.integers(0, 2**64, 3000, np.uint64))
    found[0], found[-1] = 0, 2**64 - 1
    files, record = build(shape, [(int(key), bytes(8)) for key in found])
    _, view = open_segment(files, record, shape)
    asked = np.concatenate((found, found + np.uint64(1), found - np.uint64(1)))
    chance.shuffle(asked)
    for part in (asked, asked[:1], asked[:31], asked[:33], np.sort(asked)):
        ordinals = np.empty(len(part), np.uint32)
        view.route_heads(part, ordinals)
        assert ordinals.tolist() == [view.route(int(key)) for key in part]
    assert view.find_heads(found) == len(found)


def test_the_filter_excludes_most_of_what_is_absent() -> None:
    shape = TableShape(8, 8)
    files, record = build(shape, [(i * 2, bytes(8)) for i in range(20_000)], filter_keys=20_000)
    _, view = open_segment(files, record, shape)
    assert all(view.may_contain(i * 2) for i in range(20_000))
    assert sum(view.may_contain(i * 2 + 1) for i in range(20_000)) < 600


def test_opening_touches_nothing_and_a_missing_file_raises_when_used(tmp_path: object) -> None:
    shape = TableShape(8, 8)
    files, record = build(shape, [(1, bytes(8))])
    data = content(files)
    empty = MemoryFiles()
    reader, view = open_segment(empty, record, shape)
    with pytest.raises(CorruptionError, match="missing"):
        view.find(1)
    with pytest.raises(FileNotFoundError):  # for openers, beside whom another process may merge
        reader.map()
    fd = empty.create(NAME)
    os.pwrite(fd, data, 0)
    os.close(fd)
    assert view.find(1) == (1, bytes(8))  # the failure was not the segment's


def test_doomed_files_go_with_the_last_reference() -> None:
    shape = TableShape(8, 8)
    files, record = build(shape, [(1, bytes(8))])
    reader, view = open_segment(files, record, shape)
    assert view.find(1)
    reader.doomed = True
    del reader
    assert files.list() == [NAME]
    del view
    assert files.list() == []


# --- damage


def read_everything(
    files: Files, record: SimpleNamespace, shape: TableShape, probe: list[Key]
) -> list[object]:
    """Every kind of read; CorruptionError is an answer, anything else escapes."""
    answers: list[object] = []
    reader, view = open_segment(files, record, shape)
    calls = [
        lambda: list(view.entries()),
        lambda: list(view.entries(reverse=True)),
        view.markers,
        lambda: list(reader.verify()),
        lambda: reader.read_ahead(check=True),
    ]
    for key in probe:
        calls += [
            lambda key=key: view.find(key),
            lambda key=key: view.rank(key),
            lambda key=key: view.may_contain(key),
            lambda key=key: list(itertools.islice(view.entries(key, reverse=True), 3)),
        ]
    for call in calls:
        try:
            answers.append(call())
        except CorruptionError as damage:
            answers.append(damage)
    return answers


def small_segment(form: str) -> tuple[TableShape, list[Entry], Files, SimpleNamespace]:
    """One page of each kind, or a few."""
    shape = SHAPES[form](0)
    width = ROW_BYTES[form]
    has_heads = form in ("fixed", "fixed keys")
    entries: list[Entry] = []
    for i in range(300):
        value = bytes([i % 256]) * (width or (2000 if i == 150 else 9))
        entries.append((i if has_heads else b"%04d" % i, None if i % 17 == 0 else value))
    files, record = build(shape, entries, [(3, 9) if has_heads else (b"x", b"y")], filter_keys=300)
    return shape, entries, files, record


@pytest.mark.parametrize("form", SHAPES)
def test_every_flipped_byte_is_detected(form: str) -> None:
    shape, _, files, record = small_segment(form)
    data = content(files)
    fd = files.open(NAME, writable=True)
    try:
        for place, byte in enumerate(data):
            os.pwrite(fd, bytes([byte ^ 1 << place % 8]), place)
            reader = SegmentReader(record, files, NAME, shape, UUID)
            assert [number for number, *_ in reader.verify()] == [place // PAGE_BYTES]
            os.pwrite(fd, bytes([byte]), place)
    finally:
        os.close(fd)


@pytest.mark.parametrize("form", SHAPES)
def test_reads_of_damaged_pages_raise_or_are_right(form: str) -> None:
    chance = random.Random(5)
    shape, entries, files, record = small_segment(form)
    data = content(files)
    raised = 0
    for _ in range(200):
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
        damaged = with_content(bytes(data))
        data[place] = content(files)[place]
        for reverse in (False, True):
            _, view = open_segment(damaged, record, shape)
            try:
                expected = entries[::-1] if reverse else entries
                assert list(view.entries(reverse=reverse)) == expected
            except CorruptionError as damage:
                assert damage.offset == place // PAGE_BYTES * PAGE_BYTES
                raised += 1
    assert raised > 200


@pytest.mark.parametrize("form", SHAPES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_hostile_pages_with_right_checksums_never_crash(form: str, data: st.DataObject) -> None:
    """Counts, offsets and references are checked even where the checksum is right."""
    shape, entries, files, record = big_segment(form)
    hostile = content(files)
    pages = len(hostile) // PAGE_BYTES
    for _ in range(data.draw(st.integers(1, 3))):
        # Half of them among fences, markers, filter and footer, which are few.
        number = data.draw(
            st.one_of(st.integers(0, pages - 1), st.integers(max(pages - 40, 0), pages - 1))
        )
        start = number * PAGE_BYTES
        place = start + data.draw(st.one_of(st.integers(4, 64), st.integers(4, PAGE_BYTES - 1)))
        size = data.draw(st.sampled_from([1, 2, 4, 8]))
        value = data.draw(
            st.one_of(
                st.integers(0, 2 ** (8 * size) - 1), st.sampled_from([0, 1, 2 ** (8 * size) - 1])
            )
        )
        hostile[place : place + size] = value.to_bytes(size, "little")[: start + PAGE_BYTES - place]
        del hostile[pages * PAGE_BYTES :]
        seal(hostile, number)
    record = SimpleNamespace(**vars(record))
    del record.checksum
    try:
        read_everything(
            with_content(bytes(hostile)),
            record,
            shape,
            [entries[0][0], entries[200][0], entries[-1][0]],
        )
    except CorruptionError:
        raise
    except Error as refused:
        assert "format version" in str(refused) or "features" in str(refused)


@pytest.mark.parametrize("form", SHAPES)
def test_truncated_files_are_refused(form: str) -> None:
    shape, entries, files, record = big_segment(form)
    data = content(files)
    for size in (1, 100, PAGE_BYTES, len(data) - PAGE_BYTES, len(data) - 1):
        cut = with_content(bytes(data[:size]))
        reader, view = open_segment(cut, record, shape)
        with pytest.raises(CorruptionError) as raised:
            view.find(entries[0][0])
        assert raised.value.file == cut.path(NAME)
        assert list(reader.verify())
    grown = with_content(bytes(data) + bytes(PAGE_BYTES))
    with pytest.raises(CorruptionError):
        open_segment(grown, record, shape)[0].map()


def test_strangers_are_refused() -> None:
    shape, entries, files, record = big_segment("fixed")

    def refuse(
        message: str, shape: TableShape = shape, uuid: bytes = UUID, **changes: object
    ) -> None:
        other = SimpleNamespace(**{**vars(record), **changes})
        _, view = open_segment(files, other, shape, uuid)
        with pytest.raises(CorruptionError, match=message) as raised:
            view.find(entries[0][0])
        assert raised.value.expected != raised.value.found

    refuse("another segment", id=8)
    refuse("another store", uuid=bytes(16))
    refuse("not the one that was recorded", checksum=1)
    refuse("wrong number of entries", rows=1)
    refuse("other keys or values", shape=TableShape(8, 12, (4, 8)))
    refuse("other keys or values", shape=TableShape(7, 12, (8, 4)))


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (16, "<I", 2, "format version 2"),
        (32, "<Q", 1 << 9, "features that this cesium does not know: bit 9"),
    ],
)
def test_newer_formats_are_refused_by_name(
    offset: int, form: str, value: int, message: str
) -> None:
    shape, _, files, record = big_segment("fixed")
    data = content(files)
    last = len(data) // PAGE_BYTES - 1
    struct.pack_into(form, data, last * PAGE_BYTES + offset, value)
    seal(data, last)
    record = SimpleNamespace(**vars(record))
    del record.checksum
    reader, _ = open_segment(with_content(bytes(data)), record, shape)
    with pytest.raises(Error, match=message):
        reader.map()


def test_a_page_written_to_the_wrong_place_is_seen() -> None:
    shape, _, files, record = big_segment("fixed")
    data = content(files)
    data[:PAGE_BYTES], data[PAGE_BYTES : 2 * PAGE_BYTES] = (
        data[PAGE_BYTES : 2 * PAGE_BYTES],
        data[:PAGE_BYTES],
    )
    reader, view = open_segment(with_content(bytes(data)), record, shape)
    assert [number for number, *_ in reader.verify()] == [0, 1]
    with pytest.raises(CorruptionError) as raised:
        list(view.entries())
    assert raised.value.offset == 0


def test_first_use_from_many_threads() -> None:
    shape, entries, files, record = big_segment("variable")
    _, view = open_segment(files, record, shape)
    barrier = threading.Barrier(8)
    answers: list[bool] = []

    def read() -> None:
        barrier.wait()
        answers.append(list(view.entries()) == entries)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 8
