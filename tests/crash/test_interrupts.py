"""Ctrl-C in whatever takes long: the store stays sound, and says what it said before or after.

SIGINT comes at each call of the door to the file system, one after the other, and at each report of
progress, in the thread that works; the signal itself reaches the main thread, as it does in a
notebook.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium.files import Files

pytestmark = pytest.mark.crash

ROWS = 2 << 16  # just enough for two threads of a load
OLD = {number: number for number in range(0, 3000, 3)}
QUIET = ("path", "exists", "file_system")
CALLS = [
    name
    for name, value in vars(Files).items()
    if callable(value) and not name.startswith("_") and name not in QUIET
]


class InterruptedFiles(Files):
    """The door, through which a SIGINT comes at the call with the number `turn`."""

    turn: int | None = None
    seen = 0

    @classmethod
    def tick(cls) -> None:
        cls.seen += 1
        if cls.seen == cls.turn:
            os.kill(os.getpid(), signal.SIGINT)


def ticking(name: str) -> Callable[..., Any]:
    plain = getattr(Files, name)

    def call(self: Files, *arguments: Any, **options: Any) -> Any:
        InterruptedFiles.tick()
        return plain(self, *arguments, **options)

    return call


for name in CALLS:
    setattr(InterruptedFiles, name, ticking(name))


@contextlib.contextmanager
def interrupts_at(store: cesium.Store, turn: int) -> Iterator[None]:
    InterruptedFiles.turn, InterruptedFiles.seen = turn, 0
    store._engine.files.__class__ = InterruptedFiles
    try:
        yield
    finally:
        InterruptedFiles.turn = None
        store._engine.files.__class__ = Files


def made(path: Path) -> cesium.Store:
    """A store with a run of segments, another above it, and rows in memory."""
    options = cesium.Options("u8", "u8", "c", "process", "64MiB", background=False)
    store = cesium.open(path, options=options)
    numbers = np.array(list(OLD), np.uint64)
    store.bulk_load(numbers, numbers + 1)
    store.bulk_load(numbers[::2], numbers[::2])
    store.put_many(numbers[1::2], numbers[1::2])
    return store


def load(store: cesium.Store, progress: Any, threads: int) -> None:
    store.bulk_load(np.arange(ROWS), np.full(ROWS, 7), progress=progress, threads=threads)


WORK: dict[str, Callable[[cesium.Store, Any], Any]] = {
    "load": lambda store, progress: load(store, progress, 1),
    "load in threads": lambda store, progress: load(store, progress, 2),
    "compact": lambda store, progress: store.compact(progress=progress),
    "verify": lambda store, progress: store.verify(progress=progress),
}


def check_sound(store: cesium.Store, path: Path, work: str) -> None:
    """All of the work or nothing; writes go on; nothing is left behind when it was opened again."""
    keys, values = store.items().arrays()
    if len(keys) == len(OLD):
        assert dict(zip(keys.tolist(), values.tolist())) == OLD
    else:
        assert work.startswith("load")
        assert np.array_equal(keys, np.arange(ROWS)) and (values == 7).all()
    assert store.verify().ok
    store[10**6] = 1
    store.checkpoint()
    store.close()
    with cesium.open(path) as again:
        assert again[10**6] == 1
        assert all(map(np.array_equal, again[: 10**6].arrays(), (keys, values)))
        again[10**6] = 2
        again.compact()
        assert again.verify().ok
        live = {reader.name for reader in again._view().version.segments()}
        assert {name for name in os.listdir(path) if name.startswith("segment-")} == live


# What comes while a segment that was merged away is deleted, is lost in its finalizer, as Python
# has it; the file is removed when the store is opened again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("work", WORK)
def test_interrupted_at_each_call_to_the_file_system(tmp_path: Path, work: str) -> None:
    interrupted = 0
    for turn in range(1, 1000):
        path = tmp_path / str(turn)
        store = made(path)
        with interrupts_at(store, turn):
            try:
                WORK[work](store, None)
            except KeyboardInterrupt:
                interrupted += 1
            met = InterruptedFiles.seen >= turn
        check_sound(store, path, work)
        if not met:
            break
    assert interrupted >= 3 and turn < 999


@pytest.mark.parametrize("work", WORK)
def test_interrupted_while_progress_is_told(tmp_path: Path, work: str) -> None:
    for turn in range(1, 1000):
        path = tmp_path / str(turn)
        store = made(path)
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int, turn: int = turn) -> None:
            told.append((done, total))
            if len(told) == turn:
                os.kill(os.getpid(), signal.SIGINT)

        met = False
        try:
            WORK[work](store, progress)
        except KeyboardInterrupt:
            met = True
        check_sound(store, path, work)
        assert met == (len(told) >= turn), "nobody swallows it"
        if not met:
            break
    assert 1 < turn < 999


@pytest.mark.parametrize("work", WORK)
def test_what_a_progress_function_raises_ends_the_work(tmp_path: Path, work: str) -> None:
    def progress(done: int, total: int) -> None:
        raise RuntimeError("no more of this")

    store = made(tmp_path / "s")
    with pytest.raises(RuntimeError, match="no more of this"):
        WORK[work](store, progress)
    check_sound(store, tmp_path / "s", work)
