"""The k-way merge: see _cursor.pxd for the contract."""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from cesium._gap cimport equal_heads, gap_end, gap_pass
from cesium._interval cimport (
    Interval, interval_set_at_or_after, interval_set_at_or_before, key_compare,
)
from cesium._layout cimport KIND_DELETE, KIND_MASK, STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK
from cesium._native cimport load_head
from cesium._page cimport (
    Key, PageSource, Shape, header_of, heads_of, page_copy_key, page_copy_value, page_find,
    page_key_bytes, page_value_bytes, run_of,
)


cdef Cursor *cursor_new(const Shape *shape, uint32_t inputs, int direction,
                        bint keep_markers) noexcept nogil:
    cdef Cursor *cursor = <Cursor *>calloc(1, sizeof(Cursor))
    if cursor == NULL:
        return NULL
    cursor.inputs = <Input *>calloc(inputs if inputs else 1, sizeof(Input))
    if cursor.inputs == NULL:
        free(cursor)
        return NULL
    cursor.shape = shape
    cursor.count = inputs
    cursor.direction = direction
    cursor.keep_markers = keep_markers
    cursor.bounds.unbounded = True
    return cursor


cdef void cursor_free(Cursor *cursor) noexcept nogil:
    cdef uint32_t index
    if cursor == NULL:
        return
    for index in range(cursor.count):
        free(cursor.inputs[index].buffer)
    free(cursor.inputs)
    free(cursor)


cdef inline const PageSource *pages_of(const Input *input) noexcept nogil:
    """Where the overflowed keys and values of the input's page are read."""
    if input.parts == NULL:
        return &input.source
    return input.parts + (input.position.ordinal >> 32)


cdef int load_key(Cursor *cursor, Input *input) noexcept nogil:
    """Reads the key at the input's position into its Key."""
    cdef uint64_t bytes
    cdef uint8_t *buffer
    cdef int status
    input.key.head = heads_of(input.position.page)[input.position.slot]
    if cursor.shape.key_width:
        return STATUS_OK
    bytes = page_key_bytes(cursor.shape, input.position.page, input.position.slot)
    if bytes > input.buffer_bytes:
        buffer = <uint8_t *>realloc(input.buffer, bytes * 2)
        if buffer == NULL:
            return STATUS_NO_MEMORY
        input.buffer = buffer
        input.buffer_bytes = bytes * 2
    status = page_copy_key(cursor.shape, input.position.page, input.position.slot, pages_of(input),
                           input.buffer)
    if status != STATUS_OK:
        return status
    input.key.data = input.buffer
    input.key.bytes = <uint32_t>bytes
    input.key.head = load_head(input.buffer, bytes)
    return STATUS_OK


cdef inline bint outside(Cursor *cursor, const Key *key) noexcept nogil:
    """Whether a key lies past the end that the cursor moves to."""
    cdef bint fixed = cursor.shape.key_width != 0
    if cursor.direction > 0:
        return not cursor.bounds.unbounded and key_compare(fixed, key, &cursor.bounds.upper) >= 0
    return key_compare(fixed, key, &cursor.bounds.lower) < 0


cdef void input_note_part(Input *input) noexcept nogil:
    cdef uint32_t part
    if input.parts != NULL and input.position.page != NULL:
        part = <uint32_t>(input.position.ordinal >> 32)
        input.first_part = min(input.first_part, part)
        input.last_part = max(input.last_part, part)


cdef inline void note_no_part(Input *input) noexcept nogil:
    input.first_part = UINT32_MAX
    input.last_part = 0


cdef int input_enter(Input *input) noexcept nogil:
    cdef int status
    note_no_part(input)
    status = input.source.edge(input.source.context, &input.position, 1)
    input_note_part(input)
    return status


cdef bint position_is_behind(const Position *position, const Position *before) noexcept nogil:
    if position.page == NULL or position.ordinal > before.ordinal:
        return True
    return position.ordinal == before.ordinal and position.slot > before.slot


cdef int cursor_whole(Cursor *cursor) noexcept nogil:
    cdef Input *input
    cdef uint32_t index
    cdef uint32_t part
    cdef int status
    for index in range(cursor.count):
        input = &cursor.inputs[index]
        if input.parts == NULL:
            if input.source.whole != NULL:
                status = input.source.whole(input.source.context)
                if status != STATUS_OK:
                    return status
            continue
        part = input.first_part
        while part <= input.last_part:
            status = input.parts[part].whole(input.parts[part].context)
            if status != STATUS_OK:
                return status
            part += 1
        note_no_part(input)
        input_note_part(input)
    return STATUS_OK


