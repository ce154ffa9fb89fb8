"""Writing one blob file beside its segment: contract in _blob_writer.pxd, bytes in docs/format.md.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

import os

from cesium._blobs cimport Blob, blob_damaged, blob_locate, blob_read, blob_seed
from cesium._files cimport operations_of
from cesium._layout cimport (
    BLOB_BYTES_MAX, BLOB_MAGIC, BlobHeader, FORMAT_VERSION, KIND_BLOB, KIND_VALUE, PAGE_BLOB,
    PAGE_BYTES, STATUS_CORRUPT, STATUS_IO, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK,
)
from cesium._native cimport crc32c
from cesium._page cimport page_copy_value
from cesium._page_writer cimport (
    page_writer_close, page_writer_flush, page_writer_open, page_writer_page, page_writer_pass,
    page_writer_seal,
)

from cesium.io_errors import raise_io


# --- which file a segment refers to --------------------------------------------------------------


cdef int note_use(BlobSink *sink, uint64_t blob_id, uint64_t bytes) noexcept nogil:
    """Counts one pointer; neighbours in a segment mostly come from few files."""
    cdef uint32_t low = 0
    cdef uint32_t high = sink.use_count
    cdef uint32_t middle
    cdef BlobUse *larger
    while low < high:
        middle = (low + high) >> 1
        if sink.uses[middle].blob_id < blob_id:
            low = middle + 1
        else:
            high = middle
    if low == sink.use_count or sink.uses[low].blob_id != blob_id:
        if sink.use_count == sink.use_capacity:
            larger = <BlobUse *>realloc(
                sink.uses, (<uint64_t>sink.use_capacity * 2 + 16) * sizeof(BlobUse))
            if larger == NULL:
                return STATUS_NO_MEMORY
            sink.uses = larger
            sink.use_capacity = sink.use_capacity * 2 + 16
        memmove(sink.uses + low + 1, sink.uses + low, (sink.use_count - low) * sizeof(BlobUse))
        sink.uses[low].blob_id = blob_id
        sink.uses[low].bytes = 0
        sink.uses[low].rows = 0
        sink.use_count += 1
    sink.uses[low].bytes += bytes
    sink.uses[low].rows += 1
    return STATUS_OK


cdef bint is_moved(const BlobSink *sink, uint64_t blob_id) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = sink.moved_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if sink.moved[middle] < blob_id:
            low = middle + 1
        else:
            high = middle
    return low < sink.moved_count and sink.moved[low] == blob_id


# --- writing -------------------------------------------------------------------------------------


cdef int open_from_nogil(BlobSink *sink) noexcept with gil:
    cdef BlobOutput output = <BlobOutput>sink.output
    try:
        output.open_file()
    except BaseException as failure:    # kept, raised by check
        output.failure = failure
        return STATUS_IO
    return STATUS_OK


cdef int pass_page(BlobSink *sink) noexcept nogil:
    sink.filled = 0
    sink.file_checksum = crc32c(sink.file_checksum, page_writer_page(&sink.writer), PAGE_BYTES)
    return page_writer_pass(&sink.writer)


cdef int align(BlobSink *sink) noexcept nogil:
    """Zeros up to the next multiple of 8: a view of numbers is aligned."""
    cdef uint32_t gap = -sink.filled & 7
    if gap:
        memset(page_writer_page(&sink.writer) + sink.filled, 0, gap)
        sink.filled += gap
    return pass_page(sink) if sink.filled == PAGE_BYTES else STATUS_OK


cdef int append(BlobSink *sink, const uint8_t *data, const ValueOrigin *origin, uint64_t bytes,
                uint32_t *checksum, uint32_t *read_checksum) noexcept nogil:
    """Bytes from memory or an overflow run, through the page in the making; checksums go on."""
    cdef uint8_t *place
    cdef uint64_t done = 0
    cdef uint64_t step
    cdef int status
    while done < bytes:
        place = page_writer_page(&sink.writer) + sink.filled
        step = min(bytes - done, <uint64_t>(PAGE_BYTES - sink.filled))
        if origin != NULL:
            status = page_copy_value(origin.page, origin.slot, origin.source, done, place, step)
            if status != STATUS_OK:
                return status
        else:
            memcpy(place, data + done, step)
        checksum[0] = crc32c(checksum[0], place, step)
        if read_checksum != NULL:
            read_checksum[0] = crc32c(read_checksum[0], place, step)
        done += step
        sink.filled += <uint32_t>step
        if sink.filled == PAGE_BYTES:
            status = pass_page(sink)
            if status != STATUS_OK:
                return status
    return STATUS_OK


cdef int put(BlobSink *sink, const uint8_t *data, const ValueOrigin *origin, uint64_t bytes,
             uint32_t *read_checksum, BlobPointer *made) noexcept nogil:
    cdef uint32_t checksum
    cdef int status = STATUS_OK
    if bytes == 0 or bytes > BLOB_BYTES_MAX:
        return STATUS_LIMIT
    if not sink.open:
        status = open_from_nogil(sink)
        if status != STATUS_OK:
            return status
    made.blob_id = sink.blob_id
    made.offset = blob_sink_bytes(sink)
    made.bytes = bytes
    checksum = blob_seed(made.blob_id, made.offset)
    status = append(sink, data, origin, bytes, &checksum, read_checksum)
    if status == STATUS_OK:
        status = align(sink)
    made.checksum = checksum
    sink.value_bytes += bytes
    return status if status != STATUS_OK else note_use(sink, sink.blob_id, bytes)


cdef int blob_sink_put(BlobSink *sink, const Value *value, const ValueOrigin *origin,
                       BlobPointer *made) noexcept nogil:
    return put(sink, value.data, origin, value.bytes, NULL, made)


cdef int move(BlobSink *sink, Blob *blob, const BlobPointer *pointer,
              BlobPointer *made) noexcept nogil:
    """A value from one blob file to another; what is written is what was checked."""
    cdef uint32_t found = blob_seed(pointer.blob_id, pointer.offset)
    cdef const uint8_t *data
    cdef int status = blob_locate(blob, pointer, &data)
    if status == STATUS_OK:
        status = put(sink, data, NULL, pointer.bytes, &found, made)
    if status == STATUS_OK and found != pointer.checksum:
        return blob_damaged(blob, pointer, found)
    return status


cdef int take_in(BlobSink *sink, Blob *blob, const BlobPointer *pointer,
                 Value *value) noexcept nogil:
    """A value below the threshold out of its blob file, whole and checked."""
    cdef uint8_t *larger
    if pointer.bytes > sink.scratch_bytes:
        larger = <uint8_t *>realloc(sink.scratch, pointer.bytes)
        if larger == NULL:
            return STATUS_NO_MEMORY
        sink.scratch = larger
        sink.scratch_bytes = pointer.bytes
    value.kind = KIND_VALUE
    value.data = sink.scratch
    value.bytes = pointer.bytes
    return blob_read(blob, pointer, sink.scratch)


cdef int blob_sink_pass(BlobSink *sink, const PageSource *source, const BlobPointer *pointer,
                        Value *value, BlobPointer *made) noexcept nogil:
    cdef Blob *blob
    cdef bint leaves = pointer.bytes < sink.threshold
    cdef int status
    if leaves or is_moved(sink, pointer.blob_id):
        blob = source.blob_of(source.context, pointer.blob_id) if source.blob_of != NULL else NULL
        if blob == NULL:
            return STATUS_CORRUPT
        if leaves:
            return take_in(sink, blob, pointer, value)
        status = move(sink, blob, pointer, made)
    else:
        made[0] = pointer[0]
        status = note_use(sink, pointer.blob_id, pointer.bytes)
    value.kind = KIND_BLOB
    value.data = <const uint8_t *>made
    value.bytes = sizeof(BlobPointer)
    return status


cdef int blob_sink_finish(BlobSink *sink) noexcept nogil:
    cdef int status = STATUS_OK
    if not sink.open:
        return STATUS_OK
    if sink.filled:
        memset(page_writer_page(&sink.writer) + sink.filled, 0, PAGE_BYTES - sink.filled)
        status = pass_page(sink)
    return status if status != STATUS_OK else page_writer_flush(&sink.writer, True)


# --- Python --------------------------------------------------------------------------------------


@cython.no_gc_clear         # the writer's account is the counters'
cdef class BlobOutput:
    """The blob file of one segment in the making, if it comes to one.

    files: the store's cesium.files.Files.  name: of the file in it.  threshold: values of so many
    bytes or more go into it, smaller ones that lie in another come out of there; 0: neither.
    moved: ids of blob files whose values are written anew.  A SegmentBuilder uses and ends it.
    """

    def __cinit__(self, *args, **kwargs):
        self.fd = -1

    def __init__(self, object files, str name, uint64_t blob_id, bytes store_uuid not None,
                 uint64_t table_id=0, uint64_t threshold=0, moved=()):
        if self.sink.output != NULL:
            raise ValueError("this output was used already")
        ids = sorted(set(moved))
        self.files = files
        self.name = name
        self.path = files.path(name)
        self.store_uuid = store_uuid
        self.table_id = table_id
        self.sink.output = <void *>self
        self.sink.blob_id = blob_id
        self.sink.threshold = threshold
        if ids:
            self.sink.moved = <uint64_t *>malloc(len(ids) * sizeof(uint64_t))
            if self.sink.moved == NULL:
                raise MemoryError
            for place, number in enumerate(ids):
                self.sink.moved[place] = number
            self.sink.moved_count = <uint32_t>len(ids)

    def __dealloc__(self):
        if self.sink.open:
            page_writer_close(&self.sink.writer)
        free(self.sink.moved)
        free(self.sink.uses)
        free(self.sink.scratch)
        if self.fd >= 0:
            os.close(self.fd)

    cdef int open_file(self) except -1:
        cdef uint8_t *page
        cdef BlobHeader *header
        cdef int status
        self.fd = self.files.open_direct(self.name, 0).fd
        self.made = True
        if page_writer_open(&self.sink.writer, self.fd, operations_of(self.files.operations),
                            self.sink.blob_id, self.counters):
            raise MemoryError
        self.sink.open = True
        page = page_writer_page(&self.sink.writer)
        memset(page, 0, PAGE_BYTES)
        header = <BlobHeader *>page
        header.type = PAGE_BLOB
        header.magic = BLOB_MAGIC
        header.format_version = FORMAT_VERSION
        memcpy(header.store_uuid, PyBytes_AS_STRING(self.store_uuid), 16)
        header.blob_id = self.sink.blob_id
        header.table_id = self.table_id
        status = page_writer_seal(&self.sink.writer)
        self.sink.file_checksum = crc32c(0, page, PAGE_BYTES)
        return self.check(status)

    cdef int check(self, int status) except -1:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if status == STATUS_IO and self.sink.open and self.sink.writer.error:
            raise_io(self.sink.writer.error, self.path)
        return 0

    @property
    def made_file(self):
        """(bytes, checksum of all of them, bytes of the values) of the file; None without one."""
        if not self.made:
            return None
        return blob_sink_bytes(&self.sink), self.sink.file_checksum, self.sink.value_bytes

    @property
    def blob_id(self):
        """The id of the file."""
        return self.sink.blob_id

    def is_sound(self):
        """Whether neither making nor writing the file has failed."""
        return self.failure is None and self.sink.writer.error == 0

    def uses(self):
        """What the segment refers to: [(blob id, bytes of values, rows), ...], ascending."""
        return [(self.sink.uses[place].blob_id, self.sink.uses[place].bytes,
                 self.sink.uses[place].rows) for place in range(self.sink.use_count)]

    cdef int close(self) except -1:
        fd = self.fd
        self.fd = -1
        if self.sink.open:
            with nogil:
                page_writer_close(&self.sink.writer)
            self.sink.open = False
        if fd >= 0:
            self.files.close(fd)
        return 0

    cdef int abort(self, bint own) except -1:
        """Drops everything and removes the file; a forked child's copy (not own) leaves it."""
        self.close()
        if self.made and own:
            self.files.remove(self.name)
        self.made = False
        return 0
