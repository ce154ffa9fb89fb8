/* Kernels: stable sorts of columns, and the threads that share the work of a sort.
 * Included by _native.h, which states the rules of thread safety and dispatch.
 *
 * Owns: scratch memory, allocated and freed within one call.  Nothing is kept between calls.
 * Invariants:
 *  1. Every sort is stable, so of equal keys the last row given is the last in the result.
 *  2. No input is quadratic: insertion sort sees at most SORT_SMALL pairs of one group, and every
 *     recursion has consumed key bits, at most 64.
 */
#ifndef CESIUM_SORT_H
#define CESIUM_SORT_H

#include <errno.h>
#include <pthread.h>

typedef struct SortPair {
    uint64_t key;
    uint64_t payload;
} SortPair;

/* ---- threads -------------------------------------------------------------------------------- */

#define PARALLEL_THREADS_LIMIT 64

typedef struct ParallelWork {
    void (*run)(void *context, size_t task);
    void *context;
    size_t tasks;
    size_t next; /* atomic: the first task that nobody has taken */
} ParallelWork;

static void *parallel_worker(void *argument) {
    ParallelWork *work = (ParallelWork *)argument;
    for (;;) {
        size_t task = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
        if (task >= work->tasks) return NULL;
        work->run(work->context, task);
    }
}

/* Runs every task once, in any order, on this thread and up to threads - 1 others, and returns 0
 * when all are done.  A thread that cannot be had is done without. */
static int parallel_for(size_t tasks, int threads, void (*run)(void *context, size_t task),
                        void *context) {
    ParallelWork work = {run, context, tasks, 0};
    pthread_t others[PARALLEL_THREADS_LIMIT];
    size_t wanted = threads > 1 ? (size_t)threads - 1 : 0, started = 0;
    if (wanted > PARALLEL_THREADS_LIMIT) wanted = PARALLEL_THREADS_LIMIT;
    if (tasks == 0) return 0;
    if (wanted > tasks - 1) wanted = tasks - 1;
    while (started < wanted &&
           pthread_create(&others[started], NULL, parallel_worker, &work) == 0)
        started++;
    parallel_worker(&work);
    for (size_t i = 0; i < started; i++) pthread_join(others[i], NULL);
    return 0;
}

/* ---- is it sorted already? ------------------------------------------------------------------ */

#define IS_SORTED_BLOCK 1024 /* keys between two looks at the answer */

/* 0 unsorted, 1 sorted with duplicates, 2 strictly increasing. */
CESIUM_INLINE int is_sorted_u64_body(const uint64_t *keys, size_t count) {
    uint64_t equal = 0;
    for (size_t at = 1; at < count;) {
        size_t end = count - at > IS_SORTED_BLOCK ? at + IS_SORTED_BLOCK : count;
        uint64_t falls = 0;
        for (; at < end; at++) {
            falls |= (uint64_t)(keys[at] < keys[at - 1]);
            equal |= (uint64_t)(keys[at] == keys[at - 1]);
        }
        if (falls) return 0;
    }
    return equal ? 1 : 2;
}

#if CESIUM_X86
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) static int
is_sorted_u64_avx512(const uint64_t *keys, size_t count) {
    return is_sorted_u64_body(keys, count);
}
#endif

static int is_sorted_u64(const uint64_t *keys, size_t count) {
#if CESIUM_X86
    if (native_features & NATIVE_AVX512) return is_sorted_u64_avx512(keys, count);
#endif
    return is_sorted_u64_body(keys, count);
}

/* ---- a run of pairs that fits the cache ----------------------------------------------------- */

#define SORT_SMALL 24       /* pairs: insertion sort up to here */
#define SORT_DIGIT_BITS 11  /* of one pass, at most */
#define SORT_SPARE_BITS 5   /* bits sorted beyond log2(count), so that few groups are left */

typedef struct SortScratch {
    SortPair *pairs; /* as many as the longest run */
    size_t positions[2][1 << SORT_DIGIT_BITS];
} SortScratch;

static void sort_small(SortPair *pairs, size_t count) {
    for (size_t i = 1; i < count; i++) {
        SortPair moving = pairs[i];
        size_t at = i;
        for (; at && pairs[at - 1].key > moving.key; at--) pairs[at] = pairs[at - 1];
        pairs[at] = moving;
    }
}

CESIUM_INLINE unsigned bit_length(uint64_t value) {
    return value ? 64 - (unsigned)__builtin_clzll(value) : 0;
}

