"""The fence tree of one mapped segment: see _fences.pxd for the contract."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cesium._layout cimport (
    PAGE_BYTES, PAGE_FENCE, PAGE_HEADER_BYTES, PAGE_OVERFLOW, STATUS_CORRUPT, STATUS_NO_MEMORY,
    STATUS_OK,
)
from cesium._native cimport (
    HEADS_GROUP, HeadsSearch, heads_guess, heads_lower_bound, heads_lower_bound_group,
    heads_lower_bound_near, heads_upper_bound,
)
from cesium._page cimport header_of, heads_of, page_find, page_key_bytes, run_of

cdef enum:
    TOPS_IN_CACHE = 4096            # leaf heads: 32 KiB


cdef void fence_shape(const Shape *shape, Shape *fences) noexcept nogil:
    memset(fences, 0, sizeof(Shape))
    fences.key_width = shape.key_width
    fences.value_width = 8
    fences.field_count = 2
    fences.field_widths[0] = 4
    fences.field_widths[1] = 4
    fences.field_starts[1] = 4
    if shape.slots_max:             # two at least, or the tree would never end
        fences.slots_max = max(shape.slots_max, <uint32_t>2)


# --- checking ------------------------------------------------------------------------------------


cdef struct Level:                  # the pages of one level: page numbers in fence order
    uint32_t first                  # where its pages begin in the list of all fence pages
    uint32_t count


cdef inline uint32_t u32_at(const uint8_t *run, uint32_t slot) noexcept nogil:
    """One of a run of integers, which begins at any byte where keys are of variable length."""
    cdef uint32_t number
    memcpy(&number, run + <size_t>slot * 4, 4)
    return number


cdef inline uint32_t child_of(const Fences *fences, const uint8_t *page,
                              uint32_t slot) noexcept nogil:
    return u32_at(run_of(&fences.shape, page, 0), slot)


cdef inline uint32_t rank_of(const Fences *fences, const uint8_t *page,
                             uint32_t slot) noexcept nogil:
    return u32_at(run_of(&fences.shape, page, 1), slot)


cdef int check_leaf(Fences *fences, const SegmentFooter *footer, const uint8_t *page,
                    uint32_t *ordinal, uint64_t *next_child, uint64_t *next_rank) noexcept nogil:
    """Children of a leaf: data pages, ascending, none beyond the fences; ranks ascending."""
    cdef uint32_t slot
    cdef uint32_t child
    cdef uint32_t rank
    for slot in range(header_of(page).count):
        child = child_of(fences, page, slot)
        rank = rank_of(fences, page, slot)
        if ordinal[0] == footer.data_pages or child < next_child[0] or child >= footer.fence_first:
            return STATUS_CORRUPT
        if rank < next_rank[0] or rank >= footer.entries or (ordinal[0] == 0 and rank != 0):
            return STATUS_CORRUPT
        if fences.page_numbers != NULL:
            fences.page_numbers[ordinal[0]] = child
        elif child != ordinal[0]:
            return STATUS_CORRUPT
        next_child[0] = <uint64_t>child + 1
        next_rank[0] = <uint64_t>rank + 1
        ordinal[0] += 1
    return STATUS_OK


cdef int check_inner(Fences *fences, const uint8_t *page, const uint32_t *numbers, uint32_t count,
                     uint32_t *child) noexcept nogil:
    """Children of an inner page: the pages of the level below, each one once, in order."""
    cdef const uint8_t *below
    cdef uint32_t slot
    for slot in range(header_of(page).count):
        if child[0] == count or child_of(fences, page, slot) != numbers[child[0]]:
            return STATUS_CORRUPT
        below = fences.map + <uint64_t>numbers[child[0]] * PAGE_BYTES
        if rank_of(fences, page, slot) != rank_of(fences, below, 0):
            return STATUS_CORRUPT
        if fences.shape.key_width and heads_of(page)[slot] != heads_of(below)[0]:
            return STATUS_CORRUPT
        child[0] += 1
    return STATUS_OK


cdef int check_keys(const Fences *fences, const uint8_t *page, bint first,
                    uint64_t *last_head) noexcept nogil:
    """The first fence of a level takes every smaller key; heads ascend (others: see verify)."""
    cdef uint32_t slot
    cdef uint64_t *heads = heads_of(page)
    if fences.shape.key_width == 0:
        if first and page_key_bytes(&fences.shape, page, 0) != 0:
            return STATUS_CORRUPT
        return STATUS_OK
    for slot in range(header_of(page).count):
        if first and slot == 0:
            if heads[0]:
                return STATUS_CORRUPT
        elif heads[slot] <= last_head[0]:
            return STATUS_CORRUPT
        last_head[0] = heads[slot]
    return STATUS_OK


cdef int check_pages(Fences *fences, const SegmentFooter *footer, uint32_t *numbers,
                     CheckedPage checked, uint32_t *failed) noexcept nogil:
    """Walks the fence pages as they lie in the file; `numbers` has room for all of them."""
    cdef Level level
    cdef Level below
    cdef const uint8_t *page
    cdef uint32_t number
    cdef uint32_t depth = 0
    cdef uint32_t found = 0             # fence pages so far
    cdef uint32_t child = 0             # of the level below, or data ordinals at the leaves
    cdef uint64_t next_child = 0
    cdef uint64_t next_rank = 0
    cdef uint64_t last_head = 0
    cdef int status
    level.first = 0
    level.count = 0
    below.first = 0
    below.count = footer.data_pages
    for number in range(footer.fence_first, footer.fence_first + footer.fence_pages):
        failed[0] = number
        if header_of(fences.map + <uint64_t>number * PAGE_BYTES).type == PAGE_OVERFLOW:
            status = checked(fences.source.context, number, PAGE_OVERFLOW, &page)
            if status != STATUS_OK:
                return status
            continue
        status = checked(fences.source.context, number, PAGE_FENCE, &page)
        if status != STATUS_OK:
            return status
        if header_of(page).level == depth + 1 and level.count:
            if child != below.count:
                return STATUS_CORRUPT
            if depth == 0:
                fences.leaf_count = level.count
            below = level
            level.first = found
            level.count = 0
            child = 0
            depth += 1
        elif header_of(page).level != depth:
            return STATUS_CORRUPT
        status = check_keys(fences, page, level.count == 0, &last_head)
        if status == STATUS_OK and depth == 0:
            fences.leaf_ordinals[found] = child
            if fences.leaf_heads != NULL:
                fences.leaf_heads[found] = heads_of(page)[0]
            status = check_leaf(fences, footer, page, &child, &next_child, &next_rank)
        elif status == STATUS_OK:
            status = check_inner(fences, page, numbers + below.first, below.count, &child)
        if status != STATUS_OK:
            return status
        numbers[found] = number
        found += 1
        level.count += 1
    if (child != below.count or level.count != 1 or depth + 1 != footer.fence_levels
            or numbers[found - 1] != footer.fence_root):
        return STATUS_CORRUPT
    if depth == 0:
        fences.leaf_count = 1
    fences.leaf_ordinals[fences.leaf_count] = footer.data_pages
    return STATUS_OK


cdef int fences_load(Fences *fences, const Shape *shape, const SegmentFooter *footer,
                     const uint8_t *map, const PageSource *source, CheckedPage checked,
                     uint32_t *failed) noexcept nogil:
    cdef uint64_t pages = footer.fence_pages
    memset(fences, 0, sizeof(Fences))
    fence_shape(shape, &fences.shape)
    fences.map = map
    fences.source = source[0]
    fences.root = footer.fence_root
    fences.levels = footer.fence_levels
    failed[0] = footer.page_count - 1
    if footer.data_pages == 0:
        return STATUS_CORRUPT if pages or footer.fence_levels else STATUS_OK
    if pages == 0:
        return STATUS_CORRUPT
    # The first `leaf_count` of these are the leaves.
    fences.leaf_numbers = <uint32_t *>malloc(pages * 4)
    fences.leaf_ordinals = <uint32_t *>malloc((pages + 1) * 4)
    if shape.key_width:
        fences.leaf_heads = <uint64_t *>malloc(pages * 8)
    if footer.overflow_pages:
        fences.page_numbers = <uint32_t *>malloc(<uint64_t>footer.data_pages * 4)
    if (fences.leaf_numbers == NULL or fences.leaf_ordinals == NULL
            or (shape.key_width and fences.leaf_heads == NULL)
            or (footer.overflow_pages and fences.page_numbers == NULL)):
        return STATUS_NO_MEMORY
    return check_pages(fences, footer, fences.leaf_numbers, checked, failed)


cdef void fences_free(Fences *fences) noexcept nogil:
    free(fences.leaf_heads)
    free(fences.leaf_numbers)
    free(fences.leaf_ordinals)
    free(fences.page_numbers)
    memset(fences, 0, sizeof(Fences))


# --- routing -------------------------------------------------------------------------------------


cdef inline const uint64_t *leaf_run(const Fences *fences, uint32_t leaf) noexcept nogil:
    # Fixed keys have no prefix, so the heads of every leaf lie right behind its header.
    return <const uint64_t *>(
        fences.map + <uint64_t>fences.leaf_numbers[leaf] * PAGE_BYTES + PAGE_HEADER_BYTES)


cdef inline uint32_t leaf_slots(const Fences *fences, uint32_t leaf) noexcept nogil:
    return fences.leaf_ordinals[leaf + 1] - fences.leaf_ordinals[leaf]


cdef uint32_t last_at_most(const uint32_t *ascending, uint32_t count,
                           uint32_t value) noexcept nogil:
    """Where the last number <= value stands; 0 when there is none."""
    cdef uint32_t low = 0
    cdef uint32_t high = count
    cdef uint32_t middle
    while low + 1 < high:
        middle = (low + high) >> 1
        if ascending[middle] <= value:
            low = middle
        else:
            high = middle
    return low


cdef int route_in_tree(const Fences *fences, const Key *key, uint32_t *ordinal) noexcept nogil:
    cdef uint32_t number = fences.root
    cdef uint32_t level = fences.levels
    cdef uint32_t slot
    cdef bint exact
    cdef const uint8_t *page
    cdef int status
    while True:
        page = fences.map + <uint64_t>number * PAGE_BYTES
        status = page_find(&fences.shape, page, key, &fences.source, &slot, &exact)
        if status != STATUS_OK:
            return status
        if not exact:
            if slot == 0:
                return STATUS_CORRUPT   # the level above routed to a page above the key
            slot -= 1
        level -= 1
        if level == 0:
            break
        number = child_of(fences, page, slot)
        if number < fences.leaf_numbers[0]:
            return STATUS_CORRUPT       # the page was lost meanwhile: what it names is no fence
    ordinal[0] = fences.leaf_ordinals[
        last_at_most(fences.leaf_numbers, fences.leaf_count, number)] + slot
    return STATUS_OK


cdef int fences_route(const Fences *fences, const Key *key, uint32_t *ordinal) noexcept nogil:
    cdef uint32_t leaf
    if fences.leaf_heads == NULL:
        return route_in_tree(fences, key, ordinal)
    # The first head of the first leaf is 0: there is always one at or below the key.
    leaf = heads_upper_bound(fences.leaf_heads, fences.leaf_count, key.head) - 1
    ordinal[0] = fences.leaf_ordinals[leaf] - 1 + heads_upper_bound(
        leaf_run(fences, leaf), leaf_slots(fences, leaf), key.head)
    return STATUS_OK


cdef inline uint32_t guess_between(const uint64_t *run, uint32_t count, uint32_t near,
                                   uint64_t head, uint32_t slots) noexcept nogil:
    """About which of `slots` slots a head has in the page of a leaf's fence."""
    if near + 1 < count:
        return heads_guess(head, run[near], run[near + 1], slots)
    return slots // 2


