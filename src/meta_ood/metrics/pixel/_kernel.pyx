# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Count the pixels of one map into the rows of a score histogram, in one pass."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

ctypedef fused counter:
    uint32_t
    uint64_t


def order(
    const int32_t[::1] bits not None,
    const uint8_t[::1] target not None,
    const uint8_t[::1] role not None,
    uint32_t[::1] negative not None,
    uint32_t[::1] positive not None,
):
    """Write the keys of the pixels of roles 0 and 1 (see ``order_keys``).

    Returns the number of pixels of each role 0 .. 4, and of NaN scores among roles 0 and 1.
    """
    cdef Py_ssize_t i, negatives = 0, positives = 0, neutral = 0, ignored = 0, missing = 0
    cdef Py_ssize_t wrong
    cdef int32_t value
    cdef uint32_t key
    cdef uint8_t kind
    with nogil:
        for i in range(target.shape[0]):
            kind = role[target[i]]
            if kind > 1:
                neutral += kind == 2
                ignored += kind == 3
                continue
            value = bits[i]
            missing += (value & 0x7FFFFFFF) > 0x7F800000
            if value == <int32_t> 0x80000000:
                value = 0
            key = <uint32_t> value ^ (<uint32_t> (value >> 31) | <uint32_t> 0x80000000)
            if kind:
                positive[positives] = key
                positives += 1
            else:
                negative[negatives] = key
                negatives += 1
    wrong = target.shape[0] - negatives - positives - neutral - ignored
    return negatives, positives, neutral, ignored, wrong, missing


def count(
    uint32_t[::1] keys not None,
    const int64_t[::1] start not None,
    const uint8_t[::1] shift not None,
    counter[::1] row not None,
):
    """Add sorted keys to the counters of their pages; return how many belong to no counter.

    Those, whose page has a ``start`` below 0, are moved to the front of `keys`, still sorted.
    """
    cdef Py_ssize_t i = 0, rest = 0, n = keys.shape[0]
    cdef uint32_t page
    cdef int64_t first
    cdef uint8_t bits
    with nogil:
        while i < n:
            page = keys[i] >> 16
            first = start[page]
            if first >= 0:
                bits = shift[page]
                while i < n and keys[i] >> 16 == page:
                    row[first + ((keys[i] & 0xFFFF) >> bits)] += 1
                    i += 1
            else:
                while i < n and keys[i] >> 16 == page:
                    keys[rest] = keys[i]
                    rest += 1
                    i += 1
    return rest
