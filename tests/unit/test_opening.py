"""Opening: what it does with journals that a process left behind, and making a store anew."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

import cesium
from cesium._kernels import crc32c
from cesium.files import Files

FRAME = 4096  # where the first frame of a journal file begins


def abandoned(tmp_path: Path) -> Path:
    """A store as a killed process leaves it: one commit in the journal, nothing in segments."""
    left = tmp_path / "left"
    with cesium.open(tmp_path / "living", "u8", "f8", durability="process") as store:
        store[1] = 1.5
        shutil.copytree(tmp_path / "living", left)
    return left


def change_frame(path: Path, offset: int, data: bytes) -> None:
    """Overwrites bytes of the first frame and makes its checksum right again."""
    journal = path / "journal-000001"
    content = bytearray(journal.read_bytes())
    content[FRAME + offset : FRAME + offset + len(data)] = data
    (length,) = struct.unpack_from("<I", content, FRAME + 4)
    (header_checksum,) = struct.unpack_from("<I", content, 8)
    checksum = crc32c(bytes(content[FRAME + 4 : FRAME + length]), FRAME ^ header_checksum)
    struct.pack_into("<I", content, FRAME, checksum)
    journal.write_bytes(content)


def test_commits_of_a_killed_process_are_there(tmp_path: Path) -> None:
    path = abandoned(tmp_path)
    change_frame(path, 0, b"")  # a frame with its checksum made again is as good
    with cesium.open(path) as store:
        assert list(store.items()) == [(1, 1.5)]


@pytest.mark.parametrize(
    ("offset", "data", "said"),
    [(8, b"\x07", "type 7"), (10, b"\x02", "codec 2"), (12, b"\x03\0\0\0", "key 3")],
    ids=["type", "codec", "key"],
)
def test_frames_of_a_later_version_are_refused(
    tmp_path: Path, offset: int, data: bytes, said: str
) -> None:
    path = abandoned(tmp_path)
    change_frame(path, offset, data)
    with pytest.raises(cesium.Error, match=said):
        cesium.open(path)


@pytest.mark.parametrize("length", [2**64 - 1, 1000, 49])
def test_an_attach_frame_longer_than_it_is_is_corruption(tmp_path: Path, length: int) -> None:
    path = abandoned(tmp_path)
    change_frame(path, 8, b"\x02")  # 48 bytes of operation, now taken for a length and JSON
    change_frame(path, 56, struct.pack("<Q", length))
    with pytest.raises(cesium.CorruptionError, match="cut off"):
        cesium.open(path)


def test_sync_right_after_opening_makes_replayed_commits_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = abandoned(tmp_path)
    synced: list[str] = []
    sync_data = Files.sync_data

    def note(files: Files, fd: int, name: str) -> None:
        synced.append(Path(name).name)
        sync_data(files, fd, name)

    monkeypatch.setattr(Files, "sync_data", note)
    with cesium.open(path) as store:
        assert store.durable_sequence == 0 and store.sequence == 1
        assert synced == ["manifest-000001"]
        store.sync()
        assert synced == ["manifest-000001", "journal-000001"]
        assert store.durable_sequence == 1
        store.sync()
        assert len(synced) == 2


def test_a_drive_with_little_room_gets_smaller_journal_files_not_the_smallest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file for every few commits would run out of descriptors long before the drive is full."""
    create = Files.create

    def create_small(files: Files, name: str, allocate_bytes: int = 0) -> int:
        if allocate_bytes > 300_000:
            raise cesium.StorageFullError(28, "No space left on device", name)
        return create(files, name, allocate_bytes)

    monkeypatch.setattr(Files, "create", create_small)
    with cesium.open(tmp_path / "store", "u8", "f8", durability="process") as store:
        for key in range(40_000):
            store[key] = 1.0
        files = store.stats().journal_files
        assert 40_000 * 32 // 300_000 < files <= 10


class Stop(Exception):
    """The process ends here."""


def test_a_store_made_anew_opens_wherever_that_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each removal and each publishing, the old store or the new is there."""
    origin = tmp_path / "origin"
    with cesium.open(tmp_path / "living", "u8", "f8") as store:
        store.bulk_load([1, 2], [1.0, 2.0])
        store.checkpoint()
        store.bulk_load([5, 6], [1.0, 2.0])
        store[9] = 9.0
        shutil.copytree(tmp_path / "living", origin)
    unlink, publish = Files.unlink, Files.publish
    steps = left = 0

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop

    def counted_unlink(files: Files, name: str) -> None:
        step()
        unlink(files, name)

    def counted_publish(files: Files, name: str) -> None:
        step()
        publish(files, name)

    seen = set()
    while True:
        path = tmp_path / f"try-{steps}"
        shutil.copytree(origin, path)
        left = steps
        with monkeypatch.context() as patch:
            patch.setattr(Files, "unlink", counted_unlink)
            patch.setattr(Files, "publish", counted_publish)
            try:
                cesium.open(path, "str", "bytes", flag="n").close()
                break
            except Stop:
                pass
        with cesium.open(path) as store:
            key = store.options.key
            rows = list(store.keys())
            assert rows in ([[1, 2], [1, 2, 5, 6, 9]] if key == "u8" else [[]])
            store["new" if key == "str" else 100] = b"" if key == "str" else 1.0
            assert store.verify().ok
        seen.add(key)
        steps += 1
    assert seen == {"u8", "str"} and steps >= 4
