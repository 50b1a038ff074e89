// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Kernels that do something with rows. A block takes a row, or 256 threads share out all values; what a row becomes depends on that row alone.

#include "numbers.cuh"

// MARK: norms

MARTLET_KERNEL(rms_norm, 256)(const martlet_cuda_rms_norm_arguments a) {
  global<const float> input(a.input), weight(a.weight);
  global<float> output(a.output);
  shared<float> partial(0, 8);
  int64_t row = (int64_t)block_x() * a.columns;
  float squares = 0;
  for (int32_t i = thread_index(); i < a.columns; i += 256) squares = fused(input[row + i], input[row + i], squares);
  float scale = 1.0f / square_root(block_sum(squares, partial) / (float)a.columns + a.epsilon);
  for (int32_t i = thread_index(); i < a.columns; i += 256) output[row + i] = input[row + i] * scale * weight[i];
}

MARTLET_KERNEL(layer_norm, 256)(const martlet_cuda_layer_norm_arguments a) {
  global<const float> input(a.input), weight(a.weight), bias(a.bias);
  global<float> output(a.output);
  shared<float> partial(0, 8);
  int64_t row = (int64_t)block_x() * a.columns;
  float sum = 0, squares = 0;
  for (int32_t i = thread_index(); i < a.columns; i += 256) sum += input[row + i];
  float mean = block_sum(sum, partial) / (float)a.columns;
  // Of deviations, not as the mean of squares less the square of the mean, which cancels.
  for (int32_t i = thread_index(); i < a.columns; i += 256) {
    float deviation = input[row + i] - mean;
    squares = fused(deviation, deviation, squares);
  }
  float scale = 1.0f / square_root(block_sum(squares, partial) / (float)a.columns + a.epsilon);
  for (int32_t i = thread_index(); i < a.columns; i += 256) output[row + i] = fused((input[row + i] - mean) * scale, weight[i], bias[i]);
}

MARTLET_KERNEL(unit_rows, 256)(const martlet_cuda_unit_rows_arguments a) {
  global<float> values(a.values);
  shared<double> partial(0, 8);
  int64_t row = (int64_t)block_x() * a.columns;
  double squares = 0;
  for (int32_t i = thread_index(); i < a.columns; i += 256) squares += (double)values[row + i] * (double)values[row + i];
  double length = square_root(block_sum(squares, partial));
  if (length < 1e-12) length = 1e-12;
  for (int32_t i = thread_index(); i < a.columns; i += 256) values[row + i] = (float)((double)values[row + i] / length);
}

// MARK: value by value

MARTLET_KERNEL(add, 256)(const martlet_cuda_add_arguments a) {
  global<const float> addend(a.addend);
  global<float> accumulator(a.accumulator);
  for (int64_t i = (int64_t)block_x() * 256 + thread_index(); i < a.count; i += (int64_t)grid_x() * 256)
    accumulator[i] = fused(addend[i], a.scale, accumulator[i]);
}

MARTLET_KERNEL(scale, 256)(const martlet_cuda_scale_arguments a) {
  global<float> values(a.values);
  float scale = a.cap > 0 ? a.scale / a.cap : a.scale;
  for (int64_t i = (int64_t)block_x() * 256 + thread_index(); i < a.count; i += (int64_t)grid_x() * 256) {
    float x = values[i] * scale;
    values[i] = a.cap > 0 ? tanh_exact(x) * a.cap : x;
  }
}

MARTLET_KERNEL(scale_rows, 256)(const martlet_cuda_scale_rows_arguments a) {
  global<float> values(a.values);
  float factor = global<const float>(a.factors)[global<const int32_t>(a.indices)[block_x()]];
  int64_t row = (int64_t)block_x() * a.columns;
  for (int32_t i = thread_index(); i < a.scaled; i += 256) values[row + i] *= factor;
}

MARTLET_KERNEL(add_rows, 256)(const martlet_cuda_add_rows_arguments a) {
  global<const float> table(a.table);
  global<const int32_t> indices(a.indices);
  global<float> accumulator(a.accumulator);
  int64_t row = (int64_t)block_x() * a.columns, from = indices ? (int64_t)indices[block_x()] * a.columns : 0;
  for (int32_t i = thread_index(); i < a.columns; i += 256) accumulator[row + i] += table[from + i];
}

MARTLET_KERNEL(add_group_rows, 256)(const martlet_cuda_add_group_rows_arguments a) {
  global<const float> addends(a.addends);
  global<const int32_t> offsets(a.offsets);
  global<float> accumulator(a.accumulator);
  int32_t group = 0, end = a.groups;  // the last group that begins at the row or before it
  while (end - group > 1) {
    int32_t middle = (group + end) / 2;
    if (offsets[middle] <= block_x()) group = middle;
    else end = middle;
  }
  int64_t row = (int64_t)block_x() * a.columns, from = (int64_t)group * a.columns;
  for (int32_t i = thread_index(); i < a.columns; i += 256) accumulator[row + i] += addends[from + i];
}

