// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Runs every kernel of every variant that the processor supports and compares it with a plain C variant: a program of one file, for
// machines on which the Swift tests cannot run, such as an emulator with instructions that no machine at hand has.
//
//   clang -O2 -std=gnu17 -I Sources/CMartletKernels/include Tests/KernelCheck/kernel_check.c Sources/CMartletKernels/*/*.c -lm
//
// Add `--target=aarch64-linux-gnu -static` (and a cross compiler's C library) and run it under qemu-aarch64, for example. Arguments: names of variants; none means all that
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
  memset(scratch, 0xFF, sizeof scratch);  // NaN for whoever reads what it has not written
  for (int32_t task = 0; task < tasks; task++) function(arguments, task, 0, scratch);
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
  }
  return file;
}

static martlet_product_part packed(
    const martlet_kernel_table *table, const format_facts *facts, const uint8_t *file, int32_t rows, int32_t columns) {
  int32_t groups = (rows + 15) / 16;
  int64_t group_bytes = martlet_packed_group_bytes(facts->format, columns);
  uint8_t *memory = zeroed((size_t)(group_bytes * groups));
  martlet_pack_arguments a = {file, memory, (int64_t)columns / facts->block_size * facts->block_bytes, group_bytes, facts->format,
      rows, columns, 2};
  run(table->product.pack, &a, (groups + 1) / 2);
  return (martlet_product_part){memory, group_bytes, facts->format, rows, 0, 0};
}

// The product of `tokens` rows of x, coded and multiplied by one variant, dealt to tasks as told.
static void multiply(
    const martlet_kernel_table *table, const martlet_product_part *parts, int32_t part_count, int32_t rows, int32_t columns, const float *x,
    int32_t tokens, int32_t groups_per_task, int32_t tokens_per_task, float *y) {
  int32_t groups = parts[part_count - 1].first_group + (parts[part_count - 1].rows + 15) / 16;
  martlet_input_slab *slabs = zeroed(sizeof *slabs * (size_t)tokens * (size_t)((columns + 255) / 256));
  martlet_code_inputs_arguments code = {x, slabs, tokens, columns, 3};
  run(table->product.code_inputs, &code, (tokens + 2) / 3);
  martlet_product_arguments a = {parts, x, slabs, y, part_count, tokens, columns, rows, groups, groups_per_task, tokens_per_task};
  run(table->product.product, &a,
      (groups + groups_per_task - 1) / groups_per_task * ((tokens + tokens_per_task - 1) / tokens_per_task));
  free(slabs);
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
  static const int32_t batches[] = {1, 2, 3, 4, 5, 6, 7, 12, 13};
  int same = 1;
  for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
    int32_t first = (int32_t)i + 1;
    memset(z, 0xFF, count * 4);
    multiply(tested, parts, part_count, rows, columns, x + first * (size_t)columns, batches[i], 1 + (int32_t)i % 3, 5 + (int32_t)i, z);
    same &= memcmp(z, y + first * (size_t)rows, (size_t)batches[i] * (size_t)rows * 4) == 0;
  }
  failures += !same;
  printf("%-12s %-44s %20s  %s\n", tested->name, "  in batches of 1 to 13", "bit for bit", same ? "ok" : "WRONG");

  const int32_t chosen[] = {0, rows - 1, rows / 2};
  martlet_embed_arguments e = {plain_parts, chosen, z, 1.5f, part_count, 3, columns, 2};
  float *rows_read = zeroed(3 * (size_t)columns * 4), *rows_expected = zeroed(3 * (size_t)columns * 4);
  e.output = rows_expected;
  run(plain->product.embed, &e, 2);
  e.output = rows_read, e.parts = parts;
  run(tested->product.embed, &e, 2);
  compare("  embed", rows_read, rows_expected, 3 * (size_t)columns, 1e-6);
  free(x), free(y), free(z), free(rows_read), free(rows_expected);
}

static void check_products(void) {
  enum { rows = 37 };
  martlet_product_part stacked[2], plain_stacked[2];
  for (int i = 0; i < format_count; i++) {
    const format_facts *facts = &formats[i];
    int32_t columns = facts->block_size == 256 ? 512 : 352;  // whole slabs, and a slab and a part
    uint8_t *file = random_weight(facts, rows, columns);
    martlet_product_part part = packed(tested, facts, file, rows, columns), plain_part = packed(plain, facts, file, rows, columns);
    same_bits(named("pack, format %d", facts->format, 0), part.groups, plain_part.groups, (size_t)(part.group_bytes * 3));
    check_products_of(&part, &plain_part, 1, rows, columns, facts->name);
    if (facts->format == martlet_weight_q4_k || facts->format == martlet_weight_q6_k) {
      int second = facts->format == martlet_weight_q6_k;
      stacked[second] = part, plain_stacked[second] = plain_part;
      if (second) {
        stacked[1].first_row = plain_stacked[1].first_row = rows;
        stacked[1].first_group = plain_stacked[1].first_group = 3;
        check_products_of(stacked, plain_stacked, 2, 2 * rows, columns, "Q4_K over Q6_K");
        for (int j = 0; j < 2; j++) free((void *)stacked[j].groups), free((void *)plain_stacked[j].groups);
      }
    } else {
      free((void *)part.groups), free((void *)plain_part.groups);
    }
    free(file);
  }
}

