"""What is left of a damaged segment file: which pages are bad, which keys that touches, which rows
can still be read.

The file is read whole, from the drive where the file system has direct I/O; what cannot be read is
taken as zeros, which no checksum passes.  Every page is judged by itself (cesium._salvage), so that
neither footer nor fences need to be there; where they are, they say more.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cesium._blobs import BlobReader
from cesium._page import TableShape
from cesium._salvage import (
    DATA,
    FENCE,
    FOOTER,
    RANGE_DELETE,
    SegmentPages,
)
from cesium.errors import Error
from cesium.files import Bytes, Files
from cesium.state import FORMAT_VERSION

PAGE_BYTES = 4096
CHUNK_BYTES = 1 << 20
MISSING_PAGES_MOST = 1 << 15  # of a file that was cut off: what a record says may be anything
MAX_CUT = 2  # FOOTER_MAX_CUT
BLOB_PART = "blob"
KNOWN_INCOMPATIBLE = 1  # FEATURE_BLOB_LOG

Encoded = int | bytes
Keys = tuple[Encoded | None, Encoded | None]  # both may belong to it; None: no bound is known
Marker = tuple[Encoded, Encoded | None]


@dataclass(frozen=True, slots=True)
class BadPage:
    """One bad page: which part of the file it was in, the keys it held or masked, the rows lost.

    part "blob": a sound page with a row whose value in a blob file cannot be read.
    keys: None where no row is affected.  rows: None where nobody can count them.
    """

    number: int
    part: str
    keys: Keys | None
    rows: int | None


@dataclass(slots=True)
class SegmentScan:
    """What `scan` found.  `pages` copies the rows of `data_pages`, in key order."""

    pages: SegmentPages
    footer: dict[str, Any] | None
    data_pages: list[int]
    bad: list[BadPage]
    rows: int  # that can be read
    lost: int | None  # rows; None where neither footer nor record counts them
    markers: list[Marker] = field(default_factory=list)
    markers_lost: bool = False
    lower: Encoded | None = None  # of the rows that can be read
    upper: Encoded | None = None


def read_pages(files: Files, name: str, paced: Callable[[int], None]) -> Bytes:
    """A file's bytes (uint8), up to whole pages; zeros where the drive gives an error."""
    size = files.size(name) // PAGE_BYTES * PAGE_BYTES
    if size == 0:
        return np.zeros(0, np.uint8)
    memory = mmap.mmap(-1, size)  # aligned, as direct I/O wants it
    for _ in read_chunks(files, name, memoryview(memory), paced):
        pass
    return np.frombuffer(memory, np.uint8)


def read_chunks(
    files: Files, name: str, view: memoryview, paced: Callable[[int], None], size: int | None = None
) -> Iterator[memoryview]:
    """A file's bytes from the drive, by pieces; zeros where it gives an error.

    view: aligned memory; each piece has its place in it, or (where `size` is given, that much of
    the file) all of them have the first.
    """
    fd = files.open(name)
    try:
        _direct(fd, True)
        offset = 0
        end = len(view) if size is None else size
        while offset < end:
            step = min(CHUNK_BYTES, end - offset)
            start = offset if size is None else 0
            if not _read(files, fd, view[start : start + step], offset):
                for page in range(0, step, PAGE_BYTES):
                    _read(files, fd, view[start + page : start + page + PAGE_BYTES], offset + page)
            offset += step
            paced(step)
            yield view[start : start + step]
    finally:
        files.close(fd)


