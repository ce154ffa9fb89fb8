"""`cesium info STORE`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import cesium
from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import describe, to_json
from cesium.figures import bytes_text


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def info(path: Path, as_json: bool) -> None:
    """What a store is: its schema, its rows, its size on the drive, its named checkpoints."""
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
    if as_json:
        click.echo(to_json({**facts, "checkpoints": [_members(each) for each in named]}))
    else:
        shown = {f"checkpoint {each.name}": _line(each) for each in named}
        print_facts(str(path), {**facts, **shown})


def _members(checkpoint: cesium.Checkpoint) -> dict[str, Any]:
    return {**asdict(checkpoint), "time": checkpoint.time.isoformat()}


def _line(checkpoint: cesium.Checkpoint) -> str:
    return (
        f"sequence {checkpoint.sequence:,}, {checkpoint.time:%Y-%m-%d %H:%M:%S} UTC, "
        f"about {checkpoint.estimated_rows:,} rows, {bytes_text(checkpoint.bytes)}, "
        f"{bytes_text(checkpoint.own_bytes)} of its own"
    )
