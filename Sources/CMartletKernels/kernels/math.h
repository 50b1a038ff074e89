// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Exponentials of 16 lanes, and the hyperbolic tangent that is made of one: a polynomial on a short interval, scaled by a power of two that
// is built from its bits.
//
// Every variant does the same operations in the same order, so that results differ only where fma rounds once instead of twice.

// Adding 1.5·2²³ to x, |x| < 2²², leaves the float no bits for a fraction: the sum's low bits are the integer nearest to x, ties to even.
#define MARTLET_ROUNDER 0x1.8p23f

// x·2ⁿ for |n| ≤ 252, where `rounded` is n + MARTLET_ROUNDER. Two factors, because the one 2ⁿ can leave the range of floats where
// the product does not; the first product is exact, so overflow and subnormal results are rounded once.
MARTLET_INLINE f32x16 f32x16_scale_by_power(f32x16 x, f32x16 rounded) {
  i32x16 n = (i32x16)(u32x16_bits(rounded) - u32x16_bits(f32x16_set(MARTLET_ROUNDER)));
  u32x16 half = (u32x16)(n >> 1), rest = (u32x16)n - half;
  return x * f32x16_from_bits((half + 127u) << 23) * f32x16_from_bits((rest + 127u) << 23);
}

// 2ᶠ ≈ 1 + c₁f + … + c₆f⁶, minimax in relative error on |f| ≤ ½: 2.6e-9 before rounding.
MARTLET_INLINE f32x16 f32x16_exp2_fraction(f32x16 f) {
  f32x16 p = f32x16_set(0x1.470b4ap-13f);
  p = f32x16_fma(p, f, f32x16_set(0x1.5f7276p-10f));
  p = f32x16_fma(p, f, f32x16_set(0x1.3b270ep-7f));
  p = f32x16_fma(p, f, f32x16_set(0x1.c6ae72p-5f));
  p = f32x16_fma(p, f, f32x16_set(0x1.ebfbe2p-3f));
  p = f32x16_fma(p, f, f32x16_set(0x1.62e432p-1f));
  return f32x16_fma(p, f, f32x16_set(1.0f));
}

// 2ˣ with a relative error of at most 1.2e-7, plus half a step where the result is subnormal. −∞ gives 0, everything from 128 on
// gives +∞, NaN stays NaN.
MARTLET_INLINE f32x16 f32x16_exp2(f32x16 x) {
  // 2⁻¹⁵¹ rounds to 0 and 2¹²⁹ to infinity. Comparisons with NaN are false, so that both lines let it pass.
  x = x < -151.0f ? f32x16_set(-151.0f) : x;
  x = x > 129.0f ? f32x16_set(129.0f) : x;
  f32x16 rounded = x + MARTLET_ROUNDER;
  f32x16 f = x - (rounded - MARTLET_ROUNDER);  // exact, |f| ≤ ½
  return f32x16_scale_by_power(f32x16_exp2_fraction(f), rounded);
}

// The same for x < 127.5 and at two thirds of the cost: a result below 2⁻¹²⁶·⁵ is 0.
MARTLET_INLINE f32x16 f32x16_exp2_normal(f32x16 x) {
  x = x < -127.0f ? f32x16_set(-127.0f) : x;  // lets NaN pass
  f32x16 rounded = x + MARTLET_ROUNDER;
  f32x16 f = x - (rounded - MARTLET_ROUNDER);
  // The nearest integer plus 127 is the exponent of its power; −127 gives the bits of 0.
  return f32x16_exp2_fraction(f) * f32x16_from_bits((u32x16_bits(rounded) + 127u) << 23);
}

// The same where 8 bits are kept of the result: a relative error of at most 3.1e-6.
MARTLET_INLINE f32x16 f32x16_exp2_short(f32x16 x) {
#if MARTLET_AVX512
  // Of infinities the fraction is 0.
  f32x16 n = (f32x16)_mm512_roundscale_ps((__m512)x, 0), f = (f32x16)_mm512_reduce_ps((__m512)x, 0);
#else
  x = x < -127.0f ? f32x16_set(-127.0f) : x;  // lets NaN pass
  f32x16 rounded = x + MARTLET_ROUNDER, f = x - (rounded - MARTLET_ROUNDER);
#endif
  // 2ᶠ ≈ 1 + c₁f + … + c₄f⁴, |f| ≤ ½, minimax in relative error: 2.8e-6 before rounding.
  f32x16 p = f32x16_set(0x1.3a02ccp-7f);
  p = f32x16_fma(p, f, f32x16_set(0x1.c9fc46p-5f));
  p = f32x16_fma(p, f, f32x16_set(0x1.ec0378p-3f));
  p = f32x16_fma(p, f, f32x16_set(0x1.62e12cp-1f));
  p = f32x16_fma(p, f, f32x16_set(1.0f));
#if MARTLET_AVX512
  return (f32x16)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  return p * f32x16_from_bits((u32x16_bits(rounded) + 127u) << 23);
#endif
}

