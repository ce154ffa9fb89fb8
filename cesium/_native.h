/* Kernels: CRC32C, search among heads, prefetch, key heads, XXH64, the split-block Bloom filter.
 * The sorts are in _sort.h and _sort_strings.h, which this header includes last.
 *
 * Owns: nothing but read-only tables.  Every module that includes this header has its own copy,
 * filled by a constructor function when the module is loaded, before any kernel can run.
 * Thread safety: every function may run in any thread at once, without the GIL; none calls Python.
 * Dispatch: SIMD bodies carry __attribute__((target)), are chosen by `native_features` at run time,
 * and CESIUM_PORTABLE=1 in the environment (at load time) chooses the portable bodies; =sse4.2 and
 * =avx2 cap the choice, for tests.  Other architectures compile the portable bodies only.
 *
 * Measured numbers in comments: AMD EPYC (Zen 5), gcc 12 -O3, one core.
 */
#ifndef CESIUM_NATIVE_H
#define CESIUM_NATIVE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "cesium maps its little-endian pages as they are: a little-endian machine is needed"
#endif

#if defined(__x86_64__)
#define CESIUM_X86 1
#include <immintrin.h>
#else
#define CESIUM_X86 0
#endif

#define CESIUM_INLINE static inline __attribute__((always_inline))

/* ---- dispatch ------------------------------------------------------------------------------- */

enum {
    NATIVE_SSE42 = 1,  /* crc32, pclmulqdq, popcnt */
    NATIVE_AVX2 = 2,
    NATIVE_AVX512 = 4  /* F, BW, DQ, VL */
};

static unsigned native_features = 0;

static const char *native_level(void) {
    if (native_features & NATIVE_AVX512) return "avx512";
    if (native_features & NATIVE_AVX2) return "avx2";
    if (native_features & NATIVE_SSE42) return "sse4.2";
    return "portable";
}

static void prefetch_read(const void *p) { __builtin_prefetch(p, 0, 3); }

/* ---- unaligned little-endian loads ---------------------------------------------------------- */

CESIUM_INLINE uint64_t load_u64(const void *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

CESIUM_INLINE uint32_t load_u32(const void *p) {
    uint32_t value;
    memcpy(&value, p, 4);
    return value;
}

CESIUM_INLINE uint16_t load_u16(const void *p) {
    uint16_t value;
    memcpy(&value, p, 2);
    return value;
}

/* ---- CRC32C --------------------------------------------------------------------------------- */

#define CRC32C_POLYNOMIAL 0x82F63B78u  /* Castagnoli, reflected */
#define CRC32C_STREAM_WORDS_LIMIT 256  /* of 8 bytes: one round of three streams, to 6 KiB */

static uint32_t crc32c_tables[8][256];                           /* slice by 8 */
static uint32_t crc32c_shifts[2 * CRC32C_STREAM_WORDS_LIMIT + 1]; /* [n] = x^(64 n - 33) mod P */

static void crc32c_fill_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (CRC32C_POLYNOMIAL & (0u - (crc & 1)));
        crc32c_tables[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int slice = 1; slice < 8; slice++) {
            uint32_t before = crc32c_tables[slice - 1][byte];
            crc32c_tables[slice][byte] = (before >> 8) ^ crc32c_tables[0][before & 255];
        }
    crc32c_shifts[1] = 1; /* x^31: in reflected order bit 0 is the highest power */
    for (int words = 2; words <= 2 * CRC32C_STREAM_WORDS_LIMIT; words++) {
        uint32_t crc = crc32c_shifts[words - 1]; /* times x^64: eight zero bytes */
        for (int byte = 0; byte < 8; byte++) crc = (crc >> 8) ^ crc32c_tables[0][crc & 255];
        crc32c_shifts[words] = crc;
    }
}

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *p, size_t bytes) {
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint64_t word = load_u64(p) ^ crc;
        crc = crc32c_tables[7][word & 255] ^ crc32c_tables[6][word >> 8 & 255] ^
              crc32c_tables[5][word >> 16 & 255] ^ crc32c_tables[4][word >> 24 & 255] ^
              crc32c_tables[3][word >> 32 & 255] ^ crc32c_tables[2][word >> 40 & 255] ^
              crc32c_tables[1][word >> 48 & 255] ^ crc32c_tables[0][word >> 56];
    }
    for (; bytes; p++, bytes--) crc = (crc >> 8) ^ crc32c_tables[0][(crc ^ *p) & 255];
    return crc;
}

