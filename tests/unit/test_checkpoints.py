"""Named checkpoints: what they keep, how they are opened, what dropping gives back."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import naming
from cesium.backup import backup_directory, restore
from cesium.errors import Error
from cesium.features import check_readable
from cesium.files import Files, MemoryFiles
from cesium.manifest import FILE_HEADER, Manifest, manifest_name
from cesium.records import NamedVersion, SegmentRecord, TableRecord
from cesium.repair import repair
from cesium.state import Edit, State, json_bytes
from cesium.verify import verify_directory
from command_line import fail, succeed

pytestmark = pytest.mark.usefixtures("foreground")

KEYS = np.arange(1000, dtype="u8")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[cesium.Store]:
    with opened(tmp_path / "s") as made:
        yield made


def opened(path: Path, **more: Any) -> cesium.Store:
    options = {"key": "u8", "value": "i8", "durability": "process", "background": False}
    return cesium.open(path, options=cesium.Options(**(options | more)))


def rows(path: Any, at: Any) -> dict[Any, Any]:
    with cesium.open(path, at=at) as then:
        found = dict(then.items())
        assert len(then) == len(found) and then.verify().ok
    return found


def segments(path: Any) -> set[str]:
    return {name for name in os.listdir(path) if name.startswith(("segment-", "blob-"))}


def live(store: cesium.Store) -> set[str]:
    """The files that the store's newest version reads."""
    records = [reader.record for reader in store._engine.segments()]
    blobs = {f"blob-{share.id:010d}" for record in records for share in record.blobs}
    return {f"segment-{record.id:010d}" for record in records} | blobs


def grown(store: cesium.Store) -> dict[str, dict[int, int]]:
    """Checkpoints between commits of every kind and merges; what each held."""
    held: dict[str, dict[int, int]] = {}
    store.bulk_load(KEYS, np.arange(1000))
    store.checkpoint("loaded")
    held["loaded"] = dict(store.items())
    store.put_many(KEYS[::3], np.full(334, -1))
    store.delete_range(100, 300)
    store.checkpoint("changed")
    held["changed"] = dict(store.items())
    store.compact()
    store.checkpoint("compacted")
    held["compacted"] = dict(store.items())
    store.put_many(KEYS[400:500], np.full(100, 7))
    store.delete_many(KEYS[:50])
    store.checkpoint("once more")
    held["once more"] = dict(store.items())
    store.bulk_load(KEYS + 500, np.full(1000, 8))
    store.compact()
    return held


# --- naming and opening ---------------------------------------------------------------------------


def test_each_stays_what_it_was(store: cesium.Store) -> None:
    held = grown(store)
    now = dict(store.items())
    for name, expected in held.items():
        assert rows(store.path, name) == expected, name
    assert dict(store.items()) == now and store.verify().ok
    assert [each.name for each in store.checkpoints()] == list(held)
    sequences = [each.sequence for each in store.checkpoints()]
    assert sequences == sorted(sequences)
    assert sequences[1] == sequences[2], "a merge is no commit"


