"""Opening: what it does with journals that a process left behind, and making a store anew."""

from __future__ import annotations

import os
import shutil
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import cesium
from cesium import loader, merging
from cesium._kernels import crc32c
from cesium.files import Files
from cesium.opening import acquire
from cesium.options import Options
from cesium.store import Store
from failing_files import FailingFiles

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


# -- a store of many segments

SEGMENT_ROWS = 17_000  # a little more than what the smallest segments hold


def many_segments(path: Path, monkeypatch: pytest.MonkeyPatch, segments: int) -> int:
    """Makes a store, cleanly closed, of at least so many segments in its last tier; the rows."""
    monkeypatch.setattr(loader, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(merging, "SMALL_BYTES", 0)  # or closing joins them
    keys = np.arange(segments * SEGMENT_ROWS, dtype=np.uint64)
    with Store(acquire(path, OPTIONS, files=Files(path)), OPTIONS) as store:
        store.bulk_load(keys, keys.astype(np.float64))
        store.checkpoint()
        assert segments <= store.stats().segments <= 2 * segments
    return len(keys)


OPTIONS = Options("u8", "f8")


def calls_of_opening(path: Path, flag: str) -> tuple[Counter[str], int]:
    """The calls of the door that opening makes, by kind, and how many segments there are."""
    files = FailingFiles(path)
    options = Options(flag=flag)
    with Store(acquire(path, options, files=files), options) as store:
        return Counter(files.calls), store.stats().segments


def test_opening_touches_no_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred segments no more calls than of a few; a reader keeps each, and reads none."""
    counts = {}
    for segments in (2, 40):
        path = tmp_path / str(segments)
        many_segments(path, monkeypatch, segments)
        counts[segments], _ = calls_of_opening(path, "w")
        reading, there = calls_of_opening(path, "r")
        assert reading["map"] == there and reading["size"] <= 2
        assert reading["open"] - there == reading["read"] <= 1
    assert counts[2] == counts[40]
    assert counts[40]["open"] <= 2 and counts[40]["list"] == 1 and not counts[40]["map"]


def test_a_reader_reads_what_was_merged_away_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also segments that it has not touched before."""
    rows = many_segments(tmp_path, monkeypatch, 5)
    with Store(acquire(tmp_path, Options(flag="r"), files=Files(tmp_path)), Options()) as reader:
        names = [segment.name for segment in reader.core.version.segments()]
        with Store(acquire(tmp_path, OPTIONS, files=Files(tmp_path)), OPTIONS) as store:
            store.clear()
            store.compact()
        assert not any((tmp_path / name).exists() for name in names)
        assert len(reader.range().arrays()[0]) == rows


def test_segments_hold_no_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of 100 GB has more segments than a process has descriptors by default."""
    rows = many_segments(tmp_path, monkeypatch, 40)
    for flag in ("w", "r"):
        before = len(os.listdir("/proc/self/fd"))
        with Store(acquire(tmp_path, Options(flag=flag), files=Files(tmp_path)), OPTIONS) as store:
            assert len(store.range().arrays()[0]) == rows
            with open("/proc/self/maps", "rb") as maps:
                assert maps.read().count(os.fsencode(tmp_path) + b"/segment-") >= 40
            assert len(os.listdir("/proc/self/fd")) <= before + 1  # the lock


def test_a_checkpoint_writes_to_the_manifest_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = {}
    for segments in (2, 40):
        path = tmp_path / str(segments)
        many_segments(path, monkeypatch, segments)
        with Store(acquire(path, OPTIONS, files=Files(path)), OPTIONS) as store:
            manifest = Path(store._engine.manifest.path)
            size = manifest.stat().st_size
            assert size > 200 * segments
            store[5] = 1.0
            store.checkpoint()
            assert store._engine.manifest.path == str(manifest)
            grown[segments] = manifest.stat().st_size - size
    assert abs(grown[2] - grown[40]) < 64 and grown[40] < 1000


def test_what_is_given_beside_options_counts_more(tmp_path: Path) -> None:
    options = Options("u8", "f8", durability="none", background=False)
    fields = [("price", "f8")]
    with cesium.open(tmp_path / "s", "i8", fields, durability="process", options=options) as store:
        assert (store.key, store.value) == ("i8", [["price", "f8"]])
        store[-1] = (2.5,)
        used = store.options
        assert (used.durability, used.background) == ("process", False)
    with cesium.open(tmp_path / "s", flag="r", options=Options(memory_limit="64MiB")) as store:
        assert store.options.memory_limit == "64MiB"
        with pytest.raises(cesium.ReadOnlyError):
            store[1] = (1.0,)
    with pytest.raises(ValueError, match="durability is one of"):
        cesium.open(tmp_path / "s", durability="soon", options=Options())


def test_what_cannot_become_a_store_leaves_an_empty_directory_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no store at"):
        cesium.open(tmp_path, flag="w")
    with pytest.raises(cesium.SchemaError, match="needs a key type"):
        cesium.open(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_locked_directory_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """A file LOCK is no sign of a store: others call theirs so too."""
    (tmp_path / "LOCK").write_bytes(b"theirs")
    (tmp_path / "MANIFEST-000001").write_bytes(b"theirs")
    with pytest.raises(FileExistsError, match="MANIFEST-000001"):
        cesium.open(tmp_path, "u8", "f8")
    assert (tmp_path / "LOCK").read_bytes() == b"theirs"
    assert sorted(os.listdir(tmp_path)) == ["LOCK", "MANIFEST-000001"]
