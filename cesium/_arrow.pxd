# The Arrow C data and stream interfaces, as the document
# https://arrow.apache.org/docs/format/CDataInterface.html gives them: the ABI is the layout of the
# structs, so no library is needed to speak it.
#
# Whoever gets a struct calls its release once; a struct whose release is NULL is released already.

from libc.stdint cimport int64_t

cdef extern from * nogil:
    """
#include <stdint.h>

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

    struct ArrowSchema {
        const char *format;             /* the type, as a short text */
        const char *name;
        const char *metadata;
        int64_t flags;
        int64_t n_children;
        struct ArrowSchema **children;
        struct ArrowSchema *dictionary;
        void (*release)(struct ArrowSchema *);      /* NULL: released, or moved away */
        void *private_data;
    };

    struct ArrowArray {
        int64_t length;
        int64_t null_count;             /* -1: not counted */
        int64_t offset;                 /* items before the first, in every buffer */
        int64_t n_buffers;
        int64_t n_children;
        const void **buffers;           /* validity bitmap (NULL: no nulls), then the type's own */
        struct ArrowArray **children;
        struct ArrowArray *dictionary;
        void (*release)(struct ArrowArray *);
        void *private_data;
    };

#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

    struct ArrowArrayStream {
        int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
        /* At the end the release of what it gives is NULL. */
        int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
        const char *(*get_last_error)(struct ArrowArrayStream *);
        void (*release)(struct ArrowArrayStream *);
        void *private_data;
    };

#endif

    _Static_assert(sizeof(struct ArrowSchema) == 72, "the layout is the interface");
    _Static_assert(sizeof(struct ArrowArray) == 80, "the layout is the interface");
    _Static_assert(sizeof(struct ArrowArrayStream) == 40, "the layout is the interface");
    """
    enum:
        ARROW_FLAG_NULLABLE

    cdef struct ArrowSchema:
        const char *format
        const char *name
        const char *metadata
        int64_t flags
        int64_t n_children
        ArrowSchema **children
        ArrowSchema *dictionary
        void (*release)(ArrowSchema *) noexcept nogil
        void *private_data

    cdef struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

    cdef struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *out) noexcept nogil
        int (*get_next)(ArrowArrayStream *, ArrowArray *out) noexcept nogil
        const char *(*get_last_error)(ArrowArrayStream *) noexcept nogil
        void (*release)(ArrowArrayStream *) noexcept nogil
        void *private_data
