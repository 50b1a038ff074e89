// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// AVX-512 with BF16, VNNI and VBMI: Zen 4, Sapphire Rapids and later. 32 registers of 16 floats. Cooper Lake, which has BF16 without VBMI,
// takes avx512.
//
// And the same with AMX, which Sapphire Rapids and its followers have beside: products of many tokens by tiles, to the same bits. Attention is that
// of avx512: those processors make a bf16 dot product in the time of four fused multiply-adds, half as many operations a second.

#include "tables.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define MARTLET_NAME "avx512bf16"
#define MARTLET_DESCRIPTION "x86-64 with AVX-512 F, BW, VL, DQ, VBMI, VNNI and BF16"
#define MARTLET_TABLE martlet_avx512bf16_table
#define MARTLET_AVX512 1
#define MARTLET_VNNI 1
#define MARTLET_VBMI 1
#define MARTLET_FMA 1
#define MARTLET_DOT_BF16 1
#define MARTLET_TILES 1

#if MARTLET_AVX512_MODEL  // a check on a processor without AVX-512: Tests/KernelCheck/avx512_model.h
#define MARTLET_FEATURES "avx2,fma,f16c,bmi,bmi2"
#define MARTLET_TILE_TARGET
#else
#define MARTLET_FEATURES "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx512bf16,avx2,fma,f16c,bmi,bmi2"
#define MARTLET_TILE_TARGET __attribute__((target(MARTLET_FEATURES ",amx-tile,amx-bf16")))
#endif
#pragma clang attribute push(__attribute__((target(MARTLET_FEATURES))), apply_to = function)
#include "variant.h"
#pragma clang attribute pop

const martlet_kernel_table martlet_avx512amx_table = {
    .name = "avx512amx", .description = "x86-64 with AVX-512 F, BW, VL, DQ, VBMI, VNNI and BF16, and AMX tiles of BF16",
    MARTLET_KERNELS(MARTLET_TILE_ROWS, martlet_avx512_append, martlet_avx512_attend)};
#endif