#if CESIUM_X86
/* The crc of `crc` followed by zero words, by one carry-less product and one reduction. */
__attribute__((target("sse4.2,pclmul"))) CESIUM_INLINE uint64_t crc32c_shift(uint64_t crc,
                                                                             uint32_t shift) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc),
                                           _mm_cvtsi32_si128((int)shift), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* Three independent streams hide the latency of 3 cycles of the crc32 instruction: 4092 bytes in
 * 135 ns, 30 GB/s; the tables reach 2.2 GB/s. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_sse42(uint32_t seed,
                                                                      const uint8_t *p,
                                                                      size_t bytes) {
    uint64_t first = seed;
    while (bytes >= 24 * 8) {
        size_t words = bytes / 24;
        if (words > CRC32C_STREAM_WORDS_LIMIT) words = CRC32C_STREAM_WORDS_LIMIT;
        size_t stride = words * 8;
        uint64_t second = 0, third = 0;
        for (size_t at = 0; at < stride; at += 8) {
            first = _mm_crc32_u64(first, load_u64(p + at));
            second = _mm_crc32_u64(second, load_u64(p + stride + at));
            third = _mm_crc32_u64(third, load_u64(p + 2 * stride + at));
        }
        first = crc32c_shift(first, crc32c_shifts[2 * words]) ^
                crc32c_shift(second, crc32c_shifts[words]) ^ third;
        p += 3 * stride;
        bytes -= 3 * stride;
    }
    for (; bytes >= 8; p += 8, bytes -= 8) first = _mm_crc32_u64(first, load_u64(p));
    uint32_t crc = (uint32_t)first;
    for (; bytes; p++, bytes--) crc = _mm_crc32_u8(crc, *p);
    return crc;
}
#endif

/* Chains like zlib's crc32: crc32c(crc32c(0, a), b) is the crc of a followed by b. */
static uint32_t crc32c(uint32_t seed_crc, const void *data, size_t bytes) {
#if CESIUM_X86
    if (native_features & NATIVE_SSE42)
        return ~crc32c_sse42(~seed_crc, (const uint8_t *)data, bytes);
#endif
    return ~crc32c_portable(~seed_crc, (const uint8_t *)data, bytes);
}

/* ---- search among sorted heads -----------------------------------------------------------------
 *
 * A window [base, base + size] that holds the answer is narrowed without a branch on any head.  The
 * SIMD bodies stop at HEADS_WINDOW heads and count those below the key; the window may be moved
 * down to fit into the array, because every head before it is below the key.  252 heads in the L1
 * cache, latency: AVX-512 10 ns, AVX2 12.5, halving alone 18 (throughput 4.1, 3.9, 6.3 ns). */

#define HEADS_WINDOW 32

CESIUM_INLINE const uint64_t *heads_halve(const uint64_t *base, uint32_t half, uint64_t key) {
    return base + (half & (0u - (uint32_t)(base[half - 1] < key)));
}

static uint32_t heads_lower_bound_portable(const uint64_t *heads, uint32_t count, uint64_t key) {
    if (count == 0) return 0;
    const uint64_t *base = heads;
    for (uint32_t size = count; size > 1; size -= size / 2) base = heads_halve(base, size / 2, key);
    return (uint32_t)(base - heads) + (*base < key);
}

#if CESIUM_X86
/* Narrows count >= HEADS_WINDOW heads to HEADS_WINDOW of them.  Seven samples are compared at once:
 * their addresses do not wait for the key.  Three halvings took 4 ns more at 252 heads. */
CESIUM_INLINE const uint64_t *heads_window(const uint64_t *heads, uint32_t count, uint64_t key) {
    const uint64_t *base = heads;
    uint32_t size = count;
    for (; size > 8 * HEADS_WINDOW; size -= size / 2) base = heads_halve(base, size / 2, key);
    if (size > 2 * HEADS_WINDOW) {
        uint32_t stride = size / 8 + 1, below = 0;
        for (uint32_t sample = 1; sample < 8; sample++) below += base[sample * stride - 1] < key;
        base += below * stride;
    } else {
        for (; size > HEADS_WINDOW; size -= size / 2) base = heads_halve(base, size / 2, key);
    }
    const uint64_t *last = heads + count - HEADS_WINDOW;
    return base < last ? base : last;
}

