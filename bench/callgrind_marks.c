/* Marks for bench/counted_kernels.py: what lies between begin() and end() is counted, under a name.
 *
 * Owns: nothing.  Outside valgrind the requests do nothing.
 */
#include <valgrind/callgrind.h>

void begin(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void end(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
