"""What a verification reports: problems, by file and as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged place: the file, its page (None: the file as a whole), and what is wrong.

    offset: in bytes.  keys: the first and the last key that may be affected, None for an end that
    nobody knows; the whole is None where no row is affected, or all may be.  rows: how many are
    lost with it, where that can be counted.
    """

    file: str
    page: int | None
    message: str
    offset: int | None = None
    keys: tuple[Any, Any] | None = None
    rows: int | None = None


@dataclass(slots=True)
class FileReport:
    """One file: kind is "segment", "journal" or "manifest".

    pages, frames: read.  readable_pages, readable_rows: of a segment, what can be read of it, None
    where that is all that was written.  notes: what is worth knowing and no damage.
    """

    file: str
    kind: str
    bytes: int = 0
    pages: int = 0
    frames: int = 0
    rows: int | None = None
    readable_pages: int | None = None
    readable_rows: int | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found: files, pages and frames read, and every problem.

    details: the same file by file.
    """

    files: int
    pages: int
    problems: list[Problem] = field(default_factory=list)
    frames: int = 0
    details: list[FileReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's terms, but for the keys, which are the store's own."""
        return {"ok": self.ok, **asdict(self)}
