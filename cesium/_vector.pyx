"""Changing the sorted vector of a memtable: see _vector.pxd for the contract."""

from libc.string cimport memcpy, memset

from cesium._arena cimport (
    Block, arena_block, arena_close, arena_drop_block, arena_drop_page, arena_is_shared,
    arena_open, arena_page, arena_page_is_shared,
)
from cesium._directory cimport (
    Directory, copy_key_start, directory_append, directory_copy, directory_insert, directory_new,
    directory_refresh, directory_remove, shared_bytes,
)
from cesium._draft cimport (
    Draft, Measure, draft_add_entry, draft_add_slots, draft_begin, draft_measure, draft_middle,
    draft_write, measure_fits,
)
from cesium._layout cimport (
    KEY_INLINE_BYTES, KIND_DELETE, KIND_KEY_OVERFLOW, KIND_MASK, KIND_VALUE_OVERFLOW, PAGE_BYTES,
    STATUS_FULL, STATUS_NO_MEMORY, STATUS_OK,
)
from cesium._page cimport (
    header_of, kind_of, page_insert, page_key_reference, page_remove, page_replace,
    page_value_reference,
)
from cesium._view cimport next_place, node_at, page_at, previous_place

cdef enum:
    NODE_CAPACITY = 256         # pages of a leaf node: copying one under a snapshot costs 4 KiB
    NODE_CAPACITY_MIN = 4       # when a test makes pages tiny
    ROOT_CAPACITY_MIN = 4
    # A page that would be left with less than this is split instead of laid out anew, so that
    # relayouts of one page stay few.
    REBUILD_SPARE_BYTES = 512


cdef int vector_open(Vector *vector, const Shape *shape) noexcept nogil:
    memset(vector, 0, sizeof(Vector))
    vector.live.shape = shape
    vector.node_capacity = NODE_CAPACITY
    if shape.slots_max:
        vector.node_capacity = max(shape.slots_max, <uint32_t>NODE_CAPACITY_MIN)
    if arena_open(&vector.arena) != 0:
        return STATUS_NO_MEMORY
    vector.live.root = directory_new(&vector.arena, ROOT_CAPACITY_MIN, True)
    if vector.live.root == NULL:
        arena_close(&vector.arena)
        return STATUS_NO_MEMORY
    return STATUS_OK


cdef void vector_close(Vector *vector) noexcept nogil:
    cdef Directory *root = vector.live.root
    cdef Directory *node
    cdef uint8_t *page
    cdef uint32_t i
    cdef uint32_t j
    for i in range(root.count):
        node = node_at(root, i)
        if vector.live.shape.key_width == 0 or vector.live.shape.value_width == 0:
            for j in range(node.count):
                page = page_at(node, j)
                drop_chunks(vector, page, 0, header_of(page).count)
        arena_drop_block(&vector.arena, &node.block)
    arena_drop_block(&vector.arena, &root.block)
    arena_close(&vector.arena)


# --- copy-on-write -------------------------------------------------------------------------------
#
# Each of these makes the part in question, and all above it, the writer's own.  The contents stay
# as they are, so a failure in the middle of a path leaves the memtable whole.


cdef Directory *own_root(Vector *vector, uint32_t room) noexcept nogil:
    """The root, not shared, with room for so many more nodes; NULL: no memory."""
    cdef Directory *root = vector.live.root
    cdef Directory *copy
    cdef uint32_t capacity = root.capacity
    if root.count + room > capacity:
        capacity *= 2
    elif not arena_is_shared(&vector.arena, root.block.generation):
        return root
    copy = directory_copy(&vector.arena, root, capacity)
    if copy != NULL:
        vector.live.root = copy
        arena_drop_block(&vector.arena, &root.block)
    return copy


cdef Directory *own_node(Vector *vector, uint32_t index) noexcept nogil:
    cdef Directory *root = own_root(vector, 0)
    cdef Directory *node
    cdef Directory *copy
    if root == NULL:
        return NULL
    node = node_at(root, index)
    if not arena_is_shared(&vector.arena, node.block.generation):
        return node
    copy = directory_copy(&vector.arena, node, node.capacity)
    if copy != NULL:
        root.children[index] = copy
        arena_drop_block(&vector.arena, &node.block)
    return copy


