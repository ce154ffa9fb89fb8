/* How often something took how long: a histogram with log-linear buckets, and a ticker that says
   which calls are worth a look at the clock.

   The buckets are HdrHistogram's (Gil Tene, http://hdrhistogram.org): its scheme, not its code.  A
   value's highest 7 bits say its bucket: values below 128 have one each, and every power of two
   above is cut into 64, so that no value is off by more than 1/64.

   Thread safety: every function may be called from any thread at any time, with no lock; what is
   read while others write is a little older here than there.  All accesses are relaxed atomics. */

#ifndef CESIUM_HISTOGRAM_H
#define CESIUM_HISTOGRAM_H

#include <stdint.h>
#include <time.h>

#define HISTOGRAM_SUB_BITS 7
#define HISTOGRAM_HALF (1u << (HISTOGRAM_SUB_BITS - 1))
#define HISTOGRAM_VALUE_BITS 41 /* in nanoseconds, 36 minutes; what is larger counts as that */
#define HISTOGRAM_BUCKETS ((HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 2) * HISTOGRAM_HALF)
#define SAMPLE_MASK 127u /* a sample for each 64.5 calls on average */

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t sum;
    uint64_t minimum; /* UINT64_MAX when there is none */
    uint64_t maximum;
} Histogram;

#define LOAD(word) __atomic_load_n((word), __ATOMIC_RELAXED)
#define STORE(word, value) __atomic_store_n((word), (value), __ATOMIC_RELAXED)
#define ADD(word, value) __atomic_fetch_add((word), (value), __ATOMIC_RELAXED)

static inline uint64_t clock_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint32_t histogram_index(uint64_t value) {
    uint32_t bits = 64 - (uint32_t)__builtin_clzll(value | (2 * HISTOGRAM_HALF - 1));
    uint32_t bucket = bits - HISTOGRAM_SUB_BITS;
    return bucket * HISTOGRAM_HALF + (uint32_t)(value >> bucket);
}

/* The largest value that has this index. */
static inline uint64_t histogram_value(uint32_t index) {
    uint32_t bucket = index < 2 * HISTOGRAM_HALF ? 0 : index / HISTOGRAM_HALF - 1;
    return (((uint64_t)index - bucket * HISTOGRAM_HALF + 1) << bucket) - 1;
}

/* One value, standing for `weight` calls. */
static inline void histogram_record(Histogram *histogram, uint64_t value, uint64_t weight) {
    uint64_t known;
    if (value >> HISTOGRAM_VALUE_BITS)
        value = ((uint64_t)1 << HISTOGRAM_VALUE_BITS) - 1;
    known = LOAD(&histogram->minimum);
    while (value < known
           && !__atomic_compare_exchange_n(&histogram->minimum, &known, value, 1, __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED)) {
    }
    known = LOAD(&histogram->maximum);
    while (value > known
           && !__atomic_compare_exchange_n(&histogram->maximum, &known, value, 1, __ATOMIC_RELAXED,
                                           __ATOMIC_RELAXED)) {
    }
    ADD(&histogram->counts[histogram_index(value)], weight);
    ADD(&histogram->sum, value * weight);
    ADD(&histogram->total, weight);
}

/* The value that `share` (0 to 1) of all calls do not exceed; 0 when there is none. */
static inline uint64_t histogram_quantile(const Histogram *histogram, double share) {
    uint64_t total = 0, before = 0, wanted, value;
    for (uint32_t index = 0; index < HISTOGRAM_BUCKETS; index++)
        total += LOAD(&histogram->counts[index]);
    wanted = (uint64_t)(share * (double)total);
    wanted += (double)wanted < share * (double)total || wanted == 0;
    for (uint32_t index = 0; index < HISTOGRAM_BUCKETS && total; index++) {
        before += LOAD(&histogram->counts[index]);
        if (before >= wanted) {
            value = histogram_value(index);
            return value < LOAD(&histogram->maximum) ? value : LOAD(&histogram->maximum);
        }
    }
    return 0;
}

/* Counts calls and chooses which are timed: at distances that are random, for calls may come in
   a rhythm.  Belongs to who holds the GIL, or a lock of its own; others may read the count. */
typedef struct {
    uint64_t count;
    uint64_t sample_at; /* the call that is timed next */
    uint64_t sampled;   /* calls up to the last one that was timed */
    uint64_t random;
} Ticker;

/* Whether this call is to be timed: four instructions and a branch that is seldom taken. */
static inline int ticker_tick(Ticker *ticker) {
    uint64_t count = LOAD(&ticker->count) + 1;
    STORE(&ticker->count, count);
    return __builtin_expect(count > ticker->sample_at, 0);
}

/* A call that was to be timed has been; returns how many it stands for. */
static inline uint64_t ticker_weight(Ticker *ticker) {
    uint64_t count = LOAD(&ticker->count);
    uint64_t weight = count - ticker->sampled;
    ticker->random = ticker->random * 6364136223846793005u + 1442695040888963407u;
    ticker->sampled = count;
    ticker->sample_at = count + ((ticker->random >> 33) & SAMPLE_MASK);
    return weight;
}

static inline void count_more(uint64_t *word, uint64_t amount) {
    ADD(word, amount);
}

static inline uint64_t counted(const uint64_t *word) {
    return LOAD(word);
}

#undef LOAD
#undef STORE
#undef ADD

#endif
