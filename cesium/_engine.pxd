# The engine: the locks, the commit sequence and the journal of one store; a table's live memtable
# and current version.
#
# Locks, in the order in which they may be taken (a thread that would block first gives up the GIL):
#   1. `writer`: one commit at a time; held from choosing the sequence to making the commit visible
#   2. `lock`: shared for point reads of the live memtable and for reading `version`; exclusive for
#      changing either, and for pinning a snapshot.  Exclusive regions are short and allocate no
#      Python object, so no finalizer, signal handler or other thread's Python runs inside.
# The journal's own mutex (group commit) is taken with neither held.
#
# Invariants:
#   1. a commit is in the journal before it is in the memtable, and `sequence` rises last
#   2. `version` and `live` are only replaced together under `lock`, so a reader sees one state
#   3. once `poisoned` is set, nothing is appended again
#   4. `closed` is set before the version is emptied, so who finds it unset under `lock` sees the
#      store

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cesium._counters cimport Counters
from cesium._journal cimport JournalPart, JournalWriter
from cesium._memtable cimport Memtable, MemtableSnapshot, MemtableState
from cesium._native cimport load_head
from cesium._page cimport Key, TableShape, Value
from cesium._version cimport Version

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_rwlock_t:
        pass

cdef class Engine:
    cdef pthread_mutex_t writer
    cdef pthread_rwlock_t lock
    cdef readonly uint64_t sequence     # of the last visible commit
    cdef public bint closed
    cdef const uint64_t *forks_now      # how often this process was forked since it loaded cesium,
    cdef uint64_t forks_before          # and when it opened the store
    cdef public bint read_only
    cdef public object poisoned         # the exception that stopped writing, or None
    cdef public bint untold             # it was poisoned in the background, and no call raised yet
    cdef public bint reserved           # a transaction is open, and other commits wait for it
    cdef public bint stalled            # memtables that cannot be written out fill the memory
    cdef public uint64_t memtables_most # what those of several tables may take (cesium/budget.py)
    cdef public object host             # Python's side: cesium.host.EngineHost
    cdef public JournalWriter journal   # the file appended to; None: nothing written since opening
    cdef readonly bint journaled        # False for `:memory:` and for durability "none"
    cdef readonly bint unjournaled      # durability "none": a call that asks for more checkpoints
    cdef public uint64_t durable_sequence   # waited for; more may be durable
    cdef public bint sync_scheduled     # the interval's thread will sync what is appended by now
    cdef public bint checkpoint_due     # the journal is as long as it may become
    cdef public bint unwatched          # written to, and nobody looks yet whether writing pauses
    cdef readonly uint64_t bytes_put    # keys and values of all commits since opening, as encoded
    cdef public uint64_t stall_nanoseconds  # that commits waited for maintenance, in sum
    cdef uint64_t pace_check            # `bytes_put` at which a commit next looks at the clock
    cdef uint64_t pace_rate             # bytes a second that commits may put; 0: no limit
    cdef uint64_t pace_bytes            # `bytes_put` when the rate was set
    cdef uint64_t pace_time             # and the monotonic clock then, in nanoseconds
    cdef readonly uint64_t waits        # commits that found the writer's lock taken
    cdef uint64_t writer_thread
    cdef readonly Counters counters     # since opening
    cdef readonly uint64_t frame_bytes_most     # of a commit: larger ones go out as segments

    cdef int check_open(self) except -1
    cdef int take_writer(self) except -1
    cdef int rotate(self, uint64_t frame_bytes) except -1
    cdef void lock_shared(self) noexcept
    cdef void lock_exclusive(self) noexcept
    cdef void unlock(self) noexcept
    cdef int begin_write(self) except -1
    # The same for a commit: a stalled engine makes room first, or raises why it cannot; one whose
    # maintenance lags waits a little (set_pace): both are `make_way`; and it waits for the
    # transaction that has reserved the commits, which itself uses make_way and begin_write.
    cdef int begin_commit(self) except -1
    cdef int make_way(self) except -1
    cdef void wait_for_pace(self) noexcept
    cdef void end_write(self) noexcept
    # Both append one commit of sequence + 1 and give the position to sync to; the caller applies it
    # and then raises `sequence`.  They do nothing in a store without a journal.
    cdef int append(self, uint8_t frame_type, const JournalPart *parts, int part_count,
                    uint32_t operations, uint64_t *end_position) except -1
    cdef int append_single(self, uint32_t table, uint8_t kind, uint8_t flags, const void *key,
                           uint32_t key_bytes, const void *value, uint32_t value_bytes,
                           uint64_t *end_position) except -1
    # Waits until the journal is on stable storage up to the position.  Call without any lock.
    cdef int wait_synced(self, JournalWriter journal, uint64_t position) except -1
    cdef int append_failed(self, int status) except -1
    cdef int fail_half_applied(self, int status) except -1
    cdef int poison_by(self, JournalWriter journal) except -1

