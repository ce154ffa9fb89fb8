"""`cesium info STORE`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import cesium
from cesium.catalog import schemas
from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import describe, to_json
from cesium.figures import bytes_text


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def info(path: Path, as_json: bool) -> None:
    """What a store is: its schema, its rows, its size on the drive, its tables and checkpoints."""
    with opened(path, "r") as store:
        first, last = (store.first()[0], store.last()[0]) if store else (None, None)
        facts = {
            "path": str(store.path),
            "key": store.options.key if as_json else describe(store.options.key),
            "value": store.options.value if as_json else describe(store.options.value),
            "rows": len(store),
            "first_key": first,
            "last_key": last,
            "files": sum(1 for entry in path.iterdir() if entry.is_file()),
            "bytes": sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file()),
        }
        named = store.checkpoints()
        tables = {name: (key, value) for name, key, value in schemas(store._engine)}
    if as_json:
        checkpoints = [_members(each) for each in named]
        schemas_json = [
            {"name": name, "key": key, "value": value} for name, (key, value) in tables.items()
        ]
        click.echo(to_json({**facts, "tables": schemas_json, "checkpoints": checkpoints}))
    else:
        shown = {f"checkpoint {each.name}": _line(each) for each in named}
        beside = {
            f"table {name}": f"{describe(key)} -> {describe(value)}"
            for name, (key, value) in tables.items()
        }
        print_facts(str(path), {**facts, **beside, **shown})


def _members(checkpoint: cesium.Checkpoint) -> dict[str, Any]:
    return {**asdict(checkpoint), "time": checkpoint.time.isoformat()}


def _line(checkpoint: cesium.Checkpoint) -> str:
    return (
        f"sequence {checkpoint.sequence:,}, {checkpoint.time:%Y-%m-%d %H:%M:%S} UTC, "
        f"about {checkpoint.estimated_rows:,} rows, {bytes_text(checkpoint.bytes)}, "
        f"{bytes_text(checkpoint.own_bytes)} of its own"
    )
