// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Runs every kernel of every variant that the processor supports: a program of one file, for machines on which the Swift tests cannot
// run, such as an emulator with instructions that no machine at hand has. Scripts/check-kernels.sh builds it and runs it, for arm64 too.
//
//   clang -O2 -std=gnu17 -I Sources/CMartletKernels/include Tests/KernelCheck/kernel_check.c Sources/CMartletKernels/*/*.c -lm
//
// Arguments: names of variants; none means all that are supported. The exit status is 1 if anything differs.
//
// Results are compared with the plain C variant, closely, and with float64 written down here without any vectors, because all variants
// share one source and with it its mistakes: most sizes are no multiples of the vectors' width, so that a wrong tail shows. Behind every
// array lie NaNs: reading on spoils a result, writing on is found when the array is released. A row's bits must not depend on its
// neighbours. What a block of a weight means is left to the Swift tests; here it must mean the same wherever it stands.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "CMartletKernels.h"

// MARK: Values, tasks, comparison

static const martlet_kernel_table *tested, *plain;
static int failures;

static uint64_t random_state;

static uint64_t random_bits(void) {  // SplitMix64
  uint64_t z = random_state += 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

static float random_float(float scale) { return scale * ((float)(random_bits() >> 40) * 0x1p-23f - 1); }

enum { margin = 64 };  // bytes before an array, which hold its size, and at least as many after it

static size_t bytes_with_margins(size_t bytes) { return (bytes + 3 * margin - 1) & ~(size_t)(margin - 1); }

static void *zeroed(size_t bytes) {
  uint8_t *memory = aligned_alloc(margin, bytes_with_margins(bytes));
  if (!memory) abort();
  memset(memory, 0xFF, bytes_with_margins(bytes));  // NaN, in every type
  memcpy(memory, &bytes, sizeof bytes);
  return memset(memory + margin, 0, bytes);
}

static void release(void *array) {
  uint8_t *memory = (uint8_t *)array - margin;
  size_t bytes;
  memcpy(&bytes, memory, sizeof bytes);
  int whole = 1;
  for (size_t i = sizeof bytes; i < margin; i++) whole &= memory[i] == 0xFF;
  for (size_t i = margin + bytes; i < bytes_with_margins(bytes); i++) whole &= memory[i] == 0xFF;
  failures += !whole;
  if (!whole) printf("%-12s wrote outside an array of %zu bytes  WRONG\n", tested->name, bytes);
  free(memory);
}

// Memory of NaNs that ends where a page that cannot be read begins; never given back.
static uint8_t *guarded(size_t bytes) {
  enum { page = 65536 };  // no machine's are larger
  size_t whole = (bytes + page - 1) / page * page;
  uint8_t *memory = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory + whole, page, PROT_NONE) != 0) abort();
  return memset(memory + whole - bytes, 0xFF, bytes);
}

static float *random_floats(size_t count, float scale) {
  float *values = zeroed(count * sizeof *values);
  for (size_t i = 0; i < count; i++) values[i] = random_float(scale);
  return values;
}

// A kernel that needs no scratch memory.
static void run(martlet_task_function function, const void *arguments, int32_t tasks) {
  for (int32_t task = 0; task < tasks; task++) function(arguments, task, 0, NULL);
}

static void run_with_scratch(martlet_task_function function, const void *arguments, int32_t tasks) {
  static _Alignas(64) char scratch[martlet_attention_scratch_bytes];
  memset(scratch, 0xFF, sizeof scratch);  // NaN for whoever reads what it has not written
  for (int32_t task = 0; task < tasks; task++) function(arguments, task, 0, scratch);
}

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

static void true_norm(const float *x, const float *w, double epsilon, int32_t columns, float *y) {
  double squares = 0;
  for (int32_t i = 0; i < columns; i++) squares += (double)x[i] * x[i];
  for (int32_t i = 0; i < columns; i++) y[i] = (float)(x[i] / sqrt(squares / columns + epsilon) * w[i]);
}

enum { clamped_limit = 7 };
static const float clamped_alpha = 1.702f;

