"""`cesium export`, and `cesium load` of what it wrote: every type, every format, and bad rows."""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

import cesium
from cesium.cli import _loading
from command_line import fail, run, succeed

TEXT = ["csv", "tsv", "jsonl"]
COMPRESSED = ["csv.gz", "tsv.zst", "jsonl.gz", "jsonl.zst", "csv.zst"]
TYPED = ["parquet", "arrow"]
WORDS = ["", "a", 'say "no", then\r\ngo\t', "NA", "0x12", "é\N{SNOWMAN}", "007", " x ", "\x01"]
TIMES = ["1677-09-22T00:12:44", "1969-12-31T23:59:59", "2024-02-29T12:00:00"]


def spread(dtype: str) -> list[Any]:
    """Some values of a type, its ends among them."""
    if dtype == "str":
        return WORDS
    if dtype == "bytes":
        return [b"", b"a", b"\x00\xff", b"0x12", *(word.encode() for word in WORDS[2:])]
    if dtype == "uuid":
        return [uuid.UUID(int=number) for number in (0, 1, 2**128 - 1, 0x1234 << 64)]
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        ends = np.iinfo(kind)
        return [ends.min, 0, 1, ends.max - 1, ends.max]
    if kind.kind == "f":
        ends = np.finfo(kind)
        some = [-np.inf, ends.min, 0.0, ends.tiny, 1 / 3, ends.max, np.inf, np.nan]
        return [kind.type(value) for value in some]
    if kind.kind == "b":
        return [False, True]
    if kind.kind == "M":
        return [np.datetime64("NaT"), *(np.datetime64(time).astype(kind) for time in TIMES)]
    if kind.kind == "m":
        return [np.timedelta64("NaT"), *(np.array(n, kind)[()] for n in (-5, 0, 1 << 40))]
    if kind.kind == "c":
        return [0j, 1.5 - 2j, complex(0, -1e-300), complex(float("inf"), 1)]
    if kind.kind == "V":
        return [np.void(bytes([n] * kind.itemsize)) for n in (0, 48, 255)]
    if kind.kind == "U":
        return ["", "é", "0x1", "NA"]
    return [b"", b"a", b"0x1", b"\xff\x01"]


INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]
TIME_TYPES = ["datetime64[s]", "datetime64[ms]", "datetime64[us]", "datetime64[ns]",
              "datetime64[D]", "timedelta64[s]", "timedelta64[ns]"]  # fmt: skip
FIXED = [*INTEGERS, "f2", "f4", "f8", "bool", *TIME_TYPES, "S4"]
KEYS = [*FIXED, "str", "bytes", "uuid"]
VALUES = [*FIXED, "c16", "V3", "U4", "str", "bytes"]


def make(path: Path, key: Any, value: Any, rows: list[tuple[Any, Any]]) -> None:
    with cesium.open(path, key=key, value=value) as store:
        for one, other in rows:
            store[one] = other


def contents(path: Path) -> tuple[Any, Any, list[str]]:
    with cesium.open(path, flag="r") as store:
        rows = [repr((key, value)) for key, value in store.items()]
        return store.options.key, store.options.value, rows


def there_and_back(tmp_path: Path, suffix: str, key: str, value: str, *more: str) -> None:
    """Exports tmp_path/s and loads that with the types that it had; nothing must differ."""
    file, again = tmp_path / f"rows.{suffix}", tmp_path / f"again-{suffix}"
    succeed("export", tmp_path / "s", file, *more)
    types = [] if suffix in TYPED else ["--key-type", key, "--value-type", value]
    succeed("load", file, again, *types)
    before, after = contents(tmp_path / "s"), contents(again)
    assert after == before
    assert len(after[2]) > 1


