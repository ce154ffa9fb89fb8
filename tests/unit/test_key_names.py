"""Names of the key's columns: kept by the store, and what frames and files call them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest

import cesium
from cesium.cli.repair import key_type
from cesium.errors import SchemaError
from cesium.records import TableRecord
from cesium.repair import repair
from cesium.schema import table_of
from command_line import fail, succeed

HOURS = np.datetime64("2013-07-01", "us") + np.arange(6) * np.timedelta64(1, "h")
NAMES = ["time_hour", "carrier"]
NAMED = [("time_hour", "datetime64[us]"), ("carrier", "str")]
FIELDS = [("delay", "f8"), ("flight", "i4")]


def flights() -> Any:
    return pandas.DataFrame(
        {
            "carrier": ["UA", "AA", "B6", "UA", "DL", "AA"],
            "delay": np.arange(6) / 2,
            "time_hour": HOURS,
            "flight": np.arange(6, dtype="i4"),
        }
    )


def make(path: Path) -> cesium.Store:
    return cesium.from_frame(path, flights(), key=NAMES, durability="process")


def test_frames_get_the_names_back(tmp_path: Path) -> None:
    make(tmp_path / "s").close()
    with cesium.open(tmp_path / "s") as store:
        assert store.key_names == ("time_hour", "carrier")
        assert store.key == ["datetime64[us]", "str"]
        view = store.range()
        frame = view.to_pandas()
        assert frame.index.names == NAMES and list(frame.columns) == ["delay", "flight"]
        expected = flights().set_index(NAMES).sort_index()
        pandas.testing.assert_frame_equal(frame, expected)
        names = [*NAMES, "delay", "flight"]
        assert list(view.to_pandas(index=False).columns) == names
        assert view.to_arrow().column_names == names
        assert view.to_polars().columns == names
        assert polars.DataFrame(view).columns == names
        chosen = view.to_arrow(columns=["carrier", "flight"]).to_pydict()
        assert chosen["carrier"] == ["UA", "AA", "B6", "UA", "DL", "AA"]
        with pytest.raises(SchemaError, match="no column 'key_0': there are time_hour, carrier"):
            view.to_arrow(columns=["key_0"])


def test_one_key(tmp_path: Path) -> None:
    frame = flights()[["time_hour", "delay"]].set_index("time_hour")
    store = cesium.from_frame(tmp_path / "s", frame, durability="process")
    assert store.key == "datetime64[us]" and store.key_names == ("time_hour",)
    assert store.range().to_pandas().index.name == "time_hour"
    assert "key=[('time_hour', 'datetime64[us]')]" in repr(store)
    assert repr(store).splitlines()[4].split() == ["time_hour", "value"]
    assert ">time_hour</th>" in store._repr_html_()


def test_every_view_of_a_table_has_them(tmp_path: Path) -> None:
    with make(tmp_path / "s") as store:
        table = store.table("more", key=[("id", "u4")], value="f8")
        assert table.key_names == ("id",) and store.tables["more"].key_names == ("id",)
        table[3] = 1.5
        with store.snapshot() as snapshot, store.transaction() as transaction:
            for each in (store, snapshot, transaction):
                assert each.key_names == ("time_hour", "carrier")
                assert each.range(limit=1).to_arrow().column_names[:2] == NAMES
                assert each.table("more").key_names == ("id",)
                assert each.table("more").range().to_pandas().index.name == "id"
            transaction.table("more").put_many(pandas.DataFrame({"x": [2.0], "id": [4]}))
        assert dict(table.items()) == {3: 1.5, 4: 2.0}
        with pytest.raises(SchemaError, match="it was opened with the names ix"):
            store.table("more", key=[("ix", "u4")])
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert store.tables["more"].key_names == ("id",)


def test_types_agree_with_any_names_and_names_with_the_same_alone(tmp_path: Path) -> None:
    make(tmp_path / "s").close()
    for key in (None, ("datetime64[us]", "str"), NAMED, [list(pair) for pair in NAMED]):
        cesium.open(tmp_path / "s", key=key).close()
    turned = [("carrier", "datetime64[us]"), ("time_hour", "str")]
    with pytest.raises(SchemaError, match=r"'time_hour', .* the names carrier, time_hour"):
        cesium.open(tmp_path / "s", key=turned)
    with pytest.raises(SchemaError, match="it was opened with key="):
        cesium.open(tmp_path / "s", key=[("time_hour", "u8"), ("carrier", "str")])
    cesium.open(tmp_path / "plain", key="u8").close()
    with pytest.raises(SchemaError, match="the names id: it stores none: give types alone"):
        cesium.open(tmp_path / "plain", key=[("id", "u8")])
    cesium.open(tmp_path / "plain", key=[("key", "u8")]).close()  # which is what it is called


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ([("price", "u8")], "'price' names a column of the key and a field of the values"),
        ([("a", "u8"), ("a", "u8")], "two columns of the key have the name 'a'"),
        ([(1, "u8")], "the name of a key column is text, not 1"),
        ([("\ud800", "u8")], "is valid text"),
        ([("a", ("u8", "u8"))], "has 2 parts, and 1 name: 'a'"),
        ([("a", "u8"), ("b", ("u8", "u8"))], "cannot hold another tuple"),
        ([("a", "-u8")], "only a part of a tuple may be descending"),
        ([("a", "u8"), "u8"], "cannot hold another tuple"),
        ([("a", "u8", "b")], "cannot hold another tuple"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, key: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        cesium.open(tmp_path / "s", key=key, value=[("price", "f8")])
    assert not (tmp_path / "s").exists()


def test_other_forms() -> None:
    with cesium.open(":memory:", key=[("t", ("-u8",))], value="u8") as store:
        assert store.key == ["-u8"] and store.key_names == ("t",)
        store[(5,)] = 1
        assert store.range().to_pandas().index.name == "t"
    codec = cesium.KeyCodec("mine", str.encode, bytes.decode)
    with cesium.open(":memory:", key=[("word", codec)], value="u8") as store:
        store["a"] = 1
        assert store.range().to_pandas().index.tolist() == ["a"]
        assert store.range().to_arrow().column_names == ["word", "value"]
    with cesium.open(":memory:", key=[("value", "u8")], value="f8") as store:
        store[1] = 2.0
        assert store.range().to_arrow().to_pydict() == {"value": [1], "_value": [2.0]}
        assert store.range().to_arrow(columns=["_value"]).to_pydict() == {"_value": [2.0]}
        assert "_value" in repr(store)


@pytest.mark.parametrize("form", ["columns", "index", "turned index", "arrow", "polars"])
def test_loads_find_the_columns(tmp_path: Path, form: str) -> None:
    frame = flights()
    given: Any = {
        "columns": frame,
        "index": frame.set_index(NAMES),
        "turned index": frame.set_index(NAMES[::-1]),
        "arrow": pyarrow.Table.from_pandas(frame, preserve_index=False),
        "polars": polars.from_pandas(frame),
    }[form]
    with cesium.open(tmp_path / "s", key=NAMED, value=FIELDS, durability="process") as store:
        store.put_many(given)
        assert store[HOURS[2], "B6"].flight == 2
        store.clear()
        store.bulk_load(given)
        assert len(store) == 6 and store[HOURS[2], "B6"].flight == 2
        again = frame.rename(columns={"carrier": "airline"})
        store.bulk_load(again, key=["time_hour", "airline"])  # other columns, if one says so
        assert len(store) == 6


def test_a_frame_for_a_store_that_is_there(tmp_path: Path) -> None:
    make(tmp_path / "s").close()
    make(tmp_path / "s").close()
    cesium.from_frame(os.fsencode(tmp_path / "s"), flights(), key=NAMES).close()
    swapped = flights().rename(columns={"carrier": "airline"})
    with pytest.raises(SchemaError, match="has the names time_hour, carrier, given the columns"):
        cesium.from_frame(tmp_path / "s", swapped, key=["time_hour", "airline"])
    cesium.open(tmp_path / "plain", key=("datetime64[us]", "str"), value=FIELDS).close()
    with cesium.from_frame(tmp_path / "plain", flights(), key=NAMES) as store:
        assert store.key_names == () and len(store) == 6
        assert store.range().to_pandas().index.names == ["key_0", "key_1"]
    (tmp_path / "empty").mkdir()
    with cesium.from_frame(tmp_path / "empty", flights(), key=NAMES) as store:
        assert store.key_names == ("time_hour", "carrier")
    with cesium.from_frame(tmp_path / "plain", flights(), key=NAMES, flag="n") as store:
        assert store.key_names == ("time_hour", "carrier")
    cesium.open(tmp_path / "more", key=("datetime64[us]", "str"), value=FIELDS).close()
    anew = cesium.Options(flag="n")
    with cesium.from_frame(tmp_path / "more", flights(), key=NAMES, options=anew) as store:
        assert store.key_names == ("time_hour", "carrier")
    with cesium.from_frame(":memory:", flights(), key=NAMES) as store:
        assert store.key_names == ("time_hour", "carrier")


def test_the_record_leaves_out_what_is_not_there() -> None:
    plain = TableRecord(1, "", "u8", "f8")
    assert "key_names" not in plain.to_json()
    assert TableRecord.from_json(plain.to_json()) == plain
    named = TableRecord(1, "", ["u8", "str"], "f8", key_names=("a", "b"))
    assert TableRecord.from_json(json.loads(json.dumps(named.to_json()))) == named
    for names in (["a"], ["a", "a"], ["a", 1], "ab", 7):
        with pytest.raises(ValueError, match=r"name|texts"):
            TableRecord.from_json(named.to_json() | {"key_names": names})


@pytest.mark.parametrize("closed", [True, False], ids=["segments", "journal"])
def test_repair_finds_them_without_a_manifest(tmp_path: Path, closed: bool) -> None:
    source = tmp_path / "s"
    store = cesium.open(source, key=NAMED, value=FIELDS)
    store.table("more", key=[("id", "u4")], value="f8")[1] = 1.0
    store[HOURS[0], "ZZ"] = (1.0, 2)
    if not closed:
        source = Path(shutil.copytree(source, tmp_path / "copy"))
    store.close()
    for file in source.glob("manifest-*"):
        file.unlink()
    report = repair(source, tmp_path / "mended")
    assert report.manifest == "rebuilt"
    with cesium.open(tmp_path / "mended") as mended:
        assert mended.key_names == ("time_hour", "carrier") and len(mended) == 1
        assert mended.tables["more"].key_names == ("id",)


def test_what_a_user_says_to_repair(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="f8") as store:
        store[1] = 1.0
    key = '[["id", "u8"]]'
    succeed("repair", tmp_path / "s", "--output", tmp_path / "m", "--key", key, "--value", "f8")
    with cesium.open(tmp_path / "m") as store:
        assert store.key_names == () and store[1] == 1.0  # what is stored counts
    assert table_of("", key_type(key), "f8") == TableRecord(1, "", "u8", "f8", key_names=("id",))


def test_backups_and_checkpoints_keep_them(tmp_path: Path) -> None:
    with make(tmp_path / "s") as store:
        store.backup(tmp_path / "backup")
        store.checkpoint("now")
        store.compact()
    succeed("restore", tmp_path / "backup", tmp_path / "restored")
    for path, at in ((tmp_path / "restored", None), (tmp_path / "s", "now")):
        with cesium.open(path, at=at) as store:
            assert store.key_names == ("time_hour", "carrier")


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_files(tmp_path: Path, suffix: str) -> None:
    make(tmp_path / "s").close()
    file = tmp_path / f"rows.{suffix}"
    succeed("export", tmp_path / "s", file)
    more = [] if suffix in ("parquet", "arrow") else ["--key", "time_hour,carrier"]
    succeed("load", file, tmp_path / "again", *more)
    with cesium.open(tmp_path / "again") as again, cesium.open(tmp_path / "s") as store:
        assert again.key_names == store.key_names
        assert len(again) == 6
        assert again.range().to_pandas().index.names == NAMES
    assert "6 rows" in succeed("load", file, tmp_path / "again")  # by the names that it has
    with cesium.open(tmp_path / "again") as again:
        assert len(again) == 6
    succeed("load", file, tmp_path / "again", "--table", "more", "--key", "time_hour,carrier")
    with cesium.open(tmp_path / "again") as again:
        assert again.tables["more"].key_names == ("time_hour", "carrier")


def test_export_calls_them_otherwise(tmp_path: Path) -> None:
    make(tmp_path / "s").close()
    succeed("export", tmp_path / "s", tmp_path / "r.parquet", "--key", "hour,airline")
    succeed("load", tmp_path / "r.parquet", tmp_path / "again")
    with cesium.open(tmp_path / "again") as store:
        assert store.key_names == ("hour", "airline")
    assert "(time_hour: datetime64[us], carrier: str)" in succeed("info", tmp_path / "s")
    facts = json.loads(succeed("info", tmp_path / "s", "--json"))
    assert facts["key_names"] == NAMES and facts["key"] == ["datetime64[us]", "str"]
    assert "no list of" in fail(2, "repair", tmp_path / "s", "--key", "[1]")
