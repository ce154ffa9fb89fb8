"""Arrow columns of other libraries as numpy arrays over the memory that they gave, without a copy.

An ArrowStream owns what it was given and what it has read: arrays made over a batch keep the batch,
and the batch is released after the last of them.

The memory is another library's in this process, and is trusted as such: buffers have the sizes that
their types ask for.  Offsets are checked by whoever makes a Column of them.

Thread safety: a stream belongs to one thread at a time; arrays are read-only.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy, memset

import numpy as np

from cesium._arrow cimport ArrowArray, ArrowArrayStream, ArrowSchema

cdef enum:
    VIEW_BYTES = 16             # of a string view: length, then 12 bytes, or 4, buffer and offset
    VIEW_INLINE = 12


cdef class ArrowType:
    """The type of a column: name, format, children, dictionary (or None), extension name ("")."""

    cdef readonly str name
    cdef readonly str format
    cdef readonly str extension
    cdef readonly tuple children
    cdef readonly ArrowType dictionary


cdef str text_of(const char *text):
    return "" if text == NULL else (<bytes>text).decode("utf-8", "replace")


cdef str extension_of(const char *metadata):
    """The value of ARROW:extension:name in metadata as the C interface encodes it, or ""."""
    cdef int32_t pairs
    cdef int32_t length
    cdef list texts
    if metadata == NULL:
        return ""
    memcpy(&pairs, metadata, 4)
    metadata += 4
    for _ in range(pairs):
        texts = []
        for _ in range(2):
            memcpy(&length, metadata, 4)
            texts.append(metadata[4:4 + length])
            metadata += 4 + length
        if texts[0] == b"ARROW:extension:name":
            return (<bytes>texts[1]).decode("utf-8", "replace")
    return ""


cdef ArrowType read_type(const ArrowSchema *schema):
    cdef ArrowType made = ArrowType.__new__(ArrowType)
    cdef int64_t index
    made.name = text_of(schema.name)
    made.format = text_of(schema.format)
    made.extension = extension_of(schema.metadata)
    made.children = tuple([read_type(schema.children[index])
                           for index in range(schema.n_children)])
    if schema.dictionary != NULL:
        made.dictionary = read_type(schema.dictionary)
    return made


cdef class Batch:               # owns a batch
    cdef ArrowArray array

    def __dealloc__(self):
        if self.array.release != NULL:
            self.array.release(&self.array)


cdef class Buffer:              # memory of a batch, with the buffer protocol
    cdef Batch batch
    cdef const void *data
    cdef Py_ssize_t bytes

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>self.data, self.bytes, 1, flags)


cdef class ArrowColumn:
    """The rows of a column: length, offset (items before the first in each buffer), children,
    dictionary (or None)."""

    cdef Batch batch
    cdef const ArrowArray *array
    cdef readonly Py_ssize_t length
    cdef readonly Py_ssize_t offset
    cdef readonly Py_ssize_t buffers
    cdef readonly tuple children
    cdef readonly ArrowColumn dictionary

    def buffer(self, Py_ssize_t index, Py_ssize_t bytes):
        """So many bytes of a buffer, as a read-only uint8 array; None where there is none."""
        cdef Buffer made
        if not 0 <= index < self.buffers:
            raise IndexError(f"buffer {index} of {self.buffers}")
        if bytes == 0:
            return np.empty(0, np.uint8)
        if self.array.buffers[index] == NULL:
            return None
        made = Buffer.__new__(Buffer)
        made.batch = self.batch
        made.data = self.array.buffers[index]
        made.bytes = bytes
        return np.frombuffer(made, np.uint8)

    def parts(self):
        """The columns of a struct, which begin where it begins and end where it ends."""
        cdef ArrowColumn part
        cdef Py_ssize_t index
        cdef list made = []
        for index in range(self.array.n_children):
            part = column_of(self.batch, self.array.children[index])
            part.offset += self.offset
            part.length = self.length
            made.append(part)
        return made

    def validity(self):
        """bool[length], False where a row is null; None where none is."""
        if self.array.null_count == 0 or self.buffers == 0:
            return None
        bits = self.buffer(0, (self.offset + self.length + 7) // 8)
        if bits is None:
            return None
        valid = np.unpackbits(bits, count=self.offset + self.length, bitorder="little")
        valid = valid[self.offset:].view(np.bool_)
        return None if valid.all() else valid

    def gather_views(self):
        """(offsets, data) of a column of string or binary views; ValueError when they make no
        sense."""
        cdef Py_ssize_t row
        cdef Py_ssize_t count = self.length
        cdef int64_t texts = self.buffers - 3       # validity, views, ..., sizes
        cdef const uint8_t *view
        cdef const uint8_t *views
        cdef const int64_t *sizes
        cdef int32_t length
        cdef int32_t which
        cdef int32_t start
        cdef bint wrong = False
        offsets = np.zeros(count + 1, np.int64)
        cdef int64_t[::1] ends = offsets
        valid = self.validity()
        cdef const uint8_t[::1] present = (
            None if valid is None else np.ascontiguousarray(valid).view(np.uint8))
        if count == 0:
            return offsets, np.empty(0, np.uint8)
        views = <const uint8_t *>self.array.buffers[1] + self.offset * VIEW_BYTES
        sizes = <const int64_t *>self.array.buffers[self.buffers - 1]
        with nogil:
            for row in range(count):
                memcpy(&length, views + row * VIEW_BYTES, 4)
                if present is not None and not present[row]:
                    length = 0
                wrong |= length < 0
                ends[row + 1] = ends[row] + length
        if wrong:
            raise ValueError("a view of negative length")
        data = np.empty(ends[count] + 1, np.uint8)
        cdef uint8_t[::1] target = data
        with nogil:
            for row in range(count):
                length = <int32_t>(ends[row + 1] - ends[row])
                view = views + row * VIEW_BYTES
                if length <= VIEW_INLINE:
                    memcpy(&target[ends[row]], view + 4, length)
                    continue
                memcpy(&which, view + 8, 4)
                memcpy(&start, view + 12, 4)
                if not 0 <= which < texts or start < 0 or start + <int64_t>length > sizes[which]:
                    wrong = True
                    break
                memcpy(&target[ends[row]],
                       <const uint8_t *>self.array.buffers[2 + which] + start, length)
        if wrong:
            raise ValueError("a view beyond its buffer")
        return offsets, data[:ends[count]]


cdef ArrowColumn column_of(Batch batch, const ArrowArray *array):
    cdef ArrowColumn made = ArrowColumn.__new__(ArrowColumn)
    cdef int64_t index
    made.batch = batch
    made.array = array
    made.length = array.length
    made.offset = array.offset
    made.buffers = array.n_buffers
    made.children = tuple([column_of(batch, array.children[index])
                           for index in range(array.n_children)])
    if array.dictionary != NULL:
        made.dictionary = column_of(batch, array.dictionary)
    return made


cdef class ArrowStream:
    """ArrowStream(source): reads what has `__arrow_c_stream__` or `__arrow_c_array__`, to the end.

    Iterating gives an ArrowColumn for each batch: of a table a struct, whose children are its
    columns.  `type` is the ArrowType of these.  TypeError for what is no such source.
    """

    cdef ArrowArrayStream stream
    cdef Batch only                     # of a source of one array
    cdef readonly ArrowType type

    def __init__(self, source):
        if self.stream.release != NULL or self.only is not None:
            raise ValueError("a stream is opened once")
        if hasattr(source, "__arrow_c_stream__"):
            self.open_stream(source.__arrow_c_stream__())
        elif hasattr(source, "__arrow_c_array__"):
            schema, array = source.__arrow_c_array__()
            self.open_array(schema, array)
        else:
            raise TypeError(f"{type(source).__name__} has no Arrow interface")

    cdef int open_stream(self, object capsule) except -1:
        cdef ArrowArrayStream *given
        cdef ArrowSchema schema
        cdef int code
        given = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
        if given.release == NULL:
            raise ValueError("the Arrow stream was read before")
        self.stream = given[0]
        given.release = NULL
        memset(&schema, 0, sizeof(schema))
        with nogil:
            code = self.stream.get_schema(&self.stream, &schema)
        if code:
            raise self.failure(code)
        try:
            self.type = read_type(&schema)
        finally:
            schema.release(&schema)
        return 0

    cdef int open_array(self, object schema_capsule, object array_capsule) except -1:
        cdef ArrowSchema *schema
        cdef ArrowArray *array
        schema = <ArrowSchema *>PyCapsule_GetPointer(schema_capsule, "arrow_schema")
        array = <ArrowArray *>PyCapsule_GetPointer(array_capsule, "arrow_array")
        self.type = read_type(schema)
        self.only = Batch.__new__(Batch)
        self.only.array = array[0]
        array.release = NULL
        return 0

    def __dealloc__(self):
        if self.stream.release != NULL:
            self.stream.release(&self.stream)

    cdef object failure(self, int code):
        cdef const char *message = self.stream.get_last_error(&self.stream)
        return OSError(code, f"the Arrow stream failed: {text_of(message) or 'no reason given'}")

    def __iter__(self):
        return self

    def __next__(self):
        cdef Batch batch
        cdef int code
        if self.stream.release == NULL:
            batch, self.only = self.only, None
            if batch is None:
                raise StopIteration
            return column_of(batch, &batch.array)
        batch = Batch.__new__(Batch)
        with nogil:                     # the producer may work long, or need another thread
            code = self.stream.get_next(&self.stream, &batch.array)
        if code:
            batch.array.release = NULL
            raise self.failure(code)
        if batch.array.release == NULL:
            raise StopIteration
        return column_of(batch, &batch.array)
