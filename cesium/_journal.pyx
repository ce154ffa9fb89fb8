"""Appending and syncing journal frames (docs/format-journal.md).

The contract is in _journal.pxd.  A file is mapped for writing and has its whole size from the
start, so a process that is killed loses nothing that was appended.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from cesium._files cimport operations_of
from cesium._frames cimport (
    JOURNAL_FILE_HEADER_BYTES, JOURNAL_FIXED_KEYS, JOURNAL_FIXED_VALUES, JOURNAL_FRAME_COMMIT,
    JOURNAL_FRAME_END, JOURNAL_FRAME_HEADER_BYTES, JOURNAL_MAXIMUM_FRAME_BYTES,
    JOURNAL_OPERATION_HEADER_BYTES, JOURNAL_PUT, JournalFrameHeader, JournalOperationHeader,
)
from cesium._layout cimport STATUS_FULL, STATUS_IO, STATUS_LIMIT, STATUS_OK, STATUS_POISONED
from cesium._native cimport crc32c

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *condition, const void *attributes)
    int pthread_cond_destroy(pthread_cond_t *condition)
    int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
    int pthread_cond_broadcast(pthread_cond_t *condition)

cdef extern from "_fork.h":
    uint64_t process_forks

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <sys/mman.h>

    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif

    #define LOAD_ACQUIRE(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
    #define STORE_RELEASE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)

    /* Makes pages writable in one call: 1.1 to 2.3 us a page against 3.3 to 4.2 us for one fault
       each (ext4), and a full or failing drive is an errno here instead of a SIGBUS later.
       Kernels before 5.14 do not know it (EINVAL): then the pages fault one by one. */
    static int make_writable(uint8_t *start, uint64_t bytes) {
        while (madvise(start, bytes, MADV_POPULATE_WRITE) != 0) {
            if (errno == EINTR || errno == EAGAIN) continue;
            if (errno == EINVAL) return 0;
            return errno == EFAULT ? EIO : errno;
        }
        return 0;
    }
    """
    int ECANCELED
    uint64_t load_position "LOAD_ACQUIRE"(const uint64_t *pointer) nogil
    int load_status "LOAD_ACQUIRE"(const int *pointer) nogil
    void store_position "STORE_RELEASE"(uint64_t *pointer, uint64_t value) nogil
    void store_status "STORE_RELEASE"(int *pointer, int value) nogil
    int make_writable(uint8_t *start, uint64_t bytes) noexcept nogil

OK = STATUS_OK
FULL = STATUS_FULL
LIMIT = STATUS_LIMIT
IO = STATUS_IO
POISONED = STATUS_POISONED

# ---------------------------------------------------------------- appending

cdef inline uint64_t whole_words(uint64_t count) noexcept nogil:
    return (count + 7) & ~(<uint64_t> 7)


cdef int prepare(JournalFile *file, uint64_t end) noexcept nogil:
    """Make the mapping writable up to `end` and a step beyond."""
    cdef uint64_t start = file.prepared_position
    cdef uint64_t step = file.prepare_step_bytes
    cdef uint64_t stop = end + (step - end % step) % step
    cdef int error_number
    if stop > file.capacity_bytes:
        stop = file.capacity_bytes
    error_number = make_writable(file.mapping + start, stop - start)
    if error_number:
        store_status(&file.error_number, error_number)
        return STATUS_IO
    file.prepared_position = stop
    return STATUS_OK


cdef inline int begin_frame(JournalFile *file, uint8_t frame_type,
                            uint64_t length) noexcept nogil:
    cdef uint64_t end = file.position + length
    cdef uint64_t kept = 0 if frame_type == JOURNAL_FRAME_END else JOURNAL_FRAME_HEADER_BYTES
    if load_status(&file.failed):
        return STATUS_POISONED
    if end + kept > file.capacity_bytes:      # an end frame always finds room
        return STATUS_FULL
    if end > file.prepared_position:
        return prepare(file, end)
    return STATUS_OK


