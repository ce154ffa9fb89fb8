"""Large values in blob files: where they go, how they come back, when their space does."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium._blobs import BlobReader
from cesium.directory import blob_name
from cesium.files import Files
from cesium.reclaim import mostly_dead, reclaimable
from cesium.repair import repair

LARGE = 500
OPTIONS: dict[str, Any] = {
    "key": "u8", "value": "bytes", "blob_threshold": LARGE, "durability": "process",
}  # fmt: skip


def names(path: Path, start: str = "blob-") -> list[str]:
    return sorted(name for name in os.listdir(path) if name.startswith(start))


def value_of(number: int, length: int = LARGE) -> bytes:
    return random.Random(number).randbytes(length)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    with cesium.open(tmp_path / "s", **OPTIONS) as made:
        yield made


def shares_of(store: Any) -> list[Any]:
    version = store.core.version
    return [share for reader in version.segments() for share in reader.record.blobs]


def test_large_values_leave_the_segment(store: Any, tmp_path: Path) -> None:
    values = [value_of(0, LARGE - 1), value_of(1, LARGE), value_of(2, 100_000), b"", value_of(3)]
    store.put_many(range(5), values)
    store.checkpoint()
    assert len(names(tmp_path / "s")) == 1
    (share,) = shares_of(store)
    assert (share.rows, share.live_bytes) == (3, 100_000 + 2 * LARGE)
    assert share.value_bytes == share.live_bytes
    assert share.file_bytes == os.path.getsize(tmp_path / "s" / blob_name(share.id))
    assert [store[key] for key in range(5)] == values
    assert list(store.range().arrays()[1]) == values
    assert list(store.get_many([4, 2, 9])[0]) == [values[4], values[2], b""]
    assert store.verify().ok


@pytest.mark.parametrize("key", ["u8", "str"])
def test_a_merge_moves_pointers(tmp_path: Path, key: str) -> None:
    keys: Any = range(60) if key == "u8" else [f"{number:03}" for number in range(60)]
    with cesium.open(tmp_path / "s", **{**OPTIONS, "key": key}) as store:
        for number in range(3):
            store.put_many(keys[number::3], [value_of(at) for at in range(number, 60, 3)])
            store.checkpoint()
        before = names(tmp_path / "s")
        assert len(before) == 3
        inode = os.stat(tmp_path / "s" / before[0]).st_ino
        store.compact()
        assert names(tmp_path / "s") == before
        assert os.stat(tmp_path / "s" / before[0]).st_ino == inode
        assert sorted(share.rows for share in shares_of(store)) == [20, 20, 20]
        assert list(store.values()) == [value_of(number) for number in range(60)]
        assert store.verify().ok
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert list(store.values()) == [value_of(number) for number in range(60)]


def test_a_load_goes_to_blob_files(store: Any, tmp_path: Path) -> None:
    values = [value_of(number) for number in range(40)]
    store.bulk_load(range(40), values)
    assert len(names(tmp_path / "s")) == 1
    assert list(store.values()) == values
    # Above what is there, so that it stays in the journal's attach frame for a while.
    store.bulk_load(range(10), values[:10][::-1])
    assert list(store.values()) == values[:10][::-1] + values[10:]


def test_a_load_of_several_runs_keeps_their_blob_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cesium.loader.run_rows", lambda engine, keys: 16)
    values = [value_of(number) for number in range(100)]
    options = {**OPTIONS, "memory_limit": "1MiB"}
    with cesium.open(tmp_path / "s", **options) as store:
        store.bulk_load(list(range(99, -1, -1)), values[::-1])
        assert len(names(tmp_path / "s")) > 1
        assert list(store.values()) == values
        assert store.verify().ok
    with cesium.open(tmp_path / "s", flag="r") as store:
        assert list(store.values()) == values


def test_an_attached_load_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr("cesium.loader.tidy", lambda engine: None)
    monkeypatch.setattr("cesium.opening.Background", lambda *arguments: None)  # that checkpoints
    with cesium.open(tmp_path / "s", **OPTIONS) as store:
        store.put(3, b"first")
        store.bulk_load(range(9), [value_of(number) for number in range(9)])
        shutil.copytree(tmp_path / "s", tmp_path / "killed")
    assert any(b'"segments_with_blobs"' in path.read_bytes() for path in
               (tmp_path / "killed").glob("journal-*"))  # fmt: skip
    with cesium.open(tmp_path / "killed") as store:
        assert list(store.values()) == [value_of(number) for number in range(9)]
        assert store.verify().ok


def test_space_comes_back(store: Any, tmp_path: Path) -> None:
    for number in range(4):
        store.put_many(range(number, 400, 4), [value_of(at, 4000) for at in range(number, 400, 4)])
        store.checkpoint()
    store.compact()
    full = sum(os.path.getsize(tmp_path / "s" / name) for name in names(tmp_path / "s"))
    store.delete_many([key for key in range(400) if key % 10])
    store.checkpoint()
    store.compact()
    left = sum(os.path.getsize(tmp_path / "s" / name) for name in names(tmp_path / "s"))
    assert left < full / 9
    assert not mostly_dead(store._table)
    assert not reclaimable(store._table)
    assert dict(store.items()) == {key: value_of(key, 4000) for key in range(0, 400, 10)}
    assert store.verify().ok


def test_space_comes_back_by_itself(tmp_path: Path) -> None:
    """The tiers alone would merge nothing any more: small enough, few enough."""
    with cesium.open(tmp_path / "s", **OPTIONS) as store:
        store.bulk_load(range(100), [value_of(number, 4000) for number in range(100)])
        for first in range(0, 90, 9):
            store.delete_many(range(first, first + 9))
            store.checkpoint()
    with cesium.open(tmp_path / "s", **OPTIONS) as store:
        assert len(store) == 10
        store.put(1000, b"a write, so that closing looks what is due")
    left = sum(os.path.getsize(tmp_path / "s" / name) for name in names(tmp_path / "s"))
    assert left < 100 * 4000 / 2, "what is mostly dead is written anew, once merges tell"


def test_a_snapshot_pins_blob_files(store: Any, tmp_path: Path) -> None:
    store.bulk_load(range(10), [value_of(number) for number in range(10)])
    before = names(tmp_path / "s")
    version = store.core.version
    view = iter(store.items())
    first = next(view)
    store.put_many(range(10), [b"new"] * 10)
    store.checkpoint()
    store.compact()
    assert shares_of(store) == []
    assert names(tmp_path / "s") == before
    assert [first, *view] == [(number, value_of(number)) for number in range(10)]
    del version, view
    gc.collect()
    assert names(tmp_path / "s") == []


def test_orphans_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with cesium.open(path, **OPTIONS) as store:
        store.bulk_load([1], [value_of(1)])
    kept = names(path)
    (path / blob_name(77)).write_bytes(b"left behind by a crash")
    with cesium.open(path, **OPTIONS) as store:
        store.put(2, b"")
        assert store[1] == value_of(1)
        assert store._engine.next_segment_id > 77
    assert names(path) == kept


def test_the_threshold_may_change(tmp_path: Path) -> None:
    path = tmp_path / "s"
    values = {key: value_of(key, 300 + 100 * key) for key in range(10)}
    with cesium.open(path, **{**OPTIONS, "blob_threshold": None}) as store:
        store.update(values)
        store.checkpoint()
        assert names(path) == []
    for threshold, rows in ((300, 10), ("1KiB", 2), (None, 2), (10_000, 0), (500, 8)):
        with cesium.open(path, **{**OPTIONS, "blob_threshold": threshold}) as store:
            for value in (b"over the others, so that all are merged", values[0]):
                store.put(0, value)
                store.checkpoint()
            store.compact()
            assert sum(share.rows for share in shares_of(store)) == rows
            assert dict(store.items()) == values
            assert store.verify().ok


def test_options_are_checked(tmp_path: Path) -> None:
    for wrong in (31, 0, "1B", "65MiB"):
        with pytest.raises(ValueError, match="blob_threshold is 32 bytes to 64 MiB"):
            cesium.open(tmp_path / "s", **{**OPTIONS, "blob_threshold": wrong})
    with cesium.open(tmp_path / "s", **OPTIONS):
        with pytest.raises(cesium.ConflictError, match="blob_threshold"):
            cesium.open(tmp_path / "s", **{**OPTIONS, "blob_threshold": 1000})


def test_the_flag_is_set_where_blobs_are(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def flags() -> list[int]:
        manifests = [(path / name).read_bytes() for name in names(path, "manifest-")]
        return [int.from_bytes(data[24:32], "little") for data in manifests]

    with cesium.open(path, **OPTIONS) as store:
        store.put(1, b"small")
        store.checkpoint()
        assert flags() == [0]
        store.put(2, value_of(2))
        store.checkpoint()
        assert flags() == [1]
        features = [
            reader.footer()["incompatible_features"] for reader in store.core.version.segments()
        ]
        assert sorted(features) == [0, 1]
        store.delete(2)
        store.checkpoint()
        store.compact()
    with cesium.open(path, **OPTIONS) as store:
        store.put(1, b"smaller")
    assert flags() == [0]
    assert names(path) == []


def test_in_memory() -> None:
    with cesium.open(":memory:", **OPTIONS) as store:
        store.put_many(range(50), [value_of(number) for number in range(50)])
        store.checkpoint()
        store.delete_many(range(40))
        store.checkpoint()
        store.compact()
        assert list(store.values()) == [value_of(number) for number in range(40, 50)]
        assert len([name for name in store._engine.files.list() if "blob" in name]) == 1


# -- damage ----------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Rows 0..9 of 504 bytes each, one behind the other in one blob file from 4096 on."""
    path = tmp_path / "s"
    with cesium.open(path, **OPTIONS) as store:
        store.bulk_load(range(10), [value_of(number, 504) for number in range(10)])
    return path


