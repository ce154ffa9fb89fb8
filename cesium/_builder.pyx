"""Building one segment file: contract in _builder.pxd, bytes in docs/format-segment.md."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

import os

from cesium._blob_writer cimport (
    BlobOutput, blob_sink_bytes, blob_sink_finish, blob_sink_pass, blob_sink_put,
    blob_sink_takes,
)
from cesium._counters cimport count_more
from cesium._faults cimport fault_counter, faults_seen
from cesium._fences cimport fence_shape
from cesium._files cimport FileOperations, operations_of
from cesium._interval cimport (
    interval_set_add, interval_set_new, interval_set_release,
)
from cesium._layout cimport (
    BLOCK_MAP_IDENTITY, BlobPointer, FEATURE_BLOB_LOG, FOOTER_FIELDS_OFFSET, FOOTER_KEYS_OFFSET,
    FOOTER_MAX_CUT, FOOTER_MIN_CUT, FOOTER_ORIGIN_BYTES_MAX, FOOTER_ORIGIN_OFFSET, FORMAT_VERSION,
    KEY_BYTES_MAX, KEY_INLINE_BYTES, KIND_BLOB, KIND_DELETE, KIND_MASK, KIND_VALUE,
    KIND_VALUE_OVERFLOW, OVERFLOW_PAYLOAD_BYTES, PAGE_BYTES, PAGE_DATA, PAGE_FENCE, PAGE_FILTER,
    PAGE_FOOTER, PAGE_HEADER_BYTES, PAGE_RANGE_DELETE, SEGMENT_MAGIC, STATUS_CORRUPT, STATUS_IO,
    STATUS_LIMIT, STATUS_NO_MEMORY, STATUS_OK, SegmentFooter,
)
from cesium._native cimport (
    SortPair, bloom_blocks_for, bloom_insert, hash_bytes, hash_head, load_head, prefetch_read,
    store_head,
)
from cesium._packer cimport (
    PageList, Packer, ValueOrigin, packer_add, packer_close, packer_filled, packer_open,
    packer_room, packer_seal, page_list_bytes, page_list_free,
)
from cesium._page cimport (
    Position, header_of, heads_of, kind_of, page_blob_pointer, page_copy_key, page_copy_row,
    page_key_bytes, page_value_bytes, page_value_inline, run_of,
)
from cesium._segment cimport SegmentReader, segment_source
from cesium._page_writer cimport (
    page_writer_close, page_writer_flush, page_writer_is_inherited, page_writer_open,
    page_writer_page, page_writer_seal,
)

from cesium._segment import UNBOUNDED_UPPER
from cesium.errors import ClosedError, CorruptionError, Error, LimitError
from cesium.io_errors import raise_io

cdef const uint64_t *FAULTS = fault_counter()

cdef enum:
    PREFETCH_ROWS = 24              # rows asked for ahead of a gather
    BLOB_SHARE = 4                  # a segment is full when it has these times as much in blobs
    BLOCK_WORDS = 8                 # a filter block has 32 bytes
    SLOTS_MAX = PAGE_BYTES // 8

cdef extern from *:
    """
    typedef struct { uint64_t word; } __attribute__((packed, may_alias)) UnalignedWord;
    typedef struct { uint32_t word; } __attribute__((packed, may_alias)) UnalignedHalf;

    /* One field of `count` packed rows into a column run. */
    static void scatter_field(uint8_t *run, const uint8_t *rows, uint32_t stride, uint32_t width,
                              uint32_t count) {
        uint32_t i;
        if (stride == width) {
            __builtin_memcpy(run, rows, (size_t)count * width);
        } else if (width == 8) {
            for (i = 0; i < count; i++)
                ((UnalignedWord *)run)[i] = *(const UnalignedWord *)(rows + (size_t)i * stride);
        } else if (width == 4) {
            for (i = 0; i < count; i++)
                ((UnalignedHalf *)run)[i] = *(const UnalignedHalf *)(rows + (size_t)i * stride);
        } else {
            for (i = 0; i < count; i++)
                __builtin_memcpy(run + (size_t)i * width, rows + (size_t)i * stride, width);
        }
    }
    """
    void scatter_field(uint8_t *run, const uint8_t *rows, uint32_t stride, uint32_t width,
                       uint32_t count) noexcept nogil


cdef int builder_fail(Builder *builder, int status) noexcept nogil:
    if status < 0 and builder.status == STATUS_OK:
        builder.status = status
    return status


# --- entries -------------------------------------------------------------------------------------


cdef void builder_note_first(Builder *builder, const Key *key) noexcept nogil:
    builder.first_head = key.head
    builder.first_key_bytes = key.bytes
    if builder.shape.key_width == 0 and key.bytes:
        memcpy(builder.first_key, key.data, min(key.bytes, <uint32_t>KEY_INLINE_BYTES))


cdef int add_entry(Builder *builder, const Key *key, const Value *value,
                   const ValueOrigin *origin) noexcept nogil:
    cdef int status
    cdef bint fixed = builder.shape.key_width != 0
    if builder.status != STATUS_OK:
        return builder.status
    if builder.packer.rank == 0:
        builder_note_first(builder, key)
    status = packer_add(&builder.packer, key, value, origin)
    if status != STATUS_OK:
        return builder_fail(builder, status)
    builder.key_bytes += builder.shape.key_width if fixed else key.bytes
    if value.kind == KIND_DELETE:
        builder.delete_markers += 1
    elif value.kind == KIND_BLOB:
        builder.value_bytes += (<const BlobPointer *>value.data).bytes
    else:
        builder.value_bytes += (
            builder.shape.value_width if builder.shape.value_width else value.bytes)
    if builder.filter != NULL:
        bloom_insert(builder.filter, builder.filter_blocks,
                     hash_head(key.head) if fixed else hash_bytes(key.data, key.bytes))
    return STATUS_OK


cdef int add_value(Builder *builder, const Key *key, const Value *value,
                   const ValueOrigin *origin) noexcept nogil:
    """An entry whose value may go to the blob file instead."""
    cdef BlobPointer pointer
    cdef Value stored
    cdef int status
    if (value.kind != KIND_VALUE or builder.blobs == NULL or builder.status != STATUS_OK
            or not blob_sink_takes(builder.blobs, value.bytes)):
        return add_entry(builder, key, value, origin)
    status = blob_sink_put(builder.blobs, value, origin, &pointer)
    if status != STATUS_OK:
        return builder_fail(builder, status)
    stored.kind = KIND_BLOB
    stored.data = <const uint8_t *>&pointer
    stored.bytes = sizeof(BlobPointer)
    return add_entry(builder, key, &stored, NULL)


cdef int add_pointer(Builder *builder, const Key *key, const PageSource *source,
                     const uint8_t *page, uint32_t slot) noexcept nogil:
    """An entry whose value lies in a blob file."""
    cdef BlobPointer pointer
    cdef BlobPointer made
    cdef Value value
    cdef int status = builder.status
    page_blob_pointer(page, slot, &pointer)
    if status == STATUS_OK:
        status = blob_sink_pass(builder.blobs, source, &pointer, &value, &made)
    if status != STATUS_OK:
        return builder_fail(builder, status)
    return add_entry(builder, key, &value, NULL)


cdef int builder_add(Builder *builder, const Key *key, const Value *value) noexcept nogil:
    return add_value(builder, key, value, NULL)


cdef void fill_filter(Builder *builder, const uint64_t *heads, uint32_t count) noexcept nogil:
    """Two passes over a page's heads: a filter larger than the cache costs a miss for each key."""
    cdef uint64_t hashes[512]
    cdef uint32_t i
    if builder.filter == NULL:
        return
    for i in range(count):
        hashes[i] = hash_head(heads[i])
        prefetch_read(
            builder.filter + ((hashes[i] >> 32) * builder.filter_blocks >> 32) * BLOCK_WORDS)
    for i in range(count):
        bloom_insert(builder.filter, builder.filter_blocks, hashes[i])