__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,popcnt"))) static uint32_t
heads_lower_bound_avx512(const uint64_t *heads, uint32_t count, uint64_t key) {
    __m512i wanted = _mm512_set1_epi64((long long)key);
    uint32_t below = 0;
    if (count >= HEADS_WINDOW) {
        const uint64_t *base = heads_window(heads, count, key);
        for (int at = 0; at < HEADS_WINDOW; at += 8)
            below += (uint32_t)__builtin_popcount(
                _mm512_cmplt_epu64_mask(_mm512_loadu_si512(base + at), wanted));
        return (uint32_t)(base - heads) + below;
    }
    for (uint32_t at = 0; at < count; at += 8) {
        __mmask8 present = (__mmask8)(count - at >= 8 ? 255u : (1u << (count - at)) - 1);
        below += (uint32_t)__builtin_popcount(_mm512_mask_cmplt_epu64_mask(
            present, _mm512_maskz_loadu_epi64(present, heads + at), wanted));
    }
    return below;
}

__attribute__((target("avx2"))) static uint32_t heads_lower_bound_avx2(const uint64_t *heads,
                                                                       uint32_t count,
                                                                       uint64_t key) {
    if (count < HEADS_WINDOW) return heads_lower_bound_portable(heads, count, key);
    const uint64_t *base = heads_window(heads, count, key);
    /* AVX2 compares signed numbers: flip the sign bit of both sides. */
    __m256i sign = _mm256_set1_epi64x(INT64_MIN);
    __m256i wanted = _mm256_xor_si256(_mm256_set1_epi64x((long long)key), sign);
    __m256i below[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int at = 0; at < HEADS_WINDOW; at += 4) {
        __m256i some = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(base + at)), sign);
        below[at / 4 % 2] = _mm256_sub_epi64(below[at / 4 % 2], _mm256_cmpgt_epi64(wanted, some));
    }
    __m256i four = _mm256_add_epi64(below[0], below[1]);
    __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return (uint32_t)(base - heads) +
           (uint32_t)(_mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1));
}
#endif

/* How many of the sorted heads are below the key. */
static uint32_t heads_lower_bound(const uint64_t *heads, uint32_t count, uint64_t key) {
#if CESIUM_X86
    if (native_features & NATIVE_AVX512) return heads_lower_bound_avx512(heads, count, key);
    if (native_features & NATIVE_AVX2) return heads_lower_bound_avx2(heads, count, key);
#endif
    return heads_lower_bound_portable(heads, count, key);
}

/* How many of the sorted heads are at most the key. */
static uint32_t heads_upper_bound(const uint64_t *heads, uint32_t count, uint64_t key) {
    return key == UINT64_MAX ? count : heads_lower_bound(heads, count, key + 1);
}

/* Where a key lies among `count` heads that are spread evenly from `low` to `high`. */
static uint32_t heads_guess(uint64_t key, uint64_t low, uint64_t high, uint32_t count) {
    if (key <= low || high <= low) return 0;
    return (uint32_t)((double)(key - low) / (double)(high - low) * (double)count);
}

#define HEADS_NEAR 16 /* of 252 uniform heads, 19 in 20 lie within two standard deviations */

/* heads_lower_bound around a guess: three or four cache lines, known before the search begins and
 * so fetched at once, where halving waits for five in turn.  UINT32_MAX: it is not there. */
static uint32_t heads_around(const uint64_t *heads, uint32_t count, uint64_t key, uint32_t guess) {
    uint32_t low = guess > HEADS_NEAR ? guess - HEADS_NEAR : 0;
    uint32_t high = guess + HEADS_NEAR;
    if (low >= count) low = count ? count - 1 : 0;
    if (high > count) high = count;
    if ((low == 0 || heads[low - 1] < key) && (high == count || heads[high] >= key))
        return low + heads_lower_bound(heads + low, high - low, key);
    return UINT32_MAX;
}

/* heads_lower_bound that looks around a guess first.  Any guess does. */
static uint32_t heads_lower_bound_near(const uint64_t *heads, uint32_t count, uint64_t key,
                                       uint32_t guess) {
    uint32_t position = heads_around(heads, count, key, guess);
    return position != UINT32_MAX ? position : heads_lower_bound(heads, count, key);
}

/* One search of a batch: heads, count and key are given, position is filled. */
typedef struct HeadsSearch {
    const uint64_t *heads;
    uint32_t count;
    uint32_t position;
    uint64_t key;
} HeadsSearch;

#define HEADS_GROUP 32       /* searches in flight */
#define HEADS_GROUP_WINDOW 8 /* heads: one or two cache lines */

/* Fills position = heads_lower_bound(...) of every job.  Made for heads that are not in the cache:
 * all jobs take a step, each asking for the line of its next probe, before any takes the next.
 * 1 M searches of 252 heads over 256 MiB of pages: 56 ns each, 113 ns one after another. */
