# Reading ahead of a batch of lookups: the pages that its next keys need are asked for while those
# of its first are searched, so that the drive has a queue.
#
# A batch over warm pages asks for nothing.  What a batch looks like is found out as it goes: its
# first group of keys meets pages that were never touched, or a group takes as long as only the
# drive does.  Then the routes of later keys are followed up to AHEAD_PAGES ahead, until samples
# say that the pages are in memory.
#
# Thread safety: an AheadWindow belongs to one thread.  No Python objects.  Nothing here fails: what
# is wrong with a segment is told by the lookup itself.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cesium._native cimport SortPair
from cesium._page cimport Shape
from cesium._segment cimport Segment
from cesium._segment_run cimport SegmentRun

cdef enum:
    AHEAD_PAGES = 256           # twice what fills the queue of a drive; 1 MiB of memory
    AHEAD_GROUP = 32            # keys that are routed together

cdef struct AheadWindow:        # zeroed by its owner
    bint cold                   # read ahead
    uint32_t calm               # groups that may be slow before that is looked into again
    uint32_t calm_next
    uint32_t resident           # samples in a row that were in memory
    int64_t moment              # when the last group ended
    uint64_t pages              # asked for so far
    uint64_t keys[AHEAD_PAGES]  # which key needs the page, by number of page asked for
    Segment *segment            # of the last page
    uint32_t number
    uint64_t span_first         # pages next to one another that were not asked for yet
    uint32_t span_pages

# Whether a further page must wait until the key `done` and those behind it were looked up.
cdef bint window_is_full(const AheadWindow *window, uint64_t done) noexcept nogil
# Asks for a page; `key` counts keys in the order of lookup.
cdef void window_ask(AheadWindow *window, Segment *segment, uint32_t number,
                     uint64_t key) noexcept nogil
# Comes behind the last window_ask of a call.
cdef void window_flush(AheadWindow *window) noexcept nogil
# Before the first group: `untouched` says whether one of its pages was never checked.
cdef void window_begin(AheadWindow *window, bint untouched) noexcept nogil
# Behind each group of keys: a group that took longer than `most` has waited for the drive.
cdef void window_group_done(AheadWindow *window, int64_t most_nanoseconds) noexcept nogil

cdef struct BatchAhead:         # of pairs sorted by key, in one run
    AheadWindow window
    const Shape *shape
    const SegmentRun *run
    const SortPair *pairs
    uint64_t count
    uint64_t next               # first pair that is not routed yet
    uint32_t routed             # pages of the group routed last, and how many were asked for
    uint32_t asked
    uint32_t numbers[AHEAD_GROUP]
    uint64_t places[AHEAD_GROUP]
    Segment *segment

cdef void batch_ahead_init(BatchAhead *ahead, const Shape *shape, const SegmentRun *run,
                           const SortPair *pairs, uint64_t count) noexcept nogil
# Comes before the pages of a group are touched; pairs before `done` were looked up.
cdef void batch_ahead_group(BatchAhead *ahead, Segment *segment, const uint32_t *ordinals,
                            uint32_t count, uint64_t done) noexcept nogil
# Comes after that.
cdef void batch_ahead_group_done(BatchAhead *ahead) noexcept nogil
