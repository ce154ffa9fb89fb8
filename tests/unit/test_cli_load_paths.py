"""`cesium load` of text by blocks, where Arrow is installed, and by rows: what comes of both."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cesium
from cesium.cli import _blocks, _csv, _infer, _loading
from cesium.cli._arrow_cells import ArrowCells
from cesium.cli._convert import convert
from cesium.cli._infer import Cells, Facts
from cesium.cli._json_lines import cell_of, cells_of
from cesium.cli._numbers import NumberCells
from command_line import run

pyarrow = pytest.importorskip("pyarrow")

WHOLE = st.sampled_from(
    ["0", "1", "7", "-3", "42", "-0", "+5", "007", "00", "9007199254740993", "9223372036854775807",
     "9223372036854775808", "-9223372036854775808", "0x1F", "1_000", " 12", "12 ", "\u0661\u0662",
     "300", "70000", "5000000000", "9" * 20, "9" * 320, "9" * 4400]
)  # fmt: skip
FLOATS = st.sampled_from(
    ["0.5", "-1.25", "1e3", "1E-5", "1.", ".5", "+.5", "-.5e+7", "1e400", "-1e400", "1e-400", "nan",
     "NaN", "-nan", "nan(1)", "inf", "-Infinity", "00.5", "1_0.5", " 1.5", "1e", "e5", ".", "-",
     "1.5.5", "0.1", "123456789.123456789", "9007199254740993.0", "4.9406564584124654e-324",
     "179769313486231580793728971405301e276", "2.2250738585072011e-308", "0.30000000000000004"]
)  # fmt: skip
TIMES = st.sampled_from(
    ["2020-01-01", "2020-01-01Z", "2020-02-30", "2020-1-1", "2020-01-01T10", "2020-01-01T10:00",
     "2020-01-01 10:00", "2020-01-01T10:00Z", "2020-01-01T10:00:00", "2020-01-01T10:00:00Z",
     "2020-01-01 23:59:59Z", "2020-01-01T23:59:60", "2020-01-01T24:00:00", "2020-01-01T10:00:00ZZ",
     "2020-01-01T10:00:00.5", "2020-01-01T10:00:00.123456Z", "2020-01-01T10:00:00.1234567",
     "2020-01-01T10:00:00.", "0000-01-01", "9999-12-31T23:59:59.999999", "2020-01-01T10+05:00",
     "2020-01-01T100000", "20200101", "NaT", "2020", "2020-01", "2020-01-01T10:00+0100", "Z"]
)  # fmt: skip
WORDS = st.sampled_from(
    ["true", "false", "True", "FALSE", "a", "word", "d,e", "tab\there", 'say "so"', "two\nlines",
     "two\r\nlines", "mac\rline", "é", "日本", "\ufeff", "\u2028", "\x0b", "\0", "x" * 70, " ",
     "Na", "0xff", "0xzz", "N", "NAN", "NULL", "\x85", "'"]
)  # fmt: skip
ABSENT = st.sampled_from(["", "NA"])
CELLS = [
    WHOLE, FLOATS, TIMES, WORDS, st.text(max_size=6), st.integers().map(str),
    st.integers(-5, 300).map(str), st.floats().map(repr),
    st.datetimes().map(lambda at: at.isoformat()), st.sampled_from(["true", "false"]),
]  # fmt: skip
KINDS = st.sampled_from(range(len(CELLS)))
TYPES = ["i8", "u1", "i2", "u8", "f8", "f4", "f2", "bool", "datetime64[s]", "datetime64[us]",
         "datetime64[D]", "datetime64[ns]", "timedelta64[s]", "S4", "S70", "V2", "U3", "str",
         "bytes", "uuid", "json", "c16"]  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> tuple[bytes, str]:
    """A file of CSV or TSV, mostly of columns of one kind each, with something odd in places."""
    delimiter = draw(st.sampled_from([",", ",", "\t"]))
    width = draw(st.integers(1, 4))
    kinds = [draw(KINDS) for _ in range(width)]
    odd_cells, odd_lines, newlines = (draw(st.sampled_from([0, 0, 4, 20])) for _ in range(3))
    random = draw(st.randoms(use_true_random=False))
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    quoted = draw(st.sampled_from(["never", "needed", "needed", "always"]))
    lines = [delimiter.join("kabc"[:width]) + ending]
    pools = [draw(st.lists(CELLS[kind] | ABSENT if draw(st.booleans()) else CELLS[kind],
                           min_size=1, max_size=12)) for kind in kinds]  # fmt: skip
    others = draw(st.lists(st.one_of(*CELLS, ABSENT), min_size=1, max_size=6))
    strange = draw(
        st.lists(
            st.sampled_from(['"', 'a"b', '"a"b', "", delimiter, "1" + delimiter * 5, '"open', '""',
                             "\ufeff1", '"' + delimiter, "\r", "\0", '"x\ny"', "'"]),
            min_size=1, max_size=4,
        )
    )  # fmt: skip

    def written(cell: str) -> str:
        needed = any(mark in cell for mark in (delimiter, '"', "\n", "\r"))
        if quoted == "always" or (quoted == "needed" and needed):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    for _ in range(draw(st.integers(0, 60))):
        if odd_lines and random.randrange(odd_lines) == 0:
            lines.append(random.choice(strange) + ending)
            continue
        cells = [
            random.choice(others if odd_cells and random.randrange(odd_cells) == 0 else pool)
            for pool in pools
        ]
        end = "\n" if newlines and random.randrange(newlines) == 0 else ending
        lines.append(delimiter.join(map(written, cells)) + end)
    text = "".join(lines)
    if draw(st.booleans()):
        text = text.removesuffix(ending)
    data = text.encode("utf-8", "replace")
    if draw(st.integers(0, 9)) == 0:
        data = b"\xef\xbb\xbf" + data
    if draw(st.integers(0, 19)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + b"\xff" + data[at:]
    return data, "csv" if delimiter == "," else "tsv"


@contextmanager
def path_of(
    monkeypatch: pytest.MonkeyPatch, by_blocks: bool, size: int | None
) -> Iterator[list[int]]:
    """One of the two paths, by blocks of a size; counts the rows that were parsed in blocks."""
    taken = [0]
    parsed = _blocks.parsed

    def counted(*arguments: Any) -> Any:
        columns = parsed(*arguments)
        taken[0] += len(columns[0]) if columns else 0
        return columns

    with monkeypatch.context() as patch:
        patch.setattr(_csv, "parsed", counted)
        if size is not None:
            patch.setattr(_csv, "LEAST_BYTES", 1)
            patch.setattr(_csv, "ODD_BYTES", min(size, 16))
            patch.setattr(_csv, "BLOCK_BYTES", size)
            patch.setattr(_loading, "FEW_ROWS", 2)
            patch.setattr(_loading, "COMMIT_ROWS", 8)
        if not by_blocks:
            patch.setitem(sys.modules, "pyarrow", None)
        yield taken


def outcome(place: Path, file: Path, arguments: list[str]) -> tuple[Any, ...]:
    """What a load leaves, says, and writes."""
    place.mkdir()
    bad = place / "bad.jsonl"
    more = ["--bad", bad] if "--bad" in arguments else []
    result = run("load", file, place / "s", *[one for one in arguments if one != "--bad"], *more)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = result.output.replace(str(place), "PLACE")
    said = "\n".join(line.split(" in ")[0] for line in said.splitlines())
    rows = None
    if (place / "s").exists():
        with cesium.open(place / "s", flag="r") as store:
            rows = (store.key, store.value, [exactly(item) for item in store.items()])
    kept = bad.read_text() if bad.exists() else None
    return result.exit_code, said, rows, kept


def exactly(item: Any) -> str:
    """A key and a value, the bits of NaN and -0.0 included."""
    key, value = item
    if isinstance(value, (float, np.generic)):
        value = np.asarray(value).tobytes()
    return repr((key, value.tobytes() if hasattr(value, "tobytes") else value))


def same_answers(cells: Cells, texts: list[str], literal: bool) -> None:
    """Whether cells as a whole say what they do one by one."""
    assert list(cells) == texts
    assert list(cells[1:]) == texts[1:] and cells[0] == texts[0]
    facts = Facts(texts)
    looked: Any = cells
    for name in ("has_nulls", "has_cells", "nested", "ascii"):
        assert getattr(looked, name) == getattr(facts, name), name
    if facts.ascii:
        assert looked.text_bytes_max == max(facts.text_bytes_max, 1)
    assert [name for name in _infer.TYPES if cells.are(name)] == [
        name for name in _infer.TYPES if facts.are(name)
    ]
    if facts.are("i8"):
        assert looked.exact == facts.exact
    for dtype in TYPES[:-2]:
        found = cells.converted(dtype, literal)
        if found is None:
            continue
        expected = convert(dtype, texts, literal)
        if isinstance(found, np.ndarray):
            expected = np.array(expected)
            assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes()), dtype
        else:
            assert list(found) == expected, dtype


@settings(deadline=None)
@given(
    pool=st.sampled_from(CELLS).flatmap(lambda kind: st.lists(kind | ABSENT, min_size=1)),
    picks=st.lists(st.integers(0, 1000), min_size=1, max_size=40),
    cut=st.integers(0, 3),
    literal=st.booleans(),
)
def test_cells_at_once_and_one_by_one(
    pool: list[str], picks: list[int], cut: int, literal: bool
) -> None:
    """What is found of a column, and what it is converted to: of a part of an array, too."""
    texts = [pool[pick % len(pool)].encode("utf-8", "replace").decode() for pick in picks]
    texts = [text.replace("\0", "0") for text in texts]  # which no block has
    cells = ArrowCells(pyarrow.array([*pool[:1] * cut, *texts], "string"))[cut:]
    same_answers(cells, texts, literal)


@settings(deadline=None)
@given(
    values=st.lists(
        st.integers()
        | st.integers(-300, 300)
        | st.sampled_from([2**53, 2**53 + 1, 2**63, -(2**63), 10**400, -0.0, 1e16, 5e-324])
        | st.floats()
        | st.none(),
        min_size=1,
    ),
    kinds=st.sets(st.sampled_from([int, float, type(None)]), min_size=1),
)
def test_numbers_of_json_at_once_and_one_by_one(values: list[Any], kinds: set[type]) -> None:
    values = [value for value in values if type(value) in kinds]
    cells = cells_of(values)
    assert isinstance(cells, NumberCells) == (
        any(value is not None for value in values)
        and all(not isinstance(value, float) or math.isfinite(value) for value in values)
    )
    if isinstance(cells, NumberCells):
        same_answers(cells, [cell_of(value) for value in values], True)


@settings(deadline=None, max_examples=60)
@given(
    table=tables(),
    size=st.sampled_from([1, 40, 300, 1 << 20]),
    types=st.none() | st.tuples(st.sampled_from(TYPES), st.sampled_from(TYPES)),
    bad=st.booleans(),
)
def test_by_blocks_and_by_rows(
    table: tuple[bytes, str], size: int, types: tuple[str, str] | None, bad: bool
) -> None:
    data, kind = table
    arguments = ["--key", "k", *(["--bad"] if bad else [])]
    if types:
        header = data.splitlines()[0].decode(errors="replace").lstrip("\ufeff")
        names = header.split("," if kind == "csv" else "\t")[1:]
        value = types[1] if len(names) == 1 else json.dumps([[name, types[1]] for name in names])
        arguments += ["--key-type", types[0], "--value-type", value if names else "bytes"]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        file = Path(directory) / f"rows.{kind}"
        file.write_bytes(data)
        with path_of(patch, True, size):
            one = outcome(Path(directory) / "blocks", file, arguments)
        with path_of(patch, False, size) as taken:
            other = outcome(Path(directory) / "rows", file, arguments)
            assert taken == [0]
    assert one == other


def test_what_is_odd_costs_only_its_neighbours_their_block(tmp_path: Path) -> None:
    """Nearly all rows of a large file are parsed in blocks; the lines of the others are exact."""
    lines = [f"{number},{number / 8},2020-01-01T00:00:{number % 60:02},word\n"
             for number in range(100_000)]  # fmt: skip
    lines[40_000] = "40000,1.5\n"
    lines[60_000] = '60000,1.5,2020-01-01,"two\nlines"\n'
    lines[80_000] = "80000,x,2020-01-01T00:00:00,word\n"
    file = tmp_path / "rows.csv"
    file.write_text("k,a,t,w\n" + "".join(lines))
    types = json.dumps([["a", "f8"], ["t", "datetime64[s]"], ["w", "S9"]])
    arguments = ["--key", "k", "--bad", "--key-type", "i8", "--value-type", types]
    with pytest.MonkeyPatch.context() as patch, path_of(patch, True, None) as taken:
        code, _, _, bad = outcome(tmp_path / "blocks", file, arguments)
    assert code == 0 and 95_000 < taken[0] < 99_999
    assert bad is not None
    assert [(found["line"], found["error"]) for found in map(json.loads, bad.splitlines())] == [
        (40_002, "2 cells instead of 4"),
        (80_003, "column 'a': 'x' is not a f8"),
    ]
    with cesium.open(tmp_path / "blocks" / "s", flag="r") as store:
        keys, values = store.range(None, None).arrays()
        assert store[60_000].w == b"two\nlines"
    assert np.array_equal(keys, np.delete(np.arange(100_000), [40_000, 80_000]))
    assert np.array_equal(np.delete(values["a"], 59_999), np.delete(keys, 59_999) / 8)
    assert len(np.unique(values["t"])) == 60