cdef int settle(Cursor *cursor, Input *input) noexcept nogil:
    """After a move: loads the key, or ends the input when it ran out of the bounds."""
    cdef int status
    input_note_part(input)
    if input.position.page == NULL:
        return STATUS_OK
    status = load_key(cursor, input)
    if status == STATUS_OK and outside(cursor, &input.key):
        input.position.page = NULL
    return status


cdef int seek_before(Cursor *cursor, Input *input, const Key *key) noexcept nogil:
    """Moves to the last entry < key."""
    cdef PageSource *source = &input.source
    cdef int status = source.seek(source.context, key, &input.position)
    if status != STATUS_OK:
        return status
    if input.position.page == NULL:
        return source.edge(source.context, &input.position, -1)
    if input.position.slot:
        input.position.slot -= 1
        return STATUS_OK
    return source.step(source.context, &input.position, -1)


cdef int start(Cursor *cursor) noexcept nogil:
    cdef uint32_t index
    cdef Input *input
    cdef PageSource *source
    cdef int status
    cursor.started = True
    for index in range(cursor.count):
        input = &cursor.inputs[index]
        source = &input.source
        note_no_part(input)
        input.position.page = NULL
        if cursor.direction > 0:
            status = source.seek(source.context, &cursor.bounds.lower, &input.position)
        elif cursor.bounds.unbounded:
            status = source.edge(source.context, &input.position, -1)
        else:
            status = seek_before(cursor, input, &cursor.bounds.upper)
        if status == STATUS_OK:
            status = settle(cursor, input)
        if status != STATUS_OK:
            return status
    return STATUS_OK


cdef int move_to(Cursor *cursor, Input *input, int64_t slot) noexcept nogil:
    """Puts the input at `slot` of its page, or at the next page when it lies past the edge."""
    cdef int status
    if slot < 0 or slot >= header_of(input.position.page).count:
        status = input.source.step(input.source.context, &input.position, cursor.direction)
        if status != STATUS_OK:
            return status
    else:
        input.position.slot = <uint32_t>slot
    return settle(cursor, input)


cdef int slot_before(Cursor *cursor, Input *input, const Key *key, uint32_t *slot) noexcept nogil:
    """First slot of the input's page whose key is >= key."""
    cdef bint exact
    return page_find(cursor.shape, input.position.page, key, pages_of(input), slot, &exact)


cdef int clip_forward(Cursor *cursor, uint32_t chosen, const Key *limit, bint limited,
                      uint32_t *end) noexcept nogil:
    """Slots from the input's own up to `end` lie below every limit: others' keys, the upper bound,
    the start of a newer source's range-delete."""
    cdef Input *input = &cursor.inputs[chosen]
    cdef const Interval *interval
    cdef uint32_t index
    cdef uint32_t slot
    cdef uint32_t count = header_of(input.position.page).count
    cdef int status
    end[0] = count
    if limited:
        status = slot_before(cursor, input, limit, &slot)
        if status != STATUS_OK:
            return status
        end[0] = min(end[0], slot)
    if not cursor.bounds.unbounded:
        status = slot_before(cursor, input, &cursor.bounds.upper, &slot)
        if status != STATUS_OK:
            return status
        end[0] = min(end[0], slot)
    for index in range(chosen):
        interval = interval_set_at_or_after(cursor.inputs[index].markers, &input.key)
        if interval != NULL:
            status = slot_before(cursor, input, &interval.lower, &slot)
            if status != STATUS_OK:
                return status
            end[0] = min(end[0], slot)
    return STATUS_OK


cdef int clip_backward(Cursor *cursor, uint32_t chosen, const Key *limit, bint limited,
                       uint32_t *first) noexcept nogil:
    """Slots from `first` up to the input's own lie above every limit."""
    cdef Input *input = &cursor.inputs[chosen]
    cdef const Interval *interval
    cdef uint32_t index
    cdef uint32_t slot
    cdef bint exact
    cdef int status
    first[0] = 0
    if limited:
        status = page_find(cursor.shape, input.position.page, limit, pages_of(input), &slot, &exact)
        if status != STATUS_OK:
            return status
        first[0] = max(first[0], slot + exact)
    status = slot_before(cursor, input, &cursor.bounds.lower, &slot)
    if status != STATUS_OK:
        return status
    first[0] = max(first[0], slot)
    for index in range(chosen):
        interval = interval_set_at_or_before(cursor.inputs[index].markers, &input.key)
        if interval != NULL:        # it ends at or below our key: hidden keys lie below its end
            status = slot_before(cursor, input, &interval.upper, &slot)
            if status != STATUS_OK:
                return status
            first[0] = max(first[0], slot)
    return STATUS_OK


