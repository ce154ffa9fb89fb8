"""Sorted entries in, packed pages out: see _packer.pxd for the contract."""

from libc.stdint cimport UINT32_MAX, uint16_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from cesium._layout cimport (
    KEY_BYTES_MAX, KEY_INLINE_BYTES, KIND_KEY_OVERFLOW, KIND_MASK, KIND_VALUE,
    KIND_VALUE_OVERFLOW, OVERFLOW_PAYLOAD_BYTES, PAGE_BYTES, PAGE_DATA, PAGE_HEADER_BYTES,
    PAGE_OVERFLOW, STATUS_CORRUPT, STATUS_FULL, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK,
    VALUE_BYTES_MAX, VALUE_INLINE_BYTES,
)
from cesium._native cimport load_head
from cesium._page cimport (
    header_of, heads_of, page_append_slots, page_columns_bytes, page_copy_key, page_copy_value,
    page_fixed_capacity, page_format, page_insert, page_key_bytes,
)
from cesium._page_writer cimport page_writer_page, page_writer_seal

cdef enum:
    STAGED_MAX = 512                # a page has at most 4032 // 8 slots
    # A page's values and remainders fit 4 KiB, and each entry adds at most a shared prefix of 512.
    ARENA_BYTES = STAGED_MAX * KEY_INLINE_BYTES + 2 * PAGE_BYTES

cdef extern from *:
    """
    /* Bytes that a and b have in common at their start, at most `limit`. */
    static inline uint32_t common_bytes(const uint8_t *a, const uint8_t *b, uint32_t limit) {
        uint32_t at = 0;
        for (; at + 8 <= limit; at += 8) {
            uint64_t x, y;
            __builtin_memcpy(&x, a + at, 8);
            __builtin_memcpy(&y, b + at, 8);
            if (x != y) return at + (uint32_t)(__builtin_ctzll(x ^ y) >> 3);
        }
        while (at < limit && a[at] == b[at]) at++;
        return at;
    }
    """
    uint32_t common_bytes(const uint8_t *a, const uint8_t *b, uint32_t limit) noexcept nogil


# --- the list of pages ---------------------------------------------------------------------------


cdef int grow(void **memory, uint64_t count, uint64_t item_bytes) noexcept nogil:
    cdef void *larger = realloc(memory[0], count * item_bytes)
    if larger == NULL:
        return STATUS_NO_MEMORY
    memory[0] = larger
    return STATUS_OK


cdef int page_list_reserve(PageList *pages, bint fixed) noexcept nogil:
    """Room for one more page."""
    cdef uint64_t capacity
    if pages.count < pages.capacity:
        return STATUS_OK
    capacity = pages.capacity * 2 if pages.capacity else 64
    if (grow(<void **>&pages.numbers, capacity, 4) or grow(<void **>&pages.ranks, capacity, 4)
            or grow(<void **>(&pages.heads if fixed else &pages.ends), capacity, 8)):
        return STATUS_NO_MEMORY
    pages.capacity = capacity
    return STATUS_OK


cdef int page_list_key(PageList *pages, uint64_t start, const uint8_t *key,
                       uint32_t bytes) noexcept nogil:
    """Puts the separator of the page in the making at keys[start]."""
    cdef uint64_t capacity
    if start + bytes > pages.keys_capacity or pages.keys == NULL:
        capacity = (start + bytes) * 2 + 1024
        if grow(<void **>&pages.keys, capacity, 1):
            return STATUS_NO_MEMORY
        pages.keys_capacity = capacity
    if bytes:
        memcpy(pages.keys + start, key, bytes)
    return STATUS_OK


cdef void page_list_free(PageList *pages) noexcept nogil:
    free(pages.heads)
    free(pages.ends)
    free(pages.numbers)
    free(pages.ranks)
    free(pages.keys)
    memset(pages, 0, sizeof(PageList))


cdef uint64_t page_list_bytes(const PageList *pages) noexcept nogil:
    return pages.capacity * 16 + pages.keys_capacity