def test_a_damaged_value_is_told(damaged: Path) -> None:
    blob = damaged / names(damaged)[0]
    flip(blob, 4096 + 3 * 504 + 100)
    with cesium.open(damaged, flag="r") as store:
        assert store[2] == value_of(2, 504)
        with pytest.raises(cesium.CorruptionError, match="wrong checksum of a value") as caught:
            store[3]
        assert caught.value.file == str(blob)
        assert caught.value.offset == 4096 + 3 * 504
        with pytest.raises(cesium.CorruptionError):
            store.range().arrays()
        with pytest.raises(cesium.CorruptionError):
            store.get_many([1, 3])
        report = store.verify()
    assert not report.ok
    (row,) = [problem for problem in report.problems if problem.rows]
    assert (row.file, row.keys, row.offset, row.rows) == (str(blob), (3, 3), 4096 + 3 * 504, 1)


def test_a_merge_that_moves_a_damaged_value_fails(damaged: Path) -> None:
    blob = damaged / names(damaged)[0]
    flip(blob, 4096 + 9 * 504 + 1)
    with cesium.open(damaged, **OPTIONS) as store:
        store.delete_many(range(8))
        store.checkpoint()
        with pytest.raises(cesium.CorruptionError, match="wrong checksum of a value"):
            store.compact()
            store.compact()
        assert store[8] == value_of(8, 504)
        assert names(damaged) == [blob.name]