cdef uint32_t count_deletes(const uint8_t *page, uint32_t first, uint32_t last) noexcept nogil:
    cdef uint32_t deletes = 0
    cdef uint32_t slot
    if header_of(page).kinds_offset:
        for slot in range(first, last):
            deletes += (kind_of(page, slot) & KIND_MASK) == KIND_DELETE
    return deletes


cdef void builder_account(Builder *builder, const uint8_t *page, uint32_t first,
                          uint32_t last) noexcept nogil:
    """Accounts for entries of fixed keys and rows, in slots [first, last) of a page."""
    cdef uint32_t deletes = count_deletes(page, first, last)
    if builder.packer.rank == 0:
        builder.first_head = heads_of(page)[first]
    builder.delete_markers += deletes
    builder.key_bytes += <uint64_t>(last - first) * builder.shape.key_width
    builder.value_bytes += <uint64_t>(last - first - deletes) * builder.shape.value_width
    fill_filter(builder, heads_of(page) + first, last - first)


cdef int builder_filled(Builder *builder, uint32_t slot, uint32_t count) noexcept nogil:
    builder_account(builder, builder.packer.page, slot, slot + count)
    return builder_fail(builder, packer_filled(&builder.packer, count))


cdef int builder_room(Builder *builder, BuilderRoom *room) noexcept nogil:
    cdef uint32_t kinds
    if builder.status != STATUS_OK or not builder.packer.in_place:
        return builder_fail(builder, builder.status if builder.status else STATUS_LIMIT)
    if packer_room(&builder.packer, SLOTS_MAX, &room.slot, &room.count) != STATUS_OK:
        return builder_fail(builder, STATUS_LIMIT)
    room.page = builder.packer.page
    room.heads = heads_of(room.page) + room.slot
    kinds = header_of(room.page).kinds_offset
    room.kinds = room.page + kinds + room.slot if kinds else NULL
    return STATUS_OK


