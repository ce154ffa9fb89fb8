"""Keys and values of a benchmark, made from a seed: the same for every engine.

Three types of key, in an order that all engines agree on:

- u64: even numbers below 2**63, so that a signed 64-bit integer holds them, and that every odd
  number between two of them is a miss;
- composite: (series, time), two u64, 16 bytes; some thousands of rows a series;
- url: text of 35 to 60 bytes, a few hundred hosts.

A value has 8 bytes (a u64 below 2**63) or `value_bytes` random ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

KEY_TYPES = ("u64", "composite", "url")
ROWS_PER_SERIES = 4096
BIG_ENDIAN = np.dtype(">u8")
FIXED_VALUE_BYTES_MOST = 1024  # above, cesium has values of variable length


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows are like.

    key: one of KEY_TYPES.  value_bytes: 8, or any other number.  ValueError for another key.
    """

    key: str = "u64"
    value_bytes: int = 8

    def __post_init__(self) -> None:
        if self.key not in KEY_TYPES:
            raise ValueError(f"no key type is called {self.key!r}: {', '.join(KEY_TYPES)}")
        if self.value_bytes < 1:
            raise ValueError(f"a value has at least 1 byte, not {self.value_bytes}")

    @property
    def row_bytes(self) -> int:
        """What a row holds; for url, about."""
        return {"u64": 8, "composite": 16, "url": 45}[self.key] + self.value_bytes

    @property
    def numeric_values(self) -> bool:
        """Whether a value is a number, and not bytes."""
        return self.value_bytes == 8


class Keys:
    """Keys in columns: one array (u64), two (composite), or an array of text (url)."""

    def __init__(self, kind: str, columns: tuple[Any, ...]) -> None:
        self.kind, self.columns = kind, columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def take(self, rows: Any) -> Keys:
        """Those at some places: an array of them, or a slice."""
        return Keys(self.kind, tuple(column[rows] for column in self.columns))

    def order(self) -> Any:
        """The places of the keys, ascending by key."""
        if self.kind == "composite":
            return np.lexsort(self.columns[::-1])
        return np.argsort(self.columns[0], kind="stable")

    def singles(self) -> list[Any]:
        """One Python object a key: int, (int, int) or str."""
        if self.kind == "composite":
            return list(zip(*(column.tolist() for column in self.columns)))
        return list(self.columns[0].tolist())

    def encoded(self) -> list[bytes]:
        """One bytes object a key; their order is the keys' order."""
        if self.kind == "url":
            return [text.encode() for text in self.columns[0]]
        packed = np.empty((len(self), len(self.columns)), BIG_ENDIAN)
        for number, column in enumerate(self.columns):
            packed[:, number] = column
        return list(packed.view(f"V{8 * len(self.columns)}")[:, 0].tolist())

    def arrays(self) -> Any:
        """As cesium takes a batch of them."""
        if self.kind == "url":
            return self.columns[0].tolist()
        return self.columns if self.kind == "composite" else self.columns[0]


@dataclass(frozen=True, slots=True)
class Rows:
    """Keys and their values, in the same order."""

    keys: Keys
    values: Any

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Any) -> Rows:
        """Those at some places: an array of them, or a slice."""
        return Rows(self.keys.take(rows), self.values[rows])

    @classmethod
    def joined(cls, *parts: Rows) -> Rows:
        """Rows of several, one after another."""
        columns = zip(*(part.keys.columns for part in parts))
        keys = Keys(parts[0].keys.kind, tuple(np.concatenate(column) for column in columns))
        return cls(keys, np.concatenate([part.values for part in parts]))


def value_singles(values: Any) -> list[Any]:
    """One Python object a value: int, or bytes."""
    return list(values.tolist())


def value_bytes(values: Any) -> list[bytes]:
    """One bytes object a value; a number has 8, little-endian."""
    return list(values.view("V8").tolist() if values.dtype == np.uint64 else values.tolist())


def key_array(shape: Shape, keys: list[Any]) -> Any:
    """Python keys as a range gives them: an array, a pair of arrays (composite), a list (url)."""
    if shape.key == "url":
        return keys
    array = np.array(keys, np.uint64)
    if shape.key == "u64":
        return array
    columns = array.reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def value_array(shape: Shape, values: list[Any]) -> Any:
    """Python values, int or bytes, as an array."""
    if shape.numeric_values:
        return np.array(values, np.uint64)
    return np.frombuffer(b"".join(values), f"V{shape.value_bytes}")


def make_keys(kind: str, rows: int, random: Any) -> Keys:
    """So many different keys, ascending."""
    if kind == "u64":
        return Keys(kind, (_distinct(rows, random),))
    if kind == "composite":
        series = np.arange(rows, dtype=np.uint64) // np.uint64(ROWS_PER_SERIES)
        times = np.uint64(1_700_000_000_000_000_000) + np.arange(rows, dtype=np.uint64) * np.uint64(
            2_000_000
        )
        times += random.integers(0, 500_000, rows, np.uint64) * np.uint64(2)
        return Keys(kind, (series, times))
    numbers = _distinct(rows, random)
    hosts = random.integers(0, 300, rows)
    sections = np.array(["news", "articles", "shop/item", "user/profile", "img"])[
        random.integers(0, 5, rows)
    ]
    texts = sorted(
        f"https://host-{host:03d}.example.org/{section}/{number:016x}"
        for host, section, number in zip(hosts.tolist(), sections.tolist(), numbers.tolist())
    )
    column = np.empty(rows, object)
    column[:] = texts
    return Keys(kind, (column,))


def _distinct(rows: int, random: Any) -> Any:
    found = np.unique(random.integers(0, 2**62, rows + rows // 100 + 16, np.uint64))
    while len(found) < rows:  # a chance of one in many
        found = np.unique(np.concatenate([found, random.integers(0, 2**62, rows, np.uint64)]))
    spare = random.choice(len(found), len(found) - rows, replace=False)
    return np.delete(found, spare) * np.uint64(2)


def misses(keys: Keys) -> Keys:
    """Keys that are not there, each right behind one of these."""
    *others, last = keys.columns
    absent = last + np.uint64(1) if keys.kind != "url" else last + "~"
    return Keys(keys.kind, (*others, absent))


def make_values(shape: Shape, rows: int, random: Any) -> Any:
    """Values of a shape: uint64 numbers, or an array of void of that many bytes."""
    if shape.numeric_values:
        return random.integers(0, 2**63, rows, np.uint64)
    return np.frombuffer(random.bytes(rows * shape.value_bytes), f"V{shape.value_bytes}")


def make_rows(shape: Shape, rows: int, seed: int) -> Rows:
    """So many rows, ascending by key."""
    random = np.random.default_rng(seed)
    keys = make_keys(shape.key, rows, random)
    return Rows(keys, make_values(shape, rows, random))


# -- which row is asked for


def zipfian(rows: int, count: int, random: Any, theta: float = 0.99) -> Any:
    """Ranks below `rows`, rank r as often as 1 / (r + 1) ** theta: exactly, not by YCSB's estimate.

    Rows are held shuffled, so that hot ones lie anywhere.
    """
    weights = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -theta)
    return np.searchsorted(weights, random.random(count) * weights[-1], side="right")
