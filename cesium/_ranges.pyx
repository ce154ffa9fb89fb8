"""Views and ordered reads: see _ranges.pxd for the contract."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

import numpy as np

from cesium._counters cimport (
    RANGES, RANGE_LATENCY, Counters, clock_nanoseconds, count_more, histogram_record, ticker_tick,
    ticker_weight,
)
from cesium._cursor cimport Bounds, Cursor, Run, cursor_free, cursor_new
from cesium._engine cimport Engine, TableCore, engine_is_shut
from cesium._faults cimport fault_counter, faults_seen
from cesium._interval cimport key_compare, key_to_object
from cesium._keys cimport EncodedKeys, KeyCodec
from cesium._layout cimport PAGE_BYTES, STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK
from cesium._memtable cimport (
    MemtableSnapshot, memtable_root_delete_markers, memtable_root_entries, memtable_root_markers,
    memtable_root_source,
)
from cesium._native cimport load_head, parallel_for
from cesium._page cimport Key, Shape, heads_of
from cesium._scan_ahead cimport scan_ahead_attach, scan_ahead_brought, scan_ahead_set
from cesium._segment cimport (
    Segment, SegmentReader, segment_page, segment_rank, segment_rank_of_page, segment_ready,
    segment_whole,
)
from cesium._sweep cimport sweep
from cesium._values cimport EncodedValues, ValueCodec
from cesium._rows cimport Rows, cursor_fill, cursor_skip, rows_free
from cesium._segment_run cimport SegmentRun
from cesium._version cimport VersionSource, version_fill_inputs
from cesium.errors import ClosedError, CorruptionError

cdef enum:
    TIMED_ROWS = 4096           # a read of so many is timed now and then, a longer one each time
    FILL_ROWS_MIN = 65536       # fewer rows than this are not worth a thread
    MEMTABLES_OF_MEMORY = 16    # a store of so many full memtables is likely to be in memory
    KEPT_SHARE = 8              # that part of free memory

cdef const uint64_t *FAULTS = fault_counter()


cdef int key_from(object encoded, bint fixed, Key *key) except -1:
    """Fills a Key from a head (int) or bytes; the bytes are borrowed."""
    memset(key, 0, sizeof(Key))
    if fixed:
        key.head = <uint64_t>encoded
    else:
        key.data = <const uint8_t *>PyBytes_AS_STRING(encoded)
        key.bytes = <uint32_t>PyBytes_GET_SIZE(encoded)
        key.head = load_head(key.data, key.bytes)
    return 0


cdef class View:
    """View(core): the table as of now.

    View(core, below, above): drafts, newest first, above another view (or None: nothing).
    """

    def __cinit__(self, TableCore core, View below=None, list above=None):
        if above is None:
            self.pin_now(core)
        else:
            self.lay_over(core, below, above)

    cdef int lay_over(self, TableCore core, View below, list above) except -1:
        cdef uint32_t first = <uint32_t>len(above), index
        cdef MemtableSnapshot draft
        self.core = core
        self.shape = &core.shape.shape
        self.drafts = above
        self.version = Version(core.shape, [], False) if below is None else below.version
        self.live = None if below is None else below.live
        self.count = first + (0 if below is None else below.count)
        self.items = <VersionSource *>calloc(self.count + 1, sizeof(VersionSource))
        if self.items == NULL:
            raise MemoryError
        for index, draft in enumerate(above):
            memtable_root_source(draft.root, &self.items[index].source)
            self.items[index].markers = memtable_root_markers(draft.root)
        for index in range(first, self.count):
            self.items[index] = below.items[index - first]
        return 0

    cdef int pin_now(self, TableCore core) except -1:
        cdef Engine engine = core.engine
        cdef MemtableSnapshot snapshot = MemtableSnapshot.__new__(MemtableSnapshot)
        cdef uint32_t first = 0
        cdef uint32_t index
        cdef bint closed
        cdef int status
        self.core = core
        self.shape = &core.shape.shape
        if engine_is_shut(engine):
            engine.check_open()
        engine.lock_exclusive()
        closed = engine.closed
        status = core.pin_into(snapshot, &self.changes)
        self.version = core.version_now
        engine.unlock()
        if closed:              # since the caller looked
            raise ClosedError("the store is closed")
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        if status == STATUS_OK:
            self.live = snapshot
            first = 1
        self.count = self.version.count + first
        self.items = <VersionSource *>calloc(self.count + 1, sizeof(VersionSource))
        if self.items == NULL:
            raise MemoryError
        if first:
            memtable_root_source(self.live.root, &self.items[0].source)
            self.items[0].markers = memtable_root_markers(self.live.root)
        for index in range(self.version.count):
            self.items[first + index] = self.version.items[index]
        return 0

    def __dealloc__(self):
        free(self.items)

    cdef int check(self, int status, uint64_t seen) except -1:
        return self.version.check(status, seen)

    cdef int sweep_behind(self, Cursor *cursor) except -1:
        """Leaves a range-delete over the widest gap crossed; not over one that drafts made."""
        if self.drafts is None:
            sweep(self.core, self.version.number, self.changes, cursor)
        return 0

    def row_count(self):
        """Exact number of visible rows: constant time when no source overlaps another's business
        (one run, no markers), else counted, and remembered with the version."""
        cdef uint64_t count = 0
        cdef bint plain = self.live is None and self.drafts is None
        if plain and self.version.row_count is not None:
            return self.version.row_count
        count = RangeReader(self, EncodedRange(self.core, 0 if self.shape.key_width else b"",
                                               None)).count()
        if plain:
            self.version.row_count = count
        return count

    def estimated_rows(self):
        """Entries of all sources, delete markers taken off: constant time, never below zero."""
        cdef MemtableSnapshot snapshot
        rows = 0                        # a damaged record may say anything
        if self.live is not None:
            rows += <int64_t>memtable_root_entries(self.live.root)
            rows -= 2 * <int64_t>memtable_root_delete_markers(self.live.root)
        for source in self.version.sources:
            if isinstance(source, list):
                for reader in source:
                    rows += reader.record.rows - 2 * reader.record.delete_markers
            else:
                snapshot = source
                rows += <int64_t>memtable_root_entries(snapshot.root)
                rows -= 2 * <int64_t>memtable_root_delete_markers(snapshot.root)
        return max(rows, 0)

    cdef int rank_bounds(self, EncodedRange interval, uint64_t *most, bint *exact) except -1:
        """At most how many rows the range has, and whether that is the very number."""
        cdef uint32_t index
        cdef uint32_t place
        cdef uint64_t low
        cdef uint64_t high
        cdef VersionSource *item
        cdef Segment *segment
        cdef MemtableSnapshot snapshot
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status = STATUS_OK
        most[0] = 0
        exact[0] = self.count <= 1
        with nogil:
            for index in range(self.count):
                item = &self.items[index]
                if item.run == NULL:
                    exact[0] = False
                    continue
                for place in range(item.run.count):
                    segment = item.run.segments[place]
                    if outside_bounds(self.shape, segment, &interval.bounds):
                        continue
                    status = segment_ready(segment)
                    low = 0
                    if status == STATUS_OK:
                        status = segment_rank(segment, &interval.bounds.lower, &low)
                    high = segment.entries
                    if status == STATUS_OK and not interval.bounds.unbounded:
                        status = segment_rank(segment, &interval.bounds.upper, &high)
                    if status != STATUS_OK:
                        break
                    if high > low:
                        most[0] += high - low
                    if segment.delete_markers:
                        exact[0] = False
                if status != STATUS_OK:
                    break
        self.check(status, seen)
        if exact[0]:                # there is but one run
            return 0
        for source in (self.live, *self.version.sources, *(self.drafts or ())):
            if isinstance(source, MemtableSnapshot):
                snapshot = source
                most[0] += memtable_root_entries(snapshot.root)
        return 0


cdef bint outside_bounds(const Shape *shape, const Segment *segment,
                         const Bounds *bounds) noexcept nogil:
    if not segment.upper_unbounded and compare(shape, &segment.upper, &bounds.lower) < 0:
        return True
    return not bounds.unbounded and compare(shape, &segment.lower, &bounds.upper) >= 0


cdef inline int compare(const Shape *shape, const Key *a, const Key *b) noexcept nogil:
    return key_compare(shape.key_width != 0, a, b)


cdef class EncodedRange:
    """EncodedRange(core, lower, upper): `[lower, upper)`; lower a head or bytes, upper the same or
    None for no upper end."""

    def __cinit__(self, TableCore core, object lower, object upper):
        cdef bint fixed = core.shape.shape.key_width != 0
        self.lower = lower
        self.upper = upper
        key_from(lower, fixed, &self.bounds.lower)
        if upper is None:
            self.bounds.unbounded = True
        else:
            key_from(upper, fixed, &self.bounds.upper)


cdef class OwnedMemory:
    """A malloc'ed block with the buffer protocol, so that numpy arrays keep it alive."""

    cdef void *data
    cdef Py_ssize_t bytes

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.bytes, 0, flags)