static void heads_lower_bound_group(HeadsSearch *jobs, uint32_t jobs_count) {
    while (jobs_count) {
        const uint64_t *bases[HEADS_GROUP];
        uint32_t sizes[HEADS_GROUP];
        uint32_t group = jobs_count < HEADS_GROUP ? jobs_count : HEADS_GROUP;
        uint32_t largest = 0;
        for (uint32_t i = 0; i < group; i++) {
            bases[i] = jobs[i].heads;
            sizes[i] = jobs[i].count;
            if (sizes[i] > largest) largest = sizes[i];
            if (sizes[i]) prefetch_read(bases[i] + (sizes[i] - 1) / 2);
        }
        for (; largest > HEADS_GROUP_WINDOW; largest -= largest / 2)
            for (uint32_t i = 0; i < group; i++) {
                uint32_t size = sizes[i];
                if (size <= HEADS_GROUP_WINDOW) continue;
                uint32_t half = size / 2;
                bases[i] += half & (0u - (uint32_t)(bases[i][half - 1] < jobs[i].key));
                sizes[i] = size -= half;
                if (size > HEADS_GROUP_WINDOW) {
                    prefetch_read(bases[i] + size / 2 - 1);
                } else {
                    prefetch_read(bases[i]);
                    prefetch_read(bases[i] + size - 1);
                }
            }
        for (uint32_t i = 0; i < group; i++)
            jobs[i].position = (uint32_t)(bases[i] - jobs[i].heads) +
                               heads_lower_bound(bases[i], sizes[i], jobs[i].key);
        jobs += group;
        jobs_count -= group;
    }
}

/* ---- byte strings and their heads ----------------------------------------------------------- */

