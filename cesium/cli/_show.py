"""Opening a store for a command, and tables on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import cesium
from cesium.cli._text import cell_text

PATH = click.Path(path_type=Path)


@contextmanager
def opened(path: Path, flag: str) -> Iterator[cesium.Store]:
    """An existing store; an error of one line when there is none, and nothing is created."""
    if not path.exists():
        raise click.ClickException(f"no store at {path}")
    with cesium.open(path, flag=flag) as store:
        yield store


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Names and what they are: a table on a terminal, else lines of `name<TAB>value`."""
    if not sys.stdout.isatty():
        for name, content in facts.items():
            click.echo(f"{name}\t{cell_text(content)}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, content in facts.items():
        number = isinstance(content, int) and not isinstance(content, bool)
        table.add_row(name.replace("_", " "), f"{content:,}" if number else cell_text(content))
    Console().print(table)
