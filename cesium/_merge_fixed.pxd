# The merge of fixed keys with fixed rows: a tournament over the inputs' heads, a page at a time.
#
# It walks the inputs of a Cursor by itself (their positions' pages; slots are its own), in place of
# cursor_next.  A loser tree says which input has the smallest head, the newest first among equal
# ones; what is picked goes to the builder's page in the making in two passes, heads and then rows.
# Where one input wins again and again, whole stretches are copied, and pages that interleave with
# nothing are taken as they are.  One thread at a time; no Python objects.
#
# Rows come out in strictly ascending order or not at all: a page that is unsorted (damage that kept
# its checksum) is STATUS_CORRUPT, so a damaged input neither spoils an output nor keeps a merge
# going for ever.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cesium._builder cimport Builder
from cesium._cursor cimport Cursor
from cesium._layout cimport PAGE_BYTES

cdef enum:
    MERGE_ROOM = PAGE_BYTES // 8    # slots of a page, at most

cdef struct Node:                   # one contestant: its next head, and who it is
    uint64_t head
    uint64_t lane                   # input; with LANE_ENDED when it has none left

cdef struct Lane:                   # one input's page
    const uint8_t *page
    const uint64_t *heads
    const uint8_t *kinds            # NULL: all plain values
    const uint8_t *base             # where a picked row's place begins, and how far slots are apart
    uint32_t stride
    uint32_t slot
    uint32_t end                    # slots below it are hidden by no newer source's range-delete
    uint32_t count

cdef struct FixedMerge:
    Cursor *cursor                  # borrowed
    bint keep_markers
    bint started
    int failed                      # the first error of a source: there is no way on from it
    bint marked                     # some input has range-deletes
    bint any                        # `last` holds something
    uint64_t last                   # the last head that was decided on
    uint32_t leaves                 # a power of two
    uint32_t streak                 # how often the last winner won in a row
    uint64_t streak_lane
    Lane *lanes
    Node *losers                    # [leaves], one of each match, from 1 on; and room for start()
    Node winner
    uint64_t rows                   # moved or dropped, in all
    uint64_t whole_pages            # taken as they are, and the rows in them
    uint64_t whole_rows
    # the batch in the making
    const uint8_t *places[MERGE_ROOM]
    uint16_t slots[MERGE_ROOM]

cdef enum Reason:                   # why a merge came back; Merge.write documents them
    REASON_DONE
    REASON_FULL
    REASON_STOPPED
    REASON_MORE

# For a cursor that is not started and has no bounds; NULL when there is no memory.
cdef FixedMerge *fixed_merge_new(Cursor *cursor, bint keep_markers) noexcept nogil
cdef void fixed_merge_free(FixedMerge *merge) noexcept nogil
# The smallest head of all inputs: STATUS_OK or STATUS_NOT_FOUND; or an error of a source.
cdef int fixed_merge_head(FixedMerge *merge, uint64_t *head) noexcept nogil
# Moves rows until there is a reason not to (Merge.write names them).  `stop` may be NULL.  Returns
# the sources' status; the builder's is *written.
cdef int fixed_merge_move(FixedMerge *merge, Builder *builder, uint64_t most_bytes,
                          const uint64_t *stop, uint64_t slice_bytes, Reason *reason,
                          int *written) noexcept nogil
