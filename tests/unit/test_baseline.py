"""What `make bench` says of ratios beside recorded ones (bench/baseline.py)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import bench_baseline
from baseline import FILE, Baseline, Session, change, changes, differences, noise_percent, show

HERE = {"processor": "one", "level": "avx2"}
STEADY = [2.0, 2.02, 1.98, 2.01, 1.99]


def shown(now: Session, before: Baseline | None) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(changes(now, before), differences(now, before), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_changes_are_judged_with_the_spread_of_sessions() -> None:
    loud = [1.0, 5.0, 2.0, 0.4, 3.0]
    recorded = dict.fromkeys(("same", "up", "down", "gone"), STEADY) | {"loud": loud, "once": [2.0]}
    now = Session(HERE, {
        "same": STEADY, "up": [each * 2 for each in STEADY], "down": [each / 2 for each in STEADY],
        "loud": [4.0, 4.0], "once": [4.0], "fresh": STEADY,
    })  # fmt: skip
    before = Baseline(HERE, recorded)
    assert {each.kernel: each.verdict for each in changes(now, before)} == {
        "same": "same", "up": "better", "down": "worse", "loud": "unclear", "once": "unknown",
        "fresh": "new",
    }  # fmt: skip
    text = shown(now, before)
    assert "6 kernels: 1 same, 1 better, 1 worse, 1 unclear, 1 unknown, 1 new" in text
    assert "+100.0 %" in text and "-50.0 %" in text
    assert "another machine" not in text


def test_one_more_session_lies_in_the_interval_as_often_as_is_said() -> None:
    random = np.random.default_rng(1)
    outside = 0
    for _ in range(2000):
        *sessions, now = np.exp(0.1 * random.standard_normal(6)).tolist()
        found = change(now, sessions)
        assert found is not None and found.interval is not None
        outside += not found.interval[0] <= 1 <= found.interval[1]
    assert 50 < outside < 170  # of 2000; the median is a little less certain than the mean


def test_without_a_record_all_is_new() -> None:
    assert "1 kernels: 1 new" in shown(Session(HERE, {"a": STEADY}), None)


def test_another_machine_is_told() -> None:
    before = Baseline(HERE | {"processor": "two"}, {"a": STEADY})
    text = " ".join(shown(Session(HERE, {"a": STEADY}), before).split())
    assert "another machine" in text and "processor: two then, one now" in text


def test_sessions_are_added_to_the_record(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    assert Baseline.read(file) is None
    Session(HERE, {"a": [1.0, 1.23456, 9.0], "b": STEADY}).added_to(None).write(file)
    assert Baseline.read(file) == Baseline(HERE, {"a": [1.235], "b": [2.0]})
    Session(HERE, {"a": [3.0]}).added_to(Baseline.read(file)).write(file)
    assert Baseline.read(file) == Baseline(HERE, {"a": [1.235, 3.0]})
    there = HERE | {"processor": "two"}
    Session(there, {"a": [3.0]}).added_to(Baseline.read(file)).write(file)
    assert Baseline.read(file) == Baseline(there, {"a": [3.0]})


def test_noise_is_the_middle_half() -> None:
    assert noise_percent([1.0]) == 0
    assert noise_percent([1.0, 1.1, 1.2, 1.3, 100.0]) == pytest.approx(0.2 / 1.2 * 100)


def test_every_kernel_of_the_suite_is_recorded() -> None:
    tests = [name for name in vars(bench_baseline) if name.startswith("test_")]
    sessions = json.loads(FILE.read_text())["sessions"]
    assert len(sessions) == len(tests)
    assert all(len(found) >= 3 and min(found) > 0 for found in sessions.values())
