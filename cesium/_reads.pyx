"""Reads of a table: see _reads.pxd for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.slice cimport PySlice_Check
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from cesium._counters cimport BATCH_GETS, count_filters, count_more
from cesium._engine cimport TableCore, engine_is_shut
from cesium._faults cimport fault_counter, faults_seen
from cesium._keys cimport KEY_INSIDE, EncodedKeys, KeyCodec
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, STATUS_FULL, STATUS_OK, VALUE_INLINE_BYTES,
)
from cesium._lookup cimport find_batch
from cesium._page cimport (
    Key, kind_of, page_copy_row, page_copy_value, page_value_bytes, page_value_inline,
)
from cesium._range_arrays cimport range_arrays
from cesium._ranges cimport EncodedRange, RangeReader, View, key_from
from cesium._row_iterator cimport RowIterator
from cesium._values cimport EncodedValues, ValueCodec
from cesium._version cimport Found, Version, found_whole, version_find
from types import GenericAlias

from cesium.errors import ClosedError


class Missing:
    """The one object that stands for a value that is not there."""

    __slots__ = ()

    def __repr__(self):
        return "cesium.MISSING"

    def __reduce__(self):
        return "MISSING"


MISSING = Missing()

cdef object NOTHING = MISSING       # quicker to read than a module's attribute
cdef const uint64_t *FAULTS = fault_counter()


cdef class TableReads:
    """TableReads(core, keys, values): see the module's contract; subclasses may take more."""

    def __cinit__(self, TableCore core, KeyCodec keys, ValueCodec values, *_more):
        self.engine = core.engine
        self.core = core
        self.keys_codec = keys
        self.values_codec = values
        self.shape = &core.shape.shape
        self.name = "store"

    # What type checkers read: Store[int, float].  The running program makes nothing of it.
    @classmethod
    def __class_getitem__(cls, parameters):
        return GenericAlias(cls, parameters)

    cdef int check_readable(self) except -1:
        if self.handle_closed:
            raise ClosedError(f"the {self.name} is closed")
        if engine_is_shut(self.engine):
            self.engine.check_open()
        if self.core.dropped and self.moment is None:
            self.core.check_there()
        return 0

    def _close_handle(self):
        """Closes this handle; False when it was closed before."""
        if self.handle_closed:
            return False
        self.handle_closed = True
        self.moment = None
        return True

    @property
    def closed(self):
        """Whether this handle was closed, or its table dropped."""
        return (self.handle_closed or self.engine.closed
                or (self.core.dropped and self.moment is None))

    def _check_open(self):
        """ClosedError once the handle, or the store, is closed, and in a forked child."""
        self.check_readable()

    def _fix(self, View moment=None):
        """Pins the table as it is now, or was then: what is read from now on is read there."""
        self.moment = View(self.core) if moment is None else moment
        self.name = "snapshot"

    cdef View pinned(self):
        cdef View moment = self.moment
        self.check_readable()
        return View(self.core) if moment is None else moment

    def _view(self):
        """What there is to read: the moment that was fixed, or the table as it is now."""
        return self.pinned()

    def _note_range(self, lower, upper, bint reverse, limit, bint values):
        """A range will be read; transactions look at it again when they commit."""

    cdef object lookup_key(self, object key, Key *out):
        """Encodes a key to look up; None when no stored key can equal it.

        What is returned keeps its bytes alive.
        """
        cdef bytes encoded
        out.data = NULL
        out.bytes = 0
        if self.shape.key_width:
            return True if self.keys_codec.encode_head(key, &out.head) == KEY_INSIDE else None
        encoded = self.keys_codec.encode_lookup(key)
        if encoded is None:
            return None
        key_from(encoded, False, out)
        return encoded

    # --- single reads -------------------------------------------------------------------------

    cdef object lookup(self, object key, object missing):
        """The value of a key, or `missing`."""
        cdef Key encoded
        self.check_readable()
        _holder = self.lookup_key(key, &encoded)
        return missing if _holder is None else self.lookup_pinned(&encoded, missing)

    cdef object lookup_pinned(self, const Key *encoded, object missing):
        """A lookup in a view: of a fixed moment, or of a value too long to copy under the lock."""
        cdef View view = self.pinned()
        cdef Found found
        cdef uint64_t seen = faults_seen(FAULTS)
        cdef int status
        # Warm pages are searched under the GIL: giving it up costs more than the search.
        status = version_find(self.shape, view.items, view.count, encoded, True, &found)
        if status == STATUS_FULL:
            with nogil:
                status = version_find(self.shape, view.items, view.count, encoded, False, &found)
        return self.value_of(status, &found, missing, view.version, seen)

    cdef object value_of(self, int status, Found *found, object missing, Version version,
                         uint64_t seen):
        """What was found, decoded; nothing is decoded but a copy that was whole."""
        cdef const uint8_t *page = found.position.page
        cdef uint32_t slot = found.position.slot
        cdef uint8_t row[VALUE_INLINE_BYTES]
        cdef uint64_t size = 0
        cdef bytes data
        cdef uint8_t *destination = row
        cdef bint deleted
        count_filters(self.engine.counters, &found.filters)
        if status != STATUS_OK:
            version.check(status, seen)
            return missing
        deleted = (kind_of(page, slot) & KIND_MASK) == KIND_DELETE
        if deleted:
            pass
        elif self.shape.value_width:
            page_copy_row(self.shape, page, slot, row)
        else:
            size = page_value_bytes(page, slot)
            if size <= VALUE_INLINE_BYTES and page_value_inline(page, slot) != NULL:
                status = page_copy_value(page, slot, found.source, 0, row, size)
            else:
                data = PyBytes_FromStringAndSize(NULL, size)
                destination = <uint8_t *>PyBytes_AS_STRING(data)
                with nogil:
                    status = page_copy_value(page, slot, found.source, 0, destination, size)
        if status == STATUS_OK:
            status = found_whole(found)
        if status != STATUS_OK or faults_seen(FAULTS) != seen:      # else a call of 25 instructions
            version.check(status, seen)
        if deleted:
            return missing
        if self.shape.value_width:
            return self.values_codec.decode_row(row)
        return self.values_codec.decode(destination, size)

    def __getitem__(self, key):
        if PySlice_Check(key):
            return self._slice(key)
        value = counted_lookup(self, key, NOTHING)
        self.core.self_check()
        if value is NOTHING:
            raise KeyError(key)
        return value

    def get(self, key, default=None):
        """The value of `key`, or `default`.  SchemaError when the key's type does not belong."""
        value = counted_lookup(self, key, default)
        self.core.self_check()
        return value

    def __contains__(self, key):
        value = counted_lookup(self, key, NOTHING)
        self.core.self_check()
        return value is not NOTHING

    # --- batches ------------------------------------------------------------------------------

    def get_many(self, keys, default=None, threads=None):
        """(values, found) for a batch of keys, in their order.

        values: an array (fixed values), a Column (bytes and str) or a list; misses hold `default`,
        or zero.  found: bool[len(keys)].  threads: how many may search at once (None: one).
        """
        cdef EncodedKeys encoded
        cdef EncodedValues answer = EncodedValues.__new__(EncodedValues)
        self.check_readable()
        encoded = self.keys_codec.encode_array(keys, lookup=True)
        miss = b"" if default is None else self.values_codec.encode_value(default)
        found = np.zeros(encoded.count, np.uint8)
        count_more(&self.engine.counters.totals[BATCH_GETS], encoded.count)
        answer.count = encoded.count
        if self.shape.value_width and default is None:
            answer.rows = np.zeros((encoded.count, self.shape.value_width), np.uint8)
        elif self.shape.value_width:
            answer.rows = np.empty((encoded.count, self.shape.value_width), np.uint8)
            answer.rows[:] = np.frombuffer(miss, np.uint8)
        find_batch(self.pinned(), encoded, answer, found, miss, threads)
        self.core.self_check()
        found = found.view(np.bool_)
        return self.values_codec.decode_array(answer, found if default is None else None), found

    def contains_many(self, keys, threads=None):
        """bool[len(keys)]: which of the keys are there."""
        cdef EncodedKeys encoded
        self.check_readable()
        encoded = self.keys_codec.encode_array(keys, lookup=True)
        found = np.zeros(encoded.count, np.uint8)
        count_more(&self.engine.counters.totals[BATCH_GETS], encoded.count)
        find_batch(self.pinned(), encoded, None, found, b"", threads)
        self.core.self_check()
        return found.view(np.bool_)

    # --- order --------------------------------------------------------------------------------

    @property
    def _lowest(self):
        return 0 if self.shape.key_width else b""

    def _encoded_bounds(self, lo, hi, inclusive):
        """The encoded bounds [lower, upper) between two keys; upper None: no upper end; lower None:
        nothing can follow."""
        if not isinstance(inclusive, (tuple, list)) or len(inclusive) != 2:
            raise TypeError(
                "inclusive is a pair, whether lo and whether hi belong, such as (True, False), "
                f"not {inclusive!r}"
            )
        with_lower, with_upper = inclusive
        return (
            self._lowest if lo is None else self.keys_codec.cut(lo, not with_lower),
            None if hi is None else self.keys_codec.cut(hi, with_upper),
        )

    def _nearest(self, lower, upper, bint reverse):
        """The first pair of an encoded range in one direction, or None."""
        self.check_readable()
        if lower is None:
            return None
        for pair in self._rows(lower, upper, reverse, 1, 0):
            return pair
        return None

    def _rows(self, lower, upper, bint reverse, limit, int yields):
        """A RowIterator over an encoded range: pairs (0), keys (1) or values (2)."""
        self.check_readable()
        self.core.self_check()
        return RowIterator(
            RangeReader(self.pinned(), EncodedRange(self.core, lower, upper), reverse, limit),
            self.keys_codec, self.values_codec, yields)

    def _arrays(self, lower, upper, bint reverse, limit, int yields, int threads):
        """The rows of an encoded range as arrays: (keys, values) (0), keys (1) or values (2)."""
        return range_arrays(self.pinned(), EncodedRange(self.core, lower, upper), reverse, limit,
                            self.keys_codec, self.values_codec, yields, threads)

    def __iter__(self):
        return self._rows(0 if self.shape.key_width else b"", None, False, None, 1)

    def __reversed__(self):
        return self._rows(0 if self.shape.key_width else b"", None, True, None, 1)

    def __len__(self):
        cdef View view = self.pinned()
        # Of the very moment of the view; a live memtable is replaced only with the version.
        state = (view.version.number, view.changes)
        counted = self.counted
        if counted is None or counted[0] != state:
            counted = (state, view.row_count())
            self.counted = counted
        self.core.self_check()
        return counted[1]

    def __bool__(self):
        return self._nearest(0 if self.shape.key_width else b"", None, False) is not None

    def __hash__(self):
        return id(self) >> 4

    def __eq__(self, other):
        return self is other
