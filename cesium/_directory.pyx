"""Directory nodes of a memtable: see _directory.pxd for the contract.

Invariants of a node:
  51. count <= capacity, and a leaf node is never empty once it is in place
  52. heads ascend; strictly in the fixed form
  53. every first key starts with the prefix; its head is the 8 bytes behind it, zeros after the end
  54. in the fixed form every head is the first head of its child
"""

from libc.string cimport memcmp, memcpy, memmove

from cesium._arena cimport arena_block
from cesium._layout cimport PAGE_HEADER_BYTES, STATUS_OK, PageHeader
from cesium._native cimport heads_lower_bound, load_head, store_head
from cesium._page cimport (
    entries_of, header_of, heads_of, page_compare, page_key_remainder,
)

cdef enum:
    START_BYTES = DIRECTORY_PREFIX_BYTES + 8    # of a first key: the longest prefix and its head


cdef int read_chunk(void *context, uint64_t location, uint64_t skip, uint8_t *destination,
                    uint64_t bytes) noexcept nogil:
    memcpy(destination, <const uint8_t *>location + skip, bytes)
    return STATUS_OK


chunk_source.context = NULL
chunk_source.seek = NULL
chunk_source.step = NULL
chunk_source.edge = NULL
chunk_source.read_overflow = read_chunk
chunk_source.whole = NULL
chunk_source.blob_of = NULL


cdef Directory *directory_new(Arena *arena, uint32_t capacity, bint root) noexcept nogil:
    cdef Directory *directory = <Directory *>arena_block(
        arena, sizeof(Directory) + capacity * (sizeof(uint64_t) + sizeof(void *)))
    if directory == NULL:
        return NULL
    directory.count = 0
    directory.capacity = capacity
    directory.prefix_bytes = 0
    directory.root = root
    directory.heads = <uint64_t *>(directory + 1)
    directory.children = <void **>(directory.heads + capacity)
    return directory


cdef Directory *directory_copy(Arena *arena, const Directory *directory,
                               uint32_t capacity) noexcept nogil:
    cdef Directory *copy = directory_new(arena, capacity, directory.root)
    if copy == NULL:
        return NULL
    copy.count = directory.count
    copy.prefix_bytes = directory.prefix_bytes
    memcpy(copy.prefix, directory.prefix, directory.prefix_bytes)
    memcpy(copy.heads, directory.heads, directory.count * sizeof(uint64_t))
    memcpy(copy.children, directory.children, directory.count * sizeof(void *))
    return copy


cdef const uint8_t *directory_first_page(const Directory *directory,
                                         uint32_t index) noexcept nogil:
    cdef const Directory *node
    if not directory.root:
        return <const uint8_t *>directory.children[index]
    node = <const Directory *>directory.children[index]
    return <const uint8_t *>node.children[0]


cdef uint32_t shared_bytes(const uint8_t *a, uint32_t a_bytes, const uint8_t *b, uint32_t b_bytes,
                           uint32_t limit) noexcept nogil:
    cdef uint32_t shared = 0
    limit = min(limit, a_bytes, b_bytes)
    while shared < limit and a[shared] == b[shared]:
        shared += 1
    return shared


cdef uint32_t copy_key_start(const uint8_t *page, uint32_t slot, uint8_t *destination,
                             uint32_t limit) noexcept nogil:
    cdef PageHeader *header = header_of(page)
    cdef uint32_t key_bytes = entries_of(page)[slot].key_bytes
    cdef uint32_t remainder
    cdef uint32_t size = min(<uint32_t>header.prefix_bytes, limit)
    cdef uint32_t part
    cdef uint8_t head[8]
    cdef const uint8_t *rest
    memcpy(destination, page + PAGE_HEADER_BYTES, size)
    part = min(key_bytes, 8, limit - size)
    store_head(head, heads_of(page)[slot])
    memcpy(destination + size, head, part)
    size += part
    rest = page_key_remainder(page, slot, &remainder)
    part = min(remainder, limit - size)
    memcpy(destination + size, rest, part)
    return size + part


cdef uint64_t head_of_start(const Directory *directory, const uint8_t *start,
                            uint32_t bytes) noexcept nogil:
    return load_head(start + directory.prefix_bytes, bytes - directory.prefix_bytes)


cdef void compute_head(const Shape *shape, Directory *directory, uint32_t index) noexcept nogil:
    """Sets one head; in the variable form the first key must start with the prefix."""
    cdef const uint8_t *page = directory_first_page(directory, index)
    cdef uint8_t start[START_BYTES]
    cdef uint32_t bytes
    if shape.key_width:
        directory.heads[index] = heads_of(page)[0]
        return
    bytes = copy_key_start(page, 0, start, START_BYTES)
    directory.heads[index] = head_of_start(directory, start, bytes)


cdef void compute_heads(const Shape *shape, Directory *directory) noexcept nogil:
    cdef uint32_t index
    for index in range(directory.count):
        compute_head(shape, directory, index)