static double true_activation(double x, int32_t activation) {
  if (activation == martlet_activation_clamped) return fmin(x, clamped_limit) / (1 + exp(-clamped_alpha * fmin(x, clamped_limit)));
  if (activation == martlet_activation_silu) return x / (1 + exp(-x));
  return x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void check_rms_norm(int32_t columns) {
  enum { rows = 5 };
  float *x = random_floats(rows * (size_t)columns, 3), *w = random_floats((size_t)columns, 1);
  float *y = zeroed(rows * (size_t)columns * 4), *z = zeroed(rows * (size_t)columns * 4);
  martlet_rms_norm_arguments a = {x, w, z, rows, columns, 2, 1e-5f};
  run(plain->tensor.rms_norm, &a, 3);
  a.output = y;
  run(tested->tensor.rms_norm, &a, 3);
  compare(named("rms_norm, %d columns", columns, 0), y, z, rows * (size_t)columns, 1e-6);
  for (int32_t row = 0; row < rows; row++) true_norm(x + row * columns, w, 1e-5, columns, z + row * columns);
  compare("  and float64", y, z, rows * (size_t)columns, 1e-6);
  martlet_rms_norm_arguments alone = {x + 3 * (size_t)columns, w, z, 1, columns, 1, 1e-5f};
  run(tested->tensor.rms_norm, &alone, 1);
  same_bits("  a row alone", y + 3 * (size_t)columns, z, (size_t)columns * 4);
  release(x), release(w), release(y), release(z);
}

// What an activation is multiplied by.
static double true_factor(double up, int32_t activation) {
  return activation == martlet_activation_clamped ? 1 + fmax(fmin(up, clamped_limit), -clamped_limit) : up;
}

static void check_gated_activation(int32_t width, int32_t activation) {
  enum { rows = 4 };
  float *x = random_floats(2 * rows * (size_t)width, 1);
  for (int32_t row = 0; row < rows; row++)
    for (int32_t i = 0; i < width; i++) x[2 * row * width + i] *= (float[]){0.1f, 3, 20, 100}[row];
  float *y = zeroed(rows * (size_t)width * 4), *z = zeroed(rows * (size_t)width * 4);
  martlet_gated_activation_arguments a = {x, z, rows, width, 3, activation, clamped_alpha, clamped_limit};
  run(plain->tensor.gated_activation, &a, 2);
  a.output = y;
  run(tested->tensor.gated_activation, &a, 2);
  for (int32_t row = 0; row < rows; row++)
    compare(
        named(
            activation == martlet_activation_silu ? "silu, %d columns, row %d"
            : activation == martlet_activation_clamped ? "clamped, %d columns, row %d" : "gelu, %d columns, row %d", width, row),
        y + row * width, z + row * width, (size_t)width, 2e-6);
  for (int32_t row = 0; row < rows; row++) {
    const float *gate = x + 2 * row * width;
    for (int32_t i = 0; i < width; i++) z[row * width + i] = (float)(true_activation(gate[i], activation) * true_factor(gate[width + i], activation));
    compare("  and float64", y + row * width, z + row * width, (size_t)width, 2e-6);
  }
  // The values of the first row, one by one.
  for (int32_t i = 0; i < width; i++) {
    martlet_gated_activation_arguments alone = {(float[]){x[i], x[width + i]}, z + i, 1, 1, 1, activation, clamped_alpha, clamped_limit};
    run(tested->tensor.gated_activation, &alone, 1);
  }
  same_bits("  each value alone", y, z, (size_t)width * 4);
  release(x), release(y), release(z);
}

// Limits of the exponential, seen through silu.
static void check_limits(void) {
  enum { count = 16 };
  float gate_up[2 * count] = {0, -0.0f, 1e-30f, -1e-30f, 30, -30, 88, -88, 100, -100, 1e20f, -1e20f, INFINITY, NAN, 3e38f, -3e38f};
  float y[count], z[count];
  for (int i = 0; i < count; i++) gate_up[count + i] = 1;
  for (int32_t activation = 0; activation < 3; activation++) {
    martlet_gated_activation_arguments a = {gate_up, z, 1, count, 1, activation, clamped_alpha, clamped_limit};
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
  martlet_add_arguments a = {x, y, rows, columns, 3, 1};
  run(tested->tensor.add, &a, 2);
  for (size_t i = 0; i < count; i++) z[i] += x[i];
  same_bits(named("add, %d columns", columns, 0), y, z, count * 4);
  martlet_add_row_arguments b = {x, y, rows, columns, 3};
  run(tested->tensor.add_row, &b, 2);
  for (size_t i = 0; i < count; i++) z[i] += x[i % (size_t)columns];
  same_bits(named("add_row, %d columns", columns, 0), y, z, count * 4);
  const int32_t offsets[] = {0, 0, 1, 4, 4};  // the first and the last group are empty
  float *w = random_floats(4 * (size_t)columns, 1);
  martlet_add_group_rows_arguments d = {w, offsets, y, rows, columns, 3};
  run(tested->tensor.add_group_rows, &d, 2);
  for (size_t i = 0; i < count; i++) z[i] += w[(i < (size_t)columns ? 1 : 2) * (size_t)columns + i % (size_t)columns];
  same_bits(named("add_group_rows, %d columns", columns, 0), y, z, count * 4);
  release(w);
  const int32_t indices[rows] = {3, 0, 0, 2};
  martlet_gather_rows_arguments g = {x, indices, y, rows, columns, 3};
  run(tested->tensor.gather_rows, &g, 2);
  for (int32_t row = 0; row < rows; row++) memcpy(z + row * columns, x + indices[row] * columns, (size_t)columns * 4);
  same_bits(named("gather_rows, %d columns", columns, 0), y, z, count * 4);
  // Rows of two heads, with a value behind each, become head after head; what lies between stays.
  enum { heads = 2 };
  size_t room = rows * heads * ((size_t)columns + 1);
  float *from = random_floats(room, 1), *to = random_floats(room, 1), *expected = zeroed(room * 4);
  memcpy(expected, to, room * 4);
  int64_t width = columns + 1;
  martlet_copy_heads_arguments h = {from, to, heads * width, width, width, rows * width, rows, heads, columns, 3};
  run(tested->tensor.copy_heads, &h, 2);
  for (int32_t row = 0; row < rows; row++)
    for (int32_t head = 0; head < heads; head++)
      for (int32_t i = 0; i < columns; i++) expected[(head * rows + row) * width + i] = from[(row * heads + head) * width + i];
  same_bits(named("copy_heads, %d columns", columns, 0), to, expected, room * 4);
  release(from), release(to), release(expected);
  release(x), release(y), release(z);
}

static void check_scaling(int32_t columns) {
  enum { rows = 4 };
  size_t count = rows * (size_t)columns;
  float *x = random_floats(count, 1), *y = random_floats(count, 1), *z = zeroed(count * 4);
  for (size_t i = 0; i < count; i++) z[i] = (float)((double)y[i] + 0.22f * (double)x[i]);
  martlet_add_arguments a = {x, y, rows, columns, 3, 0.22f};
  run(tested->tensor.add, &a, 2);
  compare(named("scaled add, %d columns", columns, 0), y, z, count, 2e-7);
  const int32_t scaled = columns > 5 ? columns - 5 : columns, indices[rows] = {3, 0, 0, 2};
  const float factors[rows] = {1, -2, 0.5f, 1.25f};
  memcpy(y, x, count * 4), memcpy(z, x, count * 4);
  martlet_scale_rows_arguments b = {y, factors, indices, rows, columns, scaled, 3};
  run(tested->tensor.scale_rows, &b, 2);
  for (int32_t row = 0; row < rows; row++)
    for (int32_t i = 0; i < scaled; i++) z[row * columns + i] *= factors[indices[row]];
  same_bits(named("scale_rows, %d columns", columns, 0), y, z, count * 4);
  memcpy(y, x, count * 4);
  martlet_scale_arguments c = {y, rows, columns, 3, 0.125f, 0};
  run(tested->tensor.scale, &c, 2);
  for (size_t i = 0; i < count; i++) z[i] = x[i] * 0.125f;
  same_bits(named("scale, %d columns", columns, 0), y, z, count * 4);
  memcpy(y, x, count * 4);
  c.scale = 7, c.cap = 3;
  run(tested->tensor.scale, &c, 2);
  for (size_t i = 0; i < count; i++) z[i] = (float)(3 * tanh(7 * (double)x[i] / 3));
  compare(named("soft cap, %d columns", columns, 0), y, z, count, 4e-7);
  release(x), release(y), release(z);
}

static double true_gelu(double x) { return x / 2 * erfc(-x / sqrt(2)); }

static void check_encoder_kernels(int32_t columns) {
  enum { rows = 5 };
  size_t count = rows * (size_t)columns;
  // A mean that is large beside the deviations.
  float *x = random_floats(count, 1), *w = random_floats((size_t)columns, 1), *b = random_floats((size_t)columns, 1);
  for (size_t i = 0; i < count; i++) x[i] += (float)(i / (size_t)columns);
  float *y = zeroed(count * 4), *z = zeroed(count * 4);
  martlet_layer_norm_arguments n = {x, w, b, y, rows, columns, 2, 1e-5f};
  run(tested->tensor.layer_norm, &n, 3);
  for (int32_t row = 0; row < rows; row++) {
    const float *r = x + row * columns;
    double mean = 0, variance = 0;
    for (int32_t i = 0; i < columns; i++) mean += (double)r[i] / columns;
    for (int32_t i = 0; i < columns; i++) variance += (r[i] - mean) * (r[i] - mean) / columns;
    for (int32_t i = 0; i < columns; i++) z[row * columns + i] = (float)((r[i] - mean) / sqrt(variance + 1e-5) * w[i] + b[i]);
  }
  compare(named("layer_norm, %d columns", columns, 0), y, z, count, 4e-6);
  martlet_layer_norm_arguments alone = {x + 3 * (size_t)columns, w, b, z, 1, columns, 1, 1e-5f};
  run(tested->tensor.layer_norm, &alone, 1);
  same_bits("  a row alone", y + 3 * (size_t)columns, z, (size_t)columns * 4);

  memcpy(y, x, count * 4);
  martlet_add_chosen_rows_arguments c = {x, (const int32_t[rows]){4, 0, 0, 2, 3}, y, rows, columns, 2};
  run(tested->tensor.add_chosen_rows, &c, 3);
  for (int32_t row = 0; row < rows; row++)
    for (int32_t i = 0; i < columns; i++) z[row * columns + i] = x[row * columns + i] + x[c.indices[row] * columns + i];
  same_bits(named("add_chosen_rows, %d columns", columns, 0), y, z, count * 4);

  // Pieces of 1, 3 and 1 rows.
  for (int32_t method = martlet_pooling_mean; method <= martlet_pooling_last; method++) {
    martlet_pool_rows_arguments p = {x, (const int32_t[4]){0, 1, 4, 5}, y, 3, columns, 2, method};
    run(tested->tensor.pool_rows, &p, 2);
    for (int32_t piece = 0; piece < 3; piece++)
      for (int32_t i = 0; i < columns; i++) {
        int32_t first = p.starts[piece], end = p.starts[piece + 1], one = method == martlet_pooling_first ? first : end - 1;
        double sum = 0;
        for (int32_t row = first; row < end; row++) sum += (double)x[row * columns + i];
        z[piece * columns + i] = method == martlet_pooling_mean ? (float)(sum / (end - first)) : x[one * columns + i];
      }
    same_bits(named("pool_rows %d, %d columns", method, columns), y, z, 3 * (size_t)columns * 4);
  }

  memcpy(y, x, count * 4);
  memset(y + columns, 0, (size_t)columns * 4);
  memcpy(z, y, count * 4);
  martlet_unit_rows_arguments u = {y, rows, columns, 2};
  run(tested->tensor.unit_rows, &u, 3);
  for (int32_t row = 0; row < rows; row++) {
    double squares = 0;
    for (int32_t i = 0; i < columns; i++) squares += (double)z[row * columns + i] * z[row * columns + i];
    for (int32_t i = 0; i < columns; i++) z[row * columns + i] = (float)(row == 1 ? 0 : z[row * columns + i] / sqrt(squares));
  }
  compare(named("unit_rows, %d columns", columns, 0), y, z, count, 1e-7);

  const float scales[rows] = {0.01f, 1, 4, 12, 100};
  for (int32_t row = 0; row < rows; row++) {
    float *r = y + row * columns;
    for (int32_t i = 0; i < columns; i++) r[i] = z[row * columns + i] = random_float(scales[row]);
    martlet_gelu_arguments g = {r, row == 4 ? b : NULL, 1, columns, 1};
    run(tested->tensor.gelu, &g, 1);
    // The first value alone: with its bias, and in the first lane of a padded vector.
    float first = z[row * columns];
    martlet_gelu_arguments one = {&first, g.bias, 1, 1, 1};
    run(tested->tensor.gelu, &one, 1);
    same_bits("  the first value alone", r, &first, 4);
    for (int32_t i = 0; i < columns; i++) {
      double argument = row == 4 ? (double)(z[row * columns + i] + b[i]) : (double)z[row * columns + i];
      double truth = true_gelu(argument);
      // In units of the argument: what Φ is off by.
      double off = argument == 0 ? fabs(r[i] - truth) : fabs((r[i] - truth) / argument);
      if (!(off <= 4e-7)) printf("%-12s gelu(%.9g) is %.9g, not %.9g  WRONG\n", tested->name, argument, (double)r[i], truth), failures++;
      // And below 0, where it is small, of the value itself.
      if (argument < 0 && argument > -6 && !(fabs(r[i] - truth) <= 4e-6 * fabs(truth)))
        printf("%-12s gelu(%.9g) is %.9g, not %.9g  WRONG\n", tested->name, argument, (double)r[i], truth), failures++;
    }
  }
  release(x), release(w), release(b), release(y), release(z);
}

// The choice of experts, without any vectors and in float64. Groups of neighbours, of which the best count, by their best choice or their best two.
static void true_route(const martlet_route_arguments *a, const float *outputs, int32_t *chosen, double *weights) {
  double scores[martlet_most_experts], choice[martlet_most_experts], sum = 0, most = -INFINITY;
  for (int32_t i = 0; i < a->experts; i++) most = fmax(most, outputs[i]);
  for (int32_t i = 0; i < a->experts; i++) sum += exp(outputs[i] - most);
  for (int32_t i = 0; i < a->experts; i++) {
    scores[i] = a->scoring == martlet_expert_sigmoid ? 1 / (1 + exp(-(double)outputs[i])) : exp(outputs[i] - most) / sum;
    choice[i] = scores[i] + (a->bias ? a->bias[i] : 0);
  }
  int32_t size = a->experts / a->groups;
  double groups[martlet_most_experts];
  for (int32_t g = 0; g < a->groups; g++) {
    double best = -INFINITY, second = -INFINITY;
    for (int32_t i = g * size; i < (g + 1) * size; i++) {
      if (choice[i] > best) second = best, best = choice[i];
      else if (choice[i] > second) second = choice[i];
    }
    groups[g] = a->sums_best_two ? best + second : best;
  }
  for (int32_t g = 0; g < a->groups; g++) {
    int32_t better = 0;
    for (int32_t other = 0; other < a->groups; other++) better += groups[other] > groups[g];
    for (int32_t i = g * size; better >= a->used_groups && i < (g + 1) * size; i++) choice[i] = -INFINITY;
  }
  double total = 0;
  for (int32_t n = 0; n < a->used; n++) {
    int32_t best = 0;
    for (int32_t i = 1; i < a->experts; i++)
      if (choice[i] > choice[best]) best = i;
    chosen[n] = best, weights[n] = scores[best], total += scores[best], choice[best] = -INFINITY;
  }
  for (int32_t n = 0; n < a->used; n++) weights[n] *= a->scale / (a->normalizes ? total : 1);
}

static void check_route(void) {
  enum { rows = 21, most_used = 8 };
  static const struct { int32_t experts, used, scoring, normalizes, groups, used_groups, sums_best_two; float scale; } cases[] = {
      {128, 8, martlet_expert_softmax, 1, 1, 1, 0, 1}, {60, 4, martlet_expert_softmax, 0, 1, 1, 0, 1},
      {5, 5, martlet_expert_sigmoid, 1, 1, 1, 0, 2.5f}, {160, 6, martlet_expert_softmax, 0, 8, 3, 0, 16},
      {264, 8, martlet_expert_sigmoid, 1, 8, 4, 1, 2.5f}, {17, 1, martlet_expert_softmax, 1, 1, 1, 0, 1},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int32_t experts = cases[i].experts, used = cases[i].used, sigmoid = cases[i].scoring == martlet_expert_sigmoid;
    float *outputs = random_floats((size_t)(rows * experts), 3), *bias = random_floats((size_t)experts, 0.1f);
    int32_t *chosen = zeroed((size_t)(rows * used) * 4), *expected = zeroed((size_t)(rows * used) * 4);
    float *weights = zeroed((size_t)(rows * used) * 4), *true_weights = zeroed((size_t)(rows * used) * 4);
    martlet_route_arguments a = {
        outputs, sigmoid ? bias : NULL, chosen, weights, rows, experts, used, 4, cases[i].scoring, cases[i].normalizes, cases[i].groups,
        cases[i].used_groups, cases[i].sums_best_two, cases[i].scale};
    run(tested->tensor.route, &a, (rows + 3) / 4);
    for (int32_t row = 0; row < rows; row++) {
      double truth[most_used];
      true_route(&a, outputs + row * experts, expected + row * used, truth);
      for (int32_t n = 0; n < used; n++) true_weights[row * used + n] = (float)truth[n];
    }
    same_bits(named("route, %d of %d experts", used, experts), chosen, expected, (size_t)(rows * used) * 4);
    compare("  what they count", weights, true_weights, (size_t)(rows * used), 1e-6);
    release(outputs), release(bias), release(chosen), release(expected), release(weights), release(true_weights);
  }
}

static void check_combine(int32_t columns) {
  enum { rows = 5, used = 3 };
  float *x = random_floats(rows * used * (size_t)columns, 1), *weights = random_floats(rows * used, 1);
  float *y = zeroed(rows * (size_t)columns * 4), *z = zeroed(rows * (size_t)columns * 4);
  int32_t places[rows * used];
  for (int32_t i = 0; i < rows * used; i++) places[i] = i * 7 % (rows * used);
  martlet_combine_arguments a = {x, places, weights, y, rows, columns, used, 2};
  run(tested->tensor.combine, &a, 3);
  for (int32_t row = 0; row < rows; row++)
    for (int32_t i = 0; i < columns; i++) {
      double sum = 0;
      for (int32_t j = 0; j < used; j++) sum += (double)weights[row * used + j] * x[places[row * used + j] * columns + i];
      z[row * columns + i] = (float)sum;
    }
  compare(named("combine, %d columns", columns, 0), y, z, rows * (size_t)columns, 3e-7);
  martlet_combine_arguments alone = {x, places + 2 * used, weights + 2 * used, z, 1, columns, used, 1};
  run(tested->tensor.combine, &alone, 1);
  same_bits("  a row alone", y + 2 * (size_t)columns, z, (size_t)columns * 4);
  release(x), release(weights), release(y), release(z);
}

static void check_tensor_kernels(void) {
  check_route();
  for (size_t i = 0; i < sizeof row_lengths / sizeof row_lengths[0]; i++) {
    check_rms_norm(row_lengths[i]);
    check_gated_activation(row_lengths[i], martlet_activation_silu);
    check_gated_activation(row_lengths[i], martlet_activation_gelu_tanh);
    check_gated_activation(row_lengths[i], martlet_activation_clamped);
    check_add_and_gather(row_lengths[i]);
    check_scaling(row_lengths[i]);
    check_encoder_kernels(row_lengths[i]);
    check_combine(row_lengths[i]);
  }
  check_limits();
}

// MARK: Products

typedef struct format_facts {
  const char *name;
  int32_t format, block_size, block_bytes;
  int32_t halves[2];  // where in the block its half-precision scales are; −1 for none
} format_facts;

static const format_facts formats[] = {
    {"F32", martlet_weight_f32, 1, 4, {-1, -1}},       {"F16", martlet_weight_f16, 1, 2, {0, -1}},
    {"BF16", martlet_weight_bf16, 1, 2, {-1, -1}},     {"Q4_0", martlet_weight_q4_0, 32, 18, {0, -1}},
    {"Q4_1", martlet_weight_q4_1, 32, 20, {0, 2}},     {"Q5_0", martlet_weight_q5_0, 32, 22, {0, -1}},
    {"Q5_1", martlet_weight_q5_1, 32, 24, {0, 2}},     {"Q8_0", martlet_weight_q8_0, 32, 34, {0, -1}},
    {"IQ4_NL", martlet_weight_iq4_nl, 32, 18, {0, -1}}, {"Q2_K", martlet_weight_q2_k, 256, 84, {80, 82}},
    {"Q3_K", martlet_weight_q3_k, 256, 110, {108, -1}}, {"Q5_K", martlet_weight_q5_k, 256, 176, {0, 2}},
    {"Q4_K", martlet_weight_q4_k, 256, 144, {0, 2}},   {"Q6_K", martlet_weight_q6_k, 256, 210, {208, -1}},
    {"NVFP4", martlet_weight_nvfp4, 64, 36, {-1, -1}}, {"MXFP4", martlet_weight_mxfp4, 32, 17, {-1, -1}},
    {"E4M3", martlet_weight_e4m3, 1, 1, {-1, -1}},
};
enum { format_count = sizeof formats / sizeof formats[0] };

// A weight as in a file: random codes, scales of ordinary size.
static uint8_t *random_weight(const format_facts *facts, int32_t rows, int32_t columns) {
  size_t blocks = (size_t)rows * (size_t)(columns / facts->block_size);
  uint8_t *file = zeroed(blocks * (size_t)facts->block_bytes);
  for (size_t block = 0; block < blocks; block++) {
    uint8_t *bytes = file + block * (size_t)facts->block_bytes;
    for (int32_t i = 0; i < facts->block_bytes; i++) bytes[i] = (uint8_t)random_bits();
    for (int i = 0; i < 2 && facts->halves[i] >= 0; i++) {
      uint16_t half = (uint16_t)(0x1C00 + random_bits() % 0x1000) | (uint16_t)(random_bits() % 2 << 15);  // ± 2⁻⁸ … 2⁻⁴
      memcpy(bytes + facts->halves[i], &half, 2);
    }
    float value = random_float(0.1f);
    if (facts->format == martlet_weight_f32) memcpy(bytes, &value, 4);
    if (facts->format == martlet_weight_bf16) memcpy(bytes, (uint8_t *)&value + 2, 2);
    if (facts->format == martlet_weight_mxfp4) bytes[0] = (uint8_t)(120 + random_bits() % 6);
    for (int i = 0; i < 4 && facts->format == martlet_weight_nvfp4; i++) bytes[i] = (uint8_t)(0x20 + random_bits() % 0x18);  // 2⁻³ … 2⁰
    if (facts->format == martlet_weight_e4m3 && (bytes[0] & 0x7F) == 0x7F) bytes[0] ^= 0x21;  // no NaN
  }
  return file;
}

static martlet_product_part packed(
    const martlet_kernel_table *table, const format_facts *facts, const uint8_t *file, int32_t rows, int32_t columns) {
  int32_t groups = (rows + 15) / 16;
  int64_t group_bytes = martlet_packed_group_bytes(facts->format, columns);
  uint8_t *memory = zeroed((size_t)(group_bytes * groups));
  martlet_pack_arguments a = {
      .file = file, .groups = memory, .row_bytes = (int64_t)columns / facts->block_size * facts->block_bytes,
      .block_bytes = facts->block_bytes, .group_bytes = group_bytes, .format = facts->format, .rows = rows, .columns = columns,
      .groups_per_task = 2};
  run(table->product.pack, &a, (groups + 1) / 2);
  return (martlet_product_part){memory, group_bytes, facts->format, rows, 0, 0};
}

// The product of `tokens` rows of x, coded as told and multiplied by one variant, dealt to tasks as told.
static void multiply_as(
    int32_t coding, const martlet_kernel_table *table, const martlet_product_part *parts, int32_t part_count, int32_t rows, int32_t columns,
    const float *x, int32_t tokens, int32_t groups_per_task, int32_t tokens_per_task, float *y) {
  int32_t groups = parts[part_count - 1].first_group + (parts[part_count - 1].rows + 15) / 16;
  void *slabs = zeroed(martlet_slab_bytes(coding) * (size_t)tokens * (size_t)((columns + 255) / 256));
  martlet_code_inputs_arguments code = {x, NULL, NULL, slabs, tokens, columns, 3, coding};
  run(table->product.code_inputs, &code, (tokens + 2) / 3);
  martlet_product_arguments a = {
      .parts = parts, .input = x, .slabs = slabs, .output = y, .part_count = part_count, .tokens = tokens, .columns = columns, .rows = rows,
      .slab_stride = tokens, .group_count = groups, .groups_per_task = groups_per_task, .tokens_per_task = tokens_per_task, .coding = coding};
  run_with_scratch(table->product.product, &a,
      (groups + groups_per_task - 1) / groups_per_task * ((tokens + tokens_per_task - 1) / tokens_per_task));
  release(slabs);
}

static void multiply(
    const martlet_kernel_table *table, const martlet_product_part *parts, int32_t part_count, int32_t rows, int32_t columns, const float *x,
    int32_t tokens, int32_t groups_per_task, int32_t tokens_per_task, float *y) {
  multiply_as(martlet_input_codes, table, parts, part_count, rows, columns, x, tokens, groups_per_task, tokens_per_task, y);
}

static bool variant_has(int32_t coding) {
  return tested->product.rows_of_a_digit_tile > 0 || coding == martlet_input_codes || coding == martlet_input_int8;
}

// Digits must give the bits of codes; variants without tiles take none.
static void check_digits(
    const martlet_product_part *parts, int32_t part_count, int32_t rows, int32_t columns, const float *x, int32_t tokens, const char *what) {
  if (tested->product.rows_of_a_digit_tile == 0) return;
  static const int32_t batches[] = {1, 2, 15, 16, 17, 29};
  float *y = zeroed((size_t)tokens * (size_t)rows * 4), *z = zeroed((size_t)tokens * (size_t)rows * 4);
  int same = 1;
  for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
    int32_t count = batches[i] < tokens ? batches[i] : tokens;
    multiply(tested, parts, part_count, rows, columns, x, count, 2, count, y);
    multiply_as(martlet_input_digits, tested, parts, part_count, rows, columns, x, count, 1 + (int32_t)i % 3, i % 2 == 0 ? count : 16, z);
    same &= memcmp(y, z, (size_t)count * (size_t)rows * 4) == 0;
  }
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, what, "bit for bit", same ? "ok" : "WRONG");
  release(y), release(z);
}

