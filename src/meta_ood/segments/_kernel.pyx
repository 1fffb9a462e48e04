# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""Connected components of a mask as runs, and sums over them; the API is measure.py.

A run is a maximal piece ``[start, end)`` of a row inside the mask. Runs are few where masks are
sparse; labels, overlaps and contacts are computed on runs alone, pixel by pixel only the sums.
"""

from libc.string cimport memchr


cdef extern from "_softmax.h":
    enum:
        POINTS
    int chosen
    ctypedef struct Grid:
        const float *logits
        int classes, height, width, rows, columns, is_softmax
        float entropy_scale
        const int *low
        const int *high
        const int *left
        const int *right
        const float *weight
        const float *share
    int best_instruction_set() noexcept nogil
    void softmax_at(
        const Grid *grid, int pieces, const int *row, const int *column, const int *begin,
        float *p, float *heat
    ) noexcept nogil

chosen = best_instruction_set()

points = POINTS


def find_runs(
    const unsigned char[:, ::1] mask not None,
    int[::1] row_first not None,
    int[::1] start not None,
    int[::1] end not None,
):
    """List the runs of `mask` (0 or 1) row by row; return their number.

    Those of row y are ``row_first[y] .. row_first[y + 1] - 1``.
    """
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], row
    cdef int count = 0
    cdef const unsigned char *begin
    cdef const unsigned char *stop
    cdef const unsigned char *here
    with nogil:
        for row in range(height):
            row_first[row] = count
            begin = &mask[row, 0]
            stop = begin + width
            here = <const unsigned char *> memchr(begin, 1, width)
            while here != NULL:
                start[count] = <int> (here - begin)
                here = <const unsigned char *> memchr(here, 0, stop - here)
                end[count] = <int> (width if here == NULL else here - begin)
                count += 1
                if here != NULL:
                    here = <const unsigned char *> memchr(here, 1, stop - here)
        row_first[height] = count
    return count


cdef inline int root(int[::1] parent, int i) noexcept nogil:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def label_runs(
    const int[::1] row_first not None,
    const int[::1] start not None,
    const int[::1] end not None,
    int[::1] label not None,
):
    """Number the 8-connected components of runs from 0, in raster order of their first pixel."""
    cdef Py_ssize_t height = row_first.shape[0] - 1, row
    cdef int above, here, last, a, b, count = 0
    with nogil:
        for here in range(row_first[height]):
            label[here] = here
        for row in range(1, height):
            above = row_first[row - 1]
            last = row_first[row]
            here = last
            while above < last and here < row_first[row + 1]:
                if start[above] <= end[here] and start[here] <= end[above]:
                    a = root(label, above)
                    b = root(label, here)
                    if a < b:
                        label[b] = a
                    else:
                        label[a] = b
                if end[above] < end[here]:
                    above += 1
                else:
                    here += 1
        # a root is the first run of its component: it is numbered before its other runs
        for here in range(row_first[height]):
            if label[here] == here:
                label[here] = count
                count += 1
            else:
                label[here] = label[label[here]]
    return count


def paint_runs(
    const int[::1] row_first not None,
    const int[::1] start not None,
    const int[::1] end not None,
    const int[::1] label not None,
    int[:, ::1] labels not None,
):
    """Write ``label + 1`` over the pixels of each run; the others stay as they are."""
    cdef Py_ssize_t height = row_first.shape[0] - 1, row, column
    cdef int run
    with nogil:
        for row in range(height):
            for run in range(row_first[row], row_first[row + 1]):
                for column in range(start[run], end[run]):
                    labels[row, column] = label[run] + 1


def contacts(
    const int[::1] row_first not None,
    const int[::1] start not None,
    const int[::1] end not None,
    const int[::1] label not None,
    const int[::1] other_row_first not None,
    const int[::1] other_start not None,
    const int[::1] other_end not None,
    const int[::1] other_label not None,
    int reach,
    long long[:, ::1] out not None,
):
    """List (label, other label, common pixels) of runs that share (reach 0) or touch (1) pixels.

    A pair of labels occurs as often as their runs meet. Returns the number of rows; those beyond
    the end of `out` are counted, not stored.
    """
    cdef Py_ssize_t height = row_first.shape[0] - 1, row, other_row, count = 0
    cdef Py_ssize_t room = out.shape[0]
    cdef int a, b, common
    with nogil:
        for row in range(height):
            if row_first[row] == row_first[row + 1]:
                continue
            for other_row in range(max(row - reach, 0), min(row + reach + 1, height)):
                a = row_first[row]
                b = other_row_first[other_row]
                while a < row_first[row + 1] and b < other_row_first[other_row + 1]:
                    common = min(end[a], other_end[b]) - max(start[a], other_start[b])
                    if common > -reach:
                        if count < room:
                            out[count, 0] = label[a]
                            out[count, 1] = other_label[b]
                            out[count, 2] = common
                        count += 1
                    if end[a] < other_end[b]:
                        a += 1
                    else:
                        b += 1
    return count


cdef void find_inner(
    const unsigned char[:, ::1] mask, Py_ssize_t row, Py_ssize_t column, int n,
    unsigned char *inner,
) noexcept nogil:
    """Mark which of the `n` pixels from (row, column) on have no neighbour outside the mask."""
    cdef Py_ssize_t height = mask.shape[0], width = mask.shape[1], y
    cdef int i
    cdef const unsigned char *line
    for i in range(n):
        inner[i] = 1
    for y in range(max(row - 1, 0), min(row + 2, height)):
        line = &mask[y, column]
        for i in range(n):
            inner[i] &= line[i]
        for i in range(column == 0, n):
            inner[i] &= line[i - 1]
        for i in range(n - (column + n == width)):
            inner[i] &= line[i + 1]


cdef inline double total_of(const float *values, int n) noexcept nogil:
    """Return the sum in double precision; four sums side by side do not wait for one another."""
    cdef double a = 0, b = 0, c = 0, d = 0
    cdef int i = 0
    while i + 4 <= n:
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
        i += 4
    while i < n:
        a += values[i]
        i += 1
    return (a + b) + (c + d)


def accumulate(
    const unsigned char[:, ::1] mask not None,
    const int[::1] row_first not None,
    const int[::1] start not None,
    const int[::1] end not None,
    const int[::1] label not None,
    const float[:, :, ::1] logits not None,
    const int[::1] low not None,
    const int[::1] high not None,
    const float[::1] weight not None,
    const int[::1] left not None,
    const int[::1] right not None,
    const float[::1] share not None,
    bint is_softmax,
    float entropy_scale,
    const float[:, ::1] score not None,
    const unsigned char[:, ::1] arg_max not None,
    float[:, ::1] p not None,
    float[:, ::1] heat not None,
    double[:, ::1] sums not None,
    double[:, ::1] class_sums not None,
    long long[:, ::1] neighbours not None,
):
    """Sum over the pixels of each label, piece by piece of its runs, in double precision.

    Columns of `sums`: size, inner size, row, column, score, then for each of E, D and V the sum and
    the sum of squares over all pixels and over the inner ones. `neighbours` counts the pairs
    (pixel, 8-neighbour outside the mask) by the class of the neighbour. `p` (C, points) and `heat`
    (3, points) are scratch memory.
    """
    cdef Grid grid
    cdef int piece_row[POINTS]
    cdef int piece_column[POINTS]
    cdef int piece_label[POINTS]
    cdef int piece_begin[POINTS + 1]
    cdef unsigned char inner[POINTS]
    cdef int classes = <int> logits.shape[0], height = <int> mask.shape[0]
    cdef int width = <int> mask.shape[1], count = row_first[height]
    cdef int run = 0, offset = 0, row = 0, n, pieces, take, i, k, c, m, x, y, piece, begin, insiders
    cdef int other_row, other_column
    cdef double value, inner_value, total, squares, inner_total, inner_squares
    grid.logits = &logits[0, 0, 0]
    grid.classes, grid.height, grid.width = logits.shape[0], logits.shape[1], logits.shape[2]
    grid.rows, grid.columns = height, width
    grid.is_softmax = is_softmax
    grid.entropy_scale = entropy_scale
    grid.low, grid.high, grid.weight = &low[0], &high[0], &weight[0]
    grid.left, grid.right, grid.share = &left[0], &right[0], &share[0]
    with nogil:
        while run < count:
            # 1. cut runs into pieces until POINTS pixels are together
            n = 0
            pieces = 0
            while run < count and n < POINTS:
                while run >= row_first[row + 1]:
                    row += 1
                take = min(end[run] - start[run] - offset, POINTS - n)
                piece_label[pieces] = label[run]
                piece_row[pieces] = row
                piece_column[pieces] = start[run] + offset
                piece_begin[pieces] = n
                pieces += 1
                n += take
                offset += take
                if start[run] + offset == end[run]:
                    run += 1
                    offset = 0
            piece_begin[pieces] = n
            # 2. softmax and heat maps of these pixels
            softmax_at(&grid, pieces, piece_row, piece_column, piece_begin, &p[0, 0], &heat[0, 0])
            # 3. add them to the sums of their labels
            for piece in range(pieces):
                k = piece_label[piece]
                y = piece_row[piece]
                x = piece_column[piece]
                begin = piece_begin[piece]
                take = piece_begin[piece + 1] - begin
                find_inner(mask, y, x, take, inner)
                insiders = 0
                for i in range(take):
                    insiders += inner[i]
                    if not inner[i]:
                        for other_row in range(max(y - 1, 0), min(y + 2, height)):
                            for other_column in range(max(x + i - 1, 0), min(x + i + 2, width)):
                                if not mask[other_row, other_column]:
                                    neighbours[k, arg_max[other_row, other_column]] += 1
                sums[k, 0] += take
                sums[k, 1] += insiders
                sums[k, 2] += <double> y * take
                sums[k, 3] += <double> x * take + 0.5 * (<double> take * (take - 1))
                sums[k, 4] += total_of(&score[y, x], take)
                for m in range(3):
                    total = squares = inner_total = inner_squares = 0
                    for i in range(take):
                        value = heat[m, begin + i]
                        inner_value = inner[i] * value
                        total += value
                        squares += value * value
                        inner_total += inner_value
                        inner_squares += inner_value * value
                    sums[k, 5 + 4 * m] += total
                    sums[k, 6 + 4 * m] += squares
                    sums[k, 7 + 4 * m] += inner_total
                    sums[k, 8 + 4 * m] += inner_squares
                for c in range(classes):
                    class_sums[k, c] += total_of(&p[c, begin], take)
