"""A histogram of durations for benchmarks: that of the engine's own counters (_histogram.h).

Its buckets are HdrHistogram's with 7 bits: no value is off by more than 1/64.

Thread safety: as _histogram.h, any number of threads at once.
"""

from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t


cdef extern from "_histogram.h" nogil:
    const int HISTOGRAM_BUCKETS  # _histogram.h
    ctypedef struct Histogram:
        uint64_t counts[1]  # HISTOGRAM_BUCKETS of them
        uint64_t total
        uint64_t sum
        uint64_t minimum
        uint64_t maximum
    void histogram_record(Histogram *histogram, uint64_t value, uint64_t weight)
    uint64_t histogram_quantile(const Histogram *histogram, double share)
    uint64_t histogram_value(uint32_t index)


cdef class LatencyHistogram:
    """LatencyHistogram(): empty.  All durations are in nanoseconds."""

    cdef Histogram histogram

    def __cinit__(self):
        self.histogram.minimum = UINT64_MAX

    def record(self, uint64_t nanoseconds, uint64_t count=1):
        """One duration, so often."""
        histogram_record(&self.histogram, nanoseconds, count)

    def record_many(self, const uint64_t[::1] nanoseconds, uint64_t expected=0):
        """Durations, uint64.

        expected: how far apart the calls should have begun.  A caller who waits for each answer
        before the next call leaves out just the calls that a slow moment would have met
        (coordinated omission): of a duration that is longer, those that would have begun while it
        lasted are recorded too, each shorter than the one before by `expected`.  0: as measured.
        """
        cdef uint64_t value
        cdef Py_ssize_t at
        with nogil:
            for at in range(nanoseconds.shape[0]):
                value = nanoseconds[at]
                histogram_record(&self.histogram, value, 1)
                while expected and value >= 2 * expected:
                    value -= expected
                    histogram_record(&self.histogram, value, 1)

    def quantile(self, double share):
        """The duration that `share` (0 to 1) do not exceed; 0 when there is none."""
        return histogram_quantile(&self.histogram, share)

    def buckets(self):
        """[(largest duration, how often)] of the buckets that are not empty, ascending."""
        return [
            (histogram_value(place), self.histogram.counts[place])
            for place in range(HISTOGRAM_BUCKETS)
            if self.histogram.counts[place]
        ]

    @property
    def count(self):
        """How many durations there are."""
        return self.histogram.total

    @property
    def maximum(self):
        """The longest, exact; 0 when there is none."""
        return self.histogram.maximum
