"""Pages copied as they are: see _whole_page.pxd for the contract."""

from libc.stdint cimport uint32_t, uint64_t

from cesium._blob_writer cimport blob_sink_takes
from cesium._builder cimport builder_account, builder_fail, builder_note_first
from cesium._layout cimport (
    KIND_BLOB, KIND_DELETE, KIND_KEY_OVERFLOW, KIND_MASK, KIND_VALUE, KIND_VALUE_OVERFLOW,
    PAGE_BYTES, PageHeader, STATUS_FULL, STATUS_OK, VALUE_INLINE_BYTES,
)
from cesium._native cimport bloom_insert, hash_bytes, hash_head, load_head
from cesium._packer cimport Packer, packer_begin_copy, packer_bytes, packer_end_copy
from cesium._page cimport (
    Key, Shape, header_of, heads_of, kind_of, page_columns_bytes, page_copy_key, page_key_bytes,
    page_value_bytes,
)

cdef enum:
    # Little is left unused: of the pages that are sealed early for others, all together, a
    # sixteenth of those taken and two pages; of a page taken whole a quarter at most, so that the
    # next merge packs anew what the last one sealed too early.
    WHOLE_UNUSED_MAX = PAGE_BYTES // 4
    UNUSED_PER_WHOLE = PAGE_BYTES // 16
    UNUSED_AT_FIRST = 2 * PAGE_BYTES


cdef uint32_t unused_bytes(const Shape *shape, uint32_t count, uint32_t used) noexcept nogil:
    """Of a page; pages that are made tiny count as full when they have their slots."""
    cdef uint32_t free_slots
    if shape.slots_max:
        free_slots = shape.slots_max - min(count, shape.slots_max)
        return free_slots * PAGE_BYTES // shape.slots_max
    return PAGE_BYTES - used


cdef bint may_take_whole(const Shape *shape, const uint8_t *page) noexcept nogil:
    """Whether a page is packed, reasonably full, and refers to no other page."""
    cdef PageHeader *header = header_of(page)
    cdef uint32_t slot
    if header.count == 0 or header.capacity != header.count or header.heap_dead_bytes or (
            header.generation):
        return False
    if unused_bytes(shape, header.count, PAGE_BYTES - header.heap_offset + page_columns_bytes(
            shape, header.count, header.prefix_bytes, header.kinds_offset != 0)) > WHOLE_UNUSED_MAX:
        return False
    if header.kinds_offset:
        for slot in range(header.count):
            if kind_of(page, slot) & (KIND_VALUE_OVERFLOW | KIND_KEY_OVERFLOW):
                return False
    return True


cdef bint keeps_values(const Builder *builder, const uint8_t *page) noexcept nogil:
    """Whether no value of a page lies in a blob file, or is to go there: those are looked at."""
    cdef uint32_t slot
    if builder.blobs == NULL or (header_of(page).kinds_offset == 0 and not blob_sink_takes(
            builder.blobs, VALUE_INLINE_BYTES)):
        return True
    for slot in range(header_of(page).count):
        if kind_of(page, slot) & KIND_MASK == KIND_BLOB:
            return False
        if kind_of(page, slot) == KIND_VALUE and blob_sink_takes(
                builder.blobs, page_value_bytes(page, slot)):
            return False
    return True


cdef int account_page(Builder *builder, const uint8_t *page) noexcept nogil:
    """Accounts for all entries of a page that has no overflows."""
    cdef const Shape *shape = builder.shape
    cdef uint32_t count = header_of(page).count
    cdef uint32_t slot
    cdef uint64_t bytes
    cdef int status
    if shape.key_width and shape.value_width:
        builder_account(builder, page, 0, count)
        return STATUS_OK
    for slot in range(count):
        if kind_of(page, slot) & KIND_MASK == KIND_DELETE:
            builder.delete_markers += 1
        else:
            builder.value_bytes += (
                shape.value_width if shape.value_width else page_value_bytes(page, slot))
        bytes = page_key_bytes(shape, page, slot)
        builder.key_bytes += bytes
        if builder.filter == NULL:
            continue
        if shape.key_width:
            bloom_insert(builder.filter, builder.filter_blocks, hash_head(heads_of(page)[slot]))
            continue
        status = page_copy_key(shape, page, slot, NULL, builder.key)
        if status != STATUS_OK:
            return status
        bloom_insert(builder.filter, builder.filter_blocks, hash_bytes(builder.key, bytes))
    return STATUS_OK


cdef int builder_take_page(Builder *builder, const uint8_t *page) noexcept nogil:
    cdef const Shape *shape = builder.shape
    cdef Packer *packer = &builder.packer
    cdef uint8_t first_key[512]
    cdef uint8_t *copy
    cdef uint64_t unused
    cdef Key first
    cdef int status
    if builder.status != STATUS_OK:
        return builder.status
    if not may_take_whole(shape, page) or not keeps_values(builder, page):
        return STATUS_FULL
    if packer.count:
        unused = builder.early_unused_bytes + unused_bytes(
            shape, packer.count, packer_bytes(packer))
        if unused > UNUSED_AT_FIRST + builder.whole_pages * UNUSED_PER_WHOLE:
            return STATUS_FULL
        builder.early_unused_bytes = unused
    builder.whole_pages += 1
    # From here on only the copy is looked at, for the page may get lost.
    status = packer_begin_copy(packer, page, &copy)
    if status == STATUS_OK:
        first.head = heads_of(copy)[0]
        first.data = first_key
        first.bytes = 0
        if shape.key_width == 0:
            first.bytes = <uint32_t>page_key_bytes(shape, copy, 0)
            page_copy_key(shape, copy, 0, NULL, first_key)
            first.head = load_head(first_key, first.bytes)
        if packer.rank == 0:
            builder_note_first(builder, &first)
        status = account_page(builder, copy)
    if status == STATUS_OK:
        status = packer_end_copy(packer, &first)
    return builder_fail(builder, status)
