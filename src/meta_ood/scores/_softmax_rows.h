/* The inner loops over pixels, written so that compilers turn them into vector instructions.

   _softmax.h includes this file once for each instruction set, with NAME(x) giving every function
   its own name. Arrays of one row or block are contiguous, plane by plane: value[c * stride + x].
   No function here reads or writes outside the arrays that it is given, or allocates. */

static inline float NAME(exp_nonpositive)(float x)
{
    /* exp of x <= 0, relative error below 2e-7: x = k ln 2 + r, |r| <= ln 2 / 2, exp r by a
       polynomial that was fitted for the smallest largest relative error (3e-9), times 2^k through
       the exponent bits. 0 below -87 (1.6e-38) and for NaN: times x that is still NaN or 0. */
    float t = x > -87.0f ? x : -87.0f;
    float k = t * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the sum is rounded to an integer */
    uint32_t shifted = bits_of(k) << 23;
    k -= 12582912.0f;
    float r = (t - k * 0.693359375f) - k * -2.12194440e-4f;
    float q = 0.00138145401f;
    q = q * r + 0.00836874521f;
    q = q * r + 0.0416683908f;
    q = q * r + 0.166665204f;
    q = q * r + 0.499999934f;
    float e = of_bits(bits_of((q * r) * r + r + 1.0f) + shifted);
    return x > -87.0f ? e : 0.0f;
}

static inline float NAME(log_positive)(float x)
{
    /* ln of a normal x > 0, absolute error below 2e-7 for x in [1e-38, 256]: x = 2^k m,
       m in [0.707, 1.414), ln m = 2 artanh s with s = (m - 1) / (m + 1), |s| < 0.172. */
    int32_t raised = (int32_t)bits_of(x) - 0x3f3504f3;
    float k = (float)(raised >> 23);
    float m = of_bits(bits_of(x) - ((uint32_t)raised & 0xff800000u));
    float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    float series = ((0.222222222f * s2 + 0.285714286f) * s2 + 0.4f) * s2 + 0.666666667f;
    return k * 0.693359375f + (k * -2.12194440e-4f + (2.0f * s + s * s2 * series));
}

/* Interpolate n pixels of a row of logits, from pixel `column` on; out may be written up to the
   next multiple of eight. */
static void NAME(expand)(
    const Grid *grid, const float *row, int column, int n, float *restrict out)
{
    const int *restrict left = grid->left + column, *restrict right = grid->right + column;
    const float *restrict share = grid->share + column;
    int x = 0;
#ifdef PERMUTE
    /* Eight neighbours lie between at most eight logits unless the row is hardly enlarged: one
       load and two permutations take a fraction of the time of two gathers. */
    const int room = grid->width < 8 ? 0 : grid->columns - column;
    for (; x < n && x + 8 <= room; x += 8) {
        const int base = left[x] < grid->width - 8 ? left[x] : grid->width - 8;
        if (right[x + 7] - base > 7)
            break;
        const __m256 logits = _mm256_loadu_ps(row + base);
        const __m256i first = _mm256_set1_epi32(base);
        const __m256i l = _mm256_loadu_si256((const __m256i *)(left + x));
        const __m256i r = _mm256_loadu_si256((const __m256i *)(right + x));
        const __m256 a = _mm256_permutevar8x32_ps(logits, _mm256_sub_epi32(l, first));
        const __m256 b = _mm256_permutevar8x32_ps(logits, _mm256_sub_epi32(r, first));
        const __m256 weight = _mm256_loadu_ps(share + x);
        _mm256_storeu_ps(out + x, _mm256_fmadd_ps(weight, _mm256_sub_ps(b, a), a));
    }
#endif
    for (; x < n; x++) {
        float a = row[left[x]], b = row[right[x]];
        out[x] = a + share[x] * (b - a);
    }
}

/* Interpolate `group` classes from c on between two rows; note the largest two of each pixel.
   Arrays start afresh with `fresh`. */
static ALWAYS_INLINE void NAME(compare)(
    const float *restrict upper, const float *restrict lower, long stride, float weight, int n,
    int c, const int group, const int fresh, float *restrict z, float *restrict first,
    float *restrict second, int *restrict arg)
{
    for (int x = 0; x < n; x++) {
        float largest = fresh ? -FLT_MAX : first[x], next = fresh ? -FLT_MAX : second[x];
        int winner = fresh ? 0 : arg[x];
        UNROLL
        for (int k = 0; k < group; k++) {
            const float above = upper[k * stride + x];
            const float value = above + weight * (lower[k * stride + x] - above);
            const float loser = value < largest ? value : largest;
            z[k * BLOCK + x] = value;
            next = loser > next ? loser : next;
            winner ^= (winner ^ (c + k)) & -(value > largest); /* a branch would be mispredicted */
            largest = value > largest ? value : largest;
        }
        first[x] = largest;
        second[x] = next;
        arg[x] = winner;
    }
}

