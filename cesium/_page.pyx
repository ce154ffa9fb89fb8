"""Pages: see _page.pxd for the contract and docs/format.md, "Data pages", for the bytes."""

from libc.string cimport memcmp, memcpy, memmove, memset

from cesium._blobs cimport Blob, blob_read
from cesium._layout cimport (
    BlobPointer, FIELDS_MAX, FORM_VARIABLE_KEYS, FORM_VARIABLE_VALUES, HAS_KINDS, KEY_INLINE_BYTES,
    KIND_BLOB, KIND_DELETE, KIND_KEY_OVERFLOW, KIND_MASK, KIND_VALUE, KIND_VALUE_OVERFLOW,
    PAGE_BYTES, PAGE_HEADER_BYTES, STATUS_CORRUPT, STATUS_FULL, STATUS_OK, VALUE_FIXED_BYTES,
    VALUE_INLINE_BYTES,
)
from cesium._native cimport heads_lower_bound, heads_upper_bound, load_head

cdef extern from *:
    uint64_t __builtin_bswap64(uint64_t word) noexcept nogil

cdef struct Columns:            # where a page's columns begin; the one computation of the layout
    uint32_t heads
    uint32_t kinds
    uint32_t entries
    uint32_t values
    uint32_t end


cdef inline Columns columns_of(const Shape *shape, uint32_t capacity, uint32_t prefix_bytes,
                               bint kinds) noexcept nogil:
    cdef Columns columns
    cdef uint32_t end = (PAGE_HEADER_BYTES + prefix_bytes + 7) & ~<uint32_t>7
    columns.heads = end
    end += capacity * 8
    columns.kinds = 0
    if kinds:
        columns.kinds = end
        end += capacity
    columns.entries = 0
    if shape.key_width == 0 or shape.value_width == 0:
        end = (end + 1) & ~<uint32_t>1
        columns.entries = end
        end += capacity * <uint32_t>sizeof(Entry)
    columns.values = 0
    if shape.value_width:
        columns.values = end
        end += capacity * shape.value_width
    columns.end = end
    return columns


cdef inline uint32_t columns_end(const Shape *shape, const uint8_t *page) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    return columns_of(shape, header.capacity, header.prefix_bytes, header.kinds_offset != 0).end


cdef inline uint32_t remainder_bytes(uint32_t key_bytes) noexcept nogil:
    return key_bytes - 8 if key_bytes > 8 else 0


# Bytes of key that an entry has in the heap: the remainder, and the reference of a spilled key.
cdef inline uint32_t heap_key_bytes(uint32_t key_bytes, uint8_t kind) noexcept nogil:
    cdef uint32_t size = remainder_bytes(key_bytes)
    if kind & KIND_KEY_OVERFLOW:
        size += sizeof(OverflowReference)
    return size


cdef inline uint32_t heap_entry_bytes(const uint8_t *page, uint32_t slot) noexcept nogil:
    cdef Entry *entry = entries_of(page) + slot
    return heap_key_bytes(entry.key_bytes, kind_of(page, slot)) + entry.value_bytes


cdef uint32_t page_columns_bytes(const Shape *shape, uint32_t capacity, uint32_t prefix_bytes,
                                 bint kinds) noexcept nogil:
    return columns_of(shape, capacity, prefix_bytes, kinds).end


cdef uint32_t page_fixed_capacity(const Shape *shape, bint kinds) noexcept nogil:
    cdef uint32_t row = 8 + shape.value_width + (1 if kinds else 0)
    cdef uint32_t capacity = <uint32_t>(PAGE_BYTES - PAGE_HEADER_BYTES) // row
    if shape.slots_max and capacity > shape.slots_max:
        capacity = shape.slots_max
    return capacity