cdef int list_page(Packer *packer, uint64_t head) noexcept nogil:
    """Lists the page that is sealed next."""
    cdef PageList *pages = &packer.pages
    cdef bint fixed = packer.shape.key_width != 0
    if page_list_reserve(pages, fixed):
        return STATUS_NO_MEMORY
    if fixed:
        # Every key is routed somewhere: the first page of a level takes all that are smaller.
        pages.heads[pages.count] = head if pages.count else 0
    else:
        pages.ends[pages.count] = packer.separator_start
    pages.numbers[pages.count] = packer.writer.page_count
    pages.ranks[pages.count] = <uint32_t>packer.page_rank
    pages.count += 1
    return STATUS_OK


# --- one packer ----------------------------------------------------------------------------------


cdef int packer_open(Packer *packer, const Shape *shape, PageWriter *writer, uint8_t type,
                     uint8_t level) noexcept nogil:
    memset(packer, 0, sizeof(Packer))
    packer.shape = shape
    packer.writer = writer
    packer.type = type
    packer.level = level
    packer.in_place = shape.key_width != 0 and shape.value_width != 0
    if packer.in_place:
        return STATUS_OK
    packer.staged_max = STAGED_MAX
    if shape.slots_max and shape.slots_max < STAGED_MAX:
        packer.staged_max = shape.slots_max
    packer.staged = <StagedEntry *>malloc(STAGED_MAX * sizeof(StagedEntry))
    packer.arena = <uint8_t *>malloc(ARENA_BYTES)
    packer.last_key = <uint8_t *>malloc(KEY_BYTES_MAX)
    if packer.staged == NULL or packer.arena == NULL or packer.last_key == NULL:
        packer_close(packer)
        return STATUS_NO_MEMORY
    return STATUS_OK


cdef void packer_close(Packer *packer) noexcept nogil:
    free(packer.staged)
    free(packer.arena)
    free(packer.last_key)
    packer.staged = NULL
    packer.arena = NULL
    packer.last_key = NULL
    page_list_free(&packer.pages)


cdef int packer_add(Packer *packer, const Key *key, const Value *value,
                    const ValueOrigin *origin) noexcept nogil:
    cdef int status
    if packer.rank >= UINT32_MAX:       # ranks are 4 bytes in the fences
        return STATUS_LIMIT
    if packer.in_place:
        status = add_in_place(packer, key, value)
    elif packer.shape.key_width == 0 and key.bytes > KEY_BYTES_MAX:
        return STATUS_LIMIT
    elif packer.shape.value_width == 0 and value.bytes > VALUE_BYTES_MAX:
        return STATUS_LIMIT
    else:
        status = add_staged(packer, key, value, origin)
    packer.rank += 1
    return status


cdef int packer_seal(Packer *packer) noexcept nogil:
    if packer.count == 0:
        return STATUS_OK
    return seal_in_place(packer) if packer.in_place else seal_staged(packer)


cdef uint32_t packer_bytes(const Packer *packer) noexcept nogil:
    if packer.in_place:
        return page_columns_bytes(packer.shape, packer.count, 0, packer.kinds)
    return packer.heap_bytes + page_columns_bytes(packer.shape, packer.count, packer.prefix_bytes,
                                                  packer.kinds)


cdef int packer_begin_copy(Packer *packer, const uint8_t *page, uint8_t **copy) noexcept nogil:
    cdef int status = packer_seal(packer)
    if status != STATUS_OK:
        return status
    copy[0] = page_writer_page(packer.writer)
    memcpy(copy[0], page, PAGE_BYTES)
    if header_of(copy[0]).count == 0:   # it was lost just now
        return STATUS_CORRUPT
    return STATUS_OK


