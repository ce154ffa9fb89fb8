"""The k-way merge: see _cursor.pxd for the contract."""

from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc

from cesium._gap cimport equal_heads, gap_end, gap_pass, set_edge
from cesium._interval cimport (
    Interval, interval_set_at_or_after, interval_set_at_or_before, key_compare,
)
from cesium._layout cimport (
    KIND_DELETE, KIND_MASK, STATUS_CORRUPT, STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK,
)
from cesium._native cimport load_head
from cesium._page cimport (
    Key, PageSource, Shape, header_of, heads_of, page_compare, page_copy_key, page_find,
    page_key_bytes,
)


cdef Cursor *cursor_new(const Shape *shape, uint32_t inputs, int direction,
                        bint keep_markers) noexcept nogil:
    cdef Cursor *cursor = <Cursor *>calloc(1, sizeof(Cursor))
    if cursor == NULL:
        return NULL
    cursor.count = inputs
    cursor.inputs = <Input *>calloc(max(inputs, <uint32_t>1), sizeof(Input))
    cursor.heap = <Contender *>calloc(max(inputs, <uint32_t>1), sizeof(Contender))
    cursor.marked = <uint32_t *>calloc(max(inputs, <uint32_t>1), sizeof(uint32_t))
    if cursor.inputs == NULL or cursor.heap == NULL or cursor.marked == NULL:
        cursor.count = 0
        cursor_free(cursor)
        return NULL
    cursor.shape = shape
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
    free(cursor.heap)
    free(cursor.marked)
    free(cursor.aheads)
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


cdef int find_edge(Cursor *cursor, Input *input) noexcept nogil:
    """Where the bounds, at the end that the cursor moves to, cut the input's page: once a page."""
    cdef const uint8_t *page = input.position.page
    cdef uint32_t count = header_of(page).count
    cdef int status
    input.edge_page = page
    if cursor.direction < 0:
        return slot_before(cursor, input, &cursor.bounds.lower, &input.edge)
    input.edge = count
    if cursor.bounds.unbounded:
        return STATUS_OK
    if cursor.shape.key_width and count and heads_of(page)[count - 1] < cursor.bounds.upper.head:
        return STATUS_OK
    status = slot_before(cursor, input, &cursor.bounds.upper, &input.edge)
    return status


cdef int settle(Cursor *cursor, Input *input) noexcept nogil:
    """After a move: loads the key, or ends the input when it ran out of the bounds."""
    cdef int status
    input_note_part(input)
    if input.position.page == NULL:
        return STATUS_OK
    if input.position.page != input.edge_page:
        status = find_edge(cursor, input)
        if status != STATUS_OK:
            return status
    if (input.position.slot >= input.edge if cursor.direction > 0
            else input.position.slot < input.edge):
        input.position.page = NULL
        return STATUS_OK
    return load_key(cursor, input)


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
    cursor.heap_count = 0
    cursor.marked_count = 0
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
        if input.markers != NULL and input.markers.count:
            cursor.marked[cursor.marked_count] = index
            cursor.marked_count += 1
        if input.position.page != NULL:
            cursor.heap[cursor.heap_count] = contender(cursor, index)
            cursor.heap_count += 1
    index = cursor.heap_count // 2
    while index:
        index -= 1
        sift(cursor, index)
    return STATUS_OK


# --- the heap ------------------------------------------------------------------------------------


cdef inline Contender contender(const Cursor *cursor, uint32_t index) noexcept nogil:
    cdef Contender answer
    answer.order = cursor.inputs[index].key.head
    answer.input = index
    if cursor.direction < 0:
        answer.order = ~answer.order
    return answer


cdef inline int key_order(const Cursor *cursor, const Contender *one,
                          const Contender *other) noexcept nogil:
    """Which key comes first in the cursor's direction: -1, 0 or 1."""
    if one.order != other.order:
        return -1 if one.order < other.order else 1
    if cursor.shape.key_width:
        return 0
    return cursor.direction * key_compare(
        False, &cursor.inputs[one.input].key, &cursor.inputs[other.input].key)


cdef inline bint comes_first(const Cursor *cursor, const Contender *one,
                             const Contender *other) noexcept nogil:
    cdef int order = key_order(cursor, one, other)
    return order < 0 or (order == 0 and one.input < other.input)


