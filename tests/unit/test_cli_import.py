"""`cesium import`: other stores, and what is in them, as keys and values of types."""

from __future__ import annotations

import dbm
import json
import pickle
import shelve
import sqlite3
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.cli import _loading
from command_line import fail, run, succeed

Rows = dict[bytes, bytes]
WORDS: Rows = {b"b\xff": b"\x00", b"a": b"one", b"": b"empty", b"z": b""}


def make_lmdb(path: Path, rows: Rows) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), max_dbs=2) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in rows.items():
                transaction.put(key, value)


def make_leveldb(path: Path, rows: Rows) -> None:
    plyvel = pytest.importorskip("plyvel")
    database = plyvel.DB(str(path), create_if_missing=True)
    for key, value in rows.items():
        database.put(key, value)
    database.close()


def make_rocksdb(path: Path, rows: Rows) -> None:
    rocksdict = pytest.importorskip("rocksdict")
    database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    for key, value in rows.items():
        database[key] = value
    database.close()


def make_dbm(path: Path, rows: Rows) -> None:
    with dbm.open(str(path), "n") as database:
        for key, value in rows.items():
            database[key] = value


def make_dumb(path: Path, rows: Rows) -> None:
    import dbm.dumb

    with dbm.dumb.open(str(path), "n") as database:
        for key, value in rows.items():
            database[key] = value


MAKERS: dict[str, Callable[[Path, Rows], None]] = {
    "lmdb": make_lmdb, "leveldb": make_leveldb, "rocksdb": make_rocksdb, "dbm": make_dbm,
}  # fmt: skip


def contents(path: Path) -> dict[Any, Any]:
    with cesium.open(path, flag="r") as store:
        return dict(store.items())


@pytest.mark.parametrize("kind", MAKERS)
def test_bytes_of_each(tmp_path: Path, kind: str) -> None:
    rows = {key: value for key, value in WORDS.items() if key or kind != "lmdb"}  # it has no b""
    MAKERS[kind](tmp_path / "other", rows)
    assert f"{len(rows)} rows" in succeed("import", kind, tmp_path / "other", tmp_path / "s")
    assert contents(tmp_path / "s") == rows
    rows = {f"{number:06d}".encode(): b"x" * (number % 50) for number in range(20_000)}
    MAKERS[kind](tmp_path / "more", rows)
    succeed("import", kind, tmp_path / "more", tmp_path / "t", "--key-type", "str")
    assert contents(tmp_path / "t") == {key.decode(): value for key, value in rows.items()}


def test_dbm_of_every_kind(tmp_path: Path) -> None:
    make_dumb(tmp_path / "dumb", WORDS)
    for name in ("dumb", "dumb.dat"):
        succeed("import", "dbm", tmp_path / name, tmp_path / f"s-{name}")
        assert contents(tmp_path / f"s-{name}") == WORDS
    with shelve.open(str(tmp_path / "shelf")) as shelf:
        shelf["k"] = {"a": [1]}
    succeed("import", "dbm", tmp_path / "shelf", tmp_path / "t", "--key-type", "str")
    assert pickle.loads(contents(tmp_path / "t")["k"]) == {"a": [1]}


@pytest.mark.parametrize(
    ("key", "value", "encodings", "rows", "expected"),
    [
        ("u4", "f8", ("little", "big"), {struct.pack("<I", 7): struct.pack(">d", 0.5)}, {7: 0.5}),
        ("i8", "u2", ("big", "little"), {struct.pack(">q", -7): b"\x01\x02"}, {-7: 0x0201}),
        ("i8", "f4", ("text", "text"), {b"-12": b"0.5"}, {-12: 0.5}),
        ("str", "json", ("text", "text"), {"é".encode(): b'{"a": [1]}'}, {"é": {"a": [1]}}),
        ("str", "msgpack", ("text", "text"), {b"k": b"\x81\xa1a\x01"}, {"k": {"a": 1}}),
        ("uuid", "S3", ("text", "text"), {uuid.UUID(int=5).bytes: b"abc"},
         {uuid.UUID(int=5): b"abc"}),
        ("str", "str", ("text", "text"), {b"a": "é".encode()}, {"a": "é"}),
        ("datetime64[s]", "i1", ("text", "text"), {b"2020-01-01": b"3"},
         {np.datetime64("2020-01-01T00:00:00"): 3}),
    ],
)  # fmt: skip
def test_types(
    tmp_path: Path, key: str, value: str, encodings: tuple[str, str], rows: Rows, expected: Any
) -> None:
    make_dumb(tmp_path / "other", rows)
    options = ["--value-type", value, "--key-encoding", encodings[0]]
    options += ["--value-encoding", encodings[1]]
    options += ["--key-type=" + key]
    succeed("import", "dbm", tmp_path / "other", tmp_path / "s", *options)
    assert contents(tmp_path / "s") == expected


