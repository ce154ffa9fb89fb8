"""Which file system a store lies on, and the warning where it is none to rely on."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import cesium
from cesium._files import file_system_type
from cesium.file_system import FileSystem, Mount, file_system_of, mount_of
from cesium.files import Files, MemoryFiles
from command_line import ENVIRONMENT

TYPES = [
    (0x6969, "nfs", "network"), (0xFF534D42, "cifs", "network"), (0xFE534D42, "smb3", "network"),
    (0x65735546, "fuse", "fuse"), (0x01021997, "9p", "network"), (0x00C36400, "ceph", "network"),
    (0x5346414F, "afs", "network"), (0x0BD00BD0, "lustre", "network"), (0xEF53, "ext4", "local"),
    (0x01021994, "tmpfs", "memory"),
]  # fmt: skip


@pytest.fixture
def lies_on(monkeypatch: Any) -> Any:
    """Lets the door say that everything lies on some file system."""

    def fake(name: str, kind: str) -> None:
        monkeypatch.setattr(Files, "file_system", lambda files: FileSystem(name, kind))

    monkeypatch.setattr("cesium.file_system._warned", set())
    return fake


@pytest.mark.parametrize(("f_type", "name", "kind"), TYPES, ids=[case[1] for case in TYPES])
def test_types(f_type: int, name: str, kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("cesium.file_system.mount_of", lambda path: None)
    assert file_system_of(f_type, "/") == (name, kind)


def test_fuse_is_named_by_its_mount(monkeypatch: Any) -> None:
    mount = Mount("/mnt", "fuse.sshfs", "me@host:", ())
    monkeypatch.setattr("cesium.file_system.mount_of", lambda path: mount)
    assert file_system_of(0x65735546, "/mnt") == ("fuse.sshfs", "fuse")
    assert file_system_of(0x12345, "/mnt") == ("fuse.sshfs", "local")


def test_this_machine(tmp_path: Path) -> None:
    said = subprocess.run(
        ["stat", "-f", "-c", "%t", tmp_path], capture_output=True, text=True, check=True
    )
    assert file_system_type(tmp_path) == int(said.stdout, 16)
    files = Files(tmp_path / "not yet")
    assert files.file_system() == Files(tmp_path).file_system()
    assert MemoryFiles().file_system().kind == "memory"
    mount = mount_of(str(tmp_path))
    assert mount is not None and str(tmp_path).startswith(mount.point) and mount.options
    with pytest.raises(FileNotFoundError, match="nowhere"):
        file_system_type(tmp_path / "nowhere")


def test_the_mount_table(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    (tmp_path / "a b" / "c").mkdir(parents=True)
    where = str(tmp_path / "a b").replace(" ", "\\040")
    table.write_text(
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,nobarrier\n"
        f"2 1 0:5 /x {where} rw - nfs4 server:/x rw,vers=4\n"
        f"3 2 0:6 / {where} rw,noatime master:2 propagate_from:1 - fuse.sshfs me@host: rw\n"
        f"4 1 0:7 / {where}/cc rw - xfs /dev/sdb rw\n"
        "a line that is none\n"
    )
    found = mount_of(str(tmp_path / "a b" / "c"), str(table))
    assert found == (str(tmp_path / "a b"), "fuse.sshfs", "me@host:", ("rw", "noatime"))
    root = mount_of("/usr", str(table))
    assert root == ("/", "ext4", "/dev/sda1", ("rw", "relatime", "nobarrier"))
    assert mount_of("/", str(tmp_path / "missing")) is None


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [("nfs", "network", "another host"), ("fuse.sshfs", "fuse", "a program that cesium")],
)
def test_opening_warns_once_and_says_why(
    tmp_path: Path, lies_on: Any, name: str, kind: str, said: str
) -> None:
    lies_on(name, kind)
    with pytest.warns(cesium.FileSystemWarning) as caught:
        cesium.open(tmp_path / "s", key="u8", value="u8").close()
    (warning,) = caught
    text = str(warning.message)
    assert warning.filename == __file__, "the caller's line, not ours"
    for part in (
        str(tmp_path / "s"),
        name,
        said,
        "flock",
        "mapped pages",
        "sync",
        "filterwarnings",
    ):
        assert part in text, part
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cesium.open(tmp_path / "s").close()
        cesium.open(tmp_path / "s", flag="r").close()
    with pytest.warns(cesium.FileSystemWarning):
        cesium.open(tmp_path / "other", key="u8").close()


def test_read_only_openings_warn_too(tmp_path: Path, lies_on: Any) -> None:
    cesium.open(tmp_path / "s", key="u8", value="u8").close()
    lies_on("nfs", "network")
    with pytest.warns(cesium.FileSystemWarning, match="mapped pages may show"):
        cesium.open(tmp_path / "s", flag="r").close()


def test_as_an_error_it_opens_nothing(tmp_path: Path, lies_on: Any) -> None:
    lies_on("cifs", "network")
    with warnings.catch_warnings():
        warnings.simplefilter("error", cesium.FileSystemWarning)
        for _ in range(2):
            with pytest.raises(cesium.FileSystemWarning):
                cesium.open(tmp_path / "s", key="u8")
    assert not (tmp_path / "s").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=cesium.FileSystemWarning)
        cesium.open(tmp_path / "s", key="u8").close()


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_others_are_silent(tmp_path: Path, lies_on: Any, kind: str) -> None:
    lies_on("ext4", kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cesium.open(tmp_path / "s", key="u8").close()
        cesium.open(":memory:", key="u8").close()


def test_the_command_line_warns_in_one_line(tmp_path: Path) -> None:
    cesium.open(tmp_path / "s", key="u8", value="u8").close()
    code = (
        "import sys; from cesium.cli import main; from cesium.files import Files;"
        "from cesium.file_system import FileSystem;"
        "Files.file_system = lambda files: FileSystem('nfs', 'network'); main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "get", tmp_path / "s", "1"],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("cesium: warning: ") and "nfs" in lines[0]


def test_the_end_of_the_interpreter_is_silent() -> None:
    """MemoryFiles that live until the modules are gone."""
    code = (
        "import sys, cesium; store = cesium.open(':memory:', key='u8'); store[1] = b'x';"
        "sys.kept = [store]; import builtins; builtins.kept = store"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_files_that_were_never_made_are_dropped_silently() -> None:
    MemoryFiles.__new__(MemoryFiles).__del__()