cdef inline void finish_frame(JournalFile *file, uint8_t frame_type, uint64_t sequence,
                              uint64_t commit_time, uint32_t operation_count,
                              uint64_t length) noexcept nogil:
    """Write the header of a frame whose payload is in place; its first word goes last."""
    cdef uint8_t *frame = file.mapping + file.position
    cdef JournalFrameHeader *header = <JournalFrameHeader *> frame
    cdef uint32_t checksum
    header.length_bytes = <uint32_t> length      # harmless without its checksum
    header.frame_type = frame_type
    header.flags = 0
    header.codec = 0
    header.reserved = 0
    header.key_id = 0
    header.epoch = file.epoch
    header.sequence = sequence
    header.commit_time = commit_time
    header.synced_position = load_position(&file.synced_position)
    header.previous_checksum = file.last_checksum
    header.operation_count = operation_count
    checksum = crc32c(<uint32_t> file.position ^ file.seed, frame + 4, length - 4)
    store_position(<uint64_t *> frame, <uint64_t> checksum | (length << 32))
    file.last_checksum = checksum
    store_position(&file.last_sequence, sequence)
    store_position(&file.position, file.position + length)


cdef int journal_append(JournalFile *file, uint8_t frame_type, uint64_t sequence,
                        uint64_t commit_time, const JournalPart *parts, int part_count,
                        uint32_t operation_count, uint64_t *end_position) noexcept nogil:
    cdef uint64_t length = JOURNAL_FRAME_HEADER_BYTES
    cdef uint64_t whole
    cdef uint8_t *target
    cdef int i, status
    for i in range(part_count):
        if parts[i].bytes > JOURNAL_MAXIMUM_FRAME_BYTES:
            return STATUS_LIMIT
        length += whole_words(parts[i].bytes)
        if length > JOURNAL_MAXIMUM_FRAME_BYTES:
            return STATUS_LIMIT
    status = begin_frame(file, frame_type, length)
    if status != STATUS_OK:
        return status
    target = file.mapping + file.position + JOURNAL_FRAME_HEADER_BYTES
    for i in range(part_count):
        if parts[i].bytes == 0:
            continue
        memcpy(target, parts[i].data, parts[i].bytes)
        whole = whole_words(parts[i].bytes)
        memset(target + parts[i].bytes, 0, whole - parts[i].bytes)
        target += whole
    finish_frame(file, frame_type, sequence, commit_time, operation_count, length)
    end_position[0] = file.position
    return STATUS_OK


cdef inline uint8_t *write_variable(uint8_t *target, const void *data,
                                    uint32_t length) noexcept nogil:
    """Write one variable-length row: its length, padded, and its bytes, padded."""
    cdef uint64_t whole = whole_words(length)
    (<uint64_t *> target)[0] = length        # u32 length and its padding in one store
    if whole:
        (<uint64_t *> (target + whole))[0] = 0
        memcpy(target + 8, data, length)
    return target + 8 + whole


cdef int journal_append_single(JournalFile *file, uint64_t sequence, uint64_t commit_time,
                               uint32_t table_id, uint8_t kind, uint8_t flags,
                               const void *key, uint32_t key_bytes,
                               const void *value, uint32_t value_bytes,
                               uint64_t *end_position) noexcept nogil:
    cdef uint64_t length = JOURNAL_FRAME_HEADER_BYTES + JOURNAL_OPERATION_HEADER_BYTES
    cdef uint64_t whole
    cdef uint8_t *target
    cdef JournalOperationHeader *operation
    cdef int status
    length += 8 if flags & JOURNAL_FIXED_KEYS else 8 + whole_words(key_bytes)
    if kind == JOURNAL_PUT:
        length += whole_words(value_bytes) + (0 if flags & JOURNAL_FIXED_VALUES else 8)
    if length > JOURNAL_MAXIMUM_FRAME_BYTES:
        return STATUS_LIMIT
    status = begin_frame(file, JOURNAL_FRAME_COMMIT, length)
    if status != STATUS_OK:
        return status
    target = file.mapping + file.position + JOURNAL_FRAME_HEADER_BYTES
    operation = <JournalOperationHeader *> target
    operation.table_id = table_id
    operation.kind = kind
    operation.flags = flags
    operation.reserved = 0
    operation.row_count = 1
    operation.reserved_too = 0
    target += JOURNAL_OPERATION_HEADER_BYTES
    if flags & JOURNAL_FIXED_KEYS:
        operation.key_block_bytes = 8
        memcpy(target, key, 8)
        target += 8
    else:
        operation.key_block_bytes = 8 + <uint64_t> key_bytes
        target = write_variable(target, key, key_bytes)
    operation.value_block_bytes = 0
    if kind == JOURNAL_PUT:
        if flags & JOURNAL_FIXED_VALUES:
            operation.value_block_bytes = value_bytes
            whole = whole_words(value_bytes)
            if whole:
                (<uint64_t *> (target + whole - 8))[0] = 0
                memcpy(target, value, value_bytes)
        else:
            operation.value_block_bytes = 8 + <uint64_t> value_bytes
            write_variable(target, value, value_bytes)
    finish_frame(file, JOURNAL_FRAME_COMMIT, sequence, commit_time, 1, length)
    end_position[0] = file.position
    return STATUS_OK


