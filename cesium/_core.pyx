"""Single operations and batches of a table: see _core.pxd for the contract."""

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.slice cimport PySlice_Check
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cesium._engine cimport Engine, Operation, TableCore
from cesium._faults cimport fault_counter, faults_seen
from cesium._frames cimport (
    JOURNAL_DELETE, JOURNAL_FIXED_KEYS, JOURNAL_FIXED_VALUES, JOURNAL_FRAME_COMMIT, JOURNAL_PUT,
)
from cesium._journal cimport JournalWriter
from cesium._keys cimport KEY_INSIDE, EncodedKeys, KeyCodec
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, KIND_VALUE, KIND_VALUE_OVERFLOW, STATUS_FULL, STATUS_NOT_FOUND,
    STATUS_OK, VALUE_INLINE_BYTES,
)
from cesium._memtable cimport memtable_find
from cesium._operations cimport JournaledOperation, batch_operation, range_operation
from cesium._page cimport (
    Key, Position, Value, kind_of, page_copy_row, page_value_bytes, page_value_inline,
)
from cesium._ranges cimport key_from
from cesium._reads cimport TableReads
from cesium._values cimport EncodedValues, ValueCodec
from cesium._version cimport Found, Version, version_find
from cesium import _reads
from cesium.errors import LimitError, ReadOnlyError
from cesium.incoming import arrow_rows

LEVELS = ("none", "process", "interval", "sync")
DURABILITY_ERROR = "durability is one of 'sync', 'interval', 'process', 'none', not {!r}"

cdef enum:
    LEVEL_INTERVAL = 2
    LEVEL_SYNC = 3
    VALUE_BYTES_MAX = 16777216      # of what is exchanged

Commit = namedtuple("Commit", ("sequence", "durability", "rows"))
Commit.__doc__ = """What a batch write did: its commit sequence, durability reached, rows given."""

cdef object MISSING = _reads.MISSING
KEEP = object()                 # what a decision says to leave as it is
cdef object LEAVE = KEEP        # quicker to read than a module's attribute
cdef object REMOVE = object()   # in the place of a replacement; MISSING is the user's, too
cdef const uint64_t *FAULTS = fault_counter()


