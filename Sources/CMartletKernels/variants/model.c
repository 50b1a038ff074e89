// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The arithmetic of the AVX-512 BF16 variant in plain C: slow, never chosen by itself, and there so that the algorithm with bf16 dot
// products can be tested on every machine.

#include "tables.h"

#define MARTLET_NAME "bf16-model"
#define MARTLET_DESCRIPTION "plain C with the arithmetic of bf16 dot products, for tests"
#define MARTLET_TABLE martlet_bf16_model_table
#define MARTLET_FMA 0
#define MARTLET_DOT_BF16 1

#include "variant.h"
