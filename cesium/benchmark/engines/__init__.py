"""The engines that a benchmark compares, by name, in the order in which they are shown."""

from __future__ import annotations

from importlib import import_module, util

from cesium.benchmark.engines.base import Engine, NotOffered, Settings

__all__ = ["ENGINES", "Engine", "NotOffered", "Settings", "engine", "installed"]

# name: (module here, class, what must be installed)
ENGINES: dict[str, tuple[str, str, str]] = {
    "cesium": ("cesium", "Cesium", "cesium"),
    "lmdb": ("lmdb", "Lmdb", "lmdb"),
    "rocksdb": ("rocksdict", "RocksDict", "rocksdict"),
    "leveldb": ("plyvel", "LevelDb", "plyvel"),
    "sqlite": ("sqlite", "Sqlite", "sqlite3"),
    "duckdb": ("duckdb", "DuckDb", "duckdb"),
    "zodb": ("zodb", "Zodb", "ZODB"),
    "dict": ("bounds", "Dict", "cesium"),
    "sorteddict": ("bounds", "SortedDict", "sortedcontainers"),
    "numpy": ("bounds", "Numpy", "numpy"),
}


def installed(name: str) -> bool:
    """Whether an engine of ENGINES can be used here."""
    return util.find_spec(ENGINES[name][2]) is not None


def engine(name: str) -> type[Engine]:
    """The class of an engine of ENGINES; ImportError when it is not installed."""
    module, class_name, _ = ENGINES[name]
    found: type[Engine] = getattr(import_module(f"{__name__}.{module}"), class_name)
    return found
