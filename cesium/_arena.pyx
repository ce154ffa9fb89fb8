"""Pages, blocks and pins of one memtable: see _arena.pxd for the contract.

Invariants (under the mutex):
  1. pins are linked newest to oldest by strictly falling generation; `newest_pin`: the first's
  2. everything on a pin's lists was made at or before its generation, and no newer pin sees it
  3. a page is either in use, on one pin's list, on the free list, or fresh
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from cesium._layout cimport PAGE_BYTES

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "_fork.h":
    uint64_t process_forks

cdef extern from *:
    """
    #include <assert.h>
    #include <stdlib.h>
    #include <sys/mman.h>

    /* A sanitizer sees no free() of a page that goes back to the pool, so it is told. */
    #if defined(__SANITIZE_ADDRESS__)
    #include <sanitizer/asan_interface.h>
    #define HIDE_PAGE(page) __asan_poison_memory_region((page), 4096)
    #define SHOW_PAGE(page) __asan_unpoison_memory_region((page), 4096)
    #else
    #define HIDE_PAGE(page) ((void)0)
    #define SHOW_PAGE(page) ((void)0)
    #endif

    static void *aligned_memory(size_t alignment, size_t bytes) {
        void *memory = NULL;
        return posix_memalign(&memory, alignment, bytes) ? NULL : memory;
    }

    /* Random writes to millions of small pages pay in TLB misses; huge pages take most away. */
    static void advise_huge(void *memory, size_t bytes) {
    #ifdef MADV_HUGEPAGE
        (void)madvise(memory, bytes, MADV_HUGEPAGE);
    #endif
    }
    """
    void HIDE_PAGE(void *page) noexcept nogil
    void SHOW_PAGE(void *page) noexcept nogil
    void *aligned_memory(size_t alignment, size_t bytes) noexcept nogil
    void advise_huge(void *memory, size_t bytes) noexcept nogil
    void c_assert "assert"(bint truth) noexcept nogil
    uint64_t __atomic_add_fetch(uint64_t *word, uint64_t by, int order) noexcept nogil
    uint64_t __atomic_sub_fetch(uint64_t *word, uint64_t by, int order) noexcept nogil
    void __atomic_store_n(uint64_t *word, uint64_t value, int order) noexcept nogil
    int __ATOMIC_RELAXED
    int __ATOMIC_RELEASE

cdef enum:
    CHUNK_BYTES_MIN = 16384     # an empty table costs little; each chunk doubles
    CHUNK_BYTES_MAX = 2097152   # a huge page
    BLOCK_ALIGNMENT = 64

cdef struct Chunk:
    Chunk *next
    uint8_t *memory
    uint64_t bytes

cdef uint64_t held = 0
cdef uint64_t nobodys = 0       # the account of an arena that was given none


cdef bint arena_is_inherited(const Arena *arena) noexcept nogil:
    return arena.forks != process_forks


cdef uint64_t arena_held_bytes() noexcept nogil:
    return __atomic_load_n(&held, __ATOMIC_RELAXED)


# The free list and the retired lists run through reserved_56, the last word of the page header,
# which readers of a pinned page never look at.
cdef inline uint8_t **page_link(uint8_t *page) noexcept nogil:
    return <uint8_t **>(page + 56)


cdef inline void hold(Arena *arena, int64_t bytes) noexcept nogil:
    """Adds to what is held, in all three places."""
    __atomic_add_fetch(&held, <uint64_t>bytes, __ATOMIC_RELAXED)
    __atomic_add_fetch(&arena.held, <uint64_t>bytes, __ATOMIC_RELAXED)
    __atomic_add_fetch(arena.account, <uint64_t>bytes, __ATOMIC_RELAXED)


cdef void arena_account(Arena *arena, uint64_t *account, uint64_t chunk_bytes) noexcept nogil:
    arena.chunk_bytes_most = chunk_bytes
    __atomic_sub_fetch(arena.account, arena.held, __ATOMIC_RELAXED)
    arena.account = account
    __atomic_add_fetch(arena.account, arena.held, __ATOMIC_RELAXED)


cdef int arena_open(Arena *arena) noexcept nogil:
    arena.generation = 1
    arena.newest_pin = 0
    arena.bytes = 0
    arena.retired = 0
    arena.newest = NULL
    arena.free_pages = NULL
    arena.fresh = NULL
    arena.fresh_end = NULL
    arena.chunks = NULL
    arena.chunk_bytes_most = CHUNK_BYTES_MAX
    arena.allowance = ALLOWANCE_UNLIMITED
    arena.held = 0
    arena.account = &nobodys
    arena.forks = process_forks
    return pthread_mutex_init(&arena.mutex, NULL)


cdef void arena_close(Arena *arena) noexcept nogil:
    cdef Chunk *chunk
    cdef uint8_t *page
    c_assert(arena.newest == NULL)
    while arena.chunks != NULL:
        chunk = arena.chunks
        arena.chunks = chunk.next
        page = chunk.memory
        while page < chunk.memory + chunk.bytes:
            SHOW_PAGE(page)
            page += PAGE_BYTES
        hold(arena, -<int64_t>chunk.bytes)
        free(chunk.memory)
        free(chunk)
    pthread_mutex_destroy(&arena.mutex)


cdef int add_chunk(Arena *arena) noexcept nogil:
    cdef Chunk *chunk = <Chunk *>malloc(sizeof(Chunk))
    cdef uint64_t bytes = CHUNK_BYTES_MIN
    if chunk == NULL:
        return -1
    if arena.chunks != NULL:
        bytes = min(2 * arena.chunks.bytes, arena.chunk_bytes_most)
    chunk.memory = <uint8_t *>aligned_memory(
        CHUNK_BYTES_MAX if bytes == CHUNK_BYTES_MAX else PAGE_BYTES, bytes)
    if chunk.memory == NULL:
        free(chunk)
        return -1
    if bytes == CHUNK_BYTES_MAX:
        advise_huge(chunk.memory, bytes)
    chunk.bytes = bytes
    chunk.next = arena.chunks
    arena.chunks = chunk
    arena.fresh = chunk.memory
    arena.fresh_end = chunk.memory + bytes
    hold(arena, <int64_t>bytes)
    return 0


cdef inline bint is_allowed(Arena *arena) noexcept nogil:
    if arena.allowance == ALLOWANCE_UNLIMITED:
        return True
    if arena.allowance == 0:
        return False
    arena.allowance -= 1
    return True


cdef uint8_t *arena_page(Arena *arena) noexcept nogil:
    cdef uint8_t *page = NULL
    if not is_allowed(arena):
        return NULL
    pthread_mutex_lock(&arena.mutex)
    if arena.free_pages != NULL:
        page = arena.free_pages
        SHOW_PAGE(page)
        arena.free_pages = page_link(page)[0]
    elif arena.fresh < arena.fresh_end or add_chunk(arena) == 0:
        page = arena.fresh
        arena.fresh += PAGE_BYTES
    pthread_mutex_unlock(&arena.mutex)
    if page != NULL:
        __atomic_add_fetch(&arena.bytes, PAGE_BYTES, __ATOMIC_RELAXED)
    return page


cdef Block *arena_block(Arena *arena, uint64_t bytes) noexcept nogil:
    cdef Block *block = NULL
    if is_allowed(arena):
        block = <Block *>aligned_memory(BLOCK_ALIGNMENT, bytes)
    if block == NULL:
        return NULL
    block.next = NULL
    block.generation = arena.generation
    block.bytes = bytes
    __atomic_add_fetch(&arena.bytes, bytes, __ATOMIC_RELAXED)
    hold(arena, <int64_t>bytes)
    return block


cdef inline void free_page(Arena *arena, uint8_t *page) noexcept nogil:
    """Under the mutex."""
    page_link(page)[0] = arena.free_pages
    arena.free_pages = page
    HIDE_PAGE(page)


cdef inline void free_block(Arena *arena, Block *block) noexcept nogil:
    __atomic_sub_fetch(&arena.bytes, block.bytes, __ATOMIC_RELAXED)
    hold(arena, -<int64_t>block.bytes)
    free(block)


cdef inline void keep_page(Pin *pin, uint8_t *page) noexcept nogil:
    page_link(page)[0] = pin.pages
    if pin.pages == NULL:
        pin.last_page = page
    pin.pages = page
    pin.page_count += 1


cdef inline void keep_block(Pin *pin, Block *block) noexcept nogil:
    block.next = pin.blocks
    if pin.blocks == NULL:
        pin.last_block = block
    pin.blocks = block
    pin.block_count += 1


cdef void arena_drop_page(Arena *arena, uint8_t *page) noexcept nogil:
    pthread_mutex_lock(&arena.mutex)
    if arena.newest != NULL and arena.newest.generation >= header_of(page).generation:
        keep_page(arena.newest, page)
        __atomic_add_fetch(&arena.retired, 1, __ATOMIC_RELAXED)
    else:
        free_page(arena, page)
        __atomic_sub_fetch(&arena.bytes, PAGE_BYTES, __ATOMIC_RELAXED)
    pthread_mutex_unlock(&arena.mutex)


cdef void arena_drop_block(Arena *arena, Block *block) noexcept nogil:
    cdef bint visible
    pthread_mutex_lock(&arena.mutex)
    visible = arena.newest != NULL and arena.newest.generation >= block.generation
    if visible:
        keep_block(arena.newest, block)
        __atomic_add_fetch(&arena.retired, 1, __ATOMIC_RELAXED)
    pthread_mutex_unlock(&arena.mutex)
    if not visible:
        free_block(arena, block)


cdef void arena_pin(Arena *arena, Pin *pin) noexcept nogil:
    pin.newer = NULL
    pin.pages = NULL
    pin.last_page = NULL
    pin.page_count = 0
    pin.blocks = NULL
    pin.last_block = NULL
    pin.block_count = 0
    pin.generation = arena.generation
    arena.generation += 1
    pthread_mutex_lock(&arena.mutex)
    pin.older = arena.newest
    if pin.older != NULL:
        pin.older.newer = pin
    arena.newest = pin
    __atomic_store_n(&arena.newest_pin, pin.generation, __ATOMIC_RELEASE)
    pthread_mutex_unlock(&arena.mutex)


cdef void arena_unpin(Arena *arena, Pin *pin) noexcept nogil:
    cdef Pin *older
    cdef uint8_t *page
    cdef uint8_t *next_page
    cdef Block *block
    cdef Block *next_block
    cdef Block *freed = NULL
    cdef uint64_t freed_pages = 0
    cdef uint64_t freed_blocks = 0
    pthread_mutex_lock(&arena.mutex)
    older = pin.older
    if older != NULL:
        older.newer = pin.newer
    if pin.newer != NULL:
        pin.newer.older = older
    else:
        arena.newest = older
        __atomic_store_n(
            &arena.newest_pin, older.generation if older != NULL else 0, __ATOMIC_RELEASE)
    if older == NULL:
        freed = pin.blocks
        freed_blocks = pin.block_count
        freed_pages = pin.page_count
        page = pin.pages
        if page != NULL:
            # In one piece, so that a writer who waits for the mutex does not wait for a walk.
            page_link(pin.last_page)[0] = arena.free_pages
            arena.free_pages = page
    else:
        page = pin.pages
        while page != NULL:
            next_page = page_link(page)[0]
            if header_of(page).generation <= older.generation:
                keep_page(older, page)
            else:
                free_page(arena, page)
                freed_pages += 1
            page = next_page
        block = pin.blocks
        while block != NULL:
            next_block = block.next
            if block.generation <= older.generation:
                keep_block(older, block)
            else:
                block.next = freed
                freed = block
                freed_blocks += 1
            block = next_block
    pthread_mutex_unlock(&arena.mutex)
    __atomic_sub_fetch(&arena.bytes, freed_pages * PAGE_BYTES, __ATOMIC_RELAXED)
    __atomic_sub_fetch(&arena.retired, freed_pages + freed_blocks, __ATOMIC_RELAXED)
    while freed != NULL:
        block = freed
        freed = block.next
        free_block(arena, block)


cdef uint64_t arena_retired_bytes(Arena *arena, uint64_t *count) noexcept nogil:
    cdef Pin *pin
    cdef uint8_t *page
    cdef Block *block
    cdef uint64_t bytes = 0
    count[0] = 0
    pthread_mutex_lock(&arena.mutex)
    pin = arena.newest
    while pin != NULL:
        page = pin.pages
        while page != NULL:
            bytes += PAGE_BYTES
            count[0] += 1
            page = page_link(page)[0]
        block = pin.blocks
        while block != NULL:
            bytes += block.bytes
            count[0] += 1
            block = block.next
        pin = pin.older
    pthread_mutex_unlock(&arena.mutex)
    return bytes
