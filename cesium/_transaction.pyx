"""Drafts and commits of transactions: see _transaction.pxd for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

import numpy as np

from cesium._core cimport CompiledTable, count_operation
from cesium._cursor cimport Cursor, Run, cursor_free, cursor_new, cursor_next
from cesium._engine cimport Batch, Engine, Operation, TableCore, draft_batch
from cesium._faults cimport fault_counter, faults_seen
from cesium._frames cimport JOURNAL_FRAME_COMMIT
from cesium._interval cimport IntervalSet, interval_set_to_list
from cesium._journal cimport JournalPart, JournalWriter
from cesium._keys cimport EncodedKeys, KeyCodec
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, KIND_VALUE, STATUS_NOT_FOUND, STATUS_OK, VALUE_INLINE_BYTES,
)
from cesium._lookup cimport find_batch
from cesium._memtable cimport (
    Memtable, MemtableCounters, MemtableSnapshot, memtable_counters, memtable_delete_range,
    memtable_find, memtable_markers, memtable_put,
)
from cesium._operations cimport (
    PARTS_MOST, JournaledOperation, batch_operation, fill_batch, range_operation,
)
from cesium._page cimport (
    Key, Position, Value, heads_of, kind_of, page_copy_key, page_copy_row, page_key_bytes,
)
from cesium._ranges cimport EncodedRange, RangeReader, View
from cesium._reads cimport TableReads
from cesium._values cimport EncodedValues, ValueCodec
from cesium._version cimport Found, raise_plain, version_fill_inputs, version_find

from cesium import _core
from cesium.errors import ClosedError, ConflictError, Error

cdef const uint64_t *FAULTS = fault_counter()

cdef enum:
    COMPARED_ROWS = 65536       # of a range, read twice and compared, at a time


cdef bint is_empty(Memtable draft) noexcept:
    cdef MemtableCounters counters
    cdef const IntervalSet *markers = memtable_markers(draft.state)
    memtable_counters(draft.state, &counters)
    return counters.entries == 0 and (markers == NULL or markers.count == 0)


cdef class DraftReads(TableReads):
    """DraftReads(core, keys, values, table, tracks): a table, inside of a transaction."""

    def __cinit__(self, TableCore core, KeyCodec keys, ValueCodec values, CompiledTable table,
                  bint tracks):
        self.table = table
        self.tracks = tracks
        self.name = "transaction"

    # --- its life -----------------------------------------------------------------------------

    def _begin(self):
        """Pins the table as it is: what is read from now on is read there."""
        self.base = View(self.core)
        self.merged = None
        self.drafts = [Memtable(self.core.shape, self.engine.counters)]
        self.points = set()
        self.batches = []
        self.spans = set()

    def _end(self):
        """Lets go of everything that was read and written."""
        self.base = None
        self.merged = None
        self.drafts = []
        self.points = None
        self.batches = None
        self.spans = None

    @property
    def active(self):
        """Whether the transaction has begun, and was neither committed nor rolled back."""
        return self.base is not None

    @property
    def _is_empty(self):
        """Whether nothing was written."""
        cdef Memtable draft
        for draft in self.drafts:
            if not is_empty(draft):
                return False
        return True

    cdef int check_readable(self) except -1:
        if self.base is None:
            raise ClosedError("the transaction is not open: it is, inside of its with statement, "
                              "until it is committed or rolled back")
        return TableReads.check_readable(self)

    cdef int check_writable(self) except -1:
        self.check_readable()
        return self.table.check_writable()

    # --- savepoints ---------------------------------------------------------------------------

    def _mark(self):
        """What was written so far lies in drafts below; gives the last of them (None: nothing)."""
        cdef Py_ssize_t count
        self.check_writable()
        count = len(self.drafts)
        if not is_empty(self.drafts[count - 1]):
            self.drafts.append(Memtable(self.core.shape, self.engine.counters))
            count += 1
        return self.drafts[count - 2] if count > 1 else None

    def _cut(self, below):
        """Drops what was written above a draft that `_mark` gave."""
        cdef Py_ssize_t kept = 0
        self.check_writable()
        if below is not None:
            while kept < len(self.drafts) and self.drafts[kept] is not below:
                kept += 1
            if kept == len(self.drafts):
                raise Error("the transaction was rolled back to an earlier savepoint: this one is "
                            "gone")
            kept += 1
        del self.drafts[kept:]
        self.drafts.append(Memtable(self.core.shape, self.engine.counters))
        self.merged = None
        self.changes += 1

    def _level(self, durability):
        """The word for a level at least as high as the table's; ValueError for no level."""
        return _core.LEVELS[self.table.level_of(durability)]

    # --- reads --------------------------------------------------------------------------------

    cdef View pinned(self):
        cdef Memtable draft
        self.check_readable()
        if self.merged is None:
            above = [MemtableSnapshot(draft) for draft in reversed(self.drafts)
                     if not is_empty(draft)]
            self.merged = View(self.core, self.base, above) if above else self.base
        return self.merged

    cdef object lookup(self, object key, object missing):
        cdef Key encoded
        cdef Position position
        cdef Found found
        cdef Memtable draft
        cdef View base
        cdef uint8_t row[VALUE_INLINE_BYTES]
        cdef bint masked = False
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        self.check_readable()
        holder = self.lookup_key(key, &encoded)
        if holder is None:
            return missing
        for draft in reversed(self.drafts):
            status = memtable_find(draft.state, &encoded, &position, &masked)
            if status == STATUS_OK:
                if (kind_of(position.page, position.slot) & KIND_MASK) == KIND_DELETE:
                    return missing
                if self.shape.value_width == 0:
                    return self.lookup_pinned(&encoded, missing)
                page_copy_row(self.shape, position.page, position.slot, row)
                return self.values_codec.decode_row(row)
            if status != STATUS_NOT_FOUND:
                raise_plain(status)
            if masked:
                return missing
        if self.tracks:
            self.points.add(encoded.head if self.shape.key_width else holder)
        base = self.base
        with nogil:
            status = version_find(self.shape, base.items, base.count, &encoded, False, &found)
        return self.value_of(status, &found, missing, base.version, seen)

    def get_many(self, keys, default=None, threads=None):
        """As of a store: (values, found) for a batch of keys, in their order."""
        self._note_batch(keys, True)
        return TableReads.get_many(self, keys, default, threads)

    def contains_many(self, keys, threads=None):
        """bool[len(keys)]: which of the keys are there."""
        self._note_batch(keys, False)
        return TableReads.contains_many(self, keys, threads)

    def _note_batch(self, keys, bint values):
        self.check_readable()
        if self.tracks:
            self.batches.append((self.keys_codec.encode_array(keys, lookup=True), values))

    def _note_range(self, lower, upper, bint reverse, limit, bint values):
        self.check_readable()
        if self.tracks:
            self.spans.add((lower, upper, reverse, limit, values))

    def _rows(self, lower, upper, bint reverse, limit, int yields):
        self._note_range(lower, upper, reverse, limit, yields != 1)
        return TableReads._rows(self, lower, upper, reverse, limit, yields)

    def __iter__(self):
        return self._rows(0 if self.shape.key_width else b"", None, False, None, 1)

    def __reversed__(self):
        return self._rows(0 if self.shape.key_width else b"", None, True, None, 1)

    def __len__(self):
        cdef View view = self.pinned()
        self._note_range(0 if self.shape.key_width else b"", None, False, None, False)
        if self.counted is None or self.counted[0] != self.changes:
            self.counted = (self.changes, view.row_count())
        return self.counted[1]

    # --- writes -------------------------------------------------------------------------------

    cdef object top(self):
        self.merged = None
        self.changes += 1
        return self.drafts[len(self.drafts) - 1]

    cdef int write(self, Key *key, Value *value) except -1:
        cdef Memtable draft = self.top()
        cdef int status = memtable_put(draft.state, key, value)
        return raise_plain(status) if status != STATUS_OK else 0

    def put(self, key, value):
        """Stores `value` under `key`.

        SchemaError when key or value do not fit, LimitError over 64 KiB of key or 16 MiB of value.
        """
        cdef Key encoded
        cdef Value stored
        cdef uint8_t row[512]
        self.check_writable()
        _key_holder = self.table.write_key(key, &encoded)
        _value_holder = self.table.write_small(value, &stored, row)
        stored.kind = KIND_VALUE
        self.write(&encoded, &stored)

    def delete(self, key):
        """Removes `key` whether or not it is there."""
        cdef Key encoded
        cdef Value nothing
        self.check_writable()
        _holder = self.table.write_key(key, &encoded)
        memset(&nothing, 0, sizeof(Value))
        nothing.kind = KIND_DELETE
        self.write(&encoded, &nothing)

    def _write_batch(self, EncodedKeys keys, EncodedValues values):
        """Puts, or (values None) deletes, encoded rows; the last of equal keys wins."""
        cdef Batch batch
        self.check_writable()
        if keys.count:
            fill_batch(self.shape, keys, values, &batch)
            draft_batch(self.top(), &batch, self.engine.counters)

    def _delete_encoded(self, lower, upper):
        """Deletes [lower, upper), encoded; upper None = no upper end."""
        cdef EncodedRange interval = EncodedRange(self.core, lower, upper)
        cdef Memtable draft
        cdef int status
        self.check_writable()
        draft = self.top()
        status = memtable_delete_range(draft.state, &interval.bounds.lower, &interval.bounds.upper,
                                       interval.bounds.unbounded)
        if status != STATUS_OK:
            raise_plain(status)

    # --- validation ---------------------------------------------------------------------------

    def _unchanged(self, View now not None):
        """Whether all that was read would be read again now."""
        if self.points and not self._same_keys(
                now, encoded_keys(self.shape.key_width != 0, sorted(self.points)), True):
            return False
        for keys, values in self.batches:
            if not self._same_keys(now, keys, values):
                return False
        for lower, upper, reverse, limit, values in self.spans:
            if not self._same_range(now, lower, upper, reverse, limit, values):
                return False
        return True

    def _same_keys(self, View now, EncodedKeys keys, bint want_values):
        cdef list answers = []
        cdef EncodedValues answer
        cdef View view
        for view in (self.base, now):
            found = np.zeros(keys.count, np.uint8)
            answer = None
            if want_values:
                answer = EncodedValues.__new__(EncodedValues)
                answer.count = keys.count
                if self.shape.value_width:
                    answer.rows = np.zeros((keys.count, self.shape.value_width), np.uint8)
            find_batch(view, keys, answer, found, b"", None)
            answers.append((found, answer))
        (before, old), (after, new) = answers
        return np.array_equal(before, after) and (not want_values or same_values(old, new))

    def _same_range(self, View now, lower, upper, bint reverse, limit, bint want_values):
        cdef EncodedRange interval = EncodedRange(self.core, lower, upper)
        cdef RangeReader old = RangeReader(self.base, interval, reverse, limit)
        cdef RangeReader new = RangeReader(now, interval, reverse, limit)
        cdef EncodedKeys keys
        while True:
            keys, values = old.read(self.keys_codec, self.values_codec, COMPARED_ROWS, True,
                                    want_values)
            others, other_values = new.read(self.keys_codec, self.values_codec, COMPARED_ROWS, True,
                                            want_values)
            if not same_keys(keys, others):
                return False
            if want_values and not same_values(values, other_values):
                return False
            if keys.count == 0:
                return True

    # --- the commit ---------------------------------------------------------------------------

    def _commit(self, durability, validate):
        """Journals and applies all that was written; returns the Commit.

        validate: asked under the writer lock whether the commit may be made (ConflictError if not);
        None: the transaction has reserved the commits.
        """
        cdef Engine engine = self.engine
        cdef list operations
        cdef JournaledOperation operation
        cdef JournalPart *parts = NULL
        cdef Operation *applied = NULL
        cdef int part_count = 0
        cdef uint32_t index
        cdef uint64_t position = 0
        cdef uint64_t sequence
        cdef JournalWriter journal
        cdef int level = self.table.level_of(durability)
        cdef bint full
        self.check_writable()
        operations = self._operations()
        rows = sum([(<JournaledOperation>made).header.row_count for made in operations])
        parts = <JournalPart *>malloc(len(operations) * PARTS_MOST * sizeof(JournalPart))
        applied = <Operation *>malloc(len(operations) * sizeof(Operation))
        try:
            if parts == NULL or applied == NULL:
                raise MemoryError
            for index, operation in enumerate(operations):
                memcpy(parts + part_count, operation.parts,
                       operation.part_count * sizeof(JournalPart))
                part_count += operation.part_count
                applied[index] = operation.operation
            if validate is None:
                engine.make_way()
                engine.begin_write()
            else:
                engine.begin_commit()
            try:
                if validate is not None and not validate():
                    raise ConflictError("another commit changed what this transaction has read")
                engine.append(JOURNAL_FRAME_COMMIT, parts, part_count, <uint32_t>len(operations),
                              &position)
                self.core.apply_operations(applied, <uint32_t>len(operations))
                for index in range(<uint32_t>len(operations)):
                    count_operation(engine, &applied[index])
                engine.sequence += 1
                sequence = engine.sequence
                journal = engine.journal
                full = self.core.is_full()
            finally:
                engine.end_write()
        finally:
            free(parts)
            free(applied)
        return _core.Commit(sequence, _core.LEVELS[level], rows), (position, journal, level, full)

    def _finish(self, uint64_t sequence, pending):
        """What a visible commit still waits for: room in the memtable, and its level."""
        cdef uint64_t position
        cdef int level
        cdef bint full
        position, journal, level, full = pending
        self.table.finish(sequence, position, journal, level, full)

    def _operations(self):
        """What all drafts come to, the oldest first: a list of JournaledOperation."""
        cdef Memtable draft
        cdef EncodedKeys keys
        cdef EncodedKeys deleted
        cdef EncodedValues values
        cdef RangeReader reader
        cdef View view
        operations = []
        lowest = 0 if self.shape.key_width else b""
        for draft in self.drafts:
            for lower, upper in interval_set_to_list(memtable_markers(draft.state)):
                operations.append(range_operation(self.core, lower, upper))
            view = View(self.core, None, [MemtableSnapshot(draft)])
            reader = RangeReader(view, EncodedRange(self.core, lowest, None))
            keys, values = reader.read(self.keys_codec, self.values_codec)
            if keys.count:
                operations.append(batch_operation(self.core, keys, values))
            deleted = self._deleted(view)
            if deleted.count:
                operations.append(batch_operation(self.core, deleted, None))
        return operations

    def _deleted(self, View view):
        """The keys of a draft's delete markers, in order."""
        cdef Cursor *cursor = cursor_new(self.shape, view.count, 1, True)
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
                    if self.shape.key_width:
                        keys.append(heads_of(run.page)[slot])
                        continue
                    size = page_key_bytes(self.shape, run.page, slot)
                    key = PyBytes_FromStringAndSize(NULL, size)
                    status = page_copy_key(self.shape, run.page, slot, run.source,
                                           <uint8_t *>PyBytes_AS_STRING(key))
                    if status != STATUS_OK:
                        break
                    keys.append(key)
        finally:
            cursor_free(cursor)
        if status != STATUS_NOT_FOUND and status != STATUS_OK:
            raise_plain(status)
        return encoded_keys(self.shape.key_width != 0, keys)


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