MARTLET_KERNEL(gated_activation, 256)(const martlet_cuda_gated_activation_arguments a) {
  global<const float> gate_up(a.gate_up);
  global<float> output(a.output);
  int64_t row = (int64_t)block_x() * a.width;
  for (int32_t i = thread_index(); i < a.width; i += 256) {
    float gate = gate_up[2 * row + i], up = gate_up[2 * row + a.width + i];
    if (a.activation == martlet_cuda_activation_clamped) {
      gate = gate > a.limit ? a.limit : gate;
      up = up > a.limit ? a.limit : up;
      up = up < -a.limit ? -a.limit : up;
      output[row + i] = gate / (1.0f + exp_exact(gate * -a.alpha)) * (up + 1.0f);
    } else {
      output[row + i] = (a.activation == martlet_cuda_activation_silu ? silu_of(gate) : gelu_tanh_of(gate)) * up;
    }
  }
}

MARTLET_KERNEL(gelu, 256)(const martlet_cuda_gelu_arguments a) {
  global<const float> bias(a.bias);
  global<float> values(a.values);
  int64_t row = (int64_t)block_x() * a.columns;
  for (int32_t i = thread_index(); i < a.columns; i += 256) values[row + i] = gelu_of(bias ? values[row + i] + bias[i] : values[row + i]);
}

// MARK: rows to other places

MARTLET_KERNEL(gather_rows, 256)(const martlet_cuda_gather_rows_arguments a) {
  global<const float> input(a.input);
  global<float> output(a.output);
  int64_t row = (int64_t)block_x() * a.columns, from = (int64_t)global<const int32_t>(a.indices)[block_x()] * a.columns;
  for (int32_t i = thread_index(); i < a.columns; i += 256) output[row + i] = input[from + i];
}

MARTLET_KERNEL(copy_heads, 256)(const martlet_cuda_copy_heads_arguments a) {
  global<const float> input(a.input);
  global<float> output(a.output);
  int64_t from = block_x() * a.input_row_stride, to = block_x() * a.output_row_stride;
  for (int32_t i = thread_index(); i < a.heads * a.width; i += 256) {
    int32_t head = i / a.width, column = i % a.width;
    output[to + head * a.output_head_stride + column] = input[from + head * a.input_head_stride + column];
  }
}

MARTLET_KERNEL(pool_rows, 256)(const martlet_cuda_pool_rows_arguments a) {
  global<const float> input(a.input);
  global<const int32_t> starts(a.starts);
  global<float> output(a.output);
  int64_t row = (int64_t)block_x() * a.columns;
  int32_t first = starts[block_x()], end = starts[block_x() + 1];
  for (int32_t i = thread_index(); i < a.columns; i += 256) {
    if (a.method == martlet_cuda_pooling_mean) {
      double sum = 0;
      for (int32_t r = first; r < end; r++) sum += (double)input[(int64_t)r * a.columns + i];
      output[row + i] = (float)(sum / (double)(end - first));
    } else {
      output[row + i] = input[(int64_t)(a.method == martlet_cuda_pooling_first ? first : end - 1) * a.columns + i];
    }
  }
}

// MARK: sampling

// The greater of two values and its index, of equals the lower index. An index of −1 is no value.
MARTLET_DEVICE void take_greater(float &value, int32_t &index, float other, int32_t other_index) {
  bool takes = other_index >= 0 && (index < 0 || other > value || (other == value && other_index < index));
  value = takes ? other : value;
  index = takes ? other_index : index;
}

MARTLET_KERNEL(argmax, 256)(const martlet_cuda_argmax_arguments a) {
  global<const float> values(a.values);
  shared<float> best_values(0, 8);
  shared<int32_t> best_indices(32, 8);
  int64_t row = (int64_t)block_x() * a.columns;
  float best = 0;
  int32_t index = -1;
  for (int32_t i = thread_index(); i < a.columns; i += 256) {
    float value = values[row + i];
    take_greater(best, index, value, value == value ? i : -1);
  }
  MARTLET_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) {
    float other = shuffle_xor(best, lanes);
    int32_t other_index = shuffle_xor(index, lanes);
    take_greater(best, index, other, other_index);
  }
  if (thread_index() % 32 == 0) {
    best_values[thread_index() / 32] = best;
    best_indices[thread_index() / 32] = index;
  }
  barrier();
  if (thread_index() == 0) {
    MARTLET_UNROLL for (int warp = 1; warp < 8; warp++) take_greater(best, index, best_values[warp], best_indices[warp]);
    global<int32_t>(a.chosen)[block_x()] = index < 0 ? 0 : index;
  }
}
