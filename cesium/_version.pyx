"""Versions: sources, routing to segments, point and batch lookup.  See _version.pxd."""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cesium._batch_ahead cimport (
    BatchAhead, batch_ahead_group, batch_ahead_group_done, batch_ahead_init,
)
from cesium._counters cimport FilterCounts
from cesium._cursor cimport Cursor
from cesium._faults cimport fault_counter, faults_seen, load_lost
from cesium._interval cimport interval_set_find
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, STATUS_CLOSED, STATUS_CORRUPT, STATUS_FULL, STATUS_IO, STATUS_LIMIT,
    STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK, STATUS_POISONED,
)
from cesium._memtable cimport MemtableSnapshot, memtable_root_markers, memtable_root_source
from cesium._native cimport (
    HeadsSearch, SortPair, hash_bytes, hash_head, heads_around, heads_lower_bound_group,
    heads_lower_bound_near, prefetch_read,
)
from cesium._page cimport (
    Key, PageSource, Position, Shape, TableShape, header_of, heads_of, kind_of, page_copy_row,
    page_find, run_of,
)
from cesium._scan_ahead cimport scan_ahead_attach
from cesium._segment cimport (
    Segment, SegmentReader, segment_find, segment_is_checked, segment_locate, segment_may_contain,
    segment_number, segment_page, segment_ready, segment_route, segment_route_heads, segment_source,
    segment_whole,
)
from cesium._segment_run cimport (
    SegmentRun, run_holder, segment_run_free, segment_run_new, segment_run_source,
)
from cesium.errors import ClosedError, CorruptionError, Error, LimitError, PoisonedError

cdef enum:
    GROUP = 32                  # lookups in flight at once
    EXCLUDED = 0xFFFFFFFF

cdef uint64_t version_numbers = 0
cdef const uint64_t *FAULTS = fault_counter()


# --- the version -----------------------------------------------------------------------------


cdef class Version:
    """Version(shape, sources, last_run_is_base): see the module's contract.

    sources: newest first; each is a MemtableSnapshot or a list of SegmentReader in key order.
    """

    def __cinit__(self, TableShape shape, list sources, bint last_run_is_base):
        global version_numbers
        cdef Py_ssize_t index
        cdef VersionSource *item
        cdef MemtableSnapshot snapshot
        version_numbers += 1
        self.number = version_numbers
        self.shape = shape
        self.sources = sources
        self.last_run_is_base = last_run_is_base
        self.items = <VersionSource *>calloc(len(sources) + 1, sizeof(VersionSource))
        if self.items == NULL:
            raise MemoryError
        for index, source in enumerate(sources):
            item = &self.items[index]
            if isinstance(source, MemtableSnapshot):
                snapshot = source
                memtable_root_source(snapshot.root, &item.source)
                item.markers = memtable_root_markers(snapshot.root)
            else:
                item.run = segment_run_new(source)
                if item.run.count == 1:
                    item.source = item.run.sources[0]
                else:
                    segment_run_source(item.run, &item.source)
            self.count += 1

    def __dealloc__(self):
        cdef uint32_t index
        for index in range(self.count):
            segment_run_free(self.items[index].run)
        free(self.items)

    cdef int check(self, int status, uint64_t seen) except -1:
        cdef SegmentReader reader
        if faults_seen(FAULTS) != seen:
            for reader in self.segments():
                if load_lost(&reader.segment.lost):
                    reader.raise_lost()
        if status < 0:
            self.raise_status(status)
        return 0

    cdef int raise_status(self, int status) except -1:
        cdef SegmentReader reader
        if status >= 0:
            return 0
        for source in self.sources:
            if isinstance(source, list):
                for reader in source:
                    if reader.segment.failed_status < 0:
                        reader.raise_failure()
        for reader in self.segments():
            reader.raise_blob_failure()
        raise_plain(status)
        return -1

    def segments(self):
        """Every SegmentReader of this version, newest source first."""
        return [reader for source in self.sources if isinstance(source, list) for reader in source]