cdef void sift(Cursor *cursor, uint32_t place) noexcept nogil:
    """Moves a contender that may come too late for its place down."""
    cdef Contender *heap = cursor.heap
    cdef Contender moving = heap[place]
    cdef uint32_t child = 2 * place + 1
    while child < cursor.heap_count:
        if child + 1 < cursor.heap_count and comes_first(cursor, heap + child + 1, heap + child):
            child += 1
        if not comes_first(cursor, heap + child, &moving):
            break
        heap[place] = heap[child]
        place = child
        child = 2 * place + 1
    heap[place] = moving


cdef inline void play(Cursor *cursor, uint32_t place) noexcept nogil:
    """The input at this place of the heap was moved on, or has ended."""
    cdef uint32_t index = cursor.heap[place].input
    if cursor.inputs[index].position.page != NULL:
        cursor.heap[place] = contender(cursor, index)
    else:
        # What takes its place comes from the end: it may come too late there, never too early, for
        # the place is the root or a child of it.
        cursor.heap_count -= 1
        if place == cursor.heap_count:
            return
        cursor.heap[place] = cursor.heap[cursor.heap_count]
    sift(cursor, place)


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


cdef inline bint looks_first(const Cursor *cursor) noexcept nogil:
    """Whether to look at the next slot before searching the page.  Where inputs interleave at
    random, of three and more it is another's turn more often than not; of two as often as not,
    which pays only if looking is one comparison."""
    return cursor.heap_count > 2 or cursor.shape.key_width != 0


cdef int clip_forward(Cursor *cursor, uint32_t chosen, const Key *limit,
                      uint32_t *end) noexcept nogil:
    """Slots from the input's own up to `end` lie below every limit: the next key of all others
    (NULL: there are none), the upper bound, the start of a newer source's range-delete."""
    cdef Input *input = &cursor.inputs[chosen]
    cdef const Interval *interval
    cdef uint32_t next_slot = input.position.slot + 1
    cdef uint32_t index
    cdef uint32_t slot
    cdef int order
    cdef int status
    end[0] = input.edge
    if limit != NULL and next_slot < end[0]:
        order = -1
        status = STATUS_OK
        if looks_first(cursor):
            status = page_compare(cursor.shape, input.position.page, next_slot, limit,
                                  pages_of(input), &order)
        slot = next_slot
        if status == STATUS_OK and order < 0:
            status = slot_before(cursor, input, limit, &slot)
        if status != STATUS_OK:
            return status
        end[0] = min(end[0], slot)
    for index in range(cursor.marked_count):
        if cursor.marked[index] >= chosen:
            break
        interval = interval_set_at_or_after(cursor.inputs[cursor.marked[index]].markers, &input.key)
        if interval != NULL:
            status = slot_before(cursor, input, &interval.lower, &slot)
            if status != STATUS_OK:
                return status
            end[0] = min(end[0], slot)
    return STATUS_OK


cdef int clip_backward(Cursor *cursor, uint32_t chosen, const Key *limit,
                       uint32_t *first) noexcept nogil:
    """Slots from `first` up to the input's own lie above every limit."""
    cdef Input *input = &cursor.inputs[chosen]
    cdef const Interval *interval
    cdef uint32_t index
    cdef uint32_t slot
    cdef bint exact
    cdef int order
    cdef int status
    first[0] = input.edge
    if limit != NULL and input.position.slot > first[0]:
        order = 1
        status = STATUS_OK
        if looks_first(cursor):
            status = page_compare(cursor.shape, input.position.page, input.position.slot - 1, limit,
                                  pages_of(input), &order)
        slot = input.position.slot
        exact = False
        if status == STATUS_OK and order > 0:
            status = page_find(cursor.shape, input.position.page, limit, pages_of(input), &slot,
                               &exact)
        if status != STATUS_OK:
            return status
        first[0] = max(first[0], slot + exact)
    for index in range(cursor.marked_count):
        if cursor.marked[index] >= chosen:
            break
        interval = interval_set_at_or_before(cursor.inputs[cursor.marked[index]].markers,
                                             &input.key)
        if interval != NULL:        # it ends at or below our key: hidden keys lie below its end
            status = slot_before(cursor, input, &interval.upper, &slot)
            if status != STATUS_OK:
                return status
            first[0] = max(first[0], slot)
    return STATUS_OK


cdef int leave_interval(Cursor *cursor, Input *input, const Interval *interval) noexcept nogil:
    """Jumps over what a newer range-delete hides."""
    cdef Position before = input.position
    cdef bint moved
    cdef int status
    if cursor.direction > 0:
        if interval.unbounded:
            input.position.page = NULL
            return STATUS_OK
        status = input.source.seek(input.source.context, &interval.upper, &input.position)
        moved = position_is_behind(&input.position, &before)
    else:
        status = seek_before(cursor, input, &interval.lower)
        moved = input.position.page == NULL or position_is_behind(&before, &input.position)
    if status != STATUS_OK:
        return status
    if not moved:
        return STATUS_CORRUPT       # an unsorted page: this would go round for ever
    return settle(cursor, input)


