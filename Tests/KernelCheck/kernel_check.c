// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Runs every kernel of every variant that the processor supports and compares it with a plain C variant: a program of one file, for
// machines on which the Swift tests cannot run, such as an emulator with instructions that no machine at hand has.
//
//   clang -O2 -std=gnu17 -I Sources/CMartletKernels/include Tests/KernelCheck/kernel_check.c Sources/CMartletKernels/*/*.c -lm
//
// Add `--target=aarch64-linux-gnu -static` and run it under qemu-aarch64, for example. Arguments: names of variants; none means all that
// are supported. The exit status is 1 if anything differs.
//
// The Swift tests compare the plain variants with float64. What is checked here is that another variant computes the same but for
// rounding, and that a row's bits do not depend on its neighbours.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "CMartletKernels.h"

// MARK: Values, tasks, comparison

static uint64_t random_state;

static uint64_t random_bits(void) {  // SplitMix64
  uint64_t z = random_state += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

static float random_float(float scale) { return scale * ((float)(random_bits() >> 40) * 0x1p-23f - 1); }

static void *zeroed(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
  if (!memory) abort();
  return memset(memory, 0, (bytes + 127) & ~(size_t)63);
}

static float *random_floats(size_t count, float scale) {
  float *values = zeroed(count * sizeof *values);
  for (size_t i = 0; i < count; i++) values[i] = random_float(scale);
  return values;
}

static void run(martlet_task_function function, const void *arguments, int32_t tasks) {
  static _Alignas(64) char scratch[1 << 20];
  for (int32_t task = 0; task < tasks; task++) {
    memset(scratch, 0xFF, sizeof scratch);  // NaN for whoever reads what it has not written
    function(arguments, task, 0, scratch);
  }
}

static const martlet_kernel_table *tested, *plain;
static int failures;

// The greatest difference relative to the size of what is compared.
static void compare(const char *what, const float *values, const float *expected, size_t count, double tolerance) {
  double size = 0, worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < count; i++) size = fmax(size, fabs((double)expected[i]));
  for (size_t i = 0; i < count; i++) {
    double difference = fabs((double)values[i] - expected[i]) / (size > 0 ? size : 1);
    if (isnan(values[i]) || isnan(expected[i])) difference = isnan(values[i]) && isnan(expected[i]) ? 0 : INFINITY;
    if (difference > worst) worst = difference, where = i;
  }
  int ok = worst <= tolerance;
  failures += !ok;
  printf("%-12s %-44s %9.2e of %7.1e  %s", tested->name, what, worst, tolerance, ok ? "ok\n" : "WRONG");
  if (!ok) printf(" at %zu: %.9g, not %.9g\n", where, values[where], expected[where]);
}

static void same_bits(const char *what, const void *a, const void *b, size_t bytes) {
  int ok = memcmp(a, b, bytes) == 0;
  failures += !ok;
  printf("%-12s %-44s %20s  %s\n", tested->name, what, "bit for bit", ok ? "ok" : "WRONG");
}

static const char *named(const char *format, int a, int b) {
  static char name[64];
  snprintf(name, sizeof name, format, a, b);
  return name;
}

// MARK: Row kernels

static const int32_t row_lengths[] = {1, 15, 16, 17, 31, 64, 576, 640, 1000};

static void check_rms_norm(int32_t columns) {
  enum { rows = 5 };
  float *x = random_floats(rows * (size_t)columns, 3), *w = random_floats((size_t)columns, 1);
  float *y = zeroed(rows * (size_t)columns * 4), *z = zeroed(rows * (size_t)columns * 4);
  martlet_rms_norm_arguments a = {x, w, z, rows, columns, 2, 1e-5f};
  run(plain->tensor.rms_norm, &a, 3);
  a.output = y;
  run(tested->tensor.rms_norm, &a, 3);
  compare(named("rms_norm, %d columns", columns, 0), y, z, rows * (size_t)columns, 1e-6);
  martlet_rms_norm_arguments alone = {x + 3 * (size_t)columns, w, z, 1, columns, 1, 1e-5f};
  run(tested->tensor.rms_norm, &alone, 1);
  same_bits("  a row alone", y + 3 * (size_t)columns, z, (size_t)columns * 4);
  free(x), free(w), free(y), free(z);
}

