/* Kernels: stable sorts of columns and of byte strings, and the threads that share them.
 * Included by _native.h, which states the rules of thread safety and dispatch.
 *
 * Owns: scratch memory, allocated and freed within one call.  Nothing is kept between calls.
 * Invariants:
 *  1. Every sort is stable, so of equal keys the last row given is the last in the result.
 *  2. No input is quadratic: insertion sort sees at most SORT_SMALL pairs of one group, and every
 *     recursion has consumed key bits (at most 64) or string bytes (an explicit list, no recursion).
 */
#ifndef CESIUM_SORT_H
#define CESIUM_SORT_H

#include <errno.h>
#include <pthread.h>

typedef struct SortPair {
    uint64_t key;
    uint64_t payload;
} SortPair;

/* ---- threads ---------------------------------------------------------------------------------- */

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

/* ---- is it sorted already? ----------------------------------------------------------------------- */

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

/* ---- a run of pairs that fits the cache ------------------------------------------------------------ */

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

/* ---- columns ------------------------------------------------------------------------------------------ */

#define SORT_RUN_PAIRS 8192      /* wanted in a bucket: 128 KiB and as much scratch, in a 1 MiB L2 */
#define SORT_BUCKET_BITS 11      /* at most: the open lines of one partition are 128 KiB */
#define SORT_LINE_PAIRS 4        /* of 16 bytes in a cache line */
#define SORT_STREAM_BYTES (8u << 20) /* outputs above this go past the cache */

