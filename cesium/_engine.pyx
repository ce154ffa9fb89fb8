"""The engine's locks, commits and a table's mutable state: see _engine.pxd for the contract."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, nanosleep, timespec

from cesium._counters cimport JOURNAL_BYTES, Counters, count_more, counted
from cesium._frames cimport JOURNAL_FRAME_ATTACH, JOURNAL_FRAME_COMMIT
from cesium._interval cimport IntervalSet
from cesium._journal cimport (
    JournalPart, JournalWriter, journal_append, journal_append_single, journal_end_position,
    journal_sync,
)
from cesium._layout cimport (
    STATUS_FULL, STATUS_IO, STATUS_LIMIT, STATUS_NOT_FOUND, STATUS_NO_MEMORY, STATUS_OK,
    STATUS_POISONED,
)
from cesium._memtable cimport (
    Memtable, MemtableCounters, MemtableSnapshot, MemtableState, memtable_check, memtable_counters,
    memtable_delete_range, memtable_markers, memtable_pin, memtable_put,
)
from cesium._native cimport SortPair, sort_columns, sort_strings
from cesium._page cimport Key, TableShape, Value
from cesium._version cimport Version, raise_plain
from cesium.errors import ClosedError, Error, LimitError, PoisonedError, ReadOnlyError
from cesium.io_errors import io_error

cdef extern from "<pthread.h>" nogil:
    """
    static int writer_first_lock_init(pthread_rwlock_t *lock) {
        /* A stream of readers must not starve a commit. */
        pthread_rwlockattr_t attributes;
        pthread_rwlockattr_init(&attributes);
    #ifdef PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    #endif
        int status = pthread_rwlock_init(lock, &attributes);
        pthread_rwlockattr_destroy(&attributes);
        return status;
    }
    """
    int writer_first_lock_init(pthread_rwlock_t *lock)
    int pthread_rwlock_destroy(pthread_rwlock_t *lock)
    int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
    int pthread_rwlock_tryrdlock(pthread_rwlock_t *lock)
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    uint64_t pthread_self()


cdef extern from "_fork.h":
    uint64_t process_forks

cdef extern from *:
    """
    #ifdef CESIUM_DEBUG
    #define DEBUG_BUILD 1
    #else
    #define DEBUG_BUILD 0
    #endif
    """
    const bint DEBUG_BUILD

cdef enum:
    FRAME_BYTES_MAX = 16777216  # a larger commit goes out as segments,
    FRAME_SHARE = 16            # and so does one of more than this part of the memory limit
    CHECKED_PAGES_A_CALL = 16   # what the check of a debug build may walk for each call, on average
    PACE_STEP_BYTES = 4096      # put between two looks at the clock
    PACE_SLEEP_LEAST = 200000   # nanoseconds: less adds up first, for a timer is 50 us late
    PACE_SLEEP_MOST = 2000000   # of one commit, however much it puts


cdef inline uint64_t now_nanoseconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_REALTIME, &moment)
    return <uint64_t>moment.tv_sec * 1000000000 + <uint64_t>moment.tv_nsec


cdef inline uint64_t monotonic_nanoseconds() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <uint64_t>moment.tv_sec * 1000000000 + <uint64_t>moment.tv_nsec


cdef class Engine:
    """Engine(host, journaled, unjournaled, sequence, memory_limit=none): see the header.

    host must have open_journal() -> JournalWriter and rotate_journal(bytes) -> JournalWriter,
    called under the writer lock, and journal_writer(), the last one that either of them gave;
    journal_path(number); memtable_full(core), make_room(), wait_for_turn(), schedule_sync() and
    checkpoint() are called with no lock.
    """

    def __cinit__(self, object host, bint journaled, bint unjournaled, uint64_t sequence,
                  uint64_t memory_limit=UINT64_MAX):
        if pthread_mutex_init(&self.writer, NULL) or writer_first_lock_init(&self.lock):
            raise MemoryError
        self.host = host
        self.journaled = journaled
        self.unjournaled = unjournaled
        self.sequence = sequence
        self.counters = Counters(memory_limit)
        self.frame_bytes_most = min(<uint64_t>FRAME_BYTES_MAX, memory_limit // FRAME_SHARE)
        self.memtables_most = UINT64_MAX
        self.pace_check = UINT64_MAX
        self.forks_now = &process_forks
        self.forks_before = process_forks

    def __dealloc__(self):
        pthread_mutex_destroy(&self.writer)
        pthread_rwlock_destroy(&self.lock)

    cdef int check_open(self) except -1:
        if self.closed:
            raise ClosedError("the store is closed")
        if self.forks_now[0] != self.forks_before:
            raise ClosedError("this store was opened before the process was forked: open it again "
                              "in the child")
        return 0

    @property
    def forked(self):
        """Whether this process is a child of the one that opened the store."""
        return self.forks_now[0] != self.forks_before

    cdef void lock_shared(self) noexcept:
        if pthread_rwlock_tryrdlock(&self.lock):
            with nogil:
                pthread_rwlock_rdlock(&self.lock)

    cdef void lock_exclusive(self) noexcept:
        if pthread_rwlock_trywrlock(&self.lock):
            with nogil:
                pthread_rwlock_wrlock(&self.lock)

    cdef void unlock(self) noexcept:
        pthread_rwlock_unlock(&self.lock)

    cdef int take_writer(self) except -1:
        if pthread_mutex_trylock(&self.writer):
            if self.writer_thread == pthread_self():
                raise Error("a write inside a write of the same thread (a signal handler, a "
                            "finalizer or a codec writes to the store that called it)")
            self.waits += 1
            with nogil:
                pthread_mutex_lock(&self.writer)
        self.writer_thread = pthread_self()
        return 0

    @property
    def is_writing_here(self):
        """Whether the calling thread is inside a write."""
        return self.writer_thread == pthread_self()

    cdef int make_way(self) except -1:
        if self.stalled:
            self.host.make_room()
        if self.bytes_put >= self.pace_check:
            self.wait_for_pace()
        return 0

    cdef int begin_commit(self) except -1:
        self.make_way()
        self.begin_write()
        while self.reserved:        # looked at under the lock, under which it is set
            self.end_write()
            self.host.wait_for_turn()
            self.begin_write()
        return 0

    def set_pace(self, rate):
        """From now on commits put at most `rate` bytes a second (0: as many as they like).

        A commit that is ahead of that waits, at most 2 ms: so writers slow down together with the
        maintenance, instead of stopping when there is no room left.
        """
        self.pace_rate = rate
        self.pace_bytes = self.bytes_put
        self.pace_time = monotonic_nanoseconds()
        self.pace_check = self.bytes_put + PACE_STEP_BYTES if rate else UINT64_MAX

    cdef void wait_for_pace(self) noexcept:
        # Threads may race here: the worst is one more look at the clock.
        cdef timespec pause
        cdef uint64_t rate = self.pace_rate
        cdef uint64_t put = self.bytes_put
        cdef uint64_t due
        cdef uint64_t before
        if rate == 0:
            return
        self.pace_check = put + PACE_STEP_BYTES
        before = monotonic_nanoseconds()
        due = self.pace_time + <uint64_t>(<double>(put - self.pace_bytes) * 1e9 / <double>rate)
        if due < before + PACE_SLEEP_LEAST:
            return
        pause.tv_sec = 0
        pause.tv_nsec = <long>min(due - before, <uint64_t>PACE_SLEEP_MOST)
        with nogil:
            nanosleep(&pause, NULL)
        self.stall_nanoseconds += monotonic_nanoseconds() - before

    cdef int begin_write(self) except -1:
        self.check_open()
        self.take_writer()
        try:
            self.check_open()
            if self.read_only:
                raise ReadOnlyError("the store was opened with flag='r'")
            if self.poisoned is not None:
                self.untold = False
                raise PoisonedError(f"an earlier write or sync failed ({self.poisoned}); close the "
                                    "store and open it again") from self.poisoned
        except BaseException:
            self.end_write()
            raise
        return 0

    cdef void end_write(self) noexcept:
        self.writer_thread = 0
        pthread_mutex_unlock(&self.writer)

    cdef int append_failed(self, int status) except -1:
        """Raises for a frame that was not appended; nothing of it is in the journal."""
        if status == STATUS_LIMIT:
            raise LimitError("the commit is larger than a journal frame may be (1 GiB)")
        if status == STATUS_IO:     # pages that could not be made writable, and may be later
            raise io_error(self.journal.file.error_number,
                           self.host.journal_path(self.journal.number))
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        if status == STATUS_POISONED:       # another thread's sync failed just now
            self.poison_by(self.journal)
        raise Error(f"the journal refused a frame (status {status})")

    cdef int fail_half_applied(self, int status) except -1:
        """The journal has the commit but memory does not: only reopening sets that right."""
        self.poisoned = MemoryError("a commit was journaled but could not be applied")
        return raise_plain(status)

    cdef int poison_by(self, JournalWriter journal) except -1:
        """What a failed sync means: no write succeeds any more."""
        if self.poisoned is None:
            self.poisoned = io_error(journal.file.failed or journal.file.error_number,
                                     self.host.journal_path(journal.number))
        raise PoisonedError(f"the commit could not be synced ({self.poisoned})") from self.poisoned

    cdef int rotate(self, uint64_t frame_bytes) except -1:
        """Goes on in the next journal file, or the first one that is written since opening."""
        try:
            if self.journal is None:
                self.journal = self.host.open_journal()
            else:
                self.journal = self.host.rotate_journal(frame_bytes)
        except BaseException:
            # Interrupted, but perhaps not before the next file said where this one ends: a frame
            # behind that place would be lost.
            self.journal = self.host.journal_writer()
            raise
        return 0

    cdef int append(self, uint8_t frame_type, const JournalPart *parts, int part_count,
                    uint32_t operations, uint64_t *end_position) except -1:
        cdef uint64_t size = 0
        cdef uint64_t moment
        cdef uint64_t sequence = self.sequence + 1
        cdef uint64_t before
        cdef int status
        cdef int index
        cdef JournalWriter journal
        if frame_type == JOURNAL_FRAME_COMMIT:
            for index in range(1, part_count):      # behind the operation's header
                self.bytes_put += parts[index].bytes
        if not self.journaled:
            end_position[0] = 0
            return 0
        moment = now_nanoseconds()
        if self.journal is None:
            self.rotate(0)
        while True:
            journal = self.journal
            before = journal.file.position
            with nogil:
                status = journal_append(&journal.file, frame_type, sequence, moment, parts,
                                        part_count, operations, end_position)
            if status == STATUS_OK:
                count_more(&self.counters.totals[JOURNAL_BYTES], end_position[0] - before)
                return 0
            if status != STATUS_FULL:
                self.append_failed(status)
            if size:
                raise Error("a fresh journal file is too small for the frame")
            for index in range(part_count):
                size += parts[index].bytes + 8
            self.rotate(size)

    cdef int append_single(self, uint32_t table, uint8_t kind, uint8_t flags, const void *key,
                           uint32_t key_bytes, const void *value, uint32_t value_bytes,
                           uint64_t *end_position) except -1:
        cdef uint64_t before
        cdef int status
        cdef bint rotated = False
        self.bytes_put += key_bytes + value_bytes
        if not self.journaled:
            end_position[0] = 0
            return 0
        if self.journal is None:
            self.rotate(0)
        while True:
            before = self.journal.file.position
            status = journal_append_single(&self.journal.file, self.sequence + 1,
                                           now_nanoseconds(), table, kind, flags, key, key_bytes,
                                           value, value_bytes, end_position)
            if status == STATUS_OK:
                count_more(&self.counters.totals[JOURNAL_BYTES], end_position[0] - before)
                return 0
            if status != STATUS_FULL:
                self.append_failed(status)
            if rotated:
                raise Error("a fresh journal file is too small for the frame")
            rotated = True
            self.rotate(key_bytes + value_bytes + 256)

    cdef int wait_synced(self, JournalWriter journal, uint64_t position) except -1:
        cdef int status
        if journal is None or position == 0:
            return 0
        with nogil:
            status = journal_sync(&journal.file, position)
        if status != STATUS_OK:
            self.poison_by(journal)
        return 0

    def commit_attach(self, bytes payload, TableCore core, Version version, output):
        """Commits a load (writer lock held): its attach frame, then its version.  Gives what to
        sync to.

        payload: JSON bytes.  output.committed is set once the frame is there: from then on the
        files belong to the store.  No Python runs in between, so no KeyboardInterrupt parts the
        two.
        """
        cdef JournalPart parts[2]
        cdef uint64_t length = len(payload)
        cdef uint64_t position = 0
        parts[0].data = &length
        parts[0].bytes = 8
        parts[1].data = PyBytes_AS_STRING(payload)
        parts[1].bytes = length
        core.check_there()
        self.append(JOURNAL_FRAME_ATTACH, parts, 2, 0, &position)
        output.committed = True
        core.publish(version)
        self.sequence += 1
        return self.journal, position

    def durable_position(self):
        """(journal, position) that a sync has to reach for every commit so far."""
        if self.journal is None:
            return None, 0
        return self.journal, journal_end_position(&self.journal.file)

    def wait(self, JournalWriter journal, uint64_t position):
        """Waits until the journal is on stable storage up to the position.

        PoisonedError when the drive fails.
        """
        self.wait_synced(journal, position)


cdef class WriteGuard:
    """`with WriteGuard(engine):` holds the writer lock, for the Python side of flush and recovery.

    closing: also where no write may begin, because the store is read-only or poisoned.  commits:
    for a commit, which waits for the transaction that has reserved them.
    """

    cdef Engine engine
    cdef bint closing
    cdef bint commits

    def __cinit__(self, Engine engine, bint closing=False, bint commits=False):
        self.engine = engine
        self.closing = closing
        self.commits = commits

    def __enter__(self):
        if self.closing:
            self.engine.take_writer()
        elif self.commits:
            self.engine.begin_commit()
        else:
            self.engine.begin_write()
        return self

    def __exit__(self, *exception):
        self.engine.end_write()


cdef class Frozen:
    pass


cdef class TableCore:
    """TableCore(engine, table_id, shape, memtable_limit_bytes): one table's mutable state."""

    def __cinit__(self, Engine engine, uint32_t table_id, TableShape shape,
                  uint64_t memtable_limit_bytes):
        self.engine = engine
        self.table_id = table_id
        self.shape = shape
        self.memtable_limit_bytes = memtable_limit_bytes
        self.memtable_share_bytes = memtable_limit_bytes
        self.live = Memtable(shape, engine.counters)
        self.version_now = Version(shape, [], False)

    cdef bint is_full(self) noexcept:
        cdef MemtableCounters counters
        memtable_counters(self.live.state, &counters)
        return (counters.bytes > min(self.memtable_limit_bytes, self.memtable_share_bytes)
                or self.engine.checkpoint_due
                or self.engine.unwatched
                or counted(&self.engine.counters.memtable_bytes) > self.engine.memtables_most)

    cdef int check_there(self) except -1:
        if self.dropped:
            raise ClosedError("the table was dropped")
        return 0

    cdef int apply_one(self, const Key *key, const Value *value) except -1:
        cdef int status
        if pthread_rwlock_trywrlock(&self.engine.lock) == 0:
            status = memtable_put(self.live.state, key, value)
            pthread_rwlock_unlock(&self.engine.lock)
        else:       # not lock_exclusive: it would hold the lock while it waits for the GIL
            with nogil:
                pthread_rwlock_wrlock(&self.engine.lock)
                status = memtable_put(self.live.state, key, value)
                pthread_rwlock_unlock(&self.engine.lock)
        if status != STATUS_OK:
            self.engine.fail_half_applied(status)
        return 0

    cdef int apply_batch(self, const Batch *batch) except -1:
        cdef int status
        with nogil:
            status = put_sorted(self.live.state, batch, self.shape.shape.value_width,
                                self.engine.counters, &self.engine.lock)
        if status != STATUS_OK:
            self.engine.fail_half_applied(status)
        return 0

    cdef int apply_delete_range(self, const Key *lower, const Key *upper,
                                bint unbounded) except -1:
        cdef int status
        with nogil:
            pthread_rwlock_wrlock(&self.engine.lock)
            status = memtable_delete_range(self.live.state, lower, upper, unbounded)
            pthread_rwlock_unlock(&self.engine.lock)
        if status != STATUS_OK:
            self.engine.fail_half_applied(status)
        return 0

    # --- for checkpoint and maintenance; all under the writer lock but `version` ---------------

    @property
    def version(self):
        """The version as of now; holding it pins its files and frozen memtables."""
        self.engine.lock_shared()
        version = self.version_now
        self.engine.unlock()
        return version

    def publish(self, Version version):
        """Makes `version` the current one (writer lock held)."""
        _old = self.version_now         # let go of after the lock: it may unmap files
        self.engine.lock_exclusive()
        self.version_now = version
        self.engine.unlock()

    def freeze(self):
        """Turns the live memtable into the newest source of the version, and starts an empty one.

        Returns its MemtableSnapshot, or None when it holds nothing (writer lock held).
        """
        frozen = freeze_tables(self.engine, [self])
        return frozen[0] if frozen else None

    cdef Frozen prepare_freeze(self):
        cdef Frozen made = Frozen.__new__(Frozen)
        made.core = self
        made.fresh = Memtable(self.shape, self.engine.counters)
        made.snapshot = MemtableSnapshot(self.live)
        made.snapshot.last_sequence = self.engine.sequence
        made.version = Version(self.shape, [made.snapshot, *self.version_now.sources],
                               self.version_now.last_run_is_base)
        return made

    def live_is_empty(self):
        """Whether the live memtable holds no entry and no range-delete."""
        cdef MemtableCounters counters
        cdef const IntervalSet *markers = memtable_markers(self.live.state)
        memtable_counters(self.live.state, &counters)
        return counters.entries == 0 and (markers == NULL or markers.count == 0)

    def pin_live(self):
        """A MemtableSnapshot of the live memtable, or None when it is empty."""
        cdef MemtableSnapshot snapshot = MemtableSnapshot.__new__(MemtableSnapshot)
        cdef uint64_t changes
        cdef int status
        self.engine.lock_exclusive()
        status = self.pin_into(snapshot, &changes)
        self.engine.unlock()
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        return snapshot if status == STATUS_OK else None

    cdef int pin_into(self, MemtableSnapshot snapshot, uint64_t *changes) noexcept:
        cdef MemtableCounters counters
        cdef const IntervalSet *markers = memtable_markers(self.live.state)
        memtable_counters(self.live.state, &counters)
        changes[0] = counters.changes
        if counters.entries == 0 and (markers == NULL or markers.count == 0):
            return STATUS_NOT_FOUND
        snapshot.memtable = self.live
        snapshot.root = memtable_pin(self.live.state)
        return STATUS_NO_MEMORY if snapshot.root == NULL else STATUS_OK

    cdef int self_check(self) except -1:
        # A check walks the whole memtable, so a large one is checked more rarely.  The GIL stays
        # held, for snapshots are dropped under it, and the check walks what they pin.
        cdef MemtableCounters counters
        cdef int broken = 0
        if not DEBUG_BUILD:
            return 0
        self.engine.lock_shared()
        memtable_counters(self.live.state, &counters)
        self.checks += 1
        if self.checks * CHECKED_PAGES_A_CALL >= counters.pages:
            self.checks = 0
            broken = memtable_check(self.live.state)
        self.engine.unlock()
        if broken:
            raise AssertionError(f"invariant {broken} of the memtable is broken")
        return 0

    def live_counters(self):
        """What the live memtable holds, as a dict of counts and bytes."""
        cdef MemtableCounters counters
        self.engine.lock_shared()
        memtable_counters(self.live.state, &counters)
        self.engine.unlock()
        return counters