static void check_gated_activation(int32_t width, int32_t activation) {
  enum { rows = 4 };
  float *x = random_floats(2 * rows * (size_t)width, 1);
  for (int32_t row = 0; row < rows; row++)
    for (int32_t i = 0; i < width; i++) x[2 * row * width + i] *= (float[]){0.1f, 3, 20, 100}[row];
  float *y = zeroed(rows * (size_t)width * 4), *z = zeroed(rows * (size_t)width * 4);
  martlet_gated_activation_arguments a = {x, z, rows, width, 3, activation};
  run(plain->tensor.gated_activation, &a, 2);
  a.output = y;
  run(tested->tensor.gated_activation, &a, 2);
  for (int32_t row = 0; row < rows; row++)
    compare(
        named(activation == martlet_activation_silu ? "silu, %d columns, row %d" : "gelu, %d columns, row %d", width, row),
        y + row * width, z + row * width, (size_t)width, 2e-6);
  martlet_gated_activation_arguments alone = {x + 2 * (width - 1), z, 1, 1, 1, activation};
  if (width == 1) run(tested->tensor.gated_activation, &alone, 1), same_bits("  a value alone", y, z, 4);
  free(x), free(y), free(z);
}

// Limits of the exponential, seen through silu.
static void check_limits(void) {
  enum { count = 16 };
  float gate_up[2 * count] = {0, -0.0f, 1e-30f, -1e-30f, 30, -30, 88, -88, 100, -100, 1e20f, -1e20f, INFINITY, NAN, 3e38f, -3e38f};
  float y[count], z[count];
  for (int i = 0; i < count; i++) gate_up[count + i] = 1;
  for (int32_t activation = 0; activation < 2; activation++) {
    martlet_gated_activation_arguments a = {gate_up, z, 1, count, 1, activation};
    run(plain->tensor.gated_activation, &a, 1);
    a.output = y;
    run(tested->tensor.gated_activation, &a, 1);
    for (int i = 0; i < count; i++)
      if (isinf(z[i])) y[i] = y[i] == z[i] ? 0 : NAN, z[i] = 0;
    for (int i = 0; i < count; i++) compare(named("activation %d, limit %d", activation, i), y + i, z + i, 1, 2e-6);
  }
}

static void check_add_and_gather(int32_t columns) {
  enum { rows = 4 };
  size_t count = rows * (size_t)columns;
  float *x = random_floats(count, 1), *y = random_floats(count, 1), *z = zeroed(count * 4);
  memcpy(z, y, count * 4);
  martlet_add_arguments a = {x, y, rows, columns, 3};
  run(tested->tensor.add, &a, 2);
  for (size_t i = 0; i < count; i++) z[i] += x[i];
  same_bits(named("add, %d columns", columns, 0), y, z, count * 4);
  const int32_t indices[rows] = {3, 0, 0, 2};
  martlet_gather_rows_arguments g = {x, indices, y, rows, columns, 3};
  run(tested->tensor.gather_rows, &g, 2);
  for (int32_t row = 0; row < rows; row++) memcpy(z + row * columns, x + indices[row] * columns, (size_t)columns * 4);
  same_bits(named("gather_rows, %d columns", columns, 0), y, z, count * 4);
  free(x), free(y), free(z);
}

static void check_tensor_kernels(void) {
  for (size_t i = 0; i < sizeof row_lengths / sizeof row_lengths[0]; i++) {
    check_rms_norm(row_lengths[i]);
    check_gated_activation(row_lengths[i], martlet_activation_silu);
    check_gated_activation(row_lengths[i], martlet_activation_gelu_tanh);
    check_add_and_gather(row_lengths[i]);
  }
  check_limits();
}

// MARK: Everything

static const martlet_kernel_table *table_named(const char *name) {
  int32_t count;
  const martlet_kernel_table *const *tables = martlet_kernel_tables(&count);
  for (int32_t i = 0; i < count; i++)
    if (strcmp(tables[i]->name, name) == 0) return tables[i];
  return NULL;
}

int main(int argc, char **argv) {
  int32_t count;
  const martlet_kernel_table *const *tables = martlet_kernel_tables(&count);
  for (int32_t i = 0; i < count; i++) {
    tested = tables[i];
    int wanted = argc == 1;
    for (int j = 1; j < argc; j++) wanted |= strcmp(argv[j], tested->name) == 0;
    if (!wanted) continue;
    if (!martlet_kernel_table_is_supported(tested)) {
      printf("%-12s is not supported by this processor\n", tested->name);
      if (argc > 1) failures++;
      continue;
    }
    // The model has the arithmetic of bf16 dot products; it is itself compared with the portable variant.
    plain = table_named(strstr(tested->name, "bf16") && strcmp(tested->name, "bf16-model") ? "bf16-model" : "portable");
    random_state = 1;
    check_tensor_kernels();
  }
  printf("%s\n", failures ? "WRONG" : "all as they should be");
  return failures != 0;
}
