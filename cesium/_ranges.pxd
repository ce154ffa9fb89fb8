# A view: one table as of one commit, pinned for a read of more than one page; and the ordered reads
# over it.
#
# A View pins a snapshot of the live memtable and the version, for as long as it lives.  A
# RangeReader is one pass over a range in one direction: count, arrays or batches.  A
# View may be shared by threads; a RangeReader belongs to one thread at a time.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cesium._cursor cimport Bounds, Cursor, Run
from cesium._engine cimport TableCore
from cesium._keys cimport KeyCodec
from cesium._memtable cimport MemtableSnapshot
from cesium._page cimport Key, Shape
from cesium._rows cimport Rows
from cesium._values cimport ValueCodec
from cesium._version cimport Version, VersionSource

cdef enum:
    LONG_SCAN_PAGES = 4096              # 16 MiB: from here on a scan asks what it may leave in
    LONG_SCAN_ROWS = 250 * 4096         # memory; but for the shortest values no page has more rows

cdef class View:
    cdef readonly TableCore core
    cdef MemtableSnapshot live          # None when the live memtable was empty
    cdef readonly Version version
    cdef VersionSource *items           # the live memtable first, then the version's sources
    cdef uint32_t count
    cdef uint64_t changes               # of the live memtable when it was pinned
    cdef list drafts                    # of a transaction: MemtableSnapshot, newest first; or None
    cdef const Shape *shape

    cdef int pin_now(self, TableCore core) except -1
    cdef int lay_over(self, TableCore core, View below, list above) except -1
    cdef int check(self, int status, uint64_t seen) except -1       # as Version.check
    cdef int sweep_behind(self, Cursor *cursor) except -1
    cdef int rank_bounds(self, EncodedRange interval, uint64_t *most, bint *exact) except -1

cdef class EncodedRange:                # [lower, upper): heads or bytes; upper None = unbounded
    cdef readonly object lower
    cdef readonly object upper
    cdef Bounds bounds

cdef class RangeReader:
    cdef readonly View view
    cdef EncodedRange interval
    cdef Cursor *cursor
    cdef Run pending
    cdef uint64_t left                  # rows that the limit still allows
    cdef uint64_t seen                  # faults_seen() before the first read: pages stay in hand
    cdef uint64_t rows_exact            # rows of the whole range where fences tell, else 2^64 - 1
    cdef uint64_t rows_most             # rows to come at most, once `ranked`
    cdef bint ranked
    cdef uint64_t keep_pages            # that the scan may leave in memory; 2^64 - 1: all, so far
    cdef readonly bint exhausted

    cdef uint64_t room(self, object most) except? 0xFFFFFFFFFFFFFFFF
    cdef uint64_t fill(self, Rows *rows, uint64_t most) except? 0xFFFFFFFFFFFFFFFF
    cdef object wrap(self, Rows *rows, KeyCodec keys, ValueCodec values, object head_array,
                     object row_array, bint want_keys, bint want_values)
    cdef bint fill_in_threads(self, Rows *rows, uint64_t capacity, int threads) except -1
    cdef int plan_scan(self, bint eager, bint long_scan) except -1

# After deletes: leaves one marker over the gap around one of their keys, as a read of it would,
# where the store is likely to be in memory.  Failures are left for reads to tell.
cdef int sweep_around(TableCore core, const Key *key) except -1

cdef int key_from(object encoded, bint fixed, Key *key) except -1

# A malloc'ed block as an array that frees it in the end.
cdef object own(void *data, uint64_t bytes, object dtype)
