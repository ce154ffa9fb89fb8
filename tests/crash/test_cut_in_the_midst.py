"""Files cut off between two instructions of a read: it ends, and is right or raises.

A page that is lost turns to zeros while it is being read, so that what was read of it before and
what is read of it afterwards do not fit together.  Here that happens at places that are known, and
then at any place: the reading process is stopped at a moment that only a seed knows.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cesium
from cut_stores import DAMAGE, DEEP, FORMS, PAGE, make, plain, readers_of, reads_of

pytestmark = pytest.mark.crash

ROUNDS = int(os.environ.get("CESIUM_CUT_ROUNDS", "60"))
HANGS = 300.0  # seconds: a test that has not ended by then goes round for ever
READER = Path(__file__).parent.parent / "cut_reader.py"


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """Compiled code that goes round for ever hears no signal: this ends the process instead."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def paths_of(store: Any) -> list[Path]:
    return [Path(store._engine.files.path(reader.name)) for reader in readers_of(store)]


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("reverse", [False, True])
def test_layers_lost_between_two_batches(
    tmp_path: Path, lost: tuple[int, ...], reverse: bool
) -> None:
    """A merge of sources that hold the same keys, stopped after every number of rows."""
    path = tmp_path / "layered"
    make(tmp_path, "layered").close()
    told = 0
    for rows in range(1, 40):
        with cesium.open(path, flag="r") as store:
            files = paths_of(store)
            whole = [file.read_bytes() for file in files]
            assert len(files) == 3
            everything = store.range(None, None, reverse=reverse)
            expected = [plain(two) for two in everything.batches(rows)][1:3]
            batches = everything.batches(rows)
            next(batches)
            for number in lost:
                os.truncate(files[number], 0)
            try:
                assert [plain(next(batches)), plain(next(batches))] == expected
            except DAMAGE:
                told += 1
        for file, content in zip(files, whole, strict=True):
            file.write_bytes(content)
    assert told


def test_a_deep_tree_of_fences_is_made(tmp_path: Path) -> None:
    with make(tmp_path, DEEP) as store:
        assert max(reader.footer()["fence_levels"] for reader in readers_of(store)) >= 3


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def said_by(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip() or f"ended with {process.wait()}"


@pytest.mark.parametrize("form", [*FORMS, DEEP])
def test_a_reader_stopped_at_any_moment(
    tmp_path: Path, form: str, processes: list[subprocess.Popen[str]]
) -> None:
    """`CESIUM_CUT_ROUNDS=2000 pytest ...` looks longer."""
    with make(tmp_path, form) as store:
        files = paths_of(store)
    whole = [file.read_bytes() for file in files]
    names = [name for name in reads_of(form) if not name.startswith(("get ", "in "))]
    chance = random.Random(form)
    imports = os.pathsep.join(filter(None, [str(READER.parent), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, READER, tmp_path / form, form, *files],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": imports},
    )  # fmt: skip
    processes.append(process)
    assert process.stdin is not None
    answers = []
    for _ in range(ROUNDS):
        process.stdin.write(f"{chance.choice(names)}\n")
        process.stdin.flush()
        assert said_by(process) == "ready"
        moment = time.perf_counter() + chance.random() * 0.003
        while time.perf_counter() < moment:
            pass
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        for file, content in zip(files, whole, strict=True):
            os.truncate(file, chance.choice([0, PAGE * chance.randrange(len(content) // PAGE)]))
        process.send_signal(signal.SIGCONT)
        answers.append(said_by(process))
        assert answers[-1] in ("told", "right")
        for file, content in zip(files, whole, strict=True):
            file.write_bytes(content)
    assert "told" in answers
