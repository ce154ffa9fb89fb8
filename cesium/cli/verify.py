"""`cesium verify STORE`"""

from __future__ import annotations

from pathlib import Path

import click

import cesium
from cesium.cli._gate import EXIT_CORRUPT
from cesium.cli._show import PATH, opened
from cesium.cli._text import to_json


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def verify(context: click.Context, path: Path, as_json: bool) -> None:
    """Read everything and check it.

    Exits with 4 when something is damaged.
    """
    try:
        with opened(path, "r") as store:
            report = store.verify()
    except cesium.CorruptionError as error:
        if as_json:
            damage = {"file": error.file, "page": None, "message": str(error)}
            click.echo(to_json({"ok": False, "pages": 0, "problems": [damage]}))
        else:
            click.echo(f"cesium: {error}", err=True)
        context.exit(EXIT_CORRUPT)
    if as_json:
        click.echo(to_json(report.as_dict()))
    elif report.ok:
        click.echo(f"{path}: {report.pages:,} pages are as they were written")
    else:
        for problem in report.problems:
            where = problem.file if problem.page is None else f"{problem.file}, page {problem.page}"
            click.echo(f"cesium: {where}: {problem.message}", err=True)
    if not report.ok:
        context.exit(EXIT_CORRUPT)
