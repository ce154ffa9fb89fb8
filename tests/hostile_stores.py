"""Small stores of each form, opened and read in every way after their bytes were damaged.

A `Form` makes a store and says, for each sequence that a reader may find in it, what rows it then
has.  `examine` opens a directory read-only, reads all of it and compares with those rows: what
comes back is the right answer, an error that says that the store is damaged, or, of a store that
was not closed, what a shorter journal would give.  Anything else is a `Wrong`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import cesium
from cesium.opening import acquire

Rows = dict[Any, Any]
READ = cesium.Options(flag="r")
MEMORY_BYTES = 1 << 30  # more than this beyond what the process has is a huge allocation
SANITIZED = "asan" in os.environ.get("LD_PRELOAD", "")

RIGHT, TOLD, DROPPED = "right", "told", "tail dropped"


class Wrong(AssertionError):
    """A damaged store gave what it must not give."""


class History:
    """A store in the making: each step is one commit, noted with the rows that it leaves."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.rows: Rows = {}
        self.states: dict[int, Rows] = {0: {}}

    def note(self) -> None:
        self.states[self.store.sequence] = dict(self.rows)

    def put(self, key: Any, value: Any) -> None:
        self.store.put(key, value)
        self.rows[key] = value
        self.note()

    def put_many(self, rows: Rows) -> None:
        self.store.put_many(list(rows), list(rows.values()))
        self.rows |= rows
        self.note()

    def load(self, rows: Rows) -> None:
        self.store.bulk_load(list(rows), list(rows.values()))
        self.rows |= rows
        self.note()

    def delete(self, key: Any) -> None:
        self.store.delete(key)
        self.rows.pop(key, None)
        self.note()

    def delete_many(self, keys: list[Any]) -> None:
        self.store.delete_many(keys)
        for key in keys:
            self.rows.pop(key, None)
        self.note()

    def delete_range(self, lower: Any, upper: Any) -> None:
        self.store.delete_range(lower, upper)
        self.rows = {
            key: value
            for key, value in self.rows.items()
            if (lower is not None and key < lower) or (upper is not None and key >= upper)
        }
        self.note()

    def checkpoint(self) -> None:
        self.store.checkpoint()
        self.states = {}  # what was before can no longer be found
        self.note()


@dataclass(frozen=True)
class Form:
    """How one store comes about.  killed: its files are taken while it is open."""

    key: Any
    value: Any
    make: Callable[[History], None]
    absent: tuple[Any, ...]
    killed: bool = False
    durability: str = "sync"
    slots_max: int = 4
    blob_threshold: int | None = None


def make_fixed(history: History) -> None:
    """Two tiers, each a tree of fences, with filters, delete markers and an overwritten row."""
    history.load({key * 3: key / 2 for key in range(24)})
    history.checkpoint()
    history.put_many({key: -float(key) for key in range(30, 42)})
    history.delete_many([0, 3, 69])
    history.checkpoint()


def make_real(history: History) -> None:
    """Pages as full as they are outside tests."""
    history.load({key: key / 2 for key in range(300)})


TEXTS = {
    "": b"",
    "a": b"\0\xff",
    "a\0": b"v" * 1000,
    "common prefix a": b"one",
    "common prefix b": b"overflow " * 150,
    "key " * 150: b"a key in an overflow run",
    "key " * 150 + "2": bytes(range(256)) * 5,
    "z" * 4200: b"many pages " * 800,
    "ß": "語".encode(),
}


def make_texts(history: History) -> None:
    """Keys and values in overflow pages, in two tiers."""
    history.load({f"name {number:02}": b"x" * number for number in range(12)})
    history.checkpoint()
    history.put_many(TEXTS)
    history.put("name 03", b"newer")
    history.checkpoint()


def make_composite(history: History) -> None:
    """Tuples as keys, structured rows as values."""
    rows = {
        (name, number): (number / 4, number) for name in ("ACME", "", "Z\0") for number in (-1, 5)
    }
    history.load(rows)
    history.checkpoint()
    history.put_many({("ACME", number): (0.5, -number) for number in range(6)})
    history.checkpoint()


def make_range_deletes(history: History) -> None:
    """Range-delete markers above a base, one of them without end."""
    history.load({key: key * 2 for key in range(40)})
    history.checkpoint()
    history.delete_range(3, 9)
    history.delete_range(12, 20)
    history.put(5, 500)
    history.delete_range(33, None)
    history.checkpoint()


def make_variable_markers(history: History) -> None:
    """The same with keys of any length: delete markers and range-deletes in one segment."""
    history.load({bytes([65 + key]) * (1 + key): f"value {key}" for key in range(20)})
    history.checkpoint()
    history.delete_range(b"C", b"EE")
    history.delete(b"A")
    history.put(b"DD", "new")
    history.delete_range(b"R", None)
    history.checkpoint()


def make_segments(history: History) -> None:
    """Several overlapping segments with filters, and an edit of the manifest for each."""
    for turn in range(4):
        history.put_many({key * 5 + turn: key + turn * 100 for key in range(8)})
        history.put_many({key * 7: key + turn * 1000 for key in range(4)})
        history.checkpoint()