/* -1, 0 or 1: byte order, and of two strings one of which begins the other the shorter is first. */
static int compare_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) {
    size_t common = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = common ? memcmp(a, b, common) : 0;
    if (order) return order < 0 ? -1 : 1;
    return (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* The first 8 bytes as a big-endian integer, zeros after the end; reads no byte past p + bytes. */
static uint64_t load_head(const uint8_t *p, size_t bytes) {
    if (bytes >= 8) return __builtin_bswap64(load_u64(p));
    if (bytes == 0) return 0;
    uint64_t value; /* of `bytes` bytes; two loads may overlap, and agree where they do */
    if (bytes >= 4)
        value = (uint64_t)__builtin_bswap32(load_u32(p)) << 8 * (bytes - 4) |
                __builtin_bswap32(load_u32(p + bytes - 4));
    else if (bytes >= 2)
        value = (uint64_t)__builtin_bswap16(load_u16(p)) << 8 * (bytes - 2) |
                __builtin_bswap16(load_u16(p + bytes - 2));
    else
        value = p[0];
    return value << 8 * (8 - bytes);
}

static void store_head(uint8_t *p, uint64_t head) {
    head = __builtin_bswap64(head);
    memcpy(p, &head, 8);
}

/* ---- XXH64, seed 0 -------------------------------------------------------------------------- */

#define XXH64_PRIME_1 0x9E3779B185EBCA87ULL
#define XXH64_PRIME_2 0xC2B2AE3D27D4EB4FULL
#define XXH64_PRIME_3 0x165667B19E3779F9ULL
#define XXH64_PRIME_4 0x85EBCA77C2B2AE63ULL
#define XXH64_PRIME_5 0x27D4EB2F165667C5ULL

CESIUM_INLINE uint64_t rotate_left(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

CESIUM_INLINE uint64_t xxh64_round(uint64_t lane, uint64_t input) {
    return rotate_left(lane + input * XXH64_PRIME_2, 31) * XXH64_PRIME_1;
}

CESIUM_INLINE uint64_t xxh64_merge(uint64_t hash, uint64_t lane) {
    return (hash ^ xxh64_round(0, lane)) * XXH64_PRIME_1 + XXH64_PRIME_4;
}

CESIUM_INLINE uint64_t xxh64_word(uint64_t hash, uint64_t word) {
    return rotate_left(hash ^ xxh64_round(0, word), 27) * XXH64_PRIME_1 + XXH64_PRIME_4;
}

CESIUM_INLINE uint64_t xxh64_avalanche(uint64_t hash) {
    hash = (hash ^ hash >> 33) * XXH64_PRIME_2;
    hash = (hash ^ hash >> 29) * XXH64_PRIME_3;
    return hash ^ hash >> 32;
}

static uint64_t hash_bytes(const uint8_t *p, size_t bytes) {
    uint64_t hash = XXH64_PRIME_5;
    size_t left = bytes;
    if (left >= 32) {
        uint64_t lanes[4] = {XXH64_PRIME_1 + XXH64_PRIME_2, XXH64_PRIME_2, 0, 0 - XXH64_PRIME_1};
        for (; left >= 32; left -= 32, p += 32)
            for (int i = 0; i < 4; i++) lanes[i] = xxh64_round(lanes[i], load_u64(p + 8 * i));
        hash = rotate_left(lanes[0], 1) + rotate_left(lanes[1], 7) + rotate_left(lanes[2], 12) +
               rotate_left(lanes[3], 18);
        for (int i = 0; i < 4; i++) hash = xxh64_merge(hash, lanes[i]);
    }
    hash += bytes;
    for (; left >= 8; left -= 8, p += 8) hash = xxh64_word(hash, load_u64(p));
    if (left >= 4) {
        hash = rotate_left(hash ^ load_u32(p) * XXH64_PRIME_1, 23) * XXH64_PRIME_2 + XXH64_PRIME_3;
        left -= 4, p += 4;
    }
    for (; left; left--, p++) hash = rotate_left(hash ^ *p * XXH64_PRIME_5, 11) * XXH64_PRIME_1;
    return xxh64_avalanche(hash);
}

/* The same hash of the 8 little-endian bytes of the head. */
static uint64_t hash_head(uint64_t head) {
    return xxh64_avalanche(xxh64_word(XXH64_PRIME_5 + 8, head));
}

/* ---- split-block Bloom filter, as in the Parquet specification ------------------------------ */

#define BLOOM_BLOCK_WORDS 8   /* a block is 8 words of 32 bits; a key sets one bit in each */
#define BLOOM_BITS_PER_KEY 11 /* measured: 0.81 % false positives */

static const uint32_t BLOOM_SALTS[BLOOM_BLOCK_WORDS] = {0x47b6137bu, 0x44974d91u, 0x8824ad5bu,
                                                        0xa2b7289du, 0x705495c7u, 0x2df1424bu,
                                                        0x9efc4947u, 0x5c6bfb31u};

/* Blocks of 32 bytes for that many keys, at least one. */
static uint64_t bloom_blocks_for(uint64_t keys) {
    uint64_t blocks = keys / 256 * BLOOM_BITS_PER_KEY; /* no product overflows */
    blocks += (keys % 256 * BLOOM_BITS_PER_KEY + 255) / 256;
    return blocks ? blocks : 1;
}

CESIUM_INLINE uint64_t bloom_block_of(uint64_t block_count, uint64_t hash) {
    return (hash >> 32) * block_count >> 32; /* block_count below 2^32 */
}

static void bloom_insert(uint32_t *blocks, uint64_t block_count, uint64_t hash) {
    uint32_t *block = blocks + bloom_block_of(block_count, hash) * BLOOM_BLOCK_WORDS;
    for (int i = 0; i < BLOOM_BLOCK_WORDS; i++)
        block[i] |= 1u << ((uint32_t)hash * BLOOM_SALTS[i] >> 27);
}

static int bloom_contains(const uint32_t *blocks, uint64_t block_count, uint64_t hash) {
    const uint32_t *block = blocks + bloom_block_of(block_count, hash) * BLOOM_BLOCK_WORDS;
    uint32_t missing = 0;
    for (int i = 0; i < BLOOM_BLOCK_WORDS; i++)
        missing |= ~block[i] & 1u << ((uint32_t)hash * BLOOM_SALTS[i] >> 27);
    return missing == 0;
}

/* ---- start ---------------------------------------------------------------------------------- */

__attribute__((constructor)) static void native_start(void) {
    crc32c_fill_tables();
#if CESIUM_X86
    const char *portable = getenv("CESIUM_PORTABLE");
    if (portable && strcmp(portable, "1") == 0) return;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul") &&
        __builtin_cpu_supports("popcnt"))
        native_features |= NATIVE_SSE42;
    if (__builtin_cpu_supports("avx2")) native_features |= NATIVE_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        native_features |= NATIVE_AVX512;
    if (portable && strcmp(portable, "sse4.2") == 0) native_features &= NATIVE_SSE42;
    if (portable && strcmp(portable, "avx2") == 0) native_features &= NATIVE_SSE42 | NATIVE_AVX2;
#endif
}

#include "_sort.h"
#include "_sort_strings.h"

#endif
