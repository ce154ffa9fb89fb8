"""Batch lookup: see _lookup.pxd for the contract.

Fixed keys are sorted first: neighbours then share fences, pages and cache lines, and a batch costs
a quarter of what the same lookups cost in random order.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

import operator

import numpy as np

from cesium._advice cimport WAIT_NANOSECONDS
from cesium._batch_ahead cimport (
    AheadWindow, window_ask, window_begin, window_flush, window_group_done, window_is_full,
)
from cesium._counters cimport (
    FILTER_FALSE_POSITIVES, FILTER_LOOKUPS, FILTER_NEGATIVES, Counters, FilterCounts, count_more,
)
from cesium._engine cimport key_of_row
from cesium._faults cimport fault_counter, faults_seen
from cesium._keys cimport EncodedKeys
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK,
)
from cesium._native cimport SortPair, hash_bytes, hash_head, parallel_for, sort_columns
from cesium._page cimport (
    Key, Shape, kind_of, page_copy_row, page_copy_value, page_value_bytes,
)
from cesium._segment cimport (
    Segment, segment_may_contain, segment_number, segment_ready, segment_route,
)
from cesium._segment_run cimport run_holder
from cesium._values cimport EncodedValues
from cesium._version cimport (
    Found, VersionSource, found_whole, version_find, version_find_pairs,
)
from cesium._ranges cimport View

cdef enum:
    SORT_FROM = 256             # a smaller batch of fixed keys is looked up in the order given
    TASK_ROWS_MIN = 4096        # less than this is not worth a thread
    TIMED_KEYS = 16             # keys looked up one by one, between two looks at the clock

cdef const uint64_t *FAULTS = fault_counter()

cdef struct Task:               # one thread's share of a batch
    const Shape *shape
    VersionSource *items
    uint32_t item_count
    SortPair *pairs             # fixed keys with fixed values
    const uint64_t *heads       # otherwise: keys by number
    const int64_t *key_offsets
    const uint8_t *key_data
    const uint8_t *outside      # keys that no stored key can equal; may be NULL
    uint64_t first
    uint64_t last
    uint8_t *rows               # fixed values; NULL when only `found` is wanted
    uint8_t *found
    bint variable               # gather variable values
    const uint8_t *miss
    uint64_t miss_bytes
    int64_t *lengths            # per key
    uint8_t *data               # this task's values, one after another
    uint64_t data_bytes
    uint64_t data_held
    FilterCounts filters
    int status


cdef int append_value(Task *task, const Found *found) noexcept nogil:
    """Appends a value, or the miss when `found` is NULL, to the task's data."""
    cdef uint64_t bytes = task.miss_bytes
    cdef uint64_t held
    cdef uint8_t *larger
    if found != NULL:
        bytes = page_value_bytes(found.position.page, found.position.slot)
    if task.data_bytes + bytes > task.data_held:
        held = task.data_held * 2 + bytes + 4096
        larger = <uint8_t *>realloc(task.data, held)
        if larger == NULL:
            return STATUS_NO_MEMORY
        task.data = larger
        task.data_held = held
    if found == NULL:
        if bytes:
            memcpy(task.data + task.data_bytes, task.miss, bytes)
    else:
        status = page_copy_value(found.position.page, found.position.slot, found.source, 0,
                                 task.data + task.data_bytes, bytes)
        if status != STATUS_OK:
            return status
    task.data_bytes += bytes
    return STATUS_OK


