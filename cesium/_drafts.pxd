# A transaction's own writes to one table, over the table as it was when the transaction began.
#
# Writes go into drafts: memtables that nobody else sees, the newest on top.  Reads see them over a
# pinned view.  A savepoint is a fresh draft on top; what was written since is dropped with it.  The
# commit turns the drafts into operations of one journal frame.
#
# What was read is noted, encoded, so that an optimistic commit can read it again, as it was and as
# it is.  Values are not kept: both are still there.
#
# Thread safety: drafts are changed and pinned under the GIL, with no lock of their own.

from libc.stdint cimport uint64_t

from cesium._core cimport CompiledTable
from cesium._engine cimport TableCore
from cesium._keys cimport EncodedKeys
from cesium._memtable cimport Memtable
from cesium._ranges cimport View

cdef bint is_empty(Memtable draft) noexcept

cdef class Drafts:
    cdef CompiledTable table
    cdef TableCore core
    cdef View base
    cdef View merged            # drafts over base, until the next write
    cdef list drafts            # Memtable, the oldest first
    cdef dict points            # head or encoded key: whether the value counts, or presence alone
    cdef list batches           # (EncodedKeys, whether values count)
    cdef set spans              # (lower, upper, whether values count)
    cdef uint64_t changes       # of the drafts

    # Lets go of everything that was read and written, whoever still has this.
    cdef void release(self) noexcept
    cdef bint writes_nothing(self) noexcept
    # The draft that is written to.
    cdef Memtable top(self)
    # What was written so far lies in drafts below; gives the last of them (None: nothing).
    cdef object mark(self)
    # Drops what was written above a draft that `mark` gave, or all; Error when it is gone itself.
    cdef int cut(self, object below) except -1
    # Writes what lies above it into that draft, if there is one: many savepoints, one after
    # another, leave no more drafts than one.
    cdef int join(self, object below) except -1
    cdef Py_ssize_t place_above(self, object below) except -1
    # Whether all that was read would be read again in a view of now.
    cdef bint unchanged(self, View now) except -1
    cdef bint same_of_keys(self, View base, View now, EncodedKeys keys, bint values) except -1
    cdef bint same_of_range(self, View base, View now, object lower, object upper,
                            bint values) except -1
    # What was written, the oldest first: a list of JournaledOperation.
    cdef list operations(self)
    cdef list operations_of(self, list drafts)
    cdef EncodedKeys deleted_of(self, View view)
