"""Sweeping gaps: see _sweep.pxd for the contract."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cesium._counters cimport GAPS_SWEPT, count_more
from cesium._engine cimport Engine, pthread_mutex_t, pthread_rwlock_t
from cesium._faults cimport fault_counter, faults_seen
from cesium._gap cimport Gap, GapEdge
from cesium._interval cimport (
    Interval, IntervalSet, interval_set_at_or_after, interval_set_at_or_before, key_compare,
)
from cesium._layout cimport KEY_INLINE_BYTES, STATUS_OK
from cesium._memtable cimport (
    MemtableCounters, MemtableState, memtable_counters, memtable_delete_range, memtable_has_values,
    memtable_markers,
)
from cesium._native cimport load_head
from cesium._page cimport Key, Shape, heads_of, page_copy_key, page_key_bytes

cdef extern from "<pthread.h>" nogil:
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef const uint64_t *FAULTS = fault_counter()


cdef int edge_key(const Shape *shape, const GapEdge *edge, bint behind, uint8_t *buffer,
                  Key *key) noexcept nogil:
    """The key at an edge, or (behind) the smallest one above it; -1 where it is too long to copy,
    has none above it, or its page is not whole any more."""
    cdef uint64_t bytes = 0
    memset(key, 0, sizeof(Key))
    if shape.key_width:
        key.head = heads_of(edge.page)[edge.slot]
        if behind and key.head == UINT64_MAX:
            return -1
        key.head += behind
    else:
        bytes = page_key_bytes(shape, edge.page, edge.slot)
        if bytes + 1 > KEY_INLINE_BYTES or page_copy_key(shape, edge.page, edge.slot, edge.source,
                                                         buffer) != STATUS_OK:
            return -1
        if behind:
            buffer[bytes] = 0
            bytes += 1
        key.data = buffer
        key.bytes = <uint32_t>bytes
        key.head = load_head(buffer, bytes)
    if edge.source.whole != NULL and edge.source.whole(edge.source.context) != STATUS_OK:
        return -1
    return 0


cdef int gap_bounds(const Shape *shape, const Gap *gap, int direction, uint8_t *buffers,
                    Key *lower, Key *upper) noexcept nogil:
    """[lower, upper): from the first marker up to the visible row behind it, or the last marker;
    so gaps that grow at an end, as those of a queue do, become one interval."""
    cdef uint8_t *other = buffers + KEY_INLINE_BYTES
    cdef bint ends = gap.after.page == NULL
    if direction > 0:
        if edge_key(shape, &gap.first, False, buffers, lower):
            return -1
        return edge_key(shape, &gap.last if ends else &gap.after, ends, other, upper)
    if edge_key(shape, &gap.first, True, buffers, upper):
        return -1
    return edge_key(shape, &gap.last if ends else &gap.after, not ends, other, lower)


cdef void take_key(bint fixed, const Key *key, uint8_t *buffer, Key *copy) noexcept nogil:
    if fixed:
        copy[0] = key[0]
    elif key.bytes <= KEY_INLINE_BYTES:
        memcpy(buffer, key.data, key.bytes)
        copy[0] = key[0]
        copy.data = buffer


cdef void join_below(bint fixed, const IntervalSet *markers, const Key *limit, uint8_t *buffer,
                     Key *lower) noexcept nogil:
    """Lowers `lower` to the end of the marker below it, if that lies above the limit."""
    cdef const Interval *neighbour = interval_set_at_or_before(markers, lower)
    if (neighbour != NULL and not neighbour.unbounded
            and key_compare(fixed, &neighbour.upper, lower) < 0
            and key_compare(fixed, &neighbour.upper, limit) > 0):
        take_key(fixed, &neighbour.upper, buffer, lower)


cdef void join_above(bint fixed, const IntervalSet *markers, const Key *limit, uint8_t *buffer,
                     Key *upper) noexcept nogil:
    """Raises `upper` to the start of the marker above it, if that is not above the limit (NULL:
    there is none)."""
    cdef const Interval *neighbour = interval_set_at_or_after(markers, upper)
    if (neighbour != NULL and key_compare(fixed, &neighbour.lower, upper) > 0
            and (limit == NULL or key_compare(fixed, &neighbour.lower, limit) <= 0)):
        take_key(fixed, &neighbour.lower, buffer, upper)


cdef void join_neighbours(const Shape *shape, const Gap *gap, const Cursor *cursor,
                          const IntervalSet *markers, uint8_t *buffers, Key *lower,
                          Key *upper) noexcept nogil:
    """Lets the interval touch the markers on either side, if no visible row lies between: what is
    deleted one by one would leave thousands otherwise, each of them a jump."""
    cdef bint fixed = shape.key_width != 0
    cdef const Key *below = &cursor.bounds.lower    # nothing visible lies between these two
    cdef const Key *above = NULL
    cdef Key row
    if not cursor.bounds.unbounded:
        above = &cursor.bounds.upper
    if gap.before.page != NULL:
        if edge_key(shape, &gap.before, False, buffers, &row):
            return
        if cursor.direction > 0:
            below = &row
        else:
            above = &row
    if cursor.direction > 0 or gap.after.page == NULL:
        join_below(fixed, markers, below, buffers + KEY_INLINE_BYTES, lower)
    if cursor.direction < 0 or gap.after.page == NULL:
        join_above(fixed, markers, above, buffers + 2 * KEY_INLINE_BYTES, upper)


cdef bint is_still_empty(MemtableState *live, uint64_t changes, const Key *lower,
                         const Key *upper) noexcept nogil:
    """Whether nothing was put between the keys since the cursor's view; the sources below the live
    memtable are the same, and what it deletes of them it still deletes."""
    cdef MemtableCounters counters
    memtable_counters(live, &counters)
    return counters.changes == changes or not memtable_has_values(live, lower, upper)


cdef int sweep(TableCore core, uint64_t version_number, uint64_t changes,
               Cursor *cursor) except -1:
    cdef Engine engine = core.engine
    cdef Gap gap = cursor.gaps.widest
    cdef const Shape *shape = &core.shape.shape
    cdef uint8_t *buffers
    cdef uint64_t seen = faults_seen(FAULTS)
    cdef uint64_t *swept = &engine.counters.totals[GAPS_SWEPT]
    cdef MemtableState *live
    cdef Key lower
    cdef Key upper
    memset(&cursor.gaps.widest, 0, sizeof(Gap))
    if gap.markers < SWEEP_MARKERS or engine.read_only or pthread_mutex_trylock(&engine.writer):
        return 0
    # With the writer lock, the version and the live memtable stay; no Python runs until the end.
    if engine.closed or engine.poisoned is not None or core.version_now.number != version_number:
        pthread_mutex_unlock(&engine.writer)
        return 0
    live = core.live.state
    with nogil:
        buffers = <uint8_t *>malloc(5 * KEY_INLINE_BYTES)
        if (buffers != NULL
                and gap_bounds(shape, &gap, cursor.direction, buffers, &lower, &upper) == 0
                and faults_seen(FAULTS) == seen):
            join_neighbours(shape, &gap, cursor, memtable_markers(live),
                            buffers + 2 * KEY_INLINE_BYTES, &lower, &upper)
            pthread_rwlock_wrlock(&engine.lock)
            if is_still_empty(live, changes, &lower, &upper):
                # Without memory nothing changes, and some later read tries again.
                if memtable_delete_range(live, &lower, &upper, False) == STATUS_OK:
                    count_more(swept, 1)
            pthread_rwlock_unlock(&engine.lock)
        free(buffers)
        pthread_mutex_unlock(&engine.writer)
    return 0