static void sort_pass(const SortPair *from, SortPair *to, size_t count, size_t *positions,
                      unsigned shift, uint64_t mask) {
    for (size_t i = 0; i < count; i++)
        to[positions[from[i].key >> shift & mask]++] = from[i];
}

static void sort_positions_from_counts(size_t *positions, size_t digits) {
    size_t total = 0;
    for (size_t digit = 0; digit < digits; digit++) {
        size_t here = positions[digit];
        positions[digit] = total;
        total += here;
    }
}

/* Sorts in place.  Two stable passes over the highest bits that vary, about log2(count) +
 * SORT_SPARE_BITS of them; what they leave together is nearly always a pair or two. */
static void sort_run(SortPair *pairs, size_t count, SortScratch *scratch) {
    if (count <= SORT_SMALL) {
        sort_small(pairs, count);
        return;
    }
    uint64_t first = pairs[0].key, varying = 0, falls = 0;
    for (size_t i = 1; i < count; i++) {
        varying |= pairs[i].key ^ first;
        falls |= (uint64_t)(pairs[i].key < pairs[i - 1].key);
    }
    if (!falls) return;
    unsigned top = bit_length(varying);
    unsigned bits = bit_length(count) + SORT_SPARE_BITS;
    if (bits > 2 * SORT_DIGIT_BITS) bits = 2 * SORT_DIGIT_BITS;
    if (bits > top) bits = top;
    unsigned shift = top - bits;
    unsigned low_bits = bits > SORT_DIGIT_BITS ? bits / 2 : bits, high_bits = bits - low_bits;
    uint64_t low_mask = (1u << low_bits) - 1, high_mask = (1u << high_bits) - 1;
    size_t *low = scratch->positions[0], *high = scratch->positions[1];
    memset(low, 0, sizeof(size_t) << low_bits);
    memset(high, 0, sizeof(size_t) << high_bits);
    for (size_t i = 0; i < count; i++) {
        uint64_t digits = pairs[i].key >> shift;
        low[digits & low_mask]++;
        high[digits >> low_bits & high_mask]++;
    }
    sort_positions_from_counts(low, low_mask + 1);
    sort_pass(pairs, scratch->pairs, count, low, shift, low_mask);
    if (high_bits) {
        sort_positions_from_counts(high, high_mask + 1);
        sort_pass(scratch->pairs, pairs, count, high, shift + low_bits, high_mask);
    } else {
        memcpy(pairs, scratch->pairs, count * sizeof(SortPair));
    }
    if (shift == 0) return;
    for (size_t start = 0, end; start < count; start = end) {
        uint64_t group = pairs[start].key >> shift;
        for (end = start + 1; end < count && pairs[end].key >> shift == group;) end++;
        if (end - start > 1) sort_run(pairs + start, end - start, scratch);
    }
}

static SortScratch *sort_scratch_new(size_t pairs) {
    SortScratch *scratch = (SortScratch *)malloc(sizeof(SortScratch));
    if (!scratch) return NULL;
    scratch->pairs = (SortPair *)malloc((pairs ? pairs : 1) * sizeof(SortPair));
    if (scratch->pairs) return scratch;
    free(scratch);
    return NULL;
}

static void sort_scratch_free(SortScratch *scratch) {
    if (scratch) free(scratch->pairs);
    free(scratch);
}

/* ---- columns -------------------------------------------------------------------------------- */

#define SORT_RUN_PAIRS 8192      /* wanted in a bucket: 128 KiB, and as much scratch, in the L2 */
#define SORT_BUCKET_BITS 11      /* at most: the open lines of one partition are 128 KiB */
#define SORT_LINE_PAIRS 4        /* of 16 bytes in a cache line */
#define SORT_STREAM_BYTES (8u << 20) /* outputs above this go past the cache */

#define SORT_SAMPLES (1 << 15)
#define SORT_BIN_BITS 11 /* of the highest that vary: 2048 bins of 24 bytes */
#define SORT_SKEW 8      /* times the even share in one bucket: look at a sample */

/* How one bin is spread: bucket = first + min(max(key - low, 0) >> shift, limit), which rises with
 * the key.  Light neighbours share a bucket, heavy bins have many. */
typedef struct SortBin {
    uint64_t low;
    uint32_t first;
    uint32_t limit;
    uint32_t shift;
} SortBin;

