"""The journal's writing side: appending frames to a mapped file, and syncing it.

Thread safety: appending to one JournalFile is serialised by the caller (the engine's writer mutex).
`journal_sync` may be called from any thread at once, also while another appends; it must be called
without the GIL and without the writer mutex.

Statuses are STATUS_* of _layout.pxd; with STATUS_IO the errno is in `error_number` of the file.
"""

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._files cimport FileOperations
# What the callers of this module need with it.
from cesium._frames cimport (
    JOURNAL_DELETE, JOURNAL_DELETE_RANGE, JOURNAL_FILE_HEADER_BYTES, JOURNAL_FIXED_KEYS,
    JOURNAL_FIXED_VALUES, JOURNAL_FRAME_ATTACH, JOURNAL_FRAME_COMMIT, JOURNAL_FRAME_END,
    JOURNAL_FRAME_HEADER_BYTES, JOURNAL_HIGH_UNBOUNDED, JOURNAL_LOW_UNBOUNDED,
    JOURNAL_MAXIMUM_FRAME_BYTES, JOURNAL_OPERATION_HEADER_BYTES, JOURNAL_PUT, JournalBase,
    JournalFrame, JournalFrameHeader, JournalOperation, JournalOperationHeader,
    journal_check_frame, journal_next_frame, journal_next_operation,
)


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass


ctypedef struct JournalPart:
    const void *data         # NULL only when bytes is 0
    uint64_t bytes           # the gap up to the next multiple of 8 is filled with zeros


ctypedef struct JournalFile:
    int fd
    uint8_t *mapping
    uint64_t capacity_bytes
    uint64_t position            # the end of the last frame; the next begins here
    uint64_t last_sequence       # of the last frame, or the file's base sequence
    JournalBase base             # of the file; its seed is part of every frame's
    uint64_t said_synced         # the synced position that a frame said last, and where that frame
    uint64_t said_at             # begins
    uint32_t last_checksum       # of the last frame, or of the file header
    uint64_t prepared_position   # pages below it were made writable
    uint64_t prepare_step_bytes  # how much is made writable at once
    uint64_t synced_position     # read without the mutex, written under it
    uint64_t sync_count
    int failed                   # errno of the first failed sync; sticky: the file is poisoned
    int error_number             # errno of the last STATUS_IO
    bint syncing                 # a leader gathers commits, or is inside sync_data
    uint32_t waiting             # threads that wait for the leader
    uint32_t group               # threads that the last sync was for, or came while it ran
    uint64_t sync_nanoseconds    # that the last sync took
    uint32_t lost                # pages that cannot be written, counted by the fault handler
    void *region                 # of the fault handler
    bint retired                 # gone, and everything in it is durable here or elsewhere
    JournalFile *previous        # an older file that is not synced yet; synced before this one
    const FileOperations *operations
    pthread_mutex_t mutex        # guards synced_position, and all from `failed` to `previous`
    pthread_cond_t changed       # a sync ended, or the file was retired
    pthread_cond_t gathered      # as many wait as the leader expects


# Appends one frame.  Each part begins at a multiple of 8.  STATUS_FULL (rotate and append again),
# STATUS_LIMIT (longer than any file may hold), STATUS_IO (the drive is full or failing) and
# STATUS_POISONED (a sync failed earlier) write nothing; a file that lost a page is poisoned by it.
# `end_position` is what to sync up to.
cdef int journal_append(JournalFile *file, uint8_t frame_type, uint64_t sequence,
                        uint64_t commit_time, const JournalPart *parts, int part_count,
                        uint32_t operation_count, uint64_t *end_position) noexcept nogil

# Appends a commit of one operation on one row, as a row frame if it fits one.  Fixed keys: `key`
# points at the uint64 head and key_bytes is 8.  A delete has no value (value_bytes 0).
cdef int journal_append_single(JournalFile *file, uint64_t sequence, uint64_t commit_time,
                               uint32_t table_id, uint8_t kind, uint8_t flags,
                               const void *key, uint32_t key_bytes,
                               const void *value, uint32_t value_bytes,
                               uint64_t *end_position) noexcept nogil

# Returns when everything below `upto_position` is on stable storage.  One of the callers syncs for
# all who wait; nothing is done when it is synced already.  STATUS_OK; STATUS_IO for all who wait,
# and for all who come later.
cdef int journal_sync(JournalFile *file, uint64_t upto_position) noexcept nogil

# The end of the last frame.  Any thread may ask.
cdef uint64_t journal_end_position(const JournalFile *file) noexcept nogil


cdef class JournalWriter:
    """One journal file open for appending.  `file` is what the engine appends to."""

    cdef JournalFile file
    cdef object _mapping
    cdef PyObject *_registered       # the mapping again, owned until the fault handler forgets it
    cdef object _view
    cdef object _operations
    cdef JournalWriter _previous     # keeps file.previous alive
    cdef uint64_t forks              # of the process when it was made
    cdef readonly uint64_t number
    cdef readonly uint64_t base_sequence
    cdef int check_open(self) except -1
    cdef void unregister(self) noexcept
