// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Functions and formats of numbers, by the same operations in the same order wherever they are compiled, so that the emulator's bits are the device's.

#ifndef MARTLET_NUMBERS_CUH
#define MARTLET_NUMBERS_CUH

#include "ptx.cuh"

MARTLET_DEVICE float infinity() { return float_of_bits(0x7F800000u); }
MARTLET_DEVICE float not_a_number() { return float_of_bits(0x7FC00000u); }
MARTLET_DEVICE float magnitude_of(float x) { return float_of_bits(bits_of_float(x) & 0x7FFFFFFFu); }
MARTLET_DEVICE float greater(float a, float b) { return a > b ? a : b; }

// Adding 1.5·2²³ to x, |x| < 2²², leaves the float no bits for a fraction: the sum's low bits are the integer nearest to x, ties to even.
#define MARTLET_ROUNDER 0x1.8p23f

// x·2ⁿ for |n| ≤ 252, where `rounded` is n + MARTLET_ROUNDER. Two factors, because the one 2ⁿ can leave the range of floats where the product does not.
MARTLET_DEVICE float scale_by_power(float x, float rounded) {
  int32_t n = (int32_t)(bits_of_float(rounded) - bits_of_float(MARTLET_ROUNDER));
  int32_t half = n >> 1, rest = n - half;
  return x * float_of_bits((uint32_t)(half + 127) << 23) * float_of_bits((uint32_t)(rest + 127) << 23);
}

// 2ᶠ ≈ 1 + c₁f + … + c₆f⁶, minimax in relative error on |f| ≤ ½: 2.6e-9 before rounding.
MARTLET_DEVICE float exp2_fraction(float f) {
  float p = fused(0x1.470b4ap-13f, f, 0x1.5f7276p-10f);
  p = fused(p, f, 0x1.3b270ep-7f);
  p = fused(p, f, 0x1.c6ae72p-5f);
  p = fused(p, f, 0x1.ebfbe2p-3f);
  p = fused(p, f, 0x1.62e432p-1f);
  return fused(p, f, 1.0f);
}

// 2ˣ with a relative error of at most 1.2e-7, plus half a step where the result is subnormal. −∞ gives 0, everything from 128 on +∞, NaN stays NaN.
MARTLET_DEVICE float exp2_exact(float x) {
  x = x < -151.0f ? -151.0f : x;
  x = x > 129.0f ? 129.0f : x;
  float rounded = x + MARTLET_ROUNDER;
  return scale_by_power(exp2_fraction(x - (rounded - MARTLET_ROUNDER)), rounded);
}

// eˣ with a relative error of at most 1.5e-7, plus half a step where the result is subnormal. −∞ gives 0, from 88.73 on +∞, NaN stays NaN.
MARTLET_DEVICE float exp_exact(float x) {
  x = x < -105.0f ? -105.0f : x;
  x = x > 90.0f ? 90.0f : x;
  float rounded = fused(x, 0x1.715476p+0f, MARTLET_ROUNDER);
  float n = rounded - MARTLET_ROUNDER;
  // x − n·ln 2, ln 2 in two parts (Cody and Waite): the first has 9 bits, so that n times it is exact.
  float r = fused(n, -0x1.63p-1f, x);
  r = fused(n, 0x1.bd0106p-13f, r);
  // eʳ ≈ 1 + r + c₂r² + … + c₆r⁶, minimax in relative error on |r| ≤ ½ ln 2.
  float p = fused(0x1.709b70p-10f, r, 0x1.129042p-7f);
  p = fused(p, r, 0x1.55515ep-5f);
  p = fused(p, r, 0x1.5553c2p-3f);
  p = fused(p, r, 0x1.000002p-1f);
  p = fused(p, r, 1.0f);
  p = fused(p, r, 1.0f);
  return scale_by_power(p, rounded);
}

// tanh x with a relative error of at most 1.9e-7. NaN stays NaN.
MARTLET_DEVICE float tanh_exact(float x) {
  float magnitude = magnitude_of(x), square = x * x;
  // Near 0: x + x³ P(x²), minimax in relative error on |x| ≤ 0.625.
  float p = fused(-0x1.75e1cap-8f, square, 0x1.52269ap-6f);
  p = fused(p, square, -0x1.b83c5ap-5f);
  p = fused(p, square, 0x1.110726p-3f);
  p = fused(p, square, -0x1.555532p-2f);
  if (magnitude < 0.625f) return fused(p * square, x, x);
  // Further out 1 − 2 / (e²ˣ + 1), which cancels too little to matter.
  float far = 1.0f - 2.0f / (exp2_exact(magnitude * 0x1.715476p+1f) + 1.0f);
  return float_of_bits(bits_of_float(far) | (bits_of_float(x) & 0x80000000u));
}