# Whether no call may go on: `check_open` says why.  A child's locks may be locked for ever.
cdef inline bint engine_is_shut(Engine engine) noexcept:
    return engine.closed or engine.forks_now[0] != engine.forks_before

cdef struct Batch:                  # rows of one operation, as encoded; all borrowed
    uint64_t count
    uint8_t kind                    # KIND_VALUE or KIND_DELETE
    const uint64_t *heads
    const int64_t *key_offsets
    const uint8_t *key_data
    const uint8_t *rows
    const int64_t *value_offsets
    const uint8_t *value_data

cdef struct Operation:              # of a commit: a batch, or (no rows) a range-delete
    Batch batch
    Key lower
    Key upper
    bint unbounded

# The key of one row of a batch: a head, or (heads NULL) bytes between two offsets; borrowed.
cdef inline void key_of_row(const uint64_t *heads, const int64_t *offsets, const uint8_t *data,
                            uint64_t row, Key *key) noexcept nogil:
    key.data = NULL
    key.bytes = 0
    if heads != NULL:
        key.head = heads[row]
    else:
        key.data = data + offsets[row]
        key.bytes = <uint32_t>(offsets[row + 1] - offsets[row])
        key.head = load_head(key.data, key.bytes)

# Its value: packed bytes of the table's width, or bytes between two offsets; borrowed.
cdef inline void value_of_row(const Batch *batch, uint32_t value_width, uint64_t row,
                              Value *value) noexcept nogil:
    value.kind = batch.kind
    value.data = NULL
    value.bytes = 0
    if batch.rows != NULL:
        value.bytes = value_width
        value.data = batch.rows + row * value_width
    elif batch.value_offsets != NULL:
        value.data = batch.value_data + batch.value_offsets[row]
        value.bytes = batch.value_offsets[row + 1] - batch.value_offsets[row]

# The operations of one table in a commit.
cdef struct CorePart:
    MemtableState *live
    uint32_t value_width
    uint32_t count                  # of the operations, which follow those of the parts before

# Applies operations of several tables, which become visible at once (writer lock held); the rows of
# batches are in key order.
cdef int apply_parts(Engine engine, const CorePart *parts, uint32_t part_count,
                     const Operation *operations) except -1

cdef class TableCore

cdef class Frozen:             # what a table's memtable and version become when it is frozen
    cdef TableCore core
    cdef Memtable fresh
    cdef MemtableSnapshot snapshot
    cdef Version version

cdef class TableCore:
    cdef Engine engine
    cdef readonly uint32_t table_id
    cdef public bint dropped            # the table is gone: no call goes on
    cdef readonly TableShape shape
    cdef Memtable live
    cdef Version version_now
    cdef public uint64_t memtable_limit_bytes   # of the live one, whatever room there is,
    cdef public uint64_t memtable_share_bytes   # and what others leave it (cesium/budget.py)
    cdef uint64_t checks                # calls since the memtable was last checked (debug builds)

    # All three need the writer lock; they take `lock` themselves.
    cdef int apply_one(self, const Key *key, const Value *value) except -1
    cdef int apply_batch(self, const Batch *batch) except -1
    cdef int apply_delete_range(self, const Key *lower, const Key *upper, bint unbounded) except -1
    # Whether the memtable, or the journal, is due to be written out (writer lock held).
    cdef bint is_full(self) noexcept
    # Pins the live memtable into an empty snapshot; `lock` is held, exclusive.  STATUS_NOT_FOUND:
    # there is nothing to pin.  The snapshot is made before the lock is taken, because any
    # allocation of a Python object may run the collector, and finalizers with it.
    cdef int pin_into(self, MemtableSnapshot snapshot, uint64_t *changes) noexcept
    # In a debug build, checks every invariant of the live memtable; otherwise nothing.
    cdef int self_check(self) except -1
    cdef Frozen prepare_freeze(self)
    # ClosedError for a table that was dropped; before a commit with the writer lock held.
    cdef int check_there(self) except -1

# Puts a batch into a memtable that nobody else sees.
cdef int draft_batch(Memtable draft, const Batch *batch, Counters counters) except -1