/* Add the exponentials of `group` classes, and these times their exponents, to the sums. */
static ALWAYS_INLINE void NAME(exponentials)(
    const float *restrict z, int n, const int group, const int fresh, const float *restrict first,
    float *restrict sum, float *restrict moment)
{
    for (int x = 0; x < n; x++) {
        const float largest = first[x];
        float total = fresh ? 0.0f : sum[x], weighted = fresh ? 0.0f : moment[x];
        UNROLL
        for (int k = 0; k < group; k++) {
            const float shifted = z[k * BLOCK + x] - largest;
            const float e = NAME(exp_nonpositive)(shifted);
            total += e;
            weighted += e * shifted;
        }
        sum[x] = total;
        moment[x] = weighted;
    }
}

/* Generalised entropy: the mean over the classes of (p (1 - p))^0.1 (Liu et al., CVPR 2023).

   The power makes 1e-10 to 0.1, so that p of the losers and 1 - p of the winner must be right below
   the resolution of 1: both are taken as logarithms, ln(1 - p) of the winner from the sum of the
   others relative to the second largest. log_sum: ln of the sum relative to the largest. */
static ALWAYS_INLINE void NAME(generalise)(
    const float *restrict z, int classes, const int is_softmax, int n, const float *restrict first,
    const float *restrict second, const int *restrict arg, const float *restrict log_sum,
    float *restrict out)
{
    float total[BLOCK], others[BLOCK];
    for (int x = 0; x < n; x++) {
        total[x] = 0.0f;
        others[x] = 0.0f;
    }
    for (int c = 0; c < classes; c++) {
        const float *restrict zc = z + (long)c * BLOCK;
        for (int x = 0; x < n; x++) {
            float p = zc[x], log_p, lost;
            if (is_softmax) { /* as given: what is no probability in (0, 1) adds nothing */
                lost = (p > FLT_MIN) & (p < 1.0f) ? 0.0f : 1.0f;
                log_p = NAME(log_positive)(lost > 0.0f ? 0.5f : p);
                p = lost > 0.0f ? 0.5f : p;
            } else {
                lost = c == arg[x] ? 1.0f : 0.0f; /* the winner is added below */
                others[x] += (1.0f - lost) * NAME(exp_nonpositive)(p < second[x] ? p - second[x] : 0.0f);
                log_p = p - first[x] - log_sum[x];
                p = NAME(exp_nonpositive)(log_p < 0.0f ? log_p : 0.0f);
                p = p < 0.75f ? p : 0.75f; /* a loser's is at most a half */
            }
            const float power = GAMMA * (log_p + NAME(log_positive)(1.0f - p));
            total[x] += (1.0f - lost) * NAME(exp_nonpositive)(power < 0.0f ? power : 0.0f);
        }
    }
    for (int x = 0; x < n; x++) {
        float winner = 0.0f;
        if (!is_softmax && classes > 1) {
            const float log_others = second[x] - first[x] + NAME(log_positive)(others[x]) - log_sum[x];
            const float power = GAMMA * (log_others - log_sum[x]);
            winner = NAME(exp_nonpositive)(power < 0.0f ? power : 0.0f);
        }
        out[x] = (total[x] + winner) / classes;
    }
}

