from typing import Self

from cesium._memtable import MemtableSnapshot
from cesium._page import TableShape
from cesium._segment import SegmentReader

_Source = MemtableSnapshot | list[SegmentReader]

class Version:
    row_count: int | None
    def __new__(
        cls,
        shape: TableShape,
        sources: list[_Source] | list[MemtableSnapshot] | list[list[SegmentReader]],
        last_run_is_base: bool,
    ) -> Self: ...
    @property
    def shape(self) -> TableShape: ...
    @property
    def number(self) -> int: ...
    @property
    def sources(self) -> list[_Source]: ...
    @property
    def last_run_is_base(self) -> bool: ...
    def segments(self) -> list[SegmentReader]: ...
