"""What a verification reports: problems, by file and as a whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from cesium.showing import Grid, Look, plain, shown

SHOWN_MOST = 20  # problems, and notes


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


@dataclass(frozen=True, slots=True, repr=False)
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

    def _look(self) -> Look:
        facts = [f"{self.files:,} files, {self.pages:,} pages and {self.frames:,} frames read"]
        notes = [f"{part.file}: {note}" for part in self.details for note in part.notes]
        lines = [_problem_cells(problem) for problem in self.problems[:SHOWN_MOST]]
        if len(self.problems) > SHOWN_MOST:
            facts.append(f"the first {SHOWN_MOST} of the problems:")
        found = f"{len(self.problems):,} problems" if self.problems else "all is well"
        header = ("file", "page", "problem", "keys", "rows lost")
        return Look(
            f"<report: {found}>",
            [*facts, *(plain(note, 200) for note in notes[:SHOWN_MOST])],
            [Grid(header, lines, "", (False, True, False, False, True))],
        )

    def __repr__(self) -> str:
        return self._look().text()

    def _repr_html_(self) -> str:
        return self._look().html()

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's terms, but for the keys, which are the store's own."""
        return {"ok": self.ok, **asdict(self)}


def _problem_cells(problem: Problem) -> tuple[str, ...]:
    keys = "" if problem.keys is None else " to ".join(
        "..." if key is None else shown(key, 20) for key in problem.keys
    )  # fmt: skip
    return (
        plain(problem.file),
        "" if problem.page is None else f"{problem.page:,}",
        plain(problem.message, 100),
        keys,
        "" if problem.rows is None else f"{problem.rows:,}",
    )
