// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#ifndef MARTLET_TENSOR_H
#define MARTLET_TENSOR_H

#include <stdint.h>

#include "martlet_threads.h"

// Rows of y = x · w / sqrt(mean(x²) + epsilon). One task normalises `rows_per_task` rows.
typedef struct martlet_rms_norm_arguments {
  const float *input;    // [rows, columns]
  const float *weight;   // [columns]
  float *output;         // [rows, columns], may be input
  int32_t rows, columns, rows_per_task;
  float epsilon;
} martlet_rms_norm_arguments;

typedef struct martlet_tensor_kernels {
  martlet_task_function rms_norm;
} martlet_tensor_kernels;

#endif
