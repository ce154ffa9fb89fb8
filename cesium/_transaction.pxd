# A transaction's own writes, over the table as it was when the transaction began.
#
# Writes go into drafts: memtables that nobody else sees, the newest on top.  Reads see them over a
# pinned view.  A savepoint is a fresh draft on top; what was written since is dropped with it.  The
# commit turns the drafts into the operations of one journal frame.
#
# What was read is noted, encoded, so that an optimistic commit can read it again, as it was and as
# it is.  Values are not kept: both are still there.
#
# Thread safety: drafts are changed and pinned under the GIL, with no lock of their own.

from libc.stdint cimport uint64_t

from cesium._core cimport CompiledTable
from cesium._page cimport Key, Value
from cesium._ranges cimport View
from cesium._reads cimport TableReads

cdef class DraftReads(TableReads):
    cdef CompiledTable table
    cdef View base              # None before the transaction begins, and once it has ended
    cdef View merged            # drafts over base, until the next write
    cdef list drafts            # Memtable, the oldest first
    cdef bint tracks            # whether to note what is read
    cdef set points             # heads or encoded keys
    cdef list batches           # (EncodedKeys, whether values count)
    cdef set spans              # (lower, upper, reverse, limit, whether values count)
    cdef uint64_t changes       # of the drafts

    cdef int check_writable(self) except -1
    cdef object top(self)
    cdef int write(self, Key *key, Value *value) except -1
