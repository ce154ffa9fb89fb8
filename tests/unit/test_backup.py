"""Backups and the way back: what is in them, what is put there again, what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cesium
from cesium import backup as backups
from cesium.backup import RESTORING, backup_directory, restore
from cesium.directory import BACKUP_MARK
from cesium.files import Files
from cesium.verify import verify_directory
from command_line import fail, run, succeed
from failing_files import BudgetFiles

KEYS = np.arange(20_000, dtype="u8")


@pytest.fixture(params=["links", "copies"])
def links(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "links")


def filled(path: Path, **options: Any) -> cesium.Store:
    """A store with segments, delete markers, a range-delete, a journal."""
    store = cesium.open(path, key="u8", value="f8", **options)
    store.bulk_load(KEYS, np.sqrt(KEYS))
    store.put_many(KEYS[::7], -KEYS[::7].astype("f8"))
    store.checkpoint()
    store.delete_range(100, 900)
    store.delete_many(KEYS[1000:1100])
    store[5] = 55.5
    return store


def rows(path: Path) -> dict[Any, Any]:
    with cesium.open(path, flag="r") as store:
        return dict(store.items())


def inodes(path: Path, start: str = "segment-") -> dict[str, int]:
    return {
        name: (path / name).stat().st_ino for name in os.listdir(path) if name.startswith(start)
    }


def test_a_backup_is_the_store_at_one_commit(tmp_path: Path, links: bool) -> None:
    with filled(tmp_path / "s") as store:
        expected = dict(store.items())
        report = store.backup(tmp_path / "b", links=links)
        store[6] = 0.0
        assert report.sequence == store.sequence - 1
        assert (report.linked_bytes > 0) == links and (report.copied_bytes > 0) == (not links)
        shared = set(inodes(tmp_path / "s").values()) & set(inodes(tmp_path / "b").values())
        assert bool(shared) == links
    assert report.path == str(tmp_path / "b") and report.kept_bytes == 0
    assert report.files == len(os.listdir(tmp_path / "b")) - 1  # but for LOCK
    assert report.as_dict()["seconds"] > 0
    assert rows(tmp_path / "b") == expected
    assert verify_directory(tmp_path / "b").ok
    assert BACKUP_MARK not in os.listdir(tmp_path / "b")
    restored = restore(tmp_path / "b", tmp_path / "again", links=links)
    assert (restored.path, restored.sequence) == (str(tmp_path / "again"), report.sequence)
    assert rows(tmp_path / "again") == expected
    with cesium.open(tmp_path / "again", flag="w") as store:  # a store as any other
        store[7] = 1.0
        store.compact()
        assert store.sequence == report.sequence + 1
    assert rows(tmp_path / "b") == expected


def test_what_is_there_already_is_kept(tmp_path: Path, links: bool) -> None:
    with filled(tmp_path / "s") as store:
        first = store.backup(tmp_path / "b", links=links)
        before = inodes(tmp_path / "b")
        store.bulk_load(KEYS + 10**6, np.zeros(len(KEYS)))
        expected = dict(store.items())
        second = store.backup(tmp_path / "b", links=links)
        after = inodes(tmp_path / "b")
    kept = {name for name in before.keys() & after.keys() if before[name] == after[name]}
    assert kept
    assert second.kept_bytes == sum((tmp_path / "b" / name).stat().st_size for name in kept)
    assert second.sequence == first.sequence + 1
    assert rows(tmp_path / "b") == expected
    assert verify_directory(tmp_path / "b").ok


def test_files_that_the_store_no_longer_has_go(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        store.backup(tmp_path / "b")
        store.clear()
        store.compact()
        store[1] = 1.0
        store.backup(tmp_path / "b")
    assert rows(tmp_path / "b") == {1: 1.0}
    assert len(inodes(tmp_path / "b")) == 1


def test_a_damaged_file_of_the_backup_is_put_there_again(tmp_path: Path) -> None:
    """As far as it shows by size and footer; the rest is for verify."""
    with filled(tmp_path / "s") as store:
        store.backup(tmp_path / "b", links=False)
        names = sorted(inodes(tmp_path / "b"))
        data = bytearray((tmp_path / "b" / names[0]).read_bytes())
        data[-100] ^= 1
        (tmp_path / "b" / names[0]).write_bytes(data)
        (tmp_path / "b" / names[1]).write_bytes(b"short")
        assert not verify_directory(tmp_path / "b").ok
        report = store.backup(tmp_path / "b", links=False)
        assert report.copied_bytes and verify_directory(tmp_path / "b").ok


def test_large_values_are_in_the_backup(tmp_path: Path, links: bool) -> None:
    large = {f"key {number}": os.urandom(1 << 17) for number in range(20)}
    with cesium.open(tmp_path / "s", key="str", blob_threshold=4096) as store:
        store.update(large)
        store.checkpoint()
        store["key 3"] = b"small"
        store.backup(tmp_path / "b", links=links)
        assert inodes(tmp_path / "b", "blob-")
        again = store.backup(tmp_path / "b", links=links)
        assert again.kept_bytes and not again.linked_bytes + again.copied_bytes
    backup_directory(tmp_path / "b", tmp_path / "b2", links=links)
    restore(tmp_path / "b2", tmp_path / "r", links=links)
    assert rows(tmp_path / "r") == {**large, "key 3": b"small"}


def test_blocks_are_shared_where_names_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where links are refused, FICLONE is asked; where that is refused, too, bytes are copied."""
    monkeypatch.setattr(Files, "link_from", lambda *arguments: False)
    asked: list[str] = []

    def share(files: Files, fd: int, source_fd: int, path: str) -> bool:
        asked.append(path)
        shutil.copyfile(f"/proc/self/fd/{source_fd}", f"/proc/self/fd/{fd}")
        return True

    with filled(tmp_path / "s") as store:
        expected = dict(store.items())
        real = store.backup(tmp_path / "real")
        monkeypatch.setattr(Files, "share_blocks", share)
        shared = store.backup(tmp_path / "shared")
    assert asked and shared.cloned_bytes and not shared.copied_bytes
    assert real.cloned_bytes + real.copied_bytes == shared.cloned_bytes
    assert rows(tmp_path / "real") == rows(tmp_path / "shared") == expected


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_a_refused_link_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(old: str, new: str) -> None:
        raise OSError(number, os.strerror(number), old)

    monkeypatch.setattr("cesium.files.os.link", refused)
    with filled(tmp_path / "s") as store:
        report = store.backup(tmp_path / "b")
        assert report.linked_bytes == 0 and report.cloned_bytes + report.copied_bytes > 0
        assert rows(tmp_path / "b") == dict(store.items())


