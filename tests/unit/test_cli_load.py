"""`cesium load`: the types it finds, the files it reads, what it refuses."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import cesium
from cesium.cli._numbers import integers
from command_line import fail, run, succeed


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A store of the squares of 0, 10, ... 90."""
    path = tmp_path / "numbers.cesium"
    with cesium.open(path, key="i8", value="f8") as store:
        for key in range(0, 100, 10):
            store[key] = float(key * key)
    return path


def test_load_finds_the_types(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "rows.csv",
        "id,price,name,when,count,code\n"
        '1,2.5,abc,2013-01-01,7,01\n2,NA,"d,e",2013-01-02T03:04:05Z,,02\n'
        "-3,1e3,,2014-01-01 00:00,9,03\n",
    )
    output = succeed("load", file, tmp_path / "store", "--key", "id")
    assert "3 rows" in output
    with cesium.open(tmp_path / "store", flag="r") as store:
        assert store.options.key == "i8"
        assert [tuple(field) for field in store.options.value] == [
            ("price", "f8"),
            ("name", "S3"),
            ("when", "datetime64[s]"),
            ("count", "f8"),
            ("code", "S2"),
        ]
        assert list(store) == [-3, 1, 2]
        row = store[2]
        assert np.isnan(row.price) and np.isnan(row[3])
        assert (row.name, row.code) == (b"d,e", b"02")
        assert row.when == np.datetime64("2013-01-02T03:04:05")


