"""JSON Lines as columns of cells: an object a line, the names of whose members are the columns."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from cesium.cli._csv import PIECE_ROWS
from cesium.cli._formats import open_text
from cesium.cli._infer import Literal
from cesium.cli._rejects import Rejects


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
        self._text = text
        self._rejects = rejects
        self._known: frozenset[str] = frozenset()
        self._all = self._objects()
        first = next(self._all, None)
        if first is None:
            raise click.ClickException("the file is empty; an object of JSON a line is expected")
        self.header = list(first[1])
        self._known = frozenset(self.header)
        self._all = itertools.chain([first], self._all)

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """The rows as columns of cells, a piece at a time, with the line of each."""
        while piece := list(itertools.islice(self._all, PIECE_ROWS)):
            lines, objects = zip(*piece)
            yield (
                lines,
                [[cell_of(found.get(name)) for found in objects] for name in self.header],
            )

    def _objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        number = 0
        try:
            for number, line in enumerate(self._text, 1):
                if not line.strip():
                    continue
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError) as error:
                    self._rejects.add(number, f"no JSON: {error}", line.rstrip("\r\n"))
                    continue
                if not isinstance(found, dict) or not found:
                    self._rejects.add(number, "no object with members", found)
                elif self._known and not found.keys() <= self._known:
                    more = min(found.keys() - self._known)
                    what = f"a member '{more}' that the first object has not"
                    self._rejects.add(number, what, found)
                else:
                    yield number, found
        except UnicodeDecodeError:
            raise click.ClickException(f"after line {number}: the text is not UTF-8") from None


@contextmanager
def open_source(path: Path, rejects: Rejects) -> Iterator[JsonSource]:
    """Opens plain or compressed JSON Lines by its suffix."""
    with open_text(path) as (text, position, bytes_total):
        yield JsonSource(text, position, bytes_total, rejects)
