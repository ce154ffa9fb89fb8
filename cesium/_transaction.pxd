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
from cesium._keys cimport EncodedKeys
from cesium._memtable cimport Memtable
from cesium._page cimport Key, Value
from cesium._ranges cimport View
from cesium._reads cimport TableReads
from cesium._turn cimport Turn

cdef enum:
    NEW, OPEN, COMMITTING, ENDED    # what a transaction is

cdef class DraftReads(TableReads):
    cdef CompiledTable table
    cdef Turn turn
    cdef object durability
    cdef readonly bint optimistic
    cdef int state
    cdef readonly uint64_t sequence     # of the last commit that it sees
    cdef readonly object committed      # the Commit, once there is one
    cdef View base              # None before the transaction begins, and once it has ended
    cdef View merged            # drafts over base, until the next write
    cdef list drafts            # Memtable, the oldest first
    cdef dict points            # head or encoded key: whether the value counts, or presence alone
    cdef list batches           # (EncodedKeys, whether values count)
    cdef set spans              # (lower, upper, whether values count)
    cdef uint64_t changes       # of the drafts

    cdef int check_writable(self) except -1
    cdef bint writes_nothing(self) noexcept
    cdef Py_ssize_t place_above(self, object below) except -1
    cdef bint same_of_keys(self, View base, View now, EncodedKeys keys, bint values) except -1
    cdef bint same_of_range(self, View base, View now, object lower, object upper,
                            bint values) except -1
    cdef object commit_drafts(self)
    cdef uint64_t look_again(self) except? 0
    cdef object finish(self, uint64_t sequence, object pending)
    cdef list operations_of(self, list drafts)
    cdef EncodedKeys deleted_of(self, View view)
    cdef Memtable top(self)
    cdef void leave(self) noexcept
    cdef object look_up(self, object key, object missing, bint values)
    cdef int write(self, Key *key, Value *value) except -1
