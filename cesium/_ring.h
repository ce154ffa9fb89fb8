/* Many reads of a file in flight at once, by one thread: the drive's own rate, with nothing of the
   interpreter in it.  For measuring drives (cesium/benchmark); the engine reads in other ways.

   Raw io_uring, without a library: one ring a call, entry i of the queue always in place i.  Where
   the headers or the kernel do not have it, ring_read gives -ENOSYS or the kernel's own refusal. */

#ifndef CESIUM_RING_H
#define CESIUM_RING_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t ring_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* One read after the other; latencies in nanoseconds.  0, or -errno; -EIO for a short read. */
static int pread_all(const int32_t *fds, const int64_t *offsets, int64_t count, uint32_t bytes,
                     uint8_t *buffer, uint64_t *latencies) {
    for (int64_t at = 0; at < count; at++) {
        uint64_t start = ring_clock();
        ssize_t done = pread(fds[at], buffer, bytes, offsets[at]);
        if (done < 0 && errno == EINTR) {
            at--;
            continue;
        }
        if (done != (ssize_t)bytes)
            return done < 0 ? -errno : -EIO;
        latencies[at] = ring_clock() - start;
    }
    return 0;
}

#if defined(__NR_io_uring_setup) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>

typedef struct {
    int fd;
    uint32_t entries;
    uint8_t *queues;
    size_t queues_bytes;
    struct io_uring_sqe *submissions;
    uint32_t *submission_tail;
    uint32_t *completion_head;
    uint32_t *completion_tail;
    uint32_t completion_mask;
    struct io_uring_cqe *completions;
} Ring;

static void ring_close(Ring *ring) {
    if (ring->submissions != MAP_FAILED)
        munmap(ring->submissions, ring->entries * sizeof(struct io_uring_sqe));
    if (ring->queues != MAP_FAILED)
        munmap(ring->queues, ring->queues_bytes);
    close(ring->fd);
}

static int ring_open(Ring *ring, uint32_t depth) {
    struct io_uring_params params;
    size_t completions_end;
    uint32_t *array;
    memset(&params, 0, sizeof params);
    ring->fd = (int)syscall(__NR_io_uring_setup, depth, &params);
    if (ring->fd < 0)
        return -errno;
    ring->entries = params.sq_entries;
    ring->queues = MAP_FAILED;
    ring->submissions = MAP_FAILED;
    if (!(params.features & IORING_FEAT_SINGLE_MMAP)) { /* before Linux 5.4 */
        ring_close(ring);
        return -ENOSYS;
    }
    ring->queues_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    completions_end = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    if (completions_end > ring->queues_bytes)
        ring->queues_bytes = completions_end;
    ring->queues = mmap(NULL, ring->queues_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
    ring->submissions = mmap(NULL, ring->entries * sizeof(struct io_uring_sqe),
                             PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
                             IORING_OFF_SQES);
    if (ring->queues == MAP_FAILED || ring->submissions == MAP_FAILED) {
        int error = errno;
        ring_close(ring);
        return -error;
    }
    array = (uint32_t *)(ring->queues + params.sq_off.array);
    for (uint32_t place = 0; place < ring->entries; place++)
        array[place] = place;
    ring->submission_tail = (uint32_t *)(ring->queues + params.sq_off.tail);
    ring->completion_head = (uint32_t *)(ring->queues + params.cq_off.head);
    ring->completion_tail = (uint32_t *)(ring->queues + params.cq_off.tail);
    ring->completion_mask = *(uint32_t *)(ring->queues + params.cq_off.ring_mask);
    ring->completions = (struct io_uring_cqe *)(ring->queues + params.cq_off.cqes);
    return 0;
}

/* All reads, `depth` (at least 1) of them at once, into `buffers` of depth * bytes.  Latencies are
   from handing over to seeing the completion, in nanoseconds.  0, or -errno. */
static int ring_read(const int32_t *fds, const int64_t *offsets, int64_t count, uint32_t bytes,
                     uint32_t depth, uint8_t *buffers, uint64_t *latencies) {
    Ring ring = {0};
    int64_t sent = 0, done = 0;
    uint32_t waiting = 0, lanes = 0; /* queued and not yet taken; lanes that no read is in */
    int status = ring_open(&ring, depth);
    uint32_t *free_lanes = malloc(depth * sizeof *free_lanes);
    int64_t *read_of = malloc(depth * sizeof *read_of);
    uint64_t *started = malloc(depth * sizeof *started);
    if (status < 0)
        goto freed;
    if (!free_lanes || !read_of || !started) {
        status = -ENOMEM;
        goto closed;
    }
    for (; lanes < depth; lanes++)
        free_lanes[lanes] = lanes;
    while (done < count) {
        uint32_t tail = *ring.submission_tail, head, end;
        uint64_t now = ring_clock();
        long taken;
        for (; lanes && sent < count && status == 0; sent++, tail++, waiting++) {
            uint32_t lane = free_lanes[--lanes];
            struct io_uring_sqe *entry = &ring.submissions[tail & (ring.entries - 1)];
            memset(entry, 0, sizeof *entry);
            entry->opcode = IORING_OP_READ;
            entry->fd = fds[sent];
            entry->off = (uint64_t)offsets[sent];
            entry->addr = (uint64_t)(uintptr_t)(buffers + (size_t)lane * bytes);
            entry->len = bytes;
            entry->user_data = lane;
            read_of[lane] = sent;
            started[lane] = now;
        }
        __atomic_store_n(ring.submission_tail, tail, __ATOMIC_RELEASE);
        taken = syscall(__NR_io_uring_enter, ring.fd, waiting, 1, IORING_ENTER_GETEVENTS, NULL, 0);
        if (taken < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) {
            status = -errno; /* closing the ring waits for what is in flight */
            goto closed;
        }
        waiting -= taken > 0 ? (uint32_t)taken : 0;
        head = *ring.completion_head;
        end = __atomic_load_n(ring.completion_tail, __ATOMIC_ACQUIRE);
        now = ring_clock();
        for (; head != end; head++, done++) {
            struct io_uring_cqe *entry = &ring.completions[head & ring.completion_mask];
            uint32_t lane = (uint32_t)entry->user_data;
            if (entry->res != (int32_t)bytes && status == 0) {
                status = entry->res < 0 ? entry->res : -EIO;
                count = sent; /* what is in flight is waited for, no more is sent */
            }
            latencies[read_of[lane]] = now - started[lane];
            free_lanes[lanes++] = lane;
        }
        __atomic_store_n(ring.completion_head, head, __ATOMIC_RELEASE);
    }
closed:
    ring_close(&ring);
freed:
    free(free_lanes);
    free(read_of);
    free(started);
    return status;
}

#else

static int ring_read(const int32_t *fds, const int64_t *offsets, int64_t count, uint32_t bytes,
                     uint32_t depth, uint8_t *buffers, uint64_t *latencies) {
    return -ENOSYS;
}

#endif
#endif
