from typing import Final, Self

from cesium._builder import SegmentBuilder
from cesium._memtable import MemtableSnapshot
from cesium._version import Version

DONE: Final = 0
FULL: Final = 1
STOPPED: Final = 2
MORE: Final = 3

class Merge:
    def __new__(cls, version: Version, keep_markers: bool) -> Self: ...
    def write_markers(
        self, builder: SegmentBuilder, lower: bytes | None = None, upper: bytes | None = None
    ) -> None: ...
    def write(
        self,
        builder: SegmentBuilder,
        most_bytes: int,
        *,
        stop: bytes | None = None,
        slice_bytes: int = 0,
    ) -> int: ...
    @property
    def rows_read(self) -> int: ...
    @property
    def whole_pages(self) -> int: ...
    @property
    def whole_rows(self) -> int: ...
    def next_key(self) -> bytes | None: ...

def memtable_bounds(snapshot: MemtableSnapshot) -> tuple[bytes, bytes | None] | None: ...
