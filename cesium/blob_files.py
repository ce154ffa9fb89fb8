"""The blob files of a store: one reader each, however many segments refer to it.

Segments hold the readers of the blob files that they refer to, and versions hold segments: so a
version pins blob files as it pins segments.  A blob file goes when no segment of the manifest
refers to it any more, after its last pin.

Thread safety: any thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

from cesium._blobs import BlobReader
from cesium.directory import blob_name
from cesium.files import Files
from cesium.state import BlobShare, SegmentRecord


class BlobFiles:
    """Readers by id; one that nobody holds is forgotten."""

    def __init__(self, files: Files, store_uuid: bytes) -> None:
        self.files = files
        self.store_uuid = store_uuid
        self._readers: weakref.WeakValueDictionary[int, BlobReader] = weakref.WeakValueDictionary()
        self._mutex = threading.RLock()  # a finalizer in the midst may drop a segment

    def reader(self, blob_id: int, file_bytes: int = 0, checksum: int = 0) -> BlobReader:
        """The reader of a blob file; nothing is touched before its first use."""
        with self._mutex:
            found = self._readers.get(blob_id)
            if found is None:
                found = BlobReader(
                    self.files, blob_name(blob_id), blob_id, file_bytes, checksum, self.store_uuid
                )
                self._readers[blob_id] = found
            return found

    def readers(self, record: SegmentRecord) -> list[BlobReader]:
        """The readers of the blob files that a segment refers to."""
        return [self.reader(share.id, share.file_bytes, share.checksum) for share in record.blobs]

    def drop(self, removed: Iterable[SegmentRecord], live: Iterable[SegmentRecord]) -> None:
        """Lets go of the blob files that only removed segments refer to."""
        kept = {share.id for record in live for share in record.blobs}
        for number in {share.id for record in removed for share in record.blobs} - kept:
            self.doom(number)

    def doom(self, blob_id: int) -> None:
        """Unlinks a blob file after its last pin, at once where nobody holds it."""
        self.reader(blob_id).doomed = True


def shares_of(
    uses: Iterable[tuple[int, int, int]], known: dict[int, tuple[int, int, int]]
) -> tuple[BlobShare, ...]:
    """A record's shares from a builder's uses; known: the files (BlobOutput.made_file) by id."""
    return tuple(BlobShare(number, *known[number], size, rows) for number, size, rows in uses)


def files_of(records: Iterable[SegmentRecord]) -> dict[int, tuple[int, int, int]]:
    """The blob files that segments refer to, by id: bytes, checksum, bytes of values."""
    return {
        share.id: (share.file_bytes, share.checksum, share.value_bytes)
        for record in records
        for share in record.blobs
    }