@pytest.mark.parametrize("suffix", TEXT + TYPED)
@pytest.mark.parametrize("key", KEYS)
def test_keys_go_there_and_back(tmp_path: Path, key: str, suffix: str) -> None:
    rows = [(one, number) for number, one in enumerate(spread(key))]
    make(tmp_path / "s", key, "i8", rows)
    there_and_back(tmp_path, suffix, key, "i8")


@pytest.mark.parametrize("suffix", TEXT + TYPED)
@pytest.mark.parametrize("value", VALUES)
def test_values_go_there_and_back(tmp_path: Path, value: str, suffix: str) -> None:
    rows = list(enumerate(spread(value)))
    make(tmp_path / "s", "u4", value, rows)
    if value == "c16" and suffix in TYPED:
        assert "complex" in fail(1, "export", tmp_path / "s", tmp_path / f"rows.{suffix}")
        assert not list(tmp_path.glob("rows*"))
        return
    there_and_back(tmp_path, suffix, "u4", value)


@pytest.mark.parametrize("suffix", TEXT + TYPED + COMPRESSED)
def test_composite_keys_and_rows_of_fields(tmp_path: Path, suffix: str) -> None:
    fields = [(f"f{n}", kind) for n, kind in enumerate(FIXED)]
    columns = [spread(kind) for kind in FIXED]
    rows = []
    for number in range(60):
        row = tuple(column[number % len(column)] for column in columns)
        rows.append(((WORDS[number % 9], number, float(number % 4)), row))
    make(tmp_path / "s", ("str", "-i4", "f4"), fields, rows)
    there_and_back(tmp_path, suffix, "str,-i4,f4", json.dumps(fields))


@pytest.mark.parametrize("value", ["json", "msgpack"])
@pytest.mark.parametrize("suffix", TEXT + TYPED)
def test_values_of_objects(tmp_path: Path, value: str, suffix: str) -> None:
    some = [None, True, 5, 2.5, "text", "5", [1, [2]], {"a": {"b": None}, "é": "x,y\n"}, {}]
    make(tmp_path / "s", "str", value, [(f"k{n}", one) for n, one in enumerate(some)])
    there_and_back(tmp_path, suffix, "str", value)


def test_arrays_in_fields_go_into_typed_files_alone(tmp_path: Path) -> None:
    make(tmp_path / "s", "u4", [("a", "f4", (2,)), ("b", "i4")], [(1, ([1, 2], 3))])
    for suffix in TEXT:
        assert "arrays" in fail(1, "export", tmp_path / "s", tmp_path / f"rows.{suffix}")
    (tmp_path / "rows.csv").write_text("key,a,b\n1,2,3\n")
    assert "load it from Parquet" in fail(1, "load", tmp_path / "rows.csv", tmp_path / "s")


@pytest.mark.parametrize("suffix", TYPED)
def test_arrays_go_there_and_back(tmp_path: Path, suffix: str) -> None:
    fields = [("a", "f4", (3,)), ("b", "datetime64[D]", (2, 2)), ("c", "S3", (2,)), ("d", "?", 2)]
    rows = np.zeros(9, fields)
    rows["a"], rows["b"] = np.arange(27).reshape(9, 3), np.arange(36).reshape(9, 2, 2)
    rows["c"], rows["d"] = [b"a", b"bcd"], [True, False]
    for number, (value, given) in enumerate([(fields, rows), ("(2,3)f8", np.ones((9, 2, 3)))]):
        source, file = tmp_path / f"{number}", tmp_path / f"{number}.{suffix}"
        with cesium.open(source, key="u4", value=value) as store:
            store.bulk_load(np.arange(9), given)
        succeed("export", source, file)
        assert "(3,)f4" in succeed("load", file, tmp_path / f"again-{number}") or number
        assert "9 rows" in succeed("load", file, source)
        for path in (source, tmp_path / f"again-{number}"):
            with cesium.open(path) as store:
                assert store.value == store.values_codec.spec
                assert (store.range().values().arrays() == given).all()
        assert "(2,)S3" in succeed("info", source) or number


