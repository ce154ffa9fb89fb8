"""`cesium stats STORE`"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cesium.cli._show import PATH, opened, print_facts, print_sections
from cesium.cli._text import to_json


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def stats(path: Path, as_json: bool) -> None:
    """What the engine counts: rows, tiers, files, amplification."""
    with opened(path, "r") as store:
        found = store.stats()
    if as_json:
        click.echo(to_json(found.as_dict()))
    elif sys.stdout.isatty():
        print_sections(str(path), found.sections())
    else:
        print_facts(str(path), found.as_dict())
