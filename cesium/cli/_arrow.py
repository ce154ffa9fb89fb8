"""Parquet and Arrow files as columns, by pyarrow: their types, and their rows as arrays."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import cesium
from cesium.cli._convert import BadCells, convert, exact, fixed
from cesium.cli._formats import PARQUET, needed
from cesium.cli._infer import EXACT_FLOAT, FIXED_TEXT_BYTES
from cesium.cli._text import plain
from cesium.key_names import Names, checked_names

BATCH_ROWS = 1 << 16
SCHEMA = b"cesium"  # of a file that was exported: the store's schema, in its metadata


def _type_of(kind: Any) -> str | None:
    """The type of a store that holds every value of an Arrow type; None: there is none."""
    arrow = needed("pyarrow", "arrow")
    types = arrow.types
    if types.is_dictionary(kind):
        return _type_of(kind.value_type)
    if getattr(kind, "extension_name", None) == "arrow.uuid":
        return "uuid"
    if types.is_large_string(kind) or types.is_string(kind) or types.is_string_view(kind):
        return "str"
    if types.is_large_binary(kind) or types.is_binary(kind) or types.is_binary_view(kind):
        return "bytes"
    if types.is_fixed_size_binary(kind):
        return f"V{kind.byte_width}"
    if types.is_boolean(kind):
        return "bool"
    if types.is_date32(kind):
        return "datetime64[D]"
    if types.is_timestamp(kind):
        return f"datetime64[{kind.unit}]"
    if types.is_duration(kind):
        return f"timedelta64[{kind.unit}]"
    if types.is_integer(kind) or types.is_floating(kind):
        return str(np.dtype(kind.to_pandas_dtype()).str[1:])
    return None


@dataclass
class ArrowColumn:
    """What is known of one column: its type, and of its cells what a first pass has seen."""

    name: str
    type: str
    has_nulls: bool = False
    exact: bool = True
    text_bytes_max: int = 1
    ascii: bool = True
    nested: bool = False

    def see(self, array: Any) -> None:
        """Takes note of the cells of a batch."""
        compute = needed("pyarrow.compute", "arrow")
        self.has_nulls |= array.null_count > 0
        if self.type == "str":
            text = _decoded(array)
            self.text_bytes_max = max(
                self.text_bytes_max, compute.max(compute.binary_length(text)).as_py() or 0
            )
            self.ascii = self.ascii and compute.all(compute.string_is_ascii(text)).as_py() in (
                True, None,
            )  # fmt: skip
        elif self.type in ("i8", "u8") and array.null_count:
            bounds = compute.min_max(array).as_py().values()
            self.exact &= all(abs(bound or 0) <= EXACT_FLOAT for bound in bounds)

    @property
    def dtype(self) -> str | None:
        """The fixed-width dtype that holds every cell, nulls included; None when there is none."""
        if self.type == "str":
            fixed = self.ascii and self.text_bytes_max <= FIXED_TEXT_BYTES
            return f"S{self.text_bytes_max}" if fixed else None
        if self.type in ("bytes", "uuid") or (self.has_nulls and self.type[0] in "bV"):
            return None
        if self.has_nulls and self.type[0] in "iu":
            return "f8" if self.exact else None
        return self.type


class ArrowSource:
    """An open file: the names of its columns, its rows, and how many batches of it were read."""

    def __init__(self, schema: Any, batches: Iterator[Any], bytes_total: int, rows: int) -> None:
        self.header = list(schema.names)
        self.schema = schema
        self.bytes_total = bytes_total
        self._batches = batches
        self._rows = max(rows, 1)
        self._read = 0

    def position(self) -> int:
        """How far it was read, as a share of its bytes."""
        return self.bytes_total * self._read // self._rows

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """Batches of columns, and the number of each row, from 1."""
        for batch in self._batches:
            first = self._read + 1
            self._read += batch.num_rows
            if batch.num_rows:
                yield range(first, self._read + 1), batch.columns

    @property
    def stored_schema(self) -> tuple[Any, Any, Names] | None:
        """The schema of the store that was exported to the file, and the names of its key."""
        try:
            found = json.loads((self.schema.metadata or {})[SCHEMA])
            return found["key"], found["value"], checked_names(found.get("key_names", ()))
        except (KeyError, ValueError, TypeError, AttributeError):
            return None


@contextmanager
def open_source(path: Path, kind: str) -> Iterator[ArrowSource]:
    """Opens a Parquet or an Arrow IPC file."""
    arrow = needed("pyarrow", "arrow")
    try:
        if kind == PARQUET:
            with needed("pyarrow.parquet", "arrow").ParquetFile(path) as file:
                yield ArrowSource(
                    file.schema_arrow, file.iter_batches(BATCH_ROWS), path.stat().st_size,
                    file.metadata.num_rows,
                )  # fmt: skip
            return
        with arrow.memory_map(str(path)) as mapped:
            file = needed("pyarrow.ipc", "arrow").open_file(mapped)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
            sliced = itertools.chain.from_iterable(map(_slices, batches))
            rows = sum(file.get_batch(n).num_rows for n in range(file.num_record_batches))
            yield ArrowSource(file.schema, sliced, path.stat().st_size, rows)
    except (arrow.ArrowInvalid, arrow.ArrowException) as error:
        raise click.ClickException(f"{path}: {error}") from None


def _slices(batch: Any) -> Iterator[Any]:
    return (batch.slice(at, BATCH_ROWS) for at in range(0, batch.num_rows, BATCH_ROWS))


def infer(source: ArrowSource, advance: Callable[[int], None]) -> list[ArrowColumn]:
    """The type of every column; an error for one that no store can have."""
    columns = []
    for field in source.schema:
        found = _type_of(field.type)
        if found is None:
            raise click.ClickException(
                f"column '{field.name}': no type of a store is inferred of {field.type} "
                "(--value-type, or a store that is there, may have fields that hold arrays)"
            )
        columns.append(ArrowColumn(field.name, found))
    for _, piece in source.pieces():
        for column, array in zip(columns, piece, strict=True):
            column.see(array)
        advance(source.position())
    return columns


def _decoded(array: Any) -> Any:
    arrow = needed("pyarrow", "arrow")
    if arrow.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if getattr(array.type, "extension_name", None) is not None:
        array = array.storage
    return array


def convert_array(dtype: str, array: Any, literal: bool) -> Any:
    """The rows of an Arrow array as an array of `dtype`, a Column or a list; else BadCells.

    Absent numbers and times become NaN and NaT, absent text is empty; others are bad.
    """
    arrow = needed("pyarrow", "arrow")
    array = _decoded(array)
    kind = np.dtype(dtype).kind if dtype not in ("str", "bytes", "uuid") else dtype
    is_text = arrow.types.is_large_string(array.type) or arrow.types.is_string(array.type)
    try:
        if kind in ("str", "bytes"):
            return column_of(array, kind)
        if kind == "uuid":
            return [
                uuid.UUID(cell) if isinstance(cell, str) else uuid.UUID(bytes=cell)
                for cell in array.to_pylist()
            ]
        if kind in "SVU" or is_text:
            cells = array.to_pylist()
            if kind in "SV" and not is_text:
                return fixed(dtype, [cell or b"" for cell in cells])
            return convert(dtype, [cell or "" for cell in cells], literal)
        if kind in "iub" and array.null_count:
            raise BadCells
        if kind in "iu":
            array = array.cast(arrow.from_numpy_dtype(np.dtype(dtype)))
        found = array.to_numpy(zero_copy_only=False)
        if kind in "Mm":
            return exact(found, dtype)
        if found.dtype.kind not in "iufb" or (kind == "b") != (found.dtype.kind == "b"):
            raise BadCells
        return found.astype(dtype)
    except (arrow.ArrowException, ValueError, TypeError) as error:
        raise BadCells from error


def column_of(array: Any, kind: str) -> cesium.Column:
    """The rows of an Arrow array of text or bytes; those that are absent are empty."""
    arrow = needed("pyarrow", "arrow")
    wanted = arrow.large_string() if kind == "str" else arrow.large_binary()
    array = array.cast(wanted)
    if array.null_count:
        array = array.fill_null("" if kind == "str" else b"")
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data if data is not None else b"", np.uint8)
    return cesium.Column(ends - ends[0], content[ends[0] : ends[-1]], kind)


def plain_cells(array: Any) -> list[Any]:
    """The rows as JSON knows them."""
    return [plain(cell) for cell in _decoded(array).to_pylist()]