cdef int raise_plain(int status) except -1:
    """The gate for statuses that carry no place."""
    if status == STATUS_NO_MEMORY:
        raise MemoryError
    if status == STATUS_CORRUPT:
        raise CorruptionError("a page holds what no writer of this format writes")
    if status == STATUS_IO:
        raise OSError("input or output failed")
    if status == STATUS_LIMIT:
        raise LimitError("larger than the format allows")
    if status == STATUS_CLOSED:
        raise ClosedError("the store is closed")
    if status == STATUS_POISONED:
        raise PoisonedError("an earlier write or sync failed")
    raise Error(f"unexpected status {status}")


cdef inline uint64_t hash_key(const Shape *shape, const Key *key) noexcept nogil:
    if shape.key_width:
        return hash_head(key.head)
    return hash_bytes(key.data, key.bytes)


cdef int find_if_warm(const Shape *shape, Segment *segment, const Key *key,
                      Position *position) noexcept nogil:
    """segment_find on a page that was checked before; STATUS_FULL when the page is cold."""
    cdef uint32_t ordinal
    cdef uint32_t guess
    cdef bint exact
    cdef PageSource source
    cdef int status
    if shape.key_width:
        status = segment_locate(segment, key.head, &ordinal, &guess)
    else:
        status = segment_route(segment, key, &ordinal)
    if status != STATUS_OK:
        return status
    if load_lost(&segment.lost):
        return STATUS_FULL
    if not segment_is_checked(segment.checked, segment_number(segment, ordinal)):
        return STATUS_FULL
    status = segment_page(segment, ordinal, &position.page)
    if status != STATUS_OK:
        return status
    position.ordinal = ordinal
    if shape.key_width:
        position.slot = heads_lower_bound_near(
            heads_of(position.page), header_of(position.page).count, key.head, guess)
        exact = (position.slot < header_of(position.page).count
                 and heads_of(position.page)[position.slot] == key.head)
        return STATUS_OK if exact else STATUS_NOT_FOUND
    segment_source(segment, &source)
    status = page_find(shape, position.page, key, &source, &position.slot, &exact)
    if status == STATUS_OK and not exact:
        return STATUS_NOT_FOUND
    return status


cdef int version_find(const Shape *shape, VersionSource *items, uint32_t count, const Key *key,
                      bint warm_only, Found *found) noexcept nogil:
    cdef VersionSource *item
    cdef Segment *segment
    cdef uint32_t index
    cdef uint32_t place
    cdef uint64_t hashed = 0
    cdef bint is_hashed = False
    cdef bint excluded
    cdef bint exact
    cdef int status
    memset(&found.filters, 0, sizeof(FilterCounts))
    for index in range(count):
        item = &items[index]
        if item.run == NULL:
            found.segment = NULL
            found.source = &item.source
            status = item.source.seek(item.source.context, key, &found.position)
            if status != STATUS_OK:
                return status
            if found.position.page != NULL:
                if shape.key_width:
                    if heads_of(found.position.page)[found.position.slot] == key.head:
                        return STATUS_OK
                else:
                    status = page_find(shape, found.position.page, key, &item.source, &place,
                                       &exact)
                    if status != STATUS_OK:
                        return status
                    if exact:
                        found.position.slot = place
                        return STATUS_OK
            if interval_set_find(item.markers, key) != NULL:
                return STATUS_NOT_FOUND
            continue
        segment = run_holder(shape, item.run, key, &place)
        if segment == NULL:
            continue
        if warm_only and segment.map == NULL:
            return STATUS_FULL
        status = segment_ready(segment)
        if status != STATUS_OK:
            return status
        if segment.filter_blocks and not is_hashed:
            hashed = hash_key(shape, key)
            is_hashed = True
        excluded = segment.filter_blocks != 0 and not segment_may_contain(segment, hashed)
        found.filters.lookups += segment.filter_blocks != 0
        if excluded:
            found.filters.negatives += 1
            status = STATUS_NOT_FOUND
        elif warm_only:
            status = find_if_warm(shape, segment, key, &found.position)
        else:
            status = segment_find(segment, key, &found.position)
        if status == STATUS_OK:
            found.segment = segment
            found.source = &item.run.sources[place]
            return STATUS_OK
        if status == STATUS_NOT_FOUND:
            if segment.filter_blocks and not excluded:
                found.filters.false_positives += 1
            status = segment_whole(segment)
        if status != STATUS_OK:
            return status
        if segment.markers != NULL and interval_set_find(segment.markers, key) != NULL:
            return STATUS_NOT_FOUND
    return STATUS_NOT_FOUND