cdef int put_row(MemtableState *live, const Batch *batch, uint32_t value_width,
                 uint64_t row) noexcept nogil:
    cdef Key key
    cdef Value value
    key_of_row(batch.heads, batch.key_offsets, batch.key_data, row, &key)
    value_of_row(batch, value_width, row, &value)
    return memtable_put(live, &key, &value)


cdef int put_pair(MemtableState *live, const Batch *batch, uint32_t value_width,
                  const SortPair *pair, bint carried) noexcept nogil:
    """Put a row that was sorted: its head, with its value if `carried`, else with its number."""
    cdef Key key
    cdef Value value
    key.head = pair.key
    key.data = NULL
    key.bytes = 0
    if carried:
        value.kind = batch.kind
        value.data = <const uint8_t *>&pair.payload
        value.bytes = 8
    else:
        value_of_row(batch, value_width, pair.payload, &value)
    return memtable_put(live, &key, &value)


cdef int put_rows(MemtableState *live, const Batch *batch, uint32_t value_width,
                  const uint64_t *order) noexcept nogil:
    """Puts all rows, in the order given (NULL: as they stand)."""
    cdef uint64_t row
    cdef int status = STATUS_OK
    for row in range(batch.count):
        status = put_row(live, batch, value_width, order[row] if order != NULL else row)
        if status != STATUS_OK:
            break
    return status


