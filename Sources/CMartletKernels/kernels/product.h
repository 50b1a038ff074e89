// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Products of inputs with packed weights.
//
// The arithmetic of one output, the same for every number of tokens and threads:
//
//   y = 0
//   for each slab of 256 inputs:                     p = 0
//     for each scale's run of inputs (32, or 16):    p = fma(scale, float(Σ (code − offset) · input code), p)
//       if the format has minimums:                  p = fma(minimum, float(Σ input code), p)
//     y = fma(input scale, p, y)
//   if the format has a factor for each row:         y = factor · y
//
// The sums Σ are integers below 2³¹ (32 · 128 · 32767 < 2²⁷), exact in any order. Floats: p = fma(w, x, p) over k, then y = y + p; E4M3: the same over
// the inputs that share a scale, then y = fma(scale, p, y).
//
// Two ways to the same bits. *Few tokens* (generation) is bound by memory: codes are unpacked in registers and used at once. *Many tokens*
// (prompts) is bound by the dot products: a slab of a group is unpacked once to int16 pairs and used for all tokens of the task,
// MARTLET_PRODUCT_ROWS tokens at a time, whose sums stay in registers. AMX has a third for many tokens (product_tiles.h).
//
// Inputs as bfloat16 (product_bf16.h) and as 8-bit integers (product_int8.h) are arithmetics of their own.

// Tokens of a tile. AVX2: 6 tokens × two registers of sums, two registers of weights, one broadcast input and one product: all 16.
// NEON: 6 tokens × four registers of sums, four of weights, the rest of the 32 for inputs.
#if MARTLET_AVX512
#define MARTLET_PRODUCT_ROWS 12
#elif MARTLET_AVX2 || MARTLET_NEON
#define MARTLET_PRODUCT_ROWS 6
#else
#define MARTLET_PRODUCT_ROWS 4
#endif

// The loop over unpacked pairs. NEON takes each pair's weights apart first: unrolled, the compiler does so for all pairs at once and keeps
// them on the stack.
#if MARTLET_NEON
#define MARTLET_UNROLL_PAIRS _Pragma("clang loop unroll(disable)")
#else
#define MARTLET_UNROLL_PAIRS MARTLET_UNROLL
#endif

// Up to this many tokens are few. With 32 registers two sums of each of 8, a weight and scales stay in them.
#if MARTLET_AVX512
#define MARTLET_FEW_ROWS 8
#else
#define MARTLET_FEW_ROWS 4
#endif

// MARTLET_FEW_SWITCH(rows, call): `call(n)` with the constant n = rows, and the same for a tile.
#define MARTLET_UP_TO_3(call) case 1: call(1); break; case 2: call(2); break; case 3: call(3); break;
#define MARTLET_UP_TO_5(call) MARTLET_UP_TO_3(call) case 4: call(4); break; case 5: call(5); break;
#define MARTLET_UP_TO_7(call) MARTLET_UP_TO_5(call) case 6: call(6); break; case 7: call(7); break;
#define MARTLET_UP_TO_11(call) MARTLET_UP_TO_7(call) case 8: call(8); break; case 9: call(9); break; case 10: call(10); break; case 11: call(11); break;
#define MARTLET_ROWS_SWITCH(rows, call, below, most) switch (rows) { below(call) default: call(most); break; }
#if MARTLET_AVX512
#define MARTLET_FEW_SWITCH(rows, call) MARTLET_ROWS_SWITCH(rows, call, MARTLET_UP_TO_7, 8)
#define MARTLET_TILE_SWITCH(rows, call) MARTLET_ROWS_SWITCH(rows, call, MARTLET_UP_TO_11, 12)
#elif MARTLET_AVX2 || MARTLET_NEON
#define MARTLET_FEW_SWITCH(rows, call) MARTLET_ROWS_SWITCH(rows, call, MARTLET_UP_TO_3, 4)
#define MARTLET_TILE_SWITCH(rows, call) MARTLET_ROWS_SWITCH(rows, call, MARTLET_UP_TO_5, 6)
#else
#define MARTLET_FEW_SWITCH(rows, call) MARTLET_ROWS_SWITCH(rows, call, MARTLET_UP_TO_3, 4)
#define MARTLET_TILE_SWITCH MARTLET_FEW_SWITCH
#endif

