# Whose turn it is to commit: while a transaction is open that is not optimistic, only its own.
#
# It is taken and given back without a moment in between at which Python could run: an interrupt
# leaves it with its holder or with nobody.  `holder` changes under the GIL and the mutex.

from libc.stdint cimport uint64_t

from cesium._engine cimport Engine

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef class Turn:
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t freed
    cdef void *holder           # the transaction that has it, not a reference; NULL: nobody
    cdef uint64_t owner         # the thread that took it

    # Waits for the turn, then for the commit that is under way; from then on other commits wait.
    # Error for the thread that has it already, ClosedError and others as for a write.
    cdef int take(self, Engine engine, object holder) except -1
    # Lets others commit again, if the holder has the turn.
    cdef void give_back(self, Engine engine, object holder) noexcept
    cdef int wait_while_taken(self) except -1