cdef int leave_interval(Cursor *cursor, Input *input, const Interval *interval) noexcept nogil:
    """Jumps over what a newer range-delete hides."""
    cdef int status
    if cursor.direction > 0:
        if interval.unbounded:
            input.position.page = NULL
            return STATUS_OK
        status = input.source.seek(input.source.context, &interval.upper, &input.position)
    else:
        status = seek_before(cursor, input, &interval.lower)
    if status != STATUS_OK:
        return status
    return settle(cursor, input)


cdef const Interval *hidden_by(Cursor *cursor, uint32_t chosen) noexcept nogil:
    """The newer source's range-delete that holds the input's key, or NULL."""
    cdef bint fixed = cursor.shape.key_width != 0
    cdef Key *key = &cursor.inputs[chosen].key
    cdef const Interval *interval
    cdef uint32_t index
    for index in range(chosen):
        interval = interval_set_at_or_before(cursor.inputs[index].markers, key)
        if interval != NULL and (interval.unbounded
                                 or key_compare(fixed, key, &interval.upper) < 0):
            return interval
    return NULL


cdef int pass_shadowed(Cursor *cursor, Input *older, const Input *newer) noexcept nogil:
    """Moves the older input past its entries whose keys the newer one has: this key, and, where
    heads are keys, all that follow alike in the two pages.  A million keys, all of them deleted
    again, are crossed in a twentieth of the time."""
    cdef int64_t entries = 1
    if cursor.shape.key_width:
        entries = equal_heads(
            older.position.page, older.position.slot, header_of(older.position.page).count,
            newer.position.page, newer.position.slot, header_of(newer.position.page).count,
            cursor.direction)
    return move_to(cursor, older, older.position.slot + entries * cursor.direction)


cdef int choose(Cursor *cursor, int64_t *chosen, int64_t *second) noexcept nogil:
    """The input with the next key, and the one that comes after it; -1 for none.  Older inputs at
    the same key are moved past it, and hidden entries are left, so that both are visible places."""
    cdef bint fixed = cursor.shape.key_width != 0
    cdef const Interval *interval
    cdef Input *input
    cdef uint32_t index
    cdef int order
    cdef int status
    cdef bint again = True
    while again:
        again = False
        chosen[0] = -1
        second[0] = -1
        for index in range(cursor.count):
            input = &cursor.inputs[index]
            while input.position.page != NULL:
                interval = hidden_by(cursor, index)
                if interval == NULL:
                    break
                status = leave_interval(cursor, input, interval)
                if status != STATUS_OK:
                    return status
            if input.position.page == NULL:
                continue
            if chosen[0] < 0:
                chosen[0] = index
                continue
            order = key_compare(fixed, &input.key, &cursor.inputs[chosen[0]].key) * cursor.direction
            if order == 0:
                status = pass_shadowed(cursor, input, &cursor.inputs[chosen[0]])
                if status != STATUS_OK:
                    return status
                again = True
                break
            if order < 0:
                second[0] = chosen[0]
                chosen[0] = index
            elif second[0] < 0 or key_compare(
                    fixed, &input.key, &cursor.inputs[second[0]].key) * cursor.direction < 0:
                second[0] = index
    return STATUS_OK


cdef int next_stretch(Cursor *cursor, Run *run) noexcept nogil:
    """The next slots of one page that no newer source shadows, delete markers included; the input
    is moved behind them."""
    cdef int64_t chosen
    cdef int64_t second
    cdef Input *input
    cdef const Key *limit = NULL
    cdef uint32_t edge
    cdef int status = choose(cursor, &chosen, &second)
    if status != STATUS_OK:
        return status
    if chosen < 0:
        return STATUS_NOT_FOUND
    input = &cursor.inputs[chosen]
    if second >= 0:
        limit = &cursor.inputs[second].key
    run.page = input.position.page
    run.source = pages_of(input)
    if cursor.direction > 0:
        status = clip_forward(cursor, <uint32_t>chosen, limit, second >= 0, &edge)
        if status != STATUS_OK:
            return status
        # An unsorted page (damage that kept its checksum) must not stop the cursor.
        run.first = input.position.slot
        run.last = max(edge, run.first + 1)
        return move_to(cursor, input, run.last)
    status = clip_backward(cursor, <uint32_t>chosen, limit, second >= 0, &edge)
    if status != STATUS_OK:
        return status
    run.last = input.position.slot + 1
    run.first = min(edge, input.position.slot)
    return move_to(cursor, input, <int64_t>run.first - 1)


