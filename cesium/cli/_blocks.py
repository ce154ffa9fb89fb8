"""A file of text as blocks of whole lines, so that its rows can be parsed many at once.

`parsed` takes only blocks of which Arrow's parser and Python's `csv` cannot but say the same; all
others are left to `csv`, whose words and line numbers for bad rows are the ones that users see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

BLOCK_BYTES = 1 << 21
MARK = b"\xef\xbb\xbf"  # of UTF-8, at the beginning of a file
LINE_BYTES = 1 << 16  # half of what `csv` takes as one cell


class Blocks:
    """What of a file was not taken yet.  Lines end as in Python: by \\n, \\r or both."""

    def __init__(self, binary: BinaryIO) -> None:
        self._binary = binary
        self._data = b""
        self._at = 0
        self._ended = False
        if self.peek(len(MARK)).startswith(MARK):
            self._at = len(MARK)

    def peek(self, size: int) -> bytes:
        """About so many bytes, ending with a line: at least one, but for the end of the file."""
        while True:
            rest = len(self._data) - self._at
            if rest < size and not self._ended:
                self._read(max(size, BLOCK_BYTES))
                continue
            if self._ended and rest <= size:
                return self._data[self._at :]
            if end := self._line_end(self._at + size):
                return self._data[self._at : end]
            size *= 2  # a long line

    def skip(self, size: int) -> None:
        """Leaves behind what was taken; fewer than 0 bytes of it are there again."""
        self._at += size

    def _read(self, size: int) -> None:
        more = self._binary.read(size)
        self._ended = not more
        self._data = self._data[self._at :] + more
        self._at = 0

    def _line_end(self, end: int) -> int:
        """Where the last line before `end` ends; 0: none does."""
        found = self._data.rfind(b"\n", self._at, end) + 1
        return found or self._data.rfind(b"\r", self._at, end - 1) + 1


def parsed(block: bytes, header: Sequence[str], delimiter: str) -> list[Any] | None:
    """The rows of a block as Arrow's arrays of text; None where only `csv` can tell.

    None, too, where Arrow is not installed.
    """
    if not _is_regular(block, delimiter):
        return None
    try:
        import pyarrow
        from pyarrow import csv
    except ImportError:
        return None
    pyarrow.enable_signal_handlers(False)  # its own lost 4 of 120 Ctrl-C while it parsed
    text = pyarrow.string()
    try:
        table = csv.read_csv(
            pyarrow.BufferReader(block),
            csv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=list(header)
            ),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(column_types=dict.fromkeys(header, text), strings_can_be_null=False),
        )
    except pyarrow.ArrowInvalid:  # too few or too many cells; no UTF-8
        return None
    rows = block.count(b"\n") + (not block.endswith(b"\n"))
    if table.num_rows != rows:  # lines without cells
        return None
    return [column.combine_chunks() for column in table.columns]


def _is_regular(block: bytes, delimiter: str) -> bool:
    if not block or b"\0" in block or block.startswith(MARK):
        return False
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        return False
    ends = range(0, len(block) - LINE_BYTES, LINE_BYTES)
    if any(block.find(b"\n", at, at + LINE_BYTES) < 0 for at in ends):
        return False
    return b'"' not in block or _has_regular_quotes(block, delimiter)


def _has_regular_quotes(block: bytes, delimiter: str) -> bool:
    """Whether quotes only enclose whole cells of one line each, or are doubled within them."""
    around = np.frombuffer(b"\n" + block + b"\n", np.uint8)
    quotes = np.flatnonzero(around == ord('"'))
    if len(quotes) % 2:
        return False
    lines = np.flatnonzero(around == ord("\n"))
    if (np.searchsorted(quotes, lines) % 2).any():  # within quotes
        return False
    bounds = np.zeros(256, np.bool_)
    bounds[list(f'{delimiter}\r\n"'.encode())] = True
    if not bounds[around[quotes[1::2] + 1]].all():
        return False
    bounds[ord("\r")] = False
    return bool(bounds[around[quotes[::2] - 1]].all())
