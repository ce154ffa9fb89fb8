# The compiled face of a table: writes, and lookups in the live memtable.
#
# cesium.store subclasses CompiledTable; everything that a program calls in a loop is a method here,
# with the key and value codecs called without Python in between.  Any method may be called from any
# thread; closing while others read is safe.

from libc.stdint cimport uint8_t, uint64_t

from cesium._counters cimport (
    BATCH_DELETES, BATCH_PUTS, PUT_LATENCY, RANGE_DELETES, Ticker, clock_nanoseconds, count_more,
    histogram_record, ticker_tick, ticker_weight,
)
from cesium._engine cimport Batch, Engine, Operation, TableCore, key_of_row
from cesium._frames cimport JOURNAL_PUT
from cesium._journal cimport JournalWriter
from cesium._keys cimport EncodedKeys
from cesium._layout cimport KIND_DELETE
from cesium._operations cimport JournaledOperation
from cesium._page cimport Key, Value
from cesium._ranges cimport sweep_around
from cesium._reads cimport TableReads
from cesium._values cimport EncodedValues

cdef class CompiledTable(TableReads):
    cdef readonly bint read_only        # this handle's own flag; the engine may be open for writing
    cdef int level                      # durability: index into LEVELS

    cdef int check_writable(self) except -1
    cdef int level_of(self, object durability) except -1
    cdef object write_key(self, object key, Key *out)
    cdef uint64_t commit_one(self, uint8_t kind, Key *key, Value *value, int level) except 0
    cdef uint64_t commit_locked(self, uint8_t kind, Key *key, Value *value,
                                uint64_t *position) except 0
    cdef object write_value(self, object value, Value *out, uint8_t *row)
    cdef object write_small(self, object value, Value *out, uint8_t *row)
    cdef object exchange(self, object key, object replacement, bint required)
    cdef object finish(self, uint64_t sequence, uint64_t position, JournalWriter journal,
                       int level, bint full)
    cdef object commit_nothing(self, object durability)
    cdef object commit_batch(self, EncodedKeys keys, EncodedValues values, int level)
    cdef uint64_t commit_operation(self, JournaledOperation operation, int level) except 0

cdef enum:
    SWEEP_DELETES = 1024        # that may leave a gap worth a look

# `commit_one` of one call, counted; now and then the call is timed.
cdef inline uint64_t counted_commit(CompiledTable table, uint8_t kind, Key *key, Value *value,
                                    int level) except 0:
    cdef bint puts = kind == JOURNAL_PUT
    cdef Ticker *ticker = &table.engine.counters.puts if puts else &table.engine.counters.deletes
    cdef uint64_t start
    cdef uint64_t sequence
    if not ticker_tick(ticker):
        sequence = table.commit_one(kind, key, value, level)
    else:
        start = clock_nanoseconds()
        sequence = table.commit_one(kind, key, value, level)
        histogram_record(&table.engine.counters.latencies[PUT_LATENCY],
                         clock_nanoseconds() - start, ticker_weight(ticker))
    if not puts and ticker.count % SWEEP_DELETES == 0:
        sweep_around(table.core, key)
    return sequence

# The same for what `exchange` did.
cdef inline int count_exchange(CompiledTable table, bint removes, const Key *key) except -1:
    cdef Ticker *ticker = &table.engine.counters.deletes if removes else &table.engine.counters.puts
    ticker_tick(ticker)
    if removes and ticker.count % SWEEP_DELETES == 0:
        sweep_around(table.core, key)
    return 0

# A batch, or (of no rows) a range-delete, was applied.
cdef inline void count_operation(Engine engine, const Operation *applied) noexcept:
    cdef const Batch *batch = &applied.batch
    if batch.count == 0:
        count_more(&engine.counters.totals[RANGE_DELETES], 1)
    else:
        count_more(&engine.counters.totals[
            BATCH_DELETES if batch.kind == KIND_DELETE else BATCH_PUTS], batch.count)

cdef inline int sweep_batch(TableCore core, const Batch *batch) except -1:
    cdef Key key
    if batch.kind == KIND_DELETE and batch.count >= SWEEP_DELETES:
        key_of_row(batch.heads, batch.key_offsets, batch.key_data, 0, &key)
        sweep_around(core, &key)
    return 0
