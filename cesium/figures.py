"""Figures as people read them: bytes and times."""

from __future__ import annotations

TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def bytes_text(size: int) -> str:
    """A number of bytes in binary units: "512 B", "1.5 MiB"."""
    if abs(size) < 1024:
        return f"{size} B"
    amount, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if abs(amount) >= 1024:
            amount, unit = amount / 1024, larger
    return f"{amount:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """A time with three digits: "0", "280 ns", "1.21 ms", "75.0 s"."""
    for size, unit in TIMES:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0"
