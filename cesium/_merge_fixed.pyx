"""Merging fixed keys with fixed rows: see _merge_fixed.pxd for the contract."""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from cesium._builder cimport (
    BuilderRoom, builder_add_slots, builder_bytes, builder_filled, builder_room,
)
from cesium._cursor cimport Input, input_enter, input_note_part, position_is_behind
from cesium._interval cimport Interval, interval_set_at_or_after, interval_set_find
from cesium._layout cimport STATUS_CORRUPT, STATUS_FULL, STATUS_NOT_FOUND, STATUS_OK
from cesium._native cimport heads_lower_bound, is_sorted_u64
from cesium._page cimport Key, Position, Shape, header_of, heads_of, run_of
from cesium._whole_page cimport builder_take_page

cdef enum:
    STREAK = 6                      # wins in a row after which a stretch is looked for
    PICKS = 512                     # rows decided on in one batch, dropped ones included
    ROW_BYTES = 16                  # what a row counts for that leaves no bytes in the output

cdef extern from *:
    """
    #define LANE_ENDED (1ULL << 32)

    /* Plays a contestant against the losers on its way up.  Without branches: which of two random
     * heads is smaller is what no processor can guess. */
    static inline void merge_replay(uint64_t *losers, uint32_t place, uint64_t *head,
                                    uint64_t *lane) {
        uint64_t h = *head, l = *lane;
        for (place >>= 1; place; place >>= 1) {
            uint64_t *node = losers + 2 * (size_t)place;
            uint64_t other_h = node[0], other_l = node[1];
            uint64_t loses = -(uint64_t)((other_h < h) | ((other_h == h) & (other_l < l)));
            uint64_t swap_h = (h ^ other_h) & loses, swap_l = (l ^ other_l) & loses;
            node[0] = other_h ^ swap_h;
            node[1] = other_l ^ swap_l;
            h ^= swap_h;
            l ^= swap_l;
        }
        *head = h;
        *lane = l;
    }

    static inline void merge_gather_8(uint8_t *run, const uint8_t *const *places, uint32_t count) {
        for (uint32_t i = 0; i < count; i++)
            __builtin_memcpy(run + (size_t)i * 8, places[i], 8);
    }
    """
    const uint64_t LANE_ENDED
    void merge_replay(uint64_t *losers, uint32_t place, uint64_t *head,
                      uint64_t *lane) noexcept nogil
    void merge_gather_8(uint8_t *run, const uint8_t *const *places, uint32_t count) noexcept nogil


cdef FixedMerge *fixed_merge_new(Cursor *cursor, bint keep_markers) noexcept nogil:
    cdef FixedMerge *merge = <FixedMerge *>calloc(1, sizeof(FixedMerge))
    if merge == NULL:
        return NULL
    merge.cursor = cursor
    merge.keep_markers = keep_markers
    merge.leaves = 1
    while merge.leaves < cursor.count:
        merge.leaves *= 2
    merge.lanes = <Lane *>calloc(merge.leaves, sizeof(Lane))
    merge.losers = <Node *>calloc(3 * merge.leaves, sizeof(Node))
    if merge.lanes == NULL or merge.losers == NULL:
        fixed_merge_free(merge)
        return NULL
    return merge


cdef void fixed_merge_free(FixedMerge *merge) noexcept nogil:
    if merge != NULL:
        free(merge.lanes)
        free(merge.losers)
        free(merge)


# --- lanes ---------------------------------------------------------------------------------------


cdef void enter_page(FixedMerge *merge, uint32_t index) noexcept nogil:
    """Takes the places of the columns from the page that the input stands in, once."""
    cdef const Shape *shape = merge.cursor.shape
    cdef Position *position = &merge.cursor.inputs[index].position
    cdef Lane *lane = merge.lanes + index
    lane.page = position.page
    lane.slot = position.slot
    lane.end = 0
    lane.count = 0
    input_note_part(merge.cursor.inputs + index)
    if lane.page == NULL:
        return
    lane.count = header_of(lane.page).count
    lane.heads = heads_of(lane.page)
    lane.kinds = NULL
    if header_of(lane.page).kinds_offset:
        lane.kinds = lane.page + header_of(lane.page).kinds_offset
    lane.base = lane.page
    lane.stride = 0
    if shape.field_count == 1:
        lane.base = run_of(shape, lane.page, 0)
        lane.stride = shape.value_width