# ---------------------------------------------------------------- syncing

cdef uint64_t journal_end_position(const JournalFile *file) noexcept nogil:
    return load_position(&file.position)


cdef int sync_as_leader(JournalFile *file) noexcept nogil:
    """Sync older files, then this one, once.  The mutex is held on entry and on return."""
    cdef JournalFile *previous = file.previous
    cdef uint64_t target = load_position(&file.position)
    cdef int error_number = 0
    file.syncing = True
    pthread_mutex_unlock(&file.mutex)
    if previous != NULL and journal_sync(previous, load_position(&previous.position)) != STATUS_OK:
        error_number = load_status(&previous.failed)
    if error_number == 0:
        error_number = -file.operations.sync_data(file.operations.context, file.fd)
    pthread_mutex_lock(&file.mutex)
    file.syncing = False
    if error_number:
        store_status(&file.error_number, error_number)
        store_status(&file.failed, error_number)
    else:
        file.sync_count += 1
        file.previous = NULL
        store_position(&file.synced_position, target)
    pthread_cond_broadcast(&file.changed)
    return STATUS_IO if error_number else STATUS_OK


cdef int journal_sync(JournalFile *file, uint64_t upto_position) noexcept nogil:
    cdef int status = STATUS_OK
    # A position above the header is synced only after all older files were.
    if (load_position(&file.synced_position) >= upto_position
            and upto_position > JOURNAL_FILE_HEADER_BYTES):
        return STATUS_OK
    pthread_mutex_lock(&file.mutex)
    while True:
        if file.retired:
            break
        if load_position(&file.synced_position) >= upto_position and file.previous == NULL:
            break
        if load_status(&file.failed):
            status = STATUS_IO
            break
        if file.syncing:
            pthread_cond_wait(&file.changed, &file.mutex)
        else:
            status = sync_as_leader(file)
            break
    pthread_mutex_unlock(&file.mutex)
    return status


cdef void retire(JournalFile *file, bint durable) noexcept nogil:
    """After this no thread syncs the file; who waits, or comes later, is told what became of it."""
    pthread_mutex_lock(&file.mutex)
    while file.syncing:
        pthread_cond_wait(&file.changed, &file.mutex)
    if durable:
        file.retired = True
        file.previous = NULL
    elif not load_status(&file.failed):
        store_status(&file.error_number, ECANCELED)
        store_status(&file.failed, ECANCELED)
    pthread_cond_broadcast(&file.changed)
    pthread_mutex_unlock(&file.mutex)


# ---------------------------------------------------------------- Python's side

