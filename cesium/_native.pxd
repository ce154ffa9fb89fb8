# Extern declarations of _native.h (contracts are in that header).  All functions are pure C: they
# take no lock, call no Python, and may run in any thread without the GIL.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "_native.h" nogil:
    # "avx512", "avx2", "sse4.2" or "portable"
    const char *native_level() noexcept

    void prefetch_read(const void *p) noexcept

    # Castagnoli; chains like zlib.crc32
    uint32_t crc32c(uint32_t seed_crc, const void *data, size_t bytes) noexcept

    # how many of the sorted heads are below, or at most, the key
    uint32_t heads_lower_bound(const uint64_t *heads, uint32_t count, uint64_t key) noexcept
    uint32_t heads_upper_bound(const uint64_t *heads, uint32_t count, uint64_t key) noexcept

    # where a key lies among evenly spread heads, and a search that looks there first
    uint32_t heads_guess(uint64_t key, uint64_t low, uint64_t high, uint32_t count) noexcept
    uint32_t heads_around(const uint64_t *heads, uint32_t count, uint64_t key,
                          uint32_t guess) noexcept
    uint32_t heads_lower_bound_near(const uint64_t *heads, uint32_t count, uint64_t key,
                                    uint32_t guess) noexcept
    enum:
        HEADS_NEAR              # how far from the guess it looks

    ctypedef struct HeadsSearch:
        const uint64_t *heads
        uint32_t count
        uint32_t position       # filled: how many heads are below the key
        uint64_t key

    enum:
        HEADS_GROUP             # searches that heads_lower_bound_group keeps in flight

    void heads_lower_bound_group(HeadsSearch *jobs, uint32_t jobs_count) noexcept

    # -1, 0 or 1
    int compare_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) noexcept
    # first 8 bytes as a big-endian integer, zeros after the end
    uint64_t load_head(const uint8_t *p, size_t bytes) noexcept
    void store_head(uint8_t *p, uint64_t head) noexcept

    # XXH64 with seed 0; hash_head hashes the 8 little-endian bytes of the head
    uint64_t hash_head(uint64_t head) noexcept
    uint64_t hash_bytes(const uint8_t *p, size_t bytes) noexcept

    # split-block Bloom filter; blocks of 32 bytes (8 words), zeroed by the owner
    uint64_t bloom_blocks_for(uint64_t keys) noexcept
    void bloom_insert(uint32_t *blocks, uint64_t block_count, uint64_t hash) noexcept
    int bloom_contains(const uint32_t *blocks, uint64_t block_count, uint64_t hash) noexcept

    ctypedef struct SortPair:
        uint64_t key
        uint64_t payload

    # 0 unsorted, 1 sorted with duplicates, 2 strictly increasing
    int is_sorted_u64(const uint64_t *keys, size_t count) noexcept
    int is_sorted_strings(const int64_t *offsets, const uint8_t *data, size_t count) noexcept

    # runs run(context, task) for every task; threads <= 1 runs inline; always 0
    int parallel_for(size_t tasks, int threads,
                     void (*run)(void *context, size_t task) noexcept nogil,
                     void *context) noexcept

    # stable; 0 or -ENOMEM; payload is the index when payloads is NULL
    int sort_columns(const uint64_t *keys, const uint64_t *payloads, size_t count, SortPair *out,
                     int threads) noexcept
    # order[i] = index of the i-th string, equal strings in input order; 0 or -ENOMEM
    int sort_strings(const int64_t *offsets, const uint8_t *data, size_t count, uint64_t *order,
                     int threads) noexcept