/* Reduce n <= BLOCK pixels; upper, lower: the expanded rows above and below, plane after plane. */
static inline int NAME(reduce_block)(
    const Grid *grid, const float *upper, const float *lower, long stride, float weight, int n,
    float *restrict z, const Maps *maps, long at)
{
    float first[BLOCK], second[BLOCK], sum[BLOCK], moment[BLOCK], entropy[BLOCK], log_sum[BLOCK];
    int arg[BLOCK];
    const int classes = grid->classes;
    const int head = classes < GROUP ? 1 : GROUP; /* classes of the first, fresh trip */
    int c = head;
    if (head == GROUP)
        NAME(compare)(upper, lower, stride, weight, n, 0, GROUP, 1, z, first, second, arg);
    else
        NAME(compare)(upper, lower, stride, weight, n, 0, 1, 1, z, first, second, arg);
    for (; c + GROUP <= classes; c += GROUP)
        NAME(compare)(upper + c * stride, lower + c * stride, stride, weight, n, c, GROUP, 0,
                      z + c * BLOCK, first, second, arg);
    for (; c < classes; c++)
        NAME(compare)(upper + c * stride, lower + c * stride, stride, weight, n, c, 1, 0,
                      z + c * BLOCK, first, second, arg);
    if (grid->is_softmax) {
        for (int x = 0; x < n; x++) {
            sum[x] = 0.0f;
            moment[x] = 0.0f;
        }
        for (c = 0; c < classes; c++) {
            const float *restrict zc = z + (long)c * BLOCK;
            for (int x = 0; x < n; x++) {
                float p = zc[x], safe = p > FLT_MIN ? p : FLT_MIN;
                sum[x] += p;
                moment[x] += p * NAME(log_positive)(safe);
            }
        }
        for (int x = 0; x < n; x++)
            entropy[x] = NAME(log_positive)(sum[x]) - moment[x] / sum[x];
        if (classes == 1)
            memset(second, 0, sizeof second);
        if (maps->generalised)
            NAME(generalise)(z, classes, 1, n, first, second, arg, sum, maps->generalised + at);
    } else {
        if (head == GROUP)
            NAME(exponentials)(z, n, GROUP, 1, first, sum, moment);
        else
            NAME(exponentials)(z, n, 1, 1, first, sum, moment);
        for (c = head; c + GROUP <= classes; c += GROUP)
            NAME(exponentials)(z + c * BLOCK, n, GROUP, 0, first, sum, moment);
        for (; c < classes; c++)
            NAME(exponentials)(z + c * BLOCK, n, 1, 0, first, sum, moment);
        for (int x = 0; x < n; x++) {
            log_sum[x] = NAME(log_positive)(sum[x]);
            entropy[x] = log_sum[x] - moment[x] / sum[x];
        }
        if (maps->generalised) /* before its inputs are overwritten */
            NAME(generalise)(z, classes, 0, n, first, second, arg, log_sum, maps->generalised + at);
        for (int x = 0; x < n; x++)
            log_sum[x] += first[x];
        if (maps->max_logit)
            memcpy(maps->max_logit + at, first, (size_t)n * sizeof *first);
        if (maps->log_sum_exp)
            memcpy(maps->log_sum_exp + at, log_sum, (size_t)n * sizeof *log_sum);
        for (int x = 0; x < n; x++) {
            second[x] = NAME(exp_nonpositive)(second[x] - first[x]) / sum[x];
            first[x] = 1.0f / sum[x];
        }
        if (classes == 1)
            memset(second, 0, sizeof second);
    }
    /* NaN and infinity in a logit end as NaN or infinity here; both fail this comparison */
    int good = 1;
    for (int x = 0; x < n; x++) {
        float value = entropy[x] * grid->entropy_scale;
        good &= (value > -0.5f) & (value < 1.5f);
        value = value > 0.0f ? value : 0.0f;
        entropy[x] = value < 1.0f ? value : 1.0f;
    }
    if (maps->entropy)
        memcpy(maps->entropy + at, entropy, (size_t)n * sizeof *entropy);
    if (maps->first)
        memcpy(maps->first + at, first, (size_t)n * sizeof *first);
    if (maps->second)
        memcpy(maps->second + at, second, (size_t)n * sizeof *second);
    if (maps->arg_max) {
        unsigned char *restrict arg_max = maps->arg_max + at;
        for (int x = 0; x < n; x++)
            arg_max[x] = (unsigned char)arg[x];
    }
    return good;
}

/* Reduce the rows [begin, end); scratch: SCRATCH(classes, columns) floats.
   Returns 1, or 0 where something was not finite. */
