"""`cesium bench [DIR]`"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cesium.cli._gate import EXIT_ERROR, EXIT_INTERRUPTED, message_of, say
from cesium.cli._show import PATH
from cesium.cli._signals import ending_as_by_ctrl_c
from cesium.cli._text import to_json

ASK_ABOVE_BYTES = 10e9


class Bench(click.Command):
    """A command whose first argument may name another: `cesium bench compare A.json B.json`.

    A directory of that name is reached as ./compare.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.others: dict[str, click.Command] = {}

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        if args and args[0] in self.others:
            name = f"{info_name} {args[0]}"
            return self.others[args[0]].make_context(name, args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


class Size(click.ParamType[int]):
    """Bytes, such as 256MiB."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        from cesium.options import parse_bytes

        try:
            return parse_bytes(int(value) if str(value).isdecimal() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Finite(click.FloatRange):
    """A number above 0; neither nan nor infinity, nor what overflows in a product."""

    name = "number"

    def __init__(self) -> None:
        super().__init__(0, 1e9, min_open=True)

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        found = super().convert(value, param, ctx)
        if math.isnan(found):  # which compares with no bound
            self.fail(f"{value} is not a number above 0", param, ctx)
        return found


POSITIVE = click.IntRange(1)


@click.command(cls=Bench)
@click.argument("directory", metavar="[DIR]", type=PATH, default=".")
@click.option("--quick", "profile", flag_value="quick", help="100,000 rows, under a minute.")
@click.option(
    "--standard",
    "profile",
    flag_value="standard",
    default=True,
    help="1 M rows, the default; an hour or so.",
)
@click.option("--full", "profile", flag_value="full", help="10 M rows; hours.")
@click.option("--workload", "workloads", multiple=True, metavar="NAME", help="Only these.")
@click.option("--engine", "engine_names", multiple=True, metavar="NAME", help="Only these.")
@click.option("--key", "keys", multiple=True, metavar="TYPE", help="u64, composite or url.")
@click.option(
    "--value", "values", multiple=True, type=click.IntRange(8), metavar="BYTES", help="8 or more."
)
@click.option("--threads", multiple=True, type=POSITIVE, metavar="N", help="Readers, loaders.")
@click.option("--rows", type=POSITIVE, metavar="N", help="Rows of a store.")
@click.option(
    "--times-memory",
    type=Finite(),
    metavar="X",
    help="Rows of so many times the machine's memory, in place of --rows.",
)
@click.option("--runs", type=POSITIVE, metavar="N", help="Runs of each; medians are shown.")
@click.option("--seconds", type=Finite(), help="About, of a run.")
@click.option(
    "--rate", type=Finite(), metavar="N",
    help="Latencies of so many calls a second that begin on time, as those of clients would.",
)  # fmt: skip
@click.option("--cache", type=Size(), metavar="SIZE", help="Of each engine's own; 256MiB.")
@click.option("--seed", type=click.IntRange(0), help="Of keys, values and choices; 1.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Keep the report as JSON, too.")
@click.option("--html", type=PATH, metavar="FILE", help="The report as a page with plots, too.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before writing more than 10 GB.")
@click.pass_context
def bench(
    context: click.Context, /, directory: Path, as_json: bool, output: Path | None,
    html: Path | None, yes: bool,
    **chosen: Any,
) -> None:  # fmt: skip
    """Measure a drive, what cesium gets out of it, and what other engines do on the same work.

    Runs in DIR (here, when it is not given), in a directory of its own that is removed again: no
    other file is touched.  Engines that are installed take part; pip install 'cesiumdb[peers]' for
    more.  Ctrl-C (or SIGTERM, SIGHUP) ends it and shows what there is by then.

    cesium bench compare A.json B.json lays two reports (-o FILE) beside each other.
    """
    from cesium.benchmark.keeping import check_file
    from cesium.benchmark.runner import Run, offered_by_none
    from cesium.benchmark.workspace import abandoned, check_directory

    plan = _plan(**chosen)
    check_directory(directory)
    for file in (output, html):
        if file is not None and not file.absolute().parent.is_dir():
            raise click.UsageError(f"no directory for {file}")
        if file is not None:
            check_file(file)
    written = plan.written_bytes()
    if written > ASK_ABOVE_BYTES and not yes:
        text = f"this writes about {written / 1e9:.0f} GB to {directory}"
        if not sys.stdin.isatty():
            raise click.UsageError(f"{text}: say --yes")
        click.confirm(f"{text}, and removes it again; go on?", abort=True, err=True)
    for path in abandoned(directory):
        say(f"note: {path} is left from a benchmark that was killed: remove it")
    with ending_as_by_ctrl_c():
        with _progress() as progress:
            report = Run(plan, directory, progress).go()
        try:
            if as_json:
                click.echo(to_json(report))
            else:
                _show(report)
        finally:  # kept even when nobody reads what is shown
            kept = _keep(report, output, html)
    for name, reason in offered_by_none(report).items():
        say(f"note: {name}: not offered: {reason}")
    if report["left_out"]:
        say(f"note: the time was over before these began: {', '.join(report['left_out'])}")
    if report["interrupted"]:
        say("interrupted")
    results = report["results"]
    if not kept or (results and all(each["error"] for each in results)):
        context.exit(EXIT_ERROR)
    if report["interrupted"]:
        context.exit(EXIT_INTERRUPTED)


@click.command()
@click.argument("first", metavar="A.json", type=PATH)
@click.argument("second", metavar="B.json", type=PATH)
def compare(first: Path, second: Path) -> None:
    """Lay two reports beside each other: drives, machines, versions, or a change.

    Rows of the same work and engine get the ratio of B to A, above 1 where B is better, with what
    can be said of it in view of how far the runs lie apart.
    """
    from cesium.benchmark.compare import compare_files, show

    show(compare_files(first, second))


bench.others["compare"] = compare


def _plan(
    profile: str, workloads: Sequence[str], engine_names: Sequence[str], keys: Sequence[str],
    values: Sequence[int], threads: Sequence[int], rows: int | None,
    times_memory: float | None, runs: int | None,
    seconds: float | None, rate: float | None, cache: int | None, seed: int | None,
) -> Any:  # fmt: skip
    """The profile's plan with what was chosen in place of its own."""
    from cesium.benchmark.engines import ENGINES, installed
    from cesium.benchmark.plan import Plan, check
    from cesium.benchmark.shapes import KEY_TYPES, Shape
    from cesium.benchmark.workloads import WORKLOADS

    plan = Plan.of(profile)
    try:
        names = check(workloads, list(WORKLOADS), "workload") or plan.workloads
        peers = check(engine_names, list(ENGINES), "engine") or plan.engines
        key_types = check(keys, KEY_TYPES, "key type")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for name in peers:
        if not installed(name):
            raise click.UsageError(
                f"{name} is not installed: pip install 'cesiumdb[peers]', or {ENGINES[name][2]}"
            )
    shapes, more = plan.shapes, plan.more
    if key_types or values:
        sizes, more = values or (8,), ()
        shapes = tuple(Shape(key, size) for key in key_types or ("u64",) for size in sizes)
    if times_memory is not None:
        import os

        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        rows = max(int(memory * times_memory / shapes[0].row_bytes), 1)
    if rows is not None:
        plan = replace(plan, fewer_wide=False)
    given = {
        "rows": rows, "seconds": seconds, "rate": rate, "cache_bytes": cache, "seed": seed,
        "threads": tuple(dict.fromkeys(threads)) or None,
        "rounds" if plan.rounds > 1 else "repeats": runs,
        "sync_seconds": None if seconds is None else 0.0,  # what is asked for holds for all
    }  # fmt: skip
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(plan, workloads=names, engines=peers, shapes=shapes, more=more, **chosen)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error when that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    task = bar.add_task("starting", total=None)

    def progress(text: str, done: int, total: int) -> None:
        bar.update(task, description=text, completed=done, total=total or None)

    bar.start()
    try:
        yield progress
    finally:
        with suppress(OSError):  # the terminal may be gone, and the report is still to be kept
            bar.stop()


def _keep(report: Any, output: Path | None, page: Path | None) -> bool:
    """Writes the files that were asked for; says which could not be, and goes on with the next."""
    from cesium.benchmark.html import write
    from cesium.benchmark.keeping import write_file

    wanted: list[tuple[Path | None, Callable[[Path], None]]] = [
        (output, lambda file: write_file(file, to_json(report) + "\n")),
        (page, lambda file: write(report, file)),
    ]
    kept = True
    for file, keep in wanted:
        if file is None:
            continue
        try:
            keep(file)
        except OSError as error:
            say(message_of(error))
            kept = False
    return kept


def _show(report: Any) -> None:
    from cesium.benchmark import report as reports
    from cesium.benchmark.reading import parsed

    report = parsed(report)
    if not sys.stdout.isatty():
        click.echo("\n".join(reports.lines(report)))
        return
    from rich.console import Console

    reports.show(report, Console())