def test_writers_go_on(tmp_path: Path) -> None:
    """Each backup holds whole commits: all keys of a batch have the same value."""
    with cesium.open(
        tmp_path / "s", key="u8", value="u8", durability="process", memory_limit="8MiB"
    ) as store:
        keys = np.arange(3000, dtype="u8")
        store.put_many(keys, np.zeros(3000, "u8"))
        done = threading.Event()
        written = [0]

        def write() -> None:
            while not done.is_set():
                written[0] += 1
                if written[0] % 5:
                    store.put_many(keys, np.full(3000, written[0], "u8"))
                else:
                    store.bulk_load(keys, np.full(3000, written[0], "u8"))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            found = []
            for number in range(12):
                seen = written[0]
                way = (
                    store.backup
                    if number % 2
                    else (lambda dest: backup_directory(store.path, dest))
                )
                report = way(tmp_path / "b")
                with cesium.open(tmp_path / "b", flag="r") as copy:
                    values = set(copy.values())
                    assert len(values) == 1 and len(copy) == 3000
                    assert copy.sequence == report.sequence
                    found.append(values.pop())
                    assert found[-1] >= seen - 1, "what was acknowledged before is in it"
        finally:
            done.set()
            writer.join()
    assert found == sorted(found)
    assert verify_directory(tmp_path / "b").ok


def test_a_store_of_another_process_is_backed_up_beside_it(tmp_path: Path) -> None:
    """Neither the lock nor a clean state is needed; the journal goes along."""
    child = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, cesium\n"
         "store = cesium.open(sys.argv[1], key='u8', value='f8')\n"
         "store[1] = 1.0; store.checkpoint(); store[2] = 2.0; print('x', flush=True)\n"
         "sys.stdin.read()", str(tmp_path / "s")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdin is not None
    try:
        assert child.stdout.readline() == "x\n"
        with cesium.open(tmp_path / "s", flag="r") as reader:
            report = reader.backup(tmp_path / "b")
        before = sorted(os.listdir(tmp_path / "s"))
        assert backup_directory(tmp_path / "s", tmp_path / "b").sequence == report.sequence == 2
        assert sorted(os.listdir(tmp_path / "s")) == before
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    assert rows(tmp_path / "b") == {1: 1.0, 2: 2.0}
    assert inodes(tmp_path / "b", "journal-")
    with cesium.open(tmp_path / "s") as store:
        store[3] = 3.0
        store.backup(tmp_path / "b")
    assert rows(tmp_path / "b") == {1: 1.0, 2: 2.0, 3: 3.0}
    assert not inodes(tmp_path / "b", "journal-")


