"""Backups that are cut off: by a power cut at any event, a failure of any call, SIGKILL.

Whatever a crash leaves of the destination is a backup that a call returned for, or the one in the
making, or it does not open.  And the next backup makes it whole.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

import cesium
from cesium import backup as backups
from cesium.backup import Moment
from cesium.directory import BACKUP_MARK
from cesium.files import Files, MemoryFiles
from cesium.opening import acquire
from cesium.verify import verify_directory
from crash.check import put_into
from crash.disk import Digests, Disk
from crash.images import choices
from crash.recording_files import Content, Mark, RecordingFiles
from failing_files import FailingFiles
from failure_session import QuickFiles, is_named, resources, settled

pytestmark = pytest.mark.crash

Rows = dict[int, bytes]


def opened(files: Files, flag: str = "c") -> cesium.Store:
    options = cesium.Options(
        key="u8", value="bytes", flag=flag, background=False, blob_threshold=300
    )
    return cesium.Store(acquire("image", options, 8, files), options)


class LinkingFiles(RecordingFiles):
    has_links = True


@dataclass(frozen=True)
class Returned:
    """A backup returned: from here on it, or a later one, is there."""

    number: int


def changes(store: cesium.Store, number: int) -> None:
    store.put_many(range(number, number + 20), [bytes([number]) * 40] * 20)
    store[100 + number] = bytes([number]) * 700  # in a blob file
    if number == 2:
        store.delete_range(3, 9)
    if number == 3:
        store.bulk_load(range(200, 230), [b"loaded"] * 30)
    if number == 4:
        store.compact()


def moments() -> list[tuple[Moment, Rows]]:
    """The store of one run, as backups find it: closed off by a checkpoint, or with a journal."""
    store = opened(MemoryFiles())
    found = []
    for number, journaled in enumerate([False, True, True, False, False, True, False]):
        changes(store, number)
        rows = dict(store.items())
        moment = (
            backups._moment_of_files(store._engine.files)
            if journaled
            else backups._moment_of_engine(store._engine)
        )
        assert bool(moment.journals) == journaled
        # As it is now: later ones remove files.
        content = {name: store._engine.files.read_all(name) for name in store._engine.files.list()}
        files = put_into(MemoryFiles(), content)
        found.append((backups.replace(moment, files=files, pins=[]), rows))
    store.close()
    return found


@pytest.fixture(scope="module")
def taken() -> list[tuple[Moment, Rows]]:
    return moments()


def found_in(content: Content) -> Rows | None:
    """The rows that an image holds; None when it does not open, as it must not."""
    if not content:
        return None
    for flag in ("r", "c"):
        try:
            with opened(put_into(MemoryFiles(), content), flag) as store:
                assert store.verify().ok
                rows = dict(store.items())
        except (cesium.CorruptionError, FileExistsError, FileNotFoundError):
            rows = None
    return rows


@pytest.mark.parametrize("kind", [RecordingFiles, LinkingFiles], ids=["copies", "links"])
def test_a_power_cut_at_every_event(taken: list[tuple[Moment, Rows]], kind: Any) -> None:
    target = kind()
    for number, (moment, _) in enumerate(taken):
        backups._write(moment, target, True, True, False, "backing up")
        target.mark(Returned(number))
    disk, digests = Disk(), Digests()
    known: dict[bytes, Rows | None] = {}
    seen: Counter[str] = Counter()
    last = -1
    for number, event in enumerate(target.events):
        if isinstance(event, Mark) and isinstance(event.note, Returned):
            last = event.note.number
        if not disk.apply(event) and not isinstance(event, Mark):
            continue
        lawful = [rows for _, rows in taken[max(last, 0) : last + 2]]
        for choice, content in choices(disk, f"event {number}", 2):
            digest = digests.of(content)
            if digest not in known:
                known[digest] = found_in(content)
            rows = known[digest]
            where = f"after backup {last}, event {number} {event!s:.80}, {choice}"
            if rows is None:
                seen["refused"] += 1
                assert last + 1 < len(taken), f"{where}: a backup that returned is gone"
                journals = bool(taken[max(last, 0)][0].journals or taken[last + 1][0].journals)
                assert last < 0 or journals, f"{where}: the one before is gone"
            else:
                assert rows in lawful, f"{where}: {rows}"
                seen["old" if last >= 0 and rows == lawful[0] else "new"] += 1
            if rows is None and digest[0] % 4 == 0:
                _complete(content, taken[last + 1])
                seen["completed"] += 1
    assert min(seen[what] for what in ("refused", "old", "new", "completed")) > 10, seen


def _complete(content: Content, wanted: tuple[Moment, Rows]) -> None:
    """The next backup makes of what was left a whole one."""
    files = put_into(MemoryFiles(), content)
    backups._write(wanted[0], files, True, True, False, "backing up")
    with opened(files, "w") as store:
        assert dict(store.items()) == wanted[1] and store.verify().ok
    assert BACKUP_MARK not in files.list() and not [n for n in files.list() if n.endswith(".new")]


# --- calls that fail ---------------------------------------------------------


class QuickFailing(FailingFiles):
    def _sync_path(self, path: str) -> None: ...

    def sync_data(self, fd: int, path: str | None = None) -> None:
        self._called("sync", path, fd)

    def sync_file(self, fd: int, path: str) -> None:
        self._called("sync_file", path)


class Interrupting(QuickFailing):
    """Ctrl-C, where the others have a failure."""

    def _raise(self, kind: str, path: str | None) -> NoReturn:
        raise KeyboardInterrupt


@pytest.mark.parametrize("failing_files", [QuickFailing, Interrupting], ids=["fails", "ctrl-c"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "copies"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_every_call_fails(tmp_path: Path, side: str, links: bool, failing_files: Any) -> None:
    path, other = tmp_path / "s", tmp_path / "b"
    with opened_at(path) as store:
        changes(store, 0)
        store.checkpoint()
        changes(store, 1)
        before = dict(store.items())
        base = backups.backup_directory(path, QuickFiles(tmp_path / "base"), True, links)
        assert base.files > 3
        changes(store, 2)
        after = dict(store.items())
        state = resources(tmp_path)
        calls = 0
        for nth in _upward():
            _copy(tmp_path / "base", other)
            source = failing_files(path) if side == "source" else QuickFiles(path)
            target = failing_files(other) if side == "target" else QuickFiles(other)
            failing = source if side == "source" else target
            assert isinstance(failing, FailingFiles)
            failing.fail(None, nth, forever=nth % 3 == 0 and failing_files is QuickFailing)
            try:
                backups.backup_directory(source, target, True, links)
            except OSError as error:
                assert failing.failed and is_named(error, str(tmp_path)), repr(error)
            except KeyboardInterrupt:
                assert failing_files is Interrupting
            except cesium.CorruptionError:
                # Between the old manifest and the new one: it does not open, and says so.
                assert failing.failed and not list(other.glob("manifest-??????"))
            calls = failing.total
            if not failing.failed:
                break
            left = _rows_at(other)
            assert left in (None, before, after), f"call {nth}: {failing.failures}"
            failing.heal()
            backups.backup_directory(source, target, True, links)
            assert _rows_at(other) == after and verify_directory(other).ok
            gc.collect()
            assert settled(tmp_path, state) == state, f"call {nth}: {failing.failures}"
        assert calls > 15


def opened_at(path: Path) -> cesium.Store:
    options = cesium.Options(key="u8", value="bytes", background=False, blob_threshold=300)
    return cesium.Store(acquire(str(path), options, 8, QuickFiles(path)), options)


def _upward() -> Iterator[int]:
    nth = 0
    while True:
        nth += 1
        yield nth


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def _rows_at(path: Path) -> Rows | None:
    try:
        with cesium.open(path, flag="r") as store:
            return dict(store.items())
    except (cesium.CorruptionError, FileNotFoundError):
        return None


# --- a killed process --------------------------------------------------------


def work(path: str, dest: str) -> None:
    """The child: batches, each of one value, and a backup after each few; says what is done."""
    store = cesium.open(path, key="u8", value="u8", durability="process")
    store.core.memtable_limit_bytes = 40_000
    keys = np.arange(500, dtype="u8")
    first = int(next(iter(store.values()), 0))
    print("ready", flush=True)
    for number in range(first + 1, first + 2000):
        store.put_many(keys, np.full(500, number, "u8"))
        if number % 3 == 0:
            way: Callable[..., Any] = backups.backup if number % 2 else backups.backup_directory
            way(store._engine if number % 2 else path, dest, True, number % 4 < 2)
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
    sys.stdin.read()


def test_sigkill(tmp_path: Path) -> None:
    rng = random.Random("backups")
    acknowledged = 0
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "s"), str(tmp_path / "b")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert child.stdout is not None and child.stdin is not None
        try:
            assert child.stdout.readline() == "ready\n"
            for _ in range(rng.randrange(1, 12)):
                acknowledged = int(child.stdout.readline())
        finally:
            child.kill()
            lines = child.stdout.read().split("\n")
            child.wait()
            child.stdin.close()
            child.stdout.close()
        acknowledged = max([acknowledged, *(int(line) for line in lines[:-1])])
        try:
            with cesium.open(tmp_path / "b", flag="r") as copy:
                (value,) = set(copy.values())
                assert len(copy) == 500 and value >= acknowledged
        except cesium.CorruptionError:  # between two with journals
            assert not list((tmp_path / "b").glob("manifest-??????"))
        with cesium.open(tmp_path / "s") as store:
            assert set(store.values()).pop() >= acknowledged
            store.backup(tmp_path / "b")
            assert verify_directory(tmp_path / "b").ok
            with cesium.open(tmp_path / "b", flag="r") as copy:
                assert dict(copy.items()) == dict(store.items())


if __name__ == "__main__":
    work(*sys.argv[1:])
