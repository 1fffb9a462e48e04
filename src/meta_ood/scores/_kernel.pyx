# cython: language_level=3, boundscheck=False, wraparound=False
# cython: cdivision=True, initializedcheck=False
"""One pass over the logits of a frame: up-sampling and softmax statistics; the API is maps.py."""

from cython.parallel cimport prange


cdef extern from "_softmax.h":
    long SCRATCH(int classes, int columns)
    int BASELINE, AVX2, AVX512
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
    ctypedef struct Maps:
        float *entropy
        float *first
        float *second
        float *max_logit
        float *log_sum_exp
        float *generalised
        unsigned char *arg_max
    int best_instruction_set() noexcept nogil
    int reduce_rows(
        const Grid *grid, int begin, int end, float *scratch, const Maps *maps
    ) noexcept nogil

chosen = best_instruction_set()

INSTRUCTION_SETS = ("baseline", "avx2", "avx512")
BEST = chosen


def instruction_set():
    """Return the name of the instruction set in use."""
    return INSTRUCTION_SETS[chosen]


def use_instruction_set(name=None):
    """Use an instruction set that the processor has; None = the best. For tests and benchmarks."""
    global chosen
    best = best_instruction_set()
    wanted = best if name is None else INSTRUCTION_SETS.index(name)
    if wanted > best:
        raise ValueError(f"this processor has no {name}")
    chosen = wanted


def scratch_size(int classes, int columns):
    """Return how many floats of scratch memory each thread of `reduce` needs."""
    return SCRATCH(classes, columns)


cdef float *pointer(float[:, ::1] values) noexcept:
    return NULL if values is None else &values[0, 0]


def reduce(
    const float[:, :, ::1] logits not None,
    const int[::1] low not None,
    const int[::1] high not None,
    const float[::1] weight not None,
    const int[::1] left not None,
    const int[::1] right not None,
    const float[::1] share not None,
    bint is_softmax,
    float entropy_scale,
    float[:, ::1] scratch not None,
    float[:, ::1] entropy,
    float[:, ::1] first,
    float[:, ::1] second,
    float[:, ::1] max_logit,
    float[:, ::1] log_sum_exp,
    float[:, ::1] generalised,
    unsigned char[:, ::1] arg_max,
):
    """Fill the maps that are not None, with one thread for each row of `scratch`.

    Returns whether everything was finite.
    """
    cdef Grid grid
    cdef Maps maps
    cdef int threads = <int> scratch.shape[0], rows = <int> low.shape[0], thread
    cdef int bad = 0
    grid.logits = &logits[0, 0, 0]
    grid.classes, grid.height, grid.width = logits.shape[0], logits.shape[1], logits.shape[2]
    grid.rows, grid.columns = rows, <int> left.shape[0]
    grid.is_softmax = is_softmax
    grid.entropy_scale = entropy_scale
    grid.low, grid.high, grid.weight = &low[0], &high[0], &weight[0]
    grid.left, grid.right, grid.share = &left[0], &right[0], &share[0]
    maps.entropy, maps.first, maps.second = pointer(entropy), pointer(first), pointer(second)
    maps.max_logit, maps.log_sum_exp = pointer(max_logit), pointer(log_sum_exp)
    maps.generalised = pointer(generalised)
    maps.arg_max = NULL if arg_max is None else &arg_max[0, 0]
    for thread in prange(threads, nogil=True, num_threads=threads, schedule="static", chunksize=1):
        bad += 1 - reduce_rows(
            &grid,
            <int> (<long long> rows * thread // threads),
            <int> (<long long> rows * (thread + 1) // threads),
            &scratch[thread, 0],
            &maps,
        )
    return bad == 0
