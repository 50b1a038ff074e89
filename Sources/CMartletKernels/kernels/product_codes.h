// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What a packed block means: its bytes, its scales and its codes, one table for all integer formats.
//
// A weight is scale · (code − offset) + minimum, with code ≥ 0. Functions here take the format as a constant and are inlined, so that a
// kernel compiled for one format holds no trace of the others.

_Static_assert(sizeof(martlet_input_slab) == 640, "tiles step through rows of coded inputs by this");

typedef uint16_t u16x32 __attribute__((ext_vector_type(32)));
typedef int16_t i16x16 __attribute__((ext_vector_type(16)));
typedef i16x16 i16x16_unaligned __attribute__((aligned(2), may_alias));

// Loops whose counter must be a constant: over the tokens of a tile, whose sums are registers, and over the pairs of a block, whose
// shifts are immediates. The plain variants have neither enough registers nor a reason to pay for the code.
#if MARTLET_AVX2 || MARTLET_AVX512 || MARTLET_NEON
// (The loop over pairs rolled up, four at a time, took 10 % longer for Q4_1 and no less time to compile.)
#define MARTLET_UNROLL _Pragma("clang loop unroll(full)")
#else
#define MARTLET_UNROLL _Pragma("clang loop unroll(disable)")
#endif

// acc + a.low · b.low + a.high · b.high of int16 pairs, where b is the same pair in every lane. Exact: 32 products of a code under 2⁸ and one under 2¹⁵ stay under 2²⁸.
MARTLET_INLINE i32x16 i32x16_dot_i16(i32x16 acc, i32x16 a, i32x16 b) {
#if MARTLET_VNNI
  return (i32x16)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif MARTLET_AVX512
  return acc + (i32x16)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif MARTLET_AVX2
  typedef int32_t i32x8 __attribute__((ext_vector_type(8)));
  i32x8 a0 = __builtin_shufflevector(a, a, 0, 1, 2, 3, 4, 5, 6, 7), a1 = __builtin_shufflevector(a, a, 8, 9, 10, 11, 12, 13, 14, 15);
  i32x8 b0 = __builtin_shufflevector(b, b, 0, 1, 2, 3, 4, 5, 6, 7), b1 = __builtin_shufflevector(b, b, 8, 9, 10, 11, 12, 13, 14, 15);
  i32x8 p0 = (i32x8)_mm256_madd_epi16((__m256i)a0, (__m256i)b0), p1 = (i32x8)_mm256_madd_epi16((__m256i)a1, (__m256i)b1);
  return acc + __builtin_shufflevector(p0, p1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif MARTLET_NEON
  // The firsts of 8 lanes are one register, the seconds another: taken apart once for all tokens that meet the weights a.
  int16x8_t pair = vreinterpretq_s16_s32((int32x4_t)b.lo.lo);
  int16x8_t a0 = (int16x8_t)a.lo.lo, a1 = (int16x8_t)a.lo.hi, a2 = (int16x8_t)a.hi.lo, a3 = (int16x8_t)a.hi.hi;
  int16x8_t low01 = vuzp1q_s16(a0, a1), high01 = vuzp2q_s16(a0, a1), low23 = vuzp1q_s16(a2, a3), high23 = vuzp2q_s16(a2, a3);
  int32x4_t sum0 = acc.lo.lo, sum1 = acc.lo.hi, sum2 = acc.hi.lo, sum3 = acc.hi.hi;
  sum0 = vmlal_laneq_s16(sum0, vget_low_s16(low01), pair, 0);
  sum1 = vmlal_high_laneq_s16(sum1, low01, pair, 0);
  sum2 = vmlal_laneq_s16(sum2, vget_low_s16(low23), pair, 0);
  sum3 = vmlal_high_laneq_s16(sum3, low23, pair, 0);
  acc.lo.lo = vmlal_laneq_s16(sum0, vget_low_s16(high01), pair, 1);
  acc.lo.hi = vmlal_high_laneq_s16(sum1, high01, pair, 1);
  acc.hi.lo = vmlal_laneq_s16(sum2, vget_low_s16(high23), pair, 1);
  acc.hi.hi = vmlal_high_laneq_s16(sum3, high23, pair, 1);
  return acc;
#else
  i32x16 low = (i32x16)((u32x16)a << 16) >> 16, high = a >> 16;
  return acc + low * ((i32x16)((u32x16)b << 16) >> 16) + high * (b >> 16);
#endif
}

// Returns v, in registers, at this point of the program: without such points the compiler reorders a whole unrolled block, runs out of
// registers and keeps broadcast inputs on the stack.
MARTLET_INLINE i32x16 i32x16_here(i32x16 v) {
#if MARTLET_AVX512
  __asm__ volatile("" : "+v"(v));
  return v;
#elif MARTLET_AVX2
  typedef int32_t i32x8 __attribute__((ext_vector_type(8)));
  i32x8 low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), high = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  __asm__ volatile("" : "+x"(low), "+x"(high));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif MARTLET_NEON
  int32x4_t a = v.lo.lo, b = v.lo.hi, c = v.hi.lo, d = v.hi.hi;
  __asm__ volatile("" : "+w"(a), "+w"(b), "+w"(c), "+w"(d));
  v.lo.lo = a, v.lo.hi = b, v.hi.lo = c, v.hi.hi = d;
  return v;
#else
  return v;
#endif
}