def test_bad_rows(tmp_path: Path) -> None:
    make_dumb(tmp_path / "other", {b"1": b"1", b"x": b"2", b"3": b"\xff", b"4": b"4"})
    options = ("--key-type", "i8", "--value-type", "i8")
    command = ("import", "dbm", tmp_path / "other", tmp_path / "s", *options)
    assert "line 2: the key is not a i8: b'x'" in fail(1, *command)
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert not len(store)
    more = ("--bad", tmp_path / "bad")
    said = succeed("import", "dbm", tmp_path / "other", tmp_path / "s", *more)
    assert "2 rows" in said and "2 bad rows" in said
    found = [json.loads(line) for line in (tmp_path / "bad").read_text().splitlines()]
    assert [(row["line"], row["error"]) for row in found] == [
        (2, "the key is not a i8: b'x'"), (3, "the value is not a i8: b'\\xff'"),
    ]  # fmt: skip
    assert contents(tmp_path / "s") == {1: 1, 4: 4}


def test_parts_of_other_stores(tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "l"), max_dbs=2) as environment:
        named = environment.open_db(b"named")
        with environment.begin(write=True, db=named) as transaction:
            transaction.put(b"in", b"named")
    options = ("--database", "named")
    succeed("import", "lmdb", tmp_path / "l", tmp_path / "s", *options)
    assert contents(tmp_path / "s") == {b"in": b"named"}
    assert "none" in fail(1, "import", "lmdb", tmp_path / "l", tmp_path / "t", "--database", "none")


def test_a_column_family(tmp_path: Path) -> None:
    rocksdict = pytest.importorskip("rocksdict")
    options = rocksdict.Options(raw_mode=True)
    database = rocksdict.Rdict(str(tmp_path / "r"), options)
    family = database.create_column_family("more", options)
    family[b"k"] = b"v"
    database[b"d"] = b"default"
    family.close()
    database.close()
    succeed("import", "rocksdb", tmp_path / "r", tmp_path / "s", "--database", "more")
    succeed("import", "rocksdb", tmp_path / "r", tmp_path / "t")
    assert (contents(tmp_path / "s"), contents(tmp_path / "t")) == (
        {b"k": b"v"}, {b"d": b"default"},
    )  # fmt: skip
    command = ("import", "rocksdb", tmp_path / "r", tmp_path / "u", "--database", "none")
    assert "no column family is called none" in fail(1, *command)


# --- SQLite ------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            'CREATE TABLE trades (note TEXT, at TEXT, "the symbol" TEXT, price REAL, size INTEGER,'
            ' PRIMARY KEY ("the symbol", at));'
            "INSERT INTO trades VALUES ('a', '2020-01-02', 'X', 1.5, 3),"
            " (NULL, '2020-01-01', 'X', NULL, 4), ('b', '2020-01-01', 'A', 2, 5);"
            "CREATE TABLE plain (id INTEGER, data BLOB);"
            "INSERT INTO plain VALUES (1, x'00ff'), (2, 'text');"
        )
    connection.close()
    return path


