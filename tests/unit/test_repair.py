"""repair(): each kind of damage in each mode; what is built opens, verifies, holds what it says."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import copies, loader, salvage
from cesium import repair as repairing
from cesium.repair import MODES, repair
from cesium.verify import verify_directory
from journal_frames import starts_of
from killed_stores import killed

pytestmark = pytest.mark.usefixtures("foreground")

PAGE = 4096


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def names(path: Path, start: str) -> list[Path]:
    return sorted(path.glob(start + "*"))


def contents(path: Path, **schema: Any) -> dict[Any, Any]:
    with cesium.open(path, flag="r", **schema) as store:
        assert store.verify().ok
        rows = dict(store.items())
        assert len(store) == len(rows)
    return rows


def files_of(path: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in path.iterdir() if item.name != "LOCK"}


def make(path: Path) -> dict[int, float]:
    """A base, a flush with every kind of marker, a load above it, a journal; as after a kill."""
    store = cesium.open(path.parent / "live", key="u8", value="f8", durability="sync")
    store.bulk_load(np.arange(2000, dtype="u8") * 10, np.arange(2000.0))
    store.put_many(np.arange(5, 6000, 10, dtype="u8"), np.ones(600))
    store.put(30, -3.0)
    store.delete(20)
    store.delete_range(100, 200)
    store.checkpoint()
    store.bulk_load(np.arange(1, 3000, 3, dtype="u8"), np.full(1000, 7.0))
    store.checkpoint()
    for key in range(5):
        store[key] = float(-key)
    with pytest.MonkeyPatch.context() as patch:  # or the load would be checkpointed
        patch.setattr(loader, "settle", lambda engine: None)
        store.bulk_load(np.arange(50_000, 50_300, dtype="u8"), np.full(300, 9.0))
    store.delete(1000)
    rows = dict(store.items())
    killed(store, path)
    store.close()
    return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    path = tmp_path_factory.mktemp("made") / "s"
    return path, make(path)


@pytest.fixture
def path(made: tuple[Path, dict[int, float]], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "s")
    return tmp_path / "s"


@pytest.fixture
def rows(made: tuple[Path, dict[int, float]]) -> dict[int, float]:
    return dict(made[1])


def segment_holding(path: Path, count: int) -> Path:
    with cesium.open(path, flag="r") as store:
        records = [reader.record for reader in store.core.version.segments()]
    (number,) = [record.id for record in records if record.rows == count]
    return path / f"segment-{number:010d}"


@pytest.mark.parametrize("mode", MODES)
def test_a_sound_store_is_copied(path: Path, rows: dict[int, float], mode: str) -> None:
    before = files_of(path)
    report = repair(path, mode=mode)
    assert report.ok and report.path == f"{path}.repaired" and report.backup is None
    assert contents(Path(report.path)) == rows and report.rows == len(rows)
    assert files_of(path) == before
    assert {segment["outcome"] for segment in report.segments} == {"kept"}
    assert report.frames_applied == 7 and not report.doubts and not report.frames_left
    with cesium.open(path, flag="r") as store:
        assert report.sequence == store.sequence
    with cesium.open(report.path) as store:
        assert store.sequence == report.sequence
        store[1] = 1.0
        store.compact()
    assert contents(Path(report.path)) == rows | {1: 1.0}
    with pytest.raises(FileExistsError):
        repair(path, mode=mode)
    kept = [s for s in names(path, "segment") if s.stat().st_nlink > 1]
    assert files_of(path) == before, kept


def test_a_bad_data_page(path: Path, rows: dict[int, float]) -> None:
    base = segment_holding(path, 2000)
    flip(base, PAGE + 500)
    before = files_of(path)
    with pytest.raises(cesium.CorruptionError, match="strict"):
        repair(path, mode="strict")
    assert not Path(f"{path}.repaired").exists() and not Path(f"{path}.repairing").exists()
    report = repair(path)
    lower, upper = 2520, 5039
    (doubt,) = report.doubts
    assert doubt.keys == (lower, upper) and not doubt.stale and doubt.rows == 252
    found = contents(Path(str(report.path)))
    shadowed = {*range(1, 3000, 3)}  # by the load above
    lost = {key for key in rows if lower <= key <= upper and key % 10 == 0} - shadowed
    assert found == {key: value for key, value in rows.items() if key not in lost}
    outcomes = {segment["file"]: segment for segment in report.segments}
    assert outcomes[base.name] == {
        "file": base.name, "outcome": "rewritten", "rows": 1748, "rows_lost": 252,
    }  # fmt: skip
    assert files_of(path) == before


def test_older_values_may_show_where_a_newer_page_is_lost(
    path: Path, rows: dict[int, float]
) -> None:
    flush = segment_holding(path, 592)
    flip(flush, 300)
    report = repair(path)
    (doubt,) = report.doubts
    assert doubt.stale and doubt.keys[0] == 5 and doubt.rows
    found = contents(Path(str(report.path)))
    assert found[20] == 2.0 and found[30] == 3.0, "a deleted and an older row show again"
    for key, value in found.items():
        if not doubt.keys[0] <= key <= doubt.keys[1]:
            assert rows[key] == value
    outside = {key for key in rows if not doubt.keys[0] <= key <= doubt.keys[1]}
    assert outside <= found.keys()


@pytest.mark.parametrize("part", ["fence", "filter", "footer"])
def test_a_bad_page_without_rows_loses_nothing(
    path: Path, rows: dict[int, float], part: str
) -> None:
    flush = segment_holding(path, 592)
    data = flush.read_bytes()
    number = [data[at + 4] for at in range(0, len(data), PAGE)].index(
        {"fence": 2, "filter": 5, "footer": 6}[part]
    )
    flip(flush, number * PAGE + 100)
    with pytest.raises(cesium.CorruptionError):
        repair(path, mode="strict")
    report = repair(path)
    assert not report.ok and not report.doubts
    assert contents(Path(str(report.path))) == rows


def test_lost_range_deletes_are_doubtful(path: Path, rows: dict[int, float]) -> None:
    flush = segment_holding(path, 592)
    data = flush.read_bytes()
    number = [data[at + 4] for at in range(0, len(data), PAGE)].index(4)
    flip(flush, number * PAGE + 70)
    report = repair(path)
    (doubt,) = report.doubts
    assert doubt.stale and doubt.rows is None
    found = contents(Path(str(report.path)))
    assert found[110] == 11.0, "what a lost marker masked shows again"
    assert rows.items() <= found.items()


def test_a_missing_segment(path: Path, rows: dict[int, float]) -> None:
    segment_holding(path, 2000).unlink()
    report = repair(path)
    (doubt,) = report.doubts
    assert doubt.keys == (0, 19990) and doubt.rows == 2000 and not doubt.stale
    found = contents(Path(str(report.path)))
    assert found.items() <= rows.items() and len(found) > 1500
    assert [segment["outcome"] for segment in report.segments].count("lost") == 1


def test_a_truncated_segment(path: Path, rows: dict[int, float]) -> None:
    base = segment_holding(path, 2000)
    data = base.read_bytes()
    for size in (0, 1, PAGE, 3 * PAGE + 5, len(data) - PAGE, len(data) - 1):
        base.write_bytes(data[:size])
        report = repair(path, path.parent / f"to-{size}")
        found = contents(Path(str(report.path)))
        assert found.items() <= rows.items()
        whole = min(size // PAGE, 8)
        assert {key for key in rows if key < whole * 2520} <= found.keys()


def test_a_load_of_the_journal_that_is_damaged(path: Path, rows: dict[int, float]) -> None:
    load = segment_holding(path, 300)
    flip(load, 100)
    report = repair(path)
    found = contents(Path(str(report.path)))
    assert found == {key: value for key, value in rows.items() if not 50_000 <= key < 50_252}
    assert report.doubts[0].keys == (50_000, 50_251)


def the_journal(path: Path) -> Path:
    (file,) = names(path, "journal")
    return file


def flip_frame(path: Path, number: int) -> None:
    """Damages a frame of the only journal file."""
    file = the_journal(path)
    flip(file, starts_of(file.read_bytes())[number] + 20)


def test_a_damaged_middle_of_the_journal(path: Path, rows: dict[int, float]) -> None:
    flip_frame(path, 2)  # the put of key 2
    with pytest.raises(cesium.CorruptionError):
        cesium.open(path)
    with pytest.raises(cesium.CorruptionError):
        repair(path, mode="strict")
    stopped = repair(path, path.parent / "stopped")
    assert stopped.frames_applied == 2 and stopped.frames_left == 4 and stopped.journal_stopped
    found = contents(path.parent / "stopped")
    assert found[0] == 0.0 and found[1] == -1.0 and 2 not in found and 50_000 not in found
    assert found[1000] == 7.0
    went_on = repair(path, path.parent / "on", mode="salvage")
    assert went_on.frames_applied == 6 and not went_on.frames_left
    found = contents(path.parent / "on")
    assert found == {key: value for key, value in rows.items() if key != 2}
    assert stopped.sequence < went_on.sequence


def test_a_damaged_journal_header(path: Path, rows: dict[int, float]) -> None:
    file = the_journal(path)
    whole = file.read_bytes()
    for number, offset in enumerate((0, 9, 33, 57, 100, 3000)):
        file.write_bytes(whole)
        flip(file, offset)
        stopped = repair(path, path.parent / f"stopped-{number}")
        assert stopped.frames_applied == 0 and stopped.frames_left == 7
        repair(path, path.parent / f"on-{number}", mode="salvage")
        assert contents(path.parent / f"on-{number}") == rows


@pytest.mark.parametrize("mode", MODES)
def test_a_torn_journal_is_cut_at_the_last_whole_frame(tmp_path: Path, mode: str) -> None:
    store = cesium.open(tmp_path / "live", key="u8", value="f8", durability="process")
    for key in range(5):
        store[key] = float(key)
    path = killed(store, tmp_path / "s")
    store.close()
    flip_frame(path, 4)  # the last frame; nothing vouches for it
    report = repair(path, mode=mode)
    assert report.ok and report.frames_applied == 4
    assert contents(Path(str(report.path))) == {key: float(key) for key in range(4)}


def test_frames_of_a_table_that_is_not_there(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "live", key="u8", value="f8", durability="sync")
    store[1] = 1.0
    store.checkpoint()
    store[2] = 2.0
    before = {path: path.read_bytes() for path in (tmp_path / "live").glob("manifest-*")}
    table = store.table("t", key="u8", value="f8")
    for key in range(2, 7):
        table[key] = float(key)
    path = killed(store, tmp_path / "s")
    store.close()
    for name in path.glob("manifest-*"):
        name.unlink()
    for name, data in before.items():  # a manifest that does not know the table
        (path / name.name).write_bytes(data)
    with pytest.raises(cesium.CorruptionError, match="table 2, which is not there"):
        cesium.open(path)
    report = repair(path)
    assert contents(Path(str(report.path))) == {1: 1.0, 2: 2.0}
    assert len(report.problems) == 1 and report.frames_left == 5 and report.frames_applied == 1
    with pytest.raises(cesium.CorruptionError):
        repair(path, tmp_path / "strict", mode="strict")
    assert not (tmp_path / "strict").exists()
    assert len(repair(path, tmp_path / "on", mode="salvage").problems) == 5


def test_a_hole_is_the_end_but_for_salvage(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "live", key="u8", value="f8", durability="process")
    for key in range(5):
        store[key] = float(key)
    path = killed(store, tmp_path / "s")
    store.close()
    flip_frame(path, 2)
    for mode, keys in (("strict", {0, 1}), ("point-in-time", {0, 1}), ("salvage", {0, 1, 3, 4})):
        report = repair(path, tmp_path / mode, mode=mode)
        assert set(contents(tmp_path / mode)) == keys
        assert report.ok and report.frames_left == (0 if mode == "salvage" else 2)
    assert repair(path, in_place=True).path is None, "what opening takes is left as it is"
    assert repair(path, in_place=True, mode="salvage").path == str(path)
    assert set(contents(path)) == {0, 1, 3, 4}


def test_a_missing_journal_file(tmp_path: Path) -> None:
    store = cesium.open(tmp_path / "live", key="u8", value="bytes", durability="sync")
    for key in range(60):
        store[key] = bytes(100_000)
    path = killed(store, tmp_path / "s")
    store.close()
    files = names(path, "journal")
    assert len(files) == 3
    first = 10  # the first file has 1 MiB
    files[0].unlink()
    stopped = repair(path, tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == {} and stopped.frames_left == 60 - first
    repair(path, tmp_path / "on", mode="salvage")
    assert set(contents(tmp_path / "on")) == set(range(first, 60))
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "live", path)


def test_a_lost_manifest(path: Path, rows: dict[int, float]) -> None:
    """From footers alone: the order of base, flush, loads and journal is the old one."""
    for file in names(path, "manifest"):
        file.unlink()
    with pytest.raises(cesium.CorruptionError):
        cesium.open(path)
    with pytest.raises(cesium.CorruptionError):
        repair(path, mode="strict")
    report = repair(path)
    assert report.manifest == "rebuilt" and contents(Path(str(report.path))) == rows
    assert [problem.message for problem in report.problems] == ["there is no manifest"]
    with cesium.open(str(report.path)) as store:
        assert store.options.key == "u8" and store.options.value == "f8"
        store[7] = 1.0
        assert store.sequence == report.sequence + 1
        store.compact()
    assert contents(Path(str(report.path))) == rows | {7: 1.0}


def test_a_lost_manifest_and_journal(path: Path, rows: dict[int, float]) -> None:
    for file in [*names(path, "manifest"), *names(path, "journal")]:
        file.unlink()
    found = contents(Path(str(repair(path).path)))
    expected = {key: value for key, value in rows.items() if 5 <= key} | {4: 7.0, 1: 7.0, 0: 0.0}
    assert found == expected | {1000: 7.0}


def test_every_byte_of_the_manifest(path: Path, rows: dict[int, float]) -> None:
    (file,) = names(path, "manifest")
    whole = file.read_bytes()
    for offset in [*range(0, 200, 9), *range(200, len(whole), 97)]:
        file.write_bytes(whole)
        flip(file, offset)
        report = repair(path, path.parent / f"to-{offset}")
        assert report.manifest == "rebuilt"
        assert contents(path.parent / f"to-{offset}") == rows, offset
        shutil.rmtree(path.parent / f"to-{offset}")


def test_a_truncated_manifest(path: Path, rows: dict[int, float]) -> None:
    (file,) = names(path, "manifest")
    whole = file.read_bytes()
    for size in range(0, len(whole), 53):
        file.write_bytes(whole[:size])
        report = repair(path, path.parent / f"to-{size}")
        found = contents(path.parent / f"to-{size}")
        if report.manifest == "rebuilt":
            assert found == rows, size
        shutil.rmtree(path.parent / f"to-{size}")


def test_what_was_merged_away_does_not_come_back(tmp_path: Path) -> None:
    """With the manifest, the markers of a merge's inputs went; one input's file is still there."""
    path = tmp_path / "s"
    store = cesium.open(path, key="u8", value="f8", durability="process")
    store.bulk_load(np.arange(1000, dtype="u8"), np.arange(1000.0))
    store.put_many(np.arange(500, 1500, dtype="u8"), np.ones(1000))
    store.delete_range(0, 400)
    store.checkpoint()
    inputs = names(path, "segment")
    shutil.copytree(path, tmp_path / "before")
    store.compact()
    rows = dict(store.items())
    store.close()
    assert len(inputs) == 2 and not any(file.exists() for file in inputs)
    for file in names(path, "manifest"):
        file.unlink()
    shutil.copy(tmp_path / "before" / inputs[0].name, path)
    report = repair(path, tmp_path / "one")
    assert contents(tmp_path / "one") == rows
    assert any("merged away" in note for note in report.notes)
    # With all inputs there, nobody knows whether the merge counted; either way the rows are these.
    shutil.copy(tmp_path / "before" / inputs[1].name, path)
    repair(path, tmp_path / "both")
    assert contents(tmp_path / "both") == rows


def test_loads_and_flushes_in_any_order(tmp_path: Path) -> None:
    """Loads do not know their sequence; what lies around them says it."""
    chance = random.Random(7)
    for round_ in range(12):
        path = tmp_path / str(round_)
        store = cesium.open(path, key="u8", value="f8", durability="process")
        for step in range(chance.randrange(2, 9)):
            keys = np.unique(np.array(chance.choices(range(300), k=100), "u8"))
            action = chance.choice(("load", "put", "checkpoint", "load", "put", "delete"))
            if action == "load":
                store.bulk_load(keys, np.full(len(keys), step + 0.5))
            elif action == "put":
                store.put_many(keys[:40], np.full(len(keys[:40]), float(step)))
            elif action == "delete":
                store.delete_range(int(keys[3]), int(keys[9]))
            else:
                store.checkpoint()
        rows = dict(store.items())
        copy = killed(store, tmp_path / f"{round_}-killed")
        store.close()
        for place in (path, copy):
            for file in names(place, "manifest"):
                file.unlink()
            report = repair(place)
            assert contents(Path(str(report.path))) == rows, (round_, place)


def test_an_uncommitted_load_is_left_out(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "s"
    store = cesium.open(path, key="u8", value="f8", durability="process")
    store[1] = 1.0

    def crash(*arguments: Any) -> Any:
        shutil.copytree(path, tmp_path / "killed")
        raise RuntimeError("killed")

    monkeypatch.setattr(loader, "attach", crash)
    with pytest.raises(RuntimeError):
        store.bulk_load(np.arange(100, dtype="u8"), np.zeros(100))
    store.close()
    for file in names(tmp_path / "killed", "manifest"):
        file.unlink()
    report = repair(tmp_path / "killed")
    assert contents(Path(str(report.path))) == {1: 1.0}
    assert any("not committed" in note for note in report.notes)


def test_a_segment_without_footer_and_manifest(path: Path, rows: dict[int, float]) -> None:
    base = segment_holding(path, 2000)
    for file in names(path, "manifest"):
        file.unlink()
    flip(base, base.stat().st_size - 4000)
    left_out = repair(path, path.parent / "out")
    assert any(base.name in note and "salvage" in note for note in left_out.notes)
    report = repair(path, path.parent / "in", mode="salvage")
    assert contents(path.parent / "in") == rows and any(base.name in note for note in report.notes)


def test_a_lost_manifest_of_a_store_without_segments(tmp_path: Path) -> None:
    """The journal's header says the schema, too."""
    store = cesium.open(tmp_path / "live", key=("str", "-u2"), value="json", durability="process")
    store["a", 1] = {"b": 2}
    path = killed(store, tmp_path / "s")
    store.close()
    for file in names(path, "manifest"):
        file.unlink()
    with cesium.open(str(repair(path).path)) as again:
        assert dict(again.items()) == {("a", 1): {"b": 2}}
        assert again.options.key == ["str", "-u2"] and again.options.value == "json"


