"""`cesium info STORE`"""

from __future__ import annotations

from pathlib import Path

import click

from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import describe, to_json


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def info(path: Path, as_json: bool) -> None:
    """What a store is: its schema, its rows, its size on the drive."""
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
    click.echo(to_json(facts)) if as_json else print_facts(str(path), facts)
