"""cesium: an embedded, durable, ordered key-value engine for people who work in numpy.

import cesium

with cesium.open("ticks.cesium", key="u8", value="f8") as store:
    store[42] = 1.5
    store.bulk_load(keys, values)
    keys, values = store[10:1000].arrays()
"""

import importlib
import typing

from cesium._core import Commit
from cesium._reads import MISSING
from cesium.columns import Column
from cesium.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    Error,
    FileSystemWarning,
    LimitError,
    LockedError,
    NotKeptError,
    PoisonedError,
    ReadOnlyError,
    SchemaError,
    StorageFullError,
)
from cesium.feed import Change, Operation
from cesium.from_frame import from_frame
from cesium.keys import Codec as KeyCodec
from cesium.naming import Checkpoint
from cesium.options import Options
from cesium.ranges import Range
from cesium.report import Problem, Report
from cesium.snapshot import Snapshot
from cesium.stats import Stats
from cesium.store import Store, open
from cesium.tables import Table
from cesium.transactions import Savepoint, Transaction, retry
from cesium.values import Codec as ValueCodec

if typing.TYPE_CHECKING:
    from cesium import aio as aio
else:

    def __getattr__(name: str) -> typing.Any:
        """`cesium.aio` is imported when it is first asked for, and asyncio with it."""
        if name == "aio":
            return importlib.import_module("cesium.aio")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "Change",
    "Checkpoint",
    "ClosedError",
    "Column",
    "Commit",
    "ConflictError",
    "CorruptionError",
    "Error",
    "FileSystemWarning",
    "KeyCodec",
    "LimitError",
    "LockedError",
    "MISSING",
    "NotKeptError",
    "Operation",
    "Options",
    "PoisonedError",
    "Problem",
    "Range",
    "ReadOnlyError",
    "Report",
    "Savepoint",
    "SchemaError",
    "Snapshot",
    "Stats",
    "StorageFullError",
    "Store",
    "Table",
    "Transaction",
    "ValueCodec",
    "from_frame",
    "open",
    "retry",
]
