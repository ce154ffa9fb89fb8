"""Opening a path: the engine that this process writes it with, or a new one, and its end.

A path open for writing in this process is one engine, counted (cesium/sharing.py); options that
contradict those it was opened with are refused.  A named checkpoint is an engine of its own each
time that it is opened.  Thread safety: any thread; `opening_lock` is held
while a store is opened, and never while waiting for one to be closed.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol

from cesium import checkpoint as checkpoints
from cesium import maintenance, sharing
from cesium.background import Background
from cesium.budget import adapt
from cesium.engine import StoreEngine
from cesium.errors import ConflictError, Error
from cesium.files import Files
from cesium.options import Options


def acquire(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    options: Options,
    slots_max: int = 0,
    files: Files | None = None,
) -> StoreEngine:
    """The engine of a path: the one that this process writes with, or a new one.  Counted.

    slots_max, files: tests make pages tiny and put files of their own in; an engine with such
    files is not shared.
    """
    text = os.fsdecode(path)
    if files is not None:
        files.ended = False
        return _ready(StoreEngine(text, options, slots_max, files), threads=False)
    if text == ":memory:":
        if options.at is not None:
            raise ValueError("a store in memory has no named checkpoints: at opens a path")
        if options.flag in ("r", "w"):
            raise FileNotFoundError("a store in memory is always new: flag 'c' or 'n'")
        return _ready(StoreEngine(None, options, slots_max))
    text = os.path.abspath(text)
    while True:
        with sharing.opening_lock:
            found = _shared(text, options) if options.at is None else None
            if found is None:
                return _open_engine(text, options, slots_max)
            if found.join():
                try:
                    _check_agreement(found, text, options)
                except BaseException:
                    if found.leave():
                        close_engine(found)
                    raise
                return found
        found.wait_ended()


def _ready(engine: StoreEngine, threads: bool = True) -> StoreEngine:
    """A new engine with what the layers above it do for it, and its first handle."""
    engine.make_room = maintenance.make_room
    engine.checkpoint = maintenance.checkpoint
    if threads and engine.options.background and engine.writable and not engine.in_memory:
        engine.background = Background(
            engine, maintenance.flush_waiting, maintenance.merge_waiting, maintenance.when_idle
        )
    engine.handles = 1
    if len(engine.tables) > 1:
        adapt(engine)
    return engine


def _open_engine(path: str, options: Options, slots_max: int) -> StoreEngine:
    engine = _ready(StoreEngine(path, options, slots_max))
    if engine.writable:
        status = os.stat(path)
        engine.identity = (status.st_dev, status.st_ino)
        sharing.registry[engine.identity] = engine
    return engine


def close_engine(engine: StoreEngine) -> None:
    """Ends an engine whose last handle was closed."""
    try:
        if engine.background is not None:
            engine.background.stop()
        checkpoints.close(engine, maintenance.merge_before_closing)
    finally:
        engine.room.set()
        engine.files.ended = True
        engine.end()


def _shared(path: str, options: Options) -> StoreEngine | None:
    """The engine that this process writes the path with; it may be closing."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    found = sharing.registry.get((status.st_dev, status.st_ino))
    if found is not None and found.core_engine.forked:
        return None  # the parent's, in a child that Python's hooks did not see made
    return found


def _check_agreement(engine: StoreEngine, path: str, options: Options) -> None:
    """ConflictError or SchemaError when the options are not those of the open engine."""
    if options.flag == "n":
        raise ConflictError(f"{path} is open in this process; close it before making it new")
    engine.check_schema(options)
    if options.flag != "r":
        for name in (
            "durability",
            "memory_limit_bytes",
            "blob_threshold_bytes",
            "journal_retention_bytes",
        ):
            ours, theirs = getattr(engine.options, name), getattr(options, name)
            if ours != theirs:
                raise ConflictError(
                    f"{path} is open in this process with {name}={ours!r}, not {theirs!r}"
                )


class _Handle(Protocol):
    def close(self) -> None: ...


def close_collected(handle: _Handle, engine: StoreEngine) -> None:
    """Closes a handle that nobody has any more; the collector may run in the midst of anything.

    Inside maintenance of the same store, which a thread of the store's own may be at, closing has
    to wait for it: another thread does.
    """
    try:
        if not engine.core_engine.forked:
            engine.check_not_inside("the store is closed")
    except Error:
        threading.Thread(target=handle.close, name="cesium-close", daemon=True).start()
    else:
        handle.close()