cdef uint8_t *own_page(Vector *vector, Directory *node, uint32_t index) noexcept nogil:
    """A page of a node that is the writer's own."""
    cdef uint8_t *page = page_at(node, index)
    cdef uint8_t *copy
    if not arena_page_is_shared(&vector.arena, page):
        return page
    copy = arena_page(&vector.arena)
    if copy != NULL:
        memcpy(copy, page, PAGE_BYTES)
        header_of(copy).generation = vector.arena.generation
        header_of(copy).reserved_56 = 0
        node.children[index] = copy
        arena_drop_page(&vector.arena, page)
        vector.page_copies += 1
    return copy


cdef inline void first_key_changed(Vector *vector, Directory *root, Directory *node,
                                   Place place) noexcept nogil:
    directory_refresh(vector.live.shape, node, place.page)
    if place.page == 0:
        directory_refresh(vector.live.shape, root, place.node)


cdef int make_room(Vector *vector, Place *place, bint before) noexcept nogil:
    """Splits the node of a page if it is full, so that one more page fits beside that page.

    The node and the root must be the writer's own; *place follows the page.
    """
    cdef Directory *root = vector.live.root
    cdef Directory *node = node_at(root, place.node)
    cdef Directory *right
    cdef uint32_t cut = node.count // 2
    if node.count < node.capacity:
        return STATUS_OK
    root = own_root(vector, 1)
    right = directory_new(&vector.arena, vector.node_capacity, False)
    if root == NULL or right == NULL:
        if right != NULL:
            arena_drop_block(&vector.arena, &right.block)
        return STATUS_NO_MEMORY
    # As with pages: ascending and descending insertions leave full nodes behind.
    if not before and place.page == node.count - 1:
        cut = node.count - 1
    elif before and place.page == 0:
        cut = 1
    directory_append(vector.live.shape, right, node, cut, node.count)
    directory_remove(node, cut, node.count)
    directory_insert(vector.live.shape, root, place.node + 1, right)
    if place.page >= cut:
        place.node += 1
        place.page -= cut
    return STATUS_OK


# --- putting -------------------------------------------------------------------------------------


cdef int vector_spill(Vector *vector, const uint8_t *data, uint64_t bytes,
               OverflowReference *reference) noexcept nogil:
    """Copies a long key or value to a chunk of its own."""
    cdef Block *block = arena_block(&vector.arena, sizeof(Block) + bytes)
    if block == NULL:
        return STATUS_NO_MEMORY
    memcpy(block + 1, data, bytes)
    reference.location = <uint64_t>(block + 1)
    reference.bytes = bytes
    return STATUS_OK


cdef int vector_put_first(Vector *vector, const DraftEntry *entry) noexcept nogil:
    cdef Draft draft
    cdef Directory *root = own_root(vector, 1)
    cdef Directory *node
    cdef uint8_t *page
    if root == NULL:
        return STATUS_NO_MEMORY
    node = directory_new(&vector.arena, vector.node_capacity, False)
    if node == NULL:
        return STATUS_NO_MEMORY
    page = arena_page(&vector.arena)
    if page == NULL:
        arena_drop_block(&vector.arena, &node.block)
        return STATUS_NO_MEMORY
    draft_begin(&draft, vector.live.shape, entry)
    draft_add_entry(&draft)
    draft_write(&draft, 0, 1, page, vector.arena.generation)
    directory_insert(vector.live.shape, node, 0, page)
    directory_insert(vector.live.shape, root, 0, node)
    vector.pages += 1
    return STATUS_OK