MARTLET_INLINE i32x16 broadcast_pair(const int16_t *codes) {
  int32_t pair;
  __builtin_memcpy(&pair, codes, 4);
  return i32x16_set(pair);
}

// Writes the `lanes` rows of a group that exist, from row `row` on, of one token: the sums, with the bias, or added to what is there.
MARTLET_INLINE void store_outputs(const martlet_product_arguments *a, int64_t token, int32_t row, f32x16 sums, int32_t lanes) {
  float *output = a->output + token * a->rows + row;
  if (lanes >= 16) {
    if (a->bias) sums += f32x16_load(a->bias + row);
    if (a->adds) sums = f32x16_fma(sums, f32x16_set(a->addition_scale), f32x16_load(output));
    f32x16_store(output, sums);
    return;
  }
  if (a->bias) sums += f32x16_load_first(a->bias + row, lanes);
  if (a->adds) sums = f32x16_fma(sums, f32x16_set(a->addition_scale), f32x16_load_first(output, lanes));
  f32x16_store_first(output, sums, lanes);
}

// The sum of the input codes that one of a block's scales covers, as the float that it is exactly.
MARTLET_INLINE f32x16 sum_of_inputs(int scales, const martlet_input_slab *in, int32_t block, int h) {
  return f32x16_set(scales == 1 ? in->sums[block] : (float)in->sums16[2 * block + h]);
}

// ---- Few tokens ----

// One group for `rows` tokens from `token` on.
MARTLET_INLINE void few_coded(int format, int rows, const martlet_product_arguments *a, const uint8_t *group, int32_t token, int32_t row,
                              int32_t lanes) {
  f32x16 y[MARTLET_FEW_ROWS];
  MARTLET_UNROLL for (int r = 0; r < rows; r++) y[r] = f32x16_set(0);
  const martlet_input_slab *in = (const martlet_input_slab *)a->slabs + token;
  const uint8_t *block = group + group_header_bytes(format);
  for (int32_t left = a->columns / 32; left > 0; left -= 8, in += a->slab_stride) {
    const uint8_t *slab = block;
    block += slab_header_bytes(format);
    f32x16 p[MARTLET_FEW_ROWS];
    MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_set(0);
    int32_t blocks = left < 8 ? left : 8;
    for (int32_t b = 0; b < blocks; b++, block += block_bytes(format)) {
      // Far enough for the memory's latency, near enough to survive in the first cache.
      MARTLET_UNROLL for (int line = 0; line < block_bytes(format); line += 64) __builtin_prefetch(block + 2048 + line);
      block_scales s = load_scales(format, slab, block);
      MARTLET_UNROLL for (int h = 0; h < scale_count(format); h++) {
        // Starting at −offset · Σ input makes up for codes that count from 0.
        i32x16 sum[MARTLET_FEW_ROWS];
        MARTLET_UNROLL for (int r = 0; r < rows; r++) {
          int32_t start = scale_count(format) == 2 ? in[r].sums16[2 * b + h] : in[r].sums16[2 * b] + in[r].sums16[2 * b + 1];
          sum[r] = i32x16_set(-code_offset(format) * start);
        }
        MARTLET_UNROLL for (int i = 0; i < 16 / scale_count(format); i++) {
          int pair = h * 8 + i;
          i32x16 w = load_pair(format, block, pair);
          MARTLET_UNROLL for (int r = 0; r < rows; r++)
            sum[r] = i32x16_here(i32x16_dot_i16(sum[r], w, broadcast_pair(in[r].codes + b * 32 + 2 * pair)));
        }
        MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_fma(s.scale[h], f32x16_from_i32(sum[r]), p[r]);
        if (has_minimum(format))
          MARTLET_UNROLL for (int r = 0; r < rows; r++)
            p[r] = f32x16_fma(s.minimum[h], sum_of_inputs(scale_count(format), in + r, b, h), p[r]);
      }
    }
    MARTLET_UNROLL for (int r = 0; r < rows; r++) y[r] = f32x16_fma(f32x16_set(in[r].scale), p[r], y[r]);
  }
  if (has_row_factor(format))
    MARTLET_UNROLL for (int r = 0; r < rows; r++) y[r] = y[r] * f32x16_load(group);
  MARTLET_UNROLL for (int r = 0; r < rows; r++) store_outputs(a, token + r, row, y[r], lanes);
}

