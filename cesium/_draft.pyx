"""Laying pages out anew: see _draft.pxd for the contract."""

from libc.stdlib cimport abort
from libc.string cimport memcpy

from cesium._directory cimport copy_key_start, shared_bytes
from cesium._layout cimport (
    KEY_INLINE_BYTES, KIND_KEY_OVERFLOW, PAGE_BYTES, PAGE_DATA, PAGE_HEADER_BYTES,
    STATUS_OK,
)
from cesium._page cimport (
    entries_of, header_of, kind_of, page_append_slots, page_columns_bytes, page_fixed_capacity,
    page_format, page_insert,
)
cdef void draft_begin(Draft *draft, const Shape *shape, const DraftEntry *entry) noexcept nogil:
    draft.shape = shape
    draft.entry = entry
    draft.piece_count = 0
    draft.count = 0
    draft.lone_prefix_bytes = 0


cdef void draft_add_slots(Draft *draft, const uint8_t *page, uint32_t first,
                          uint32_t last) noexcept nogil:
    cdef DraftPiece *piece = draft.pieces + draft.piece_count
    if first == last:
        return
    piece.page = page
    piece.first = first
    piece.last = last
    draft.piece_count += 1
    draft.count += last - first


cdef void draft_add_entry(Draft *draft) noexcept nogil:
    cdef DraftPiece *piece = draft.pieces + draft.piece_count
    piece.page = NULL
    piece.first = 0
    piece.last = 1
    draft.piece_count += 1
    draft.count += 1


cdef inline uint32_t item_heap_bytes(const Draft *draft, const uint8_t *page, uint32_t slot,
                                     uint32_t prefix_bytes) noexcept nogil:
    """Bytes that an item takes in the heap of a page with this prefix."""
    cdef uint32_t key_bytes = 0
    cdef uint32_t value_bytes = 0
    cdef uint8_t kind
    if page == NULL:
        kind = draft.entry.kind
        if draft.shape.key_width == 0:
            key_bytes = min(draft.entry.key.bytes, <uint32_t>KEY_INLINE_BYTES)
        if draft.shape.value_width == 0:
            value_bytes = <uint32_t>draft.entry.value_bytes
    else:
        kind = kind_of(page, slot)
        if draft.shape.key_width == 0:
            key_bytes = header_of(page).prefix_bytes + entries_of(page)[slot].key_bytes
        value_bytes = entries_of(page)[slot].value_bytes
    key_bytes = key_bytes - prefix_bytes - 8 if key_bytes > prefix_bytes + 8 else 0
    if kind & KIND_KEY_OVERFLOW:
        key_bytes += sizeof(draft.entry.key_reference)
    return key_bytes + value_bytes


cdef inline void locate(const Draft *draft, uint32_t item, const uint8_t **page,
                        uint32_t *slot) noexcept nogil:
    cdef uint32_t index
    cdef const DraftPiece *piece
    for index in range(draft.piece_count):
        piece = draft.pieces + index
        if item < piece.last - piece.first:
            page[0] = piece.page
            slot[0] = piece.first + item
            return
        item -= piece.last - piece.first


cdef uint32_t item_key_start(const Draft *draft, uint32_t item,
                             uint8_t *destination) noexcept nogil:
    """The bytes of an item's key that lie in a page; at most 512."""
    cdef const uint8_t *page = NULL
    cdef uint32_t slot = 0
    cdef uint32_t bytes
    locate(draft, item, &page, &slot)
    if page != NULL:
        return copy_key_start(page, slot, destination, KEY_INLINE_BYTES)
    bytes = min(draft.entry.key.bytes, <uint32_t>KEY_INLINE_BYTES)
    memcpy(destination, draft.entry.key.data, bytes)
    return bytes


cdef void measure_prefix(const Draft *draft, uint32_t first, uint32_t last,
                         Measure *measure) noexcept nogil:
    """Keys are sorted, so what the first and the last share, all share."""
    cdef uint8_t other[512]
    cdef uint32_t bytes
    cdef uint32_t other_bytes
    measure.prefix_bytes = 0
    if draft.shape.key_width:
        return
    bytes = item_key_start(draft, first, measure.prefix)
    if last - first == 1:
        measure.prefix_bytes = min(bytes, draft.lone_prefix_bytes)
        return
    other_bytes = item_key_start(draft, last - 1, other)
    measure.prefix_bytes = shared_bytes(measure.prefix, bytes, other, other_bytes,
                                        KEY_INLINE_BYTES)