cdef int put_beside(Vector *vector, Place place, bint before, Draft *draft,
                    const DraftEntry *entry) noexcept nogil:
    """A page of its own for an entry before the first or behind the last of a full page.

    So ascending and descending insertions leave full pages behind.
    """
    cdef Directory *node = node_at(vector.live.root, place.node)
    cdef uint8_t *page = page_at(node, place.page)
    cdef uint8_t *lone = arena_page(&vector.arena)
    cdef uint8_t start[512]
    cdef uint32_t bytes
    if lone == NULL:
        return STATUS_NO_MEMORY
    draft_begin(draft, vector.live.shape, entry)
    draft_add_entry(draft)
    if vector.live.shape.key_width == 0:
        bytes = copy_key_start(
            page, 0 if before else header_of(page).count - 1, start, KEY_INLINE_BYTES)
        draft.lone_prefix_bytes = shared_bytes(
            start, bytes, entry.key.data, entry.key.bytes, KEY_INLINE_BYTES)
    draft_write(draft, 0, 1, lone, vector.arena.generation)
    if make_room(vector, &place, before) != STATUS_OK:
        arena_drop_page(&vector.arena, lone)
        return STATUS_NO_MEMORY
    node = node_at(vector.live.root, place.node)
    if not before:
        place.page += 1
    directory_insert(vector.live.shape, node, place.page, lone)
    if place.page == 0:
        directory_refresh(vector.live.shape, vector.live.root, place.node)
    vector.pages += 1
    vector.splits += 1
    return STATUS_OK


cdef int put_anew(Vector *vector, Place place, uint32_t slot, bint exact,
                  const DraftEntry *entry) noexcept nogil:
    """Puts an entry that the page cannot take as it is: lays the page out anew, or splits it."""
    cdef Directory *node = own_node(vector, place.node)
    cdef uint8_t *page
    cdef uint8_t *left
    cdef uint8_t *right = NULL
    cdef Draft draft
    cdef Measure measure
    cdef uint32_t cut
    if node == NULL:
        return STATUS_NO_MEMORY
    page = page_at(node, place.page)
    draft_begin(&draft, vector.live.shape, entry)
    draft_add_slots(&draft, page, 0, slot)
    draft_add_entry(&draft)
    draft_add_slots(&draft, page, slot + exact, header_of(page).count)
    draft_measure(&draft, 0, draft.count, &measure)
    if measure_fits(vector.live.shape, &measure, REBUILD_SPARE_BYTES):
        cut = draft.count
    elif not exact and (slot == 0 or slot == header_of(page).count):
        return put_beside(vector, place, slot == 0, &draft, entry)
    else:
        cut = draft_middle(&draft)
    left = arena_page(&vector.arena)
    if left == NULL:
        return STATUS_NO_MEMORY
    draft_write(&draft, 0, cut, left, vector.arena.generation)
    if cut < draft.count:
        right = arena_page(&vector.arena)
        if right == NULL or make_room(vector, &place, False) != STATUS_OK:
            arena_drop_page(&vector.arena, left)
            if right != NULL:
                header_of(right).generation = vector.arena.generation
                arena_drop_page(&vector.arena, right)
            return STATUS_NO_MEMORY
        draft_write(&draft, cut, draft.count, right, vector.arena.generation)
        node = node_at(vector.live.root, place.node)
    node.children[place.page] = left
    arena_drop_page(&vector.arena, page)
    if slot == 0 and not exact:
        first_key_changed(vector, vector.live.root, node, place)
    if right == NULL:
        vector.rebuilds += 1
        return STATUS_OK
    directory_insert(vector.live.shape, node, place.page + 1, right)
    vector.pages += 1
    vector.splits += 1
    return STATUS_OK


cdef int vector_put(Vector *vector, Place place, uint32_t slot, bint exact,
                   const DraftEntry *entry) noexcept nogil:
    cdef Directory *node
    cdef uint8_t *page = page_at(node_at(vector.live.root, place.node), place.page)
    cdef int status
    # A page that is full is not copied first only to be laid out anew.
    if not exact and header_of(page).count == header_of(page).capacity:
        return put_anew(vector, place, slot, exact, entry)
    node = own_node(vector, place.node)
    if node == NULL:
        return STATUS_NO_MEMORY
    page = own_page(vector, node, place.page)
    if page == NULL:
        return STATUS_NO_MEMORY
    if exact:
        status = page_replace(vector.live.shape, page, slot, entry.kind, entry.value,
                              entry.value_bytes)
    else:
        status = page_insert(vector.live.shape, page, slot, &entry.key, entry.kind,
                             &entry.key_reference, entry.value, entry.value_bytes)
    if status == STATUS_FULL:
        return put_anew(vector, place, slot, exact, entry)
    if slot == 0 and not exact:
        first_key_changed(vector, vector.live.root, node, place)
    return status


