/* Lets the Nth allocation of cesium's compiled modules fail: loaded before libc in a child process.
 * Allocations of Python and of other libraries are not counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static long fail_at, lasting, counted, failed;
static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);

/* dlsym may allocate before calloc is found. */
static char early[1 << 16];
static size_t early_used;

void failing_malloc_set(long nth, long forever) {
    fail_at = nth;
    lasting = forever;
    counted = failed = 0;
}

long failing_malloc_counted(void) { return counted; }
long failing_malloc_failed(void) { return failed; }

static int fails(void *caller) {
    Dl_info info;
    if (!dladdr(caller, &info) || !info.dli_fname || !strstr(info.dli_fname, "/cesium/_")) return 0;
    long now = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (!fail_at || !(now == fail_at || (lasting && now > fail_at))) return 0;
    __atomic_add_fetch(&failed, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t bytes) {
    if (!real_malloc) real_malloc = dlsym(RTLD_NEXT, "malloc");
    return fails(__builtin_return_address(0)) ? NULL : real_malloc(bytes);
}

void *calloc(size_t count, size_t bytes) {
    static int looking;
    if (!real_calloc) {
        if (looking) {
            void *place = early + early_used;
            early_used += (count * bytes + 15) & ~(size_t)15;
            return early_used <= sizeof(early) ? place : NULL;
        }
        looking = 1;
        real_calloc = dlsym(RTLD_NEXT, "calloc");
    }
    return fails(__builtin_return_address(0)) ? NULL : real_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes) {
    if (!real_realloc) real_realloc = dlsym(RTLD_NEXT, "realloc");
    return fails(__builtin_return_address(0)) ? NULL : real_realloc(old, bytes);
}
