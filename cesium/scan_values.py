"""Which of the values that a segment points to in blob files cannot be read.

Blob files are read whole from the drive, against the checksum in the records; then every value that
is pointed to is checked through the mapping, so that what is damaged has keys.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass

from cesium._blobs import BlobReader
from cesium._segment import SegmentReader
from cesium._segment_verify import damaged_values
from cesium.checksum import crc32c
from cesium.errors import Error
from cesium.files import Files
from cesium.scan_segment import CHUNK_BYTES, PAGE_BYTES, Keys, read_chunks


@dataclass(frozen=True, slots=True)
class BadValue:
    """One damaged place in a blob file: its path, the offset in it, the keys and rows it affects.

    keys: None where no row is affected, or (where rows is above 0) all of the segment's may be.
    """

    path: str
    offset: int | None
    message: str
    keys: Keys | None
    rows: int


# What is wrong with blob files as a whole, by id: None where nothing is; those looked at so far.
FileProblems = dict[int, str | None]


def file_checksum(files: Files, name: str, paced: Callable[[int], None]) -> tuple[int, int]:
    """Size and checksum of a file, read from the drive up to whole pages; (0, 0) of a missing one.

    What cannot be read counts as zeros.
    """
    checksum = 0
    try:
        size = files.size(name)
        view = memoryview(mmap.mmap(-1, CHUNK_BYTES))
        for piece in read_chunks(files, name, view, paced, size // PAGE_BYTES * PAGE_BYTES):
            checksum = crc32c(piece, checksum)
    except FileNotFoundError:
        return 0, 0
    return size, checksum


def file_problem(blob: BlobReader, paced: Callable[[int], None]) -> str | None:
    """What is wrong with a blob file as a whole, dead values and gaps included."""
    size, checksum = file_checksum(blob.files, blob.name, paced)
    if size == 0 or not blob.file_bytes:
        return None  # merged away meanwhile, or its values tell; not known
    if size != blob.file_bytes:
        return f"{blob.path}: the file has {size} bytes, not {blob.file_bytes}"
    if checksum != blob.checksum:
        return (
            f"{blob.path}: some of its bytes are damaged (checksum of the file: expected "
            f"{blob.checksum:#x}, found {checksum:#x})"
        )
    return None


def bad_values(
    reader: SegmentReader, known: FileProblems, paced: Callable[[int], None]
) -> list[BadValue]:
    """What is wrong with the values of a segment in blob files.

    known: problems of files that were told before; grows.
    """
    found: list[BadValue] = []
    unreadable: set[int] = set()
    shares = {share.id: share for share in reader.record.blobs}
    for blob in reader.blobs:
        try:
            blob.map()
        except (Error, OSError) as error:
            unreadable.add(blob.id)
            known.setdefault(blob.id, str(error))
            rows = shares[blob.id].rows
            found.append(BadValue(blob.path, None, str(error), None, rows))
            continue
        if blob.id not in known:
            known[blob.id] = problem = file_problem(blob, paced)
            if problem is not None:
                found.append(BadValue(blob.path, None, problem, None, 0))
    paths = {blob.id: blob.path for blob in reader.blobs}
    for key, number, offset in damaged_values(reader):
        if number in unreadable:
            continue
        path = paths.get(number, reader.path)
        message = f"{path}: a value at {offset} is damaged"
        found.append(BadValue(path, offset, message, (key, key), 1))
    return found
