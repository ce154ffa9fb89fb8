"""`cesium checkpoint`: names given, told and taken back from the shell."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import cesium
from command_line import COMMAND, ENVIRONMENT, fail, on_terminal, succeed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of two rows."""
    with cesium.open(tmp_path / "s", key="u8", value="u8") as store:
        store.put_many([1, 2], [10, 20])
    return tmp_path / "s"


def test_a_name_is_given_told_and_dropped(path: Path) -> None:
    assert succeed("checkpoint", path, "--list") == ""
    assert json.loads(succeed("checkpoint", path, "--list", "--json")) == []
    assert f"{path}: before it, sequence 1, " in succeed("checkpoint", path, "before it")
    succeed("put", path, 1, 11)
    made = json.loads(succeed("checkpoint", path, "after", "--json"))
    assert (made["name"], made["sequence"]) == ("after", 2)
    assert succeed("get", path, 1, "--at", "before it") == "10\n"

    told = succeed("checkpoint", path, "--list").splitlines()
    assert [line.split("\t")[0] for line in told] == ["before it", "after"]
    assert json.loads(succeed("checkpoint", path, "--list", "--json"))[1] == made
    assert "before it" in on_terminal("checkpoint", path, "--list")

    assert "before it is dropped" in succeed("checkpoint", path, "--drop", "before it")
    told_by_info = json.loads(succeed("info", path, "--json"))["checkpoints"]
    assert [each["name"] for each in told_by_info] == ["after"]
    assert "named 'before it'" in fail(3, "get", path, 1, "--at", "before it")


def test_what_dropping_gave_back(path: Path) -> None:
    succeed("checkpoint", path, "then")
    succeed("put", path, 1, 11)
    succeed("compact", path)
    with cesium.open(path, flag="r") as store:
        (then,) = store.checkpoints()
    assert then.own_bytes > 0
    dropped = json.loads(succeed("checkpoint", path, "--drop", "then", "--json"))
    assert dropped == {"name": "then", "freed_bytes": then.own_bytes}


def test_wrong_input(path: Path, tmp_path: Path) -> None:
    succeed("checkpoint", path, "one")
    assert "named 'one' already" in fail(1, "checkpoint", path, "one")
    assert "named 'two'" in fail(3, "checkpoint", path, "--drop", "two")
    assert "control characters" in fail(1, "checkpoint", path, "a\nb")
    assert "1 to 255 bytes" in fail(1, "checkpoint", path, "")
    for arguments in ([], ["one", "--list"], ["one", "--drop", "one"], ["--list", "--drop", "one"]):
        assert "is expected" in fail(2, "checkpoint", path, *arguments)
    for arguments in (["x"], ["--list"], ["--drop", "x"]):
        assert "no store at" in fail(1, "checkpoint", tmp_path / "none", *arguments)
    assert not (tmp_path / "none").exists()
    there = json.loads(succeed("checkpoint", path, "--list", "--json"))
    assert [each["name"] for each in there] == ["one"]


def test_beside_a_writer(path: Path) -> None:
    def elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "checkpoint", str(path), *arguments],
            capture_output=True, text=True, env=ENVIRONMENT, check=False,
        )  # fmt: skip

    with cesium.open(path) as store:
        store.checkpoint("there")
        for arguments in (["x"], ["--drop", "there"]):
            refused = elsewhere(*arguments)
            assert refused.returncode == 1 and "is open for writing in process" in refused.stderr
        assert elsewhere("--list").stdout.startswith("there\t")
        assert [each.name for each in store.checkpoints()] == ["there"]