cdef int version_fill_inputs(VersionSource *items, uint32_t count, Cursor *cursor,
                             uint32_t first_input) noexcept nogil:
    cdef uint32_t index
    cdef SegmentRun *run
    cdef int status
    for index in range(count):
        cursor.inputs[first_input + index].source = items[index].source
        cursor.inputs[first_input + index].markers = items[index].markers
        run = items[index].run
        if run != NULL:
            status = scan_ahead_attach(cursor, first_input + index, run)
            if status != STATUS_OK:
                return status
        if run != NULL and run.marked:
            status = segment_ready(run.segments[0])
            if status != STATUS_OK:
                return status
            cursor.inputs[first_input + index].markers = run.segments[0].markers
    return STATUS_OK


# --- batch lookup ----------------------------------------------------------------------------
# A source answers the pairs that no newer source knew: `open_pairs` shrinks from source to source.


cdef inline void take_row(const Shape *shape, const uint8_t *page, uint32_t slot, uint64_t index,
                          uint8_t *rows, uint8_t *found) noexcept nogil:
    if (kind_of(page, slot) & KIND_MASK) == KIND_DELETE:
        return
    found[index] = 1
    if rows == NULL:
        return
    if shape.field_count == 1 and shape.value_width == 8:
        memcpy(rows + index * 8, run_of(shape, page, 0) + slot * 8, 8)
    else:
        page_copy_row(shape, page, slot, rows + index * shape.value_width)


cdef int find_in_memtable(const Shape *shape, VersionSource *item, SortPair *pairs,
                          uint64_t *pair_count, uint8_t *rows, uint8_t *found) noexcept nogil:
    cdef Position position
    cdef Key key
    cdef uint64_t index
    cdef uint64_t left = 0
    cdef int status
    memset(&key, 0, sizeof(Key))
    for index in range(pair_count[0]):
        key.head = pairs[index].key
        status = item.source.seek(item.source.context, &key, &position)
        if status != STATUS_OK:
            return status
        if position.page != NULL and heads_of(position.page)[position.slot] == key.head:
            take_row(shape, position.page, position.slot, pairs[index].payload, rows, found)
        elif interval_set_find(item.markers, &key) == NULL:
            pairs[left] = pairs[index]
            left += 1
    pair_count[0] = left
    return STATUS_OK