// log₂ x of x > 0, in double by an odd series; NaN and infinity stay.
MARTLET_DEVICE float log2_exact(float x) {
  if (!(x > 0) || x >= infinity()) return x;
  uint32_t bits = bits_of_float(x);
  int32_t exponent = (int32_t)(bits >> 23) - 127;
  double mantissa = (double)float_of_bits((bits & 0x007FFFFFu) | 0x3F800000u);
  if (mantissa > 1.4142135623730951) mantissa /= 2, exponent++;
  // ln((1 + z) / (1 − z)) = 2 (z + z³/3 + z⁵/5 + …), |z| ≤ 0.172: the next term is below 1e-12.
  double z = (mantissa - 1) / (mantissa + 1), square = z * z, sum = 1.0 / 13;
  MARTLET_UNROLL for (int k = 11; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return (float)(exponent + 2.8853900817779268 * z * sum);
}

// x·σ(x). Far below zero e⁻ˣ is infinite and the quotient −0, the true limit.
MARTLET_DEVICE float silu_of(float x) { return x / (1.0f + exp_exact(-x)); }

// ½x(1 + tanh u) = x·σ(2u), u = √(2/π)·(x + 0.044715x³): one quotient instead of a tanh, and no cancellation below zero.
MARTLET_DEVICE float gelu_tanh_of(float x) {
  float inner = fused(x * x * x, 0.044715f, x);
  return x / (1.0f + exp_exact(inner * -1.5957691216057308f));
}

// x·Φ(x), Φ the normal distribution. Below 0 that is x·q and above x − x·q, where q = ½·erfc(|x| / √2) = e^(−x²/2) · t·P(t), t = 1 / (1 + 0.35·|x|):
// nothing cancels. P is minimax in relative error on |x| ≤ 14, 3.2e-8 before rounding; beyond, the power is 0.
MARTLET_DEVICE float gelu_of(float x) {
  float t = 1.0f / fused(magnitude_of(x), 0.35f, 1.0f);
  float p = fused(-0x1.dd86e0p-6f, t, 0x1.26daa0p-3f);
  p = fused(p, t, -0x1.05d9f4p-2f);
  p = fused(p, t, 0x1.45fd1ap-3f);
  p = fused(p, t, -0x1.7aa1a6p-6f);
  p = fused(p, t, 0x1.b02928p-4f);
  p = fused(p, t, 0x1.ead5dep-4f);
  p = fused(p, t, 0x1.1e6fe6p-3f);
  p = fused(p, t, 0x1.1df1d4p-3f);
  // An infinity times the 0 that the power is there would be no number.
  float bounded = x > 100.0f ? 100.0f : x < -100.0f ? -100.0f : x;
  float part = bounded * (p * t * exp2_exact(x * x * -0.72134752f));  // −½·log₂e
  return x < 0.0f ? part : x - part;
}

// MARK: formats

MARTLET_DEVICE float float_of_bf16(uint32_t bits) { return float_of_bits(bits << 16); }
// Of NaN too: a fraction that ends as zeros would make it infinite.
MARTLET_DEVICE uint16_t bf16_of_float(float value) { return (uint16_t)(bf16_pair(value, 0.0f) & 0xFFFFu); }

// e4m3: 4 bits of exponent, 3 of fraction, no infinities; 0x7F is NaN. The bits below the sign are those of a float 2¹²⁰ times smaller.
MARTLET_DEVICE float float_of_e4m3(uint32_t code) {
  float magnitude = (code & 0x7Fu) == 0x7Fu ? not_a_number() : float_of_bits((code & 0x7Fu) << 20) * 0x1p120f;
  return code & 0x80u ? -magnitude : magnitude;
}

// The nearest, ties to even, saturated to ±448; NaN is 0x7F with its sign.
MARTLET_DEVICE uint8_t e4m3_of_float(float value) {
  uint32_t sign = bits_of_float(value) >> 24 & 0x80u, code;
  float magnitude = magnitude_of(value);
  if (!(magnitude <= 448.0f)) {
    code = magnitude > 448.0f ? 0x7Eu : 0x7Fu;
  } else if (magnitude < 0x1p-6f) {
    // Steps of 2⁻⁹: the sum's last bits count them.
    code = bits_of_float(magnitude + 0x1p14f) - bits_of_float(0x1p14f);
  } else {
    uint32_t bits = bits_of_float(magnitude);
    code = ((bits + 0x7FFFFu + (bits >> 20 & 1u)) >> 20) - (120u << 3);
  }
  return (uint8_t)(sign | code);
}

// Term i of x: what is left of x after the terms before it, rounded to bfloat16. The sum of three is x, but for what is too small for bfloat16.
template <int count>
MARTLET_DEVICE void split_to_terms(float x, uint16_t (&terms)[count]) {
  MARTLET_UNROLL for (int i = 0; i < count; i++) {
    terms[i] = bf16_of_float(x);
    // Of infinity and NaN the first term says all there is.
    float rest = x - float_of_bf16(terms[i]);
    x = rest == rest ? rest : 0.0f;
  }
}

// MARK: sums

// The sum of a value of every lane, the same to the bit in all of them.
template <typename T>
MARTLET_DEVICE T warp_sum(T value) {
  MARTLET_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
  return value;
}

// The sum of a value of each of the block's 256 threads; `partial` has room for one of each warp, and `barrier` comes before anything else is in it.
template <typename T>
MARTLET_DEVICE T block_sum(T value, shared<T> partial) {
  value = warp_sum(value);
  barrier();
  if (thread_index() % 32 == 0) partial[thread_index() / 32] = value;
  barrier();
  T sum = partial[0];
  MARTLET_UNROLL for (int warp = 1; warp < 8; warp++) sum += partial[warp];
  return sum;
}

#endif
