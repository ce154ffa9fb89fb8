/* SIGBUS under the engine's own mappings: the handler, and the list of mappings that it reads.
 *
 * A page of a mapped file that the drive cannot give (the file was cut off, a read failed) is a
 * SIGBUS in whoever touches it.  For an address inside a registered mapping the handler writes down
 * that the page is lost, then puts a page of zeros in its place, so that the thread runs on, to a
 * gate that sees what was written down and raises.  Every other SIGBUS goes to the handler that was
 * there before.  docs/decisions has why nothing but the address decides.
 *
 * The handler may interrupt anything anywhere: it takes no lock, allocates nothing and reads only
 * what is below.  Mappings are registered and unregistered under the GIL.  Regions are never freed,
 * but used again; `turn` is odd while one changes.  The owner of a mapping unregisters it before it
 * is unmapped, so the region of a page being touched does not change.
 *
 * Only _faults.pyx includes this: there is one list in a process.
 */
#ifndef CESIUM_FAULTS_H
#define CESIUM_FAULTS_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FAULT_PAGE_BYTES 4096

typedef struct FaultRegion {
    struct FaultRegion *next;
    uint32_t turn;
    int writable;
    uintptr_t base;
    uintptr_t bytes;
    uint64_t *pages; /* which are lost: a bit for each 4096 bytes */
    uint32_t *lost;  /* the owner's count of them, raised before the first zero can be read */
} FaultRegion;

/* An action that was there before ours; the newest first. */
typedef struct FaultAction {
    struct FaultAction *older;
    struct sigaction action;
} FaultAction;

static FaultRegion *fault_regions = NULL;
static FaultAction *fault_actions = NULL;
static uint64_t fault_total = 0; /* of this process: calls compare it between start and gate */
static uintptr_t fault_system_page_bytes = FAULT_PAGE_BYTES;

/* In the static block of thread-local storage: the other kind is allocated at its first touch. */
static __thread int fault_chaining __attribute__((tls_model("initial-exec"))) = 0;
static __thread void *fault_chained_context __attribute__((tls_model("initial-exec"))) = NULL;

static void fault_mark(FaultRegion *region, uintptr_t start, uintptr_t bytes) {
    uintptr_t page = (start - region->base) / FAULT_PAGE_BYTES;
    uintptr_t end = (start + bytes - region->base + FAULT_PAGE_BYTES - 1) / FAULT_PAGE_BYTES;
    uintptr_t all = (region->bytes + FAULT_PAGE_BYTES - 1) / FAULT_PAGE_BYTES;
    for (; page < end && page < all; page++)
        __atomic_fetch_or(region->pages + (page >> 6), 1ULL << (page & 63), __ATOMIC_SEQ_CST);
    __atomic_fetch_add(region->lost, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&fault_total, 1, __ATOMIC_SEQ_CST);
}

static int fault_replace(const FaultRegion *region, uintptr_t start, uintptr_t bytes) {
    int protection = region->writable ? PROT_READ | PROT_WRITE : PROT_READ;
    return mmap((void *)start, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
           == (void *)start;
}

/* Whether the address was in a registered mapping, and now is in a page of zeros. */
static int fault_absorb(uintptr_t address) {
    FaultRegion *region = __atomic_load_n(&fault_regions, __ATOMIC_ACQUIRE);
    for (; region != NULL; region = region->next) {
        uint32_t turn = __atomic_load_n(&region->turn, __ATOMIC_ACQUIRE);
        uintptr_t base = __atomic_load_n(&region->base, __ATOMIC_ACQUIRE);
        uintptr_t bytes = __atomic_load_n(&region->bytes, __ATOMIC_ACQUIRE);
        uintptr_t start = address & ~(fault_system_page_bytes - 1);
        if ((turn & 1) || address - base >= bytes
            || __atomic_load_n(&region->turn, __ATOMIC_ACQUIRE) != turn)
            continue;
        fault_mark(region, start, fault_system_page_bytes);
        if (fault_replace(region, start, fault_system_page_bytes)) return 1;
        /* Too many mappings for the system.  One for the whole region makes them fewer. */
        bytes = (bytes + fault_system_page_bytes - 1) & ~(fault_system_page_bytes - 1);
        fault_mark(region, base, bytes);
        return fault_replace(region, base, bytes);
    }
    return 0;
}

/* Ends the process as if nobody had handled the signal. */
static void fault_default(int number, const siginfo_t *info) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigaction(number, &action, NULL);
    /* A fault comes again with the instruction that we return to; what was sent must be sent again,
       and arrives when this handler returns. */
    if (info->si_code <= 0) raise(number);
}

