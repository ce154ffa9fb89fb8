"""Transactions: their life, and a table inside of one: see _transaction.pxd for the contract."""

from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cesium._core cimport CompiledTable, count_operation
from cesium._drafts cimport Drafts, is_empty
from cesium._engine cimport (
    Batch, CorePart, Engine, Operation, TableCore, apply_parts, draft_batch,
)
from cesium._faults cimport fault_counter, faults_seen
from cesium._frames cimport JOURNAL_FRAME_COMMIT
from cesium._journal cimport JournalPart, JournalWriter
from cesium._keys cimport EncodedKeys, KeyCodec
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, KIND_VALUE, KIND_VALUE_OVERFLOW, STATUS_NOT_FOUND, STATUS_OK,
    VALUE_INLINE_BYTES,
)
from cesium._memtable cimport (
    Memtable, MemtableSnapshot, memtable_delete_range, memtable_find, memtable_put,
)
from cesium._operations cimport PARTS_MOST, JournaledOperation, fill_batch
from cesium._page cimport (
    Key, Position, Value, kind_of, page_copy_row, page_value_bytes, page_value_inline,
)
from cesium._ranges cimport EncodedRange, RangeReader, View
from cesium._reads cimport TableReads
from cesium._turn cimport Turn
from cesium._values cimport EncodedValues, ValueCodec
from cesium._version cimport Found, raise_plain, version_find

from cesium import _core
from cesium.errors import ClosedError, ConflictError, Error

cdef const uint64_t *FAULTS = fault_counter()

cdef object ABSENT = object()


