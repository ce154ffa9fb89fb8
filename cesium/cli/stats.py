"""`cesium stats STORE`"""

from __future__ import annotations

from pathlib import Path

import click

from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import to_json


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def stats(path: Path, as_json: bool) -> None:
    """What the engine counts, such as segments and bytes."""
    with opened(path, "r") as store:
        facts = store.stats().as_dict()
    click.echo(to_json(facts)) if as_json else print_facts(str(path), facts)
