# Where the large values of one segment in the making go: its blob file, and the pointers that it
# takes over from the segments that it is made of.
#
# Values of `threshold` bytes or more are appended to a blob file, which is made when the first one
# comes; a smaller one that lies in a blob file so far is read and goes into the segment.  So where
# the threshold of the last tier is higher than that of the others, values of medium size are in the
# log until they arrive there.  Values in blob files that are `moved` are written anew; of all other
# pointers only the pointer goes on.  One thread at a time; statuses as in _builder.pxd.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._counters cimport Counters
from cesium._layout cimport BlobPointer
from cesium._packer cimport ValueOrigin
from cesium._page cimport PageSource, Value
from cesium._page_writer cimport PageWriter

cdef struct BlobUse:                # what a segment refers to in one blob file
    uint64_t blob_id
    uint64_t bytes                  # of values
    uint64_t rows

cdef struct BlobSink:
    uint64_t blob_id                # of the file that is made
    uint64_t threshold              # 0: no value is moved into or out of a blob file
    uint64_t *moved                 # ids, sorted
    uint32_t moved_count
    BlobUse *uses                   # sorted by id
    uint32_t use_count
    uint32_t use_capacity
    PageWriter writer
    bint open                       # the file is there, the writer ready
    uint32_t filled                 # bytes of the page in the making
    uint32_t file_checksum          # of all bytes of the file before that page
    uint64_t value_bytes            # written to the file
    uint8_t *scratch                # a value on its way out of a blob file
    uint64_t scratch_bytes
    void *output                    # borrowed BlobOutput, to make the file from nogil code

# Whether a value that is not in a blob file yet belongs there.
cdef inline bint blob_sink_takes(const BlobSink *sink, uint64_t bytes) noexcept nogil:
    return sink.threshold != 0 and bytes >= sink.threshold

# Appends a value, in memory or (`origin` not NULL) overflowed where it comes from.
cdef int blob_sink_put(BlobSink *sink, const Value *value, const ValueOrigin *origin,
                       BlobPointer *made) noexcept nogil
# What becomes of an entry's pointer: *value is to be stored, which may point into *made.
cdef int blob_sink_pass(BlobSink *sink, const PageSource *source, const BlobPointer *pointer,
                        Value *value, BlobPointer *made) noexcept nogil
# Bytes of the blob file so far.
cdef inline uint64_t blob_sink_bytes(const BlobSink *sink) noexcept nogil:
    return <uint64_t>sink.writer.page_count * 4096 + sink.filled
# Writes what is left of the blob file, if there is one, and syncs it.
cdef int blob_sink_finish(BlobSink *sink) noexcept nogil

cdef class BlobOutput:
    cdef BlobSink sink
    cdef object files
    cdef object name
    cdef object path
    cdef bytes store_uuid
    cdef uint64_t table_id
    cdef int fd
    cdef Counters counters              # of the store; None: nobody counts
    cdef object failure                 # why the file could not be made
    cdef bint made                      # whether there is, or was, a file
    cdef int open_file(self) except -1
    cdef int check(self, int status) except -1      # raises what a status means, if it is its own
    cdef int close(self) except -1
    cdef int abort(self, bint own) except -1
