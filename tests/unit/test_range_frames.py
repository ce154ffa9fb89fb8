"""Ranges as frames: pandas, polars, Arrow, and streams of it."""

from __future__ import annotations

import gc
import sys
import threading
import uuid
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow
import pytest

import cesium
from cesium.errors import ClosedError, SchemaError

FIELDS = [
    ("price", "f8"), ("size", "i4"), ("flag", "?"), ("venue", "S4"), ("name", "U3"), ("raw", "V3"),
    ("grid", "(2,3)f4"), ("when", "datetime64[D]"), ("took", "timedelta64[ms]"), ("half", "f2"),
]  # fmt: skip


def rows_of(count: int) -> Any:
    values = np.zeros(count, FIELDS)
    values["price"] = np.arange(count) / 4
    values["size"] = np.arange(count) - 3
    values["flag"] = np.arange(count) % 3 == 0
    values["venue"] = [b"ab", b"", b"cdef"][:count] + [b"x"] * max(0, count - 3)
    values["name"] = ["hé", "", "a"][:count] + ["z"] * max(0, count - 3)
    values["raw"] = b"a\0b"
    values["grid"] = np.arange(6).reshape(2, 3)
    values["when"] = np.datetime64("2026-11-21") + np.arange(count)
    values["when"][1:2] = np.datetime64("NaT")
    values["took"] = np.arange(count)
    values["half"] = 0.5
    return values


@pytest.fixture
def store() -> Any:
    store = cesium.open(":memory:", key="datetime64[ns]", value=FIELDS)
    store.bulk_load(np.arange(100).astype("M8[ns]"), rows_of(100))
    store.put_many(np.arange(100, 120).astype("M8[ns]"), rows_of(20))  # in the memtable
    del store[np.datetime64(5, "ns")]
    return store


def test_every_type_of_a_field_goes_to_arrow(store: Any) -> None:
    keys, values = store.range().arrays()
    table = store.range().to_arrow()
    table.validate(full=True)
    assert table.column_names == ["key", *values.dtype.names]
    assert str(table.schema.field("key").type) == "timestamp[ns]"
    assert table["key"].to_numpy().tolist() == keys.tolist()
    assert table["price"].to_pylist() == values["price"].tolist()
    assert table["flag"].to_pylist() == values["flag"].tolist()
    assert table["venue"].to_pylist() == values["venue"].tolist()
    assert table["name"].to_pylist() == values["name"].tolist()
    assert table["raw"].to_pylist() == [bytes(row) for row in values["raw"]]
    assert table["grid"].to_pylist() == values["grid"].tolist()
    assert table["when"].to_pylist() == values["when"].tolist() and table["when"].null_count == 2
    assert table["took"].to_pylist() == values["took"].tolist()
    assert table["half"].to_pylist() == values["half"].tolist()


def test_pandas_and_polars_agree_with_arrays(store: Any) -> None:
    keys, values = store.range().arrays()
    names = [name for name in values.dtype.names if name != "grid"]
    frame = store.range().to_pandas(["key", *names])
    assert frame.index.name == "key" and frame.index.to_numpy().tolist() == keys.tolist()
    assert frame["price"].to_numpy().tolist() == values["price"].tolist()
    assert frame["size"].dtype == np.int32 and frame["flag"].dtype == np.bool_
    assert frame["venue"].tolist() == values["venue"].tolist()
    assert frame["name"].tolist() == values["name"].tolist()
    assert frame["raw"].tolist() == [bytes(row) for row in values["raw"]]
    assert frame["when"].isna().sum() == 2 and frame["took"].dtype == "timedelta64[ms]"
    assert frame["half"].dtype == np.float16
    with pytest.raises(SchemaError, match=r"'grid'.*one dimension"):
        store.range().to_pandas()
    some = store.range().to_pandas(columns=["size"])  # the index comes without being named
    assert some.index.tolist() == frame.index.tolist() and list(some.columns) == ["size"]
    flat = store.range().to_pandas(["key", "size"], index=False)
    assert list(flat.columns) == ["key", "size"] and isinstance(flat.index, pandas.RangeIndex)
    polar = store.range().to_polars()
    assert polar["price"].to_list() == values["price"].tolist()
    assert polar["grid"].to_numpy().tolist() == values["grid"].tolist()
    assert polar["name"].to_list() == values["name"].tolist()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [None, 0, 1, 7, 500])
