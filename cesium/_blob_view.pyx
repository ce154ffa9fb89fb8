"""A value as a view of the file that it lies in.

What is pinned is the mapping, by the memoryview: it outlives the version, the store and the name of
the file.  The value is checked before the view is given out, under the guard of a call; what the
caller reads later is read without one.
"""

from libc.stdint cimport uint64_t

from cesium._blobs cimport Blob, BlobReader, blob_read
from cesium._counters cimport count_filters
from cesium._faults cimport fault_counter, faults_seen
from cesium._layout cimport BlobPointer, KIND_BLOB, KIND_MASK, STATUS_CORRUPT, STATUS_OK
from cesium._page cimport Key, kind_of, page_blob_pointer
from cesium._ranges cimport View
from cesium._reads cimport TableReads
from cesium._version cimport Found, found_whole, version_find

cdef const uint64_t *FAULTS = fault_counter()
cdef object MISSING = object()


def value_view(TableReads table not None, key):
    """The value of a key as a read-only memoryview; KeyError without one."""
    cdef Key encoded
    cdef Found found
    cdef View view
    cdef BlobPointer pointer
    cdef Blob *blob = NULL
    cdef uint64_t seen = faults_seen(FAULTS)
    cdef int status
    table.check_readable()
    if table.values_codec.spec != "bytes":
        raise TypeError(f"a view is of a value that is bytes, not {table.values_codec.spec!r}")
    _holder = table.lookup_key(key, &encoded)
    if _holder is None:
        raise KeyError(key)
    view = table.pinned()
    with nogil:
        status = version_find(table.shape, view.items, view.count, &encoded, False, &found)
    if status != STATUS_OK or (
            kind_of(found.position.page, found.position.slot) & KIND_MASK) != KIND_BLOB:
        value = table.value_of(status, &found, MISSING, view.version, seen)
        if value is MISSING:
            raise KeyError(key)
        return memoryview(value)
    count_filters(table.engine.counters, &found.filters)
    page_blob_pointer(found.position.page, found.position.slot, &pointer)
    with nogil:
        status = found_whole(&found)
        if status == STATUS_OK:
            blob = found.source.blob_of(found.source.context, pointer.blob_id)
            status = STATUS_CORRUPT if blob == NULL else blob_read(blob, &pointer, NULL)
    view.version.check(status, seen)
    return (<BlobReader>blob.reader).view(pointer.offset, pointer.bytes)
