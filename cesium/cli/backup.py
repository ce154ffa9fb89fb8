"""`cesium backup STORE DEST` and `cesium restore DEST STORE`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from cesium.cli._gate import EXIT_CORRUPT, say
from cesium.cli._show import PATH
from cesium.cli._text import to_json


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("dest", metavar="DEST", type=PATH)
@click.option("--full", is_flag=True, help="Only into a new or empty directory.")
@click.option("--copy", is_flag=True, help="Copy every byte, even where it could be shared.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def backup(
    context: click.Context, path: Path, dest: Path, full: bool, copy: bool, as_json: bool
) -> None:
    """Make DEST a backup of a store.

    The store is read as it lies there, also while another process writes to it: DEST holds it as of
    one commit, and opens as any store does.  Where DEST is an earlier backup, only what is new is
    put there, and what the store no longer has goes.  Files are hard links or share their blocks
    where the file system allows it: such a backup is safe from mistakes, but not from the loss of
    the drive.

    Interrupted, DEST is the earlier backup still, or it does not open; run it again.  Exits with 4
    when the store is damaged.
    """
    from cesium.backup import backup_directory

    if not path.exists():
        raise click.ClickException(f"no store at {path}")
    _run(
        context, as_json,
        lambda: backup_directory(path, dest, not full, not copy, sys.stderr.isatty()),
    )  # fmt: skip


@click.command()
@click.argument("dest", metavar="DEST", type=PATH)
@click.argument("path", metavar="STORE", type=PATH)
@click.option("--copy", is_flag=True, help="Copy every byte, even where it could be shared.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_context
def restore(context: click.Context, dest: Path, path: Path, copy: bool, as_json: bool) -> None:
    """Make the new store STORE of the backup DEST.

    Where anything is called STORE already, it is refused.  All of it is read back and checked
    before the store gets its name; DEST stays as it is.  Exits with 4 when the backup is damaged.
    """
    from cesium.backup import restore as restored

    if not dest.exists():
        raise click.ClickException(f"no backup at {dest}")
    _run(context, as_json, lambda: restored(dest, path, not copy, sys.stderr.isatty()))


def _run(context: click.Context, as_json: bool, call: Any) -> None:
    import cesium

    try:
        report = call()
    except cesium.CorruptionError as error:
        say(str(error))
        context.exit(EXIT_CORRUPT)
    if as_json:
        click.echo(to_json(report.as_dict()))
        return
    bytes_by = {
        "linked": report.linked_bytes,
        "sharing blocks": report.cloned_bytes,
        "copied": report.copied_bytes,
        "there already": report.kept_bytes,
    }
    told = [f"{count:,} bytes {what}" for what, count in bytes_by.items() if count]
    click.echo(
        f"{report.path}: up to commit {report.sequence:,}, {report.files:,} files, "
        f"{', '.join(told) or 'no bytes'}, in {report.seconds:.1f} s"
    )
