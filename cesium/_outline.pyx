"""What a look at a table needs without reading it: how its rows are spread, how long a value is.

Thread safety: any thread, any number at once; a view is pinned, and nothing is written.
"""

from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from cesium._faults cimport fault_counter, faults_seen
from cesium._interval cimport key_compare
from cesium._layout cimport KIND_DELETE, KIND_MASK, STATUS_NOT_FOUND, STATUS_OK
from cesium._page cimport Key, PageSource, Position, header_of, kind_of, page_value_bytes
from cesium._ranges cimport View, key_from
from cesium._segment cimport (
    Segment, SegmentReader, segment_rank, segment_rank_of_page, segment_ready, segment_route,
)
from cesium._segment_run cimport SegmentRun
from cesium._version cimport Found, found_whole, version_find

cdef const uint64_t *FAULTS = fault_counter()


cdef int rank_in_segment(Segment *segment, const Key *key, uint32_t pages_exact,
                         uint64_t *rank) noexcept nogil:
    """Entries below a key: from the fences alone, to a page; exactly where there are few pages."""
    cdef uint32_t ordinal = 0
    cdef int status = segment_ready(segment)
    rank[0] = 0
    if status != STATUS_OK:
        return status
    if segment.data_pages <= pages_exact:
        return segment_rank(segment, key, rank)
    status = segment_route(segment, key, &ordinal)
    if status == STATUS_OK:
        rank[0] = segment_rank_of_page(segment, ordinal)
    return STATUS_OK if status == STATUS_NOT_FOUND else status


cdef int add_run(View view, SegmentRun *run, const Key *keys, uint64_t *below,
                 uint32_t count, uint32_t pages_exact) except? -1:
    """Adds a run's entries below each key; a segment between two keys counts by its record."""
    cdef bint fixed = view.shape.key_width != 0
    cdef Segment *segment = NULL
    cdef uint64_t passed = 0
    cdef uint64_t rank
    cdef uint32_t place = 0
    cdef uint32_t index
    cdef int status = STATUS_OK
    for index in range(count):
        while place < run.count:
            segment = run.segments[place]
            if segment.upper_unbounded or key_compare(fixed, &segment.upper, &keys[index]) >= 0:
                break
            passed += <uint64_t>(<SegmentReader>segment.reader).record.rows
            place += 1
        below[index] += passed
        if place == run.count or key_compare(fixed, &keys[index], &segment.lower) <= 0:
            continue
        with nogil:
            status = rank_in_segment(segment, &keys[index], pages_exact, &rank)
        if status != STATUS_OK:
            break
        below[index] += rank
    return status


cdef int add_memtable(PageSource *source, const Key *keys, uint64_t *below,
                      uint32_t count) noexcept nogil:
    """Adds a memtable's entries below each key, by the counts in the headers of its pages."""
    cdef Position walk
    cdef Position found
    cdef uint64_t passed = 0
    cdef uint32_t index
    cdef int status = source.edge(source.context, &walk, 1)
    for index in range(count):
        if status == STATUS_OK:
            status = source.seek(source.context, &keys[index], &found)
        while status == STATUS_OK and walk.page != NULL and walk.page != found.page:
            passed += header_of(walk.page).count
            status = source.step(source.context, &walk, 1)
        below[index] += passed + (found.slot if found.page != NULL else 0)
    return status


def entries_below(View view not None, list bounds not None, bint exact=False):
    """About how many entries have a key below each bound: a list of int.

    bounds: encoded keys, ascending.  Segments answer from their fences, so to a page, and those
    with no more pages than there are bounds exactly, as memtables do.  exact: all do; either way a
    bound costs at most a page of each run.  Entries that a newer source hides count, and so do
    delete markers.
    """
    cdef uint32_t count = <uint32_t>len(bounds)
    cdef uint32_t pages_exact = UINT32_MAX if exact else count
    cdef uint32_t index
    cdef uint64_t seen = faults_seen(FAULTS)
    cdef bint fixed = view.shape.key_width != 0
    cdef int status = STATUS_OK
    cdef Key *keys = <Key *>calloc(count + 1, sizeof(Key))
    cdef uint64_t *below = <uint64_t *>calloc(count + 1, sizeof(uint64_t))
    try:
        if keys == NULL or below == NULL:
            raise MemoryError
        for index in range(count):
            key_from(bounds[index] if fixed else <bytes?>bounds[index], fixed, &keys[index])
        for index in range(view.count):
            if view.items[index].run != NULL:
                status = add_run(view, view.items[index].run, keys, below, count,
                                 pages_exact)
            else:
                with nogil:
                    status = add_memtable(&view.items[index].source, keys, below, count)
            view.check(status, seen)
        return [below[index] for index in range(count)]
    finally:
        free(keys)
        free(below)


def value_length(View view not None, key):
    """Bytes of the value of an encoded key as stored, without reading it; None without one."""
    cdef Key encoded
    cdef Found found
    cdef uint64_t seen = faults_seen(FAULTS)
    cdef uint64_t length = 0
    cdef int status
    cdef bint fixed = view.shape.key_width != 0
    key_from(key if fixed else <bytes?>key, fixed, &encoded)
    with nogil:
        status = version_find(view.shape, view.items, view.count, &encoded, False, &found)
        if status == STATUS_OK:
            status = found_whole(&found)
        if status == STATUS_OK:
            if kind_of(found.position.page, found.position.slot) & KIND_MASK == KIND_DELETE:
                status = STATUS_NOT_FOUND
            elif view.shape.value_width:
                length = view.shape.value_width
            else:
                length = page_value_bytes(found.position.page, found.position.slot)
    view.check(status, seen)
    return None if status == STATUS_NOT_FOUND else length