def test_direction_and_limit(store: Any, reverse: bool, limit: int | None) -> None:
    view = store.range(np.datetime64(3, "ns"), None, reverse=reverse, limit=limit)
    keys, values = view.arrays()
    table = view.to_arrow(["size", "key"])
    assert table.column_names == ["size", "key"]
    assert table["size"].to_pylist() == values["size"].tolist()
    assert table["key"].to_numpy().tolist() == keys.tolist()
    assert len(view.to_pandas(["price"])) == len(keys)
    pieces = pyarrow.RecordBatchReader.from_stream(view.arrow_stream(["size"], rows=8))
    assert pieces.read_all()["size"].to_pylist() == values["size"].tolist()


def test_arrays_and_batches_of_some_fields(store: Any) -> None:
    keys, values = store.range().arrays()
    some_keys, some = store.range().arrays(columns=["size", "price"])
    assert some.dtype.names == ("size", "price") and some_keys.tolist() == keys.tolist()
    assert some["size"].tolist() == values["size"].tolist()
    assert some["price"].tolist() == values["price"].tolist()
    assert store.range().values().arrays(columns=["flag"])["flag"].tolist() == (
        values["flag"].tolist()
    )
    pieces = list(store.range().batches(50, columns=["size"]))
    assert [len(piece[0]) for piece in pieces] == [50, 50, 19]
    assert np.concatenate([piece[1] for piece in pieces])["size"].tolist() == (
        values["size"].tolist()
    )
    with pytest.raises(SchemaError, match="keys has no fields"):
        store.range().keys().arrays(columns=["size"])
    with pytest.raises(SchemaError, match="there is no column 'key'"):
        store.range().arrays(columns=["key"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["nothing"], "there is no column 'nothing': there are key, price"),
        ("price", r"a list of names, such as \['price'\]"),
        ([], "at least one name"),
        (["price", "price"], "'price' is wanted twice"),
    ],
)
def test_wrong_columns_are_named(store: Any, columns: Any, message: str) -> None:
    for terminal in ("to_arrow", "to_pandas", "to_polars", "arrow_stream"):
        with pytest.raises(SchemaError, match=message):
            getattr(store.range(), terminal)(columns)


def test_keys_and_values_alone(store: Any) -> None:
    assert store.range().keys().to_arrow().column_names == ["key"]
    assert store.range().values().to_arrow().column_names == [name for name, _ in FIELDS]
    assert list(store.keys().to_polars().columns) == ["key"]
    assert store.keys().to_pandas().shape == (119, 0)


KEYS = [
    ("u1", [3, 200]), ("i8", [-5, 2**62]), ("f4", [-1.5, 2.25]), ("bool", [False, True]),
    ("str", ["a", "zß" * 300]), ("bytes", [b"", b"\0x"]), ("S3", [b"a", b"abc"]),
    ("S12", [b"a", b"abcdefghijkl"]), ("timedelta64[s]", np.array([1, 2], "m8[s]")),
    ("datetime64[h]", np.array([1, 2], "M8[h]")),
]  # fmt: skip


@pytest.mark.parametrize(("key", "rows"), KEYS, ids=[key for key, _ in KEYS])
def test_every_type_of_key(key: str, rows: Any) -> None:
    store = cesium.open(":memory:", key=key, value="str")
    store.put_many(rows, ["one", "zwö"])
    table = store.range().to_arrow()
    table.validate(full=True)
    expected = [row for row, _ in store.range()]
    if key.startswith(("timedelta", "datetime")):
        expected = [row.astype(object) for row in expected]
    assert table["key"].to_pylist() == expected and table["value"].to_pylist() == ["one", "zwö"]
    frame = store.range().to_pandas()
    assert frame["value"].tolist() == ["one", "zwö"] and frame.index.name == "key"
    assert store.range().to_polars()["value"].to_list() == ["one", "zwö"]
    assert frame.index.tolist() == pandas.Index(expected).tolist()