def _direct(fd: int, on: bool) -> None:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _read(files: Files, fd: int, view: memoryview, offset: int) -> bool:
    try:
        try:
            files.read_into(fd, view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _direct(fd, False)  # a file system that has no direct I/O after all
            files.read_into(fd, view, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        view[:] = bytes(len(view))
        return False
    return True


def find_footer(data: Bytes, segment_id: int) -> dict[str, Any] | None:
    """The footer of a segment's bytes: of its last page, or of the last sound one that is one.

    Error names a format version or features that this cesium cannot read.
    """
    pages = SegmentPages(data, segment_id, TableShape(8, 8, (8,)))
    for number in range(pages.count - 1, -1, -1):
        if data[number * PAGE_BYTES + 4] == FOOTER and pages.is_footer(number):
            footer = pages.footer(number)
            version, features = footer["format_version"], footer["incompatible_features"]
            if version != FORMAT_VERSION or features & ~KNOWN_INCOMPATIBLE:
                raise Error(
                    f"segment {segment_id} has format version {version} and features "
                    f"{features:#x}; this cesium reads version {FORMAT_VERSION} with features "
                    f"{KNOWN_INCOMPATIBLE:#x}"
                )
            return footer if fits(footer, number + 1) else None
    return None


def fits(footer: dict[str, Any], page_count: int) -> bool:
    """Whether the parts that a footer tells of follow one another within the file."""
    parts = ["fence_first", "range_delete_first", "filter_first", "page_count"]
    ends = [footer[name] for name in parts]
    return ends == sorted(ends) and footer["page_count"] == page_count


def shape_of(footer: dict[str, Any]) -> TableShape:
    """The shape of a segment's rows, by its own account; ValueError when there is no such shape."""
    return TableShape(footer["key_width"], footer["value_width"], footer["fields"])


def scan(
    data: Bytes,
    segment_id: int,
    shape: TableShape,
    entries: int | None = None,
    known_bad: Collection[int] = (),
    page_count: int = 0,
    blob_of: Callable[[int], BlobReader | None] | None = None,
) -> SegmentScan:
    """Looks at every page of a segment's bytes.

    entries: what the manifest counts.  known_bad: pages that the drive gave wrongly before.
    page_count: how many there ought to be; of those behind the end only the first 32,768 are told.
    blob_of: the reader of a blob file, so that values there can be read.
    """
    pages = SegmentPages(data, segment_id, shape, blob_of)
    types = pages.types()
    for number in known_bad:
        if number < len(types):
            types[number] = 0
    footer = find_footer(data, segment_id)
    page_count = min(page_count, len(types) + MISSING_PAGES_MOST)
    count = max(footer["page_count"] if footer else 0, page_count, 0 if footer else len(types))
    types = np.concatenate([types, np.zeros(max(0, count - len(types)), np.uint8)])[:count]
    layout = _Layout(pages, types, footer)
    surveys = {int(number): pages.survey(int(number)) for number in np.flatnonzero(types == DATA)}
    result = SegmentScan(
        pages, footer, sorted(surveys), [], sum(survey[0] for survey in surveys.values()), None
    )
    if entries is None and footer is not None:
        entries = footer["entries"]
    if entries is not None:
        result.lost = max(entries - result.rows, 0)
    result.markers, result.markers_lost = layout.markers()
    keys = [survey for survey in surveys.values() if survey[0]]
    if keys:
        result.lower, result.upper = keys[0][2], keys[-1][3]
    finder = _Intervals(surveys, layout.fences, pages.key_width, entries, limits_of(footer))
    for number in np.flatnonzero(types == 0).tolist():
        part = layout.part(number)
        if part == "range-delete":
            result.bad.append(BadPage(number, part, (None, None), None))
        elif part in ("data", "unknown"):
            result.bad.append(finder.bad_page(number, part))
        else:
            result.bad.append(BadPage(number, part, None, 0))
    result.bad += [
        BadPage(number, BLOB_PART, (key, key), 1)
        for number in (result.data_pages if pages.blobs else ())
        for key in pages.damaged_values(number)
    ]
    return result


def limits_of(footer: dict[str, Any] | None) -> Keys:
    """The smallest and the largest key by the footer; None for one that was cut."""
    if footer is None or not footer["entries"]:
        return None, None
    if footer["key_width"]:
        return int.from_bytes(footer["min_key"], "big"), int.from_bytes(footer["max_key"], "big")
    return footer["min_key"], None if footer["key_flags"] & MAX_CUT else footer["max_key"]


class _Layout:
    """Where the parts of the file lie, by the footer or by what the sound pages are."""

    def __init__(self, pages: SegmentPages, types: Any, footer: dict[str, Any] | None) -> None:
        self.pages = pages
        self.types = types
        self.count = len(types)
        self.footer = footer
        self.fences: dict[int, tuple[Encoded, int]] = {}  # by data page: first key, rank
        for number in np.flatnonzero(types == FENCE).tolist():
            level, entries = pages.fences_of(number)
            if level == 0:
                self.fences |= {child: (key, rank) for key, child, rank in entries}
        if footer is not None:
            self.data_end = footer["fence_first"]
        else:
            fences = np.flatnonzero(types == FENCE)
            self.data_end = int(fences[0]) if len(fences) else self.count

    def part(self, number: int) -> str:
        """The part of the file that a page belongs to."""
        if number < self.data_end:
            return "data"
        if self.footer is None:
            return "footer" if number == self.count - 1 else "unknown"
        if number < self.footer["range_delete_first"]:
            return "fence"
        if number < self.footer["filter_first"]:
            return "range-delete"
        return "filter" if number < self.count - 1 else "footer"

    def markers(self) -> tuple[list[Marker], bool]:
        """The range-delete markers that can be read, and whether some cannot."""
        if self.footer is not None:
            numbers = list(range(self.footer["range_delete_first"], self.footer["filter_first"]))
        else:
            numbers = np.flatnonzero(self.types == RANGE_DELETE).tolist()
        stream = b""
        lost = False
        for place, number in enumerate(numbers):
            if self.types[number] != RANGE_DELETE or number != numbers[0] + place:
                lost = True
                break
            stream += self.pages.payload(number)
        markers, whole = parse_markers(stream, self.pages.key_width)
        lost = lost or not whole
        if self.footer is not None:
            lost = lost or len(markers) != self.footer["range_deletes"]
        elif numbers:
            # A bad page right before or behind them may have been one of them.
            around = [numbers[0] - 1, numbers[-1] + 1]
            lost = lost or any(0 <= at < self.count and not self.types[at] for at in around)
        return markers, lost


class _Intervals:
    """The keys of pages that cannot be read, by the fences and by the pages beside them."""

    def __init__(
        self,
        surveys: dict[int, tuple[int, int, Encoded | None, Encoded | None]],
        fences: dict[int, tuple[Encoded, int]],
        key_width: int,
        entries: int | None,
        limits: Keys,
    ) -> None:
        self.surveys = surveys
        self.fences = fences
        self.children = sorted(fences)
        self.fixed = key_width != 0
        self.entries = entries
        self.limits = limits
        self.readable = sorted(number for number, survey in surveys.items() if survey[0])
        self.told: set[int] = set()  # data pages whose unreadable rows are accounted for

    def bad_page(self, number: int, part: str) -> BadPage:
        if self.fences and number not in self.fences:
            return self._overflow(number)
        rows = None
        at = bisect_right(self.children, number)
        following = self.children[at] if at < len(self.children) else None
        end = self.fences[following][1] if following is not None else self.entries
        if number in self.fences and end is not None:
            rows = max(end - self.fences[number][1], 0)
        return BadPage(number, part, self._around(number, number), rows)

    def _overflow(self, number: int) -> BadPage:
        """A run of overflow pages lies right before the page whose rows are in it."""
        at = bisect_right(self.children, number)
        page = self.children[at] if at < len(self.children) else None
        survey = self.surveys.get(page) if page is not None else None
        if page is None or survey is None:
            return BadPage(number, "overflow", self._around(number, number), None)
        rows = 0 if page in self.told else survey[1]
        self.told.add(page)
        return BadPage(number, "overflow", self._around(page, page), rows)

    def _around(self, first: int, last: int) -> Keys:
        before = bisect_right(self.readable, first - 1)
        behind = bisect_right(self.readable, last)
        lower = self.surveys[self.readable[before - 1]][3] if before else self.limits[0]
        upper = self.limits[1]
        if behind < len(self.readable):
            upper = self.surveys[self.readable[behind]][2]
        if self.fixed and first in self.fences and self.fences[first][1]:
            lower = self.fences[first][0]
        at = bisect_right(self.children, last)
        if self.fixed and first in self.fences and at < len(self.children):
            fence = self.fences[self.children[at]][0]
            assert isinstance(fence, int)
            upper = max(fence - 1, 0)
        return lower, upper


def parse_markers(stream: bytes, key_width: int) -> tuple[list[Marker], bool]:
    """The records of a range-delete stream, and whether it was whole and made sense."""
    markers: list[Marker] = []
    at = 0
    while at < len(stream):
        header = stream[at : at + 12]
        if len(header) < 12:
            return markers, False
        lower_bytes, upper_bytes = (
            int.from_bytes(header[0:4], "little"),
            int.from_bytes(header[4:8], "little"),
        )
        unbounded = header[8] == 1
        end = at + 12 + lower_bytes + upper_bytes
        if header[8] > 1 or end > len(stream) or (unbounded and upper_bytes):
            return markers, False
        if key_width and (lower_bytes != 8 or upper_bytes != (0 if unbounded else 8)):
            return markers, False
        lower: Encoded = stream[at + 12 : at + 12 + lower_bytes]
        upper: Encoded | None = None if unbounded else stream[at + 12 + lower_bytes : end]
        if key_width:
            lower = int.from_bytes(stream[at + 12 : at + 20], "big")
            upper = None if unbounded else int.from_bytes(stream[at + 20 : end], "big")
        if upper is not None and not _below(lower, upper):
            return markers, False
        if markers and (markers[-1][1] is None or not _below(markers[-1][1], lower)):
            return markers, False
        markers.append((lower, upper))
        at = end
    return markers, True


def _below(a: Any, b: Any) -> bool:
    return bool(a < b)
