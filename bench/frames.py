"""Frames in and out, against DuckDB, polars over Parquet, and ArcticDB where it is installed.

    python bench/frames.py [--rows 16000000] [--rounds 5] [--directory DIR]

A time series of (datetime64[ns], float64), in order, one row a second.  Each engine loads it from
pandas and from Arrow (polars for Parquet), and gives ranges of it: 1 %, 10 % and all, to pandas and
to Arrow (polars for Parquet).  Engines take turns within a round, and medians over the rounds are
printed, in milliseconds; files are in the page cache.  Loads end when the rows are on the drive:
cesium and DuckDB sync, Parquet and ArcticDB are synced here, in the time.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow

import cesium

START = np.datetime64("2020-01-01", "ns")
SECOND = np.timedelta64(1_000_000_000, "ns")


def sync(directory: Path) -> None:
    """Forces all files below a directory to the drive."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


class Cesium:
    name = "cesium"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "cesium"

    def load(self, frame: Any) -> None:
        self.store = cesium.from_frame(self.path, frame, "ts", flag="n")

    def drop(self) -> None:
        self.store.close()
        shutil.rmtree(self.path)

    def pandas(self, lo: Any, hi: Any) -> Any:
        return self.store.range(lo, hi).to_pandas()

    def arrow(self, lo: Any, hi: Any) -> Any:
        return self.store.range(lo, hi).to_arrow()

    def mean(self) -> float:
        return float(self.store.range().mean())


class DuckDB:
    name = "DuckDB"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ticks.duckdb"

    def load(self, frame: Any) -> None:
        self.connection = duckdb.connect(str(self.path))
        self.connection.register("given", frame)
        self.connection.execute("CREATE TABLE ticks AS SELECT ts, value FROM given")
        self.connection.execute("CHECKPOINT")

    def drop(self) -> None:
        self.connection.close()
        self.path.unlink()

    def _range(self, lo: Any, hi: Any) -> Any:
        bounds = [lo.astype("M8[us]").item(), hi.astype("M8[us]").item()]
        query = "SELECT * FROM ticks WHERE ts >= ? AND ts < ?"
        return self.connection.sql(query, params=bounds)

    def pandas(self, lo: Any, hi: Any) -> Any:
        return self._range(lo, hi).df()

    def arrow(self, lo: Any, hi: Any) -> Any:
        return pyarrow.table(self._range(lo, hi).to_arrow_reader())

    def mean(self) -> float:
        return float(self.connection.execute("SELECT avg(value) FROM ticks").fetchall()[0][0])


class Parquet:
    name = "Parquet, polars"

    def __init__(self, directory: Path) -> None:
        self.path = directory / "parquet" / "ticks.parquet"

    def load(self, frame: Any) -> None:
        self.path.parent.mkdir()
        given = polars.from_pandas(frame) if isinstance(frame, pandas.DataFrame) else frame
        polars.DataFrame(given).write_parquet(self.path)
        sync(self.path.parent)

    def drop(self) -> None:
        shutil.rmtree(self.path.parent)

    def arrow(self, lo: Any, hi: Any) -> Any:
        ts = polars.col("ts")
        wanted = (ts >= polars.lit(lo)) & (ts < polars.lit(hi))
        return polars.scan_parquet(self.path).filter(wanted).collect()

    def pandas(self, lo: Any, hi: Any) -> Any:
        return self.arrow(lo, hi).to_pandas()

    def mean(self) -> float:
        asked = polars.scan_parquet(self.path).select(polars.col("value").mean()).collect()
        return float(asked.item())


class Arctic:
    name = "ArcticDB"

    def __init__(self, directory: Path) -> None:
        library = importlib.import_module("arcticdb")
        self.directory = directory / "arctic"
        self.directory.mkdir()
        database = library.Arctic(f"lmdb://{self.directory}?map_size=8GB")
        self.library = database.create_library("ticks")

    def load(self, frame: Any) -> None:
        if not isinstance(frame, pandas.DataFrame):
            frame = frame.to_pandas()
        self.library.write("ticks", frame.set_index("ts"), prune_previous_versions=True)
        sync(self.directory)

    def drop(self) -> None:
        self.library.delete("ticks")

    def pandas(self, lo: Any, hi: Any) -> Any:
        dates = (pandas.Timestamp(lo), pandas.Timestamp(hi - SECOND))
        return self.library.read("ticks", date_range=dates).data

    def arrow(self, lo: Any, hi: Any) -> Any:
        return pyarrow.Table.from_pandas(self.pandas(lo, hi))

    def mean(self) -> float:
        return float(self.library.read("ticks").data["value"].mean())


def seconds(task: Callable[..., Any], *given: Any) -> float:
    start = time.perf_counter()
    kept = task(*given)
    taken = time.perf_counter() - start
    del kept
    return taken


def measure(engines: list[Any], rows: int, rounds: int) -> Iterator[tuple[str, list[float]]]:
    """(what, medians in milliseconds, one an engine)."""
    frame = pandas.DataFrame({"ts": START + np.arange(rows) * SECOND,
                              "value": np.random.default_rng(7).normal(size=rows)})  # fmt: skip
    table = pyarrow.Table.from_pandas(frame)
    for what, given in (("load from pandas", frame), ("load from Arrow", table)):
        taken: list[list[float]] = [[] for _ in engines]
        for turn in range(rounds):
            for engine, times in zip(engines, taken):
                times.append(seconds(engine.load, given))
                if turn + 1 < rounds or given is frame:
                    engine.drop()
        yield what, [1000 * statistics.median(times) for times in taken]
    for share in (1, 10, 100):
        count = rows * share // 100
        first = (rows - count) // 3
        lo, hi = START + first * SECOND, START + (first + count) * SECOND
        for form in ("pandas", "arrow"):
            taken = [[] for _ in engines]
            for _ in range(rounds):
                for engine, times in zip(engines, taken):
                    times.append(seconds(getattr(engine, form), lo, hi))
                    assert len(getattr(engine, form)(lo, lo + 9 * SECOND)) == 9
            where = f"{share} % to {form}" if share < 100 else f"all to {form}"
            yield where, [1000 * statistics.median(times) for times in taken]
    taken = [[] for _ in engines]
    for _ in range(rounds):
        for engine, times in zip(engines, taken):
            times.append(seconds(engine.mean))
    yield "mean of all", [1000 * statistics.median(times) for times in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        kinds: list[Any] = [Cesium, DuckDB, Parquet]
        if importlib.util.find_spec("arcticdb") is not None:
            kinds.append(Arctic)
        engines = [kind(Path(name)) for kind in kinds]
        print(f"{given.rows:,} rows, medians of {given.rounds} rounds, ms")
        print("| | " + " | ".join(engine.name for engine in engines) + " |")
        print("| --- |" + " ---: |" * len(engines))
        for what, medians in measure(engines, given.rows, given.rounds):
            print(f"| {what} | " + " | ".join(f"{median:,.1f}" for median in medians) + " |",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
