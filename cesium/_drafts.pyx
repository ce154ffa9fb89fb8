"""Drafts of one table, what was read beside them, and what they come to: see _drafts.pxd."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

import numpy as np

from cesium._core cimport CompiledTable
from cesium._cursor cimport Cursor, Run, cursor_free, cursor_new, cursor_next
from cesium._engine cimport Engine, Operation, draft_batch
from cesium._interval cimport IntervalSet, interval_set_to_list
from cesium._keys cimport EncodedKeys
from cesium._layout cimport KIND_DELETE, KIND_MASK, STATUS_NOT_FOUND, STATUS_OK
from cesium._lookup cimport find_batch
from cesium._memtable cimport (
    Memtable, MemtableCounters, MemtableSnapshot, memtable_counters, memtable_delete_range,
    memtable_markers,
)
from cesium._operations cimport JournaledOperation, batch_operation, range_operation
from cesium._page cimport heads_of, kind_of, page_copy_key, page_key_bytes
from cesium._ranges cimport EncodedRange, RangeReader, View
from cesium._values cimport EncodedValues
from cesium._version cimport raise_plain, version_fill_inputs

from cesium.errors import ClosedError, Error

cdef enum:
    COMPARED_ROWS = 65536       # of a range, read twice and compared, at a time


cdef bint is_empty(Memtable draft) noexcept:
    cdef MemtableCounters counters
    cdef const IntervalSet *markers = memtable_markers(draft.state)
    memtable_counters(draft.state, &counters)
    return counters.entries == 0 and (markers == NULL or markers.count == 0)


cdef class Drafts:
    """Drafts(table, base): what a transaction does to a table, over a view of it."""

    def __cinit__(self, CompiledTable table, View base):
        self.table = table
        self.core = table.core
        self.base = base
        self.drafts = [Memtable(self.core.shape, self.core.engine.counters)]
        self.points = {}
        self.batches = []
        self.spans = set()

    cdef void release(self) noexcept:
        self.base = None
        self.merged = None
        self.drafts = None
        self.points = None
        self.batches = None
        self.spans = None

    cdef bint writes_nothing(self) noexcept:
        cdef Memtable draft
        for draft in self.drafts:
            if not is_empty(draft):
                return False
        return True

    cdef Memtable top(self):
        cdef list drafts = self.drafts
        if drafts is None:      # another thread has ended the transaction since it was looked at
            raise ClosedError("the transaction has ended")
        self.merged = None
        self.changes += 1
        return drafts[len(drafts) - 1]

    # --- savepoints ---------------------------------------------------------------------------

    cdef object mark(self):
        cdef Py_ssize_t count = len(self.drafts)
        if not is_empty(self.drafts[count - 1]):
            self.drafts.append(Memtable(self.core.shape, self.core.engine.counters))
            count += 1
        return self.drafts[count - 2] if count > 1 else None

    cdef Py_ssize_t place_above(self, object below) except -1:
        """How many drafts there are up to one that `mark` gave."""
        cdef Py_ssize_t place
        if below is None:
            return 0
        for place in range(len(self.drafts)):
            if self.drafts[place] is below:
                return place + 1
        raise Error("the transaction was rolled back to an earlier savepoint: this one is gone")

    cdef int cut(self, object below) except -1:
        cdef Py_ssize_t kept = self.place_above(below)
        del self.drafts[kept:]
        self.drafts.append(Memtable(self.core.shape, self.core.engine.counters))
        self.merged = None
        self.changes += 1
        return 0

    cdef int join(self, object below) except -1:
        cdef Py_ssize_t kept = self.place_above(below)
        cdef Memtable target
        if kept == 0:
            return 0
        target = self.drafts[kept - 1]
        for operation in self.operations_of(self.drafts[kept:]):
            apply_to_draft(target, operation, self.core.engine)
        del self.drafts[kept:]
        self.merged = None
        self.changes += 1
        return 0

    # --- validation ---------------------------------------------------------------------------

    cdef bint unchanged(self, View now) except -1:
        """Whether all that was read would be read again now."""
        cdef View base = self.base
        cdef bint fixed = self.core.shape.shape.key_width != 0
        for values in (True, False):
            keys = sorted([key for key, valued in self.points.items() if valued is values])
            if keys and not self.same_of_keys(base, now, encoded_keys(fixed, keys), values):
                return False
        for keys, values in self.batches:
            if not self.same_of_keys(base, now, keys, values):
                return False
        for lower, upper, values in self.spans:
            if not self.same_of_range(base, now, lower, upper, values):
                return False
        return True

    cdef bint same_of_keys(self, View base, View now, EncodedKeys keys, bint values) except -1:
        cdef list answers = []
        cdef EncodedValues answer
        cdef View view
        for view in (base, now):
            found = np.zeros(keys.count, np.uint8)
            answer = None
            if values:
                answer = EncodedValues.__new__(EncodedValues)
                answer.count = keys.count
                if self.core.shape.shape.value_width:
                    width = self.core.shape.shape.value_width
                    answer.rows = np.zeros((keys.count, width), np.uint8)
            find_batch(view, keys, answer, found, b"", None)
            answers.append((found, answer))
        (before, old), (after, new) = answers
        return np.array_equal(before, after) and (not values or same_values(old, new))

    cdef bint same_of_range(self, View base, View now, object lower, object upper,
                            bint values) except -1:
        cdef EncodedRange interval = EncodedRange(self.core, lower, upper)
        cdef RangeReader old = RangeReader(base, interval)
        cdef RangeReader new = RangeReader(now, interval)
        cdef EncodedKeys keys
        key_codec, value_codec = self.table.keys_codec, self.table.values_codec
        while True:
            keys, rows = old.read(key_codec, value_codec, COMPARED_ROWS, True, values)
            others, other_rows = new.read(key_codec, value_codec, COMPARED_ROWS, True, values)
            if not same_keys(keys, others) or (values and not same_values(rows, other_rows)):
                return False
            if keys.count == 0:
                return True

    # --- the commit ---------------------------------------------------------------------------

    cdef list operations(self):
        return self.operations_of(self.drafts)

    cdef list operations_of(self, list drafts):
        """What drafts come to, the oldest first: a list of JournaledOperation."""
        cdef Memtable draft
        cdef EncodedKeys keys
        cdef EncodedKeys deleted
        cdef EncodedValues values
        cdef RangeReader reader
        cdef View view
        operations = []
        lowest = 0 if self.core.shape.shape.key_width else b""
        for draft in drafts:
            for lower, upper in interval_set_to_list(memtable_markers(draft.state)):
                operations.append(range_operation(self.core, lower, upper))
            view = View(self.core, None, [MemtableSnapshot(draft)])
            reader = RangeReader(view, EncodedRange(self.core, lowest, None))
            keys, values = reader.read(self.table.keys_codec, self.table.values_codec)
            if keys.count:
                operations.append(batch_operation(self.core, keys, values))
            deleted = self.deleted_of(view)
            if deleted.count:
                operations.append(batch_operation(self.core, deleted, None))
        return operations

    cdef EncodedKeys deleted_of(self, View view):
        """The keys of a draft's delete markers, in order."""
        cdef Cursor *cursor = cursor_new(&self.core.shape.shape, view.count, 1, True)
        cdef Run pending
        cdef Run run
        cdef uint32_t slot
        cdef uint64_t size
        cdef int status = STATUS_OK
        cdef list keys = []
        cdef bytes key
        if cursor == NULL:
            raise MemoryError
        memset(&pending, 0, sizeof(Run))
        try:
            status = version_fill_inputs(view.items, view.count, cursor, 0)
            while status == STATUS_OK:
                status = cursor_next(cursor, &pending, &run)
                if status != STATUS_OK:
                    break
                for slot in range(run.first, run.last):
                    if (kind_of(run.page, slot) & KIND_MASK) != KIND_DELETE:
                        continue
                    if self.core.shape.shape.key_width:
                        keys.append(heads_of(run.page)[slot])
                        continue
                    size = page_key_bytes(&self.core.shape.shape, run.page, slot)
                    key = PyBytes_FromStringAndSize(NULL, size)
                    status = page_copy_key(&self.core.shape.shape, run.page, slot, run.source,
                                           <uint8_t *>PyBytes_AS_STRING(key))
                    if status != STATUS_OK:
                        break
                    keys.append(key)
        finally:
            cursor_free(cursor)
        if status != STATUS_NOT_FOUND and status != STATUS_OK:
            raise_plain(status)
        return encoded_keys(self.core.shape.shape.key_width != 0, keys)


cdef int apply_to_draft(Memtable draft, JournaledOperation operation, Engine engine) except -1:
    cdef Operation *applied = &operation.operation
    cdef int status
    if applied.batch.count:
        return draft_batch(draft, &applied.batch, engine.counters)
    status = memtable_delete_range(draft.state, &applied.lower, &applied.upper, applied.unbounded)
    return raise_plain(status) if status != STATUS_OK else 0


cdef EncodedKeys encoded_keys(bint fixed, list keys):
    if fixed:
        return EncodedKeys(len(keys), heads=np.array(keys, np.uint64))
    offsets = np.zeros(len(keys) + 1, np.int64)
    np.cumsum([len(key) for key in keys], out=offsets[1:])
    return EncodedKeys(len(keys), offsets=offsets, data=np.frombuffer(b"".join(keys), np.uint8))


cdef bint same_keys(EncodedKeys one, EncodedKeys other) except -1:
    if one.heads is not None:
        return np.array_equal(one.heads, other.heads)
    return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.data, other.data)


cdef bint same_values(EncodedValues one, EncodedValues other) except -1:
    if one.rows is not None:
        return np.array_equal(one.rows, other.rows)
    return np.array_equal(one.offsets, other.offsets) and np.array_equal(one.data, other.data)
