"""`cesium load FILE STORE [--key COL[,COL...]]`"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import cesium
from cesium.cli import _arrow, _csv, _infer, _json_lines
from cesium.cli._formats import CSV, FORMATS, JSONL, TSV, format_of
from cesium.cli._loading import OBJECTS, ColumnLike, DrySink, Loader, Outcome, Sink
from cesium.cli._rejects import Rejects
from cesium.cli._show import BAD, DRY_RUN, PATH, RESUME, TABLE, VALUE_TYPE
from cesium.cli._text import is_one, key_parts, type_text
from cesium.cli.repair import key_type, value_type
from cesium.key_names import with_names
from cesium.tables import TableHandle

Phase = Callable[[str, int], Callable[[int], None]]
Schema = tuple[Any, Any]  # of keys and of values
Given = tuple[Any, Any, Sequence[str]]  # the same, and the names of the key's columns


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--key", "key_text", metavar="COL[,COL...]", help="The key's columns.")
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Else by the file's name.")
@click.option("--key-type", metavar="TYPE", help="Of a new store, in place of what is found.")
@VALUE_TYPE
@TABLE
@BAD
@RESUME
@DRY_RUN
def load(
    file: Path,
    path: Path,
    key_text: str | None,
    kind: str | None,
    key_type: str | None,
    value_type: str | None,
    table: str | None,
    bad: Path | None,
    resume: bool,
    dry_run: bool,
) -> None:
    """Load a file into a store.

    CSV, TSV and JSON Lines in UTF-8 (plain, .gz, .zst or .zip), Parquet and Arrow IPC.  CSV and TSV
    have names in their first line; of JSON Lines, the first object has all the names.

    A new store takes its schema from the file, and shows it first.  A file of text is read twice:
    to find the type of each column, then to load it.  Integers become i8, or f8 when some are
    absent; numbers f8; true and false bool; ISO dates and times datetime64[s] (UTC where they end
    in Z), or [us] with fractions; all else is text.  Empty cells and NA are absent: NaN, NaT, or in
    text what was written.  Numbers with leading zeros are text.  A column used as key must have no
    absent cells, and the store keeps their names.  Without --key the columns are those that the
    store has in its key, or that `cesium export` names, key or key_0, key_1, ..., or else the
    first column.

    One column beside the key is the value itself; several make a row of fields, text in it being
    fixed-width bytes when it is ASCII of at most 64 bytes; where that does not fit, or the row
    exceeds 512 bytes, each value is a JSON object instead.  TYPE is written as for repair.

    Into an existing store the file is read as the stored schema says; --table is made where the
    store has none of the name.  Of equal keys the last wins.
    Each 1,048,576 rows are one commit: all of them or none are in the store after a crash, and
    --resume passes over the commits at the beginning whose keys are all there.

    A row that cannot be loaded is an error, or with --bad it is counted and written to a file of
    JSON Lines with its line.
    """
    if table is not None and not path.exists():
        raise click.UsageError("a table is loaded into a store that is there")
    if value_type and not key_type:
        raise click.UsageError("--value-type needs --key-type")
    job = _Load(file, format_of(file, kind, CSV), bad)
    started = time.perf_counter()
    try:
        with _progress(file) as phase:
            given = schema_given(path, key_type, value_type, table)
            schema, names, columns = job.prepare(key_text, given, phase)
            strings = job.kind == JSONL
            loader = Loader(*schema, names, columns, job.rejects, job.inferred, strings)
            if given is None:
                show_schema(columns, names, schema)
            outcome = job.run(path, table, schema, loader, phase, resume, dry_run)
    finally:
        job.rejects.close()
    seconds = None if dry_run else time.perf_counter() - started
    outcome.tell(path, schema, job.rejects, bad, seconds)


class _Load:
    """One file to be loaded."""

    def __init__(self, file: Path, kind: str, bad: Path | None) -> None:
        self.file = file
        self.kind = kind
        self.rejects = Rejects(bad)
        self.inferred = False

    @contextmanager
    def open(self, rejects: Rejects) -> Iterator[Any]:
        """The file as a source of pieces."""
        if self.kind in (CSV, TSV):
            with _csv.open_source(self.file, "," if self.kind == CSV else "\t", rejects) as text:
                yield text
        elif self.kind == JSONL:
            with _json_lines.open_source(self.file, rejects) as lines:
                yield lines
        else:
            with _arrow.open_source(self.file, self.kind) as batches:
                yield batches

    def prepare(
        self, key_text: str | None, given: Given | None, phase: Phase
    ) -> tuple[Schema, list[str], Sequence[ColumnLike]]:
        """The schema, the names of the key's columns, and what is known of all columns."""
        with self.open(Rejects(silent=self.rejects.kept)) as source:
            given = given or getattr(source, "stored_schema", None)
            names = key_names(source.header, key_text, given[2] if given else ())
            columns: Sequence[ColumnLike]
            needs_types = given is None or (given[1] in OBJECTS and self.kind in (CSV, TSV))
            if not needs_types:
                columns = [_infer.Column(name) for name in source.header]
            else:
                advance = phase("reading types", source.bytes_total)
                if isinstance(source, _arrow.ArrowSource):
                    columns = _arrow.infer(source, advance)
                else:
                    columns = _infer.infer(source, advance, self.kind == JSONL)
        if given is None:
            self.inferred = True
            return schema_of(columns, names, self.rejects.kept), names, columns
        return given[:2], names, columns

    def run(
        self,
        path: Path,
        table: str | None,
        schema: Schema,
        loader: Loader,
        phase: Phase,
        resume: bool,
        dry_run: bool,
    ) -> Outcome:
        """Loads the rows."""
        with self.open(self.rejects) as source:
            advance = phase("loading", source.bytes_total)
            if dry_run:
                return Outcome(loader.load(source, DrySink(*schema), advance), 0)
            with opened_for_rows(path, schema, table, loader.names) as (target, is_new):
                sink = Sink(target, resume)
                rows = loader.load(source, sink, advance)
                return Outcome(rows, sink.skipped, len(target) if is_new else None)


