"""What every engine looks like to a workload.

An engine gets keys and values in the form that it takes best, made before the clock runs (`rows`,
`keys`, `values`, `batch`): integers for one, big-endian bytes for another.  What it gives back is
what a numpy user wants: a single get an object of its own, all else arrays.  Turning rows into
arrays is part of its work and of its time.

Thread safety: an engine is used by one thread; `session` gives another thread its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cesium.benchmark.shapes import BIG_ENDIAN, Keys, Rows, Shape, value_bytes

WRITE_BUFFER_BYTES = 64 << 20  # of engines that buffer writes, cesium's memtable among them


class NotOffered(Exception):
    """An engine does not do this: no such durability, no such key."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all engines of a run have in common.

    durability: of commits, "sync", "interval", "process" or "none".  cache_bytes: what an engine
    that has a cache of its own may use for it.  cold: reads will come from the drive.
    """

    durability: str = "process"
    cache_bytes: int = 256 << 20
    cold: bool = False


class Engine:
    """One store of one engine, open from construction to close()."""

    name: ClassVar[str]
    distribution: ClassVar[str | None] = None  # the package that it is from, when not Python's own
    bound: ClassVar[bool] = False  # does less than a store does: how fast could one be?
    durabilities: ClassVar[tuple[str, ...]] = ("sync", "process")
    keys_taken: ClassVar[tuple[str, ...]] = ("u64", "composite", "url")
    on_disk: ClassVar[bool] = True
    threads: ClassVar[bool] = True  # whether several threads may use a store at once
    ranged: ClassVar[bool] = True

    # An engine's own methods where they fit: a call in between would count as its work.
    get: Callable[[Any], Any]  # the value, or None
    put: Callable[[Any, Any], Any]  # one commit
    delete: Callable[[Any], Any]  # one commit, of a key that is there

    def __init__(self, path: Path, shape: Shape, settings: Settings) -> None:
        """Opens the store at a path, which is made where there is none.

        NotOffered: not with this shape or durability.
        """
        if shape.key not in self.keys_taken:
            raise NotOffered(f"no {shape.key} keys")
        if settings.durability not in self.durabilities:
            raise NotOffered(f"no durability like {settings.durability!r}")
        self.path, self.shape, self.settings = path, shape, settings
        self.open()

    @classmethod
    def version(cls) -> str:
        """The version, of the engine below its Python package too where that is known."""
        assert cls.distribution is not None
        return metadata.version(cls.distribution)

    @classmethod
    def describe(cls, settings: Settings) -> str:
        """The settings that were chosen, for people."""
        raise NotImplementedError

    def open(self) -> None:
        """Opens or makes the store."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes it; what was written is in its files."""
        raise NotImplementedError

    def session(self) -> Engine:
        """The same store for another thread, until that closes it."""
        return self

    def only_reads(self) -> None:
        """Nothing is written from here on: one snapshot may serve all reads."""

    # -- forms

    def keys(self, keys: Keys) -> list[Any]:
        """The form for `get`, `put`, `delete` and `range`."""
        raise NotImplementedError

    def values(self, values: Any) -> list[Any]:
        """The form for `put`."""
        raise NotImplementedError

    def rows(self, rows: Rows) -> Any:
        """The form for `load` and `put_many`."""
        raise NotImplementedError

    def batch(self, keys: Keys) -> Any:
        """The form for `get_many`."""
        return self.keys(keys)

    # -- work

    def load(self, rows: Any, ordered: bool, threads: int = 1) -> None:
        """Rows into the empty store, on stable storage when it returns."""
        raise NotImplementedError

    def settle(self) -> None:
        """Does what the engine would do in time: a loaded store has no log that is replayed."""

    def begin(self) -> None:
        """Puts from here on are one transaction, where the engine has those; not synced."""

    def commit(self) -> None:
        """Ends it."""

    def put_many(self, rows: Any) -> None:
        """One commit."""
        raise NotImplementedError

    def get_many(self, batch: Any) -> Any:
        """The values of keys that are all there, as an array, in their order."""
        raise NotImplementedError

    def range(self, lower: Any, upper: Any, reverse: bool = False) -> tuple[Any, Any]:
        """Rows from lower to below upper, as arrays of keys and values; None: no bound."""
        raise NotImplementedError

    def iterate(self) -> Iterable[tuple[Any, Any]]:
        """All rows one by one, as the engine's own objects."""
        raise NotImplementedError

    def delete_range(self, lower: Any, upper: Any) -> None:
        """Rows from lower to below upper; one commit."""
        raise NotImplementedError

    def answer(self, key: Any) -> Any:
        """A single get in a form that is the same for all engines: int or bytes; for tests."""
        found = self.get(key)
        if isinstance(found, bytes) and self.shape.numeric_values:
            return int.from_bytes(found, "little")
        return found


class BytesEngine(Engine):
    """An engine of bytes: keys in an order-preserving form, numbers little-endian in values."""

    def keys(self, keys: Keys) -> list[Any]:
        return keys.encoded()

    def values(self, values: Any) -> list[Any]:
        return value_bytes(values)

    def rows(self, rows: Rows) -> Any:
        return rows.keys, self.keys(rows.keys), self.values(rows.values)

    @staticmethod
    def sorted_rows(rows: Any, ordered: bool) -> tuple[list[bytes], list[bytes]]:
        """Such rows ascending by key: for engines that gain by it, in their time."""
        keys, texts, values = rows
        if ordered:
            return texts, values
        order = keys.order().tolist()
        return [texts[place] for place in order], [values[place] for place in order]

    def key_array(self, texts: list[bytes]) -> Any:
        """Keys as they were given: uint64, a pair of arrays, or for url a list of str."""
        if self.shape.key == "url":
            return [text.decode() for text in texts]
        found = np.frombuffer(b"".join(texts), BIG_ENDIAN).astype(np.uint64)
        return found if self.shape.key == "u64" else (found[::2], found[1::2])

    def value_array(self, values: list[bytes]) -> Any:
        """Values as they were given: uint64, or void."""
        dtype = "<u8" if self.shape.numeric_values else f"V{self.shape.value_bytes}"
        return np.frombuffer(b"".join(values), dtype)