@pytest.mark.parametrize("way", ["open", "files"])
def test_tables_and_named_checkpoints_are_in_the_backup(tmp_path: Path, way: str) -> None:
    """The segments of a checkpoint, too, that the store itself has merged away."""
    with filled(tmp_path / "s") as store:
        trades = store.table("trades", key="str", value="bytes")
        trades["a"] = b"1"
        store.checkpoint("then")
        then = dict(store.items())
        store.clear()
        store[1] = 1.0
        trades["b"] = bytes(5000)
        store.compact()
        trades["c"] = b"3"
        if way == "open":
            store.backup(tmp_path / "b")
        else:
            backup_directory(tmp_path / "s", tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "r")
    for path in (tmp_path / "b", tmp_path / "r"):
        with cesium.open(path, flag="r") as copy:
            assert dict(copy.items()) == {1: 1.0}
            assert list(copy.tables["trades"]) == ["a", "b", "c"]
        with cesium.open(path, flag="r", at="then") as copy:
            assert dict(copy.items()) == then and list(copy.tables["trades"]) == ["a"]
        assert verify_directory(path).ok


def test_a_store_in_memory_is_written_down(tmp_path: Path) -> None:
    with cesium.open(":memory:", key=("str", "-i4"), value="json") as store:
        store["a", 1] = {"x": [1, 2]}
        store.backup(tmp_path / "b")
        assert rows(tmp_path / "b") == dict(store.items()) == {("a", 1): {"x": [1, 2]}}


def test_an_empty_store(tmp_path: Path) -> None:
    with cesium.open(tmp_path / "s", key="u8") as store:
        store.backup(tmp_path / "b")
        store.backup(tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "r")
    assert rows(tmp_path / "r") == {}


def test_progress_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with filled(tmp_path / "s") as store:
        store.backup(tmp_path / "b", progress=True)
    restore(tmp_path / "b", tmp_path / "r", progress=True)
    assert capsys.readouterr().out == ""


# --- refused -----------------------------------------------------------------


def refused(store: cesium.Store, dest: Path, why: str, **options: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in dest.iterdir()} if dest.is_dir() else None
    with pytest.raises(FileExistsError, match=why):
        store.backup(dest, **options)
    if before is not None:
        assert {path: path.stat().st_mtime_ns for path in dest.iterdir()} == before