@pytest.mark.parametrize("key", [("i4", "-i4"), ("datetime64[s]", "str"), ("str", "-bytes", "u2")])
def test_composite_keys_are_columns_or_a_multi_index(key: Any) -> None:
    samples = {"i4": [1, 2], "-i4": [5, 6], "datetime64[s]": np.array([7, 8], "M8[s]"),
               "str": ["a", "b"], "-bytes": [b"x", b""], "u2": [1, 1]}  # fmt: skip
    store = cesium.open(":memory:", key=key, value="i8")
    parts = tuple(np.array(samples[part]) if part != "-bytes" else samples[part] for part in key)
    store.put_many(tuple(cesium.Column.from_values(part, "bytes") if isinstance(part, list)
                         else part for part in parts), [10, 20])  # fmt: skip
    names = [f"key_{number}" for number in range(len(key))]
    table = store.range().to_arrow()
    assert table.column_names == [*names, "value"] and table["value"].to_pylist() == [10, 20]
    frame = store.range().to_pandas()
    assert list(frame.index.names) == names and frame["value"].tolist() == [10, 20]
    assert frame.index.get_level_values("key_1").tolist() == (
        store.range().to_pandas(["key_1"], index=False)["key_1"].tolist()
    )
    assert store.range().to_arrow(["value", "key_1"]).column_names == ["value", "key_1"]


def test_a_field_named_like_the_key() -> None:
    store = cesium.open(":memory:", key="u4", value=[("key", "f8"), ("_key", "f8")])
    store[1] = (2.0, 3.0)
    assert store.range().to_arrow().to_pylist() == [{"__key": 1, "key": 2.0, "_key": 3.0}]


def test_codecs_go_out_as_stored_and_to_pandas_decoded() -> None:
    store = cesium.open(":memory:", key="u4", value="json")
    store[1] = {"a": [1, None]}
    assert store.range().to_arrow()["value"].to_pylist() == ['{"a":[1,null]}']
    assert store.range().to_pandas()["value"].tolist() == [{"a": [1, None]}]
    key = cesium.KeyCodec(
        "reversed", lambda text: text[::-1].encode(), lambda raw: raw.decode()[::-1]
    )
    value = cesium.ValueCodec(
        "double", lambda value: b"%d" % (2 * value), lambda raw: int(raw) // 2
    )
    store = cesium.open(":memory:", key=key, value=value)
    store["ab"] = 21
    assert store.range().to_polars().rows() == [(b"ba", b"42")]
    assert store.range().to_pandas()["value"].to_dict() == {"ab": 21}
    identifiers = cesium.open(":memory:", key="uuid", value="bytes")
    name = uuid.UUID(int=7)
    identifiers[name] = b"seven"
    assert identifiers.range().to_arrow()["key"].to_pylist() in ([name], [name.bytes])
    assert identifiers.range().to_pandas().index.tolist() == [name.bytes]


def test_wide_rows_and_rows_of_many_fields() -> None:
    wide = cesium.open(":memory:", key="u4", value=[("a", "S600"), ("b", "i4")])
    wide.put_many([1, 2], np.array([(b"x", 5), (b"y" * 600, 6)], wide.values_codec.dtype))
    assert wide.range().to_arrow(["b", "key"]).to_pylist() == [
        {"b": 5, "key": 1},
        {"b": 6, "key": 2},
    ]
    names = [f"f{number}" for number in range(300)]
    many = cesium.open(":memory:", key="u4", value=[(name, "u1") for name in names])
    many[1] = tuple(number % 200 for number in range(300))
    assert many.range().to_arrow(["f299", "f1"]).to_pylist() == [{"f299": 99, "f1": 1}]
    assert many.range().to_pandas().shape == (1, 300)


def test_an_empty_store_has_columns(store: Any) -> None:
    for key, value in (("u8", "f8"), ("str", "bytes"), (("i4", "str"), FIELDS[:3]), ("u8", "json")):
        empty = cesium.open(":memory:", key=key, value=value).range()
        table = empty.to_arrow()
        assert table.num_rows == 0 and len(table.column_names) >= 2
        assert empty.to_polars().height == 0
        assert empty.to_pandas().shape[0] == 0
    gone = store.range(np.datetime64(500, "ns"), None)
    assert gone.to_arrow().num_rows == 0 and gone.to_pandas(["price"]).shape == (0, 1)


def test_what_has_no_type_is_refused_by_name() -> None:
    for value, words in (("c16", "complex128"), ("datetime64[ps]", r"datetime64\[ps\]")):
        store = cesium.open(":memory:", key="u8", value=value)
        store.put_many([1], np.zeros(1, value))
        with pytest.raises(SchemaError, match=rf"'value': Arrow has no.*{words}"):
            store.range().to_arrow()
        with pytest.raises(SchemaError, match=r"'value': Arrow has no"):
            pyarrow.table(store.range())
    far = cesium.open(":memory:", key="u8", value="datetime64[D]")
    far.put_many([1], np.array([2**40]).astype("M8[D]"))
    with pytest.raises(SchemaError, match="'value': a day beyond the 32 bits"):
        far.range().to_arrow()
    assert cesium.open(":memory:", key="u8", value="c16").range().to_pandas().shape == (0, 1)