cdef void admit(const Shape *shape, Directory *directory, uint32_t index) noexcept nogil:
    """Makes the prefix one that the first key of a child at an edge shares, and sets its head."""
    cdef uint8_t start[START_BYTES]
    cdef uint32_t bytes
    cdef uint32_t shared
    if shape.key_width:
        compute_head(shape, directory, index)
        return
    bytes = copy_key_start(directory_first_page(directory, index), 0, start, START_BYTES)
    if directory.count == 1:
        directory.prefix_bytes = min(bytes, <uint32_t>DIRECTORY_PREFIX_BYTES)
        memcpy(directory.prefix, start, directory.prefix_bytes)
    shared = shared_bytes(start, bytes, directory.prefix, directory.prefix_bytes,
                          DIRECTORY_PREFIX_BYTES)
    if shared == directory.prefix_bytes:
        directory.heads[index] = head_of_start(directory, start, bytes)
        return
    directory.prefix_bytes = shared
    compute_heads(shape, directory)


cdef void tighten(const Shape *shape, Directory *directory) noexcept nogil:
    """Chooses the longest prefix: what the first and the last of the sorted first keys share."""
    cdef uint8_t last[START_BYTES]
    cdef uint8_t start[START_BYTES]
    cdef uint32_t last_bytes
    cdef uint32_t bytes
    cdef uint32_t shared
    if shape.key_width or directory.count == 0:
        return
    bytes = copy_key_start(directory_first_page(directory, 0), 0, start, START_BYTES)
    last_bytes = copy_key_start(
        directory_first_page(directory, directory.count - 1), 0, last, START_BYTES)
    shared = shared_bytes(start, bytes, last, last_bytes, DIRECTORY_PREFIX_BYTES)
    memcpy(directory.prefix, start, shared)
    directory.prefix_bytes = shared
    compute_heads(shape, directory)


cdef uint32_t directory_route_bytes(const Shape *shape, const Directory *directory,
                                    const Key *key) noexcept nogil:
    cdef uint32_t prefix_bytes = directory.prefix_bytes
    cdef uint32_t low
    cdef uint32_t high
    cdef uint32_t middle
    cdef uint64_t head = key.head
    cdef int order
    if directory.count <= 1:
        return 0
    if prefix_bytes:
        # An empty key has no data, and memcmp takes no NULL even for no bytes.
        order = 0 if key.bytes == 0 else memcmp(
            directory.prefix, key.data, min(prefix_bytes, key.bytes))
        if order > 0 or (order == 0 and key.bytes < prefix_bytes):
            return 0
        if order < 0:
            return directory.count - 1
        head = load_head(key.data + prefix_bytes, key.bytes - prefix_bytes)
    low = heads_lower_bound(directory.heads, directory.count, head)
    high = low
    if high < directory.count and directory.heads[high] == head:
        high = heads_upper_bound(directory.heads, directory.count, head)
    while low < high:
        middle = (low + high) >> 1
        page_compare(shape, directory_first_page(directory, middle), 0, key, &chunk_source, &order)
        if order <= 0:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low else 0


cdef void directory_insert(const Shape *shape, Directory *directory, uint32_t index,
                           void *child) noexcept nogil:
    cdef uint32_t above = directory.count - index
    memmove(directory.heads + index + 1, directory.heads + index, above * sizeof(uint64_t))
    memmove(directory.children + index + 1, directory.children + index, above * sizeof(void *))
    directory.children[index] = child
    directory.count += 1
    admit(shape, directory, index)


cdef void directory_refresh(const Shape *shape, Directory *directory,
                            uint32_t index) noexcept nogil:
    admit(shape, directory, index)


cdef void directory_remove(Directory *directory, uint32_t first, uint32_t last) noexcept nogil:
    cdef uint32_t above = directory.count - last
    memmove(directory.heads + first, directory.heads + last, above * sizeof(uint64_t))
    memmove(directory.children + first, directory.children + last, above * sizeof(void *))
    directory.count -= last - first


cdef void directory_append(const Shape *shape, Directory *directory, const Directory *source,
                           uint32_t first, uint32_t last) noexcept nogil:
    cdef uint32_t count = last - first
    memcpy(directory.children + directory.count, source.children + first, count * sizeof(void *))
    memcpy(directory.heads + directory.count, source.heads + first, count * sizeof(uint64_t))
    directory.count += count
    tighten(shape, directory)


cdef int directory_check(const Shape *shape, const Directory *directory) noexcept nogil:
    cdef uint8_t start[START_BYTES]
    cdef const uint8_t *page
    cdef uint32_t bytes
    cdef uint32_t index
    if directory.count > directory.capacity or (directory.count == 0 and not directory.root):
        return 51
    for index in range(directory.count):
        if index and (directory.heads[index - 1] > directory.heads[index]
                      or (shape.key_width
                          and directory.heads[index - 1] == directory.heads[index])):
            return 52
        page = directory_first_page(directory, index)
        if shape.key_width:
            if directory.heads[index] != heads_of(page)[0]:
                return 54
            continue
        bytes = copy_key_start(page, 0, start, START_BYTES)
        if (bytes < directory.prefix_bytes
                or memcmp(start, directory.prefix, directory.prefix_bytes)
                or directory.heads[index] != head_of_start(directory, start, bytes)):
            return 53
    return 0