// The nearest bfloat16 of a float that is no NaN, as a float: halves to even, or away from 0.
static float nearest_bf16(float value, int to_even) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  bits = (bits + (to_even ? 0x7FFF + (bits >> 16 & 1) : 0x8000)) & 0xFFFF0000;
  memcpy(&value, &bits, 4);
  return value;
}

// Whether a weight is scale · code, without a minimum or a factor.
static bool is_exact_before_it_is_rounded(int32_t format) {
  switch (format) {
    case martlet_weight_q4_1:
    case martlet_weight_q5_1:
    case martlet_weight_q2_k:
    case martlet_weight_q4_k:
    case martlet_weight_q5_k:
    case martlet_weight_nvfp4: return false;
    default: return true;
  }
}

// Rounded inputs times rounded weights, `weights` being [rows, columns] as they are read back: in the order of the tiles, which gives the same bits where
// the weights before they are rounded are exact, and for any number of tokens and tasks the same bits. Variants without tiles have none.
static void check_bf16(
    const martlet_product_part *parts, int32_t part_count, int32_t rows, int32_t columns, const float *weights, bool exact) {
  enum { tokens = 83 };
  if (tested->product.rows_of_a_digit_tile == 0) return;
  size_t count = tokens * (size_t)rows;
  float *x = random_floats(tokens * (size_t)columns, 1), *y = zeroed(count * 4), *z = zeroed(count * 4);
  x[3] = 50;
  multiply_as(martlet_input_bf16, tested, parts, part_count, rows, columns, x, tokens, 3, tokens, y);
  for (int32_t t = 0; t < tokens; t++)
    for (int32_t row = 0; row < rows; row++) {
      float sum = 0;
      for (int32_t start = 0; start < columns; start += 32) {
        float sums[2] = {0, 0};
        for (int32_t k = start; k < start + 32 && k < columns; k++)
          sums[k % 2] = fmaf(nearest_bf16(x[t * columns + k], 1), nearest_bf16(weights[row * columns + k], 0), sums[k % 2]);
        sum += sums[0] + sums[1];
      }
      z[t * rows + row] = sum;
    }
  if (exact) same_bits("  as bf16", y, z, count * 4);
  else compare("  as bf16", y, z, count, 5e-3);  // a weight may round the other way, and that of the outlier by 2⁻⁸ of itself
  static const int32_t batches[] = {1, 2, 15, 16, 17, 31, 32, 33, 49, 64, 80};
  int same = 1;
  for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
    int32_t first = (int32_t)i % 4, n = batches[i] + first > tokens ? tokens - first : batches[i];
    memset(z, 0xFF, count * 4);
    multiply_as(martlet_input_bf16, tested, parts, part_count, rows, columns, x + first * (size_t)columns, n, 1 + (int32_t)i % 3, i % 2 == 0 ? n : 48, z);
    same &= memcmp(z, y + first * (size_t)rows, (size_t)n * (size_t)rows * 4) == 0;
  }
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, "  in batches of 1 to 80", "bit for bit", same ? "ok" : "WRONG");
  release(x), release(y), release(z);
}

// The inputs that slabs of int8 stand for, [tokens, columns]: by the words of martlet_int8_slab.
static double *decoded(const martlet_int8_slab *slabs, int32_t tokens, int32_t columns) {
  static const int order[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  double *values = zeroed((size_t)tokens * (size_t)columns * sizeof(double));
  for (int32_t t = 0; t < tokens; t++)
    for (int32_t k = 0; k < columns; k++) {
      const martlet_int8_slab *slab = slabs + k / 256 * tokens + t;
      int32_t place = 0, high = 0;
      while (order[place % 8] != k % 8) place++;
      place += k % 256 / 8 * 8;
      for (int i = 0; i < martlet_wide_quads; i++)
        if (slab->places[i] == place / 4) high = slab->high[i][place % 4];
      values[t * columns + k] = (double)slab->scale * (slab->low[place] + 128 * high);
    }
  return values;
}

// Inputs in 8 bits: the same in every variant, half a step from what they were, and as near as the exact ones of another coding would be to what float64
// makes of them with the weights as they are read back; for any number of tokens and tasks the same bits.
static void check_int8(
    const martlet_product_part *parts, int32_t part_count, int32_t rows, int32_t columns, const float *weights, const float *x, int32_t tokens,
    const char *what) {
  size_t count = (size_t)tokens * (size_t)rows, bytes = sizeof(martlet_int8_slab) * (size_t)tokens * (size_t)((columns + 255) / 256);
  float *y = zeroed(count * 4), *z = zeroed(count * 4);
  martlet_int8_slab *slabs = zeroed(bytes), *plain_slabs = zeroed(bytes);
  martlet_code_inputs_arguments code = {x, NULL, NULL, slabs, tokens, columns, tokens, martlet_input_int8};
  run(tested->product.code_inputs, &code, 1);
  code.slabs = plain_slabs;
  run(plain->product.code_inputs, &code, 1);
  int same = memcmp(slabs, plain_slabs, bytes) == 0;
  double *inputs = decoded(slabs, tokens, columns), worst = 0;
  for (int32_t t = 0; t < tokens; t++)
    for (int32_t k = 0; k < columns; k++)
      worst = fmax(worst, fabs(inputs[t * columns + k] - x[t * columns + k]) / slabs[k / 256 * tokens + t].scale);
  int near = worst <= 0.501;
  failures += !same + !near;
  printf("%-12s %-44s %9.2e of a step  %s\n", tested->name, what, worst, !same ? "WRONG, not as in plain C" : near ? "ok" : "WRONG");
  multiply_as(martlet_input_int8, tested, parts, part_count, rows, columns, x, tokens, 3, tokens, y);
  for (int i = 0; i < part_count; i++)
    for (int32_t row = parts[i].first_row; row < parts[i].first_row + parts[i].rows; row++)
      for (int32_t t = 0; t < tokens; t++) {
        bool reads_floats = parts[i].format <= martlet_weight_e4m3;
        double sum = 0;
        for (int32_t k = 0; k < columns; k++)
          sum += (reads_floats ? x[t * columns + k] : inputs[t * columns + k]) * weights[row * columns + k];
        z[t * rows + row] = (float)sum;
      }
  compare("  and float64", y, z, count, 5e-6);
  static const int32_t batches[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 24, 25};
  same = 1;
  for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
    int32_t first = (int32_t)i % 4, n = batches[i] + first > tokens ? tokens - first : batches[i];
    memset(z, 0xFF, count * 4);
    multiply_as(martlet_input_int8, tested, parts, part_count, rows, columns, x + first * columns, n, 1 + (int32_t)i % 3, 5 + (int32_t)i, z);
    same &= memcmp(z, y + first * rows, (size_t)n * (size_t)rows * 4) == 0;
  }
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, "  in batches of 1 to 25", "bit for bit", same ? "ok" : "WRONG");
  release(y), release(z), release(slabs), release(plain_slabs), release(inputs);
}