def test_repair_loses_the_rows_of_damaged_values(damaged: Path, tmp_path: Path) -> None:
    blob = damaged / names(damaged)[0]
    flip(blob, 4096 + 5 * 504)
    report = repair(damaged, tmp_path / "repaired")
    assert not report.ok
    assert [doubt.keys for doubt in report.doubts] == [(5, 5)]
    assert report.rows == 9
    with cesium.open(tmp_path / "repaired", flag="r") as store:
        assert list(store.keys()) == [0, 1, 2, 3, 4, 6, 7, 8, 9]
        assert store[9] == value_of(9, 504)
        assert store.verify().ok


@pytest.mark.parametrize("offset", [1, 16, 48, 500, -1])
def test_repair_writes_values_of_a_damaged_file_anew(
    damaged: Path, tmp_path: Path, offset: int
) -> None:
    """The first page, the gap at the end: no row is lost."""
    blob = damaged / names(damaged)[0]
    flip(blob, offset if offset > 0 else blob.stat().st_size + offset)
    with cesium.open(damaged, flag="r") as store:
        assert not store.verify().ok
        assert len(list(store.values())) == 10
    report = repair(damaged, tmp_path / "repaired")
    assert (report.ok, report.doubts, report.rows) == (False, [], 10)
    with cesium.open(tmp_path / "repaired", flag="r") as store:
        assert list(store.values()) == [value_of(number, 504) for number in range(10)]
        assert store.verify().ok