cdef int add_plain_slots(Builder *builder, const uint8_t *page, uint32_t first,
                         uint32_t last) noexcept nogil:
    """Fixed keys and rows without kinds: column runs are copied."""
    cdef const Shape *shape = builder.shape
    cdef uint8_t *target
    cdef uint32_t slot
    cdef uint32_t count
    cdef uint32_t field
    cdef uint32_t width
    cdef int status
    while first < last:
        status = packer_room(&builder.packer, last - first, &slot, &count)
        if status != STATUS_OK:
            return builder_fail(builder, status)
        target = builder.packer.page
        memcpy(heads_of(target) + slot, heads_of(page) + first, count * 8)
        for field in range(shape.field_count):
            width = shape.field_widths[field]
            memcpy(run_of(shape, target, field) + slot * width,
                   run_of(shape, page, field) + first * width, count * width)
        status = builder_filled(builder, slot, count)
        if status != STATUS_OK:
            return status
        first += count
    return STATUS_OK


cdef int add_slot(Builder *builder, const PageSource *source, const uint8_t *page,
                  uint32_t slot) noexcept nogil:
    cdef const Shape *shape = builder.shape
    cdef uint8_t row[512]
    cdef uint8_t kind = kind_of(page, slot)
    cdef Key key
    cdef Value value
    cdef ValueOrigin origin
    cdef uint64_t bytes
    cdef int status
    key.head = heads_of(page)[slot]
    key.data = NULL
    key.bytes = 0
    if shape.key_width == 0:
        bytes = page_key_bytes(shape, page, slot)
        if bytes > KEY_BYTES_MAX:
            return builder_fail(builder, STATUS_CORRUPT)
        status = page_copy_key(shape, page, slot, source, builder.key)
        if status != STATUS_OK:
            return builder_fail(builder, status)
        key.data = builder.key
        key.bytes = <uint32_t>bytes
        key.head = load_head(builder.key, bytes)
    value.kind = kind & KIND_MASK
    if shape.value_width:
        page_copy_row(shape, page, slot, row)
        value.data = row
        value.bytes = shape.value_width
        return add_entry(builder, &key, &value, NULL)
    if value.kind == KIND_BLOB:
        return add_pointer(builder, &key, source, page, slot)
    value.bytes = page_value_bytes(page, slot)
    value.data = page_value_inline(page, slot)
    if not kind & KIND_VALUE_OVERFLOW:
        return add_value(builder, &key, &value, NULL)
    origin.source = source
    origin.page = page
    origin.slot = slot
    return add_value(builder, &key, &value, &origin)


cdef int builder_add_slots(Builder *builder, const PageSource *source, const uint8_t *page,
                           uint32_t first, uint32_t last) noexcept nogil:
    cdef uint32_t end
    cdef int status = builder.status
    while first < last and status == STATUS_OK:
        end = first
        if builder.packer.in_place:
            end = last
            if header_of(page).kinds_offset:
                end = first
                while end < last and kind_of(page, end) == KIND_VALUE:
                    end += 1
        if end > first:
            status = add_plain_slots(builder, page, first, end)
            first = end
        else:
            status = add_slot(builder, source, page, first)
            first += 1
    return status


cdef int builder_add_columns(Builder *builder, const uint64_t *heads, const uint8_t *rows,
                             uint64_t count) noexcept nogil:
    cdef const Shape *shape = builder.shape
    cdef uint64_t stride = shape.value_width
    cdef uint8_t *target
    cdef uint32_t slot
    cdef uint32_t step
    cdef uint32_t field
    cdef int status
    if builder.status != STATUS_OK or not builder.packer.in_place:
        return builder_fail(builder, builder.status if builder.status else STATUS_LIMIT)
    while count:
        status = packer_room(&builder.packer, count, &slot, &step)
        if status != STATUS_OK:
            return builder_fail(builder, status)
        target = builder.packer.page
        memcpy(heads_of(target) + slot, heads, step * 8)
        for field in range(shape.field_count):
            scatter_field(run_of(shape, target, field) + slot * shape.field_widths[field],
                          rows + shape.field_starts[field], shape.value_width,
                          shape.field_widths[field], step)
        status = builder_filled(builder, slot, step)
        if status != STATUS_OK:
            return status
        heads += step
        rows += step * stride
        count -= step
    return STATUS_OK


cdef void gather_rows(const Shape *shape, const SortPair *pairs, uint64_t count, uint64_t ahead,
                      const uint8_t *rows, uint8_t *target, uint32_t slot) noexcept nogil:
    """Rows at the pairs' indexes into slots from `slot` on; `ahead` pairs may be looked at."""
    cdef uint64_t stride = shape.value_width
    cdef const uint8_t *row
    cdef uint8_t *run
    cdef uint32_t field
    cdef uint32_t width
    cdef uint64_t i
    if shape.field_count == 1 and stride == 8:
        run = run_of(shape, target, 0) + slot * 8
        for i in range(count):
            if i + PREFETCH_ROWS < ahead:
                prefetch_read(rows + pairs[i + PREFETCH_ROWS].payload * 8)
            memcpy(run + i * 8, rows + pairs[i].payload * 8, 8)
        return
    for i in range(count):
        if i + PREFETCH_ROWS < ahead:
            row = rows + pairs[i + PREFETCH_ROWS].payload * stride
            prefetch_read(row)
            prefetch_read(row + stride - 1)
        row = rows + pairs[i].payload * stride
        for field in range(shape.field_count):
            width = shape.field_widths[field]
            memcpy(run_of(shape, target, field) + (slot + i) * width,
                   row + shape.field_starts[field], width)


