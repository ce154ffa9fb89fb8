"""Noticing gaps: see _gap.pxd for the contract."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset


cdef void gap_pass(Gaps *gaps, const uint8_t *page, uint32_t from_slot, uint32_t to_slot,
                   const PageSource *source) noexcept nogil:
    cdef Gap *gap = &gaps.current
    if gap.markers == 0:
        set_edge(&gap.first, page, from_slot, source)
    set_edge(&gap.last, page, to_slot, source)
    gap.markers += (to_slot - from_slot if to_slot > from_slot else from_slot - to_slot) + 1


cdef void gap_end(Gaps *gaps, const uint8_t *page, uint32_t slot,
                  const PageSource *source) noexcept nogil:
    if gaps.current.markers > gaps.widest.markers:
        gaps.widest = gaps.current
        gaps.widest.before = gaps.row
        set_edge(&gaps.widest.after, page, slot, source)
    memset(&gaps.current, 0, sizeof(Gap))