def test_a_lost_blob_file(damaged: Path, tmp_path: Path) -> None:
    blob = damaged / names(damaged)[0]
    with cesium.open(damaged, **OPTIONS) as store:
        store.put(100, b"small")
    blob.unlink()
    with cesium.open(damaged, flag="r") as store:
        assert store[100] == b"small"
        with pytest.raises(cesium.CorruptionError, match="the file is missing"):
            store[3]
        assert not store.verify().ok
    report = repair(damaged, tmp_path / "repaired")
    assert report.rows == 1
    with cesium.open(tmp_path / "repaired", flag="r") as store:
        assert dict(store.items()) == {100: b"small"}


def test_a_lost_manifest(damaged: Path, tmp_path: Path) -> None:
    with cesium.open(damaged, **OPTIONS) as store:
        store.put_many(range(20, 25), [value_of(number) for number in range(20, 25)])
    for name in names(damaged, "manifest-"):
        (damaged / name).unlink()
    report = repair(damaged, tmp_path / "repaired")
    assert report.manifest == "rebuilt"
    with cesium.open(tmp_path / "repaired", **OPTIONS) as store:
        assert [store[key] for key in range(10)] == [value_of(key, 504) for key in range(10)]
        assert [store[key] for key in range(20, 25)] == [value_of(key) for key in range(20, 25)]
        assert store.verify().ok
        store.put(1, b"")


def test_a_file_of_another_store_is_refused(damaged: Path, tmp_path: Path) -> None:
    with cesium.open(tmp_path / "other", **OPTIONS) as store:
        store.bulk_load(range(10), [value_of(number, 504) for number in range(10)])
    blob = names(damaged)[0]
    (damaged / blob).write_bytes((tmp_path / "other" / blob).read_bytes())
    with cesium.open(damaged, flag="r") as store:
        with pytest.raises(cesium.CorruptionError, match="another store"):
            store[1]


@pytest.mark.parametrize(
    "offset, count",
    [(0, 8), (4095, 8), (4097, 8), (4096, 0), (4096, 1 << 33), (1 << 62, 8), (8192, 8),
     (4096, 4104), (2**64 - 8, 16)],
)  # fmt: skip
def test_pointers_out_of_bounds(tmp_path: Path, offset: int, count: int) -> None:
    files = Files(tmp_path)
    fd = files.create("blob")
    files.write_all(fd, bytes(8192), 0)
    files.close(fd)
    reader = BlobReader(files, "blob", 1, 0, 0, bytes(16))
    assert not reader.check_value(offset, count, 0)


def test_a_reader_beside_a_writer_keeps_its_files(damaged: Path) -> None:
    with cesium.open(damaged, flag="r") as reader, cesium.open(damaged, **OPTIONS) as store:
        store.delete_range(None, None)
        store.checkpoint()
        store.compact()
        assert names(damaged) == []
        assert list(reader.values()) == [value_of(number, 504) for number in range(10)]


def test_numbers_are_aligned(store: Any) -> None:
    store.put_many([1, 2], [value_of(1, 501), np.arange(100.0).tobytes()])
    store.checkpoint()
    assert np.frombuffer(store[2], "f8").tolist() == list(range(100))


