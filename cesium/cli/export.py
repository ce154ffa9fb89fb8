"""`cesium export STORE FILE`"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import click

import cesium
from cesium.cli._arrow import SCHEMA
from cesium.cli._formats import (
    CSV,
    FORMATS,
    JSONL,
    PARQUET,
    TSV,
    format_of,
    needed,
    replacing,
    text_writer,
)
from cesium.cli._show import AT, PATH, TABLE, opened, table_of
from cesium.cli._text import parse_key
from cesium.cli._texts import check_types, json_texts, texts
from cesium.progress import Report, reporting
from cesium.range_columns import TableColumns, batches
from cesium.tables import TableHandle

TEXT_ROWS = 1 << 13
ARROW_ROWS = 1 << 17  # of a row group, too


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("file", metavar="FILE", type=PATH)
@click.option("--from", "low", metavar="KEY", help="The first key, itself included.")
@click.option("--to", "high", metavar="KEY", help="The key to stop before.")
@click.option("--prefix", metavar="PIECE", help="Only keys that begin so (text, bytes, composite).")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows.")
@AT
@TABLE
@click.option("--key", "names", metavar="COL[,COL...]", help="What to call the key's columns.")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Else by the file's name.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def export(
    path: Path,
    file: Path,
    low: str | None,
    high: str | None,
    prefix: str | None,
    limit: int | None,
    at: str | None,
    table: str | None,
    names: str | None,
    kind: str | None,
    force: bool,
) -> None:
    """Write rows to a file, in the order of their keys.

    CSV, TSV or JSON Lines (plain, .gz or .zst), Parquet or Arrow IPC, by the file's name.  The
    columns are those of the key, by their names in the store, or else key, or key_0, key_1, ...
    where it is composite, then the fields of the values, or value.  All rows are of one moment of
    the store.

    In files of text times are ISO, bytes as by `cesium get`, NaN and NaT are empty cells, and
    values of JSON or MessagePack are JSON.  `cesium load` reads all of it back; Parquet and Arrow
    files carry the store's schema for that.

    FILE gets its name when it is whole: what is interrupted leaves nothing.
    """
    if prefix is not None and (low is not None or high is not None):
        raise click.UsageError("--prefix goes without --from and --to")
    kind = format_of(file, kind)
    if file.exists() and not force:
        raise click.ClickException(f"{file} is there already; --force replaces it")
    started = time.perf_counter()
    with opened(path, "r", at) as store:
        source = table_of(store, table)
        view = _view(source, low, high, prefix, limit)
        columns = _Columns(source, view, names)
        total = min(source._view().estimated_rows(), limit if limit is not None else 1 << 62)
        with reporting("exporting", total, sys.stderr.isatty()) as report, replacing(file) as made:
            advance = report or (lambda rows: None)
            if kind in (CSV, TSV, JSONL):
                with text_writer(made, file.name) as text:
                    write: Callable[..., int] = _write_json if kind == JSONL else _write_csv
                    rows = write(columns, text, advance, "\t" if kind == TSV else ",")
            else:
                rows = _write_arrow(columns, made, advance, kind)
    seconds = time.perf_counter() - started
    click.echo(f"{file}: {rows:,} rows in {seconds:.1f} s, {file.stat().st_size:,} bytes")


def _view(
    store: TableHandle, low: str | None, high: str | None, prefix: str | None, limit: int | None
) -> cesium.Range:
    schema = store.key
    if prefix is not None:
        view = store.prefix(parse_key(schema, prefix, partial=True))
        return type(view)(view._store, view._lower, view._upper, False, limit, view._yields)
    lo, hi = (
        None if bound is None else parse_key(schema, bound, partial=True) for bound in (low, high)
    )
    return store.range(lo, hi, limit=limit)


class _Columns:
    """The columns of a range, with the names that they shall have, and their rows."""

    def __init__(self, store: TableHandle, view: cesium.Range, names: str | None) -> None:
        self.store = store
        self.view = view
        self._table = TableColumns(store, None, True, True)
        self.types = dict(self._table.types)
        self.names = list(self.types)
        if names is not None:
            given = [name.strip() for name in names.split(",")]
            if len(given) != len(self._table.keys):
                raise click.UsageError(f"the key has {len(self._table.keys)} columns to be named")
            self.names[: len(given)] = given
            if len(set(self.names)) < len(self.names):
                raise click.UsageError("--key names a column twice")

    def schema(self) -> dict[str, Any]:
        """What `cesium load` takes for a new store's schema."""
        names = self.names[: len(self._table.keys)]
        return {"key": self.store.key, "value": self.store.value, "key_names": names}

    def pieces(self, rows: int) -> Iterator[dict[str, Any]]:
        """Batches of rows, of one moment."""
        return batches(self._table, self.view._reader(True), rows)


def _write_csv(columns: _Columns, text: TextIO, advance: Report, delimiter: str) -> int:
    check_types(columns.types)
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns.names)
    rows = 0
    for piece in columns.pieces(TEXT_ROWS):
        cells = [texts(columns.types[name], values) for name, values in piece.items()]
        writer.writerows(zip(*cells))
        rows += len(cells[0])
        advance(len(cells[0]))
    return rows


def _write_json(columns: _Columns, text: TextIO, advance: Report, _: str) -> int:
    check_types(columns.types)
    heads = [json.dumps(name, ensure_ascii=False) + ": " for name in columns.names]
    rows = 0
    for piece in columns.pieces(TEXT_ROWS):
        cells = [
            [head + cell for cell in json_texts(columns.types[name], values)]
            for head, (name, values) in zip(heads, piece.items())
        ]
        text.writelines(f"{{{', '.join(row)}}}\n" for row in zip(*cells))
        rows += len(cells[0])
        advance(len(cells[0]))
    return rows


def _write_arrow(columns: _Columns, path: Path, advance: Report, kind: str) -> int:
    arrow = needed("pyarrow", "arrow")
    stream = columns.view.arrow_stream(rows=ARROW_ROWS)
    rows = 0
    with arrow.RecordBatchReader.from_stream(stream) as reader:
        stored = json.dumps(columns.schema())
        schema = arrow.schema(
            [field.with_name(name) for field, name in zip(reader.schema, columns.names)],
            metadata={SCHEMA: stored.encode()},
        )
        if kind == PARQUET:
            writer = needed("pyarrow.parquet", "arrow").ParquetWriter(path, schema)
        else:
            writer = needed("pyarrow.ipc", "arrow").new_file(str(path), schema)
        with writer:
            for batch in reader:
                writer.write_batch(arrow.record_batch(batch.columns, schema=schema))
                rows += batch.num_rows
                advance(batch.num_rows)
    return rows