cdef int find_in_segment(const Shape *shape, Segment *segment, SortPair *pairs, uint64_t pair_count,
                         uint64_t *left, SortPair *rest, uint8_t *rows, uint8_t *found,
                         BatchAhead *ahead, FilterCounts *filters) noexcept nogil:
    """Groups of lookups move together through fences and pages, so that their misses overlap.

    Where a head lies is guessed by the fences, and its lines are asked for before any page is
    looked at: 1.14 times as many lookups a second among 10 M rows, 1.08 among 1 M, as halving each
    page in step.  What is left of a random one is the walk to its page in the processor's tables.

    What is left stays in order, those that the filter excludes among the others: the next source
    may be a run of several segments, and takes them one after another.
    """
    cdef SortPair group[GROUP]
    cdef uint64_t heads[GROUP]
    cdef uint32_t lanes[GROUP]          # of each pair: where it is searched, or EXCLUDED
    cdef uint32_t ordinals[GROUP]
    cdef uint32_t guesses[GROUP]
    cdef uint32_t slots[GROUP]
    cdef const uint8_t *pages[GROUP]
    cdef HeadsSearch searches[GROUP]    # of those that are not near where they were looked for,
    cdef uint32_t searched_lanes[GROUP]
    cdef uint32_t far                   # so many
    cdef Key key
    cdef uint32_t taken
    cdef uint32_t count
    cdef uint32_t lane
    cdef uint32_t index
    cdef uint32_t slot
    cdef uint64_t done = 0
    cdef uint64_t before
    cdef uint64_t searched = 0
    cdef uint64_t hits = 0
    cdef int status
    memset(&key, 0, sizeof(Key))
    while done < pair_count:
        before = <uint64_t>(pairs - rest) + done
        taken = <uint32_t>min(<uint64_t>GROUP, pair_count - done)
        count = 0
        for index in range(taken):
            group[index] = pairs[done + index]
            lanes[index] = count
            heads[count] = group[index].key
            if segment.filter_blocks and not segment_may_contain(segment,
                                                                 hash_head(heads[count])):
                lanes[index] = EXCLUDED
            else:
                count += 1
        done += taken
        searched += count
        status = segment_route_heads(segment, heads, count, ordinals, guesses)
        if status == STATUS_NOT_FOUND:      # it has range-deletes and no entries
            for index in range(taken):
                lanes[index] = EXCLUDED
            count = 0
            status = STATUS_OK
        if status != STATUS_OK:
            return status
        batch_ahead_group(ahead, segment, ordinals, count, before)
        for lane in range(count):
            status = segment_page(segment, ordinals[lane], &pages[lane])
            if status != STATUS_OK:
                return status
        far = 0
        for lane in range(count):
            slots[lane] = heads_around(heads_of(pages[lane]), header_of(pages[lane]).count,
                                       heads[lane], guesses[lane])
            if slots[lane] == UINT32_MAX:
                searches[far].heads = heads_of(pages[lane])
                searches[far].count = header_of(pages[lane]).count
                searches[far].key = heads[lane]
                searched_lanes[far] = lane
                far += 1
        heads_lower_bound_group(searches, far)
        for index in range(far):
            slots[searched_lanes[index]] = searches[index].position
        if shape.field_count == 1:
            for lane in range(count):
                prefetch_read(run_of(shape, pages[lane], 0) + slots[lane] * shape.value_width)
        for index in range(taken):
            lane = lanes[index]
            if lane != EXCLUDED:
                slot = slots[lane]
                if (slot < header_of(pages[lane]).count
                        and heads_of(pages[lane])[slot] == heads[lane]):
                    take_row(shape, pages[lane], slot, group[index].payload, rows, found)
                    hits += 1
                    continue
            key.head = group[index].key
            if interval_set_find(segment.markers, &key) == NULL:
                rest[left[0]] = group[index]
                left[0] += 1
        # Not before: to look at the clock is to wait for all that is being loaded.
        batch_ahead_group_done(ahead)
    if segment.filter_blocks:
        filters.lookups += pair_count
        filters.negatives += pair_count - searched
        filters.false_positives += searched - hits
    return segment_whole(segment)


cdef int find_in_run(const Shape *shape, VersionSource *item, SortPair *pairs,
                     uint64_t *pair_count, uint8_t *rows, uint8_t *found,
                     FilterCounts *filters) noexcept nogil:
    cdef SegmentRun *run = item.run
    cdef Segment *segment
    cdef BatchAhead ahead
    cdef uint64_t index = 0
    cdef uint64_t end
    cdef uint64_t left = 0
    cdef uint32_t place
    cdef Key key
    cdef int status
    memset(&key, 0, sizeof(Key))
    batch_ahead_init(&ahead, shape, run, pairs, pair_count[0])
    while index < pair_count[0]:
        key.head = pairs[index].key
        segment = run_holder(shape, run, &key, &place)
        end = index + 1
        if segment == NULL:
            pairs[left] = pairs[index]
            left += 1
            index = end
            continue
        status = segment_ready(segment)
        if status != STATUS_OK:
            return status
        while end < pair_count[0] and (segment.upper_unbounded
                                       or pairs[end].key <= segment.upper.head):
            end += 1
        # `rest` never overtakes the pairs being read: at most as many are left as were taken.
        status = find_in_segment(shape, segment, pairs + index, end - index, &left, pairs, rows,
                                 found, &ahead, filters)
        if status != STATUS_OK:
            return status
        index = end
    pair_count[0] = left
    return STATUS_OK


cdef int version_find_pairs(const Shape *shape, VersionSource *items, uint32_t count,
                            SortPair *pairs, uint64_t pair_count, uint8_t *rows,
                            uint8_t *found, FilterCounts *filters) noexcept nogil:
    cdef uint32_t index
    cdef int status
    for index in range(count):
        if pair_count == 0:
            break
        if items[index].run == NULL:
            status = find_in_memtable(shape, &items[index], pairs, &pair_count, rows, found)
        else:
            status = find_in_run(shape, &items[index], pairs, &pair_count, rows, found, filters)
        if status != STATUS_OK:
            return status
    return STATUS_OK