cdef int builder_add_pairs(Builder *builder, const void *pairs, uint64_t count, const uint8_t *rows,
                           bint payload_is_row) noexcept nogil:
    cdef const Shape *shape = builder.shape
    cdef const SortPair *pair = <const SortPair *>pairs
    cdef uint64_t *heads
    cdef uint8_t *target
    cdef uint32_t slot
    cdef uint32_t step
    cdef uint32_t field
    cdef uint32_t width
    cdef uint32_t i
    cdef int status
    if builder.status != STATUS_OK or not builder.packer.in_place or (
            payload_is_row and shape.value_width > 8):
        return builder_fail(builder, builder.status if builder.status else STATUS_LIMIT)
    while count:
        status = packer_room(&builder.packer, count, &slot, &step)
        if status != STATUS_OK:
            return builder_fail(builder, status)
        target = builder.packer.page
        heads = heads_of(target) + slot
        for i in range(step):
            heads[i] = pair[i].key
        if payload_is_row:
            for field in range(shape.field_count):
                width = shape.field_widths[field]
                scatter_field(run_of(shape, target, field) + slot * width,
                              <const uint8_t *>&pair.payload + shape.field_starts[field],
                              sizeof(SortPair), width, step)
        else:
            gather_rows(shape, pair, step, count, rows, target, slot)
        status = builder_filled(builder, slot, step)
        if status != STATUS_OK:
            return status
        pair += step
        count -= step
    return STATUS_OK


cdef int builder_add_marker(Builder *builder, const Interval *interval) noexcept nogil:
    if builder.status != STATUS_OK:
        return builder.status
    # Bounds may be a longest key and the zero byte that makes the next one.
    if interval.lower.bytes > KEY_BYTES_MAX + 1 or (
            not interval.unbounded and interval.upper.bytes > KEY_BYTES_MAX + 1):
        return builder_fail(builder, STATUS_LIMIT)
    if builder.markers == NULL:
        builder.markers = interval_set_new(builder.shape.key_width != 0)
        if builder.markers == NULL:
            return builder_fail(builder, STATUS_NO_MEMORY)
    return builder_fail(builder, interval_set_add(builder.markers, &interval.lower, &interval.upper,
                                          interval.unbounded))


cdef uint64_t builder_bytes(const Builder *builder) noexcept nogil:
    cdef uint64_t pages = builder.writer.page_count
    if builder.packer.count:
        pages += 1
    if builder.blobs != NULL and builder.blobs.open:
        return pages * PAGE_BYTES + blob_sink_bytes(builder.blobs) // BLOB_SHARE
    return pages * PAGE_BYTES


# --- the rest of the file ------------------------------------------------------------------------


cdef uint8_t *begin_page(Builder *builder, uint8_t type) noexcept nogil:
    cdef uint8_t *page = page_writer_page(&builder.writer)
    memset(page, 0, PAGE_BYTES)
    header_of(page).type = type
    return page


cdef int pack_level(Builder *builder, const PageList *below, uint8_t level,
                    PageList *pages) noexcept nogil:
    """Packs the fences of one level; its own pages are listed in *pages."""
    cdef Packer packer
    cdef Key key
    cdef Value value
    cdef uint32_t row[2]
    cdef uint64_t i
    cdef uint64_t start = 0
    cdef int status = packer_open(&packer, &builder.fences, &builder.writer, PAGE_FENCE, level)
    if status != STATUS_OK:
        return status
    key.head = 0
    key.data = NULL
    key.bytes = 0
    value.kind = KIND_VALUE
    value.data = <const uint8_t *>row
    value.bytes = 8
    for i in range(below.count):
        if builder.shape.key_width:
            key.head = below.heads[i]
        else:
            key.data = below.keys + start
            key.bytes = <uint32_t>(below.ends[i] - start)
            key.head = load_head(key.data, key.bytes)
            start = below.ends[i]
        row[0] = below.numbers[i]
        row[1] = below.ranks[i]
        packer.rank = below.ranks[i]
        status = packer_add(&packer, &key, &value, NULL)
        if status != STATUS_OK:
            break
    if status == STATUS_OK:
        status = packer_seal(&packer)
    if status == STATUS_OK:
        pages[0] = packer.pages
        memset(&packer.pages, 0, sizeof(PageList))
    packer_close(&packer)
    return status


cdef int write_fences(Builder *builder) noexcept nogil:
    cdef SegmentFooter *footer = &builder.footer
    cdef PageList above
    cdef int status
    footer.fence_first = builder.writer.page_count
    if builder.packer.pages.count == 0:
        return STATUS_OK
    while True:
        status = pack_level(builder, &builder.packer.pages, <uint8_t>footer.fence_levels, &above)
        if status != STATUS_OK:
            return status
        footer.fence_levels += 1
        page_list_free(&builder.packer.pages)
        builder.packer.pages = above
        if above.count == 1:
            break
    footer.fence_root = above.numbers[0]
    footer.fence_pages = builder.writer.page_count - footer.fence_first
    return STATUS_OK


cdef struct Stream:                 # bytes over the payloads of consecutive pages
    Builder *builder
    uint8_t type
    uint8_t *page                   # NULL: none begun


