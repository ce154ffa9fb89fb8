"""Delimited text as columns of cells, read as a stream, so its size does not matter.

Blocks of rows about which nothing is odd are parsed by Arrow where it is installed, and their cells
are `ArrowCells`; all else is parsed by `csv`, row by row.  What comes of them is the same.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from cesium.cli._arrow_cells import ArrowCells
from cesium.cli._blocks import BLOCK_BYTES, Blocks, parsed
from cesium.cli._formats import open_bytes
from cesium.cli._rejects import Rejects

PIECE_ROWS = 8192  # larger pieces wake the garbage collector: 3 times as slow at 300,000 rows
ODD_BYTES = 1 << 15  # parsed by `csv` where something in it is odd
LEAST_BYTES = 1 << 14  # worth Arrow's while

Odd = tuple[int, str, Any] | click.ClickException  # a bad row, or what ends the reading


class _Lines:
    """The lines that come next, for `csv.reader`; blocks of `size` bytes are taken as they go."""

    def __init__(self, blocks: Blocks, size: int) -> None:
        self.count = 0  # of the blocks that were taken
        self._blocks = blocks
        self._size = size
        self._last: list[str] = []

    def give_back(self, line: int) -> None:
        """The lines after the one of that number, of those in the last block."""
        if line < self.count:
            self._blocks.skip(-len("".join(self._last[line - self.count :]).encode()))

    def __iter__(self) -> Iterator[str]:
        while block := self._blocks.peek(self._size):
            self._blocks.skip(len(block))
            broken = None
            try:
                text = block.decode()
            except UnicodeDecodeError as error:
                broken = error
                good = block[: error.start]
                text = good[: max(good.rfind(b"\n"), good.rfind(b"\r")) + 1].decode()
            self._last = list(io.StringIO(text, newline=""))
            self.count += len(self._last)
            yield from self._last
            if broken is not None:
                raise broken


class CsvSource:
    """An open file of delimited text: its header, its rows, and how much of it was read."""

    def __init__(
        self,
        blocks: Blocks,
        position: Callable[[], int],
        bytes_total: int,
        delimiter: str,
        rejects: Rejects,
    ) -> None:
        self.position = position
        self.bytes_total = bytes_total
        self._blocks = blocks
        self._delimiter = delimiter
        self._rejects = rejects
        self._line = 0  # how many were taken
        self._odd: Odd | None = None  # what ended the rows
        lines = _Lines(blocks, 1)
        reader = csv.reader(lines, strict=True, delimiter=delimiter)
        try:
            self.header = next(reader, [])
        except csv.Error as error:
            raise click.ClickException(f"line 1: {error}") from None
        except UnicodeDecodeError:
            raise click.ClickException("the text is not UTF-8") from None
        if not self.header:
            raise click.ClickException("the file is empty; a first line with names is expected")
        if len(set(self.header)) < len(self.header) or "" in self.header:
            raise click.ClickException("the first line must name every column, each once")
        self._line = reader.line_num
        lines.give_back(self._line)

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows as columns of cells, a piece at a time, with the line where each begins."""
        size = BLOCK_BYTES
        while block := self._blocks.peek(size):
            columns = None
            if len(block) >= LEAST_BYTES:
                columns = parsed(block, self.header, self._delimiter)
            if columns is not None:
                self._blocks.skip(len(block))
                first = self._line + 1
                self._line += len(columns[0])
                yield range(first, self._line + 1), list(map(ArrowCells, columns))
            elif len(block) >= LEAST_BYTES and size > ODD_BYTES:
                size = max(size // 4, ODD_BYTES)
                continue
            else:
                yield from self._row_by_row(size)
            size = min(2 * size, BLOCK_BYTES)

    def _row_by_row(self, size: int) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows of the next lines, and of more lines where the last row does not end there."""
        lines = _Lines(self._blocks, size)
        reader = csv.reader(lines, strict=True, delimiter=self._delimiter)
        while True:
            rows = self._rows(reader, lines)
            while piece := list(itertools.islice(rows, PIECE_ROWS)):
                numbers, cells = zip(*piece)
                yield numbers, list(zip(*cells, strict=True))
            odd, self._odd = self._odd, None  # told after the rows before it
            if odd is None:
                break
            if isinstance(odd, click.ClickException):
                raise odd
            self._rejects.add(*odd)
        self._line += reader.line_num

    def _rows(self, reader: Any, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
        """The rows up to one that is none."""
        width = len(self.header)
        while not lines.count or reader.line_num < lines.count:
            line = self._line + reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._odd = line, str(error), None
                return
            except UnicodeDecodeError:
                after = self._line + reader.line_num
                self._odd = click.ClickException(f"after line {after}: the text is not UTF-8")
                return
            if len(row) == width:
                yield line, row
            elif row:
                self._odd = line, f"{len(row)} cells instead of {width}", row
                return


@contextmanager
def open_source(
    path: Path, delimiter: str = ",", rejects: Rejects | None = None
) -> Iterator[CsvSource]:
    """Opens plain or compressed text by its suffix."""
    with open_bytes(path) as (binary, position, bytes_total):
        yield CsvSource(Blocks(binary), position, bytes_total, delimiter, rejects or Rejects())
