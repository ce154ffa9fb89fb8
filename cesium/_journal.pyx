"""Appending and syncing journal frames (docs/format-journal.md).

The contract is in _journal.pxd.  A file is mapped for writing and has its whole size from the
start, so a process that is killed loses nothing that was appended.  A page that cannot be written
(the file was cut off, the drive failed) poisons the file: _faults.pxd.
"""

from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport time_t

from cesium._faults cimport fault_register, fault_unregister, load_lost
from cesium._files cimport operations_of
from cesium._frames cimport (
    JOURNAL_FILE_HEADER_BYTES, JOURNAL_FIXED_KEYS, JOURNAL_FIXED_VALUES, JOURNAL_FORM_ROW,
    JOURNAL_FRAME_COMMIT, JOURNAL_FRAME_END, JOURNAL_FRAME_HEADER_BYTES,
    JOURNAL_MAXIMUM_FRAME_BYTES, JOURNAL_MAXIMUM_ROW_BYTES, JOURNAL_OPERATION_HEADER_BYTES,
    JOURNAL_PUT, JOURNAL_ROW_HEADER_BYTES, JOURNAL_ROW_TIME_SHIFT, JOURNAL_SHAPE_FLAGS_SHIFT,
    JOURNAL_SHAPE_PADDING_SHIFT, JOURNAL_SHAPE_SYNCED, JournalFrameHeader, JournalOperationHeader,
    JournalRowHeader,
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
    int pthread_cond_signal(pthread_cond_t *condition)
    int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                               const timespec *deadline)