cdef int put_sorted(MemtableState *live, const Batch *batch, uint32_t value_width,
                    Counters counters, pthread_rwlock_t *lock) noexcept nogil:
    """In key order, so that neighbours meet in cache; the sort is stable, so the last one wins.

    Values of 8 bytes travel with the keys: 2 M random rows of u8 -> f8 are put more than twice as
    fast as where each row is fetched, by its number, from where it lay before the sort.
    """
    cdef SortPair *pairs = NULL
    cdef uint64_t *order = NULL
    cdef uint64_t row
    cdef const uint64_t *carried = NULL
    cdef uint64_t held = batch.count * sizeof(SortPair) if batch.count > 16 else 0
    cdef int status = STATUS_OK
    count_more(&counters.buffer_bytes, held)
    if value_width == 8 and <uintptr_t>batch.rows % 8 == 0:
        carried = <const uint64_t *>batch.rows
    if batch.count > 16:
        if batch.heads != NULL:
            pairs = <SortPair *>malloc(batch.count * sizeof(SortPair))
            if pairs == NULL or sort_columns(batch.heads, carried, batch.count, pairs, 1):
                status = STATUS_NO_MEMORY
        else:
            order = <uint64_t *>malloc(batch.count * 8)
            if order == NULL or sort_strings(batch.key_offsets, batch.key_data, batch.count,
                                             order, 1):
                status = STATUS_NO_MEMORY
    if status == STATUS_OK:
        if lock != NULL:
            pthread_rwlock_wrlock(lock)
        if pairs == NULL:
            status = put_rows(live, batch, value_width, order)
        else:
            for row in range(batch.count):
                status = put_pair(live, batch, value_width, pairs + row, carried != NULL)
                if status != STATUS_OK:
                    break
        if lock != NULL:
            pthread_rwlock_unlock(lock)
    free(pairs)
    free(order)
    count_more(&counters.buffer_bytes, -held)
    return status


