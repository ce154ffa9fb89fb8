"""Columns of numpy arrays as an Arrow C stream, without a copy and without an Arrow library.

A stream asks a Python iterator for one batch after another; what it hands out keeps the arrays of
the batch alive until the consumer releases them, in any order, from any thread.

Thread safety: a stream belongs to one thread at a time, as the interface says.  Every callback
takes the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strdup

from cesium._arrow cimport ARROW_FLAG_NULLABLE, ArrowArray, ArrowArrayStream, ArrowSchema

cdef extern from "Python.h":
    bint Py_IsInitialized() nogil

cdef enum:
    BUFFERS_MOST = 3


cdef class Field:
    """Field(name, format, nullable=False, children=(), metadata=None): a column's type.

    format: Arrow's short text for the type, such as "g" for float64.  metadata: bytes, encoded.
    """

    cdef readonly str name
    cdef readonly str format
    cdef readonly bint nullable
    cdef readonly tuple children
    cdef readonly bytes metadata

    def __init__(self, str name not None, str format not None, bint nullable=False, children=(),
                 bytes metadata=None):
        self.name = name
        self.format = format
        self.nullable = nullable
        self.children = tuple(children)
        self.metadata = metadata


cdef class Array:
    """Array(length, buffers, null_count=0, children=()): a column's rows.

    buffers: as the format asks for, C-contiguous arrays or None, the validity bitmap first.
    """

    cdef readonly Py_ssize_t length
    cdef readonly tuple buffers
    cdef readonly Py_ssize_t null_count
    cdef readonly tuple children

    def __init__(self, Py_ssize_t length, buffers, Py_ssize_t null_count=0, children=()):
        if len(buffers) > BUFFERS_MOST:
            raise ValueError(f"an array has at most {BUFFERS_MOST} buffers, not {len(buffers)}")
        self.length = length
        self.buffers = tuple(buffers)
        self.null_count = null_count
        self.children = tuple(children)


# --- schemas -------------------------------------------------------------------------------------


cdef void release_schema(ArrowSchema *schema) noexcept nogil:
    cdef int64_t index
    for index in range(schema.n_children):
        if schema.children[index] != NULL:
            if schema.children[index].release != NULL:
                schema.children[index].release(schema.children[index])
            free(schema.children[index])
    free(schema.children)
    free(<void *>schema.format)
    free(<void *>schema.name)
    free(schema.private_data)       # the metadata
    schema.release = NULL


cdef int fill_schema(Field field, ArrowSchema *schema) except -1:
    cdef int64_t index
    cdef char *copied
    memset(schema, 0, sizeof(ArrowSchema))
    schema.release = release_schema         # from here on it can be released, whatever is missing
    schema.format = strdup(field.format.encode())
    schema.name = strdup(field.name.encode())
    if schema.format == NULL or schema.name == NULL:
        raise MemoryError
    if field.nullable:
        schema.flags = ARROW_FLAG_NULLABLE
    if field.metadata is not None:
        copied = <char *>calloc(len(field.metadata) + 1, 1)
        if copied == NULL:
            raise MemoryError
        for index in range(len(field.metadata)):
            copied[index] = <char>field.metadata[index]
        schema.private_data = copied
        schema.metadata = copied
    if field.children:
        schema.children = <ArrowSchema **>calloc(len(field.children), sizeof(ArrowSchema *))
        if schema.children == NULL:
            raise MemoryError
        schema.n_children = len(field.children)
        for index in range(schema.n_children):
            schema.children[index] = <ArrowSchema *>calloc(1, sizeof(ArrowSchema))
            if schema.children[index] == NULL:
                raise MemoryError
            fill_schema(field.children[index], schema.children[index])
    return 0


# --- arrays --------------------------------------------------------------------------------------


cdef struct Held:               # what a handed-out array keeps
    PyObject *owner             # the Array
    const void *buffers[BUFFERS_MOST]


cdef void release_array(ArrowArray *array) noexcept nogil:
    cdef Held *held = <Held *>array.private_data
    cdef int64_t index
    for index in range(array.n_children):
        if array.children[index] != NULL:
            if array.children[index].release != NULL:       # else it was moved away
                array.children[index].release(array.children[index])
            free(array.children[index])
    free(array.children)
    if held != NULL:
        if held.owner != NULL and Py_IsInitialized():
            let_go(held.owner)
        free(held)
    array.release = NULL


cdef void let_go(PyObject *owner) noexcept with gil:
    Py_DECREF(<object>owner)


cdef int fill_array(Array source, ArrowArray *array) except -1:
    cdef Held *held
    cdef int64_t index
    cdef const unsigned char[::1] memory
    memset(array, 0, sizeof(ArrowArray))
    array.release = release_array
    held = <Held *>calloc(1, sizeof(Held))
    if held == NULL:
        raise MemoryError
    array.private_data = held
    array.length = source.length
    array.null_count = source.null_count
    array.n_buffers = len(source.buffers)
    array.buffers = held.buffers
    for index, buffer in enumerate(source.buffers):
        if buffer is not None and buffer.nbytes:
            memory = buffer.reshape(-1).view("u1")
            held.buffers[index] = &memory[0]
        elif index:             # only the bitmap may be missing
            held.buffers[index] = &NOTHING
    Py_INCREF(source)
    held.owner = <PyObject *>source
    if source.children:
        array.children = <ArrowArray **>calloc(len(source.children), sizeof(ArrowArray *))
        if array.children == NULL:
            raise MemoryError
        array.n_children = len(source.children)
        for index in range(array.n_children):
            array.children[index] = <ArrowArray *>calloc(1, sizeof(ArrowArray))
            if array.children[index] == NULL:
                raise MemoryError
            fill_array(source.children[index], array.children[index])
    return 0


cdef int64_t[1] NOTHING = [0]   # where empty buffers point to: offsets of no rows are one zero


# --- streams -------------------------------------------------------------------------------------


cdef class Stream:
    """Stream(fields, batches): a table as a stream of batches, to be handed out once.

    fields: a Field for each column.  batches: an iterator of lists of Array, one for each column,
    all of one length.  error: what the iterator raised, if it did.
    """

    cdef Field schema
    cdef object batches
    cdef bytes message
    cdef readonly object error

    def __init__(self, fields, batches):
        self.schema = Field("", "+s", False, fields)
        self.batches = iter(batches)

    def capsule(self):
        """The PyCapsule named "arrow_array_stream"; whoever gets it owns the stream."""
        cdef ArrowArrayStream *stream
        if self.batches is None:
            raise ValueError("the stream was handed out before")
        stream = <ArrowArrayStream *>calloc(1, sizeof(ArrowArrayStream))
        if stream == NULL:
            raise MemoryError
        try:
            capsule = PyCapsule_New(stream, "arrow_array_stream", destroy_capsule)
        except BaseException:
            free(stream)
            raise
        stream.get_schema = stream_schema
        stream.get_next = stream_next
        stream.get_last_error = stream_error
        stream.release = release_stream
        Py_INCREF(self)
        stream.private_data = <void *>self
        return capsule

    cdef int failed(self, object error, int code):
        self.error = error
        self.message = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
        self.batches = iter(())
        return code


cdef void destroy_capsule(object capsule) noexcept:
    cdef ArrowArrayStream *stream
    stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release != NULL:
        stream.release(stream)
    free(stream)


cdef int stream_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept with gil:
    cdef Stream source = <Stream>stream.private_data
    try:
        fill_schema(source.schema, out)
        return 0
    except BaseException as error:
        if out.release != NULL:
            out.release(out)
        return source.failed(error, ENOMEM)


cdef int stream_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    cdef Stream source = <Stream>stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    try:
        batch = next(source.batches, None)
        if batch is not None:
            length = batch[0].length if batch else 0
            fill_array(Array(length, (None,), 0, batch), out)
        return 0
    except BaseException as error:      # an interrupt too: there is no other way through C
        if out.release != NULL:
            out.release(out)
        return source.failed(error, EIO)


cdef const char *stream_error(ArrowArrayStream *stream) noexcept with gil:
    cdef Stream source = <Stream>stream.private_data
    if source.message is None:
        return NULL
    return PyBytes_AS_STRING(source.message)


cdef void release_stream(ArrowArrayStream *stream) noexcept nogil:
    if Py_IsInitialized():
        let_stream_go(stream)
    stream.release = NULL


cdef void let_stream_go(ArrowArrayStream *stream) noexcept with gil:
    cdef Stream source = <Stream>stream.private_data
    source.batches = iter(())           # the snapshot goes now, whoever still holds the source
    Py_DECREF(source)