static void fault_pass_on(int number, siginfo_t *info, void *context) {
    FaultAction *passed = __atomic_load_n(&fault_actions, __ATOMIC_ACQUIRE);
    struct sigaction *action;
    sigset_t before, own;
    /* An action that was put over ours, and ours over it again, may come back to us, by a call or
       by raise() as faulthandler does: then the oldest one gets it. */
    int again = fault_chaining && (info->si_code <= 0 || context == fault_chained_context);
    while (again && passed != NULL && passed->older != NULL) passed = passed->older;
    if (passed == NULL) {
        fault_default(number, info);
        return;
    }
    action = &passed->action;
    if (!(action->sa_flags & SA_SIGINFO)
        && (action->sa_handler == SIG_DFL || action->sa_handler == SIG_IGN)) {
        /* The kernel kills for a fault that is ignored; only what was sent can be ignored. */
        if (action->sa_handler == SIG_DFL || info->si_code > 0) fault_default(number, info);
        return;
    }
    pthread_sigmask(SIG_BLOCK, &action->sa_mask, &before);
    if (action->sa_flags & SA_NODEFER) {
        sigemptyset(&own);
        sigaddset(&own, number);
        pthread_sigmask(SIG_UNBLOCK, &own, NULL);
    }
    fault_chaining = 1;
    fault_chained_context = context;
    if (action->sa_flags & SA_SIGINFO)
        action->sa_sigaction(number, info, context);
    else
        action->sa_handler(number);
    fault_chaining = 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void fault_handler(int number, siginfo_t *info, void *context) {
    int error = errno;
    if (info->si_code <= 0 || !fault_absorb((uintptr_t)info->si_addr))
        fault_pass_on(number, info, context);
    errno = error;
}

/* Puts our handler before whatever handles SIGBUS now; 0, or an errno. */
static int fault_install(void) {
    struct sigaction now, ours;
    FaultAction *newest = fault_actions;
    if (sigaction(SIGBUS, NULL, &now)) return errno;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == fault_handler) return 0;
    if (newest == NULL || newest->action.sa_handler != now.sa_handler
        || newest->action.sa_flags != now.sa_flags) {
        FaultAction *kept = (FaultAction *)malloc(sizeof(FaultAction));
        if (kept == NULL) return ENOMEM;
        kept->older = newest;
        kept->action = now;
        __atomic_store_n(&fault_actions, kept, __ATOMIC_RELEASE);
    }
    fault_system_page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    memset(&ours, 0, sizeof(ours));
    ours.sa_sigaction = fault_handler;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&ours.sa_mask);
    return sigaction(SIGBUS, &ours, NULL) ? errno : 0;
}

/* A region for a mapping, or NULL with the errno in *error. */
static FaultRegion *fault_add(const void *base, uint64_t bytes, int writable, uint32_t *lost,
                              int *error) {
    FaultRegion *region = fault_regions;
    uint64_t words = (bytes / FAULT_PAGE_BYTES + 64) / 64;
    uint64_t *pages = (uint64_t *)calloc(words, 8);
    *error = pages == NULL ? ENOMEM : fault_install();
    while (region != NULL && region->bytes) region = region->next;
    if (*error == 0 && region == NULL) {
        region = (FaultRegion *)calloc(1, sizeof(FaultRegion));
        if (region == NULL) {
            *error = ENOMEM;
        } else {
            region->next = fault_regions;
            __atomic_store_n(&fault_regions, region, __ATOMIC_RELEASE);
        }
    }
    if (*error) {
        free(pages);
        return NULL;
    }
    __atomic_fetch_add(&region->turn, 1, __ATOMIC_SEQ_CST);
    region->writable = writable;
    region->pages = pages;
    region->lost = lost;
    __atomic_store_n(&region->base, (uintptr_t)base, __ATOMIC_SEQ_CST);
    __atomic_store_n(&region->bytes, (uintptr_t)bytes, __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&region->turn, 1, __ATOMIC_SEQ_CST);
    return region;
}

static void fault_remove(FaultRegion *region) {
    __atomic_fetch_add(&region->turn, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&region->bytes, 0, __ATOMIC_SEQ_CST);
    free(region->pages);
    region->pages = NULL;
    region->lost = NULL;
    __atomic_fetch_add(&region->turn, 1, __ATOMIC_SEQ_CST);
}

#endif
