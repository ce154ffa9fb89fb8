"""Frames as rows: pandas, polars, Arrow and streams of it, and what is refused by name."""

from __future__ import annotations

import datetime
import decimal
import os
import sys
import uuid
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow
import pytest

import cesium
from cesium.errors import SchemaError

COUNT = 500
TIMES = np.datetime64("2026-01-01", "ns") + np.arange(COUNT) * np.timedelta64(1, "m")


def ticks() -> Any:
    return pandas.DataFrame(
        {
            "ts": TIMES[::-1],
            "price": np.arange(COUNT) / 4,
            "size": np.arange(COUNT, dtype="i4"),
            "side": np.arange(COUNT) % 2 == 0,
            "venue": [("", "Zürich", "NYC")[row % 3] for row in range(COUNT)],
        }
    )


def forms(frame: Any) -> dict[str, Any]:
    table = pyarrow.Table.from_pandas(frame)
    return {
        "pandas": frame,
        "polars": polars.from_pandas(frame),
        "arrow": table,
        "batch": table.combine_chunks().to_batches()[0],
        "chunks": pyarrow.Table.from_batches(table.to_batches(max_chunksize=7)),
        "slice": pyarrow.concat_tables([table.slice(0, 3), table]).slice(3),
        "duckdb": duckdb.from_arrow(table),
    }


FORMS = list(forms(ticks()))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize("dtype", ["?", "u1", "f2", "f8", "M8[D]", "M8[us]", "m8[s]", "V4"])
def test_arrays_in_rows_go_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    """Bits of bool, and days of 32 bits, are not laid out as numpy has them."""
    fields = [("v", dtype, shape), ("n", "i4")]
    rows = np.zeros(20, fields)
    bits = np.random.default_rng(1).integers(0, 2, (20, *shape), "u4")
    rows["v"] = bits.view("V4") if dtype == "V4" else bits.astype(dtype)
    store = cesium.open(":memory:", key="u4", value=fields)
    store.bulk_load(np.arange(20), rows)
    given = store.range().to_arrow().slice(3, 11)
    again = cesium.from_frame(":memory:", given, key="key")
    assert again.value == store.value
    assert (again.range().values().arrays() == rows[3:14]).all()