typedef struct SortColumns {
    const uint64_t *keys;
    const uint64_t *payloads;
    size_t count;
    SortPair *out;
    unsigned shift;     /* bucket, or bin when there are bins, = (key >> shift) & mask */
    uint64_t mask;
    SortBin *bins;      /* of skewed keys only, else NULL */
    size_t buckets;
    size_t chunks;      /* of the input: one task each in the first two steps */
    size_t *positions;  /* [chunk][bucket]: counts, then the next row to write */
    size_t *starts;     /* [bucket], one more at the end */
    uint64_t *varying;  /* [chunk] */
    size_t tasks;       /* of the last step */
    int failed;
} SortColumns;

CESIUM_INLINE size_t sort_chunk_start(const SortColumns *sort, size_t chunk) {
    return (size_t)((unsigned __int128)sort->count * chunk / sort->chunks);
}

static void sort_columns_varying(void *context, size_t chunk) {
    SortColumns *sort = (SortColumns *)context;
    size_t end = sort_chunk_start(sort, chunk + 1);
    uint64_t first = sort->keys[0], varying = 0;
    for (size_t i = sort_chunk_start(sort, chunk); i < end; i++) varying |= sort->keys[i] ^ first;
    sort->varying[chunk] = varying;
}

CESIUM_INLINE size_t sort_bucket_of(const SortColumns *sort, uint64_t key, int binned) {
    size_t bin = key >> sort->shift & sort->mask;
    if (!binned) return bin;
    const SortBin *spread = &sort->bins[bin];
    uint64_t within = (key > spread->low ? key - spread->low : 0) >> spread->shift;
    return spread->first + (within < spread->limit ? within : spread->limit);
}

CESIUM_INLINE void sort_columns_count_body(SortColumns *sort, size_t chunk, int binned) {
    size_t end = sort_chunk_start(sort, chunk + 1);
    size_t *counts = sort->positions + chunk * sort->buckets;
    memset(counts, 0, sort->buckets * sizeof(size_t));
    for (size_t i = sort_chunk_start(sort, chunk); i < end; i++)
        counts[sort_bucket_of(sort, sort->keys[i], binned)]++;
}

static void sort_columns_count(void *context, size_t chunk) {
    SortColumns *sort = (SortColumns *)context;
    if (sort->bins)
        sort_columns_count_body(sort, chunk, 1);
    else
        sort_columns_count_body(sort, chunk, 0);
}

CESIUM_INLINE void sort_line_write(SortPair *to, const SortPair *line, int stream) {
#if CESIUM_X86
    if (stream) {
        for (int i = 0; i < SORT_LINE_PAIRS; i++)
            _mm_stream_si128((__m128i *)(to + i), _mm_load_si128((const __m128i *)(line + i)));
        return;
    }
#endif
    memcpy(to, line, SORT_LINE_PAIRS * sizeof(SortPair));
}

/* Software write combining: a bucket's rows gather in one cache line of its own, which leaves as a
 * whole, past the cache when the output is large. */
CESIUM_INLINE void sort_columns_partition_body(SortColumns *sort, size_t chunk, int binned) {
    size_t buckets = sort->buckets;
    size_t *next = sort->positions + chunk * buckets;
    SortPair *lines = (SortPair *)aligned_alloc(64, buckets * 64);
    size_t *starts = (size_t *)malloc(buckets * sizeof(size_t));
    if (!lines || !starts) {
        __atomic_store_n(&sort->failed, 1, __ATOMIC_RELAXED);
        goto done;
    }
    memcpy(starts, next, buckets * sizeof(size_t));
    /* Row r has the place (r + lead) % 4 of its cache line. */
    size_t lead = (uintptr_t)sort->out / sizeof(SortPair) % SORT_LINE_PAIRS;
    int stream = CESIUM_X86 && (uintptr_t)sort->out % sizeof(SortPair) == 0 &&
                 sort->count * sizeof(SortPair) > SORT_STREAM_BYTES;
    size_t end = sort_chunk_start(sort, chunk + 1);
    for (size_t i = sort_chunk_start(sort, chunk); i < end; i++) {
        uint64_t key = sort->keys[i];
        size_t bucket = sort_bucket_of(sort, key, binned);
        size_t row = next[bucket]++, place = (row + lead) % SORT_LINE_PAIRS;
        SortPair *line = lines + bucket * SORT_LINE_PAIRS;
        line[place].key = key;
        line[place].payload = sort->payloads ? sort->payloads[i] : i;
        if (place == SORT_LINE_PAIRS - 1) {
            size_t had = row + 1 - starts[bucket];
            if (__builtin_expect(had >= SORT_LINE_PAIRS, 1))
                sort_line_write(sort->out + row + 1 - SORT_LINE_PAIRS, line, stream);
            else /* the line begins with rows of another bucket or chunk */
                memcpy(sort->out + starts[bucket], line + SORT_LINE_PAIRS - had,
                       had * sizeof(SortPair));
        }
    }
    for (size_t bucket = 0; bucket < buckets; bucket++) {
        size_t open = (next[bucket] + lead) % SORT_LINE_PAIRS, had = next[bucket] - starts[bucket];
        if (had > open) had = open;
        memcpy(sort->out + next[bucket] - had, lines + bucket * SORT_LINE_PAIRS + open - had,
               had * sizeof(SortPair));
    }
#if CESIUM_X86
    _mm_sfence();
#endif
done:
    free(lines);
    free(starts);
}

