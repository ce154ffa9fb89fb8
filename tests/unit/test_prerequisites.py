"""What the Makefile asks before the first build: silence, or one line that says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "prerequisites.sh"


def ask(python: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), str(python)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
    )


def wrapped(tmp_path: Path, case: str) -> Path:
    """This interpreter behind a script that answers one of the questions otherwise."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$2" in {case};; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


def test_nothing_is_missing() -> None:
    answer = ask(sys.executable)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("case", "piece"),
    [
        ("*'(3, 11)'*) exit 1", "Python 3.11 or later is needed"),
        ("*ensurepip*) exit 1", "cannot make virtual environments"),
        ("*Python.h*) echo /nowhere/Python.h; exit 0", "Python.h"),
        ("*) exit 1", "does not run"),
    ],
)
def test_one_line_says_what_is_missing(tmp_path: Path, case: str, piece: str) -> None:
    answer = ask(wrapped(tmp_path, case))
    assert answer.returncode == 1 and answer.stdout == ""
    assert piece in answer.stderr and answer.stderr.count("\n") == 1


def test_no_such_interpreter() -> None:
    answer = ask("python-that-is-not-there")
    assert answer.returncode == 1
    assert "was not found" in answer.stderr and answer.stderr.count("\n") == 1


def test_no_compiler() -> None:
    answer = ask(sys.executable, CC="compiler-that-is-not-there -O2")
    assert answer.returncode == 1
    assert "no C compiler" in answer.stderr and answer.stderr.count("\n") == 1


def ask_fuzz(python: object, clang: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(SCRIPT.with_name("fuzz_prerequisites.sh")), str(python), clang],
        capture_output=True, text=True, env={"PATH": path},
    )  # fmt: skip


def test_one_line_says_what_fuzzing_lacks(tmp_path: Path) -> None:
    answer = ask_fuzz(sys.executable, "clang-that-is-not-there", "/usr/bin:/bin")
    assert answer.returncode == 1 and answer.stdout == ""
    assert "needs clang" in answer.stderr and answer.stderr.count("\n") == 1
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexit 1\n")  # has no atheris, and cannot install it
    python.chmod(0o755)
    answer = ask_fuzz(python, "sh", "/usr/bin:/bin")
    assert answer.returncode == 1 and answer.stdout == ""
    assert "needs atheris" in answer.stderr and answer.stderr.count("\n") == 1