MARTLET_INLINE f32x16 load_floats(int format, const uint8_t *group, int32_t k) {
  switch (format) {
    case martlet_weight_f16: return f32x16_load_f16(group + (int64_t)k * 32);
    case martlet_weight_bf16: return f32x16_load_bf16(group + (int64_t)k * 32);
    case martlet_weight_e4m3: return f32x16_load_e4m3(group + (int64_t)k * 16);
    default: return f32x16_load(group + (int64_t)k * 64);
  }
}

// Inputs that share a partial sum.
MARTLET_INLINE int32_t run_of_floats(int format) { return format == martlet_weight_e4m3 ? martlet_scaled_run : martlet_product_slab; }

// What multiplies the sums of a run, and its bytes before the first input.
MARTLET_INLINE int run_header_bytes(int format) { return format == martlet_weight_e4m3 ? 64 : 0; }
MARTLET_INLINE f32x16 run_scale(int format, const uint8_t *run) { return format == martlet_weight_e4m3 ? f32x16_load(run) : f32x16_set(1); }

MARTLET_INLINE void few_floats(int format, int rows, const martlet_product_arguments *a, const uint8_t *group, int32_t token, int32_t row,
                               int32_t lanes) {
  f32x16 y[MARTLET_FEW_ROWS];
  MARTLET_UNROLL for (int r = 0; r < rows; r++) y[r] = f32x16_set(0);
  const float *in = a->input + (int64_t)token * a->columns;
  const uint8_t *run = group;
  for (int32_t start = 0; start < a->columns; start += run_of_floats(format)) {
    int32_t count = a->columns - start < run_of_floats(format) ? a->columns - start : run_of_floats(format);
    f32x16 p[MARTLET_FEW_ROWS], scale = run_scale(format, run);
    MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_set(0);
    for (int32_t k = 0; k < count; k++) {
      f32x16 w = load_floats(format, run + run_header_bytes(format), k);
      MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_fma(w, f32x16_set(in[(int64_t)r * a->columns + start + k]), p[r]);
    }
    // With a scale of 1 this is the sum, rounded once.
    MARTLET_UNROLL for (int r = 0; r < rows; r++) y[r] = f32x16_fma(scale, p[r], y[r]);
    run += martlet_packed_group_bytes(format, count);
  }
  MARTLET_UNROLL for (int r = 0; r < rows; r++) store_outputs(a, token + r, row, y[r], lanes);
}

MARTLET_INLINE void few(int format, const martlet_product_arguments *a, const martlet_product_part *part, int32_t first, int32_t end,
                        int32_t token, int32_t count) {
  for (int32_t group = first; group < end; group++) {
    const uint8_t *packed = part->groups + group * part->group_bytes;
    int32_t row = part->first_row + group * 16, lanes = part->rows - group * 16;
#define MARTLET_FEW_CODED(rows) few_coded(format, rows, a, packed, token, row, lanes)
#define MARTLET_FEW_FLOATS(rows) few_floats(format, rows, a, packed, token, row, lanes)
    if (is_float(format)) {
      MARTLET_FEW_SWITCH(count, MARTLET_FEW_FLOATS)
    } else {
      MARTLET_FEW_SWITCH(count, MARTLET_FEW_CODED)
    }
  }
}

// ---- Many tokens ----

// Where the slab lies that a task unpacks next, of the same inputs of the groups first ..< end: the next group's, or the first group's next.
MARTLET_INLINE const uint8_t *next_slab(const uint8_t *slab, int64_t slab_bytes, int64_t group_bytes, int32_t group, int32_t first, int32_t end) {
  return group + 1 < end ? slab + group_bytes : slab + slab_bytes - (group - first) * group_bytes;
}

