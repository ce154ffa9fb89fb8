# Batch lookup: many keys against one view, with the GIL released and several threads if asked.

from cesium._keys cimport EncodedKeys
from cesium._values cimport EncodedValues
from cesium._ranges cimport View

# Looks up every key, with so many threads at once (None: one).  found: uint8[count], zeroed, set to
# 1 where there is a value.  answer: None, or EncodedValues whose `rows` (fixed form) were prefilled
# with what a miss holds; in the variable form its offsets and data are made here, a miss holding
# `miss`.
cdef int find_batch(View view, EncodedKeys keys, EncodedValues answer, object found, bytes miss,
                    object threads) except -1