cdef int stream_seal(Stream *stream) noexcept nogil:
    if stream.page == NULL:
        return STATUS_OK
    stream.page = NULL
    return page_writer_seal(&stream.builder.writer)


cdef int stream_write(Stream *stream, const void *data, uint64_t bytes) noexcept nogil:
    cdef const uint8_t *from_here = <const uint8_t *>data
    cdef uint64_t step
    cdef int status
    while bytes:
        if stream.page == NULL:
            stream.page = begin_page(stream.builder, stream.type)
        step = min(bytes, <uint64_t>(OVERFLOW_PAYLOAD_BYTES - header_of(stream.page).run_bytes))
        memcpy(stream.page + PAGE_HEADER_BYTES + header_of(stream.page).run_bytes, from_here, step)
        header_of(stream.page).run_bytes += <uint32_t>step
        from_here += step
        bytes -= step
        if header_of(stream.page).run_bytes == OVERFLOW_PAYLOAD_BYTES:
            status = stream_seal(stream)
            if status != STATUS_OK:
                return status
    return STATUS_OK


cdef int write_marker_key(Stream *stream, const Key *key, uint32_t bytes) noexcept nogil:
    cdef uint8_t head[8]
    if stream.builder.shape.key_width:
        store_head(head, key.head)
        return stream_write(stream, head, bytes)
    return stream_write(stream, key.data, bytes)


cdef int write_markers(Builder *builder) noexcept nogil:
    cdef SegmentFooter *footer = &builder.footer
    cdef Stream stream
    cdef const Interval *interval
    cdef uint32_t header[3]
    cdef uint32_t i
    cdef bint fixed = builder.shape.key_width != 0
    cdef int status
    footer.range_delete_first = builder.writer.page_count
    if builder.markers == NULL:
        return STATUS_OK
    stream.builder = builder
    stream.type = PAGE_RANGE_DELETE
    stream.page = NULL
    for i in range(builder.markers.count):
        interval = builder.markers.items + i
        header[0] = 8 if fixed else interval.lower.bytes
        header[1] = 0 if interval.unbounded else 8 if fixed else interval.upper.bytes
        header[2] = 1 if interval.unbounded else 0
        status = stream_write(&stream, header, 12)
        if status == STATUS_OK:
            status = write_marker_key(&stream, &interval.lower, header[0])
        if status == STATUS_OK:
            status = write_marker_key(&stream, &interval.upper, header[1])
        if status != STATUS_OK:
            return status
    footer.range_deletes = builder.markers.count
    status = stream_seal(&stream)
    footer.range_delete_pages = builder.writer.page_count - footer.range_delete_first
    return status


cdef int write_filter(Builder *builder) noexcept nogil:
    cdef SegmentFooter *footer = &builder.footer
    cdef Stream stream
    cdef int status
    footer.filter_first = builder.writer.page_count
    if builder.filter == NULL:
        return STATUS_OK
    stream.builder = builder
    stream.type = PAGE_FILTER
    stream.page = NULL
    status = stream_write(&stream, builder.filter, builder.filter_blocks * 32)
    if status == STATUS_OK:
        status = stream_seal(&stream)
    footer.filter_blocks = <uint32_t>builder.filter_blocks
    footer.filter_pages = builder.writer.page_count - footer.filter_first
    return status


cdef int write_footer(Builder *builder) noexcept nogil:
    cdef SegmentFooter *footer = &builder.footer
    cdef uint8_t *page = begin_page(builder, PAGE_FOOTER)
    cdef uint8_t *place = page + FOOTER_KEYS_OFFSET
    cdef const Shape *shape = builder.shape
    cdef uint32_t last_bytes = builder.packer.last_key_bytes
    cdef int status
    footer.type = PAGE_FOOTER
    footer.magic = SEGMENT_MAGIC
    footer.format_version = FORMAT_VERSION
    footer.segment_id = builder.writer.segment_id
    footer.entries = builder.packer.rank
    footer.delete_markers = builder.delete_markers
    footer.key_bytes = builder.key_bytes
    footer.value_bytes = builder.value_bytes
    footer.page_count = builder.writer.page_count + 1
    footer.block_map_flags = BLOCK_MAP_IDENTITY
    if builder.blobs != NULL and builder.blobs.use_count:
        footer.incompatible_features = FEATURE_BLOB_LOG
    footer.key_width = shape.key_width
    footer.value_width = shape.value_width
    footer.field_count = shape.field_count
    if footer.entries and shape.key_width:
        store_head(place, builder.first_head)
        store_head(place + 8, builder.packer.last_head)
        footer.min_key_bytes = 8
        footer.max_key_bytes = 8
    elif footer.entries:
        footer.min_key_bytes = min(builder.first_key_bytes, <uint32_t>KEY_INLINE_BYTES)
        footer.max_key_bytes = min(last_bytes, <uint32_t>KEY_INLINE_BYTES)
        memcpy(place, builder.first_key, footer.min_key_bytes)
        memcpy(place + footer.min_key_bytes, builder.packer.last_key, footer.max_key_bytes)
        if builder.first_key_bytes > KEY_INLINE_BYTES:
            footer.key_flags |= FOOTER_MIN_CUT
        if last_bytes > KEY_INLINE_BYTES:
            footer.key_flags |= FOOTER_MAX_CUT
    memcpy(page, footer, sizeof(SegmentFooter))
    memcpy(page + FOOTER_FIELDS_OFFSET, shape.field_widths, shape.field_count * 2)
    if footer.origin_bytes:
        memcpy(page + FOOTER_ORIGIN_OFFSET, builder.origin, footer.origin_bytes)
    status = page_writer_seal(&builder.writer)
    # A full buffer may be with the writer thread by now, which only reads it.
    footer.checksum = (<uint32_t *>page)[0]
    return status


