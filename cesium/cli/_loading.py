"""Rows of a file into a store: pieces converted by the store's schema, commit by commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np

import cesium
from cesium.cli._arrow import convert_array, plain_cells
from cesium.cli._convert import BadCells, convert, json_cell, json_cells, json_value
from cesium.cli._formats import needed
from cesium.cli._infer import NULLS, Cells, Column, Source
from cesium.cli._lists import convert_lists, field_dtype, holds_arrays
from cesium.cli._rejects import Rejects
from cesium.cli._text import (
    cell_text,
    describe,
    field_names,
    is_composite,
    is_one,
    key_parts,
    type_text,
)
from cesium.tables import TableHandle

COMMIT_ROWS = 1 << 20
FEW_ROWS = 64
OBJECTS = ("json", "msgpack")


class ColumnLike(Protocol):
    """What the inference of any format says of a column."""

    name: str
    has_nulls: bool
    nested: bool

    @property
    def type(self) -> str: ...
    @property
    def dtype(self) -> str | None: ...


class Sink:
    """Takes batches of rows into a store.  resume: those at the beginning may be there already.

    A batch is one commit, so it is there as a whole or not at all.
    """

    def __init__(self, store: TableHandle, resume: bool = False) -> None:
        self.store = store
        self.skipped = 0
        self._resuming = resume

    def take(self, keys: Any, values: Any, rows: int) -> int:
        """Loads a batch; returns how many rows it had."""
        if self._resuming and bool(self.store.contains_many(keys).all()):
            self.skipped += rows
        else:
            self._resuming = False
            self.store.bulk_load(keys, values)
        return rows


class DrySink:
    """Checks that a store of the schema would take the rows, and keeps nothing."""

    skipped = 0

    def __init__(self, key: Any, value: Any) -> None:
        self._store = cesium.open(":memory:", key=key, value=value)

    def take(self, keys: Any, values: Any, rows: int) -> int:
        """Encodes a batch."""
        count = self._store.keys_codec.encode_array(keys).count
        self._store.values_codec.encode_array(values, count)
        return rows


class Loader:
    """Converts the pieces of a file by a schema.

    names: of the key's columns.  columns: of the file.  inferred: the schema was found in the file
    itself, so bytes are the text's own, and cells that are absent make no key.  strings: the file
    tells strings from numbers, as JSON does.
    """

    def __init__(
        self,
        key: Any,
        value: Any,
        names: Sequence[str],
        columns: Sequence[ColumnLike],
        rejects: Rejects,
        inferred: bool,
        strings: bool = False,
    ) -> None:
        self.strings = strings
        self.composite = is_composite(key)
        self.rejects = rejects
        self.inferred = inferred
        parts = key_parts(key)
        if len(parts) != len(names):
            raise click.UsageError(f"the store's key is {describe(key)}")
        at = {column.name: number for number, column in enumerate(columns)}
        self.names = names
        self.key = [(at[name], name, part) for name, part in zip(names, parts)]
        self.value = value
        self.rest = [
            (number, column) for number, column in enumerate(columns) if column.name not in names
        ]
        rest = [column.name for _, column in self.rest]
        if is_one(value):
            if value not in (*OBJECTS, "bytes") and len(rest) != 1:
                raise click.ClickException(
                    f"the store's value is {describe(value)}: one column beside the key is "
                    f"expected, the file has {len(rest)}"
                )
        elif sorted(field_names(value)) != sorted(rest):
            raise click.ClickException(
                f"the store's fields are {', '.join(field_names(value))}; the file has "
                f"{', '.join(rest)}"
            )
        self._at = at

    def load(self, source: Source, sink: Sink | DrySink, advance: Callable[[int], None]) -> int:
        """Loads every row that can be; returns how many they were."""
        keys: list[Any] = []
        values: list[Any] = []
        waiting = total = 0
        for lines, piece in source.pieces():
            for rows, (key, value) in self._converted(lines, piece, 0, len(lines)):
                start = 0
                while start < rows:
                    end = min(rows, start + COMMIT_ROWS - waiting)
                    keys.append([part[start:end] for part in key])
                    values.append(value[start:end])
                    waiting += end - start
                    start = end
                    if waiting == COMMIT_ROWS:
                        total += self._commit(sink, keys, values, waiting)
                        keys, values, waiting = [], [], 0
            advance(source.position())
        return total + (self._commit(sink, keys, values, waiting) if waiting else 0)

    def _commit(self, sink: Sink | DrySink, keys: list[Any], values: list[Any], rows: int) -> int:
        parts = tuple(map(joined, zip(*keys)))
        return sink.take(parts if self.composite else parts[0], joined(values), rows)

    # -- a piece

    def _converted(
        self, lines: Sequence[int], piece: list[Any], start: int, end: int
    ) -> Iterator[tuple[int, Any]]:
        """The rows of a piece that can be converted, in runs: how many, their keys and values.

        Halves are tried where the whole cannot be, down to the rows that are bad.
        """
        run = [_run(column, start, end) for column in piece]
        try:
            yield end - start, self._rows(run)
        except BadCells:
            if end - start == 1:
                cells = [cell_text(_first(column)) for column in run]
                self.rejects.add(lines[start], self._why(run), dict(zip(self._at, cells)))
                return
            middle = (start + end) // 2
            yield from self._converted(lines, piece, start, middle)
            yield from self._converted(lines, piece, middle, end)

    def _rows(self, piece: list[Any]) -> tuple[list[Any], Any]:
        for at, _, part in self.key:
            if self.inferred and part != "str" and _has_nulls(piece[at]):
                raise BadCells
        keys = [self._cells(part, piece[at]) for at, _, part in self.key]
        return keys, self._values(piece)

    def _cells(self, dtype: Any, cells: Any) -> Any:
        if holds_arrays(dtype):
            if not hasattr(cells, "null_count"):
                raise click.ClickException("a field holds arrays: load it from Parquet or Arrow")
            return convert_lists(dtype, cells, self.inferred)
        if hasattr(cells, "null_count"):
            return convert_array(dtype, cells, self.inferred)
        if isinstance(cells, Cells):
            found = cells.converted(dtype, self.inferred)
            if found is not None:
                return found
        return convert(dtype, cells, self.inferred)

    def _values(self, piece: list[Any]) -> Any:
        rows = len(piece[0])
        if self.value in OBJECTS:
            return self._objects(piece, rows)
        if is_one(self.value):
            if not self.rest:
                return [b""] * rows
            return self._cells(self.value, piece[self.rest[0][0]])
        table = np.empty(rows, [(str(name), field_dtype(dtype)) for name, dtype in self.value])
        for name, dtype in self.value:
            table[name] = self._cells(dtype, piece[self._at[name]])
        return table

    def _objects(self, piece: list[Any], rows: int) -> list[Any]:
        names = [column.name for _, column in self.rest]
        cells = [piece[at] for at, _ in self.rest]
        if names == ["value"]:  # as `export` names it: all of the value
            return _whole(cells[0], self.strings)
        typed = [
            plain_cells(part) if hasattr(part, "null_count") else _typed(column, part)
            for (_, column), part in zip(self.rest, cells)
        ]
        return [dict(zip(names, row)) for row in zip(*typed)] if typed else [{}] * rows

    def _why(self, one: list[Any]) -> str:
        """What is wrong with a row, whose columns have one cell each."""
        wanted = [(name, part, one[at]) for at, name, part in self.key]
        if self.value not in OBJECTS:
            fields = [self.value] if is_one(self.value) else None
            types = {"": fields[0]} if fields else dict(self.value)
            wanted += [
                (column.name, types[column.name if fields is None else ""], one[at])
                for at, column in self.rest
            ]
        for number, (name, dtype, cells) in enumerate(wanted):
            shown = cell_text(_first(cells))
            if number < len(self.key) and self.inferred and dtype != "str" and _has_nulls(cells):
                return f"column '{name}' is absent, and in the key"
            try:
                self._cells(dtype, cells)
            except BadCells:
                return f"column '{name}': '{shown}' is not a {type_text(dtype)}"
        return "the value is no JSON"


@dataclass(frozen=True)
class Outcome:
    """What became of rows: how many, those passed over, and the different keys of a new store."""

    rows: int
    skipped: int
    different: int | None = None

    def tell(
        self, path: Path, schema: Any, rejects: Rejects, bad: Path | None, seconds: float | None
    ) -> None:
        """In lines, for people; seconds: None where nothing was loaded."""
        done = " would be loaded"
        if seconds is not None:
            done = f" in {seconds:.1f} s, {self.rows / seconds:,.0f} rows/s"
        click.echo(f"{path}: {self.rows:,} rows{done}")
        if self.skipped:
            click.echo(f"{self.skipped:,} of them were there already")
        if self.different is not None and self.different < self.rows:
            click.echo(f"{self.different:,} different keys; of equal keys the last won")
        if rejects.count:
            click.echo(f"{rejects.count:,} bad rows, in {bad}")
        click.echo(f"key {describe(schema[0])}; value {describe(schema[1])}")


def joined(pieces: Sequence[Any]) -> Any:
    """Pieces of a column, or of values, as one."""
    first = pieces[0]
    if len(pieces) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate(pieces)
    columns = [piece for piece in pieces if isinstance(piece, cesium.Column)]
    if columns:
        kind = columns[0].kind
        pieces = [
            piece if isinstance(piece, cesium.Column) else cesium.Column.from_values(piece, kind)
            for piece in pieces
        ]
        sizes = np.concatenate([[0], *(np.diff(piece.offsets) for piece in pieces)])
        data = [piece.data[piece.offsets[0] : piece.offsets[-1]] for piece in pieces]
        return cesium.Column(np.cumsum(sizes), np.concatenate(data), kind)
    return [cell for piece in pieces for cell in piece]


def _run(column: Any, start: int, end: int) -> Any:
    """Some rows of a column; few are not worth a look at the whole."""
    found = column if start == 0 and end == len(column) else column[start:end]
    return list(found) if isinstance(found, Cells) and end - start <= FEW_ROWS else found


def _first(column: Any) -> Any:
    return column[0].as_py() if hasattr(column, "null_count") else column[0]


def _has_nulls(column: Any) -> bool:
    if hasattr(column, "null_count"):
        return bool(column.null_count)
    if isinstance(column, Cells):
        return column.has_nulls
    return not NULLS.isdisjoint(column)


def _typed(column: ColumnLike, cells: Sequence[str]) -> list[Any]:
    assert isinstance(column, Column)
    return json_cells(column, cells)


def _whole(cells: Any, strings: bool) -> list[Any]:
    """Values of JSON or MessagePack, each a cell of its own."""
    if not hasattr(cells, "null_count"):
        return [json_cell(cell) if strings else json_value(cell) for cell in cells]
    found: Iterable[Any] = cells.to_pylist()
    try:
        return [
            needed("msgpack", "msgpack").unpackb(cell) if isinstance(cell, bytes) else
            json_value(cell) if isinstance(cell, str) else plain_cells([cell])[0]
            for cell in found
        ]  # fmt: skip
    except BadCells:
        raise
    except Exception as error:  # of msgpack: whatever it says to bytes that are none
        raise BadCells from error
