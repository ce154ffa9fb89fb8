# The compiled face of a table: single operations and batches.
#
# cesium.store subclasses CompiledTable; everything that a program calls in a loop is a method here,
# with the key and value codecs called without Python in between.  Any method may be called from any
# thread; closing while others read is safe.

from libc.stdint cimport uint8_t, uint64_t

from cesium._engine cimport Batch, Engine, TableCore
from cesium._journal cimport JournalPart, JournalWriter
from cesium._keys cimport EncodedKeys, KeyCodec
from cesium._page cimport Key, Shape, Value
from cesium._values cimport EncodedValues, ValueCodec
from cesium._version cimport Found, Version

cdef class CompiledTable:
    cdef readonly Engine engine
    cdef readonly TableCore core
    cdef readonly KeyCodec keys_codec
    cdef readonly ValueCodec values_codec
    cdef readonly bint read_only        # this handle's own flag; the engine may be open for writing
    cdef bint handle_closed
    cdef int level                      # durability: index into LEVELS
    cdef const Shape *shape
    cdef object counted                 # ((version, changes), rows) of the last len()

    cdef int check_readable(self) except -1
    cdef int check_writable(self) except -1
    cdef int level_of(self, object durability) except -1
    cdef object write_key(self, object key, Key *out)
    cdef object lookup_key(self, object key, Key *out)
    cdef object lookup(self, object key, object missing)
    cdef object lookup_pinned(self, const Key *encoded, object missing)
    cdef object value_of(self, int status, Found *found, object missing, Version version,
                         uint64_t seen)
    cdef uint64_t commit_one(self, uint8_t kind, Key *key, Value *value, int level) except 0
    cdef uint64_t commit_locked(self, uint8_t kind, Key *key, Value *value,
                                uint64_t *position) except 0
    cdef object write_value(self, object value, Value *out, uint8_t *row)
    cdef object exchange(self, object key, object replacement, bint required)
    cdef object finish(self, uint64_t sequence, uint64_t position, JournalWriter journal,
                       int level, bint full)
    cdef object commit_batch(self, EncodedKeys keys, EncodedValues values, int level)
    cdef uint64_t commit_frame(self, const JournalPart *parts, int part_count, const Batch *batch,
                               const Key *lower, const Key *upper, bint unbounded,
                               int level) except 0

# Points a Batch at encoded arrays; the list returned keeps them alive.
cdef list fill_batch(const Shape *shape, EncodedKeys keys, EncodedValues values, Batch *batch)
