// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// AVX2 + FMA + F16C: x86-64 since 2013 (Haswell, Zen). 16 registers of 8 floats: a 16-lane vector is two of them.

#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define MARTLET_NAME "avx2"
#define MARTLET_DESCRIPTION "x86-64 with AVX2, FMA and F16C"
#define MARTLET_TABLE martlet_avx2_table
#define MARTLET_AVX2 1
#define MARTLET_FMA 1
#define MARTLET_DOT_BF16 0

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2"))), apply_to = function)
#include "variant.h"
#pragma clang attribute pop
#endif