@pytest.mark.parametrize("threshold", [None, 100])
def test_pages_that_could_be_copied_whole_are_looked_at(
    tmp_path: Path, threshold: int | None
) -> None:
    """A page that overlaps nothing still counts what it points to, and obeys the threshold."""
    path = tmp_path / "s"
    with cesium.open(path, **{**OPTIONS, "blob_threshold": 100}) as store:
        store.put_many(range(0, 300), [value_of(key, 100) for key in range(300)])
        store.checkpoint()
    with cesium.open(path, **{**OPTIONS, "blob_threshold": None}) as store:
        store.put_many(range(300, 600), [value_of(key, 100) for key in range(300, 600)])
        store.checkpoint()
    with cesium.open(path, **{**OPTIONS, "blob_threshold": threshold}) as store:
        store.put_many([0, 599], [b"over both", b"and beyond"])
        store.checkpoint()
        store.compact()
        assert sum(share.rows for share in shares_of(store)) == (299 if threshold is None else 598)
        assert [store[key] for key in range(1, 599)] == [
            value_of(key, 100) for key in range(1, 599)
        ]
        assert store.verify().ok


# -- very large values, and views ------------------------------------------------------------------


@pytest.mark.parametrize("key", ["u8", "str", ("str", "i4")], ids=str)
def test_a_value_above_a_journal_frame(tmp_path: Path, key: Any) -> None:
    """Straight into a blob file: neither memtable nor journal ever hold it."""
    path = tmp_path / "s"
    name: Any = {"u8": 7, "str": "seven"}.get(key if isinstance(key, str) else "", ("a", 7))
    large = os.urandom(1 << 20) * 17
    with cesium.open(path, **{**OPTIONS, "key": key}) as store:
        store.put(name, b"before")
        sequence = store.put(name, large)
        assert store.sequence == sequence == store.durable_sequence == 2
        assert store.stats().memtable_bytes < 1 << 20
        assert store[name] == large
        with pytest.raises(cesium.LimitError, match="too large here"):
            store.setdefault(name, large)
        store[name] = b"after"
        assert store[name] == b"after"
        store[name] = large
    with cesium.open(path, flag="r") as store:
        assert dict(store.items()) == {name: large}


def test_a_value_above_64_mib(tmp_path: Path) -> None:
    large = os.urandom(1 << 20) * 65
    with cesium.open(tmp_path / "s", **OPTIONS) as store:
        store[1] = large
        store.put_many([1, 2], [b"", large])
        assert store.view(2) == large
        store.compact()
        assert store[2] == large
        assert store.verify().ok
    with cesium.open(tmp_path / "s", **{**OPTIONS, "blob_threshold": None}) as store:
        with pytest.raises(cesium.LimitError, match="with a blob_threshold"):
            store[3] = large
        assert list(store) == [1, 2]
        store[1] = b"pointers go on"
        store.compact()
        assert store.view(2) == large


def test_a_view_is_no_copy_and_outlives_the_store(store: Any, tmp_path: Path) -> None:
    large = value_of(1, 100_000)
    store.put_many([1, 2, 3], [large, b"small", b""])
    assert store.view(1) == large  # in the memtable
    store.checkpoint()
    view: Any = store.view(1)
    assert view.readonly and isinstance(view.obj, np.memmap)
    assert (store.view(2), store.view(3)) == (b"small", b"")
    store.delete(1)
    with pytest.raises(KeyError):
        store.view(1)
    with pytest.raises(KeyError):
        store.view(99)
    with pytest.raises(cesium.SchemaError):
        store.view("of another type")
    store.checkpoint()
    store.compact()
    store.close()
    gc.collect()
    assert names(tmp_path / "s") == []
    assert view == large
    with pytest.raises(cesium.ClosedError):
        store.view(2)


def test_a_view_is_of_bytes(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8", value="str") as store:
        with pytest.raises(TypeError, match="a value that is bytes"):
            store.view(1)


def test_a_view_of_a_damaged_value_is_refused(damaged: Path) -> None:
    flip(damaged / names(damaged)[0], 4096 + 3 * 504)
    with cesium.open(damaged, flag="r") as store:
        assert store.view(2) == value_of(2, 504)
        with pytest.raises(cesium.CorruptionError, match="wrong checksum of a value"):
            store.view(3)