cdef int leave_hidden(FixedMerge *merge, uint32_t index, bint *moved) noexcept nogil:
    """Jumps behind a newer source's range-delete that holds the lane's head, if there is one; else
    finds the slot before which the next such one begins."""
    cdef Input *input = merge.cursor.inputs + index
    cdef Lane *lane = merge.lanes + index
    cdef const Interval *interval
    cdef Position before
    cdef Key key
    cdef uint32_t newer
    cdef int status
    moved[0] = False
    key.head = lane.heads[lane.slot]
    key.data = NULL
    key.bytes = 0
    for newer in range(index):
        interval = interval_set_find(merge.cursor.inputs[newer].markers, &key)
        if interval != NULL:
            moved[0] = True
            if interval.unbounded:
                input.position.page = NULL
                enter_page(merge, index)
                return STATUS_OK
            before = input.position
            before.slot = lane.slot
            status = input.source.seek(input.source.context, &interval.upper, &input.position)
            if status != STATUS_OK:
                return status
            if not position_is_behind(&input.position, &before):
                return STATUS_CORRUPT       # an unsorted page: this would go round for ever
            enter_page(merge, index)
            return STATUS_OK
    for newer in range(index):
        interval = interval_set_at_or_after(merge.cursor.inputs[newer].markers, &key)
        if interval != NULL:
            lane.end = min(lane.end, max(
                lane.slot + 1, heads_lower_bound(lane.heads, lane.count, interval.lower.head)))
    return STATUS_OK


cdef int refill(FixedMerge *merge, uint32_t index) noexcept nogil:
    """Sees to it that a lane whose slot is at its end has a visible row, or ended for good."""
    cdef Input *input = merge.cursor.inputs + index
    cdef Lane *lane = merge.lanes + index
    cdef bint moved = True
    cdef int status
    while lane.page != NULL and moved:
        if lane.slot >= lane.count:
            status = input.source.step(input.source.context, &input.position, 1)
            if status != STATUS_OK:
                return status
            enter_page(merge, index)
            continue
        lane.end = lane.count
        moved = False
        if merge.marked:
            status = leave_hidden(merge, index, &moved)
            if status != STATUS_OK:
                return status
    return STATUS_OK


cdef inline Node contestant(const FixedMerge *merge, uint32_t index) noexcept nogil:
    cdef const Lane *lane = merge.lanes + index
    cdef Node node
    node.head = UINT64_MAX
    node.lane = index | LANE_ENDED
    if lane.page != NULL:
        node.head = lane.heads[lane.slot]
        node.lane = index
    return node


cdef int start(FixedMerge *merge) noexcept nogil:
    """Puts every lane at its first visible row and plays the first tournament."""
    cdef uint32_t count = merge.cursor.count
    cdef Input *input
    cdef Node *winners = merge.losers + merge.leaves
    cdef uint32_t index
    cdef uint32_t place
    cdef uint32_t first
    cdef int status
    merge.started = True
    for index in range(count):
        input = merge.cursor.inputs + index
        if input.markers != NULL and input.markers.count:
            merge.marked = True
    for index in range(count):
        status = input_enter(merge.cursor.inputs + index)
        if status == STATUS_OK:
            enter_page(merge, index)
            status = refill(merge, index)
        if status != STATUS_OK:
            return status
    for index in range(merge.leaves):
        winners[merge.leaves + index] = contestant(merge, index)
    place = merge.leaves - 1
    while place:
        first = 2 * place
        if wins(winners + first + 1, winners + first):
            first += 1
        winners[place] = winners[first]
        merge.losers[place] = winners[first ^ 1]
        place -= 1
    merge.winner = winners[1]
    return STATUS_OK


