"""The interval of keys that a segment touches, as the manifest records it.

docs/format-segment.md, "Bounds in the manifest": both ends inclusive, cut to 512 bytes.
"""

from __future__ import annotations

import bisect
from typing import Any

from cesium._segment import UNBOUNDED_UPPER
from cesium.scan_segment import Encoded, SegmentScan

KEY_INLINE_BYTES = 512
Json = dict[str, Any]


class Covered:
    """Intervals of encoded keys, joined where they overlap."""

    def __init__(self) -> None:
        self._lowers: list[bytes] = []
        self._uppers: list[bytes] = []

    def _touched(self, lower: bytes, upper: bytes) -> tuple[int, int]:
        return bisect.bisect_left(self._uppers, lower), bisect.bisect_right(self._lowers, upper)

    def overlaps(self, lower: bytes, upper: bytes) -> bool:
        """Whether a key of the interval, both ends inclusive, lies in another."""
        first, end = self._touched(lower, upper)
        return first < end

    def add(self, lower: bytes, upper: bytes) -> None:
        """One more interval."""
        first, end = self._touched(lower, upper)
        if first < end:
            lower = min(lower, self._lowers[first])
            upper = max(upper, self._uppers[end - 1])
        self._lowers[first:end] = [lower]
        self._uppers[first:end] = [upper]


def bounds_of(looked: SegmentScan, footer: Json | None, key_width: int) -> tuple[bytes, bytes]:
    """The bounds of a segment as the manifest records them (docs/format-segment.md)."""
    lowers: list[bytes] = []
    uppers: list[bytes] = []
    if footer is not None and footer["entries"]:
        lowers.append(footer["min_key"])
        cut = footer["key_flags"] & 2
        uppers.append(footer["max_key"] + b"\xff" if cut else footer["max_key"])
    elif looked.lower is not None and looked.upper is not None:
        lowers.append(_as_bytes(looked.lower))
        uppers.append(_as_bytes(looked.upper))
    if looked.markers_lost:
        lowers.append(bytes(8) if key_width else b"")
        uppers.append(b"\xff" * 8 if key_width else UNBOUNDED_UPPER)
    for lower, upper in looked.markers:
        lowers.append(_as_bytes(lower)[:KEY_INLINE_BYTES])
        uppers.append(_marker_upper(upper, key_width))
    if not lowers:
        return b"", b""
    upper = max(uppers)
    if len(upper) > KEY_INLINE_BYTES and upper != UNBOUNDED_UPPER:
        upper = above(upper[:KEY_INLINE_BYTES])
    return min(lowers)[:KEY_INLINE_BYTES], upper


def _marker_upper(upper: Encoded | None, key_width: int) -> bytes:
    if upper is None:
        return b"\xff" * 8 if key_width else UNBOUNDED_UPPER
    if isinstance(upper, int):
        return _as_bytes(upper - 1)
    assert isinstance(upper, bytes)
    return upper


def _as_bytes(key: Encoded) -> bytes:
    return key.to_bytes(8, "big") if isinstance(key, int) else key


def above(key: bytes) -> bytes:
    """The shortest string above every string that begins with `key`."""
    stripped = key.rstrip(b"\xff")
    if not stripped:
        return UNBOUNDED_UPPER
    return stripped[:-1] + bytes([stripped[-1] + 1])