// eˣ with a relative error of at most 1.5e-7, plus half a step where the result is subnormal. −∞ gives 0, everything from 88.73 on
// gives +∞, NaN stays NaN.
MARTLET_INLINE f32x16 f32x16_exp(f32x16 x) {
  x = x < -105.0f ? f32x16_set(-105.0f) : x;
  x = x > 90.0f ? f32x16_set(90.0f) : x;
  f32x16 rounded = f32x16_fma(x, f32x16_set(0x1.715476p+0f), f32x16_set(MARTLET_ROUNDER));
  f32x16 n = rounded - MARTLET_ROUNDER;
  // x − n·ln 2, ln 2 in two parts (Cody and Waite): the first has 9 bits, so that n times it is exact.
  f32x16 r = f32x16_fma(n, f32x16_set(-0x1.63p-1f), x);
  r = f32x16_fma(n, f32x16_set(0x1.bd0106p-13f), r);
  // eʳ ≈ 1 + r + c₂r² + … + c₆r⁶, minimax in relative error on |r| ≤ ½ ln 2.
  f32x16 p = f32x16_set(0x1.709b70p-10f);
  p = f32x16_fma(p, r, f32x16_set(0x1.129042p-7f));
  p = f32x16_fma(p, r, f32x16_set(0x1.55515ep-5f));
  p = f32x16_fma(p, r, f32x16_set(0x1.5553c2p-3f));
  p = f32x16_fma(p, r, f32x16_set(0x1.000002p-1f));
  p = f32x16_fma(p, r, f32x16_set(1.0f));
  p = f32x16_fma(p, r, f32x16_set(1.0f));
  return f32x16_scale_by_power(p, rounded);
}

// tanh x with a relative error of at most 1.9e-7, so 1.1e-7 of 1 (measured over every float32 from 2⁻³¹ to 20). NaN stays NaN.
MARTLET_INLINE f32x16 f32x16_tanh(f32x16 x) {
  f32x16 magnitude = f32x16_from_bits(u32x16_bits(x) & 0x7FFFFFFFu);
  // Near 0: x + x³ P(x²), minimax in relative error on |x| ≤ 0.625: 4.4e-9 before rounding.
  f32x16 square = x * x;
  f32x16 p = f32x16_set(-0x1.75e1cap-8f);
  p = f32x16_fma(p, square, f32x16_set(0x1.52269ap-6f));
  p = f32x16_fma(p, square, f32x16_set(-0x1.b83c5ap-5f));
  p = f32x16_fma(p, square, f32x16_set(0x1.110726p-3f));
  p = f32x16_fma(p, square, f32x16_set(-0x1.555532p-2f));
  f32x16 near = f32x16_fma(p * square, x, x);
  // Further out 1 − 2 / (e²ˣ + 1), which cancels too little to matter.
  f32x16 e = f32x16_exp2(magnitude * f32x16_set(0x1.715476p+1f));
  f32x16 far = 1.0f - 2.0f / (e + 1.0f);
  far = f32x16_from_bits(u32x16_bits(far) | (u32x16_bits(x) & 0x80000000u));
  return magnitude < 0.625f ? near : far;
}

// log₂ x of normal x > 0 with an error of at most 1.5e-7 plus half a step of the result, by the same series.
MARTLET_INLINE f32x16 f32x16_log2(f32x16 x) {
  u32x16 bits = u32x16_bits(x);
  // The mantissa from √½ to √2: what is above √2 goes to the next power.
  u32x16 above = (bits & 0x007FFFFFu) > 0x003504F3u ? (u32x16)(1u) : (u32x16)(0u);
  i32x16 exponent = (i32x16)(bits >> 23) - 127 + (i32x16)above;
  f32x16 mantissa = f32x16_from_bits((bits & 0x007FFFFFu) | ((127u - above) << 23));
  f32x16 z = (mantissa - 1.0f) / (mantissa + 1.0f), square = z * z;
  f32x16 sum = f32x16_set(1.0f / 9);
  sum = f32x16_fma(sum, square, f32x16_set(1.0f / 7));
  sum = f32x16_fma(sum, square, f32x16_set(1.0f / 5));
  sum = f32x16_fma(sum, square, f32x16_set(1.0f / 3));
  sum = f32x16_fma(sum, square, f32x16_set(1.0f));
  return f32x16_fma(z * sum, f32x16_set(2.88539008f), f32x16_from_i32(exponent));
}

// log₂ x for x > 0, in double by an odd series, so that no library's version decides its bits.
MARTLET_INLINE float log2_of(float x) {
  if (!(x > 0) || x > __FLT_MAX__) return x;  // NaN and infinity stay; sums of probabilities are never 0 here
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  int32_t exponent = (int32_t)(bits >> 23) - 127;
  bits = (bits & 0x007FFFFFu) | 0x3F800000u;
  __builtin_memcpy(&x, &bits, 4);
  double mantissa = x;
  if (mantissa > 1.4142135623730951) mantissa /= 2, exponent++;
  // ln((1 + z) / (1 − z)) = 2 (z + z³/3 + z⁵/5 + …), |z| ≤ 0.172: the next term is below 1e-12.
  double z = (mantissa - 1) / (mantissa + 1), square = z * z, sum = 1.0 / 13;
  for (int k = 11; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return (float)(exponent + 2.8853900817779268 * z * sum);
}
