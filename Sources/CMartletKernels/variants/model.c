// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Attention in the arithmetic of the AVX-512 BF16 variant in plain C: slow, never chosen by itself, and there so that the algorithm with bf16 dot
// products can be tested on every machine. portable.c puts it into a table with kernels of its own, to which that arithmetic makes no difference.

#include "tables.h"

#define MARTLET_FMA 0
#define MARTLET_DOT_BF16 1

#include "attention.h"

void martlet_model_append(const void *arguments, int32_t task, int32_t worker, void *scratch) { append(arguments, task, worker, scratch); }
void martlet_model_attend(const void *arguments, int32_t task, int32_t worker, void *scratch) { attend(arguments, task, worker, scratch); }
