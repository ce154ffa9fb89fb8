"""The notebooks in examples/ run from top to bottom, shortened, as a newcomer runs them."""

from __future__ import annotations

from pathlib import Path

import jupytext
import pytest

from notebooks import run

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SHORT = {"CESIUM_EXAMPLE_ROWS": "300000", "CESIUM_EXAMPLE_GEOIP": "not-there"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(tmp_path: Path, path: Path) -> None:
    notebook = run(jupytext.read(path), tmp_path, SHORT)
    shown = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type in ("display_data", "execute_result")
    ]
    assert sum("image/png" in data for data in shown) >= 2
    assert any("cesium store" in data.get("text/html", "") for data in shown)
    assert not [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.get("name") == "stderr"
    ], "nothing warns a newcomer"


def test_the_examples_are_all_there() -> None:
    assert [path.stem for path in EXAMPLES] == ["addresses", "flights", "sensors"]