cdef void page_format(const Shape *shape, uint8_t *page, uint8_t type, uint32_t capacity,
                      const uint8_t *prefix, uint32_t prefix_bytes, bint kinds) noexcept nogil:
    cdef Columns columns = columns_of(shape, capacity, prefix_bytes, kinds)
    cdef PageHeader *header = header_of(page)
    memset(page, 0, PAGE_BYTES)
    header.type = type
    header.form = ((FORM_VARIABLE_KEYS if shape.key_width == 0 else 0)
                   | (FORM_VARIABLE_VALUES if shape.value_width == 0 else 0))
    header.flags = HAS_KINDS if kinds else 0
    header.capacity = <uint16_t>capacity
    header.prefix_bytes = <uint16_t>prefix_bytes
    header.heads_offset = <uint16_t>columns.heads
    header.kinds_offset = <uint16_t>columns.kinds
    header.entries_offset = <uint16_t>columns.entries
    header.values_offset = <uint16_t>columns.values
    header.heap_offset = PAGE_BYTES
    if prefix_bytes:
        memcpy(page + PAGE_HEADER_BYTES, prefix, prefix_bytes)


cdef int page_check(const Shape *shape, const uint8_t *page, uint8_t type) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    cdef Columns columns
    cdef Entry *entry
    cdef uint32_t slot
    cdef uint32_t need
    cdef uint8_t kind
    cdef uint8_t form = ((FORM_VARIABLE_KEYS if shape.key_width == 0 else 0)
                         | (FORM_VARIABLE_VALUES if shape.value_width == 0 else 0))
    if header.type != type or header.form != form or header.flags & ~HAS_KINDS:
        return STATUS_CORRUPT
    if header.count == 0 or header.count > header.capacity or header.capacity > PAGE_BYTES // 8:
        return STATUS_CORRUPT
    if header.prefix_bytes > (KEY_INLINE_BYTES if shape.key_width == 0 else 0):
        return STATUS_CORRUPT
    columns = columns_of(shape, header.capacity, header.prefix_bytes, header.flags & HAS_KINDS)
    if (header.heads_offset != columns.heads or header.kinds_offset != columns.kinds
            or header.entries_offset != columns.entries or header.values_offset != columns.values
            or columns.end > header.heap_offset or header.heap_offset > PAGE_BYTES):
        return STATUS_CORRUPT
    for slot in range(header.count):
        kind = kind_of(page, slot)
        if (kind & KIND_MASK) > KIND_BLOB or kind & ~(KIND_MASK | KIND_VALUE_OVERFLOW
                                                      | KIND_KEY_OVERFLOW):
            return STATUS_CORRUPT
        if columns.entries == 0:
            if kind > KIND_DELETE:
                return STATUS_CORRUPT
            continue
        entry = entries_of(page) + slot
        need = heap_key_bytes(entry.key_bytes, kind) + entry.value_bytes
        if entry.offset < header.heap_offset or entry.offset + need > PAGE_BYTES:
            return STATUS_CORRUPT
        if shape.key_width:
            if entry.key_bytes or kind & KIND_KEY_OVERFLOW:
                return STATUS_CORRUPT
        elif kind & KIND_KEY_OVERFLOW:
            if entry.key_bytes + header.prefix_bytes != KEY_INLINE_BYTES:
                return STATUS_CORRUPT
        elif entry.key_bytes + header.prefix_bytes > KEY_INLINE_BYTES:
            return STATUS_CORRUPT
        if shape.value_width:
            if entry.value_bytes or kind & KIND_VALUE_OVERFLOW or (kind & KIND_MASK) == KIND_BLOB:
                return STATUS_CORRUPT
        elif (kind & KIND_MASK) == KIND_BLOB:
            if entry.value_bytes != sizeof(BlobPointer) or kind & KIND_VALUE_OVERFLOW:
                return STATUS_CORRUPT
        elif kind & KIND_VALUE_OVERFLOW:
            if entry.value_bytes != sizeof(OverflowReference):
                return STATUS_CORRUPT
        elif entry.value_bytes > VALUE_INLINE_BYTES:
            return STATUS_CORRUPT
    return STATUS_OK


cdef const uint8_t *page_key_remainder(const uint8_t *page, uint32_t slot,
                                       uint32_t *bytes) noexcept nogil:
    cdef Entry *entry = entries_of(page) + slot
    bytes[0] = remainder_bytes(entry.key_bytes)
    return page + entry.offset


cdef OverflowReference *page_key_reference(const uint8_t *page, uint32_t slot) noexcept nogil:
    cdef Entry *entry = entries_of(page) + slot
    return <OverflowReference *>(page + entry.offset + remainder_bytes(entry.key_bytes))


