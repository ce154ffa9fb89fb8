"""The recording files, and the disk worked out from them: what each call leaves, sync by sync."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cesium.errors import StorageFullError
from crash.disk import Disk
from crash.images import EVERYTHING, choices
from crash.recording_files import Content, RecordingFiles
from crash.run import Run, small_limits
from crash.workloads import WORKLOADS

pytestmark = pytest.mark.crash

A, B, C = b"a" * 512, b"b" * 512, b"c" * 512
ZERO = bytes(512)


def disk_of(files: RecordingFiles) -> Disk:
    disk = Disk()
    for event in files.events:
        disk.apply(event)
    return disk


def images_of(files: RecordingFiles, effort: int = 30) -> dict[str, Content]:
    return dict(choices(disk_of(files), "seed", effort))


def contents(files: RecordingFiles, name: str) -> set[bytes | None]:
    """All that a crash may leave of a file; None: nothing has that name."""
    return {image.get(name) for image in images_of(files).values()}


def made(files: RecordingFiles, name: str, data: bytes) -> int:
    """A durable file."""
    fd = files.create(name)
    files.write_all(fd, data, 0)
    files.sync_file(fd, name)
    files.sync_directory()
    return fd


def test_without_a_sync_all_or_nothing_or_any_part_is_left() -> None:
    files = RecordingFiles()
    fd = files.create("x")
    files.write_all(fd, A + B, 0)
    assert contents(files, "x") >= {None, b"", A + B, A + ZERO, ZERO + B, ZERO + ZERO, A}
    files.sync_file(fd, "x")
    assert contents(files, "x") == {None, A + B}, "the name is not durable yet"
    files.sync_directory()
    assert contents(files, "x") == {A + B}


def test_a_name_may_be_durable_and_its_data_not() -> None:
    files = RecordingFiles()
    fd = files.create("x")
    files.sync_directory()
    files.write_all(fd, A, 0)
    found = contents(files, "x")
    assert found >= {b"", A, ZERO}
    assert all(A.startswith(data) or ZERO.startswith(data) for data in found if data is not None)


def test_each_sector_is_old_or_new_and_never_older_than_durable() -> None:
    files = RecordingFiles()
    fd = made(files, "x", A + A)
    files.write_all(fd, B + B, 0)
    assert contents(files, "x") == {A + A, A + B, B + A, B + B}
    files.sync_data(fd)
    files.write_all(fd, C, 512)
    files.write_all(fd, A, 512)
    assert contents(files, "x") == {B + B, B + C, B + A}


def test_a_sync_covers_what_was_there_when_it_began() -> None:
    files = RecordingFiles()
    fd = made(files, "x", A + A)
    files.write_all(fd, B, 0)
    hold = files.hold("sync")
    thread = threading.Thread(target=files.sync_data, args=(fd,))
    thread.start()
    assert hold.reached.wait(60)
    files.write_all(fd, C, 512)
    assert A + A in contents(files, "x"), "nothing is sure before the sync is done"
    hold.release.set()
    thread.join()
    assert contents(files, "x") == {B + A, B + C}


def test_a_mapping_is_written_back_in_any_order() -> None:
    files = RecordingFiles()
    fd = files.create("x", 1536)
    files.sync_file(fd, "x")
    files.sync_directory()
    mapping = files.map_writable(fd, 1536)
    mapping[0:512] = A
    files.mark("between")
    mapping[512:1024] = B
    mapping[1024:1536] = C
    files.mark("after")
    found = contents(files, "x")
    assert {ZERO * 3, A + B + C, ZERO + B + C, A + ZERO + C, A + B + ZERO, ZERO * 2 + C} <= found
    files.sync_data(fd)
    assert contents(files, "x") == {A + B + C}
    mapping.close()


def test_names_are_lost_or_kept_each() -> None:
    files = RecordingFiles()
    made(files, "x", A)
    made(files, "y", B)
    files.unlink("x")
    files.rename("y", "z")
    found = {frozenset(image) for image in images_of(files).values()}
    assert found == {frozenset(names) for names in ("xy", "y", "xz", "z")}
    files.sync_directory()
    assert {frozenset(image) for image in images_of(files).values()} == {frozenset("z")}


def test_a_rename_needs_its_source() -> None:
    files = RecordingFiles()
    fd = files.create("x.new")
    files.write_all(fd, A, 0)
    files.sync_file(fd, "x")
    files.rename("x.new", "x")
    found = {frozenset(image) for image in images_of(files).values()}
    assert found == {frozenset(), frozenset({"x.new"}), frozenset({"x"})}


def test_a_replaced_file_is_the_old_or_the_new() -> None:
    files = RecordingFiles()
    made(files, "x", A)
    fd = files.create("x.new")
    files.write_all(fd, B, 0)
    files.sync_file(fd, "x")
    files.rename("x.new", "x")
    assert contents(files, "x") == {A, B}


def test_a_failed_sync_makes_nothing_durable() -> None:
    files = RecordingFiles()
    fd = made(files, "x", A)
    files.write_all(fd, B, 0)
    files.fail("sync", 1)
    with pytest.raises(OSError):
        files.sync_data(fd)
    assert contents(files, "x") == {A, B}


def test_a_write_that_is_cut_short_goes_on() -> None:
    files = RecordingFiles()
    fd = files.create("x")
    files.shorten(1, 300, 5)
    files.write_all(fd, A + B, 0)
    assert files.read_all("x") == A + B
    files.shorten(0)
    with pytest.raises(StorageFullError):
        files.write_all(fd, C, 0)


@pytest.mark.parametrize("name", WORKLOADS)
def test_everything_is_what_is_there(name: str) -> None:
    """The events tell the whole story: what they add up to is what the files hold."""
    work, options = WORKLOADS[name]
    with small_limits():
        run = Run(name, **options)
        work(run)
        run.finish()
    image = next(
        content for choice, content in choices(disk_of(run.files), "", 0) if choice == EVERYTHING
    )
    there: dict[str, Any] = {name: run.files.read_all(name) for name in run.files.list()}
    assert image == there
