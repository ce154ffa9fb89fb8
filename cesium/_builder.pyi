from typing import TypedDict

import numpy as np
import numpy.typing as npt

from cesium._blob_writer import BlobOutput
from cesium._counters import Counters
from cesium._page import TableShape
from cesium._segment import UNBOUNDED_UPPER as UNBOUNDED_UPPER
from cesium._segment import SegmentReader
from cesium.files import Files

_Bytes = bytes
_Key = int | bytes

class _Made(TypedDict):
    id: int
    rows: int
    delete_markers: int
    range_deletes: int
    lower: _Bytes
    upper: _Bytes
    page_count: int
    bytes: int
    checksum: int
    key_bytes: int
    value_bytes: int
    first_sequence: int
    last_sequence: int
    blobs: list[tuple[int, int, int]]

class SegmentBuilder:
    def __init__(
        self,
        files: Files,
        name: str,
        segment_id: int,
        store_uuid: _Bytes,
        shape: TableShape,
        *,
        filter_keys: int = 0,
        first_sequence: int = 0,
        last_sequence: int = 0,
        table_id: int = 0,
        origin: _Bytes = b"",
        blobs: BlobOutput | None = None,
        counters: Counters | None = None,
    ) -> None: ...
    @property
    def blobs(self) -> BlobOutput: ...
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    def add(self, key: _Key, value: _Bytes | None) -> None: ...
    def add_columns(self, heads: npt.NDArray[np.uint64], rows: npt.NDArray[np.uint8]) -> None: ...
    def add_pairs(
        self, pairs: npt.NDArray[np.uint64], rows: npt.NDArray[np.uint8] | None = None
    ) -> None: ...
    def add_segment(
        self, reader: SegmentReader, lower: int = 0, upper: int | None = None
    ) -> None: ...
    def add_marker(self, lower: _Key, upper: _Key | None) -> None: ...
    def finish(self) -> _Made: ...
    def abort(self) -> None: ...