cdef OverflowReference *page_value_reference(const uint8_t *page, uint32_t slot) noexcept nogil:
    cdef Entry *entry = entries_of(page) + slot
    return <OverflowReference *>(
        page + entry.offset + heap_key_bytes(entry.key_bytes, kind_of(page, slot)))


cdef int compare_remainder(const uint8_t *page, uint32_t slot, const Key *key,
                           const PageSource *source, int *order) noexcept nogil:
    """Order of an entry against a key with the same prefix and head."""
    cdef uint32_t prefix_bytes = header_of(page).prefix_bytes
    cdef Entry *entry = entries_of(page) + slot
    cdef uint32_t ours = remainder_bytes(entry.key_bytes)
    cdef uint32_t key_rest = key.bytes - prefix_bytes
    cdef uint32_t theirs = remainder_bytes(key_rest)
    cdef int answer
    cdef uint64_t total
    cdef uint64_t done
    cdef uint64_t step
    cdef uint8_t buffer[512]
    cdef int status
    cdef OverflowReference *reference
    if ours and theirs:
        answer = memcmp(page + entry.offset, key.data + prefix_bytes + 8,
                        ours if ours < theirs else theirs)
        if answer:
            order[0] = -1 if answer < 0 else 1
            return STATUS_OK
    if not kind_of(page, slot) & KIND_KEY_OVERFLOW:
        order[0] = (entry.key_bytes > key_rest) - (entry.key_bytes < key_rest)
        return STATUS_OK
    if key.bytes <= KEY_INLINE_BYTES:
        order[0] = 1            # ours goes on behind the bytes that are equal
        return STATUS_OK
    reference = page_key_reference(page, slot)
    total = reference.bytes
    done = KEY_INLINE_BYTES
    while done < total and done < key.bytes:
        step = min(<uint64_t>sizeof(buffer), total - done, key.bytes - done)
        status = source.read_overflow(source.context, reference.location, done, buffer, step)
        if status != STATUS_OK:
            return status
        answer = memcmp(buffer, key.data + done, step)
        if answer:
            order[0] = -1 if answer < 0 else 1
            return STATUS_OK
        done += step
    order[0] = (total > key.bytes) - (total < key.bytes)
    return STATUS_OK


cdef int prefix_order(const uint8_t *page, const Key *key) noexcept nogil:
    """-1: every key of the page is below `key`; 1: above; 0: `key` starts with the prefix."""
    cdef uint32_t prefix_bytes = header_of(page).prefix_bytes
    cdef int answer
    if prefix_bytes == 0:
        return 0
    answer = memcmp(page + PAGE_HEADER_BYTES, key.data, min(prefix_bytes, key.bytes))
    if answer == 0:
        return 1 if key.bytes < prefix_bytes else 0
    return -1 if answer < 0 else 1


cdef inline uint64_t head_behind_prefix(const uint8_t *page, const Key *key) noexcept nogil:
    cdef uint32_t prefix_bytes = header_of(page).prefix_bytes
    if prefix_bytes == 0:
        return key.head
    # Of a spilled key only the first 512 bytes count: what lies behind them is not in the page.
    return load_head(key.data + prefix_bytes,
                     min(key.bytes, <uint32_t>KEY_INLINE_BYTES) - prefix_bytes)


cdef int page_find(const Shape *shape, const uint8_t *page, const Key *key,
                   const PageSource *source, uint32_t *slot, bint *exact) noexcept nogil:
    cdef uint32_t count = header_of(page).count
    cdef uint64_t *heads = heads_of(page)
    cdef uint64_t head
    cdef uint32_t low
    cdef uint32_t high
    cdef uint32_t middle
    cdef int order
    cdef int status
    exact[0] = False
    if shape.key_width:
        low = heads_lower_bound(heads, count, key.head)
        slot[0] = low
        exact[0] = low < count and heads[low] == key.head
        return STATUS_OK
    order = prefix_order(page, key)
    if order:
        slot[0] = 0 if order > 0 else count
        return STATUS_OK
    head = head_behind_prefix(page, key)
    low = heads_lower_bound(heads, count, head)
    if low == count or heads[low] != head:
        slot[0] = low
        return STATUS_OK
    high = low + 1
    if high < count and heads[high] == head:
        high = heads_upper_bound(heads, count, head)
    while low < high:
        middle = (low + high) >> 1
        status = compare_remainder(page, middle, key, source, &order)
        if status != STATUS_OK:
            return status
        if order == 0:
            slot[0] = middle
            exact[0] = True
            return STATUS_OK
        if order < 0:
            low = middle + 1
        else:
            high = middle
    slot[0] = low
    return STATUS_OK