cdef bint next_visible(Cursor *cursor, Run *stretch, Run *run) noexcept nogil:
    """Cuts the next run without delete markers off a stretch; False when nothing is left of it."""
    cdef const uint8_t *kinds
    cdef uint32_t slot
    if stretch.first >= stretch.last:
        return False
    run[0] = stretch[0]
    if cursor.keep_markers or header_of(stretch.page).kinds_offset == 0:
        # Emptied at the end that a part of the run may be given back to.
        if cursor.direction > 0:
            stretch.first = stretch.last
        else:
            stretch.last = stretch.first
        return True
    kinds = stretch.page + header_of(stretch.page).kinds_offset
    if cursor.direction > 0:
        slot = stretch.first
        while slot < stretch.last and (kinds[slot] & KIND_MASK) == KIND_DELETE:
            slot += 1
        if slot > stretch.first:
            gap_pass(&cursor.gaps, stretch.page, stretch.first, slot - 1, stretch.source)
        run.first = slot
        while slot < stretch.last and (kinds[slot] & KIND_MASK) != KIND_DELETE:
            slot += 1
        run.last = slot
        stretch.first = slot
    else:
        slot = stretch.last
        while slot > stretch.first and (kinds[slot - 1] & KIND_MASK) == KIND_DELETE:
            slot -= 1
        if slot < stretch.last:
            gap_pass(&cursor.gaps, stretch.page, stretch.last - 1, slot, stretch.source)
        run.last = slot
        while slot > stretch.first and (kinds[slot - 1] & KIND_MASK) != KIND_DELETE:
            slot -= 1
        run.first = slot
        stretch.last = slot
    return run.first < run.last


cdef int cursor_next(Cursor *cursor, Run *pending, Run *run) noexcept nogil:
    cdef int status
    if not cursor.started:
        status = start(cursor)
        if status != STATUS_OK:
            return status
    while not next_visible(cursor, pending, run):
        if pending.first >= pending.last:
            status = next_stretch(cursor, pending)
            if status != STATUS_OK:
                pending.first = 0
                pending.last = 0
                if cursor.gaps.current.markers:
                    gap_end(&cursor.gaps, NULL, 0, NULL)
                return status
    if cursor.gaps.current.markers:
        gap_end(&cursor.gaps, run.page, run.first if cursor.direction > 0 else run.last - 1,
                run.source)
    cursor.runs += 1
    return STATUS_OK


cdef void cursor_give_back(Cursor *cursor, Run *pending, const Run *rest) noexcept nogil:
    if rest.first < rest.last:
        if cursor.direction > 0:
            pending.first = rest.first
        else:
            pending.last = rest.last


# --- consumers --------------------------------------------------------------------------------


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


cdef int copy_run(Cursor *cursor, const Run *run, Rows *rows) noexcept nogil:
    cdef const Shape *shape = cursor.shape
    cdef bint backward = cursor.direction < 0
    cdef uint32_t count = run.last - run.first
    cdef uint32_t index
    cdef uint32_t slot
    cdef int status
    if shape.key_width:
        copy_heads(run, backward, rows.heads + rows.count)
    if shape.value_width and not rows.skip_values:
        copy_fixed_values(shape, run, backward, rows.rows + rows.count * shape.value_width)
    if shape.key_width == 0 or (shape.value_width == 0 and not rows.skip_values):
        for index in range(count):
            slot = run.last - 1 - index if backward else run.first + index
            if shape.key_width == 0:
                status = copy_variable_key(shape, run, slot, rows, rows.count + index)
                if status != STATUS_OK:
                    return status
            if shape.value_width == 0 and not rows.skip_values:
                status = copy_variable_value(run, slot, rows, rows.count + index)
                if status != STATUS_OK:
                    return status
    rows.count += count
    return STATUS_OK


cdef inline uint32_t take(Cursor *cursor, Run *run, Run *part, uint64_t most) noexcept nogil:
    """Cuts up to `most` rows off the run, in the cursor's direction, into `part`."""
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
    cdef int status
    while left:
        status = cursor_next(cursor, pending, &run)
        if status != STATUS_OK:
            return status
        left -= take(cursor, &run, &part, left)
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
        skipped[0] += take(cursor, &run, &part, limit - skipped[0])
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
