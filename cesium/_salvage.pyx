"""The pages of a segment file in memory, each by itself: for what is left of a damaged one.

Unlike SegmentReader nothing is expected of the file as a whole: no footer, no fences, no record.  A
page counts when its checksum, which is seeded with the segment's id and the page's number, and its
bounds are right; so it is known to be this segment's, and in its place.  A row counts when its key
and its value can be read.

Thread safety: one thread at a time.  The bytes are borrowed from the array that is held.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

import numpy as np

from cesium._blobs cimport Blob, blob_read
from cesium._builder cimport SegmentBuilder, builder_add_slots
from cesium._fences cimport Fences, fence_shape
from cesium._footer cimport footer_fields
from cesium._layout cimport (
    BlobPointer, KEY_BYTES_MAX, KIND_BLOB, KIND_DELETE, KIND_MASK, PAGE_BYTES, PAGE_DATA,
    PAGE_FENCE, PAGE_FILTER, PAGE_FOOTER, PAGE_HEADER_BYTES, PAGE_OVERFLOW, PAGE_RANGE_DELETE,
    SEGMENT_MAGIC, STATUS_OK, SegmentFooter,
)
from cesium._native cimport compare_bytes
from cesium._page cimport (
    PageSource, Shape, TableShape, header_of, heads_of, kind_of, page_blob_pointer, page_copy_key,
    page_copy_row, page_copy_value, page_key_bytes, page_value_bytes, page_value_inline,
)
from cesium._page_writer cimport page_checksum
from cesium._segment cimport Segment, blob_table, segment_checked, segment_source

DATA = PAGE_DATA
FENCE = PAGE_FENCE
OVERFLOW = PAGE_OVERFLOW
RANGE_DELETE = PAGE_RANGE_DELETE
FILTER = PAGE_FILTER
FOOTER = PAGE_FOOTER


cdef class SegmentPages:
    """SegmentPages(data, segment_id, shape, blob_of): what can be read of a segment's bytes.

    data: uint8.  blob_of: gives the BlobReader of a blob id, or None; without it no value in a blob
    file can be read.
    """

    cdef Segment segment
    cdef Fences fences
    cdef const uint8_t[::1] data
    cdef TableShape shape
    cdef uint8_t *key               # the key in hand
    cdef uint8_t *last              # the last key that was copied
    cdef uint32_t last_bytes
    cdef uint64_t last_head
    cdef bint started
    cdef readonly tuple blobs       # BlobReaders, which segment.blobs points into

    def __cinit__(self, const uint8_t[::1] data not None, uint64_t segment_id,
                  TableShape shape not None, blob_of=None):
        self.data = data
        self.shape = shape
        memset(&self.segment, 0, sizeof(Segment))
        memset(&self.fences, 0, sizeof(Fences))
        fence_shape(&shape.shape, &self.fences.shape)
        self.segment.shape = &shape.shape
        self.segment.id = segment_id
        self.segment.page_count = <uint32_t>(data.shape[0] // PAGE_BYTES)
        self.segment.fences = &self.fences
        self.segment.checked = <uint64_t *>calloc(
            (<uint64_t>self.segment.page_count + 64) // 64, 8)
        self.key = <uint8_t *>malloc(KEY_BYTES_MAX)
        self.last = <uint8_t *>malloc(KEY_BYTES_MAX)
        if self.segment.checked == NULL or self.key == NULL or self.last == NULL:
            raise MemoryError
        if data.shape[0]:
            self.segment.map = &data[0]
        if blob_of is not None:
            found = [blob_of(number) for number in sorted(self.blob_uses())]
            self.blobs = tuple([reader for reader in found if reader is not None])
            self.segment.blobs = blob_table(self.blobs)
            self.segment.blob_count = <uint32_t>len(self.blobs)

    def blob_uses(self):
        """What the sound data pages point to: {blob id: (bytes of values, rows)}."""
        cdef uint32_t number
        cdef uint32_t slot
        cdef const uint8_t *page
        cdef BlobPointer pointer
        uses = {}
        for number in range(self.segment.page_count):
            page = self.segment.map + <uint64_t>number * PAGE_BYTES
            if header_of(page).type != PAGE_DATA or segment_checked(
                    &self.segment, number, PAGE_DATA, &page) != STATUS_OK:
                continue
            if header_of(page).kinds_offset == 0:
                continue
            for slot in range(header_of(page).count):
                if kind_of(page, slot) & KIND_MASK == KIND_BLOB:
                    page_blob_pointer(page, slot, &pointer)
                    size, rows = uses.get(pointer.blob_id, (0, 0))
                    uses[pointer.blob_id] = size + pointer.bytes, rows + 1
        return uses

    def __dealloc__(self):
        free(self.segment.checked)
        free(self.segment.blobs)
        free(self.key)
        free(self.last)

    @property
    def count(self):
        """Whole pages."""
        return self.segment.page_count

    @property
    def key_width(self):
        """Bytes of a fixed key; 0 in the variable form."""
        return self.shape.shape.key_width

    def types(self):
        """The type of each page (uint8), 0 for one that is not sound."""
        cdef uint32_t number
        cdef uint8_t type
        cdef const uint8_t *page
        cdef uint8_t[::1] view
        result = np.zeros(self.segment.page_count, np.uint8)
        view = result
        with nogil:
            for number in range(self.segment.page_count):
                page = self.segment.map + <uint64_t>number * PAGE_BYTES
                type = header_of(page).type
                if type == PAGE_FOOTER:
                    if self.sound_footer(number):
                        view[number] = type
                elif segment_checked(&self.segment, number, type, &page) == STATUS_OK and (
                        PAGE_DATA <= type <= PAGE_FILTER):
                    view[number] = type
        return result

    cdef bint sound_footer(self, uint32_t number) noexcept nogil:
        cdef const uint8_t *page = self.segment.map + <uint64_t>number * PAGE_BYTES
        return (header_of(page).type == PAGE_FOOTER
                and (<const SegmentFooter *>page).magic == SEGMENT_MAGIC
                and (page_checksum(self.segment.id, number, page)
                     == (<const uint32_t *>page)[0]))

    def is_footer(self, uint32_t number):
        """Whether a page is a sound footer."""
        return number < self.segment.page_count and self.sound_footer(number)

    cdef const uint8_t *sound(self, uint32_t number, uint8_t type) except NULL:
        cdef const uint8_t *page
        if segment_checked(&self.segment, number, type, &page) != STATUS_OK:
            raise ValueError(f"page {number} is no sound page of type {type}")
        return page

    def footer(self, uint32_t number):
        """The fields of a sound footer page."""
        if not self.is_footer(number):
            raise ValueError(f"page {number} is no sound footer")
        return footer_fields(self.segment.map + <uint64_t>number * PAGE_BYTES)

    def payload(self, uint32_t number):
        """The bytes in use of a range-delete page."""
        cdef const uint8_t *page = self.sound(number, PAGE_RANGE_DELETE)
        return PyBytes_FromStringAndSize(<const char *>page + PAGE_HEADER_BYTES,
                                         <Py_ssize_t>header_of(page).run_bytes)

    def fences_of(self, uint32_t number):
        """What a fence page says: (level, [(encoded fence, child page, rank), ...])."""
        cdef const uint8_t *page = self.sound(number, PAGE_FENCE)
        cdef uint32_t slot
        cdef uint32_t row[2]
        result = []
        for slot in range(header_of(page).count):
            if not self.readable(&self.fences.shape, page, slot):
                continue
            page_copy_row(&self.fences.shape, page, slot, <uint8_t *>row)
            result.append((self.key_at(&self.fences.shape, page, slot), row[0], row[1]))
        return header_of(page).level, result

    cdef object key_at(self, const Shape *shape, const uint8_t *page, uint32_t slot):
        """The key of a readable slot: a head, or encoded bytes."""
        cdef PageSource source
        if shape.key_width:
            return heads_of(page)[slot]
        segment_source(&self.segment, &source)
        key = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>page_key_bytes(shape, page, slot))
        page_copy_key(shape, page, slot, &source, <uint8_t *>PyBytes_AS_STRING(key))
        return key

    cdef bint readable(self, const Shape *shape, const uint8_t *page,
                       uint32_t slot) noexcept nogil:
        """Whether key and value of a slot can be read; its key is then in `key`."""
        cdef PageSource source
        cdef BlobPointer pointer
        cdef Blob *blob
        cdef uint8_t piece[4096]
        cdef uint64_t bytes
        cdef uint64_t done = 0
        cdef uint64_t step
        segment_source(&self.segment, &source)
        if shape.key_width == 0:
            if (page_key_bytes(shape, page, slot) > KEY_BYTES_MAX
                    or page_copy_key(shape, page, slot, &source, self.key) != STATUS_OK):
                return False
        if (shape.value_width or kind_of(page, slot) & KIND_MASK == KIND_DELETE
                or page_value_inline(page, slot) != NULL):
            return True
        if kind_of(page, slot) & KIND_MASK == KIND_BLOB:
            page_blob_pointer(page, slot, &pointer)
            blob = source.blob_of(source.context, pointer.blob_id)
            return blob != NULL and blob_read(blob, &pointer, NULL) == STATUS_OK
        bytes = page_value_bytes(page, slot)
        while done < bytes:
            step = min(bytes - done, <uint64_t>sizeof(piece))
            if page_copy_value(page, slot, &source, done, piece, step) != STATUS_OK:
                return False
            done += step
        return True

    cdef bint advances(self, const uint8_t *page, uint32_t slot) noexcept nogil:
        """Whether the slot's key, which is in `key`, lies above the last; it is the last then."""
        cdef uint32_t bytes
        cdef uint8_t *swap
        if self.shape.shape.key_width:
            if self.started and heads_of(page)[slot] <= self.last_head:
                return False
            self.last_head = heads_of(page)[slot]
        else:
            bytes = <uint32_t>page_key_bytes(&self.shape.shape, page, slot)
            if self.started and compare_bytes(
                    self.last, self.last_bytes, self.key, bytes) >= 0:
                return False
            swap = self.last
            self.last = self.key
            self.key = swap
            self.last_bytes = bytes
        self.started = True
        return True

    def survey(self, uint32_t number):
        """A sound data page: (rows that can be read, rows that cannot, first key, last key).

        The keys are those of rows that can be read; None when there is none.
        """
        cdef const uint8_t *page = self.sound(number, PAGE_DATA)
        cdef const Shape *shape = &self.shape.shape
        cdef uint32_t slot
        cdef uint32_t first = 0
        cdef uint32_t last = 0
        cdef uint32_t readable = 0
        with nogil:
            for slot in range(header_of(page).count):
                if self.readable(shape, page, slot):
                    if readable == 0:
                        first = slot
                    last = slot
                    readable += 1
        if readable == 0:
            return 0, header_of(page).count, None, None
        return (readable, header_of(page).count - readable, self.key_at(shape, page, first),
                self.key_at(shape, page, last))

    def damaged_values(self, uint32_t number):
        """The keys of a sound data page whose values in blob files cannot be read."""
        cdef const uint8_t *page = self.sound(number, PAGE_DATA)
        cdef const Shape *shape = &self.shape.shape
        cdef PageSource source
        cdef BlobPointer pointer
        cdef Blob *blob
        cdef uint32_t slot
        cdef bint sound
        keys = []
        segment_source(&self.segment, &source)
        for slot in range(header_of(page).count):
            if kind_of(page, slot) & KIND_MASK != KIND_BLOB:
                continue
            page_blob_pointer(page, slot, &pointer)
            with nogil:
                blob = source.blob_of(source.context, pointer.blob_id)
                sound = blob != NULL and blob_read(blob, &pointer, NULL) == STATUS_OK
            if not sound and (shape.key_width or page_copy_key(
                    shape, page, slot, &source, self.key) == STATUS_OK):
                keys.append(self.key_at(shape, page, slot))
        return keys

    def rewind(self):
        """Copying begins anew: any key may come first."""
        self.started = False

    def copy(self, uint32_t number, SegmentBuilder builder not None):
        """Add the rows of a sound data page that can be read and ascend; return how many."""
        cdef const uint8_t *page = self.sound(number, PAGE_DATA)
        cdef const Shape *shape = &self.shape.shape
        cdef PageSource source
        cdef uint32_t slot
        cdef uint32_t first = 0         # of a run of slots not added yet
        cdef uint32_t rows = 0
        cdef uint32_t count = header_of(page).count
        cdef int status = STATUS_OK
        builder.check_open()
        segment_source(&self.segment, &source)
        with nogil:
            for slot in range(count):
                if self.readable(shape, page, slot) and self.advances(page, slot):
                    rows += 1
                    continue
                if status == STATUS_OK and first < slot:
                    status = builder_add_slots(builder.builder, &source, page, first, slot)
                first = slot + 1
            if status == STATUS_OK and first < count:
                status = builder_add_slots(builder.builder, &source, page, first, count)
        builder.check(status)
        return rows
