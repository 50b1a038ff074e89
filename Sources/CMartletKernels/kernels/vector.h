// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Vectors of 16 lanes, the width of an AVX-512 register, for one kernel source that every variant compiles.
//
// The compiler splits a 16-lane vector into what the target has (two AVX2, four SSE or NEON registers), so a kernel is written once.
// A variant file defines the macros below before it includes the kernels; what differs between variants is only how many
// accumulators fit (MARTLET_ATTENTION_ROWS, MARTLET_PRODUCT_ROWS) and the few operations that the language cannot say: fma, the two dot
// products, rounding to bf16, widening halves. A macro that is not defined counts as 0.
//
//   MARTLET_FMA        1 where f32x16_fma is one rounding (hardware), 0 where it is a product and a sum
//   MARTLET_AVX512, MARTLET_AVX2, MARTLET_NEON
//                      1 for the one whose instructions there are; plain C without
//   MARTLET_VNNI       with MARTLET_AVX512: 1 where one instruction multiplies int16 pairs and adds
//   MARTLET_DOT_BF16   1 where attention over bf16 pages rounds q and p to bf16 and uses dot products of bf16 pairs
//
// Everything is static and always inlined into the variant's own functions, whose target attribute it then has.

#pragma STDC FP_CONTRACT OFF
#pragma clang diagnostic ignored "-Wpsabi"  // 16-lane values never cross a function that is not inlined

#define MARTLET_INLINE static inline __attribute__((always_inline, unused))

typedef float f32x16 __attribute__((ext_vector_type(16)));
typedef int32_t i32x16 __attribute__((ext_vector_type(16)));
typedef uint32_t u32x16 __attribute__((ext_vector_type(16)));
typedef int16_t i16x32 __attribute__((ext_vector_type(32)));
typedef uint16_t u16x16 __attribute__((ext_vector_type(16)));
typedef int8_t i8x16 __attribute__((ext_vector_type(16)));
typedef uint8_t u8x16 __attribute__((ext_vector_type(16)));
#if MARTLET_NEON
typedef _Float16 f16x16 __attribute__((ext_vector_type(16)));
#endif

// Unaligned loads and stores.
typedef f32x16 f32x16_unaligned __attribute__((aligned(4), may_alias));
typedef i32x16 i32x16_unaligned __attribute__((aligned(4), may_alias));
typedef u32x16 u32x16_unaligned __attribute__((aligned(4), may_alias));
typedef u16x16 u16x16_unaligned __attribute__((aligned(2), may_alias));
typedef u8x16 u8x16_unaligned __attribute__((aligned(1), may_alias));
typedef i8x16 i8x16_unaligned __attribute__((aligned(1), may_alias));

MARTLET_INLINE f32x16 f32x16_load(const void *p) { return *(const f32x16_unaligned *)p; }
MARTLET_INLINE void f32x16_store(void *p, f32x16 v) { *(f32x16_unaligned *)p = v; }
MARTLET_INLINE i32x16 i32x16_load(const void *p) { return *(const i32x16_unaligned *)p; }
MARTLET_INLINE void i32x16_store(void *p, i32x16 v) { *(i32x16_unaligned *)p = v; }
MARTLET_INLINE u32x16 u32x16_load(const void *p) { return *(const u32x16_unaligned *)p; }
MARTLET_INLINE void u32x16_store(void *p, u32x16 v) { *(u32x16_unaligned *)p = v; }
MARTLET_INLINE u16x16 u16x16_load(const void *p) { return *(const u16x16_unaligned *)p; }
MARTLET_INLINE void u16x16_store(void *p, u16x16 v) { *(u16x16_unaligned *)p = v; }
MARTLET_INLINE u8x16 u8x16_load(const void *p) { return *(const u8x16_unaligned *)p; }
MARTLET_INLINE void u8x16_store(void *p, u8x16 v) { *(u8x16_unaligned *)p = v; }

MARTLET_INLINE f32x16 f32x16_set(float x) { return (f32x16)(x); }
MARTLET_INLINE i32x16 i32x16_set(int32_t x) { return (i32x16)(x); }
MARTLET_INLINE f32x16 f32x16_from_bits(u32x16 x) { return (f32x16)x; }
MARTLET_INLINE u32x16 u32x16_bits(f32x16 x) { return (u32x16)x; }
MARTLET_INLINE f32x16 f32x16_from_i32(i32x16 x) { return __builtin_convertvector(x, f32x16); }
MARTLET_INLINE f32x16 f32x16_max(f32x16 a, f32x16 b) { return a > b ? a : b; }