cdef inline bint wins(const Node *one, const Node *other) noexcept nogil:
    return one.head < other.head or (one.head == other.head and one.lane < other.lane)


cdef inline int advance(FixedMerge *merge, uint32_t index, uint32_t slot) noexcept nogil:
    """Moves the winner's lane to a slot of its page and plays for the next winner."""
    cdef Lane *lane = merge.lanes + index
    cdef int status
    lane.slot = slot
    if slot >= lane.end:
        status = refill(merge, index)
        if status != STATUS_OK:
            return status
    merge.winner = contestant(merge, index)
    merge_replay(<uint64_t *>merge.losers, merge.leaves + index, &merge.winner.head,
                 &merge.winner.lane)
    return STATUS_OK


# --- moving --------------------------------------------------------------------------------------


cdef inline bint begins_page(const FixedMerge *merge) noexcept nogil:
    """Whether the winner is a new key, kept in any case, in the first slot of its page."""
    cdef const Lane *lane = merge.lanes + <uint32_t>merge.winner.lane
    return lane.slot == 0 and (lane.kinds == NULL or lane.kinds[0] == 0 or merge.keep_markers) and (
        not merge.any or merge.winner.head > merge.last)


cdef int pick(FixedMerge *merge, BuilderRoom *room, const uint64_t *stop, uint32_t *picked,
              bint *stretch) noexcept nogil:
    """Picks rows, one winner after the other, until the room is full, the rows end, or the next one
    calls for take_stretch."""
    cdef const Lane *lane
    cdef uint64_t head
    cdef uint32_t index
    cdef uint32_t slot
    cdef uint32_t n = 0
    cdef uint64_t end = merge.rows + PICKS
    cdef uint8_t kind
    cdef int status = STATUS_OK
    stretch[0] = False
    while n < room.count and merge.rows < end and status == STATUS_OK:
        head = merge.winner.head
        if merge.winner.lane & LANE_ENDED or (stop != NULL and head >= stop[0]):
            break
        index = <uint32_t>merge.winner.lane
        lane = merge.lanes + index
        slot = lane.slot
        if not merge.any or head > merge.last:
            kind = lane.kinds[slot] if lane.kinds != NULL else 0
            merge.streak = merge.streak + 1 if index == merge.streak_lane else 0
            merge.streak_lane = index
            if kind and not merge.keep_markers:
                pass                # it has done its work once the older rows of its key are gone
            elif merge.streak > STREAK or slot == 0 or (kind and room.kinds == NULL):
                stretch[0] = True
                break
            else:
                room.heads[n] = head
                merge.places[n] = lane.base + slot * lane.stride
                merge.slots[n] = <uint16_t>slot
                if room.kinds != NULL:
                    room.kinds[n] = kind
                n += 1
            merge.last = head
            merge.any = True
        elif head < merge.last:
            status = STATUS_CORRUPT
            break
        merge.rows += 1
        status = advance(merge, index, slot + 1)
    picked[0] = n
    return status


cdef void gather(const FixedMerge *merge, const BuilderRoom *room, uint32_t count) noexcept nogil:
    """The rows that were picked, into the column runs of the page in the making."""
    cdef const Shape *shape = merge.cursor.shape
    cdef uint8_t *run
    cdef uint32_t width = shape.value_width
    cdef uint32_t field
    cdef uint32_t i
    if shape.field_count == 1:
        run = run_of(shape, room.page, 0) + room.slot * width
        if width == 8:
            merge_gather_8(run, merge.places, count)
            return
        for i in range(count):
            memcpy(run + i * width, merge.places[i], width)
        return
    for field in range(shape.field_count):
        width = shape.field_widths[field]
        run = run_of(shape, room.page, field) + room.slot * width
        for i in range(count):
            memcpy(run + i * width,
                   run_of(shape, merge.places[i], field) + merge.slots[i] * width, width)


