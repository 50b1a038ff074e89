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

// Rows of y = (x − mean(x)) · w / sqrt(variance(x) + epsilon) + b.
typedef struct martlet_layer_norm_arguments {
  const float *input;    // [rows, columns]
  const float *weight;   // [columns]
  const float *bias;     // [columns]
  float *output;         // [rows, columns], may be input
  int32_t rows, columns, rows_per_task;
  float epsilon;
} martlet_layer_norm_arguments;

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

// accumulator[r, :] += table[indices[r], :]
typedef struct martlet_add_chosen_rows_arguments {
  const float *table;      // [_, columns]
  const int32_t *indices;  // [rows], each a row of table
  float *accumulator;      // [rows, columns]
  int32_t rows, columns, rows_per_task;
} martlet_add_chosen_rows_arguments;

// Rows of values = ½x(1 + erf(x / √2)) of x = values + bias.
typedef struct martlet_gelu_arguments {
  float *values;         // [rows, columns]
  const float *bias;     // [columns]; NULL for none
  int32_t rows, columns, rows_per_task;
} martlet_gelu_arguments;

enum martlet_pooling {
  martlet_pooling_mean = 0,
  martlet_pooling_first = 1,
  martlet_pooling_last = 2,
};

// output[s, :] is made of input[starts[s] ..< starts[s + 1], :]: their mean, or one of them. Sums are in double, in the order of the rows.
typedef struct martlet_pool_rows_arguments {
  const float *input;     // [_, columns]
  const int32_t *starts;  // [rows + 1], ascending: each piece has a row
  float *output;          // [rows, columns]
  int32_t rows, columns, rows_per_task;
  int32_t method;         // enum martlet_pooling
} martlet_pool_rows_arguments;

// Rows of values = values / max(|values|, 1e-12).
typedef struct martlet_unit_rows_arguments {
  float *values;         // [rows, columns]
  int32_t rows, columns, rows_per_task;
} martlet_unit_rows_arguments;

enum martlet_activation {
  martlet_activation_silu = 0,       // x·σ(x)
  martlet_activation_gelu_tanh = 1,  // 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
  martlet_activation_clamped = 2,    // x·σ(alpha·x), with limits
};

// Rows of output[i] = activation(gate_up[i]) · gate_up[width + i]; of the clamped one activation(min(gate_up[i], limit)) · (1 + gate_up[width + i]
// clamped to ±limit).
typedef struct martlet_gated_activation_arguments {
  const float *gate_up;  // [rows, 2·width]
  float *output;         // [rows, width]
  int32_t rows, width, rows_per_task;
  int32_t activation;    // enum martlet_activation
  float alpha, limit;    // of the clamped one
} martlet_gated_activation_arguments;

// Rows of accumulator[r, :] += addends[g, :], g the group with offsets[g] <= r < offsets[g + 1]: groups lie one behind the other.
typedef struct martlet_add_group_rows_arguments {
  const float *addends;    // [groups, columns]
  const int32_t *offsets;  // [groups + 1], ascending, the first 0, the last rows
  float *accumulator;      // [rows, columns]
  int32_t rows, columns, rows_per_task;
} martlet_add_group_rows_arguments;

// output[i, :] = input[indices[i], :]
typedef struct martlet_gather_rows_arguments {
  const float *input;      // [_, columns]
  const int32_t *indices;  // [rows], each a row of input
  float *output;           // [rows, columns]
  int32_t rows, columns, rows_per_task;
} martlet_gather_rows_arguments;

// Copies `width` values of each head of each row; strides in values.
typedef struct martlet_copy_heads_arguments {
  const float *input;
  float *output;
  int64_t input_row_stride, input_head_stride, output_row_stride, output_head_stride;
  int32_t rows, heads, width, rows_per_task;
} martlet_copy_heads_arguments;

enum martlet_expert_scoring {
  martlet_expert_softmax = 0,
  martlet_expert_sigmoid = 1,
};

enum { martlet_most_experts = 1024 };

// For each row the `used` experts of the highest choice, highest first and of equals the lower number, and what each counts.
//
// A score is the softmax or sigmoid of the router's output, the choice the score plus the bias. With more than one group of neighbouring experts,
// only those of the `used_groups` groups of the highest best choice count, or of the highest sum of the best two.
typedef struct martlet_route_arguments {
  const float *outputs;  // [rows, experts]
  const float *bias;     // [experts], for the choice only; NULL for none
  int32_t *chosen;       // [rows, used]
  float *weights;        // [rows, used]: scale · score, or scale · score / the sum of the chosen scores
  int32_t rows, experts, used, rows_per_task;
  int32_t scoring;       // enum martlet_expert_scoring
  int32_t normalizes;
  int32_t groups, used_groups, sums_best_two;
  float scale;
} martlet_route_arguments;

// output[r, :] = Σⱼ weights[r, j] · input[places[r, j], :], in the order of j
typedef struct martlet_combine_arguments {
  const float *input;     // [_, columns]
  const int32_t *places;  // [rows, used]
  const float *weights;   // [rows, used]
  float *output;          // [rows, columns]
  int32_t rows, columns, used, rows_per_task;
} martlet_combine_arguments;

typedef struct martlet_tensor_kernels {
  martlet_task_function rms_norm;
  martlet_task_function add;
  martlet_task_function add_row;
  martlet_task_function add_group_rows;
  martlet_task_function scale;
  martlet_task_function scale_rows;
  martlet_task_function gated_activation;
  martlet_task_function gather_rows;
  martlet_task_function copy_heads;
  martlet_task_function route;
  martlet_task_function combine;
  martlet_task_function layer_norm;
  martlet_task_function gelu;
  martlet_task_function add_chosen_rows;
  martlet_task_function pool_rows;
  martlet_task_function unit_rows;
} martlet_tensor_kernels;

#endif
