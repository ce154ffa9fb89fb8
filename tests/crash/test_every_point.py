"""Crashes at every point: each workload stopped after every write, at every sync, between commits.

The counts are printed at the end of the run.  `make crash-long` does the same with fresh seeds and
a hundred times as many images.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cesium.files import Files
from crash.check import Checker
from crash.disk import Digests, Disk
from crash.explore import Explorer, total
from crash.images import choices
from crash.run import Run, small_limits
from crash.workloads import CORNERS, WORKLOADS

pytestmark = pytest.mark.crash

SEED = 3
IMAGES_LEAST = 10_000
DEBUG = os.environ.get("CESIUM_DEBUG") == "1"  # many times as slow: fewer images


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_point(name: str) -> None:
    explorer = Explorer(effort=1, nested=1) if DEBUG else Explorer()
    explorer.workload(name, SEED)
    total.add(explorer.counts)
    missing = [corner for corner in CORNERS.get(name, ()) if not explorer.counts.seen[corner]]
    assert not missing, f"never met: {missing}, only {dict(explorer.counts.seen)}"


def test_enough_was_tried() -> None:
    """After all workloads of one run."""
    if DEBUG or total.runs < len(WORKLOADS):
        pytest.skip("only some of the images were made")
    assert total.images >= IMAGES_LEAST, str(total)


def test_an_image_in_a_directory_is_the_same(tmp_path: Path) -> None:
    """What is opened in memory above is what a directory with these files would be."""
    with small_limits():
        run = Run("in a directory", durability="process")
        WORKLOADS["loads"][0](run)
        run.finish()
        disk, digests, compared = Disk(), Digests(), set()
        checker = Checker(run.history, run.options)
        for number, event in enumerate(run.events):
            if disk.apply(event) and number % 12 == 0 and number > 20:
                for choice, content in list(choices(disk, f"{number}", 2))[::5]:
                    found = checker.examine(content, 1)
                    for drawn in (0, 1):  # opened read-only and written to, or neither
                        path = tmp_path / f"{number} {choice} {drawn}"
                        path.mkdir()
                        assert checker.examine(content, drawn, Files(path)) == found
                    compared.add(digests.of(content))
        assert len(compared) > 20


@pytest.mark.parametrize("name", ["puts", "group", "makes-new"])
def test_a_run_can_be_repeated(name: str) -> None:
    """The same seed makes the same events and the same choices: that is how a failure is shown."""
    shapes = []
    for _ in range(2):
        with small_limits():
            work, options = WORKLOADS[name]
            run = Run(f"{name} 1", **options)
            work(run)
            run.finish()
        disk, shape = Disk(), []
        for number, event in enumerate(run.events):
            if disk.apply(event) and number % 10 == 0:
                shape.append((number, [c for c, _ in choices(disk, f"{number}", 3)]))
        shapes.append((len(run.events), [type(event) for event in run.events], shape))
    assert shapes[0] == shapes[1]