cdef int finish_file(Builder *builder) noexcept nogil:
    cdef int status
    if builder.status != STATUS_OK:
        return builder.status
    status = packer_seal(&builder.packer)
    if status == STATUS_OK and builder.blobs != NULL:
        status = blob_sink_finish(builder.blobs)    # what the pages point to is durable first
    if status == STATUS_OK:
        builder.footer.data_pages = <uint32_t>builder.packer.pages.count
        builder.footer.overflow_pages = builder.packer.overflow_pages
        status = write_fences(builder)
    if status == STATUS_OK:
        status = write_markers(builder)
    if status == STATUS_OK:
        status = write_filter(builder)
    if status == STATUS_OK:
        status = write_footer(builder)
    if status == STATUS_OK:
        status = page_writer_flush(&builder.writer, True)
    return builder_fail(builder, status)


cdef void free_builder(Builder *builder) noexcept nogil:
    if builder == NULL:
        return
    page_writer_close(&builder.writer)
    packer_close(&builder.packer)
    interval_set_release(builder.markers)
    free(builder.filter)
    free(builder.key)
    free(builder)


cdef Builder *new_builder(const Shape *shape, int fd, const FileOperations *operations,
                          uint64_t segment_id, uint64_t filter_keys,
                          Counters counters) noexcept nogil:
    """NULL when there is no memory."""
    cdef Builder *builder = <Builder *>calloc(1, sizeof(Builder))
    if builder == NULL:
        return NULL
    builder.shape = shape
    fence_shape(shape, &builder.fences)
    builder.key = <uint8_t *>malloc(KEY_BYTES_MAX)
    if filter_keys:
        builder.filter_blocks = bloom_blocks_for(filter_keys)
        builder.filter = <uint32_t *>calloc(builder.filter_blocks, 32)
    if (builder.key == NULL or (filter_keys and builder.filter == NULL)
            or page_writer_open(&builder.writer, fd, operations, segment_id, counters)
            or packer_open(&builder.packer, shape, &builder.writer, PAGE_DATA, 0)):
        free_builder(builder)
        return NULL
    return builder


# --- Python --------------------------------------------------------------------------------------


cdef bytes bytes_of(const uint8_t *data, uint64_t count):
    return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>count)


cdef bytes bytes_of_key(const Shape *shape, const Key *key):
    cdef uint8_t head[8]
    if shape.key_width:
        store_head(head, key.head)
        return bytes_of(head, 8)
    return bytes_of(key.data, key.bytes)


cdef bytes above(bytes key):
    """The shortest string above every string that begins with `key`."""
    stripped = key.rstrip(b"\xff")
    if not stripped:
        return UNBOUNDED_UPPER
    last = len(stripped) - 1
    return stripped[:last] + bytes([stripped[last] + 1])


cdef int key_of(const Shape *shape, object key, Key *result) except -1:
    """A borrowed Key from a head (int, fixed form) or encoded bytes (variable form)."""
    if shape.key_width:
        result.head = key
        result.data = NULL
        result.bytes = 0
        return 0
    if len(<bytes?>key) > KEY_BYTES_MAX + 1:
        raise LimitError(f"a key has at most {KEY_BYTES_MAX} encoded bytes, not {len(key)}")
    result.data = <const uint8_t *>PyBytes_AS_STRING(key)
    result.bytes = <uint32_t>len(key)
    result.head = load_head(result.data, result.bytes)
    return 0


