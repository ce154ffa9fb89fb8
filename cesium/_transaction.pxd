# A transaction: its life, which is one over all tables, and its face, a table inside of it.
#
# What it does to a table is in Drafts (_drafts.pxd), which the life owns; faces refer to both, and
# neither refers to a face, so one that nobody has any more gives back the turn at once.

from libc.stdint cimport uint64_t

from cesium._core cimport CompiledTable
from cesium._drafts cimport Drafts
from cesium._engine cimport Engine
from cesium._page cimport Key, Value
from cesium._reads cimport TableReads
from cesium._turn cimport Turn

cdef enum:
    NEW, OPEN, COMMITTING, ENDED    # what a transaction is

cdef class TransactionLife:
    cdef CompiledTable table    # through which it was begun
    cdef Engine engine
    cdef Turn turn
    cdef object durability
    cdef readonly bint optimistic
    cdef int state
    cdef readonly uint64_t sequence     # of the last commit that it sees
    cdef readonly object committed      # the Commit, once there is one
    cdef dict parts             # Drafts by table id: of the tables that were asked for
    cdef dict views             # by table id, of an optimistic one: as of its beginning

    # Begins it; cores: a function that gives the TableCores of all tables.
    cdef int begin(self, object cores) except -1
    # Ends it, whatever it is: lets go of everything that was read and written.
    cdef void leave(self) noexcept
    cdef Drafts part_of(self, CompiledTable table)
    cdef int check_open(self) except -1
    # Of all tables; who calls them has looked whether it may be written.
    cdef dict mark(self)
    cdef int check_marks(self, dict marks) except -1
    cdef int cut(self, dict marks) except -1
    cdef int join(self, dict marks) except -1
    cdef object commit(self)
    cdef object commit_drafts(self)
    cdef bint unchanged(self) except -1
    cdef uint64_t look_again(self) except? 0
    cdef object finish(self, uint64_t sequence, object pending)

cdef class DraftReads(TableReads):
    cdef CompiledTable table
    cdef readonly TransactionLife life
    cdef object cores           # gives the TableCores of all tables; of the whole one
    cdef Drafts part            # None before the transaction begins, and once it has ended

    # What it did to the table; ClosedError unless the transaction is open.
    cdef Drafts opened(self)
    cdef int check_writable(self) except -1
    cdef object look_up(self, object key, object missing, bint values)
    cdef int write(self, Key *key, Value *value) except -1

cdef class WholeDraft(DraftReads):
    pass