cdef int draft_batch(Memtable draft, const Batch *batch, Counters counters) except -1:
    # The GIL is kept: it is what keeps others off the draft.
    cdef int status = put_sorted(draft.state, batch, draft.shape.value_width, counters, NULL)
    return raise_plain(status) if status != STATUS_OK else 0


cdef int apply_parts(Engine engine, const CorePart *parts, uint32_t part_count,
                     const Operation *operations) except -1:
    cdef const Operation *operation = operations
    cdef uint32_t part
    cdef int status = STATUS_OK
    with nogil:
        pthread_rwlock_wrlock(&engine.lock)
        for part in range(part_count):
            for _ in range(parts[part].count):
                if operation.batch.count:
                    status = put_rows(parts[part].live, &operation.batch, parts[part].value_width,
                                      NULL)
                else:
                    status = memtable_delete_range(parts[part].live, &operation.lower,
                                                   &operation.upper, operation.unbounded)
                if status != STATUS_OK:
                    break
                operation += 1
            if status != STATUS_OK:
                break
        pthread_rwlock_unlock(&engine.lock)
    if status != STATUS_OK:
        engine.fail_half_applied(status)
    return 0


def freeze_tables(Engine engine not None, list cores not None):
    """Freezes what the live memtables of tables hold, all at one commit (writer lock held).

    Returns the MemtableSnapshots of those that hold anything.  All or none: an interrupt, or a lack
    of memory, does not come in between, for the journal of a commit is let go of once the
    memtables that were frozen with it, and before, are written out.
    """
    cdef list made = []
    cdef Frozen frozen
    cdef TableCore core
    for core in cores:
        if not core.live_is_empty():
            made.append(core.prepare_freeze())
    engine.lock_exclusive()
    for frozen in made:
        # Swapped, so that what goes goes with the list, after the lock: it may unmap files.
        frozen.core.live, frozen.fresh = frozen.fresh, frozen.core.live
        frozen.core.version_now, frozen.version = frozen.version, frozen.core.version_now
    engine.unlock()
    return [frozen.snapshot for frozen in made]
