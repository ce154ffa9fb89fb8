"""A report on the terminal: the machine, the drive, and every workload beside the peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from cesium.benchmark.reading import CALLS_LEAST, Drive, Engine, Latency, Report, Result, Work
from cesium.benchmark.standing import OWN, Standing, by_work, standings
from cesium.benchmark.texts import (
    above_whole_text,
    count_text,
    data_text,
    figure_text,
    micros_text,
    ratio_text,
)
from cesium.benchmark.workloads import WORKLOADS
from cesium.figures import bytes_text

STYLES = {"better": "green", "worse": "bold red"}
SYNCED_MARK = "*"
SHOWN_PERCENTILES = ("p50", "p99", "p99_9")

COLUMNS = ("workload", "key", "value", "rows", "threads", "engine", "unit", "median", "low",
           "high", "error", "durability")  # fmt: skip

Works = Mapping[Work, Sequence[Result]]


def show(report: Report, console: Console) -> None:
    """Prints a report, of a run that was interrupted too."""
    console.print(_facts("Machine", report.machine))
    if report.drive.random_read:
        console.print(_drive(report.drive))
    console.print(_engines(report.engines))
    works = by_work(report.results)
    beside = {each.work: each for each in standings(report)}
    names = [name for name in report.engines if any(r.engine == name for r in report.results)]
    for data in dict.fromkeys(data_text(work) for work in works):
        chosen = {work: found for work, found in works.items() if data_text(work) == data}
        console.print(_rates(data, chosen, names, beside, console.width))
        latencies = _latencies(chosen, names, console.width)
        if latencies is not None:
            console.print(latencies)
    for note in notes(report):
        console.print(Text(note))


def notes(report: Report) -> list[str]:
    """What must be said beside the figures."""
    found = [
        f"{each.work.workload}, {each.engine}: {each.error}"
        for each in report.results
        if each.error
    ]
    if report.interrupted:
        found.append("Interrupted: this is what there was by then.")
    return found


def lines(report: Report) -> list[str]:
    """The results as lines with tabs, for a program: COLUMNS first."""
    found = ["\t".join(COLUMNS)]
    for each in report.results:
        work = each.work
        cells = (work.workload, work.key, work.value, work.rows, work.threads, each.engine,
                 each.unit, each.median, each.low, each.high, each.error,
                 each.durability)  # fmt: skip
        found.append("\t".join("" if cell is None else str(cell) for cell in cells))
    return found


def _plain(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)


def _facts(title: str, facts: Mapping[str, str]) -> Table:
    table = _plain(title)
    table.show_header = False
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in facts.items():
        if name.endswith("_bytes"):
            name, said = name.removesuffix("_bytes"), bytes_text(int(said.replace(",", "")))
        table.add_row(Text(name.replace("_", " ")), Text(said))
    return table


def _drive(drive: Drive) -> Group:
    facts = {
        f"sequential {name}": f"{bytes_text(int(rate))}/s"
        for name, rate in (("write", drive.sequential_write), ("read", drive.sequential_read))
        if rate is not None
    }
    facts["sync of a small append"] = ", ".join(
        f"{name.replace('_', '.')} {micros_text(micros)}" for name, micros in drive.sync_us.items()
    )
    table = Table(box=None, pad_edge=False)
    for name in ("random reads of 4 KiB: at once", "a second", "p50", "p99"):
        table.add_column(name, justify="right", style="dim" if "at once" in name else "")
    for row in drive.random_read:
        times = ["" if us is None else micros_text(us) for us in (row.p50_us, row.p99_us)]
        table.add_row(str(row.depth), count_text(row.reads_per_second), *times)
    return Group("", _facts("The drive itself, past the page cache", facts), table)


def _engines(engines: Mapping[str, Engine]) -> Group:
    table = _plain("Engines and their settings")
    table.show_header = False
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, engine in engines.items():
        said = Text(engine.version + (", a bound and no store" if engine.bound else ""))
        said.append(f"; {engine.settings}", style="dim")
        table.add_row(Text(name), said)
    return Group("", table)


def _title(work: Work) -> str:
    found = WORKLOADS.get(work.workload)
    return work.workload if found is None else found.text


Columns = dict[str, list[Text]]


def _rates(
    data: str, works: Works, names: Sequence[str], beside: Mapping[Work, Standing], width: int
) -> Group:
    """A table, or several below each other where the engines do not fit beside each other."""
    titles = [Text(_title(work)) for work in works]
    engines: Columns = {name: [] for name in names}
    compared: list[Text] = []
    shares: list[Text] = []
    for work, results in works.items():
        by_engine = {result.engine: result for result in results}
        for name, cells in engines.items():
            cells.append(_figure(by_engine.get(name)))
        compared.append(_beside(beside.get(work)))
        shares.append(_share(by_engine.get(OWN)))
    columns = dict(engines)
    if any(cell.plain for cell in compared):
        columns["beside best peer"] = compared
    if any(cell.plain for cell in shares):
        columns[f"{OWN}, of the drive"] = shares
    tables = _tables("a second, or time", titles, columns, width)
    medians = (
        "Medians, and half of what lies between the lowest and the highest run; what an engine "
    )
    said = [medians + "does not offer is left empty.", *_synced(works), *_above_whole(works)]
    below = [Text(line, style="dim") for line in said]
    return Group("", Text(data, style="bold"), *tables, *below)


def _synced(works: Works) -> list[str]:
    if any(_mark(each) for results in works.values() for each in results):
        return [
            f"{SYNCED_MARK} synced: the engine waits for the drive at each commit, others need not."
        ]
    return []


def _mark(result: Result) -> str:
    return SYNCED_MARK if result.durability == "sync" else ""


def _above_whole(works: Works) -> list[str]:
    """A line for each limit of which the column of shares has more than the whole."""
    own = [each for results in works.values() for each in results if each.engine == OWN]
    shares = [each.share for each in own if each.share is not None]
    limits = dict.fromkeys(limit for limit, fraction in shares if fraction > 1)
    return [above_whole_text(limit) for limit in limits]


def _tables(corner: str, titles: Sequence[Text], columns: Columns, width: int) -> list[Table]:
    """The columns, as many beside each other as fit; each table begins with the titles."""
    tables: list[Table] = []
    left = 0
    first = max(map(len, [corner, *(title.plain for title in titles)])) + 3
    shown: list[list[list[Text]]] = []
    for name, cells in columns.items():
        wide = max(map(len, [name, *(cell.plain for cell in cells)])) + 3
        if not tables or wide > left:
            tables.append(Table(pad_edge=False))
            tables[-1].add_column(corner, no_wrap=True)
            shown.append([])
            left = width - first - 2
        tables[-1].add_column(name, justify="right", no_wrap=True)
        shown[-1].append(cells)
        left -= wide
    for table, parts in zip(tables, shown):
        for number, title in enumerate(titles):
            cells = [part[number] for part in parts]
            if any(cell.plain for cell in cells):
                table.add_row(title, *cells)
    return tables


def _figure(result: Result | None) -> Text:
    if result is None:
        return Text("")
    if result.median is None:
        return Text("failed", style="bold red")
    found = Text(figure_text(result.median, result.unit).removesuffix("/s").removesuffix(" rows"))
    found.append(_mark(result))
    if len(result.runs) > 1 and result.median > 0:
        apart = (max(result.runs) - min(result.runs)) / 2 / result.median
        found.append(f" ±{apart * 100:2.0f}%", style="dim")
    return found


def _beside(found: Standing | None) -> Text:
    if found is None or found.ratio is None or found.best is None:
        return Text("")
    style = STYLES.get(found.ratio.verdict, "")
    return Text(
        f"{ratio_text(found.ratio.value)} x {found.best.engine}{_mark(found.best)}", style=style
    )


def _share(result: Result | None) -> Text:
    if result is None or result.share is None:
        return Text("")
    limit, fraction = result.share
    return Text(f"{fraction:.1%} of {limit}" if fraction < 2 else f"{fraction:.1f} x {limit}")


def _latencies(works: Works, names: Sequence[str], width: int) -> Group | None:
    latencies = {
        work: {result.engine: result.latency for result in results}
        for work, results in works.items()
        if any(result.latency for result in results)
    }
    if not latencies:
        return None
    columns = {
        name: [Text(_percentiles(row.get(name))) for row in latencies.values()] for name in names
    }
    title = Text("How long a call takes: p50, p99, p99.9 (of enough calls)", style="bold")
    titles = [Text(_title(work)) for work in latencies]
    return Group("", title, *_tables("", titles, columns, width))


def _percentiles(latency: Latency | None) -> str:
    if latency is None:
        return ""
    return ", ".join(
        micros_text(getattr(latency, name))
        for name in SHOWN_PERCENTILES
        if latency.count >= CALLS_LEAST.get(name, 1)
    )
