"""`cesium range STORE`"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cesium.cli._show import AT, PATH, TABLE, opened, print_rows, table_of
from cesium.cli._text import field_names, key_cells, key_parts, parse_key, to_json, value_cells
from cesium.tables import TableHandle

TERMINAL_ROWS = 40


@click.command(name="range")
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--from", "low", metavar="KEY", help="The first key, itself included.")
@click.option("--to", "high", metavar="KEY", help="The key to stop before.")
@click.option("--prefix", metavar="PIECE", help="Only keys that begin so (text, bytes, composite).")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="At most N rows.")
@AT
@TABLE
@click.option("--json", "as_json", is_flag=True, help="One JSON object a row.")
def range_(
    path: Path,
    low: str | None,
    high: str | None,
    prefix: str | None,
    reverse: bool,
    limit: int | None,
    at: str | None,
    table: str | None,
    as_json: bool,
) -> None:
    """Print rows in the order of their keys.

    On a terminal a table of the first 40 rows, unless --limit says otherwise; into a pipe or file
    every row, its cells separated by tabs.  A bound may give only the first parts of a composite
    key: --from 2013-07-04 --to 2013-07-05 is one day.
    """
    if prefix is not None and (low is not None or high is not None):
        raise click.UsageError("--prefix goes without --from and --to")
    with opened(path, "r", at) as store:
        source = table_of(store, table)
        schema = source.key

        def rows(count: int | None) -> Iterator[tuple[Any, Any]]:
            if prefix is not None:
                view = source.prefix(parse_key(schema, prefix, partial=True))
                return itertools.islice(reversed(view) if reverse else iter(view), count)
            lo, hi = (
                None if bound is None else parse_key(schema, bound, partial=True)
                for bound in (low, high)
            )
            return iter(source.range(lo, hi, reverse=reverse, limit=count))

        if as_json:
            for key, value in rows(limit):
                click.echo(f'{{"key": {to_json(key)}, "value": {to_json(value)}}}')
        elif sys.stdout.isatty():
            _print_table(source, rows(limit), limit)
        else:
            _print_lines(source, rows(limit))


def _print_lines(source: TableHandle, rows: Iterator[tuple[Any, Any]]) -> None:
    for key, value in rows:
        cells = key_cells(source.key, key) + value_cells(source.value, value)
        click.echo("\t".join(cells))


def _print_table(source: TableHandle, rows: Iterator[tuple[Any, Any]], limit: int | None) -> None:
    key_schema, value_schema = source.key, source.value
    cells = [
        key_cells(key_schema, key) + value_cells(value_schema, value)
        for key, value in itertools.islice(rows, None if limit is not None else TERMINAL_ROWS + 1)
    ]
    more = limit is None and len(cells) > TERMINAL_ROWS
    parts = key_parts(key_schema)
    names = [
        f"{name}: {part}" for name, part in zip(source.key_names or ["key"] * len(parts), parts)
    ]
    print_rows(names, field_names(value_schema), cells[:TERMINAL_ROWS] if more else cells)
    if more:
        click.echo(f"the first {TERMINAL_ROWS} rows; --limit asks for more")
