// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Row kernels: norms, activations, gathers. A row's result never depends on the task that does it nor on its neighbours.

// The rows of a task.
typedef struct row_range {
  int32_t first, end;
} row_range;

MARTLET_INLINE row_range rows_of_task(int32_t task, int32_t rows_per_task, int32_t rows) {
  int32_t first = task * rows_per_task;
  return (row_range){first, rows - first < rows_per_task ? rows : first + rows_per_task};
}

// The first `count` lanes, 0 < count < 16; the others are zero.
MARTLET_INLINE f32x16 f32x16_load_first(const float *p, int32_t count) {
  float lanes[16] = {0};
  __builtin_memcpy(lanes, p, (size_t)count * sizeof(float));
  return f32x16_load(lanes);
}

MARTLET_INLINE void f32x16_store_first(float *p, f32x16 v, int32_t count) {
  float lanes[16];
  f32x16_store(lanes, v);
  __builtin_memcpy(p, lanes, (size_t)count * sizeof(float));
}

static void rms_norm(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_rms_norm_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->columns & ~15, tail = a->columns & 15;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    const float *x = a->input + (size_t)row * (size_t)a->columns, *w = a->weight;
    float *y = a->output + (size_t)row * (size_t)a->columns;
    f32x16 squares = f32x16_set(0);
    for (int32_t i = 0; i < whole; i += 16) squares = f32x16_fma(f32x16_load(x + i), f32x16_load(x + i), squares);
    if (tail) {
      f32x16 last = f32x16_load_first(x + whole, tail);
      squares = f32x16_fma(last, last, squares);
    }
    float scale = 1.0f / __builtin_elementwise_sqrt(f32x16_sum(squares) / (float)a->columns + a->epsilon);
    for (int32_t i = 0; i < whole; i += 16) f32x16_store(y + i, f32x16_load(x + i) * scale * f32x16_load(w + i));
    for (int32_t i = whole; i < a->columns; i++) y[i] = x[i] * scale * w[i];
  }
}

static void add(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_add_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  size_t i = (size_t)rows.first * (size_t)a->columns, end = (size_t)rows.end * (size_t)a->columns;
  float *y = a->accumulator;
  (void)worker, (void)scratch;
  // x + 1·y is x + y, rounded once.
  f32x16 scale = f32x16_set(a->scale);
  for (; i + 16 <= end; i += 16) f32x16_store(y + i, f32x16_fma(f32x16_load(a->addend + i), scale, f32x16_load(y + i)));
  int32_t tail = (int32_t)(end - i);
  if (tail)
    f32x16_store_first(y + i, f32x16_fma(f32x16_load_first(a->addend + i, tail), scale, f32x16_load_first(y + i, tail)), tail);
}

MARTLET_INLINE f32x16 f32x16_scaled(f32x16 x, f32x16 scale, float cap) {
  return cap > 0 ? f32x16_tanh(x * scale) * cap : x * scale;
}

static void scale(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_scale_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  size_t i = (size_t)rows.first * (size_t)a->columns, end = (size_t)rows.end * (size_t)a->columns;
  f32x16 scale = f32x16_set(a->cap > 0 ? a->scale / a->cap : a->scale);
  float *y = a->values;
  (void)worker, (void)scratch;
  for (; i + 16 <= end; i += 16) f32x16_store(y + i, f32x16_scaled(f32x16_load(y + i), scale, a->cap));
  int32_t tail = (int32_t)(end - i);
  if (tail) f32x16_store_first(y + i, f32x16_scaled(f32x16_load_first(y + i, tail), scale, a->cap), tail);
}

static void scale_rows(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_scale_rows_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->scaled & ~15;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    float *y = a->values + (size_t)row * (size_t)a->columns, factor = a->factors[a->indices[row]];
    for (int32_t i = 0; i < whole; i += 16) f32x16_store(y + i, f32x16_load(y + i) * factor);
    for (int32_t i = whole; i < a->scaled; i++) y[i] *= factor;
  }
}

