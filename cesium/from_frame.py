"""A store out of a frame: the schema from its columns, then one load."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any

import numpy as np

from cesium.errors import SchemaError
from cesium.frame_rows import FrameRows
from cesium.incoming import Incoming, incoming
from cesium.key_names import with_names
from cesium.progress import Progress
from cesium.store import Store, open


def from_frame(
    path: str | os.PathLike[str],
    frame: Any,
    key: str | list[str] | tuple[str, ...] | None = None,
    *,
    value: Any = None,
    progress: Progress = False,
    threads: int | None = None,
    **options: Any,
) -> Store:
    """Makes a store of a frame's rows and returns it open; docs/frames.md has the types.

    frame: a pandas or polars DataFrame, a pyarrow Table, RecordBatch or RecordBatchReader, a DuckDB
    relation, or whatever has an Arrow interface; a stream may be larger than memory.  key: the name
    of the key column, or names of several for a composite key; None: the index of a pandas frame
    that has one.  The store keeps these names.  The other columns are the value: one its plain
    type, several a structured one.  value: the type of the values, where it shall be another (as
    `cesium.open` takes it).  progress, threads: as of `bulk_load`.  options: as of `cesium.open`:
    flag, durability, memory_limit, ...

    One commit: all rows or, when this raises, none; a store that it made is removed again then.  A
    store that is there already gets the rows if its schema fits: where its key has names, they are
    those of the key columns.  SchemaError names the column that has no type here, or holds a null;
    the other errors are those of `open` and `bulk_load`.
    """
    given = incoming(frame, key, [])
    spec = key_spec(given)
    if value is None:
        value = value_spec(given)
    new = os.fspath(path) != ":memory:" and not os.path.exists(path)
    flags = options.get("flag"), getattr(options.get("options"), "flag", None)
    if "n" in flags or not is_store(path):
        spec = with_names(spec, given.keys)
    store = open(path, spec, value, **options)
    try:
        check_names(store, given.keys)
        store._load_frame(
            FrameRows(given, None, store.keys_codec, store.values_codec), progress, threads
        )
    except BaseException:
        with contextlib.suppress(Exception):
            store.close()
        if new:
            shutil.rmtree(path, ignore_errors=True)
        raise
    return store


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a store is there, whose key has its names or none."""
    where = os.fsdecode(path)
    return os.path.isdir(where) and any(name.startswith("manifest-") for name in os.listdir(where))


def check_names(store: Store, names: list[str]) -> None:
    """SchemaError unless the key's names are these, or it has none."""
    if store.key_names and store.key_names != tuple(names):
        raise SchemaError(
            f"the key of {store.path} has the names {', '.join(store.key_names)}, given the "
            f"columns {', '.join(names)}: rename or reorder them, or load with bulk_load(key=...)"
        )


def key_spec(given: Incoming) -> Any:
    """The key type of the key columns; SchemaError for one that can be none."""
    parts = [_key_part(name, given.types[name]) for name in given.keys]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _key_part(name: str, kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    if kind.subdtype is None and kind.kind in "iufbMmSUV":
        if kind.kind in "UV":
            return "str" if kind.kind == "U" else "bytes"
        return kind.name if kind.kind in "bMm" else str(kind.str[1:])
    raise SchemaError(f"column {name!r} ({kind}) cannot be a key")


def value_spec(given: Incoming) -> Any:
    """The value type of the other columns: one its own, several a structured one."""
    rest = {name: kind for name, kind in given.types.items() if name not in given.keys}
    if not rest:
        raise SchemaError("there is no column beside the key: a store has values")
    if len(rest) == 1:
        kind = next(iter(rest.values()))
        return "V16" if isinstance(kind, str) and kind == "uuid" else kind
    texts = [name for name, kind in rest.items() if isinstance(kind, str) and kind != "uuid"]
    widths = given.text_widths(texts) if texts else {}
    return [(name, _field(kind, widths.get(name, 0))) for name, kind in rest.items()]


def _field(kind: Any, width: int) -> Any:
    if not isinstance(kind, str):
        return kind
    return np.dtype({"str": f"U{width}", "bytes": f"S{width}"}.get(kind, "V16"))
