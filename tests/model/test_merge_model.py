"""Merges beside a dict: any sources, any shape, with and without markers, cut anywhere."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cesium._builder import SegmentBuilder
from cesium._memtable import Memtable, MemtableSnapshot
from cesium._merge import DONE, FULL, MORE, STOPPED, Merge
from cesium._page import TableShape
from cesium._segment import SegmentReader
from cesium._version import Version
from cesium.files import MemoryFiles
from segment_files import NAME, SEGMENT_ID, UUID, Entry, Key, build, open_segment

VALUE, DELETE = 0, 1

Marker = tuple[Key, Key | None]

SHAPES: dict[str, Callable[[int], TableShape]] = {
    "fixed": lambda slots: TableShape(8, 8, (), slots),
    "fixed fields": lambda slots: TableShape(8, 12, (8, 4), slots),
    "fixed keys": lambda slots: TableShape(8, 0, (), slots),
    "fixed rows": lambda slots: TableShape(0, 6, (4, 2), slots),
    "variable": lambda slots: TableShape(0, 0, (), slots),
}
ROW_BYTES = {"fixed": 8, "fixed fields": 12, "fixed keys": 0, "fixed rows": 6, "variable": 0}
FIXED_KEYS = ("fixed", "fixed fields", "fixed keys")

heads = st.one_of(st.integers(0, 60), st.sampled_from([2**63, 2**64 - 2, 2**64 - 1]))
texts = st.one_of(
    st.binary(max_size=2),
    st.builds(
        lambda a, n, b: bytes([a]) * n + b,
        st.sampled_from([0, 97, 255]),
        st.sampled_from([1, 7, 8, 9, 511, 512, 513, 700]),
        st.binary(max_size=1),
    ),
)
variable_values = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda n, b: b * n,
        st.sampled_from([0, 1024, 1025, 4032, 9000]),
        st.binary(min_size=1, max_size=1),
    ),
)


@dataclass
class Layer:
    """One source: its entries (None: a delete marker), its range-deletes, how it is stored."""

    entries: dict[Key, bytes | None]
    markers: list[Marker]
    parts: int  # segments of one run; 0 is a memtable


def keys_of(form: str) -> st.SearchStrategy[Key]:
    return heads if form in FIXED_KEYS else texts


@st.composite
def layers_of(draw: st.DrawFn, form: str) -> list[Layer]:
    key, width = keys_of(form), ROW_BYTES[form]
    value = st.binary(min_size=width, max_size=width) if width else variable_values
    found = []
    for _ in range(draw(st.integers(1, 7))):
        base = draw(st.integers(0, 5)) * 400 if form in FIXED_KEYS else 0
        dense = draw(st.integers(0, 300)) if form in FIXED_KEYS else 0
        step = draw(st.sampled_from([1, 3]))
        deletes = draw(st.sampled_from([13, 1000]))
        entries: dict[Key, bytes | None] = {
            base + i * step: None if i % deletes == 12 else row(i, width) for i in range(dense)
        }
        entries.update(draw(st.dictionaries(key, st.none() | value, max_size=25)))
        markers = []
        for lower, upper in draw(st.lists(st.tuples(key, st.none() | key), max_size=2)):
            if upper is None or lower < upper:
                markers.append((lower, upper))
        parts = draw(st.integers(0, 1 if markers else 3))
        found.append(Layer(entries, markers, parts))
    return found


def row(number: int, width: int) -> bytes:
    """A value of a dense stretch."""
    return struct.pack("<Q", number).ljust(width, b"\1")[:width] if width else b"%d" % number


def inside(key: Key, markers: list[Marker]) -> bool:
    return any(low <= key and (high is None or key < high) for low, high in markers)


def expected(layers: list[Layer], keep_markers: bool) -> list[Entry]:
    """What a merge of the layers, newest first, yields."""
    model: dict[Key, bytes | None] = {}
    for layer in reversed(layers):
        model = {key: value for key, value in model.items() if not inside(key, layer.markers)}
        model.update(layer.entries)
    return sorted((key, value) for key, value in model.items() if keep_markers or value is not None)


def source_of(shape: TableShape, layer: Layer) -> MemtableSnapshot | list[SegmentReader]:
    entries = sorted(layer.entries.items())
    if layer.parts == 0:
        memtable = Memtable(shape)
        for lower, upper in layer.markers:
            memtable.delete_range(lower, upper)
        for key, value in entries:
            memtable.put(key, value or b"", DELETE if value is None else VALUE)
        return memtable.snapshot()
    step = -(-len(entries) // layer.parts) or 1
    readers = []
    for start in range(0, max(len(entries), 1), step):
        files, record = build(shape, entries[start : start + step], layer.markers)
        record.markers = record.range_deletes
        readers.append(open_segment(files, record, shape)[0])
    return readers


def version_of(shape: TableShape, layers: list[Layer]) -> Version:
    return Version(shape, [source_of(shape, layer) for layer in layers], False)


class Outputs:
    """Segments that a merge writes, one after the other, and the reasons why it came back."""

    def __init__(self, shape: TableShape, merge: Merge) -> None:
        self.shape = shape
        self.merge = merge
        self.entries: list[list[Entry]] = []
        self.markers: list[list[Marker]] = []
        self.records: list[SimpleNamespace] = []
        self.reasons: Counter[int] = Counter()

    def write(self, most_bytes: int, slice_bytes: int = 0, stop: bytes | None = None) -> int:
        """One more segment; the reason why it ended."""
        files = MemoryFiles()
        builder = SegmentBuilder(files, NAME, SEGMENT_ID, UUID, self.shape, filter_keys=50)
        reason = MORE
        while reason == MORE:
            reason = self.merge.write(builder, most_bytes, stop=stop, slice_bytes=slice_bytes)
            self.reasons[reason] += 1
        self.merge.write_markers(builder)
        record = SimpleNamespace(**builder.finish())
        reader, view = open_segment(files, record, self.shape)
        assert list(reader.verify()) == []
        self.entries.append(list(view.entries()))
        self.markers.append(view.markers())
        self.records.append(record)
        for key, _ in self.entries[-1]:
            assert view.may_contain(key)
            assert view.find(key) is not None
        return reason

    def rows(self) -> list[Entry]:
        return [entry for segment in self.entries for entry in segment]


@pytest.mark.parametrize("form", SHAPES)
@given(
    data=st.data(),
    slots=st.sampled_from([0, 1, 2, 3, 7]),
    keep_markers=st.booleans(),
    most_pages=st.sampled_from([1, 2, 5, 1000]),
    slice_bytes=st.sampled_from([0, 1, 100, 5000]),
)
def test_a_merge_is_a_dict_updated_from_the_oldest_source_on(
    form: str,
    data: st.DataObject,
    slots: int,
    keep_markers: bool,
    most_pages: int,
    slice_bytes: int,
) -> None:
    shape = SHAPES[form](slots)
    layers = data.draw(layers_of(form))
    merge = Merge(version_of(shape, layers), keep_markers)
    outputs = Outputs(shape, merge)
    while outputs.write(most_pages * 4096, slice_bytes) != DONE:
        pass
    rows = expected(layers, keep_markers)
    assert outputs.rows() == rows
    assert merge.next_key() is None
    records = outputs.records
    assert sum(record.rows for record in records) == len(rows)
    assert sum(record.delete_markers for record in records) == sum(v is None for _, v in rows)
    width = ROW_BYTES[form]
    assert sum(record.value_bytes for record in records) == sum(
        width or len(value) for _, value in rows if value is not None
    )


def encoded(key: Key) -> bytes:
    return key.to_bytes(8, "big") if isinstance(key, int) else key


@pytest.mark.parametrize("form", ["fixed", "variable"])
@given(data=st.data(), keep_markers=st.booleans(), slots=st.sampled_from([0, 1, 3]))
def test_a_merge_stops_before_given_keys(
    form: str, data: st.DataObject, keep_markers: bool, slots: int
) -> None:
    shape = SHAPES[form](slots)
    layers = data.draw(layers_of(form))
    stops = sorted(data.draw(st.sets(keys_of(form), max_size=6)))
    merge = Merge(version_of(shape, layers), keep_markers)
    outputs = Outputs(shape, merge)
    rows = expected(layers, keep_markers)
    for stop in stops:
        while (reason := outputs.write(8192, 3000, encoded(stop))) == FULL:
            pass
        after = merge.next_key()
        assert reason == (DONE if after is None else STOPPED)
        assert after is None or after >= encoded(stop)
        assert outputs.rows() == [entry for entry in rows if entry[0] < stop]
    assert list(rest(outputs)) == [DONE]
    assert outputs.rows() == rows


def rest(outputs: Outputs) -> Iterator[int]:
    yield outputs.write(1 << 40)


def test_range_deletes_are_cut_to_the_output() -> None:
    shape = TableShape(8, 8)
    markers: list[Marker] = [(10, 20), (30, None)]
    merge = Merge(version_of(shape, [Layer({}, markers, 1)]), True)

    def between(lower: int | None, upper: int | None) -> list[Marker]:
        files = MemoryFiles()
        builder = SegmentBuilder(files, NAME, SEGMENT_ID, UUID, shape)
        low, high = (None if bound is None else encoded(bound) for bound in (lower, upper))
        merge.write_markers(builder, low, high)
        record = SimpleNamespace(**builder.finish())
        return open_segment(files, record, shape)[1].markers()

    assert between(None, None) == markers
    assert between(None, 15) == [(10, 15)]
    assert between(15, 30) == [(15, 20)]
    assert between(15, 31) == [(15, 20), (30, 31)]
    assert between(20, 30) == []
    assert between(99, None) == [(99, None)]


def test_rows_that_are_dropped_end_a_slice_too() -> None:
    shape = TableShape(8, 8)
    entries: dict[Key, bytes | None] = dict.fromkeys(range(100_000))
    outputs = Outputs(shape, Merge(version_of(shape, [Layer(entries, [], 1)]), False))
    assert outputs.write(1 << 40, slice_bytes=1 << 14) == DONE
    assert outputs.rows() == []
    assert outputs.reasons[MORE] >= 80


def test_a_bound_that_is_no_key_of_the_table_is_refused() -> None:
    merge = Merge(version_of(TableShape(8, 8), [Layer({1: bytes(8)}, [], 1)]), False)
    builder = SegmentBuilder(MemoryFiles(), NAME, SEGMENT_ID, UUID, TableShape(8, 8))
    with pytest.raises(ValueError, match="has 8 bytes, not 3"):
        merge.write(builder, 1 << 20, stop=b"abc")
    builder.abort()
