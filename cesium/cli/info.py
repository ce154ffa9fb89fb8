"""`cesium info STORE`"""

from __future__ import annotations

from pathlib import Path

import click

from cesium.catalog import schemas
from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import describe, to_json
from cesium.cli.checkpoint import line_of, members_of
from cesium.key_names import with_names


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def info(path: Path, as_json: bool) -> None:
    """What a store is: its schema, its rows, its size on the drive, its tables and checkpoints."""
    with opened(path, "r") as store:
        first, last = (store.first()[0], store.last()[0]) if store else (None, None)
        facts = {
            "path": str(store.path),
            "key": store.key if as_json else describe(with_names(store.key, store.key_names)),
            "value": store.options.value if as_json else describe(store.options.value),
            "rows": len(store),
            "first_key": first,
            "last_key": last,
            "files": sum(1 for entry in path.iterdir() if entry.is_file()),
            "bytes": sum(entry.stat().st_size for entry in path.iterdir() if entry.is_file()),
        }
        named = store.checkpoints()
        tables = list(schemas(store._engine))
        names = store.key_names
    if as_json:
        checkpoints = [members_of(each) for each in named]
        schemas_json = [
            {
                "name": table.name, "key": table.key, "value": table.value,
                "key_names": table.key_names,
            }
            for table in tables
        ]  # fmt: skip
        more = {"key_names": names, "tables": schemas_json, "checkpoints": checkpoints}
        click.echo(to_json(facts | more))
    else:
        shown = {f"checkpoint {each.name}": line_of(each) for each in named}
        beside = {
            f"table {table.name}": f"{describe(with_names(table.key, table.key_names))} -> "
            f"{describe(table.value)}"
            for table in tables
        }
        print_facts(str(path), {**facts, **beside, **shown})