static void check_products_of(
    const martlet_product_part *parts, const martlet_product_part *plain_parts, int32_t part_count, int32_t rows, int32_t columns,
    const char *name) {
  enum { tokens = 29 };
  size_t count = tokens * (size_t)rows;
  float *x = random_floats(tokens * (size_t)columns, 1), *y = zeroed(count * 4), *z = zeroed(count * 4);
  x[3] = 50;  // an outlier, as real inputs have
  multiply(plain, plain_parts, part_count, rows, columns, x, tokens, 2, tokens, z);
  multiply(tested, parts, part_count, rows, columns, x, tokens, 2, tokens, y);
  char what[64];
  snprintf(what, sizeof what, "product, %s, %d columns", name, columns);
  compare(what, y, z, count, 5e-6);
  float *weights = zeroed((size_t)rows * (size_t)columns * 4);
  int32_t *all = zeroed((size_t)rows * 4);
  for (int32_t row = 0; row < rows; row++) all[row] = row;
  martlet_embed_arguments whole = {plain_parts, all, weights, 1, part_count, rows, columns, 7};
  run(plain->product.embed, &whole, (rows + 6) / 7);
  for (int32_t t = 0; t < tokens; t++)
    for (int32_t row = 0; row < rows; row++) {
      double sum = 0;
      for (int32_t k = 0; k < columns; k++) sum += (double)x[t * columns + k] * weights[row * columns + k];
      z[t * rows + row] = (float)sum;
    }
  // Beside the outlier of 50 the inputs' codes are 0.0015 apart, 256 such roundings add up to 0.007 of a weight, the output is 50 weights.
  compare("  and float64", y, z, count, 5e-4);
  bool exact = true;
  for (int32_t i = 0; i < part_count; i++) exact &= is_exact_before_it_is_rounded(parts[i].format);
  check_bf16(parts, part_count, rows, columns, weights, exact);
  check_int8(parts, part_count, rows, columns, weights, x, tokens, "  as int8");
  release(weights), release(all);
  static const int32_t batches[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13};
  int same = 1;
  for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
    int32_t first = (int32_t)i + 1;
    memset(z, 0xFF, count * 4);
    multiply(tested, parts, part_count, rows, columns, x + first * (size_t)columns, batches[i], 1 + (int32_t)i % 3, 5 + (int32_t)i, z);
    same &= memcmp(z, y + first * (size_t)rows, (size_t)batches[i] * (size_t)rows * 4) == 0;
  }
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, "  in batches of 1 to 13", "bit for bit", same ? "ok" : "WRONG");
  check_digits(parts, part_count, rows, columns, x, tokens, "  as digits");

  const int32_t chosen[] = {0, rows - 1, rows / 2};
  martlet_embed_arguments e = {plain_parts, chosen, z, 1.5f, part_count, 3, columns, 2};
  float *rows_read = zeroed(3 * (size_t)columns * 4), *rows_expected = zeroed(3 * (size_t)columns * 4);
  e.output = rows_expected;
  run(plain->product.embed, &e, 2);
  e.output = rows_read, e.parts = parts;
  run(tested->product.embed, &e, 2);
  compare("  embed", rows_read, rows_expected, 3 * (size_t)columns, 1e-6);
  release(x), release(y), release(z), release(rows_read), release(rows_expected);
}

// Rows of floats may have any length.
static void check_bf16_of_any_length(void) {
  enum { rows = 37 };
  static const int32_t lengths[] = {301, 272, 7};
  for (int i = 0; i < format_count; i++)
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
      int32_t columns = lengths[l];
      if (formats[i].block_size > 1 || tested->product.rows_of_a_digit_tile == 0) continue;
      uint8_t *file = random_weight(&formats[i], rows, columns);
      martlet_product_part part = packed(tested, &formats[i], file, rows, columns);
      float *weights = zeroed((size_t)(rows * columns) * 4);
      int32_t all[rows];
      for (int32_t row = 0; row < rows; row++) all[row] = row;
      martlet_embed_arguments e = {&part, all, weights, 1, 1, rows, columns, rows};
      run(tested->product.embed, &e, 1);
      check_bf16(&part, 1, rows, columns, weights, true);
      release((void *)part.groups), release(weights);
      // A NaN of a file, whatever its bits, is one.
      memset(file, 0xFF, (size_t)formats[i].block_bytes);
      part = packed(tested, &formats[i], file, rows, columns);
      float *ones = zeroed((size_t)columns * 4), *sums = zeroed(rows * 4);
      for (int32_t k = 0; k < columns; k++) ones[k] = 1;
      multiply_as(martlet_input_bf16, tested, &part, 1, rows, columns, ones, 1, 1, 1, sums);
      int found = (isnan(sums[0]) || formats[i].format == martlet_weight_e4m3) && !isnan(sums[1]);  // an e4m3's is its scale's, as a file is packed
      failures += !found;
      printf("%-12s %-44s %20s  %s\n", tested->name, "  with a NaN", "one row", found ? "ok" : "WRONG");
      release(file), release((void *)part.groups), release(ones), release(sums);
    }
}

// A block of a row must mean the same alone, where nothing is a tail, as among other blocks and rows.
static void check_blocks_alone(const format_facts *facts, const uint8_t *file, const martlet_product_part *part, int32_t rows, int32_t columns) {
  int32_t unit = facts->block_size < 32 ? 32 : facts->block_size;
  int64_t unit_bytes = (int64_t)unit / facts->block_size * facts->block_bytes;
  float *row_values = zeroed((size_t)columns * 4), *values = zeroed((size_t)columns * 4);
  int same = 1;
  for (int32_t row = 0; row < rows; row++) {
    martlet_embed_arguments e = {part, &row, row_values, 1, 1, 1, columns, 1};
    run(tested->product.embed, &e, 1);
    for (int32_t start = 0; start < columns; start += unit) {
      martlet_product_part alone = packed(tested, facts, file + (row * (columns / unit) + start / unit) * unit_bytes, 1, unit);
      martlet_embed_arguments one = {&alone, &(int32_t){0}, values + start, 1, 1, 1, unit, 1};
      run(tested->product.embed, &one, 1);
      release((void *)alone.groups);
    }
    int nonzero = 0;
    for (int32_t k = 0; k < columns; k++) nonzero |= values[k] != 0;
    same &= nonzero && memcmp(values, row_values, (size_t)columns * 4) == 0;
  }
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, "  each block alone", "bit for bit", same ? "ok" : "WRONG");
  release(row_values), release(values);
}

// Sixteen rows are packed at once, fifteen one by one: the first fifteen must have the same bits. Those of the sixteenth are found by turning all
// bits of its codes and scales, which turns all of its packed ones.
static void check_rows_at_once(const format_facts *facts, const uint8_t *file, int32_t columns) {
  size_t row_bytes = (size_t)(columns / facts->block_size * facts->block_bytes);
  uint8_t *turned = zeroed(16 * row_bytes);
  memcpy(turned, file, 16 * row_bytes);
  for (size_t i = 15 * row_bytes; i < 16 * row_bytes; i++) turned[i] = (uint8_t)~turned[i];
  martlet_product_part at_once = packed(tested, facts, file, 16, columns), others = packed(tested, facts, turned, 16, columns),
                       one_by_one = packed(tested, facts, file, 15, columns);
  // What is not of the file's bits: factors and scales that are 1, of the sixteenth row too.
  int has_factor = facts->format == martlet_weight_nvfp4 || facts->format == martlet_weight_e4m3, same = 1;
  size_t run = facts->format == martlet_weight_e4m3 ? 64 + martlet_scaled_run * 16 : (size_t)at_once.group_bytes, turns = 0;
  for (size_t i = 0; i < (size_t)at_once.group_bytes; i++) {
    uint8_t of_sixteenth = at_once.groups[i] ^ others.groups[i];
    if (has_factor && i % run / 4 == 15) of_sixteenth = 0xFF;
    turns += of_sixteenth != 0;
    same &= ((at_once.groups[i] ^ one_by_one.groups[i]) & ~of_sixteenth) == 0;
  }
  same &= turns >= row_bytes / 2;
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, "  rows at once", "bit for bit", same ? "ok" : "WRONG");
  release(turned), release((void *)at_once.groups), release((void *)others.groups), release((void *)one_by_one.groups);
}

// The value of an e4m3 code.
static double e4m3_value(int code) {
  int exponent = code >> 3 & 15, fraction = code & 7;
  double value = (code & 127) == 127 ? NAN : exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);
  return code & 128 ? -value : value;
}

// A product of rows that are normalized or gated on the way, with a bias, added to what is there: the bits of the kernels one after another.
static void check_products_on_the_way(void) {
  enum { rows = 37, columns = 352, most_tokens = 19 };
  static const int32_t counts[] = {1, 3, most_tokens};
  for (int i = 0; i < format_count; i++) {
    if (formats[i].format != martlet_weight_q4_1 && formats[i].format != martlet_weight_q8_0) continue;
    uint8_t *file = random_weight(&formats[i], rows, columns);
    martlet_product_part part = packed(tested, &formats[i], file, rows, columns);
    float *x = random_floats(most_tokens * columns, 1), *gate_up = random_floats(most_tokens * columns * 2, 1), *w = random_floats(columns, 1);
    float *bias = random_floats(rows, 1), *before = random_floats(most_tokens * rows, 1);
    for (int coding = martlet_input_codes; coding <= martlet_input_int8; coding++)
      for (int gated = 0; gated < 2 && variant_has(coding); gated++) {
        int same = 1;
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
          int32_t n = counts[c];
          float *made = zeroed((size_t)n * columns * 4), *y = zeroed((size_t)n * rows * 4), *z = zeroed((size_t)n * rows * 4);
          martlet_rms_norm_arguments norm = {x, w, made, n, columns, n, 1e-5f};
          martlet_gated_activation_arguments gate = {gate_up, made, n, columns, n, martlet_activation_silu, 0, 0};
          if (gated) run(tested->tensor.gated_activation, &gate, 1);
          else run(tested->tensor.rms_norm, &norm, 1);
          multiply_as(coding, tested, &part, 1, rows, columns, made, n, 2, n, y);
          martlet_add_row_arguments add_row = {bias, y, n, rows, n};
          run(tested->tensor.add_row, &add_row, 1);
          memcpy(z, before, (size_t)n * rows * 4);
          martlet_add_arguments add = {y, z, n, rows, n, 0.75f};
          run(tested->tensor.add, &add, 1);
          // On the way, without rows or an output to the kernels that make them.
          norm.output = gate.output = NULL, norm.rows = gate.rows = norm.rows_per_task = gate.rows_per_task = 0;
          memcpy(y, before, (size_t)n * rows * 4);
          void *slabs = zeroed(martlet_slab_bytes(coding) * (size_t)n * 2);
          martlet_code_inputs_arguments code = {NULL, gated ? NULL : &norm, gated ? &gate : NULL, slabs, n, columns, 2, coding};
          run_with_scratch(tested->product.code_inputs, &code, (n + 1) / 2);
          martlet_product_arguments a = {
              .parts = &part, .slabs = slabs, .output = y, .bias = bias, .addition_scale = 0.75f, .adds = true, .part_count = 1, .tokens = n,
              .columns = columns, .rows = rows, .slab_stride = n, .group_count = 3, .groups_per_task = 2, .tokens_per_task = n, .coding = coding};
          run_with_scratch(tested->product.product, &a, 2);
          same &= memcmp(y, z, (size_t)n * rows * 4) == 0;
          release(made), release(y), release(z), release(slabs);
        }
        failures += !same;
        printf("%-12s %-44s %20s  %s\n", tested->name, gated ? "gated, multiplied, biased, added" : "normalized, multiplied, biased, added",
               "bit for bit", same ? "ok" : "WRONG");
      }
    release(file), release((void *)part.groups), release(x), release(gate_up), release(w), release(bias), release(before);
  }
}

// The greatest codes times the greatest inputs, where digits come nearest to what float32 has exactly, and bytes to what 16 bits hold: all of one sign, and
// all but a few.
static void check_greatest_digits(void) {
  enum { rows = 16, columns = 512, tokens = 17 };
  static const struct { int32_t format; int first, count, byte; } extremes[] = {
      {martlet_weight_q5_0, 2, 20, 0}, {martlet_weight_q4_0, 2, 16, 0}, {martlet_weight_q4_1, 4, 16, 0xFF}, {martlet_weight_q5_1, 4, 20, 0xFF},
      {martlet_weight_q8_0, 2, 32, 0x80}, {martlet_weight_q6_k, 0, 192, 0}, {martlet_weight_q5_k, 16, 160, 0xFF}, {martlet_weight_q4_k, 16, 128, 0xFF}};
  float *x = zeroed(tokens * columns * 4), *bytes = zeroed(tokens * columns * 4), *weights = zeroed(rows * columns * 4);
  int32_t all[rows];
  for (int32_t row = 0; row < rows; row++) all[row] = row;
  for (int32_t t = 0; t < tokens; t++)
    for (int32_t k = 0; k < columns; k++) {
      x[t * columns + k] = t % 2 == 0 ? -1 : k % 37 == t ? random_float(1) : 1;
      // Eight inputs are two quads: four of a slab are wide. Their digits are the greatest, with a scale for the others and with one for them.
      bool is_wide = t % 3 > 0 && k % 256 / 8 % 16 == 5;
      bytes[t * columns + k] = (t % 2 == 0 ? -1.0f : 1.0f) * (is_wide ? t % 3 == 1 ? 128 : 2000 : 1);
    }
  for (int i = 0; i < format_count; i++)
    for (size_t e = 0; e < sizeof extremes / sizeof extremes[0]; e++) {
      if (formats[i].format != extremes[e].format) continue;
      uint8_t *file = random_weight(&formats[i], rows, columns);
      int32_t blocks = rows * columns / formats[i].block_size;
      for (int32_t b = 0; b < blocks; b++) memset(file + b * formats[i].block_bytes + extremes[e].first, extremes[e].byte, (size_t)extremes[e].count);
      martlet_product_part part = packed(tested, &formats[i], file, rows, columns);
      char what[64];
      snprintf(what, sizeof what, "greatest digits, %s", formats[i].name);
      check_digits(&part, 1, rows, columns, x, tokens, what);
      martlet_embed_arguments whole = {&part, all, weights, 1, 1, rows, columns, rows};
      run(tested->product.embed, &whole, 1);
      snprintf(what, sizeof what, "greatest bytes, %s", formats[i].name);
      check_int8(&part, 1, rows, columns, weights, bytes, tokens, what);
      release(file), release((void *)part.groups);
    }
  release(x), release(bytes), release(weights);
}

