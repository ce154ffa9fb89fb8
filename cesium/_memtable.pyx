"""The mutable sorted vector: see _memtable.pxd for the contract.

A memtable is made of: the vector (_vector: pages and directory, and how they change), its views
(_view: how a state is read), the arena (_arena: memory, pins, what waits for an unpin), the nodes
of the directory (_directory) and the drafts that pages are laid out anew from (_draft).  This file
adds what an entry is (kinds, overflow chunks), range-delete markers, counts, and the debugging
face.

Invariants (memtable_check returns the number of the one that is broken; 5x are those of
_directory.pyx):
  1. the root's children are leaf nodes, none empty; a node's are pages, none empty
  2. every page passes page_check
  3. keys ascend strictly over all pages
  4. entries, delete markers and pages are as many as the counters say
  5. nothing live was made after the current generation; nothing that a pin sees was made after the
     pin
  6. an overflow chunk is as long as its reference says, and is no younger than 5 allows
  7. pages, directories and overflow chunks, in use and retired, make up the bytes that the arena
     counts, and what is retired the objects that it counts
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdlib cimport free, malloc

from cesium._arena cimport (
    ALLOWANCE_UNLIMITED, Pin, arena_account, arena_held_bytes, arena_is_inherited, arena_pin,
    arena_retired_bytes, arena_unpin,
)
from cesium._counters cimport Counters, portion_of
from cesium._directory cimport chunk_source
from cesium._draft cimport DraftEntry
from cesium._interval cimport (
    held_interval_bytes, interval_set_add, interval_set_copy, interval_set_is_sole,
    interval_set_new, interval_set_release, interval_set_retain, interval_set_to_list, key_compare,
    key_from_object, key_to_object,
)
from cesium._layout cimport (
    KEY_BYTES_MAX, KEY_INLINE_BYTES, KIND_DELETE, KIND_KEY_OVERFLOW, KIND_MASK, KIND_VALUE,
    KIND_VALUE_OVERFLOW, STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK, VALUE_BYTES_MAX,
    VALUE_INLINE_BYTES, OverflowReference,
)
from cesium._page cimport (
    TableShape, header_of, heads_of, kind_of, page_copy_key, page_copy_row, page_copy_value,
    page_find, page_key_bytes, page_key_reference, page_value_bytes, page_value_reference,
)
from cesium._vector cimport (
    Vector, vector_close, vector_cut_out, vector_drop_chunk, vector_open, vector_own_edges,
    vector_put, vector_put_first, vector_spill,
)
from cesium._view cimport (
    Place, View, ViewTotals, node_at, page_at, place_of, view_check, view_find,
    view_has_values, view_route, view_seek, view_source,
)

cdef extern from *:
    uint64_t __atomic_load_n(uint64_t *word, int order) noexcept nogil
    int __ATOMIC_RELAXED

cdef struct MemtableRoot:
    Pin pin                     # must come first: the check walks from pin to pin
    View view

cdef struct MemtableState:
    Shape shape
    Vector vector
    uint64_t changes


cdef MemtableState *memtable_new(const Shape *shape) noexcept nogil:
    cdef MemtableState *memtable = <MemtableState *>malloc(sizeof(MemtableState))
    if memtable == NULL:
        return NULL
    memtable.shape = shape[0]
    memtable.changes = 0
    if vector_open(&memtable.vector, &memtable.shape) != STATUS_OK:
        free(memtable)
        return NULL
    return memtable


cdef void memtable_free(MemtableState *memtable) noexcept nogil:
    if arena_is_inherited(&memtable.vector.arena):
        return
    interval_set_release(memtable.vector.live.markers)
    vector_close(&memtable.vector)
    free(memtable)


cdef int memtable_find(MemtableState *memtable, const Key *key, Position *position,
                       bint *masked) noexcept nogil:
    return view_find(&memtable.vector.live, key, position, masked)


cdef void memtable_root_source(MemtableRoot *root, PageSource *source) noexcept nogil:
    view_source(&root.view, source)


cdef MemtableRoot *memtable_pin(MemtableState *memtable) noexcept nogil:
    cdef MemtableRoot *root = <MemtableRoot *>malloc(sizeof(MemtableRoot))
    if root == NULL:
        return NULL
    root.view = memtable.vector.live
    interval_set_retain(root.view.markers)
    arena_pin(&memtable.vector.arena, &root.pin)
    return root


cdef void memtable_unpin(MemtableState *memtable, MemtableRoot *root) noexcept nogil:
    if arena_is_inherited(&memtable.vector.arena):
        return
    arena_unpin(&memtable.vector.arena, &root.pin)
    interval_set_release(root.view.markers)
    free(root)


cdef const IntervalSet *memtable_root_markers(MemtableRoot *root) noexcept nogil:
    return root.view.markers


cdef uint64_t memtable_root_entries(MemtableRoot *root) noexcept nogil:
    return root.view.entries


cdef uint64_t memtable_root_delete_markers(MemtableRoot *root) noexcept nogil:
    return root.view.delete_markers


cdef const IntervalSet *memtable_markers(MemtableState *memtable) noexcept nogil:
    return memtable.vector.live.markers


cdef void memtable_counters(MemtableState *memtable, MemtableCounters *counters) noexcept nogil:
    counters.entries = memtable.vector.live.entries
    counters.delete_markers = memtable.vector.live.delete_markers
    counters.bytes = __atomic_load_n(&memtable.vector.arena.bytes, __ATOMIC_RELAXED)
    if memtable.vector.live.markers != NULL:
        counters.bytes += memtable.vector.live.markers.bytes
    counters.held = __atomic_load_n(&memtable.vector.arena.held, __ATOMIC_RELAXED)
    counters.pages = memtable.vector.pages
    counters.splits = memtable.vector.splits
    counters.joins = memtable.vector.joins
    counters.page_copies = memtable.vector.page_copies
    counters.rebuilds = memtable.vector.rebuilds
    counters.retired = __atomic_load_n(&memtable.vector.arena.retired, __ATOMIC_RELAXED)
    counters.changes = memtable.changes


cdef int memtable_put(MemtableState *memtable, const Key *key, const Value *value) noexcept nogil:
    cdef const Shape *shape = &memtable.shape
    cdef DraftEntry entry
    cdef OverflowReference value_reference
    cdef Place place
    cdef uint8_t *page = NULL
    cdef uint8_t old_kind = KIND_VALUE
    cdef uint64_t old_location = 0
    cdef uint32_t slot = 0
    cdef bint exact = False
    cdef int status = STATUS_OK
    entry.key = key[0]
    entry.kind = value.kind & KIND_MASK
    entry.value = value.data
    entry.value_bytes = 0
    entry.key_reference.location = 0
    if shape.value_width == 0 and entry.kind == KIND_VALUE:
        entry.value_bytes = value.bytes
    if (shape.key_width == 0 and key.bytes > KEY_BYTES_MAX) or entry.value_bytes > VALUE_BYTES_MAX:
        return STATUS_LIMIT
    place.node = 0
    place.page = 0
    if memtable.vector.live.root.count:
        place = view_route(&memtable.vector.live, key)
        page = page_at(node_at(memtable.vector.live.root, place.node), place.page)
        page_find(shape, page, key, &chunk_source, &slot, &exact)
    if exact:
        old_kind = kind_of(page, slot)
        if old_kind & KIND_VALUE_OVERFLOW:
            old_location = page_value_reference(page, slot).location
        if old_kind & KIND_KEY_OVERFLOW:
            entry.kind |= KIND_KEY_OVERFLOW
            entry.key_reference = page_key_reference(page, slot)[0]
    elif shape.key_width == 0 and key.bytes > KEY_INLINE_BYTES:
        if vector_spill(&memtable.vector, key.data, key.bytes, &entry.key_reference) != STATUS_OK:
            return STATUS_NO_MEMORY
        entry.kind |= KIND_KEY_OVERFLOW
    if entry.value_bytes > VALUE_INLINE_BYTES:
        status = vector_spill(&memtable.vector, value.data, value.bytes, &value_reference)
        entry.kind |= KIND_VALUE_OVERFLOW if status == STATUS_OK else 0
        entry.value = <const uint8_t *>&value_reference
        entry.value_bytes = sizeof(OverflowReference)
    if status == STATUS_OK:
        status = (vector_put_first(&memtable.vector, &entry) if page == NULL
                  else vector_put(&memtable.vector, place, slot, exact, &entry))
    if status != STATUS_OK:
        if entry.kind & KIND_VALUE_OVERFLOW:
            vector_drop_chunk(&memtable.vector, value_reference.location)
        if entry.kind & KIND_KEY_OVERFLOW and not exact:
            vector_drop_chunk(&memtable.vector, entry.key_reference.location)
        return status
    if old_location:
        vector_drop_chunk(&memtable.vector, old_location)
    memtable.vector.live.entries += not exact
    memtable.vector.live.delete_markers += (entry.kind & KIND_MASK) == KIND_DELETE
    memtable.vector.live.delete_markers -= (old_kind & KIND_MASK) == KIND_DELETE
    memtable.changes += 1
    return STATUS_OK


cdef int memtable_delete_range(MemtableState *memtable, const Key *lower, const Key *upper,
                               bint unbounded) noexcept nogil:
    cdef Vector *vector = &memtable.vector
    cdef Position first
    cdef Position last
    cdef IntervalSet *markers = vector.live.markers
    cdef IntervalSet *added
    cdef bint removes
    if not unbounded and key_compare(memtable.shape.key_width != 0, lower, upper) >= 0:
        return STATUS_OK
    view_seek(&vector.live, lower, &first)
    last.page = NULL
    last.slot = 0
    if not unbounded:
        view_seek(&vector.live, upper, &last)
    if last.page == NULL:
        last.slot = 0
    removes = first.page != NULL and (
        last.page != first.page or last.slot != first.slot)
    # Whatever may fail comes first: own the edges, then add the marker, then cut.
    if removes and vector_own_edges(
            vector, place_of(&vector.live, &first), first.slot, place_of(&vector.live, &last),
            last.slot) != STATUS_OK:
        return STATUS_NO_MEMORY
    # A set that no pin shares is changed in place; otherwise pins keep theirs.
    if markers == NULL:
        added = interval_set_new(memtable.shape.key_width != 0)
    elif interval_set_is_sole(markers):
        added = markers
    else:
        added = interval_set_copy(markers)
    if added == NULL:
        return STATUS_NO_MEMORY
    if interval_set_add(added, lower, upper, unbounded) != STATUS_OK:
        if added != markers:
            interval_set_release(added)
        return STATUS_NO_MEMORY
    if added != markers:
        interval_set_release(markers)
        vector.live.markers = added
    if removes:
        vector_cut_out(vector, place_of(&vector.live, &first), first.slot,
                       place_of(&vector.live, &last), last.slot)
    memtable.changes += 1
    return STATUS_OK


cdef bint memtable_has_values(MemtableState *memtable, const Key *lower,
                              const Key *upper) noexcept nogil:
    return view_has_values(&memtable.vector.live, lower, upper)


cdef int memtable_check(MemtableState *memtable) noexcept nogil:
    cdef Vector *vector = &memtable.vector
    cdef ViewTotals totals
    cdef ViewTotals pinned
    cdef uint64_t retired
    cdef Pin *pin = vector.arena.newest
    cdef int broken = view_check(&vector.live, vector.arena.generation, &totals)
    if broken:
        return broken
    if totals.pages != vector.pages:
        return 4
    if totals.bytes + arena_retired_bytes(&vector.arena, &retired) != vector.arena.bytes:
        return 7
    if retired != vector.arena.retired:
        return 7
    while pin != NULL:
        broken = view_check(&(<MemtableRoot *>pin).view, pin.generation, &pinned)
        if broken:
            return broken
        pin = pin.older
    return 0


# --- the debugging face ------------------------------------------------------------------------


def held_bytes():
    """Bytes of memory that all memtables of this process hold now, their markers included."""
    return arena_held_bytes() + held_interval_bytes()


cdef tuple entry_to_tuple(const Shape *shape, const Position *position):
    """(key, kind, value): key int or bytes; value bytes, empty for a delete marker."""
    cdef const uint8_t *page = position.page
    cdef uint32_t slot = position.slot
    cdef int kind = kind_of(page, slot) & KIND_MASK
    cdef Key key
    cdef bytes data
    cdef bytes value = b""
    key.head = heads_of(page)[slot]
    if shape.key_width == 0:
        key.bytes = <uint32_t>page_key_bytes(shape, page, slot)
        data = PyBytes_FromStringAndSize(NULL, key.bytes)
        key.data = <const uint8_t *>PyBytes_AS_STRING(data)
        page_copy_key(shape, page, slot, &chunk_source, <uint8_t *>key.data)
    if kind == KIND_VALUE and shape.value_width:
        value = PyBytes_FromStringAndSize(NULL, shape.value_width)
        page_copy_row(shape, page, slot, <uint8_t *>PyBytes_AS_STRING(value))
    elif kind == KIND_VALUE:
        value = PyBytes_FromStringAndSize(NULL, page_value_bytes(page, slot))
        page_copy_value(page, slot, &chunk_source, 0, <uint8_t *>PyBytes_AS_STRING(value),
                        PyBytes_GET_SIZE(value))
    return key_to_object(shape.key_width != 0, &key), kind, value


cdef list view_items(View *view, bint backward):
    cdef list items = []
    cdef PageSource source
    cdef Position position
    cdef int direction = -1 if backward else 1
    view_source(view, &source)
    source.edge(source.context, &position, direction)
    while position.page != NULL:
        items.append(entry_to_tuple(view.shape, &position))
        if backward and position.slot > 0:
            position.slot -= 1
        elif not backward and position.slot + 1 < header_of(position.page).count:
            position.slot += 1
        else:
            source.step(source.context, &position, direction)
    return items


cdef object view_ceiling(View *view, object key):
    cdef Key wanted
    cdef Position position
    key_from_object(key, view.shape.key_width != 0, &wanted)
    view_seek(view, &wanted, &position)
    return None if position.page == NULL else entry_to_tuple(view.shape, &position)


cdef object view_get(View *view, object key):
    """(kind, value); or whether a range-delete marker covers the key that is not there."""
    cdef Key wanted
    cdef Position position
    cdef bint masked = False
    key_from_object(key, view.shape.key_width != 0, &wanted)
    if view_find(view, &wanted, &position, &masked) == STATUS_OK:
        return entry_to_tuple(view.shape, &position)[1:]
    return bool(masked)


cdef class Memtable:
    """The debugging face of a memtable; its methods take no lock, so one thread at a time.

    Keys are ints (heads, 0 to 2**64 - 1) when the shape's key_width is not 0, otherwise bytes.
    Values are bytes: packed rows of value_width, or of any length up to 64 MiB when value_width is
    0.
    """

    def __init__(self, TableShape shape, Counters counters=None):
        if self.state != NULL:
            raise RuntimeError("a memtable is initialised once")
        self.shape = shape.shape
        self.state = memtable_new(&self.shape)
        if self.state == NULL:
            raise MemoryError
        if counters is not None:
            # Not an attribute of Python's, which the collector might let go of before the memory.
            self.owner = <PyObject *>counters
            Py_INCREF(counters)
            arena_account(&self.state.vector.arena, &counters.memtable_bytes, portion_of(counters))

    def __dealloc__(self):
        if self.state != NULL:
            memtable_free(self.state)
        Py_XDECREF(self.owner)

    def put(self, key, bytes value, int kind=KIND_VALUE):
        """Inserts or overwrites; kind 1 puts a delete marker, whose value does not matter."""
        cdef Key wanted
        cdef Value given
        cdef int status
        key_from_object(key, self.shape.key_width != 0, &wanted)
        if self.shape.value_width and kind == KIND_VALUE and len(value) != self.shape.value_width:
            raise ValueError(f"expected a row of {self.shape.value_width} bytes, not {len(value)}")
        given.data = <const uint8_t *>PyBytes_AS_STRING(value)
        given.bytes = PyBytes_GET_SIZE(value)
        given.kind = <uint8_t>kind
        status = memtable_put(self.state, &wanted, &given)
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        if status != STATUS_OK:
            raise ValueError(f"status {status}")

    def put_many(self, const uint64_t[::1] heads, const uint8_t[:, ::1] rows):
        """Puts rows of fixed keys and values: heads uint64 (n,), rows uint8 (n, value_width)."""
        cdef Key key
        cdef Value value
        cdef Py_ssize_t index
        cdef int status = STATUS_OK
        if (self.shape.key_width == 0 or self.shape.value_width == 0
                or rows.shape[0] != heads.shape[0] or rows.shape[1] != self.shape.value_width):
            raise ValueError("as many rows of value_width bytes as heads, both forms fixed")
        value.kind = KIND_VALUE
        value.bytes = self.shape.value_width
        with nogil:
            for index in range(heads.shape[0]):
                key.head = heads[index]
                value.data = &rows[index, 0]
                status = memtable_put(self.state, &key, &value)
                if status != STATUS_OK:
                    break
        if status != STATUS_OK:
            raise MemoryError

    def find_many(self, const uint64_t[::1] heads):
        """How many of the heads, uint64 (n,), have an entry: for the benchmark."""
        cdef Key key
        cdef Position position
        cdef bint masked
        cdef Py_ssize_t index
        cdef Py_ssize_t found = 0
        if self.shape.key_width == 0:
            raise ValueError("expected a memtable of fixed keys")
        with nogil:
            for index in range(heads.shape[0]):
                key.head = heads[index]
                found += memtable_find(self.state, &key, &position, &masked) == STATUS_OK
        return found

    def delete_range(self, lower, upper):
        """Removes own entries in [lower, upper) and adds the marker; upper None is unbounded."""
        cdef Key low
        cdef Key high
        key_from_object(lower, self.shape.key_width != 0, &low)
        high = low
        if upper is not None:
            key_from_object(upper, self.shape.key_width != 0, &high)
        if memtable_delete_range(self.state, &low, &high, upper is None) != STATUS_OK:
            raise MemoryError

    def find(self, key):
        """(kind, value) of the entry, or else whether a range-delete marker covers the key."""
        return view_get(&self.state.vector.live, key)

    def ceiling(self, key):
        """The first entry at or above the key as (key, kind, value), or None."""
        return view_ceiling(&self.state.vector.live, key)

    def items(self, bint backward=False):
        """Every entry as (key, kind, value), in key order or against it."""
        return view_items(&self.state.vector.live, backward)

    def markers(self):
        """The range-delete markers as (lower, upper or None), ascending."""
        return interval_set_to_list(self.state.vector.live.markers)

    def allow(self, allocations):
        """So many allocations may still succeed (None: all of them): for tests of failure."""
        self.state.vector.arena.allowance = (
            ALLOWANCE_UNLIMITED if allocations is None else allocations)

    def snapshot(self):
        """A frozen view of what is in now."""
        return MemtableSnapshot(self)

    def counters(self):
        """MemtableCounters as a dict."""
        cdef MemtableCounters counters
        memtable_counters(self.state, &counters)
        return counters

    def check(self):
        """0, or the number of a broken invariant of _memtable.pyx."""
        return memtable_check(self.state)


# Without no_gc_clear the collector could drop the memtable before the pin that points into it.
@cython.no_gc_clear
cdef class MemtableSnapshot:
    """One pin: a frozen view of a memtable, until it is closed or collected."""

    def __init__(self, Memtable memtable):
        if self.root != NULL:
            raise RuntimeError("a snapshot is initialised once")
        self.memtable = memtable
        self.root = memtable_pin(memtable.state)
        if self.root == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.root != NULL:
            memtable_unpin(self.memtable.state, self.root)

    cdef View *view(self) except NULL:
        if self.root == NULL:
            raise ValueError("the snapshot is closed")
        return &self.root.view

    def close(self):
        """Releases the pin; more than once does nothing."""
        if self.root != NULL:
            memtable_unpin(self.memtable.state, self.root)
            self.root = NULL

    def find(self, key):
        """(kind, value) of the entry, or else whether a range-delete marker covers the key."""
        return view_get(self.view(), key)

    def ceiling(self, key):
        """The first entry at or above the key as (key, kind, value), or None."""
        return view_ceiling(self.view(), key)

    def items(self, bint backward=False):
        """Every entry as (key, kind, value), in key order or against it."""
        return view_items(self.view(), backward)

    def markers(self):
        """The range-delete markers as (lower, upper or None), ascending."""
        return interval_set_to_list(self.view().markers)

    @property
    def entries(self):
        """Entries, delete markers included."""
        return self.view().entries

    @property
    def delete_markers(self):
        """Entries that are delete markers."""
        return self.view().delete_markers
