# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Connected components and the sums over them; the API is measure.py."""


cdef inline int find(int[::1] parent, int label) noexcept nogil:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label


cdef inline int unite(int[::1] parent, int a, int b) noexcept nogil:
    a = find(parent, a)
    b = find(parent, b)
    if a < b:
        parent[b] = a
        return a
    parent[a] = b
    return b


def label(const unsigned char[:, ::1] mask, int[:, ::1] labels, int[::1] parent):
    """Number the 8-connected components of `mask` from 1 in raster order of their first pixel."""
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], row, column
    cdef int last = 0, found, count = 0, i
    with nogil:
        for row in range(height):
            for column in range(width):
                labels[row, column] = 0
                if not mask[row, column]:
                    continue
                found = 0
                if column > 0 and labels[row, column - 1]:
                    found = labels[row, column - 1]
                if row > 0:
                    # a pixel above joins its two diagonal neighbours already
                    if labels[row - 1, column]:
                        i = labels[row - 1, column]
                        found = unite(parent, found, i) if found else i
                    else:
                        if column > 0 and labels[row - 1, column - 1]:
                            i = labels[row - 1, column - 1]
                            found = unite(parent, found, i) if found else i
                        if column + 1 < width and labels[row - 1, column + 1]:
                            i = labels[row - 1, column + 1]
                            found = unite(parent, found, i) if found else i
                if not found:
                    last += 1
                    parent[last] = last
                    found = last
                labels[row, column] = found
        # roots are the smallest of their set, so that a parent is final before its children
        for i in range(1, last + 1):
            if parent[i] == i:
                count += 1
                parent[i] = count
            else:
                parent[i] = parent[parent[i]]
        for row in range(height):
            for column in range(width):
                if labels[row, column]:
                    labels[row, column] = parent[labels[row, column]]
    return count


def accumulate(
    const int[:, ::1] labels,
    const long long[::1] pixels,
    const float[:, ::1] maps,
    const float[:, ::1] probabilities,
    double[:, ::1] sums,
    double[:, ::1] inner_sums,
    double[:, ::1] class_sums,
    int[:, ::1] box,
):
    """Add `pixels` (flat, in raster order) to the sums of their segment.

    Columns of `sums` and `inner_sums`: 1, row, column, then each map, then each map squared.
    """
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], n = pixels.shape[0]
    cdef Py_ssize_t i, row, column, other_row, other_column, m, c
    cdef Py_ssize_t map_count = maps.shape[1], classes = probabilities.shape[1]
    cdef int k
    cdef bint boundary
    cdef double value
    with nogil:
        for i in range(n):
            row = pixels[i] // width
            column = pixels[i] % width
            k = labels[row, column] - 1
            if k < 0:
                continue
            boundary = False
            for other_row in range(max(row - 1, 0), min(row + 2, height)):
                for other_column in range(max(column - 1, 0), min(column + 2, width)):
                    if labels[other_row, other_column] == 0:
                        boundary = True
            sums[k, 0] += 1
            sums[k, 1] += row
            sums[k, 2] += column
            for m in range(map_count):
                value = maps[i, m]
                sums[k, 3 + m] += value
                sums[k, 3 + map_count + m] += value * value
            if not boundary:
                inner_sums[k, 0] += 1
                for m in range(map_count):
                    value = maps[i, m]
                    inner_sums[k, 3 + m] += value
                    inner_sums[k, 3 + map_count + m] += value * value
            for c in range(classes):
                class_sums[k, c] += probabilities[i, c]
            box[k, 0] = min(box[k, 0], <int> row)
            box[k, 1] = min(box[k, 1], <int> column)
            box[k, 2] = max(box[k, 2], <int> row + 1)
            box[k, 3] = max(box[k, 3], <int> column + 1)


def neighbours(
    const int[:, ::1] labels,
    const long long[::1] pixels,
    const unsigned char[:, ::1] arg_max,
    long long[:, ::1] counts,
):
    """Count, per segment and class, the ordered pairs (pixel of it, 8-neighbour outside)."""
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], n = pixels.shape[0]
    cdef Py_ssize_t i, row, column, other_row, other_column
    cdef int k
    with nogil:
        for i in range(n):
            row = pixels[i] // width
            column = pixels[i] % width
            k = labels[row, column] - 1
            if k < 0:
                continue
            for other_row in range(max(row - 1, 0), min(row + 2, height)):
                for other_column in range(max(column - 1, 0), min(column + 2, width)):
                    if labels[other_row, other_column] == 0:
                        counts[k, arg_max[other_row, other_column]] += 1


def contacts(
    const int[:, ::1] labels,
    const long long[::1] pixels,
    const int[:, ::1] others,
    long long[:, ::1] pairs,
):
    """List the pairs (label, label in `others`) that are 8-adjacent; repeats occur.

    Returns the number of pairs; those beyond the end of `pairs` are counted, not stored.
    """
    cdef Py_ssize_t height = labels.shape[0], width = labels.shape[1], n = pixels.shape[0]
    cdef Py_ssize_t i, row, column, other_row, other_column, count = 0, room = pairs.shape[0]
    cdef int k, other, last_k = 0, last_other = 0
    with nogil:
        for i in range(n):
            row = pixels[i] // width
            column = pixels[i] % width
            k = labels[row, column]
            if k == 0:
                continue
            for other_row in range(max(row - 1, 0), min(row + 2, height)):
                for other_column in range(max(column - 1, 0), min(column + 2, width)):
                    other = others[other_row, other_column]
                    if other and (k != last_k or other != last_other):
                        if count < room:
                            pairs[count, 0] = k
                            pairs[count, 1] = other
                        count += 1
                        last_k = k
                        last_other = other
    return count
