"""Two reports of `cesium bench` beside each other: drives, machines, versions, or a change.

    comparison = compare(read(Path("before.json")), read(Path("after.json")))
    show(comparison)

Rows are matched when workload, key, value, rows, threads and engine are the same.  Each gets the
ratio of the second report to the first, above 1 where the second is better, its 95 % interval, and
a verdict that takes the spread of the runs into account (see noise.py).  Of rows that did not
change at all, one in forty or so will still be called changed: look at rows of a kind together.  A
peer that did not change is the control: where its rows moved as cesium's did, the machine moved.

Thread safety: the functions hold no state.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cesium.benchmark.noise import Ratio, ratio
from cesium.benchmark.reading import Drive, Report, Result, read
from cesium.benchmark.standing import by_work
from cesium.benchmark.texts import data_text, figure_text, ratio_text
from cesium.figures import bytes_text

__all__ = ["Comparison", "Difference", "Pair", "compare", "compare_files", "show"]

STYLES = {"better": "green", "worse": "bold red", "same": "", "unclear": "dim", "unknown": "dim"}


@dataclass(frozen=True, slots=True)
class Pair:
    """One engine at one work in both reports.

    ratio: None where one of them failed, where a figure is 0, or where the units differ.
    """

    first: Result
    second: Result
    ratio: Ratio | None

    @property
    def verdict(self) -> str:
        """That of the ratio; "failed" when either failed, "unlike" when they cannot be compared."""
        if self.first.error or self.second.error:
            return "failed"
        return "unlike" if self.ratio is None else self.ratio.verdict


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact about machine, drive, run or engine that the reports do not share."""

    name: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two reports have in common, what differs around them, and what only one has."""

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    differences: tuple[Difference, ...]
    only_first: tuple[Result, ...]
    only_second: tuple[Result, ...]

    def counts(self) -> dict[str, int]:
        """How many pairs got each verdict."""
        verdicts = [pair.verdict for pair in self.pairs]
        return {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}

    def by_engine(self) -> dict[str, tuple[float, int]]:
        """The geometric mean of each engine's ratios, and of how many."""
        logs: dict[str, list[float]] = {}
        for pair in self.pairs:
            if pair.ratio is not None:
                logs.setdefault(pair.first.engine, []).append(math.log(pair.ratio.value))
        return {name: (math.exp(sum(each) / len(each)), len(each)) for name, each in logs.items()}


def compare_files(first: Path, second: Path) -> Comparison:
    """The comparison of two files.  Raises ReportError (a file is no report) and OSError."""
    return compare(read(first), read(second), (str(first), str(second)))


