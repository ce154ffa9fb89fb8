"""Reading ahead of cursors: see _scan_ahead.pxd for the contract."""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memset

from cesium._advice cimport (
    WAIT_NANOSECONDS, advise_need, advise_release, monotonic_nanoseconds, pages_resident,
)
from cesium._cursor cimport Cursor
from cesium._interval cimport key_compare
from cesium._layout cimport STATUS_NO_MEMORY, STATUS_OK
from cesium._page cimport Key, PageSource, Position
from cesium._segment cimport (
    Segment, segment_is_checked, segment_number, segment_route,
)
from cesium._segment_run cimport SegmentRun, segment_run_source

cdef enum:
    # So many pages are passed with no question to the kernel but for pages never touched, or slow.
    PASSED_QUIETLY = 16
    RELEASE_LAG_PAGES = 64      # the page that was left last is still being copied


# --- which pages ---------------------------------------------------------------------------------


cdef int64_t last_needed(const ScanAhead *ahead) noexcept nogil:
    """The last page of the segment, in the cursor's direction, that its bounds take in."""
    cdef Segment *segment = ahead.segment
    cdef const Key *bound = &ahead.cursor.bounds.upper
    cdef bint fixed = segment.shape.key_width != 0
    cdef uint32_t ordinal
    if ahead.direction < 0:
        bound = &ahead.cursor.bounds.lower
        if key_compare(fixed, bound, &segment.lower) <= 0:
            return 0
    elif ahead.cursor.bounds.unbounded or (
            not segment.upper_unbounded and key_compare(fixed, bound, &segment.upper) > 0):
        return <int64_t>segment_number(segment, segment.data_pages - 1)
    if segment_route(segment, bound, &ordinal) != STATUS_OK:
        return ahead.at
    return <int64_t>segment_number(segment, ordinal)


cdef inline void set_mine(ScanAhead *ahead, int64_t number, bint mine) noexcept nogil:
    cdef uint64_t place = <uint64_t>number % (2 * SCAN_PAGES)
    cdef uint64_t bit = <uint64_t>1 << (place & 63)
    if mine:
        ahead.mine[place >> 6] |= bit
    else:
        ahead.mine[place >> 6] &= ~bit


cdef inline bint is_mine(const ScanAhead *ahead, int64_t number) noexcept nogil:
    cdef uint64_t place = <uint64_t>number % (2 * SCAN_PAGES)
    return (ahead.mine[place >> 6] >> (place & 63)) & 1


cdef void ask(ScanAhead *ahead, int64_t first, int64_t end) noexcept nogil:
    """Has pages read that are not in memory, and notes which those were."""
    cdef uint8_t there[SCAN_STEP_PAGES]
    cdef int64_t number = first
    cdef int64_t start
    pages_resident(ahead.segment.map, <uint64_t>first, <uint64_t>(end - first), there)
    while number < end:
        start = number
        while number < end and not there[number - first] & 1:
            set_mine(ahead, number, True)
            number += 1
        if number > start:
            advise_need(ahead.segment.map, <uint64_t>start, <uint64_t>(number - start))
            ahead.brought_pages += <uint64_t>(number - start)
            ahead.cold = True
        while number < end and there[number - first] & 1:
            set_mine(ahead, number, False)
            number += 1


cdef void ask_up_to(ScanAhead *ahead, int64_t end) noexcept nogil:
    """Asks for pages from `next` on, in steps, in the direction of the scan."""
    cdef int64_t step
    if (ahead.end - end) * ahead.direction < 0:
        end = ahead.end
    ahead.cold = False
    while (end - ahead.next) * ahead.direction > 0:
        step = min((end - ahead.next) * ahead.direction, <int64_t>SCAN_STEP_PAGES)
        if ahead.direction > 0:
            ask(ahead, ahead.next, ahead.next + step)
        else:
            ask(ahead, ahead.next - step + 1, ahead.next + 1)
        ahead.next += step * ahead.direction


cdef void let_go(ScanAhead *ahead, int64_t end) noexcept nogil:
    """Lets go of the scan's own pages from `behind` up to `end`, in the direction of the scan."""
    cdef int64_t first = ahead.behind if ahead.direction > 0 else end + 1
    cdef int64_t last = end if ahead.direction > 0 else ahead.behind + 1
    cdef int64_t start
    ahead.behind = end
    while first < last:
        start = first
        while first < last and is_mine(ahead, first):
            first += 1
        if first > start:
            advise_release(ahead.segment.map, <uint64_t>start, <uint64_t>(first - start))
        while first < last and not is_mine(ahead, first):
            first += 1


# --- where the input goes ------------------------------------------------------------------------


cdef void enter(ScanAhead *ahead, Segment *segment, int direction) noexcept nogil:
    """The input came to another segment."""
    if ahead.segment != NULL and ahead.brought_pages > ahead.keep_pages:
        let_go(ahead, ahead.at)
    ahead.segment = segment
    ahead.direction = direction
    memset(ahead.mine, 0, sizeof(ahead.mine))


