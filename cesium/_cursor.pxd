# The ordered read: a k-way merge over sources, newest first, in either direction.
#
# A cursor yields *runs*: consecutive slots of one page, all visible.  Every consumer (count,
# arrays, iteration, flush, merge) takes runs, so order, shadowing and range-deletes are decided
# here alone.
#
# Rules: of equal keys the newest source's entry counts; a delete marker hides older entries of its
# key; a range-delete marker hides entries of *older* sources in its interval, never its own
# source's.
#
# Thread safety: a cursor belongs to one thread at a time.  What it reads must be pinned by its
# owner for as long as it lives.  No Python objects; no lock is taken.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from cesium._gap cimport Gaps
from cesium._interval cimport IntervalSet
from cesium._page cimport Key, PageSource, Position, Shape

cdef struct Input:              # one source under the merge
    PageSource source
    const PageSource *parts     # of a run of several segments, by the ordinal's upper half; or NULL
    uint32_t first_part         # those that it stood in since cursor_whole; none if above last
    uint32_t last_part
    const IntervalSet *markers  # hide what older inputs hold; may be NULL
    Position position           # smallest (backwards: largest) entry not yet consumed
    Key key                     # its key; variable form: bytes in `buffer`
    uint8_t *buffer
    uint64_t buffer_bytes

cdef struct Bounds:             # [lower, upper) over encoded keys; data borrowed
    Key lower
    Key upper
    bint unbounded              # no upper end

cdef struct Run:
    const uint8_t *page
    uint32_t first              # slots [first, last), to be walked downwards by a backward cursor
    uint32_t last
    const PageSource *source    # for overflowed keys and values

cdef struct Cursor:
    const Shape *shape
    Input *inputs               # newest first
    uint32_t count
    int direction               # +1 or -1
    bint keep_markers           # yield delete markers too (a merge above the last tier)
    Bounds bounds
    bint started
    uint64_t runs               # statistics: runs yielded
    Gaps gaps                   # of delete markers that were passed over

cdef struct Rows:               # where rows are copied to; fixed forms use caller-owned arrays
    uint64_t count              # rows held
    uint64_t capacity           # rows that heads/rows/offsets have room for
    uint64_t *heads             # fixed keys
    int64_t *key_offsets        # variable keys: [capacity + 1], data growing
    uint8_t *key_data
    uint64_t key_data_bytes
    uint8_t *rows               # fixed values: packed rows
    int64_t *value_offsets      # variable values
    uint8_t *value_data
    uint64_t value_data_bytes
    bint skip_values            # keys only: values are not copied

cdef Cursor *cursor_new(const Shape *shape, uint32_t inputs, int direction,
                        bint keep_markers) noexcept nogil
cdef void cursor_free(Cursor *cursor) noexcept nogil
# The next visible run: STATUS_OK, STATUS_NOT_FOUND at the end, anything else an error of a source.
# `pending` is the cursor's own memory between calls; zero it before the first.  Bounds are
# borrowed.
cdef int cursor_next(Cursor *cursor, Run *pending, Run *run) noexcept nogil
# Gives back the part of a run that was not used.
cdef void cursor_give_back(Cursor *cursor, Run *pending, const Run *rest) noexcept nogil
# Copies up to `limit` further rows; STATUS_OK, or STATUS_NOT_FOUND when the end was reached
# (rows->count says how many there are all the same).
cdef int cursor_fill(Cursor *cursor, Run *pending, Rows *rows, uint64_t limit) noexcept nogil
# Passes over up to `limit` rows; *skipped says how many there were.  Status as above.
cdef int cursor_skip(Cursor *cursor, Run *pending, uint64_t limit,
                     uint64_t *skipped) noexcept nogil

# segment_whole of every segment that was looked at since the last time; comes after all reading.
# cursor_fill and cursor_skip have done it.
cdef int cursor_whole(Cursor *cursor) noexcept nogil

# For a consumer that walks the inputs' pages by itself, forwards and without bounds: the first page
# of an input; what cursor_whole needs to know after each step or seek; whether a seek went forward,
# as it does not in an unsorted page (damage that kept its checksum).
cdef int input_enter(Input *input) noexcept nogil
cdef void input_note_part(Input *input) noexcept nogil
cdef bint position_is_behind(const Position *position, const Position *before) noexcept nogil

cdef int rows_reserve(const Shape *shape, Rows *rows, uint64_t capacity) noexcept nogil
cdef void rows_free(Rows *rows) noexcept nogil