typedef struct SortColumns {
    const uint64_t *keys;
    const uint64_t *payloads;
    size_t count;
    SortPair *out;
    unsigned shift;     /* bucket = (key >> shift) & bucket_mask */
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

static void sort_columns_count(void *context, size_t chunk) {
    SortColumns *sort = (SortColumns *)context;
    size_t end = sort_chunk_start(sort, chunk + 1), mask = sort->buckets - 1;
    size_t *counts = sort->positions + chunk * sort->buckets;
    memset(counts, 0, sort->buckets * sizeof(size_t));
    for (size_t i = sort_chunk_start(sort, chunk); i < end; i++)
        counts[sort->keys[i] >> sort->shift & mask]++;
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
static void sort_columns_partition(void *context, size_t chunk) {
    SortColumns *sort = (SortColumns *)context;
    size_t buckets = sort->buckets, mask = buckets - 1;
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
        size_t bucket = key >> sort->shift & mask;
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
    sort.tasks = threads > 1 ? 8 * (size_t)threads : 1;
    sort.positions = (size_t *)malloc((sort.chunks + 1) * sort.buckets * sizeof(size_t) +
                                      sizeof(size_t));
    if (!sort.positions) return -ENOMEM;
    sort.starts = sort.positions + sort.chunks * sort.buckets;
    parallel_for(sort.chunks, threads, sort_columns_count, &sort);
    size_t total = 0;
    for (size_t bucket = 0; bucket < sort.buckets; bucket++) {
        sort.starts[bucket] = total;
        for (size_t chunk = 0; chunk < sort.chunks; chunk++) {
            size_t *position = &sort.positions[chunk * sort.buckets + bucket], here = *position;
            *position = total;
            total += here;
        }
    }
    sort.starts[sort.buckets] = total;
    parallel_for(sort.chunks, threads, sort_columns_partition, &sort);
    if (!sort.failed) parallel_for(sort.tasks, threads, sort_columns_buckets, &sort);
    free(sort.positions);
    return sort.failed ? -ENOMEM : 0;
}

/* ---- byte strings ------------------------------------------------------------------------------------------ */

typedef struct StringGroup {
    size_t start;
    size_t end;
    size_t depth; /* bytes that all of its strings share and have */
} StringGroup;

typedef struct SortStrings {
    const int64_t *offsets;
    const uint8_t *data;
    size_t count;
    size_t depth;
    SortPair *pairs; /* head at a depth, index of the string */
    uint64_t *heads; /* of the first step only */
    size_t tasks;
    int failed;
} SortStrings;

CESIUM_INLINE size_t string_bytes(const SortStrings *sort, uint64_t index) {
    return (size_t)(sort->offsets[index + 1] - sort->offsets[index]);
}

CESIUM_INLINE const uint8_t *string_at(const SortStrings *sort, uint64_t index, size_t depth) {
    return sort->data + sort->offsets[index] + depth;
}

CESIUM_INLINE uint64_t string_head(const SortStrings *sort, uint64_t index, size_t depth) {
    return load_head(string_at(sort, index, depth), string_bytes(sort, index) - depth);
}

static int is_sorted_strings(const int64_t *offsets, const uint8_t *data, size_t count) {
    int answer = 2;
    for (size_t i = 1; i < count; i++) {
        int order = compare_bytes(data + offsets[i - 1], (size_t)(offsets[i] - offsets[i - 1]),
                                  data + offsets[i], (size_t)(offsets[i + 1] - offsets[i]));
        if (order > 0) return 0;
        if (order == 0) answer = 1;
    }
    return answer;
}

/* How many bytes from depth on, at most `limit`, a and b share. */
CESIUM_INLINE size_t bytes_shared(const uint8_t *a, const uint8_t *b, size_t limit) {
    size_t at = 0;
    for (; at + 8 <= limit; at += 8) {
        uint64_t differing = load_u64(a + at) ^ load_u64(b + at);
        if (differing) return at + (size_t)__builtin_ctzll(differing) / 8;
    }
    while (at < limit && a[at] == b[at]) at++;
    return at;
}

/* The bytes from depth on, at most `limit`, that all strings of the pairs share. */
static size_t strings_shared(const SortStrings *sort, const SortPair *pairs, size_t count,
                             size_t depth, size_t limit) {
    const uint8_t *first = string_at(sort, pairs[0].payload, depth);
    size_t bytes = string_bytes(sort, pairs[0].payload) - depth;
    if (bytes < limit) limit = bytes;
    for (size_t i = 1; i < count && limit; i++) {
        bytes = string_bytes(sort, pairs[i].payload) - depth;
        if (bytes < limit) limit = bytes;
        limit = bytes_shared(first, string_at(sort, pairs[i].payload, depth), limit);
    }
    return limit;
}

#define STRINGS_SMALL 8 /* strings: insertion sort by comparison up to here */

static void sort_strings_small(const SortStrings *sort, SortPair *pairs, size_t count,
                               size_t depth) {
    for (size_t i = 1; i < count; i++) {
        SortPair moving = pairs[i];
        const uint8_t *tail = string_at(sort, moving.payload, depth);
        size_t tail_bytes = string_bytes(sort, moving.payload) - depth, at = i;
        for (; at; at--) {
            uint64_t other = pairs[at - 1].payload;
            if (compare_bytes(string_at(sort, other, depth), string_bytes(sort, other) - depth,
                              tail, tail_bytes) <= 0)
                break;
            pairs[at] = pairs[at - 1];
        }
        pairs[at] = moving;
    }
}

/* Equal heads at a depth: the strings that end within the head come first, by length, because each
 * of them begins all that are longer.  Returns how many go on beyond the head. */
static size_t sort_strings_ended(const SortStrings *sort, SortPair *pairs, size_t count,
                                 size_t depth, SortScratch *scratch) {
    size_t positions[10] = {0};
    for (size_t i = 0; i < count; i++) {
        size_t left = string_bytes(sort, pairs[i].payload) - depth;
        pairs[i].key = left > 8 ? 9 : left; /* the head has served */
        positions[pairs[i].key]++;
    }
    size_t longer = positions[9];
    if (longer == count) return longer;
    sort_positions_from_counts(positions, 10);
    sort_pass(pairs, scratch->pairs, count, positions, 0, 15);
    memcpy(pairs, scratch->pairs, count * sizeof(SortPair));
    return longer;
}

/* Sorts the strings of pairs[start:end], whose keys are their heads at `depth` in order, further. */
static int sort_strings_refine(const SortStrings *sort, size_t start, size_t end, size_t depth,
                               SortScratch *scratch) {
    StringGroup *groups = NULL; /* still to do; disjoint, so never more than pairs / 2 */
    size_t used = 0, capacity = 0;
    for (;;) {
        /* pairs[start:end] are in order of their heads at depth: find the groups of equal heads. */
        for (size_t first = start, last; first < end; first = last) {
            uint64_t head = sort->pairs[first].key;
            for (last = first + 1; last < end && sort->pairs[last].key == head;) last++;
            if (last - first < 2) continue;
            size_t longer =
                sort_strings_ended(sort, sort->pairs + first, last - first, depth, scratch);
            if (longer < 2) continue;
            if (longer <= STRINGS_SMALL) {
                sort_strings_small(sort, sort->pairs + last - longer, longer, depth + 8);
                continue;
            }
            if (used == capacity) {
                size_t wanted = capacity ? 2 * capacity : 64;
                StringGroup *grown = (StringGroup *)realloc(groups, wanted * sizeof(StringGroup));
                if (!grown) {
                    free(groups);
                    return -ENOMEM;
                }
                groups = grown;
                capacity = wanted;
            }
            groups[used++] = (StringGroup){last - longer, last, depth + 8};
        }
        if (used == 0) break;
        used--;
        start = groups[used].start;
        end = groups[used].end;
        depth = groups[used].depth;
        SortPair *pairs = sort->pairs + start;
        /* Skip what all share.  The limit doubles while nothing differs: never more than about
         * twice the bytes that are skipped are looked at, whatever the order of the strings. */
        for (size_t limit = 16, shared;; limit *= 2) {
            shared = strings_shared(sort, pairs, end - start, depth, limit);
            depth += shared;
            if (shared < limit) break;
        }
        for (size_t i = 0; i < end - start; i++)
            pairs[i].key = string_head(sort, pairs[i].payload, depth);
        sort_run(pairs, end - start, scratch);
    }
    free(groups);
    return 0;
}

static void sort_strings_heads(void *context, size_t task) {
    SortStrings *sort = (SortStrings *)context;
    size_t end = (size_t)((unsigned __int128)sort->count * (task + 1) / sort->tasks);
    for (size_t i = (size_t)((unsigned __int128)sort->count * task / sort->tasks); i < end; i++)
        sort->heads[i] = string_head(sort, i, sort->depth);
}

/* The end of the group of equal heads that row is inside of. */
static size_t sort_strings_boundary(const SortStrings *sort, size_t row) {
    while (row && row < sort->count && sort->pairs[row].key == sort->pairs[row - 1].key) row++;
    return row;
}

CESIUM_INLINE size_t sort_strings_share(const SortStrings *sort, size_t task) {
    return (size_t)((unsigned __int128)sort->count * task / sort->tasks);
}

typedef struct SortStringsShares {
    SortStrings *sort;
    const size_t *starts; /* [task], one more at the end: taken before keys are overwritten */
} SortStringsShares;

static void sort_strings_share_refine(void *context, size_t task) {
    SortStringsShares *shares = (SortStringsShares *)context;
    SortStrings *sort = shares->sort;
    size_t start = shares->starts[task], end = shares->starts[task + 1], longest = 0;
    for (size_t first = start, last; first < end; first = last) {
        for (last = first + 1; last < end && sort->pairs[last].key == sort->pairs[first].key;)
            last++;
        if (last - first > longest) longest = last - first;
    }
    if (longest < 2) return;
    SortScratch *scratch = sort_scratch_new(longest);
    if (!scratch || sort_strings_refine(sort, start, end, sort->depth, scratch))
        __atomic_store_n(&sort->failed, 1, __ATOMIC_RELAXED);
    sort_scratch_free(scratch);
}

/* The bytes that all strings share: they would make every first head equal. */
static size_t strings_shared_by_all(const int64_t *offsets, const uint8_t *data, size_t count) {
    size_t limit = (size_t)(offsets[1] - offsets[0]);
    for (size_t i = 1; i < count && limit; i++) {
        size_t bytes = (size_t)(offsets[i + 1] - offsets[i]);
        limit = bytes_shared(data + offsets[0], data + offsets[i], bytes < limit ? bytes : limit);
    }
    return limit;
}

#define SORT_STRINGS_TASKS_LIMIT (8 * PARALLEL_THREADS_LIMIT)

/* Fills order with the indexes of the strings data[offsets[i]:offsets[i + 1]] in byte order, equal
 * ones by index.  Returns 0, or -ENOMEM.  Allocates 32 bytes a string, and 16 more for each of the
 * largest group of strings that agree in the 8 bytes after what all share. */
static int sort_strings(const int64_t *offsets, const uint8_t *data, size_t count,
                        uint64_t *order, int threads) {
    if (is_sorted_strings(offsets, data, count)) {
        for (size_t i = 0; i < count; i++) order[i] = i;
        return 0;
    }
    if (threads < 1) threads = 1;
    if (threads > PARALLEL_THREADS_LIMIT) threads = PARALLEL_THREADS_LIMIT;
    SortStrings sort = {.offsets = offsets, .data = data, .count = count, .heads = order};
    sort.depth = strings_shared_by_all(offsets, data, count);
    sort.tasks = threads > 1 ? 8 * (size_t)threads : 1;
    sort.pairs = (SortPair *)malloc(count * sizeof(SortPair));
    if (!sort.pairs) return -ENOMEM;
    parallel_for(sort.tasks, threads, sort_strings_heads, &sort); /* order holds the heads */
    int status = sort_columns(sort.heads, NULL, count, sort.pairs, threads);
    if (status == 0) {
        size_t starts[SORT_STRINGS_TASKS_LIMIT + 1];
        for (size_t task = 0; task <= sort.tasks; task++)
            starts[task] = sort_strings_boundary(&sort, sort_strings_share(&sort, task));
        SortStringsShares shares = {&sort, starts};
        parallel_for(sort.tasks, threads, sort_strings_share_refine, &shares);
        if (sort.failed) status = -ENOMEM;
        for (size_t i = 0; i < count; i++) order[i] = sort.pairs[i].payload;
    }
    free(sort.pairs);
    return status;
}

#endif
