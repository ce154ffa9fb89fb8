"""Rows copied out of a cursor's runs: see _rows.pxd for the contract."""

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from cesium._cursor cimport cursor_give_back, cursor_next, cursor_whole
from cesium._layout cimport STATUS_NO_MEMORY, STATUS_OK
from cesium._page cimport (
    heads_of, page_copy_key, page_copy_value, page_key_bytes, page_value_bytes, run_of,
)


cdef int grow(void **memory, uint64_t bytes) noexcept nogil:
    cdef void *larger = realloc(memory[0], bytes if bytes else 1)
    if larger == NULL:
        return STATUS_NO_MEMORY
    memory[0] = larger
    return STATUS_OK


cdef int rows_reserve(const Shape *shape, Rows *rows, uint64_t capacity) noexcept nogil:
    """Gives a Rows room of its own (for owners that hand no arrays in)."""
    cdef int status
    if shape.key_width:
        status = grow(<void **>&rows.heads, capacity * 8)
    else:
        status = grow(<void **>&rows.key_offsets, (capacity + 1) * 8)
        if status == STATUS_OK:
            rows.key_offsets[0] = 0
    if status != STATUS_OK:
        return status
    if not rows.skip_values:
        if shape.value_width:
            status = grow(<void **>&rows.rows, capacity * shape.value_width)
        else:
            status = grow(<void **>&rows.value_offsets, (capacity + 1) * 8)
            if status == STATUS_OK:
                rows.value_offsets[0] = 0
        if status != STATUS_OK:
            return status
    rows.capacity = capacity
    return STATUS_OK


cdef void rows_trim(Rows *rows) noexcept nogil:
    if rows.key_data_bytes > 2 * rows.data_bytes_most:
        free(rows.key_data)
        rows.key_data = NULL
        rows.key_data_bytes = 0
    if rows.value_data_bytes > 2 * rows.data_bytes_most:
        free(rows.value_data)
        rows.value_data = NULL
        rows.value_data_bytes = 0


cdef void rows_free(Rows *rows) noexcept nogil:
    free(rows.heads)
    free(rows.key_offsets)
    free(rows.key_data)
    free(rows.rows)
    free(rows.value_offsets)
    free(rows.value_data)
    memset(rows, 0, sizeof(Rows))


