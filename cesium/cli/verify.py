"""`cesium verify STORE`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cesium.cli._gate import EXIT_CORRUPT, say
from cesium.cli._show import PATH
from cesium.cli._text import cell_text, to_json


class Rate(click.ParamType[int]):
    """Bytes a second, such as 200MB/s."""

    name = "rate"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        from cesium.options import parse_rate

        try:
            rate = parse_rate(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        assert rate is not None
        return rate


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--rate", type=Rate(), metavar="RATE", help="Read at most so much, as in 200MB/s.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def verify(context: click.Context, path: Path, rate: int | None, as_json: bool) -> None:
    """Read everything from the drive and check it.

    Every page of every segment, every frame of journal and manifest.  Also a store that no longer
    opens, and one that is being written to.

    Exits with 0 when all is as it was written, with 4 when something is damaged.
    """
    from cesium.directory import OWN_FILES, bytes_of
    from cesium.files import Files
    from cesium.pace import PAGE_BYTES
    from cesium.progress import reporting
    from cesium.verify import verify_directory

    if not path.exists():
        raise click.ClickException(f"no store at {path}")
    pages = bytes_of(Files(path), OWN_FILES[1:]) // PAGE_BYTES if path.is_dir() else 0
    with reporting("verifying", pages, sys.stderr.isatty()) as progress:
        report = verify_directory(path, progress, rate)
    if as_json:
        click.echo(to_json(report.as_dict()))
    elif report.ok:
        click.echo(
            f"{path}: {report.pages:,} pages and {report.frames:,} frames are as they were written"
        )
    else:
        show_files(report)
        for problem in report.problems:
            say(describe(problem))
    if not as_json:
        for detail in report.details:
            for note in detail.notes:
                click.echo(f"note: {Path(detail.file).name}: {note}")
    if not report.ok:
        context.exit(EXIT_CORRUPT)


def describe(problem: Any) -> str:
    """A problem in one line."""
    where = problem.file if problem.page is None else f"{problem.file}, page {problem.page}"
    line = f"{where}: {problem.message}"
    if problem.rows:
        line += f"; {problem.rows:,} rows"
    if problem.keys is not None:
        line += f"; {interval_text(problem.keys)}"
    return line


def interval_text(keys: tuple[Any, Any]) -> str:
    """The keys between two ends, either of which nobody may know."""
    lower, upper = keys
    if lower is None and upper is None:
        return "any key"
    ends = [end for end in (lower, upper) if end is not None]
    if lower is None:
        return f"keys up to {cell_text(ends[0])}"
    if upper is None:
        return f"keys from {cell_text(ends[0])}"
    return f"keys {cell_text(lower)} to {cell_text(upper)}"


def show_files(report: Any) -> None:
    """One row a file: a table on a terminal, else lines with tabs."""
    head = ("file", "pages", "frames", "problems", "readable pages", "readable rows", "of rows")
    rows = []
    for detail in report.details:
        whole = not detail.problems
        rows.append(
            [
                Path(detail.file).name,
                detail.pages or "",
                detail.frames or "",
                len(detail.problems),
                detail.pages if whole and detail.pages else detail.readable_pages,
                detail.rows if whole else detail.readable_rows,
                detail.rows,
            ]
        )
    if not sys.stdout.isatty():
        for row in (head, *rows):
            click.echo("\t".join("" if cell is None else str(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(
            *(Text("" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell))
              for cell in row)
        )  # fmt: skip
    Console().print(table)