static void add_row(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_add_row_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->columns & ~15;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    float *y = a->accumulator + (size_t)row * (size_t)a->columns;
    for (int32_t i = 0; i < whole; i += 16) f32x16_store(y + i, f32x16_load(y + i) + f32x16_load(a->addend + i));
    for (int32_t i = whole; i < a->columns; i++) y[i] += a->addend[i];
  }
}

static void add_group_rows(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_add_group_rows_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->columns & ~15, group = 0;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    while (a->offsets[group + 1] <= row) group++;
    float *y = a->accumulator + (size_t)row * (size_t)a->columns;
    const float *x = a->addends + (size_t)group * (size_t)a->columns;
    for (int32_t i = 0; i < whole; i += 16) f32x16_store(y + i, f32x16_load(y + i) + f32x16_load(x + i));
    for (int32_t i = whole; i < a->columns; i++) y[i] += x[i];
  }
}

// x·σ(x) = x / (1 + e⁻ˣ). Far below zero e⁻ˣ is infinite and the quotient −0, the true limit.
MARTLET_INLINE f32x16 f32x16_silu(f32x16 x) { return x / (1.0f + f32x16_exp(-x)); }

// ½x(1 + tanh u) = x·σ(2u), u = √(2/π)·(x + 0.044715x³): one quotient instead of a tanh, and no cancellation below zero.
MARTLET_INLINE f32x16 f32x16_gelu_tanh(f32x16 x) {
  f32x16 inner = f32x16_fma(x * x * x, f32x16_set(0.044715f), x);
  return x / (1.0f + f32x16_exp(inner * -1.5957691216057308f));
}

// One row; `activation` is known where this is inlined.
MARTLET_INLINE void gated_activation_row(const float *gate, float *y, int32_t width, f32x16 (*activation)(f32x16)) {
  const float *up = gate + width;
  int32_t whole = width & ~15, tail = width & 15;
  for (int32_t i = 0; i < whole; i += 16) f32x16_store(y + i, activation(f32x16_load(gate + i)) * f32x16_load(up + i));
  // The same vector operations on a padded copy, so that a value does not depend on where in the row it stands.
  if (tail) f32x16_store_first(y + whole, activation(f32x16_load_first(gate + whole, tail)) * f32x16_load_first(up + whole, tail), tail);
}

// gpt-oss: the gate has a limit above, what it multiplies on both sides, and 1 is added to that.
MARTLET_INLINE f32x16 f32x16_clamped_gate(f32x16 gate, f32x16 up, float alpha, float limit) {
  f32x16 most = f32x16_set(limit);
  gate = gate > most ? most : gate;
  up = up > most ? most : up;
  up = up < -most ? -most : up;
  return gate / (1.0f + f32x16_exp(gate * -alpha)) * (up + 1.0f);
}

static void gated_activation(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_gated_activation_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    const float *gate = a->gate_up + 2 * (size_t)row * (size_t)a->width;
    float *y = a->output + (size_t)row * (size_t)a->width;
    if (a->activation == martlet_activation_clamped) {
      const float *up = gate + a->width;
      int32_t whole = a->width & ~15, tail = a->width & 15;
      for (int32_t i = 0; i < whole; i += 16)
        f32x16_store(y + i, f32x16_clamped_gate(f32x16_load(gate + i), f32x16_load(up + i), a->alpha, a->limit));
      if (tail)
        f32x16_store_first(
            y + whole,
            f32x16_clamped_gate(f32x16_load_first(gate + whole, tail), f32x16_load_first(up + whole, tail), a->alpha, a->limit), tail);
    } else if (a->activation == martlet_activation_silu)
      gated_activation_row(gate, y, a->width, f32x16_silu);
    else
      gated_activation_row(gate, y, a->width, f32x16_gelu_tanh);
  }
}

static void gather_rows(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_gather_rows_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  size_t columns = (size_t)a->columns;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++)
    __builtin_memcpy(a->output + (size_t)row * columns, a->input + (size_t)a->indices[row] * columns, columns * sizeof(float));
}

static void copy_heads(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_copy_heads_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++)
    for (int32_t head = 0; head < a->heads; head++)
      __builtin_memcpy(a->output + row * a->output_row_stride + head * a->output_head_stride,
                       a->input + row * a->input_row_stride + head * a->input_head_stride, (size_t)a->width * sizeof(float));
}