cdef inline int reserve_data(uint8_t **data, uint64_t *held, uint64_t used,
                             uint64_t more) noexcept nogil:
    cdef uint64_t size
    if used + more <= held[0]:
        return STATUS_OK
    size = max(used + more, held[0] + held[0] // 2 + 4096)
    if grow(<void **>data, size) != STATUS_OK:
        return STATUS_NO_MEMORY
    held[0] = size
    return STATUS_OK


cdef int copy_variable_key(const Shape *shape, const Run *run, uint32_t slot,
                           Rows *rows, uint64_t row) noexcept nogil:
    cdef uint64_t start = rows.key_offsets[row]
    cdef uint64_t bytes = page_key_bytes(shape, run.page, slot)
    cdef int status = reserve_data(&rows.key_data, &rows.key_data_bytes, start, bytes)
    if status == STATUS_OK:
        status = page_copy_key(shape, run.page, slot, run.source, rows.key_data + start)
        rows.key_offsets[row + 1] = start + bytes
    return status


cdef int copy_variable_value(const Run *run, uint32_t slot, Rows *rows,
                             uint64_t row) noexcept nogil:
    cdef uint64_t start = rows.value_offsets[row]
    cdef uint64_t bytes = page_value_bytes(run.page, slot)
    cdef int status = reserve_data(&rows.value_data, &rows.value_data_bytes, start, bytes)
    if status == STATUS_OK:
        status = page_copy_value(run.page, slot, run.source, 0, rows.value_data + start, bytes)
        rows.value_offsets[row + 1] = start + bytes
    return status


cdef void copy_heads(const Run *run, bint backward, uint64_t *destination) noexcept nogil:
    cdef uint64_t *heads = heads_of(run.page)
    cdef uint32_t count = run.last - run.first
    cdef uint32_t index
    if not backward:
        memcpy(destination, heads + run.first, count * 8)
        return
    for index in range(count):
        destination[index] = heads[run.last - 1 - index]


cdef void copy_fixed_values(const Shape *shape, const Run *run, bint backward,
                            uint8_t *destination) noexcept nogil:
    """Packed rows of fixed values, from the page's column runs."""
    cdef uint32_t count = run.last - run.first
    cdef uint32_t width = shape.value_width
    cdef uint32_t field_width
    cdef uint32_t field
    cdef uint32_t index
    cdef uint32_t slot
    cdef const uint8_t *column
    cdef uint8_t *target
    if shape.field_count == 1 and not backward:
        memcpy(destination, run_of(shape, run.page, 0) + run.first * width, count * width)
        return
    for field in range(shape.field_count):
        field_width = shape.field_widths[field]
        column = run_of(shape, run.page, field)
        target = destination + shape.field_starts[field]
        if field_width == 8:        # the common width: a constant size lets memcpy be one move
            for index in range(count):
                slot = run.last - 1 - index if backward else run.first + index
                memcpy(target + index * width, column + slot * 8, 8)
        elif field_width == 4:
            for index in range(count):
                slot = run.last - 1 - index if backward else run.first + index
                memcpy(target + index * width, column + slot * 4, 4)
        else:
            for index in range(count):
                slot = run.last - 1 - index if backward else run.first + index
                memcpy(target + index * width, column + slot * field_width, field_width)


cdef void copy_columns(const Shape *shape, const Run *run, bint backward,
                       Rows *rows) noexcept nogil:
    """Fixed values field by field: only those asked for are touched."""
    cdef uint32_t count = run.last - run.first
    cdef uint32_t number
    cdef uint32_t index
    cdef uint32_t width
    cdef const uint8_t *column
    cdef uint8_t *target
    for number in range(rows.column_count):
        width = shape.field_widths[rows.fields[number]]
        column = run_of(shape, run.page, rows.fields[number])
        target = rows.columns[number] + rows.count * width
        if not backward:
            memcpy(target, column + run.first * width, count * width)
        else:
            for index in range(count):
                memcpy(target + index * width, column + (run.last - 1 - index) * width, width)


cdef int copy_run(Cursor *cursor, const Run *run, Rows *rows) noexcept nogil:
    cdef const Shape *shape = cursor.shape
    cdef bint backward = cursor.direction < 0
    cdef uint32_t count = run.last - run.first
    cdef uint32_t index
    cdef bint keys = shape.key_width == 0 and not rows.skip_keys
    cdef bint values = shape.value_width == 0 and not rows.skip_values
    cdef uint32_t slot
    cdef int status
    if shape.key_width and not rows.skip_keys:
        copy_heads(run, backward, rows.heads + rows.count)
    if rows.columns != NULL:
        copy_columns(shape, run, backward, rows)
    elif shape.value_width and not rows.skip_values:
        copy_fixed_values(shape, run, backward, rows.rows + rows.count * shape.value_width)
    if keys or values:
        for index in range(count):
            slot = run.last - 1 - index if backward else run.first + index
            if keys:
                status = copy_variable_key(shape, run, slot, rows, rows.count + index)
                if status != STATUS_OK:
                    return status
            if values:
                status = copy_variable_value(run, slot, rows, rows.count + index)
                if status != STATUS_OK:
                    return status
    rows.count += count
    return STATUS_OK


cdef uint32_t rows_within(const Cursor *cursor, const Run *run, uint32_t count,
                          const Rows *rows) noexcept nogil:
    """How many of the run's next `count` rows the bound on their bytes leaves."""
    cdef const Shape *shape = cursor.shape
    cdef bint keys = shape.key_width == 0 and not rows.skip_keys
    cdef bint values = shape.value_width == 0 and not rows.skip_values
    cdef uint64_t bytes = 0
    cdef uint32_t index
    cdef uint32_t slot
    if keys:
        bytes += rows.key_offsets[rows.count]
    if values:
        bytes += rows.value_offsets[rows.count]
    for index in range(count if keys or values else 0):
        slot = run.first + index if cursor.direction > 0 else run.last - 1 - index
        if keys:
            bytes += page_key_bytes(shape, run.page, slot)
        if values:
            bytes += page_value_bytes(run.page, slot)
        if bytes > rows.data_bytes_most and rows.count + index:
            return index
    return count


cdef uint32_t take_rows(Cursor *cursor, Run *run, Run *part, uint64_t most) noexcept nogil:
    cdef uint32_t count = run.last - run.first
    if count > most:
        count = <uint32_t>most
    part[0] = run[0]
    if cursor.direction > 0:
        part.last = run.first + count
        run.first += count
    else:
        part.first = run.last - count
        run.last -= count
    return count


cdef int fill(Cursor *cursor, Run *pending, Rows *rows, uint64_t limit) noexcept nogil:
    cdef Run run
    cdef Run part
    cdef uint64_t left = limit
    cdef uint32_t count
    cdef uint32_t wanted
    cdef bint full = False
    cdef int status
    while left and not full:
        status = cursor_next(cursor, pending, &run)
        if status != STATUS_OK:
            return status
        wanted = count = <uint32_t>min(left, <uint64_t>(run.last - run.first))
        if rows.data_bytes_most:
            count = rows_within(cursor, &run, wanted, rows)
            full = count < wanted
        left -= take_rows(cursor, &run, &part, count)
        status = copy_run(cursor, &part, rows)
        if status != STATUS_OK:
            return status
        cursor_give_back(cursor, pending, &run)
    return STATUS_OK


cdef int skip(Cursor *cursor, Run *pending, uint64_t limit, uint64_t *skipped) noexcept nogil:
    cdef Run run
    cdef Run part
    cdef int status
    skipped[0] = 0
    while skipped[0] < limit:
        status = cursor_next(cursor, pending, &run)
        if status != STATUS_OK:
            return status
        skipped[0] += take_rows(cursor, &run, &part, limit - skipped[0])
        cursor_give_back(cursor, pending, &run)
    return STATUS_OK


cdef inline int after_reading(Cursor *cursor, int status) noexcept nogil:
    cdef int whole = cursor_whole(cursor)
    return whole if whole != STATUS_OK else status


cdef int cursor_fill(Cursor *cursor, Run *pending, Rows *rows, uint64_t limit) noexcept nogil:
    return after_reading(cursor, fill(cursor, pending, rows, limit))


cdef int cursor_skip(Cursor *cursor, Run *pending, uint64_t limit,
                     uint64_t *skipped) noexcept nogil:
    return after_reading(cursor, skip(cursor, pending, limit, skipped))
