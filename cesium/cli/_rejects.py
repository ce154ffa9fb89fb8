"""Rows that cannot be loaded: counted and written down, or an error at the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

import click


class Rejects:
    """path: a file of JSON Lines, {"line", "error", "row"}; None: the first row is an error.

    silent: neither; for a pass over the file before that which counts.
    """

    def __init__(self, path: Path | None = None, silent: bool = False) -> None:
        self.count = 0
        self.kept = path is not None or silent
        self._path = path
        self._file: TextIO | None = None

    def add(self, line: int, why: str, row: Any) -> None:
        """Takes note of a row, by the line of the file where it begins."""
        if not self.kept:
            raise click.ClickException(f"line {line}: {why}")
        self.count += 1
        if self._path is None:
            return
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8", errors="backslashreplace")
        said = {"line": line, "error": why, "row": row}
        self._file.write(json.dumps(said, ensure_ascii=False, default=str) + "\n")

    def close(self) -> None:
        """Ends the file, if there is one."""
        if self._file is not None:
            self._file.close()