cdef int page_compare(const Shape *shape, const uint8_t *page, uint32_t slot, const Key *key,
                      const PageSource *source, int *order) noexcept nogil:
    cdef uint64_t ours = heads_of(page)[slot]
    cdef uint64_t theirs = key.head
    if shape.key_width == 0:
        order[0] = prefix_order(page, key)
        if order[0]:
            return STATUS_OK
        theirs = head_behind_prefix(page, key)
    if ours != theirs or shape.key_width:
        order[0] = (ours > theirs) - (ours < theirs)
        return STATUS_OK
    return compare_remainder(page, slot, key, source, order)


cdef uint64_t page_key_bytes(const Shape *shape, const uint8_t *page, uint32_t slot) noexcept nogil:
    if shape.key_width:
        return shape.key_width
    if kind_of(page, slot) & KIND_KEY_OVERFLOW:
        return page_key_reference(page, slot).bytes
    return header_of(page).prefix_bytes + entries_of(page)[slot].key_bytes


cdef uint32_t copy_inline_key(const uint8_t *page, uint32_t slot,
                              uint8_t *destination) noexcept nogil:
    """The bytes of the key that lie in the page (all, or the first 512); at most 512."""
    cdef uint32_t prefix_bytes = header_of(page).prefix_bytes
    # Looked at once: a page that gets lost meanwhile has lengths of zero from then on.
    cdef uint32_t offset = entries_of(page)[slot].offset
    cdef uint32_t key_bytes = entries_of(page)[slot].key_bytes
    cdef uint64_t head = __builtin_bswap64(heads_of(page)[slot])
    memcpy(destination, page + PAGE_HEADER_BYTES, prefix_bytes)
    destination += prefix_bytes
    memcpy(destination, &head, min(<uint32_t>8, key_bytes))
    if key_bytes > 8:
        memcpy(destination + 8, page + offset, key_bytes - 8)
    return prefix_bytes + key_bytes


cdef int page_copy_key(const Shape *shape, const uint8_t *page, uint32_t slot,
                       const PageSource *source, uint8_t *destination) noexcept nogil:
    cdef OverflowReference *reference
    cdef uint64_t head
    if shape.key_width:
        head = __builtin_bswap64(heads_of(page)[slot])
        memcpy(destination, &head, shape.key_width)
        return STATUS_OK
    if kind_of(page, slot) & KIND_KEY_OVERFLOW:
        reference = page_key_reference(page, slot)
        return source.read_overflow(source.context, reference.location, 0, destination,
                                    reference.bytes)
    copy_inline_key(page, slot, destination)
    return STATUS_OK


cdef void page_copy_row(const Shape *shape, const uint8_t *page, uint32_t slot,
                        uint8_t *row) noexcept nogil:
    cdef uint32_t field
    cdef uint32_t width
    if shape.field_count == 1:
        memcpy(row, run_of(shape, page, 0) + slot * shape.value_width, shape.value_width)
        return
    for field in range(shape.field_count):
        width = shape.field_widths[field]
        memcpy(row + shape.field_starts[field], run_of(shape, page, field) + slot * width, width)


cdef void page_store_row(const Shape *shape, uint8_t *page, uint32_t slot,
                         const uint8_t *row) noexcept nogil:
    cdef uint32_t field
    cdef uint32_t width
    for field in range(shape.field_count):
        width = shape.field_widths[field]
        memcpy(run_of(shape, page, field) + slot * width, row + shape.field_starts[field], width)


cdef void page_blob_pointer(const uint8_t *page, uint32_t slot,
                            BlobPointer *pointer) noexcept nogil:
    memcpy(pointer, page_value_reference(page, slot), sizeof(BlobPointer))


cdef uint64_t page_value_bytes(const uint8_t *page, uint32_t slot) noexcept nogil:
    cdef uint8_t kind = kind_of(page, slot)
    cdef BlobPointer pointer
    if (kind & KIND_MASK) == KIND_BLOB:
        page_blob_pointer(page, slot, &pointer)
        return pointer.bytes
    if kind & KIND_VALUE_OVERFLOW:
        return page_value_reference(page, slot).bytes
    return entries_of(page)[slot].value_bytes