def test_lists_of_other_files(tmp_path: Path) -> None:
    rows = {
        "key": pyarrow.array([10, 11, 12, 13], pyarrow.uint32()),
        "v": pyarrow.array([[1, 2, 3], [4, 5], None, [6, None, 8]]),
        "n": pyarrow.array(
            [[[1, 2], [3, 4]]] * 4, pyarrow.large_list(pyarrow.list_(pyarrow.int32(), 2))
        ),
    }
    file, bad = tmp_path / "rows.parquet", tmp_path / "bad.jsonl"
    pyarrow.parquet.write_table(pyarrow.table(rows), file)
    types = ["--key-type", "u4", "--value-type", '[["v", "(3,)f8"], ["n", "(2,2)i8"]]']
    said = fail(1, "load", file, tmp_path / "s", *types)
    assert "line 2: column 'v': '[4, 5]' is not a (3,)f8" in said
    assert "2 bad rows" in succeed("load", file, tmp_path / "t", *types, "--bad", bad)
    assert [json.loads(line)["line"] for line in bad.read_text().splitlines()] == [2, 3]
    with cesium.open(tmp_path / "t") as store:
        assert store[10].v.tolist() == [1, 2, 3] and store[10].n.tolist() == [[1, 2], [3, 4]]
        assert str(store[13].v) == "[ 6. nan  8.]"
    numbers = pyarrow.table({**rows, "v": pyarrow.array([1, 2, 3, 4])})
    pyarrow.parquet.write_table(numbers, file)
    assert "'1' is not a (3,)f8" in fail(1, "load", file, tmp_path / "t")


