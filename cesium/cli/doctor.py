"""`cesium doctor DIR`"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cesium.cli._gate import EXIT_ERROR
from cesium.cli._show import PATH
from cesium.cli._text import to_json
from cesium.doctor import Diagnosis, examine

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@click.command()
@click.argument("directory", metavar="DIR", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="The diagnosis as one JSON object.")
@click.pass_context
def doctor(context: click.Context, directory: Path, as_json: bool) -> None:
    """Try whether a directory is a place for a store.

    Tests syncs, renames, locks, direct I/O, mapping and free space with files of its own, which it
    removes again, and reports the drive.  Exits with 1 when something that a store relies on
    fails; warnings do not count.
    """
    diagnosis = examine(directory)
    if as_json:
        click.echo(to_json(diagnosis.as_dict()))
    elif sys.stdout.isatty():
        show_table(diagnosis)
    else:
        for check in diagnosis.checks:
            click.echo("\t".join([check.status, check.name, check.found, check.advice]).rstrip())
    if not diagnosis.ok:
        context.exit(EXIT_ERROR)


def show_table(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(diagnosis.directory), title_justify="left", show_lines=True)
    table.add_column("check", style="bold", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what was found, what it means, what to do", overflow="fold")
    for check in diagnosis.checks:
        said = Text(check.found)
        if check.advice:
            said.append(f"\n{check.advice}", style=STYLES[check.status])
        table.add_row(check.name, Text(check.status, style=STYLES[check.status]), said)
    console = Console()
    console.print(table)
    bad = [check.name for check in diagnosis.checks if check.status == "failed"]
    odd = [check.name for check in diagnosis.checks if check.status == "warning"]
    if bad:
        console.print(Text(f"Do not keep a store here: {', '.join(bad)} failed.", STYLES["failed"]))
    elif odd:
        console.print(Text(f"A store works here; mind what is said of {', '.join(odd)}."))
    else:
        console.print(Text("A good place for a store.", STYLES["ok"]))
