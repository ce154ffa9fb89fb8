"""`cesium demo`: the main job on real data, and a writer killed in the middle of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import cesium
from cesium.cli import _flights
from cesium.cli._text import cell_text, parse_key, to_json
from cesium.cli._writer import moved

MARKER = "made-by-cesium-demo"
KILL_AFTER_WRITES = 500
KILL_AFTER_SECONDS = 2.0
TABLE_ROWS = 8
WRITER = "import sys; from cesium.cli._writer import run; run(sys.argv[1])"


@click.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-data"),
    show_default=True,
    help="Where to make the two stores; overwritten only if an earlier demo made it.",
)
def demo(directory: Path) -> None:
    """Show cesium at work on a year of flights.

    Loads them, asks for ranges, kills a writer in the middle and sees that nothing is lost."""
    console = Console(highlight=False)
    data = _flights.data_directory()
    _prepare(directory)
    flights, weather = directory / "flights.cesium", directory / "weather.cesium"

    _heading(console, "1. Bulk load: every flight out of New York City in 2013, and the weather")
    started = time.perf_counter()
    flight_rows, weather_rows = _flights.read_flights(data), _flights.read_weather(data)
    console.print(f"CSV read in {time.perf_counter() - started:.1f} s")
    _load(console, flights, _flights.FLIGHT_KEY, _flights.FLIGHT_FIELDS, flight_rows)
    _load(console, weather, _flights.WEATHER_KEY, _flights.WEATHER_FIELDS, weather_rows)

    with cesium.open(flights, flag="r") as store, cesium.open(weather, flag="r") as sky:
        _heading(console, "2. Ranges: ordered, both ways, rows or arrays")
        _show_day(console, store, sky, np.datetime64("2013-07-04", "s"))
        _show_carrier_hour(console, store, np.datetime64("2013-07-04T12", "s"), "UA")
        _show_floor(console, store, np.datetime64("2013-07-05T02:30", "s"))

    _heading(console, "3. Durability: kill -9 in the middle of single writes")
    _kill_writer(console, flights)

    _heading(console, "4. Where to go next")
    console.print(f"""\
The stores stay in {directory}. From the shell:
  cesium info {flights}
  cesium range {flights} --from 2013-12-24 --to 2013-12-25 --limit 10
  cesium get {weather} 2013-07-04T12:00:00,JFK
From Python:
  import cesium, numpy as np
  store = cesium.open("{flights}", flag="r")
  day = np.datetime64("2013-12-24")
  keys, values = store.range((day,), (day + 1,)).arrays()
Your own data:
  cesium load FILE.csv mine.cesium --key COLUMN     (or store.bulk_load(keys, values))
