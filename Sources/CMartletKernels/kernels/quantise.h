// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Inputs as 16-bit integers, so that products with integer codes are sums of integers: exact in any order, in every variant. (Inputs as
// bfloat16, for tiles: quantise_bf16.h; as 8-bit integers: quantise_int8.h.)
//
// One scale for 256 inputs of a row: scale = amax / 32767, code = rint(x · 32767/amax). The error of a code is at most half a step,
// amax · 2⁻¹⁶, 256 times finer than one int8 digit. A slab with an infinity or a NaN has a NaN scale, and its row becomes NaN.

// The nearest integers, ties to even, of |x| < 2²²: the sum's own rounding drops the fraction. Needs no rounding instruction.
MARTLET_INLINE i32x16 i32x16_nearest(f32x16 x) {
  return (i32x16)u32x16_bits(x + 0x1.8p23f) - (i32x16)(0x4B400000);
}

// Writes 16 codes as digits from input `at` of a slab on. An integer of at most eight bits is exact as a bfloat16, and so is 256 times one.
MARTLET_INLINE void store_digits(uint16_t *digits, int32_t at, i32x16 codes) {
  i32x16 low = codes & 255;
  u32x16 high_bits = u32x16_bits(f32x16_from_i32(codes - low)) >> 16, low_bits = u32x16_bits(f32x16_from_i32(low)) >> 16;
  uint16_t *block = digits + at / 32 * 64 + at % 32;
  u16x16_store(block, __builtin_convertvector(high_bits, u16x16));
  u16x16_store(block + 32, __builtin_convertvector(low_bits, u16x16));
}

// Up to 256 inputs.
MARTLET_INLINE void code_slab(int coding, const float *x, int32_t count, void *slab) {
  martlet_input_slab *codes_slab = slab;
  martlet_digit_slab *digit_slab = slab;
  bool digits = coding == martlet_input_digits;
  int32_t *sums16 = digits ? digit_slab->sums16 : codes_slab->sums16;
  float *sums = digits ? digit_slab->sums : codes_slab->sums, *scale = digits ? &digit_slab->scale : &codes_slab->scale;
  // Without their sign, the bits of floats are ordered as integers, infinity and NaN on top.
  u32x16 greatest = (u32x16)(0);
  for (int32_t i = 0; i < count; i += 16) {
    u32x16 magnitude = u32x16_load(x + i) & 0x7FFFFFFFu;
    greatest = magnitude > greatest ? magnitude : greatest;
  }
  uint32_t bits = __builtin_reduce_max(greatest);
  float amax;
  __builtin_memcpy(&amax, &bits, 4);
  // Below 2⁻¹⁰⁰ the reciprocal would overflow sooner or later; such a slab counts as zero.
  bool finite = bits < 0x7F800000u, coded = finite && amax >= 0x1p-100f;
  float inverse = coded ? 32767.0f / amax : 0.0f;
  *scale = coded ? amax / 32767.0f : finite ? 0.0f : __builtin_nanf("");
  for (int32_t i = 0; i < count; i += 16) {
    i32x16 codes = coded ? i32x16_nearest(f32x16_load(x + i) * inverse) : i32x16_set(0);
    if (digits) store_digits(digit_slab->digits, i, codes);
    else *(i16x16_unaligned *)(codes_slab->codes + i) = __builtin_convertvector(codes, i16x16);
    sums16[i / 16] = __builtin_reduce_add(codes);
  }
  for (int32_t i = 0; i < count / 32; i++) sums[i] = (float)(sums16[2 * i] + sums16[2 * i + 1]);
}

#include "quantise_int8.h"

#if MARTLET_TILES
#include "quantise_bf16.h"
#define MARTLET_ROUND_INPUTS round_inputs
#else
#define MARTLET_ROUND_INPUTS(...) __builtin_unreachable()  // a coding that this variant has not
#endif

static void code_inputs(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_code_inputs_arguments *a = arguments;
  int32_t first = task * a->rows_per_task, end = first + a->rows_per_task;
  if (end > a->rows) end = a->rows;
  size_t slab_bytes = martlet_slab_bytes(a->coding);
  for (int32_t row = first; row < end; row++) {
    const float *x = scratch;
    if (a->norm) {
      martlet_rms_norm_arguments one = *a->norm;
      one.input += (int64_t)row * a->columns, one.output = scratch, one.rows = one.rows_per_task = 1;
      rms_norm(&one, 0, worker, NULL);
    } else if (a->gated) {
      martlet_gated_activation_arguments one = *a->gated;
      one.gate_up += 2 * (int64_t)row * a->columns, one.output = scratch, one.rows = one.rows_per_task = 1;
      gated_activation(&one, 0, worker, NULL);
    } else {
      x = a->input + (int64_t)row * a->columns;
    }
    uint8_t *slab = (uint8_t *)a->slabs + (size_t)row * slab_bytes;
    for (int32_t start = 0; start < a->columns; start += martlet_product_slab, slab += (size_t)a->rows * slab_bytes) {
      int32_t count = a->columns - start < martlet_product_slab ? a->columns - start : martlet_product_slab;
      if (a->coding == martlet_input_bf16) MARTLET_ROUND_INPUTS(x + start, count, (martlet_bf16_slab *)slab);
      else if (a->coding == martlet_input_int8) code_int8_slab(x + start, count, (martlet_int8_slab *)slab);
      else if (a->coding == martlet_input_digits) code_slab(martlet_input_digits, x + start, count, slab);
      else code_slab(martlet_input_codes, x + start, count, slab);
    }
  }
}

static void pick_slabs(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_pick_slabs_arguments *a = arguments;
  int32_t first = task * a->count_per_task, end = a->count - first < a->count_per_task ? a->count : first + a->count_per_task;
  (void)worker, (void)scratch;
  size_t bytes = martlet_slab_bytes(a->coding);
  const uint8_t *slabs = a->slabs;
  uint8_t *output = a->output;
  for (int32_t s = 0; s < a->slab_count; s++)
    for (int32_t i = first; i < end; i++)
      __builtin_memcpy(output + ((size_t)s * (size_t)a->count + (size_t)i) * bytes,
                       slabs + ((size_t)s * (size_t)a->rows + (size_t)a->indices[i]) * bytes, bytes);
}