// Asks for a block that is a slab away: near enough to survive in the cache, and no stream that the processor would see by itself.
MARTLET_INLINE void prefetch_block(int format, const uint8_t *block) {
  MARTLET_UNROLL for (int line = 0; line < block_bytes(format); line += 64) __builtin_prefetch(block + line);
}

// 32 inputs of a group, unpacked.
typedef struct unpacked_block {
  i32x16 pairs[16];  // code − offset
  block_scales scales;
} unpacked_block;

_Static_assert(sizeof(unpacked_block) * 8 <= martlet_product_unpacked_bytes, "the scratch memory holds a slab");

// Up to 8 blocks; asks for those of the slab that is `next`.
MARTLET_INLINE void unpack_slab(int format, const uint8_t *slab, int32_t blocks, const uint8_t *next, unpacked_block *unpacked) {
  const uint8_t *block = slab + slab_header_bytes(format);
  for (int32_t b = 0; b < blocks; b++, block += block_bytes(format)) {
    prefetch_block(format, next + (block - slab));
    MARTLET_UNROLL for (int pair = 0; pair < 16; pair++)
      unpacked[b].pairs[pair] = (i32x16)((u16x32)load_pair(format, block, pair) - (u16x32)((uint16_t)code_offset(format)));
    unpacked[b].scales = load_scales(format, slab, block);
  }
}

// y[rows][16] += one slab for `rows` neighbouring tokens. Formats of one kind share it.
MARTLET_INLINE void tile_coded(int scales, bool minimum, int rows, const unpacked_block *block, int32_t blocks,
                               const martlet_input_slab *in, float *y) {
  f32x16 p[MARTLET_PRODUCT_ROWS];
  MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_set(0);
  for (int32_t b = 0; b < blocks; b++, block++) {
    MARTLET_UNROLL for (int h = 0; h < scales; h++) {
      i32x16 sum[MARTLET_PRODUCT_ROWS];
      MARTLET_UNROLL for (int r = 0; r < rows; r++) sum[r] = i32x16_set(0);
      MARTLET_UNROLL_PAIRS for (int i = 0; i < 16 / scales; i++) {
        int pair = h * 8 + i;
        i32x16 w = block->pairs[pair];
        MARTLET_UNROLL for (int r = 0; r < rows; r++)
          sum[r] = i32x16_here(i32x16_dot_i16(sum[r], w, broadcast_pair(in[r].codes + b * 32 + 2 * pair)));
      }
      MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_fma(block->scales.scale[h], f32x16_from_i32(sum[r]), p[r]);
      if (minimum)
        MARTLET_UNROLL for (int r = 0; r < rows; r++)
          p[r] = f32x16_fma(block->scales.minimum[h], sum_of_inputs(scales, in + r, b, h), p[r]);
    }
  }
  MARTLET_UNROLL for (int r = 0; r < rows; r++)
    f32x16_store(y + r * 16, f32x16_fma(f32x16_set(in[r].scale), p[r], f32x16_load(y + r * 16)));
}