cdef class TransactionLife:
    """TransactionLife(table, turn, optimistic, durability): compiled, so that an interrupt finds it
    begun and noted, or not begun."""

    def __cinit__(self, CompiledTable table, Turn turn, bint optimistic, object durability):
        table.level_of(durability)      # refused here, not by the commit
        self.table = table
        self.engine = table.engine
        self.turn = turn
        self.durability = durability
        self.optimistic = optimistic
        self.parts = {}
        self.views = {}

    def __del__(self):
        # One that was begun and dropped must not keep the turn.
        self.leave()

    cdef int begin(self, object cores) except -1:
        cdef Engine engine = self.engine
        cdef TableCore core
        if self.state != NEW:
            raise Error("a transaction is used once: make another one")
        self.state = OPEN
        try:
            if not self.optimistic:
                self.turn.take(engine, self)
            engine.begin_write()
            try:
                # Asked for here: a table that is made, and written to, before this lock was taken
                # is one that the transaction sees.
                for core in cores() if self.optimistic else []:
                    self.views[core.table_id] = View(core)
                self.sequence = engine.sequence
            finally:
                engine.end_write()
        except BaseException:
            self.leave()
            raise
        return 0

    cdef void leave(self) noexcept:
        cdef Drafts part
        self.state = ENDED
        if self.parts is not None:
            for part in self.parts.values():
                part.release()      # before what follows a commit: it pins pages of the memtable
        self.parts = None
        self.views = None
        if self.turn is not None and self.engine is not None:
            self.turn.give_back(self.engine, self)

    cdef Drafts part_of(self, CompiledTable table):
        cdef TableCore core = table.core
        cdef Drafts part
        self.check_open()
        part = self.parts.get(core.table_id)
        if part is None:
            view = self.views.get(core.table_id)
            if view is None and not self.optimistic:
                view = View(core)       # as it was at the beginning: nobody else commits
            elif view is None:          # made since: it was empty
                view = View(TableCore(self.engine, core.table_id, core.shape, 0))
            part = Drafts(table, view)
            self.parts[core.table_id] = part
        return part

    cdef int check_open(self) except -1:
        if self.state != OPEN or self.parts is None:
            raise ClosedError("the transaction is not open: it is, inside of its with statement, "
                              "until it is committed or rolled back")
        return 0

    # --- savepoints, over all tables ----------------------------------------------------------

    cdef dict mark(self):
        cdef Drafts part
        return {number: part.mark() for number, part in self.parts.items()}

    cdef int check_marks(self, dict marks) except -1:
        """Error for a mark that is gone, before anything is done."""
        cdef Drafts part
        for number, below in marks.items():
            part = self.parts[number]
            part.place_above(below)
        return 0

    cdef int cut(self, dict marks) except -1:
        cdef Drafts part
        self.check_marks(marks)
        for number, part in self.parts.items():
            part.cut(marks.get(number))
        return 0

    cdef int join(self, dict marks) except -1:
        cdef Drafts part
        self.check_marks(marks)
        for number, part in self.parts.items():
            part.join(marks.get(number))
        return 0

    # --- the commit ---------------------------------------------------------------------------

    cdef object commit(self):
        cdef Drafts part
        cdef bint writes = False
        self.check_open()
        self.state = COMMITTING         # from here on nobody writes to it
        try:
            for part in self.parts.values():
                writes = writes or not part.writes_nothing()
            if writes:
                commit, pending = self.commit_drafts()
            else:
                commit, pending = self.table.commit_nothing(self.durability), None
            self.committed = commit
        finally:
            self.leave()                # before the sync: others may share it
        if pending is not None:
            self.finish(commit.sequence, pending)
        return commit

    cdef object commit_drafts(self):
        """Journals and applies all that was written: (the Commit, what it waits for)."""
        cdef Engine engine = self.engine
        cdef Drafts part
        cdef JournaledOperation operation
        cdef JournalPart *pieces = NULL
        cdef Operation *applied = NULL
        cdef CorePart *cores = NULL
        cdef list operations = []
        cdef list written = []          # the parts with operations
        cdef int piece_count = 0
        cdef uint32_t count = 0
        cdef uint32_t index
        cdef uint64_t position = 0
        cdef uint64_t sequence
        cdef uint64_t checked = 0
        cdef JournalWriter journal
        cdef int level = self.table.level_of(self.durability)
        cdef bint full = False
        self.table.check_writable()
        for part in self.parts.values():
            made = part.operations()
            if made:
                written.append((part, len(made)))
                operations += made
        rows = sum([(<JournaledOperation>operation).header.row_count for operation in operations])
        if self.optimistic:
            checked = self.look_again()
        pieces = <JournalPart *>malloc(len(operations) * PARTS_MOST * sizeof(JournalPart))
        applied = <Operation *>malloc(len(operations) * sizeof(Operation))
        cores = <CorePart *>malloc(len(written) * sizeof(CorePart))
        try:
            if pieces == NULL or applied == NULL or cores == NULL:
                raise MemoryError
            for operation in operations:
                memcpy(pieces + piece_count, operation.parts,
                       operation.part_count * sizeof(JournalPart))
                piece_count += operation.part_count
                applied[count] = operation.operation
                count += 1
            if self.optimistic:
                engine.begin_commit()
            else:
                engine.make_way()
                engine.begin_write()
            try:
                if self.optimistic and engine.sequence != checked and not self.unchanged():
                    raise conflict()
                # After all Python code: a live memtable may be another one after a flush.
                for index, (part, made) in enumerate(written):
                    part.core.check_there()
                    cores[index].live = part.core.live.state
                    cores[index].value_width = part.core.shape.shape.value_width
                    cores[index].count = made
                engine.append(JOURNAL_FRAME_COMMIT, pieces, piece_count, count, &position)
                apply_parts(engine, cores, <uint32_t>len(written), applied)
                for index in range(count):
                    count_operation(engine, &applied[index])
                engine.sequence += 1
                sequence = engine.sequence
                journal = engine.journal
                for part, _ in written:
                    full = full or part.core.is_full()
            finally:
                engine.end_write()
        finally:
            free(pieces)
            free(applied)
            free(cores)
        return _core.Commit(sequence, _core.LEVELS[level], rows), (position, journal, level, full)

    cdef bint unchanged(self) except -1:
        """Whether all that was read would be read again (writer lock held)."""
        cdef Drafts part
        for part in self.parts.values():
            if not part.unchanged(View(part.core)):
                return False
        return True

    cdef uint64_t look_again(self) except? 0:
        """Validates without the writer lock; what comes in behind the sequence that it gives is
        left for a look under the lock."""
        cdef Engine engine = self.engine
        cdef Drafts part
        cdef uint64_t checked
        engine.begin_write()
        try:
            checked = engine.sequence
            now = [View(part.core) for part in self.parts.values()]
        finally:
            engine.end_write()
        if checked == self.sequence:
            return checked
        for part, view in zip(self.parts.values(), now):
            if not part.unchanged(view):
                raise conflict()
        return checked

    cdef object finish(self, uint64_t sequence, object pending):
        """What a visible commit still waits for: room in the memtable, and its level."""
        cdef uint64_t position
        cdef int level
        cdef bint full
        position, journal, level, full = pending
        self.table.finish(sequence, position, journal, level, full)


cdef object conflict():
    return ConflictError("another commit changed what this transaction has read")