cdef void ask_ahead(const Task *task, AheadWindow *window, uint64_t *next,
                    uint64_t done) noexcept nogil:
    """Asks for the pages of keys behind `done`, in all sources that may hold them."""
    cdef const Shape *shape = task.shape
    cdef Segment *segment
    cdef Key key
    cdef uint32_t index
    cdef uint32_t place
    cdef uint32_t ordinal
    cdef uint64_t hashed
    next[0] = max(next[0], done)
    while window.cold and next[0] < task.last and not window_is_full(window, done):
        key_of_row(task.heads, task.key_offsets, task.key_data, next[0], &key)
        hashed = hash_head(key.head) if shape.key_width else hash_bytes(key.data, key.bytes)
        for index in range(task.item_count):
            if task.items[index].run == NULL:
                continue
            segment = run_holder(shape, task.items[index].run, &key, &place)
            if segment == NULL or segment_ready(segment) != STATUS_OK:
                continue
            if segment.filter_blocks and not segment_may_contain(segment, hashed):
                continue
            if segment_route(segment, &key, &ordinal) == STATUS_OK:
                window_ask(window, segment, segment_number(segment, ordinal), next[0])
        next[0] += 1
    window_flush(window)


cdef void find_one_by_one(Task *task) noexcept nogil:
    cdef const Shape *shape = task.shape
    cdef Found found
    cdef Key key
    cdef uint64_t index
    cdef uint64_t before
    cdef bint there
    cdef AheadWindow window
    cdef uint64_t next_asked = task.first
    cdef int status = STATUS_OK
    memset(&window, 0, sizeof(AheadWindow))
    window_begin(&window, False)
    for index in range(task.first, task.last):
        if index == task.first + 1:         # one key says whether it was read from the drive
            window_group_done(&window, WAIT_NANOSECONDS)
        elif (index - task.first) % TIMED_KEYS == 0:
            window_group_done(&window, 2 * WAIT_NANOSECONDS)
        if window.cold:
            ask_ahead(task, &window, &next_asked, index)
        key_of_row(task.heads, task.key_offsets, task.key_data, index, &key)
        status = STATUS_NOT_FOUND
        if task.outside == NULL or not task.outside[index]:
            status = version_find(shape, task.items, task.item_count, &key, False, &found)
            task.filters.lookups += found.filters.lookups
            task.filters.negatives += found.filters.negatives
            task.filters.false_positives += found.filters.false_positives
        if status < 0:
            task.status = status
            return
        there = (status == STATUS_OK and
                 (kind_of(found.position.page, found.position.slot) & KIND_MASK) != KIND_DELETE)
        task.found[index] = there
        if there and task.rows != NULL:
            page_copy_row(shape, found.position.page, found.position.slot,
                          task.rows + index * shape.value_width)
        if task.variable:
            before = task.data_bytes
            status = append_value(task, &found if there else NULL)
            if status != STATUS_OK:
                task.status = status
                return
            task.lengths[index] = <int64_t>(task.data_bytes - before)
        if there:
            status = found_whole(&found)
            if status != STATUS_OK:
                task.status = status
                return


cdef void run_task(void *context, size_t number) noexcept nogil:
    cdef Task *task = <Task *>context + number
    if task.pairs != NULL:
        task.status = version_find_pairs(task.shape, task.items, task.item_count,
                                         task.pairs + task.first, task.last - task.first,
                                         task.rows, task.found, &task.filters)
    else:
        find_one_by_one(task)


cdef int thread_count(object threads) except -1:
    if threads is None:
        return 1
    count = operator.index(threads)
    if count < 1:
        raise ValueError(f"threads is at least 1, not {threads}")
    return min(count, 256)


