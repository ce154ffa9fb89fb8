"""One verdict of an examination, and how its sentences show numbers.

Thread safety: nothing here changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    status: "ok", "warning" or "failed".  found: what is there.  advice: what it means for a store
    and what to do; empty when all is well.  figures: the numbers behind it.
    """

    name: str
    status: str
    found: str
    advice: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


def ok(name: str, found: str, **figures: Any) -> Check:
    """All is well."""
    return Check(name, OK, found, "", figures)


def warning(name: str, found: str, advice: str, **figures: Any) -> Check:
    """A store works, but slower or less safely than it could."""
    return Check(name, WARNING, found, advice, figures)


def failed(name: str, found: str, advice: str, **figures: Any) -> Check:
    """What a store relies on does not hold."""
    return Check(name, FAILED, found, advice, figures)


def shown_bytes(size: int) -> str:
    """A size for a sentence: "1.5 GiB"."""
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    number, unit = float(size), 0
    while number >= 1024 and unit < len(units) - 1:
        number, unit = number / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{number:.1f} {units[unit]}"