cdef class DraftReads(TableReads):
    """DraftReads(core, keys, values, table, life, cores): a table inside of a transaction.

    cores: of the whole one, a function that gives the TableCores of all tables.
    """

    def __cinit__(self, TableCore core, KeyCodec keys, ValueCodec values, CompiledTable table,
                  TransactionLife life, object cores=None):
        self.table = table
        self.life = life
        self.cores = cores
        self.name = "transaction"

    @property
    def active(self):
        """Whether the transaction has begun, and was neither committed nor rolled back."""
        return self.life.state == OPEN

    @property
    def optimistic(self):
        """Whether others may commit meanwhile."""
        return self.life.optimistic

    @property
    def sequence(self):
        """The sequence of the last commit that it sees."""
        return self.life.sequence

    @property
    def committed(self):
        """The Commit, once there is one."""
        return self.life.committed

    @property
    def closed(self):
        """Whether it has ended, or the store was closed."""
        return self.life.state == ENDED or self.engine.closed

    cdef int check_readable(self) except -1:
        self.life.check_open()
        if self.part is None:
            self.part = self.life.part_of(self.table)
        return TableReads.check_readable(self)

    cdef Drafts opened(self):
        self.check_readable()
        return self.part

    cdef int check_writable(self) except -1:
        self.check_readable()
        return self.table.check_writable()

    # --- savepoints ---------------------------------------------------------------------------

    def _mark(self):
        """What was written so far lies below a mark, to which `_cut` goes back."""
        self.check_writable()
        return self.life.mark()

    def _cut(self, dict marks):
        """Drops what was written since a mark."""
        self.check_writable()
        self.life.cut(marks)

    def _join(self, dict marks):
        """Forgets a mark: what was written since belongs to what was before."""
        self.check_writable()
        self.life.join(marks)

    # --- reads --------------------------------------------------------------------------------

    cdef View pinned(self):
        cdef Drafts part = self.opened()
        cdef Memtable draft
        if part.merged is None:
            above = [MemtableSnapshot(draft) for draft in reversed(part.drafts)
                     if not is_empty(draft)]
            self.check_readable()       # the collector may have run, and finalizers with it
            part.merged = View(self.core, part.base, above) if above else part.base
        return part.merged

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
        cdef Drafts part
        cdef View base
        cdef uint8_t row[VALUE_INLINE_BYTES]
        cdef uint64_t size
        cdef bint masked = False
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        holder = self.lookup_key(key, &encoded)
        part = self.opened()            # after the encoding, which may run anything
        base = part.base
        if holder is None:
            return missing
        for draft in reversed(part.drafts):
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
        if self.life.optimistic:
            place = encoded.head if self.shape.key_width else holder
            if values or place not in part.points:
                part.points[place] = values
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
        if self.life.optimistic:
            encoded = self.keys_codec.encode_array(keys, lookup=True)
            self.opened().batches.append((encoded, values))

    def _note_range(self, lower, upper, bint reverse, limit, bint values):
        """Notes the interval that a read goes over: of a limited one, up to its last row.

        Not the limit: rows that drafts hide would count for it when it is read again without them.
        """
        cdef EncodedKeys keys
        cdef RangeReader reader
        cdef Drafts part = self.opened()
        if not self.life.optimistic or limit == 0:
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
        part.spans.add((lower, upper, values))

    def _rows(self, lower, upper, bint reverse, limit, int yields):
        self._note_range(lower, upper, reverse, limit, yields != 1)
        return TableReads._rows(self, lower, upper, reverse, limit, yields)

    def _arrays(self, lower, upper, bint reverse, limit, int yields, int threads):
        self._note_range(lower, upper, reverse, limit, yields != 1)
        return TableReads._arrays(self, lower, upper, reverse, limit, yields, threads)

    def __iter__(self):
        return self._rows(0 if self.shape.key_width else b"", None, False, None, 1)

    def __reversed__(self):
        return self._rows(0 if self.shape.key_width else b"", None, True, None, 1)

    def __len__(self):
        cdef View view = self.pinned()
        cdef Drafts part = self.opened()
        self._note_range(0 if self.shape.key_width else b"", None, False, None, False)
        if self.counted is None or self.counted[0] != part.changes:
            self.counted = (part.changes, view.row_count())
        return self.counted[1]

    # --- writes -------------------------------------------------------------------------------

    cdef int write(self, Key *key, Value *value) except -1:
        cdef int status
        self.check_writable()           # after the encoding, which may run anything
        status = memtable_put(self.opened().top().state, key, value)
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
            draft_batch(self.opened().top(), &batch, self.engine.counters)

    def _delete_encoded(self, lower, upper):
        """Deletes [lower, upper), encoded; upper None = no upper end."""
        cdef EncodedRange interval = EncodedRange(self.core, lower, upper)
        cdef Memtable draft
        cdef int status
        self.check_writable()
        draft = self.opened().top()
        status = memtable_delete_range(draft.state, &interval.bounds.lower, &interval.bounds.upper,
                                       interval.bounds.unbounded)
        if status != STATUS_OK:
            raise_plain(status)


cdef class WholeDraft(DraftReads):
    """The face that a transaction is begun and ended by."""

    def __enter__(self):
        self.life.begin(self.cores)
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.rollback()
        elif self.life.state == OPEN:
            self.commit()

    def __del__(self):
        self.life.leave()       # whoever has a table of it has no way to end it

    def rollback(self):
        """Ends the transaction; nothing of it was written.  May be called again.

        While another thread commits it, nothing is done.
        """
        if self.life.state != COMMITTING:
            self.life.leave()

    def commit(self):
        """Makes everything that was written visible, at once, and ends the transaction.

        Returns Commit(sequence, durability, rows); `committed` keeps it.  ConflictError when an
        optimistic transaction has read what others changed meanwhile: nothing is written then.
        """
        self.check_readable()
        return self.life.commit()


cdef object last_key(EncodedKeys keys):
    if keys.heads is not None:
        return int(keys.heads[keys.count - 1])
    return keys.data[keys.offsets[keys.count - 1]:].tobytes()


cdef object key_behind(object key):
    """The smallest key above an encoded one; None: there is none."""
    if isinstance(key, bytes):
        return key + b"\0"
    return key + 1 if key < UINT64_MAX else None
