// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Row kernels: norms, activations, embeddings. One task is a run of rows; a row's result never depends on which.

static void rms_norm(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_rms_norm_arguments *a = arguments;
  int32_t first = task * a->rows_per_task, end = first + a->rows_per_task;
  if (end > a->rows) end = a->rows;
  (void)worker, (void)scratch;
  for (int32_t row = first; row < end; row++) {
    const float *x = a->input + (size_t)row * a->columns;
    float *y = a->output + (size_t)row * a->columns;
    f32x16 squares = f32x16_set(0);
    int32_t i = 0;
    for (; i + 16 <= a->columns; i += 16) {
      f32x16 v = f32x16_load(x + i);
      squares = f32x16_fma(v, v, squares);
    }
    float sum = f32x16_sum(squares);
    for (; i < a->columns; i++) sum += x[i] * x[i];
    float scale = 1.0f / __builtin_sqrtf(sum / (float)a->columns + a->epsilon);
    for (i = 0; i + 16 <= a->columns; i += 16) f32x16_store(y + i, f32x16_load(x + i) * scale * f32x16_load(a->weight + i));
    for (; i < a->columns; i++) y[i] = x[i] * scale * a->weight[i];
  }
}