// a · b + c: one rounding where MARTLET_FMA is 1, else two.
MARTLET_INLINE f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c) {
#if MARTLET_FMA
  return __builtin_elementwise_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// The sum of 16 lanes by a fixed tree: halves, quarters, pairs. The same in every variant.
MARTLET_INLINE float f32x16_sum(f32x16 v) {
  typedef float f32x8 __attribute__((ext_vector_type(8)));
  typedef float f32x4 __attribute__((ext_vector_type(4)));
  f32x8 eight = v.lo + v.hi;
  f32x4 four = eight.lo + eight.hi;
  return (four[0] + four[2]) + (four[1] + four[3]);
}

// The greatest of each of 16 vectors: lane i of the result is that of v[i]. Vectors are merged two by two, and each merge halves the lanes
// that a vector is left with.
MARTLET_INLINE f32x16 f32x16_greatest_of_each(const f32x16 v[16]) {
  f32x16 a[8], b[4], c[2];
#pragma clang loop unroll(full)
  for (int i = 0; i < 8; i++) {
    // The result's lane 4·q + s is that of the vector taken as number 4·s + q.
    f32x16 x = v[i * 2 % 4 * 4 + i / 2], y = v[(i * 2 + 1) % 4 * 4 + i / 2];
    a[i] = f32x16_max(__builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                      __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31));
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++)
    b[i] = f32x16_max(
        __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
        __builtin_shufflevector(a[2 * i], a[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31));
#pragma clang loop unroll(full)
  for (int i = 0; i < 2; i++)
    c[i] = f32x16_max(
        __builtin_shufflevector(b[2 * i], b[2 * i + 1], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
        __builtin_shufflevector(b[2 * i], b[2 * i + 1], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31));
  return f32x16_max(__builtin_shufflevector(c[0], c[1], 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
                    __builtin_shufflevector(c[0], c[1], 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31));
}

// bfloat16: the upper half of a float32. A 32-bit lane holds a pair, the first in its low half.
MARTLET_INLINE f32x16 bf16_pair_first(u32x16 pair) { return f32x16_from_bits(pair << 16); }
MARTLET_INLINE f32x16 bf16_pair_second(u32x16 pair) { return f32x16_from_bits(pair & 0xFFFF0000u); }

// To nearest, ties to even, in the low 16 bits of each lane. NaN stays NaN.
MARTLET_INLINE u32x16 bf16_round(f32x16 x) {
  u32x16 bits = u32x16_bits(x);
  u32x16 rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return (x != x) ? ((bits >> 16) | 0x40u) : rounded;
}

// 16 pairs of the rounded lanes of a, then of b.
MARTLET_INLINE u32x16 bf16_pairs(f32x16 a, f32x16 b) {
#if MARTLET_AVX512 && MARTLET_DOT_BF16
  return (u32x16)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
#else
  u32x16 x = bf16_round(a), y = bf16_round(b);
  u32x16 firsts = __builtin_shufflevector(x, y, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  u32x16 seconds = __builtin_shufflevector(x, y, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return firsts | seconds << 16;
#endif
}

// float32 of 16 halves given in the low 16 bits of each lane. Exact, by integers: every variant can.
MARTLET_INLINE f32x16 f16_widen(u32x16 half) {
  u32x16 sign = (half & 0x8000u) << 16;
  u32x16 magnitude = half & 0x7FFFu;
  f32x16 normal = f32x16_from_bits((magnitude << 13) + (112u << 23));
  f32x16 subnormal = __builtin_convertvector(magnitude, f32x16) * 0x1p-24f;
  u32x16 special = (magnitude << 13) | 0x7F800000u;
  u32x16 bits = magnitude < 0x400u ? u32x16_bits(subnormal) : (magnitude >= 0x7C00u ? special : u32x16_bits(normal));
  return f32x16_from_bits(bits | sign);
}

// The nearest half of each lane, ties to even, in the low 16 bits; overflow to infinity, NaN stays NaN.
MARTLET_INLINE u32x16 f16_round(f32x16 x) {
  u32x16 bits = u32x16_bits(x);
  u32x16 sign = (bits >> 16) & 0x8000u;
  u32x16 magnitude = bits & 0x7FFFFFFFu;
  u32x16 normal = ((magnitude + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
  // Adding 0.5 makes the float's own rounding drop all bits below 2⁻²⁴, the subnormal step.
  u32x16 subnormal = u32x16_bits(f32x16_from_bits(magnitude) + 0.5f) - 0x3F000000u;
  u32x16 half = magnitude < 0x38800000u ? subnormal : normal;
  half = magnitude >= 0x477FF000u ? (u32x16)(0x7C00u) : half;
  half = magnitude > 0x7F800000u ? (u32x16)(0x7E00u) : half;
  return half | sign;
}
