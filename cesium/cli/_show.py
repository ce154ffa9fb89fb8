"""Opening a store for a command, and tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import cesium
from cesium.cli._gate import NotFound
from cesium.cli._text import cell_text
from cesium.tables import TableHandle

PATH = click.Path(path_type=Path)
TABLE = click.option("--table", metavar="NAME", help="A table beside the store's default one.")
AT = click.option("--at", metavar="NAME", help="The store as it was at a named checkpoint.")

# Of the commands that load rows.
VALUE_TYPE = click.option("--value-type", metavar="TYPE", help="Likewise.")
BAD = click.option("--bad", type=PATH, metavar="FILE", help="Where rows go that cannot be loaded.")
RESUME = click.option("--resume", is_flag=True, help="Go on with one that was interrupted.")
DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Say what would be loaded, and load nothing."
)


def table_of(store: cesium.Store, name: str | None) -> TableHandle:
    """The table that a command is about, the store itself without a name; NotFound without it."""
    if name is None:
        return store
    if name not in store.tables:
        there = ", ".join(map(repr, store.tables)) or "none"
        raise NotFound(f"no table {name!r} in {store.path} (there are: {there})")
    return store.table(name)


@contextmanager
def opened(path: Path, flag: str, at: str | None = None) -> Iterator[cesium.Store]:
    """An existing store; an error of one line when there is none, and nothing is created.

    at: a named checkpoint of it; NotFound when it has none of that name.
    """
    if not path.exists():
        raise click.ClickException(f"no store at {path}")
    try:
        store = cesium.open(path, flag=flag, at=at)
    except KeyError as error:
        raise NotFound(str(error.args[0])) from None
    with store:
        yield store


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Names and what they are: a table on a terminal, else lines of `name<TAB>value`."""
    if not sys.stdout.isatty():
        for name, content in facts.items():
            click.echo(f"{name}\t{cell_text(content)}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As Text: rich would read the [s] of datetime64[s] as markup.
    table = Table(title=Text(title), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, content in facts.items():
        number = isinstance(content, int) and not isinstance(content, bool)
        cell = f"{content:,}" if number else cell_text(content)
        table.add_row(Text(name.replace("_", " ")), Text(cell))
    Console().print(table)


def print_sections(
    title: str, sections: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]]
) -> None:
    """Titles, columns and rows of text, as tables one below the other; empty ones are left out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(Text(title, style="bold"))
    for name, header, rows in sections:
        if not rows:
            continue
        table = Table(title=Text(name), title_justify="left", show_header=any(header))
        for number, column in enumerate(header):
            table.add_column(
                Text(column), justify="right" if number else "left", style="" if number else "bold"
            )
        for row in rows:
            table.add_row(Text(row[0].replace("_", " ")), *map(Text, row[1:]))
        console.print(table)


def print_rows(keys: Sequence[str], values: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows as a table on a terminal: the keys' columns, and as many of the values' as fit."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table()
    room = console.width - 1
    hidden: list[str] = []
    for number, name in enumerate([*keys, *values]):
        cells = [name, *(row[number] for row in rows)]
        room -= max(map(cell_len, cells)) + 3  # a border and a blank on either side
        is_key = number < len(keys)
        if hidden or (room < 0 and number > len(keys)):
            hidden.append(name)
        else:
            table.add_column(Text(name), style="bold" if is_key else "", overflow="fold")
    shown = len(table.columns)
    for row in rows:
        table.add_row(*map(Text, row[:shown]))
    console.print(table)
    if hidden:
        console.print(Text(f"too wide for: {', '.join(hidden)} (--json has all)", style="dim"))