@pytest.mark.parametrize("form", [name for name in FORMS if name != "duckdb"])
def test_a_frame_becomes_a_store(tmp_path: Path, form: str) -> None:
    store = cesium.from_frame(tmp_path / "s", forms(ticks())[form], "ts", durability="process")
    assert store.options.key == "datetime64[ns]" and len(store) == COUNT
    assert store.values_codec.dtype.names == ("price", "size", "side", "venue")
    assert str(store.values_codec.dtype["venue"]) == "<U6"
    expected = ticks().set_index("ts").sort_index()
    found = store.range().to_pandas()
    assert found.index.tolist() == expected.index.tolist()
    for name in expected.columns:
        assert found[name].tolist() == expected[name].tolist()
    store.close()
    again = cesium.open(tmp_path / "s", flag="r")
    assert again[TIMES[0]].venue == expected["venue"].iloc[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", ["bulk_load", "put_many"])
def test_loads_take_frames(form: str, call: str) -> None:
    given = forms(ticks()[["price", "ts"]])[form]
    store = cesium.open(":memory:", key="datetime64[us]", value="f8")
    commit = getattr(store, call)(given, key="ts")
    assert commit.rows == COUNT == len(store)
    assert store[TIMES[0]] == (COUNT - 1) / 4
    transaction = store.transaction()
    with transaction:
        transaction.put_many(given if form != "duckdb" else ticks()[["ts", "price"]], key=["ts"])
    assert store.range().sum() == np.sum(np.arange(COUNT) / 4)


@pytest.mark.parametrize("form", FORMS)
def test_composite_keys_and_text(form: str) -> None:
    frame = pandas.DataFrame({"name": ["b", "a", "a"], "n": [1, 2, 1], "word": ["x", "é", ""]})
    store = cesium.from_frame(":memory:", forms(frame)[form], ["name", "n"])
    assert store.options.key == ["str", "i8"] and store.options.value == "str"
    assert list(store.range()) == [(("a", 1), ""), (("a", 2), "é"), (("b", 1), "x")]


def test_an_index_is_a_key() -> None:
    frame = ticks().set_index("ts")[["price"]]
    store = cesium.from_frame(":memory:", frame)
    assert store.options.key == "datetime64[ns]" and store.options.value == "f8"
    pandas.testing.assert_frame_equal(
        store.range().to_pandas().rename_axis("ts").rename(columns={"value": "price"}),
        frame.sort_index(), check_freq=False,
    )  # fmt: skip
    two = cesium.from_frame(":memory:", ticks().set_index(["venue", "ts"])[["size"]])
    assert two.options.key == ["str", "datetime64[ns]"]
    unnamed = cesium.from_frame(":memory:", pandas.DataFrame({"x": [1.0, 2.0]}, index=["b", "a"]))
    assert list(unnamed.range()) == [("a", 2.0), ("b", 1.0)]
    beside = pandas.DataFrame({"x": [1.0], "y": [2]}, index=[7])
    assert list(cesium.from_frame(":memory:", beside, "y").range()) == [(2, 1.0)]


def test_what_a_range_gives_goes_in_again() -> None:
    for key, value in (("u4", "f8"), (("str", "i2"), [("a", "f4"), ("b", "?")]), ("str", "bytes")):
        store = cesium.open(":memory:", key=key, value=value)
        row = {"f8": 1.5, "bytes": b"\0x"}.get(str(value), (0.5, True))
        store[{"u4": 7, "str": "k"}.get(str(key), ("k", 3))] = row
        for given in (store.range().to_arrow(), store.range(), store.range().to_polars()):
            copy = cesium.open(":memory:", key=key, value=value)
            copy.bulk_load(given)
            assert list(copy.range()) == list(store.range())


MAPPED = {
    "int8": (pyarrow.int8(), [1, -2], "i1"),
    "uint64": (pyarrow.uint64(), [1, 2**64 - 1], "u8"),
    "half": (pyarrow.float16(), [np.float16(0.5), np.float16(2)], "f2"),
    "bool": (pyarrow.bool_(), [True, False], "bool"),
    "large text": (pyarrow.large_string(), ["a", "é"], "str"),
    "view": (pyarrow.string_view(), ["short", "longer than twelve bytes"], "str"),
    "binary view": (pyarrow.binary_view(), [b"s", b"longer than twelve bytes"], "bytes"),
    "binary": (pyarrow.binary(), [b"", b"\0"], "bytes"),
    "fixed": (pyarrow.binary(3), [b"abc", b"d\0f"], "V3"),
    "date32": (pyarrow.date32(), [datetime.date(2026, 1, 2), datetime.date(1900, 1, 1)],
               "datetime64[D]"),
    "date64": (pyarrow.date64(), [datetime.date(2026, 1, 2), datetime.date(1900, 1, 1)],
               "datetime64[ms]"),
    "seconds": (pyarrow.timestamp("s"), [datetime.datetime(2026, 1, 2)] * 2, "datetime64[s]"),
    "zone": (pyarrow.timestamp("us", "Europe/Zurich"),
             [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)] * 2, "datetime64[us]"),
    "duration": (pyarrow.duration("ms"), [datetime.timedelta(seconds=3)] * 2, "timedelta64[ms]"),
    "time of day": (pyarrow.time32("s"), [datetime.time(1), datetime.time(2)], "timedelta64[s]"),
    "categories": (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), ["x", "y"], "str"),
    "coded numbers": (pyarrow.dictionary(pyarrow.int32(), pyarrow.int64()), [7, 9], "i8"),
    "vector": (pyarrow.list_(pyarrow.float32(), 2), [[1.0, 2.0], [3.0, 4.0]], None),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPPED)
