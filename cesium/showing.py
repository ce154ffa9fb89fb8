"""What is shown of something, as plain text and as HTML for notebooks: a title, facts and grids.

Whatever comes out of a store is hostile here: control characters are replaced, so that no terminal
obeys them, and everything is escaped in HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

CELL_MOST = 60  # characters of one value
COLUMNS_MOST = 12


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of cells below a header; numbers and times to the right where `right` says so."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    right: Sequence[bool] = ()  # of each column; what is missing is to the right

    def text(self) -> str:
        """The title, and the rows below it in columns."""
        lines = [row for row in [self.header, *self.rows] if any(row)]
        widths = [max(map(len, column)) for column in zip(*lines)]
        text = [
            "  ".join(
                cell.rjust(width) if self._is_right(column) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths))
            ).rstrip()
            for row in lines
        ]
        return "\n".join([self.title, *(f"  {line}" for line in text)] if self.title else text)

    def html(self) -> str:
        """The same as a table."""
        head = f"<thead>{self._html_row(self.header, 'th')}</thead>" if any(self.header) else ""
        body = "".join(self._html_row(cells, "td") for cells in self.rows)
        title = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{title}{head}<tbody>{body}</tbody></table>"

    def _html_row(self, cells: Sequence[str], tag: str) -> str:
        sides = ("right" if self._is_right(column) else "left" for column in range(len(cells)))
        return "<tr>{}</tr>".format(
            "".join(
                f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
                for side, cell in zip(sides, cells)
            )
        )

    def _is_right(self, column: int) -> bool:
        return self.right[column] if column < len(self.right) else True


@dataclass(frozen=True, slots=True)
class Look:
    """One thing as it is shown: its title, what is known of it in a line each, and tables."""

    title: str
    facts: Sequence[str] = ()
    grids: Sequence[Grid] = field(default=())

    def text(self) -> str:
        """For a terminal."""
        parts = ["\n".join(filter(None, [self.title, *self.facts]))]
        parts += [grid.text() for grid in self.grids if grid.rows]
        return "\n\n".join(filter(None, parts))

    def html(self) -> str:
        """For a notebook: colours and fonts are those of the page around it."""
        title = f"<code>{escape(self.title)}</code>" if self.title else ""
        facts = "".join(f"<div>{escape(fact)}</div>" for fact in self.facts)
        grids = "".join(grid.html() for grid in self.grids if grid.rows)
        return (
            f'<div style="max-width:100%;overflow-x:auto">{title}'
            f'<div style="opacity:0.8;margin:0.2em 0 0.4em">{facts}</div>{grids}</div>'
        )


def plain(text: str, most: int = CELL_MOST) -> str:
    """One printable line of at most `most` characters."""
    if len(text) > 4 * most:  # before each character is looked at
        text = text[: 4 * most]
    text = " ".join(text.split()) if "\n" in text or "\r" in text else text
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def shown(value: Any, most: int = CELL_MOST) -> str:
    """A key or a value as one short line; never raises."""
    if isinstance(value, (str, bytes)):
        tail = "\u2026" if len(value) > most else ""
        return plain(repr(value[:most]) + tail, most)
    if type(value) is float:
        return repr(value) if len(repr(value)) <= 12 else f"{value:.10g}"
    if isinstance(value, tuple) and value:
        parts = ", ".join(shown(part, most) for part in value)
        return plain(f"({parts}{',' if len(value) == 1 else ''})", most)
    try:
        return plain(str(value), most)
    except Exception as error:  # a type of the user's own
        return f"<{type(value).__name__}: {type(error).__name__}>"
