"""Delimited text as columns of cells, read as a stream, so its size does not matter."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from cesium.cli._formats import open_text
from cesium.cli._rejects import Rejects

PIECE_ROWS = 8192  # larger pieces wake the garbage collector: 3 times as slow at 300,000 rows


class CsvSource:
    """An open file of delimited text: its header, its rows, and how much of it was read."""

    def __init__(
        self,
        text: TextIO,
        position: Callable[[], int],
        bytes_total: int,
        delimiter: str,
        rejects: Rejects,
    ) -> None:
        self.position = position
        self.bytes_total = bytes_total
        self._rejects = rejects
        self._reader = csv.reader(text, strict=True, delimiter=delimiter)
        try:
            self.header = next(self._reader, [])
        except csv.Error as error:
            raise click.ClickException(f"line 1: {error}") from None
        except UnicodeDecodeError:
            raise click.ClickException("the text is not UTF-8") from None
        if not self.header:
            raise click.ClickException("the file is empty; a first line with names is expected")
        if len(set(self.header)) < len(self.header) or "" in self.header:
            raise click.ClickException("the first line must name every column, each once")

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows as columns of cells, a piece at a time, with the line where each begins."""
        rows = self._rows()
        while piece := list(itertools.islice(rows, PIECE_ROWS)):
            lines, cells = zip(*piece)
            yield lines, list(zip(*cells, strict=True))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        reader, width = self._reader, len(self.header)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._rejects.add(line, str(error), None)
                continue
            except UnicodeDecodeError:
                raise click.ClickException(
                    f"after line {reader.line_num}: the text is not UTF-8"
                ) from None
            if len(row) == width:
                yield line, row
            elif row:
                self._rejects.add(line, f"{len(row)} cells instead of {width}", row)


@contextmanager
def open_source(
    path: Path, delimiter: str = ",", rejects: Rejects | None = None
) -> Iterator[CsvSource]:
    """Opens plain or compressed text by its suffix."""
    with open_text(path) as (text, position, bytes_total):
        yield CsvSource(text, position, bytes_total, delimiter, rejects or Rejects())
