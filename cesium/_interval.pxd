# A sorted set of disjoint, half-open key intervals: the range-delete markers of one source.
#
# Adding an interval coalesces it with those that it touches.  The set owns its bytes.  Not thread
# safe: the memtable that owns a set changes it only while nobody shares it and otherwise replaces
# it (copy, change, publish), so that snapshots keep the one they pinned; a segment's set never
# changes.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._page cimport Key

cdef struct Interval:           # [lower, upper) over encoded keys
    Key lower
    Key upper                   # meaningless when unbounded
    bint unbounded              # no upper end

cdef struct IntervalSet:
    Interval *items
    uint32_t count
    uint32_t capacity
    uint64_t references         # atomic; interval_set_release frees at zero
    uint64_t bytes              # memory held, this struct included
    bint fixed                  # keys are heads alone; no bytes are owned

# Order of two keys in either form: -1, 0, 1.
cdef int key_compare(bint fixed, const Key *a, const Key *b) noexcept nogil
cdef IntervalSet *interval_set_new(bint fixed) noexcept nogil           # NULL: no memory
cdef IntervalSet *interval_set_copy(const IntervalSet *intervals) noexcept nogil
cdef void interval_set_retain(IntervalSet *intervals) noexcept nogil    # NULL is allowed
cdef void interval_set_release(IntervalSet *intervals) noexcept nogil   # NULL is allowed
# Whether the caller holds the only reference.
cdef bint interval_set_is_sole(IntervalSet *intervals) noexcept nogil
# Adds a copy of [lower, upper); an empty interval is ignored.  STATUS_OK, or STATUS_NO_MEMORY with
# nothing changed.
cdef int interval_set_add(IntervalSet *intervals, const Key *lower, const Key *upper,
                          bint unbounded) noexcept nogil
# The interval that holds the key, or NULL.  NULL set = empty set.
cdef const Interval *interval_set_find(const IntervalSet *intervals, const Key *key) noexcept nogil
# The first interval whose end lies above the key (it may or may not hold it), or NULL; and the last
# interval whose lower end is <= key, or NULL.
cdef const Interval *interval_set_at_or_after(const IntervalSet *intervals,
                                              const Key *key) noexcept nogil
cdef const Interval *interval_set_at_or_before(const IntervalSet *intervals,
                                               const Key *key) noexcept nogil

# For the debugging faces: a Python int (fixed form, the head) or bytes (variable form, borrowed) as
# a Key and back; a set as a list of (lower, upper or None).
cdef int key_from_object(object value, bint fixed, Key *key) except -1
cdef object key_to_object(bint fixed, const Key *key)
cdef list interval_set_to_list(const IntervalSet *intervals)
# Bytes that all sets of the process hold: leak tests ask.
cdef uint64_t held_interval_bytes() noexcept nogil

cdef class Intervals:           # owns one reference to a set
    cdef IntervalSet *intervals
    cdef object describe(self, const Interval *item)
