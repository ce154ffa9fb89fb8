"""Progress as it is told: to a function, and by a bar in a real notebook."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import cesium
from cesium.progress import in_notebook, reporting
from notebooks import run_cells


def rising(told: list[tuple[int, int]]) -> bool:
    return all(a[0] <= b[0] and a[1] <= b[1] for a, b in itertools.pairwise(told))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_function_is_told_how_far_a_load_is(tmp_path: Path, threads: int) -> None:
    told: list[tuple[int, int]] = []
    rows = 3 << 16
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store.bulk_load(
            np.arange(rows), np.arange(rows), threads=threads,
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
        assert told[-1] == (rows, rows) and rising(told)
        assert threads == 1 or len(told) > 1
        told.clear()
        store[5] = 5
        store.compact(progress=lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1] >= rows and rising(told)
        told.clear()
        assert store.verify(progress=lambda done, total: told.append((done, total))).ok
        assert told[-1][0] == told[-1][1] > 700 and rising(told)


def test_nothing_to_do_is_done_at_once() -> None:
    told: list[tuple[int, int]] = []
    with cesium.open(":memory:", key="u8", value="u8") as store:
        store.bulk_load([], [], progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 0)]


def test_the_total_grows_when_the_estimate_was_too_low() -> None:
    told: list[tuple[int, int]] = []
    with reporting("x", 5, lambda done, total: told.append((done, total))) as report:
        assert report is not None
        report(4)
        report(4)
    assert told == [(4, 5), (8, 8)]
    told.clear()
    with pytest.raises(KeyError):
        with reporting("x", 5, lambda done, total: told.append((done, total))) as report:
            raise KeyError
    assert told == [], "what failed is not told as done"


NOTEBOOK = [
    "import cesium, numpy as np\n"
    "store = cesium.open(':memory:', key='u8', value='u8')\n"
    "rows = np.arange(300_000)\n"
    "_ = store.bulk_load(rows, rows, progress=True, threads=2)",
    "from cesium.progress import reporting\n"
    "try:\n"
    "    with reporting('compacting', 100, True) as report:\n"
    "        report(40)\n"
    "        raise KeyboardInterrupt\n"
    "except KeyboardInterrupt:\n    pass",
    "store",
]


def test_a_notebook_has_a_bar_without_widgets(tmp_path: Path) -> None:
    load, interrupted, shown = run_cells(NOTEBOOK, tmp_path)
    (bar,) = load.outputs
    assert bar.data["text/plain"].startswith("loading: 300,000 of 300,000 took ")
    assert '<progress value="300000" max="300000">' in bar.data["text/html"]
    (bar,) = interrupted.outputs
    assert bar.data["text/plain"].startswith("compacting: 40 of 100 ended after ")
    assert "300,000 rows" in shown.outputs[0].data["text/html"]
    assert not in_notebook(), "these tests are none"
