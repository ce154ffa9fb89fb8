/* Kernels: stable sort of byte strings, by heads of 8 bytes at a depth that grows.
 * Included by _native.h, which states the rules of thread safety and dispatch, after _sort.h.
 *
 * Owns: scratch memory, allocated and freed within one call.
 * Invariants:
 *  1. The sort is stable: equal strings stay in the order of their indexes.
 *  2. No input is quadratic in bytes, and none recurses: groups still to be refined are in a list,
 *     and each look at bytes that do not sort is at most twice as long as what it skips.
 */
#ifndef CESIUM_SORT_STRINGS_H
#define CESIUM_SORT_STRINGS_H

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

/* Sorts further the strings of pairs[start:end], whose keys are their heads at depth, in order. */
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
 * ones by index.  Returns 0, or -ENOMEM.  Allocates 16 bytes a string, and 16 more for each of the
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
