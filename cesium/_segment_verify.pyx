"""Verifying one segment: every byte from the drive, then what the pages say of one another.

`verify(reader)` yields (page, what, expected, found) for each problem and raises only what is not
about the segment (no memory, no such file).  It may run beside readers.  First every page is read
afresh, with direct I/O where the file system has it, so that the page cache cannot hide a bad
drive; then the content is checked through the mapping: order of keys in and across pages, fences,
ranks, counts, filter.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cesium._blobs cimport Blob, blob_read
from cesium._faults cimport fault_counter, faults_seen
from cesium._files cimport FileOperations, operations_of
from cesium._layout cimport (
    BlobPointer, KEY_BYTES_MAX, KEY_INLINE_BYTES, KIND_BLOB, KIND_DELETE, KIND_MASK, PAGE_BYTES,
    PAGE_FILTER, STATUS_CORRUPT, STATUS_NO_MEMORY, STATUS_OK,
)
from cesium._native cimport compare_bytes, hash_bytes, hash_head, load_head
from cesium._page cimport (
    Key, PageSource, Shape, header_of, heads_of, kind_of, page_blob_pointer, page_copy_key,
    page_copy_value,
    page_key_bytes, page_value_bytes, page_value_inline,
)
from cesium._page_writer cimport page_checksum
from cesium._segment cimport (
    Segment, SegmentReader, segment_checked, segment_may_contain, segment_page,
    segment_rank_of_page, segment_route, segment_source,
)

import os

from cesium.errors import CorruptionError

cdef const uint64_t *FAULTS = fault_counter()

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <stdlib.h>

    #ifndef O_DIRECT
    #define O_DIRECT 0
    #endif

    /* Turns direct I/O on or off; a file system that has none says so here or at the first read. */
    static void read_directly(int fd, int on) {
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0) (void)fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
    }
    """
    void read_directly(int fd, int on) noexcept nogil
    const int EINVAL
    int posix_memalign(void **memory, size_t alignment, size_t size) noexcept nogil

cdef enum:
    CHUNK_PAGES = 256

cdef enum:                          # what can be wrong with an entry or a page
    FINE = 0
    KEYS_OUT_OF_ORDER = 1
    FENCE_WRONG = 2
    RANK_WRONG = 3
    FILTER_WRONG = 4
    VALUE_UNREADABLE = 5

MESSAGES = {
    KEYS_OUT_OF_ORDER: "keys are not in ascending order",
    FENCE_WRONG: "the fences lead a key of this page elsewhere",
    RANK_WRONG: "the fences count the entries before this page wrongly",
    FILTER_WRONG: "the filter does not know a key of this page",
    VALUE_UNREADABLE: "an overflowed key or value cannot be read",
}


cdef struct Totals:
    uint64_t entries
    uint64_t delete_markers
    uint64_t key_bytes
    uint64_t value_bytes
    uint8_t *last                   # the last key before the page in hand
    uint8_t *key                    # the key in hand
    uint8_t *first                  # the first key of all, at most 512 bytes
    uint32_t last_bytes
    uint32_t first_bytes
    uint64_t last_head


cdef int read_value(const uint8_t *page, uint32_t slot, const PageSource *source,
                    uint64_t bytes) noexcept nogil:
    """Reads an overflowed value through, piece by piece; not one in a blob file."""
    cdef uint8_t piece[4096]
    cdef uint64_t done = 0
    cdef uint64_t step
    cdef int status
    if page_value_inline(page, slot) != NULL or kind_of(page, slot) & KIND_MASK == KIND_BLOB:
        return STATUS_OK
    while done < bytes:
        step = min(bytes - done, <uint64_t>sizeof(piece))
        status = page_copy_value(page, slot, source, done, piece, step)
        if status != STATUS_OK:
            return status
        done += step
    return STATUS_OK


cdef int verify_page(Segment *segment, uint32_t ordinal, const uint8_t *page, Totals *totals,
                     uint32_t *slot) noexcept nogil:
    """The first problem of a data page; its checksum and bounds are checked."""
    cdef const Shape *shape = segment.shape
    cdef PageSource source
    cdef Key key
    cdef uint8_t *swap
    cdef uint64_t value_bytes
    cdef uint32_t routed = 0
    cdef uint32_t count = header_of(page).count
    cdef int problem = FINE
    cdef bint ascending
    segment_source(segment, &source)
    if segment_rank_of_page(segment, ordinal) != totals.entries:
        problem = RANK_WRONG
    key.data = NULL
    key.bytes = 0
    for slot[0] in range(count):
        key.head = heads_of(page)[slot[0]]
        if shape.key_width == 0:
            key.bytes = <uint32_t>page_key_bytes(shape, page, slot[0])
            if page_copy_key(shape, page, slot[0], &source, totals.key) != STATUS_OK:
                return VALUE_UNREADABLE
            key.data = totals.key
            key.head = load_head(key.data, key.bytes)
            ascending = compare_bytes(totals.last, totals.last_bytes, key.data, key.bytes) < 0
        else:
            ascending = totals.last_head < key.head
        if totals.entries and not ascending:
            return KEYS_OUT_OF_ORDER
        if totals.entries == 0:
            totals.first_bytes = min(key.bytes, <uint32_t>KEY_INLINE_BYTES)
            if key.bytes:
                memcpy(totals.first, key.data, totals.first_bytes)
        if slot[0] == 0 or slot[0] + 1 == count:
            if segment_route(segment, &key, &routed) != STATUS_OK or routed != ordinal:
                return FENCE_WRONG
        if not segment_may_contain(
                segment, hash_bytes(key.data, key.bytes) if shape.key_width == 0
                else hash_head(key.head)):
            return FILTER_WRONG
        totals.entries += 1
        totals.key_bytes += shape.key_width if shape.key_width else key.bytes
        if kind_of(page, slot[0]) & KIND_MASK == KIND_DELETE:
            totals.delete_markers += 1
        elif shape.value_width:
            totals.value_bytes += shape.value_width
        else:
            value_bytes = page_value_bytes(page, slot[0])
            totals.value_bytes += value_bytes
            if read_value(page, slot[0], &source, value_bytes) != STATUS_OK:
                return VALUE_UNREADABLE
        totals.last_head = key.head
        totals.last_bytes = key.bytes
        swap = totals.last
        totals.last = totals.key
        totals.key = swap
    return problem