// MARK: Attention

enum { attention_heads = 6, attention_kv_heads = 2, attention_group = 3, attention_requests = 3 };

// A batch: a prompt, a chunk over a cached prefix, and one generated token far out.
static const int32_t query_indptr[] = {0, 21, 34, 35}, kv_lens[] = {21, 150, 1100};

static martlet_paged_kv make_cache(int32_t type, int32_t page_size, int32_t dims, int32_t value_dims) {
  int64_t width = type == martlet_kv_f32 ? 4 : 2, g = 4 / width;
  int32_t table_width = (1100 + page_size - 1) / page_size, pages = table_width * attention_requests;
  martlet_paged_kv cache = {0};
  cache.page_bytes = page_size * attention_kv_heads * (dims + value_dims) * width;
  cache.values_offset = page_size * attention_kv_heads * dims * width;
  cache.pages = zeroed((size_t)(cache.page_bytes * pages));
  int32_t *table = zeroed((size_t)pages * 4);
  for (int32_t i = 0; i < pages; i++) table[i] = (i * 7 + 3) % pages;  // 7 does not divide the count: each page once
  if (pages % 7 == 0)
    for (int32_t i = 0; i < pages; i++) table[i] = pages - 1 - i;
  cache.page_table = table, cache.table_width = table_width;
  cache.type = type, cache.page_size = page_size, cache.kv_heads = attention_kv_heads;
  cache.head_dim = dims, cache.value_head_dim = value_dims;
  cache.keys = (martlet_kv_plane){page_size * dims, g, page_size * g, 1, (int32_t)g};
  cache.values = (martlet_kv_plane){page_size * value_dims, value_dims * g, g, (int32_t)g, 1};
  return cache;
}

// Appends `tokens` tokens: the last `lens[i]` positions of each request.
static void append_all(
    const martlet_kernel_table *table, martlet_paged_kv cache, const int32_t *indptr, const float *fused, const float *rope,
    martlet_head_norm norm, float *queries) {
  int32_t tokens = indptr[attention_requests];
  int32_t *requests = zeroed((size_t)tokens * 4), *positions = zeroed((size_t)tokens * 4);
  for (int32_t i = 0; i < attention_requests; i++)
    for (int32_t t = indptr[i]; t < indptr[i + 1]; t++) requests[t] = i, positions[t] = kv_lens[i] - (indptr[i + 1] - t);
  martlet_append_arguments a = {cache, fused, queries, rope, norm, norm, indptr, requests, positions, positions, tokens, 4,
      attention_heads, cache.head_dim, true};
  run(table->attention.append, &a, (tokens + 3) / 4);
  free(requests), free(positions);
}

// Attends in tasks of at most `block` rows, each over all chunks or, if `split`, over one.
static void attend_all(
    const martlet_kernel_table *table, martlet_paged_kv cache, const float *queries, int32_t window, bool causal, int32_t block,
    bool split, float *output, float *lse) {
  enum { chunks = 3 };
  static martlet_attention_task tasks[4096];
  static martlet_attention_merge merges[1024];
  static int32_t finished[1024];
  int32_t task_count = 0, merge_count = 0, state_rows = 0;
  for (int32_t request = 0; request < attention_requests; request++) {
    int32_t rows = (query_indptr[request + 1] - query_indptr[request]) * attention_group;
    int32_t all_chunks = (kv_lens[request] + martlet_kv_chunk_size - 1) / martlet_kv_chunk_size;
    int32_t first_chunk = window ? (kv_lens[request] - rows / attention_group - window + 1) / martlet_kv_chunk_size : 0;
    if (first_chunk < 0) first_chunk = 0;
    for (int32_t head = 0; head < attention_kv_heads; head++) {
      for (int32_t row = 0; row < rows; row += block) {
        int32_t count = rows - row < block ? rows - row : block;
        if (!split || all_chunks - first_chunk < 2) {
          tasks[task_count++] = (martlet_attention_task){request, head, row, count, first_chunk, all_chunks, -1, 0};
          continue;
        }
        for (int32_t chunk = first_chunk; chunk < all_chunks; chunk++)
          tasks[task_count++] = (martlet_attention_task){request, head, row, count, chunk, chunk + 1, merge_count,
              state_rows + (chunk - first_chunk) * count};
        merges[merge_count++] = (martlet_attention_merge){state_rows, all_chunks - first_chunk, count, 0};
        state_rows += (all_chunks - first_chunk) * count;
      }
    }
  }
  float *states = zeroed((size_t)(state_rows + 1) * (size_t)(cache.value_head_dim + 2) * 4);
  martlet_attend_arguments a = {cache, queries, output, lse, query_indptr, kv_lens, tasks, merges, states, finished, attention_heads,
      window, 0.125f, causal};
  run(table->attention.attend, &a, task_count);
  free(states);
}