def test_a_table_by_its_primary_key(tmp_path: Path, tables: Path) -> None:
    said = succeed("import", "sqlite", tables, tmp_path / "s", "--table", "trades")
    assert "the symbol: str, in the key" in said and "at: datetime64[s], in the key" in said
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert store.options.key == ["str", "datetime64[s]"]
        assert [field[0] for field in store.options.value] == ["note", "price", "size"]
        assert [key[0] for key in store] == ["A", "X", "X"]
        row = store["X", np.datetime64("2020-01-01T00:00:00")]
        assert row.note == b"" and np.isnan(row.price) and row.size == 4
    said = succeed(
        "import",
        "sqlite",
        tables,
        tmp_path / "t",
        "--table",
        "trades",
        "--key",
        "size",
        "--dry-run",
    )
    assert "size: i8, in the key" in said and not (tmp_path / "t").exists()


def test_blobs_of_a_table(tmp_path: Path, tables: Path) -> None:
    succeed("import", "sqlite", tables, tmp_path / "s", "--table", "plain")
    assert contents(tmp_path / "s") == {1: b"\x00\xff", 2: b"text"}
    with cesium.open(tmp_path / "u", key="u2", value="bytes"):
        pass
    succeed("import", "sqlite", tables, tmp_path / "u", "--table", "plain")
    assert contents(tmp_path / "u") == {1: b"\x00\xff", 2: b"text"}


# --- refused, and interrupted ------------------------------------------------


def test_what_is_refused(tmp_path: Path, tables: Path) -> None:
    dest = tmp_path / "s"
    for kind in ("lmdb", "leveldb", "rocksdb", "sqlite", "dbm"):
        if kind in MAKERS:
            MAKERS[kind](tmp_path / f"good-{kind}", {b"k": b"v"})  # or it is not installed
        fail(1, "import", kind, tmp_path / "nowhere", dest)
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "text").write_text("no database, but text that is long enough" * 100)
        assert "text" in fail(1, "import", kind, tmp_path / "text", dest)
    for kind in ("leveldb", "rocksdb"):
        assert "empty" in fail(1, "import", kind, tmp_path / "empty", dest)
    assert not list((tmp_path / "empty").glob("CURRENT"))
    assert "one of plain, trades" in fail(2, "import", "sqlite", tables, dest)
    assert "no table is called x" in fail(2, "import", "sqlite", tables, dest, "--table", "x")
    options = ("--table", "plain", "--key", "x")
    assert "no column is called x" in fail(2, "import", "sqlite", tables, dest, *options)
    assert "sqlite" in fail(2, "import", "dbm", tmp_path / "good-dbm", dest, "--table", "x")
    assert "not for sqlite" in fail(2, "import", "sqlite", tables, dest, "--database", "x")
    assert "one database" in fail(
        2, "import", "dbm", tmp_path / "good-dbm", dest, "--database", "x"
    )
    fail(2, "import", "oracle", tables, dest)
    command = ("import", "dbm", tmp_path / "good-dbm", dest, "--key-type")
    assert "one part" in fail(1, *command, "str,i4")
    assert "x9" in fail(1, *command, "x9")
    assert not dest.exists()


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "l").mkdir()
    for kind, package in (("lmdb", "lmdb"), ("leveldb", "plyvel"), ("rocksdb", "rocksdict")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        (tmp_path / "l" / "CURRENT").write_text("")
        assert f"cesiumdb[{kind}]" in fail(1, "import", kind, tmp_path / "l", tmp_path / "s")


def test_ctrl_c_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_loading, "COMMIT_ROWS", 8192)
    with sqlite3.connect(tmp_path / "d") as connection:
        connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v REAL)")
        rows = ((number, number / 2) for number in range(40_000))
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
    connection.close()
    calls = [0]
    real = _loading.Sink.take

    def take(sink: Any, *arguments: Any) -> int:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return real(sink, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_loading.Sink, "take", take)
        assert run("import", "sqlite", tmp_path / "d", tmp_path / "s").exit_code == 130
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert len(store) == 2 * 8192 and store.verify().ok
    said = succeed("import", "sqlite", tmp_path / "d", tmp_path / "s", "--resume")
    assert "16,384 of them were there already" in said
    assert contents(tmp_path / "s") == {number: number / 2 for number in range(40_000)}