// All tokens of the task in tiles.
#define MARTLET_TILE_LOOP(name, scales, minimum)                                                                              \
  static void name(const unpacked_block *block, int32_t blocks, const martlet_input_slab *in, int32_t count, float *y) {      \
    for (int32_t t = 0; t < count; t += MARTLET_PRODUCT_ROWS) MARTLET_TILE_SWITCH(count - t, MARTLET_##scales##_##minimum##_TILE) \
  }
#define MARTLET_1_0_TILE(rows) tile_coded(1, false, rows, block, blocks, in + t, y + t * 16)
#define MARTLET_1_1_TILE(rows) tile_coded(1, true, rows, block, blocks, in + t, y + t * 16)
#define MARTLET_2_0_TILE(rows) tile_coded(2, false, rows, block, blocks, in + t, y + t * 16)
#define MARTLET_2_1_TILE(rows) tile_coded(2, true, rows, block, blocks, in + t, y + t * 16)
MARTLET_TILE_LOOP(tiles_plain, 1, 0)
MARTLET_TILE_LOOP(tiles_with_minimum, 1, 1)
MARTLET_TILE_LOOP(tiles_with_two_scales, 2, 0)
MARTLET_TILE_LOOP(tiles_with_two_of_both, 2, 1)

// The same with floats; `w` is [count][16], `in` the first token's inputs.
MARTLET_INLINE void tile_floats(int rows, const float *w, int32_t count, const float *scales, const float *in, int32_t columns, float *y) {
  f32x16 p[MARTLET_PRODUCT_ROWS];
  MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_set(0);
  for (int32_t k = 0; k < count; k++) {
    f32x16 weights = f32x16_load(w + k * 16);
    MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_fma(weights, f32x16_set(in[(int64_t)r * columns + k]), p[r]);
  }
  MARTLET_UNROLL for (int r = 0; r < rows; r++) f32x16_store(y + r * 16, f32x16_fma(f32x16_load(scales), p[r], f32x16_load(y + r * 16)));
}

static void tiles_of_floats(const float *w, int32_t inputs, const float *scales, const float *in, int32_t columns, int32_t count, float *y) {
#define MARTLET_FLOATS_TILE(rows) tile_floats(rows, w, inputs, scales, in + (int64_t)t * columns, columns, y + t * 16)
  for (int32_t t = 0; t < count; t += MARTLET_PRODUCT_ROWS) MARTLET_TILE_SWITCH(count - t, MARTLET_FLOATS_TILE)
}

// Writes the sums of a task out, [groups][tokens][16]: token by token, because every row of the output lies on pages of its own.
MARTLET_INLINE void store_sums(int format, const martlet_product_arguments *a, const martlet_product_part *part, int32_t first, int32_t end,
                               int32_t token, int32_t count, const float *sums) {
  for (int32_t t = 0; t < count; t++)
    for (int32_t group = first; group < end; group++) {
      f32x16 sum = f32x16_load(sums + ((int64_t)(group - first) * count + t) * 16);
      if (has_row_factor(format)) sum = sum * f32x16_load((const float *)(part->groups + group * part->group_bytes));
      store_outputs(a, token + t, part->first_row + group * 16, sum, part->rows - group * 16);
    }
}

MARTLET_INLINE void many(int format, const martlet_product_arguments *a, const martlet_product_part *part, int32_t first, int32_t end,
                         int32_t token, int32_t count, void *scratch) {
  void *unpacked = scratch;
  float *sums = (float *)((uint8_t *)scratch + martlet_product_unpacked_bytes);  // [groups][tokens][16]
  __builtin_memset(sums, 0, (size_t)(end - first) * (size_t)count * 16 * sizeof(float));
  // Slab by slab, so that the tokens' codes stay in the second cache while the groups pass.
  int64_t offset = group_header_bytes(format);
  for (int32_t start = 0, index = 0; start < a->columns; start += martlet_product_slab, index++) {
    int32_t inputs = a->columns - start < martlet_product_slab ? a->columns - start : martlet_product_slab;
    for (int32_t group = first; group < end; group++) {
      const uint8_t *slab = part->groups + group * part->group_bytes + offset;
      float *y = sums + (int64_t)(group - first) * count * 16;
      if (is_float(format)) {
        for (int32_t run = 0; run < inputs; run += run_of_floats(format)) {
          int32_t length = inputs - run < run_of_floats(format) ? inputs - run : run_of_floats(format);
          float scales[16];
          f32x16_store(scales, run_scale(format, slab));
          const float *w = (const float *)slab;
          if (format != martlet_weight_f32) {
            for (int32_t k = 0; k < length; k++)
              f32x16_store((float *)unpacked + k * 16, load_floats(format, slab + run_header_bytes(format), k));
            w = unpacked;
          }
          tiles_of_floats(w, length, scales, a->input + (int64_t)token * a->columns + start + run, a->columns, count, y);
          slab += martlet_packed_group_bytes(format, length);
        }
      } else {
        int64_t slab_bytes = martlet_packed_group_bytes(format, inputs) - group_header_bytes(format);
        unpack_slab(format, slab, inputs / 32, next_slab(slab, slab_bytes, part->group_bytes, group, first, end), unpacked);
        const martlet_input_slab *in = (const martlet_input_slab *)a->slabs + (int64_t)index * a->slab_stride + token;
        if (scale_count(format) == 2 && has_minimum(format)) tiles_with_two_of_both(unpacked, inputs / 32, in, count, y);
        else if (scale_count(format) == 2) tiles_with_two_scales(unpacked, inputs / 32, in, count, y);
        else if (has_minimum(format)) tiles_with_minimum(unpacked, inputs / 32, in, count, y);
        else tiles_plain(unpacked, inputs / 32, in, count, y);
      }
    }
    offset += martlet_packed_group_bytes(format, inputs) - group_header_bytes(format);
  }
  store_sums(format, a, part, first, end, token, count, sums);
}

#include "product_int8.h"

#if MARTLET_TILES
#include "product_tiles.h"
#include "product_bf16.h"
#define MARTLET_DIGITS(name) digits_##name
#define MARTLET_ROUNDED(name) rounded_##name
#else
// Codings that this variant has not.
#define MARTLET_DIGITS(name) __builtin_unreachable(), (void)
#define MARTLET_ROUNDED(name) __builtin_unreachable(), (void)
#endif

// product_q4_0(…) and its like: groups first..<end of one part for tokens token..<token + count. (All of them inlined into one function
// take half as long again to compile.)
#define MARTLET_PRODUCT_OF(name)                                                                                                         \
  static __attribute__((noinline)) void product_##name(const martlet_product_arguments *a, const martlet_product_part *part,             \
                                                       int32_t first, int32_t end, int32_t token, int32_t count, void *scratch) {        \
    if (a->coding == martlet_input_bf16) MARTLET_ROUNDED(name)(a, part, first, end, token, count, scratch);                              \
    else if (a->coding == martlet_input_int8 && !is_float(martlet_weight_##name))                                                        \
      product_int8(martlet_weight_##name, a, part, first, end, token, count, scratch);                                                   \
    else if (a->coding == martlet_input_digits && !is_float(martlet_weight_##name))                                                      \
      MARTLET_DIGITS(name)(a, part, first, end, token, count, scratch);                                                                  \
    else if (count <= MARTLET_FEW_ROWS) few(martlet_weight_##name, a, part, first, end, token, count);                                   \
    else many(martlet_weight_##name, a, part, first, end, token, count, scratch);                                                        \
  }
MARTLET_EACH_FORMAT(MARTLET_PRODUCT_OF)

static void product(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_product_arguments *a = arguments;
  int32_t chunks = (a->group_count + a->groups_per_task - 1) / a->groups_per_task;
  int32_t first_group = task % chunks * a->groups_per_task, end_group = first_group + a->groups_per_task;
  if (end_group > a->group_count) end_group = a->group_count;
  int32_t token = task / chunks * a->tokens_per_task;
  int32_t count = a->tokens - token < a->tokens_per_task ? a->tokens - token : a->tokens_per_task;
  (void)worker;
  for (int32_t i = 0; i < a->part_count; i++) {
    const martlet_product_part *part = a->parts + i;
    int32_t first = first_group - part->first_group, end = end_group - part->first_group, groups = (part->rows + 15) / 16;
    if (first < 0) first = 0;
    if (end > groups) end = groups;
    if (first >= end) continue;
    switch (part->format) {
#define MARTLET_PRODUCT(name) \
  case martlet_weight_##name: product_##name(a, part, first, end, token, count, scratch); break;
      MARTLET_EACH_FORMAT(MARTLET_PRODUCT)
    }
  }
}

static void grouped_product(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_grouped_product_arguments *a = arguments;
  int32_t first = 0, end = a->count;  // the last product whose first task is not behind this one
  while (end - first > 1) {
    int32_t middle = (first + end) / 2;
    if (a->first_tasks[middle] <= task) first = middle;
    else end = middle;
  }
  product(a->products + first, task - a->first_tasks[first], worker, scratch);
}
