# Sweeping: one range-delete marker in place of a gap full of delete markers.
#
# Nobody sees a difference but in time: no visible key lies in a gap, so the marker changes nothing,
# and need not be in the journal; it goes into segments with the memtable it is in.  The first read
# that crosses a million delete markers pays for them, later ones jump.

from libc.stdint cimport uint64_t

from cesium._cursor cimport Cursor
from cesium._engine cimport TableCore

cdef enum:
    SWEEP_MARKERS = 128         # a gap with fewer is crossed in some microseconds

# Sweeps the widest gap that the cursor has crossed, if it is wide, and forgets it.  The version's
# number and the changes are those of what the cursor read.  Does nothing where a write would be
# refused, or would have to wait.  The pages that the cursor crossed must have been found whole.
cdef int sweep(TableCore core, uint64_t version_number, uint64_t changes,
               Cursor *cursor) except -1
