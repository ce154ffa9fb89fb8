"""Columns against plain lists."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cesium.columns import Column
from cesium.errors import SchemaError

LISTS = st.one_of(
    st.tuples(st.just("str"), st.lists(st.text(max_size=5))),
    st.tuples(st.just("bytes"), st.lists(st.binary(max_size=5))),
)


@given(LISTS, st.data())
def test_a_column_reads_as_its_list(case, data):
    kind, values = case
    column = Column.from_values(values, kind)
    assert len(column) == len(values)
    assert list(column) == column.to_list() == column.to_numpy().tolist() == values
    assert [column[row] for row in range(len(values))] == values
    assert [column[row] for row in range(-len(values), 0)] == values
    for wrong in (len(values), -len(values) - 1):
        with pytest.raises(IndexError):
            column[wrong]
    cut = data.draw(st.slices(len(values) + 1))
    assert column[cut].to_list() == values[cut]
    mask = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    kept = [value for value, keep in zip(values, mask, strict=True) if keep]
    assert column[np.array(mask, bool)].to_list() == kept
    if values:
        rows = data.draw(st.lists(st.integers(-len(values), len(values) - 1)))
        assert column.take(rows).to_list() == [values[row] for row in rows]
        assert column[rows].to_list() == column[np.array(rows, int)].to_list()
    assert bool((column == values).all()) and not bool((column != values).any())
    assert pickle.loads(pickle.dumps(column[cut])).to_list() == values[cut]


def test_slices_share_the_data_and_take_does_not():
    column = Column.from_values(["a", "bc", "def", ""], "str")
    part = column[1:3]
    assert np.shares_memory(part.data, column.data)
    assert np.shares_memory(part.offsets, column.offsets)
    assert part[1:].to_list() == ["def"] and part[::-1].to_list() == ["def", "bc"]
    assert part.take([1]).nbytes == 3 + 16
    assert column.nbytes == 6 + 5 * 8 and part.nbytes == 5 + 3 * 8
    assert column[3:1].to_list() == []


def test_arrays_are_kept_without_a_copy():
    offsets, data = np.array([1, 2, 4]), np.frombuffer(b"xabcx", np.uint8)
    column = Column(offsets, data, "bytes")
    assert np.shares_memory(column.offsets, offsets) and np.shares_memory(column.data, data)
    assert column.to_list() == [b"a", b"bc"]


def test_comparison_is_row_by_row():
    column = Column.from_values(["a", "b", "a"], "str")
    assert (column == "a").tolist() == [True, False, True]
    assert (column != "a").tolist() == [False, True, False]
    assert (column == ["a", "x", "a"]).tolist() == [True, False, True]
    assert (column == column[:]).all()
    with pytest.raises(ValueError, match="3 rows"):
        column == ["a"]  # noqa: B015
    assert (column == 5) is False
    with pytest.raises(TypeError):
        hash(column)


def test_a_column_is_immutable():
    column = Column.from_values([b"a"], "bytes")
    with pytest.raises(AttributeError):
        column.kind = "str"
    with pytest.raises(AttributeError):
        del column.data
    with pytest.raises(ValueError, match="read-only"):
        column.data[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        column.offsets[0] = 1


def test_repr_shows_a_small_head():
    column = Column.from_values((str(row) for row in range(1000)), "str")
    assert repr(column) == ("Column(['0', '1', '2', '3', '4', '5', ...], kind='str', len=1000)")
    assert repr(column[:1]) == "Column(['0'], kind='str', len=1)"


def test_numpy_reads_a_column():
    array = np.asarray(Column.from_values(["a", "bc"], "str"))
    assert array.dtype == object and array.tolist() == ["a", "bc"]


def test_long_columns_iterate_in_chunks():
    values = [str(row) for row in range(10_000)]
    assert list(Column.from_values(values, "str")[3:]) == values[3:]


@pytest.mark.parametrize(
    ("offsets", "data", "kind"),
    [
        ([], b"", "str"),
        ([0, 2, 1], b"ab", "str"),
        ([-1, 1], b"ab", "str"),
        ([0, 3], b"ab", "str"),
        ([0, 1], b"ab", "int"),
        ([0.0, 1.0], b"ab", "str"),
        ([[0, 1]], b"ab", "str"),
        (np.array([0, 1], "i4"), b"ab", "str"),
        (np.array([0, 2**62, 1]), b"ab", "str"),
    ],
)
def test_arrays_that_are_no_column_are_refused(offsets, data, kind):
    with pytest.raises(SchemaError):
        Column(offsets, np.frombuffer(data, np.uint8), kind)


def test_data_of_another_dtype_is_refused():
    with pytest.raises(SchemaError, match="uint8"):
        Column([0, 1], np.array([1.0]), "bytes")


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a", 1], "str"), ([b"a"], "str"), (["é", "\ud800"], "str"), (["a"], "bytes"),
     ([5], "bytes"), (["a"], "other")],
)  # fmt: skip
def test_values_of_another_type_are_refused(values, kind):
    with pytest.raises(SchemaError):
        Column.from_values(values, kind)


def test_wrong_indices_are_refused():
    column = Column.from_values(["a", "b"], "str")
    for wrong in ([2], [-3]):
        with pytest.raises(IndexError):
            column.take(wrong)
    with pytest.raises(SchemaError):
        column.take([0.5])
    with pytest.raises(SchemaError):
        column.take([[0]])
    with pytest.raises(IndexError):
        column[np.array([True])]
    with pytest.raises(TypeError):
        column["a"]