cdef int packer_end_copy(Packer *packer, const Key *first) noexcept nogil:
    cdef const Shape *shape = packer.shape
    cdef uint8_t *page = page_writer_page(packer.writer)
    cdef uint32_t count = header_of(page).count
    cdef int status
    if packer.rank + count > UINT32_MAX:
        return STATUS_LIMIT
    status = begin_staged(packer, first)
    if status != STATUS_OK:
        return status
    if list_page(packer, first.head):
        return STATUS_NO_MEMORY
    packer.rank += count
    packer.last_head = heads_of(page)[count - 1]
    if shape.key_width == 0:
        packer.last_key_bytes = <uint32_t>page_key_bytes(shape, page, count - 1)
        status = page_copy_key(shape, page, count - 1, NULL, packer.last_key)
        if status != STATUS_OK:
            return status
    return page_writer_seal(packer.writer)


# --- fixed keys and rows, in place ---------------------------------------------------------------


cdef void begin_in_place(Packer *packer, bint kinds) noexcept nogil:
    packer.page = page_writer_page(packer.writer)
    packer.capacity = page_fixed_capacity(packer.shape, kinds)
    packer.kinds = kinds
    packer.page_rank = packer.rank
    page_format(packer.shape, packer.page, packer.type, packer.capacity, NULL, 0, kinds)


cdef void lay_out_again(Packer *packer, uint32_t capacity, bint kinds) noexcept nogil:
    """Gives the page in the making another capacity, or a kinds column."""
    cdef uint8_t copy[4096]
    cdef uint32_t copied
    memcpy(copy, packer.page, PAGE_BYTES)
    page_format(packer.shape, packer.page, packer.type, capacity, NULL, 0, kinds)
    page_append_slots(packer.shape, packer.page, copy, 0, packer.count, &copied)
    packer.capacity = capacity
    packer.kinds = kinds


cdef int seal_in_place(Packer *packer) noexcept nogil:
    if packer.count < packer.capacity:
        lay_out_again(packer, packer.count, packer.kinds)
    header_of(packer.page).level = packer.level
    if list_page(packer, heads_of(packer.page)[0]):
        return STATUS_NO_MEMORY
    packer.last_head = heads_of(packer.page)[packer.count - 1]
    packer.count = 0
    packer.page = NULL
    return page_writer_seal(packer.writer)


cdef int add_in_place(Packer *packer, const Key *key, const Value *value) noexcept nogil:
    cdef int status
    if packer.count and value.kind and not packer.kinds:
        if packer.count < page_fixed_capacity(packer.shape, True):
            lay_out_again(packer, page_fixed_capacity(packer.shape, True), True)
        else:
            status = seal_in_place(packer)
            if status != STATUS_OK:
                return status
    if packer.count == 0:
        begin_in_place(packer, value.kind != 0)
    status = page_insert(packer.shape, packer.page, packer.count, key, value.kind, NULL, value.data,
                         value.bytes)
    if status != STATUS_OK:
        return status
    packer.count += 1
    return seal_in_place(packer) if packer.count == packer.capacity else STATUS_OK


cdef int packer_room(Packer *packer, uint64_t wanted, uint32_t *slot,
                     uint32_t *count) noexcept nogil:
    if packer.rank + wanted > UINT32_MAX:
        return STATUS_LIMIT
    if packer.count == 0:
        begin_in_place(packer, False)
    slot[0] = packer.count
    count[0] = <uint32_t>min(wanted, <uint64_t>(packer.capacity - packer.count))
    return STATUS_OK


cdef int packer_filled(Packer *packer, uint32_t count) noexcept nogil:
    packer.count += count
    packer.rank += count
    header_of(packer.page).count = <uint16_t>packer.count
    if packer.count == packer.capacity:
        return seal_in_place(packer)
    return STATUS_OK


# --- every other shape, staged -------------------------------------------------------------------


cdef inline uint32_t remainder_bytes(uint32_t key_bytes) noexcept nogil:
    return key_bytes - 8 if key_bytes > 8 else 0


cdef uint32_t heap_with_prefix(const Packer *packer, uint32_t prefix_bytes) noexcept nogil:
    """Heap bytes of all staged entries when this prefix is stripped."""
    cdef uint32_t total = 0
    cdef uint32_t i
    cdef StagedEntry *entry
    for i in range(packer.count):
        entry = packer.staged + i
        total += remainder_bytes(entry.key_bytes - prefix_bytes)
        if packer.shape.value_width == 0:
            total += entry.value_bytes
        if entry.kind & KIND_KEY_OVERFLOW:
            total += sizeof(OverflowReference)
    return total