def make_named(history: History) -> None:
    """A checkpoint with a name, whose segments a merge has replaced, and one that shares some."""
    history.load({key: key * 2 for key in range(12)})
    history.store.checkpoint("old")
    history.put_many({key: key for key in range(6, 15)})
    history.checkpoint()
    history.store.compact()
    history.store.checkpoint("new")
    history.put(3, 30)
    history.checkpoint()


def make_edits(history: History) -> None:
    """Several edits behind the manifest's snapshot, and a journal that needs all of them."""
    make_segments(history)
    history.put(9, 1)


def make_journal(history: History) -> None:
    """Every kind of frame above a checkpoint."""
    history.put_many({key: float(key) for key in range(10)})
    history.checkpoint()
    history.put(3, 1.5)
    history.put_many({key: 0.25 * key for key in range(8, 20)})
    history.delete(1)
    history.delete_many([2, 15])
    history.delete_range(5, 7)
    history.load({key * 4: -float(key) for key in range(12)})
    history.put(4, 9.0)
    history.delete_range(30, None)
    history.put(100, 0.0)


def make_text_journal(history: History) -> None:
    history.put("a", b"1")
    history.put_many({key: value for key, value in TEXTS.items() if len(key) < 1000})
    history.delete("a\0")
    history.delete_range("common", "common prefix b")
    history.load({"a": b"loaded", "b" * 600: b"b" * 1100})
    history.delete_many(["ß", "never"])
    history.put("last", b"")


def make_blobs(history: History) -> None:
    """Values in two blob files, one of which two segments share; some of them dead."""
    history.load({f"name {number:02}": bytes([number]) * (10 * number) for number in range(12)})
    history.checkpoint()
    history.put_many({"name 03": b"x" * 1100, "name 11": b"yz" * 50, "other": b"small"})
    history.delete("name 09")
    history.checkpoint()


def make_blob_journal(history: History) -> None:
    """An attach frame with segments that point into a blob file."""
    history.put("a", b"first")
    history.load({"a": b"b" * 100, "b": b"small", "c": b"c" * 77})
    history.put("d", b"d" * 200)


FORMS = {
    "blobs": Form("str", "bytes", make_blobs, ("b", "name 12"), blob_threshold=40),
    "blob journal": Form("str", "bytes", make_blob_journal, ("e",), killed=True, blob_threshold=40),
    "fixed": Form("u8", "f8", make_fixed, (1, 2, 70, 2**64 - 1)),
    "real pages": Form("i4", "f8", make_real, (-1, 300), slots_max=0),
    "texts": Form("str", "bytes", make_texts, ("b", "key " * 151, "\U0001f600")),
    "composite": Form(
        ("str", "i4"), [("price", "f8"), ("size", "i4")], make_composite, (("B", 0), ("ACME", 9))
    ),
    "range-deletes": Form("u4", "i8", make_range_deletes, (99, 2**32 - 1)),
    "variable markers": Form("bytes", "str", make_variable_markers, (b"", b"\xff", b"Zzz")),
    "segments": Form("u2", "u4", make_segments, (9, 65535)),
    "journal": Form("u8", "f8", make_journal, (50,), killed=True),
    "unsynced journal": Form("u8", "f8", make_journal, (50,), killed=True, durability="process"),
    "text journal": Form("str", "bytes", make_text_journal, ("c",), killed=True),
    "edits": Form("u2", "u4", make_edits, (10,), killed=True),
    "named": Form("u2", "u4", make_named, (20,)),
}


@contextlib.contextmanager
def loads_stay_in_the_journal() -> Iterator[None]:
    """As they do when the process dies between a load's commit and the checkpoint after it."""
    with mock.patch("cesium.loader.tidy", lambda engine: None):
        yield


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory for many short-lived stores, in memory where the system has that."""
    memory = Path("/dev/shm")
    base = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="cesium-hostile-", dir=base) as name:
        yield Path(name)


def copy_store(source: Path, target: Path) -> None:
    """A copy in which the zeros at the end of a journal are holes, which nobody reads."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for item in source.iterdir():
        content = item.read_bytes()
        copy = target / item.name
        copy.write_bytes(content.rstrip(b"\0"))
        os.truncate(copy, len(content))


def opened(path: Path, options: cesium.Options, slots_max: int) -> Any:
    return cesium.Store(acquire(path, options, slots_max), options)


