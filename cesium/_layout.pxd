# The structs that lie on the drive and the constants of the format, said once.
#
# docs/format.md draws the same bytes and argues them; tests/unit/test_layout.py compares the two.
# All integers are little-endian.  Sizes and offsets are asserted at compile time in _layout.pyx.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef packed struct PageHeader:
    uint32_t checksum           # CRC32C of bytes 4..4095, seeded with segment id and page number
    uint8_t type                # PAGE_DATA, PAGE_FENCE, ...
    uint8_t form                # FORM_* bits: how keys and values are stored
    uint8_t flags               # HAS_* bits: which optional columns are present
    uint8_t level               # fence pages: 0 routes to data pages, 1 to level 0, ...
    uint16_t count              # slots in use
    uint16_t capacity           # slots that the columns are laid out for; = count in a segment
    uint16_t prefix_bytes       # bytes that all keys share, stored once at byte 64
    uint16_t heads_offset       # u64[capacity]
    uint16_t kinds_offset       # u8[capacity], or 0 when every entry is a plain value
    uint16_t entries_offset     # Entry[capacity], or 0 when keys and values are both fixed
    uint16_t values_offset      # the column runs of fixed values, or 0
    uint16_t heap_offset        # lowest used byte of the heap, which ends at 4096
    uint16_t heap_dead_bytes    # bytes of the heap that no entry owns; 0 in a segment
    uint16_t expiry_offset      # reserved: u64[capacity]
    uint16_t sequences_offset   # reserved: u64[capacity]
    uint16_t reserved_30
    uint64_t generation         # memtable: copy-on-write generation; 0 in a segment
    uint32_t run_bytes          # overflow, range-delete and filter pages: payload bytes in use
    uint32_t reserved_44
    uint64_t reserved_48
    uint64_t reserved_56

cdef packed struct Entry:       # one slot's bytes in the heap: key remainder, then value
    uint16_t offset             # from the start of the page
    uint16_t key_bytes          # key length after the prefix, head included; 0 in the fixed form
    uint16_t value_bytes        # bytes of value (or reference) after the key; 0 if values are fixed

cdef packed struct OverflowReference:
    uint64_t location           # segment: page number * 4096 + offset; memtable: an address
    uint64_t bytes              # length of the whole key or value

cdef packed struct BlobPointer:     # what an entry of KIND_BLOB holds in place of its value
    uint64_t blob_id            # of the file
    uint64_t offset             # in the file, of the first byte; a multiple of 8
    uint64_t bytes              # length of the value
    uint32_t checksum           # CRC32C of the value, seeded with blob id and offset

cdef packed struct BlobHeader:  # the first page of a blob file
    uint32_t checksum           # as of any page, the blob id standing for the segment's
    uint8_t type                # PAGE_BLOB
    uint8_t reserved_5
    uint16_t reserved_6
    uint64_t magic              # BLOB_MAGIC
    uint32_t format_version
    uint32_t reserved_20
    uint64_t compatible_features
    uint64_t incompatible_features
    uint8_t store_uuid[16]
    uint64_t blob_id
    uint64_t table_id

