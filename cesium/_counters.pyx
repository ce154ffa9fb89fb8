"""Counting: see _counters.pxd for the contract."""

from libc.stdint cimport UINT64_MAX, int64_t, uint64_t

TOTALS = (
    "batch_gets", "batch_puts", "batch_deletes", "range_deletes", "ranges", "gaps_swept", "flushes",
    "merges", "checkpoints", "loads", "compactions", "loaded_rows", "loaded_bytes",
    "journal_bytes", "flush_bytes", "merge_read_bytes", "merge_bytes", "load_bytes",
    "filter_lookups", "filter_negatives", "filter_false_positives",
)
LATENCIES = ("get", "put", "range", "flush", "merge")
QUANTILES = (0.5, 0.9, 0.99, 0.999)

cdef dict TOTAL_AT = {name: place for place, name in enumerate(TOTALS)}
cdef dict LATENCY_AT = {name: place for place, name in enumerate(LATENCIES)}
assert len(TOTALS) == TOTAL_COUNT and len(LATENCIES) == LATENCY_COUNT


cdef class Counters:
    """Counters(memory_limit=none): all zero.  memory_limit: of the store, in bytes."""

    def __cinit__(self, uint64_t memory_limit=UINT64_MAX):
        cdef int place
        self.memory_limit = memory_limit
        for place in range(LATENCY_COUNT):
            self.latencies[place].minimum = UINT64_MAX

    def add(self, str name, uint64_t amount=1):
        """Adds to one of TOTALS."""
        cdef int place = TOTAL_AT[name]
        count_more(&self.totals[place], amount)

    def record(self, str name, uint64_t nanoseconds, uint64_t weight=1):
        """One duration for one of LATENCIES, standing for `weight` calls."""
        cdef int place = LATENCY_AT[name]
        histogram_record(&self.latencies[place], nanoseconds, weight)

    def counts(self):
        """All that is counted, by name."""
        counts = {"gets": counted(&self.gets.count), "puts": counted(&self.puts.count),
                  "deletes": counted(&self.deletes.count)}
        for place, name in enumerate(TOTALS):
            counts[name] = counted(&self.totals[<int>place])
        counts["filter_lookups"] += self.filters.lookups
        counts["filter_negatives"] += self.filters.negatives
        counts["filter_false_positives"] += self.filters.false_positives
        return counts

    def held(self):
        """(bytes of memtables, of iterators, of buffers) that are held now."""
        return (counted(&self.memtable_bytes), counted(&self.iterator_bytes),
                counted(&self.buffer_bytes))

    @property
    def portion_bytes(self):
        """How much memory is taken at once: 1/64 of the limit, at least 16 KiB, at most 2 MiB."""
        return portion_of(self)

    def hold(self, int64_t nbytes):
        """A flush, merge or load takes so much memory, or (below zero) gives it back."""
        count_more(&self.buffer_bytes, <uint64_t>nbytes)

    def latency(self, str name):
        """(calls, min, mean, p50, p90, p99, p99.9, max) of one of LATENCIES, in nanoseconds, the
        mean a float; None when there is none."""
        cdef int place = LATENCY_AT[name]
        cdef const Histogram *histogram = &self.latencies[place]
        cdef uint64_t calls = counted(&histogram.total)
        if calls == 0:
            return None
        return (calls, counted(&histogram.minimum), counted(&histogram.sum) / <double>calls,
                *[histogram_quantile(histogram, share) for share in QUANTILES],
                counted(&histogram.maximum))


def bucket_bounds(uint64_t nanoseconds):
    """(smallest, largest) value that a histogram does not tell from this one."""
    cdef uint64_t largest = histogram_value(histogram_index(nanoseconds))
    cdef uint64_t smallest = 0
    if histogram_index(nanoseconds):
        smallest = histogram_value(histogram_index(nanoseconds) - 1) + 1
    return smallest, largest