def test_types_that_are_mapped(name: str) -> None:
    kind, rows, spec = MAPPED[name]
    column = pyarrow.array(rows, kind)
    padded = pyarrow.concat_arrays([column, column]).slice(1, 3)
    for given in (column, padded):
        table = pyarrow.table({"k": pyarrow.array(range(len(given))), "v": given})
        store = cesium.from_frame(":memory:", table, "k")
        if spec is not None:
            assert store.options.value == spec
        found = store.range().to_arrow()["value"]
        expected = given.cast(pyarrow.string()) if name == "categories" else given
        if name == "zone":
            expected = given.cast(pyarrow.timestamp("us"))
        elif name == "coded numbers":
            expected = given.dictionary_decode()
        elif name == "time of day":
            expected = given.cast(pyarrow.int32()).cast(pyarrow.int64()).cast(pyarrow.duration("s"))
        elif name == "date64":
            expected = given.cast(pyarrow.timestamp("ms"))
        assert found.to_pylist() == expected.to_pylist()


REFUSED = {
    "decimal": (pyarrow.decimal128(9, 2), [decimal.Decimal("1.25")], r"\(decimal\).*float64"),
    "list": (pyarrow.list_(pyarrow.int64()), [[1]], r"\(list\)"),
    "struct": (pyarrow.struct([("a", pyarrow.int64())]), [{"a": 1}], r"\(struct\).*its fields"),
    "map": (pyarrow.map_(pyarrow.string(), pyarrow.int64()), [[("a", 1)]], r"\(map\)"),
    "null": (pyarrow.null(), [None], r"\(null\)"),
    "interval": (pyarrow.month_day_nano_interval(), [(1, 2, 3)], r"\(interval\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_types_that_are_refused(tmp_path: Path, name: str) -> None:
    kind, rows, message = REFUSED[name]
    table = pyarrow.table({"k": [1], "odd": pyarrow.array(rows, kind)})
    with pytest.raises(SchemaError, match=rf"column 'odd' {message}"):
        cesium.from_frame(tmp_path / "s", table, "k")
    assert not os.path.exists(tmp_path / "s")
    store = cesium.open(":memory:", key="i8", value="f8")
    with pytest.raises(SchemaError, match="'odd'"):
        store.bulk_load(table, key="k")


def test_nulls_are_nan_and_nat_or_refused(tmp_path: Path) -> None:
    table = pyarrow.table(
        {"k": [1, 2], "f": [None, 1.5], "t": pyarrow.array([5, None], pyarrow.timestamp("s"))}
    )
    frame = table.to_pandas()
    for given in (table, frame, polars.from_arrow(table)):
        store = cesium.from_frame(":memory:", given, "k")
        assert np.isnan(store[1].f) and np.isnat(store[2].t) and store[2].f == 1.5
    for kind, rows in ((pyarrow.int64(), [1, None]), (pyarrow.string(), ["a", None]),
                       (pyarrow.bool_(), [True, None])):  # fmt: skip
        column = pyarrow.array(rows, kind)
        table = pyarrow.table({"k": [1, 2], "v": column})
        nullable = table.to_pandas(types_mapper=pandas.ArrowDtype)
        for given in (table, polars.from_arrow(table), nullable):
            path = tmp_path / "s"
            with pytest.raises(SchemaError, match=r"column 'v'.*row 1.*is null"):
                cesium.from_frame(path, given, "k")
            assert not path.exists()  # a store that was made for it is gone again
    with pytest.raises(SchemaError, match=r"column 'k'.*is null"):
        cesium.from_frame(":memory:", pyarrow.table({"k": [1.0, None], "v": [1, 2]}), "k")
    with pytest.raises(SchemaError, match=r"column 'k'.*is null"):
        cesium.from_frame(":memory:", pandas.DataFrame({"k": [1.0, np.nan], "v": [1, 2]}), "k")


def test_what_pandas_has_besides_numpy() -> None:
    frame = pandas.DataFrame({"k": [1, 2]})
    frame["zone"] = pandas.to_datetime(["2026-01-02 03:00", "2026-01-02 04:00"]).tz_localize(
        "Europe/Zurich"
    )
    frame["code"] = pandas.Categorical(["u", "v"])
    frame["whole"] = pandas.array([3, 4], "Int32")
    frame["real"] = pandas.array([0.5, None], "Float64")
    frame["text"] = pandas.array(["a", "bc"], "string[python]")
    frame["arrow"] = pandas.array([1, 2], pandas.ArrowDtype(pyarrow.int16()))
    store = cesium.from_frame(":memory:", frame, "k")
    row = store[1]
    assert row[:3] == (np.datetime64("2026-01-02T02:00"), "u", 3)
    assert np.isnan(store[2].real) and store[2].text == "bc" and row.arrow == 1
    assert str(store.values_codec.dtype["whole"]) == "int32"
    missing = pandas.DataFrame({"k": [1, 2], "v": pandas.Categorical(["a", None])})
    with pytest.raises(SchemaError, match=r"column 'v' \(category\): row 1 is null"):
        cesium.from_frame(":memory:", missing, "k")
    for odd, words in (
        (pandas.period_range("2026-01", periods=2, freq="M"), "period"),
        ([[1], [2]], "object of list"),
        ([decimal.Decimal(1), decimal.Decimal(2)], "object of Decimal"),
        (["a", 2], r"object\): row 1: expected str, given int"),
    ):
        with pytest.raises(SchemaError, match=f"column 'v'.*{words}"):
            cesium.from_frame(":memory:", pandas.DataFrame({"k": [1, 2], "v": odd}), "k")
    with pytest.raises(SchemaError, match="name is text, not 3"):
        cesium.from_frame(":memory:", pandas.DataFrame({3: [1]}), "k")


def test_pandas_without_pyarrow(monkeypatch: Any) -> None:
    frame = pandas.DataFrame({"k": pandas.array(["b", "a"], "string[python]"), "v": [1.0, 2.0]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert list(cesium.from_frame(":memory:", frame, "k").range()) == [("a", 2.0), ("b", 1.0)]


def test_columns_of_arrow_are_keys_and_values() -> None:
    store = cesium.open(":memory:", key="str", value="i8")
    store.put_many(pyarrow.array(["b", "a"]), polars.Series([1, 2]))
    store.bulk_load(polars.Series(["c"]), pyarrow.chunked_array([[3], []]))
    store.put_many(pandas.Series(["d"]), pandas.Series([4]))
    assert dict(store.range()) == {"a": 2, "b": 1, "c": 3, "d": 4}
    with pytest.raises(SchemaError, match="row 1 of a batch is null"):
        store.put_many(pyarrow.array(["x", None]), [1, 2])


def test_a_uuid_column() -> None:
    names = [uuid.UUID(int=row) for row in (2, 1)]
    table = pyarrow.table({"id": pyarrow.array([name.bytes for name in names], pyarrow.uuid()),
                           "n": [1, 2]})  # fmt: skip
    store = cesium.from_frame(":memory:", table, "id")
    assert store.options.key == "uuid" and store[names[0]] == 1
    raw = pyarrow.table({"id": pyarrow.array([b"abc"], pyarrow.binary(3)), "n": [1]})
    assert list(cesium.from_frame(":memory:", raw, "id").range()) == [(b"abc", 1)]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "key= names the key columns: one of a, b"),
        ("c", "no column 'c' to be the key: there are a, b"),
        (["a", "a"], "'a' is twice in the key"),
        (["a", "b"], "no column beside the key"),
    ],
)
def test_wrong_keys(key: Any, message: str) -> None:
    for given in (pandas.DataFrame({"a": [1], "b": [2]}), pyarrow.table({"a": [1], "b": [2]})):
        with pytest.raises(SchemaError, match=message):
            cesium.from_frame(":memory:", given, key)


def test_frames_that_do_not_fit_the_schema() -> None:
    frame = pyarrow.table({"k": [1, 300], "x": [1.5, 2.5], "y": [1, 2]})
    plain = cesium.open(":memory:", key="u1", value="f8")
    with pytest.raises(SchemaError, match="one f8, given 2 columns beside the key: x, y"):
        plain.bulk_load(frame, key="k")
    with pytest.raises(SchemaError, match="key column 'k'"):
        plain.bulk_load(frame.select(["k", "x"]), key="k")
    with pytest.raises(SchemaError, match="1 part, u1, given 2 to make it of: k, x"):
        plain.bulk_load(frame, key=["k", "x"])
    fields = cesium.open(":memory:", key="u2", value=[("x", "i4"), ("z", "i4")])
    with pytest.raises(SchemaError, match="fields x, z, given the columns x, y"):
        fields.bulk_load(frame, key="k")
    whole = cesium.open(":memory:", key="u2", value=[("x", "i4"), ("y", "i4")])
    with pytest.raises(SchemaError, match="field 'x'"):
        whole.bulk_load(frame, key="k")
    for given in ([1], "frame", 7, frame["k"], polars.LazyFrame({"k": [1]})):
        with pytest.raises(SchemaError, match="expected a"):
            plain.bulk_load(given, key="k")
    assert len(plain) == len(fields) == len(whole) == 0


def test_text_in_fields_of_fixed_width() -> None:
    store = cesium.open(":memory:", key="u1", value=[("u", "U3"), ("s", "S2")])
    table = pyarrow.table({"k": [1, 2], "u": ["", "ä€😀"], "s": [b"xy", b""]})
    store.bulk_load(table, key="k")
    assert [tuple(row) for _, row in store.range()] == [("", b"xy"), ("ä€😀", b"")]
    for column, rows, message in (
        ("u", ["a", "four"], "'u': row 1 has 4 characters, the field 3"),
        ("s", [b"a", b"abc"], "'s': row 1 has 3 bytes, the field 2"),
        ("s", [b"a", b"b\0"], "'s': a row ends in NUL"),
        ("s", ["a", "b"], "'s' is str, the field"),
    ):
        with pytest.raises(SchemaError, match=message):
            store.put_many(
                table.set_column(table.column_names.index(column), column, [rows]), key="k"
            )


def stream_of(count: int, pieces: int, ascending: bool) -> Any:
    keys = np.arange(count, dtype="u8")
    if not ascending:
        keys = np.random.default_rng(5).permutation(keys)
    schema = pyarrow.schema([("k", pyarrow.uint64()), ("v", pyarrow.float64())])
    batches = (
        pyarrow.record_batch([part, part.astype("f8") / 2], schema=schema)
        for part in np.array_split(keys, pieces)
    )
    return pyarrow.RecordBatchReader.from_batches(schema, batches)


@pytest.mark.parametrize("ascending", [True, False])
def test_streams_larger_than_the_memory_limit(tmp_path: Path, ascending: bool) -> None:
    count = 300_000
    seen: list[Any] = []
    store = cesium.from_frame(
        tmp_path / "s", stream_of(count, 60, ascending), "k", memory_limit="1MiB",
        durability="process", progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    keys, values = store.range().arrays()
    assert keys.tolist() == list(range(count)) and (values == keys / 2).all()
    assert store.sequence == 1 and seen[-1] == (count, count)
    assert store.verify().ok
    if ascending:  # runs that rise are not merged: written once
        assert store.stats().write_amplification < 1.3
    store.close()
    assert len(cesium.open(tmp_path / "s", flag="r")) == count


def test_runs_that_rise_at_first_only(tmp_path: Path) -> None:
    """What was taken for one run is merged with what comes below it; later ones win."""
    schema = pyarrow.schema([("k", pyarrow.uint64()), ("v", pyarrow.int64())])
    pieces = [np.arange(40_000), np.arange(40_000, 80_000), np.arange(79_000, 80_000),
              np.arange(0, 80_000, 3), np.arange(80_000, 120_000)]  # fmt: skip
    batches = [
        pyarrow.record_batch([part.astype("u8"), np.full(len(part), number)], schema=schema)
        for number, part in enumerate(pieces)
    ]
    store = cesium.open(tmp_path / "s", key="u8", value="i8", memory_limit="1MiB")
    reader = pyarrow.RecordBatchReader.from_batches(schema, batches)
    store.bulk_load(reader, key="k", threads=2)
    expected = np.zeros(120_000, "i8")
    for number, part in enumerate(pieces):
        expected[part] = number
    keys, values = store.range().arrays()
    assert len(keys) == 120_000 and values.tolist() == expected.tolist()
    assert store.verify().ok
    used = {record.name for record in os.scandir(tmp_path / "s") if "segment" in record.name}
    assert len(used) == store.stats().segments


def test_a_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    schema = pyarrow.schema([("k", pyarrow.uint64()), ("v", pyarrow.float64())])

    def broken() -> Any:
        yield from stream_of(200_000, 20, True)
        raise RuntimeError("the source went away")

    store = cesium.open(tmp_path / "s", key="u8", value="f8", memory_limit="1MiB")
    before = set(os.listdir(tmp_path / "s"))
    with pytest.raises(OSError, match="the source went away"):
        store.bulk_load(pyarrow.RecordBatchReader.from_batches(schema, broken()), key="k")
    assert len(store) == 0 and store.sequence == 0 and set(os.listdir(tmp_path / "s")) == before
    with pytest.raises(OSError):
        cesium.from_frame(
            tmp_path / "new", pyarrow.RecordBatchReader.from_batches(schema, broken()), "k"
        )
    assert not (tmp_path / "new").exists()
    used = stream_of(10, 1, True)
    used.read_all()
    assert store.bulk_load(used, key="k").rows == 0


def test_empty_frames() -> None:
    store = cesium.from_frame(":memory:", ticks()[:0][["ts", "price"]], "ts")
    assert len(store) == 0 and store.options.key == "datetime64[ns]"
    table = pyarrow.table({"k": pyarrow.array([], pyarrow.string()), "v": pyarrow.array([], "f8")})
    store = cesium.from_frame(":memory:", table, "k")
    assert store.put_many(table, key="k").rows == 0 and store.bulk_load(table, key="k").rows == 0


def test_a_stream_with_several_texts_needs_widths() -> None:
    table = pyarrow.table({"k": [1], "a": ["x"], "b": ["yz"]})
    with pytest.raises(SchemaError, match=r"'a' \(str\) has no width.*'U16'"):
        cesium.from_frame(":memory:", table.to_reader(), "k")
    store = cesium.from_frame(":memory:", table.to_reader(), "k", value=[("a", "U4"), ("b", "U4")])
    assert tuple(store[1]) == ("x", "yz")


def test_an_existing_store_gets_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "s"
    cesium.from_frame(path, pyarrow.table({"k": [1], "v": [1.0]}), "k").close()
    with cesium.from_frame(path, pyarrow.table({"k": [2], "v": [2.0]}), "k") as store:
        assert dict(store.range()) == {1: 1.0, 2: 2.0}
    with pytest.raises(SchemaError, match="stores key"):
        cesium.from_frame(path, pyarrow.table({"k": ["x"], "v": [2.0]}), "k")
    assert dict(cesium.open(path).range()) == {1: 1.0, 2: 2.0}


def test_frames_into_other_tables() -> None:
    store = cesium.open(":memory:", key="u8", value="f8")
    table = store.table("trades", key="str", value="i8")
    table.bulk_load(pyarrow.table({"k": ["a"], "v": [1]}), key="k")
    assert table["a"] == 1 and table.range().to_arrow().num_rows == 1 and table.range().sum() == 1
