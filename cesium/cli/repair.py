"""`cesium repair STORE`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from cesium.cli._gate import EXIT_CORRUPT, say
from cesium.cli._show import PATH
from cesium.cli._text import to_json
from cesium.cli.verify import describe, interval_text

MODES = ("strict", "point-in-time", "salvage")


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.option("-o", "--output", type=PATH, metavar="DEST", help="Where to; else STORE.repaired.")
@click.option(
    "--in-place",
    is_flag=True,
    help="Put it in the place of STORE, which is kept as STORE.backup-TIME.",
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="point-in-time",
    show_default=True,
    help="At damage: refuse; stop the journal there; or go on behind it.",
)
@click.option("--key", metavar="TYPE", help="The keys' type, if the manifest is lost with it.")
@click.option("--value", metavar="TYPE", help="The values' type, likewise.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def repair(
    context: click.Context,
    path: Path,
    output: Path | None,
    in_place: bool,
    mode: str,
    key: str | None,
    value: str | None,
    as_json: bool,
) -> None:
    """Build the best store that the bytes of a damaged one allow.

    STORE itself is not changed, unless it is repaired in place, and then a backup is made first.
    TYPE is written as in `cesium info`: u8, str, bytes; parts of a composite key with commas
    between; fields of a value as JSON, [["price", "f8"], ["size", "i4"]].

    Exits with 0 when a store was built (or nothing had to be), whatever was lost; with 4 when mode
    strict refuses, or nothing is left.
    """
    import cesium
    from cesium.directory import OWN_FILES, bytes_of
    from cesium.files import Files
    from cesium.pace import PAGE_BYTES
    from cesium.progress import reporting
    from cesium.repair import repair as repaired

    if not path.exists():
        raise click.ClickException(f"no store at {path}")
    if in_place and output is not None:
        raise click.UsageError("either --in-place or --output")
    if value is not None and key is None:
        raise click.UsageError("--value needs --key")
    pages = bytes_of(Files(path), OWN_FILES[1:]) // PAGE_BYTES if path.is_dir() else 0
    try:
        with reporting("reading", pages, sys.stderr.isatty()) as progress:
            report = repaired(
                path,
                output,
                mode=mode,
                in_place=in_place,
                key=key_type(key),
                value=value_type(value),
                progress=progress,
            )
    except cesium.CorruptionError as error:
        if as_json:
            click.echo(to_json({"ok": False, "path": None, "error": str(error)}))
        say(str(error))
        context.exit(EXIT_CORRUPT)
    if as_json:
        click.echo(to_json(report.as_dict()))
        return
    for problem in report.problems:
        say(describe(problem))
    show(report)


def key_type(text: str | None) -> Any:
    """A key's type as it is typed: a name, or names with commas between, or JSON where its columns
    have names."""
    if text is not None and text.lstrip().startswith("["):
        return pairs_of(text, "--key")
    if text is None or "," not in text:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def value_type(text: str | None) -> Any:
    """A value's type as it is typed: a name, or JSON for a row of fields."""
    if text is None or not text.lstrip().startswith("["):
        return text
    return pairs_of(text, "--value")


def pairs_of(text: str, option: str) -> list[tuple[str, Any]]:
    """A JSON list of [name, type]."""
    try:
        return [(str(name), kind) for name, kind in json.loads(text)]
    except (ValueError, TypeError) as error:
        raise click.UsageError(f"{option} is no list of [name, type]: {error}") from None


def show(report: Any) -> None:
    """What was kept and what was lost, line by line."""
    for segment in report.segments:
        lost = segment["rows_lost"]
        if segment["outcome"] != "kept":
            count = "an unknown number of" if lost is None else f"{lost:,}"
            click.echo(
                f"{segment['file']}: {segment['outcome']}, {segment['rows']:,} rows kept, "
                f"{count} lost"
            )
    for doubt in report.doubts:
        what = "may be stale or missing" if doubt.stale else "may be missing"
        click.echo(f"{doubt.file}: {interval_text(doubt.keys)} {what}")
    if report.frames_left:
        click.echo(
            f"the journal was followed to its first damage; {report.frames_left:,} sound commits "
            "behind it were left (--mode salvage takes them)"
        )
    for note in report.notes:
        click.echo(f"note: {note}")
    if report.path is not None:
        click.echo(
            f"{report.path}: {report.rows:,} rows, up to commit {report.sequence:,}"
            + (f"; the original is {report.backup}" if report.backup else "")
        )
