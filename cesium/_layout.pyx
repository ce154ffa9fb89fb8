"""The compiled side of docs/format.md: sizes asserted when compiled, offsets told to the tests."""

from cesium._layout cimport (
    BLOB_BYTES_MAX, BlobHeader, BlobPointer, Entry, FEATURE_BLOB_LOG, FIELDS_MAX,
    FOOTER_FIELDS_OFFSET, FOOTER_KEYS_OFFSET, FOOTER_ORIGIN_BYTES_MAX, FOOTER_ORIGIN_OFFSET,
    FORMAT_VERSION, FORM_VARIABLE_KEYS, FORM_VARIABLE_VALUES, HAS_EXPIRY, HAS_KINDS,
    HAS_PACKED_HEADS, HAS_SEQUENCES, KEY_BYTES_MAX, KEY_INLINE_BYTES, KIND_BLOB, KIND_DELETE,
    KIND_KEY_OVERFLOW, KIND_VALUE, KIND_VALUE_OVERFLOW, OVERFLOW_PAYLOAD_BYTES, OverflowReference,
    PAGE_BLOB, PAGE_BYTES, PAGE_DATA, PAGE_FENCE, PAGE_FILTER, PAGE_FOOTER, PAGE_HEADER_BYTES,
    PAGE_OVERFLOW, PAGE_RANGE_DELETE, PageHeader, SegmentFooter, VALUE_BYTES_MAX, VALUE_FIXED_BYTES,
    VALUE_INLINE_BYTES,
)

cdef extern from *:
    """
    #define LAYOUT_ASSERT(condition) _Static_assert(condition, "layout differs from docs/format.md")
    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "cesium's files are little-endian and mapped as they are; this machine is big-endian"
    #endif
    """
    void LAYOUT_ASSERT(bint condition) noexcept nogil


cdef void assert_layout() noexcept nogil:
    LAYOUT_ASSERT(sizeof(PageHeader) == 64)
    LAYOUT_ASSERT(sizeof(Entry) == 6)
    LAYOUT_ASSERT(sizeof(OverflowReference) == 16)
    LAYOUT_ASSERT(sizeof(BlobPointer) == 28)
    LAYOUT_ASSERT(sizeof(BlobHeader) == 72)
    LAYOUT_ASSERT(sizeof(SegmentFooter) == 208)
    LAYOUT_ASSERT(sizeof(SegmentFooter) <= 256)     # FOOTER_FIELDS_OFFSET
    LAYOUT_ASSERT(256 + 2 * 255 <= 1024)            # widths end before FOOTER_KEYS_OFFSET
    LAYOUT_ASSERT(1024 + 2 * 512 <= 2048)           # keys end before FOOTER_ORIGIN_OFFSET
    LAYOUT_ASSERT(2048 + 2048 <= 4096)              # FOOTER_ORIGIN_BYTES_MAX
    LAYOUT_ASSERT(1024 + 2 * 512 <= 4096)           # both keys fit the footer page


