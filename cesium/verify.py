"""Scrub: read every page of every live segment from the drive and check all that can be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from cesium.directory import segment_name
from cesium.engine import StoreEngine
from cesium.errors import Error

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged place: the file, its page (None: the file as a whole), and what is wrong."""

    file: str
    page: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification found: files and pages read, and every problem."""

    files: int
    pages: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """The report in JSON's terms."""
        return {"ok": self.ok, **asdict(self)}


def verify(engine: StoreEngine, progress: Progress | None = None) -> Report:
    """Checks every live segment; progress is called with the pages read, a file at a time.

    The journal and the manifest were checked when the store was opened.
    """
    problems: list[Problem] = []
    pages = 0
    readers = engine.core.version.segments()  # holding them pins the files
    for reader in readers:
        path = engine.files.path(segment_name(reader.record.id))
        try:
            for page, what, expected, found in reader.verify():
                message = f"{what} (expected {expected}, found {found})"
                problems.append(Problem(path, page, message))
        except (Error, OSError) as error:
            problems.append(Problem(path, None, str(error)))
        pages += reader.record.pages
        if progress is not None:
            progress(reader.record.pages)
    return Report(len(readers), pages, problems)
