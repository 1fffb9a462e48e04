# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""One pass each: order the pixels of a map, count keys, add lists and rows."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

cdef extern from *:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define PREFETCH(address) __builtin_prefetch(address, 1)
    #else
    #define PREFETCH(address) ((void) (address))
    #endif
    """
    void PREFETCH(const void *address) noexcept nogil

cdef enum:
    BLOCK = 256


def order(
    const int32_t[::1] bits not None,
    const uint8_t[::1] target not None,
    const uint8_t[::1] role not None,
    uint32_t[::1] negative not None,
    uint32_t[::1] positive not None,
):
    """Write the keys of the pixels of roles 0 and 1, see ``order_keys``.

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
    int64_t[::1] row not None,
):
    """Add keys to the counters of their pages; return how many lie in a page without a row.

    Those, whose page has a ``start`` below 0, are moved to the front of `keys`. Counters are
    fetched a block of keys before they are needed: they are many, and far from one another.
    """
    cdef int64_t at[BLOCK]
    cdef Py_ssize_t i, n, found, rest = 0, first = 0
    cdef uint32_t key
    cdef int64_t begin
    with nogil:
        while first < keys.shape[0]:
            n = min(<Py_ssize_t> BLOCK, keys.shape[0] - first)
            found = 0
            for i in range(n):
                key = keys[first + i]
                begin = start[key >> 16]
                if begin >= 0:
                    at[found] = begin + ((key & 0xFFFF) >> shift[key >> 16])
                    PREFETCH(&row[at[found]])
                    found += 1
                else:
                    keys[rest] = key
                    rest += 1
            for i in range(found):
                row[at[i]] += 1
            first += n
    return rest


def add_keys(
    const uint32_t[::1] listed not None,
    const int64_t[:, ::1] listed_counts not None,
    const uint32_t[::1] keys not None,
    const int64_t[:, ::1] counts not None,
    const int64_t[::1] start not None,
    const uint8_t[::1] shift not None,
    int64_t[:, ::1] rows not None,
    uint32_t[::1] new_keys not None,
    int64_t[:, ::1] new_counts not None,
):
    """Add rising `keys` with two counts each: to the row of their page, else to the list.

    A key loses the dropped bits of its page first. The `listed` keys rise and have lost them. The
    new list is written to ``new_keys`` and ``new_counts``, which have room for both; its length is
    returned.
    """
    cdef Py_ssize_t i = 0, j, n = 0, end = listed.shape[0]
    cdef uint32_t key, low
    cdef int64_t first
    with nogil:
        for j in range(keys.shape[0]):
            key = keys[j]
            first = start[key >> 16]
            low = (key & 0xFFFF) >> shift[key >> 16]
            if first >= 0:
                rows[0, first + low] += counts[0, j]
                rows[1, first + low] += counts[1, j]
                continue
            key = (key & <uint32_t> 0xFFFF0000) | (low << shift[key >> 16])
            while i < end and listed[i] <= key:
                new_keys[n] = listed[i]
                new_counts[0, n] = listed_counts[0, i]
                new_counts[1, n] = listed_counts[1, i]
                n += 1
                i += 1
            if n == 0 or new_keys[n - 1] != key:
                new_keys[n] = key
                new_counts[0, n] = new_counts[1, n] = 0
                n += 1
            new_counts[0, n - 1] += counts[0, j]
            new_counts[1, n - 1] += counts[1, j]
        while i < end:
            new_keys[n] = listed[i]
            new_counts[0, n] = listed_counts[0, i]
            new_counts[1, n] = listed_counts[1, i]
            n += 1
            i += 1
    return n


def add_rows(
    const int64_t[::1] pages not None,
    const int64_t[::1] starts not None,
    const int64_t[:, ::1] rows not None,
    const uint8_t[::1] finer not None,
    const int64_t[::1] start not None,
    int64_t[:, ::1] total not None,
):
    """Add the rows of `pages`, one after the other from `starts` on, to those of a histogram.

    2**finer[page] neighbours become one counter of the row that begins at ``start[page]``.
    """
    cdef Py_ssize_t column, p, i
    cdef const int64_t *source
    cdef int64_t *target
    cdef uint8_t bits
    with nogil:
        for column in range(2):
            for p in range(pages.shape[0]):
                bits = finer[pages[p]]
                source = &rows[column, starts[p]]
                target = &total[column, start[pages[p]]]
                for i in range(starts[p + 1] - starts[p]):
                    target[i >> bits] += source[i]
