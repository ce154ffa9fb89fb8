"""`cesium put STORE KEY VALUE`"""

from __future__ import annotations

from pathlib import Path

import click

from cesium.cli._show import PATH, TABLE, opened, table_of
from cesium.cli._text import parse_key, parse_value


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("key")
@click.argument("value")
@TABLE
def put(path: Path, key: str, value: str, table: str | None) -> None:
    """Write one row into an existing store.

    Returns when it is on the drive.

    The value is a number, a time or text as the schema says, 0x00ff or text for bytes, and JSON
    for JSON, MessagePack and values of several fields: '{"price": 1.5, "size": 3}' or '[1.5, 3]'.
    """
    with opened(path, "w") as store:
        rows = table_of(store, table)
        rows.put(
            parse_key(rows.key, key),
            parse_value(rows.value, value),
            durability="sync",
        )
