"""The crash tests can fail: each fault put into the engine, or into the drive, is found.

What is broken here is what the promises rest on: syncs that do nothing, names that are not made
durable, files removed before what replaces them is known, claims made too early, a recovery that
goes on without syncing what it replayed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from cesium import checkpoint, maintenance, merging
from cesium.engine import StoreEngine
from cesium.journal import Journal
from crash.explore import CrashFound, Explorer
from crash.history import Era, Found, History, Wrong
from crash.recording_files import RecordingFiles
from crash.workloads import WORKLOADS

pytestmark = pytest.mark.crash


def found(name: str, files: Any = RecordingFiles) -> CrashFound:
    """What the harness finds in a workload, of any of three seeds."""
    for seed in range(3):
        try:
            Explorer(effort=4, nested=0).workload(name, seed, files)
        except CrashFound as error:
            assert f"workload {name}, seed {seed}, event" in str(error)
            return error
    raise AssertionError("the harness found nothing")


class Lying(RecordingFiles):
    """A drive that says yes to a sync and does nothing, for files whose names begin so."""

    prefixes: tuple[str, ...] = ("",)

    def _lies(self, fd: int) -> bool:
        name = os.readlink(f"/proc/self/fd/{fd}").removeprefix("/memfd:")
        return name.startswith(self.prefixes)

    def sync_data(self, fd: int, path: str | None = None) -> None:
        if not self._lies(fd):
            super().sync_data(fd, path)

    def sync_file(self, fd: int, path: str) -> None:
        if not self._lies(fd):
            super().sync_file(fd, path)


class LyingAboutJournals(Lying):
    prefixes = ("journal-",)


class LyingAboutManifests(Lying):
    prefixes = ("manifest-",)


class LyingAboutSegments(Lying):
    prefixes = ("segment-",)


class LyingAboutNames(RecordingFiles):
    """A directory that is never synced."""

    def sync_directory(self) -> None:
        pass


@pytest.mark.parametrize(
    "files, name",
    [
        (Lying, "puts"),
        (LyingAboutJournals, "puts"),
        (LyingAboutJournals, "levels"),
        (LyingAboutManifests, "checkpoints"),
        (LyingAboutSegments, "checkpoints"),
        (LyingAboutSegments, "loads"),
        (LyingAboutNames, "puts"),
        (LyingAboutNames, "loads"),
        (LyingAboutNames, "checkpoints"),
        (LyingAboutManifests, "names"),
    ],
)
def test_a_drive_that_does_not_sync(files: Any, name: str) -> None:
    found(name, files)


def test_a_journal_that_goes_before_the_manifest_knows() -> None:
    record = checkpoint.record_segments

    def wrong(engine: StoreEngine, known: set[int], sequence: int | None) -> None:
        if sequence is not None:
            engine.journal.detach_through(sequence, including_current=True)
            engine.journal.remove_detached()
            engine.core_engine.journal = engine.journal.writer
        record(engine, known, sequence)

    with mock.patch.object(checkpoint, "record_segments", wrong):
        found("puts")


def test_segments_that_go_before_the_manifest_knows() -> None:
    retire = merging.retire

    def wrong(engine: StoreEngine, readers: list[Any]) -> None:
        retire(engine, readers)
        for reader in readers:
            reader.doomed = True
        for reader in readers:
            engine.files.unlink(f"segment-{reader.record.id:010d}")

    with mock.patch.object(merging, "retire", wrong):
        found("merges")


@pytest.mark.parametrize("where", ["cesium.reclaim.named_records", "cesium.engine.named_records"])
def test_files_of_named_checkpoints_that_are_not_kept(where: str) -> None:
    """By a merge; by the removal of what nothing refers to, at opening."""
    with mock.patch(where, lambda state: []):
        assert "segment-" in str(found("names"))


def test_claims_that_come_too_early() -> None:
    def early(engine: StoreEngine) -> int:
        return engine.core_engine.sequence

    with mock.patch("cesium.store.durable_sequence", early):
        assert "durable" in str(found("levels"))


def test_what_was_replayed_is_not_synced() -> None:
    with mock.patch.object(Journal, "_sync_replayed", lambda journal: None):
        found("kills")


def test_a_checkpoint_that_does_nothing() -> None:
    with mock.patch.object(maintenance, "checkpoint_held", lambda engine: None):
        found("levels")


# --- what the history knows -----------------------------------------------------------------------


def history() -> History:
    """Three commits, the second a batch of two rows."""
    era = Era(b"u")
    era.states = [[], [(1, 1.0)], [(1, 1.0), (2, 2.0), (3, 2.0)], [(2, 2.0), (3, 2.0)]]
    result = History()
    result.eras.append(era)
    return result


def test_every_prefix_is_recognised() -> None:
    for sequence, rows in enumerate(history().eras[0].states):
        assert history().recognise(b"u", sequence, rows) == Found(0, sequence)


@pytest.mark.parametrize(
    "uuid, sequence, rows",
    [
        (b"u", 2, [(1, 1.0), (2, 2.0)]),  # half a batch
        (b"u", 1, [(1, 1.0), (2, 2.0), (3, 2.0)]),  # another prefix
        (b"u", 3, [(1, 1.0), (2, 2.0), (3, 2.0)]),  # a delete came back
        (b"u", 1, [(1, 2.0)]),  # another value
        (b"u", 4, [(2, 2.0), (3, 2.0)]),  # what never was
        (b"u", 1, [(1, 1.0), (1, 1.0)]),  # a key twice
        (b"v", 1, [(1, 1.0)]),  # another store
    ],
)
def test_what_never_was_is_wrong(uuid: bytes, sequence: int, rows: Any) -> None:
    with pytest.raises(Wrong):
        history().recognise(uuid, sequence, rows)


def test_every_workload_is_a_function_of_a_run() -> None:
    works: list[Callable[..., None]] = [work for work, _ in WORKLOADS.values()]
    assert all(work.__module__ == "crash.workloads" for work in works)