cdef extern from "_fork.h":
    uint64_t process_forks

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <sys/stat.h>
    #include <time.h>

    static int monotonic_cond_init(pthread_cond_t *condition) {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        int status = pthread_cond_init(condition, &attributes);
        pthread_condattr_destroy(&attributes);
        return status;
    }

    #define LOAD_ACQUIRE(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
    #define STORE_RELEASE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)

    /* Touches the last page, behind all writes before: a file that was cut off faults here. */
    static inline void touch_end(const uint8_t *mapping, uint64_t bytes) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        (void)*(const volatile uint8_t *)(mapping + bytes - 1);
    }

    /* What was written behind the end of a file that is shorter than its mapping is nowhere. */
    static int shorter_than(int fd, uint64_t bytes) {
        struct stat status;
        if (fstat(fd, &status)) return errno;
        return (uint64_t)status.st_size < bytes ? EIO : 0;
    }
    """
    int ECANCELED
    int monotonic_cond_init(pthread_cond_t *condition)
    int EIO
    void touch_end(const uint8_t *mapping, uint64_t bytes) noexcept nogil
    int shorter_than(int fd, uint64_t bytes) noexcept nogil
    uint64_t load_position "LOAD_ACQUIRE"(const uint64_t *pointer) nogil
    int load_status "LOAD_ACQUIRE"(const int *pointer) nogil
    void store_position "STORE_RELEASE"(uint64_t *pointer, uint64_t value) nogil
    void store_status "STORE_RELEASE"(int *pointer, int value) nogil
    void store_lost "STORE_RELEASE"(uint32_t *pointer, uint32_t value) nogil

cdef enum:
    GATHER_NANOSECONDS_MOST = 2000000
    SECTOR_SHIFT = 9                # what a drive writes whole or not at all
    TABLE_IDS_OF_ROWS = 255
    UNITS_MOST = 0xFFFFFFFF         # of sequences and of time, in a row frame

OK = STATUS_OK
FULL = STATUS_FULL
LIMIT = STATUS_LIMIT
IO = STATUS_IO
POISONED = STATUS_POISONED

# ---------------------------------------------------------------- appending

cdef inline uint64_t whole_words(uint64_t count) noexcept nogil:
    return (count + 7) & ~(<uint64_t> 7)


cdef int fail_lost(JournalFile *file) noexcept nogil:
    """Some of the file is nowhere: what was appended, and perhaps what was synced."""
    store_status(&file.error_number, EIO)
    store_status(&file.failed, EIO)
    return STATUS_IO


cdef bint lost_any(JournalFile *file) noexcept nogil:
    """Whether a page could not be written, or the file is shorter than its mapping."""
    if not load_lost(&file.lost) and shorter_than(file.fd, file.capacity_bytes):
        store_lost(&file.lost, 1)
    return load_lost(&file.lost) != 0


cdef int prepare(JournalFile *file, uint64_t end) noexcept nogil:
    """Make the mapping writable up to `end` and a step beyond."""
    cdef uint64_t start = file.prepared_position
    cdef uint64_t step = file.prepare_step_bytes
    cdef uint64_t stop = end + (step - end % step) % step
    cdef int error_number
    if stop > file.capacity_bytes:
        stop = file.capacity_bytes
    error_number = -file.operations.populate(file.operations.context, file.fd, file.mapping,
                                             start, stop - start)
    if error_number:
        if lost_any(file):
            return fail_lost(file)
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


cdef inline int finish_frame(JournalFile *file, uint8_t frame_type, uint64_t sequence,
                             uint64_t commit_time, uint32_t operation_count,
                             uint64_t length) noexcept nogil:
    """Write the header of a frame whose payload is in place."""
    cdef JournalFrameHeader *header = <JournalFrameHeader *> (file.mapping + file.position)
    header.frame_type = frame_type
    header.flags = 0
    header.codec = 0
    header.reserved = 0
    header.key_id = 0
    header.epoch = file.base.epoch
    header.sequence = sequence
    header.commit_time = commit_time
    header.synced_position = load_position(&file.synced_position)
    header.previous_checksum = file.last_checksum
    header.operation_count = operation_count
    return seal_frame(file, length, sequence, length, header.synced_position)


cdef inline int seal_frame(JournalFile *file, uint64_t second, uint64_t sequence, uint64_t length,
                           uint64_t said_synced) noexcept nogil:
    """Write the first word of a frame that is there but for it: its checksum, and `second`.

    said_synced: the synced position that it says; 0: none.
    """
    cdef uint8_t *frame = file.mapping + file.position
    cdef uint32_t checksum
    (<uint32_t *> frame)[1] = <uint32_t> second         # harmless without its checksum
    checksum = crc32c(<uint32_t> file.position ^ file.base.seed, frame + 4, length - 4)
    touch_end(file.mapping, file.capacity_bytes)
    if load_lost(&file.lost):           # some of the frame is nowhere, and so is what comes after
        return fail_lost(file)
    store_position(<uint64_t *> frame, <uint64_t> checksum | (second << 32))
    if said_synced:
        file.said_synced = said_synced
        file.said_at = file.position
    file.last_checksum = checksum
    store_position(&file.last_sequence, sequence)
    store_position(&file.position, file.position + length)
    return STATUS_OK


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
    status = finish_frame(file, frame_type, sequence, commit_time, operation_count, length)
    end_position[0] = file.position
    return status


cdef inline uint8_t *write_variable(uint8_t *target, const void *data,
                                    uint32_t length) noexcept nogil:
    """Write one variable-length row: its length, padded, and its bytes, padded."""
    cdef uint64_t whole = whole_words(length)
    (<uint64_t *> target)[0] = length        # u32 length and its padding in one store
    if whole:
        (<uint64_t *> (target + whole))[0] = 0
        memcpy(target + 8, data, length)
    return target + 8 + whole


cdef inline bint fits_row(const JournalFile *file, uint64_t sequence, uint64_t commit_time,
                          uint32_t table_id, uint64_t content_bytes) noexcept nogil:
    """Whether a commit of one row may be a row frame; `content_bytes` are its key and value."""
    return (file.position != JOURNAL_FILE_HEADER_BYTES
            and sequence == file.last_sequence + 1
            and sequence - file.base.sequence <= UNITS_MOST
            and commit_time >= file.base.creation_time
            and ((commit_time - file.base.creation_time) >> JOURNAL_ROW_TIME_SHIFT) <= UNITS_MOST
            and table_id <= TABLE_IDS_OF_ROWS
            # Header, synced position and lengths come before the content, padding behind it.
            and content_bytes <= JOURNAL_MAXIMUM_ROW_BYTES - JOURNAL_ROW_HEADER_BYTES - 16 - 7)


cdef int append_row(JournalFile *file, uint64_t sequence, uint64_t commit_time, uint32_t table_id,
                    uint8_t kind, uint8_t flags, const void *key, uint32_t key_bytes,
                    const void *value, uint32_t value_bytes) noexcept nogil:
    """Append a row frame, for what fits one.  A put of u8 -> f8 has 32 bytes, a full frame 104."""
    cdef uint64_t synced = load_position(&file.synced_position)
    cdef bint says = synced > JOURNAL_FILE_HEADER_BYTES and (
        synced != file.said_synced or (file.position ^ file.said_at) >> SECTOR_SHIFT != 0)
    cdef bint has_lengths = not (flags & JOURNAL_FIXED_KEYS
                                 and (flags & JOURNAL_FIXED_VALUES or kind != JOURNAL_PUT))
    cdef uint64_t used = (JOURNAL_ROW_HEADER_BYTES + 8 * says + 8 * has_lengths + key_bytes
                          + value_bytes)
    cdef uint64_t length = whole_words(used)
    cdef uint8_t *target
    cdef JournalRowHeader *header
    cdef uint32_t second
    cdef int status = begin_frame(file, JOURNAL_FRAME_COMMIT, length)
    if status != STATUS_OK:
        return status
    target = file.mapping + file.position
    header = <JournalRowHeader *> target
    header.sequence_low = <uint32_t> sequence
    header.time_units = <uint32_t> ((commit_time - file.base.creation_time)
                                    >> JOURNAL_ROW_TIME_SHIFT)
    (<uint64_t *> (target + length - 8))[0] = 0         # the padding
    target += JOURNAL_ROW_HEADER_BYTES
    if says:
        (<uint64_t *> target)[0] = synced
        target += 8
    if has_lengths:
        (<uint64_t *> target)[0] = key_bytes | (<uint64_t> value_bytes << 32)
        target += 8
    if flags & JOURNAL_FIXED_KEYS:
        memcpy(target, key, 8)
    elif key_bytes:
        memcpy(target, key, key_bytes)
    if value_bytes == 8:                # one store instead of a call
        memcpy(target + key_bytes, value, 8)
    elif value_bytes:
        memcpy(target + key_bytes, value, value_bytes)
    second = <uint32_t> (length | JOURNAL_FORM_ROW)     # as JournalRowHeader has them
    second |= <uint32_t> (kind | (flags << JOURNAL_SHAPE_FLAGS_SHIFT)
                          | (JOURNAL_SHAPE_SYNCED if says else 0)
                          | ((length - used) << JOURNAL_SHAPE_PADDING_SHIFT)) << 16
    second |= table_id << 24
    return seal_frame(file, second, sequence, length, synced if says else 0)


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
    if kind != JOURNAL_PUT:
        value_bytes = 0
    if fits_row(file, sequence, commit_time, table_id, <uint64_t> key_bytes + value_bytes):
        status = append_row(file, sequence, commit_time, table_id, kind, flags, key, key_bytes,
                            value, value_bytes)
        end_position[0] = file.position
        return status
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
    status = finish_frame(file, JOURNAL_FRAME_COMMIT, sequence, commit_time, 1, length)
    end_position[0] = file.position
    return status


# ---------------------------------------------------------------- syncing

cdef uint64_t journal_end_position(const JournalFile *file) noexcept nogil:
    return load_position(&file.position)


cdef inline uint64_t monotonic_nanoseconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <uint64_t>moment.tv_sec * 1000000000 + <uint64_t>moment.tv_nsec


cdef void gather(JournalFile *file) noexcept nogil:
    """Wait until as many threads have appended and wait as the last time; the mutex is held.

    They were all woken by the same sync, a moment before this leader came.  Without this it syncs
    for itself alone, and the others for the next: with 8 threads a sync carried 4.2 commits and
    there were 2.9 times as many commits per second as with one thread.  At most half a sync's time
    is given up, and not for a drive that once had a hiccup.
    """
    cdef uint64_t most = min(file.sync_nanoseconds // 2, <uint64_t>GATHER_NANOSECONDS_MOST)
    cdef uint64_t until = monotonic_nanoseconds() + most
    cdef timespec deadline
    deadline.tv_sec = <time_t>(until // 1000000000)
    deadline.tv_nsec = <long>(until % 1000000000)
    while file.waiting + 1 < file.group:
        if pthread_cond_timedwait(&file.gathered, &file.mutex, &deadline):
            break


cdef int sync_as_leader(JournalFile *file) noexcept nogil:
    """Sync older files, then this one, once.  The mutex is held on entry and on return."""
    cdef JournalFile *previous = file.previous
    cdef uint64_t target
    cdef uint64_t started
    cdef int error_number = 0
    file.syncing = True
    gather(file)
    target = load_position(&file.position)
    pthread_mutex_unlock(&file.mutex)
    started = monotonic_nanoseconds()
    if previous != NULL and journal_sync(previous, load_position(&previous.position)) != STATUS_OK:
        error_number = load_status(&previous.failed)
    if error_number == 0:
        error_number = -file.operations.sync_data(file.operations.context, file.fd)
    if error_number == 0 and lost_any(file):
        error_number = EIO
    pthread_mutex_lock(&file.mutex)
    file.syncing = False
    file.group = file.waiting + 1
    if error_number:
        store_status(&file.error_number, error_number)
        store_status(&file.failed, error_number)
    else:
        file.sync_nanoseconds = monotonic_nanoseconds() - started
        file.sync_count += 1
        file.previous = NULL
        store_position(&file.synced_position, target)
    pthread_cond_broadcast(&file.changed)
    return STATUS_IO if error_number else STATUS_OK


cdef int journal_sync(JournalFile *file, uint64_t upto_position) noexcept nogil:
    cdef int status = STATUS_OK
    # A position above the header is synced only after all older files were.
    if (load_position(&file.synced_position) >= upto_position
            and upto_position > JOURNAL_FILE_HEADER_BYTES and not load_lost(&file.lost)):
        return STATUS_OK
    pthread_mutex_lock(&file.mutex)
    while True:
        if file.retired:
            break
        if load_lost(&file.lost):       # what was synced may be gone as well
            status = fail_lost(file)
            break
        if load_position(&file.synced_position) >= upto_position and file.previous == NULL:
            break
        if load_status(&file.failed):
            status = STATUS_IO
            break
        if file.syncing:
            file.waiting += 1
            if file.waiting + 1 == file.group:
                pthread_cond_signal(&file.gathered)
            pthread_cond_wait(&file.changed, &file.mutex)
            file.waiting -= 1
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
        monotonic_cond_init(&self.file.gathered)

    def __init__(self, int fd, mapping, object operations, *, uint64_t number, uint64_t epoch,
                 uint64_t base_sequence, uint64_t creation_time, uint32_t header_checksum,
                 uint64_t prepare_step_bytes,
                 JournalWriter previous=None):
        cdef uint8_t[::1] view = mapping
        if prepare_step_bytes == 0 or prepare_step_bytes % 4096:
            raise ValueError("prepare_step_bytes must be a positive multiple of 4096")
        if view.shape[0] < JOURNAL_FILE_HEADER_BYTES or <uintptr_t> &view[0] % 4096:
            raise ValueError("the mapping must be whole pages")
        self.unregister()
        self.file.region = fault_register(&view[0], <uint64_t> view.shape[0], True,
                                          &self.file.lost)
        Py_INCREF(mapping)
        self._registered = <PyObject *> mapping
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
        self.file.last_checksum = header_checksum
        self.file.base.epoch = epoch
        self.file.base.seed = header_checksum
        self.file.base.sequence = base_sequence
        self.file.base.creation_time = creation_time
        self.file.base.row_frames = True
        self.file.said_synced = 0
        self.file.said_at = 0
        self.file.operations = operations_of(operations)
        self.file.previous = &previous.file if previous is not None else NULL

    cdef void unregister(self) noexcept:
        """Before the mapping goes: whatever is mapped there next is not ours."""
        fault_unregister(self.file.region)
        self.file.region = NULL
        Py_XDECREF(self._registered)
        self._registered = NULL

    def __dealloc__(self):
        self.unregister()
        if self.forks != process_forks:
            return      # destroying a condition waits for its waiters, which are the parent's
        pthread_cond_destroy(&self.file.changed)
        pthread_cond_destroy(&self.file.gathered)
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

    def seal(self):
        """From now on no frame fits but the end frame: the next file says that this one ends here.
        """
        if self.file.mapping != NULL:
            self.file.capacity_bytes = self.file.position + JOURNAL_FRAME_HEADER_BYTES

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
        self.unregister()
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
        return self.file.base.epoch

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
