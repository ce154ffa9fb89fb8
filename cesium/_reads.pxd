# Reads of a table, as it is now or as it was at one moment.
#
# TableReads is the base of a table that may be written to (cesium._core) and, once its moment is
# fixed, a snapshot.  Every read but a single lookup takes a view: of the fixed moment, or of now.
# Any method may be called from any thread; closing while others read is safe.

from libc.stdint cimport uint64_t

from cesium._counters cimport (
    GET_LATENCY, clock_nanoseconds, histogram_record, ticker_tick, ticker_weight,
)
from cesium._engine cimport Engine, TableCore
from cesium._keys cimport KeyCodec
from cesium._page cimport Key, Shape
from cesium._ranges cimport View
from cesium._values cimport ValueCodec
from cesium._version cimport Found, Version

cdef class TableReads:
    cdef readonly Engine engine
    cdef readonly TableCore core
    cdef readonly KeyCodec keys_codec
    cdef readonly ValueCodec values_codec
    cdef bint handle_closed
    cdef const Shape *shape
    cdef object counted                 # ((version, changes), rows) of the last len()
    cdef View moment                    # None: what is read is as of now
    cdef str name                       # what an error calls this

    cdef int check_readable(self) except -1
    cdef View pinned(self)
    cdef object lookup_key(self, object key, Key *out)
    cdef object lookup(self, object key, object missing)
    cdef object lookup_pinned(self, const Key *encoded, object missing)
    cdef object value_of(self, int status, Found *found, object missing, Version version,
                         uint64_t seen)

# `lookup`, counted; now and then the call is timed.
cdef inline object counted_lookup(TableReads table, object key, object missing):
    cdef uint64_t start
    if not ticker_tick(&table.engine.counters.gets):
        return table.lookup(key, missing)
    start = clock_nanoseconds()
    value = table.lookup(key, missing)
    histogram_record(&table.engine.counters.latencies[GET_LATENCY], clock_nanoseconds() - start,
                     ticker_weight(&table.engine.counters.gets))
    return value