static inline int NAME(reduce_rows)(
    const Grid *grid, int begin, int end, float *scratch, const Maps *maps)
{
    const long plane = (long)grid->height * grid->width, line = LINE(grid->columns);
    const int same_width = grid->width == grid->columns;
    float *slots[2] = {scratch, scratch + grid->classes * line};
    float *z = slots[1] + grid->classes * line;
    int held[2] = {-1, -1}, good = 1;
    for (int row = begin; row < end; row++) {
        const int wanted[2] = {grid->low[row], grid->high[row]};
        const float *side[2];
        for (int i = 0; i < 2; i++) {
            const float *source = grid->logits + (long)wanted[i] * grid->width;
            if (same_width) { /* nothing to expand: read in place */
                side[i] = source;
                continue;
            }
            /* rows alternate between the slots, so that the other wanted row stays held */
            const int slot = wanted[i] & 1;
            if (held[slot] != wanted[i]) {
                for (int c = 0; c < grid->classes; c++)
                    NAME(expand)(grid, source + c * plane, 0, grid->columns,
                                 slots[slot] + c * line);
                held[slot] = wanted[i];
            }
            side[i] = slots[slot];
        }
        const long stride = same_width ? plane : line;
        for (int x = 0; x < grid->columns; x += BLOCK) {
            const int n = grid->columns - x < BLOCK ? grid->columns - x : BLOCK;
            const long at = (long)row * grid->columns + x;
            const float weight = grid->weight[row];
            good &= n == BLOCK
                ? NAME(reduce_block)(grid, side[0] + x, side[1] + x, stride, weight, BLOCK, z,
                                     maps, at)
                : NAME(reduce_block)(grid, side[0] + x, side[1] + x, stride, weight, n, z,
                                     maps, at);
        }
    }
    return good;
}

/* Softmax p[c * POINTS + i] and heat maps E, D, V of at most POINTS pixels: pieces of rows, piece k
   with the pixels begin[k] <= i < begin[k + 1] from (row[k], column[k]) on. */
static inline void NAME(softmax_at)(
    const Grid *grid, int pieces, const int *row, const int *column, const int *begin,
    float *restrict p, float *restrict heat)
{
    float above[POINTS + 8], below[POINTS + 8];
    float first[POINTS], second[POINTS], sum[POINTS], scale[POINTS];
    float *restrict e = heat, *restrict d = heat + POINTS, *restrict v = heat + 2 * POINTS;
    const int classes = grid->classes, n = begin[pieces];
    for (int i = 0; i < n; i++) {
        first[i] = -FLT_MAX;
        second[i] = -FLT_MAX;
        sum[i] = 0.0f;
        scale[i] = 1.0f;
        e[i] = 0.0f;
    }
    for (int c = 0; c < classes; c++) {
        const long plane = (long)grid->height * grid->width;
        const float *source = grid->logits + c * plane;
        float *restrict pc = p + (long)c * POINTS;
        for (int k = 0; k < pieces; k++) {
            const float *upper = source + (long)grid->low[row[k]] * grid->width;
            const float *lower = source + (long)grid->high[row[k]] * grid->width;
            const float weight = grid->weight[row[k]];
            const int length = begin[k + 1] - begin[k], left = grid->left[column[k]];
            float *restrict values = pc + begin[k];
            if (c + 1 < classes) { /* the next plane is far away: ask for its lines in time */
                const int last = grid->right[column[k] + length - 1];
                for (int x = left; x <= last + 15; x += 16) {
                    PREFETCH(upper + plane + (x < last ? x : last));
                    PREFETCH(lower + plane + (x < last ? x : last));
                }
            }
            NAME(expand)(grid, upper, column[k], length, above);
            NAME(expand)(grid, lower, column[k], length, below);
            for (int i = 0; i < length; i++)
                values[i] = above[i] + weight * (below[i] - above[i]);
        }
        for (int i = 0; i < n; i++) {
            const float value = pc[i], largest = first[i];
            const float loser = value < largest ? value : largest;
            second[i] = loser > second[i] ? loser : second[i];
            first[i] = value > largest ? value : largest;
        }
    }
    if (!grid->is_softmax) {
        for (int c = 0; c < classes; c++) {
            float *restrict pc = p + (long)c * POINTS;
            for (int i = 0; i < n; i++) {
                pc[i] = NAME(exp_nonpositive)(pc[i] - first[i]);
                sum[i] += pc[i];
            }
        }
        for (int i = 0; i < n; i++) {
            scale[i] = 1.0f / sum[i];
            second[i] = NAME(exp_nonpositive)(second[i] - first[i]) * scale[i];
            first[i] = scale[i];
        }
    }
    for (int c = 0; c < classes; c++) {
        float *restrict pc = p + (long)c * POINTS;
        for (int i = 0; i < n; i++) {
            pc[i] *= scale[i];
            e[i] -= pc[i] * NAME(log_positive)(pc[i] + FLT_EPSILON);
        }
    }
    for (int i = 0; i < n; i++) {
        e[i] *= grid->entropy_scale;
        d[i] = 1.0f - first[i] + (classes > 1 ? second[i] : 0.0f);
        v[i] = 1.0f - first[i];
    }
}