cdef class Verifier:
    """The buffers of one verification."""

    cdef SegmentReader reader
    cdef Totals totals
    cdef uint8_t *chunk
    cdef int fd

    def __cinit__(self, SegmentReader reader not None):
        self.reader = reader
        self.fd = -1
        self.totals.last = <uint8_t *>malloc(KEY_BYTES_MAX)
        self.totals.key = <uint8_t *>malloc(KEY_BYTES_MAX)
        self.totals.first = <uint8_t *>malloc(KEY_INLINE_BYTES)
        if posix_memalign(<void **>&self.chunk, PAGE_BYTES, CHUNK_PAGES * PAGE_BYTES):
            self.chunk = NULL
        if (self.totals.last == NULL or self.totals.key == NULL or self.totals.first == NULL
                or self.chunk == NULL):
            raise MemoryError

    def __dealloc__(self):
        free(self.totals.last)
        free(self.totals.key)
        free(self.totals.first)
        free(self.chunk)

    cdef int64_t read_chunk(self, const FileOperations *operations, uint64_t offset,
                            uint64_t bytes) noexcept nogil:
        """Bytes read at an offset, or a negative errno."""
        cdef int64_t done = operations.read_all(operations.context, self.fd, self.chunk, bytes,
                                                <int64_t>offset)
        if done == -EINVAL:
            read_directly(self.fd, 0)
            done = operations.read_all(operations.context, self.fd, self.chunk, bytes,
                                       <int64_t>offset)
        return done

    cdef object problem_of(self, uint64_t number, const uint8_t *page):
        cdef uint32_t found = page_checksum(self.reader.segment.id, number, page)
        cdef uint32_t expected = (<const uint32_t *>page)[0]
        if found == expected:
            return None
        return number, "wrong checksum of a page", hex(expected), hex(found)

    def checksums(self, paced):
        """Problems of single pages as the drive gives them; paced(bytes) after each step.

        Of a file that was merged away since it was mapped, the mapping is read.
        """
        try:
            self.fd = self.reader.files.open(self.reader.name)
        except FileNotFoundError:
            if self.reader.segment.map == NULL:
                raise
            yield from self.mapped_checksums(paced)
            return
        try:
            read_directly(self.fd, 1)
            yield from self.stored_checksums(paced)
        finally:
            self.reader.files.close(self.fd)
            self.fd = -1

    def mapped_checksums(self, paced):
        cdef uint32_t number
        for number in range(self.reader.segment.page_count):
            problem = self.problem_of(
                number, self.reader.segment.map + <uint64_t>number * PAGE_BYTES)
            if problem is not None:
                yield problem
            if number % CHUNK_PAGES == 0:
                paced(PAGE_BYTES * min(<uint32_t>CHUNK_PAGES,
                                       self.reader.segment.page_count - number))

    def stored_checksums(self, paced):
        cdef const FileOperations *operations = operations_of(self.reader.files.operations)
        cdef uint64_t number = 0
        cdef uint64_t pages = CHUNK_PAGES   # in one read; 1 where the drive has errors
        cdef uint64_t next_chunk = 0
        cdef int64_t done
        cdef int64_t i
        while True:
            if number >= next_chunk:
                pages = CHUNK_PAGES
            with nogil:
                done = self.read_chunk(operations, number * PAGE_BYTES, pages * PAGE_BYTES)
            if done < 0 and pages > 1:
                next_chunk = number + CHUNK_PAGES
                pages = 1
                continue
            if done < 0:
                if number * PAGE_BYTES >= <uint64_t>self.reader.files.size(self.reader.name):
                    return
                yield number, "the page cannot be read", "no error", os.strerror(<int>-done)
                number += 1
                continue
            for i in range(done // PAGE_BYTES):
                problem = self.problem_of(number, self.chunk + i * PAGE_BYTES)
                if problem is not None:
                    yield problem
                number += 1
            if done % PAGE_BYTES:
                yield (number, "the file is cut off", "a multiple of 4096 bytes",
                       f"{number * PAGE_BYTES + done % PAGE_BYTES} bytes")
            paced(done)
            if <uint64_t>done < pages * PAGE_BYTES:
                return

    def content(self):
        """Problems between pages; every page has a right checksum."""
        cdef Segment *segment = &self.reader.segment
        cdef const uint8_t *page
        cdef uint32_t ordinal
        cdef uint32_t number
        cdef uint32_t slot = 0
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        cdef int problem
        try:
            self.reader.map_file()
        except CorruptionError as damage:
            yield (damage.offset // PAGE_BYTES, str(damage), damage.expected, damage.found)
            return
        for ordinal in range(segment.data_pages):
            number = ordinal if segment.page_numbers == NULL else segment.page_numbers[ordinal]
            with nogil:
                problem = FINE
                status = segment_page(segment, ordinal, &page)
                if status == STATUS_OK:
                    problem = verify_page(segment, ordinal, page, &self.totals, &slot)
            if status == STATUS_NO_MEMORY:
                raise MemoryError
            try:
                self.reader.check(STATUS_OK, seen)
            except CorruptionError as damage:
                yield (damage.offset // PAGE_BYTES, str(damage), damage.expected, damage.found)
                return
            if status != STATUS_OK:
                yield (number, "the content of a page makes no sense", "a valid page",
                       "fields out of bounds")
                return
            if problem:
                yield (number, MESSAGES[problem], "a sound page", f"slot {slot}")
                return
        if segment.filter != NULL:
            for number in range(<uint32_t>((<const uint8_t *>segment.filter - segment.map)
                                           // PAGE_BYTES), segment.page_count - 1):
                if segment_checked(segment, number, PAGE_FILTER, &page) != STATUS_OK:
                    yield number, "the content of a page makes no sense", "a filter page", "another"
        yield from self.footer()

    def footer(self):
        """The footer's counts and keys against those of the pages."""
        cdef Totals *totals = &self.totals
        cdef const Shape *shape = self.reader.segment.shape
        footer = self.reader.footer()
        last = self.reader.segment.page_count - 1
        found = {"entries": totals.entries, "delete_markers": totals.delete_markers,
                 "key_bytes": totals.key_bytes, "value_bytes": totals.value_bytes}
        if shape.key_width == 0:
            found["min_key"] = totals.first[:totals.first_bytes]
            found["max_key"] = totals.last[:min(totals.last_bytes, <uint32_t>KEY_INLINE_BYTES)]
        elif totals.entries:
            found["max_key"] = totals.last_head.to_bytes(8, "big")
        for name, value in found.items():
            if footer[name] != value:
                yield last, f"the footer's {name} is wrong", footer[name], value


cdef object key_of_slot(const Shape *shape, const PageSource *source, const uint8_t *page,
                        uint32_t slot):
    """The encoded key of a slot: a head, or bytes; None where it cannot be read."""
    if shape.key_width:
        return heads_of(page)[slot]
    size = page_key_bytes(shape, page, slot)
    if size > KEY_BYTES_MAX:
        return None
    key = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
    if page_copy_key(shape, page, slot, source, <uint8_t *>PyBytes_AS_STRING(key)) != STATUS_OK:
        return None
    return key


def damaged_values(SegmentReader reader not None):
    """Yield (encoded key, blob id, offset) for each value in a blob file that cannot be read.

    Every value that the segment's sound pages point to is read through the mapping of its file.
    """
    cdef Segment *segment = &reader.segment
    cdef const Shape *shape = segment.shape
    cdef PageSource source
    cdef BlobPointer pointer
    cdef Blob *blob
    cdef const uint8_t *page
    cdef uint32_t ordinal
    cdef uint32_t slot
    cdef int status
    if not reader.blobs:
        return
    reader.map_file()
    segment_source(segment, &source)
    for ordinal in range(segment.data_pages):
        if segment_page(segment, ordinal, &page) != STATUS_OK:
            continue                    # `verify` tells of it
        for slot in range(header_of(page).count):
            if kind_of(page, slot) & KIND_MASK != KIND_BLOB:
                continue
            page_blob_pointer(page, slot, &pointer)
            with nogil:
                blob = source.blob_of(source.context, pointer.blob_id)
                status = STATUS_CORRUPT if blob == NULL else blob_read(blob, &pointer, NULL)
            if status == STATUS_NO_MEMORY:
                raise MemoryError
            if status != STATUS_OK:
                yield (key_of_slot(shape, &source, page, slot), pointer.blob_id, pointer.offset)


def ignore(done):
    """Nobody wants to know how far it is."""


def verify(SegmentReader reader not None, paced=None):
    """Yield (page, what, expected, found) for every problem of a segment file.

    paced: called with the bytes read, after each step; it may wait.
    """
    verifier = Verifier(reader)
    sound = True
    for problem in verifier.checksums(ignore if paced is None else paced):
        sound = False
        yield problem
    if sound:
        yield from verifier.content()
