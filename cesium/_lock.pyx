"""The descriptor of a writer's lock, which no forked child keeps.

An flock belongs to the open file, which a forked child shares: a lock would live on in a child that
outlives its parent.  So every LockFile of the process is in a list, and the child's handler of
pthread_atfork closes what is in it, without unlocking, before fork() returns there.  C code that
forks runs the handler too; os.fork's hooks, which it does not run, are not needed.  A program that
is executed (subprocess, posix_spawn, vfork) gets no such descriptor: O_CLOEXEC.  Only a raw clone
system call, which runs no handler, keeps one.

Locks: `list_mutex` guards the list and every descriptor in it.  It is held from before a descriptor
is opened until it is listed, and from before it is closed until it is not, and by whoever forks: a
child sees each lock wholly or not at all, and never closes a number that was given to another file.
It is taken without the GIL, and nothing else is taken while it is held.

Thread safety: a LockFile is used by one thread at a time.
"""

from libc.errno cimport EAGAIN

import os

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <sys/file.h>
    #include <unistd.h>

    typedef struct LockNode {
        struct LockNode *next;
        struct LockNode *previous;      /* NULL for the first */
        int fd;                         /* -1: not listed */
        int taken;
    } LockNode;

    static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
    static LockNode *first_lock = NULL;

    static void before_fork(void) { pthread_mutex_lock(&list_mutex); }
    static void after_fork_in_parent(void) { pthread_mutex_unlock(&list_mutex); }

    /* The node's memory is the child's own copy, so its LockFile knows that it holds nothing. */
    static void after_fork_in_child(void) {
        LockNode *node = first_lock;
        while (node != NULL) {
            LockNode *next = node->next;
            close(node->fd);
            node->fd = -1;
            node->taken = 0;
            node->next = node->previous = NULL;
            node = next;
        }
        first_lock = NULL;
        pthread_mutex_unlock(&list_mutex);
    }

    __attribute__((constructor)) static void watch_forks(void) {
        (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    }

    /* Opens, or creates, the file; 0 or an errno. */
    static int lock_open(LockNode *node, const char *path) {
        int error = 0;
        pthread_mutex_lock(&list_mutex);
        node->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (node->fd < 0) {
            error = errno;
        } else {
            node->next = first_lock;
            if (first_lock != NULL) first_lock->previous = node;
            first_lock = node;
        }
        pthread_mutex_unlock(&list_mutex);
        return error;
    }

    static int lock_take(LockNode *node) {
        int error = 0;
        pthread_mutex_lock(&list_mutex);
        if (flock(node->fd, LOCK_EX | LOCK_NB) != 0) error = errno;
        else node->taken = 1;
        pthread_mutex_unlock(&list_mutex);
        return error;
    }

    static void lock_close(LockNode *node) {
        pthread_mutex_lock(&list_mutex);
        if (node->fd >= 0) {
            /* Not left to close: a process made by a raw clone may have the open file too. */
            if (node->taken) (void)flock(node->fd, LOCK_UN);
            close(node->fd);
            node->fd = -1;
            node->taken = 0;
            if (node->next != NULL) node->next->previous = node->previous;
            if (node->previous != NULL) node->previous->next = node->next;
            else first_lock = node->next;
            node->next = node->previous = NULL;
        }
        pthread_mutex_unlock(&list_mutex);
    }
    """
    ctypedef struct LockNode:
        int fd
    int lock_open(LockNode *node, const char *path) nogil
    int lock_take(LockNode *node) nogil
    void lock_close(LockNode *node) noexcept nogil


cdef class LockFile:
    """LockFile(path): the file, opened or created; nothing is locked before `take`."""

    cdef LockNode node

    def __cinit__(self, path):
        cdef bytes name = os.fsencode(path)
        cdef const char *text = name
        cdef int error
        self.node.fd = -1
        with nogil:
            error = lock_open(&self.node, text)
        if error:
            raise OSError(error, os.strerror(error), os.fspath(path))

    def __dealloc__(self):
        with nogil:
            lock_close(&self.node)

    @property
    def fd(self):
        """The descriptor; -1 when it is closed, as in a forked child."""
        return self.node.fd

    def take(self):
        """Lock the file; False when another open file has the lock.  Any other failure: OSError."""
        cdef int error
        with nogil:
            error = lock_take(&self.node)
        if error == EAGAIN:
            return False
        if error:
            raise OSError(error, os.strerror(error))
        return True

    def close(self):
        """Unlock and close; once is enough, and in a forked child it does nothing."""
        with nogil:
            lock_close(&self.node)