cdef int begin_staged(Packer *packer, const Key *key) noexcept nogil:
    """Starts a page whose first entry will be `key`: its separator is known now."""
    cdef PageList *pages = &packer.pages
    cdef uint64_t start = 0
    cdef uint32_t bytes = key.bytes
    packer.page_rank = packer.rank
    packer.arena_used = 0
    packer.heap_bytes = 0
    packer.kinds = False
    if packer.shape.key_width:
        return STATUS_OK
    if pages.count == 0:
        bytes = 0                       # routes every smaller key here as well
    elif packer.type == PAGE_DATA:
        # The shortest string above the page before and at or below this one.
        bytes = common_bytes(packer.last_key, key.data, min(packer.last_key_bytes, key.bytes)) + 1
        if bytes > key.bytes:
            return STATUS_LIMIT         # not above the last key: the caller broke the order
    if pages.count:
        start = pages.ends[pages.count - 1]
    if page_list_key(pages, start, key.data, bytes):
        return STATUS_NO_MEMORY
    packer.separator_start = start + bytes
    return STATUS_OK


cdef int add_staged(Packer *packer, const Key *key, const Value *value,
                    const ValueOrigin *origin) noexcept nogil:
    cdef const Shape *shape = packer.shape
    cdef uint32_t key_bytes = 0
    cdef uint32_t value_bytes = 0
    cdef uint32_t prefix_bytes = 0
    cdef uint32_t heap_bytes
    cdef uint8_t kind = value.kind
    cdef bint kinds
    cdef StagedEntry *entry
    cdef OverflowReference reference
    cdef int status
    if shape.key_width == 0:
        key_bytes = min(key.bytes, <uint32_t>KEY_INLINE_BYTES)
        if key.bytes > KEY_INLINE_BYTES:
            kind |= KIND_KEY_OVERFLOW
    if shape.value_width:
        value_bytes = shape.value_width
    elif value.bytes > VALUE_INLINE_BYTES:
        kind |= KIND_VALUE_OVERFLOW
        value_bytes = sizeof(OverflowReference)
    else:
        value_bytes = <uint32_t>value.bytes
    while True:
        heap_bytes = packer.heap_bytes
        kinds = kind != 0
        prefix_bytes = key_bytes
        if packer.count:
            kinds = kinds or packer.kinds
            prefix_bytes = 0
            if packer.prefix_bytes:
                prefix_bytes = common_bytes(packer.arena + packer.staged[0].key_start, key.data,
                                            min(packer.prefix_bytes, key_bytes))
            if prefix_bytes != packer.prefix_bytes:
                heap_bytes = heap_with_prefix(packer, prefix_bytes)
        else:
            status = begin_staged(packer, key)
            if status != STATUS_OK:
                return status
            heap_bytes = 0
        heap_bytes += remainder_bytes(key_bytes - prefix_bytes)
        if kind & KIND_KEY_OVERFLOW:
            heap_bytes += sizeof(OverflowReference)
        if shape.value_width == 0:
            heap_bytes += value_bytes
        if packer.count == 0 or (
                packer.count < packer.staged_max
                and page_columns_bytes(shape, packer.count + 1, prefix_bytes, kinds) + heap_bytes
                <= PAGE_BYTES):
            break
        status = seal_staged(packer)
        if status != STATUS_OK:
            return status
    entry = packer.staged + packer.count
    entry.kind = kind
    entry.head = key.head
    entry.key_start = packer.arena_used
    entry.key_bytes = key_bytes
    entry.value_bytes = value_bytes
    if key_bytes:
        memcpy(packer.arena + packer.arena_used, key.data, key_bytes)
    packer.arena_used += key_bytes
    if kind & KIND_KEY_OVERFLOW:
        status = spill(packer, key.data, NULL, key.bytes, &entry.key_reference)
        if status != STATUS_OK:
            return status
    if kind & KIND_VALUE_OVERFLOW:
        status = spill(packer, value.data, origin, value.bytes, &reference)
        if status != STATUS_OK:
            return status
        memcpy(packer.arena + packer.arena_used, &reference, value_bytes)
    elif (kind & KIND_MASK) == KIND_VALUE or shape.value_width == 0:
        if value_bytes:
            memcpy(packer.arena + packer.arena_used, value.data, value_bytes)
    packer.arena_used += value_bytes
    packer.prefix_bytes = prefix_bytes
    packer.heap_bytes = heap_bytes
    packer.kinds = kinds
    packer.count += 1
    packer.last_head = key.head
    if shape.key_width == 0:
        packer.last_key_bytes = key.bytes
        if key.bytes:
            memcpy(packer.last_key, key.data, key.bytes)
    return STATUS_OK


