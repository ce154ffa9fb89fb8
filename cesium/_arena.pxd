# The memory of one memtable: pages, blocks, and what pins keep of them (copy-on-write by
# generation).
#
# Everything that a memtable is made of carries the generation in which it was made.  A pin takes
# the current generation and raises it, so a pin sees what was made at or before its own generation;
# what was made above that of the newest live pin belongs to the writer alone and may change in
# place.  What the writer lets go of while pins may still see it is retired: it hangs on the newest
# pin, which hands it to the next older one that sees it, or frees it, when it is released.
#
# Thread safety: `arena_page`, `arena_block`, the drops and `arena_pin` belong to the writer (the
# engine's exclusive lock); `arena_unpin` may run beside them in any thread.  The arena's mutex
# guards the pins, what is retired and the free pages; `newest_pin`, `bytes` and `retired` are
# atomic.  The release store of `newest_pin` pairs with the writer's acquire load in
# `arena_is_shared`: the last read of a released snapshot happens before the first change in place
# of what it saw.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cesium._page cimport header_of

cdef enum:
    ALLOWANCE_UNLIMITED = 0x7fffffff

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef extern from *:
    uint64_t __atomic_load_n(uint64_t *word, int order) noexcept nogil
    int __ATOMIC_ACQUIRE

cdef struct Block:              # begins every directory and overflow chunk
    Block *next                 # among what a pin keeps
    uint64_t generation
    uint64_t bytes              # of the whole allocation

cdef struct Chunk               # opaque: memory that pages are cut from

cdef struct Pin:                # embedded in a MemtableRoot
    uint64_t generation
    Pin *older
    Pin *newer
    uint8_t *pages              # retired pages, linked through the last word of their headers
    uint8_t *last_page
    uint64_t page_count
    Block *blocks
    Block *last_block
    uint64_t block_count

cdef struct Arena:
    pthread_mutex_t mutex
    uint64_t forks              # of the process when it was made
    uint64_t generation         # of what is made now; above that of every pin
    uint64_t newest_pin         # atomic: generation of the newest live pin, 0 when there is none
    uint64_t bytes              # atomic: pages (retired ones too) and blocks in use
    uint64_t retired            # atomic: pages and blocks that wait for an unpin
    uint64_t held               # atomic: memory taken from the system, free pages included
    uint64_t *account           # atomic, of whoever owns the arena: adds up to what all of his hold
    Pin *newest
    uint8_t *free_pages
    uint8_t *fresh              # the part of the newest chunk that was never used
    uint8_t *fresh_end
    Chunk *chunks
    uint64_t chunk_bytes_most
    uint64_t allowance          # allocations that may still succeed: tests make the n-th fail

# Whether it came from the process that forked this one.  The mutex may be held by a thread that is
# not here, so what an inherited arena holds is leaked.
cdef bint arena_is_inherited(const Arena *arena) noexcept nogil

cdef int arena_open(Arena *arena) noexcept nogil
# Frees every page; blocks must have been dropped and pins released before.
cdef void arena_close(Arena *arena) noexcept nogil
# A page of any contents, aligned to 4096 bytes; the caller formats it and sets its generation.
cdef uint8_t *arena_page(Arena *arena) noexcept nogil               # NULL: no memory
# `bytes` (block header included) aligned to 64, header filled.
cdef Block *arena_block(Arena *arena, uint64_t bytes) noexcept nogil    # NULL: no memory
# Frees at once what no pin can see, and retires the rest.
cdef void arena_drop_page(Arena *arena, uint8_t *page) noexcept nogil
cdef void arena_drop_block(Arena *arena, Block *block) noexcept nogil
cdef void arena_pin(Arena *arena, Pin *pin) noexcept nogil
cdef void arena_unpin(Arena *arena, Pin *pin) noexcept nogil
# From now on what the arena holds is added up in *account too, which must outlive it, and pages are
# taken from the system in chunks of at most `chunk_bytes` (whole pages, at most 2 MiB).
cdef void arena_account(Arena *arena, uint64_t *account, uint64_t chunk_bytes) noexcept nogil
# Memory of all arenas of the process, free pages included: leak tests ask.
cdef uint64_t arena_held_bytes() noexcept nogil

# Bytes and number of what waits for an unpin, counted by a walk: for the check.
cdef uint64_t arena_retired_bytes(Arena *arena, uint64_t *count) noexcept nogil

cdef inline bint arena_is_shared(Arena *arena, uint64_t generation) noexcept nogil:
    return generation <= __atomic_load_n(&arena.newest_pin, __ATOMIC_ACQUIRE)

cdef inline bint arena_page_is_shared(Arena *arena, const uint8_t *page) noexcept nogil:
    return arena_is_shared(arena, header_of(page).generation)