// Products of several matrices in one run, each with rows of its own: the bits of each alone. Rows are coded once and picked.
static void check_grouped_products(void) {
  enum { matrices = 4, rows = 37, columns = 320, inputs = 11, entries = 19, slabs = (columns + 255) / 256 };
  static const int32_t counts[matrices] = {1, 0, 13, 5};
  int32_t picked[entries];
  for (int32_t i = 0; i < entries; i++) picked[i] = i * 5 % inputs;
  for (int i = 0; i < format_count; i++) {
    if (formats[i].block_size > 64) continue;
    // Digits and codes make the same bits.
    int32_t coding = variant_has(i % 4) ? i % 4 : i % 4 == martlet_input_bf16 ? martlet_input_int8 : martlet_input_codes;
    int32_t alone = coding == martlet_input_digits ? martlet_input_codes : coding;
    size_t slab_bytes = martlet_slab_bytes(coding);
    float *x = random_floats(inputs * columns, 1), *gathered = zeroed(entries * columns * 4);
    for (int32_t entry = 0; entry < entries; entry++) memcpy(gathered + entry * columns, x + picked[entry] * columns, columns * 4);
    uint8_t *coded = zeroed(slab_bytes * inputs * slabs), *slabs_of_entries = zeroed(slab_bytes * entries * slabs);
    martlet_code_inputs_arguments code = {x, NULL, NULL, coded, inputs, columns, 4, coding};
    run(tested->product.code_inputs, &code, 3);
    martlet_pick_slabs_arguments pick = {coded, picked, slabs_of_entries, slabs, inputs, entries, 7, coding};
    run(tested->product.pick_slabs, &pick, 3);
    float *y = zeroed(entries * rows * 4), *z = zeroed(entries * rows * 4);
    martlet_product_part parts[matrices];
    martlet_product_arguments products[matrices];
    int32_t first_tasks[matrices], first = 0, count = 0, tasks = 0;
    for (int32_t matrix = 0; matrix < matrices; matrix++) {
      uint8_t *file = random_weight(&formats[i], rows, columns);
      parts[matrix] = packed(tested, &formats[i], file, rows, columns);
      release(file);
      if (counts[matrix] == 0) continue;
      first_tasks[count] = tasks;
      products[count++] = (martlet_product_arguments){
          .parts = parts + matrix, .input = gathered + first * columns, .slabs = slabs_of_entries + (size_t)first * slab_bytes,
          .output = y + first * rows, .part_count = 1, .tokens = counts[matrix], .columns = columns, .rows = rows, .slab_stride = entries,
          .group_count = 3, .groups_per_task = 2, .tokens_per_task = 6, .coding = coding};
      tasks += 2 * ((counts[matrix] + 5) / 6);
      multiply_as(alone, tested, parts + matrix, 1, rows, columns, gathered + first * columns, counts[matrix], 3, counts[matrix], z + first * rows);
      first += counts[matrix];
    }
    martlet_grouped_product_arguments a = {products, first_tasks, count};
    run_with_scratch(tested->product.grouped_product, &a, tasks);
    char what[64];
    snprintf(what, sizeof what, "grouped products, %s", formats[i].name);
    same_bits(what, y, z, entries * rows * 4);
    for (int32_t matrix = 0; matrix < matrices; matrix++) release((void *)parts[matrix].groups);
    release(x), release(gathered), release(coded), release(slabs_of_entries), release(y), release(z);
  }
}

// Matrices that do not lie row behind row: transposed and every other row, exponents apart, scales for parts of a matrix.
static void check_packing_of_parts(void) {
  enum { rows = 37, columns = 288, groups = (rows + 15) / 16 };
  for (int i = 0; i < format_count; i++) {
    const format_facts *facts = &formats[i];
    if (facts->block_size > 1) continue;
    int32_t bytes = facts->block_bytes;
    uint8_t *file = random_weight(facts, rows, columns), *turned = zeroed((size_t)(2 * rows * columns * bytes));
    for (int row = 0; row < rows; row++)
      for (int k = 0; k < columns; k++) memcpy(turned + (k * 2 * rows + 2 * row + 1) * bytes, file + (row * columns + k) * bytes, (size_t)bytes);
    martlet_product_part part = packed(tested, facts, file, rows, columns);
    uint8_t *memory = zeroed((size_t)(groups * part.group_bytes));
    martlet_pack_arguments a = {
        .file = turned + bytes, .groups = memory, .row_bytes = 2 * bytes, .block_bytes = 2 * rows * bytes, .group_bytes = part.group_bytes,
        .format = facts->format, .rows = rows, .columns = columns, .groups_per_task = 2};
    run(tested->product.pack, &a, 2);
    same_bits(named("every other row, transposed, format %d", facts->format, 0), memory, part.groups, (size_t)(groups * part.group_bytes));
    release(file), release(turned), release(memory), release((void *)part.groups);
  }

  const format_facts *mxfp4 = &formats[format_count - 2], *e4m3 = &formats[format_count - 1];
  enum { blocks = columns / 32 };
  uint8_t *file = random_weight(mxfp4, rows, columns), *nibbles = zeroed(rows * blocks * 16), *exponents = zeroed(rows * blocks);
  for (int block = 0; block < rows * blocks; block++) {
    exponents[block] = file[block * 17];
    for (int k = 0; k < 32; k++) {
      int code = file[block * 17 + 1 + k % 16] >> (k / 16 * 4) & 15;
      nibbles[block * 16 + k / 2] |= (uint8_t)(code << (k % 2 * 4));
    }
  }
  martlet_product_part part = packed(tested, mxfp4, file, rows, columns);
  uint8_t *memory = zeroed((size_t)(groups * part.group_bytes));
  martlet_pack_arguments a = {
      .file = nibbles, .groups = memory, .row_bytes = blocks * 16, .block_bytes = 16, .group_bytes = part.group_bytes,
      .format = mxfp4->format, .rows = rows, .columns = columns, .groups_per_task = 1, .scale_codes = exponents, .scale_code_row_bytes = blocks};
  run(tested->product.pack, &a, groups);
  same_bits("MXFP4 with its exponents apart", memory, part.groups, (size_t)(groups * part.group_bytes));
  release(file), release(nibbles), release(exponents), release(memory), release((void *)part.groups);

  // A scale for 16 rows and 128 columns, as for a part of 128 × 128 of a large matrix; for each row; for all.
  file = random_weight(e4m3, rows, columns);
  file[5 * columns + 200] = 0xFF;  // NaN, in the second run of row 5
  float *scales = random_floats(rows * 3, 0.01f), *values = zeroed(rows * columns * 4), *expected = zeroed(rows * columns * 4);
  int32_t all[rows];
  for (int row = 0; row < rows; row++) all[row] = row;
  static const int32_t rows_of_a_scale[] = {16, 1, rows}, scale_columns[] = {3, 1, 1};
  for (int i = 0; i < 3; i++) {
    int64_t group_bytes = martlet_packed_group_bytes(e4m3->format, columns);
    memory = zeroed((size_t)(groups * group_bytes));
    a = (martlet_pack_arguments){
        .file = file, .groups = memory, .row_bytes = columns, .block_bytes = 1, .group_bytes = group_bytes, .format = e4m3->format,
        .rows = rows, .columns = columns, .groups_per_task = 1, .scales = scales, .scale_columns = scale_columns[i],
        .rows_of_a_scale = rows_of_a_scale[i], .columns_of_a_scale = 128};
    run(tested->product.pack, &a, groups);
    part = (martlet_product_part){memory, group_bytes, e4m3->format, rows, 0, 0};
    martlet_embed_arguments e = {&part, all, values, 1, 1, rows, columns, rows};
    run(tested->product.embed, &e, 1);
    for (int row = 0; row < rows; row++)
      for (int k = 0; k < columns; k++) {
        float scale = scales[row / rows_of_a_scale[i] * scale_columns[i] + (scale_columns[i] == 1 ? 0 : k / 128)];
        expected[row * columns + k] = (float)e4m3_value(file[row * columns + k]) * scale;
        if (row == 5 && k / 128 == 1) expected[row * columns + k] = NAN;
      }
    for (int k = 0; k < columns; k++)  // all NaNs are equal
      if (isnan(values[5 * columns + k]) && isnan(expected[5 * columns + k])) values[5 * columns + k] = expected[5 * columns + k] = 0;
    same_bits(named("E4M3, a scale for %d rows, %d in one", rows_of_a_scale[i], scale_columns[i]), values, expected, rows * columns * 4);
    part.rows = 5;  // those before the NaN
    check_products_of(&part, &part, 1, 5, columns, "E4M3 with scales");
    release(memory);
  }
  release(file), release(scales), release(values), release(expected);
}

// NVFP4 by its formula: e2m1 · e4m3 · the row's factor. As GGUF has it, whose scales know neither a sign nor NaN, and with scales apart, which do.
static void check_nvfp4(void) {
  enum { rows = 37, columns = 320, groups = (rows + 15) / 16, blocks = columns / 64 };
  static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6};
  const format_facts *facts = &formats[format_count - 3];
  uint8_t *file = random_weight(facts, rows, columns), *nibbles = zeroed(rows * columns / 2), *codes = zeroed(rows * columns / 16);
  float *factors = random_floats(rows, 0.01f), *values = zeroed(rows * columns * 4), *expected = zeroed(rows * columns * 4);
  int32_t all[rows];
  for (int row = 0; row < rows; row++) all[row] = row;
  for (int apart = 0; apart < 2; apart++) {
    for (int i = 0; i < 256; i++) file[i / 4 * 36 + i % 4] = (uint8_t)i;  // every scale, in the first rows
    for (int block = 0; block < rows * blocks; block++)
      for (int k = 0; k < 64; k++) {
        int code = file[block * 36 + 4 + k / 16 * 8 + k % 8] >> (k % 16 / 8 * 4) & 15, scale = file[block * 36 + k / 16];
        nibbles[block * 32 + k / 2] = (uint8_t)(k % 2 ? nibbles[block * 32 + k / 2] | code << 4 : code);
        codes[block * 4 + k / 16] = (uint8_t)scale;
        double value = apart ? e4m3_value(scale) : scale == 0x7F ? 0 : scale == 0xFF ? 480 : e4m3_value(scale & 0x7F);
        expected[block * 64 + k] = (float)(e2m1[code] * value) * (apart ? factors[0] : factors[block / blocks]);
      }
    int64_t group_bytes = martlet_packed_group_bytes(facts->format, columns);
    uint8_t *memory = zeroed((size_t)(groups * group_bytes));
    martlet_pack_arguments a = {
        .file = apart ? nibbles : file, .groups = memory, .row_bytes = apart ? columns / 2 : blocks * 36, .block_bytes = apart ? 32 : 36,
        .group_bytes = group_bytes, .format = facts->format, .rows = rows, .columns = columns, .groups_per_task = 2,
        .scale_codes = apart ? codes : NULL, .scale_code_row_bytes = columns / 16, .scales = factors, .scale_columns = 1,
        .rows_of_a_scale = apart ? rows : 1, .columns_of_a_scale = columns};
    run(tested->product.pack, &a, 2);
    martlet_product_part part = {memory, group_bytes, facts->format, rows, 0, 0};
    martlet_embed_arguments e = {&part, all, values, 1, 1, rows, columns, rows};
    run(tested->product.embed, &e, 1);
    for (int row = 0; row < rows; row++) {
      int has_nan = 0;
      for (int k = 0; k < columns; k++) has_nan |= isnan(expected[row * columns + k]);
      for (int k = 0; k < columns; k++) {  // a row with one is nothing else, and zeros are equal
        float *value = values + row * columns + k, *wanted = expected + row * columns + k;
        if (has_nan) *wanted = isnan(*value) ? *value : 0;
        if (*value == 0 && *wanted == 0) *value = *wanted = 0;
      }
    }
    same_bits(apart ? "NVFP4 with its scales apart" : "NVFP4, every scale", values, expected, rows * columns * 4);
    // Rows behind those with every scale.
    part.groups += group_bytes, part.rows = rows - 16;
    check_products_of(&part, &part, 1, rows - 16, columns, "NVFP4 with factors");
    release(memory);
  }
  release(file), release(nibbles), release(codes), release(factors), release(values), release(expected);
}

