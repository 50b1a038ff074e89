// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Inputs as 8-bit integers, for the products of product_int8.h.
//
// One scale for 256 inputs of a row. Rows of language models have a few values that are many times the others; with a scale for the greatest of
// them little would be left of the rest. So the quads with the greatest values have a second digit, and the scale is that of what is left:
//
//   rest = the greatest |x| outside these quads,  scale = rest / 127,  code = rint(x · 127/rest)
//   high = (code + 64) >> 7 inside these quads, 0 outside,  low = code − 128 · high
//
// unless that would make a code pass 127 · 128 + 63: then the scale is amax / 16319. A slab with an infinity or a NaN has a NaN scale, and its row
// becomes NaN.
//
// What it costs on a passage of 500 tokens, with all else exact: the mean |Δ log-probability| of SmolLM2 135M and of Gemma 3 270M, where another order of
// sums moves it by 0.005.
//
//   a scale for 256 inputs   0.139 and 0.126     the same, 4 wide quads            0.031 and 0.031
//   a scale for 32           0.060 and 0.056     5                                 0.029 and 0.027
//   a scale for 16           0.047 and 0.041     8                                 0.023 and 0.024
//   32, asymmetric           0.039 and 0.032     12 wide inputs instead, as floats 0.018 and 0.019
//
// A wide quad costs 3 % of a product of many tokens, a float that is wide as much; asymmetry a fourth operation beside the three that a block's
// floats take.

// 16 values in the order of four quads.
MARTLET_INLINE i32x16 in_order_of_quads(i32x16 v) { return __builtin_shufflevector(v, v, 0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15); }

MARTLET_INLINE u32x16 u32x16_max(u32x16 a, u32x16 b) { return a > b ? a : b; }

// The greatest magnitudes, as bits of floats, of the 16 quads of 64 inputs, of which the first `count` exist.
MARTLET_INLINE u32x16 greatest_of_quads(const float *x, int32_t count) {
  u32x16 greatest[2];
  for (int i = 0; i < 2; i++) {
    u32x16 a = (u32x16)(0), b = a;
    if (i * 32 < count) a = u32x16_load(x + i * 32) & 0x7FFFFFFFu, b = u32x16_load(x + i * 32 + 16) & 0x7FFFFFFFu;
    greatest[i] = u32x16_max(__builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
                             __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
  }
  return u32x16_max(__builtin_shufflevector(greatest[0], greatest[1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
                    __builtin_shufflevector(greatest[0], greatest[1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
}

// Takes the quad with the greatest value out of `keys`. Returns its key.
MARTLET_INLINE uint32_t take_greatest(u32x16 keys[4]) {
  uint32_t greatest = __builtin_reduce_max(u32x16_max(u32x16_max(keys[0], keys[1]), u32x16_max(keys[2], keys[3])));
  MARTLET_UNROLL for (int i = 0; i < 4; i++) keys[i] = keys[i] == greatest ? (u32x16)(0) : keys[i];
  return greatest;
}

// A float that is at least the magnitude that a key stands for, and more by at most 2⁻¹⁷ of it.
MARTLET_INLINE float magnitude_of_key(uint32_t key) {
  uint32_t bits = key | 63;
  float magnitude;
  __builtin_memcpy(&magnitude, &bits, 4);
  return magnitude;
}

// Up to 256 inputs.
static void code_int8_slab(const float *x, int32_t count, martlet_int8_slab *slab) {
  // A key is a quad's greatest magnitude with its place in the lowest six bits, so that no two are equal; of equal magnitudes the first is greater.
  const u32x16 lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  u32x16 keys[4];
  MARTLET_UNROLL for (int i = 0; i < 4; i++)
    keys[i] = (greatest_of_quads(x + i * 64, count - i * 64) & ~63u) | ((u32x16)((uint32_t)(63 - i * 16)) - lanes);
  uint32_t first = take_greatest(keys), next = first;
  MARTLET_UNROLL for (int i = 0; i < martlet_wide_quads; i++, next = take_greatest(keys)) slab->places[i] = (uint8_t)(63 - (next & 63));
  float amax = magnitude_of_key(first), rest = magnitude_of_key(next);
  // Below 2⁻¹⁰⁰ the reciprocal would overflow sooner or later; such a slab counts as zero.
  bool finite = first < 0x7F800000u, coded = finite && amax >= 0x1p-100f;
  float of_rest = 127.0f / rest, of_all = 16319.0f / amax;
  float inverse = !coded ? 0 : of_rest < of_all ? of_rest : of_all;
  slab->scale = !finite ? __builtin_nanf("") : !coded ? 0 : of_rest < of_all ? rest / 127.0f : amax / 16319.0f;
  int32_t codes[martlet_product_slab], sums[martlet_product_slab / 16];
  for (int32_t i = 0; i < martlet_product_slab; i += 16) {
    i32x16 v = coded && i < count ? i32x16_nearest(f32x16_load(x + i) * inverse) : i32x16_set(0);
    v = in_order_of_quads(v);
    i32x16_store(codes + i, v);
    *(i8x16_unaligned *)(slab->low + i) = __builtin_convertvector(v, i8x16);
    sums[i / 16] = __builtin_reduce_add(v);
    slab->sums16[i / 16] = (float)sums[i / 16];
  }
  for (int i = 0; i < martlet_product_slab / 32; i++) slab->sums[i] = (float)(sums[2 * i] + sums[2 * i + 1]);
  for (int i = 0; i < martlet_wide_quads; i++)
    for (int k = 0; k < 4; k++) {
      int place = slab->places[i] * 4 + k, high = (codes[place] + 64) >> 7;
      slab->high[i][k] = (int8_t)high;
      slab->low[place] = (int8_t)(codes[place] - high * 128);
    }
}