static void sort_columns_partition(void *context, size_t chunk) {
    SortColumns *sort = (SortColumns *)context;
    if (sort->bins)
        sort_columns_partition_body(sort, chunk, 1);
    else
        sort_columns_partition_body(sort, chunk, 0);
}

/* Counts the buckets and turns the counts into the rows where each chunk's part of each begins.
 * Returns the longest bucket; on failure sets sort->failed. */
static size_t sort_columns_lay_out(SortColumns *sort, int threads) {
    free(sort->positions);
    sort->positions =
        (size_t *)malloc(((sort->chunks + 1) * sort->buckets + 1) * sizeof(size_t));
    if (!sort->positions) {
        sort->failed = 1;
        return 0;
    }
    sort->starts = sort->positions + sort->chunks * sort->buckets;
    parallel_for(sort->chunks, threads, sort_columns_count, sort);
    size_t total = 0, longest = 0;
    for (size_t bucket = 0; bucket < sort->buckets; bucket++) {
        sort->starts[bucket] = total;
        for (size_t chunk = 0; chunk < sort->chunks; chunk++) {
            size_t *position = &sort->positions[chunk * sort->buckets + bucket], here = *position;
            *position = total;
            total += here;
        }
        if (total - sort->starts[bucket] > longest) longest = total - sort->starts[bucket];
    }
    sort->starts[sort->buckets] = total;
    return longest;
}

/* Fills sort->bins from a sorted sample, so that floats (whose exponents differ little), a few
 * outliers and the like still fall into even buckets.  16 M normal floats: 190 ms, 330 without;
 * 16 M keys below 2^24 and one of 2^64 - 1: 260, 520 without. */
static void sort_columns_spread(SortColumns *sort, unsigned varying_bits, size_t even_share) {
    SortScratch *scratch = sort_scratch_new(2 * (size_t)SORT_SAMPLES);
    sort->bins = (SortBin *)malloc(sizeof(SortBin) << SORT_BIN_BITS);
    if (!scratch || !sort->bins) {
        sort->failed = 1;
        sort_scratch_free(scratch);
        return;
    }
    SortPair *samples = scratch->pairs + SORT_SAMPLES;
    for (uint64_t i = 0; i < SORT_SAMPLES; i++) { /* one in each stride, at a scattered place */
        uint64_t stride = sort->count / SORT_SAMPLES + 1, at = i * stride;
        at += (i * XXH64_PRIME_1 >> 32) % stride;
        samples[i].key = sort->keys[at % sort->count];
    }
    sort_run(samples, SORT_SAMPLES, scratch);
    unsigned bits = varying_bits < SORT_BIN_BITS ? varying_bits : SORT_BIN_BITS;
    sort->shift = varying_bits - bits;
    sort->mask = ((uint64_t)1 << bits) - 1;
    double sampled = (double)SORT_SAMPLES / (double)sort->count;
    size_t in_bucket = (size_t)(sampled * (double)even_share) + 1;
    size_t buckets = 0, shared = 0, at = 0; /* shared: samples in the open shared bucket */
    for (size_t bin = 0; bin <= sort->mask; bin++) {
        size_t first = at;
        while (at < SORT_SAMPLES && (samples[at].key >> sort->shift & sort->mask) == bin) at++;
        SortBin *spread = &sort->bins[bin];
        *spread = (SortBin){0, 0, 0, 0};
        if (at - first <= 2 * in_bucket) {
            if (shared + (at - first) > 2 * in_bucket) {
                buckets++;
                shared = 0;
            }
            spread->first = (uint32_t)buckets;
            shared += at - first;
            continue;
        }
        if (bin) buckets++;
        uint64_t wanted = (at - first) / in_bucket;
        uint64_t range = samples[at - 1].key - samples[first].key;
        while (range >> spread->shift >= wanted) spread->shift++;
        spread->low = samples[first].key;
        spread->first = (uint32_t)buckets;
        spread->limit = (uint32_t)(range >> spread->shift);
        buckets += spread->limit + 1;
        shared = 0;
    }
    sort->buckets = buckets + 1;
    sort_scratch_free(scratch);
}

