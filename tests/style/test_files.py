"""What holds for every file of the project: its size, its lines, and that it names no machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# About 600 lines of compiled code, or 400 of Python; a test file may list more cases.
LINES_MAX = {".pyx": 700, ".h": 700, ".py": 400}
TEST_LINES_MAX = 1100
COLUMNS_MAX = 100
CODE = {".py", ".pyx", ".pxd", ".pyi", ".h"}

# Files allowed to be longer, each with the reason why it is still one noun.
LONGER: dict[str, tuple[int, str]] = {
    "cesium/_builder.pyx": (1020, "every kind of page of one file, in the order they are written"),
    "cesium/files.py": (470, "every call to the file system there is, and the same in memory"),
    "cesium/_segment.pyx": (980, "every check that a hostile file must pass before it is read"),
}

# Written in two pieces so that this file does not find itself.
MACHINE_PATH = re.compile("/" + r"(?:home|root|Users|work|var/folders)/[\w.]")


def tracked_files() -> list[Path]:
    try:
        listing = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """The file's text, or nothing for binary files such as the golden ones."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def test_no_machine_paths() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked_files()
        if path.name != "LICENSE"
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "paths of one machine:\n" + "\n".join(found)


def test_the_pattern_finds_machine_paths() -> None:
    assert MACHINE_PATH.search("see " + "/" + "home/someone/cesium")
    assert not MACHINE_PATH.search("https://example.org/homes/x and ~/work")


def lines_max(name: str) -> int | None:
    if name.startswith("tests/") and name.endswith(".py"):
        return TEST_LINES_MAX
    return LINES_MAX.get(Path(name).suffix)


def test_files_stay_small() -> None:
    found = []
    for path in tracked_files():
        name = str(path.relative_to(ROOT))
        limit = LONGER[name][0] if name in LONGER else lines_max(name)
        if limit is not None and (lines := len(text_of(path).splitlines())) > limit:
            found.append(f"{name}: {lines} lines, at most {limit}")
    assert not found, "asking to become two nouns:\n" + "\n".join(found)


def test_listed_files_are_really_longer() -> None:
    for name, (limit, reason) in LONGER.items():
        lines = len(text_of(ROOT / name).splitlines())
        assert (lines_max(name) or 0) < lines <= limit, f"{name}: {lines} lines"
        assert reason


def test_lines_fit() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked_files()
        if path.suffix in CODE
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if len(line) > COLUMNS_MAX or line != line.rstrip()
    ]
    assert not found, "too long, or blanks at the end:\n" + "\n".join(found)