@contextmanager
def opened_for_rows(
    path: Path, schema: Schema, table: str | None, names: Sequence[str]
) -> Iterator[tuple[TableHandle, bool]]:
    """What rows of a schema are loaded into, made where it is missing, and whether it was.

    names: of the key's columns, where it is made.
    """
    key, value = schema
    if not path.exists():
        with cesium.open(path, key=with_names(key, names), value=value) as store:
            yield store, True
        return
    with cesium.open(path, flag="w") as store:
        if table is None:
            yield store, False
        else:
            is_new = table not in store.tables
            key = with_names(key, names) if is_new else key
            yield store.table(table, key=key, value=value), is_new


def key_names(header: list[str], text: str | None, stored: Sequence[str] = ()) -> list[str]:
    """The key's columns, as they were typed, or are stored, or as `export` calls them where they
    have no names, or the first one."""
    if text is None and stored and set(stored) <= set(header):
        return list(stored)
    if text is None and stored:
        raise click.UsageError(
            f"the store's key is {', '.join(stored)}, and the file has {', '.join(header)}: "
            "--key says which of them it is"
        )
    if text is None:
        numbered = [name for name in header if name.removeprefix("key_").isdigit()]
        return ["key"] if "key" in header else numbered or header[:1]
    names = [name.strip() for name in text.split(",")]
    if absent := [name for name in names if name not in header]:
        raise click.UsageError(
            f"no column is called {', '.join(absent)}; the file has {', '.join(header)}"
        )
    if len(set(names)) < len(names):
        raise click.UsageError("--key names a column twice")
    return names


def schema_given(
    path: Path, key: str | None, value: str | None, table: str | None = None
) -> Given | None:
    """The schema of the store, or of the table, that is there, or that was typed."""
    if path.exists():
        with cesium.open(path, flag="r") as store:
            if table is None or table in store.tables:
                if key or value:
                    raise click.UsageError("it is there, and has its types")
                found = store if table is None else store.table(table)
                return found.key, found.value, found.key_names
    if key is None:
        return None
    with cesium.open(":memory:", key=key_type(key), value=value_type(value) or "bytes") as store:
        return store.options.key, store.options.value, store.key_names


def schema_of(columns: Sequence[ColumnLike], names: list[str], rejects: bool) -> Schema:
    """The schema of a new store."""
    by_name = {column.name: column for column in columns}
    for name in names:
        column = by_name[name]
        if column.nested:
            raise click.ClickException(f"column '{name}' is nested: it cannot be in the key")
        if column.has_nulls and column.type != "str" and not rejects:
            raise click.ClickException(f"column '{name}' has absent cells: it cannot be in the key")
    parts = [by_name[name].type for name in names]
    values = [column for column in columns if column.name not in names]
    value: Any
    if not values:
        value = "bytes"
    elif any(column.nested for column in values):
        value = "json"
    elif len(values) == 1:
        value = values[0].type if values[0].type in ("str", "bytes") else (values[0].dtype or "str")
    else:
        fields = [(column.name, column.dtype) for column in values]
        fixed = all(dtype is not None for _, dtype in fields)
        bytes_row = sum(np.dtype(dtype).itemsize for _, dtype in fields) if fixed else 0
        value = fields if fixed and bytes_row <= _infer.FIXED_ROW_BYTES else "json"
    return parts[0] if len(parts) == 1 else tuple(parts), value


def show_schema(columns: Sequence[ColumnLike], names: list[str], schema: Schema) -> None:
    """What was found, before anything is loaded."""
    fields = {} if is_one(schema[1]) else dict(schema[1])
    parts = dict(zip(names, key_parts(schema[0])))
    for column in columns:
        if column.name in names:
            said = f"{parts[column.name]}, in the key"
        else:
            said = type_text(fields.get(column.name, schema[1]))
        click.echo(f"{column.name}: {said}")


@contextmanager
def _progress(file: Path) -> Iterator[Phase]:
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
