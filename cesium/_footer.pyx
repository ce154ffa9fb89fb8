"""The footer of a segment file: contract in _footer.pxd, bytes in docs/format-segment.md."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, uint16_t, uint32_t
from libc.string cimport memcmp

from cesium._layout cimport (
    BLOCK_MAP_IDENTITY, FEATURE_BLOB_LOG, FIELDS_MAX, FOOTER_FIELDS_OFFSET, FOOTER_KEYS_OFFSET,
    FOOTER_ORIGIN_BYTES_MAX, FOOTER_ORIGIN_OFFSET, FORMAT_VERSION, KEY_INLINE_BYTES, PAGE_BYTES,
    PAGE_FOOTER, SEGMENT_MAGIC, STATUS_CORRUPT, STATUS_OK, SegmentFooter,
)
from cesium._page_writer cimport page_checksum

from cesium.errors import Error

cdef enum:
    PAGE_HEADS_MOST = 504               # heads of 8 bytes in a payload of 4032


cdef int check_geometry(const SegmentFooter *footer, uint64_t file_pages) noexcept nogil:
    """The parts of the file follow one another without a gap and end at its end."""
    if footer.page_count != file_pages:
        return STATUS_CORRUPT
    if <uint64_t>footer.data_pages + footer.overflow_pages != footer.fence_first:
        return STATUS_CORRUPT
    if <uint64_t>footer.fence_first + footer.fence_pages != footer.range_delete_first:
        return STATUS_CORRUPT
    if <uint64_t>footer.range_delete_first + footer.range_delete_pages != footer.filter_first:
        return STATUS_CORRUPT
    if <uint64_t>footer.filter_first + footer.filter_pages + 1 != footer.page_count:
        return STATUS_CORRUPT
    if (<uint64_t>footer.filter_blocks + FILTER_PAGE_BLOCKS - 1) // FILTER_PAGE_BLOCKS != (
            footer.filter_pages):
        return STATUS_CORRUPT
    if footer.block_map_flags != BLOCK_MAP_IDENTITY or footer.entries > UINT32_MAX:
        return STATUS_CORRUPT
    if footer.entries < footer.data_pages:
        return STATUS_CORRUPT
    # Arrays are made for as many rows before a page is touched.
    if footer.entries > <uint64_t>footer.data_pages * PAGE_HEADS_MOST:
        return STATUS_CORRUPT
    if (footer.min_key_bytes > KEY_INLINE_BYTES or footer.max_key_bytes > KEY_INLINE_BYTES
            or footer.delete_markers > footer.entries):
        return STATUS_CORRUPT
    return STATUS_OK


cdef bytes copy_of(const uint8_t *data, uint64_t count):
    return PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>count)


cdef dict footer_fields(const uint8_t *page):
    cdef const SegmentFooter *footer = <const SegmentFooter *>page
    cdef const uint16_t *widths = <const uint16_t *>(page + FOOTER_FIELDS_OFFSET)
    cdef const uint8_t *keys = page + FOOTER_KEYS_OFFSET
    return {
        "checksum": footer.checksum,
        "format_version": footer.format_version,
        "compatible_features": footer.compatible_features,
        "incompatible_features": footer.incompatible_features,
        "store_uuid": copy_of(footer.store_uuid, 16),
        "segment_id": footer.segment_id,
        "table_id": footer.table_id,
        "first_sequence": footer.first_sequence,
        "last_sequence": footer.last_sequence,
        "entries": footer.entries,
        "delete_markers": footer.delete_markers,
        "range_deletes": footer.range_deletes,
        "key_bytes": footer.key_bytes,
        "value_bytes": footer.value_bytes,
        "page_count": footer.page_count,
        "data_pages": footer.data_pages,
        "overflow_pages": footer.overflow_pages,
        "fence_first": footer.fence_first,
        "fence_pages": footer.fence_pages,
        "fence_root": footer.fence_root,
        "fence_levels": footer.fence_levels,
        "range_delete_first": footer.range_delete_first,
        "range_delete_pages": footer.range_delete_pages,
        "filter_first": footer.filter_first,
        "filter_pages": footer.filter_pages,
        "filter_blocks": footer.filter_blocks,
        "block_map_flags": footer.block_map_flags,
        "key_width": footer.key_width,
        "value_width": footer.value_width,
        "fields": [widths[i] for i in range(min(footer.field_count, <uint32_t>FIELDS_MAX))],
        "key_flags": footer.key_flags,
        "origin": copy_of(page + FOOTER_ORIGIN_OFFSET,
                          min(footer.origin_bytes, <uint32_t>FOOTER_ORIGIN_BYTES_MAX)),
        "min_key": copy_of(keys, min(footer.min_key_bytes, <uint32_t>KEY_INLINE_BYTES)),
        "max_key": copy_of(keys + min(footer.min_key_bytes, <uint32_t>KEY_INLINE_BYTES),
                           min(footer.max_key_bytes, <uint32_t>KEY_INLINE_BYTES)),
    }


cdef object footer_problem(str path, const uint8_t *page, uint64_t size, const Shape *shape,
                           object record, object store_uuid):
    cdef uint64_t pages = size // PAGE_BYTES
    cdef const SegmentFooter *footer = <const SegmentFooter *>page
    cdef uint64_t segment_id = record.id
    cdef uint32_t found = page_checksum(segment_id, pages - 1, page)
    cdef const uint16_t *widths
    if size % PAGE_BYTES:
        return ("the file is cut off", "a multiple of 4096 bytes", f"{size} bytes")
    if footer.magic != SEGMENT_MAGIC:
        return ("this is no segment, or it is cut off", hex(SEGMENT_MAGIC),
                hex(footer.magic))
    if footer.checksum != found:
        if footer.checksum == page_checksum(footer.segment_id, pages - 1, page):
            return ("the file is another segment", segment_id, footer.segment_id)
        return ("wrong checksum of the footer", hex(footer.checksum), hex(found))
    if footer.format_version != FORMAT_VERSION:
        raise Error(f"{path}: has format version {footer.format_version}; "
                    f"this cesium reads version {FORMAT_VERSION}")
    if footer.incompatible_features & ~<uint64_t>FEATURE_BLOB_LOG:
        names = ", ".join(f"bit {bit}" for bit in range(64)
                          if (footer.incompatible_features & ~<uint64_t>FEATURE_BLOB_LOG)
                          >> bit & 1)
        raise Error(f"{path}: needs features that this cesium does not know: {names}")
    if footer.segment_id != segment_id or footer.type != PAGE_FOOTER:
        return ("the file is another segment", segment_id, footer.segment_id)
    uuid = copy_of(footer.store_uuid, 16)
    if store_uuid is not None and uuid != store_uuid:
        return ("the segment is another store's", store_uuid.hex(), uuid.hex())
    expected = getattr(record, "checksum", None)
    if expected is not None and expected != footer.checksum:
        return ("the segment is not the one that was recorded", hex(expected),
                hex(footer.checksum))
    if (footer.key_width != shape.key_width or footer.value_width != shape.value_width
            or footer.field_count != shape.field_count
            or memcmp(page + FOOTER_FIELDS_OFFSET, shape.field_widths, shape.field_count * 2)):
        widths = <const uint16_t *>(page + FOOTER_FIELDS_OFFSET)
        count = min(footer.field_count, <uint32_t>FIELDS_MAX)
        return ("the segment holds other keys or values than its table",
                f"key_width {shape.key_width}, value_width {shape.value_width}, fields "
                f"{[shape.field_widths[i] for i in range(shape.field_count)]}",
                f"key_width {footer.key_width}, value_width {footer.value_width}, fields "
                f"{[widths[i] for i in range(count)]}")
    if footer.entries != record.rows:
        return ("wrong number of entries", record.rows, footer.entries)
    if check_geometry(footer, pages) != STATUS_OK:
        return ("the parts of the segment do not fit together", f"{pages} pages",
                f"{footer.page_count} pages")
    return None