cdef int seal_overflow(Packer *packer) noexcept nogil:
    if packer.overflow == NULL:
        return STATUS_OK
    packer.overflow = NULL
    packer.overflow_pages += 1
    return page_writer_seal(packer.writer)


cdef int spill(Packer *packer, const uint8_t *data, const ValueOrigin *origin, uint64_t bytes,
               OverflowReference *reference) noexcept nogil:
    """Appends an object to the overflow run in the making."""
    cdef uint64_t done = 0
    cdef uint64_t step
    cdef uint8_t *place
    cdef int status
    while done < bytes or done == 0:
        if packer.overflow != NULL and (
                header_of(packer.overflow).run_bytes == OVERFLOW_PAYLOAD_BYTES):
            status = seal_overflow(packer)
            if status != STATUS_OK:
                return status
        if packer.overflow == NULL:
            packer.overflow = page_writer_page(packer.writer)
            memset(packer.overflow, 0, PAGE_BYTES)
            header_of(packer.overflow).type = PAGE_OVERFLOW
        place = packer.overflow + PAGE_HEADER_BYTES + header_of(packer.overflow).run_bytes
        if done == 0:
            reference.bytes = bytes
            reference.location = (<uint64_t>packer.writer.page_count * PAGE_BYTES
                                  + <uint64_t>(place - packer.overflow))
        step = min(bytes - done,
                   <uint64_t>(OVERFLOW_PAYLOAD_BYTES - header_of(packer.overflow).run_bytes))
        if origin != NULL:
            status = page_copy_value(origin.page, origin.slot, origin.source, done, place, step)
            if status != STATUS_OK:
                return status
        else:
            memcpy(place, data + done, step)
        header_of(packer.overflow).run_bytes += <uint32_t>step
        done += step
    return STATUS_OK


cdef int seal_staged(Packer *packer) noexcept nogil:
    cdef const Shape *shape = packer.shape
    cdef StagedEntry *entry
    cdef const uint8_t *value
    cdef uint8_t *page
    cdef Key key
    cdef uint32_t i
    cdef int status = seal_overflow(packer)
    if status != STATUS_OK:
        return status
    if list_page(packer, packer.staged[0].head):
        return STATUS_NO_MEMORY
    page = page_writer_page(packer.writer)
    page_format(shape, page, packer.type, packer.count, packer.arena + packer.staged[0].key_start,
                packer.prefix_bytes, packer.kinds)
    header_of(page).level = packer.level
    for i in range(packer.count):
        entry = packer.staged + i
        key.head = entry.head
        key.data = packer.arena + entry.key_start
        key.bytes = entry.key_bytes
        if shape.key_width == 0:
            key.head = load_head(key.data, key.bytes)
        value = packer.arena + entry.key_start + entry.key_bytes
        status = page_insert(shape, page, i, &key, entry.kind, &entry.key_reference, value,
                             entry.value_bytes)
        if status != STATUS_OK:
            return STATUS_LIMIT if status == STATUS_FULL else status
    packer.count = 0
    return page_writer_seal(packer.writer)