cdef class JournalWriter:
    """One journal file open for appending.

    `mapping` is a writable buffer over the whole file, whose header has been written and synced;
    `fd` stays the caller's to close, after `retire`.  `previous` is the file before while it is not
    synced: a sync of this file syncs that one first.
    """

    def __cinit__(self, *args, **options):
        self.forks = process_forks
        pthread_mutex_init(&self.file.mutex, NULL)
        pthread_cond_init(&self.file.changed, NULL)

    def __init__(self, int fd, mapping, object operations, *, uint64_t number, uint64_t epoch,
                 uint64_t base_sequence, uint32_t header_checksum, uint64_t prepare_step_bytes,
                 JournalWriter previous=None):
        cdef uint8_t[::1] view = mapping
        if prepare_step_bytes == 0 or prepare_step_bytes % 4096:
            raise ValueError("prepare_step_bytes must be a positive multiple of 4096")
        if view.shape[0] < JOURNAL_FILE_HEADER_BYTES or <uintptr_t> &view[0] % 4096:
            raise ValueError("the mapping must be whole pages")
        self._mapping = mapping
        self._view = view
        self._operations = operations
        self._previous = previous
        self.number = number
        self.base_sequence = base_sequence
        self.file.fd = fd
        self.file.mapping = &view[0]
        self.file.capacity_bytes = <uint64_t> view.shape[0]
        self.file.position = JOURNAL_FILE_HEADER_BYTES
        self.file.synced_position = JOURNAL_FILE_HEADER_BYTES
        self.file.prepared_position = JOURNAL_FILE_HEADER_BYTES
        self.file.prepare_step_bytes = prepare_step_bytes
        self.file.last_sequence = base_sequence
        self.file.seed = header_checksum
        self.file.last_checksum = header_checksum
        self.file.epoch = epoch
        self.file.operations = operations_of(operations)
        self.file.previous = &previous.file if previous is not None else NULL

    def __dealloc__(self):
        if self.forks != process_forks:
            return      # destroying a condition waits for its waiters, which are the parent's
        pthread_cond_destroy(&self.file.changed)
        pthread_mutex_destroy(&self.file.mutex)

    def append(self, uint8_t frame_type, uint64_t sequence, uint64_t commit_time, parts,
               uint32_t operation_count):
        """Append a frame of `parts` (contiguous buffers); return (status, end position).

        Status OK is success; FULL, LIMIT, IO and POISONED wrote nothing.
        """
        cdef JournalPart entries[64]
        cdef const uint8_t[::1] view
        cdef uint64_t end = 0
        cdef int status, count = 0
        keep = []
        self.check_open()
        if len(parts) > 64:
            raise ValueError("at most 64 parts")
        for part in parts:
            view = memoryview(part).cast("B")
            keep.append(view)
            entries[count].data = &view[0] if view.shape[0] else NULL
            entries[count].bytes = <uint64_t> view.shape[0]
            count += 1
        with nogil:
            status = journal_append(&self.file, frame_type, sequence, commit_time, entries, count,
                                    operation_count, &end)
        return status, end

    def append_single(self, uint64_t sequence, uint64_t commit_time, uint32_t table_id,
                      uint8_t kind, uint8_t flags, const uint8_t[::1] key not None,
                      const uint8_t[::1] value=None):
        """Append a commit of one row; return (status, end position) as `append` does."""
        cdef uint64_t end = 0
        cdef int status
        cdef uint32_t value_bytes = 0
        cdef const uint8_t *value_data = NULL
        self.check_open()
        if flags & JOURNAL_FIXED_KEYS and key.shape[0] != 8:
            raise ValueError("a fixed key is a head of 8 bytes")
        if value is not None and value.shape[0]:
            value_data = &value[0]
            value_bytes = <uint32_t> value.shape[0]
        status = journal_append_single(
            &self.file, sequence, commit_time, table_id, kind, flags,
            &key[0] if key.shape[0] else NULL, <uint32_t> key.shape[0],
            value_data, value_bytes, &end)
        return status, end

    def sync(self, uint64_t upto_position):
        """Sync up to a position; return the status, OK or IO.  Releases the GIL."""
        cdef int status
        with nogil:
            status = journal_sync(&self.file, upto_position)
        return status

    def retire(self, *, bint durable=True):
        """Release the mapping: the file was unlinked, or is being closed.

        Waits for a sync under way.  Later syncs return at once: with OK if `durable` says that all
        of it is on storage, here or in segments, else with IO for what was not synced.  Appending
        raises.
        """
        with nogil:
            retire(&self.file, durable)
        self.file.capacity_bytes = 0
        self.file.mapping = NULL
        if durable:
            self._previous = None
        self._view = None
        self._mapping = None

    cdef int check_open(self) except -1:
        if self.file.mapping == NULL:
            raise ValueError("the journal file was retired")
        return 0

    @property
    def fully_synced(self):
        """Whether this file, and those before it, are on stable storage to the last frame."""
        cdef bint result
        with nogil:
            pthread_mutex_lock(&self.file.mutex)
            result = self.file.retired or (
                self.file.previous == NULL
                and load_position(&self.file.synced_position) >= load_position(&self.file.position))
            pthread_mutex_unlock(&self.file.mutex)
        return result

    @property
    def failed(self):
        """The errno of the first failed sync, or 0."""
        return load_status(&self.file.failed)

    @property
    def error_number(self):
        """The errno of the last status IO, or 0."""
        return load_status(&self.file.error_number)

    @property
    def epoch(self):
        return self.file.epoch

    @property
    def position(self):
        return load_position(&self.file.position)

    @property
    def capacity_bytes(self):
        return self.file.capacity_bytes

    @property
    def synced_position(self):
        return load_position(&self.file.synced_position)

    @property
    def sync_count(self):
        return self.file.sync_count

    @property
    def last_sequence(self):
        return load_position(&self.file.last_sequence)

    @property
    def last_checksum(self):
        return self.file.last_checksum