def strip_origins(path: Path) -> None:
    """The segments as versions before the origin wrote them."""
    from cesium.checksum import crc32c

    for file in names(path, "segment"):
        data = bytearray(file.read_bytes())
        number = len(data) // PAGE - 1
        page = data[number * PAGE :]
        page[204:208] = bytes(4)
        page[2048:] = bytes(2048)
        seed = crc32c(int(file.name[-10:]).to_bytes(8, "little") + number.to_bytes(8, "little"))
        page[:4] = crc32c(bytes(page[4:]), seed).to_bytes(4, "little")
        data[number * PAGE :] = page
        file.write_bytes(data)


def test_a_schema_that_is_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with cesium.open(path, key="i4", value="f4") as store:
        store.bulk_load(np.arange(-500, 500, dtype="i4"), np.arange(1000, dtype="f4"))
        rows = dict(store.items())
    strip_origins(path)
    for file in names(path, "manifest"):
        file.unlink()
    with pytest.raises(cesium.SchemaError, match="--key"):
        repair(path)
    with pytest.raises(cesium.SchemaError, match="4 bytes"):
        repair(path, key="u8", value="f4")
    with pytest.raises(cesium.SchemaError):
        repair(path, key="i4", value=[("a", "i2"), ("b", "i2")])
    assert not Path(f"{path}.repairing").exists()
    report = repair(path, key="i4", value="f4")
    assert contents(Path(str(report.path))) == rows


