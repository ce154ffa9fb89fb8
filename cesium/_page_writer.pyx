"""Pages on their way into a new file: see _page_writer.pxd for the contract."""

from libc.stdint cimport UINT32_MAX
from libc.string cimport memset

from cesium._counters cimport count_more, portion_of
from cesium._layout cimport STATUS_IO, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK

cdef extern from "_fork.h":
    uint64_t process_forks

cdef extern from "<pthread.h>" nogil:
    int pthread_create(pthread_t *thread, const void *attributes,
                       void *(*run)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *condition, const void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_broadcast(pthread_cond_t *condition)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/mman.h>

    #ifndef O_DIRECT
    #define O_DIRECT 0
    #endif

    /* Some file systems take O_DIRECT when a file is opened and refuse it at the first write.
     * Takes the flag away; 1 when it was there. */
    static int refuse_direct(int fd) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || !(flags & O_DIRECT)) return 0;
        return fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
    }

    /* Memory for direct writes, a mapping of its own, which a forked child does not have: the drive
     * may be reading it while the child is made, and a page that is then copied on write could
     * leave the drive with the other copy.  NULL when there is none. */
    static void *direct_buffer(size_t bytes) {
        void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                            0);
        if (memory == MAP_FAILED) return NULL;
        (void)madvise(memory, bytes, MADV_DONTFORK);
        return memory;
    }

    static void free_direct_buffer(void *memory, size_t bytes) { (void)munmap(memory, bytes); }
    """
    int refuse_direct(int fd) noexcept nogil
    void *direct_buffer(size_t bytes) noexcept nogil
    void free_direct_buffer(void *memory, size_t bytes) noexcept nogil
    const int EINVAL

cdef uint64_t nobodys = 0           # the account of writers that were given none


cdef int take_buffer(PageWriter *writer, uint32_t place) noexcept nogil:
    writer.buffers[place] = <uint8_t *>direct_buffer(writer.buffer_bytes)
    if writer.buffers[place] == NULL:
        return STATUS_NO_MEMORY
    count_more(writer.account, writer.buffer_bytes)
    return STATUS_OK


cdef int write_out(PageWriter *writer, const uint8_t *buffer, int64_t bytes,
                   int64_t offset) noexcept nogil:
    """Writes one buffer; returns 0 or an errno."""
    cdef const FileOperations *operations = writer.operations
    cdef int64_t written
    written = operations.write_all(operations.context, writer.fd, buffer, bytes, offset)
    if written == -EINVAL and refuse_direct(writer.fd):
        written = operations.write_all(operations.context, writer.fd, buffer, bytes, offset)
    return <int>-written if written < 0 else 0


cdef void *write_behind(void *argument) noexcept nogil:
    """The writer thread: writes what is pending until it is told to stop."""
    cdef PageWriter *writer = <PageWriter *>argument
    cdef int error
    pthread_mutex_lock(&writer.mutex)
    while True:
        while writer.pending == NULL and not writer.stop:
            pthread_cond_wait(&writer.changed, &writer.mutex)
        if writer.pending == NULL:
            break
        pthread_mutex_unlock(&writer.mutex)
        error = write_out(writer, writer.pending, writer.pending_bytes, writer.pending_offset)
        pthread_mutex_lock(&writer.mutex)
        if error and not writer.error:
            writer.error = error
        writer.pending = NULL
        pthread_cond_broadcast(&writer.changed)
    pthread_mutex_unlock(&writer.mutex)
    return NULL


cdef int wait_for_writer(PageWriter *writer) noexcept nogil:
    """Returns when nothing is pending; the first error so far."""
    cdef int error
    pthread_mutex_lock(&writer.mutex)
    while writer.pending != NULL:
        pthread_cond_wait(&writer.changed, &writer.mutex)
    error = writer.error
    pthread_mutex_unlock(&writer.mutex)
    return error


cdef int hand_over(PageWriter *writer) noexcept nogil:
    """Gives the buffer in the making to the writer thread and goes on with the other."""
    cdef uint32_t other = 1 - writer.making
    if wait_for_writer(writer):
        return STATUS_IO
    if writer.buffers[other] == NULL and take_buffer(writer, other) != STATUS_OK:
        return STATUS_NO_MEMORY
    if not writer.threaded:
        if pthread_create(&writer.thread, NULL, write_behind, writer):
            return STATUS_NO_MEMORY
        writer.threaded = True
    pthread_mutex_lock(&writer.mutex)
    writer.pending = writer.buffers[writer.making]
    writer.pending_bytes = <int64_t>writer.used * PAGE_BYTES
    writer.pending_offset = <int64_t>(writer.page_count - writer.used) * PAGE_BYTES
    pthread_cond_broadcast(&writer.changed)
    pthread_mutex_unlock(&writer.mutex)
    writer.making = other
    writer.used = 0
    return STATUS_OK


cdef int page_writer_open(PageWriter *writer, int fd, const FileOperations *operations,
                          uint64_t segment_id, Counters counters) noexcept nogil:
    memset(writer, 0, sizeof(PageWriter))
    writer.fd = fd
    writer.operations = operations
    writer.segment_id = segment_id
    writer.forks = process_forks
    writer.buffer_bytes = portion_of(counters)
    writer.account = &nobodys if counters is None else &counters.buffer_bytes
    if take_buffer(writer, 0) != STATUS_OK:
        return STATUS_NO_MEMORY
    pthread_mutex_init(&writer.mutex, NULL)
    pthread_cond_init(&writer.changed, NULL)
    return STATUS_OK


cdef bint page_writer_is_inherited(const PageWriter *writer) noexcept nogil:
    return writer.forks != process_forks


cdef int page_writer_seal(PageWriter *writer) noexcept nogil:
    cdef uint8_t *page = page_writer_page(writer)
    (<uint32_t *>page)[0] = page_checksum(writer.segment_id, writer.page_count, page)
    return page_writer_pass(writer)


cdef int page_writer_pass(PageWriter *writer) noexcept nogil:
    if writer.page_count == UINT32_MAX:
        return STATUS_LIMIT
    writer.page_count += 1
    writer.used += 1
    if <uint64_t>writer.used * PAGE_BYTES == writer.buffer_bytes:
        return hand_over(writer)
    return STATUS_OK


cdef int page_writer_flush(PageWriter *writer, bint sync) noexcept nogil:
    cdef int error = wait_for_writer(writer)
    if not error and writer.used:
        error = write_out(writer, page_writer_page(writer) - <int64_t>writer.used * PAGE_BYTES,
                          <int64_t>writer.used * PAGE_BYTES,
                          <int64_t>(writer.page_count - writer.used) * PAGE_BYTES)
        writer.used = 0
    if not error and sync:
        error = -writer.operations.sync_data(writer.operations.context, writer.fd)
    if error:
        writer.error = error
        return STATUS_IO
    return STATUS_OK


cdef void page_writer_close(PageWriter *writer) noexcept nogil:
    cdef uint32_t i
    if writer.buffers[0] == NULL or page_writer_is_inherited(writer):
        return      # a child has neither the buffers nor the thread, and nobody unlocks its mutex
    pthread_mutex_lock(&writer.mutex)
    writer.stop = True
    pthread_cond_broadcast(&writer.changed)
    pthread_mutex_unlock(&writer.mutex)
    if writer.threaded:
        pthread_join(writer.thread, NULL)
    pthread_mutex_destroy(&writer.mutex)
    pthread_cond_destroy(&writer.changed)
    for i in range(2):
        if writer.buffers[i] != NULL:
            free_direct_buffer(writer.buffers[i], writer.buffer_bytes)
            count_more(writer.account, -writer.buffer_bytes)
        writer.buffers[i] = NULL
