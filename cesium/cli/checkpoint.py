"""`cesium checkpoint STORE NAME`, `--list`, `--drop NAME`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import cesium
from cesium.cli._gate import NotFound
from cesium.cli._show import PATH, opened, print_facts
from cesium.cli._text import to_json
from cesium.figures import bytes_text


@click.command()
@click.argument("path", metavar="STORE", type=PATH)
@click.argument("name", required=False)
@click.option("--list", "listed", is_flag=True, help="Say which there are, the oldest first.")
@click.option("--drop", "dropped", metavar="NAME", help="Forget one, and give back its room.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def checkpoint(
    path: Path, name: str | None, listed: bool, dropped: str | None, as_json: bool
) -> None:
    """Give a store as it is now a NAME, under which it can be read later.

    `get`, `range` and `export` read it with --at NAME, and so does cesium.open(STORE, at=NAME),
    whatever is written, deleted or merged meanwhile.  A name that is there already is refused.
    Exits with 3 when there is none to be dropped.

    To name and to drop, nobody else may be writing to the store; --list may always be asked.
    """
    if (name is not None) + listed + (dropped is not None) != 1:
        raise click.UsageError("one of NAME, --list and --drop NAME is expected")
    if name is not None:
        with opened(path, "w") as store:
            made = store.checkpoint(name)
        click.echo(to_json(members_of(made)) if as_json else f"{path}: {name}, {line_of(made)}")
    elif dropped is not None:
        freed = _drop(path, dropped)
        facts = {"name": dropped, "freed_bytes": freed}
        said = f"{path}: {dropped} is dropped, which gave back {bytes_text(freed)}"
        click.echo(to_json(facts) if as_json else said)
    else:
        with opened(path, "r") as store:
            there = store.checkpoints()
        if as_json:
            click.echo(to_json([members_of(each) for each in there]))
        else:
            print_facts(str(path), {each.name: line_of(each) for each in there})


def _drop(path: Path, name: str) -> int:
    """Drops a checkpoint; returns the bytes that it alone kept."""
    with opened(path, "w") as store:
        own = {each.name: each.own_bytes for each in store.checkpoints()}
        try:
            store.drop_checkpoint(name)
        except KeyError as error:
            raise NotFound(str(error.args[0])) from None
        return own[name]


def members_of(checkpoint: cesium.Checkpoint) -> dict[str, Any]:
    """A checkpoint as JSON has it."""
    return {**asdict(checkpoint), "time": checkpoint.time.isoformat()}


def line_of(checkpoint: cesium.Checkpoint) -> str:
    """A checkpoint in one line, for people."""
    return (
        f"sequence {checkpoint.sequence:,}, {checkpoint.time:%Y-%m-%d %H:%M:%S} UTC, "
        f"about {checkpoint.estimated_rows:,} rows, {bytes_text(checkpoint.bytes)}, "
        f"{bytes_text(checkpoint.own_bytes)} of its own"
    )