static void check_attention_of(int32_t type, int32_t page_size, int32_t dims, int32_t value_dims) {
  static const char *const types[] = {"f32", "f16", "bf16"};
  int32_t width = attention_heads * dims + attention_kv_heads * (dims + value_dims), tokens = query_indptr[attention_requests];
  char what[64];
  // The cached prefix: appended by the plain variant, all tokens of all requests at once.
  static const int32_t all[] = {0, 21, 171, 1271};
  martlet_paged_kv cache = make_cache(type, page_size, dims, value_dims), other = make_cache(type, page_size, dims, value_dims);
  float *prefix = random_floats((size_t)all[3] * (size_t)width, 2), *unused = zeroed((size_t)all[3] * attention_heads * (size_t)dims * 4);
  float *rope = random_floats(1100 * (size_t)dims, 1), *weight = random_floats((size_t)dims, 1);
  martlet_head_norm none = {0}, norm = {weight, 1e-6f};
  append_all(plain, cache, all, prefix, rope, none, unused);
  append_all(tested, other, all, prefix, rope, none, unused);
  snprintf(what, sizeof what, "append, %s, pages of %d, %d and %d dims", types[type], page_size, dims, value_dims);
  same_bits(what, other.pages, cache.pages, (size_t)cache.page_bytes * (size_t)cache.table_width * attention_requests);
  // This step's tokens, with a norm: queries differ by roundings. Both go on from the plain variant's pages.
  float *queries = zeroed((size_t)tokens * attention_heads * (size_t)dims * 4),
      *expected = zeroed((size_t)tokens * attention_heads * (size_t)dims * 4);
  append_all(tested, other, query_indptr, prefix, rope, norm, queries);
  append_all(plain, cache, query_indptr, prefix, rope, norm, expected);
  compare("  queries, normalised", queries, expected, (size_t)tokens * attention_heads * (size_t)dims, 2e-6);

  size_t count = (size_t)tokens * attention_heads * (size_t)value_dims;
  float *y = zeroed(count * 4), *z = zeroed(count * 4), *lse = zeroed(tokens * attention_heads * 4),
      *lse_plain = zeroed(tokens * attention_heads * 4);
  for (int mask = 0; mask < 3; mask++) {
    int32_t window = mask == 1 ? 70 : 0;
    bool causal = mask != 2;
    attend_all(plain, cache, expected, window, causal, 96, false, z, lse_plain);
    attend_all(tested, cache, expected, window, causal, 96, false, y, lse);
    // Where probabilities are rounded to bf16, one that lies at a tie may go the other way: 2⁻⁹ of itself, among many.
    double tolerance = type == martlet_kv_bf16 && strstr(plain->name, "bf16") ? 1e-3 : 1e-5;
    if (type == martlet_kv_bf16 && strcmp(tested->name, "bf16-model") == 0) tolerance = 2e-2;  // q too is rounded here, and not there
    snprintf(what, sizeof what, "  attend, %s", mask == 0 ? "causal" : mask == 1 ? "window of 70" : "full");
    compare(what, y, z, count, tolerance);
    compare("  log-sum-exp", lse, lse_plain, (size_t)tokens * attention_heads, tolerance);
    int same = 1;
    for (int i = 0; i < 4; i++) {
      memset(z, 0xFF, count * 4);
      attend_all(tested, cache, expected, window, causal, (int32_t[]){1, 5, 7, 96}[i], i != 1, z, lse_plain);
      same &= memcmp(z, y, count * 4) == 0 && memcmp(lse, lse_plain, tokens * attention_heads * 4) == 0;
    }
    failures += !same;
    printf("%-12s %-44s %20s  %s\n", tested->name, "  in tasks of 1 to 96 rows, chunks apart", "bit for bit", same ? "ok" : "WRONG");
  }
  free(prefix), free(unused), free(rope), free(weight), free(queries), free(expected), free(y), free(z), free(lse), free(lse_plain);
  free(cache.pages), free((void *)cache.page_table), free(other.pages), free((void *)other.page_table);
}

static void check_attention(void) {
  for (int32_t type = martlet_kv_f32; type <= martlet_kv_bf16; type++) {
    check_attention_of(type, 32, 64, 64);
    check_attention_of(type, 16, 72, 40);
    check_attention_of(type, 128, 256, 256);
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

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);  // a crash shows where
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
    check_products();
    check_attention();
  }
  printf("%s\n", failures ? "WRONG" : "all as they should be");
  return failures != 0;
}
