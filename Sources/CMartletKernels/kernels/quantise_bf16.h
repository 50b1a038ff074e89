// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Inputs as bfloat16, for the products of product_bf16.h.

// The first `count` of 16 values, none if it is not positive, and zeros.
MARTLET_INLINE f32x16 load_at_most(const float *x, int32_t count) {
  return count >= 16 ? f32x16_load(x) : count > 0 ? f32x16_load_first(x, count) : f32x16_set(0);
}

// Up to 256 inputs, rounded to the nearest bfloat16, halves to even; zeros fill up the last 32.
MARTLET_INLINE void round_inputs(const float *x, int32_t count, martlet_bf16_slab *slab) {
  for (int32_t i = 0; i < count; i += 32) {
    f32x16 low = load_at_most(x + i, count - i), high = load_at_most(x + i + 16, count - i - 16);
    *(u16x32 *)(slab->values + i) = (u16x32)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
  }
}