class Sample:
    """A form's store as it lies on the drive, and the answers that it gives when it is sound."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.form = form = FORMS[name]
        self.path = directory / "store"
        options = cesium.Options(
            form.key,
            form.value,
            durability=form.durability,
            blob_threshold=form.blob_threshold,
            background=False,
        )
        made = directory / "made"
        store = opened(made, options, form.slots_max)
        history = History(store)
        if form.killed:
            with loads_stay_in_the_journal():
                form.make(history)
            copy_store(made, self.path)
            store.close()
        else:
            form.make(history)
            last = store.sequence
            store.close()
            history.states = {last: history.rows}
            copy_store(made, self.path)
        self.rows = history.states
        self.sequence = max(history.states)
        keys = sorted({key for rows in history.states.values() for key in rows})
        self.probed = [*keys, *form.absent]
        self.answers = {
            sequence: answers_of(rows, self.probed) for sequence, rows in history.states.items()
        }
        assert examine(self.path, self) == RIGHT

    def files(self) -> dict[str, bytes]:
        """Every file but the lock."""
        return {
            item.name: item.read_bytes()
            for item in sorted(self.path.iterdir())
            if item.name != "LOCK"
        }


def answers_of(rows: Rows, probed: list[Any]) -> dict[str, Any]:
    """What each way of reading gives when a store holds these rows."""
    pairs = sorted(rows.items())
    middle = pairs[len(pairs) // 4 : len(pairs) // 2]
    return {
        "get": [rows.get(key) for key in probed],
        "get_many": [(rows[key], True) if key in rows else (None, False) for key in probed],
        "contains_many": [key in rows for key in probed],
        "arrays": pairs,
        "iteration": pairs,
        "reversed": pairs[::-1],
        "batches": pairs[::-1],
        "middle": (middle, len(middle)),
        "len": len(pairs),
        "edges": (pairs[0], pairs[-1]) if pairs else None,
    }


def plain(column: Any) -> list[Any]:
    """Rows of an array, of a Column or of a tuple of these as Python values."""
    if isinstance(column, tuple):
        return list(zip(*(plain(part) for part in column), strict=True))
    return list(column.tolist() if isinstance(column, np.ndarray) else column)


def pairs_of(arrays: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    return list(zip(plain(arrays[0]), plain(arrays[1]), strict=True))


def read_many(store: Any, probed: list[Any]) -> list[tuple[Any, bool]]:
    values, found = store.get_many(probed)
    return [
        (value if there else None, there)
        for value, there in zip(plain(values), found.tolist(), strict=True)
    ]


def read_middle(store: Any, probed: list[Any], answer: Any) -> Any:
    rows, _ = answer
    if not rows:
        return [], 0
    view = store.range(rows[0][0], rows[-1][0], inclusive=(True, True))
    return pairs_of(view.arrays()), len(view)


def read_batches(store: Any) -> list[tuple[Any, Any]]:
    return [pair for batch in store.range(reverse=True).batches(5) for pair in pairs_of(batch)]


READS: dict[str, Callable[[Any, list[Any], Any], Any]] = {
    "get": lambda store, probed, _: [store.get(key) for key in probed],
    "get_many": lambda store, probed, _: read_many(store, probed),
    "contains_many": lambda store, probed, _: store.contains_many(probed).tolist(),
    "arrays": lambda store, *_: pairs_of(store.range().arrays()),
    "iteration": lambda store, *_: list(store.items()),
    "reversed": lambda store, *_: list(reversed(store.range())),
    "batches": lambda store, *_: read_batches(store),
    "middle": read_middle,
    "len": lambda store, *_: len(store),
    "edges": lambda store, *_: (store.first(), store.last()) if store else None,
}


def read_each(store: Any, sample: Sample, answers: dict[str, Any]) -> list[cesium.Error]:
    """Reads in every way; the errors that said that something is damaged."""
    told: list[cesium.Error] = []
    for name, read in READS.items():
        try:
            found = read(store, sample.probed, answers[name])
        except cesium.CorruptionError as error:
            told.append(error)
        else:
            if found != answers[name]:
                raise Wrong(f"{name} gives {found}, not {answers[name]}")
    if told:  # one by one, what is not damaged is still right
        step = max(1, len(sample.probed) // 20)
        for key, value in list(zip(sample.probed, answers["get"], strict=True))[::step]:
            with contextlib.suppress(cesium.CorruptionError):
                if (found := store.get(key)) != value:
                    raise Wrong(f"{key!r} is {found!r}, not {value!r}")
    return told


def examine(path: Path, sample: Sample, *, damaged: bool = False) -> str:
    """Opens and reads a store that may be damaged: RIGHT, TOLD or DROPPED, or raises Wrong.

    damaged: in a file's bytes that count, so that verifying must find it if reading does not.
    """
    try:
        store = opened(path, READ, sample.form.slots_max)
    except cesium.CorruptionError:
        return TOLD
    with store:
        answers = sample.answers.get(store.sequence)
        if answers is None:
            raise Wrong(f"sequence {store.sequence} is none of {sorted(sample.answers)}")
        told = read_each(store, sample, answers)
        sound = store.verify().ok
        if told and sound:
            raise Wrong(f"verify finds nothing, though reading says: {told[0]}")
        if store.sequence < sample.sequence:
            if not store.stats().journal_dropped_bytes:
                raise Wrong("commits are missing, and nothing says so")
            return DROPPED
        if damaged and sound:
            raise Wrong("neither reading nor verifying finds the damage")
        return RIGHT if sound else TOLD


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """What would allocate without bound fails inside.  A sanitizer reserves too much for that."""
    if SANITIZED:
        yield
        return
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