def test_what_is_no_backup_of_the_store_is_refused(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store, filled(tmp_path / "other") as other:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "letter").write_text("dear")
        refused(store, tmp_path / "home", "'letter'")
        other.backup(tmp_path / "of-other")
        refused(store, tmp_path / "of-other", "another store")
        refused(store, tmp_path / "other", "another store")
        store.backup(tmp_path / "b")
        refused(store, tmp_path / "b", "not to be incremental", incremental=False)
        (tmp_path / "file").write_text("x")
        with pytest.raises(NotADirectoryError):
            store.backup(tmp_path / "file")
        with pytest.raises(FileNotFoundError):
            store.backup(tmp_path / "no" / "such")
        for inside in (tmp_path / "s", tmp_path / "s" / "b"):
            with pytest.raises(ValueError, match="in the store"):
                store.backup(inside)
        (tmp_path / "link").symlink_to(tmp_path / "s")
        with pytest.raises(ValueError, match="in the store"):
            store.backup(tmp_path / "link")
    with pytest.raises(cesium.ClosedError):
        store.backup(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        backup_directory(tmp_path / "nowhere", tmp_path / "b3")
    assert not (tmp_path / "b3").exists()


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_backup_that_was_written_to_is_refused(tmp_path: Path, ending: str) -> None:
    with filled(tmp_path / "s") as store:
        store.backup(tmp_path / "b")
        with cesium.open(tmp_path / "b", flag="r") as copy:  # reading it is no matter
            assert 5 in copy
        store.backup(tmp_path / "b")
        with cesium.open(tmp_path / "b", flag="w") as copy:
            copy[1] = -1.0
            if ending == "killed":
                shutil.copytree(tmp_path / "b", tmp_path / "killed")
        refused(store, tmp_path / ("b" if ending == "closed" else "killed"), "written to since")


def test_a_store_from_before_its_backup_is_refused(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        store.backup(tmp_path / "old")
        store[1] = 1.0
        store.backup(tmp_path / "b")
        sequence = store.sequence
    restore(tmp_path / "old", tmp_path / "back")
    with cesium.open(tmp_path / "back") as store:
        refused(store, tmp_path / "b", f"up to {sequence}, the store only up to {sequence - 1}")
        store[2] = 2.0
        store.backup(tmp_path / "old")  # goes on from where it was


def test_the_destination_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path / "s") as store:
        met: list[bool] = []
        real = backups.Transfer.put

        def put(transfer: Any, *arguments: Any) -> None:
            code = f"import cesium; cesium.open({str(tmp_path / 'b')!r}, flag='w')"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            met.append("LockedError" in done.stderr)
            real(transfer, *arguments)

        store.backup(tmp_path / "b")
        store[1] = 1.0
        monkeypatch.setattr(backups.Transfer, "put", put)
        store.backup(tmp_path / "b")
        assert met and all(met)


def test_damage_is_not_backed_up(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        store.checkpoint()
    name = max(inodes(tmp_path / "s"), key=lambda name: (tmp_path / "s" / name).stat().st_size)
    data = bytearray((tmp_path / "s" / name).read_bytes())
    data[5000] ^= 1
    (tmp_path / "s" / name).write_bytes(data)
    with pytest.raises(cesium.CorruptionError, match=f"{name} at 4096") as caught:
        backup_directory(tmp_path / "s", tmp_path / "b", links=False)
    assert caught.value.offset == 4096
    with pytest.raises((FileExistsError, cesium.CorruptionError)):
        cesium.open(tmp_path / "b", key="u8")
    backup_directory(tmp_path / "s", tmp_path / "linked")  # a link reads nothing
    with pytest.raises(cesium.CorruptionError, match="the backup is damaged"):
        restore(tmp_path / "linked", tmp_path / "r")
    assert not (tmp_path / "r").exists() and not (tmp_path / f"r{RESTORING}").exists()
    (tmp_path / "s" / name).unlink()
    with pytest.raises(cesium.CorruptionError, match="missing"):
        backup_directory(tmp_path / "s", tmp_path / "b4")
    manifest = next(iter(inodes(tmp_path / "s", "manifest-")))
    (tmp_path / "s" / manifest).write_bytes(b"no manifest")
    with pytest.raises(cesium.CorruptionError, match="nothing was backed up"):
        backup_directory(tmp_path / "s", tmp_path / "b5")


def test_nothing_is_overwritten_by_restoring(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        store.backup(tmp_path / "b")
    for there in (tmp_path / "s", tmp_path / "b"):
        with pytest.raises(FileExistsError):
            restore(tmp_path / "b", there)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileExistsError):
        restore(tmp_path / "b", tmp_path / "empty")
    with pytest.raises(FileNotFoundError):
        restore(tmp_path / "nothing", tmp_path / "r")
    with pytest.raises(FileNotFoundError):
        restore(tmp_path / "empty", tmp_path / "r")
    assert not (tmp_path / "r").exists()


# --- interrupted -------------------------------------------------------------


def interrupted_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Lets the Nth file of a backup from now on raise."""
    calls = [0]
    real = backups.Transfer.put

    def put(transfer: Any, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise error
        real(transfer, *arguments)

    monkeypatch.setattr(backups.Transfer, "put", put)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_ctrl_c_leaves_both_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with filled(tmp_path / "s") as store:
        store.checkpoint()
        first = dict(store.items())
        with monkeypatch.context() as patch:
            interrupted_at(patch, number, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                store.backup(tmp_path / "b")
        for flag in "cnwr":  # it does not pass for a store, and not for an empty place
            with pytest.raises((cesium.CorruptionError, FileExistsError, FileNotFoundError)):
                cesium.open(tmp_path / "b", key="u8", value="f8", flag=flag)
        with pytest.raises(cesium.CorruptionError, match="not finished"):
            restore(tmp_path / "b", tmp_path / "r")
        report = store.backup(tmp_path / "b")
        assert (report.kept_bytes > 0) == (number > 1)
        store[3] = 33.0
        with monkeypatch.context() as patch:
            interrupted_at(patch, number, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                store.backup(tmp_path / "b")
        assert rows(tmp_path / "b") == first  # that of before
        store[4] = 44.0
        store.backup(tmp_path / "b")
        assert rows(tmp_path / "b") == dict(store.items()) == {**first, 3: 33.0, 4: 44.0}
        with monkeypatch.context() as patch:
            interrupted_at(patch, number, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                restore(tmp_path / "b", tmp_path / "r")
        assert not (tmp_path / "r").exists() and not (tmp_path / f"r{RESTORING}").exists()
    assert sorted(os.listdir(tmp_path)) == ["b", "s"]


def test_a_full_drive(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        small = BudgetFiles(tmp_path / "b", 300_000)
        with pytest.raises(cesium.StorageFullError) as caught:
            backups.backup(store._engine, small, links=False)
        assert str(tmp_path / "b") in str(caught.value.filename)
        assert not [name for name in small.list() if name.endswith(".new")]
        with pytest.raises((cesium.CorruptionError, FileExistsError)):
            cesium.open(tmp_path / "b", key="u8")
        small.budget_bytes = 1 << 30
        backups.backup(store._engine, small, links=False)
        before = dict(store.items())
        assert rows(tmp_path / "b") == before
        store.bulk_load(KEYS + 10**6, np.zeros(len(KEYS)))
        small.budget_bytes = small.used_bytes() + 50_000
        with pytest.raises(cesium.StorageFullError):
            backups.backup(store._engine, small, links=False)
        assert rows(tmp_path / "b") == before
        small.budget_bytes = 1 << 30
        backups.backup(store._engine, small, links=False)
        assert rows(tmp_path / "b") == dict(store.items())


# --- the command line --------------------------------------------------------


def test_the_commands(tmp_path: Path) -> None:
    with filled(tmp_path / "s") as store:
        expected, sequence = dict(store.items()), store.sequence
        said = succeed("backup", tmp_path / "s", tmp_path / "b")  # beside a writer
        assert f"{tmp_path / 'b'}: up to commit {sequence}, " in said and "bytes linked" in said
        said = succeed("backup", tmp_path / "s", tmp_path / "b", "--json")
        assert json.loads(said)["kept_bytes"] > 0
    said = succeed("backup", tmp_path / "s", tmp_path / "c", "--copy")
    assert "copied" in said and "linked" not in said
    assert "not to be incremental" in fail(1, "backup", tmp_path / "s", tmp_path / "c", "--full")
    said = succeed("restore", tmp_path / "b", tmp_path / "r")
    assert f"{tmp_path / 'r'}: up to commit {sequence}" in said
    assert rows(tmp_path / "r") == rows(tmp_path / "c") == expected
    assert json.loads(succeed("restore", tmp_path / "c", tmp_path / "r2", "--copy", "--json"))
    assert "something is there" in fail(1, "restore", tmp_path / "b", tmp_path / "r")
    assert "no store at" in fail(1, "backup", tmp_path / "none", tmp_path / "b")
    assert "no backup at" in fail(1, "restore", tmp_path / "none", tmp_path / "x")
    fail(2, "backup", tmp_path / "s")
    name = max(inodes(tmp_path / "c"), key=lambda name: (tmp_path / "c" / name).stat().st_size)
    data = bytearray((tmp_path / "c" / name).read_bytes())
    data[5000] ^= 1
    (tmp_path / "c" / name).write_bytes(data)
    assert "the backup is damaged" in fail(4, "restore", tmp_path / "c", tmp_path / "x")
    assert name in fail(4, "backup", tmp_path / "c", tmp_path / "y", "--copy")


def test_ctrl_c_in_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path / "s") as store:
        expected = dict(store.items())
    for command, number in (("backup", 2), ("restore", 1)):
        source, dest = ("s", "b") if command == "backup" else ("b", "r")
        with monkeypatch.context() as patch:
            interrupted_at(patch, number, KeyboardInterrupt())
            result = run(command, tmp_path / source, tmp_path / dest)
            assert (result.exit_code, result.stdout) == (130, "")
        with pytest.raises((cesium.CorruptionError, FileExistsError, FileNotFoundError)):
            cesium.open(tmp_path / dest, flag="r")
        succeed(command, tmp_path / source, tmp_path / dest)
        assert rows(tmp_path / dest) == expected
        with cesium.open(tmp_path / "s", flag="r") as store:
            assert store.verify().ok and dict(store.items()) == expected
