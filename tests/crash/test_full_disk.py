"""A drive that fills up, step by step: on real small file systems, and with a budget of bytes.

The real ones (tmpfs, ext4 on a loop device) need the right to mount; without it those tests skip
and say so, and the budget stands for them.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import cesium
from cesium.files import Files
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store
from failing_files import BudgetFiles

pytestmark = pytest.mark.crash

DRIVE_BYTES = 12 << 20
BALLAST_BYTES = 4 << 20  # an outside file that can be deleted
VALUE = bytes(range(256)) * 48  # 12 KiB


@dataclass
class Drive:
    """Where a store may be, on which files, and how to make room."""

    path: Path
    files: Callable[[], Files | None]
    make_room: Callable[[], None]

    def open(self, **more: object) -> Store:
        # No threads: what is refused, and when, is counted here to the row.
        more = {"memory_limit": "2MiB", "durability": "process", "background": False, **more}
        options = Options("u8", "bytes", **more)  # type: ignore[arg-type]
        return Store(acquire(self.path, options, 0, self.files()), options)


def mounted(directory: Path, kind: str) -> Iterator[Drive]:
    image = directory / "image"
    place = directory / "mounted"
    place.mkdir()
    if kind == "tmpfs":
        commands = [["mount", "-t", "tmpfs", "-o", f"size={DRIVE_BYTES}", "tmpfs", str(place)]]
    else:
        image.write_bytes(b"")
        with image.open("r+b") as file:
            file.truncate(DRIVE_BYTES + (4 << 20))  # ext4's own journal and tables
        commands = [
            ["mkfs.ext4", "-q", "-m", "0", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ]
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"{command[0]} is not there: {error}")
        if done.returncode:
            pytest.skip(f"{' '.join(command[:2])} is refused here: {done.stderr.strip()}")
    try:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(BALLAST_BYTES))
        yield Drive(place / "store", lambda: None, ballast.unlink)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(params=["budget", "tmpfs", "ext4"])
def drive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Drive]:
    if request.param != "budget":
        yield from mounted(tmp_path, request.param)
        return
    files = BudgetFiles(tmp_path / "store", DRIVE_BYTES - BALLAST_BYTES)

    def make_room() -> None:
        files.budget_bytes = DRIVE_BYTES

    yield Drive(tmp_path / "store", lambda: files, make_room)


def fill(store: Store, first: int = 0) -> int:
    """Puts rows until there is no room; returns the first key that was refused."""
    key = first
    while True:
        before = store.sequence
        try:
            assert store.put(key, VALUE) == before + 1
        except cesium.StorageFullError as error:
            assert store.sequence == before and key not in store, "a refused write was kept"
            assert error.filename is not None
            return key
        key += 1


def check(store: Store, rows: int) -> None:
    assert len(store) == rows
    assert list(store.keys()) == list(range(rows))
    assert store.get(rows // 2) == VALUE and store.get(rows) is None
    values, found = store.get_many(range(0, rows, 7))
    assert found.all() and all(value == VALUE for value in values)


def test_a_full_drive_refuses_writes_until_there_is_room(drive: Drive) -> None:
    store = drive.open()
    rows = fill(store)
    assert rows > 200
    check(store, rows)
    for _ in range(3):
        assert fill(store, rows) == rows  # refused again, and nothing grows by it
    with pytest.raises(cesium.StorageFullError):
        store.bulk_load(np.arange(10_000, 11_000), [VALUE] * 1000)
    check(store, rows)
    store.sync()
    assert store.durable_sequence == store.sequence
    drive.make_room()
    for key in range(rows, rows + 80):
        store[key] = VALUE
    store.checkpoint()
    check(store, rows + 80)
    store.close()
    with drive.open(flag="w") as store:
        check(store, rows + 80)
        assert store.verify().ok


def test_a_store_closes_and_opens_on_a_full_drive(drive: Drive) -> None:
    store = drive.open()
    rows = fill(store)
    with contextlib.suppress(cesium.StorageFullError):
        store.close()  # its checkpoint may find no room; the journal has all of it
    with drive.open(flag="r") as store:
        check(store, rows)
    store = drive.open(flag="w")
    check(store, rows)
    more = fill(store, rows)
    drive.make_room()
    for key in range(more, more + 80):
        store[key] = VALUE
    store.close()
    with drive.open(flag="w") as store:
        check(store, more + 80)
        assert store.verify().ok


def test_deleting_makes_room_on_a_full_drive(drive: Drive) -> None:
    """With a little room for the new segments, rows can be deleted and their space given back."""
    store = drive.open()
    rows = fill(store)
    drive.make_room()
    store.delete_range(0, rows - 20)
    store.compact()
    assert store.stats().maintenance_failure is None
    assert list(store.keys()) == list(range(rows - 20, rows))
    assert fill(store, rows) > rows + 200
    with contextlib.suppress(cesium.StorageFullError):
        store.close()


def test_what_the_user_raised_is_what_a_with_block_raises(tmp_path: Path) -> None:
    """A drive that fails when the store closes does not hide it."""
    path = tmp_path / "store"
    files = BudgetFiles(path, 8 << 20)
    options = Options("u8", "bytes")
    with pytest.raises(KeyError) as caught:
        with Store(acquire(path, options, 0, files), options) as store:
            store[1] = VALUE
            files.budget_bytes = 0
            store[2]
    (note,) = caught.value.__notes__
    assert "closing the store failed as well: StorageFullError" in note
    with cesium.open(path) as store:
        assert store[1] == VALUE
