"""JSON Lines as columns of cells: an object a line, the names of whose members are the columns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from cesium.cli._csv import Odd
from cesium.cli._formats import open_text
from cesium.cli._infer import Literal
from cesium.cli._numbers import NumberCells, is_numeric
from cesium.cli._rejects import Rejects

PIECE_ROWS = 1024  # objects that stay in the processor's cache: 8192 took a quarter longer
# Of a text and where its value begins: the value, and where it ends.  `json.loads` of a short line
# takes twice as long.
scan: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]


def cells_of(values: list[Any]) -> Sequence[str]:
    """The cells of a column."""
    if is_numeric(values):
        return NumberCells(values)
    return values if set(map(type, values)) == {str} else list(map(cell_of, values))


def cell_of(value: Any) -> str:
    """A string as it is, anything else as its JSON; nothing for null."""
    kind = type(value)
    if kind is str:
        text: str = value
        return text
    if kind is int or (kind is float and value - value == 0):  # JSON has no other floats
        return Literal(value)  # json.dumps takes ten times as long
    return Literal() if value is None else Literal(json.dumps(value, ensure_ascii=False))


class JsonSource:
    """An open file: the first object names the columns; members that others lack are absent."""

    def __init__(
        self, text: TextIO, position: Callable[[], int], bytes_total: int, rejects: Rejects
    ) -> None:
        self.position = position
        self.bytes_total = bytes_total
        self._lines = enumerate(text, 1)
        self._line = 0
        self._rejects = rejects
        self._odd: Odd | None = None  # what ended the rows
        self._known: frozenset[str] = frozenset()
        while (first := next(self._objects(), None)) is None:
            if not self._tell():
                raise click.ClickException(
                    "the file is empty; an object of JSON a line is expected"
                )
        self._first = first
        self.header = list(first[1])
        self._known = frozenset(self.header)

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows as columns of cells, a piece at a time, with the line of each."""
        rows: Iterator[tuple[int, dict[str, Any]]]
        rows = itertools.chain([self._first], self._objects())
        while True:
            while piece := list(itertools.islice(rows, PIECE_ROWS)):
                lines, objects = zip(*piece)
                yield (
                    lines,
                    [cells_of([found.get(name) for found in objects]) for name in self.header],
                )
            if not self._tell():
                return
            rows = self._objects()

    def _tell(self) -> bool:
        """Tells what ended the rows, after they were taken; whether there may be more."""
        odd, self._odd = self._odd, None
        if isinstance(odd, click.ClickException):
            raise odd
        if odd is not None:
            self._rejects.add(*odd)
        return odd is not None

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows up to one that is none."""
        try:
            for number, line in self._lines:
                self._line = number
                try:
                    found, end = scan(line, 0)
                    whole = line[end:] in ("\n", "\r\n", "")
                except (StopIteration, ValueError, RecursionError):
                    whole = False
                if not whole:
                    if not line.strip():
                        continue
                    try:
                        found = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        self._odd = number, f"no JSON: {error}", line.rstrip("\r\n")
                        return
                if not isinstance(found, dict) or not found:
                    self._odd = number, "no object with members", found
                    return
                if self._known and not found.keys() <= self._known:
                    more = min(found.keys() - self._known)
                    what = f"a member '{more}' that the first object has not"
                    self._odd = number, what, found
                    return
                yield number, found
        except UnicodeDecodeError:
            self._odd = click.ClickException(f"after line {self._line}: the text is not UTF-8")


@contextmanager
def open_source(path: Path, rejects: Rejects) -> Iterator[JsonSource]:
    """Opens plain or compressed JSON Lines by its suffix."""
    with open_text(path) as (text, position, bytes_total):
        yield JsonSource(text, position, bytes_total, rejects)