def describe():
    """This build's layout: {"constants": {name: value}, "structs": {name: {field: offset}}}.

    Each struct also has its size under the field name "(size)".
    """
    cdef PageHeader page
    cdef Entry entry
    cdef OverflowReference reference
    cdef BlobPointer pointer
    cdef BlobHeader blob
    cdef SegmentFooter footer
    cdef char *start
    start = <char *>&page
    page_fields = {
        "checksum": <char *>&page.checksum - start,
        "type": <char *>&page.type - start,
        "form": <char *>&page.form - start,
        "flags": <char *>&page.flags - start,
        "level": <char *>&page.level - start,
        "count": <char *>&page.count - start,
        "capacity": <char *>&page.capacity - start,
        "prefix_bytes": <char *>&page.prefix_bytes - start,
        "heads_offset": <char *>&page.heads_offset - start,
        "kinds_offset": <char *>&page.kinds_offset - start,
        "entries_offset": <char *>&page.entries_offset - start,
        "values_offset": <char *>&page.values_offset - start,
        "heap_offset": <char *>&page.heap_offset - start,
        "heap_dead_bytes": <char *>&page.heap_dead_bytes - start,
        "expiry_offset": <char *>&page.expiry_offset - start,
        "sequences_offset": <char *>&page.sequences_offset - start,
        "generation": <char *>&page.generation - start,
        "run_bytes": <char *>&page.run_bytes - start,
        "(size)": sizeof(PageHeader),
    }
    start = <char *>&entry
    entry_fields = {
        "offset": <char *>&entry.offset - start,
        "key_bytes": <char *>&entry.key_bytes - start,
        "value_bytes": <char *>&entry.value_bytes - start,
        "(size)": sizeof(Entry),
    }
    start = <char *>&reference
    reference_fields = {
        "location": <char *>&reference.location - start,
        "bytes": <char *>&reference.bytes - start,
        "(size)": sizeof(OverflowReference),
    }
    start = <char *>&pointer
    pointer_fields = {
        "blob_id": <char *>&pointer.blob_id - start,
        "offset": <char *>&pointer.offset - start,
        "bytes": <char *>&pointer.bytes - start,
        "checksum": <char *>&pointer.checksum - start,
        "(size)": sizeof(BlobPointer),
    }
    start = <char *>&blob
    blob_fields = {
        "checksum": <char *>&blob.checksum - start,
        "type": <char *>&blob.type - start,
        "magic": <char *>&blob.magic - start,
        "format_version": <char *>&blob.format_version - start,
        "compatible_features": <char *>&blob.compatible_features - start,
        "incompatible_features": <char *>&blob.incompatible_features - start,
        "store_uuid": <char *>&blob.store_uuid[0] - start,
        "blob_id": <char *>&blob.blob_id - start,
        "table_id": <char *>&blob.table_id - start,
        "(size)": sizeof(BlobHeader),
    }
    start = <char *>&footer
    footer_fields = {
        "checksum": <char *>&footer.checksum - start,
        "type": <char *>&footer.type - start,
        "magic": <char *>&footer.magic - start,
        "format_version": <char *>&footer.format_version - start,
        "compatible_features": <char *>&footer.compatible_features - start,
        "incompatible_features": <char *>&footer.incompatible_features - start,
        "store_uuid": <char *>&footer.store_uuid[0] - start,
        "segment_id": <char *>&footer.segment_id - start,
        "table_id": <char *>&footer.table_id - start,
        "first_sequence": <char *>&footer.first_sequence - start,
        "last_sequence": <char *>&footer.last_sequence - start,
        "entries": <char *>&footer.entries - start,
        "delete_markers": <char *>&footer.delete_markers - start,
        "range_deletes": <char *>&footer.range_deletes - start,
        "key_bytes": <char *>&footer.key_bytes - start,
        "value_bytes": <char *>&footer.value_bytes - start,
        "page_count": <char *>&footer.page_count - start,
        "data_pages": <char *>&footer.data_pages - start,
        "overflow_pages": <char *>&footer.overflow_pages - start,
        "fence_first": <char *>&footer.fence_first - start,
        "fence_pages": <char *>&footer.fence_pages - start,
        "fence_root": <char *>&footer.fence_root - start,
        "fence_levels": <char *>&footer.fence_levels - start,
        "range_delete_first": <char *>&footer.range_delete_first - start,
        "range_delete_pages": <char *>&footer.range_delete_pages - start,
        "filter_first": <char *>&footer.filter_first - start,
        "filter_pages": <char *>&footer.filter_pages - start,
        "filter_blocks": <char *>&footer.filter_blocks - start,
        "block_map_flags": <char *>&footer.block_map_flags - start,
        "key_width": <char *>&footer.key_width - start,
        "value_width": <char *>&footer.value_width - start,
        "field_count": <char *>&footer.field_count - start,
        "min_key_bytes": <char *>&footer.min_key_bytes - start,
        "max_key_bytes": <char *>&footer.max_key_bytes - start,
        "key_flags": <char *>&footer.key_flags - start,
        "origin_bytes": <char *>&footer.origin_bytes - start,
        "(size)": sizeof(SegmentFooter),
    }
    return {
        "constants": {
            "PAGE_BYTES": PAGE_BYTES,
            "PAGE_HEADER_BYTES": PAGE_HEADER_BYTES,
            "OVERFLOW_PAYLOAD_BYTES": OVERFLOW_PAYLOAD_BYTES,
            "FOOTER_FIELDS_OFFSET": FOOTER_FIELDS_OFFSET,
            "FOOTER_KEYS_OFFSET": FOOTER_KEYS_OFFSET,
            "FOOTER_ORIGIN_OFFSET": FOOTER_ORIGIN_OFFSET,
            "FOOTER_ORIGIN_BYTES_MAX": FOOTER_ORIGIN_BYTES_MAX,
            "FIELDS_MAX": FIELDS_MAX,
            "KEY_INLINE_BYTES": KEY_INLINE_BYTES,
            "VALUE_INLINE_BYTES": VALUE_INLINE_BYTES,
            "VALUE_FIXED_BYTES": VALUE_FIXED_BYTES,
            "KEY_BYTES_MAX": KEY_BYTES_MAX,
            "VALUE_BYTES_MAX": VALUE_BYTES_MAX,
            "BLOB_BYTES_MAX": BLOB_BYTES_MAX,
            "FORMAT_VERSION": FORMAT_VERSION,
            "PAGE_DATA": PAGE_DATA,
            "PAGE_FENCE": PAGE_FENCE,
            "PAGE_OVERFLOW": PAGE_OVERFLOW,
            "PAGE_RANGE_DELETE": PAGE_RANGE_DELETE,
            "PAGE_FILTER": PAGE_FILTER,
            "PAGE_FOOTER": PAGE_FOOTER,
            "PAGE_BLOB": PAGE_BLOB,
            "FEATURE_BLOB_LOG": FEATURE_BLOB_LOG,
            "FORM_VARIABLE_KEYS": FORM_VARIABLE_KEYS,
            "FORM_VARIABLE_VALUES": FORM_VARIABLE_VALUES,
            "HAS_KINDS": HAS_KINDS,
            "HAS_EXPIRY": HAS_EXPIRY,
            "HAS_SEQUENCES": HAS_SEQUENCES,
            "HAS_PACKED_HEADS": HAS_PACKED_HEADS,
            "KIND_VALUE": KIND_VALUE,
            "KIND_DELETE": KIND_DELETE,
            "KIND_BLOB": KIND_BLOB,
            "KIND_VALUE_OVERFLOW": KIND_VALUE_OVERFLOW,
            "KIND_KEY_OVERFLOW": KIND_KEY_OVERFLOW,
        },
        "structs": {
            "PageHeader": page_fields,
            "Entry": entry_fields,
            "OverflowReference": reference_fields,
            "BlobPointer": pointer_fields,
            "BlobHeader": blob_fields,
            "SegmentFooter": footer_fields,
        },
    }
