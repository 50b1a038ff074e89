// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The CPU kernels: one immutable table of functions per instruction-set variant.
//
// No allocation, no mutable globals, no threads: every function does the work of one task, and whoever calls it hands in the thread
// and the scratch memory. Arguments travel in plain structs, so that a worker pool needs one function type only.

#ifndef CMARTLETKERNELS_H
#define CMARTLETKERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "martlet_attention.h"
#include "martlet_ceilings.h"
#include "martlet_product.h"
#include "martlet_tensor.h"
#include "martlet_threads.h"

// One variant: the same functions for one instruction set. Results of the same variant are bit-identical on every machine that has it.
typedef struct martlet_kernel_table {
  const char *name;         // "avx512amx", "avx512bf16", "avx512", "avx2", "neon", "portable", "bf16-model"
  const char *description;  // for people
  martlet_tensor_kernels tensor;
  martlet_product_kernels product;
  martlet_attention_kernels attention;
  martlet_ceiling_kernels ceilings;
} martlet_kernel_table;

// The variants compiled into this binary, best first; *count receives how many. Whether this machine can run one is another question.
const martlet_kernel_table *const *martlet_kernel_tables(int32_t *count);

// Whether this machine (processor and operating system) can run the variant.
bool martlet_kernel_table_is_supported(const martlet_kernel_table *table);

#endif