cdef void fences_locate(const Fences *fences, uint64_t head, uint32_t slots, uint32_t *ordinal,
                        uint32_t *guess) noexcept nogil:
    cdef uint32_t leaf = heads_upper_bound(fences.leaf_heads, fences.leaf_count, head) - 1
    cdef const uint64_t *run = leaf_run(fences, leaf)
    cdef uint32_t count = leaf_slots(fences, leaf)
    cdef uint32_t near = 0
    if leaf + 1 < fences.leaf_count:
        near = heads_guess(head, fences.leaf_heads[leaf], fences.leaf_heads[leaf + 1], count)
    # The fence at or below: the first that is not below, or the one before it.
    near = heads_lower_bound_near(run, count, head, near)
    # (0 goes no lower: only in a page lost meanwhile is there no such fence.)
    if near and (near == count or run[near] != head):
        near -= 1
    ordinal[0] = fences.leaf_ordinals[leaf] + near
    guess[0] = guess_between(run, count, near, head, slots)


cdef void fences_route_heads(const Fences *fences, const uint64_t *heads, uint32_t count,
                             uint32_t slots, uint32_t *ordinals,
                             uint32_t *guesses) noexcept nogil:
    cdef HeadsSearch jobs[HEADS_GROUP]
    cdef uint32_t leaves[HEADS_GROUP]
    cdef uint32_t group
    cdef uint32_t position
    cdef uint32_t i
    while count:
        group = min(count, <uint32_t>HEADS_GROUP)
        for i in range(group):
            jobs[i].heads = fences.leaf_heads
            jobs[i].count = fences.leaf_count
            jobs[i].key = heads[i]
        if fences.leaf_count > TOPS_IN_CACHE:
            heads_lower_bound_group(jobs, group)
        else:
            for i in range(group):
                jobs[i].position = heads_lower_bound(fences.leaf_heads, fences.leaf_count, heads[i])
        for i in range(group):
            position = jobs[i].position
            if position == fences.leaf_count or fences.leaf_heads[position] != heads[i]:
                position -= 1
            leaves[i] = position
            jobs[i].heads = leaf_run(fences, position)
            jobs[i].count = leaf_slots(fences, position)
        heads_lower_bound_group(jobs, group)
        for i in range(group):
            position = jobs[i].position
            if position and (position == jobs[i].count or jobs[i].heads[position] != heads[i]):
                position -= 1
            ordinals[i] = fences.leaf_ordinals[leaves[i]] + position
            if guesses != NULL:
                guesses[i] = guess_between(jobs[i].heads, jobs[i].count, position, heads[i], slots)
        if guesses != NULL:
            guesses += group
        heads += group
        ordinals += group
        count -= group


cdef uint32_t fences_rank(const Fences *fences, uint32_t ordinal) noexcept nogil:
    cdef uint32_t leaf = last_at_most(fences.leaf_ordinals, fences.leaf_count, ordinal)
    return rank_of(fences, fences.map + <uint64_t>fences.leaf_numbers[leaf] * PAGE_BYTES,
                   ordinal - fences.leaf_ordinals[leaf])