cdef void moved(ScanAhead *ahead, const Position *position, int direction, bint slow,
                bint jumped) noexcept nogil:
    cdef Segment *segment = ahead.run.segments[position.ordinal >> 32]
    cdef int64_t number = <int64_t>segment_number(segment, <uint32_t>position.ordinal)
    cdef int64_t distance = SCAN_PAGES
    cdef int64_t left
    if jumped:
        ahead.passed = 0
    if segment != ahead.segment or direction != ahead.direction or jumped:
        enter(ahead, segment, direction)
        ahead.behind = number
        ahead.next = number + direction
        ahead.at = number
        ahead.end = INT64_MAX       # worked out when it is needed
    ahead.at = number
    if (ahead.next - number) * direction <= 0:      # jumped over pages of overflow
        ahead.next = number + direction
    if ahead.brought_pages <= ahead.keep_pages:
        ahead.behind = number
    elif (number - ahead.behind) * direction >= SCAN_STEP_PAGES + RELEASE_LAG_PAGES:
        let_go(ahead, number - RELEASE_LAG_PAGES * direction)
    ahead.passed += 1
    ahead.cold |= slow
    if not ahead.cold and ahead.passed <= PASSED_QUIETLY:
        ahead.cold = not segment_is_checked(
            segment.checked, <uint32_t>max(min(number + direction, <int64_t>segment.page_count - 1),
                                           <int64_t>0))
        if not ahead.cold:
            return
    if not ahead.eager:
        if jumped:
            return              # whoever takes the first rows only, reads no more than those
        distance = min(distance, 2 * <int64_t>ahead.passed)
    left = (ahead.next - number) * direction - 1
    if left > distance // 2 and distance - left < SCAN_STEP_PAGES:
        return
    if ahead.end == INT64_MAX:
        ahead.end = last_needed(ahead) + direction
    ask_up_to(ahead, number + (1 + distance) * direction)


# --- as a source of pages ------------------------------------------------------------------------


cdef int jumped_to(ScanAhead *ahead, const Position *position, int64_t before,
                   int status) noexcept nogil:
    """The input was sought, since `before`, and has the status that is given back."""
    if status == STATUS_OK and position.page != NULL:
        moved(ahead, position, ahead.cursor.direction,
              monotonic_nanoseconds() - before > WAIT_NANOSECONDS, True)
    return status


cdef int ahead_seek(void *context, const Key *key, Position *position) noexcept nogil:
    cdef ScanAhead *ahead = <ScanAhead *>context
    cdef int64_t before = monotonic_nanoseconds()
    return jumped_to(ahead, position, before,
                     ahead.inner.seek(ahead.inner.context, key, position))


cdef int ahead_edge(void *context, Position *position, int direction) noexcept nogil:
    cdef ScanAhead *ahead = <ScanAhead *>context
    cdef int64_t before = monotonic_nanoseconds()
    return jumped_to(ahead, position, before,
                     ahead.inner.edge(ahead.inner.context, position, direction))


cdef int ahead_step(void *context, Position *position, int direction) noexcept nogil:
    cdef ScanAhead *ahead = <ScanAhead *>context
    cdef bint quiet = not ahead.cold and ahead.passed <= PASSED_QUIETLY
    cdef int64_t before = monotonic_nanoseconds() if quiet else 0
    cdef int status = ahead.inner.step(ahead.inner.context, position, direction)
    if status == STATUS_OK and position.page != NULL:
        moved(ahead, position, direction,
              quiet and monotonic_nanoseconds() - before > WAIT_NANOSECONDS, False)
    return status


cdef int ahead_read_overflow(void *context, uint64_t location, uint64_t skip, uint8_t *destination,
                             uint64_t bytes) noexcept nogil:
    cdef ScanAhead *ahead = <ScanAhead *>context
    return ahead.inner.read_overflow(ahead.inner.context, location, skip, destination, bytes)


cdef int scan_ahead_attach(Cursor *cursor, uint32_t input, const SegmentRun *run) noexcept nogil:
    cdef ScanAhead *aheads = <ScanAhead *>cursor.aheads
    cdef PageSource *source = &cursor.inputs[input].source
    if aheads == NULL:
        aheads = <ScanAhead *>calloc(cursor.count, sizeof(ScanAhead))
        if aheads == NULL:
            return STATUS_NO_MEMORY
        cursor.aheads = aheads
    aheads += input
    aheads.run = run
    aheads.cursor = cursor
    aheads.keep_pages = <uint64_t>-1
    aheads.inner = run.sources[0]
    if run.count > 1:
        segment_run_source(<SegmentRun *>run, &aheads.inner)
    source.context = aheads
    source.seek = ahead_seek
    source.step = ahead_step
    source.edge = ahead_edge
    source.read_overflow = ahead_read_overflow
    source.whole = NULL         # a cursor asks the parts
    source.blob_of = NULL
    cursor.inputs[input].parts = run.sources
    return STATUS_OK


cdef void scan_ahead_set(Cursor *cursor, bint eager, uint64_t keep_pages) noexcept nogil:
    cdef ScanAhead *aheads = <ScanAhead *>cursor.aheads
    cdef uint32_t index
    if aheads != NULL:
        for index in range(cursor.count):
            aheads[index].eager = eager
            aheads[index].keep_pages = keep_pages


cdef uint64_t scan_ahead_brought(const Cursor *cursor) noexcept nogil:
    cdef const ScanAhead *aheads = <const ScanAhead *>cursor.aheads
    cdef uint64_t pages = 0
    cdef uint32_t index
    if aheads != NULL:
        for index in range(cursor.count):
            pages += aheads[index].brought_pages
    return pages
