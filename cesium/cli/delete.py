"""`cesium delete STORE KEY`"""

from __future__ import annotations

from pathlib import Path

import click

from cesium.cli._gate import NotFound
from cesium.cli._show import PATH, TABLE, opened, table_of
from cesium.cli._text import parse_key


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("key")
@TABLE
def delete(path: Path, key: str, table: str | None) -> None:
    """Delete one key.  Exits with 3 when it is absent."""
    with opened(path, "w") as store:
        rows = table_of(store, table)
        try:
            del rows[parse_key(rows.key, key)]
        except KeyError:
            raise NotFound(f"no key {key} in {rows.path}") from None