def test_they_outlive_the_store_and_a_killed_process(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    held = grown(store)
    store.put(1, 1)  # in the journal, which no checkpoint reads
    shutil.copytree(store.path, tmp_path / "killed")
    store.close()
    for path in (tmp_path / "s", tmp_path / "killed"):
        with opened(path) as again:
            again.put(5, 5)  # what nothing refers to is removed before the first write
            assert {each.name for each in again.checkpoints()} == set(held)
            for name, expected in held.items():
                assert rows(path, name) == expected
            again.compact()
        for name, expected in held.items():
            assert rows(path, name) == expected
        assert verify_directory(path).ok


def test_a_handle_at_a_checkpoint_is_read_only_and_stays(store: cesium.Store) -> None:
    store.put(1, 10)
    made = store.checkpoint("one")
    store.put(1, 11)
    with cesium.open(store.path, at="one") as then:
        assert then.read_only and then.options.at == "one" and "at 'one'" in repr(then)
        assert then.sequence == made.sequence == then.refresh() == then.durable_sequence
        assert then[1] == 10 and then.checkpoints()[0].name == "one"
        with then.snapshot() as snapshot:
            assert snapshot[1] == 10 and snapshot.sequence == made.sequence
        assert list(then.changes()) == []
        for write in (
            lambda: then.put(1, 1), then.checkpoint, lambda: then.checkpoint("two"),
            lambda: then.drop_checkpoint("one"), then.compact,
        ):  # fmt: skip
            with pytest.raises(cesium.ReadOnlyError):
                write()
        again = pickle.loads(pickle.dumps(then))
        assert again[1] == 10 and again.options.at == "one"
        again.close()
        store.put(1, 12)
        assert then[1] == 10 and store[1] == 12, "it is no handle of the writer's engine"


def test_what_it_returns_is_what_is_listed(store: cesium.Store) -> None:
    assert store.checkpoints() == [] and store.checkpoint() is None
    store.put_many(KEYS, np.arange(1000))
    before = datetime.now(UTC)
    made = store.checkpoint("all of it")
    assert store.checkpoints() == [made]
    assert made.sequence == store.sequence and made.estimated_rows == 1000
    assert before - timedelta(milliseconds=1) <= made.time <= datetime.now(UTC)
    assert made.bytes == sum(os.stat(f"{store.path}/{name}").st_size for name in live(store))
    assert made.own_bytes == 0
    with cesium.open(store.path, flag="r") as beside:
        assert beside.checkpoints() == [made]
    with pytest.raises(AttributeError):
        made.name = "b"  # type: ignore[misc]


def test_a_reader_learns_of_names_when_it_is_refreshed(tmp_path: Path) -> None:
    from cesium.opening import acquire

    with opened(tmp_path / "s") as store:
        options = cesium.Options(flag="r")
        reader = cesium.Store(acquire(store.path, options, files=Files(store.path)), options)
        store.checkpoint("one")
        assert reader.checkpoints() == []
        reader.refresh()
        assert [each.name for each in reader.checkpoints()] == ["one"]
        store.compact()
        store.drop_checkpoint("one")
        reader.refresh()
        assert reader.checkpoints() == []
        reader.close()


def test_an_empty_store_has_checkpoints_too(store: cesium.Store) -> None:
    store.checkpoint("nothing")
    store.put(1, 1)
    assert rows(store.path, "nothing") == {}
    store.drop_checkpoint("nothing")


# --- times ----------------------------------------------------------------------------------------


def named_at(store: cesium.Store, moments: dict[str, int], patch: pytest.MonkeyPatch) -> None:
    """Checkpoints named at these times, in seconds since 1970."""
    for number, (name, seconds) in enumerate(moments.items()):
        store.put(0, number)
        clock = SimpleNamespace(time_ns=lambda at=seconds: at * 10**9 + 999)
        patch.setattr(naming, "time", clock)
        store.checkpoint(name)


def test_a_time_is_the_last_checkpoint_named_until_then(
    store: cesium.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_at(store, {"one": 1_000, "two": 2_000, "three": 3_000}, monkeypatch)
    for seconds, value in ((1_000, 0), (1_999, 0), (2_000, 1), (2_999.999999, 1), (9e9, 2)):
        aware = datetime.fromtimestamp(seconds, UTC)
        elsewhere = aware.astimezone(timezone(timedelta(hours=-9, minutes=-30)))
        naive = datetime.fromtimestamp(seconds)
        moment = np.datetime64(round(seconds * 10**6), "us")
        for at in (aware, elsewhere, naive, moment, moment.astype("datetime64[ms]")):
            if seconds != 2_999.999999 or at is not moment:
                with cesium.open(store.path, at=at) as then:
                    assert then[0] == value, (seconds, at)
    for early in (datetime.fromtimestamp(999.999999, UTC), np.datetime64("1950")):
        with pytest.raises(KeyError, match="named at or before"):
            cesium.open(store.path, at=early)
    for each in store.checkpoints():
        assert rows(store.path, each.time) == rows(store.path, each.name)


@pytest.mark.parametrize("zone", ["America/St_Johns", "Asia/Kolkata", "UTC"])
def test_a_time_without_a_zone_is_local(
    store: cesium.Store, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        named_at(store, {"one": 1_000_000, "two": 1_000_100}, monkeypatch)
        local = datetime.fromtimestamp(1_000_050)
        assert rows(store.path, local) == {0: 0}
        assert rows(store.path, local + timedelta(seconds=51)) == {0: 1}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_clock_that_was_put_back(store: cesium.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was named later is the later one, where both were named until then."""
    named_at(store, {"one": 3_000, "two": 1_000}, monkeypatch)
    assert rows(store.path, datetime.fromtimestamp(2_000, UTC)) == {0: 1}
    assert rows(store.path, datetime.fromtimestamp(4_000, UTC)) == {0: 1}


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("", ValueError, "not 0"), ("x" * 256, ValueError, "not 256"),
        ("ß" * 128, ValueError, "not 256"),
        ("a\nb", ValueError, "control"), ("\x7f", ValueError, "control"),
        ("\x85", ValueError, "control"), ("\ud800", ValueError, "Unicode"),
        (b"a", TypeError, "bytes"), (7, TypeError, "int"),
    ],
)  # fmt: skip
def test_names_that_are_none(store: cesium.Store, name: Any, error: type, says: str) -> None:
    before = store._engine.manifest.state
    with pytest.raises(error, match=says):
        store.checkpoint(name)
    assert store._engine.manifest.state is before


@pytest.mark.parametrize("name", ["x" * 255, "ß" * 127, " ", "a/b", '"quoted" \\', "語 🎉", "-"])
def test_names_that_are(store: cesium.Store, name: str) -> None:
    store.put(1, 1)
    store.checkpoint(name)
    store.put(1, 2)
    store.close()
    assert rows(store.path, name) == {1: 1}


def test_a_name_is_given_once(store: cesium.Store) -> None:
    store.put(1, 1)
    store.checkpoint("one")
    store.put(1, 2)
    before = store._engine.manifest.state
    with pytest.raises(cesium.ConflictError, match="'one' already, of sequence 1: drop it"):
        store.checkpoint("one")
    assert store._engine.manifest.state is before, "not even flushed"
    store.drop_checkpoint("one")
    store.checkpoint("one")
    assert rows(store.path, "one") == {1: 2}


def test_what_is_not_there_is_a_key_error(store: cesium.Store, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"no checkpoint named 'one' .there are: none"):
        cesium.open(store.path, at="one")
    with pytest.raises(KeyError, match="no checkpoint named 'one'"):
        store.drop_checkpoint("one")
    for number in range(7):
        store.checkpoint(f"number {number}")
    with pytest.raises(KeyError, match=r"there are: 'number 6', .*'number 2', and 2 more"):
        cesium.open(store.path, at="one")
    with pytest.raises(FileNotFoundError):
        cesium.open(tmp_path / "none", at="one")


def test_at_is_for_reading(store: cesium.Store) -> None:
    store.checkpoint("one")
    for flag in ("n", "w"):
        with pytest.raises(ValueError, match="read-only"):
            cesium.open(store.path, flag=flag, at="one")
    for at in (7, b"one", 1.5, np.datetime64("NaT")):
        with pytest.raises((TypeError, ValueError), match="at "):
            cesium.open(store.path, at=at)  # type: ignore[arg-type]
    with cesium.open(store.path, flag="r", at="one") as then:
        assert then.read_only
    with pytest.raises(cesium.SchemaError):
        cesium.open(store.path, key="str", at="one")


def test_a_store_in_memory_has_none() -> None:
    with cesium.open(":memory:", key="u8", value="i8") as store:
        with pytest.raises(ValueError, match="in memory"):
            store.checkpoint("one")
        assert store.checkpoints() == []
    with pytest.raises(ValueError, match="in memory"):
        cesium.open(":memory:", at="one")


def test_closed_and_poisoned_stores(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    store.checkpoint("one")
    store._engine.core_engine.poisoned = OSError("the drive")
    for call in (lambda: store.checkpoint("two"), lambda: store.drop_checkpoint("one")):
        with pytest.raises(cesium.PoisonedError):
            call()
    assert [each.name for each in store.checkpoints()] == ["one"]
    store.close()
    for call in (
        store.checkpoints, lambda: store.checkpoint("two"), lambda: store.drop_checkpoint("one"),
    ):  # fmt: skip
        with pytest.raises(cesium.ClosedError):
            call()


# --- files ----------------------------------------------------------------------------------------


def test_dropping_gives_back_what_nothing_else_needs(store: cesium.Store) -> None:
    held = grown(store)
    while held:
        sizes = {name: os.stat(f"{store.path}/{name}").st_size for name in segments(store.path)}
        named = store.checkpoints()
        stats = store.stats()
        assert stats.checkpoints == len(named)
        assert stats.checkpoint_bytes == sum(
            size for name, size in sizes.items() if name not in live(store)
        )
        assert sum(each.own_bytes for each in named) <= stats.checkpoint_bytes
        name = list(held)[len(held) // 2]
        (own,) = [each.own_bytes for each in named if each.name == name]
        store.drop_checkpoint(name)
        gone = set(sizes) - segments(store.path)
        assert sum(sizes[file] for file in gone) == own
        del held[name]
        for other, expected in held.items():
            assert rows(store.path, other) == expected
        assert store.verify().ok
    assert segments(store.path) == live(store)
    assert store.stats().checkpoint_bytes == 0


def test_dropping_waits_for_who_reads_here(store: cesium.Store) -> None:
    store.put_many(KEYS, np.arange(1000))
    store.checkpoint("one")
    snapshot = store.snapshot()  # has touched nothing yet: it reads the file by its name
    then = cesium.open(store.path, at="one")
    store.clear()
    store.compact()
    assert len(segments(store.path)) == 1 and not live(store)
    store.drop_checkpoint("one")
    assert len(segments(store.path)) == 1, "a snapshot reads it"
    assert snapshot[5] == 5 and len(snapshot) == 1000
    snapshot.close()
    assert not segments(store.path)
    assert then[7] == 7 and len(then) == 1000, "a mapping keeps what has no name any more"
    then.close()


def test_a_dropped_checkpoint_that_is_being_verified(
    store: cesium.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cesium import verify as verifying

    store.put_many(KEYS, np.arange(1000))
    store.checkpoint("one")
    store.clear()
    store.compact()
    kept = verifying.kept_readers

    def then_dropped(engine: Any) -> Any:
        readers = kept(engine)
        store.drop_checkpoint("one")
        assert segments(store.path), "it is being read"
        return readers

    monkeypatch.setattr(verifying, "kept_readers", then_dropped)
    report = store.verify()
    assert report.ok and report.files == 2, "the manifest and what is kept"
    assert not segments(store.path)


def test_a_reader_verifies_while_names_are_dropped(tmp_path: Path) -> None:
    """As in another process: a handle with an engine of its own, on the same files."""
    from cesium.opening import acquire

    with opened(tmp_path / "s") as store:
        store.put_many(KEYS, np.arange(1000))
        store.checkpoint("one")
        store.clear()
        store.compact()
        options = cesium.Options(flag="r")
        reader = cesium.Store(acquire(store.path, options, files=Files(store.path)), options)
        (file,) = segments(store.path)
        assert file in {os.path.basename(at.file) for at in reader.verify().details}
        store.drop_checkpoint("one")
        assert reader.verify().ok
        reader.close()


def test_a_table_merged_down_stays_where_it_was(store: cesium.Store) -> None:
    """A segment that moves to the last tier by an edit alone is in the version in its old tier."""
    store.bulk_load(KEYS, np.arange(1000))
    store.put_many(KEYS[:100], np.full(100, -1))
    store.checkpoint("one")
    expected = dict(store.items())
    store.drop_checkpoint("one")
    store.checkpoint("one")
    for turn in range(6):
        store.put_many(KEYS[:200], np.full(200, turn))
        store.checkpoint()
    store.compact()
    store.close()
    assert rows(store.path, "one") == expected


def test_large_values_are_kept_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path, key="str", value="bytes", blob_threshold=100) as store:
        old = {f"key {number}": bytes([number]) * 500 for number in range(40)}
        store.put_many(list(old), list(old.values()))
        store.checkpoint("old")
        store.put_many(list(old)[:30], [b"new" * 100] * 30)
        store.checkpoint()
        store.compact()
        store.compact()
        assert rows(path, "old") == old
        before = segments(path)
        assert any(name.startswith("blob-") for name in before - live(store)) or (
            store.stats().blob_dead_bytes
        )
        store.put_many(list(old), [b"none"] * 40)
        store.compact()
        assert rows(path, "old") == old
        assert any(name.startswith("blob-") for name in segments(path) - live(store))
        assert store.stats().checkpoint_bytes == store.checkpoints()[0].own_bytes > 20_000
        store.drop_checkpoint("old")
        assert segments(path) == live(store)
    assert verify_directory(path).ok


def test_the_collector_leaves_what_a_checkpoint_keeps(tmp_path: Path) -> None:
    """Writing the live rest of a blob file anew frees nothing as long as a name keeps the file."""
    path = tmp_path / "s"
    with opened(path, key="u8", value="bytes", blob_threshold=100) as store:
        store.put_many(np.arange(40), [b"x" * 500] * 40)
        store.checkpoint("old")
        store.put_many(np.arange(36), [b"small"] * 36)
        store.checkpoint()
        store.compact()
        (blob,) = [name for name in segments(path) if name.startswith("blob-")]
        assert blob in live(store), "not written anew"
        store.drop_checkpoint("old")
        store.compact()
        assert blob not in segments(path)
        assert store[39] == b"x" * 500


# --- the manifest ---------------------------------------------------------------------------------

TABLE = TableRecord(1, "", "u8", "f8")


def segment(number: int, **changes: Any) -> SegmentRecord:
    record = SegmentRecord(number, 1, 0, b"a", b"b", 10, 0, 0, 0, number, 4096, 1, 7)
    return replace(record, **changes)


def test_named_versions_in_edits_and_snapshots() -> None:
    files = MemoryFiles()
    manifest = Manifest.create(files, State(bytes(16), tables={1: TABLE}))
    first = (segment(1), segment(2))
    for edit in (
        Edit(put_segments=first, sequence=5, flushed_sequence=5),
        Edit(name_version=("one", 100)),
        Edit(put_segments=(segment(2, tier=1), segment(3)), remove_segments=(1,), sequence=7,
             flushed_sequence=7, name_version=("two", 200)),
        Edit(remove_segments=(3,), sequence=9, name_version=("three", 300)),
        Edit(remove_versions=("two",), name_version=("two", 400)),
    ):  # fmt: skip
        manifest.append(edit)
    expected = {
        "one": NamedVersion("one", 5, 100, {1: TABLE}, {1: segment(1), 2: segment(2)}),
        "three": NamedVersion("three", 7, 300, {1: TABLE}, {2: segment(2, tier=1)}),
        "two": NamedVersion("two", 7, 400, {1: TABLE}, {2: segment(2, tier=1)}),
    }
    for rewritten in (False, True):
        if rewritten:
            manifest.rewrite()
        loaded = Manifest.load(files)
        assert loaded is not None and loaded.state == manifest.state
        assert loaded.state.named == expected and list(loaded.state.named) == list(expected)
    assert manifest.state.to_json()["named_segments"] == [
        segment(1).to_json(), segment(2).to_json()
    ]  # fmt: skip


def test_a_table_that_was_dropped_is_in_the_version() -> None:
    state = State(bytes(16), tables={1: TABLE}, segments={1: segment(1)}, flushed_sequence=3,
                  sequence=3)  # fmt: skip
    state = Edit(name_version=("one", 1)).apply(state)
    state = Edit(remove_tables=(1,)).apply(state)
    assert not state.segments and not state.tables
    again = State.from_json(state.to_json(), bytes(16), 2, 1, 0, 0)
    assert again.named == state.named
    assert again.named["one"].tables == {1: TABLE} and again.named["one"].segments == {
        1: segment(1)
    }


def features(files: Files) -> int:
    manifest = Manifest.load(files)
    assert manifest is not None
    return int(FILE_HEADER.unpack(files.read_all(manifest.name, FILE_HEADER.size))[4])


def test_a_reader_that_does_not_know_names_refuses_them(store: cesium.Store) -> None:
    files = Files(store.path)
    assert features(files) == 0
    store.put(1, 1)
    store.checkpoint("one")
    assert features(files) == 1 << 6
    with pytest.raises(Error, match="cannot read: named versions"):
        check_readable("manifest", 1, features(files), known=1)
    store.drop_checkpoint("one")
    store.close()  # leaves a manifest of one snapshot
    assert features(files) == 0


def test_large_values_of_checkpoints_alone_have_their_flag(tmp_path: Path) -> None:
    with opened(tmp_path / "s", value="bytes", blob_threshold=100) as store:
        store.put(1, b"x" * 500)
        store.checkpoint("one")
        store.put(1, b"small")
        store.compact()
        store._engine.manifest.rewrite()
        assert features(Files(store.path)) == 1 << 6 | 1


GOOD: dict[str, Any] = {
    "sequence": 3, "time": 5, "tables": [TABLE.to_json()], "live": [1], "kept": [0],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sequence": -1}, "not a count"), ({"sequence": True}, "not a count"),
        ({"sequence": 4}, "beyond"), ({"time": "5"}, "not a count"), ({"time": 1 << 63}, "count"),
        ({"tables": []}, "of a table that it has not"), ({"tables": [7]}, "TypeError"),
        ({"tables": [TABLE.to_json()] * 2}, "twice"), ({"live": [2]}, "KeyError"),
        ({"live": ["1"]}, "not a count"), ({"live": [1, 1]}, "twice"), ({"kept": [1]}, "KeyError"),
        ({"kept": [-1]}, "not a count"), ({"kept": [0, 0]}, "twice"), ({"kept": None}, "TypeError"),
        ({"live": [], "kept": [0], "tables": None}, "TypeError"),
    ],
)  # fmt: skip
def test_hostile_versions_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(cesium.CorruptionError, match=says):
        load_snapshot({"one": {**GOOD, **changes}}, [segment(9).to_json()])


@pytest.mark.parametrize(
    ("versions", "kept", "says"),
    [
        ([], [], "AttributeError"), (7, [], "AttributeError"), ({"": GOOD}, [segment(9)], "255"),
        ({"x" * 256: GOOD}, [segment(9)], "255"), ({"a\n": GOOD}, [segment(9)], "control"),
        ({"\ud800": GOOD}, [segment(9)], "Unicode"), ({"one": 7}, [], "TypeError"),
        ({"one": []}, [], "TypeError"), ({"one": {}}, [], "KeyError"),
        ({"one": GOOD}, 7, "TypeError"), ({"one": GOOD}, [7], "TypeError"),
        ({"one": GOOD}, [segment(1)], "twice"), ({"one": GOOD}, [segment(9, table=2)], "table"),
    ],
)  # fmt: skip
def test_hostile_members_are_refused(versions: Any, kept: Any, says: str) -> None:
    if isinstance(kept, list):
        kept = [each.to_json() if isinstance(each, SegmentRecord) else each for each in kept]
    with pytest.raises(cesium.CorruptionError, match=says):
        load_snapshot(versions, kept)


def test_a_sound_version_is_taken() -> None:
    """What the hostile ones differ from; members that nobody knows are ignored."""
    state = load_snapshot({"one": {**GOOD, "more": 7}}, [segment(9).to_json()])
    assert state.named["one"].segments == {1: segment(1), 9: segment(9)}


def load_snapshot(versions: Any, kept: Any) -> State:
    """Loads a manifest whose snapshot has these members."""
    base = State(bytes(16), tables={1: TABLE}, segments={1: segment(1)}, sequence=3,
                 flushed_sequence=3)  # fmt: skip
    payload = {**base.to_json(), "named_versions": versions, "named_segments": kept}
    payload["segments"] = payload.pop("segments")  # last, as it is written
    files = MemoryFiles()
    manifest = Manifest.create(files, base)
    fake = SimpleNamespace(to_json=lambda: payload)
    write_snapshot(files, manifest, fake)
    loaded = Manifest.load(files)
    assert loaded is not None
    return loaded.state


def write_snapshot(files: Files, manifest: Manifest, state: Any) -> None:
    """The manifest's file again, with the payload of `state` in sound frames."""
    from cesium.manifest import SNAPSHOT, _frame

    header = files.read_all(manifest.name, FILE_HEADER.size)
    checksum = int.from_bytes(header[8:12], "little")
    fd = files.create(manifest_name(manifest.number))
    frame = _frame(FILE_HEADER.size, SNAPSHOT, 0, checksum, state.to_json())
    files.write_all(fd, header + frame, 0)
    files.close(fd)


@pytest.mark.parametrize(
    "payload",
    [
        {"name_version": {"name": "one"}}, {"name_version": {"name": "one", "time": 5}},
        {"name_version": {}}, {"name_version": ["two", 5]},
        {"name_version": {"name": "", "time": 5}},
        {"name_version": {"name": "two", "time": -5}}, {"remove_versions": ["two"]},
        {"remove_versions": "one"}, {"remove_versions": [7]}, {"remove_versions": 7},
        {"remove_versions": ["one", "one"]},
    ],
)  # fmt: skip
def test_hostile_edits_are_refused(payload: dict[str, Any]) -> None:
    state = Edit(name_version=("one", 1)).apply(State(bytes(16), tables={1: TABLE}))
    assert json_bytes(payload)
    with pytest.raises((KeyError, TypeError, ValueError)):
        Edit.from_json(payload).apply(state)


# --- damage ---------------------------------------------------------------------------------------


def kept_only(store: cesium.Store) -> Path:
    """A segment that only a checkpoint has."""
    store.put_many(KEYS, np.arange(1000))
    store.checkpoint("one")
    store.clear()
    store.put(5, -5)
    store.compact()
    (name,) = segments(store.path) - live(store)
    return Path(store.path) / name


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def test_damage_in_what_is_kept_is_found(store: cesium.Store) -> None:
    file = kept_only(store)
    assert store.verify().ok
    flip(file, 4096 + 100)
    report = store.verify()
    assert not report.ok and {at.file for at in report.problems} == {str(file)}
    assert not verify_directory(store.path).ok
    assert dict(store.items()) == {5: -5}
    with cesium.open(store.path, at="one") as then, pytest.raises(cesium.CorruptionError):
        dict(then.items())


def test_a_missing_file_of_a_checkpoint_is_found(store: cesium.Store) -> None:
    file = kept_only(store)
    file.unlink()
    assert not store.verify().ok
    report = verify_directory(store.path)
    assert [at.message for at in report.problems] == [f"{file}: the file is missing"]


def test_repair_keeps_checkpoints(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    held = grown(store)
    now = dict(store.items())
    store.close()
    manifest = next((tmp_path / "s").glob("manifest-*"))
    with manifest.open("ab") as file:
        file.write(b"\0\0\0")  # a torn tail
    report = repair(tmp_path / "s")
    assert report.manifest == "kept" and not report.notes[1:]
    with opened(Path(str(report.path))) as again:
        assert dict(again.items()) == now and again.verify().ok
        again.compact()
    for name, expected in held.items():
        assert rows(report.path, name) == expected


def test_repair_of_a_damaged_checkpoint(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    file = kept_only(store)
    store.close()
    flip(file, 4096 + 100)
    with pytest.raises(cesium.CorruptionError, match="strict"):
        repair(tmp_path / "s", mode="strict")
    report = repair(tmp_path / "s")
    assert not report.ok and not report.doubts, "the store itself is whole"
    assert any("'one' is without rows of" in note for note in report.notes)
    left = rows(report.path, "one")
    assert 0 < len(left) < 1000 and all(left[key] == key for key in left)
    assert rows(report.path, "one").items() <= dict(enumerate(range(1000))).items()
    with opened(Path(str(report.path))) as again:
        assert dict(again.items()) == {5: -5}
        again.drop_checkpoint("one")
        assert segments(again.path) == live(again)


def test_repair_without_a_file_of_a_checkpoint(tmp_path: Path) -> None:
    store = opened(tmp_path / "s")
    kept_only(store).unlink()
    store.close()
    report = repair(tmp_path / "s")
    assert rows(report.path, "one") == {} and any("'one'" in note for note in report.notes)


def test_a_lost_manifest_takes_the_names_along(tmp_path: Path) -> None:
    """Its sound frames still say what only checkpoints had: that does not come back."""
    store = opened(tmp_path / "s")
    kept_only(store)
    store.close()
    with opened(tmp_path / "s") as store:
        store.put(6, -6)
    manifest = next((tmp_path / "s").glob("manifest-*"))
    flip(manifest, 20)
    report = repair(tmp_path / "s")
    assert report.manifest == "rebuilt"
    assert any("named checkpoints are lost with the manifest: 'one'" in at for at in report.notes)
    with opened(Path(str(report.path))) as again:
        assert dict(again.items()) == {5: -5, 6: -6} and not again.checkpoints()


def test_damage_is_seen_although_only_a_checkpoint_has_the_rows(tmp_path: Path) -> None:
    """A manifest that lost its last edit: a segment that a version names is no sign of that."""
    with opened(tmp_path / "s") as store:
        kept_only(store)
        assert verify_directory(store.path).ok
    assert verify_directory(tmp_path / "s").ok


# --- the command line -----------------------------------------------------------------------------


def test_commands(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with opened(path) as store:
        store.put_many([1, 2], [10, 20])
        store.checkpoint("before it")
        store.put(1, 11)
    assert succeed("get", path, 1) == "11\n"
    assert succeed("get", path, 1, "--at", "before it") == "10\n"
    assert succeed("range", path, "--at", "before it") == "1\t10\n2\t20\n"
    out = tmp_path / "out.csv"
    succeed("export", path, out, "--at", "before it")
    assert out.read_text().split() == ["key,value", "1,10", "2,20"]
    assert "named 'after'" in fail(3, "export", path, tmp_path / "none.csv", "--at", "after")
    assert not (tmp_path / "none.csv").exists()
    assert "named 'after'" in fail(3, "get", path, 1, "--at", "after")
    assert "named 'after'" in fail(3, "range", path, "--at", "after")
    info = succeed("info", path)
    assert "checkpoint before it\tsequence 1, 2" in info and "about 2 rows" in info
    assert '"name": "before it"' in succeed("info", path, "--json")


# --- backups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["open", "files"])
def test_a_backup_has_the_checkpoints(tmp_path: Path, way: str) -> None:
    store = opened(tmp_path / "s")
    held = grown(store)
    for _ in range(2):  # the second time it adds to the first
        if way == "open":
            store.backup(tmp_path / "b")
        else:
            backup_directory(tmp_path / "s", tmp_path / "b")
        assert verify_directory(tmp_path / "b").ok
        for name, expected in held.items():
            assert rows(tmp_path / "b", name) == expected
        assert segments(tmp_path / "b") == segments(tmp_path / "s")
        store.drop_checkpoint(next(iter(held)))
        del held[next(iter(held))]
        store.put(3, 3)
    store.close()


def test_a_backup_of_a_checkpoint_is_a_store(store: cesium.Store, tmp_path: Path) -> None:
    held = grown(store)
    with cesium.open(store.path, at="changed") as then:
        then.backup(tmp_path / "b")
    assert verify_directory(tmp_path / "b").ok
    restore(tmp_path / "b", tmp_path / "r")
    with opened(tmp_path / "r") as again:
        assert dict(again.items()) == held["changed"] and not again.checkpoints()
        again.put(1, 1)
        assert segments(again.path) == live(again)


# --- several tables -------------------------------------------------------------------------------


def test_a_checkpoint_has_all_tables_of_its_moment(store: cesium.Store) -> None:
    names = store.table("names", key="str", value="bytes")
    names.put_many(["a", "b"], [b"1", b"2"])
    store.put(1, 10)
    store.checkpoint("one")
    names.clear()
    later = store.table("later", key="u4", value="u4")
    later.put(7, 8)
    store.put(1, 11)
    store.checkpoint("two")
    store.drop_table("names")
    store.compact()
    with cesium.open(store.path, at="one") as then:
        assert list(then.tables) == ["names"] and dict(then.items()) == {1: 10}
        assert dict(then.table("names").items()) == {"a": b"1", "b": b"2"}
        with pytest.raises(KeyError):
            then.table("later")
        with pytest.raises(cesium.ReadOnlyError):
            then.table("another", key="u8")
        assert then.verify().ok
    with cesium.open(store.path, at="two") as then:
        assert list(then.tables) == ["names", "later"]
        assert not dict(then.table("names").items()) and then.table("later")[7] == 8
    assert list(store.tables) == ["later"] and store.verify().ok


def test_a_dropped_table_goes_with_its_last_checkpoint(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        store.put(1, 1)
        names = store.table("names", key="str", value="bytes")
        names.put_many([f"key {number}" for number in range(500)], [b"x" * 50] * 500)
        store.checkpoint("one")
        store.checkpoint("two")
        store.drop_table("names")
        assert store.stats().checkpoint_bytes > 500 * 50
        assert store.verify().ok and verify_directory(store.path).ok
    with opened(tmp_path / "s") as store:
        store.put(2, 2)
        store.drop_checkpoint("one")
        assert len(rows_of_table(store.path, "two", "names")) == 500
        store.backup(tmp_path / "b")
        assert len(rows_of_table(tmp_path / "b", "two", "names")) == 500
        (file,) = segments(store.path) - live(store)
        flip(Path(store.path) / file, 4096 + 100)
        assert not store.verify().ok and not verify_directory(store.path).ok
    report = repair(tmp_path / "s")
    left = rows_of_table(report.path, "two", "names")
    assert 0 < len(left) < 500 and set(left.values()) == {b"x" * 50}
    with opened(Path(str(report.path))) as store:
        assert dict(store.items()) == {1: 1, 2: 2}
        store.drop_checkpoint("two")
        assert segments(store.path) == live(store)


def rows_of_table(path: Any, at: str, table: str) -> dict[Any, Any]:
    with cesium.open(path, at=at) as then:
        assert then.verify().ok
        return dict(then.table(table).items())
