"""Makes the golden files of the format version that is current: python tests/compat/make_golden.py

Run once a format version, before its release; what was released is never made again.  Each store is
one zip file in tests/compat/format-<version>/.  `STORES` says how each is made and what it holds,
and test_golden.py asserts the latter of the files as they were committed.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cesium
from cesium.state import FORMAT_VERSION

Rows = dict[Any, Any]


@dataclass(frozen=True)
class Golden:
    """One store: its schema, how it comes about, and its rows in the end.

    killed: the files are taken while the store is open, so the journal holds what no segment has.
    """

    key: Any
    value: Any
    make: Callable[[Any], None]
    rows: Callable[[], Rows]
    sequence: int
    killed: bool = False


def make_numbers(store: Any) -> None:
    """A base of several pages; above it a segment with delete markers and range-deletes."""
    store.bulk_load(np.arange(2000, dtype="u8") * 5, np.arange(2000) / 4)
    store.compact()
    store.put_many(np.array([0, 1, 2**64 - 1], "u8"), [-1.0, np.inf, -np.inf])
    store.delete_many(np.array([5, 10], "u8"))
    store.delete_range(1000, 2000)
    store.delete_range(9000, None)
    store[1500] = 0.5
    store[2**63] = 2.5


def rows_of_numbers() -> Rows:
    rows: Rows = {5 * index: index / 4 for index in range(2000)}
    rows |= {0: -1.0, 1: np.inf}
    for key in (5, 10, *range(1000, 2000), *range(9000, 10_000)):
        rows.pop(key, None)
    return rows | {1500: 0.5, 2**63: 2.5}


TEXTS = {
    "": b"the empty key",
    "\0": b"",
    "a": b"\0\xff",
    "a\0": b"behind a NUL",
    "key " * 200: b"a key in an overflow run",
    "key " * 200 + "2": bytes(range(256)) * 5,
    "z" * 9000: b"many pages " * 1500,
    "ß": "語".encode(),
    "\U0001f600": b"beyond the basic plane",
}


def make_texts(store: Any) -> None:
    names = [f"name {number:03}" for number in range(200)]
    store.bulk_load(names, [name.encode() * (1 + index % 9) for index, name in enumerate(names)])
    store.put_many(list(TEXTS), list(TEXTS.values()))
    store["gone"] = b"deleted below"
    store.checkpoint()
    store.delete("gone")
    store.delete_range("name 050", "name 150")
    store["name 100"] = b"again"


def rows_of_texts() -> Rows:
    rows: Rows = {f"name {number:03}": number for number in range(200) if not 50 <= number < 150}
    rows = {name: name.encode() * (1 + number % 9) for name, number in rows.items()}
    return rows | TEXTS | {"name 100": b"again"}


def composite_key(number: int) -> tuple[Any, str, int]:
    moment = np.datetime64("2013-01-01T05:00:00", "s") + np.timedelta64(3600 * (number // 20), "s")
    return moment, ("AA", "B6", "UA\0", "")[number % 4], number - 50


def make_composite(store: Any) -> None:
    rows = [
        (composite_key(number), (number / 8, -number, b"x" * (number % 4))) for number in range(100)
    ]
    store.put_many([key for key, _ in rows], [value for _, value in rows])
    store.checkpoint()
    store.delete(composite_key(7))
    store.delete_range((np.datetime64("2013-01-01T06:00:00", "s"),),
                       (np.datetime64("2013-01-01T08:00:00", "s"),))  # fmt: skip


def rows_of_composite() -> Rows:
    return {
        composite_key(number): (number / 8, -number, b"x" * (number % 4))
        for number in range(100)
        if number != 7 and number // 20 not in (1, 2)
    }


def make_journal(store: Any) -> None:
    """Every kind of operation and an attached load, none of it in the manifest."""
    store["one"] = {"a": [1, None, "ß"]}
    store.put_many(["two", "three", "four"], [2, 3.5, "x" * 3000])
    store.bulk_load(["five", "two"], [[5], "loaded"])
    store["three"] = None
    store.delete("four")
    store.delete_range("p", "sz")
    store.delete_many(["nothing", "five"])
    store["z" * 700] = "a long key"


def rows_of_journal() -> Rows:
    return {"one": {"a": [1, None, "ß"]}, "two": "loaded", "three": None, "z" * 700: "a long key"}


def make_origins(store: Any) -> None:
    """A merge, a flush and a load above it whose footers say whence they came, and a journal."""
    store.bulk_load(np.arange(0, 300), np.arange(300.0))
    store.put_many(np.arange(100, 400), np.full(300, 0.5))
    store.compact()
    store.put_many(np.arange(-50, 50), np.full(100, -1.0))
    store.delete(7)
    store.delete_range(200, 250)
    store.checkpoint()
    store.bulk_load(np.arange(40, 60), np.full(20, 2.0))
    store.checkpoint()
    store.delete(41)
    store[300] = -3.0


def rows_of_origins() -> Rows:
    rows: Rows = {key: float(key) for key in range(100)} | dict.fromkeys(range(100, 400), 0.5)
    rows |= dict.fromkeys(range(-50, 50), -1.0)
    rows = {key: value for key, value in rows.items() if key != 7 and not 200 <= key < 250}
    rows |= dict.fromkeys(range(40, 60), 2.0) | {300: -3.0}
    del rows[41]
    return rows


def make_rows(store: Any) -> None:
    """Row frames of fixed keys and values, among full frames, before and after a sync."""
    store.bulk_load(np.arange(50, dtype="u8"), np.zeros(50))
    store.checkpoint()
    for key in range(40, 120):
        store[key] = key / 8
    store.sync()
    store[2**63] = -0.5
    store.put_many(np.array([7, 8], "u8"), [7.5, 8.5])
    store.delete(41)
    store.delete_range(60, 70)
    for key in range(65, 80):
        store[key] = -1.0
    store.delete(2**64 - 1)


def rows_of_rows() -> Rows:
    rows: Rows = dict.fromkeys(range(50), 0.0) | {key: key / 8 for key in range(40, 120)}
    rows = {key: value for key, value in rows.items() if key != 41 and not 60 <= key < 65}
    return rows | dict.fromkeys(range(65, 80), -1.0) | {7: 7.5, 8: 8.5, 2**63: -0.5}


def make_words(store: Any) -> None:
    """Row frames of keys and values of any length, and one too long for a row frame."""
    store.put_many(["base", "gone"], [b"", b"x"])
    store.checkpoint()
    for number in range(30):
        store["w" * number] = b"v" * (37 * number % 41)
    store.sync()
    store["long"] = b"long " * 14_000
    store.delete("gone")
    store.delete("w" * 29)
    store["ß"] = bytes(range(256))


def rows_of_words() -> Rows:
    rows: Rows = {"w" * number: b"v" * (37 * number % 41) for number in range(29)}
    return rows | {"base": b"", "long": b"long " * 14_000, "ß": bytes(range(256))}


def make_named(store: Any) -> None:
    store.bulk_load(np.arange(200), np.arange(200) / 2)
    store.checkpoint("loaded")
    store.put_many(np.arange(100), np.full(100, -1.0))
    store.checkpoint("changed")
    store.compact()
    store.put_many([500], [5.0])


def rows_of_named() -> Rows:
    return {**rows_at("changed"), 500: 5.0}


def rows_at(name: str) -> Rows:
    """Of a checkpoint of the store "named"."""
    rows = {key: key / 2 for key in range(200)}
    return rows if name == "loaded" else {**rows, **dict.fromkeys(range(100), -1.0)}


STORES = {
    "numbers": Golden("u8", "f8", make_numbers, rows_of_numbers, 7),
    "texts": Golden("str", "bytes", make_texts, rows_of_texts, 6),
    "composite": Golden(
        ("datetime64[s]", "str", "-i4"), [("price", "f8"), ("size", "i4"), ("tag", "S3")],
        make_composite, rows_of_composite, 3,
    ),
    "journal": Golden("str", "json", make_journal, rows_of_journal, 8, killed=True),
    "origins": Golden("i8", "f8", make_origins, rows_of_origins, 8, killed=True),
    "rows": Golden("u8", "f8", make_rows, rows_of_rows, 101, killed=True),
    "named": Golden("u8", "f8", make_named, rows_of_named, 3, killed=True),
    "words": Golden("str", "bytes", make_words, rows_of_words, 35, killed=True),
}  # fmt: skip


def main() -> None:
    directory = Path(__file__).parent / f"format-{FORMAT_VERSION}"
    directory.mkdir(exist_ok=True)
    for name, golden in STORES.items():
        target = directory / f"{name}.zip"
        if target.exists():
            print(f"{target.name} exists: what was released is never made again")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "store")
            store = cesium.open(path, key=golden.key, value=golden.value, durability="process")
            golden.make(store)
            assert store.sequence == golden.sequence
            if not golden.killed:
                store.close()
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for item in sorted(path.iterdir()):
                    if item.name != "LOCK":
                        archive.write(item, item.name)
            store.close()
        print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
