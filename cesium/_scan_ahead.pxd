# Reading ahead of a cursor, and letting go of what a long scan leaves behind.
#
# A ScanAhead stands between a cursor's input and its run of segments: a PageSource that passes all
# calls on and looks at where the input goes.  An input that goes on from page to page has the pages
# in front of it asked for, more the further it goes, up to SCAN_PAGES; a warm one costs one
# question to the kernel for each 256 pages.  A cursor that brought more than `keep_pages` into
# memory lets go behind itself of pages that were not in memory before it came, and of no others.
#
# Thread safety: as the cursor's.  No Python objects.

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cesium._cursor cimport Cursor
from cesium._page cimport PageSource
from cesium._segment cimport Segment
from cesium._segment_run cimport SegmentRun

cdef enum:
    SCAN_PAGES = 2048           # ahead at most: 8 MiB, for the time that others have the processor
    SCAN_STEP_PAGES = 256       # in one piece of advice
    MINE_WORDS = 64             # a bit for each of 2 * SCAN_PAGES

cdef struct ScanAhead:
    PageSource inner
    const SegmentRun *run
    const Cursor *cursor        # whose bounds say where it ends
    bint eager                  # the cursor will go to its end
    bint cold                   # pages were missing where it was last asked
    uint64_t keep_pages         # of those brought, so many may stay in memory
    uint64_t brought_pages
    uint32_t passed             # pages since the last seek
    # Page numbers of `segment`; the scan goes down when `direction` is -1.
    Segment *segment
    int direction
    int64_t at
    int64_t next                # first that was not asked for
    int64_t end                 # first that will not be needed
    int64_t behind              # first that was not let go
    uint64_t mine[MINE_WORDS]   # by number % (2 * SCAN_PAGES): was not in memory before

# Puts a ScanAhead between an input of the cursor and its run, and sets the input's parts; the
# cursor's bounds may change until it starts.  Freed with the cursor.  STATUS_NO_MEMORY.
cdef int scan_ahead_attach(Cursor *cursor, uint32_t input, const SegmentRun *run) noexcept nogil
# For all inputs: whether the cursor will go to its end, and what may stay in memory.
cdef void scan_ahead_set(Cursor *cursor, bint eager, uint64_t keep_pages) noexcept nogil
# Pages that the cursor brought into memory.
cdef uint64_t scan_ahead_brought(const Cursor *cursor) noexcept nogil
