/* The inner loops over pixels, written so that compilers turn them into vector instructions.

   softmax.h includes this file once for each instruction set, with NAME(x) giving every function
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

static void NAME(expand_row)(const Grid *grid, const float *row, float *restrict out)
{
    const int *restrict left = grid->left, *restrict right = grid->right;
    const float *restrict share = grid->share;
    for (int x = 0; x < grid->columns; x++) {
        float a = row[left[x]], b = row[right[x]];
        out[x] = a + share[x] * (b - a);
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
    for (int x = 0; x < n; x++) {
        first[x] = -FLT_MAX;
        second[x] = -FLT_MAX;
        sum[x] = 0.0f;
        moment[x] = 0.0f;
        arg[x] = 0;
    }
    for (int c = 0; c < classes; c++) {
        const float *restrict u = upper + c * stride, *restrict l = lower + c * stride;
        float *restrict zc = z + (long)c * BLOCK;
        for (int x = 0; x < n; x++) {
            float value = u[x] + weight * (l[x] - u[x]), largest = first[x];
            float loser = value < largest ? value : largest;
            zc[x] = value;
            second[x] = loser > second[x] ? loser : second[x];
            arg[x] = value > largest ? c : arg[x];
            first[x] = value > largest ? value : largest;
        }
    }
    if (grid->is_softmax) {
        for (int c = 0; c < classes; c++) {
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
    } else {
        for (int c = 0; c < classes; c++) {
            const float *restrict zc = z + (long)c * BLOCK;
            for (int x = 0; x < n; x++) {
                float shifted = zc[x] - first[x], e = NAME(exp_nonpositive)(shifted);
                sum[x] += e;
                moment[x] += e * shifted;
            }
        }
        for (int x = 0; x < n; x++) {
            log_sum[x] = NAME(log_positive)(sum[x]);
            entropy[x] = log_sum[x] - moment[x] / sum[x];
            log_sum[x] += first[x];
        }
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
    if (maps->arg_max)
        for (int x = 0; x < n; x++)
            maps->arg_max[at + x] = (unsigned char)arg[x];
    return good;
}

/* Reduce the rows [begin, end); scratch: 2 * classes * columns + classes * BLOCK floats.
   Returns 1, or 0 where something was not finite. */
static inline int NAME(reduce_rows)(
    const Grid *grid, int begin, int end, float *scratch, const Maps *maps)
{
    const long plane = (long)grid->height * grid->width;
    const int same_width = grid->width == grid->columns;
    float *slots[2] = {scratch, scratch + (long)grid->classes * grid->columns};
    float *z = slots[1] + (long)grid->classes * grid->columns;
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
                    NAME(expand_row)(grid, source + c * plane,
                                     slots[slot] + (long)c * grid->columns);
                held[slot] = wanted[i];
            }
            side[i] = slots[slot];
        }
        const long stride = same_width ? plane : grid->columns;
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

/* Softmax p[c * POINTS + i] and heat maps E, D, V of n <= POINTS single pixels. */
static inline void NAME(softmax_at)(
    const Grid *grid, int n, const int *restrict row, const int *restrict column,
    float *restrict p, float *restrict heat)
{
    int above_left[POINTS], above_right[POINTS], below_left[POINTS], below_right[POINTS];
    float weight[POINTS], share[POINTS], first[POINTS], second[POINTS], sum[POINTS];
    const int classes = grid->classes;
    for (int i = 0; i < n; i++) {
        const int above = grid->low[row[i]] * grid->width;
        const int below = grid->high[row[i]] * grid->width;
        const int left = grid->left[column[i]], right = grid->right[column[i]];
        above_left[i] = above + left;
        above_right[i] = above + right;
        below_left[i] = below + left;
        below_right[i] = below + right;
        weight[i] = grid->weight[row[i]];
        share[i] = grid->share[column[i]];
        first[i] = -FLT_MAX;
        second[i] = -FLT_MAX;
        sum[i] = 0.0f;
    }
    for (int c = 0; c < classes; c++) {
        const float *source = grid->logits + (long)c * grid->height * grid->width;
        float *restrict pc = p + (long)c * POINTS;
        for (int i = 0; i < n; i++) {
            float a = source[above_left[i]], b = source[below_left[i]];
            a += share[i] * (source[above_right[i]] - a);
            b += share[i] * (source[below_right[i]] - b);
            float value = a + weight[i] * (b - a), largest = first[i];
            float loser = value < largest ? value : largest;
            pc[i] = value;
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
            sum[i] = 1.0f / sum[i];
            second[i] = NAME(exp_nonpositive)(second[i] - first[i]) * sum[i];
            first[i] = sum[i];
        }
        for (int c = 0; c < classes; c++) {
            float *restrict pc = p + (long)c * POINTS;
            for (int i = 0; i < n; i++)
                pc[i] *= sum[i];
        }
    }
    float *restrict e = heat, *restrict d = heat + POINTS, *restrict v = heat + 2 * POINTS;
    for (int i = 0; i < n; i++)
        e[i] = 0.0f;
    for (int c = 0; c < classes; c++) {
        const float *restrict pc = p + (long)c * POINTS;
        for (int i = 0; i < n; i++)
            e[i] -= pc[i] * NAME(log_positive)(pc[i] + FLT_EPSILON);
    }
    for (int i = 0; i < n; i++) {
        e[i] *= grid->entropy_scale;
        d[i] = 1.0f - first[i] + (classes > 1 ? second[i] : 0.0f);
        v[i] = 1.0f - first[i];
    }
}
