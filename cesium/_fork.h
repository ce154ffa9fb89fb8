/* How often this process was forked since the module was loaded, in the child: 0 in the parent.
 *
 * A child has copies of mutexes that threads of the parent held, and of conditions that they waited
 * for.  What a child drops it therefore leaks, if dropping would take one of them.
 *
 * Every module that includes this has a counter of its own. */
#ifndef CESIUM_FORK_H
#define CESIUM_FORK_H

#include <pthread.h>
#include <stdint.h>

static uint64_t process_forks = 0;

static void process_was_forked(void) { process_forks++; }

__attribute__((constructor)) static void process_forks_start(void) {
    (void)pthread_atfork(0, 0, process_was_forked);
}

#endif