cdef void vector_drop_chunk(Vector *vector, uint64_t location) noexcept nogil:
    arena_drop_block(&vector.arena, (<Block *>location) - 1)


cdef void drop_chunks(Vector *vector, const uint8_t *page, uint32_t first,
                      uint32_t last) noexcept nogil:
    """Lets go of the overflow chunks of slots [first, last)."""
    cdef uint32_t slot
    cdef uint8_t kind
    if header_of(page).kinds_offset == 0 or header_of(page).entries_offset == 0:
        return
    for slot in range(first, last):
        kind = kind_of(page, slot)
        if kind & KIND_KEY_OVERFLOW:
            vector_drop_chunk(vector, page_key_reference(page, slot).location)
        if kind & KIND_VALUE_OVERFLOW:
            vector_drop_chunk(vector, page_value_reference(page, slot).location)


# --- deleting a range ----------------------------------------------------------------------------


cdef void forget_slots(Vector *vector, const uint8_t *page, uint32_t first,
                       uint32_t last) noexcept nogil:
    """Counts slots out and lets go of what they own; walks entries only if some are not plain."""
    cdef uint32_t slot
    vector.live.entries -= last - first
    if header_of(page).kinds_offset:
        for slot in range(first, last):
            vector.live.delete_markers -= (kind_of(page, slot) & KIND_MASK) == KIND_DELETE
        drop_chunks(vector, page, first, last)


cdef void drop_pages(Vector *vector, Directory *node, uint32_t first,
                     uint32_t last) noexcept nogil:
    """Drops pages of a node; the node's vector is the caller's to change."""
    cdef uint32_t index
    cdef uint8_t *page
    for index in range(first, last):
        page = page_at(node, index)
        forget_slots(vector, page, 0, header_of(page).count)
        arena_drop_page(&vector.arena, page)
    vector.pages -= last - first


