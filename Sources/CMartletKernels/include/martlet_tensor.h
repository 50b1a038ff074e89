// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Row kernels. Task t does the rows t·rows_per_task ..< (t + 1)·rows_per_task, as far as there are so many; how rows are dealt to
// tasks never shows in the result.

#ifndef MARTLET_TENSOR_H
#define MARTLET_TENSOR_H

#include <stdint.h>

#include "martlet_threads.h"

// Rows of y = x · w / sqrt(mean(x²) + epsilon).
typedef struct martlet_rms_norm_arguments {
  const float *input;    // [rows, columns]
  const float *weight;   // [columns]
  float *output;         // [rows, columns], may be input
  int32_t rows, columns, rows_per_task;
  float epsilon;
} martlet_rms_norm_arguments;

// Rows of accumulator += scale · addend; with a scale of 1, the plain sum to the bit.
typedef struct martlet_add_arguments {
  const float *addend;   // [rows, columns]
  float *accumulator;    // [rows, columns]
  int32_t rows, columns, rows_per_task;
  float scale;
} martlet_add_arguments;

// Rows of values = scale · values, or, under a cap above 0, of cap · tanh(scale · values / cap).
typedef struct martlet_scale_arguments {
  float *values;         // [rows, columns]
  int32_t rows, columns, rows_per_task;
  float scale, cap;
} martlet_scale_arguments;

// values[r, 0 ..< scaled] *= factors[indices[r]]
typedef struct martlet_scale_rows_arguments {
  float *values;           // [rows, columns]
  const float *factors;    // [_]
  const int32_t *indices;  // [rows], each an element of factors
  int32_t rows, columns, scaled, rows_per_task;
} martlet_scale_rows_arguments;

// Rows of accumulator[r, :] += addend.
typedef struct martlet_add_row_arguments {
  const float *addend;   // [columns]
  float *accumulator;    // [rows, columns]
  int32_t rows, columns, rows_per_task;
} martlet_add_row_arguments;

enum martlet_activation {
  martlet_activation_silu = 0,       // x·σ(x)
  martlet_activation_gelu_tanh = 1,  // 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
};

// Rows of output[i] = activation(gate_up[i]) · gate_up[width + i].
typedef struct martlet_gated_activation_arguments {
  const float *gate_up;  // [rows, 2·width]
  float *output;         // [rows, width]
  int32_t rows, width, rows_per_task;
  int32_t activation;    // enum martlet_activation
} martlet_gated_activation_arguments;

// output[i, :] = input[indices[i], :]
typedef struct martlet_gather_rows_arguments {
  const float *input;      // [_, columns]
  const int32_t *indices;  // [rows], each a row of input
  float *output;           // [rows, columns]
  int32_t rows, columns, rows_per_task;
} martlet_gather_rows_arguments;

typedef struct martlet_tensor_kernels {
  martlet_task_function rms_norm;
  martlet_task_function add;
  martlet_task_function add_row;
  martlet_task_function scale;
  martlet_task_function scale_rows;
  martlet_task_function gated_activation;
  martlet_task_function gather_rows;
} martlet_tensor_kernels;

#endif
