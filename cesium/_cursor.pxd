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
    const uint8_t *edge_page    # the page whose edge is known:
    uint32_t edge               # slots below it (backwards: from it on) are inside the bounds
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

cdef struct Contender:          # an input that has not ended, in the heap
    uint64_t order              # the head of its key; backwards its complement
    uint32_t input

cdef struct Cursor:
    const Shape *shape
    Input *inputs               # newest first
    uint32_t count
    int direction               # +1 or -1
    bint keep_markers           # yield delete markers too (a merge above the last tier)
    Bounds bounds
    bint started
    int failed                  # the first error of a source: there is no way on from it
    Contender *heap             # the input with the next key is its root; of equal keys the newest
    uint32_t heap_count
    uint32_t *marked            # the inputs that have range-deletes, newest first
    uint32_t marked_count
    uint64_t runs               # statistics: runs yielded
    Gaps gaps                   # of delete markers that were passed over
    void *aheads                # of _scan_ahead: one for each input, or NULL

cdef Cursor *cursor_new(const Shape *shape, uint32_t inputs, int direction,
                        bint keep_markers) noexcept nogil
cdef void cursor_free(Cursor *cursor) noexcept nogil
# The next visible run: STATUS_OK, STATUS_NOT_FOUND at the end, anything else an error of a source.
# `pending` is the cursor's own memory between calls; zero it before the first.  Bounds are
# borrowed.
cdef int cursor_next(Cursor *cursor, Run *pending, Run *run) noexcept nogil
# Gives back the part of a run that was not used.
cdef void cursor_give_back(Cursor *cursor, Run *pending, const Run *rest) noexcept nogil
# segment_whole of every segment that was looked at since the last time; comes after all reading.
cdef int cursor_whole(Cursor *cursor) noexcept nogil

# For a consumer that walks the inputs' pages by itself, forwards and without bounds: the first page
# of an input; what cursor_whole needs to know after each step or seek; whether a seek went forward,
# as it does not in an unsorted page (damage that kept its checksum).
cdef int input_enter(Input *input) noexcept nogil
cdef void input_note_part(Input *input) noexcept nogil
cdef bint position_is_behind(const Position *position, const Position *before) noexcept nogil
