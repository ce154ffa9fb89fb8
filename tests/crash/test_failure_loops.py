"""Every call to the file system fails once, and from then on, in every workload.

The number of failure points is that of the workload's calls, whatever they are, counted in a run
without failures.  `CESIUM_FAILURES=long` (make failures-long) tries all of them in every way; the
short form tries every single failure and a sample of the others.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cesium import checkpoint, loader, maintenance
from cesium.journal import Journal
from failing_files import Call, FailingFiles
from failure_session import Model, Session, resources, settled
from failure_workloads import JOURNAL_BYTES, WORKLOADS, Workload

pytestmark = pytest.mark.crash

LONG = os.environ.get("CESIUM_FAILURES") == "long"
# What a full drive refuses; the others know no ENOSPC.
TAKES_SPACE = {
    "create", "allocate", "write", "sync", "sync_file", "rename", "sync_directory", "populate",
    "lock", "make_directory", "unlink",
}  # fmt: skip


class LeakError(AssertionError):
    """(descriptors, threads, mappings) before and after, and what failed."""

    __notes__ = ()


class QuickFailingFiles(FailingFiles):
    """Counted and failing, but not synced."""

    def _sync_path(self, path: str) -> None: ...

    def sync_data(self, fd: int, path: str | None = None) -> None:
        self._called("sync", path, fd)

    def sync_file(self, fd: int, path: str) -> None:
        self._called("sync_file", path)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """In memory where there is such a place: thousands of stores are made here."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path)


class Loop:
    """One workload, run again and again."""

    def __init__(self, workload: Workload, directory: Path) -> None:
        self.workload = workload
        self.directory = directory
        self.base = directory / "base"
        self.model: Model = {}
        self.states: dict[int, Model] = {}
        self.runs = 0
        gc.collect()  # what other tests left: it must not go in the midst of a run
        self.resources = resources(directory)
        self.poisoned: Counter[str] = Counter()
        files = FailingFiles(self.base)
        session = Session(self.base, files, {}, workload.options, False)
        workload.base(session)
        if session.store is not None:
            if workload.killed:
                shutil.copytree(self.base, directory / "killed")
                session.store.close()
                shutil.rmtree(self.base)
                (directory / "killed").rename(self.base)
            else:
                session.store.close()
            self.model, self.states = session.model, session.states

    def run(self, nth: int, kind: str | None, error_number: int, forever: bool) -> FailingFiles:
        """One run in which the Nth call (of a kind, or of any) fails; nth 0: none does."""
        path = self.directory / "store"
        for left in (path, path.with_name("copy")):
            shutil.rmtree(left, ignore_errors=True)
        if self.base.exists():
            shutil.copytree(self.base, path)
        before = self.resources
        self.runs += 1
        files = QuickFailingFiles(path)
        session = Session(path, files, self.model, self.workload.options, forever)
        if self.states:
            session.states = dict(self.states)
            session.acknowledged = max(self.states)
        if nth:
            files.fail(kind, nth, error_number, forever=forever)
        else:
            files.log = []
        try:
            self.workload.steps(session)
            session.finish()
        except BaseException as error:
            error.add_note(
                f"{self.workload.name}: call {nth} of {kind or 'any kind'} failed with "
                f"{errno.errorcode[error_number]}, {'forever' if forever else 'once'}: "
                f"{files.failures[:3]}"
            )
            raise
        if session.was_poisoned:
            self.poisoned[files.failures[0].kind] += 1
        files_done = QuickFailingFiles(path)
        files_done.log, files_done.failures = files.log, files.failures
        del session, files
        after = settled(self.directory, before)
        self.resources = after
        if after != before:
            raise LeakError(before, after, nth, kind, forever, files_done.failures[:3])
        return files_done


@pytest.fixture
def loop(workload: Workload, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    monkeypatch.setitem(Journal.__init__.__kwdefaults__, "first_file_bytes", JOURNAL_BYTES)
    for module in (checkpoint, loader, maintenance):
        monkeypatch.setattr(module, "SEGMENT_BYTES", workload.segment_bytes)
    monkeypatch.setattr(loader, "PART_ROWS_LEAST", workload.part_rows)
    monkeypatch.setattr(loader, "run_rows", lambda engine, keys: workload.run_rows)
    own = directory / workload.name.replace(" ", "-").replace(",", "")
    own.mkdir()
    yield Loop(workload, own)
    shutil.rmtree(own)


@pytest.mark.parametrize("workload", WORKLOADS, ids=[w.name.replace(" ", "-") for w in WORKLOADS])
def test_every_call_fails(loop: Loop, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.perf_counter()
    log = loop.run(0, None, errno.EIO, False).log
    assert log
    wrong: list[BaseException] = []
    for nth, kind, error_number, forever in points(log):
        try:
            loop.run(nth, kind, error_number, forever)
        except Exception as error:
            wrong.append(error.with_traceback(None) if wrong else error)
            gc.collect()
    with capsys.disabled():
        seconds = time.perf_counter() - started
        print(f"\n{loop.workload.name}: {len(log)} calls, {loop.runs} failures tried in "
              f"{seconds:.1f} s, poisoned by {dict(loop.poisoned)}", end=" ")  # fmt: skip
    if wrong:
        told = "\n".join(f"{error!r:.300} {error.__notes__}" for error in wrong[:30])
        raise AssertionError(f"{len(wrong)} of {loop.runs} went wrong:\n{told}") from wrong[0]


def points(log: list[Call]) -> Iterator[tuple[int, str | None, int, bool]]:
    """(nth, kind, errno, forever) of the failures to try."""
    kinds = [call.kind for call in log]
    for nth, kind in enumerate(kinds, 1):
        for error_number in (errno.EIO, errno.ENOSPC):
            if error_number == errno.EIO or kind in TAKES_SPACE:
                yield nth, None, error_number, False
    for kind, count in sorted(Counter(kinds).items()):
        for nth in range(1, count + 1):
            if LONG or nth <= 2 or nth % 13 == 0 or nth == count:
                yield nth, kind, errno.EIO, True
                if kind in TAKES_SPACE:
                    yield nth, kind, errno.ENOSPC, True
    for nth in range(1, len(kinds) + 1):
        if LONG or nth % 17 == 1:
            yield nth, None, errno.EIO, True
            yield nth, None, errno.ENOSPC, True