# --- what is exported --------------------------------------------------------


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A store of the squares of 0, 10, ... 90."""
    path = tmp_path / "numbers"
    make(path, "i8", "f8", [(key, float(key * key)) for key in range(0, 100, 10)])
    return path


def test_ranges(tmp_path: Path, numbers: Path) -> None:
    file = tmp_path / "rows.csv"

    def keys(*options: object) -> list[str]:
        succeed("export", numbers, file, "--force", *options)
        return [line.split(",")[0] for line in file.read_text().splitlines()]

    assert keys() == ["key", *map(str, range(0, 100, 10))]
    assert keys("--from", 20, "--to", 50) == ["key", "20", "30", "40"]
    assert keys("--from", 20, "--limit", 2) == ["key", "20", "30"]
    assert keys("--limit", 0) == ["key"]
    assert keys("--key", "n", "--from", 90) == ["n", "90"]
    make(tmp_path / "words", "str", "i4", [("ab1", 1), ("ab2", 2), ("b", 3)])
    for more, count in (((), 2), (("--limit", 1), 1)):
        for name in ("w.jsonl", "w.parquet"):
            options = ("--prefix", "ab", "--force", *more)
            said = succeed("export", tmp_path / "words", tmp_path / name, *options)
            assert f"{count} rows" in said


def test_what_export_refuses(tmp_path: Path, numbers: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    assert "--force" in fail(1, "export", numbers, tmp_path / "there.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert "--format" in fail(2, "export", numbers, tmp_path / "rows.xyz")
    assert "inside" in fail(2, "export", numbers, tmp_path / "rows.parquet.gz")
    assert "zip" in fail(2, "export", numbers, tmp_path / "rows.csv.zip")
    assert "no store at" in fail(1, "export", tmp_path / "none", tmp_path / "rows.csv")
    assert "named" in fail(2, "export", numbers, tmp_path / "rows.csv", "--key", "a,b")
    assert "twice" in fail(2, "export", numbers, tmp_path / "rows.csv", "--key", "value")
    assert "'x' is not" in fail(2, "export", numbers, tmp_path / "rows.csv", "--from", "x")
    options = ("--prefix", "1", "--from", "1")
    assert "--prefix goes" in fail(2, "export", numbers, tmp_path / "rows.csv", *options)
    assert "No such file" in fail(1, "export", numbers, tmp_path / "no" / "rows.csv")
    assert not list(tmp_path.glob("rows*"))
    succeed("export", numbers, tmp_path / "rows.xyz", "--format", "tsv")
    assert (tmp_path / "rows.xyz").read_text().startswith("key\tvalue\n0\t0.0\n")


@pytest.mark.parametrize("suffix", ["csv", "jsonl.gz", "parquet", "arrow"])
def test_ctrl_c_leaves_no_file(
    tmp_path: Path, numbers: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    file = tmp_path / f"rows.{suffix}"
    succeed("export", numbers, file)
    before = file.read_bytes()

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["cesium.cli.export"], "reporting", _reporting(interrupted))
        assert run("export", numbers, tmp_path / f"other.{suffix}").exit_code == 130
        assert run("export", numbers, file, "--force").exit_code == 130
    assert file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numbers", file.name]
    with cesium.open(numbers) as store:
        assert store.verify().ok and len(store) == 10


def _reporting(advance: Any) -> Any:
    return lambda *arguments: contextlib.nullcontext(advance)


# --- what is loaded ----------------------------------------------------------


def test_types_of_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "code": "007", "n": "5", "x": 1.5, "ok": True, "at": "2020-01-02", "t": "é"},
        {"id": 2, "x": None, "ok": False, "code": "1", "n": "6", "at": None, "t": "b"},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    said = succeed("load", file, tmp_path / "s", "--key", "id")
    assert "id: i8, in the key" in said and "ok: json" in said
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert (store.options.key, store.options.value) == ("i8", "json")  # é has no fixed width
        assert store[1] == {name: rows[0][name] for name in rows[0] if name != "id"}
        assert store[2]["x"] is None and store[2]["n"] == "6"
    file.write_text('{"k": 1, "v": true, "w": "x"}\n{"k": 2, "v": false, "w": "yy"}\n')
    succeed("load", file, tmp_path / "fixed")
    with cesium.open(tmp_path / "fixed", flag="r") as store:
        assert store.options.value == [["v", "bool"], ["w", "S2"]]
    file.write_text('{"k": 1, "v": {"deep": [1]}}\n')
    succeed("load", file, tmp_path / "deep")
    with cesium.open(tmp_path / "deep", flag="r") as store:
        assert store[1] == {"v": {"deep": [1]}}


def test_types_of_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "rows.parquet"
    columns = {
        "at": arrow.array([1, 2, 3], arrow.timestamp("ms")),
        "n": arrow.array([1, None, 3], arrow.int32()),
        "u": arrow.array([1, 2, 3], arrow.uint8()),
        "kind": arrow.array(["a", None, "a"]).dictionary_encode(),
        "gone": arrow.array([1.5, None, 3.5]),
        "day": arrow.array([None, 2, 3], arrow.date32()),
    }
    parquet.write_table(arrow.table(columns), file)
    said = succeed("load", file, tmp_path / "s", "--key", "at")
    assert "at: datetime64[ms], in the key" in said and "kind: S1" in said
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert store.options.value == [
            ["n", "f8"], ["u", "u1"], ["kind", "S1"], ["gone", "f8"], ["day", "datetime64[D]"],
        ]  # fmt: skip
        row = store[np.datetime64(2, "ms")]
        assert np.isnan(row.n) and row.kind == b"" and np.isnan(row.gone) and row.u == 2
        assert np.isnat(store[np.datetime64(1, "ms")].day)
    parquet.write_table(arrow.table({"k": [1], "v": [[1, 2]]}), file)
    assert "'v': no type of a store is inferred of list" in fail(1, "load", file, tmp_path / "n")
    file.write_bytes(b"no parquet")
    assert "rows.parquet" in fail(1, "load", file, tmp_path / "n")
    (tmp_path / "rows.arrow").write_bytes(b"no arrow")
    assert "rows.arrow" in fail(1, "load", tmp_path / "rows.arrow", tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_the_key_is_found(tmp_path: Path) -> None:
    for text, found in (
        ("v,key\n1,2\n", "key: i8, in the key"),
        ("key_0,key_1,v\n1,2,3\n", "key_1: i8, in the key"),
        ("name,v\na,2\n", "name: str, in the key"),
    ):
        (tmp_path / "rows.csv").write_text(text)
        assert found in succeed("load", tmp_path / "rows.csv", tmp_path / "s", "--dry-run")
    assert not (tmp_path / "s").exists()


def rejected(path: Path) -> list[tuple[int, str]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [(row["line"], row["error"]) for row in rows]


def test_bad_rows_are_counted_and_kept(tmp_path: Path, numbers: Path) -> None:
    file, bad = tmp_path / "rows.csv", tmp_path / "bad.jsonl"
    file.write_text('key,value\n1,1\nx,2\n3\n"4\nx",4\n5,y\n6,6\n1,2,3\n\n7,"7\n')
    said = succeed("load", file, numbers, "--bad", bad)
    assert "2 rows" in said and f"6 bad rows, in {bad}" in said
    assert sorted(rejected(bad)) == [
        (3, "column 'key': 'x' is not a i8"),
        (4, "1 cells instead of 2"),
        (5, "column 'key': '4\nx' is not a i8"),
        (7, "column 'value': 'y' is not a f8"),
        (9, "3 cells instead of 2"),
        (11, "unexpected end of data"),
    ]
    rows = [json.loads(line)["row"] for line in bad.read_text().splitlines()]
    assert {"key": "x", "value": "2"} in rows and ["1", "2", "3"] in rows
    with cesium.open(numbers, flag="r") as store:
        assert len(store) == 12 and store[6] == 6.0
        assert "line 3: column 'key': 'x'" in fail(1, "load", file, numbers)
    file.write_text("key,value\n1,1\nx,2\n")
    assert "line 3: column 'key'" in fail(1, "load", file, numbers)


def test_bad_rows_of_other_formats(tmp_path: Path, numbers: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    bad = tmp_path / "bad.jsonl"
    file = tmp_path / "rows.jsonl"
    file.write_text('{"key": 1, "value": 1}\n{"key"\n[1]\n{"key": "x", "value": 2}\n'
                    '{"key": 2, "value": 2, "more": 1}\n{"key": 3}\n')  # fmt: skip
    assert "2 rows" in succeed("load", file, numbers, "--bad", bad)
    assert [line for line, _ in rejected(bad)] == [2, 3, 4, 5]
    file = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"key": [1, None, 3, 2], "value": [1.0, 2.0, None, 4.0]}), file)
    assert "3 rows" in succeed("load", file, numbers, "--bad", bad)
    assert [line for line, _ in rejected(bad)] == [2]
    assert "line 2: column 'key'" in fail(1, "load", file, numbers)
    file = tmp_path / "new.csv"
    file.write_text("k,v\n1,2\n,3\n4,5\n")
    assert "2 rows" in succeed("load", file, tmp_path / "new", "--bad", bad)
    assert rejected(bad) == [(3, "column 'k' is absent, and in the key")]


def test_a_time_that_does_not_fit_is_bad(tmp_path: Path) -> None:
    """It was cut short, or wrapped round, without a word."""
    file = tmp_path / "rows.csv"
    make(tmp_path / "s", "datetime64[s]", "datetime64[ns]", [])
    for text in ("2020-01-01T00:00:00.5,2020-01-01", "2020-01-01,3000-01-01"):
        file.write_text(f"key,value\n{text}\n")
        assert "is not a datetime64" in fail(1, "load", file, tmp_path / "s")


def test_equal_keys_are_told(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("k,v\n1,1\n1,2\n2,3\n")
    assert "2 different keys" in succeed("load", tmp_path / "rows.csv", tmp_path / "s")


def test_what_load_refuses(tmp_path: Path, numbers: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("key,value\n1,2\n")
    assert "has its types" in fail(2, "load", file, numbers, "--key-type", "u8")
    assert "needs --key-type" in fail(2, "load", file, tmp_path / "s", "--value-type", "u8")
    assert "x9" in fail(1, "load", file, tmp_path / "s", "--key-type", "x9")
    for name, data in (("a.csv.zst", b"no zstd"), ("a.jsonl", b"\xff\n"), ("b.jsonl", b"\n")):
        (tmp_path / name).write_bytes(data)
        fail(1, "load", tmp_path / name, tmp_path / "s")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"k,v\n" + b"1,2\n" * 10_000)[:-20])
    fail(1, "load", tmp_path / "cut.csv.gz", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_dry_run_changes_nothing(tmp_path: Path, numbers: Path) -> None:
    file, bad = tmp_path / "rows.csv", tmp_path / "bad.jsonl"
    file.write_text("key,value\n1,2\nx,3\n")
    before = contents(numbers)
    said = succeed("load", file, numbers, "--dry-run", "--bad", bad)
    assert "1 rows would be loaded" in said and "1 bad rows" in said
    assert contents(numbers) == before
    said = succeed("load", file, tmp_path / "new", "--dry-run")
    assert "key: str, in the key" in said and not (tmp_path / "new").exists()


def test_ctrl_c_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed is there, whole commits; the same command with --resume loads the rest."""
    monkeypatch.setattr(_loading, "COMMIT_ROWS", 8192)
    file, path = tmp_path / "rows.csv", tmp_path / "s"
    keys = [*range(40_000), *range(100)]  # the first ones once more, at the end
    lines = "".join(f"{key},{number}\n" for number, key in enumerate(keys))
    file.write_text("key,value\n" + lines)
    calls = [0]
    real = _loading.Sink.take

    def take(sink: Any, *arguments: Any) -> int:
        calls[0] += 1
        if calls[0] == 4:
            raise KeyboardInterrupt
        return real(sink, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_loading.Sink, "take", take)
        assert run("load", file, path).exit_code == 130
    with cesium.open(path, flag="r") as store:
        assert len(store) == 3 * 8192 and store[5] == 5 and store.verify().ok
    said = succeed("load", file, path, "--resume")
    assert f"{3 * 8192:,} of them were there already" in said
    with cesium.open(path, flag="r") as store:
        assert len(store) == 40_000 and store[39_999] == 39_999 and store[5] == 40_005