static void check_products(void) {
  enum { rows = 37 };
  martlet_product_part stacked[2], plain_stacked[2];
  for (int i = 0; i < format_count; i++) {
    const format_facts *facts = &formats[i];
    int32_t columns = facts->block_size == 256 ? 512 : facts->block_size == 64 ? 448 : 352;  // whole slabs, and a slab and a part
    uint8_t *file = random_weight(facts, rows, columns);
    martlet_product_part part = packed(tested, facts, file, rows, columns), plain_part = packed(plain, facts, file, rows, columns);
    same_bits(named("pack, format %d", facts->format, 0), part.groups, plain_part.groups, (size_t)(part.group_bytes * 3));
    check_blocks_alone(facts, file, &part, rows, columns);
    check_rows_at_once(facts, file, columns);
    check_products_of(&part, &plain_part, 1, rows, columns, facts->name);
    if (facts->format == martlet_weight_q4_k || facts->format == martlet_weight_q6_k) {
      int second = facts->format == martlet_weight_q6_k;
      stacked[second] = part, plain_stacked[second] = plain_part;
      if (second) {
        stacked[1].first_row = plain_stacked[1].first_row = rows;
        stacked[1].first_group = plain_stacked[1].first_group = 3;
        check_products_of(stacked, plain_stacked, 2, 2 * rows, columns, "Q4_K over Q6_K");
        for (int j = 0; j < 2; j++) release((void *)stacked[j].groups), release((void *)plain_stacked[j].groups);
      }
    } else {
      release((void *)part.groups), release((void *)plain_part.groups);
    }
    release(file);
  }
}

// MARK: Attention

enum { attention_heads = 6, attention_kv_heads = 2, attention_group = 3, attention_requests = 4 };

// A batch: a prompt, a chunk over a cached prefix, and generated tokens, one far out and one that ends where a page of 32 tokens does within
// a tile: there is no page behind it.
static const int32_t query_indptr[] = {0, 21, 34, 35, 36}, kv_lens[] = {21, 150, 1100, 96};

static const char *const type_names[] = {"f32", "f16", "bf16", "e4m3", "i8"};
static const int64_t type_widths[] = {4, 2, 2, 1, 1};

typedef enum page_order { in_lanes, nhd, hnd, crossed, latents } page_order;
static const char *const order_names[] = {"packed", "NHD", "HND", "crossed", "latent"};

static martlet_paged_kv make_cache(int32_t type, page_order order, int32_t page_size, int32_t dims, int32_t value_dims) {
  int64_t width = type_widths[type], g = 4 / width, heads = attention_kv_heads;
  int32_t table_width = (1100 + page_size - 1) / page_size, pages = table_width * attention_requests;
  martlet_paged_kv cache = {0};
  cache.page_bytes = page_size * attention_kv_heads * (dims + value_dims) * width;
  cache.values_offset = page_size * attention_kv_heads * dims * width;
  if (order == latents) {  // values are the first dims of the keys
    cache.page_bytes = cache.values_offset;
    cache.values_offset = 0;
  }
  if (type == martlet_kv_i8) {
    cache.key_scales_offset = (cache.page_bytes + 3) / 4 * 4;
    cache.value_scales_offset = cache.key_scales_offset + (order == latents ? 0 : 4 * page_size * attention_kv_heads);
    cache.page_bytes = cache.value_scales_offset + 4 * page_size * attention_kv_heads;
    cache.scale_head_stride = page_size, cache.scale_token_stride = 1;
  }
  cache.key_scale = type == martlet_kv_e4m3 ? 0.37f : 1, cache.value_scale = type != martlet_kv_e4m3 ? 1 : order == latents ? 0.37f : 0.011f;
  cache.pages = guarded((size_t)(cache.page_bytes * pages));  // NaNs: what a former request may have left
  int32_t *table = zeroed((size_t)pages * 4);
  // Each page once, out of order, and the last one in memory for the last whole page of the request far out: behind it
  // reads fail.
  int32_t last = 2 * table_width + 1100 / page_size - 1, step = pages % 7 == 0 ? pages - 1 : 7;
  for (int32_t i = 0; i < pages; i++) table[i] = (int32_t)(((int64_t)(i - last + pages) * step + pages - 1) % pages);
  cache.page_table = table, cache.table_width = table_width;
  cache.type = type, cache.page_size = page_size, cache.kv_heads = attention_kv_heads;
  cache.head_dim = dims, cache.value_head_dim = value_dims;
  switch (order) {
    case in_lanes:
      cache.keys = (martlet_kv_plane){page_size * dims, g, page_size * g, 1, (int32_t)g};
      cache.values = (martlet_kv_plane){page_size * value_dims, value_dims * g, g, (int32_t)g, 1};
      break;
    case nhd:
      cache.keys = (martlet_kv_plane){dims, heads * dims, 1, 1, 1};
      cache.values = (martlet_kv_plane){value_dims, heads * value_dims, 1, 1, 1};
      break;
    case hnd:
      cache.keys = (martlet_kv_plane){page_size * dims, dims, 1, 1, 1};
      cache.values = (martlet_kv_plane){page_size * value_dims, value_dims, 1, 1, 1};
      break;
    case latents:
      cache.keys = cache.values = (martlet_kv_plane){dims, heads * dims, 1, 1, 1};
      break;
    case crossed:  // dims outermost, groups of 4 along the other axis than where the packed layout has them
      cache.keys = (martlet_kv_plane){4, 4 * heads, heads * page_size, 4, 1};
      cache.values = (martlet_kv_plane){4, 4 * heads, 4 * heads * page_size, 1, 4};
      break;
  }
  return cache;
}

static bool is_latent(const martlet_paged_kv *cache) { return cache->values_offset == 0; }

// The dims of a head that carry its position: all, or those behind the value.
static int32_t first_turned(const martlet_paged_kv *cache) { return is_latent(cache) ? cache->value_head_dim : 0; }
static int32_t turned_dims(const martlet_paged_kv *cache) { return cache->head_dim - first_turned(cache); }