def compare(first: Report, second: Report, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Matches the rows of two reports, in the order of the first."""
    others = {(result.work, result.engine): result for result in second.results}
    mine = {(result.work, result.engine) for result in first.results}
    return Comparison(
        names,
        tuple(
            _pair(result, others[result.work, result.engine])
            for result in first.results
            if (result.work, result.engine) in others
        ),
        tuple(_differences(first, second)),
        tuple(each for each in first.results if (each.work, each.engine) not in others),
        tuple(each for each in second.results if (each.work, each.engine) not in mine),
    )


def _pair(first: Result, second: Result) -> Pair:
    if first.error or second.error or first.unit != second.unit:
        return Pair(first, second, None)
    return Pair(first, second, ratio(second.runs, first.runs, first.lower_is_better))


def _differences(first: Report, second: Report) -> Iterator[Difference]:
    for name, one, other in _facts(first, second):
        if one != other:
            yield Difference(name, one or "not said", other or "not said")


def _facts(first: Report, second: Report) -> Iterator[tuple[str, str, str]]:
    for name in dict.fromkeys([*first.machine, *second.machine]):
        yield name.replace("_", " "), first.machine.get(name, ""), second.machine.get(name, "")
    one, other = _drive_facts(first.drive), _drive_facts(second.drive)
    for name in dict.fromkeys([*one, *other]):
        yield f"drive: {name}", one.get(name, ""), other.get(name, "")
    for name in dict.fromkeys([*first.engines, *second.engines]):
        for member in ("version", "settings"):
            one_said, other_said = (
                str(getattr(report.engines.get(name), member, "")) for report in (first, second)
            )
            yield f"{name}: {member}", one_said, other_said
    yield "profile", first.profile, second.profile
    yield "seed", first.seed, second.seed
    yield "interrupted", str(first.interrupted).lower(), str(second.interrupted).lower()


def _drive_facts(drive: Drive) -> dict[str, str]:
    facts = {}
    for name in ("sequential_read", "sequential_write"):
        rate = getattr(drive, name)
        if rate is not None:
            facts[name.replace("_", " ")] = f"{bytes_text(int(rate))}/s"
    for read_ in drive.random_read:
        facts[f"random reads, depth {read_.depth}"] = f"{read_.reads_per_second:,.0f}/s"
    for name in ("p50", "p99"):
        if name in drive.sync_us:
            facts[f"sync, {name}"] = f"{drive.sync_us[name]:,.0f} us"
    return facts


HEADER = ("workload", "data", "engine", "A", "B", "B / A", "95 % interval", "verdict")


def cells(pair: Pair) -> tuple[str, ...]:
    """A pair as texts, in the order of HEADER."""
    first, second, found = pair.first, pair.second, pair.ratio
    between = "" if found is None else "one run" if found.interval is None else interval_text(found)
    return (
        first.work.workload,
        data_text(first.work),
        first.engine,
        figure_text(first.median, first.unit) if not first.error else "failed",
        figure_text(second.median, second.unit) if not second.error else "failed",
        "" if found is None else ratio_text(found.value),
        between,
        pair.verdict,
    )


def interval_text(found: Ratio) -> str:
    """The two ends of an interval."""
    return "" if found.interval is None else " to ".join(map(ratio_text, found.interval))


def show(comparison: Comparison) -> None:
    """Prints a comparison: tables on a terminal, else lines of cells with tabs between them."""
    if sys.stdout.isatty():
        _show_tables(comparison)
        return
    for difference in comparison.differences:
        print("differs", difference.name, difference.first, difference.second, sep="\t")
    for pair in comparison.pairs:
        print("row", *cells(pair), sep="\t")
    for name, (mean, count) in comparison.by_engine().items():
        print("engine", name, ratio_text(mean), count, sep="\t")
    for side, results in _only(comparison):
        for result in results:
            print(
                f"only {side}",
                result.work.workload,
                data_text(result.work),
                result.engine,
                sep="\t",
            )


def _only(comparison: Comparison) -> Iterator[tuple[str, Sequence[Result]]]:
    yield "A", comparison.only_first
    yield "B", comparison.only_second


def _show_tables(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for side, name in zip("AB", comparison.names):
        console.print(Text(f"{side}: {name}", style="bold"))
    if comparison.differences:
        table = Table(title=Text("What differs around the rows"), title_justify="left")
        for column in ("", "A", "B"):
            table.add_column(column, overflow="fold")
        for each in comparison.differences:
            table.add_row(*map(Text, (each.name, each.first, each.second)))
        console.print(table)
    if comparison.pairs:
        console.print(_rows_table(comparison.pairs))
        console.print(Text(_summary(comparison)))
    else:
        console.print(Text("The reports have no row in common."))
    for side, results in _only(comparison):
        if results:
            works = "; ".join(
                f"{work.workload} ({data_text(work)}) of {', '.join(each.engine for each in them)}"
                for work, them in by_work(results).items()
            )
            console.print(Text(f"Only in {side}: {works}", style="dim"))
    for pair in comparison.pairs:
        for side, result in zip("AB", (pair.first, pair.second)):
            if result.error:
                where = f"{result.work.workload} ({data_text(result.work)}) of {result.engine}"
                console.print(Text(f"Failed in {side}: {where}: {result.error}", style="red"))


def _rows_table(pairs: Sequence[Pair]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("B beside A, medians; above 1 B is better"), title_justify="left")
    for number, column in enumerate(HEADER):
        table.add_column(
            column, justify="right" if 3 <= number <= 6 else "left", overflow="fold",
            no_wrap=number == len(HEADER) - 1,
        )  # fmt: skip
    for pair in pairs:
        style = STYLES.get(pair.verdict, "bold yellow")
        *others, verdict = cells(pair)
        table.add_row(*map(Text, others), Text(verdict, style=style))
    return table


def _summary(comparison: Comparison) -> str:
    said = [f"{count} {verdict}" for verdict, count in comparison.counts().items()]
    means = [
        f"{name} {ratio_text(mean)} ({count} row{'s' if count != 1 else ''})"
        for name, (mean, count) in comparison.by_engine().items()
    ]
    lines = [f"{len(comparison.pairs)} rows: {', '.join(said)}."]
    if means:
        lines.append(f"Geometric means of B / A: {', '.join(means)}.")
    return "\n".join(lines)
