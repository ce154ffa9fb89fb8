"""The door to the file system: both backends do the same, and failures are told apart."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from cesium.errors import StorageFullError
from cesium.files import UNFINISHED, Files, MemoryFiles
from cesium.io_errors import raise_io


@pytest.fixture(params=["posix", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    made = Files(tmp_path / "store") if request.param == "posix" else MemoryFiles()
    made.make_directory()
    made.make_directory()
    assert made.exists()
    return made


def write(files: Files, name: str, data: bytes) -> None:
    fd = files.create(name)
    files.write_all(fd, data, 0)
    files.close(fd)


def test_write_read_list_unlink(files: Files) -> None:
    write(files, "b", b"second")
    write(files, "a", b"first")
    assert files.list() == ["a", "b"]
    assert files.read_all("a") == b"first"
    assert files.read_all("b", 3) == b"sec"
    assert files.size("b") == 6
    files.unlink("a")
    files.unlink("a")
    assert files.list() == ["b"]
    with pytest.raises(FileNotFoundError):
        files.read_all("a")
    with pytest.raises(FileNotFoundError):
        files.size("a")


def test_create_replaces_and_an_open_descriptor_keeps_the_old(files: Files) -> None:
    write(files, "a", b"old")
    write(files, "a", b"n")
    assert files.read_all("a") == b"n"


def test_rename_replaces(files: Files) -> None:
    write(files, "a", b"new")
    write(files, "b", b"old")
    files.rename("a", "b")
    assert files.list() == ["b"]
    assert files.read_all("b") == b"new"
    with pytest.raises(FileNotFoundError):
        files.rename("a", "c")


def test_publish_names_a_whole_file(files: Files) -> None:
    fd = files.create("m" + UNFINISHED)
    files.write_all(fd, b"content", 0)
    assert files.list() == ["m" + UNFINISHED]
    files.sync_file(fd, files.path("m.new"))
    files.publish("m")
    assert files.list() == ["m"]
    files.write_all(fd, b"C", 0)  # the descriptor goes on being that file's
    files.close(fd)
    assert files.read_all("m") == b"Content"


def test_read_sparse_reads_data_and_knows_where_it_ends(files: Files) -> None:
    fd = files.create("s", 1 << 20)
    files.write_all(fd, b"x" * 10, 0)
    files.write_all(fd, b"y" * 10, 300_000)
    content, end = files.read_sparse("s")
    files.close(fd)
    assert len(content) == 1 << 20
    assert 300_010 <= end <= 300_010 + 65536
    expected = np.zeros(1 << 20, np.uint8)
    expected[:10] = ord("x")
    expected[300_000:300_010] = ord("y")
    assert np.array_equal(content, expected)


def test_read_sparse_of_an_empty_file(files: Files) -> None:
    write(files, "empty", b"")
    content, end = files.read_sparse("empty")
    assert len(content) == 0 and end == 0


def test_mappings_share_the_file(files: Files) -> None:
    fd = files.create("m", 8192)
    writable = files.map_writable(fd, 8192)
    writable[5000] = 7
    mapped = files.map_readonly("m")
    assert isinstance(mapped, np.memmap)
    assert mapped[5000] == 7 and len(mapped) == 8192
    with pytest.raises(ValueError):
        mapped[0] = 1
    files.close(fd)


def test_open_direct_takes_aligned_writes(files: Files) -> None:
    fd, alignment, direct = files.open_direct("d", 1 << 20)
    assert alignment >= 4096 and alignment & (alignment - 1) == 0
    buffer = np.zeros(3 * alignment, np.uint8)
    start = -buffer.ctypes.data % alignment
    aligned = buffer[start : start + alignment]
    aligned[:] = 9
    files.write_all(fd, aligned.data, alignment)
    files.sync_data(fd)
    files.close(fd)
    assert files.size("d") == 1 << 20
    assert files.read_all("d")[alignment : 2 * alignment] == bytes([9]) * alignment
    if isinstance(files, MemoryFiles):
        assert not direct


def test_direct_is_refused_where_the_file_system_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path)
    real = os.open

    def refusing(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O here")
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    fd, alignment, direct = files.open_direct("d", 4096)
    assert not direct and alignment == 4096
    files.write_all(fd, b"odd", 1)
    files.close(fd)
    assert files.read_all("d")[:4] == b"\0odd"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_drive_is_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = Files(tmp_path)

    def full(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageFullError) as caught:
        files.create("big", 1 << 20)
    assert caught.value.errno == number
    assert caught.value.filename == files.path("big")
    assert files.list() == [], "nothing is left behind"
    with pytest.raises(StorageFullError):
        raise_io(-number, "some file")


def test_other_failures_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        raise_io(errno.EIO, "some file")
    assert not isinstance(caught.value, StorageFullError)
    assert caught.value.errno == errno.EIO and caught.value.filename == "some file"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        Files(tmp_path / "file").make_directory()
    with pytest.raises(FileNotFoundError):
        Files(tmp_path / "no" / "parent").make_directory()


def test_memory_files_give_their_memory_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    files = MemoryFiles()
    for name in "abc":
        write(files, name, b"x")
    files.unlink("a")
    files.rename("b", "c")
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del files
    assert len(os.listdir("/proc/self/fd")) == before
