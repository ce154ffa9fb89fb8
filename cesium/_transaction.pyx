"""Drafts and commits of transactions: see _transaction.pxd for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
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
    KIND_DELETE, KIND_MASK, KIND_VALUE, KIND_VALUE_OVERFLOW, STATUS_NOT_FOUND, STATUS_OK,
    VALUE_INLINE_BYTES,
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
    page_value_bytes, page_value_inline,
)
from cesium._ranges cimport EncodedRange, RangeReader, View
from cesium._reads cimport TableReads
from cesium._turn cimport Turn
from cesium._values cimport EncodedValues, ValueCodec
from cesium._version cimport Found, raise_plain, version_fill_inputs, version_find

from cesium import _core
from cesium.errors import ClosedError, ConflictError, Error

cdef const uint64_t *FAULTS = fault_counter()

cdef object ABSENT = object()

cdef enum:
    COMPARED_ROWS = 65536       # of a range, read twice and compared, at a time


cdef bint is_empty(Memtable draft) noexcept:
    cdef MemtableCounters counters
    cdef const IntervalSet *markers = memtable_markers(draft.state)
    memtable_counters(draft.state, &counters)
    return counters.entries == 0 and (markers == NULL or markers.count == 0)


cdef class DraftReads(TableReads):
    """A table inside of a transaction: its life, drafts and commit; the arguments: __cinit__."""

    def __cinit__(self, TableCore core, KeyCodec keys, ValueCodec values, CompiledTable table,
                  Turn turn, bint optimistic, object durability):
        table.level_of(durability)      # refused here, not by the commit
        self.table = table
        self.turn = turn
        self.durability = durability
        self.optimistic = optimistic
        self.name = "transaction"

    # --- its life: compiled, so that an interrupt finds it begun and noted, or not begun ---------

    def __enter__(self):
        cdef Engine engine = self.engine
        if self.state != NEW:
            raise Error("a transaction is used once: make another one")
        self.drafts = [Memtable(self.core.shape, engine.counters)]
        self.points = {}
        self.batches = []
        self.spans = set()
        self.state = OPEN
        try:
            if not self.optimistic:
                self.turn.take(engine, self)
            engine.begin_write()
            try:
                self.base = View(self.core)
                self.sequence = engine.sequence
            finally:
                engine.end_write()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.rollback()
        elif self.state == OPEN:
            self.commit()

    def __del__(self):
        # One that was begun and dropped must not keep the turn.
        self.leave()

    cdef void leave(self) noexcept:
        """Ends it, whatever it is: lets go of everything that was read and written."""
        self.state = ENDED
        self.base = None
        self.merged = None
        self.drafts = None
        self.points = None
        self.batches = None
        self.spans = None
        if self.turn is not None and self.engine is not None:
            self.turn.give_back(self.engine, self)

    def rollback(self):
        """Ends the transaction; nothing of it was written.  May be called again.

        While another thread commits it, nothing is done.
        """
        if self.state != COMMITTING:
            self.leave()

    def commit(self):
        """Makes everything that was written visible, at once, and ends the transaction.

        Returns Commit(sequence, durability, rows); `committed` keeps it.  ConflictError when an
        optimistic transaction has read what others changed meanwhile: nothing is written then.
        """
        self.check_readable()
        self.state = COMMITTING         # from here on nobody writes to it
        try:
            if self.writes_nothing():
                commit, pending = self.table.commit_nothing(self.durability), None
            else:
                commit, pending = self.commit_drafts()
            self.committed = commit
        finally:
            self.leave()                # before the sync: others may share it
        if pending is not None:
            self.finish(commit.sequence, pending)
        return commit

    @property
    def active(self):
        """Whether the transaction has begun, and was neither committed nor rolled back."""
        return self.state == OPEN

    @property
    def closed(self):
        """Whether it has ended, or the store was closed."""
        return self.state == ENDED or self.engine.closed

    cdef bint writes_nothing(self) noexcept:
        cdef Memtable draft
        for draft in self.drafts:
            if not is_empty(draft):
                return False
        return True

    cdef int check_readable(self) except -1:
        if self.state != OPEN or self.base is None:
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

    cdef Py_ssize_t place_above(self, object below) except -1:
        """How many drafts there are up to one that `_mark` gave."""
        cdef Py_ssize_t place
        self.check_writable()
        if below is None:
            return 0
        for place in range(len(self.drafts)):
            if self.drafts[place] is below:
                return place + 1
        raise Error("the transaction was rolled back to an earlier savepoint: this one is gone")

    def _cut(self, below):
        """Drops what was written above a draft that `_mark` gave."""
        cdef Py_ssize_t kept = self.place_above(below)
        del self.drafts[kept:]
        self.drafts.append(Memtable(self.core.shape, self.engine.counters))
        self.merged = None
        self.changes += 1

    def _join(self, below):
        """Writes what lies above a draft that `_mark` gave into that draft, if there is one: many
        savepoints, one after another, leave no more drafts than one."""
        cdef Py_ssize_t kept = self.place_above(below)
        cdef Memtable target
        if kept == 0:
            return
        target = self.drafts[kept - 1]
        for operation in self.operations_of(self.drafts[kept:]):
            apply_to_draft(target, operation, self.engine)
        del self.drafts[kept:]
        self.merged = None
        self.changes += 1

    # --- reads --------------------------------------------------------------------------------

    cdef View pinned(self):
        cdef Memtable draft
        self.check_readable()
        if self.merged is None:
            above = [MemtableSnapshot(draft) for draft in reversed(self.drafts)
                     if not is_empty(draft)]
            self.check_readable()       # the collector may have run, and finalizers with it
            self.merged = View(self.core, self.base, above) if above else self.base
        return self.merged

    cdef object lookup(self, object key, object missing):
        return self.look_up(key, missing, True)

    def __contains__(self, key):
        return self.look_up(key, ABSENT, False) is not ABSENT

    cdef object look_up(self, object key, object missing, bint values):
        """The value of a key, or `missing`; values: whether more than its presence is asked."""
        cdef Key encoded
        cdef Position position
        cdef Found found
        cdef Memtable draft
        cdef View base
        cdef uint8_t row[VALUE_INLINE_BYTES]
        cdef uint64_t size
        cdef bint masked = False
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        holder = self.lookup_key(key, &encoded)
        self.check_readable()           # after the encoding, which may run anything
        base = self.base
        if holder is None:
            return missing
        for draft in reversed(self.drafts):
            status = memtable_find(draft.state, &encoded, &position, &masked)
            if status == STATUS_OK:
                if (kind_of(position.page, position.slot) & KIND_MASK) == KIND_DELETE:
                    return missing
                if self.shape.value_width:
                    page_copy_row(self.shape, position.page, position.slot, row)
                    return self.values_codec.decode_row(row)
                if kind_of(position.page, position.slot) & KIND_VALUE_OVERFLOW:
                    return self.lookup_pinned(&encoded, missing)
                size = page_value_bytes(position.page, position.slot)
                memcpy(row, page_value_inline(position.page, position.slot), size)
                return self.values_codec.decode(row, size)
            if status != STATUS_NOT_FOUND:
                raise_plain(status)
            if masked:
                return missing
        if self.optimistic:
            place = encoded.head if self.shape.key_width else holder
            if values or place not in self.points:
                self.points[place] = values
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
        if self.optimistic:
            encoded = self.keys_codec.encode_array(keys, lookup=True)
            self.check_readable()
            self.batches.append((encoded, values))

    def _note_range(self, lower, upper, bint reverse, limit, bint values):
        """Notes the interval that a read goes over: of a limited one, up to its last row.

        Not the limit: rows that drafts hide would count for it when it is read again without them.
        """
        cdef EncodedKeys keys
        cdef RangeReader reader
        self.check_readable()
        if not self.optimistic or limit == 0:
            return
        if limit is not None:
            reader = RangeReader(self.pinned(), EncodedRange(self.core, lower, upper), reverse,
                                 limit)
            keys, _ = reader.read(self.keys_codec, self.values_codec, None, True, False)
            if keys.count == limit:
                last = last_key(keys)
                if reverse:
                    lower = last
                else:
                    upper = key_behind(last)
            self.check_readable()
        self.spans.add((lower, upper, values))

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

    cdef Memtable top(self):
        self.merged = None
        self.changes += 1
        return self.drafts[len(self.drafts) - 1]

    cdef int write(self, Key *key, Value *value) except -1:
        cdef int status
        self.check_writable()           # after the encoding, which may run anything
        status = memtable_put(self.top().state, key, value)
        return raise_plain(status) if status != STATUS_OK else 0

    def put(self, key, value):
        """Stores `value` under `key`.

        SchemaError when key or value do not fit, LimitError over 64 KiB of key or 16 MiB of value.
        """
        cdef Key encoded
        cdef Value stored
        cdef uint8_t row[512]
        _key_holder = self.table.write_key(key, &encoded)
        _value_holder = self.table.write_small(value, &stored, row)
        stored.kind = KIND_VALUE
        self.write(&encoded, &stored)

    def delete(self, key):
        """Removes `key` whether or not it is there."""
        cdef Key encoded
        cdef Value nothing
        _holder = self.table.write_key(key, &encoded)
        memset(&nothing, 0, sizeof(Value))
        nothing.kind = KIND_DELETE
        self.write(&encoded, &nothing)

    def _write_batch(self, EncodedKeys keys, EncodedValues values):
        """Puts, or (values None) deletes, encoded rows; the last of equal keys wins."""
        cdef Batch batch
        if keys.count:
            fill_batch(self.shape, keys, values, &batch)
        self.check_writable()
        if keys.count:
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
        cdef View base = self.base
        cdef bint fixed = self.shape.key_width != 0
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
                if self.shape.value_width:
                    answer.rows = np.zeros((keys.count, self.shape.value_width), np.uint8)
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
        while True:
            keys, rows = old.read(self.keys_codec, self.values_codec, COMPARED_ROWS, True, values)
            others, other_rows = new.read(self.keys_codec, self.values_codec, COMPARED_ROWS, True,
                                          values)
            if not same_keys(keys, others) or (values and not same_values(rows, other_rows)):
                return False
            if keys.count == 0:
                return True

    # --- the commit ---------------------------------------------------------------------------

    cdef object commit_drafts(self):
        """Journals and applies all that was written: (the Commit, what it waits for)."""
        cdef Engine engine = self.engine
        cdef list operations = self.operations_of(self.drafts)
        cdef JournaledOperation operation
        cdef JournalPart *parts = NULL
        cdef Operation *applied = NULL
        cdef int part_count = 0
        cdef uint32_t index
        cdef uint64_t position = 0
        cdef uint64_t sequence
        cdef uint64_t checked = 0
        cdef JournalWriter journal
        cdef int level = self.table.level_of(self.durability)
        cdef bint full
        self.table.check_writable()
        rows = sum([(<JournaledOperation>made).header.row_count for made in operations])
        if self.optimistic:
            checked = self.look_again()
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
            if self.optimistic:
                engine.begin_commit()
            else:
                engine.make_way()
                engine.begin_write()
            try:
                if self.optimistic and engine.sequence != checked and not self._unchanged(
                        View(self.core)):
                    raise conflict()
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

    cdef uint64_t look_again(self) except? 0:
        """Validates without the writer lock; what comes in behind the sequence that it gives is
        left for a look under the lock."""
        cdef Engine engine = self.engine
        cdef uint64_t checked
        engine.begin_write()
        try:
            checked = engine.sequence
            now = View(self.core)
        finally:
            engine.end_write()
        if checked != self.sequence and not self._unchanged(now):
            raise conflict()
        return checked

    cdef object finish(self, uint64_t sequence, object pending):
        """What a visible commit still waits for: room in the memtable, and its level."""
        cdef uint64_t position
        cdef int level
        cdef bint full
        position, journal, level, full = pending
        self.table.finish(sequence, position, journal, level, full)

    cdef list operations_of(self, list drafts):
        """What drafts come to, the oldest first: a list of JournaledOperation."""
        cdef Memtable draft
        cdef EncodedKeys keys
        cdef EncodedKeys deleted
        cdef EncodedValues values
        cdef RangeReader reader
        cdef View view
        operations = []
        lowest = 0 if self.shape.key_width else b""
        for draft in drafts:
            for lower, upper in interval_set_to_list(memtable_markers(draft.state)):
                operations.append(range_operation(self.core, lower, upper))
            view = View(self.core, None, [MemtableSnapshot(draft)])
            reader = RangeReader(view, EncodedRange(self.core, lowest, None))
            keys, values = reader.read(self.keys_codec, self.values_codec)
            if keys.count:
                operations.append(batch_operation(self.core, keys, values))
            deleted = self.deleted_of(view)
            if deleted.count:
                operations.append(batch_operation(self.core, deleted, None))
        return operations

    cdef EncodedKeys deleted_of(self, View view):
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


cdef object conflict():
    return ConflictError("another commit changed what this transaction has read")


cdef int apply_to_draft(Memtable draft, JournaledOperation operation, Engine engine) except -1:
    cdef Operation *applied = &operation.operation
    cdef int status
    if applied.batch.count:
        return draft_batch(draft, &applied.batch, engine.counters)
    status = memtable_delete_range(draft.state, &applied.lower, &applied.upper, applied.unbounded)
    return raise_plain(status) if status != STATUS_OK else 0


cdef object last_key(EncodedKeys keys):
    if keys.heads is not None:
        return int(keys.heads[keys.count - 1])
    return keys.data[keys.offsets[keys.count - 1]:].tobytes()


cdef object key_behind(object key):
    """The smallest key above an encoded one; None: there is none."""
    if isinstance(key, bytes):
        return key + b"\0"
    return key + 1 if key < UINT64_MAX else None


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
