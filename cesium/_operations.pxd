# Operations of a commit: encoded rows or bounds as the pieces of a journal frame, and as what is
# applied to a memtable.
#
# A JournaledOperation points into the arrays that it was made of, which it keeps alive; it does not
# change once it is made.

from libc.stdint cimport uint32_t, uint64_t

from cesium._engine cimport Batch, Operation, TableCore
from cesium._frames cimport JournalOperationHeader
from cesium._journal cimport JournalPart
from cesium._keys cimport EncodedKeys
from cesium._page cimport Shape
from cesium._values cimport EncodedValues

cdef enum:
    PARTS_MOST = 5              # header; lengths and bytes of keys; the same of values

cdef class JournaledOperation:
    cdef Operation operation
    cdef JournalPart parts[PARTS_MOST]
    cdef int part_count
    cdef JournalOperationHeader header
    cdef uint64_t heads[2]      # of bounds
    cdef uint32_t lengths[2]
    cdef object holders

    cdef uint64_t bytes(self) noexcept

# Rows (at least one) to put, or without values to delete.
cdef JournaledOperation batch_operation(TableCore core, EncodedKeys keys, EncodedValues values)
# [lower, upper) to delete: heads or bytes, upper None = no upper end.
cdef JournaledOperation range_operation(TableCore core, object lower, object upper)
# Points a Batch at encoded arrays, which the caller keeps.
cdef int fill_batch(const Shape *shape, EncodedKeys keys, EncodedValues values,
                    Batch *batch) except -1
