"""Stores whose files are cut off under their readers: what they hold, and every way to read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import cesium

PAGE = 4096
DAMAGE = (cesium.CorruptionError, OSError)
FORMS = ["fixed", "variable", "layered"]
DEEP = "deep"  # variable keys whose fences are long: a tree of several levels
VARIABLE = ("variable", DEEP)

Reads = dict[str, Callable[[Any], Any]]


def keys_of(form: str) -> list[Any]:
    if form == "variable":
        return [f"key/{number:06}" for number in range(0, 6000, 2)]
    if form == DEEP:
        return [f"{number // 4:06}{'x' * 400}{number % 4}" for number in range(0, 6000, 2)]
    return list(range(0, 60000, 2))


def value_of(form: str, key: Any) -> Any:
    if form == DEEP:
        return key[:6].encode()
    if form != "variable":
        return key + 0.5
    number = int(key[4:])
    return (b"%d " % number) * (700 if number % 500 == 0 else 3)  # some of them overflow


def make(directory: Path, form: str) -> Any:
    """A store whose rows lie in segments: one run, or layers with a filter in the upper ones."""
    directory.mkdir(exist_ok=True)
    path = directory / form
    options: dict[str, Any] = {"key": "u8", "value": "f8"}
    if form in VARIABLE:
        options = {"key": "str", "value": "bytes"}
    store = cesium.open(path, **options)
    keys = keys_of(form)
    values = [value_of(form, key) for key in keys]
    if form in VARIABLE:
        store.bulk_load(keys, values)
        return store
    store.bulk_load(np.array(keys, "u8"), np.array(values))
    if form == "layered":
        above = np.array(keys[::3], "u8")
        store.put_many(above, above + 0.5)
        store.delete_range(50, 60)
        store.checkpoint()
        store.put_many(np.arange(50, 60, 2, dtype="u8"), np.arange(50, 60, 2) + 0.5)
        store.checkpoint()
    return store


def readers_of(store: Any) -> list[Any]:
    return list(store.core.version.segments())


def plain(answer: Any) -> Any:
    if isinstance(answer, tuple):
        return tuple(plain(part) for part in answer)
    if isinstance(answer, cesium.Column):
        return list(answer)
    return answer.tolist() if hasattr(answer, "tolist") else answer


def reads_of(form: str) -> Reads:
    """Every kind of read, each over places all through the keys."""
    keys = keys_of(form)
    some = keys[:: len(keys) // 40]
    absent = [f"{key}x" for key in some] if form in VARIABLE else [key + 1 for key in some]
    middle = keys[len(keys) // 3], keys[-len(keys) // 3]
    batch: Any = some + absent
    everything: Any = keys
    if form not in VARIABLE:
        batch, everything = np.array(batch, "u8"), np.array(keys, "u8")

    short = list(zip(keys, keys[100:], strict=False))[::50]  # so that every page is in some

    def pairs(view: Any) -> list[Any]:
        return [(plain(key), plain(value)) for key, value in view]

    reads: Reads = {
        "get_many": lambda store: plain(store.get_many(batch)),
        "get_all": lambda store: plain(store.get_many(everything)),
        "contains_many": lambda store: plain(store.contains_many(batch)),
        "arrays": lambda store: plain(store.range(None, None).arrays()),
        "short ranges": lambda store: [plain(store.range(*two).arrays()) for two in short],
        "threads": lambda store: plain(store.range(*middle).arrays()),
        "keys": lambda store: list(store.range(*middle).keys()),
        "forwards": lambda store: pairs(store.range(None, None)),
        "backwards": lambda store: pairs(reversed(store.range(None, None))),
        "part": lambda store: pairs(store.range(*middle)),
        "batches": lambda store: [plain(two) for two in store.range(None, None).batches(999)],
        "len": len,
        "len of a range": lambda store: len(store.range(*middle)),
        "first": lambda store: store.first(),
        "last": lambda store: store.last(),
        "floor": lambda store: store.floor(middle[1]),
        "higher": lambda store: store.higher(middle[0]),
        "bool": bool,
    }
    for number, key in enumerate([*some, *absent]):
        reads[f"get {number}"] = lambda store, key=key: store.get(key)
        reads[f"in {number}"] = lambda store, key=key: key in store
    return reads