cdef object own(void *data, uint64_t bytes, object dtype):
    cdef OwnedMemory memory
    if bytes == 0:
        free(data)
        return np.empty(0, dtype)
    memory = OwnedMemory.__new__(OwnedMemory)
    memory.data = data
    memory.bytes = <Py_ssize_t>bytes
    return np.frombuffer(memory, dtype)


cdef class RangeReader:
    """RangeReader(view, interval, reverse=False, limit=None): one pass over a range."""

    def __cinit__(self, View view, EncodedRange interval, bint reverse=False, object limit=None):
        cdef int status
        cdef const SegmentRun *run
        cdef uint32_t index
        cdef bint ready = True
        self.view = view
        count_more(&view.core.engine.counters.totals[RANGES], 1)
        self.seen = faults_seen(FAULTS)
        self.interval = interval
        self.left = <uint64_t>-1 if limit is None else <uint64_t>limit
        self.keep_pages = <uint64_t>-1
        self.cursor = cursor_new(view.shape, view.count, -1 if reverse else 1, False)
        if self.cursor == NULL:
            raise MemoryError
        self.cursor.bounds = interval.bounds
        for index in range(view.count):     # of a run with range-deletes its file is mapped here
            run = view.items[index].run
            ready = ready and (run == NULL or not run.marked or run.segments[0].map != NULL)
        if ready:                           # some loads and stores: less than giving up the GIL
            status = version_fill_inputs(view.items, view.count, self.cursor, 0)
        else:
            with nogil:
                status = version_fill_inputs(view.items, view.count, self.cursor, 0)
        view.check(status, self.seen)

    def __dealloc__(self):
        cursor_free(self.cursor)

    cdef uint64_t fill(self, Rows *rows, uint64_t most) except? 0xFFFFFFFFFFFFFFFF:
        """Copies up to `most` further rows behind those in `rows`; returns how many came."""
        cdef uint64_t before = rows.count
        cdef Counters counters = self.view.core.engine.counters
        cdef uint64_t start = 0
        cdef uint64_t calls = 1         # that its time stands for
        cdef int status
        if most > self.left:
            most = self.left
        if self.exhausted or most == 0:
            return 0
        if self.keep_pages == <uint64_t>-1 and scan_ahead_brought(self.cursor) > LONG_SCAN_PAGES:
            self.plan_scan(False, True)
        if most <= TIMED_ROWS:
            calls = ticker_weight(&counters.fills) if ticker_tick(&counters.fills) else 0
        if calls:
            start = clock_nanoseconds()
        with nogil:
            status = cursor_fill(self.cursor, &self.pending, rows, most)
        if calls:
            histogram_record(&counters.latencies[RANGE_LATENCY], clock_nanoseconds() - start, calls)
        try:
            self.view.check(status, self.seen)
        except BaseException:
            rows.count = before         # what was copied may be zeros, and nobody shall have it
            raise
        self.view.sweep_behind(self.cursor)
        if status == STATUS_NOT_FOUND:
            self.exhausted = True
        self.left -= rows.count - before
        return rows.count - before

    cdef int plan_scan(self, bint eager, bint long_scan) except -1:
        """How to read ahead; a long scan may leave no more than a share of free memory behind.

        What it brings in beyond that would take the place of pages that are read again and again.
        """
        cdef SegmentReader reader
        if long_scan and self.keep_pages == <uint64_t>-1:
            for reader in self.view.version.segments():
                self.keep_pages = reader.files.free_memory() // KEPT_SHARE // PAGE_BYTES
                break
        scan_ahead_set(self.cursor, eager, self.keep_pages)
        return 0

    def count(self):
        """Number of rows from here on; the reader is used up."""
        cdef uint64_t count = 0
        cdef uint64_t most
        cdef bint exact
        cdef int status
        self.view.rank_bounds(self.interval, &most, &exact)
        if not exact and most:
            self.plan_scan(self.left == <uint64_t>-1, most > LONG_SCAN_ROWS)
            with nogil:
                status = cursor_skip(self.cursor, &self.pending, self.left, &count)
            self.view.check(status, self.seen)
            self.view.sweep_behind(self.cursor)
        else:
            count = most
        self.exhausted = True
        return min(count, self.left)

    def skip(self, uint64_t rows):
        """Passes over up to `rows` rows and returns how many there were."""
        cdef uint64_t skipped = 0
        cdef int status
        with nogil:
            status = cursor_skip(self.cursor, &self.pending, min(rows, self.left), &skipped)
        self.view.check(status, self.seen)
        self.view.sweep_behind(self.cursor)
        self.left -= skipped
        return skipped

    cdef uint64_t room(self, object most) except? 0xFFFFFFFFFFFFFFFF:
        """At most how many rows are to come, or `most`."""
        cdef uint64_t rows
        cdef bint exact
        # Once for all batches: the first and the last page may have left the memory by the second.
        if not self.ranked:
            self.view.rank_bounds(self.interval, &self.rows_most, &exact)
            self.ranked = True
            self.rows_exact = self.rows_most if exact else <uint64_t>-1
        rows = min(self.rows_most, self.left)
        return rows if most is None else min(rows, <uint64_t>most)

    def read(self, KeyCodec keys, ValueCodec values, object most=None, bint want_keys=True,
             bint want_values=True, int threads=1):
        """Up to `most` further rows as (EncodedKeys or None, EncodedValues or None).

        Arrays are made at the size that the fences tell, so nothing is grown or copied twice.
        """
        cdef uint64_t capacity
        cdef Rows rows
        cdef const Shape *shape = self.view.shape
        cdef uint64_t[::1] heads
        cdef uint8_t[::1] fixed
        head_array = None
        row_array = None
        memset(&rows, 0, sizeof(Rows))
        capacity = self.room(most)
        if shape.key_width:
            head_array = np.empty(capacity, np.uint64)
            heads = head_array
            if capacity:
                rows.heads = &heads[0]
        if shape.value_width and want_values:
            row_array = np.empty(capacity * shape.value_width, np.uint8)
            fixed = row_array
            if capacity:
                rows.rows = &fixed[0]
        rows.skip_values = not want_values
        self.plan_scan(most is None and self.left == <uint64_t>-1,
                       capacity > LONG_SCAN_ROWS)
        try:
            if shape.key_width == 0:
                rows.key_offsets = <int64_t *>calloc(capacity + 1, 8)
                if rows.key_offsets == NULL:
                    raise MemoryError
            if shape.value_width == 0 and want_values:
                rows.value_offsets = <int64_t *>calloc(capacity + 1, 8)
                if rows.value_offsets == NULL:
                    raise MemoryError
            rows.capacity = capacity
            if not (threads > 1 and self.fill_in_threads(&rows, capacity, threads)):
                self.fill(&rows, capacity)
            self.rows_most -= rows.count
            return self.wrap(&rows, keys, values, head_array, row_array, want_keys, want_values)
        finally:
            # Arrays of numpy's own are not ours to free.
            rows.heads = NULL
            rows.rows = NULL
            rows_free(&rows)

    cdef object wrap(self, Rows *rows, KeyCodec keys, ValueCodec values, object head_array,
                     object row_array, bint want_keys, bint want_values):
        cdef EncodedKeys encoded_keys = None
        cdef EncodedValues encoded_values = None
        cdef const Shape *shape = self.view.shape
        cdef Py_ssize_t count = <Py_ssize_t>rows.count
        cdef bint roomy
        if head_array is not None:
            roomy = count < len(head_array) - len(head_array) // 8
            head_array = head_array[:count].copy() if roomy else head_array[:count]
        if row_array is not None:
            roomy = count * shape.value_width < len(row_array) - len(row_array) // 8
            row_array = row_array[:count * shape.value_width]
            row_array = (row_array.copy() if roomy else row_array).reshape(
                count, shape.value_width)
        if want_keys:
            encoded_keys = EncodedKeys.__new__(EncodedKeys)
            encoded_keys.count = count
            if shape.key_width:
                encoded_keys.heads = head_array
            else:
                encoded_keys.offsets = own(rows.key_offsets, (count + 1) * 8, np.int64)
                encoded_keys.data = own(rows.key_data, encoded_keys.offsets[count], np.uint8)
                rows.key_offsets = NULL
                rows.key_data = NULL
        if want_values:
            encoded_values = EncodedValues.__new__(EncodedValues)
            encoded_values.count = count
            if shape.value_width:
                encoded_values.rows = row_array
            else:
                encoded_values.offsets = own(rows.value_offsets, (count + 1) * 8, np.int64)
                encoded_values.data = own(rows.value_data, encoded_values.offsets[count], np.uint8)
                rows.value_offsets = NULL
                rows.value_data = NULL
        return encoded_keys, encoded_values

    cdef bint fill_in_threads(self, Rows *rows, uint64_t capacity, int threads) except -1:
        """Fixed rows of a single run, whose number is known, are copied in parallel; False when the
        range is not of that kind, and nothing was done."""
        cdef const Shape *shape = self.view.shape
        cdef FillTask *tasks
        cdef uint32_t parts
        cdef uint32_t part
        cdef uint64_t done = 0
        cdef uint64_t start
        cdef int status = STATUS_OK
        parts = <uint32_t>min(<uint64_t>threads, capacity // FILL_ROWS_MIN)
        if (parts < 2 or self.cursor.direction < 0 or self.cursor.started or shape.key_width == 0
                or shape.value_width == 0 or capacity != self.rows_exact
                or self.rows_most != self.rows_exact):
            return False
        start = clock_nanoseconds()
        tasks = <FillTask *>calloc(parts, sizeof(FillTask))
        if tasks == NULL:
            raise MemoryError
        try:
            with nogil:
                for part in range(parts):
                    status = prepare_part(self.view.items[0].run, &self.interval.bounds, rows,
                                          shape, capacity, part, parts, self.keep_pages // parts,
                                          tasks)
                    if status != STATUS_OK:
                        break
                if status == STATUS_OK:
                    parallel_for(parts, <int>parts, fill_part, tasks)
            self.view.check(status, self.seen)
            for part in range(parts):
                self.view.check(tasks[part].status, self.seen)
                done += tasks[part].rows.count
            if done != capacity:
                raise CorruptionError(f"a range of {capacity} rows gave {done}")
        finally:
            for part in range(parts):
                cursor_free(tasks[part].cursor)
            free(tasks)
        rows.count = capacity
        self.left -= capacity
        self.exhausted = True
        histogram_record(&self.view.core.engine.counters.latencies[RANGE_LATENCY],
                         clock_nanoseconds() - start, 1)
        return True


cdef int sweep_around(TableCore core, const Key *key) except -1:
    cdef View view
    cdef uint64_t room = MEMTABLES_OF_MEMORY * core.memtable_limit_bytes
    try:
        view = View(core)
        if sum([reader.record.bytes for reader in view.version.segments()]) > room:
            return 0
        middle = key_to_object(view.shape.key_width != 0, key)
        if view.shape.key_width:
            lower, upper = 0, (middle + 1 if middle < <uint64_t>-1 else None)
        else:
            lower, upper = b"", middle + b"\0"
        RangeReader(view, EncodedRange(core, lower, upper), reverse=True).skip(1)
        RangeReader(view, EncodedRange(core, middle, None)).skip(1)
    except Exception:           # the deletes are committed, whatever else cannot be read
        pass
    return 0


cdef struct FillTask:           # one thread's part of a range: a cursor of its own
    Cursor *cursor
    Rows rows
    uint64_t first_row          # where in the arrays the part begins
    int status


cdef int prepare_part(SegmentRun *run, const Bounds *bounds, const Rows *rows, const Shape *shape,
                      uint64_t capacity, uint32_t part, uint32_t parts, uint64_t keep_pages,
                      FillTask *tasks) noexcept nogil:
    """Gives a part its cursor; it begins at the first key of a page, and ends the part before."""
    cdef FillTask *task = &tasks[part]
    cdef Segment *segment
    cdef const uint8_t *page
    cdef uint64_t before = 0
    cdef uint64_t wanted
    cdef uint64_t skipped = 0
    cdef uint32_t index = 0
    cdef uint32_t low = 0
    cdef uint32_t high
    cdef uint32_t middle
    cdef int status
    task.cursor = cursor_new(shape, 1, 1, False)
    if task.cursor == NULL:
        return STATUS_NO_MEMORY
    status = scan_ahead_attach(task.cursor, 0, run)
    if status != STATUS_OK:
        return status
    scan_ahead_set(task.cursor, True, keep_pages)
    task.cursor.bounds = bounds[0]
    task.rows.skip_values = rows.skip_values
    if part:
        status = rows_before(run, &bounds.lower, &skipped)
        if status != STATUS_OK:
            return status
        wanted = skipped + capacity * part // parts
        # Ranks out of a page that was lost meanwhile may lead beyond the last segment.
        while index + 1 < run.count and wanted - before >= run.segments[index].entries:
            before += run.segments[index].entries
            index += 1
        segment = run.segments[index]
        status = segment_ready(segment)
        if status != STATUS_OK:
            return status
        high = segment.data_pages
        while low + 1 < high:
            middle = (low + high) >> 1
            if before + segment_rank_of_page(segment, middle) <= wanted:
                low = middle
            else:
                high = middle
        status = segment_page(segment, low, &page)
        if status != STATUS_OK:
            return status
        wanted = before + segment_rank_of_page(segment, low)
        if wanted > skipped:    # else the part before begins in this page too, and this is empty
            task.first_row = min(wanted - skipped, capacity)
            task.cursor.bounds.lower.head = heads_of(page)[0]
        status = segment_whole(segment)
        if status != STATUS_OK:
            return status
        tasks[part - 1].cursor.bounds.upper = task.cursor.bounds.lower
        tasks[part - 1].cursor.bounds.unbounded = False
    task.rows.heads = rows.heads + task.first_row
    if rows.rows != NULL:
        task.rows.rows = rows.rows + task.first_row * shape.value_width
    task.rows.capacity = capacity - task.first_row
    return STATUS_OK


cdef int rows_before(SegmentRun *run, const Key *key, uint64_t *rows) noexcept nogil:
    """How many rows of the run lie below the key."""
    cdef uint64_t rank
    cdef uint32_t index
    cdef int status
    rows[0] = 0
    for index in range(run.count):
        if run.segments[index].lower.head >= key.head:
            break
        status = segment_ready(run.segments[index])
        if status == STATUS_OK:
            status = segment_rank(run.segments[index], key, &rank)
        if status != STATUS_OK:
            return status
        rows[0] += rank
    return STATUS_OK


cdef void fill_part(void *context, size_t number) noexcept nogil:
    cdef FillTask *task = <FillTask *>context + number
    cdef Run pending
    memset(&pending, 0, sizeof(Run))
    # The rows handed in are counted, so a page that lies about its keys cannot write past them.
    task.status = cursor_fill(task.cursor, &pending, &task.rows, task.rows.capacity)
    if task.status == STATUS_NOT_FOUND:
        task.status = STATUS_OK
