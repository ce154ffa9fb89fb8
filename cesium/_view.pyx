"""Reading one state of a memtable: see _view.pxd for the contract."""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from cesium._arena cimport Block
from cesium._directory cimport chunk_source, directory_check
from cesium._interval cimport interval_set_find
from cesium._layout cimport (
    KEY_BYTES_MAX, KIND_DELETE, KIND_KEY_OVERFLOW, KIND_MASK, KIND_VALUE_OVERFLOW, PAGE_BYTES,
    PAGE_DATA, STATUS_NO_MEMORY, STATUS_NOT_FOUND, STATUS_OK, OverflowReference,
)
from cesium._native cimport load_head
from cesium._page cimport (
    header_of, heads_of, kind_of, page_check, page_compare, page_copy_key, page_find,
    page_key_bytes, page_key_reference, page_value_reference,
)


cdef inline void set_position(const View *view, Position *position, Place place) noexcept nogil:
    position.page = page_at(node_at(view.root, place.node), place.page)
    position.ordinal = <uint64_t>place.node << 32 | place.page


cdef Place place_of(const View *view, const Position *position) noexcept nogil:
    cdef Place place
    place.node = view.root.count
    place.page = 0
    if position.page != NULL:
        place.node = <uint32_t>(position.ordinal >> 32)
        place.page = <uint32_t>position.ordinal
    return place


cdef bint next_place(const Directory *root, Place *place) noexcept nogil:
    if place.page + 1 < node_at(root, place.node).count:
        place.page += 1
        return True
    if place.node + 1 < root.count:
        place.node += 1
        place.page = 0
        return True
    return False


cdef bint previous_place(const Directory *root, Place *place) noexcept nogil:
    if place.page > 0:
        place.page -= 1
        return True
    if place.node > 0:
        place.node -= 1
        place.page = node_at(root, place.node).count - 1
        return True
    return False


cdef int view_step(void *context, Position *position, int direction) noexcept nogil:
    cdef const View *view = <const View *>context
    cdef Place place = place_of(view, position)
    if not (next_place(view.root, &place) if direction > 0
            else previous_place(view.root, &place)):
        position.page = NULL
        return STATUS_OK
    set_position(view, position, place)
    position.slot = 0 if direction > 0 else header_of(position.page).count - 1
    return STATUS_OK


cdef int view_edge(void *context, Position *position, int direction) noexcept nogil:
    cdef const View *view = <const View *>context
    cdef Place place
    position.page = NULL
    position.slot = 0
    if view.root.count == 0:
        return STATUS_OK
    place.node = 0
    place.page = 0
    if direction < 0:
        place.node = view.root.count - 1
        place.page = node_at(view.root, place.node).count - 1
    set_position(view, position, place)
    position.slot = header_of(position.page).count - 1 if direction < 0 else 0
    return STATUS_OK


cdef int view_seek(void *context, const Key *key, Position *position) noexcept nogil:
    cdef const View *view = <const View *>context
    cdef bint exact
    cdef int status
    if view.root.count == 0:
        position.page = NULL
        position.slot = 0
        return STATUS_OK
    set_position(view, position, view_route(view, key))
    status = page_find(view.shape, position.page, key, &chunk_source, &position.slot, &exact)
    if status == STATUS_OK and position.slot == header_of(position.page).count:
        return view_step(context, position, 1)
    return status


cdef void view_source(View *view, PageSource *source) noexcept nogil:
    source[0] = chunk_source
    source.context = view
    source.seek = view_seek
    source.step = view_step
    source.edge = view_edge


cdef int view_find(const View *view, const Key *key, Position *position,
                   bint *masked) noexcept nogil:
    cdef bint exact
    cdef int status
    if view.root.count:
        set_position(view, position, view_route(view, key))
        status = page_find(view.shape, position.page, key, &chunk_source, &position.slot, &exact)
        if status != STATUS_OK or exact:
            return status
    masked[0] = view.markers != NULL and interval_set_find(view.markers, key) != NULL
    return STATUS_NOT_FOUND