cdef int find_batch(View view, EncodedKeys keys, EncodedValues answer, object found, bytes miss,
                    object threads) except -1:
    cdef const Shape *shape = view.shape
    cdef uint64_t count = <uint64_t>keys.count
    cdef const uint64_t[::1] heads
    cdef const int64_t[::1] offsets
    cdef const uint8_t[::1] data
    cdef const uint8_t[::1] outside
    cdef uint8_t[::1] flags
    cdef uint8_t[:, ::1] rows
    cdef int64_t[::1] lengths
    cdef SortPair *pairs = NULL
    cdef Task model
    cdef Task *tasks = NULL
    cdef uint64_t number
    cdef uint64_t task_count
    cdef uint64_t seen = faults_seen(FAULTS)
    cdef Counters counters = view.core.engine.counters
    cdef int wanted = thread_count(threads)
    cdef int status = 0
    if count == 0 and (answer is None or shape.value_width):
        return 0
    task_count = max(<uint64_t>1, min(<uint64_t>wanted, count // TASK_ROWS_MIN))
    memset(&model, 0, sizeof(Task))
    model.shape = shape
    model.items = view.items
    model.item_count = view.count
    length_array = None
    if count:
        flags = found
        model.found = &flags[0]
        if shape.key_width:
            heads = keys.heads
            model.heads = &heads[0]
        else:
            offsets = keys.offsets
            model.key_offsets = &offsets[0]
            data = keys.data
            model.key_data = &data[0] if data.shape[0] else NULL
        if keys.outside is not None:
            outside = keys.outside.view(np.uint8)
            model.outside = &outside[0]
    if answer is not None and shape.value_width:
        rows = answer.rows
        model.rows = &rows[0, 0]
    elif answer is not None:
        model.variable = True
        model.miss = <const uint8_t *>PyBytes_AS_STRING(miss)
        model.miss_bytes = PyBytes_GET_SIZE(miss)
        length_array = np.zeros(count + 1, np.int64)
        lengths = length_array
        model.lengths = &lengths[1]
    try:
        tasks = <Task *>malloc(task_count * sizeof(Task))
        if tasks == NULL:
            raise MemoryError
        if model.heads != NULL and not model.variable and count >= SORT_FROM:
            pairs = <SortPair *>malloc(count * sizeof(SortPair))
            if pairs == NULL:
                raise MemoryError
            with nogil:
                status = sort_columns(model.heads, NULL, count, pairs, <int>task_count)
            if status:
                raise MemoryError
        for number in range(task_count):
            tasks[number] = model
            tasks[number].pairs = pairs
            tasks[number].first = count * number // task_count
            tasks[number].last = count * (number + 1) // task_count
        with nogil:
            parallel_for(task_count, <int>task_count, run_task, tasks)
        for number in range(task_count):
            count_more(&counters.totals[FILTER_LOOKUPS], tasks[number].filters.lookups)
            count_more(&counters.totals[FILTER_NEGATIVES], tasks[number].filters.negatives)
            count_more(&counters.totals[FILTER_FALSE_POSITIVES],
                       tasks[number].filters.false_positives)
        for number in range(task_count):
            view.check(tasks[number].status, seen)
        if pairs != NULL and keys.outside is not None:
            clear_outside(keys, answer, found, miss)
        if model.variable:
            answer.offsets = np.cumsum(length_array)
            answer.data = gather(tasks, task_count)
    finally:
        if tasks != NULL:
            for number in range(task_count):
                free(tasks[number].data)
        free(tasks)
        free(pairs)
    return 0


cdef object gather(const Task *tasks, uint64_t task_count):
    """The tasks' values behind one another in one array."""
    cdef uint64_t total = 0
    cdef uint64_t number
    cdef uint8_t[::1] target
    for number in range(task_count):
        total += tasks[number].data_bytes
    joined = np.empty(total, np.uint8)
    if total == 0:
        return joined
    target = joined
    total = 0
    for number in range(task_count):
        if tasks[number].data_bytes:
            memcpy(&target[total], tasks[number].data, tasks[number].data_bytes)
        total += tasks[number].data_bytes
    return joined


cdef int clear_outside(EncodedKeys keys, EncodedValues answer, object found,
                       bytes miss) except -1:
    """A key outside the domain was looked up under another key's head: it finds nothing."""
    wrong = keys.outside & found.view(np.bool_)
    found[wrong] = 0
    if answer is not None:
        answer.rows[wrong] = np.frombuffer(miss, np.uint8) if miss else 0
    return 0