cdef void draft_measure(const Draft *draft, uint32_t first, uint32_t last,
                        Measure *measure) noexcept nogil:
    cdef const Shape *shape = draft.shape
    cdef bint heap = shape.key_width == 0 or shape.value_width == 0
    cdef const DraftPiece *piece
    cdef uint32_t index
    cdef uint32_t slot
    cdef uint32_t item = 0
    measure_prefix(draft, first, last, measure)
    measure.count = last - first
    measure.heap_bytes = 0
    measure.kinds = False
    for index in range(draft.piece_count):
        piece = draft.pieces + index
        if not heap and piece.page != NULL and header_of(piece.page).kinds_offset == 0:
            item += piece.last - piece.first
            continue
        for slot in range(piece.first, piece.last):
            if first <= item < last:
                if draft.entry.kind if piece.page == NULL else kind_of(piece.page, slot):
                    measure.kinds = True
                if heap:
                    measure.heap_bytes += item_heap_bytes(
                        draft, piece.page, slot, measure.prefix_bytes)
            item += 1
    measure.bytes = measure.heap_bytes + page_columns_bytes(
        shape, measure.count, measure.prefix_bytes, measure.kinds)


cdef bint measure_fits(const Shape *shape, const Measure *measure, uint32_t spare) noexcept nogil:
    if shape.slots_max and measure.count > shape.slots_max:
        return False
    return measure.bytes + spare <= PAGE_BYTES


cdef uint32_t draft_middle(const Draft *draft) noexcept nogil:
    cdef Measure whole
    cdef const DraftPiece *piece
    cdef uint32_t index
    cdef uint32_t slot
    cdef uint32_t item = 0
    cdef uint32_t left = 0
    cdef uint32_t total
    cdef uint32_t column_bytes
    cdef uint32_t best = 1
    cdef uint32_t best_bytes = 0xffffffff
    if draft.shape.key_width and draft.shape.value_width:
        return draft.count >> 1
    draft_measure(draft, 0, draft.count, &whole)
    column_bytes = 14 + draft.shape.value_width + whole.kinds
    total = whole.heap_bytes + draft.count * column_bytes
    for index in range(draft.piece_count):
        piece = draft.pieces + index
        for slot in range(piece.first, piece.last):
            left += column_bytes + item_heap_bytes(draft, piece.page, slot, whole.prefix_bytes)
            item += 1
            if item < draft.count and max(left, total - left) < best_bytes:
                best_bytes = max(left, total - left)
                best = item
    return best


cdef uint32_t choose_capacity(const Shape *shape, const Measure *measure) noexcept nogil:
    """As many slots as entries would fit if the rest of the page filled with ones like these."""
    cdef uint32_t capacity
    cdef uint32_t fixed = PAGE_HEADER_BYTES + measure.prefix_bytes
    if shape.key_width and shape.value_width:
        return page_fixed_capacity(shape, measure.kinds)
    capacity = (PAGE_BYTES - fixed) * measure.count // (measure.bytes - fixed)
    if shape.slots_max:
        capacity = min(capacity, shape.slots_max)
    capacity = max(capacity, measure.count)
    while capacity > measure.count and measure.heap_bytes + page_columns_bytes(
            shape, capacity, measure.prefix_bytes, measure.kinds) > PAGE_BYTES:
        capacity -= 1
    return capacity


cdef void draft_write(const Draft *draft, uint32_t first, uint32_t last, uint8_t *page,
                      uint64_t generation) noexcept nogil:
    cdef const Shape *shape = draft.shape
    cdef const DraftEntry *entry = draft.entry
    cdef Measure measure
    cdef const DraftPiece *piece
    cdef uint32_t index
    cdef uint32_t begin = 0     # item number of the piece's first slot
    cdef uint32_t low
    cdef uint32_t high
    cdef uint32_t copied
    cdef int status
    draft_measure(draft, first, last, &measure)
    page_format(shape, page, PAGE_DATA, choose_capacity(shape, &measure), measure.prefix,
                measure.prefix_bytes, measure.kinds)
    header_of(page).generation = generation
    for index in range(draft.piece_count):
        piece = draft.pieces + index
        low = max(begin, first)
        high = min(begin + piece.last - piece.first, last)
        if low < high:
            if piece.page == NULL:
                status = page_insert(shape, page, header_of(page).count, &entry.key, entry.kind,
                                     &entry.key_reference, entry.value, entry.value_bytes)
            else:
                status = page_append_slots(shape, page, piece.page, piece.first + low - begin,
                                           piece.first + high - begin, &copied)
            if status != STATUS_OK:
                abort()         # it was measured to fit: going on would lose entries in silence
        begin += piece.last - piece.first
