"""Reading ahead of batches: see _batch_ahead.pxd for the contract."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cesium._advice cimport (
    WAIT_NANOSECONDS, advise_need, monotonic_nanoseconds, pages_resident,
)
from cesium._layout cimport STATUS_OK
from cesium._native cimport SortPair, hash_head
from cesium._page cimport Key, Shape
from cesium._segment cimport (
    Segment, segment_is_checked, segment_may_contain, segment_number, segment_page, segment_ready,
    segment_route_heads,
)
from cesium._segment_run cimport SegmentRun, run_holder

cdef enum:
    SAMPLED = 8                 # every so manieth page is asked about
    RESIDENT_MOST = 8           # so many in memory, one after another, end the reading ahead
    SPAN_MOST = 32              # pages in one piece of advice
    CALM_MOST = 64
    # A group of 32 warm keys takes 3 us, or 13 where each misses all caches.
    GROUP_NANOSECONDS = 2 * WAIT_NANOSECONDS


# --- the window ------------------------------------------------------------------------------


cdef bint window_is_full(const AheadWindow *window, uint64_t done) noexcept nogil:
    return window.pages >= AHEAD_PAGES and window.keys[window.pages % AHEAD_PAGES] >= done


cdef void window_flush(AheadWindow *window) noexcept nogil:
    if window.span_pages:
        advise_need(window.segment.map, window.span_first, window.span_pages)
        window.span_pages = 0


cdef bint sample(AheadWindow *window, Segment *segment, uint32_t number) noexcept nogil:
    """Whether a page is in memory; enough such pages end the reading ahead."""
    cdef uint8_t there
    pages_resident(segment.map, number, 1, &there)
    if not there & 1:
        window.resident = 0
        window.calm_next = 0
        return False
    window.resident += 1
    if window.resident == RESIDENT_MOST:
        # Slow for another reason (pages mapped anew, a busy processor): look again, but later.
        window.cold = False
        window.resident = 0
        window.calm = window.calm_next
        window.calm_next = min(2 * window.calm_next + 1, <uint32_t>CALM_MOST)
    return True


cdef void window_ask(AheadWindow *window, Segment *segment, uint32_t number,
                     uint64_t key) noexcept nogil:
    cdef bint there
    if segment == window.segment and number == window.number and window.pages:
        return
    there = window.pages % SAMPLED == 0 and sample(window, segment, number)
    window.keys[window.pages % AHEAD_PAGES] = key
    window.pages += 1
    if (there or segment != window.segment or number != window.span_first + window.span_pages
            or window.span_pages == SPAN_MOST):
        window_flush(window)
        window.span_first = number
    if not there:
        window.span_pages += 1
    window.segment = segment
    window.number = number


cdef void window_begin(AheadWindow *window, bint untouched) noexcept nogil:
    window.cold = untouched
    window.moment = monotonic_nanoseconds()


cdef void window_group_done(AheadWindow *window, int64_t most_nanoseconds) noexcept nogil:
    cdef int64_t now = monotonic_nanoseconds()
    if now - window.moment > most_nanoseconds and not window.cold:
        if window.calm:
            window.calm -= 1
        else:
            window.cold = True
            window.resident = 0
    window.moment = now


# --- a batch in a run --------------------------------------------------------------------------


cdef void batch_ahead_init(BatchAhead *ahead, const Shape *shape, const SegmentRun *run,
                           const SortPair *pairs, uint64_t count) noexcept nogil:
    memset(ahead, 0, sizeof(BatchAhead))
    ahead.shape = shape
    ahead.run = run
    ahead.pairs = pairs
    ahead.count = count


cdef bint route_group(BatchAhead *ahead) noexcept nogil:
    """Routes the next pairs, all in one segment, to their pages; False when there are none."""
    cdef uint64_t heads[AHEAD_GROUP]
    cdef uint32_t ordinals[AHEAD_GROUP]
    cdef Segment *segment = NULL
    cdef Key key
    cdef uint64_t head
    cdef uint32_t count = 0
    cdef uint32_t place
    memset(&key, 0, sizeof(Key))
    ahead.asked = 0
    ahead.routed = 0
    while segment == NULL:
        if ahead.next >= ahead.count:
            return False
        key.head = ahead.pairs[ahead.next].key
        segment = run_holder(ahead.shape, ahead.run, &key, &place)
        if segment == NULL:
            ahead.next += 1
    if segment_ready(segment) != STATUS_OK:
        return False
    while ahead.next < ahead.count and count < AHEAD_GROUP:
        head = ahead.pairs[ahead.next].key
        if head > segment.upper.head and not segment.upper_unbounded:
            break
        if not segment.filter_blocks or segment_may_contain(segment, hash_head(head)):
            heads[count] = head
            ahead.places[count] = ahead.next
            count += 1
        ahead.next += 1
    if segment_route_heads(segment, heads, count, ordinals, NULL) != STATUS_OK:
        return False
    for place in range(count):
        if ordinals[place] >= segment.data_pages:   # the fences were lost while they were searched
            return False
        ahead.numbers[place] = segment_number(segment, ordinals[place])
    ahead.segment = segment
    ahead.routed = count
    return True


cdef void read_ahead(BatchAhead *ahead, uint64_t done) noexcept nogil:
    cdef AheadWindow *window = &ahead.window
    # Where others than the drive made a group slow, reading ahead starts again behind `done`.
    if ahead.next < done:
        ahead.next = done
        ahead.asked = ahead.routed = 0
    while window.cold and not window_is_full(window, done):
        if ahead.asked == ahead.routed:
            if not route_group(ahead):
                break
            continue
        window_ask(window, ahead.segment, ahead.numbers[ahead.asked], ahead.places[ahead.asked])
        ahead.asked += 1
    window_flush(window)


cdef void batch_ahead_group(BatchAhead *ahead, Segment *segment, const uint32_t *ordinals,
                            uint32_t count, uint64_t done) noexcept nogil:
    cdef const uint8_t *page
    cdef bint untouched = False
    cdef uint32_t lane
    if ahead.window.moment == 0 and count:
        for lane in range(count):
            if ordinals[lane] < segment.data_pages:
                untouched |= not segment_is_checked(segment.checked,
                                                    segment_number(segment, ordinals[lane]))
        window_begin(&ahead.window, untouched)
        if not untouched:       # what was read once may have been evicted: one key tells
            segment_page(segment, ordinals[0], &page)
            window_group_done(&ahead.window, WAIT_NANOSECONDS)
    if ahead.window.cold:
        read_ahead(ahead, done)


cdef void batch_ahead_group_done(BatchAhead *ahead) noexcept nogil:
    if ahead.window.moment:
        window_group_done(&ahead.window, GROUP_NANOSECONDS)
