# The footer of a segment file: what it says, and whether it fits what is known of the segment.
#
# Pure functions over a copy of the footer page, 4096 bytes that nobody changes meanwhile.  The GIL
# is needed.

from libc.stdint cimport uint8_t, uint64_t

from cesium._page cimport Shape

cdef enum:
    FILTER_PAGE_BLOCKS = 126            # blocks of 32 bytes in a payload of 4032

# A footer page's fields, and fields (widths), origin, min_key, max_key; its checksum is right.
cdef dict footer_fields(const uint8_t *page)
# What is wrong with the footer of a file of `size` bytes: (what, expected, found), or None.  Error
# for a newer format.  `record` is the manifest's; store_uuid: 16 bytes that it must say, or None.
cdef object footer_problem(str path, const uint8_t *page, uint64_t size, const Shape *shape,
                           object record, object store_uuid)
cdef bytes copy_of(const uint8_t *data, uint64_t count)
