"""The guard of instruction counts (bench/instructions.py), without valgrind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import counted_kernels
import instructions

BENCH = Path(__file__).parents[2] / "bench"


DUMP = """\
# callgrind format
desc: Trigger: Client Request: get
positions: line
events: Ir
ob=(1) /there/cesium/_core.cpython-311-x86_64-linux-gnu.so
fl=(1) core.c
fn=(1) lookup
10 5
+2 7
fi=(2) inlined.h
* 8
cfi=(3) string.c
cob=(2) /lib/libc.so.6
cfn=(2) memcpy
calls=3 40
-1 900
fn=(3) decode
99 100

ob=(2)
fl=(3)
fn=(2)
40 900

ob=(3) /there/numpy/_core/_multiarray_umath.so
fn=(4) add
1 5000

ob=(1)
fl=(1)
fn=(1)
20 1
"""


def test_a_dump_gives_each_function_its_own_instructions() -> None:
    costs = instructions.parse(DUMP)
    assert costs == {
        "/there/cesium/_core.cpython-311-x86_64-linux-gnu.so": {"lookup": 21, "decode": 100},
        "/lib/libc.so.6": {"memcpy": 900},
        "/there/numpy/_core/_multiarray_umath.so": {"add": 5000},
    }
    assert instructions.own(costs) == {"lookup": 21, "decode": 100}


def check(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], **versions: str) -> int:
    file = tmp_path / "counts.json"
    record = {"versions": instructions.versions() | versions, "counts": old}
    file.write_text(json.dumps(record))
    return int(instructions.check(file, new))


def test_a_rise_of_more_than_5_percent_fails(tmp_path: Path, capsys: Any) -> None:
    old = {"portable": {"get": 1000, "put": 1000}, "avx2": {"get": 500}}
    assert check(tmp_path, old, old) == 0
    assert check(tmp_path, old, {"portable": {"get": 1050, "put": 10}, "avx2": {"get": 525}}) == 0
    capsys.readouterr()
    assert check(tmp_path, old, old | {"avx2": {"get": 526}}) == 1
    printed = capsys.readouterr().out
    assert [line.split("│")[1:7] for line in printed.splitlines() if "ROSE" in line] == [
        [" get    ", " avx2     ", "      500 ", "   526 ", " +5.20% ", " ROSE "]
    ]
    assert "make bench-instructions-record" in printed


def test_kernels_that_came_or_went_fail(tmp_path: Path, capsys: Any) -> None:
    two, one = {"portable": {"get": 10, "put": 10}}, {"portable": {"get": 10}}
    assert check(tmp_path, one, two) == 1
    assert "not recorded" in capsys.readouterr().out
    assert check(tmp_path, two, one) == 1
    assert "not counted" in capsys.readouterr().out


def test_a_level_that_this_processor_lacks_is_told(tmp_path: Path, capsys: Any) -> None:
    old = {"portable": {"get": 10}, "avx2": {"get": 10}}
    assert check(tmp_path, old, {"portable": {"get": 10}}) == 0
    assert "level avx2 was NOT COUNTED" in capsys.readouterr().out


def test_other_versions_are_told_and_not_judged(tmp_path: Path, capsys: Any) -> None:
    old, new = {"portable": {"get": 10}}, {"portable": {"get": 20}}
    assert check(tmp_path, old, new, compiler="gcc 3.0") == 0
    printed = capsys.readouterr().out
    assert "NOT COMPARED" in printed and "compiler gcc 3.0 then, " in printed
    assert "not judged" in printed and "+100.00%" in printed and "ROSE" not in printed


def test_a_machine_without_valgrind(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.argv", ["instructions.py"])
    assert instructions.main() == 3
    monkeypatch.setattr("sys.argv", ["instructions.py", "--where-possible"])
    assert instructions.main() == 0
    assert capsys.readouterr().out.count("NOT COUNTED: valgrind was not found") == 2


def test_every_kernel_is_recorded_and_runs() -> None:
    recorded = json.loads((BENCH / "instructions.json").read_text())
    assert set(recorded["versions"]) == set(instructions.versions())
    for level in instructions.LEVELS:
        assert list(recorded["counts"][level]) == list(counted_kernels.KERNELS)
        assert min(recorded["counts"][level].values()) > 10_000
    try:
        for prepare in counted_kernels.KERNELS.values():
            work = prepare()
            work()
            work()
    finally:
        counted_kernels.stores().close()
