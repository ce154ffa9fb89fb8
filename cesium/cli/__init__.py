"""The command line `cesium`, or `python -m cesium`: one file a command.

Exit codes: 0 done, 1 an error (of `doctor`: not a place for a store), 2 wrong usage, 3 no such key,
4 damage found by `verify` or in the way of `repair`, 130 interrupted.  Errors are one line on
standard error; results go to standard output, with `--json` where a program would read them.
"""

from __future__ import annotations

import click

from cesium.cli._gate import Commands
from cesium.cli.backup import backup, restore
from cesium.cli.bench import bench
from cesium.cli.checkpoint import checkpoint
from cesium.cli.compact import compact
from cesium.cli.delete import delete
from cesium.cli.demo import demo
from cesium.cli.doctor import doctor
from cesium.cli.export import export
from cesium.cli.get import get
from cesium.cli.import_ import import_
from cesium.cli.info import info
from cesium.cli.load import load
from cesium.cli.put import put
from cesium.cli.range import range_
from cesium.cli.repair import repair
from cesium.cli.stats import stats
from cesium.cli.verify import verify

__all__ = ["main"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cesiumdb", prog_name="cesium")
def main() -> None:
    """Cesium: an embedded, durable, ordered key-value store.

    Keys are written as the store's schema says: 42, 2.5, 2013-07-04T12:00:00, text, 0x00ff for
    bytes.  The parts of a composite key are separated by commas.
    """


for command in (
    *(demo, load, export, import_, get, put, delete, range_, info, stats),
    *(checkpoint, compact, verify, repair, backup, restore, doctor, bench),
):
    main.add_command(command)
