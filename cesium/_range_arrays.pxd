# A range as the arrays that a caller gets.
#
# Where both columns are kept as an array holds them, a short range costs what its two arrays cost:
# it is copied once out of warm pages, or through a small buffer; of 5 us that 100 rows took, 4 went
# into numpy calls, views of memory and Python's own.
#
# Thread safety: any thread; the GIL is released while pages are read.

from cesium._keys cimport KeyCodec
from cesium._ranges cimport EncodedRange, View
from cesium._values cimport ValueCodec

# (keys, values) (yields 0), keys (1) or values (2) of a range, at most `limit` (or None) of them.
cdef object range_arrays(View view, EncodedRange interval, bint reverse, object limit,
                         KeyCodec keys, ValueCodec values, int yields, int threads)
