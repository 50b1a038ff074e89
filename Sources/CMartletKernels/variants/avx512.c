// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// AVX-512 without BF16: Skylake-X, Cascade Lake, Ice Lake, Tiger Lake, Rocket Lake. 32 registers of 16 floats; attention is float32, as in
// AVX2. Products are vpmaddwd and vpaddd: the later of these have VNNI, which does both at once, to the same exact sums.

#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define MARTLET_NAME "avx512"
#define MARTLET_DESCRIPTION "x86-64 with AVX-512 F, BW, VL and DQ"
#define MARTLET_TABLE martlet_avx512_table
#define MARTLET_AVX512 1
#define MARTLET_FMA 1
#define MARTLET_DOT_BF16 0

#if MARTLET_AVX512_MODEL  // a check on a processor without AVX-512: Tests/KernelCheck/avx512_model.h
#define MARTLET_FEATURES "avx2,fma,f16c,bmi,bmi2"
#else
#define MARTLET_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,bmi,bmi2"
#endif
#pragma clang attribute push(__attribute__((target(MARTLET_FEATURES))), apply_to = function)
#include "variant.h"

// Attention by fused multiply-adds, for the variant with AMX.
void martlet_avx512_append(const void *arguments, int32_t task, int32_t worker, void *scratch) { append(arguments, task, worker, scratch); }
void martlet_avx512_attend(const void *arguments, int32_t task, int32_t worker, void *scratch) { attend(arguments, task, worker, scratch); }
#pragma clang attribute pop
#endif