cdef const Interval *hidden_by(Cursor *cursor, uint32_t chosen) noexcept nogil:
    """The newer source's range-delete that holds the input's key, or NULL."""
    cdef bint fixed = cursor.shape.key_width != 0
    cdef Key *key = &cursor.inputs[chosen].key
    cdef const Interval *interval
    cdef uint32_t index
    for index in range(cursor.marked_count):
        if cursor.marked[index] >= chosen:
            break
        interval = interval_set_at_or_before(cursor.inputs[cursor.marked[index]].markers, key)
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


cdef int choose(Cursor *cursor) noexcept nogil:
    """Makes the root of the heap the place of the next stretch: not hidden, its key in no other
    input that comes next.  STATUS_NOT_FOUND at the end."""
    cdef const Interval *interval
    cdef Input *input
    cdef uint32_t place
    cdef int status
    while cursor.heap_count:
        input = &cursor.inputs[cursor.heap[0].input]
        if cursor.marked_count:
            interval = hidden_by(cursor, cursor.heap[0].input)
            if interval != NULL:
                status = leave_interval(cursor, input, interval)
                if status != STATUS_OK:
                    return status
                play(cursor, 0)
                continue
        place = second(cursor)
        if place == 0 or key_order(cursor, cursor.heap + place, cursor.heap):
            return STATUS_OK
        status = pass_shadowed(cursor, &cursor.inputs[cursor.heap[place].input], input)
        if status != STATUS_OK:
            return status
        play(cursor, place)
    return STATUS_NOT_FOUND


cdef inline uint32_t second(const Cursor *cursor) noexcept nogil:
    """The place in the heap of what comes after its root; 0 for none."""
    if cursor.heap_count < 3:
        return cursor.heap_count >> 1
    return 2 if comes_first(cursor, cursor.heap + 2, cursor.heap + 1) else 1


cdef int next_stretch(Cursor *cursor, Run *run) noexcept nogil:
    """The next slots of one page that no newer source shadows, delete markers included; the input
    is moved behind them."""
    cdef Input *input
    cdef const Key *limit = NULL
    cdef uint32_t chosen
    cdef uint32_t edge
    cdef int64_t next_slot
    cdef int status = choose(cursor)
    if status != STATUS_OK:
        return status
    chosen = cursor.heap[0].input
    input = &cursor.inputs[chosen]
    if cursor.heap_count > 1:
        limit = &cursor.inputs[cursor.heap[second(cursor)].input].key
    run.page = input.position.page
    run.source = pages_of(input)
    if cursor.direction > 0:
        status = clip_forward(cursor, chosen, limit, &edge)
        # An unsorted page (damage that kept its checksum) must not stop the cursor.
        run.first = input.position.slot
        run.last = max(edge, run.first + 1)
        next_slot = run.last
    else:
        status = clip_backward(cursor, chosen, limit, &edge)
        run.last = input.position.slot + 1
        run.first = min(edge, input.position.slot)
        next_slot = <int64_t>run.first - 1
    if status == STATUS_OK:
        status = move_to(cursor, input, next_slot)
    if status == STATUS_OK:
        play(cursor, 0)
    return status


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
    if cursor.failed:
        return cursor.failed
    if not cursor.started:
        status = start(cursor)
        if status != STATUS_OK:
            cursor.failed = status
            return status
    while not next_visible(cursor, pending, run):
        if pending.first >= pending.last:
            status = next_stretch(cursor, pending)
            if status != STATUS_OK:
                pending.first = 0
                pending.last = 0
                if status != STATUS_NOT_FOUND:
                    cursor.failed = status
                if cursor.gaps.current.markers:
                    gap_end(&cursor.gaps, NULL, 0, NULL)
                return status
    if cursor.gaps.current.markers:
        gap_end(&cursor.gaps, run.page, run.first if cursor.direction > 0 else run.last - 1,
                run.source)
    set_edge(&cursor.gaps.row, run.page, run.last - 1 if cursor.direction > 0 else run.first,
             run.source)
    cursor.runs += 1
    return STATUS_OK


cdef void cursor_give_back(Cursor *cursor, Run *pending, const Run *rest) noexcept nogil:
    if rest.first < rest.last:
        if cursor.direction > 0:
            pending.first = rest.first
        else:
            pending.last = rest.last
