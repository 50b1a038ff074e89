// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Plain C for any processor: what every other variant is tested against.

#include "tables.h"

#define MARTLET_NAME "portable"
#define MARTLET_DESCRIPTION "plain C, any processor"
#define MARTLET_TABLE martlet_portable_table
#define MARTLET_FMA 0
#define MARTLET_DOT_BF16 0

#include "variant.h"

const martlet_kernel_table martlet_bf16_model_table = {
    .name = "bf16-model", .description = "plain C with the arithmetic of bf16 dot products, for tests",
    MARTLET_KERNELS(0, martlet_model_append, martlet_model_attend)};
