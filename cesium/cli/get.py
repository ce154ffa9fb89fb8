"""`cesium get STORE KEY`"""

from __future__ import annotations

from pathlib import Path

import click

from cesium.cli._gate import NotFound
from cesium.cli._show import AT, PATH, TABLE, opened, table_of
from cesium.cli._text import field_names, parse_key, to_json, value_cells


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("key")
@AT
@TABLE
@click.option("--json", "as_json", is_flag=True, help="The value as JSON.")
def get(path: Path, key: str, at: str | None, table: str | None, as_json: bool) -> None:
    """Print the value of one key.

    A value of several fields gives a line for each. Exits with 3 when the key is absent.
    """
    with opened(path, "r", at) as store:
        rows = table_of(store, table)
        schema = rows.value
        try:
            value = rows[parse_key(rows.key, key)]
        except KeyError:
            raise NotFound(f"no key {key} in {rows.path}") from None
    if as_json:
        click.echo(to_json(value))
    elif isinstance(schema, str):
        click.echo(value_cells(schema, value)[0])
    else:
        for name, cell in zip(field_names(schema), value_cells(schema, value)):
            click.echo(f"{name}\t{cell}")
