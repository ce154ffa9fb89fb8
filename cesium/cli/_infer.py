"""What types the columns of a text file have.

Types are found by a pass over the whole file, not guessed from a sample: what the first pass has
seen, the second one can convert.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

FIXED_TEXT_BYTES = 64
FIXED_ROW_BYTES = 512
EXACT_FLOAT = 1 << 53
FLOAT_DIGITS = 308  # of a whole number, so that it is finite

NULLS = frozenset(["", "NA"])

# Without leading zeros: 007 is a code, not a number.
INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?inf(?:inity)?|nan",
    re.IGNORECASE,
)
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2})?Z?)?")
TIME_FRACTION = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?Z?)?"
)


class Literal(str):
    """The text of what is no string in a JSON file; of null: nothing."""

    __slots__ = ()


class Source(Protocol):
    """An open file: the names of its columns, its rows, and how much of it was read."""

    header: list[str]
    bytes_total: int
    position: Callable[[], int]

    def pieces(self) -> Iterator[tuple[Sequence[int], list[Any]]]:
        """Pieces of columns, and the line of the file where each row begins."""


def _is_integer(cell: str) -> bool:
    return INTEGER.fullmatch(cell) is not None and -(2**63) <= int(cell) < 2**63


def _is_time(cell: str, pattern: re.Pattern[str] = TIME) -> bool:
    if pattern.fullmatch(cell) is None:
        return False
    try:
        np.datetime64(cell.removesuffix("Z"))
    except ValueError:  # the 30th of February
        return False
    return True


def _is_float(cell: str) -> bool:
    """Whole numbers that a float would round are left as text: no two keys become one."""
    if FLOAT.fullmatch(cell) is None:
        return False
    digits = cell.lstrip("+-")
    if not digits.isdigit():
        return True
    return len(digits) <= FLOAT_DIGITS and int(float(digits)) == int(digits)


# In the order of preference; text is what is left.
TYPES: dict[str, Callable[[str], bool]] = {
    "i8": _is_integer,
    "f8": _is_float,
    "datetime64[s]": _is_time,
    "datetime64[us]": lambda cell: _is_time(cell, TIME_FRACTION),
    "bool": lambda cell: cell in ("true", "false"),
}
OF_TEXT = ("datetime64[s]", "datetime64[us]")  # of strings that JSON tells from numbers


class Cells(Sequence[str]):
    """Cells of a column that can be looked at as a whole.

    Every answer is that of the same question asked of the cells one by one, by `Facts` and
    `_convert.convert`.  They have the attributes of Facts.
    """

    @property
    @abstractmethod
    def has_nulls(self) -> bool: ...

    @abstractmethod
    def are(self, name: str) -> bool:
        """Whether all cells that are not absent are of one of TYPES."""

    @abstractmethod
    def converted(self, dtype: str, literal: bool) -> Any:
        """As `_convert.convert`, or None where the cells must be asked one by one."""


class Facts:
    """What is known of the cells of a piece, which are looked at one by one."""

    def __init__(self, cells: Sequence[str]) -> None:
        distinct = set(cells)
        self._content = distinct - NULLS
        self.has_nulls = len(self._content) < len(distinct)
        self.has_cells = bool(self._content)
        self.nested = any(type(cell) is Literal and cell[:1] in ("{", "[") for cell in cells)
        self._distinct = distinct

    def are(self, name: str) -> bool:
        """Whether all cells that are not absent are of one of TYPES."""
        return all(map(TYPES[name], self._content))

    @property
    def exact(self) -> bool:
        """Whether float64 holds them, when they are integers."""
        return all(abs(int(cell)) <= EXACT_FLOAT for cell in self._content)

    @property
    def ascii(self) -> bool:
        return all(map(str.isascii, self._distinct)) and not any("\0" in c for c in self._distinct)

    @property
    def text_bytes_max(self) -> int:
        """Of what is ASCII."""
        return max(map(len, self._distinct), default=1)


@dataclass
class Column:
    """What is known of one column after the pass over the file."""

    name: str
    possible: list[str] = field(default_factory=lambda: list(TYPES))
    has_nulls: bool = False
    has_cells: bool = False
    nested: bool = False  # objects or arrays of JSON
    exact: bool = True  # as float64, when integers have gaps
    text_bytes_max: int = 1
    ascii: bool = True

    def see(self, cells: Sequence[str]) -> None:
        """Takes note of the cells of a piece."""
        facts: Any = cells if isinstance(cells, Cells) else Facts(cells)
        self.has_nulls |= facts.has_nulls
        self.has_cells |= facts.has_cells
        self.nested |= facts.nested
        self.possible = [name for name in self.possible if facts.are(name)]
        if "i8" in self.possible:
            self.exact = self.exact and facts.exact
        self.ascii = self.ascii and facts.ascii
        self.text_bytes_max = max(self.text_bytes_max, facts.text_bytes_max)

    def see_strings(self, cells: Sequence[str]) -> None:
        """The same of JSON, where a string is no number, whatever it says."""
        self.see(cells)
        if not isinstance(cells, Cells) and any(
            type(cell) is str and cell not in NULLS for cell in cells
        ):
            self.possible = [name for name in self.possible if name in OF_TEXT]

    @property
    def type(self) -> str:
        """The type without regard to nulls: a numpy dtype's name, or `str`."""
        if not self.has_cells:
            return "f8" if self.has_nulls else "str"
        return self.possible[0] if self.possible else "str"

    @property
    def dtype(self) -> str | None:
        """The fixed-width dtype that holds every cell, nulls included; None when there is none."""
        if self.nested:
            return None
        if self.type == "str":
            fixed = self.ascii and self.text_bytes_max <= FIXED_TEXT_BYTES
            return f"S{self.text_bytes_max}" if fixed else None
        if self.type == "i8" and self.has_nulls:
            return "f8" if self.exact else None
        if self.type == "bool" and self.has_nulls:
            return None
        return self.type


def infer(source: Source, advance: Callable[[int], None], strings: bool = False) -> list[Column]:
    """Finds the type of every column; `advance` is told the position in the file.

    strings: the file tells strings from numbers.
    """
    columns = [Column(name) for name in source.header]
    for _, piece in source.pieces():
        for column, cells in zip(columns, piece, strict=True):
            column.see_strings(cells) if strings else column.see(cells)
        advance(source.position())
    return columns