cdef const uint8_t *page_value_inline(const uint8_t *page, uint32_t slot) noexcept nogil:
    cdef uint8_t kind = kind_of(page, slot)
    cdef Entry *entry = entries_of(page) + slot
    if kind & KIND_VALUE_OVERFLOW or (kind & KIND_MASK) == KIND_BLOB:
        return NULL
    return page + entry.offset + heap_key_bytes(entry.key_bytes, kind)


cdef int page_copy_value(const uint8_t *page, uint32_t slot, const PageSource *source,
                         uint64_t skip, uint8_t *destination, uint64_t bytes) noexcept nogil:
    cdef const uint8_t *data = page_value_inline(page, slot)
    cdef BlobPointer pointer
    cdef Blob *blob = NULL
    if data != NULL:
        # More than lies in the page: it was lost between the look at the length and this.
        if <uint64_t>(data - page) + skip + bytes > PAGE_BYTES:
            return STATUS_CORRUPT
        memcpy(destination, data + skip, bytes)
        return STATUS_OK
    if (kind_of(page, slot) & KIND_MASK) == KIND_BLOB:
        page_blob_pointer(page, slot, &pointer)
        if source.blob_of != NULL:
            blob = source.blob_of(source.context, pointer.blob_id)
        if blob == NULL or skip or bytes != pointer.bytes:
            return STATUS_CORRUPT
        return blob_read(blob, &pointer, destination)
    return source.read_overflow(source.context, page_value_reference(page, slot).location, skip,
                                destination, bytes)


# --- writing ---------------------------------------------------------------------------------


cdef void compact_heap(uint8_t *page) noexcept nogil:
    """Moves the live entries to the end of the page, so that the dead bytes are free again."""
    cdef PageHeader *header = header_of(page)
    cdef Entry *entries = entries_of(page)
    cdef uint8_t old[4096]
    cdef uint32_t end = PAGE_BYTES
    cdef uint32_t size
    cdef uint32_t slot
    memcpy(old + header.heap_offset, page + header.heap_offset, PAGE_BYTES - header.heap_offset)
    for slot in range(header.count):
        size = heap_entry_bytes(page, slot)
        # The size needs only entry and kind, which lie in the columns and do not move.
        end -= size
        memcpy(page + end, old + entries[slot].offset, size)
        entries[slot].offset = <uint16_t>end
    header.heap_offset = <uint16_t>end
    header.heap_dead_bytes = 0


cdef inline void shift_slots(const Shape *shape, uint8_t *page, uint32_t source,
                             uint32_t destination, uint32_t count) noexcept nogil:
    """Moves `count` slots of every column from slot `source` to slot `destination`."""
    cdef PageHeader *header = header_of(page)
    cdef uint64_t *heads = heads_of(page)
    cdef Entry *entries
    cdef uint8_t *run
    cdef uint32_t field
    cdef uint32_t width
    memmove(heads + destination, heads + source, count * 8)
    if header.kinds_offset:
        memmove(page + header.kinds_offset + destination, page + header.kinds_offset + source,
                count)
    if header.entries_offset:
        entries = entries_of(page)
        memmove(entries + destination, entries + source, count * sizeof(Entry))
    for field in range(shape.field_count):
        width = shape.field_widths[field]
        run = run_of(shape, page, field)
        memmove(run + destination * width, run + source * width, count * width)