cdef uint64_t next_after_winner(const FixedMerge *merge) noexcept nogil:
    """The smallest head of all other lanes: it lost against the winner itself."""
    cdef uint64_t head = UINT64_MAX
    cdef uint32_t place = (merge.leaves + <uint32_t>merge.winner.lane) >> 1
    while place:
        head = min(head, merge.losers[place].head)
        place >>= 1
    return head


cdef int take_stretch(FixedMerge *merge, Builder *builder, const uint64_t *stop,
                      int *written) noexcept nogil:
    """All rows of the winner's page that come before anybody else's, one at least."""
    cdef uint32_t index = <uint32_t>merge.winner.lane
    cdef Lane *lane = merge.lanes + index
    cdef uint32_t slot = lane.slot
    cdef uint32_t last
    cdef uint64_t limit = next_after_winner(merge)
    if stop != NULL:
        limit = min(limit, stop[0])
    last = heads_lower_bound(lane.heads, lane.count, limit)
    last = max(slot + 1, min(last, lane.end))
    if lane.kinds != NULL and not merge.keep_markers:
        last = slot + 1 + plain_slots(lane.kinds + slot + 1, last - slot - 1)
    if is_sorted_u64(lane.heads + slot, last - slot) != 2:
        return STATUS_CORRUPT
    written[0] = STATUS_FULL
    if slot == 0 and last == lane.count and (lane.kinds == NULL or merge.keep_markers):
        written[0] = builder_take_page(builder, lane.page)
        if written[0] == STATUS_OK:
            merge.whole_pages += 1
            merge.whole_rows += last
    if written[0] == STATUS_FULL:
        written[0] = builder_add_slots(builder, NULL, lane.page, slot, last)
    merge.last = lane.heads[last - 1]
    merge.any = True
    merge.streak = 0
    merge.rows += last - slot
    return advance(merge, index, last)


cdef inline uint32_t plain_slots(const uint8_t *kinds, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if kinds[i]:
            return i
    return count


cdef int fixed_merge_head(FixedMerge *merge, uint64_t *head) noexcept nogil:
    if merge.failed:
        return merge.failed
    if not merge.started:
        merge.failed = start(merge)
        if merge.failed:
            return merge.failed
    head[0] = merge.winner.head
    return STATUS_NOT_FOUND if merge.winner.lane & LANE_ENDED else STATUS_OK


cdef int fixed_merge_move(FixedMerge *merge, Builder *builder, uint64_t most_bytes,
                          const uint64_t *stop, uint64_t slice_bytes, Reason *reason,
                          int *written) noexcept nogil:
    cdef uint64_t slice_end = builder_bytes(builder) + slice_bytes
    cdef uint64_t rows_before = merge.rows
    cdef BuilderRoom room
    cdef uint64_t head
    cdef uint32_t picked
    cdef bint stretch
    cdef int status
    while True:
        status = fixed_merge_head(merge, &head)
        if status != STATUS_OK:
            reason[0] = REASON_DONE
            return STATUS_OK if status == STATUS_NOT_FOUND else status
        if builder_bytes(builder) >= most_bytes:
            reason[0] = REASON_FULL
            return STATUS_OK
        if stop != NULL and head >= stop[0]:
            reason[0] = REASON_STOPPED
            return STATUS_OK
        if slice_bytes and (builder_bytes(builder) >= slice_end
                            or (merge.rows - rows_before) * ROW_BYTES >= slice_bytes):
            reason[0] = REASON_MORE
            return STATUS_OK
        stretch = begins_page(merge)
        if not stretch:
            written[0] = builder_room(builder, &room)
            if written[0] != STATUS_OK:
                return STATUS_OK
            status = pick(merge, &room, stop, &picked, &stretch)
            if picked:
                gather(merge, &room, picked)
                written[0] = builder_filled(builder, room.slot, picked)
        if status == STATUS_OK and written[0] == STATUS_OK and stretch:
            status = take_stretch(merge, builder, stop, written)
        merge.failed = status
        if status != STATUS_OK or written[0] != STATUS_OK:
            return status
