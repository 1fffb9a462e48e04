/* Softmax statistics of pixels, for the instruction set of the processor.

   The loops stand in _softmax_rows.h. This file includes them once for each instruction set
   (baseline, AVX2, AVX-512) under another compiler target and another NAME, and forwards a call to
   one of the three; that is why they are two files. `chosen` is set to the best set of the
   processor when a module is loaded; tests and benchmarks set another one. Other compilers and
   processors get the baseline. GCC's target_clones would do this in one file, but it needs ifuncs
   (no macOS, no musl), does not let a test choose, and cannot take the intrinsics of PERMUTE. */

#ifndef META_OOD_SOFTMAX_H
#define META_OOD_SOFTMAX_H

#include <float.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 64   /* pixels of a row that are reduced together: fits the first-level cache */
#define POINTS 256 /* pixels of segments that are computed together: fits it too */
#define GROUP 4    /* classes that share one trip of their pixels' sums through the registers */
#define GAMMA 0.1f /* of the generalised entropy, as published */
#define LINE(columns) ((long)(columns) + 16) /* [floats] rows must not all fall on one cache set */
#define SCRATCH(classes, columns) ((classes) * (2 * LINE(columns) + BLOCK))

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define META_OOD_X86 1
#include <immintrin.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define ALWAYS_INLINE inline
#define PREFETCH(address)
#endif

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#endif

typedef struct {
    const float *logits; /* (classes, height, width), or a softmax of full size */
    int classes, height, width, rows, columns, is_softmax;
    float entropy_scale;            /* 1 / ln classes */
    const int *low, *high;          /* (rows) source rows */
    const int *left, *right;        /* (columns) source columns */
    const float *weight, *share;    /* (rows), (columns) weight of high and of right */
} Grid;

typedef struct { /* (rows, columns) each, or NULL: not wanted */
    float *entropy, *first, *second, *max_logit, *log_sum_exp, *generalised;
    unsigned char *arg_max;
} Maps;

static inline uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#define NAME(function) function##_baseline
#include "_softmax_rows.h"
#undef NAME

#ifdef META_OOD_X86
#define PERMUTE 1
#define NAME(function) function##_avx2
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "_softmax_rows.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef NAME

#define NAME(function) function##_avx512
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#include "_softmax_rows.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef NAME
#undef PERMUTE
#endif

enum { BASELINE = 0, AVX2 = 1, AVX512 = 2 };

static int chosen = BASELINE;

static inline int best_instruction_set(void)
{
#ifdef META_OOD_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return AVX2;
#endif
    return BASELINE;
}

static inline int reduce_rows(const Grid *grid, int begin, int end, float *scratch, const Maps *maps)
{
#ifdef META_OOD_X86
    if (chosen == AVX512)
        return reduce_rows_avx512(grid, begin, end, scratch, maps);
    if (chosen == AVX2)
        return reduce_rows_avx2(grid, begin, end, scratch, maps);
#endif
    return reduce_rows_baseline(grid, begin, end, scratch, maps);
}

static inline void softmax_at(
    const Grid *grid, int pieces, const int *row, const int *column, const int *begin, float *p,
    float *heat)
{
#ifdef META_OOD_X86
    if (chosen == AVX512) {
        softmax_at_avx512(grid, pieces, row, column, begin, p, heat);
        return;
    }
    if (chosen == AVX2) {
        softmax_at_avx2(grid, pieces, row, column, begin, p, heat);
        return;
    }
#endif
    softmax_at_baseline(grid, pieces, row, column, begin, p, heat);
}

#endif