cdef int page_insert(const Shape *shape, uint8_t *page, uint32_t slot, const Key *key, uint8_t kind,
                     const OverflowReference *key_reference, const uint8_t *value,
                     uint64_t value_bytes) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    cdef uint32_t key_bytes = 0
    cdef uint32_t need = 0
    cdef uint32_t free
    cdef uint32_t remainder
    cdef Entry *entry
    cdef uint8_t *place
    if header.count >= header.capacity or (kind and not header.kinds_offset):
        return STATUS_FULL
    if header.entries_offset:
        if shape.key_width == 0:
            if prefix_order(page, key):
                return STATUS_FULL
            key_bytes = min(key.bytes, <uint32_t>KEY_INLINE_BYTES) - header.prefix_bytes
        need = heap_key_bytes(key_bytes, kind)
        if shape.value_width == 0:
            need += <uint32_t>value_bytes
        free = header.heap_offset - columns_end(shape, page)
        if need > free:
            if need > free + header.heap_dead_bytes:
                return STATUS_FULL
            compact_heap(page)
    if slot < header.count:
        shift_slots(shape, page, slot, slot + 1, header.count - slot)
    heads_of(page)[slot] = key.head if shape.key_width else head_behind_prefix(page, key)
    if header.kinds_offset:
        page[header.kinds_offset + slot] = kind
    if header.entries_offset:
        header.heap_offset -= <uint16_t>need
        entry = entries_of(page) + slot
        entry.offset = header.heap_offset
        entry.key_bytes = <uint16_t>key_bytes
        entry.value_bytes = <uint16_t>value_bytes if shape.value_width == 0 else 0
        place = page + entry.offset
        remainder = remainder_bytes(key_bytes)
        if remainder:
            memcpy(place, key.data + header.prefix_bytes + 8, remainder)
            place += remainder
        if kind & KIND_KEY_OVERFLOW:
            memcpy(place, key_reference, sizeof(OverflowReference))
            place += sizeof(OverflowReference)
        if entry.value_bytes:
            memcpy(place, value, entry.value_bytes)
    header.count += 1
    if shape.value_width:
        store_or_clear(shape, page, slot, kind, value)
    return STATUS_OK


cdef inline void store_or_clear(const Shape *shape, uint8_t *page, uint32_t slot, uint8_t kind,
                                const uint8_t *value) noexcept nogil:
    """A delete marker's fixed value is zeros, so that no old bytes reach the drive."""
    cdef uint32_t field
    cdef uint32_t width
    if (kind & KIND_MASK) == KIND_VALUE:
        page_store_row(shape, page, slot, value)
        return
    for field in range(shape.field_count):
        width = shape.field_widths[field]
        memset(run_of(shape, page, field) + slot * width, 0, width)


cdef int page_replace(const Shape *shape, uint8_t *page, uint32_t slot, uint8_t kind,
                      const uint8_t *value, uint64_t value_bytes) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    cdef uint8_t old_kind = kind_of(page, slot)
    cdef Entry *entry
    cdef uint32_t key_part
    cdef uint32_t old_bytes
    cdef uint32_t need
    cdef uint32_t free
    cdef uint16_t key_bytes
    cdef uint8_t key_copy[512 + 16]
    if kind != old_kind and not header.kinds_offset:
        return STATUS_FULL
    if shape.value_width:
        if header.kinds_offset:
            page[header.kinds_offset + slot] = kind
        store_or_clear(shape, page, slot, kind, value)
        return STATUS_OK
    entry = entries_of(page) + slot
    key_part = heap_key_bytes(entry.key_bytes, old_kind)
    old_bytes = key_part + entry.value_bytes
    if value_bytes > entry.value_bytes:
        need = key_part + <uint32_t>value_bytes
        free = header.heap_offset - columns_end(shape, page)
        if need > free + header.heap_dead_bytes + old_bytes:
            return STATUS_FULL
        memcpy(key_copy, page + entry.offset, key_part)
        header.heap_dead_bytes += <uint16_t>old_bytes
        if need > free:
            # The slot owns nothing while the heap is compacted; its key part waits in key_copy.
            key_bytes = entry.key_bytes
            entry.key_bytes = 0
            entry.value_bytes = 0
            if header.kinds_offset:
                page[header.kinds_offset + slot] = KIND_VALUE
            compact_heap(page)
            entry.key_bytes = key_bytes
        header.heap_offset -= <uint16_t>need
        entry.offset = header.heap_offset
        memcpy(page + entry.offset, key_copy, key_part)
    else:
        header.heap_dead_bytes += <uint16_t>(entry.value_bytes - value_bytes)
    entry.value_bytes = <uint16_t>value_bytes
    memcpy(page + entry.offset + key_part, value, value_bytes)
    if header.kinds_offset:
        page[header.kinds_offset + slot] = kind
    return STATUS_OK


