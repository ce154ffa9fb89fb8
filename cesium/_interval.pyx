"""Range-delete markers as a sorted vector of disjoint intervals: see _interval.pxd.

Invariants of a set:
  1. every interval is non-empty: lower < upper, or unbounded
  2. intervals are sorted and do not touch: upper of one < lower of the next; only the last is
     unbounded
  3. in the variable form every non-empty key owns its bytes; in the fixed form `data` is NULL
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from cesium._layout cimport KEY_BYTES_MAX, STATUS_NO_MEMORY, STATUS_OK
from cesium._native cimport compare_bytes, load_head

cdef extern from *:
    uint64_t __atomic_add_fetch(uint64_t *word, uint64_t by, int order) noexcept nogil
    uint64_t __atomic_sub_fetch(uint64_t *word, uint64_t by, int order) noexcept nogil
    uint64_t __atomic_load_n(uint64_t *word, int order) noexcept nogil
    int __ATOMIC_RELAXED
    int __ATOMIC_ACQUIRE
    int __ATOMIC_ACQ_REL

cdef uint64_t held = 0


cdef int key_compare(bint fixed, const Key *a, const Key *b) noexcept nogil:
    if a.head != b.head:
        return -1 if a.head < b.head else 1
    if fixed:
        return 0
    return compare_bytes(a.data, a.bytes, b.data, b.bytes)


cdef inline void account(IntervalSet *intervals, int64_t bytes) noexcept nogil:
    # A negative count wraps around, as unsigned arithmetic may.
    intervals.bytes += <uint64_t>bytes
    __atomic_add_fetch(&held, <uint64_t>bytes, __ATOMIC_RELAXED)


cdef inline uint32_t owned_bytes(const IntervalSet *intervals, const Key *key) noexcept nogil:
    return 0 if intervals.fixed or key.data == NULL else key.bytes


cdef inline int own_key(IntervalSet *intervals, Key *copy, const Key *key) noexcept nogil:
    copy.head = key.head
    copy.data = NULL
    copy.bytes = 0
    if intervals.fixed or key.bytes == 0:
        return STATUS_OK
    copy.data = <const uint8_t *>malloc(key.bytes)
    if copy.data == NULL:
        return STATUS_NO_MEMORY
    memcpy(<void *>copy.data, key.data, key.bytes)
    copy.bytes = key.bytes
    account(intervals, copy.bytes)
    return STATUS_OK


cdef inline void disown_key(IntervalSet *intervals, Key *key) noexcept nogil:
    account(intervals, -<int64_t>owned_bytes(intervals, key))
    free(<void *>key.data)
    key.data = NULL


cdef int reserve(IntervalSet *intervals, uint32_t capacity) noexcept nogil:
    cdef Interval *items
    if capacity <= intervals.capacity:
        return STATUS_OK
    capacity = max(capacity, 2 * intervals.capacity)
    items = <Interval *>realloc(intervals.items, capacity * sizeof(Interval))
    if items == NULL:
        return STATUS_NO_MEMORY
    account(intervals, <int64_t>((capacity - intervals.capacity) * sizeof(Interval)))
    intervals.items = items
    intervals.capacity = capacity
    return STATUS_OK


cdef IntervalSet *interval_set_new(bint fixed) noexcept nogil:
    cdef IntervalSet *intervals = <IntervalSet *>malloc(sizeof(IntervalSet))
    if intervals == NULL:
        return NULL
    intervals.items = NULL
    intervals.count = 0
    intervals.capacity = 0
    intervals.references = 1
    intervals.bytes = 0
    intervals.fixed = fixed
    account(intervals, sizeof(IntervalSet))
    return intervals


cdef IntervalSet *interval_set_copy(const IntervalSet *intervals) noexcept nogil:
    cdef IntervalSet *copy = interval_set_new(intervals.fixed)
    cdef Interval *item
    cdef const Interval *original
    cdef uint32_t index
    # One slot more than now: a copy is made in order to add.
    if copy == NULL or reserve(copy, intervals.count + 1) != STATUS_OK:
        interval_set_release(copy)
        return NULL
    for index in range(intervals.count):
        item = copy.items + index
        original = intervals.items + index
        item.unbounded = original.unbounded
        item.upper.data = NULL
        if own_key(copy, &item.lower, &original.lower) != STATUS_OK:
            interval_set_release(copy)
            return NULL
        copy.count += 1         # from here on the release frees what this item owns
        if not item.unbounded and own_key(copy, &item.upper, &original.upper) != STATUS_OK:
            interval_set_release(copy)
            return NULL
    return copy


cdef void interval_set_retain(IntervalSet *intervals) noexcept nogil:
    if intervals != NULL:
        __atomic_add_fetch(&intervals.references, 1, __ATOMIC_RELAXED)


cdef void interval_set_release(IntervalSet *intervals) noexcept nogil:
    cdef uint32_t index
    if intervals == NULL or __atomic_sub_fetch(&intervals.references, 1, __ATOMIC_ACQ_REL):
        return
    for index in range(intervals.count):
        disown_key(intervals, &intervals.items[index].lower)
        disown_key(intervals, &intervals.items[index].upper)
    free(intervals.items)
    __atomic_sub_fetch(
        &held, intervals.capacity * sizeof(Interval) + sizeof(IntervalSet), __ATOMIC_RELAXED)
    free(intervals)


cdef bint interval_set_is_sole(IntervalSet *intervals) noexcept nogil:
    return __atomic_load_n(&intervals.references, __ATOMIC_ACQUIRE) == 1


cdef inline bint ends_above(const IntervalSet *intervals, const Interval *item,
                            const Key *key) noexcept nogil:
    return item.unbounded or key_compare(intervals.fixed, &item.upper, key) > 0


cdef inline bint ends_below(const IntervalSet *intervals, const Interval *item,
                            const Key *key) noexcept nogil:
    return not item.unbounded and key_compare(intervals.fixed, &item.upper, key) < 0


cdef int interval_set_add(IntervalSet *intervals, const Key *lower, const Key *upper,
                          bint unbounded) noexcept nogil:
    cdef uint32_t first = 0     # the intervals [first, last) touch the new one and are absorbed
    cdef uint32_t last
    cdef uint32_t high = intervals.count
    cdef uint32_t middle
    cdef uint32_t index
    cdef bint keep_lower = False
    cdef bint keep_upper = False
    cdef Interval merged
    cdef Interval *items
    cdef bint fixed = intervals.fixed
    if not unbounded and key_compare(fixed, lower, upper) >= 0:
        return STATUS_OK
    while first < high:
        middle = (first + high) >> 1
        if ends_below(intervals, intervals.items + middle, lower):
            first = middle + 1
        else:
            high = middle
    last = first
    high = intervals.count
    while last < high:
        middle = (last + high) >> 1
        if unbounded or key_compare(fixed, &intervals.items[middle].lower, upper) <= 0:
            last = middle + 1
        else:
            high = middle
    # Every allocation comes before the first change.
    if first == last and reserve(intervals, intervals.count + 1) != STATUS_OK:
        return STATUS_NO_MEMORY
    items = intervals.items
    merged.unbounded = unbounded
    merged.lower.data = NULL
    merged.upper.data = NULL
    if first < last:
        keep_lower = key_compare(fixed, &items[first].lower, lower) <= 0
        keep_upper = not unbounded and not ends_below(intervals, items + last - 1, upper)
        if keep_lower and keep_upper and last == first + 1:
            return STATUS_OK    # already covered
    if not keep_lower and own_key(intervals, &merged.lower, lower) != STATUS_OK:
        return STATUS_NO_MEMORY
    if not keep_upper and not unbounded:
        if own_key(intervals, &merged.upper, upper) != STATUS_OK:
            disown_key(intervals, &merged.lower)
            return STATUS_NO_MEMORY
    if keep_lower:
        merged.lower = items[first].lower
        items[first].lower.data = NULL
    if keep_upper:
        merged.upper = items[last - 1].upper
        merged.unbounded = items[last - 1].unbounded
        items[last - 1].upper.data = NULL
    for index in range(first, last):
        disown_key(intervals, &items[index].lower)
        disown_key(intervals, &items[index].upper)
    memmove(items + first + 1, items + last, (intervals.count - last) * sizeof(Interval))
    items[first] = merged
    intervals.count = intervals.count - (last - first) + 1
    return STATUS_OK


cdef const Interval *interval_set_at_or_after(const IntervalSet *intervals,
                                              const Key *key) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high
    cdef uint32_t middle
    if intervals == NULL:
        return NULL
    high = intervals.count
    while low < high:
        middle = (low + high) >> 1
        if ends_above(intervals, intervals.items + middle, key):
            high = middle
        else:
            low = middle + 1
    return intervals.items + low if low < intervals.count else NULL


cdef const Interval *interval_set_at_or_before(const IntervalSet *intervals,
                                               const Key *key) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high
    cdef uint32_t middle
    if intervals == NULL:
        return NULL
    high = intervals.count
    while low < high:
        middle = (low + high) >> 1
        if key_compare(intervals.fixed, &intervals.items[middle].lower, key) <= 0:
            low = middle + 1
        else:
            high = middle
    return intervals.items + low - 1 if low else NULL


cdef const Interval *interval_set_find(const IntervalSet *intervals,
                                       const Key *key) noexcept nogil:
    cdef const Interval *item = interval_set_at_or_before(intervals, key)
    if item != NULL and ends_above(intervals, item, key):
        return item
    return NULL


# --- the debugging face ------------------------------------------------------------------------


cdef int key_from_object(object value, bint fixed, Key *key) except -1:
    key.data = NULL
    key.bytes = 0
    if fixed:
        key.head = value
        return 0
    if not isinstance(value, bytes) or len(value) > KEY_BYTES_MAX:
        raise TypeError(f"expected an encoded key of at most {KEY_BYTES_MAX} bytes, not {value!r}")
    key.data = <const uint8_t *>PyBytes_AS_STRING(value)
    key.bytes = <uint32_t>PyBytes_GET_SIZE(value)
    key.head = load_head(key.data, key.bytes)
    return 0


cdef object key_to_object(bint fixed, const Key *key):
    if fixed:
        return key.head
    return PyBytes_FromStringAndSize(<const char *>key.data, key.bytes)


cdef list interval_set_to_list(const IntervalSet *intervals):
    cdef list answer = []
    cdef const Interval *item
    cdef uint32_t index
    if intervals == NULL:
        return answer
    for index in range(intervals.count):
        item = intervals.items + index
        answer.append((
            key_to_object(intervals.fixed, &item.lower),
            None if item.unbounded else key_to_object(intervals.fixed, &item.upper),
        ))
    return answer


cdef uint64_t held_interval_bytes() noexcept nogil:
    return __atomic_load_n(&held, __ATOMIC_RELAXED)


def held_bytes():
    """Bytes of memory that all interval sets of this process hold now."""
    return held_interval_bytes()


cdef class Intervals:
    """The debugging face of an interval set; single-threaded.

    fixed: keys are ints (heads, 0 to 2**64 - 1); otherwise bytes.  An upper end of None is
    unbounded.
    """

    def __init__(self, bint fixed):
        interval_set_release(self.intervals)
        self.intervals = interval_set_new(fixed)
        if self.intervals == NULL:
            raise MemoryError

    def __dealloc__(self):
        interval_set_release(self.intervals)

    def copy(self):
        """An independent set with the same intervals."""
        cdef Intervals other = Intervals.__new__(Intervals)
        other.intervals = interval_set_copy(self.intervals)
        if other.intervals == NULL:
            raise MemoryError
        return other

    def add(self, lower, upper):
        """Adds [lower, upper), coalescing; an empty interval changes nothing."""
        cdef Key low
        cdef Key high
        key_from_object(lower, self.intervals.fixed, &low)
        if upper is None:
            high = low
        else:
            key_from_object(upper, self.intervals.fixed, &high)
        if interval_set_add(self.intervals, &low, &high, upper is None) != STATUS_OK:
            raise MemoryError

    def items(self):
        """A list of (lower, upper or None), ascending."""
        return interval_set_to_list(self.intervals)

    cdef object describe(self, const Interval *item):
        if item == NULL:
            return None
        return interval_set_to_list(self.intervals)[item - self.intervals.items]

    def find(self, key):
        """The interval that holds the key, or None."""
        cdef Key wanted
        key_from_object(key, self.intervals.fixed, &wanted)
        return self.describe(interval_set_find(self.intervals, &wanted))

    def at_or_after(self, key):
        """The first interval whose end lies above the key, or None."""
        cdef Key wanted
        key_from_object(key, self.intervals.fixed, &wanted)
        return self.describe(interval_set_at_or_after(self.intervals, &wanted))

    def at_or_before(self, key):
        """The last interval whose lower end is at or below the key, or None."""
        cdef Key wanted
        key_from_object(key, self.intervals.fixed, &wanted)
        return self.describe(interval_set_at_or_before(self.intervals, &wanted))

    @property
    def bytes(self):
        """Bytes of memory that this set holds."""
        return self.intervals.bytes