cdef packed struct SegmentFooter:
    uint32_t checksum           # of the footer page, as of any page
    uint8_t type                # PAGE_FOOTER
    uint8_t reserved_5
    uint16_t reserved_6
    uint64_t magic              # SEGMENT_MAGIC
    uint32_t format_version
    uint32_t reserved_20
    uint64_t compatible_features
    uint64_t incompatible_features
    uint8_t store_uuid[16]
    uint64_t segment_id
    uint64_t table_id
    uint64_t first_sequence
    uint64_t last_sequence
    uint64_t entries            # slots in data pages, delete markers included
    uint64_t delete_markers
    uint64_t range_deletes
    uint64_t key_bytes          # encoded bytes of all keys, and of all values, before packing
    uint64_t value_bytes
    uint32_t page_count         # pages in the file, this one included
    uint32_t data_pages
    uint32_t overflow_pages
    uint32_t fence_first        # first fence page; leaves first, then each level above, root last
    uint32_t fence_pages
    uint32_t fence_root         # page number of the root
    uint32_t fence_levels
    uint32_t range_delete_first
    uint32_t range_delete_pages
    uint32_t filter_first
    uint32_t filter_pages
    uint32_t filter_blocks      # split blocks of 32 bytes; 0 = no filter
    uint32_t block_map_flags    # BLOCK_MAP_IDENTITY
    uint32_t key_width          # 1..8, or 0 for the variable key form
    uint32_t value_width        # 1..512, or 0 for the variable value form
    uint32_t field_count        # column runs of a fixed value; u16 widths at FOOTER_FIELDS_OFFSET
    uint32_t min_key_bytes      # smallest key at FOOTER_KEYS_OFFSET, the largest behind it,
    uint32_t max_key_bytes      # each cut to 512 bytes
    uint32_t key_flags          # FOOTER_MIN_CUT, FOOTER_MAX_CUT
    uint32_t origin_bytes       # JSON at FOOTER_ORIGIN_OFFSET: whence the segment came; 0: none

cdef enum:
    PAGE_BYTES = 4096
    PAGE_HEADER_BYTES = 64
    OVERFLOW_PAYLOAD_BYTES = 4032
    FOOTER_FIELDS_OFFSET = 256
    FOOTER_KEYS_OFFSET = 1024
    FOOTER_ORIGIN_OFFSET = 2048
    FOOTER_ORIGIN_BYTES_MAX = 2048
    FIELDS_MAX = 255
    KEY_INLINE_BYTES = 512      # a longer key keeps this much in the page and spills whole
    VALUE_INLINE_BYTES = 1024   # a longer value spills
    VALUE_FIXED_BYTES = 512     # widest fixed value row
    KEY_BYTES_MAX = 65536
    VALUE_BYTES_MAX = 67108864
    FORMAT_VERSION = 1

cdef enum:
    PAGE_DATA = 1
    PAGE_FENCE = 2
    PAGE_OVERFLOW = 3
    PAGE_RANGE_DELETE = 4
    PAGE_FILTER = 5
    PAGE_FOOTER = 6
    PAGE_BLOB = 7

cdef enum:                      # bits of incompatible_features
    FEATURE_BLOB_LOG = 1

cdef enum:
    FORM_VARIABLE_KEYS = 1
    FORM_VARIABLE_VALUES = 2

cdef enum:
    HAS_KINDS = 1
    HAS_EXPIRY = 2
    HAS_SEQUENCES = 4
    HAS_PACKED_HEADS = 8

cdef enum:                      # what an entry is (low four bits) and what of it overflowed
    KIND_VALUE = 0
    KIND_DELETE = 1
    KIND_BLOB = 2
    KIND_MASK = 15
    KIND_VALUE_OVERFLOW = 16
    KIND_KEY_OVERFLOW = 32

cdef enum:
    BLOCK_MAP_IDENTITY = 1
    FOOTER_MIN_CUT = 1
    FOOTER_MAX_CUT = 2

cdef enum:                      # what kernels return; one gate in Python turns it into an exception
    STATUS_OK = 0
    STATUS_NOT_FOUND = 1
    STATUS_FULL = 2
    STATUS_NO_MEMORY = -1
    STATUS_CORRUPT = -2
    STATUS_IO = -3
    STATUS_LIMIT = -4
    STATUS_CLOSED = -5
    STATUS_POISONED = -6
    STATUS_INTERRUPTED = -7

cdef extern from *:
    """
    #define SEGMENT_MAGIC 0x0A0D4745534D5343ULL  /* "CSMSEG\\r\\n" read little-endian */
    #define BLOB_MAGIC 0x0A0D424C424D5343ULL     /* "CSMBLB\\r\\n" read little-endian */
    #define BLOB_BYTES_MAX (1ULL << 32)
    """
    const uint64_t SEGMENT_MAGIC
    const uint64_t BLOB_MAGIC
    const uint64_t BLOB_BYTES_MAX   # of one value in a blob file
