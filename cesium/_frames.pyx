"""Walking journal frames (docs/format-journal.md).  The contract is in _frames.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cesium._layout cimport STATUS_CORRUPT, STATUS_NOT_FOUND, STATUS_OK
from cesium._native cimport crc32c

if sizeof(JournalFrameHeader) != JOURNAL_FRAME_HEADER_BYTES:
    raise ImportError("the frame header of the journal has a wrong size")
if sizeof(JournalRowHeader) != JOURNAL_ROW_HEADER_BYTES:
    raise ImportError("the row frame header of the journal has a wrong size")
if sizeof(JournalOperationHeader) != JOURNAL_OPERATION_HEADER_BYTES:
    raise ImportError("the operation header of the journal has a wrong size")

cdef enum:
    LEAST_FRAME_BYTES = 24          # a delete of a fixed key

FRAME_COMMIT = JOURNAL_FRAME_COMMIT
FRAME_ATTACH = JOURNAL_FRAME_ATTACH
FRAME_END = JOURNAL_FRAME_END
PUT = JOURNAL_PUT
DELETE = JOURNAL_DELETE
DELETE_RANGE = JOURNAL_DELETE_RANGE
FIXED_KEYS = JOURNAL_FIXED_KEYS
FIXED_VALUES = JOURNAL_FIXED_VALUES
LOW_UNBOUNDED = JOURNAL_LOW_UNBOUNDED
HIGH_UNBOUNDED = JOURNAL_HIGH_UNBOUNDED
FILE_HEADER_BYTES = JOURNAL_FILE_HEADER_BYTES
FRAME_HEADER_BYTES = JOURNAL_FRAME_HEADER_BYTES
ROW_HEADER_BYTES = JOURNAL_ROW_HEADER_BYTES
OPERATION_HEADER_BYTES = JOURNAL_OPERATION_HEADER_BYTES
MAXIMUM_FRAME_BYTES = JOURNAL_MAXIMUM_FRAME_BYTES
MAXIMUM_ROW_BYTES = JOURNAL_MAXIMUM_ROW_BYTES
ROW_FRAMES = JOURNAL_ROW_FRAMES


cdef uint64_t padded(uint64_t count) noexcept nogil:
    return (count + 7) & ~(<uint64_t> 7)


cdef bint read_row_header(const uint8_t *data, uint64_t position, uint64_t left,
                          const JournalBase *base, JournalFrame *frame) noexcept nogil:
    cdef JournalRowHeader row
    cdef uint64_t length
    cdef uint64_t header_bytes = JOURNAL_ROW_HEADER_BYTES
    memcpy(&row, data + position, JOURNAL_ROW_HEADER_BYTES)
    length = row.length_bytes & ~<uint32_t> JOURNAL_FORM_MASK
    if row.shape & JOURNAL_SHAPE_SYNCED:
        header_bytes += 8
    if not base.row_frames or length <= header_bytes or length > left:
        return False
    memset(&frame.header, 0, sizeof(JournalFrameHeader))
    frame.header.checksum = row.checksum
    frame.header.length_bytes = <uint32_t> length
    frame.header.frame_type = JOURNAL_FRAME_COMMIT
    frame.header.epoch = base.epoch
    frame.header.sequence = base.sequence + <uint32_t> (row.sequence_low - <uint32_t> base.sequence)
    frame.header.commit_time = (base.creation_time
                                + (<uint64_t> row.time_units << JOURNAL_ROW_TIME_SHIFT))
    frame.header.operation_count = 1
    if row.shape & JOURNAL_SHAPE_SYNCED:
        memcpy(&frame.header.synced_position, data + position + JOURNAL_ROW_HEADER_BYTES, 8)
    frame.is_row = True
    frame.row_shape = row.shape
    frame.row_table = row.table_id
    frame.payload = data + position + header_bytes
    frame.payload_bytes = length - header_bytes
    return True


cdef inline bint read_header(const uint8_t *data, uint64_t position, uint64_t end,
                             const JournalBase *base, JournalFrame *frame) noexcept nogil:
    """Read what the header of a frame of either form says; False if it cannot be one."""
    cdef uint64_t left = end - position
    cdef uint32_t second
    memcpy(&second, data + position + 4, 4)
    if second & JOURNAL_FORM_MASK == JOURNAL_FORM_ROW:
        if not read_row_header(data, position, left, base, frame):
            return False
    else:
        if second & JOURNAL_FORM_MASK or second < JOURNAL_FRAME_HEADER_BYTES or second > left:
            return False
        memcpy(&frame.header, data + position, JOURNAL_FRAME_HEADER_BYTES)
        frame.is_row = False
        frame.payload = data + position + JOURNAL_FRAME_HEADER_BYTES
        frame.payload_bytes = second - JOURNAL_FRAME_HEADER_BYTES
    frame.position = position
    frame.end_position = position + frame.header.length_bytes
    return True


cdef inline uint32_t frame_checksum(const uint8_t *data, const JournalBase *base,
                                    const JournalFrame *frame) noexcept nogil:
    return crc32c(<uint32_t> frame.position ^ base.seed, data + frame.position + 4,
                  frame.header.length_bytes - 4)


cdef inline bint is_sound(const uint8_t *data, const JournalBase *base,
                          const JournalFrame *frame) noexcept nogil:
    return (frame.header.epoch == base.epoch
            and frame_checksum(data, base, frame) == frame.header.checksum)


cdef int journal_check_frame(const uint8_t *data, uint64_t data_bytes, uint64_t position,
                             const JournalBase *base, JournalFrame *frame) noexcept nogil:
    if position > data_bytes or data_bytes - position < JOURNAL_ROW_HEADER_BYTES:
        return STATUS_NOT_FOUND
    if not read_header(data, position, data_bytes, base, frame):
        return STATUS_CORRUPT
    return STATUS_OK if is_sound(data, base, frame) else STATUS_CORRUPT


cdef int journal_next_frame(const uint8_t *data, uint64_t span_end, uint64_t *position,
                            const JournalBase *base, JournalFrame *frame) noexcept nogil:
    cdef uint64_t start = position[0]
    if start >= span_end:
        return STATUS_NOT_FOUND
    if (span_end - start < JOURNAL_ROW_HEADER_BYTES
            or not read_header(data, start, span_end, base, frame)):
        return STATUS_CORRUPT
    position[0] = frame.end_position
    return STATUS_OK


cdef int split_variable(const uint8_t *block, uint64_t block_bytes, uint64_t count,
                        const uint32_t **lengths, const uint8_t **bytes_out,
                        uint64_t *total) noexcept nogil:
    """Split a block of variable-length rows; the lengths must add up to what is there."""
    cdef uint64_t head = padded(4 * count)
    cdef uint64_t left, i
    if head > block_bytes:
        return STATUS_CORRUPT
    left = block_bytes - head
    lengths[0] = <const uint32_t *> block
    bytes_out[0] = block + head
    total[0] = left
    for i in range(count):
        if lengths[0][i] > left:
            return STATUS_CORRUPT
        left -= lengths[0][i]
    return STATUS_OK if left == 0 else STATUS_CORRUPT


cdef int row_operation(const JournalFrame *frame, JournalOperation *operation) noexcept nogil:
    """The operation of a row frame, whose pieces must fill the payload but for the padding."""
    cdef const uint8_t *at = frame.payload
    cdef uint64_t left = frame.payload_bytes
    cdef uint64_t padding = frame.row_shape >> JOURNAL_SHAPE_PADDING_SHIFT
    cdef uint64_t key_bytes = 8
    cdef const uint32_t *lengths = NULL
    memset(operation, 0, sizeof(JournalOperation))
    operation.table_id = frame.row_table
    operation.kind = frame.row_shape & JOURNAL_SHAPE_KIND
    operation.flags = ((frame.row_shape >> JOURNAL_SHAPE_FLAGS_SHIFT)
                       & (JOURNAL_FIXED_KEYS | JOURNAL_FIXED_VALUES))
    operation.row_count = 1
    operation.key_count = 1
    if operation.kind != JOURNAL_PUT and operation.kind != JOURNAL_DELETE:
        return STATUS_CORRUPT
    if left < padding:
        return STATUS_CORRUPT
    left -= padding
    if not (operation.flags & JOURNAL_FIXED_KEYS
            and (operation.flags & JOURNAL_FIXED_VALUES or operation.kind == JOURNAL_DELETE)):
        if left < 8:
            return STATUS_CORRUPT
        lengths = <const uint32_t *> at
        at += 8
        left -= 8
        key_bytes = lengths[0]
        if key_bytes > left or lengths[1] != left - key_bytes:
            return STATUS_CORRUPT
    if left < key_bytes:
        return STATUS_CORRUPT
    left -= key_bytes                   # what is left is the value
    if operation.flags & JOURNAL_FIXED_KEYS:
        if key_bytes != 8:
            return STATUS_CORRUPT
        operation.heads = <const uint64_t *> at
    else:
        operation.key_lengths = lengths
        operation.key_data = at
        operation.key_data_bytes = key_bytes
    if operation.kind == JOURNAL_DELETE:
        return STATUS_CORRUPT if left else STATUS_OK
    operation.value_data = at + key_bytes
    operation.value_data_bytes = left
    if operation.flags & JOURNAL_FIXED_VALUES:
        operation.value_width_bytes = left
    else:
        operation.value_lengths = lengths + 1
    return STATUS_OK


cdef int journal_next_operation(const JournalFrame *frame, uint64_t *offset,
                                JournalOperation *operation) noexcept nogil:
    cdef uint64_t at = offset[0]
    cdef uint64_t left
    cdef JournalOperationHeader header
    cdef const uint8_t *block
    if at == frame.payload_bytes:
        return STATUS_NOT_FOUND
    if frame.is_row:
        offset[0] = frame.payload_bytes
        return row_operation(frame, operation)
    if at > frame.payload_bytes or frame.payload_bytes - at < JOURNAL_OPERATION_HEADER_BYTES:
        return STATUS_CORRUPT
    memcpy(&header, frame.payload + at, JOURNAL_OPERATION_HEADER_BYTES)
    left = frame.payload_bytes - at - JOURNAL_OPERATION_HEADER_BYTES
    if header.key_block_bytes > left or padded(header.key_block_bytes) > left:
        return STATUS_CORRUPT
    left -= padded(header.key_block_bytes)
    if header.value_block_bytes > left or padded(header.value_block_bytes) > left:
        return STATUS_CORRUPT
    if header.row_count == 0 or header.kind < JOURNAL_PUT or header.kind > JOURNAL_DELETE_RANGE:
        return STATUS_CORRUPT
    if header.kind != JOURNAL_PUT and header.value_block_bytes:
        return STATUS_CORRUPT
    if header.kind == JOURNAL_DELETE_RANGE and header.row_count != 1:
        return STATUS_CORRUPT

    memset(operation, 0, sizeof(JournalOperation))
    operation.table_id = header.table_id
    operation.kind = header.kind
    operation.flags = header.flags
    operation.row_count = header.row_count
    operation.key_count = 2 if header.kind == JOURNAL_DELETE_RANGE else header.row_count
    block = frame.payload + at + JOURNAL_OPERATION_HEADER_BYTES
    if header.flags & JOURNAL_FIXED_KEYS:
        if header.key_block_bytes != 8 * <uint64_t> operation.key_count:
            return STATUS_CORRUPT
        operation.heads = <const uint64_t *> block
    elif split_variable(block, header.key_block_bytes, operation.key_count,
                        &operation.key_lengths, &operation.key_data,
                        &operation.key_data_bytes) != STATUS_OK:
        return STATUS_CORRUPT
    block += padded(header.key_block_bytes)
    if header.kind == JOURNAL_PUT:
        if header.flags & JOURNAL_FIXED_VALUES:
            if header.value_block_bytes % header.row_count:
                return STATUS_CORRUPT
            operation.value_data = block
            operation.value_data_bytes = header.value_block_bytes
            operation.value_width_bytes = header.value_block_bytes // header.row_count
        elif split_variable(block, header.value_block_bytes, header.row_count,
                            &operation.value_lengths, &operation.value_data,
                            &operation.value_data_bytes) != STATUS_OK:
            return STATUS_CORRUPT
    offset[0] = at + (JOURNAL_OPERATION_HEADER_BYTES + padded(header.key_block_bytes)
                      + padded(header.value_block_bytes))
    return STATUS_OK


# --------------------------------------------------------------- Python's side

def checksum(const uint8_t[::1] data not None, uint32_t seed=0):
    """Return the CRC32C of `data` (any contiguous bytes), continued from `seed`."""
    cdef uint32_t result = seed
    if data.shape[0]:
        with nogil:
            result = crc32c(seed, &data[0], <size_t> data.shape[0])
    return result


cdef class FrameBase:
    """FrameBase(epoch, seed, sequence, creation_time, row_frames): from the header of a file.

    seed: its checksum.  sequence: the last one before the file.
    """

    def __init__(self, uint64_t epoch, uint32_t seed, uint64_t sequence, uint64_t creation_time,
                 bint row_frames):
        self.base.epoch = epoch
        self.base.seed = seed
        self.base.sequence = sequence
        self.base.creation_time = creation_time
        self.base.row_frames = row_frames


def scan_frames(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
                FrameBase base not None, uint32_t previous_checksum, uint64_t last_sequence):
    """Walk sound, chained frames from `position`, none going beyond `end`.

    Returns (position after the last, its checksum, its sequence, whether it was an end frame).
    """
    cdef JournalFrame frame
    cdef bint ended = False
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    if limit == 0:
        return position, previous_checksum, last_sequence, False
    with nogil:
        while not ended:
            if journal_check_frame(&data[0], limit, position, &base.base, &frame) != STATUS_OK:
                break
            if frame.is_row:
                if frame.header.sequence != last_sequence + 1:
                    break
            elif frame.header.previous_checksum != previous_checksum:
                break
            ended = frame.header.frame_type == JOURNAL_FRAME_END
            if frame.header.sequence < last_sequence:
                break
            if frame.header.sequence == last_sequence and not ended:
                break
            position = frame.end_position
            previous_checksum = frame.header.checksum
            last_sequence = frame.header.sequence
    return position, previous_checksum, last_sequence, ended


def highest_vouched(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
                    FrameBase base not None, uint64_t above):
    """Return the highest synced position that a sound frame from `position` on vouches for.

    Looks at every multiple of 8, for what lies beyond a hole; only positions above `above` count,
    and `above` is returned when there is none.
    """
    cdef JournalFrame frame
    cdef uint64_t highest = above
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    position = padded(position)
    if limit == 0:
        return highest
    with nogil:
        while position + JOURNAL_ROW_HEADER_BYTES <= limit:
            if (read_header(&data[0], position, limit, &base.base, &frame)
                    and frame.header.synced_position > highest
                    and frame.header.synced_position <= position
                    and frame.header.synced_position % 8 == 0
                    and is_sound(&data[0], &base.base, &frame)):
                highest = frame.header.synced_position
                position = frame.end_position
            else:
                position += 8
    return highest


def find_frame(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
               FrameBase base not None, uint64_t last_sequence):
    """Find the first frame at or after `position` that is sound by itself.

    last_sequence: of the last frame before.  A row frame counts if there is room for the commits
    between.  Returns (position, previous checksum, sequence), or None.  Looks at every multiple
    of 8.
    """
    cdef JournalFrame frame
    cdef JournalOperation operation
    cdef bint found = False
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    cdef uint64_t start = position
    position = padded(position)
    if limit == 0:
        return None
    with nogil:
        while position + JOURNAL_ROW_HEADER_BYTES <= limit:
            if read_header(&data[0], position, limit, &base.base, &frame):
                # One commit may lie right before `start`: 8 bytes of it are enough.
                if (not frame.is_row
                        or (frame.header.sequence > last_sequence
                            and (frame.header.sequence - last_sequence - 1
                                 <= 1 + (position - start) // LEAST_FRAME_BYTES)
                            and row_operation(&frame, &operation) == STATUS_OK)):
                    found = is_sound(&data[0], &base.base, &frame)
                if found:
                    break
            position += 8
    if not found:
        return None
    return position, frame.header.previous_checksum, frame.header.sequence


def checksums_at(const uint8_t[::1] data not None, uint64_t position, FrameBase base not None):
    """Return (stored, computed) checksum of the frame at `position`; None for what is none."""
    cdef JournalFrame frame
    cdef uint64_t size = <uint64_t> data.shape[0]
    if (position + JOURNAL_ROW_HEADER_BYTES > size
            or not read_header(&data[0], position, size, &base.base, &frame)):
        return None
    return frame.header.checksum, frame_checksum(&data[0], &base.base, &frame)


def check_frames(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
                 FrameBase base not None):
    """Walk the frames of a scanned span and the operations in them.

    Returns (frames, position of the first frame whose content makes no sense, or None).
    """
    cdef JournalFrame frame
    cdef JournalOperation operation
    cdef uint64_t frames = 0
    cdef uint64_t offset
    cdef uint64_t length
    cdef uint32_t operations
    cdef int status = STATUS_OK
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    if limit == 0:
        return 0, None
    with nogil:
        while journal_next_frame(&data[0], limit, &position, &base.base, &frame) == STATUS_OK:
            if frame.header.frame_type == JOURNAL_FRAME_ATTACH:
                length = 0
                if frame.payload_bytes >= 8:
                    memcpy(&length, frame.payload, 8)
                if frame.payload_bytes < 8 or length > frame.payload_bytes - 8:
                    status = STATUS_CORRUPT
                    break
            elif frame.header.frame_type == JOURNAL_FRAME_COMMIT:
                offset = 0
                operations = 0
                while True:
                    status = journal_next_operation(&frame, &offset, &operation)
                    if status != STATUS_OK:
                        break
                    operations += 1
                if status == STATUS_CORRUPT or operations != frame.header.operation_count:
                    status = STATUS_CORRUPT
                    break
            frames += 1
    return frames, frame.position if status == STATUS_CORRUPT else None


def skip_through(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
                 FrameBase base not None, uint64_t sequence):
    """Return the position of the first frame of a scanned span with a sequence above `sequence`."""
    cdef JournalFrame frame
    cdef uint64_t start = position
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    if limit:
        with nogil:
            while (journal_next_frame(&data[0], limit, &position, &base.base, &frame) == STATUS_OK
                   and frame.header.sequence <= sequence):
                start = position
    return start


def next_frame(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
               FrameBase base not None):
    """Read the header at `position` of a scanned span.

    Returns (end position, type, epoch, sequence, commit time, synced position, operation count,
    codec, key id), or None at the end of the span.
    """
    cdef JournalFrame frame
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    if limit == 0 or journal_next_frame(&data[0], limit, &position, &base.base,
                                        &frame) != STATUS_OK:
        return None
    return (position, frame.header.frame_type, frame.header.epoch, frame.header.sequence,
            frame.header.commit_time, frame.header.synced_position, frame.header.operation_count,
            frame.header.codec, frame.header.key_id)


def next_operation(const uint8_t[::1] data not None, uint64_t position, uint64_t end,
                   FrameBase base not None, uint64_t offset):
    """Read the operation at `offset` of the payload of the frame at `position` of a scanned span.

    Returns None after the last, -1 when the bytes are no operation, else (next offset, table id,
    kind, flags, row count, key count, places and bytes of: heads or key lengths, key data, value
    lengths, value data; value width); places are in `data`, -1 for an absent piece.
    """
    cdef JournalFrame frame
    cdef JournalOperation operation
    cdef int status
    cdef const uint8_t *start
    cdef uint64_t limit = end if end < <uint64_t> data.shape[0] else <uint64_t> data.shape[0]
    if limit == 0 or journal_next_frame(&data[0], limit, &position, &base.base,
                                        &frame) != STATUS_OK:
        return -1
    start = &data[0]
    status = journal_next_operation(&frame, &offset, &operation)
    if status == STATUS_NOT_FOUND:
        return None
    if status != STATUS_OK:
        return -1
    heads = (<const uint8_t *> operation.heads) - start if operation.heads != NULL else -1
    key_lengths = (
        (<const uint8_t *> operation.key_lengths) - start if operation.key_lengths != NULL else -1)
    key_data = operation.key_data - start if operation.key_data != NULL else -1
    value_lengths = (
        (<const uint8_t *> operation.value_lengths) - start
        if operation.value_lengths != NULL else -1)
    value_data = operation.value_data - start if operation.value_data != NULL else -1
    return (offset, operation.table_id, operation.kind, operation.flags, operation.row_count,
            operation.key_count, heads, key_lengths, key_data, operation.key_data_bytes,
            value_lengths, value_data, operation.value_data_bytes, operation.value_width_bytes)