cdef class CompiledTable(TableReads):
    """CompiledTable(core, keys, values, durability, read_only): see the module's contract."""

    def __cinit__(self, TableCore core, KeyCodec keys, ValueCodec values, str durability,
                  bint read_only):
        self.level = LEVELS.index(durability)
        self.read_only = read_only

    cdef int check_writable(self) except -1:
        self.check_readable()
        if self.read_only:
            raise ReadOnlyError("the store was opened with flag='r'")
        return 0

    cdef int level_of(self, object durability) except -1:
        if durability is None:
            return self.level
        if durability not in LEVELS:
            raise ValueError(DURABILITY_ERROR.format(durability))
        return max(self.level, LEVELS.index(durability))

    cdef object write_key(self, object key, Key *out):
        """Encodes a key to be written; what is returned keeps its bytes alive."""
        cdef bytes encoded
        out.data = NULL
        out.bytes = 0
        if self.shape.key_width:
            if self.keys_codec.encode_head(key, &out.head) != KEY_INSIDE:
                raise self.keys_codec.domain_error(key)
            return True
        encoded = self.keys_codec.encode(key)
        key_from(encoded, False, out)
        return encoded

    cdef object lookup(self, object key, object missing):
        """The value of a key, or `missing`."""
        cdef Key encoded
        cdef Position position
        cdef Found found
        cdef Version version
        cdef uint8_t row[VALUE_INLINE_BYTES]    # no fixed row is longer than an inline value
        cdef uint64_t size
        cdef bint masked
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        self.check_readable()
        holder = self.lookup_key(key, &encoded)
        if holder is None:
            return missing
        # Nothing that allocates, or could raise, stands between the locking and the unlocking.
        self.engine.lock_shared()
        if self.engine.closed or self.core.dropped:     # since the check: the version is emptied
            self.engine.unlock()
            self.check_readable()
        status = memtable_find(self.core.live.state, &encoded, &position, &masked)
        if status == STATUS_OK:
            if (kind_of(position.page, position.slot) & KIND_MASK) == KIND_DELETE:
                self.engine.unlock()
                return missing
            if self.shape.value_width:
                page_copy_row(self.shape, position.page, position.slot, row)
                self.engine.unlock()
                return self.values_codec.decode_row(row)
            if kind_of(position.page, position.slot) & KIND_VALUE_OVERFLOW:
                self.engine.unlock()
                return self.lookup_pinned(&encoded, missing)
            size = page_value_bytes(position.page, position.slot)
            memcpy(row, page_value_inline(position.page, position.slot), size)
            self.engine.unlock()
            return self.values_codec.decode(row, size)
        version = self.core.version_now
        self.engine.unlock()
        if status != STATUS_NOT_FOUND:
            version.raise_status(status)
        if masked:
            return missing
        # Warm pages are searched under the GIL: giving it up costs more than the search.
        status = version_find(self.shape, version.items, version.count, &encoded, True, &found)
        if status == STATUS_FULL:
            with nogil:
                status = version_find(self.shape, version.items, version.count, &encoded, False,
                                      &found)
        return self.value_of(status, &found, missing, version, seen)

    # --- single writes ------------------------------------------------------------------------

    cdef uint64_t commit_one(self, uint8_t kind, Key *key, Value *value, int level) except 0:
        """Journals and applies one row.  The writer lock is taken here."""
        cdef Engine engine = self.engine
        cdef uint64_t position
        cdef uint64_t sequence
        cdef JournalWriter journal
        cdef bint full
        engine.begin_commit()
        try:
            sequence = self.commit_locked(kind, key, value, &position)
            journal = engine.journal
            full = self.core.is_full()
        finally:
            engine.end_write()
        self.finish(sequence, position, journal, level, full)
        return sequence

    cdef uint64_t commit_locked(self, uint8_t kind, Key *key, Value *value,
                                uint64_t *position) except 0:
        cdef Engine engine = self.engine
        cdef uint8_t flags = 0
        cdef const void *key_data = key.data
        cdef uint32_t key_bytes = key.bytes
        if self.shape.key_width:
            flags |= JOURNAL_FIXED_KEYS
            key_data = &key.head
            key_bytes = 8
        if self.shape.value_width:
            flags |= JOURNAL_FIXED_VALUES
        value.kind = KIND_VALUE if kind == JOURNAL_PUT else KIND_DELETE
        self.core.check_there()
        engine.append_single(self.core.table_id, kind, flags, key_data, key_bytes, value.data,
                             <uint32_t>value.bytes, position)
        self.core.apply_one(key, value)
        engine.sequence += 1
        return engine.sequence

    cdef object write_value(self, object value, Value *out, uint8_t *row):
        """Encodes a value, a fixed one into `row`; what is returned keeps its bytes alive."""
        cdef bytes encoded
        if self.shape.value_width:
            self.values_codec.encode_row(value, row)
            out.data = row
            out.bytes = self.shape.value_width
            return None
        encoded = self.values_codec.encode(value)
        out.data = <const uint8_t *>PyBytes_AS_STRING(encoded)
        out.bytes = PyBytes_GET_SIZE(encoded)
        return encoded

    cdef object write_small(self, object value, Value *out, uint8_t *row):
        """The same for a value that must go into a frame."""
        holder = self.write_value(value, out, row)
        if out.bytes > VALUE_BYTES_MAX:
            raise LimitError(f"a value of {out.bytes:,} bytes is too large here: put it")
        return holder

    def put(self, key, value, durability=None):
        """Stores `value` under `key` and returns the commit's sequence.

        durability: a higher level than the store's for this commit and all before it.  SchemaError
        when key or value do not fit, LimitError over 64 KiB of key or 4 GiB of value: no change.
        A value above 16 MiB, or a 16th of the memory limit, goes straight into a file, and is
        durable when this returns.
        """
        cdef Key encoded
        cdef Value stored
        cdef uint8_t row[512]
        cdef int level = self.level_of(durability)
        self.check_writable()
        key_holder = self.write_key(key, &encoded)
        value_holder = self.write_value(value, &stored, row)
        if stored.bytes > self.engine.frame_bytes_most:
            return self._put_large(key_holder, encoded.head, value_holder)
        return counted_commit(self, JOURNAL_PUT, &encoded, &stored, level)

    def __setitem__(self, key, value):
        if PySlice_Check(key):
            raise TypeError("a slice cannot be assigned to; use put_many(keys, values)")
        self.put(key, value)

    def delete(self, key, durability=None):
        """Removes `key` whether or not it is there, and returns the commit's sequence."""
        cdef Key encoded
        cdef Value nothing
        cdef int level = self.level_of(durability)
        self.check_writable()
        _holder = self.write_key(key, &encoded)
        nothing.data = NULL
        nothing.bytes = 0
        return counted_commit(self, JOURNAL_DELETE, &encoded, &nothing, level)

    def __delitem__(self, key):
        if PySlice_Check(key):
            self._delete_slice(key)
            return
        self.exchange(key, REMOVE, True)

    def pop(self, key, *default):
        """Removes `key` and returns its value; `default`, or KeyError, when it is not there."""
        if len(default) > 1:
            raise TypeError(f"pop takes a key and one default, not {len(default)}")
        value = self.exchange(key, REMOVE, not default)
        return default[0] if value is MISSING else value

    def setdefault(self, key, default):
        """The value of `key`; where there is none, stores `default` and returns it."""
        value = self.exchange(key, default, False)
        return default if value is MISSING else value

    cdef object exchange(self, object key, object replacement, bint required):
        """With the writer lock: looks a key up, then removes it (replacement REMOVE) or stores the
        replacement where there was nothing.  Returns the old value or MISSING."""
        cdef Key encoded
        cdef Value stored
        cdef uint8_t row[512]
        cdef Engine engine = self.engine
        cdef uint64_t position = 0
        cdef uint64_t sequence = 0
        cdef JournalWriter journal
        cdef bint removes = replacement is REMOVE
        cdef bint full
        self.check_writable()
        if not removes:
            key_holder = self.write_key(key, &encoded)
            _value_holder = self.write_small(replacement, &stored, row)
        else:
            key_holder = self.lookup_key(key, &encoded)
            if key_holder is None:
                if required:
                    raise KeyError(key)
                return MISSING
            stored.data = NULL
            stored.bytes = 0
        engine.begin_commit()
        try:
            old = self.lookup(key, MISSING)
            if (old is not MISSING) == removes:
                sequence = self.commit_locked(JOURNAL_DELETE if removes else JOURNAL_PUT, &encoded,
                                              &stored, &position)
            elif removes and required:
                raise KeyError(key)
            journal = engine.journal
            full = self.core.is_full()
        finally:
            engine.end_write()
        if sequence:
            count_exchange(self, removes, &encoded)
            self.finish(sequence, position, journal, self.level, full)
        return old

    def _revise(self, key, decision):
        """With the writer lock: decision(value, or MISSING) says what takes its place.

        MISSING removes the key, KEEP leaves all as it is.  Returns what was decided.
        """
        cdef Key encoded
        cdef Value stored
        cdef uint8_t row[512]
        cdef Engine engine = self.engine
        cdef uint64_t position = 0
        cdef uint64_t sequence = 0
        cdef JournalWriter journal
        cdef bint removes
        cdef bint full
        self.check_writable()
        _key_holder = self.write_key(key, &encoded)
        stored.data = NULL
        stored.bytes = 0
        engine.begin_commit()
        try:
            old = self.lookup(key, MISSING)
            new = decision(old)
            removes = new is MISSING
            if new is not LEAVE and not (removes and old is MISSING):
                if not removes:
                    _value_holder = self.write_small(new, &stored, row)
                sequence = self.commit_locked(JOURNAL_DELETE if removes else JOURNAL_PUT, &encoded,
                                              &stored, &position)
            journal = engine.journal
            full = self.core.is_full()
        finally:
            engine.end_write()
        if sequence:
            count_exchange(self, removes, &encoded)
            self.finish(sequence, position, journal, self.level, full)
        return new

    cdef object finish(self, uint64_t sequence, uint64_t position, JournalWriter journal,
                       int level, bint full):
        """What a visible commit still waits for: room in the memtable, and its level."""
        cdef Engine engine = self.engine
        if full:
            engine.host.memtable_full(self.core)
        if level == LEVEL_SYNC and position:
            engine.wait_synced(journal, position)
            engine.durable_sequence = max(engine.durable_sequence, sequence)
        elif level == LEVEL_INTERVAL and position and not engine.sync_scheduled:
            engine.sync_scheduled = True
            try:
                engine.host.schedule_sync()
            except BaseException:       # interrupted: the next commit schedules it
                engine.sync_scheduled = False
                raise
        elif level and engine.unjournaled:
            engine.host.checkpoint()
        self.core.self_check()

    # --- batches ------------------------------------------------------------------------------

    def put_many(self, keys, values=None, durability=None, *, key=None):
        """Stores a batch in one atomic commit; the last of equal keys wins.

        keys, values: whatever numpy can read as one array each (composite keys and structured
        values: also a tuple of arrays), of equal length; or a frame (pandas, polars, Arrow) and
        key=, which names its key columns, the others being the value.  Returns Commit(sequence,
        durability, rows).  SchemaError for a wrong dtype, shape or length; nothing changes then.
        """
        cdef EncodedKeys encoded_keys
        cdef EncodedValues encoded_values
        cdef int level = self.level_of(durability)
        self.check_writable()
        if values is None:
            encoded_keys, encoded_values = self._frame_batch(keys, key)
        else:
            encoded_keys = self.keys_codec.encode_array(arrow_rows(keys))
            encoded_values = self.values_codec.encode_array(arrow_rows(values), encoded_keys.count)
        return self.commit_batch(encoded_keys, encoded_values, level)

    def delete_many(self, keys, durability=None):
        """Removes a batch of keys in one atomic commit, whether or not they are there.

        Returns Commit(sequence, durability, rows), rows being the keys given.
        """
        cdef int level = self.level_of(durability)
        self.check_writable()
        return self.commit_batch(self.keys_codec.encode_array(keys), None, level)

    cdef object commit_batch(self, EncodedKeys keys, EncodedValues values, int level):
        cdef Engine engine = self.engine
        cdef JournaledOperation operation
        cdef uint64_t sequence
        if keys.count == 0:
            return self.commit_nothing(LEVELS[level])
        operation = batch_operation(self.core, keys, values)
        if operation.bytes() > engine.frame_bytes_most and values is not None:
            return self._load_encoded(keys, values, LEVELS[level])
        sequence = self.commit_operation(operation, level)
        sweep_batch(self.core, &operation.operation.batch)
        return Commit(sequence, LEVELS[level], keys.count)

    cdef object commit_nothing(self, object durability):
        """A commit of no rows: what came before has the level, too."""
        cdef Engine engine = self.engine
        cdef int level = self.level_of(durability)
        engine.begin_write()        # what is refused with rows is refused without
        engine.end_write()
        if level >= LEVEL_INTERVAL or (level and engine.unjournaled):
            engine.host.sync()
        return Commit(engine.sequence, LEVELS[level], 0)

    cdef uint64_t commit_operation(self, JournaledOperation operation, int level) except 0:
        """Journals one operation, applies it, and finishes."""
        cdef Engine engine = self.engine
        cdef Operation *applied = &operation.operation
        cdef uint64_t position = 0
        cdef uint64_t sequence
        cdef JournalWriter journal
        cdef bint full
        engine.begin_commit()
        try:
            self.core.check_there()
            engine.append(JOURNAL_FRAME_COMMIT, operation.parts, operation.part_count, 1, &position)
            if applied.batch.count:
                self.core.apply_batch(&applied.batch)
            else:
                self.core.apply_delete_range(&applied.lower, &applied.upper, applied.unbounded)
            count_operation(engine, applied)
            engine.sequence += 1
            sequence = engine.sequence
            journal = engine.journal
            full = self.core.is_full()
        finally:
            engine.end_write()
        self.finish(sequence, position, journal, level, full)
        return sequence

    def _delete_encoded(self, lower, upper, durability=None):
        """delete_range over encoded bounds: [lower, upper), upper None = no upper end."""
        cdef JournaledOperation operation = range_operation(self.core, lower, upper)
        cdef int level = self.level_of(durability)
        self.check_writable()
        return Commit(self.commit_operation(operation, level), LEVELS[level], 1)