def test_a_schema_that_contradicts(path: Path) -> None:
    with pytest.raises(cesium.SchemaError, match="i8"):
        repair(path, key="i8", value="f8")
    for file in names(path, "manifest"):
        file.unlink()
    with pytest.raises(cesium.SchemaError, match="i8"):
        repair(path, key="i8", value="f8")


SCHEMAS: dict[str, tuple[Any, Any, Any, Any]] = {
    "text": ("str", "bytes", [f"{n:04}" * (1 + n % 300) for n in range(400)],
             [b"v" * (n * 7) for n in range(400)]),
    "tuple": (("str", "-i4"), [("a", "f8"), ("b", "S3")],
              [("x" * (n % 9), n) for n in range(400)], [(n / 2, b"q") for n in range(400)]),
    "json": ("uuid", "json", None, [{"n": n} for n in range(400)]),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("lost", [False, True])
def test_other_schemas(tmp_path: Path, name: str, lost: bool) -> None:
    import uuid

    key, value, keys, values = SCHEMAS[name]
    if keys is None:
        keys = [uuid.UUID(int=n << 90) for n in range(400)]
    path = tmp_path / "s"
    with cesium.open(path, key=key, value=value) as store:
        store.put_many(keys, values)
        store.checkpoint()
        store.put(keys[0], values[1])
        store.delete(keys[5])
        rows = {key: store[key] for key in store}
    if lost:
        for file in names(path, "manifest"):
            file.unlink()
    sound = repair(path, tmp_path / "sound")
    assert sound.manifest == ("rebuilt" if lost else "kept")
    assert contents(tmp_path / "sound") == rows
    big = max(names(path, "segment"), key=lambda file: file.stat().st_size)
    for page in range(0, big.stat().st_size // PAGE, 3):
        flip(big, page * PAGE + 99)
        to = tmp_path / f"to-{page}"
        report = repair(path, to, mode="salvage")
        found = contents(to)
        stale = any(doubt.stale for doubt in report.doubts)
        assert stale or found.items() <= rows.items() or name == "json"
        assert len(found) > 100
        shutil.rmtree(to)
        flip(big, page * PAGE + 99)


def test_a_users_codec(tmp_path: Path) -> None:
    codec = cesium.KeyCodec(
        "reversed", lambda text: text.encode()[::-1], lambda b: b[::-1].decode()
    )
    path = tmp_path / "s"
    with cesium.open(path, key=codec, value="f8") as store:
        store.put_many([f"{number:05}" for number in range(3000)], np.arange(3000.0))
        rows = dict(store.items())
    flip(max(names(path, "segment"), key=lambda file: file.stat().st_size), PAGE + 99)
    report = repair(path)
    with pytest.raises(cesium.SchemaError, match="reversed"):
        cesium.open(str(report.path), flag="r")
    found = contents(Path(str(report.path)), key=codec)
    assert found.items() <= rows.items() and 2000 < len(found) < 3000


def test_in_place(path: Path, rows: dict[int, float]) -> None:
    flip_frame(path, 2)
    before = files_of(path)
    report = repair(path, in_place=True, mode="salvage")
    assert report.path == str(path) and report.backup is not None
    assert files_of(Path(report.backup)) == before
    assert contents(path) == {key: value for key, value in rows.items() if key != 2}
    assert {item.name for item in path.parent.iterdir()} == {"s", Path(report.backup).name}
    with cesium.open(path) as store:
        store[2] = 5.0
        store.compact()
    assert files_of(Path(report.backup)) == before, "the backup shares no file that is written"
    assert repair(Path(report.backup), mode="salvage").rows == report.rows


def test_in_place_through_a_link(path: Path, rows: dict[int, float]) -> None:
    flip_frame(path, 2)
    before = files_of(path)
    link = path.parent / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    report = repair(link, in_place=True, mode="salvage")
    assert report.path == str(path) and link.is_symlink()
    assert list(link.parent.iterdir()) == [link]
    assert contents(link) == {key: value for key, value in rows.items() if key != 2}
    assert files_of(Path(str(report.backup))) == before


def test_in_place_leaves_a_sound_store(path: Path, rows: dict[int, float]) -> None:
    before = files_of(path)
    report = repair(path, in_place=True)
    assert report.ok and report.path is None and report.backup is None
    assert files_of(path) == before and list(path.parent.iterdir()) == [path]
    with cesium.open(path, flag="r") as store:
        assert report.sequence == store.sequence


class Killed(BaseException):
    pass


class Stopper:
    """Kills the repair at the Nth step on directories, before it or after it; no cleaning up."""

    STEPS = ("link_or_copy", "back_up", "exchange", "remove_store", "rename_new")

    def __init__(self, patch: pytest.MonkeyPatch, stop_at: int, after: bool) -> None:
        self.steps: list[str] = []
        for name in self.STEPS:
            patch.setattr(
                salvage if name == "link_or_copy" else repairing,
                name,
                self._step(name, getattr(copies, name), stop_at, after),
            )

    def _step(self, name: str, real: Any, stop_at: int, after: bool) -> Any:
        def step(*arguments: Any) -> Any:
            if len(self.steps) >= stop_at:
                raise Killed
            self.steps.append(name)
            if len(self.steps) == stop_at and not after:
                raise Killed
            result = real(*arguments)
            if len(self.steps) == stop_at:
                raise Killed
            return result

        return step


@pytest.mark.parametrize("in_place", [False, True])
def test_an_interrupted_repair_can_be_run_again(
    path: Path, rows: dict[int, float], in_place: bool
) -> None:
    flip_frame(path, 2)
    before = files_of(path)
    expected = {key: value for key, value in rows.items() if key != 2}
    seen: set[str] = set()
    for stop_at in range(1, 30):
        for after in (False, True):
            place = path.parent / f"{stop_at}-{after}" / "s"
            shutil.copytree(path, place)
            with pytest.MonkeyPatch.context() as patch:
                stopper = Stopper(patch, stop_at, after)
                with contextlib.suppress(Killed):
                    repair(place, mode="salvage", in_place=in_place)
                seen.update(stopper.steps)
            backups = [item for item in place.parent.iterdir() if ".backup-" in item.name]
            if in_place and files_of(place) != before:
                assert contents(place) == expected, "swapped: it is whole"
                assert files_of(backups[0]) == before
                continue
            assert files_of(place) == before
            if Path(f"{place}.repaired").exists():
                assert contents(Path(f"{place}.repaired")) == expected
                continue
            again = repair(place, mode="salvage", in_place=in_place)
            assert contents(Path(str(again.path))) == expected
            assert files_of(Path(str(again.backup)) if in_place else place) == before
            for leftover in (".repairing", ".backing-up"):
                assert not Path(f"{again.path}{leftover}").exists()
        if len(stopper.steps) < stop_at:
            break
    wanted = {"back_up", "exchange"} if in_place else set()
    assert seen == wanted | {"link_or_copy", "remove_store", "rename_new"}


def test_a_writer_keeps_repair_out(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with cesium.open(path, key="u8", value="f8") as store:
        store[1] = 1.0
        for in_place in (False, True):
            with pytest.raises(cesium.LockedError):
                repair(path, in_place=in_place)
        code = f"from cesium.repair import repair; repair({str(path)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "LockedError" in done.stderr and f"process {os.getpid()}" in done.stderr
    assert repair(path).ok


def test_nothing_is_made_in_the_original(path: Path) -> None:
    (path / "LOCK").unlink()
    repair(path)
    assert not (path / "LOCK").exists()
    path.chmod(0o555)
    try:
        repair(path, path.parent / "from-read-only")
    finally:
        path.chmod(0o755)


def test_wrong_arguments(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="salvage"):
        repair(path, mode="hope")
    with pytest.raises(ValueError, match="not both"):
        repair(path, tmp_path / "to", in_place=True)
    with pytest.raises(ValueError, match="key"):
        repair(path, value="f8")
    with pytest.raises(FileNotFoundError):
        repair(tmp_path / "absent")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(FileNotFoundError):
        repair(tmp_path / "other")
    with pytest.raises(FileExistsError):
        repair(path, tmp_path / "other")
    Path(f"{path}.repaired.repairing").mkdir()
    (Path(f"{path}.repaired.repairing") / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="mine"):
        repair(path)


def test_nothing_is_left(path: Path) -> None:
    for file in path.iterdir():
        file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(cesium.CorruptionError, match="nothing is left"):
        repair(path, mode="salvage")
    assert {item.name for item in path.parent.iterdir()} == {"s"}


def test_links_that_are_refused_become_copies(path: Path, rows: Any, monkeypatch: Any) -> None:
    import errno

    def refuse(*arguments: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("cesium.copies.os.link", refuse)
    report = repair(path)
    assert contents(Path(str(report.path))) == rows
    assert all(file.stat().st_nlink == 1 for file in names(path, "segment"))


def test_an_exchange_where_there_is_none(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    copies.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    monkeypatch.setattr("cesium.copies.ctypes.CDLL", lambda *a, **b: object())
    copies.exchange(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "a" / "a").exists() and (tmp_path / "b" / "b").exists()


@pytest.mark.parametrize("seed", range(6))
def test_hostile_bytes(made: tuple[Path, dict[int, float]], tmp_path: Path, seed: int) -> None:
    """Random damage: never anything but an answer, and never a row that was not written."""
    chance = random.Random(seed)
    source, rows = made
    written = {(key, float(key // 10)) for key in range(0, 20_000, 10)}
    written |= {(key, 1.0) for key in range(5, 6000, 10)} | {(30, -3.0)}
    written |= {(key, 7.0) for key in range(1, 3000, 3)} | {(key, float(-key)) for key in range(5)}
    written |= {(key, 9.0) for key in range(50_000, 50_300)}
    only = {  # rows that one file alone has
        segment_holding(source, 2000).name: range(6000, 20_000, 10),
        segment_holding(source, 300).name: range(50_000, 50_300),
    }
    repaired = damaged_manifests = 0
    for round_ in range(25):
        path = tmp_path / str(round_)
        shutil.copytree(source, path)
        targets = [file for file in path.iterdir() if file.name != "LOCK"]
        hit = set()
        for _ in range(chance.randrange(1, 5)):
            file = chance.choice(targets)
            hit.add(file.name)
            data = bytearray(file.read_bytes())
            if chance.random() < 0.15:
                data = data[: chance.randrange(len(data) + 1)]
            else:
                used = len(data) if "journal" not in file.name else min(len(data), 6000)
                for _ in range(chance.randrange(1, 6)):
                    data[chance.randrange(used) % max(len(data), 1)] = chance.randrange(256)
            file.write_bytes(data)
        verify_directory(path)
        try:
            report = repair(path, mode="salvage")
        except (cesium.CorruptionError, cesium.SchemaError):
            assert len(hit) > 2
            continue
        repaired += 1
        damaged_manifests += report.manifest == "rebuilt"
        found = contents(Path(str(report.path)))
        assert set(found.items()) <= written, round_
        for name, keys in only.items():
            if name not in hit and not ("50000" in str(keys) and any("journal" in n for n in hit)):
                assert {key for key in keys if key in rows} <= found.keys(), (round_, name)
        shutil.rmtree(path)
        shutil.rmtree(str(report.path))
    assert repaired > 20 and damaged_manifests
