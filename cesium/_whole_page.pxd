# Pages that are copied as they are from one segment into another.
#
# What lies in the page stays as it is; only its checksum, which is seeded with segment and page
# number, is made anew, and the builder's counts, fences and filter learn of its entries.

from libc.stdint cimport uint8_t

from cesium._builder cimport Builder

# Adds a whole packed page of a segment with the same shape, whose keys lie above all entries so
# far; the page in the making is finished first.  STATUS_FULL, with nothing changed: it is no such
# page, it refers to overflow pages, or it or the page in the making would leave too much unused.
cdef int builder_take_page(Builder *builder, const uint8_t *page) noexcept nogil
