"""What tables hold in memory: memtables, and readers of segments besides their mappings."""

from collections import namedtuple

from libc.stdint cimport uint32_t, uint64_t

from cesium._engine cimport TableCore
from cesium._fences cimport Fences
from cesium._interval cimport IntervalSet
from cesium._memtable cimport MemtableCounters, MemtableSnapshot, memtable_counters
from cesium._segment cimport Segment
from cesium._segment_run cimport SegmentRun
from cesium._version cimport Version


TablesMemory = namedtuple("TablesMemory", (
    "live", "filled", "frozen", "fences", "checked_pages", "range_deletes",
))
TablesMemory.__doc__ = """Bytes that tables hold: of live memtables, of those of them that are not
empty, of frozen ones; of their segments' fences, of the bitmaps of checked pages, of markers."""


def tables_memory(list cores not None):
    """TablesMemory of TableCores; a segment has none before its first use.

    About 100 ns a table, and a few for each segment.
    """
    cdef const SegmentRun *run
    cdef MemtableCounters counters
    cdef TableCore core
    cdef Version version
    cdef uint64_t live = 0
    cdef uint64_t filled = 0
    cdef uint64_t frozen = 0
    cdef uint64_t fences = 0
    cdef uint64_t checked = 0
    cdef uint64_t markers = 0
    cdef uint32_t source
    cdef uint32_t index
    for core in cores:
        core.engine.lock_shared()
        version = core.version_now
        memtable_counters(core.live.state, &counters)
        core.engine.unlock()
        live += counters.held
        filled += counters.held if counters.changes else 0
        for source in range(version.count):
            run = version.items[source].run
            if run == NULL:
                memtable_counters((<MemtableSnapshot>version.sources[source]).memtable.state,
                                  &counters)
                frozen += counters.held
            for index in range(run.count if run != NULL else 0):
                add_segment(run.segments[index], &fences, &checked, &markers)
    return TablesMemory(live, filled, frozen, fences, checked, markers)


cdef void add_segment(const Segment *segment, uint64_t *fences, uint64_t *checked,
                      uint64_t *markers) noexcept nogil:
    cdef const IntervalSet *intervals = segment.markers
    cdef uint64_t leaves = segment.fence_end - segment.fence_first
    if segment.map == NULL:
        return
    # As _fences.pyx makes them: two numbers a page and one more, a head, a number per data page.
    fences[0] += sizeof(Fences) + leaves * 4 + (leaves + 1) * 4
    if segment.shape.key_width:
        fences[0] += leaves * 8
    if segment.page_numbers != NULL:
        fences[0] += <uint64_t>segment.data_pages * 4
    checked[0] += (<uint64_t>segment.page_count + 63) // 64 * 8
    if intervals != NULL:
        markers[0] += intervals.bytes
