"""Running the command line in tests: in this process, in another one, on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

from click.testing import CliRunner, Result

import cesium
from cesium.cli import main

PACKAGE = str(Path(cesium.__file__).parents[1])
ENVIRONMENT = os.environ | {"PYTHONPATH": PACKAGE, "PYTHONSAFEPATH": "1"}
COMMAND = [sys.executable, "-c", "from cesium.cli import main; main(prog_name='cesium')"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(code: int, *arguments: object) -> str:
    """Runs what must fail with `code` and one line on standard error, which is returned."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("cesium: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def on_terminal(*arguments: object, columns: int = 60) -> str:
    """What a command prints on a terminal so wide, without colours."""
    control, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (50, columns))
    environment = ENVIRONMENT | {"TERM": "xterm"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=terminal, stderr=terminal, env=environment
    ):
        os.close(terminal)
        pieces = []
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while piece := os.read(control, 65536):
                pieces.append(piece)
    os.close(control)
    return re.sub(r"\x1b\[[0-9;]*m", "", b"".join(pieces).decode())
