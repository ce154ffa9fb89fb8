"""Journal frames: their layout, and walking bytes that were read.

The bytes are drawn in docs/format-journal.md; the structs here mirror them.  Walking takes bytes as
hostile: every length is checked before a pointer is formed.  Statuses are STATUS_* of _layout.pxd.
Thread safety: everything works on the caller's bytes and shares nothing; no function needs the GIL.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    JOURNAL_FRAME_COMMIT = 1
    JOURNAL_FRAME_ATTACH = 2
    JOURNAL_FRAME_END = 3

    JOURNAL_PUT = 1
    JOURNAL_DELETE = 2
    JOURNAL_DELETE_RANGE = 3

    JOURNAL_FIXED_KEYS = 1
    JOURNAL_FIXED_VALUES = 2
    JOURNAL_LOW_UNBOUNDED = 4
    JOURNAL_HIGH_UNBOUNDED = 8

    JOURNAL_FILE_HEADER_BYTES = 4096
    JOURNAL_FRAME_HEADER_BYTES = 56
    JOURNAL_ROW_HEADER_BYTES = 16
    JOURNAL_OPERATION_HEADER_BYTES = 32
    JOURNAL_MAXIMUM_FRAME_BYTES = 1 << 30
    JOURNAL_MAXIMUM_ROW_BYTES = 65528

    JOURNAL_FORM_MASK = 7           # of the low bits of length_bytes
    JOURNAL_FORM_ROW = 1            # 0: a full frame

    JOURNAL_SHAPE_KIND = 3          # bits of a row frame's shape: JOURNAL_PUT or JOURNAL_DELETE,
    JOURNAL_SHAPE_FLAGS_SHIFT = 2   # then JOURNAL_FIXED_KEYS and JOURNAL_FIXED_VALUES
    JOURNAL_SHAPE_SYNCED = 16
    JOURNAL_SHAPE_PADDING_SHIFT = 5

    JOURNAL_ROW_TIME_SHIFT = 16     # a unit of time is 2^16 nanoseconds

    JOURNAL_ROW_FRAMES = 1 << 5     # of the file header's incompatible flags


ctypedef struct JournalFrameHeader:
    uint32_t checksum
    uint32_t length_bytes
    uint8_t frame_type
    uint8_t flags
    uint8_t codec
    uint8_t reserved
    uint32_t key_id
    uint64_t epoch
    uint64_t sequence
    uint64_t commit_time
    uint64_t synced_position
    uint32_t previous_checksum
    uint32_t operation_count


ctypedef struct JournalRowHeader:
    uint32_t checksum
    uint16_t length_bytes            # and JOURNAL_FORM_ROW
    uint8_t shape
    uint8_t table_id
    uint32_t sequence_low
    uint32_t time_units


ctypedef struct JournalOperationHeader:
    uint32_t table_id
    uint8_t kind
    uint8_t flags
    uint16_t reserved
    uint32_t row_count
    uint32_t reserved_too
    uint64_t key_block_bytes
    uint64_t value_block_bytes


# What the frames of one file are read against: from its header.
ctypedef struct JournalBase:
    uint64_t epoch
    uint64_t sequence                # the last one before the file
    uint64_t creation_time
    uint32_t seed                    # the checksum of the file header
    bint row_frames                  # whether there are any


# One frame of bytes that were read, checked in itself.  Of a row frame the header is what a full
# one would say, but for previous_checksum and, if it says none, synced_position: these are 0.
ctypedef struct JournalFrame:
    const uint8_t *payload
    uint64_t payload_bytes
    uint64_t position
    uint64_t end_position
    JournalFrameHeader header
    bint is_row
    uint8_t row_shape
    uint8_t row_table


# One operation of a frame.  Pointers to integers are aligned to 4 at least, those to heads to 8
# (when the bytes read are); all are bounds-checked.
ctypedef struct JournalOperation:
    uint32_t table_id
    uint8_t kind
    uint8_t flags
    uint32_t row_count
    uint32_t key_count               # row_count, or 2 for a delete range
    const uint64_t *heads            # fixed keys, else NULL
    const uint32_t *key_lengths      # variable keys, else NULL
    const uint8_t *key_data
    uint64_t key_data_bytes
    const uint32_t *value_lengths    # variable values, else NULL
    const uint8_t *value_data        # packed rows, or the bytes of variable values
    uint64_t value_data_bytes
    uint64_t value_width_bytes       # fixed values, else 0


# Checks the frame at `position` by itself: length, epoch and checksum; not its chain.
cdef int journal_check_frame(const uint8_t *data, uint64_t data_bytes, uint64_t position,
                             const JournalBase *base, JournalFrame *frame) noexcept nogil

# Reads the frame at *position of a span that Journal.replay_spans gave, and steps over it.
# STATUS_NOT_FOUND after the last.
cdef int journal_next_frame(const uint8_t *data, uint64_t span_end, uint64_t *position,
                            const JournalBase *base, JournalFrame *frame) noexcept nogil

# Reads the operation at *offset (from the start of the payload; begin with 0) and steps over it.
# STATUS_NOT_FOUND after the last, STATUS_CORRUPT for bytes that are no operation.
cdef int journal_next_operation(const JournalFrame *frame, uint64_t *offset,
                                JournalOperation *operation) noexcept nogil


cdef uint64_t padded(uint64_t count) noexcept nogil     # up to the next multiple of 8


cdef class FrameBase:
    """A JournalBase, for Python."""

    cdef JournalBase base