// The nearest e4m3 value, by trying all; of two that are as near the one with an even code. Saturated.
static double e4m3_nearest(double x) {
  int best = 0;
  if (isnan(x)) return NAN;
  for (int code = 0; code < 127; code++) {
    double distance = fabs(fabs(x) - e4m3_value(code)), least = fabs(fabs(x) - e4m3_value(best));
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return copysign(e4m3_value(best), x);
}

static double half_value(uint16_t half) {
  int exponent = half >> 10 & 31, fraction = half & 1023;
  double value = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
  return half >> 15 ? -value : value;
}

static size_t stored_width(const martlet_paged_kv *cache) { return (size_t)type_widths[cache->type]; }

// Where a number is stored, by the rule of martlet_kv_plane.
static uint8_t *stored_at(const martlet_paged_kv *cache, bool is_value, int32_t request, int32_t position, int32_t head, int32_t dim) {
  const martlet_kv_plane *plane = is_value ? &cache->values : &cache->keys;
  int32_t page = cache->page_table[request * cache->table_width + position / cache->page_size], slot = position % cache->page_size;
  int64_t at = head * plane->head_stride + slot / plane->token_group * plane->token_stride + slot % plane->token_group +
               dim / plane->dim_group * plane->dim_stride + dim % plane->dim_group;
  return cache->pages + page * cache->page_bytes + (is_value ? cache->values_offset : 0) + at * (int64_t)stored_width(cache);
}

// int8: where the scale of a token's key or value of one head is stored.
static float *scale_at(const martlet_paged_kv *cache, bool is_value, int32_t request, int32_t position, int32_t head) {
  int32_t page = cache->page_table[request * cache->table_width + position / cache->page_size], slot = position % cache->page_size;
  uint8_t *scales = cache->pages + page * cache->page_bytes + (is_value ? cache->value_scales_offset : cache->key_scales_offset);
  return (float *)(void *)scales + head * cache->scale_head_stride + slot * cache->scale_token_stride;
}

// A token's key or value of one head, as what it stands for.
static void read_stored(const martlet_paged_kv *cache, bool is_value, int32_t request, int32_t position, int32_t head, float *values) {
  for (int32_t dim = 0; dim < (is_value ? cache->value_head_dim : cache->head_dim); dim++) {
    uint32_t bits = 0;
    memcpy(&bits, stored_at(cache, is_value, request, position, head, dim), stored_width(cache));
    if (cache->type == martlet_kv_bf16) bits <<= 16;
    memcpy(values + dim, &bits, 4);
    if (cache->type == martlet_kv_f16) values[dim] = (float)half_value((uint16_t)bits);
    if (cache->type == martlet_kv_e4m3) values[dim] = (float)(e4m3_value((int)bits) * (is_value ? cache->value_scale : cache->key_scale));
    if (cache->type == martlet_kv_i8) values[dim] = (float)(int8_t)bits * *scale_at(cache, is_value, request, position, head);
  }
}

// Whether heads turn by positions of three axes; then each third pair by the first, which is the cache's.
static bool turns_by_axes;
static int32_t axis_of(int32_t pair) { return turns_by_axes ? pair % 3 : 0; }
static int32_t position_on(int32_t axis, int32_t position) { return axis == 0 ? position : axis == 1 ? position / 3 : position % 7; }

// A head as it is stored or asked: normalised where there is a norm, then rotated in pairs (i, i + half the turned dims). `rope` has the angles
// of all positions; NULL for no rotation.
static void true_head(const martlet_paged_kv *cache, const float *x, martlet_head_norm norm, const float *rope, int32_t position, float *y) {
  int32_t dims = turned_dims(cache);
  memmove(y, x, (size_t)cache->head_dim * 4);
  if (norm.weight) true_norm(x, norm.weight, norm.epsilon, cache->head_dim, y);
  y += first_turned(cache);
  for (int32_t i = 0; rope && i < dims / 2; i++) {
    const float *angle = rope + position_on(axis_of(i), position) * dims + 2 * i;
    double first = y[i], second = y[i + dims / 2];
    y[i] = (float)(first * angle[0] - second * angle[1]);
    y[i + dims / 2] = (float)(second * angle[0] + first * angle[1]);
  }
}

// Everything that an append of `indptr` tokens must have left behind: stored keys and values, and zeros to the end of each last page.
static void check_stored(const martlet_paged_kv *cache, const int32_t *indptr, const float *fused, const float *rope) {
  int32_t dims = cache->head_dim, value_dims = cache->value_head_dim;
  int32_t width = attention_heads * dims + attention_kv_heads * (dims + value_dims);
  size_t size = (size_t)(dims > value_dims ? dims : value_dims), count = 0;
  float *stored = zeroed(4700 * attention_kv_heads * 2 * size * 4), *expected = zeroed(4700 * attention_kv_heads * 2 * size * 4);
  for (int32_t request = 0; request < attention_requests; request++) {
    int32_t end = (kv_lens[request] + cache->page_size - 1) / cache->page_size * cache->page_size;
    for (int32_t position = 0; position < end; position++)
      for (int32_t head = 0; head < attention_kv_heads; head++, count += 2 * size) {
        read_stored(cache, false, request, position, head, stored + count);
        read_stored(cache, true, request, position, head, stored + count + size);
        if (position >= kv_lens[request]) continue;  // zeros are expected
        const float *keys = fused + (indptr[request] + position) * width + attention_heads * dims, *values = keys + attention_kv_heads * dims;
        true_head(cache, keys + head * dims, (martlet_head_norm){0}, rope, position, expected + count);
        memcpy(expected + count + size, is_latent(cache) ? keys + head * dims : values + head * value_dims, (size_t)value_dims * 4);
        // Values, which are not rotated, are known to the bit.
        if (cache->type == martlet_kv_e4m3)
          for (int32_t dim = 0; dim < value_dims; dim++) {
            float *x = expected + count + size + dim;
            *x = (float)(e4m3_nearest(*x * (1 / cache->value_scale)) * cache->value_scale);
            failures += *x != stored[count + size + (size_t)dim];
          }
      }
  }
  // Half a step of the stored type; of int8 half a step of 127, of e4m3 a sixteenth.
  static const double steps[] = {2e-7, 5e-4, 4e-3, 6.5e-2, 5e-3};
  compare("  and float64", stored, expected, count, steps[cache->type]);
  release(stored), release(expected);
}

// What a call of attention is asked for besides a window.
typedef struct attention_case {
  const char *name;
  int32_t window;
  bool causal, has_bits, has_sinks, is_deferred, rounds_queries;
  float soft_cap;
} attention_case;

// float32 of the bf16 nearest.
static double bf16_nearest(double x) {
  int exponent;
  double fraction = frexp(x, &exponent);
  return ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

// Whether a query of request `request`, its `query`-th, sees a key under the custom mask of these checks: holes of all lengths, whole tiles
// and a whole chunk among them, and now and then nothing at all. Request 0 has no bits.
static bool bit_of(int32_t request, int32_t query, int32_t key) {
  if (query % 11 == 5) return false;
  if (key >= 512 && key < 1024) return false;
  return key / 64 % 3 != 2 && (key * 7 + query * (key / 32 % 2) * 5 + request) % 16 < 11;
}

static void true_attention(
    const martlet_paged_kv *cache, const float *queries, const attention_case *c, const float *rope, const float *sinks, bool is_pair_dot,
    float *output, float *lse) {
  int32_t dims = cache->head_dim, value_dims = cache->value_head_dim;
  float *keys = zeroed(1100 * (size_t)dims * 4), *values = zeroed(1100 * (size_t)value_dims * 4);
  double *scores = zeroed(1100 * sizeof *scores), *sums = zeroed((size_t)value_dims * sizeof *sums), *asked = zeroed((size_t)dims * sizeof *asked);
  for (int32_t request = 0; request < attention_requests; request++)
    for (int32_t kv_head = 0; kv_head < attention_kv_heads; kv_head++) {
      int32_t length = kv_lens[request];
      for (int32_t position = 0; position < length; position++) {
        read_stored(cache, false, request, position, kv_head, keys + position * dims);
        read_stored(cache, true, request, position, kv_head, values + position * value_dims);
        if (c->is_deferred) true_head(cache, keys + position * dims, (martlet_head_norm){0}, rope, position, keys + position * dims);
      }
      for (int32_t token = query_indptr[request]; token < query_indptr[request + 1]; token++)
        for (int32_t head = kv_head * attention_group; head < (kv_head + 1) * attention_group; head++) {
          const float *q = queries + (token * attention_heads + head) * dims;
          for (int32_t dim = 0; dim < dims; dim++)
            asked[dim] = c->rounds_queries ? e4m3_nearest(q[dim]) : is_pair_dot ? bf16_nearest(q[dim]) : q[dim];
          int32_t position = length - (query_indptr[request + 1] - token);
          bool has_bits = c->has_bits && request > 0;
          int32_t first = c->window && position >= c->window ? position - c->window + 1 : 0, end = c->causal ? position + 1 : length;
          if (has_bits) first = 0, end = length;
          double greatest = c->has_sinks ? sinks[head] : -INFINITY, total = 0;
          for (int32_t i = first; i < end; i++) {
            scores[i] = 0;
            for (int32_t dim = 0; dim < dims; dim++) scores[i] += asked[dim] * keys[i * dims + dim];
            scores[i] *= 0.125;
            if (c->soft_cap > 0) scores[i] = c->soft_cap * tanh(scores[i] / c->soft_cap);
            if (has_bits && !bit_of(request, token - query_indptr[request], i)) scores[i] = -INFINITY;
            greatest = fmax(greatest, scores[i]);
          }
          memset(sums, 0, (size_t)value_dims * sizeof *sums);
          if (c->has_sinks) total = exp(sinks[head] - greatest);
          for (int32_t i = first; i < end; i++) {
            double weight = isinf(scores[i]) ? 0 : exp(scores[i] - greatest);
            total += weight;
            for (int32_t dim = 0; dim < value_dims; dim++) sums[dim] += weight * values[i * value_dims + dim];
          }
          for (int32_t dim = 0; dim < value_dims; dim++)
            output[(token * attention_heads + head) * value_dims + dim] = total > 0 ? (float)(sums[dim] / total) : 0;
          // Where there is nothing, −∞ is written, which cannot be compared: a number that the check below expects instead.
          lse[token * attention_heads + head] = total > 0 ? (float)((greatest + log(total)) / log(2)) : -1000;
        }
    }
  release(keys), release(values), release(scores), release(sums), release(asked);
}

// Appends `tokens` tokens: the last `lens[i]` positions of each request.
static void append_all(
    const martlet_kernel_table *table, martlet_paged_kv cache, const int32_t *indptr, const float *fused, const float *rope,
    bool rotates_keys, martlet_head_norm norm, float *queries) {
  int32_t tokens = indptr[attention_requests];
  int32_t *requests = zeroed((size_t)tokens * 4), *positions = zeroed((size_t)tokens * 4), *ids = zeroed((size_t)tokens * 3 * 4);
  int32_t axes[martlet_attention_max_head_dim / 2];
  for (int32_t i = 0; i < attention_requests; i++)
    for (int32_t t = indptr[i]; t < indptr[i + 1]; t++) {
      requests[t] = i, positions[t] = kv_lens[i] - (indptr[i + 1] - t);
      for (int32_t axis = 0; axis < 3; axis++) ids[axis * tokens + t] = position_on(axis, positions[t]);
    }
  for (int32_t i = 0; i < martlet_attention_max_head_dim / 2; i++) axes[i] = axis_of(i);
  int64_t query_width = attention_heads * cache.head_dim, key_width = cache.kv_heads * cache.head_dim;
  int64_t width = query_width + key_width + cache.kv_heads * cache.value_head_dim;
  martlet_append_arguments a = {
      .cache = cache, .query = fused, .key = fused + query_width, .value = is_latent(&cache) ? NULL : fused + query_width + key_width,
      .query_stride = width,
      .key_stride = width, .value_stride = width, .queries = queries, .rope = rope, .query_norm = norm, .key_norm = norm,
      .query_indptr = indptr, .kv_lens = kv_lens, .rotates_keys = rotates_keys, .token_requests = requests, .token_positions = positions, .position_ids = ids, .tokens = tokens,
      .rope_axes = turns_by_axes ? axes : NULL, .axis_columns = tokens,
      .tokens_per_task = 4, .heads = attention_heads, .rope_dim = turned_dims(&cache), .rope_first = first_turned(&cache),
      .rope_is_neox = true};
  run(table->attention.append, &a, (tokens + 3) / 4);
  release(requests), release(positions), release(ids);
}

// Stored keys as float32, all of a head and some of its dims, to the bit.
static void check_gather(const martlet_paged_kv *cache) {
  int same = 1;
  for (int32_t request = 0; request < attention_requests; request++)
    for (int32_t head = 0; head < cache->kv_heads; head++)
      for (int32_t first = 0; first < 4; first += 3) {
        int32_t dims = cache->head_dim - 2 * first, skipped = kv_lens[request] / 3, tokens = kv_lens[request] - skipped;
        size_t count = (size_t)tokens * (size_t)dims;
        float *found = zeroed(count * 4), *expected = zeroed(count * 4), *key = zeroed((size_t)cache->head_dim * 4);
        martlet_gather_arguments a = {
            .cache = *cache, .output = found, .request = request, .head = head, .first_position = skipped, .tokens = tokens,
            .tokens_per_task = 7, .first_dim = first, .dims = dims};
        run(tested->attention.gather, &a, (tokens + 6) / 7);
        for (int32_t token = 0; token < tokens; token++) {
          read_stored(cache, false, request, skipped + token, head, key);
          memcpy(expected + token * dims, key + first, (size_t)dims * 4);
        }
        same &= memcmp(found, expected, count * 4) == 0;
        release(found), release(expected), release(key);
      }
  same_bits("  gather", &same, &(int){1}, sizeof same);
}

// Attends in tasks of at most `block` rows, each over all chunks or, if `split`, over one. Then the last request's rows, which all see its first
// two chunks, are segments of cascade tasks there, unless a mask hides something from them. Output is float32, or e4m3 times 3.5.
static void attend_all(
    const martlet_kernel_table *table, martlet_paged_kv cache, const float *queries, const attention_case *c, const float *rope,
    const float *sinks, int32_t block, bool split, bool as_e4m3, void *output, float *lse) {
  static martlet_attention_task tasks[4096];
  static martlet_attention_segment segments[256];
  static martlet_attention_merge merges[1024];
  static int32_t finished[1024];
  int32_t segment_count = 0;
  static uint32_t words[16384];
  int32_t task_count = 0, merge_count = 0, state_rows = 0, offsets[attention_requests], word_count = 0;
  for (int32_t request = 0; request < attention_requests; request++) {
    int32_t queries_of_request = query_indptr[request + 1] - query_indptr[request], rows = queries_of_request * attention_group;
    int32_t all_chunks = (kv_lens[request] + martlet_kv_chunk_size - 1) / martlet_kv_chunk_size;
    int32_t first_chunk = c->window ? (kv_lens[request] - queries_of_request - c->window + 1) / martlet_kv_chunk_size : 0;
    if (first_chunk < 0) first_chunk = 0;
    offsets[request] = request == 0 ? -1 : word_count;
    if (c->has_bits && request > 0) {
      int32_t width = (kv_lens[request] + 63) / 64 * 2;
      memset(words + word_count, 0, (size_t)(queries_of_request * width) * 4);
      for (int32_t query = 0; query < queries_of_request; query++, word_count += width)
        for (int32_t key = 0; key < kv_lens[request]; key++)
          if (bit_of(request, query, key)) words[word_count + key / 32] |= 1u << key % 32;
    }
    bool cascades = split && request == 2 && !c->window && !c->has_bits;
    for (int32_t head = 0; head < attention_kv_heads; head++) {
      int32_t first_merge = merge_count;
      for (int32_t row = 0; row < rows; row += block) {
        int32_t count = rows - row < block ? rows - row : block;
        if (!split || all_chunks - first_chunk < 2) {
          tasks[task_count++] = (martlet_attention_task){request, head, row, count, first_chunk, all_chunks, -1, 0};
          continue;
        }
        for (int32_t chunk = cascades ? 2 : first_chunk; chunk < all_chunks; chunk++)
          tasks[task_count++] = (martlet_attention_task){request, head, row, count, chunk, chunk + 1, merge_count,
              state_rows + (chunk - first_chunk) * count};
        merges[merge_count++] = (martlet_attention_merge){state_rows, all_chunks - first_chunk, count, 0};
        state_rows += (all_chunks - first_chunk) * count;
      }
      for (int32_t chunk = 0; cascades && chunk < 2; chunk++) {
        int32_t first_segment = segment_count;
        for (int32_t merge = first_merge, row = 0; merge < merge_count; row += merges[merge++].row_count)
          segments[segment_count++] = (martlet_attention_segment){request, row, merges[merge].row_count, merge,
              merges[merge].state_row + chunk * merges[merge].row_count, {0}};
        tasks[task_count++] = (martlet_attention_task){request, head, first_segment, rows, chunk, chunk + 1, martlet_attention_cascade,
            segment_count - first_segment};
      }
    }
  }
  float *states = zeroed((size_t)(state_rows + 1) * (size_t)(cache.value_head_dim + 2) * 4);
  martlet_attend_arguments a = {
      .cache = cache, .queries = queries, .output = output, .log_sum_exp = lse, .query_indptr = query_indptr, .kv_lens = kv_lens,
      .tasks = tasks, .segments = segments, .merges = merges, .states = states, .finished = finished, .heads = attention_heads, .window = c->window,
      .scale = 0.125f, .soft_cap = c->soft_cap, .output_scale = 3.5f, .causal = c->causal, .output_is_e4m3 = as_e4m3,
      .rounds_queries_to_e4m3 = c->rounds_queries, .sinks = c->has_sinks ? sinks : NULL, .key_rope = c->is_deferred ? rope : NULL,
      .key_rope_dim = turned_dims(&cache), .key_rope_first = first_turned(&cache), .key_rope_is_neox = true, .mask_words = words, .mask_offsets = c->has_bits ? offsets : NULL};
  run_with_scratch(table->attention.attend, &a, task_count);
  release(states);
}

// Rows that see nothing have −∞, which is no number to compare.
static void replace_infinities(float *lse, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (lse[i] == -INFINITY) lse[i] = -1000;
}

static const attention_case plain_cases[] = {
    {.name = "causal", .causal = true}, {.name = "window of 70", .window = 70, .causal = true}, {.name = "full"}};
static const attention_case special_cases[] = {
    {.name = "soft cap", .causal = true, .soft_cap = 3},
    {.name = "sinks, window of 70", .window = 70, .causal = true, .has_sinks = true},
    {.name = "custom mask", .causal = true, .has_bits = true},
    {.name = "custom mask, sinks, soft cap, q in e4m3", .causal = true, .has_bits = true, .has_sinks = true, .rounds_queries = true, .soft_cap = 5},
    {.name = "keys rotated as they are read", .causal = true, .is_deferred = true},
};

static void check_attention_of(
    int32_t type, page_order order, int32_t page_size, int32_t dims, int32_t value_dims, const attention_case *cases, int case_count) {
  int32_t width = attention_heads * dims + attention_kv_heads * (dims + value_dims), tokens = query_indptr[attention_requests];
  char what[96];
  // The cached prefix: appended by the plain variant, all tokens of all requests at once.
  static const int32_t all[] = {0, 21, 171, 1271, 1367};
  martlet_paged_kv cache = make_cache(type, order, page_size, dims, value_dims);
  martlet_paged_kv other = make_cache(type, order, page_size, dims, value_dims);
  size_t all_tokens = (size_t)all[attention_requests];
  float *prefix = random_floats(all_tokens * (size_t)width, 2), *unused = zeroed(all_tokens * attention_heads * (size_t)dims * 4);
  float *rope = random_floats(1100 * (size_t)dims, 1), *weight = random_floats((size_t)dims, 1), *sinks = random_floats(attention_heads, 4);
  martlet_head_norm none = {0}, norm = {weight, 1e-6f};
  append_all(plain, cache, all, prefix, rope, true, none, unused);
  append_all(tested, other, all, prefix, rope, true, none, unused);
  snprintf(what, sizeof what, "append, %s, %s pages of %d, %d and %d dims", type_names[type], order_names[order], page_size, dims, value_dims);
  same_bits(what, other.pages, cache.pages, (size_t)cache.page_bytes * (size_t)cache.table_width * attention_requests);
  check_stored(&other, all, prefix, rope);
  turns_by_axes = true;
  append_all(tested, other, all, prefix, rope, true, none, unused);
  check_stored(&other, all, prefix, rope);
  turns_by_axes = false;
  append_all(tested, other, all, prefix, rope, true, none, unused);
  check_gather(&other);
  // This step's tokens, with a norm: queries differ by roundings. Both go on from the plain variant's pages.
  float *queries = zeroed((size_t)tokens * attention_heads * (size_t)dims * 4),
      *expected = zeroed((size_t)tokens * attention_heads * (size_t)dims * 4);
  append_all(tested, other, query_indptr, prefix, rope, true, norm, queries);
  append_all(plain, cache, query_indptr, prefix, rope, true, norm, expected);
  compare("  queries, normalised", queries, expected, (size_t)tokens * attention_heads * (size_t)dims, 2e-6);
  float *truth = zeroed((size_t)tokens * attention_heads * (size_t)dims * 4);
  for (int32_t request = 0; request < attention_requests; request++)
    for (int32_t token = query_indptr[request]; token < query_indptr[request + 1]; token++)
      for (int32_t head = 0; head < attention_heads; head++)
        true_head(
            &cache, prefix + token * width + head * dims, norm, rope, kv_lens[request] - (query_indptr[request + 1] - token),
            truth + (token * attention_heads + head) * dims);
  compare("  and float64", queries, truth, (size_t)tokens * attention_heads * (size_t)dims, 2e-6);
  release(truth);

  size_t count = (size_t)tokens * attention_heads * (size_t)value_dims, rows = (size_t)tokens * attention_heads;
  float *y = zeroed(count * 4), *z = zeroed(count * 4), *lse = zeroed(rows * 4), *lse_plain = zeroed(rows * 4);
  uint8_t *codes = zeroed(count);
  bool is_pair_type = type == martlet_kv_bf16 || type >= martlet_kv_e4m3;
  bool is_pair_dot = is_pair_type && strstr(tested->name, "bf16") != NULL;
  for (int i = 0; i < case_count; i++) {
    const attention_case *c = &cases[i];
    // Where probabilities are rounded to bf16, one that lies at a tie may go the other way: 2⁻⁹ of itself, among many. Probabilities that a
    // wide range of scores makes err by the scores' own roundings.
    bool plain_is_dot = is_pair_type && strstr(plain->name, "bf16") != NULL;
    attend_all(plain, cache, expected, c, rope, sinks, 96, false, false, z, lse_plain);
    attend_all(tested, cache, expected, c, rope, sinks, 96, false, false, y, lse);
    replace_infinities(lse, rows), replace_infinities(lse_plain, rows);
    double tolerance = plain_is_dot ? 2e-3 : is_pair_dot ? 2e-2 : 1e-5;
    snprintf(what, sizeof what, "  attend, %s", c->name);
    compare(what, y, z, count, tolerance);
    compare("  log-sum-exp", lse, lse_plain, rows, tolerance);
    true_attention(&cache, expected, c, rope, sinks, is_pair_dot, z, lse_plain);
    tolerance = is_pair_dot ? 2e-2 : 1e-5;
    compare("  and float64", y, z, count, tolerance);
    compare("  and float64, log-sum-exp", lse, lse_plain, rows, tolerance);
    int same = 1;
    for (int j = 0; j < 4; j++) {
      memset(z, 0xFF, count * 4);
      attend_all(tested, cache, expected, c, rope, sinks, (int32_t[]){1, 5, 7, 96}[j], j != 1, false, z, lse_plain);
      replace_infinities(lse_plain, rows);
      same &= memcmp(z, y, count * 4) == 0 && memcmp(lse, lse_plain, rows * 4) == 0;
    }
    failures += !same;
    printf("%-12s %-44s %20s  %s\n", tested->name, "  in tasks of 1 to 96 rows, chunks apart", "bit for bit", same ? "ok" : "WRONG");
    if (i == 0) {
      attend_all(tested, cache, expected, c, rope, sinks, 96, true, true, codes, lse);
      for (size_t j = 0; j < count; j++) y[j] = (float)e4m3_nearest(y[j] * 3.5f), z[j] = (float)e4m3_value(codes[j]);
      same_bits("  output in e4m3", z, y, count * 4);
    }
  }
  // Tokens that a row does not see are left out, whatever they hold, though they share 32-bit lanes with those that it sees: positions
  // 140 … 144 of the second request (tokens 24 … 28), with a window of 70, see 71 … 144 at most.
  const attention_case windowed = {.window = 70, .causal = true};
  attend_all(tested, cache, expected, &windowed, rope, sinks, 96, false, false, y, lse);
  for (int32_t head = 0; head < attention_kv_heads; head++)
    for (int i = 0; i < 4; i++) {
      int32_t position = i < 2 ? 70 - i : 143 + i;
      for (int32_t dim = 0; dim < dims; dim++) memset(stored_at(&cache, false, 1, position, head, dim), 0xFF, stored_width(&cache));
      for (int32_t dim = 0; dim < value_dims; dim++) memset(stored_at(&cache, true, 1, position, head, dim), 0xFF, stored_width(&cache));
      if (type == martlet_kv_i8)
        for (int is_value = 0; is_value < 2; is_value++) memset(scale_at(&cache, is_value, 1, position, head), 0xFF, 4);
    }
  attend_all(tested, cache, expected, &windowed, rope, sinks, 96, false, false, z, lse);
  size_t row = attention_heads * (size_t)value_dims;
  same_bits("  beside NaNs out of sight", y + 24 * row, z + 24 * row, 5 * row * 4);
  release(prefix), release(unused), release(rope), release(weight), release(sinks), release(queries), release(expected), release(y), release(z);
  release(lse), release(lse_plain), release(codes);
  release((void *)cache.page_table), release((void *)other.page_table);
}

// Each of the 256 codes of a one-byte type, small ones too, which hide behind great ones elsewhere: 64 tokens with the same key and the same value,
// whose dim d holds code d. Row i asks for dim i alone, and tells in its log-sum-exp what it got.
static void check_codes(int32_t type) {
  enum { codes = 256, tokens = (codes + attention_group - 1) / attention_group, rows = tokens * attention_group };
  static const int32_t indptr[] = {0, tokens, tokens, tokens, tokens}, lens[] = {martlet_kv_tile_size, 0, 0, 0};
  martlet_paged_kv cache = make_cache(type, in_lanes, 32, codes, codes);
  cache.key_scale = cache.value_scale = 1;
  float value_of[codes];
  for (int code = 0; code < codes; code++) value_of[code] = type == martlet_kv_e4m3 ? (float)e4m3_value(code) : (float)(int8_t)code;
  for (int32_t position = 0; position < martlet_kv_tile_size; position++) {
    for (int32_t code = 0; code < codes; code++) {
      *stored_at(&cache, false, 0, position, 0, code) = isnan(value_of[code]) ? 0 : (uint8_t)code;  // NaN times 0 is NaN, in all scores
      *stored_at(&cache, true, 0, position, 0, code) = (uint8_t)code;
    }
    if (type == martlet_kv_i8) *scale_at(&cache, false, 0, position, 0) = *scale_at(&cache, true, 0, position, 0) = 1;
  }
  size_t width = attention_heads * codes;
  float *queries = zeroed(tokens * width * 4), *output = zeroed(tokens * width * 4), *lse = zeroed(tokens * attention_heads * 4);
  for (int32_t i = 0; i < codes; i++) queries[(size_t)(i / attention_group) * width + (size_t)(i % attention_group * codes + i)] = 1;
  // What is compared is relative to the code's own size. Zeros and NaNs are compared as they are.
  size_t count = (size_t)rows * codes;
  float *keys = zeroed(rows * 4), *true_keys = zeroed(rows * 4), *values = zeroed(count * 4), *true_values = zeroed(count * 4);
  for (int i = 0; i < 3; i++) {
    int32_t block = (int32_t[]){2, 6, 96}[i];  // few rows, two or six, read codes where they lie; for many they are widened once
    martlet_attention_task tasks[rows / 2 + 1];
    int32_t task_count = 0;
    for (int32_t row = 0; row < rows; row += block)
      tasks[task_count++] = (martlet_attention_task){0, 0, row, rows - row < block ? rows - row : block, 0, 1, -1, 0};
    martlet_attend_arguments a = {
        .cache = cache, .queries = queries, .output = output, .log_sum_exp = lse, .query_indptr = indptr, .kv_lens = lens, .tasks = tasks,
        .heads = attention_heads, .scale = 8};
    run_with_scratch(tested->attention.attend, &a, task_count);
    for (int32_t row = 0; row < rows; row++) {
      int32_t index = row / attention_group * attention_heads + row % attention_group;
      double key = row < codes && !isnan(value_of[row]) ? 8 * value_of[row] / log(2) + 6 : 6, size = fmax(fabs(key), 6);
      keys[row] = (float)(lse[index] / size), true_keys[row] = (float)(key / size);
      for (int32_t code = 0; code < codes; code++) {
        float value = output[(size_t)index * codes + (size_t)code], truth = value_of[code], unit = truth == 0 ? 1 : truth;
        values[row * codes + code] = value / unit, true_values[row * codes + code] = truth / unit;
      }
    }
    char what[96];
    snprintf(what, sizeof what, "every %s as a key, in tasks of %d rows", type_names[type], block);
    compare(what, keys, true_keys, rows, 4e-6);
    compare("  as a value", values, true_values, count, 4e-6);
  }
  release(keys), release(true_keys), release(values), release(true_values);
  release(queries), release(output), release(lse), release((void *)cache.page_table);
}

static void check_attention(void) {
  enum { plain_count = sizeof plain_cases / sizeof *plain_cases, special_count = sizeof special_cases / sizeof *special_cases };
  for (int32_t type = martlet_kv_f32; type <= martlet_kv_i8; type++) {
    check_attention_of(type, in_lanes, 32, 64, 64, plain_cases, plain_count);
    check_attention_of(type, in_lanes, 16, 72, 40, special_cases, special_count);
    check_attention_of(type, in_lanes, 128, 256, 256, plain_cases, 1);
    check_attention_of(type, in_lanes, 4, 64, 64, plain_cases, 1);
    check_attention_of(type, nhd, 1, 72, 40, plain_cases + 1, 1);
    check_attention_of(type, hnd, 32, 72, 40, special_cases, special_count);
    check_attention_of(type, nhd, 1100, 128, 64, plain_cases, 1);
    check_attention_of(type, crossed, 8, 64, 64, special_cases + 3, 2);
    check_attention_of(type, latents, 32, 88, 72, special_cases, special_count);
    if (type == martlet_kv_bf16) check_attention_of(type, latents, 64, 576, 512, plain_cases, 1);
    if (type >= martlet_kv_e4m3) check_codes(type);
  }
}

// MARK: Everything

static const martlet_kernel_table *table_named(const char *name) {
  int32_t count;
  const martlet_kernel_table *const *tables = martlet_kernel_tables(&count);
  for (int32_t i = 0; i < count; i++)
    if (strcmp(tables[i]->name, name) == 0) return tables[i];
  return NULL;
}

static void check_all_products(void) {
  check_products();
  check_packing_of_parts();
  check_nvfp4();
  check_products_on_the_way();
  check_greatest_digits();
  check_bf16_of_any_length();
  check_grouped_products();
}

static const struct { const char *name; void (*check)(void); } sections[] = {
    {"tensor", check_tensor_kernels}, {"product", check_all_products}, {"attention", check_attention}};
enum { section_count = sizeof sections / sizeof *sections };

static bool is_section(const char *name) {
  for (int i = 0; i < section_count; i++)
    if (strcmp(sections[i].name, name) == 0) return true;
  return false;
}

// kernel_check [VARIANT or SECTION]…: all of both unless told.
int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);  // a crash shows where
  bool all_variants = true, all_sections = true;
  for (int i = 1; i < argc; i++) {
    if (is_section(argv[i])) all_sections = false;
    else if (table_named(argv[i])) all_variants = false;
    else return printf("%s is neither among the variants of this build nor a section\n", argv[i]), 1;
  }
  int32_t count;
  const martlet_kernel_table *const *tables = martlet_kernel_tables(&count);
  for (int32_t i = 0; i < count; i++) {
    tested = tables[i];
    bool wanted = all_variants;
    for (int j = 1; j < argc; j++) wanted |= strcmp(argv[j], tested->name) == 0;
    if (!wanted) continue;
    if (!martlet_kernel_table_is_supported(tested)) {
      printf("%-12s is not supported by this processor\n", tested->name);
      if (!all_variants) failures++;
      continue;
    }
    // The model has the arithmetic of bf16 dot products; it is itself compared with the portable variant.
    plain = table_named(strstr(tested->name, "bf16") && strcmp(tested->name, "bf16-model") ? "bf16-model" : "portable");
    random_state = 1;
    for (int j = 0; j < section_count; j++) {
      bool is_wanted = all_sections;
      for (int k = 1; k < argc; k++) is_wanted |= strcmp(argv[k], sections[j].name) == 0;
      if (is_wanted) sections[j].check();
    }
  }
  printf("%s\n", failures ? "WRONG" : "all as they should be");
  return failures != 0;
}