cdef bint view_has_values(View *view, const Key *lower, const Key *upper) noexcept nogil:
    cdef Position position
    cdef Position end
    cdef uint32_t slot
    cdef uint32_t last
    end.page = NULL
    if view_seek(view, lower, &position) or view_seek(view, upper, &end):
        return True
    while position.page != NULL:
        last = end.slot if position.page == end.page else header_of(position.page).count
        for slot in range(position.slot, last):
            if (kind_of(position.page, slot) & KIND_MASK) != KIND_DELETE:
                return True
        if position.page == end.page:
            break
        view_step(view, &position, 1)
    return False


# --- the check -----------------------------------------------------------------------------------


cdef int check_chunk(const OverflowReference *reference, uint64_t generation,
                     ViewTotals *totals) noexcept nogil:
    cdef const Block *block = (<const Block *>reference.location) - 1
    totals.bytes += block.bytes
    return 6 if (block.bytes != sizeof(Block) + reference.bytes
                 or block.generation > generation) else 0


cdef int check_order(const View *view, const uint8_t *page, uint32_t slot, Key *previous,
                     uint8_t *buffer, bint first) noexcept nogil:
    """The key at `slot` lies above *previous, which it then becomes."""
    cdef int order
    if not first:
        page_compare(view.shape, page, slot, previous, &chunk_source, &order)
        if order <= 0:
            return 3
    previous.head = heads_of(page)[slot]
    previous.data = buffer
    previous.bytes = 0
    if view.shape.key_width == 0:
        previous.bytes = <uint32_t>page_key_bytes(view.shape, page, slot)
        if previous.bytes > KEY_BYTES_MAX:
            return 6
        page_copy_key(view.shape, page, slot, &chunk_source, buffer)
        previous.head = load_head(buffer, previous.bytes)
    return 0


cdef int check_page(const View *view, const uint8_t *page, uint64_t generation, Key *previous,
                    uint8_t *buffer, ViewTotals *totals) noexcept nogil:
    cdef uint32_t slot
    cdef uint8_t kind
    cdef int broken
    if page_check(view.shape, page, PAGE_DATA) != STATUS_OK:
        return 2
    if header_of(page).generation > generation:
        return 5
    totals.pages += 1
    totals.bytes += PAGE_BYTES
    for slot in range(header_of(page).count):
        kind = kind_of(page, slot)
        broken = 0
        if kind & KIND_KEY_OVERFLOW:
            broken = check_chunk(page_key_reference(page, slot), generation, totals)
        if kind & KIND_VALUE_OVERFLOW and not broken:
            broken = check_chunk(page_value_reference(page, slot), generation, totals)
        if not broken:
            broken = check_order(view, page, slot, previous, buffer, totals.entries == 0)
        if broken:
            return broken
        totals.entries += 1
        totals.delete_markers += (kind & KIND_MASK) == KIND_DELETE
    return 0


cdef int check_nodes(const View *view, uint64_t generation, uint8_t *buffer,
                     ViewTotals *totals) noexcept nogil:
    cdef Directory *root = view.root
    cdef Directory *node
    cdef Key previous
    cdef uint32_t i
    cdef uint32_t j
    cdef int broken = 0
    if not root.root:
        return 1
    if root.block.generation > generation:
        return 5
    totals.bytes += root.block.bytes
    for i in range(root.count):
        node = node_at(root, i)
        if node.root or node.count == 0:
            return 1
        if node.block.generation > generation:
            return 5
        totals.bytes += node.block.bytes
        for j in range(node.count):
            broken = check_page(view, page_at(node, j), generation, &previous, buffer, totals)
            if broken:
                return broken
        broken = directory_check(view.shape, node)
        if broken:
            return broken
    broken = directory_check(view.shape, root)
    if broken == 0 and (totals.entries != view.entries
                        or totals.delete_markers != view.delete_markers):
        return 4
    return broken


cdef int view_check(const View *view, uint64_t generation, ViewTotals *totals) noexcept nogil:
    cdef uint8_t *buffer = <uint8_t *>malloc(KEY_BYTES_MAX)
    cdef int broken
    if buffer == NULL:
        return STATUS_NO_MEMORY
    memset(totals, 0, sizeof(ViewTotals))
    broken = check_nodes(view, generation, buffer, totals)
    free(buffer)
    return broken