def test_load_by_a_composite_key(tmp_path: Path) -> None:
    file = write_csv(
        tmp_path / "rows.csv", "t,v,name\n2020-01-02,1,b\n2020-01-01,2,b\n2020-01-01,3,a\n"
    )
    succeed("load", file, tmp_path / "store", "--key", "t,name")
    assert succeed("range", tmp_path / "store").splitlines() == [
        "2020-01-01T00:00:00\ta\t3",
        "2020-01-01T00:00:00\tb\t2",
        "2020-01-02T00:00:00\tb\t1",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.zip"])
def test_load_reads_compressed_files(tmp_path: Path, suffix: str) -> None:
    text = "k,v\n" + "".join(f"{number},{number / 4}\n" for number in range(20_000))
    file = tmp_path / f"rows{suffix}"
    if suffix == ".csv.gz":
        file.write_bytes(gzip.compress(text.encode()))
    elif suffix == ".csv.zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("rows.csv", text)
    else:
        file.write_text(text)
    succeed("load", file, tmp_path / "store", "--key", "k")
    with cesium.open(tmp_path / "store", flag="r") as store:
        keys, values = store.range(None, None).arrays()
    assert np.array_equal(keys, np.arange(20_000))
    assert np.array_equal(values, np.arange(20_000) / 4)


def test_a_late_cell_decides_the_type(tmp_path: Path) -> None:
    """What no sample of the first rows would have shown."""
    rows = [f"{number},{number},{number}\n" for number in range(20_000)]
    rows[19_999] = "19999,word,0.5\n"
    file = write_csv(tmp_path / "rows.csv", "k,a,b\n" + "".join(rows))
    succeed("load", file, tmp_path / "store", "--key", "k")
    with cesium.open(tmp_path / "store", flag="r") as store:
        assert [field[1] for field in store.options.value] == ["S5", "f8"]
        assert (store[0].a, store[19_999].a, store[19_999].b) == (b"0", b"word", 0.5)


def test_rows_with_long_text_become_json(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", f"k,n,t\n1,5,{'x' * 65}\n2,,é\n")
    succeed("load", file, tmp_path / "store", "--key", "k")
    with cesium.open(tmp_path / "store", flag="r") as store:
        assert store.options.value == "json"
        assert store[1] == {"n": 5, "t": "x" * 65}
        assert store[2] == {"n": None, "t": "é"}


def test_one_column_is_the_value_itself(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", "k,t\na,é\nb,z\n")
    succeed("load", file, tmp_path / "store", "--key", "k")
    assert succeed("get", tmp_path / "store", "a") == "é\n"


def test_load_into_an_existing_store_takes_its_schema(numbers: Path, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "more.csv", "k,v\n10,7\n15,8\n10,9\n")
    succeed("load", file, numbers, "--key", "k")
    assert succeed("range", numbers, "--to", "20") == "0\t0.0\n10\t9.0\n15\t8.0\n"


@pytest.mark.parametrize(
    ("text", "key", "code", "piece"),
    [
        ("k,v\n1,2\n", "x", 2, "no column is called x"),
        ("k,v\n1,2\n", "k,k", 2, "twice"),
        ("", "k", 1, "empty"),
        ("k,k\n1,2\n", "k", 1, "each once"),
        ("k,v\n1,2\n3\n", "k", 1, "1 cells instead of 2"),
        ("k,v\n1,2\n,3\n", "k", 1, "absent cells"),
        ('k,v\n1,"2\n', "k", 1, "line"),
    ],
)
def test_files_that_do_not_load(tmp_path: Path, text: str, key: str, code: int, piece: str) -> None:
    file = write_csv(tmp_path / "rows.csv", text)
    assert piece in fail(code, "load", file, tmp_path / "store", "--key", key)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("k,v\n1,2\nx,3\n", "column 'k': 'x' is not a i8"),
        ("k,v\n1,2\n3,y\n", "column 'v': 'y' is not a f8"),
        ("k,v,w\n1,2,3\n", "one column beside the key"),
    ],
)
def test_a_file_that_does_not_fit_the_store_changes_nothing(
    numbers: Path, tmp_path: Path, text: str, piece: str
) -> None:
    before = succeed("range", numbers)
    file = write_csv(tmp_path / "rows.csv", text)
    assert piece in fail(1, "load", file, numbers, "--key", "k")
    assert succeed("range", numbers) == before


def test_broken_archives(tmp_path: Path) -> None:
    for name in ("rows.csv.gz", "rows.csv.zip"):
        (tmp_path / name).write_bytes(b"neither gzip nor zip")
        fail(1, "load", tmp_path / name, tmp_path / "store", "--key", "k")
    whole = gzip.compress(b"k,v\n" + b"1,2\n" * 1000)
    (tmp_path / "broken.csv.gz").write_bytes(whole[:20] + b"\xff" * 20)
    fail(1, "load", tmp_path / "broken.csv.gz", tmp_path / "store", "--key", "k")
    (tmp_path / "latin.csv").write_bytes(b"k,v\n1,\xe9\n")
    assert "UTF-8" in fail(1, "load", tmp_path / "latin.csv", tmp_path / "store", "--key", "k")


def test_long_digits_are_text(tmp_path: Path) -> None:
    digits = "9" * 400  # as a float infinite
    file = write_csv(tmp_path / "rows.csv", f"k,v\n1,{digits}\n2,5\n")
    assert "v: str" in succeed("load", file, tmp_path / "store")
    assert succeed("get", tmp_path / "store", "1") == f"{digits}\n"


def test_a_far_year_beside_nanoseconds_is_bad(tmp_path: Path) -> None:
    """Together they would have a unit that cannot say the year."""
    file = write_csv(
        tmp_path / "rows.csv", "k,v\n1,2013-01-01T00:00:00.123456789\n2,1500-01-01\n3,\n"
    )
    types = ["--key-type", "i8", "--value-type", "datetime64[ns]"]
    output = succeed("load", file, tmp_path / "store", *types, "--bad", tmp_path / "bad")
    assert "2 rows" in output and "1 bad rows" in output
    assert "1500-01-01" in fail(1, "load", file, tmp_path / "other", *types)
    with cesium.open(tmp_path / "store", flag="r") as store:
        assert store[1] == np.datetime64("2013-01-01T00:00:00.123456789")
        assert np.isnat(store[3])


def test_numbers_beyond_a_small_float_are_infinite_and_no_warning(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", "k,v\n1,1e300\n")
    result = run("load", file, tmp_path / "store", "--key-type", "i8", "--value-type", "f4")
    assert (result.exit_code, result.stderr) == (0, "")
    assert succeed("get", tmp_path / "store", "1") == "inf\n"


def test_a_file_without_the_key_of_the_store_is_refused(tmp_path: Path) -> None:
    """Its first column would be the key, and take the places of rows that are there."""
    path = tmp_path / "s"
    fields = [("x", "i8"), ("y", "i8")]
    cesium.open(path, key=[("id", "i8")], value=fields).close()
    file = write_csv(tmp_path / "rows.csv", "note,x,y\n7,1,2\n")
    said = fail(2, "load", file, path)
    assert "the store's key is id, and the file has note, x, y: --key says" in said
    succeed("load", file, path, "--key", "note")
    with cesium.open(path) as store:
        assert list(store) == [7]


@pytest.mark.parametrize("cell", ["now", "today", "Today"])
def test_no_cell_is_the_time_of_the_load(tmp_path: Path, cell: str) -> None:
    cesium.open(tmp_path / "s", key="i8", value="datetime64[s]").close()
    file = write_csv(tmp_path / "rows.csv", f"id,t\n1,2020-01-01\n2,{cell}\n")
    said = fail(1, "load", file, tmp_path / "s")
    assert f"line 3: column 't': '{cell}' is not a datetime64[s]" in said


def test_text_that_is_no_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    """JSON can escape half of a pair."""
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "\ud800"}, {"a": 3, "b": "y"}]
    file = write_csv(tmp_path / "r.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    result = run("load", file, tmp_path / "s")
    assert (result.exit_code, "line 2: column 'b'" in result.stderr) == (1, True), result.output
    succeed("load", file, tmp_path / "s", "--bad", tmp_path / "bad.jsonl")
    with cesium.open(tmp_path / "s") as store:
        assert dict(store.items()) == {1: "x", 3: "y"}
    (bad,) = map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())
    assert (bad["line"], bad["row"]["b"]) == (2, "\ud800")


def test_integers_beyond_their_type_are_no_others() -> None:
    """By themselves: numpy before 2 takes the lowest bits."""
    assert integers([0, 255], "u1").tolist() == [0, 255] and len(integers([], "u1")) == 0
    for values, dtype in (([1, 256], "u1"), ([-1], "u8"), ([2**63], "i8")):
        with pytest.raises(OverflowError):
            integers(values, dtype)
