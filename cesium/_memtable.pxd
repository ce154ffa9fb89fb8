# The mutable sorted vector: pages under a two-level directory, copy-on-write under snapshots.
#
# Search the directory, shift inside one page, split a full page, join thin neighbours; a node of
# the directory that grows too long splits too.  Never a reconstruction.
#
# Thread safety: the engine's rwlock.  `memtable_find` needs it shared; every function that changes,
# and `memtable_pin`, needs it exclusive; `memtable_unpin` takes the memtable's own mutex and may be
# called from any thread at any time.  A pinned MemtableRoot and all that it reaches never change.
#
# Copy-on-write: a page, node, root or overflow chunk whose generation is not above the newest live
# snapshot's is copied (or, a chunk, retired) instead of changed, and freed after its last pin.

from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._interval cimport IntervalSet
from cesium._page cimport Key, PageSource, Position, Shape, Value
from cesium._view cimport View

cdef struct MemtableRoot        # opaque: the directory as of one generation
cdef struct MemtableState       # opaque

cdef struct MemtableCounters:   # what tests and stats ask for
    uint64_t entries            # slots, delete markers included
    uint64_t delete_markers
    uint64_t bytes              # memory held: pages, directory, overflow chunks, retired ones too
    uint64_t held               # taken from the system: the same and free pages
    uint64_t pages
    uint64_t splits
    uint64_t joins
    uint64_t page_copies        # copy-on-write
    uint64_t rebuilds           # a page laid out anew: prefix or capacity changed
    uint64_t retired            # objects awaiting their last unpin
    uint64_t changes            # bumped by every change

cdef MemtableState *memtable_new(const Shape *shape) noexcept nogil     # NULL: no memory
cdef void memtable_free(MemtableState *memtable) noexcept nogil         # no pin may be left

# Inserts or overwrites.  value.kind KIND_VALUE or KIND_DELETE.  Key and value are copied; long ones
# go to chunks of their own.  STATUS_OK, or STATUS_NO_MEMORY with nothing changed.
cdef int memtable_put(MemtableState *memtable, const Key *key, const Value *value) noexcept nogil
# Removes own entries in [lower, upper) and adds the interval to the markers.
cdef int memtable_delete_range(MemtableState *memtable, const Key *lower, const Key *upper,
                               bint unbounded) noexcept nogil
# STATUS_OK: *position holds the entry (any kind); STATUS_NOT_FOUND: no entry of this key, and
# *masked says whether a marker covers it.
cdef int memtable_find(MemtableState *memtable, const Key *key, Position *position,
                       bint *masked) noexcept nogil

# Whether [lower, upper) has an entry that is not a delete marker (the lock as for memtable_find).
cdef bint memtable_has_values(MemtableState *memtable, const Key *lower,
                              const Key *upper) noexcept nogil

cdef MemtableRoot *memtable_pin(MemtableState *memtable) noexcept nogil     # NULL: no memory
cdef void memtable_unpin(MemtableState *memtable, MemtableRoot *root) noexcept nogil
cdef void memtable_root_source(MemtableRoot *root, PageSource *source) noexcept nogil
cdef const IntervalSet *memtable_root_markers(MemtableRoot *root) noexcept nogil
cdef uint64_t memtable_root_entries(MemtableRoot *root) noexcept nogil
cdef uint64_t memtable_root_delete_markers(MemtableRoot *root) noexcept nogil
cdef const IntervalSet *memtable_markers(MemtableState *memtable) noexcept nogil    # under the lock

cdef void memtable_counters(MemtableState *memtable, MemtableCounters *counters) noexcept nogil
# Every invariant, walked: 0, or the number of the one that is broken (see _memtable.pyx).
cdef int memtable_check(MemtableState *memtable) noexcept nogil

cdef class Memtable:            # owns a MemtableState for the lifetime of its Python references
    cdef MemtableState *state
    cdef Shape shape
    cdef PyObject *owner        # Counters, which count the memory, or NULL; a reference

cdef class MemtableSnapshot:    # owns one pin
    cdef readonly Memtable memtable
    cdef public uint64_t last_sequence      # of a frozen memtable: that of its last commit
    cdef MemtableRoot *root
    cdef View *view(self) except NULL
