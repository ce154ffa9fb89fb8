"""Versions: sources, routing to segments, point and batch lookup.  See _version.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from cesium._cursor cimport Cursor
from cesium._faults cimport fault_counter, faults_seen, load_lost
from cesium._interval cimport interval_set_find, key_compare
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, STATUS_CLOSED, STATUS_CORRUPT, STATUS_FULL, STATUS_IO, STATUS_LIMIT,
    STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK, STATUS_POISONED,
)
from cesium._memtable cimport MemtableSnapshot, memtable_root_markers, memtable_root_source
from cesium._native cimport (
    HeadsSearch, SortPair, hash_bytes, hash_head, heads_lower_bound_group, heads_lower_bound_near,
    prefetch_read,
)
from cesium._page cimport (
    Key, PageSource, Position, Shape, TableShape, header_of, heads_of, kind_of, page_copy_row,
    page_find, run_of,
)
from cesium._segment cimport (
    Segment, SegmentReader, segment_find, segment_locate, segment_may_contain, segment_page,
    segment_ready, segment_route, segment_route_heads, segment_source, segment_whole,
)
from cesium.errors import ClosedError, CorruptionError, Error, LimitError, PoisonedError

cdef extern from *:
    uint64_t __atomic_load_n(uint64_t *word, int order) noexcept nogil
    int __ATOMIC_ACQUIRE

cdef enum:
    GROUP = 32                  # lookups in flight at once

cdef uint64_t version_numbers = 0
cdef const uint64_t *FAULTS = fault_counter()


# --- a run of segments as one page source -------------------------------------------------------
# Its ordinals are (segment index << 32) | page ordinal.


cdef inline int adopt(SegmentRun *run, uint32_t index, Position *position) noexcept nogil:
    position.ordinal |= <uint64_t>index << 32
    return STATUS_OK


cdef int run_edge_from(SegmentRun *run, int64_t index, int direction,
                       Position *position) noexcept nogil:
    """The first (or last) entry of segment `index` or of the nearest one behind it that has any."""
    cdef int status
    while 0 <= index < run.count:
        status = run.sources[index].edge(run.sources[index].context, position, direction)
        if status != STATUS_OK:
            return status
        if position.page != NULL:
            return adopt(run, <uint32_t>index, position)
        index += direction
    position.page = NULL
    return STATUS_OK


cdef uint32_t run_route(const SegmentRun *run, const Key *key) noexcept nogil:
    """The first segment whose upper bound is >= key, or count."""
    cdef uint32_t low = 0
    cdef uint32_t high = run.count
    cdef uint32_t middle
    cdef const Segment *segment
    while low < high:
        middle = (low + high) >> 1
        segment = run.segments[middle]
        if not segment.upper_unbounded and key_compare(
                segment.shape.key_width != 0, &segment.upper, key) < 0:
            low = middle + 1
        else:
            high = middle
    return low


cdef int run_seek(void *context, const Key *key, Position *position) noexcept nogil:
    cdef SegmentRun *run = <SegmentRun *>context
    cdef uint32_t index = run_route(run, key)
    cdef int status
    position.page = NULL
    if index == run.count:
        return STATUS_OK
    status = run.sources[index].seek(run.sources[index].context, key, position)
    if status != STATUS_OK:
        return status
    if position.page != NULL:
        return adopt(run, index, position)
    status = segment_whole(run.segments[index])
    if status != STATUS_OK:
        return status
    return run_edge_from(run, index + 1, 1, position)


cdef int run_step(void *context, Position *position, int direction) noexcept nogil:
    cdef SegmentRun *run = <SegmentRun *>context
    cdef uint32_t index = <uint32_t>(position.ordinal >> 32)
    cdef int status
    position.ordinal &= <uint64_t>0xFFFFFFFF
    status = run.sources[index].step(run.sources[index].context, position, direction)
    if status != STATUS_OK:
        return status
    if position.page != NULL:
        return adopt(run, index, position)
    # A cursor asks the segments that it stops in, not one that it only passes through.
    status = segment_whole(run.segments[index])
    if status != STATUS_OK:
        return status
    return run_edge_from(run, <int64_t>index + direction, direction, position)


cdef int run_edge(void *context, Position *position, int direction) noexcept nogil:
    cdef SegmentRun *run = <SegmentRun *>context
    return run_edge_from(run, 0 if direction > 0 else <int64_t>run.count - 1, direction, position)


cdef int run_read_overflow(void *context, uint64_t location, uint64_t skip, uint8_t *destination,
                           uint64_t bytes) noexcept nogil:
    return STATUS_CORRUPT       # never called: a cursor goes to the segment's own source


cdef void segment_run_source(SegmentRun *run, PageSource *source) noexcept nogil:
    source.context = run
    source.seek = run_seek
    source.step = run_step
    source.edge = run_edge
    source.read_overflow = run_read_overflow
    source.whole = NULL         # a cursor asks the segments that it looked at
    source.blob_of = NULL       # never called, as read_overflow


cdef SegmentRun *segment_run_new(list readers) except NULL:
    cdef SegmentRun *run = <SegmentRun *>calloc(1, sizeof(SegmentRun))
    cdef SegmentReader reader
    cdef Py_ssize_t index
    if run == NULL:
        raise MemoryError
    run.segments = <Segment **>calloc(len(readers), sizeof(Segment *))
    run.sources = <PageSource *>calloc(len(readers), sizeof(PageSource))
    if run.segments == NULL or run.sources == NULL:
        segment_run_free(run)
        raise MemoryError
    run.count = <uint32_t>len(readers)
    for index, reader in enumerate(readers):
        run.segments[index] = &reader.segment
        segment_source(&reader.segment, &run.sources[index])
        if reader.record.markers:
            run.marked = True
    if run.marked and run.count > 1:
        segment_run_free(run)
        raise Error("a source of several segments cannot carry range-deletes")
    return run


cdef void segment_run_free(SegmentRun *run) noexcept nogil:
    if run != NULL:
        free(run.segments)
        free(run.sources)
        free(run)


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


cdef inline Segment *holder(const Shape *shape, const SegmentRun *run,
                            const Key *key, uint32_t *index) noexcept nogil:
    """The one segment of a run whose bounds include the key, or NULL."""
    cdef Segment *segment
    index[0] = run_route(run, key)
    if index[0] == run.count:
        return NULL
    segment = run.segments[index[0]]
    if key_compare(shape.key_width != 0, key, &segment.lower) < 0:
        return NULL
    return segment


cdef int find_if_warm(const Shape *shape, Segment *segment, const Key *key,
                      Position *position) noexcept nogil:
    """segment_find on a page that was checked before; STATUS_FULL when the page is cold."""
    cdef uint32_t ordinal
    cdef uint32_t page_number
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
    page_number = ordinal if segment.page_numbers == NULL else segment.page_numbers[ordinal]
    if load_lost(&segment.lost):
        return STATUS_FULL
    if not (__atomic_load_n(&segment.checked[page_number >> 6], __ATOMIC_ACQUIRE)
            >> (page_number & 63)) & 1:
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
    cdef bint exact
    cdef int status
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
        segment = holder(shape, item.run, key, &place)
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
        if segment.filter_blocks and not segment_may_contain(segment, hashed):
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
        if run != NULL and run.count > 1:
            cursor.inputs[first_input + index].parts = run.sources
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
                         uint64_t *left, SortPair *rest, uint8_t *rows,
                         uint8_t *found) noexcept nogil:
    """Groups of lookups move together through fences and pages, so that their misses overlap."""
    cdef SortPair group[GROUP]
    cdef uint64_t heads[GROUP]
    cdef uint32_t ordinals[GROUP]
    cdef const uint8_t *pages[GROUP]
    cdef HeadsSearch searches[GROUP]
    cdef Key key
    cdef uint32_t count
    cdef uint32_t lane
    cdef uint32_t slot
    cdef uint64_t done = 0
    cdef int status
    memset(&key, 0, sizeof(Key))
    while done < pair_count:
        count = 0
        while done < pair_count and count < GROUP:
            if segment.filter_blocks and not segment_may_contain(segment,
                                                                 hash_head(pairs[done].key)):
                key.head = pairs[done].key
                if interval_set_find(segment.markers, &key) == NULL:
                    rest[left[0]] = pairs[done]
                    left[0] += 1
            else:
                group[count] = pairs[done]
                heads[count] = pairs[done].key
                count += 1
            done += 1
        status = segment_route_heads(segment, heads, count, ordinals)
        if status == STATUS_NOT_FOUND:      # it has range-deletes and no entries
            for lane in range(count):
                key.head = heads[lane]
                if interval_set_find(segment.markers, &key) == NULL:
                    rest[left[0]] = group[lane]
                    left[0] += 1
            continue
        if status != STATUS_OK:
            return status
        for lane in range(count):
            status = segment_page(segment, ordinals[lane], &pages[lane])
            if status != STATUS_OK:
                return status
            prefetch_read(pages[lane])
        for lane in range(count):
            searches[lane].heads = heads_of(pages[lane])
            searches[lane].count = header_of(pages[lane]).count
            searches[lane].key = heads[lane]
        heads_lower_bound_group(searches, count)
        if shape.field_count == 1:
            for lane in range(count):
                prefetch_read(run_of(shape, pages[lane], 0)
                              + searches[lane].position * shape.value_width)
        for lane in range(count):
            slot = searches[lane].position
            if slot < searches[lane].count and searches[lane].heads[slot] == heads[lane]:
                take_row(shape, pages[lane], slot, group[lane].payload, rows, found)
                continue
            key.head = heads[lane]
            if interval_set_find(segment.markers, &key) == NULL:
                rest[left[0]] = group[lane]
                left[0] += 1
    return segment_whole(segment)


cdef int find_in_run(const Shape *shape, VersionSource *item, SortPair *pairs,
                     uint64_t *pair_count, uint8_t *rows, uint8_t *found) noexcept nogil:
    cdef SegmentRun *run = item.run
    cdef Segment *segment
    cdef uint64_t index = 0
    cdef uint64_t end
    cdef uint64_t left = 0
    cdef uint32_t place
    cdef Key key
    cdef int status
    memset(&key, 0, sizeof(Key))
    while index < pair_count[0]:
        key.head = pairs[index].key
        segment = holder(shape, run, &key, &place)
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
                                 found)
        if status != STATUS_OK:
            return status
        index = end
    pair_count[0] = left
    return STATUS_OK


cdef int version_find_pairs(const Shape *shape, VersionSource *items, uint32_t count,
                            SortPair *pairs, uint64_t pair_count, uint8_t *rows,
                            uint8_t *found) noexcept nogil:
    cdef uint32_t index
    cdef int status
    for index in range(count):
        if pair_count == 0:
            break
        if items[index].run == NULL:
            status = find_in_memtable(shape, &items[index], pairs, &pair_count, rows, found)
        else:
            status = find_in_run(shape, &items[index], pairs, &pair_count, rows, found)
        if status != STATUS_OK:
            return status
    return STATUS_OK
