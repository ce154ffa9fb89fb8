"""`cesium load FILE STORE --key COL[,COL...]`"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import cesium
from cesium.cli import _csv
from cesium.cli._show import PATH
from cesium.cli._text import describe, field_names, is_composite, key_parts

COMMIT_ROWS = 1 << 20


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--key", "key_text", required=True, metavar="COL[,COL...]", help="The key's columns.")
def load(file: Path, path: Path, key_text: str) -> None:
    """Load a CSV file into a store.

    The file is plain, .gz or .zip, in UTF-8, with names in its first line.

    A new store takes its schema from the file, which is read twice: first to find the type of each
    column, then to load it. Integers become i8, or f8 when some are absent; numbers f8; ISO dates
    and times datetime64[s] (UTC where they end in Z), or [us] with fractions; all else is text.
    Empty cells and NA are absent: NaN, NaT, or in text what was written. Numbers with leading
    zeros are text. A column used as key must have no absent cells.

    One column beside the key is the value itself; several make a row of fields, text in it being
    fixed-width bytes when it is ASCII of at most 64 bytes; where that does not fit, or the row
    exceeds 512 bytes, each value is a JSON object instead.

    Into an existing store the file is read as the stored schema says. Of equal keys the last wins.
    Each 1,048,576 rows are one commit: all of them or none are in the store after a crash.
    """
    names = [name.strip() for name in key_text.split(",")]
    started = time.perf_counter()
    with _progress(file) as phase:
        with _csv.open_source(file) as source:
            header = source.header
            _check_columns(header, names)
            if path.exists():
                store = cesium.open(path, flag="w")
                columns = _infer_for(store, source, phase("reading types", source.bytes_total))
            else:
                columns = _csv.infer(source, phase("reading types", source.bytes_total))
                store = cesium.open(path, **_schema_of(columns, names), flag="c")
        with store, _csv.open_source(file) as source:
            loader = _Loader(store, header, names, columns)
            rows = loader.load(source, phase("loading", source.bytes_total))
            key, value = store.options.key, store.options.value
    seconds = time.perf_counter() - started
    click.echo(f"{path}: {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} rows/s")
    click.echo(f"key {describe(key)}; value {describe(value)}")


def _check_columns(header: list[str], names: list[str]) -> None:
    if absent := [name for name in names if name not in header]:
        raise click.UsageError(
            f"no column is called {', '.join(absent)}; the file has {', '.join(header)}"
        )
    if len(set(names)) < len(names):
        raise click.UsageError("--key names a column twice")


def _schema_of(columns: Sequence[_csv.Column], names: list[str]) -> dict[str, Any]:
    """The schema of a new store, for `cesium.open`."""
    by_name = {column.name: column for column in columns}
    for name in names:
        if by_name[name].has_nulls and by_name[name].type != "str":
            raise click.ClickException(f"column '{name}' has absent cells: it cannot be in the key")
    parts = [by_name[name].type for name in names]
    values = [column for column in columns if column.name not in names]
    value: Any
    if not values:
        value = "bytes"
    elif len(values) == 1:
        value = "str" if values[0].type == "str" else (values[0].dtype or "str")
    else:
        fields = [(column.name, column.dtype) for column in values]
        fixed = all(dtype is not None for _, dtype in fields)
        bytes_row = sum(np.dtype(dtype).itemsize for _, dtype in fields) if fixed else 0
        value = fields if fixed and bytes_row <= _csv.FIXED_ROW_BYTES else "json"
    return {"key": parts[0] if len(parts) == 1 else tuple(parts), "value": value}


def _infer_for(
    store: cesium.Store, source: _csv.Source, advance: Callable[[int], None]
) -> list[_csv.Column]:
    """JSON takes the types of the file; any other stored schema decides them alone."""
    if store.options.value in ("json", "msgpack"):
        return _csv.infer(source, advance)
    return [_csv.Column(name) for name in source.header]


class _Loader:
    """Converts pieces of a file by a store's schema and loads them, commit by commit."""

    def __init__(
        self,
        store: cesium.Store,
        header: list[str],
        names: list[str],
        columns: Sequence[_csv.Column],
    ) -> None:
        self.store = store
        self.composite = is_composite(store.options.key)
        parts = key_parts(store.options.key)
        if len(parts) != len(names):
            raise click.UsageError(f"the store's key is {describe(store.options.key)}")
        self.key = [(header.index(name), name, part) for name, part in zip(names, parts)]
        self.value = store.options.value
        self.rest = [
            (number, column) for number, column in enumerate(columns) if column.name not in names
        ]
        if isinstance(self.value, str):
            if self.value not in ("json", "msgpack", "bytes") and len(self.rest) != 1:
                raise click.ClickException(
                    f"the store's value is {self.value}: one column beside the key is expected, "
                    f"the file has {len(self.rest)}"
                )
        elif sorted(field_names(self.value)) != sorted(column.name for _, column in self.rest):
            raise click.ClickException(
                f"the store's fields are {', '.join(field_names(self.value))}; the file has "
                f"{', '.join(column.name for _, column in self.rest)}"
            )

    def load(self, source: _csv.Source, advance: Callable[[int], None]) -> int:
        """Loads every row and returns how many there were."""
        keys: list[list[Any]] = []
        values: list[Any] = []
        waiting = total = 0
        for line, piece in source.pieces():
            keys.append([_csv.convert(name, part, piece[at], line) for at, name, part in self.key])
            values.append(self._values(piece, line))
            waiting += len(piece[0])
            advance(source.position())
            if waiting >= COMMIT_ROWS:
                total += self._commit(keys, values)
                keys, values, waiting = [], [], 0
        return total + (self._commit(keys, values) if keys else 0)

    def _values(self, piece: list[tuple[str, ...]], line: int) -> Any:
        rows = len(piece[0])
        if self.value in ("json", "msgpack"):
            names = [column.name for _, column in self.rest]
            typed = [_json_cells(column, piece[at]) for at, column in self.rest]
            return [dict(zip(names, row)) for row in zip(*typed)] if typed else [{}] * rows
        if isinstance(self.value, str):
            if not self.rest:
                return [b""] * rows
            at, column = self.rest[0]
            return _csv.convert(column.name, self.value, piece[at], line)
        at_name = {column.name: at for at, column in self.rest}
        table = np.empty(rows, [(str(name), str(dtype)) for name, dtype in self.value])
        for name, dtype in self.value:
            table[name] = _csv.convert(name, dtype, piece[at_name[name]], line)
        return table

    def _commit(self, keys: list[list[Any]], values: list[Any]) -> int:
        parts = tuple(map(_joined, zip(*keys)))
        commit = self.store.bulk_load(
            parts if self.composite else parts[0], _joined(values), progress=False
        )
        return int(commit.rows)


def _joined(pieces: Sequence[Any]) -> Any:
    if isinstance(pieces[0], np.ndarray):
        return np.concatenate(pieces)
    return [cell for piece in pieces for cell in piece]


def _json_cells(column: _csv.Column, cells: Sequence[str]) -> list[Any]:
    """Numbers as numbers, absent ones and NaN as null, all else as its text."""
    if column.type == "str":
        return list(cells)
    read: Callable[[str], Any] = {"i8": int, "f8": float}.get(column.type, str)
    typed = [None if cell in _csv.NULLS else read(cell) for cell in cells]
    return [None if cell != cell else cell for cell in typed]


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """A bar on standard error when that is a terminal; gives a function that begins a phase."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:

        def phase(name: str, bytes_total: int) -> Callable[[int], None]:
            task = bar.add_task(f"{file.name}: {name}", total=bytes_total)
            return lambda position: bar.update(task, completed=position)

        yield phase