README.md has the guarantees, the limits and the measured numbers; docs/format.md has the bytes.""",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def _prepare(directory: Path) -> None:
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).is_file():
            raise click.ClickException(
                f"{directory} holds something that is not a demo's; name another: --directory"
            )
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)


def _load(
    console: Console, path: Path, key: Any, fields: list[tuple[str, str]], rows: _flights.Rows
) -> None:
    started = time.perf_counter()
    with cesium.open(path, key=key, value=fields, flag="n") as store:
        commit = store.bulk_load(*rows, progress=False)
    seconds = time.perf_counter() - started
    console.print(
        f"[bold]{path.name}[/bold]: {commit.rows:,} rows loaded and on the drive in "
        f"{seconds * 1000:,.0f} ms: [green]{commit.rows / seconds:,.0f} rows/s[/green]",
        soft_wrap=True,
    )


FLIGHT_COLUMNS = ("hour (UTC)", "carrier", "flight", "from", "to", "tail", "late, min")


def _flight_cells(key: Any, value: Any) -> list[str]:
    delay = "cancelled" if np.isnan(value.dep_delay) else f"{value.dep_delay:.0f}"
    return [
        *(str(part) for part in key),
        *(cell_text(cell) for cell in (value.origin, value.dest, value.tailnum)),
        delay,
    ]


def _flight_table(title: str, rows: Any) -> Table:
    table = Table(title=title, title_justify="left")
    for name in FLIGHT_COLUMNS:
        numeric = name in ("flight", "late, min")
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for key, value in rows:
        table.add_row(*_flight_cells(key, value))
    return table


def _show_day(console: Console, store: cesium.Store, sky: cesium.Store, day: Any) -> None:
    view = store.range((day,), (day + np.timedelta64(1, "D"),))
    started = time.perf_counter()
    _, values = view.arrays()
    milliseconds = (time.perf_counter() - started) * 1000
    title = f"range: {day.astype('M8[D]')}, the first {TABLE_ROWS} of {len(view):,} flights"
    first = store.range((day,), (day + np.timedelta64(1, "D"),), limit=TABLE_ROWS)
    console.print(_flight_table(title, first))
    noon = sky[day + np.timedelta64(16, "h"), "JFK"]
    console.print(
        f"The day as arrays, {len(values):,} rows, in {milliseconds:.2f} ms: mean departure delay "
        f"{np.nanmean(values['dep_delay']):.1f} minutes. At JFK at noon: {noon.temp:.0f} F, wind "
        f"{noon.wind_speed:.0f} mph.",
        soft_wrap=True,
    )


def _show_carrier_hour(console: Console, store: cesium.Store, hour: Any, carrier: str) -> None:
    console.print(
        _flight_table(f"prefix: {carrier} in the hour of {hour}", store.prefix((hour, carrier)))
    )


def _show_floor(console: Console, store: cesium.Store, moment: Any) -> None:
    found = store.floor((moment,))
    if found is None:
        raise click.ClickException(f"no flight before {moment}")
    console.print(_flight_table(f"floor: the last flight before {moment}", [found]))


def _kill_writer(console: Console, path: Path) -> None:
    """Kills a real process between two system calls of its choosing, then counts."""
    with cesium.open(path, flag="r") as store:
        loaded = len(store)
    # The child must find the package that runs now, not another one in its working directory.
    package = str(Path(cesium.__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    writer = subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    assert writer.stdout is not None and writer.stderr is not None
    acknowledged = []
    try:
        started = 0.0
        for line in writer.stdout:
            started = started or time.perf_counter()
            acknowledged.append(line)
            seconds = time.perf_counter() - started
            if len(acknowledged) >= KILL_AFTER_WRITES or seconds > KILL_AFTER_SECONDS:
                break
    finally:
        writer.send_signal(signal.SIGKILL)
    acknowledged.extend(writer.stdout)  # what it had reported before it died
    complaint = writer.stderr.read().strip()
    if writer.wait() != -signal.SIGKILL or not acknowledged:
        raise click.ClickException(f"the writer failed: {complaint or writer.returncode}")
    console.print(
        f"A writer, process {writer.pid}, put one flight at a time, each on the drive before it "
        f"was acknowledged ({seconds / len(acknowledged) * 1e6:,.0f} us each). "
        f"[red]SIGKILL[/red] after {len(acknowledged):,} acknowledged writes.",
        soft_wrap=True,
    )
    _check_after_kill(console, path, loaded, acknowledged)


def _check_after_kill(console: Console, path: Path, loaded: int, acknowledged: list[str]) -> None:
    started = time.perf_counter()
    with cesium.open(path, flag="w") as store:
        milliseconds = (time.perf_counter() - started) * 1000
        lost = 0
        for line in acknowledged:
            key = parse_key(store.key, line.strip())
            years = int(key[0].astype("M8[Y]").astype("i8")) + 1970 - 2013
            # As text: the NaN of an absent delay is not equal to itself.
            written, original = store.get(key), store[moved(key, -years)]
            lost += written is None or to_json(written) != to_json(original)
        total = len(store)
        report = store.verify()
    if lost or not report.ok or total < loaded + len(acknowledged):
        raise click.ClickException(
            f"{lost} of {len(acknowledged)} acknowledged writes are lost; "
            f"{len(report.problems)} problems; {total} rows of {loaded + len(acknowledged)}"
        )
    in_flight = total - loaded - len(acknowledged)
    console.print(
        f"Reopened in {milliseconds:.1f} ms: all [green]{len(acknowledged):,} of "
        f"{len(acknowledged):,}[/green] acknowledged writes are there"
        + (f", and {in_flight} that had not been acknowledged yet" if in_flight else "")
        + f"; {total:,} rows in all. verify: {report.pages:,} pages, [green]no damage[/green].",
        soft_wrap=True,
    )