def test_streams_are_for_any_consumer(store: Any) -> None:
    connection = duckdb.connect()
    view = store.range()
    assert pyarrow.table(view).num_rows == polars.DataFrame(view).height == 119
    connection.register("keys", view.keys())
    assert connection.sql("SELECT count(*) FROM keys").fetchall() == [(119,)]
    connection.register("prices", view.arrow_stream(["price", "size"], rows=10))
    asked = connection.sql("SELECT sum(price), max(size) FROM prices").fetchall()
    values = view.values().arrays()
    assert asked == [(values["price"].sum(), values["size"].max())]
    assert connection.sql("SELECT count(*) FROM prices").fetchall() == [(119,)]  # asked again


def test_a_stream_reads_one_snapshot_and_keeps_its_arrays() -> None:
    store = cesium.open(":memory:", key="u8", value="u8")
    store.bulk_load(np.arange(1000, dtype="u8"), np.arange(1000, dtype="u8"))
    reader = pyarrow.RecordBatchReader.from_stream(store.range().arrow_stream(rows=100))
    first = reader.read_next_batch()
    store.delete_range(None, None)
    rest = reader.read_all()
    assert first.num_rows + rest.num_rows == 1000
    del reader
    store.close()
    gc.collect()
    assert first["value"].to_pylist() == list(range(100))
    assert rest["value"].to_pylist() == list(range(100, 1000))


def test_a_stream_of_a_closed_store_says_so(store: Any) -> None:
    reader = pyarrow.RecordBatchReader.from_stream(store.range().arrow_stream(["price"], rows=10))
    reader.read_next_batch()
    store.close()
    with pytest.raises(Exception, match="closed"):
        reader.read_all()
    with pytest.raises(ClosedError):
        store.range().to_arrow()


def test_errors_in_a_stream_come_as_they_were(store: Any) -> None:
    far = cesium.open(":memory:", key="u8", value="datetime64[D]")
    far.put_many([1], np.array([2**40]).astype("M8[D]"))
    with pytest.raises(Exception, match=r"SchemaError: column 'value': a day beyond"):
        pyarrow.table(far.range())
    with pytest.raises(SchemaError, match="a day beyond"):
        far.range().to_polars()


def test_capsules_that_nobody_takes_are_freed(store: Any) -> None:
    """Streams and arrays end with whoever has them, taken or not, in any thread."""
    before = sys.getrefcount(store)
    for _ in range(5):
        store.range().__arrow_c_stream__()
    tables = [store.range().to_arrow() for _ in range(3)]

    def drop() -> None:
        while tables:
            tables.pop().slice(3, 4)

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join()
    gc.collect()
    assert sys.getrefcount(store) == before


def test_ranges_of_snapshots_and_transactions(store: Any) -> None:
    with store.snapshot() as snapshot:
        del store[np.datetime64(0, "ns")]
        assert snapshot.range().to_arrow(["key"]).num_rows == 119
    with store.transaction() as transaction:
        del transaction[np.datetime64(1, "ns")]
        assert transaction.range().to_pandas(["size"]).shape == (117, 1)
        assert pyarrow.table(transaction.range().arrow_stream(["size"])).num_rows == 117
    assert len(store) == 117


def test_long_values_come_in_batches_of_bounded_bytes() -> None:
    store = cesium.open(":memory:", key="u8", value="bytes")
    store.put_many(range(40), [bytes([row]) * (2 << 20) for row in range(40)])
    reader = pyarrow.RecordBatchReader.from_stream(store.range().arrow_stream())
    sizes = [batch.nbytes for batch in reader]
    assert len(sizes) > 1 and max(sizes) < 40 << 20
    assert sum(sizes) >= 80 << 20


def test_a_missing_package_says_which_extra(store: Any, monkeypatch: Any) -> None:
    for package, extra in (("pyarrow", "arrow"), ("polars", "polars"), ("pandas", "pandas")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=rf"pip install 'cesiumdb\[{extra}\]'"):
            getattr(store.range(), f"to_{extra}")(["price"])


def test_pandas_without_pyarrow_has_text_as_objects(monkeypatch: Any) -> None:
    store = cesium.open(":memory:", key="str", value="bytes")
    store["ä"] = b"\0"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    frame = store.range().to_pandas()
    assert frame["value"].tolist() == [b"\0"] and frame.index.tolist() == ["ä"]