@cython.no_gc_clear         # the writer's account is the counters'
cdef class SegmentBuilder:
    """Writes one segment file; entries in strictly ascending key order, then `finish` or `abort`.

    files: the store's cesium.files.Files.  name: of the file in it, made or replaced.  store_uuid:
    16 bytes.  filter_keys: how many keys the filter is sized for (0: no filter).  origin: what the
    footer says of whence the rows came.  blobs: where large values go, the builder's from then on;
    without it no value does, and pointers to those that did go on.  Keys are heads (int) in the
    fixed form and encoded bytes in the variable form.  Not thread safe.
    """

    def __cinit__(self, *args, **kwargs):
        self.fd = -1

    def __init__(self, object files, str name, uint64_t segment_id, bytes store_uuid,
                 TableShape shape not None, *, uint64_t filter_keys=0, uint64_t first_sequence=0,
                 uint64_t last_sequence=0, uint64_t table_id=0, bytes origin=b"",
                 BlobOutput blobs=None, Counters counters=None):
        if self.builder != NULL:
            raise ValueError("this builder was used already")
        if len(store_uuid) != 16:
            raise ValueError(f"a store uuid has 16 bytes, not {len(store_uuid)}")
        if len(origin) > FOOTER_ORIGIN_BYTES_MAX:
            raise ValueError(f"an origin has at most {FOOTER_ORIGIN_BYTES_MAX} bytes, not "
                             f"{len(origin)}")
        self.origin = origin
        if blobs is None:
            blobs = BlobOutput(files, "", segment_id, store_uuid)
        self.blobs = blobs
        self.counters = blobs.counters = counters
        self.table_shape = shape
        self.files = files
        self.name = name
        self.path = files.path(name)
        self.fd = files.open_direct(name, 0).fd
        self.builder = new_builder(&shape.shape, self.fd, operations_of(files.operations),
                                   segment_id, filter_keys, counters)
        if self.builder == NULL:
            self.abort()
            raise MemoryError
        if shape.shape.value_width == 0:
            self.builder.blobs = &self.blobs.sink
        memcpy(self.builder.footer.store_uuid, PyBytes_AS_STRING(store_uuid), 16)
        self.builder.footer.table_id = table_id
        self.builder.footer.first_sequence = first_sequence
        self.builder.footer.last_sequence = last_sequence
        self.builder.origin = <const uint8_t *>PyBytes_AS_STRING(origin)
        self.builder.footer.origin_bytes = <uint32_t>len(origin)
        self.account()

    def __dealloc__(self):
        free_builder(self.builder)
        self.builder = NULL
        self.account()
        if self.fd >= 0:
            os.close(self.fd)

    cdef void account(self) noexcept:
        """Counts the filter and the list of pages; buffers are counted by who allocates them."""
        cdef uint64_t held = 0
        if self.builder != NULL:
            held = self.builder.filter_blocks * 32 + page_list_bytes(&self.builder.packer.pages)
        if self.counters is not None:
            count_more(&self.counters.buffer_bytes, held - self.held)
        self.held = held

    cdef int check(self, int status) except -1:
        """The gate: raises what a status means."""
        if status == STATUS_OK:
            self.account()
            return 0
        self.blobs.check(status)
        if status == STATUS_IO:
            raise_io(self.builder.writer.error, self.path)
        if status == STATUS_NO_MEMORY:
            raise MemoryError
        if status == STATUS_CORRUPT:
            raise CorruptionError(f"what goes into {self.path} is damaged at its source",
                                  file=self.path)
        if status == STATUS_LIMIT:
            raise LimitError(f"{self.path}: an entry or the whole is larger than a segment takes, "
                             "or the keys are not in ascending order")
        raise Error(f"{self.path}: building failed with status {status}")

    cdef int check_open(self) except -1:
        if self.builder == NULL:
            raise ValueError("this builder was finished or aborted")
        if page_writer_is_inherited(&self.builder.writer):
            raise ClosedError(f"{self.path} was begun before this process was forked")
        return 0

    @property
    def bytes(self):
        """Bytes of the pages written and in the making."""
        self.check_open()
        return builder_bytes(self.builder)

    def add(self, key, value):
        """Add one entry; `value` is bytes (in the fixed form the row), or None: a delete marker."""
        cdef Key c_key
        cdef Value c_value
        self.check_open()
        key_of(&self.table_shape.shape, key, &c_key)
        c_value.kind = KIND_DELETE if value is None else KIND_VALUE
        c_value.data = NULL
        c_value.bytes = self.table_shape.shape.value_width
        if value is not None:
            if c_value.bytes and <uint64_t>len(<bytes?>value) != c_value.bytes:
                raise ValueError(f"a row has {c_value.bytes} bytes, not {len(value)}")
            c_value.data = <const uint8_t *>PyBytes_AS_STRING(<bytes?>value)
            c_value.bytes = <uint64_t>len(value)
        return self.check(builder_add(self.builder, &c_key, &c_value))

    def add_columns(self, const uint64_t[::1] heads, const uint8_t[::1] rows):
        """Add heads (uint64[n]) and packed rows (uint8[n * value_width]); fixed form only."""
        cdef int status = STATUS_OK
        cdef uint64_t count = <uint64_t>heads.shape[0]
        self.check_open()
        if <uint64_t>rows.shape[0] != count * self.table_shape.shape.value_width:
            raise ValueError("rows do not match heads")
        if count:
            with nogil:
                status = builder_add_columns(self.builder, &heads[0], &rows[0], count)
        self.check(status)

    def add_pairs(self, const uint64_t[:, ::1] pairs, const uint8_t[::1] rows=None):
        """Add pairs (uint64[n, 2]: head, payload); a payload is the row, or its index in `rows`."""
        cdef int status = STATUS_OK
        cdef uint64_t count = <uint64_t>pairs.shape[0]
        cdef uint64_t available
        cdef uint64_t i
        cdef const uint8_t *row = NULL
        self.check_open()
        if pairs.shape[1] != 2:
            raise ValueError("a pair has two parts")
        if rows is not None and count:
            row = &rows[0]
            available = <uint64_t>rows.shape[0] // max(
                self.table_shape.shape.value_width, <uint32_t>1)
            for i in range(count):
                if pairs[i, 1] >= available:
                    raise IndexError(f"row {pairs[i, 1]} of {available}")
        if count:
            with nogil:
                status = builder_add_pairs(self.builder, &pairs[0, 0], count, row, row == NULL)
        self.check(status)

    def add_segment(self, SegmentReader reader not None, uint64_t lower=0, upper=None):
        """Add entries [lower, upper) of another segment, by rank; upper None: to its end."""
        cdef PageSource source
        cdef Position position
        cdef uint64_t end = UINT64_MAX if upper is None else upper
        cdef uint64_t rank = 0
        cdef uint32_t first
        cdef uint32_t last
        cdef int status
        cdef uint64_t seen = faults_seen(FAULTS)
        self.check_open()
        reader.map_file()
        with nogil:
            segment_source(&reader.segment, &source)
            status = source.edge(source.context, &position, 1)
            while status == STATUS_OK and position.page != NULL and rank < end:
                last = header_of(position.page).count
                first = <uint32_t>min(lower - rank, <uint64_t>last) if lower > rank else 0
                rank += last
                if rank > end:
                    last -= <uint32_t>(rank - end)
                if first < last:
                    status = builder_add_slots(self.builder, &source, position.page, first, last)
                if status == STATUS_OK:
                    status = source.step(source.context, &position, 1)
        reader.check(STATUS_OK, seen)
        if reader.segment.failed_status < 0:
            reader.raise_failure()
        self.check(status)

    def add_marker(self, lower, upper):
        """Add the range-delete marker [lower, upper); upper None: without end."""
        cdef Interval interval
        self.check_open()
        key_of(&self.table_shape.shape, lower, &interval.lower)
        interval.unbounded = upper is None
        interval.upper = interval.lower
        if upper is not None:
            key_of(&self.table_shape.shape, upper, &interval.upper)
        self.check(builder_add_marker(self.builder, &interval))

    def finish(self):
        """Write the rest of the file, sync and close it; return what the manifest records of it.

        Returns a dict: id, rows (entries, delete markers included), delete_markers, range_deletes,
        blobs (BlobOutput.uses), lower and upper (bytes; the interval of keys that entries and
        markers touch, both inclusive, 8 big-endian bytes of head in the fixed form, cut to 512 and
        widened in the variable form, where UNBOUNDED_UPPER stands for no end), page_count, bytes,
        checksum (of the footer page), key_bytes, value_bytes, first_sequence, last_sequence.  On
        failure the file is removed.
        """
        cdef int status
        self.check_open()
        try:
            with nogil:
                status = finish_file(self.builder)
            self.check(status)
            record = self.describe()
        except BaseException:
            self.abort()
            raise
        self.close()
        return record

    def abort(self):
        """Drop everything and remove the file.  Nothing happens after `finish`.

        A forked child drops its copy; the file is the parent's.
        """
        cdef bint own = self.builder == NULL or not page_writer_is_inherited(&self.builder.writer)
        if self.fd >= 0:
            self.close()
            self.blobs.abort(own)
            if own:
                self.files.remove(self.name)

    cdef int close(self) except -1:
        cdef Builder *builder = self.builder
        fd = self.fd
        self.builder = NULL
        self.fd = -1
        with nogil:
            free_builder(builder)
        self.account()
        self.files.close(fd)
        self.blobs.close()
        return 0

    cdef dict describe(self):
        cdef Builder *builder = self.builder
        cdef SegmentFooter *footer = &builder.footer
        lower, upper = self.bounds()
        return {
            "id": footer.segment_id,
            "rows": footer.entries,
            "delete_markers": footer.delete_markers,
            "range_deletes": footer.range_deletes,
            "lower": lower,
            "upper": upper,
            "page_count": footer.page_count,
            "bytes": <uint64_t>footer.page_count * PAGE_BYTES,
            "checksum": footer.checksum,
            "key_bytes": footer.key_bytes,
            "value_bytes": footer.value_bytes,
            "first_sequence": footer.first_sequence,
            "last_sequence": footer.last_sequence,
            "blobs": self.blobs.uses(),
        }

    cdef tuple bounds(self):
        cdef Builder *builder = self.builder
        cdef const Shape *shape = &self.table_shape.shape
        cdef const Interval *interval
        cdef Key key
        lowers = []
        uppers = []
        if builder.packer.rank:
            key.head = builder.first_head
            key.data = builder.first_key
            key.bytes = min(builder.first_key_bytes, <uint32_t>KEY_INLINE_BYTES)
            lowers.append(bytes_of_key(shape, &key))
            key.head = builder.packer.last_head
            key.data = builder.packer.last_key
            key.bytes = builder.packer.last_key_bytes
            uppers.append(bytes_of_key(shape, &key))
        if builder.markers != NULL and builder.markers.count:
            lowers.append(bytes_of_key(shape, &builder.markers.items[0].lower)[:KEY_INLINE_BYTES])
            interval = builder.markers.items + builder.markers.count - 1
            if interval.unbounded:
                return min(lowers), b"\xff" * 8 if shape.key_width else UNBOUNDED_UPPER
            key = interval.upper
            if shape.key_width:
                key.head -= 1           # the end is not part of the marker
            uppers.append(bytes_of_key(shape, &key))
        if not lowers:
            return b"", b""
        upper = max(uppers)
        if len(upper) > KEY_INLINE_BYTES:
            upper = above(upper[:KEY_INLINE_BYTES])
        return min(lowers), upper
