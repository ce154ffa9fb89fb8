"""Figures of a benchmark as people read them."""

from __future__ import annotations

from cesium.benchmark.reading import Work
from cesium.figures import seconds_text

# Why a share of a limit, by the words that the limit's name begins with, may be above 1.
ABOVE_WHOLE = {
    "sync": "a run of few syncs counts one more or less, and the drive's own figure varies",
    "random read": "memory answered a part, or one read of the drive several calls",
    "sequential read": "memory answered a part",
    "sequential write": "fewer bytes were written than the rows have, or memory held a part",
}
THOUSANDS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def count_text(count: float) -> str:
    """Three digits and a letter: "950", "1.31 M", "28.5 M"."""
    for size, letter in THOUSANDS:
        if count >= size * 0.9995:  # what would be rounded up to it
            return f"{_digits(count / size)} {letter}"
    return _digits(count) if count else "0"


def _digits(number: float) -> str:
    if number >= 1e6:
        return f"{number:.3g}"
    if number >= 99.95:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"


def figure_text(figure: float | None, unit: str) -> str:
    """A figure with its unit: "1.31 M ops/s", "0.42 ms"; nothing where there is none."""
    if figure is None:
        return ""
    if unit == "s":
        return seconds_text(figure)
    return f"{count_text(figure)} {unit}".replace(" ops/s", "/s")


def ratio_text(value: float) -> str:
    """A ratio: "0.042", "1.03", "12.5", "240"."""
    if value < 0.0995:
        return f"{value:.2g}"
    return _digits(value)


def micros_text(micros: float) -> str:
    """A latency: "0.71 us", "12.5 ms"."""
    return seconds_text(micros / 1e6)


def data_text(work: Work) -> str:
    """What the work was done on: "u64 + 8 B, 1.00 M rows, 2 threads"."""
    threads = f", {work.threads} threads" if work.threads != 1 else ""
    return f"{work.key} + {size_text(work.value)}, {count_text(work.rows)} rows{threads}"


def size_text(size: int) -> str:
    """Bytes without a fraction where there is none: "8 B", "64 KiB"."""
    return f"{size} B" if size % 1024 or not size else f"{size // 1024} KiB"


def above_whole_text(limit: str) -> str:
    """What a share of more than the whole of a drive's limit means."""
    reasons = (reason for start, reason in ABOVE_WHOLE.items() if limit.startswith(start))
    return f"More than the whole of {limit}: {next(reasons, 'the figure of the drive varies')}."