/* A task sorts the buckets that start within its share of the rows. */
static void sort_columns_buckets(void *context, size_t task) {
    SortColumns *sort = (SortColumns *)context;
    size_t begin = (size_t)((unsigned __int128)sort->count * task / sort->tasks);
    size_t end = (size_t)((unsigned __int128)sort->count * (task + 1) / sort->tasks);
    size_t longest = 0;
    for (size_t bucket = 0; bucket < sort->buckets; bucket++)
        if (sort->starts[bucket] >= begin && sort->starts[bucket] < end) {
            size_t rows = sort->starts[bucket + 1] - sort->starts[bucket];
            if (rows > longest) longest = rows;
        }
    SortScratch *scratch = sort_scratch_new(longest);
    if (!scratch) {
        __atomic_store_n(&sort->failed, 1, __ATOMIC_RELAXED);
        return;
    }
    for (size_t bucket = 0; bucket < sort->buckets; bucket++)
        if (sort->starts[bucket] >= begin && sort->starts[bucket] < end)
            sort_run(sort->out + sort->starts[bucket],
                     sort->starts[bucket + 1] - sort->starts[bucket], scratch);
    sort_scratch_free(scratch);
}

static void sort_columns_copy(const SortColumns *sort) {
    for (size_t i = 0; i < sort->count; i++) {
        sort->out[i].key = sort->keys[i];
        sort->out[i].payload = sort->payloads ? sort->payloads[i] : i;
    }
}

/* Fills out with (keys[i], payloads[i]), or (keys[i], i) without payloads, sorted stably by key.
 * 16 M random keys: 130 ms, 76 with two threads (np.argsort stable: 2.1 s).
 * Allocates about 0.5 MiB a thread, and 16 bytes for each row of the longest bucket.
 * Returns 0, or -ENOMEM with the contents of out undefined.  out overlaps no input. */
static int sort_columns(const uint64_t *keys, const uint64_t *payloads, size_t count,
                        SortPair *out, int threads) {
    SortColumns sort = {.keys = keys, .payloads = payloads, .count = count, .out = out};
    if (is_sorted_u64(keys, count)) {
        sort_columns_copy(&sort);
        return 0;
    }
    if (count <= 2 * SORT_RUN_PAIRS) {
        SortScratch *scratch = sort_scratch_new(count);
        if (!scratch) return -ENOMEM;
        sort_columns_copy(&sort);
        sort_run(out, count, scratch);
        sort_scratch_free(scratch);
        return 0;
    }
    if (threads < 1) threads = 1;
    if (threads > PARALLEL_THREADS_LIMIT) threads = PARALLEL_THREADS_LIMIT;
    uint64_t varying[PARALLEL_THREADS_LIMIT], all = 0;
    sort.varying = varying;
    sort.chunks = (size_t)threads;
    parallel_for(sort.chunks, threads, sort_columns_varying, &sort);
    for (size_t chunk = 0; chunk < sort.chunks; chunk++) all |= varying[chunk];

    unsigned bits = bit_length((count - 1) / SORT_RUN_PAIRS);
    if (bits > SORT_BUCKET_BITS) bits = SORT_BUCKET_BITS;
    if (bits > bit_length(all)) bits = bit_length(all);
    sort.shift = bit_length(all) - bits;
    sort.buckets = (size_t)1 << bits;
    sort.mask = sort.buckets - 1;
    sort.tasks = threads > 1 ? 8 * (size_t)threads : 1;
    size_t even_share = count >> SORT_BUCKET_BITS;
    if (even_share < SORT_RUN_PAIRS) even_share = SORT_RUN_PAIRS;
    size_t longest = sort_columns_lay_out(&sort, threads);
    if (longest > SORT_SKEW * even_share && count > 2 * (size_t)SORT_SAMPLES) {
        sort_columns_spread(&sort, bit_length(all), even_share);
        if (!sort.failed) sort_columns_lay_out(&sort, threads);
    }
    if (!sort.failed) parallel_for(sort.chunks, threads, sort_columns_partition, &sort);
    if (!sort.failed) parallel_for(sort.tasks, threads, sort_columns_buckets, &sort);
    free(sort.positions);
    free(sort.bins);
    return sort.failed ? -ENOMEM : 0;
}

#endif
