"""Reading one blob file: contract in _blobs.pxd, bytes in docs/format.md, "Blob files"."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.string cimport memcpy

import errno
import os
import threading

from cesium._faults cimport fault_register, fault_unregister, load_lost
from cesium._layout cimport (
    BLOB_BYTES_MAX, BLOB_MAGIC, BlobHeader, FORMAT_VERSION, PAGE_BYTES, STATUS_CORRUPT, STATUS_IO,
    STATUS_NO_MEMORY, STATUS_OK,
)
from cesium._page_writer cimport page_checksum

from cesium.errors import CorruptionError, Error

cdef extern from *:
    """
    #include <sys/mman.h>

    static inline const void *blob_load_map(const void *place) {
        return __atomic_load_n((void *const *)place, __ATOMIC_ACQUIRE);
    }
    static inline void blob_store_map(void *place, const void *map) {
        __atomic_store_n((void **)place, (void *)map, __ATOMIC_RELEASE);
    }
    static inline int blob_claim(int *claim) {
        return __atomic_exchange_n(claim, 1, __ATOMIC_ACQ_REL) == 0;
    }
    static inline void blob_store_status(int *place, int status) {
        __atomic_store_n(place, status, __ATOMIC_RELEASE);
    }
    static inline int blob_load_status(const int *place) {
        return __atomic_load_n(place, __ATOMIC_ACQUIRE);
    }
    """
    const void *blob_load_map(const void *place) noexcept nogil
    void blob_store_map(void *place, const void *map) noexcept nogil
    int blob_claim(int *claim) noexcept nogil
    void blob_store_status(int *place, int status) noexcept nogil
    int blob_load_status(const int *place) noexcept nogil
    int madvise(void *address, size_t bytes, int advice) noexcept nogil
    const int MADV_WILLNEED

cdef enum:
    PIECE_BYTES = 1 << 17           # copied, then checked while it is in the cache
    READ_AHEAD_BYTES = 1 << 15      # from here on one request for all of a value beats its faults


# --- values --------------------------------------------------------------------------------------


cdef int blob_damaged(Blob *blob, const BlobPointer *pointer, uint32_t found) noexcept nogil:
    if blob_claim(&blob.failed_claim):
        blob.failed = pointer[0]
        blob.failed_found = found
        blob_store_status(&blob.failed_status, STATUS_CORRUPT)
    return STATUS_CORRUPT


cdef int map_from_nogil(Blob *blob) noexcept with gil:
    try:
        (<BlobReader>blob.reader).map_file()
    except MemoryError:
        return STATUS_NO_MEMORY
    except BaseException:               # kept by map_file, raised by raise_failure
        return blob_load_status(&blob.failed_status) or STATUS_IO
    return STATUS_OK


cdef int blob_locate(Blob *blob, const BlobPointer *pointer, const uint8_t **data) noexcept nogil:
    cdef int status
    if blob_load_map(&blob.map) == NULL:
        status = map_from_nogil(blob)
        if status != STATUS_OK:
            return status
    if (pointer.offset < PAGE_BYTES or pointer.offset % 8 or pointer.bytes == 0
            or pointer.bytes > BLOB_BYTES_MAX or pointer.offset > blob.bytes
            or pointer.bytes > blob.bytes - pointer.offset):
        return blob_damaged(blob, pointer, pointer.checksum)
    data[0] = blob.map + pointer.offset
    return STATUS_OK


cdef int blob_read(Blob *blob, const BlobPointer *pointer, uint8_t *destination) noexcept nogil:
    cdef uint32_t found = blob_seed(pointer.blob_id, pointer.offset)
    cdef const uint8_t *data
    cdef const uint8_t *piece
    cdef uint64_t done = 0
    cdef uint64_t step
    cdef int status = blob_locate(blob, pointer, &data)
    if status != STATUS_OK:
        return status
    if pointer.bytes >= READ_AHEAD_BYTES:
        madvise(<void *>(blob.map + pointer.offset // PAGE_BYTES * PAGE_BYTES),
                pointer.bytes + pointer.offset % PAGE_BYTES, MADV_WILLNEED)
    while done < pointer.bytes:
        step = min(pointer.bytes - done, <uint64_t>PIECE_BYTES)
        piece = data + done
        if destination != NULL:
            memcpy(destination + done, piece, step)
            piece = destination + done      # what the caller gets is what is checked
        found = crc32c(found, piece, step)
        done += step
    return STATUS_OK if found == pointer.checksum else blob_damaged(blob, pointer, found)


# --- Python --------------------------------------------------------------------------------------


cdef class BlobReader:
    """One blob file, mapped at its first use.  Safe from any thread.

    files: the store's cesium.files.Files.  name: of the file in it.  file_bytes, checksum: its size
    and the checksum of all its bytes by the records, or 0.  store_uuid: 16 bytes that the file must
    carry.
    """

    def __init__(self, object files, str name, uint64_t blob_id, uint64_t file_bytes,
                 uint32_t checksum, bytes store_uuid not None):
        if self.blob.reader != NULL:
            raise ValueError("this reader was set up already")
        self.files = files
        self.name = name
        self.path = files.path(name)
        self.file_bytes = file_bytes
        self.checksum = checksum
        self.store_uuid = store_uuid
        # Mapping runs Python: a signal handler or a finalizer in it may read the same file.
        self.mutex = threading.RLock()
        self.process = os.getpid()
        self.blob.id = blob_id
        self.blob.reader = <void *>self

    def __del__(self):
        # A forked child drops its copy; the file is the parent's.
        if self.doomed and self.process == os.getpid():
            self.doomed = False
            self.files.remove(self.name)

    def __dealloc__(self):
        fault_unregister(self.region)
        Py_XDECREF(self.memory)

    @property
    def id(self):
        """The id of the file."""
        return self.blob.id

    def pin(self):
        """Keep the file readable, if it is unlinked too, without reading any of it; once.

        Errors: OSError; ValueError when it is empty.
        """
        with self.mutex:
            if self.blob.map == NULL and self.pinned is None:
                self.pinned = self.files.map_readonly(self.name)

    def map(self):
        """Map the file now.  Errors: OSError, CorruptionError, Error (a newer format)."""
        self.map_file()

    cdef int map_file(self) except -1:
        with self.mutex:
            if self.blob.map != NULL:
                return 0
            try:
                self.map_locked()
            except BaseException as failure:
                self.map_failure = failure
                blob_store_status(
                    &self.blob.failed_status,
                    STATUS_CORRUPT if isinstance(failure, CorruptionError) else STATUS_IO)
                raise
            self.map_failure = None         # an earlier try may have failed for want of descriptors
            blob_store_status(&self.blob.failed_status, STATUS_OK)
        return 0

    cdef int map_locked(self) except -1:
        cdef const uint8_t[::1] view
        cdef uint8_t header[4096]
        cdef void *region
        memory = self.pinned
        size = memory.size if memory is not None else self.files.size(self.name)
        if size < PAGE_BYTES:
            self.corrupt(0, "the file is too short", f"{PAGE_BYTES} bytes or more", f"{size} bytes")
        if memory is None:
            memory = self.files.map_readonly(self.name)
        view = memory
        region = fault_register(&view[0], <uint64_t>view.shape[0], False, &self.blob.lost)
        try:
            memcpy(header, &view[0], PAGE_BYTES)
            self.check_header(header)
        except BaseException:
            fault_unregister(region)
            raise
        if self.blob.map != NULL:       # a signal handler or a finalizer in the midst mapped it
            fault_unregister(region)
            return 0
        Py_INCREF(memory)
        self.memory = <PyObject *>memory
        self.pinned = None
        self.region = region
        self.blob.bytes = <uint64_t>view.shape[0]
        blob_store_map(&self.blob.map, &view[0])
        return 0

    cdef int check_header(self, const uint8_t *page) except -1:
        """What a sound header says must fit; without one the values speak for themselves.

        Each value has a checksum of its own, seeded with the file's id, so a damaged header, which
        verifying tells, takes no value with it.
        """
        cdef const BlobHeader *header = <const BlobHeader *>page
        if header.checksum != page_checksum(header.blob_id, 0, page) or header.magic != BLOB_MAGIC:
            return 0
        if header.format_version != FORMAT_VERSION or header.incompatible_features:
            raise Error(f"{self.path}: has format version {header.format_version} and features "
                        f"{header.incompatible_features:#x}; this cesium reads version "
                        f"{FORMAT_VERSION} without any")
        if header.blob_id != self.blob.id:
            self.corrupt(56, "the file is another blob file", self.blob.id, header.blob_id)
        uuid = PyBytes_FromStringAndSize(<const char *>header.store_uuid, 16)
        if uuid != self.store_uuid:
            self.corrupt(40, "the blob file is another store's", self.store_uuid.hex(), uuid.hex())
        return 0

    def corrupt(self, offset, what, expected, found):
        """Raise CorruptionError for a place in the file."""
        raise CorruptionError(
            f"{self.path}: {what} (at byte {offset}: expected {expected}, found {found})",
            file=self.path, offset=offset, expected=expected, found=found)

    cdef int raise_failure(self) except -1:
        """Raises what a failed read meant; nothing when none failed."""
        cdef const BlobPointer *failed = &self.blob.failed
        if self.map_failure is not None:
            if isinstance(self.map_failure, FileNotFoundError):
                self.corrupt(0, "the file is missing", "a blob file", "nothing")
            raise self.map_failure.with_traceback(None)
        if blob_load_status(&self.blob.failed_status) == STATUS_OK:
            return 0
        now = self.files.size(self.name) if self.name in self.files.list() else self.blob.bytes
        if failed.offset > <uint64_t>now or failed.bytes > <uint64_t>now - failed.offset:
            self.corrupt(failed.offset, "a value lies beyond the end of the file",
                         f"{failed.bytes} bytes", f"a file of {now} bytes")
        if load_lost(&self.blob.lost):
            self.raise_unreadable(failed.offset, failed.bytes)
        if failed.checksum == self.blob.failed_found:
            self.corrupt(failed.offset, "a pointer to a value makes no sense", "a valid place",
                         f"{failed.bytes} bytes")
        self.corrupt(failed.offset, "wrong checksum of a value", hex(failed.checksum),
                     hex(self.blob.failed_found))

    def raise_unreadable(self, uint64_t offset, uint64_t count):
        """Read a value once more, without the mapping, to say what became of it."""
        piece = bytearray(min(count, <uint64_t>PIECE_BYTES))
        fd = self.files.open(self.name)
        try:
            for start in range(offset, offset + count, PIECE_BYTES):
                self.files.read_into(fd, memoryview(piece)[:min(
                    len(piece), offset + count - start)], start)
        finally:
            self.files.close(fd)
        raise OSError(errno.EIO, f"a value at byte {offset} could not be read when it was needed; "
                                 "close the store and open it again", self.path)

    def check_value(self, uint64_t offset, uint64_t count, uint32_t checksum):
        """Whether the value at an offset can be read and has its checksum."""
        cdef BlobPointer pointer
        cdef int status
        pointer.blob_id = self.blob.id
        pointer.offset = offset
        pointer.bytes = count
        pointer.checksum = checksum
        with nogil:
            status = blob_read(&self.blob, &pointer, NULL)
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        return status == STATUS_OK

    def view(self, uint64_t offset, uint64_t count):
        """A read-only memoryview of part of the mapping, unchecked; it keeps the mapping alive."""
        self.map_file()
        return memoryview(<object>self.memory)[offset:offset + count].toreadonly()
