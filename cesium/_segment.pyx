"""Reading one segment file: contract in _segment.pxd, bytes in docs/format-segment.md."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport UINT32_MAX, int64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from posix.unistd cimport getpid

import contextlib
import errno
import os
from threading import RLock

from cesium._advice cimport advise_need, pages_resident
from cesium._blobs cimport BlobReader
from cesium._faults cimport (
    fault_counter, fault_find, fault_lost, fault_register, fault_unregister, faults_seen, load_lost,
)
from cesium._fences cimport (
    Fences, fences_free, fences_load, fences_locate, fences_rank, fences_route, fences_route_heads,
)
from cesium._files cimport FileOperations, operations_of
from cesium._footer cimport FILTER_PAGE_BLOCKS, copy_of, footer_fields, footer_problem
from cesium._interval cimport (
    Interval, IntervalSet, interval_set_add, interval_set_new, interval_set_release, key_compare,
)
from cesium._layout cimport (
    BLOB_BYTES_MAX, BlobPointer, KEY_BYTES_MAX, KEY_INLINE_BYTES, KIND_BLOB, KIND_KEY_OVERFLOW,
    KIND_MASK, KIND_VALUE_OVERFLOW, OVERFLOW_PAYLOAD_BYTES, OverflowReference, PAGE_BYTES,
    PAGE_DATA, PAGE_FENCE, PAGE_FILTER, PAGE_HEADER_BYTES, PAGE_OVERFLOW, PAGE_RANGE_DELETE,
    STATUS_CORRUPT, STATUS_IO, STATUS_NOT_FOUND, STATUS_NO_MEMORY, STATUS_OK, SegmentFooter,
    VALUE_BYTES_MAX, VALUE_INLINE_BYTES,
)
from cesium._native cimport (
    HEADS_NEAR, bloom_contains, load_head, parallel_for, prefetch_read,
)
from cesium._page cimport (
    header_of, kind_of, page_blob_pointer, page_check, page_find, page_fixed_capacity,
    page_key_reference, page_value_reference,
)
from cesium._page_writer cimport page_checksum

from cesium.errors import CorruptionError, Error
from cesium.io_errors import raise_io

cdef enum:
    READ_AHEAD_TASK_PAGES = 1024
    # To ask whether a page is in memory takes as long as to copy two: only larger objects ask.
    OBJECT_ASKED_PAGES = 16

# The upper bound of variable keys without end: longer than any bound that is one.
UNBOUNDED_UPPER = b"\xff" * (KEY_INLINE_BYTES + 1)

cdef extern from *:
    """
    #include <sys/mman.h>
    #ifndef MADV_POPULATE_READ
    #define MADV_POPULATE_READ 22
    #endif

    /* Atomics on plain integers; names with the prefix of this module. */
    static inline const void *segment_load_map(const void *place) {
        return __atomic_load_n((void *const *)place, __ATOMIC_ACQUIRE);
    }
    static inline void segment_store_map(void *place, const void *map) {
        __atomic_store_n((void **)place, (void *)map, __ATOMIC_RELEASE);
    }
    static inline void segment_set_checked(uint64_t *checked, uint32_t number) {
        __atomic_fetch_or(checked + (number >> 6), 1ULL << (number & 63), __ATOMIC_RELEASE);
    }
    static inline int segment_claim(int *claim) {
        return __atomic_exchange_n(claim, 1, __ATOMIC_ACQ_REL) == 0;
    }
    static inline void segment_store_status(int *place, int status) {
        __atomic_store_n(place, status, __ATOMIC_RELEASE);
    }
    static inline int segment_load_status(const int *place) {
        return __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }
    """
    const void *segment_load_map(const void *place) noexcept nogil
    void segment_store_map(void *place, const void *map) noexcept nogil
    void segment_set_checked(uint64_t *checked, uint32_t number) noexcept nogil
    int segment_claim(int *claim) noexcept nogil
    void segment_store_status(int *place, int status) noexcept nogil
    int segment_load_status(const int *place) noexcept nogil
    int madvise(void *address, size_t bytes, int advice) noexcept nogil
    const int MADV_NORMAL
    const int MADV_RANDOM
    const int MADV_WILLNEED
    const int MADV_POPULATE_READ


cdef const uint64_t *FAULTS = fault_counter()


# --- one page ------------------------------------------------------------------------------------


cdef int damaged(Segment *segment, uint32_t number, uint32_t expected,
                 uint32_t found) noexcept nogil:
    """Describes the first failure of the segment for raise_failure."""
    if segment_claim(&segment.failed_claim):
        segment.failed_page = number
        segment.failed_expected = expected
        segment.failed_found = found
        segment_store_status(&segment.failed_status, STATUS_CORRUPT)
    return STATUS_CORRUPT


cdef int check_reference(const OverflowReference *reference, uint32_t number, uint64_t least,
                         uint64_t most) noexcept nogil:
    """An overflowed object lies whole in pages before the page that refers to it."""
    cdef uint64_t first = reference.location // PAGE_BYTES
    cdef uint64_t offset = reference.location % PAGE_BYTES
    if reference.bytes <= least or reference.bytes > most or offset < PAGE_HEADER_BYTES:
        return STATUS_CORRUPT
    offset += reference.bytes - PAGE_HEADER_BYTES - 1       # the last byte, in the payloads
    if first + offset // OVERFLOW_PAYLOAD_BYTES >= number:
        return STATUS_CORRUPT
    return STATUS_OK


cdef int check_references(const uint8_t *page, uint32_t number) noexcept nogil:
    cdef BlobPointer pointer
    cdef uint32_t slot
    cdef uint8_t kind
    if header_of(page).kinds_offset == 0:
        return STATUS_OK
    for slot in range(header_of(page).count):
        kind = kind_of(page, slot)
        if kind & KIND_KEY_OVERFLOW and check_reference(
                page_key_reference(page, slot), number, KEY_INLINE_BYTES, KEY_BYTES_MAX):
            return STATUS_CORRUPT
        if kind & KIND_VALUE_OVERFLOW and check_reference(
                page_value_reference(page, slot), number, VALUE_INLINE_BYTES, VALUE_BYTES_MAX):
            return STATUS_CORRUPT
        if kind & KIND_MASK == KIND_BLOB:       # whether the file has it, its reader looks
            page_blob_pointer(page, slot, &pointer)
            if pointer.bytes == 0 or pointer.bytes > BLOB_BYTES_MAX or pointer.offset < PAGE_BYTES:
                return STATUS_CORRUPT
    return STATUS_OK


cdef int check_page(const Segment *segment, const uint8_t *page, uint32_t number,
                    uint8_t type) noexcept nogil:
    """Everything but the checksum."""
    cdef const Shape *shape = segment.shape
    cdef int status
    if type == PAGE_DATA or type == PAGE_FENCE:
        if type == PAGE_FENCE:
            shape = &(<Fences *>segment.fences).shape
        status = page_check(shape, page, type)
        return status if status != STATUS_OK else check_references(page, number)
    if header_of(page).type != type or header_of(page).run_bytes > OVERFLOW_PAYLOAD_BYTES:
        return STATUS_CORRUPT
    return STATUS_OK


cdef int first_touch(Segment *segment, const uint8_t *page, uint32_t number,
                     uint8_t type) noexcept nogil:
    cdef uint32_t expected = (<const uint32_t *>page)[0]
    cdef uint32_t found = page_checksum(segment.id, number, page)
    if found != expected or check_page(segment, page, number, type) != STATUS_OK:
        return damaged(segment, number, expected, found)
    segment_set_checked(segment.checked, number)
    return STATUS_OK


cdef int segment_checked(Segment *segment, uint32_t number, uint8_t type,
                         const uint8_t **page) noexcept nogil:
    if number >= segment.page_count:
        return damaged(segment, segment.page_count - 1, 0, 0)
    if load_lost(&segment.lost) and fault_lost(segment.region, number):
        return damaged(segment, number, 0, 0)
    page[0] = segment.map + <uint64_t>number * PAGE_BYTES
    if not segment_is_checked(segment.checked, number):
        return first_touch(segment, page[0], number, type)
    if header_of(page[0]).type != type:     # reached before as a page of another type
        return damaged(segment, number, 0, 0)
    return STATUS_OK


cdef int segment_page(Segment *segment, uint32_t ordinal, const uint8_t **page) noexcept nogil:
    cdef int status = segment_ready(segment)
    if status != STATUS_OK:
        return status
    if ordinal >= segment.data_pages:
        return STATUS_NOT_FOUND
    return segment_checked(segment, segment_number(segment, ordinal), PAGE_DATA, page)


cdef void ask_for_object(Segment *segment, uint64_t first, uint64_t pages) noexcept nogil:
    """Has the pages of one object read at once, where they may not be in memory."""
    cdef uint8_t there = 1
    pages = min(pages, segment.page_count - first)
    if pages == 1:
        return
    if segment_is_checked(segment.checked, <uint32_t>first):
        if pages < OBJECT_ASKED_PAGES:
            return
        pages_resident(segment.map, first + pages - 1, 1, &there)
    else:
        there = 0
    if not there & 1:
        advise_need(segment.map, first, pages)


cdef int read_overflow(void *context, uint64_t location, uint64_t skip, uint8_t *destination,
                       uint64_t bytes) noexcept nogil:
    """All pages of a run but its last are full, so any place of an object is reached at once."""
    cdef Segment *segment = <Segment *>context
    cdef uint64_t number = location // PAGE_BYTES
    cdef uint64_t place = location % PAGE_BYTES
    cdef uint64_t step
    cdef const uint8_t *page
    cdef int status
    if place < PAGE_HEADER_BYTES or number >= segment.page_count:
        return damaged(segment, <uint32_t>min(number, <uint64_t>UINT32_MAX), 0, 0)
    place += skip - PAGE_HEADER_BYTES
    number += place // OVERFLOW_PAYLOAD_BYTES
    place %= OVERFLOW_PAYLOAD_BYTES
    if number < segment.page_count:
        ask_for_object(segment, number, (place + bytes - 1) // OVERFLOW_PAYLOAD_BYTES + 1)
    while bytes:
        if number >= segment.page_count:
            return damaged(segment, segment.page_count - 1, 0, 0)
        status = segment_checked(segment, <uint32_t>number, PAGE_OVERFLOW, &page)
        if status != STATUS_OK:
            return status
        step = min(bytes, <uint64_t>OVERFLOW_PAYLOAD_BYTES - place)
        if place + step > header_of(page).run_bytes:
            return damaged(segment, <uint32_t>number, 0, 0)
        memcpy(destination, page + PAGE_HEADER_BYTES + place, step)
        destination += step
        bytes -= step
        number += 1
        place = 0
    return STATUS_OK


# --- search --------------------------------------------------------------------------------------


cdef int map_from_nogil(Segment *segment) noexcept with gil:
    try:
        (<SegmentReader>segment.reader).map_file()
    except BaseException:               # kept by map_file, raised by raise_failure
        return segment_load_status(&segment.failed_status) or STATUS_IO
    return STATUS_OK


cdef int segment_ready(Segment *segment) noexcept nogil:
    if segment_load_map(&segment.map) == NULL:
        return map_from_nogil(segment)
    if load_lost(&segment.lost):
        return check_vital(segment)
    return STATUS_OK


cdef int check_vital(Segment *segment) noexcept nogil:
    """Fences are searched in the mapping unchecked: with zeros among them nothing is found."""
    cdef uint64_t page
    if fault_find(segment.region, segment.fence_first, segment.fence_end, &page):
        return damaged(segment, <uint32_t>page, 0, 0)
    return segment_whole(segment)


cdef int segment_cut(Segment *segment) noexcept nogil:
    return damaged(segment, segment.page_count - 1, 0, 0)


cdef inline void prefetch_search(const uint8_t *page) noexcept nogil:
    """Asks for the header and the first probes of a full page: misses one beside the other."""
    prefetch_read(page)
    prefetch_read(page + PAGE_HEADER_BYTES + 125 * 8)
    prefetch_read(page + PAGE_HEADER_BYTES + 62 * 8)
    prefetch_read(page + PAGE_HEADER_BYTES + 188 * 8)


cdef int segment_route(Segment *segment, const Key *key, uint32_t *ordinal) noexcept nogil:
    cdef int status = segment_ready(segment)
    if status != STATUS_OK:
        return status
    if segment.data_pages == 0:
        return STATUS_NOT_FOUND
    status = fences_route(<Fences *>segment.fences, key, ordinal)
    if status == STATUS_OK and ordinal[0] >= segment.data_pages:
        status = STATUS_CORRUPT         # the fences were lost while they were searched
    if status == STATUS_CORRUPT:
        damaged(segment, (<Fences *>segment.fences).root, 0, 0)
    elif segment.page_numbers == NULL:
        prefetch_search(segment.map + <uint64_t>ordinal[0] * PAGE_BYTES)
    return status


cdef inline uint32_t slots_of(const Shape *shape) noexcept nogil:
    """About how many entries a page has."""
    return page_fixed_capacity(shape, False) if shape.value_width else HEADS_NEAR


cdef inline void prefetch_near(const Segment *segment, uint32_t number, uint32_t guess,
                               uint32_t slots) noexcept nogil:
    """Asks for the header of a page, the heads around a slot, and about its value."""
    cdef const uint8_t *page = segment.map + <uint64_t>number * PAGE_BYTES
    cdef uint32_t slot
    prefetch_read(page)
    for slot in range(guess - min(guess, <uint32_t>HEADS_NEAR), guess + HEADS_NEAR, 8):
        prefetch_read(page + PAGE_HEADER_BYTES + slot * 8)
    if segment.shape.value_width == 8:
        prefetch_read(page + PAGE_HEADER_BYTES + (slots + guess) * 8)


cdef int segment_locate(Segment *segment, uint64_t head, uint32_t *ordinal,
                        uint32_t *guess) noexcept nogil:
    cdef uint32_t slots = slots_of(segment.shape)
    cdef int status = segment_ready(segment)
    if status != STATUS_OK:
        return status
    if segment.data_pages == 0:
        return STATUS_NOT_FOUND
    fences_locate(<Fences *>segment.fences, head, slots, ordinal, guess)
    if ordinal[0] >= segment.data_pages:        # the fences were lost while they were searched
        return damaged(segment, segment.fence_first, 0, 0)
    if segment.page_numbers == NULL:
        prefetch_near(segment, ordinal[0], guess[0], slots)
    return STATUS_OK


cdef int segment_route_heads(Segment *segment, const uint64_t *heads, uint32_t count,
                             uint32_t *ordinals, uint32_t *guesses) noexcept nogil:
    cdef uint32_t i, slots = slots_of(segment.shape)
    cdef int status = segment_ready(segment)
    if status != STATUS_OK:
        return status
    if segment.data_pages == 0:
        return STATUS_NOT_FOUND
    fences_route_heads(<Fences *>segment.fences, heads, count, slots, ordinals, guesses)
    for i in range(count if guesses != NULL else 0):
        if ordinals[i] < segment.data_pages:    # else the fences were lost meanwhile
            prefetch_near(segment, segment_number(segment, ordinals[i]), guesses[i], slots)
    return STATUS_OK


cdef bint segment_may_contain(const Segment *segment, uint64_t hash) noexcept nogil:
    cdef uint64_t block
    cdef uint32_t index
    cdef uint32_t number
    cdef const uint8_t *page
    if segment_load_map(&segment.map) == NULL or segment.filter == NULL:
        return True
    block = (hash >> 32) * segment.filter_blocks >> 32
    index = <uint32_t>(block // FILTER_PAGE_BLOCKS)
    page = <const uint8_t *>segment.filter + <uint64_t>index * PAGE_BYTES
    number = <uint32_t>((page - segment.map) // PAGE_BYTES)
    if load_lost(&segment.lost) and fault_lost(segment.region, number):
        return True
    if not segment_is_checked(segment.checked, number):
        # A damaged filter excludes nothing: slower, never wrong.  verify reports it.
        if (page_checksum(segment.id, number, page) != (<const uint32_t *>page)[0]
                or header_of(page).type != PAGE_FILTER):
            return True
        segment_set_checked(segment.checked, number)
    page += PAGE_HEADER_BYTES + (block % FILTER_PAGE_BLOCKS) * 32
    return bloom_contains(<const uint32_t *>page, 1, hash) != 0


cdef int segment_find(Segment *segment, const Key *key, Position *position) noexcept nogil:
    cdef PageSource source
    cdef uint32_t ordinal
    cdef bint exact
    cdef int status = segment_route(segment, key, &ordinal)
    position.page = NULL
    if status == STATUS_OK:
        status = segment_page(segment, ordinal, &position.page)
    if status == STATUS_OK:
        position.ordinal = ordinal
        segment_source(segment, &source)
        status = page_find(segment.shape, position.page, key, &source, &position.slot, &exact)
        if status == STATUS_OK and not exact:
            status = STATUS_NOT_FOUND
    return status


cdef int segment_rank(Segment *segment, const Key *key, uint64_t *rank) noexcept nogil:
    cdef Position position
    cdef int status
    rank[0] = 0
    position.slot = 0
    status = segment_find(segment, key, &position)
    if status < 0:
        return status
    if position.page != NULL:
        rank[0] = segment_rank_of_page(segment, <uint32_t>position.ordinal) + position.slot
    return segment_whole(segment)


cdef uint64_t segment_rank_of_page(Segment *segment, uint32_t ordinal) noexcept nogil:
    return fences_rank(<Fences *>segment.fences, ordinal)


# --- as a source of pages ------------------------------------------------------------------------


cdef int go_to(Segment *segment, uint64_t ordinal, int direction,
               Position *position) noexcept nogil:
    """The first entry of a page, or its last when going backwards."""
    cdef int status = segment_page(segment, <uint32_t>ordinal, &position.page)
    if status != STATUS_OK:
        position.page = NULL
        return status
    position.ordinal = ordinal
    position.slot = 0
    if direction < 0:
        position.slot = header_of(position.page).count
        if position.slot == 0:          # the page was lost just now
            position.page = NULL
            return damaged(segment, <uint32_t>ordinal, 0, 0)
        position.slot -= 1
    return STATUS_OK


cdef int source_edge(void *context, Position *position, int direction) noexcept nogil:
    cdef Segment *segment = <Segment *>context
    cdef int status = segment_ready(segment)
    position.page = NULL
    if status != STATUS_OK or segment.data_pages == 0:
        return status
    return go_to(segment, 0 if direction > 0 else segment.data_pages - 1, direction, position)


cdef int source_step(void *context, Position *position, int direction) noexcept nogil:
    cdef Segment *segment = <Segment *>context
    if position.ordinal + 1 >= segment.data_pages if direction > 0 else position.ordinal == 0:
        position.page = NULL
        return STATUS_OK
    return go_to(segment, position.ordinal + 1 if direction > 0 else position.ordinal - 1,
                 direction, position)


cdef int source_seek(void *context, const Key *key, Position *position) noexcept nogil:
    cdef int status = segment_find(<Segment *>context, key, position)
    if status < 0:
        position.page = NULL
        return status
    if position.page != NULL and position.slot == header_of(position.page).count:
        return source_step(context, position, 1)
    return STATUS_OK


cdef int source_whole(void *context) noexcept nogil:
    return segment_whole(<Segment *>context)


cdef Blob *source_blob(void *context, uint64_t blob_id) noexcept nogil:
    cdef Segment *segment = <Segment *>context
    cdef uint32_t low = 0
    cdef uint32_t high = segment.blob_count
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if segment.blobs[middle].id < blob_id:
            low = middle + 1
        else:
            high = middle
    if low == segment.blob_count or segment.blobs[low].id != blob_id:
        damaged(segment, 0, 0, 0)       # a pointer into a file that the record does not name
        return NULL
    return segment.blobs[low]


cdef Blob **blob_table(tuple readers) except? NULL:
    cdef Blob **table
    cdef BlobReader reader
    if not readers:
        return NULL
    table = <Blob **>malloc(len(readers) * sizeof(Blob *))
    if table == NULL:
        raise MemoryError
    for place, reader in enumerate(sorted(readers, key=blob_id_of)):
        table[<Py_ssize_t>place] = &reader.blob
    return table


def blob_id_of(BlobReader reader):
    """What readers are sorted by."""
    return reader.blob.id


cdef void segment_source(Segment *segment, PageSource *source) noexcept nogil:
    source.context = segment
    source.seek = source_seek
    source.step = source_step
    source.edge = source_edge
    source.read_overflow = read_overflow
    source.whole = source_whole
    source.blob_of = source_blob


# --- mapping -------------------------------------------------------------------------------------


cdef int checked_for_fences(void *context, uint32_t number, uint8_t type,
                            const uint8_t **page) noexcept nogil:
    return segment_checked(<Segment *>context, number, type, page)


cdef int parse_markers(const Shape *shape, const uint8_t *stream, uint64_t bytes, uint64_t count,
                       IntervalSet *markers) noexcept nogil:
    """Records of format-segment.md, "Range-delete pages"; sorted, disjoint, none empty."""
    cdef uint64_t at = 0
    cdef uint64_t i
    cdef uint32_t header[3]
    cdef bint fixed = shape.key_width != 0
    cdef Interval interval
    cdef Key last
    cdef int status
    for i in range(count):
        if bytes - at < 12:
            return STATUS_CORRUPT
        memcpy(header, stream + at, 12)
        at += 12
        interval.unbounded = header[2] == 1
        if header[2] > 1 or header[0] > KEY_BYTES_MAX + 1 or header[1] > KEY_BYTES_MAX + 1:
            return STATUS_CORRUPT
        if <uint64_t>header[0] + header[1] > bytes - at:
            return STATUS_CORRUPT
        if interval.unbounded and header[1]:
            return STATUS_CORRUPT
        if fixed and (header[0] != 8 or header[1] != (0 if header[2] else 8)):
            return STATUS_CORRUPT
        interval.lower.data = NULL if fixed else <uint8_t *>stream + at
        interval.lower.bytes = 0 if fixed else header[0]
        interval.lower.head = load_head(stream + at, header[0])
        at += header[0]
        interval.upper.data = NULL if fixed else <uint8_t *>stream + at
        interval.upper.bytes = 0 if fixed else header[1]
        interval.upper.head = load_head(stream + at, header[1])
        at += header[1]
        if i and (key_compare(fixed, &last, &interval.lower) >= 0):
            return STATUS_CORRUPT
        if interval.unbounded:
            if i + 1 != count:
                return STATUS_CORRUPT
        elif key_compare(fixed, &interval.lower, &interval.upper) >= 0:
            return STATUS_CORRUPT
        last = interval.upper
        status = interval_set_add(markers, &interval.lower, &interval.upper, interval.unbounded)
        if status != STATUS_OK:
            return status
    return STATUS_OK if at == bytes and markers.count == count else STATUS_CORRUPT


cdef int load_markers(Segment *draft, const SegmentFooter *footer) noexcept nogil:
    cdef uint32_t number
    cdef uint64_t bytes = 0
    cdef const uint8_t *page
    cdef uint8_t *stream
    cdef int status = STATUS_OK
    if footer.range_deletes == 0:
        if footer.range_delete_pages:
            return damaged(draft, draft.page_count - 1, 0, 0)
        return STATUS_OK
    stream = <uint8_t *>malloc(<uint64_t>footer.range_delete_pages * OVERFLOW_PAYLOAD_BYTES + 1)
    draft.markers = interval_set_new(draft.shape.key_width != 0)
    if stream == NULL or draft.markers == NULL:
        free(stream)
        return STATUS_NO_MEMORY
    for number in range(footer.range_delete_first, footer.filter_first):
        status = segment_checked(draft, number, PAGE_RANGE_DELETE, &page)
        if status != STATUS_OK:
            break
        memcpy(stream + bytes, page + PAGE_HEADER_BYTES, header_of(page).run_bytes)
        bytes += header_of(page).run_bytes
    if status == STATUS_OK:
        status = parse_markers(draft.shape, stream, bytes, footer.range_deletes, draft.markers)
        if status == STATUS_CORRUPT:
            damaged(draft, footer.range_delete_first, 0, 0)
    free(stream)
    return status


cdef int load(Segment *draft, const SegmentFooter *footer) noexcept nogil:
    """Checks fences and markers of a mapped file and readies the draft; its footer is checked."""
    cdef PageSource source
    cdef uint32_t failed = 0
    cdef int status
    draft.page_count = footer.page_count
    draft.data_pages = footer.data_pages
    draft.entries = footer.entries
    draft.delete_markers = footer.delete_markers
    draft.fence_first = footer.fence_first
    draft.fence_end = footer.fence_first + footer.fence_pages
    draft.checked = <uint64_t *>calloc((<uint64_t>footer.page_count + 63) // 64, 8)
    draft.fences = calloc(1, sizeof(Fences))
    if draft.checked == NULL or draft.fences == NULL:
        return STATUS_NO_MEMORY
    # Every lookup asks the filter, in an order of its own; fences are read now, filters meanwhile.
    if footer.fence_pages:
        advise_need(draft.map, footer.fence_first, footer.fence_pages)
    if footer.filter_blocks:
        advise_need(draft.map, footer.filter_first,
                    (footer.filter_blocks + FILTER_PAGE_BLOCKS - 1) // FILTER_PAGE_BLOCKS)
    segment_source(draft, &source)
    status = fences_load(<Fences *>draft.fences, draft.shape, footer, draft.map, &source,
                         checked_for_fences, &failed)
    if status != STATUS_OK:
        return damaged(draft, failed, 0, 0) if status == STATUS_CORRUPT else status
    draft.page_numbers = (<Fences *>draft.fences).page_numbers
    if footer.filter_blocks:
        draft.filter = <const uint32_t *>(draft.map + <uint64_t>footer.filter_first * PAGE_BYTES)
        draft.filter_blocks = footer.filter_blocks
    return load_markers(draft, footer)


cdef void unload(Segment *segment) noexcept nogil:
    free(segment.checked)
    if segment.fences != NULL:
        fences_free(<Fences *>segment.fences)
        free(segment.fences)
    interval_set_release(segment.markers)
    segment.checked = NULL
    segment.fences = NULL
    segment.markers = NULL


cdef struct ReadAhead:
    Segment *segment
    bint check
    int status


cdef void read_ahead_task(void *context, size_t task) noexcept nogil:
    cdef ReadAhead *job = <ReadAhead *>context
    cdef Segment *segment = job.segment
    cdef uint64_t first = task * READ_AHEAD_TASK_PAGES
    cdef uint64_t end = min(first + READ_AHEAD_TASK_PAGES, <uint64_t>segment.page_count)
    cdef uint64_t number
    cdef const uint8_t *page
    cdef uint8_t type
    cdef int status
    # Reading ahead is off for a mapping advised random: one page at a time, 400 times slower.
    madvise(<void *>(segment.map + first * PAGE_BYTES), (end - first) * PAGE_BYTES,
            MADV_NORMAL)
    madvise(<void *>(segment.map + first * PAGE_BYTES), (end - first) * PAGE_BYTES,
            MADV_WILLNEED)
    # Older kernels refuse this; then the checks below, or the first reader, fault the pages in.
    madvise(<void *>(segment.map + first * PAGE_BYTES), (end - first) * PAGE_BYTES,
            MADV_POPULATE_READ)
    madvise(<void *>(segment.map + first * PAGE_BYTES), (end - first) * PAGE_BYTES, MADV_RANDOM)
    if not job.check:
        return
    for number in range(first, end):
        type = header_of(segment.map + number * PAGE_BYTES).type
        if type == PAGE_DATA or type == PAGE_OVERFLOW:
            status = segment_checked(segment, <uint32_t>number, type, &page)
            if status != STATUS_OK:
                segment_store_status(&job.status, status)
                return


# --- Python --------------------------------------------------------------------------------------


cdef class SegmentReader:
    """One segment file, mapped at its first use.  Safe from any thread.

    record: what the manifest says of it (id, lower, upper, rows, checksum).  name: of the file in
    `files` (cesium.files.Files).  store_uuid: 16 bytes that the file must carry, or None.  blobs: a
    BlobReader for each blob file that the record names; they are pinned with the segment.
    """

    def __init__(self, object record, object files, str name, TableShape shape not None,
                 bytes store_uuid=None, blobs=()):
        cdef Segment *segment = &self.segment
        if segment.reader != NULL:
            raise ValueError("this reader was set up already")
        self.record = record
        self.files = files
        self.name = name
        self.table_shape = shape
        self.store_uuid = store_uuid
        self.process = getpid()
        self.lower_bytes = record.lower
        self.upper_bytes = record.upper
        self.blobs = tuple(blobs)
        segment.blobs = blob_table(self.blobs)
        segment.blob_count = <uint32_t>len(self.blobs)
        segment.shape = &shape.shape
        segment.id = record.id
        segment.entries = record.rows
        segment.lower = self.bound(self.lower_bytes)
        segment.upper = self.bound(self.upper_bytes)
        segment.upper_unbounded = (
            shape.shape.key_width == 0 and self.upper_bytes == UNBOUNDED_UPPER)
        segment.reader = <void *>self

    def __del__(self):
        # A forked child drops its copy; the file is the parent's.
        if self.doomed and self.process == getpid():
            self.doomed = False
            self.files.remove(self.name)

    def __dealloc__(self):
        fault_unregister(self.segment.region)
        unload(&self.segment)
        free(self.segment.blobs)
        Py_XDECREF(self.memory)

    # A trace would show the key to Python, and take its bytes for a string that ends.
    @cython.linetrace(False)
    @cython.profile(False)
    cdef Key bound(self, bytes key):
        cdef Key result
        cdef bint fixed = self.table_shape.shape.key_width != 0
        if fixed and len(key) not in (0, 8):
            raise CorruptionError(
                f"{self.path}: a bound of fixed keys has 8 bytes, not {len(key)}", file=self.path)
        result.data = NULL if fixed else <uint8_t *>PyBytes_AS_STRING(key)
        result.bytes = 0 if fixed else <uint32_t>len(key)
        result.head = load_head(<const uint8_t *>PyBytes_AS_STRING(key), <size_t>len(key))
        return result

    @property
    def path(self):
        """The path of the file."""
        return self.files.path(self.name)

    def pin(self):
        """Keep the file readable, if it is unlinked too, without reading any of it; once.

        Errors: OSError; ValueError when it is empty.
        """
        with self.own_mutex():
            if self.segment.map == NULL and self.pinned is None:
                self.pinned = self.files.map_readonly(self.name)

    def map(self):
        """Map and check the file now.  Errors: OSError, CorruptionError, Error (a newer format)."""
        self.map_file()

    cdef object own_mutex(self):
        """The lock of mapping, made when it is first needed: a large store has many segments."""
        if self.mutex is None:
            # Mapping runs Python: a signal handler or a finalizer in it may read the same segment.
            made = RLock()
            if self.mutex is None:      # making it may run a finalizer, which may need it too
                self.mutex = made
        return self.mutex

    cdef int map_file(self) except -1:
        with self.own_mutex():
            if self.segment.map != NULL:
                return 0
            try:
                self.map_locked()
            except BaseException as failure:
                self.map_failure = failure
                segment_store_status(
                    &self.segment.failed_status,
                    STATUS_CORRUPT if isinstance(failure, CorruptionError) else STATUS_IO)
                raise
            self.map_failure = None         # an earlier try may have failed for want of descriptors
            segment_store_status(&self.segment.failed_status, STATUS_OK)
        return 0

    cdef int map_locked(self) except -1:
        cdef const uint8_t[::1] view
        cdef uint64_t size
        cdef uint64_t number
        cdef void *region
        memory = self.pinned
        size = memory.size if memory is not None else self.files.size(self.name)
        if size < PAGE_BYTES:
            self.corrupt(0, "the file is too short", f"{PAGE_BYTES} bytes or more", f"{size} bytes")
        if memory is None:
            memory = self.files.map_readonly(self.name)
        view = memory
        size = <uint64_t>view.shape[0]
        # First of all, or the footer alone would cost a readahead of 4 MiB.
        madvise(<void *>&view[0], size, MADV_RANDOM)
        region = fault_register(&view[0], size, False, &self.segment.lost)
        try:
            if self.load_mapped(&view[0], size, region):
                Py_INCREF(memory)
                self.memory = <PyObject *>memory
                self.pinned = None
            else:
                fault_unregister(region)
        except BaseException:
            lost = fault_find(region, 0, size // PAGE_BYTES, &number)
            fault_unregister(region)
            if self.segment.map == NULL:
                self.segment.lost = 0
            if lost:
                self.raise_lost_page(number, size)
            raise
        return 0

    cdef bint load_mapped(self, const uint8_t *map, uint64_t size, void *region) except -1:
        """Checks what was mapped, and makes it the segment's; False when another did meanwhile."""
        cdef Segment *segment = &self.segment
        cdef Segment draft = self.segment
        cdef uint8_t end[4096]          # a copy: the footer's fields are looked at more than once
        cdef int status
        cdef bint lost
        draft.map = map
        memcpy(end, map + size - PAGE_BYTES - size % PAGE_BYTES, PAGE_BYTES)
        self.check_footer(&draft, end, size)
        draft.failed_claim = 0
        draft.failed_status = STATUS_OK
        with nogil:
            status = load(&draft, <const SegmentFooter *>end)
            if status == STATUS_OK:
                status = segment_whole(&draft)
            lost = load_lost(&segment.lost) != 0
            if status != STATUS_OK or lost:
                unload(&draft)
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        if status != STATUS_OK:
            self.raise_damage(&draft)
        if segment.map != NULL:     # a signal handler or a finalizer in the midst mapped it
            unload(&draft)
            return False
        if lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
        # The copies of `source` in the fences must read through the segment that stays.
        (<Fences *>draft.fences).source.context = segment
        segment.page_count = draft.page_count
        segment.data_pages = draft.data_pages
        segment.entries = draft.entries
        segment.delete_markers = draft.delete_markers
        segment.page_numbers = draft.page_numbers
        segment.checked = draft.checked
        segment.filter = draft.filter
        segment.filter_blocks = draft.filter_blocks
        segment.markers = draft.markers
        segment.fences = draft.fences
        segment.fence_first = draft.fence_first
        segment.fence_end = draft.fence_end
        segment.region = region
        segment_store_map(&segment.map, draft.map)
        return True

    cdef int check_footer(self, Segment *draft, const uint8_t *page, uint64_t size) except -1:
        """The footer page of a file just mapped, checked against all that is known of it."""
        problem = footer_problem(self.path, page, size, draft.shape, self.record, self.store_uuid)
        if problem is not None:
            what, expected, found = problem
            self.corrupt((size // PAGE_BYTES - 1) * PAGE_BYTES, what, expected, found)
        return 0

    cdef int corrupt(self, object offset, str what, object expected, object found) except -1:
        raise CorruptionError(
            f"{self.path}: {what} (at byte {offset}: expected {expected}, found {found})",
            file=self.path, offset=offset, expected=expected, found=found)

    cdef int raise_damage(self, const Segment *segment) except -1:
        cdef uint64_t offset = <uint64_t>segment.failed_page * PAGE_BYTES
        if segment.failed_expected != segment.failed_found:
            self.corrupt(offset, "wrong checksum of a page", hex(segment.failed_expected),
                         hex(segment.failed_found))
        self.corrupt(offset, "the content of a page makes no sense", "a valid page",
                     "fields out of bounds")

    cdef int raise_lost(self) except -1:
        """Raises for a page that was touched and could not be read; names the first such."""
        cdef Segment *segment = &self.segment
        cdef uint64_t number
        if not fault_find(segment.region, 0, segment.page_count, &number):
            number = segment.page_count - 1
        self.raise_lost_page(number, <uint64_t>segment.page_count * PAGE_BYTES)

    cdef int raise_lost_page(self, uint64_t number, uint64_t size) except -1:
        """Reads the page once more, without the mapping, to say what became of it."""
        cdef const FileOperations *operations = operations_of(self.files.operations)
        cdef uint8_t page[4096]
        cdef int64_t done = 0
        cdef int fd
        cdef uint32_t found
        offset = number * PAGE_BYTES
        now = size
        with contextlib.suppress(FileNotFoundError):        # merged away: it has no name any more
            now = self.files.size(self.name)
        if now < size:
            self.corrupt(offset, f"page {number} is lost, the file was cut off",
                         f"a file of {size} bytes", f"{now} bytes")
        with contextlib.suppress(FileNotFoundError):
            fd = self.files.open(self.name)
            try:
                with nogil:
                    done = operations.read_all(operations.context, fd, page, PAGE_BYTES,
                                               <int64_t>offset)
            finally:
                self.files.close(fd)
        if done < 0:
            raise_io(<int>-done, self.path)
        if done == PAGE_BYTES:
            found = page_checksum(self.segment.id, number, page)
            if found != (<const uint32_t *>page)[0]:
                self.corrupt(offset, "wrong checksum of a page",
                             hex((<const uint32_t *>page)[0]), hex(found))
        raise OSError(errno.EIO, f"page {number} could not be read when it was needed; close the "
                                 "store and open it again", self.path)

    cdef int raise_failure(self) except -1:
        """Raises what a status < 0 of this segment meant."""
        if isinstance(self.map_failure, FileNotFoundError):
            self.corrupt(0, "the file is missing", "a segment", "nothing")
        if self.map_failure is not None:
            raise self.map_failure.with_traceback(None)
        if load_lost(&self.segment.lost) or segment_whole(&self.segment) != STATUS_OK:
            self.raise_lost()
        cdef int status = segment_load_status(&self.segment.failed_status)
        if status == STATUS_CORRUPT:
            self.raise_damage(&self.segment)
        raise Error(f"{self.path}: reading failed")

    cdef int raise_blob_failure(self) except -1:
        cdef BlobReader reader
        for reader in self.blobs:
            reader.raise_failure()

    cdef int gate(self, int status) except -1:
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        if status < 0:
            if segment_load_status(&self.segment.failed_status) == STATUS_OK:
                self.raise_blob_failure()
            self.raise_failure()
        return status

    cdef int check(self, int status, uint64_t seen) except -1:
        cdef int whole = segment_whole(&self.segment)
        if faults_seen(FAULTS) != seen and load_lost(&self.segment.lost):
            self.raise_lost()
        return self.gate(whole if whole != STATUS_OK else status)

    def read_ahead(self, *, bint check=False, int threads=1):
        """Bring the whole file into memory; with `check` also check every page not yet checked."""
        cdef ReadAhead job
        cdef Segment *segment = &self.segment
        cdef uint64_t seen = faults_seen(FAULTS)
        self.map_file()
        job.segment = segment
        job.check = check
        job.status = STATUS_OK
        with nogil:
            parallel_for((<uint64_t>segment.page_count + READ_AHEAD_TASK_PAGES - 1)
                         // READ_AHEAD_TASK_PAGES, threads, read_ahead_task, &job)
        self.check(job.status, seen)

    def footer(self):
        """The footer: a dict of SegmentFooter's fields, and fields (widths), min_key, max_key."""
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef uint8_t page[4096]
        self.map_file()
        memcpy(page, self.segment.map + <uint64_t>(self.segment.page_count - 1) * PAGE_BYTES,
               PAGE_BYTES)
        self.check(STATUS_OK, seen)
        return footer_fields(page)

    def page(self, uint32_t number):
        """A copy of one page's 4096 bytes, unchecked."""
        self.map_file()
        if number >= self.segment.page_count:
            raise IndexError(f"page {number} of {self.segment.page_count}")
        content = copy_of(self.segment.map + <uint64_t>number * PAGE_BYTES, PAGE_BYTES)
        if fault_lost(self.segment.region, number):
            self.raise_lost()
        return content

    def verify(self, paced=None):
        """Read every page from the drive and check it; yield (page, what, expected, found)."""
        from cesium._segment_verify import verify

        return verify(self, paced)
