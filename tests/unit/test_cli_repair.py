"""`cesium verify` and `cesium repair`: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import cesium
from command_line import fail, run

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A base, and five synced commits in the journal; as after a kill."""
    store = cesium.open(tmp_path / "live", key=("u4", "str"), value=[("a", "f8"), ("b", "i4")])
    store.put_many([(n, "x") for n in range(1000)], [(n / 2, n) for n in range(1000)])
    store.checkpoint()
    for n in range(5):
        store[(n, "y")] = (1.0, n)
    shutil.copytree(tmp_path / "live", tmp_path / "s")
    store.close()
    shutil.rmtree(tmp_path / "live")
    return tmp_path / "s"


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def one(path: Path, start: str) -> Path:
    (file,) = path.glob(start + "*")
    return file


def rows_of(path: Path) -> int:
    with cesium.open(path, flag="r") as store:
        assert store.verify().ok
        return len(store)


def test_a_sound_store(path: Path) -> None:
    result = run("verify", path, "--rate", "1GB/s")
    assert result.exit_code == 0 and "as they were written" in result.stdout
    result = run("repair", path)
    assert result.exit_code == 0 and result.stderr == ""
    assert f"{path}.repaired: 1,005 rows, up to commit 6" in result.stdout
    assert rows_of(Path(f"{path}.repaired")) == 1005
    result = run("repair", path, "--in-place")
    assert result.exit_code == 0 and "nothing is damaged" in result.stdout


def test_a_bad_page(path: Path) -> None:
    segment = one(path, "segment")
    flip(segment, PAGE + 300)
    result = run("verify", path)
    assert result.exit_code == 4
    assert f"{segment}, page 1: " in result.stderr and "rows; keys [" in result.stderr
    assert any(line.startswith(f"{segment.name}\t") for line in result.stdout.splitlines())
    report = json.loads(run("verify", path, "--json").stdout)
    (problem,) = report["problems"]
    assert problem["offset"] == PAGE and problem["keys"][0][1] == "x"
    (detail,) = [detail for detail in report["details"] if detail["kind"] == "segment"]
    assert detail["readable_rows"] == 1000 - problem["rows"]

    result = run("repair", path, "--mode", "strict")
    assert result.exit_code == 4 and result.stderr.count("\n") == 1
    assert not Path(f"{path}.repaired").exists()
    result = run("repair", path, "-o", path.parent / "new", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["path"] == str(path.parent / "new") and not report["ok"]
    assert report["rows"] == rows_of(path.parent / "new") == 1005 - problem["rows"]
    assert report["doubts"][0]["stale"] is False
    result = run("repair", path)
    assert "rewritten" in result.stdout and "may be missing" in result.stdout
    assert run("repair", path).exit_code == 1, "the destination is there"


def test_a_store_that_does_not_open(path: Path) -> None:
    flip(one(path, "manifest"), 100)
    flip(one(path, "journal"), PAGE + 200)  # a row in the midst of five
    assert run("info", path).exit_code == 1
    result = run("verify", path)
    assert result.exit_code == 4
    assert "manifest-" in result.stderr and "journal-" in result.stderr
    result = run("repair", path, "--in-place")
    assert result.exit_code == 0 and "--mode salvage takes them" in result.stdout
    backup = one(path.parent, "s.backup-")
    assert str(backup) in result.stdout
    kept = rows_of(path)
    assert 1000 < kept < 1005
    result = run("repair", backup, "--mode", "salvage", "-o", path.parent / "more")
    assert result.exit_code == 0 and rows_of(path.parent / "more") == 1004


def test_a_schema_that_is_lost(path: Path) -> None:
    for file in path.iterdir():
        if not file.name.startswith("journal-"):
            file.unlink()
    flip(one(path, "journal"), 200)
    assert "--key" in fail(1, "repair", path, "--mode", "salvage")
    schema = ("--key", "u4, str", "--value", '[["a", "f8"], ["b", "i4"]]')
    result = run("repair", path, "--mode", "salvage", *schema)
    assert result.exit_code == 0, result.stderr
    assert rows_of(Path(f"{path}.repaired")) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--rate", "fast"], ["verify", "--rate", "0"], ["repair", "--mode", "hope"],
        ["repair", "--in-place", "-o", "x"], ["repair", "--value", "f8"],
        ["repair", "--key", "u8", "--value", "[1"],
    ],
)  # fmt: skip
def test_wrong_usage(path: Path, arguments: list[str]) -> None:
    result = run(arguments[0], path, *arguments[1:])
    assert result.exit_code == 2 and result.stderr.startswith("cesium: ")


def test_a_writer(path: Path) -> None:
    with cesium.open(path):
        result = run("repair", path)
        assert result.exit_code == 1 and "open for writing" in result.stderr
        assert run("verify", path).exit_code == 0


def test_nothing_is_left(path: Path) -> None:
    for file in path.iterdir():
        file.write_bytes(bytes(5000))
    result = run("repair", path, "--json")
    assert result.exit_code == 4 and "nothing is left" in json.loads(result.stdout)["error"]
