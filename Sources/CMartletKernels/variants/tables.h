// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The tables that the variant files define.

#ifndef MARTLET_TABLES_H
#define MARTLET_TABLES_H

#include "CMartletKernels.h"

extern const martlet_kernel_table martlet_portable_table, martlet_bf16_model_table;

// What bf16-model has of attention.
void martlet_model_append(const void *arguments, int32_t task, int32_t worker, void *scratch);
void martlet_model_attend(const void *arguments, int32_t task, int32_t worker, void *scratch);

#if defined(__x86_64__)
extern const martlet_kernel_table martlet_avx2_table, martlet_avx512_table, martlet_avx512bf16_table, martlet_avx512amx_table;

// What avx512 has of attention.
void martlet_avx512_append(const void *arguments, int32_t task, int32_t worker, void *scratch);
void martlet_avx512_attend(const void *arguments, int32_t task, int32_t worker, void *scratch);
#elif defined(__aarch64__)
extern const martlet_kernel_table martlet_neon_table;
#endif

#endif
