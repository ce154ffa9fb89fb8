from collections.abc import Callable, Iterable, Iterator

from cesium._blobs import BlobReader
from cesium._page import TableShape
from cesium.files import Files
from cesium.state import SegmentRecord

UNBOUNDED_UPPER: bytes

def blob_id_of(reader: BlobReader) -> int: ...

class SegmentReader:
    doomed: bool
    def __init__(
        self,
        record: SegmentRecord,
        files: Files,
        name: str,
        shape: TableShape,
        store_uuid: bytes | None = None,
        blobs: Iterable[BlobReader] = (),
    ) -> None: ...
    @property
    def blobs(self) -> tuple[BlobReader, ...]: ...
    record: SegmentRecord
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def files(self) -> Files: ...
    def map(self) -> None: ...
    def read_ahead(self, *, check: bool = False, threads: int = 1) -> None: ...
    def footer(self) -> dict[str, object]: ...
    def page(self, number: int) -> bytes: ...
    def verify(
        self, paced: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, str, object, object]]: ...
