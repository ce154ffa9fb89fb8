"""`cesium compact STORE`"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import to_json


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def compact(path: Path, as_json: bool) -> None:
    """Merge all of a store into one run, giving back the space of what was deleted."""
    with opened(path, "w") as store:
        before = store.stats().directory_bytes
        store.compact(progress=sys.stderr.isatty())
        facts = {"bytes_before": before, "bytes_after": store.stats().directory_bytes}
    click.echo(to_json(facts)) if as_json else print_facts(str(path), facts)
