# What one open store counts: calls, bytes and latencies, since it was opened; and the memory that
# it holds, with the limit that was set for it.
#
# Single gets, puts and deletes are counted each, and timed now and then (_histogram.h): reading the
# clock twice takes 50 ns, a warm get 280.  A time stands for the calls since the one before.
#
# Thread safety: counting may be done in any thread, with or without the GIL, and no lock; the four
# tickers and `filters` belong to who holds the GIL.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "_histogram.h" nogil:
    ctypedef struct Histogram:
        uint64_t total
        uint64_t sum
        uint64_t minimum
        uint64_t maximum

    ctypedef struct Ticker:
        uint64_t count

    uint64_t clock_nanoseconds() noexcept
    void histogram_record(Histogram *histogram, uint64_t value, uint64_t weight) noexcept
    uint64_t histogram_quantile(const Histogram *histogram, double share) noexcept
    uint32_t histogram_index(uint64_t value) noexcept
    uint64_t histogram_value(uint32_t index) noexcept
    bint ticker_tick(Ticker *ticker) noexcept
    uint64_t ticker_weight(Ticker *ticker) noexcept
    void count_more(uint64_t *word, uint64_t amount) noexcept
    uint64_t counted(const uint64_t *word) noexcept

cdef enum:                      # places in Counters.totals, named in _counters.pyx
    BATCH_GETS
    BATCH_PUTS
    BATCH_DELETES
    RANGE_DELETES
    RANGES
    GAPS_SWEPT
    FLUSHES
    MERGES
    CHECKPOINTS
    LOADS
    COMPACTIONS
    LOADED_ROWS
    LOADED_BYTES
    JOURNAL_BYTES
    FLUSH_BYTES
    MERGE_READ_BYTES
    MERGE_BYTES
    LOAD_BYTES
    FILTER_LOOKUPS
    FILTER_NEGATIVES
    FILTER_FALSE_POSITIVES
    TOTAL_COUNT

cdef enum:                      # places in Counters.latencies, likewise
    GET_LATENCY
    PUT_LATENCY
    RANGE_LATENCY
    FLUSH_LATENCY
    MERGE_LATENCY
    LATENCY_COUNT

cdef enum:
    PORTION_SHARE = 64
    PORTION_BYTES_LEAST = 16384
    PORTION_BYTES_MOST = 2097152    # the drive is at full speed from 1 MiB on; a huge page

# What filters were asked for keys of one lookup or batch.
cdef struct FilterCounts:
    uint64_t lookups            # questions: one for each key and filter
    uint64_t negatives          # of those, answered with no, which is always right
    uint64_t false_positives    # answered with yes, and the segment did not have the key

cdef class Counters:
    cdef Ticker gets            # lookups of one key
    cdef Ticker puts            # rows put one at a time
    cdef Ticker deletes         # keys deleted one at a time
    cdef Ticker fills           # small buffers of rows read
    cdef FilterCounts filters   # of lookups of one key; those of batches are in `totals`
    cdef uint64_t totals[TOTAL_COUNT]
    cdef readonly uint64_t memory_limit     # bytes, the option
    cdef uint64_t memtable_bytes    # held now by the store's memtables, old readers' too,
    cdef uint64_t iterator_bytes    # by buffers of iterations,
    cdef uint64_t buffer_bytes      # and by flushes, merges and loads under way
    cdef Histogram latencies[LATENCY_COUNT]

# How much memory is taken at once, in whole pages: a buffer of a file in the making, a chunk of a
# memtable.  A small memory limit is divided into small portions.  None: there is no limit.
cdef inline uint64_t portion_of(Counters counters) noexcept nogil:
    if counters is None:
        return PORTION_BYTES_MOST
    return max(<uint64_t>PORTION_BYTES_LEAST,
               min(<uint64_t>PORTION_BYTES_MOST,
                   counters.memory_limit // PORTION_SHARE & ~<uint64_t>4095))

cdef inline void count_filters(Counters counters, const FilterCounts *found) noexcept:
    """Those of one key; plain additions, for lookups of one key end with the GIL held."""
    counters.filters.lookups += found.lookups
    counters.filters.negatives += found.negatives
    counters.filters.false_positives += found.false_positives