// 16 halves, widened. Exact.
MARTLET_INLINE f32x16 f32x16_load_f16(const void *p) {
#if MARTLET_AVX512
  return (f32x16)_mm512_cvtph_ps(_mm256_loadu_si256(p));
#elif MARTLET_AVX2
  __m256 low = _mm256_cvtph_ps(_mm_loadu_si128(p)), high = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif MARTLET_NEON
  return __builtin_convertvector((f16x16)u16x16_load(p), f32x16);
#else
  return f16_widen(__builtin_convertvector(u16x16_load(p), u32x16));
#endif
}

// 16 bfloat16s, widened. Exact.
MARTLET_INLINE f32x16 f32x16_load_bf16(const void *p) { return f32x16_from_bits(__builtin_convertvector(u16x16_load(p), u32x16) << 16); }

MARTLET_INLINE f32x16 f32x16_load_u8(const uint8_t *p) {
  return __builtin_convertvector(__builtin_convertvector(u8x16_load(p), i32x16), f32x16);
}
MARTLET_INLINE f32x16 f32x16_load_i8(const uint8_t *p) {
  return __builtin_convertvector(__builtin_convertvector((i8x16)u8x16_load(p), i32x16), f32x16);
}

// Bytes before the first block of 8.
MARTLET_INLINE int slab_header_bytes(int format) {
  return format == martlet_weight_q4_k ? 64 : format == martlet_weight_q6_k ? 32 : 0;
}

// Bytes of a block before its nibbles or bytes.
MARTLET_INLINE int block_header_bytes(int format) {
  return format == martlet_weight_q4_1 ? 64 : 32;
}

MARTLET_INLINE int block_bytes(int format) {
  switch (format) {
    case martlet_weight_q4_1: return 64 + 256;
    case martlet_weight_q5_0: return 32 + 256 + 64;
    case martlet_weight_q6_k: return 32 + 256 + 128;
    case martlet_weight_q8_0: return 32 + 512;
    default: return 32 + 256;
  }
}

// What a code of 0 stands below: a weight is scale · (code − offset).
MARTLET_INLINE int code_offset_bits(int format) {
  switch (format) {
    case martlet_weight_q4_0: return 3;
    case martlet_weight_q5_0: return 4;
    case martlet_weight_q6_k: return 5;
    case martlet_weight_q8_0: return 7;
    default: return -1;  // no offset
  }
}
MARTLET_INLINE int code_offset(int format) { return code_offset_bits(format) < 0 ? 0 : 1 << code_offset_bits(format); }

MARTLET_INLINE bool has_minimum(int format) { return format == martlet_weight_q4_1 || format == martlet_weight_q4_k; }

// Scales of a block of 32 inputs: Q6_K has one for each 16.
MARTLET_INLINE int scale_count(int format) { return format == martlet_weight_q6_k ? 2 : 1; }

typedef struct block_scales {
  f32x16 scale[2], minimum;
} block_scales;

// Every product here is exact: 11 bits of a half times 6 or 7 bits.
MARTLET_INLINE block_scales load_scales(int format, const uint8_t *slab, const uint8_t *block) {
  block_scales s = {};
  switch (format) {
    case martlet_weight_q4_1:
      s.scale[0] = f32x16_load_f16(block);
      s.minimum = f32x16_load_f16(block + 32);
      break;
    case martlet_weight_q4_k:
      s.scale[0] = f32x16_load_f16(slab) * f32x16_load_u8(block);
      s.minimum = -(f32x16_load_f16(slab + 32) * f32x16_load_u8(block + 16));
      break;
    case martlet_weight_q6_k:
      s.scale[0] = f32x16_load_f16(slab) * f32x16_load_i8(block);
      s.scale[1] = f32x16_load_f16(slab) * f32x16_load_i8(block + 16);
      break;
    default: s.scale[0] = f32x16_load_f16(block);
  }
  return s;
}

// The codes of inputs 2·pair and 2·pair + 1 as int16 pairs. `pair` is a constant after unrolling.
MARTLET_INLINE i32x16 load_pair(int format, const uint8_t *block, int pair) {
  const uint8_t *codes = block + block_header_bytes(format);
  if (format == martlet_weight_q8_0) {
    u16x32 bytes = (u16x32)u32x16_load(codes + pair / 2 * 64);
    return (i32x16)(pair % 2 == 0 ? (bytes & (u16x32)(0xFF)) : (bytes >> (u16x32)(8)));
  }
  u16x32 nibbles = (u16x32)u32x16_load(codes + pair / 4 * 64);
  nibbles = pair % 4 == 3 ? nibbles >> (u16x32)(12) : (nibbles >> (u16x32)((uint16_t)(pair % 4 * 4))) & (u16x32)(0xF);
  if (format == martlet_weight_q5_0) {
    u16x32 bits = (u16x32)u32x16_load(codes + 256);
    bits = pair < 4 ? bits << (u16x32)((uint16_t)(4 - pair)) : bits >> (u16x32)((uint16_t)(pair - 4));
    nibbles |= bits & (u16x32)(0x10);
  }
  if (format == martlet_weight_q6_k) {
    u16x32 bits = (u16x32)u32x16_load(codes + 256 + pair / 8 * 64);
    int shift = 2 * (pair % 8);
    bits = shift < 4 ? bits << (u16x32)((uint16_t)(4 - shift)) : bits >> (u16x32)((uint16_t)(shift - 4));
    nibbles |= bits & (u16x32)(0x30);
  }
  return (i32x16)nibbles;
}