cdef void join_pages(Vector *vector, Place place) noexcept nogil:
    """Joins a page with the one behind it when both together fill less than half a page."""
    cdef Directory *root = vector.live.root
    cdef Place behind = place
    cdef uint8_t *left = page_at(node_at(root, place.node), place.page)
    cdef uint8_t *right
    cdef uint8_t *joined
    cdef Directory *node
    cdef Draft draft
    cdef Measure measure
    cdef DraftEntry none
    if not next_place(root, &behind):
        return
    right = page_at(node_at(root, behind.node), behind.page)
    draft_begin(&draft, vector.live.shape, &none)
    draft_add_slots(&draft, left, 0, header_of(left).count)
    draft_add_slots(&draft, right, 0, header_of(right).count)
    if vector.live.shape.slots_max and 2 * draft.count > vector.live.shape.slots_max:
        return
    draft_measure(&draft, 0, draft.count, &measure)
    if not measure_fits(vector.live.shape, &measure, PAGE_BYTES // 2):
        return
    # To join is a kindness: without memory for it all stays as it is.
    joined = arena_page(&vector.arena)
    if joined == NULL:
        return
    draft_write(&draft, 0, draft.count, joined, vector.arena.generation)
    if own_node(vector, place.node) == NULL or own_node(vector, behind.node) == NULL:
        arena_drop_page(&vector.arena, joined)
        return
    root = vector.live.root
    node_at(root, place.node).children[place.page] = joined
    arena_drop_page(&vector.arena, left)
    arena_drop_page(&vector.arena, right)
    node = node_at(root, behind.node)
    directory_remove(node, behind.page, behind.page + 1)
    if node.count == 0:
        directory_remove(root, behind.node, behind.node + 1)
        arena_drop_block(&vector.arena, &node.block)
    elif behind.page == 0:
        directory_refresh(vector.live.shape, root, behind.node)
    vector.pages -= 1
    vector.joins += 1


cdef void join_nodes(Vector *vector, uint32_t index) noexcept nogil:
    """Joins a node with the one behind it when both together fill less than half a node."""
    cdef Directory *root = vector.live.root
    cdef Directory *left
    cdef Directory *right
    if index + 1 >= root.count:
        return
    right = node_at(root, index + 1)
    if 2 * (node_at(root, index).count + right.count) > vector.node_capacity:
        return
    left = own_node(vector, index)
    if left == NULL:
        return
    root = vector.live.root
    directory_append(vector.live.shape, left, right, 0, right.count)
    directory_remove(root, index + 1, index + 2)
    arena_drop_block(&vector.arena, &right.block)


cdef void join_around(Vector *vector, Place place) noexcept nogil:
    """Joins what has become thin around a boundary: the page at `place` and two before it.

    From right to left, so that a join moves nothing that is still to be looked at.
    """
    cdef Directory *root = vector.live.root
    cdef uint32_t node = place.node
    cdef uint32_t step
    cdef uint32_t _step
    if root.count == 0:
        return
    if place.node < root.count:
        join_pages(vector, place)
    for _step in range(2):
        if not previous_place(vector.live.root, &place):
            break
        join_pages(vector, place)
    for step in range(3):
        if node + 1 >= step:
            join_nodes(vector, node + 1 - step)


cdef void vector_cut_out(Vector *vector, Place first, uint32_t first_slot, Place last,
                  uint32_t last_slot) noexcept nogil:
    """Removes everything from one slot up to another, which lies behind it or past the end.

    All that is changed in place, the edge pages included, must be the writer's own.
    """
    cdef Directory *root = vector.live.root
    cdef Directory *node
    cdef uint8_t *page
    cdef bint same_page = first.node == last.node and first.page == last.page
    cdef uint32_t whole = first.page + (1 if first_slot else 0)
    cdef uint32_t index
    cdef uint32_t nodes_first
    if first_slot and not same_page:
        page = page_at(node_at(root, first.node), first.page)
        forget_slots(vector, page, first_slot, header_of(page).count)
        page_remove(vector.live.shape, page, first_slot, header_of(page).count)
    if last_slot:
        page = page_at(node_at(root, last.node), last.page)
        forget_slots(vector, page, first_slot if same_page else 0, last_slot)
        page_remove(vector.live.shape, page, first_slot if same_page else 0, last_slot)
    if not same_page:
        node = node_at(root, first.node)
        if first.node == last.node:
            drop_pages(vector, node, whole, last.page)
            directory_remove(node, whole, last.page)
            last.page = whole
        else:
            drop_pages(vector, node, whole, node.count)
            directory_remove(node, whole, node.count)
            if last.node < root.count:
                node = node_at(root, last.node)
                drop_pages(vector, node, 0, last.page)
                directory_remove(node, 0, last.page)
            for index in range(first.node + 1, last.node):
                node = node_at(root, index)
                drop_pages(vector, node, 0, node.count)
                arena_drop_block(&vector.arena, &node.block)
            nodes_first = first.node + 1
            if node_at(root, first.node).count == 0:
                arena_drop_block(&vector.arena, &node_at(root, first.node).block)
                nodes_first = first.node
            directory_remove(root, nodes_first, last.node)
            last.node = nodes_first
            last.page = 0
    if last.node < root.count and (last.page == 0 or last_slot):
        first_key_changed(vector, root, node_at(root, last.node), last)
    join_around(vector, last)


cdef int vector_own_edges(Vector *vector, Place first, uint32_t first_slot, Place last,
                   uint32_t last_slot) noexcept nogil:
    """Makes all that cut_out changes in place the writer's own."""
    cdef Directory *node = own_node(vector, first.node)
    if node == NULL:
        return STATUS_NO_MEMORY
    if first_slot and own_page(vector, node, first.page) == NULL:
        return STATUS_NO_MEMORY
    if last.node == vector.live.root.count:
        return STATUS_OK
    node = own_node(vector, last.node)
    if node == NULL or (last_slot and own_page(vector, node, last.page) == NULL):
        return STATUS_NO_MEMORY
    return STATUS_OK