def test_tables_go_there_and_back(tmp_path: Path, numbers: Path) -> None:
    with cesium.open(numbers) as store:
        trades = store.table("trades", key=("str", "u4"), value=[("price", "f4")])
        trades["a", 1] = (1.5,)
        trades["b", 2] = (2.5,)
    for suffix in ("csv", "parquet"):
        file = tmp_path / f"rows.{suffix}"
        assert "2 rows" in succeed("export", numbers, file, "--table", "trades")
        types = ["--key-type", "str,u4", "--value-type", '[["price", "f4"]]']
        options = ["--table", f"of-{suffix}", *(types if suffix == "csv" else [])]
        succeed("load", file, numbers, *options)
        succeed("load", file, numbers, "--table", f"of-{suffix}")  # as it is by now
        with cesium.open(numbers, flag="r") as store:
            again = store.table(f"of-{suffix}")
            assert (again.key, again.value) == (["str", "u4"], [["price", "f4"]])
            assert dict(again.items()) == dict(store.table("trades").items())
            assert len(store) == 10
    assert "has its types" in fail(
        2, "load", file, numbers, "--table", "trades", "--key-type", "str,u4"
    )
    assert "that is there" in fail(2, "load", file, tmp_path / "none", "--table", "x")
    assert "no table 'x'" in fail(3, "export", numbers, tmp_path / "x.csv", "--table", "x")
