"""`cesium import lmdb|leveldb|rocksdb|sqlite|dbm PATH STORE`"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from cesium.cli import _infer
from cesium.cli._convert import BadCells, convert, fixed
from cesium.cli._databases import KINDS, SQLITE, BlobColumn, open_pairs, open_sqlite
from cesium.cli._formats import needed
from cesium.cli._infer import Column
from cesium.cli._loading import DrySink, Loader, Outcome, Sink
from cesium.cli._rejects import Rejects
from cesium.cli._show import BAD, DRY_RUN, PATH, RESUME, VALUE_TYPE
from cesium.cli._text import describe
from cesium.cli.load import key_names, opened_for_rows, schema_given, schema_of, show_schema
from cesium.progress import reporting

TEXT, LITTLE, BIG = ENCODINGS = ("text", "little", "big")
Schema = tuple[Any, Any]


@click.command(name="import")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("source", metavar="PATH", type=PATH)
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--key-type", metavar="TYPE", help="Of a new store; bytes, or of SQLite as found.")
@VALUE_TYPE
@click.option(
    "--key-encoding", type=click.Choice(ENCODINGS), default=TEXT, show_default=True,
    help="How numbers and times are written as bytes.",
)  # fmt: skip
@click.option(
    "--value-encoding", type=click.Choice(ENCODINGS), default=TEXT, show_default=True,
    help="Likewise.",
)  # fmt: skip
@click.option("--database", metavar="NAME", help="Of LMDB, or a column family of RocksDB.")
@click.option("--table", metavar="NAME", help="Of SQLite, if there are several.")
@click.option("--key", "key_text", metavar="COL[,COL...]", help="Of SQLite; its primary key.")
@BAD
@RESUME
@DRY_RUN
def import_(
    kind: str,
    source: Path,
    path: Path,
    key_type: str | None,
    value_type: str | None,
    key_encoding: str,
    value_encoding: str,
    database: str | None,
    table: str | None,
    key_text: str | None,
    bad: Path | None,
    resume: bool,
    dry_run: bool,
) -> None:
    """Load what another store holds.

    PATH is read only, by the package that is the other store's own: lmdb, plyvel (LevelDB),
    rocksdict (RocksDB); SQLite and dbm are Python's.  A new STORE takes bytes to bytes, unless
    types are given: text is UTF-8, numbers and times are text, or with an encoding little or big
    their bytes; json is JSON, msgpack MessagePack, bytes always as they are (pickles of shelve,
    too).

    The table of SQLite is loaded as a file of its columns would be: types are found by a first
    pass, and shown; the key is the primary key, or else the first column.

    Commits, --bad and --resume are as of `cesium load`.
    """
    if not source.exists() and kind != "dbm":
        raise click.ClickException(f"nothing is at {source}")
    if kind != SQLITE and (table or key_text):
        raise click.UsageError("--table and --key are for sqlite")
    if kind == SQLITE and (database or key_encoding != TEXT or value_encoding != TEXT):
        raise click.UsageError("--database and encodings are not for sqlite")
    if value_type and not key_type:
        raise click.UsageError("--value-type needs --key-type")
    rejects = Rejects(bad)
    started = time.perf_counter()
    given = schema_given(path, key_type, value_type)
    types = given[:2] if given else None
    try:
        if kind == SQLITE:
            with open_sqlite(source, table) as rows:
                names = rows.key if key_text is None and rows.key else None
                names = names or key_names(rows.header, key_text, given[2] if given else ())
                blobs = rows.blobs() if rows.bytes_total else set()
                schema, columns = _sqlite_schema(rows, names, blobs, types, rejects.kept)
                loader = Loader(*schema, names, columns, rejects, given is None, True)
                if given is None:
                    show_schema(columns, names, schema)
                outcome = _run(loader, rows, path, schema, resume, dry_run)
        else:
            schema = types or ("bytes", "bytes")
            with open_pairs(kind, source, database) as pairs:
                loader = RawLoader(schema, rejects, key_encoding, value_encoding)
                outcome = _run(loader, pairs, path, schema, resume, dry_run)
    finally:
        rejects.close()
    seconds = None if dry_run else time.perf_counter() - started
    outcome.tell(path, schema, rejects, bad, seconds)


def _run(
    loader: Loader, source: Any, path: Path, schema: Schema, resume: bool, dry_run: bool
) -> Outcome:
    """Loads the rows."""
    with reporting("importing", source.bytes_total, sys.stderr.isatty()) as report:
        advance = _steps(report) if report is not None else lambda position: None
        if dry_run:
            return Outcome(loader.load(source, DrySink(*schema), advance), 0)
        with opened_for_rows(path, schema, None, loader.names) as (target, _):
            sink = Sink(target, resume)
            rows = loader.load(source, sink, advance)
            return Outcome(rows, sink.skipped)


def _steps(report: Callable[[int], None]) -> Callable[[int], None]:
    """What is told positions, of what is told steps."""
    last = [0]

    def advance(position: int) -> None:
        report(position - last[0])
        last[0] = position

    return advance


def _sqlite_schema(
    rows: Any, names: list[str], blobs: set[str], given: Schema | None, rejects: bool
) -> tuple[Schema, list[Column]]:
    if given is not None:
        return given, [Column(name) for name in rows.header]
    columns = [
        BlobColumn(column.name) if column.name in blobs else column
        for column in _infer.infer(rows, lambda position: None, strings=True)
    ]
    return schema_of(columns, names, rejects), columns


class RawLoader(Loader):
    """Converts keys and values that are bytes."""

    def __init__(
        self, schema: Schema, rejects: Rejects, key_encoding: str, value_encoding: str
    ) -> None:
        key, value = schema
        if not isinstance(key, str) or not isinstance(value, str):
            raise click.ClickException(
                f"key {describe(key)}; value {describe(value)}: a key and a value of one part each "
                "are expected"
            )
        super().__init__(key, value, ["key"], [Column("key"), Column("value")], rejects, False)
        self._kinds = [key.removeprefix("-"), value]
        self._encodings = [key_encoding, value_encoding]

    def _rows(self, piece: list[Any]) -> tuple[list[Any], Any]:
        keys, values = map(from_bytes, self._kinds, self._encodings, piece)
        return [keys], values

    def _why(self, one: list[Any]) -> str:
        for name, kind, encoding, cells in zip(("key", "value"), self._kinds, self._encodings, one):
            try:
                from_bytes(kind, encoding, cells)
            except BadCells:
                return f"the {name} is not a {kind}: {cells[0][:60]!r}"
        raise AssertionError("one of them is bad")


def from_bytes(kind: str, encoding: str, cells: Sequence[bytes]) -> Any:
    """Bytes as an array of a type, or a list; BadCells where some are none of it."""
    try:
        match kind:
            case "bytes":
                return list(cells)
            case "json":
                return [json.loads(cell) for cell in cells]
            case "msgpack":
                unpack = needed("msgpack", "msgpack").unpackb
                return [unpack(cell) for cell in cells]
            case "uuid":
                return [
                    uuid.UUID(bytes=cell) if len(cell) == 16 else uuid.UUID(cell.decode())
                    for cell in cells
                ]
        if kind != "str" and np.dtype(kind).kind in "SV":
            return fixed(kind, list(cells))
        if kind == "str" or encoding == TEXT:
            return convert(kind, [cell.decode() for cell in cells], False)
        dtype = np.dtype(kind)
        if any(len(cell) != dtype.itemsize for cell in cells):
            raise BadCells
        stored = dtype.newbyteorder("<" if encoding == LITTLE else ">")
        return np.frombuffer(b"".join(cells), stored).astype(dtype)
    except (BadCells, click.ClickException):
        raise
    except Exception as error:  # of json, msgpack, uuid: whatever they say to bad bytes
        raise BadCells from error
