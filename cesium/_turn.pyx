"""The turn of a store's commits: see _turn.pxd for the contract."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from cesium._engine cimport Engine
from cesium.errors import Error

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *condition, void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                               const timespec *until)
    uint64_t pthread_self()

cdef enum:
    LOOK_NANOSECONDS = 20000000     # so often who waits looks for signals


cdef class Turn:
    """The turn of one store's commits; a transaction takes it, and all other commits wait."""

    def __cinit__(self):
        if pthread_mutex_init(&self.mutex, NULL) or pthread_cond_init(&self.freed, NULL):
            raise MemoryError

    def __dealloc__(self):
        pthread_cond_destroy(&self.freed)
        pthread_mutex_destroy(&self.mutex)

    cdef int wait_while_taken(self) except -1:
        cdef timespec until
        while self.holder != NULL:
            if self.owner == pthread_self():
                raise Error("this thread has a transaction open on the store, for which all other "
                            "writes wait: write through the transaction, or end it first")
            with nogil:
                clock_gettime(CLOCK_REALTIME, &until)
                until.tv_nsec += LOOK_NANOSECONDS
                if until.tv_nsec >= 1000000000:
                    until.tv_sec += 1
                    until.tv_nsec -= 1000000000
                pthread_mutex_lock(&self.mutex)
                if self.holder != NULL:
                    pthread_cond_timedwait(&self.freed, &self.mutex, &until)
                pthread_mutex_unlock(&self.mutex)
            PyErr_CheckSignals()
        return 0

    cdef int take(self, Engine engine, object holder) except -1:
        self.wait_while_taken()
        pthread_mutex_lock(&self.mutex)     # those who wait read it without the GIL
        self.holder = <void *>holder        # no Python since it was seen to be free
        pthread_mutex_unlock(&self.mutex)
        self.owner = pthread_self()
        try:
            engine.begin_write()
        except BaseException:
            self.give_back(engine, holder)
            raise
        engine.reserved = True
        engine.end_write()
        return 0

    cdef void give_back(self, Engine engine, object holder) noexcept:
        if self.holder != <void *>holder:
            return
        engine.reserved = False
        pthread_mutex_lock(&self.mutex)
        self.owner = 0
        self.holder = NULL
        pthread_cond_broadcast(&self.freed)
        pthread_mutex_unlock(&self.mutex)

    def wait(self):
        """Waits until nobody has the turn; Error for the thread that has it."""
        self.wait_while_taken()