cdef void page_remove(const Shape *shape, uint8_t *page, uint32_t first,
                      uint32_t last) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    cdef uint32_t slot
    if header.entries_offset:
        for slot in range(first, last):
            header.heap_dead_bytes += <uint16_t>heap_entry_bytes(page, slot)
    if last < header.count:
        shift_slots(shape, page, last, first, header.count - last)
    header.count -= <uint16_t>(last - first)
    if header.count == 0:
        header.heap_offset = PAGE_BYTES
        header.heap_dead_bytes = 0


cdef int page_append_slots(const Shape *shape, uint8_t *page, const uint8_t *source_page,
                           uint32_t first, uint32_t last, uint32_t *copied) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    cdef uint8_t key_bytes[512]
    cdef uint8_t row[512]
    cdef Key key
    cdef Entry *entry
    cdef uint32_t slot
    cdef uint32_t field
    cdef uint32_t width
    cdef uint32_t count = last - first
    cdef uint8_t kind
    cdef const uint8_t *value
    cdef uint64_t value_bytes
    cdef int status
    if header.entries_offset == 0:
        if count > <uint32_t>(header.capacity - header.count):
            count = header.capacity - header.count
        if header.kinds_offset == 0 and header_of(source_page).kinds_offset:
            for slot in range(count):
                if kind_of(source_page, first + slot):
                    count = slot
                    break
        memcpy(heads_of(page) + header.count, heads_of(source_page) + first, count * 8)
        if header.kinds_offset:
            if header_of(source_page).kinds_offset:
                memcpy(page + header.kinds_offset + header.count,
                       source_page + header_of(source_page).kinds_offset + first, count)
            else:
                memset(page + header.kinds_offset + header.count, 0, count)
        for field in range(shape.field_count):
            width = shape.field_widths[field]
            memcpy(run_of(shape, page, field) + header.count * width,
                   run_of(shape, source_page, field) + first * width, count * width)
        header.count += <uint16_t>count
        copied[0] = count
        return STATUS_OK if first + count == last else STATUS_FULL
    for slot in range(first, last):
        kind = kind_of(source_page, slot)
        entry = entries_of(source_page) + slot
        key.head = heads_of(source_page)[slot]
        key.data = key_bytes
        key.bytes = 0
        if shape.key_width == 0:
            key.bytes = copy_inline_key(source_page, slot, key_bytes)
            key.head = load_head(key_bytes, key.bytes)
        if shape.value_width:
            page_copy_row(shape, source_page, slot, row)
            value = row
            value_bytes = shape.value_width
        else:
            value = source_page + entry.offset + heap_key_bytes(entry.key_bytes, kind)
            value_bytes = entry.value_bytes
        status = page_insert(shape, page, header.count, &key, kind,
                             page_key_reference(source_page, slot), value, value_bytes)
        if status != STATUS_OK:
            copied[0] = slot - first
            return status
    copied[0] = count
    return STATUS_OK


cdef class TableShape:
    """How one table's keys and values are stored.

    key_width: bytes of a fixed key (1..8), or 0 for the variable form.  value_width: bytes of a
    packed row (1..512), or 0 for the variable form; field_widths: bytes of each column run, in
    order (defaults to one run).  slots_max: the most entries a page may hold, for tests (0: as many
    as fit).
    """

    def __init__(self, uint32_t key_width, uint32_t value_width, field_widths=(),
                 uint32_t slots_max=0):
        cdef uint32_t start = 0
        widths = tuple(field_widths) or ((value_width,) if value_width else ())
        if key_width > 8:
            raise ValueError(f"key_width is 0 to 8 bytes, not {key_width}")
        if (value_width > VALUE_FIXED_BYTES or sum(widths) != value_width
                or len(widths) > FIELDS_MAX):
            raise ValueError(
                f"fields of {widths} bytes do not make a row of {value_width} (0 to 512)")
        memset(&self.shape, 0, sizeof(Shape))
        self.shape.key_width = key_width
        self.shape.value_width = value_width
        self.shape.field_count = <uint32_t>len(widths)
        self.shape.slots_max = slots_max
        for field, width in enumerate(widths):
            self.shape.field_widths[field] = width
            self.shape.field_starts[field] = <uint16_t>start
            start += width

    @property
    def key_width(self):
        """Bytes of a fixed key; 0: the variable form."""
        return self.shape.key_width

    @property
    def value_width(self):
        """Bytes of a packed row; 0: the variable form."""
        return self.shape.value_width
