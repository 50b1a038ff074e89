// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Row kernels of encoders, and what makes one vector of a text's states. As everywhere, a row's result depends on that row alone.

static void layer_norm(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_layer_norm_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->columns & ~15, tail = a->columns & 15;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    const float *x = a->input + (size_t)row * (size_t)a->columns, *w = a->weight, *b = a->bias;
    float *y = a->output + (size_t)row * (size_t)a->columns;
    f32x16 sum = f32x16_set(0), squares = f32x16_set(0);
    for (int32_t i = 0; i < whole; i += 16) sum += f32x16_load(x + i);
    if (tail) sum += f32x16_load_first(x + whole, tail);
    float mean = f32x16_sum(sum) / (float)a->columns;
    // Of deviations, not as the mean of squares less the square of the mean, which cancels.
    for (int32_t i = 0; i < whole; i += 16) {
      f32x16 deviation = f32x16_load(x + i) - mean;
      squares = f32x16_fma(deviation, deviation, squares);
    }
    if (tail) {
      float last[16] = {0};  // what is no column does not deviate
      for (int32_t i = 0; i < tail; i++) last[i] = x[whole + i] - mean;
      squares = f32x16_fma(f32x16_load(last), f32x16_load(last), squares);
    }
    float scale = 1.0f / __builtin_elementwise_sqrt(f32x16_sum(squares) / (float)a->columns + a->epsilon);
    for (int32_t i = 0; i < whole; i += 16)
      f32x16_store(y + i, f32x16_fma((f32x16_load(x + i) - mean) * scale, f32x16_load(w + i), f32x16_load(b + i)));
    if (tail)
      f32x16_store_first(
          y + whole,
          f32x16_fma((f32x16_load_first(x + whole, tail) - mean) * scale, f32x16_load_first(w + whole, tail), f32x16_load_first(b + whole, tail)),
          tail);
  }
}

// x·Φ(x), Φ the normal distribution. Below 0 that is x·q and above x − x·q, where q = ½·erfc(|x| / √2) = e^(−x²/2) · t·P(t), t = 1 / (1 + 0.35·|x|):
// nothing cancels. P is minimax in relative error on |x| ≤ 14, 3.2e-8 before rounding; beyond, the power is 0.
MARTLET_INLINE f32x16 f32x16_gelu(f32x16 x) {
  f32x16 magnitude = f32x16_from_bits(u32x16_bits(x) & 0x7FFFFFFFu);
  f32x16 t = 1.0f / f32x16_fma(magnitude, f32x16_set(0.35f), f32x16_set(1.0f));
  f32x16 p = f32x16_set(-0x1.dd86e0p-6f);
  p = f32x16_fma(p, t, f32x16_set(0x1.26daa0p-3f));
  p = f32x16_fma(p, t, f32x16_set(-0x1.05d9f4p-2f));
  p = f32x16_fma(p, t, f32x16_set(0x1.45fd1ap-3f));
  p = f32x16_fma(p, t, f32x16_set(-0x1.7aa1a6p-6f));
  p = f32x16_fma(p, t, f32x16_set(0x1.b02928p-4f));
  p = f32x16_fma(p, t, f32x16_set(0x1.ead5dep-4f));
  p = f32x16_fma(p, t, f32x16_set(0x1.1e6fe6p-3f));
  p = f32x16_fma(p, t, f32x16_set(0x1.1df1d4p-3f));
  // An infinity times the 0 that the power is there would be no number.
  f32x16 bounded = x > 100.0f ? f32x16_set(100.0f) : x < -100.0f ? f32x16_set(-100.0f) : x;
  f32x16 part = bounded * (p * t * f32x16_exp2_normal(x * x * -0.72134752f));  // −½·log₂e
  return x < 0.0f ? part : x - part;
}

static void gelu(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_gelu_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->columns & ~15, tail = a->columns & 15;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    float *y = a->values + (size_t)row * (size_t)a->columns;
    for (int32_t i = 0; i < whole; i += 16)
      f32x16_store(y + i, f32x16_gelu(a->bias ? f32x16_load(y + i) + f32x16_load(a->bias + i) : f32x16_load(y + i)));
    if (!tail) continue;
    f32x16 last = f32x16_load_first(y + whole, tail);
    if (a->bias) last += f32x16_load_first(a->bias + whole, tail);
    f32x16_store_first(y + whole, f32x16_gelu(last), tail);
  }
}

static void add_chosen_rows(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_add_chosen_rows_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    const float *x = a->table + (size_t)a->indices[row] * (size_t)a->columns;
    float *y = a->accumulator + (size_t)row * (size_t)a->columns;
    for (int32_t i = 0; i < a->columns; i++) y[i] += x[i];
  }
}

static void pool_rows(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_pool_rows_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  size_t columns = (size_t)a->columns;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    float *y = a->output + (size_t)row * columns;
    int32_t first = a->starts[row], end = a->starts[row + 1];
    if (a->method != martlet_pooling_mean) {
      int32_t chosen = a->method == martlet_pooling_first ? first : end - 1;
      __builtin_memcpy(y, a->input + (size_t)chosen * columns, columns * sizeof(float));
      continue;
    }
    for (size_t column = 0; column < columns; column += 16) {
      size_t count = columns - column < 16 ? columns - column : 16;
      double sums[16] = {0};
      for (int32_t i = first; i < end; i++)
        for (size_t k = 0; k < count; k++) sums[k] += (double)a->input[(size_t)i * columns + column + k];
      for (size_t k = 0; k < count; k++) y[column + k] = (float)(sums[k] / (double)(end - first));
    }
  }
}

static void unit_rows(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_unit_rows_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    float *y = a->values + (size_t)row * (size_t)a->columns;
    double squares = 0;
    for (int32_t i = 0; i < a->columns; i++) squares += (double)y[i] * (double)y[i];
    double length = __builtin_elementwise_sqrt(squares);
    if (length < 1e-12) length = 1e-12;  // as torch's normalize has it: a vector of zeros stays one
    for (int32_t i = 0; i < a->columns; i++) y[i] = (float)((double)y[i] / length);
  }
}
