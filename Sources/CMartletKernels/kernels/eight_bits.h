// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Keys and values of one byte: e4m3 (OCP: 4 bits of exponent, 3 of fraction, ±448 the greatest, no infinities) and int8.
//
// Every value of both is a bfloat16, so that a 32-bit word of four becomes two pairs of bf16 without any rounding.

typedef uint16_t u16x32 __attribute__((ext_vector_type(32)));

// The nearest e4m3 of each lane, ties to even, in the low 8 bits; beyond ±448, infinities too, ±448. NaN becomes NaN.
MARTLET_INLINE u32x16 e4m3_round(f32x16 x) {
  u32x16 bits = u32x16_bits(x);
  u32x16 sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  u32x16 normal = ((magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
  // Adding 2¹⁴ makes the float's own rounding drop all bits below 2⁻⁹, the subnormal step.
  u32x16 subnormal = u32x16_bits(f32x16_from_bits(magnitude) + 0x1p14f) - 0x46800000u;
  u32x16 code = magnitude < 0x3C800000u ? subnormal : normal;    // 2⁻⁶
  code = magnitude >= 0x43E00000u ? (u32x16)(0x7Eu) : code;      // 448
  code = magnitude > 0x7F800000u ? (u32x16)(0x7Fu) : code;
  return code | sign;
}

// float32 of the e4m3 in the low 8 bits of each lane; the other bits are 0. Exact.
MARTLET_INLINE f32x16 e4m3_widen(u32x16 code) {
  u32x16 magnitude = code & 0x7Fu;
  u32x16 subnormal = u32x16_bits(__builtin_convertvector(magnitude, f32x16) * 0x1p-9f);
  u32x16 bits = magnitude < 8u ? subnormal : (magnitude + (120u << 3)) << 20;
  bits = magnitude == 0x7Fu ? (u32x16)(0x7FC00000u) : bits;
  return f32x16_from_bits(bits | (code & 0x80u) << 24);
}

// bf16 of e4m3 codes, each twice in its 16 bits (code · 257).
MARTLET_INLINE u32x16 e4m3_halves_widen(u32x16 doubled) {
#if MARTLET_AVX512
  // The fraction moves to the top of bf16's, the exponent is biased by 127 instead of 7; eight subnormals and NaN are looked up.
  const __m512i subnormals = _mm512_broadcast_i32x4(
      _mm_setr_epi16(0, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60));  // 0 … 7 times 2⁻⁹
  __m512i codes = (__m512i)doubled;
  __m512i placed = _mm512_and_si512(_mm512_srai_epi16(codes, 4), _mm512_set1_epi16((short)0x87F0));
  __m512i value = _mm512_add_epi16(placed, _mm512_set1_epi16(120 << 7));
  __mmask32 is_subnormal = _mm512_testn_epi16_mask(codes, _mm512_set1_epi16(0x78));
  value = _mm512_mask_permutexvar_epi16(value, is_subnormal, codes, subnormals);
  __mmask32 is_nan = _mm512_cmpeq_epi16_mask(_mm512_and_si512(codes, _mm512_set1_epi16(0x7F)), _mm512_set1_epi16(0x7F));
  value = _mm512_mask_mov_epi16(value, is_nan, _mm512_set1_epi16(0x7FC0));
  return (u32x16)_mm512_ternarylogic_epi32(value, placed, _mm512_set1_epi16((short)0x8000), 0xF8);  // value | (placed & sign)
#else
  // bf16's bits are a concave function of the magnitude, linear in each octave: the least of the four lines below is the right one.
  u16x32 codes = (u16x32)doubled, magnitude = codes & (u16x32)(0x7F);
  u16x32 value = (magnitude << 4) + (u16x32)(0x3C00), line = (magnitude << 5) + (u16x32)(0x3B80);
  value = line < value ? line : value;
  line = (magnitude << 6) + (u16x32)(0x3B00);
  value = line < value ? line : value;
  line = (magnitude << 7) + (u16x32)(0x3A80);
  value = line < value ? line : value;
  value = magnitude == (u16x32)(0) ? (u16x32)(0) : value;
  value = magnitude == (u16x32)(0x7F) ? (u16x32)(0x7FC0) : value;
  return (u32x16)(value | (codes & (u16x32)(0x8000)));
#endif
}

// Four codes in each word, lowest first, to two pairs of bf16: exact.
MARTLET_INLINE void e4m3_pairs(u32x16 words, u32x16 *first, u32x16 *second) {
#if MARTLET_AVX512
  const __m512i low = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13));
  const __m512i high = _mm512_broadcast_i32x4(_mm_setr_epi8(2, 2, 3, 3, 6, 6, 7, 7, 10, 10, 11, 11, 14, 14, 15, 15));
  u32x16 a = (u32x16)_mm512_shuffle_epi8((__m512i)words, low), b = (u32x16)_mm512_shuffle_epi8((__m512i)words, high);
#else
  u32x16 a = (words & 0xFFu) | (words & 0xFF00u) << 8, b = (words >> 16 & 0xFFu) | (words >> 8 & 0xFF0000u);
  a |= a << 8, b |= b << 8;
#endif
  *first = e4m3_halves_widen(a);
  *second = e4m3_halves_widen(b);
}

// The same of four int8: 8 bits of significance are enough for every integer up to 256.
MARTLET_INLINE void i8_pairs(u32x16 words, u32x16 *first, u32x16 *second) {
  i32x16 w = (i32x16)words;
  u32x16 a = u32x16_bits(f32x16_from_i32(w << 24 >> 24)), b = u32x16_bits(f32x16_from_i32(w << 16 >> 24));
  u32x16 c = u32x16_bits(f32x16_from_i32(w << 8 >> 24)), d = u32x16_bits(f32x16_from_i32(w >> 24));
  *first = a >> 16 | b;
  *second = c >> 16 | d;
}

#if MARTLET_VBMI
// The low and the high byte of bf16 of what 7 bits say: of an e4m3 without its sign, of an integer.
#define MARTLET_BF16_OF_E4M3(m) \
  ((m) == 127 ? 0x7FC0 : (m) > 7 ? ((m) << 4) + 0x3C00 : (m) > 3 ? ((m) << 5) + 0x3B80 : (m) > 1 ? ((m) << 6) + 0x3B00 : (m) * 0x3B00)
#define MARTLET_BF16_OF_INTEGER(n) \
  ((n) > 63 ? ((n) << 1) + 0x4200 : (n) > 31 ? ((n) << 2) + 0x4180 : (n) > 15 ? ((n) << 3) + 0x4100 : (n) > 7 ? ((n) << 4) + 0x4080 : \
   (n) > 3 ? ((n) << 5) + 0x4000 : (n) > 1 ? ((n) << 6) + 0x3F80 : (n) * 0x3F80)
#define MARTLET_TWO(of, shift, n) (uint8_t)(of(n) >> shift), (uint8_t)(of(n + 1) >> shift)
#define MARTLET_FOUR(of, shift, n) MARTLET_TWO(of, shift, n), MARTLET_TWO(of, shift, n + 2)
#define MARTLET_SIXTEEN(of, shift, n) \
  MARTLET_FOUR(of, shift, n), MARTLET_FOUR(of, shift, n + 4), MARTLET_FOUR(of, shift, n + 8), MARTLET_FOUR(of, shift, n + 12)
#define MARTLET_ALL(of, shift) \
  MARTLET_SIXTEEN(of, shift, 0), MARTLET_SIXTEEN(of, shift, 16), MARTLET_SIXTEEN(of, shift, 32), MARTLET_SIXTEEN(of, shift, 48), \
      MARTLET_SIXTEEN(of, shift, 64), MARTLET_SIXTEEN(of, shift, 80), MARTLET_SIXTEEN(of, shift, 96), MARTLET_SIXTEEN(of, shift, 112)
static const _Alignas(64) uint8_t e4m3_bytes[2][128] = {{MARTLET_ALL(MARTLET_BF16_OF_E4M3, 0)}, {MARTLET_ALL(MARTLET_BF16_OF_E4M3, 8)}};
static const _Alignas(64) uint8_t i8_bytes[2][128] = {{MARTLET_ALL(MARTLET_BF16_OF_INTEGER, 0)}, {MARTLET_ALL(MARTLET_BF16_OF_INTEGER, 8)}};
#undef MARTLET_ALL
#undef MARTLET_SIXTEEN
#undef MARTLET_FOUR
#undef MARTLET_TWO
#undef MARTLET_BF16_OF_INTEGER
#undef MARTLET_BF16_OF_E4M3

// The same of either type, both bytes looked up: e4m3 takes 6 instructions instead of 20, int8 9 instead of 15.
MARTLET_INLINE void byte_pairs(int type, u32x16 words, u32x16 *first, u32x16 *second) {
  const uint8_t(*bytes)[128] = type == martlet_kv_e4m3 ? e4m3_bytes : i8_bytes;
  // The first two codes of four words, then their last two.
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
  __m512i codes = _mm512_shuffle_epi8((__m512i)words, order), magnitude = type == martlet_kv_e4m3 ? codes : _mm512_abs_epi8(codes);
  __m512i low = _mm512_permutex2var_epi8((__m512i)u32x16_load(bytes[0]), magnitude, (__m512i)u32x16_load(bytes[0] + 64));
  __m512i high = _mm512_permutex2var_epi8((__m512i)u32x16_load(bytes[1]), magnitude, (__m512i)u32x16_load(bytes[1] + 64));
  // 128, of −128, has an eighth bit.
  if (type == martlet_kv_i8) high = _mm512_mask_mov_epi8(high, _mm512_movepi8_mask(magnitude), _mm512_set1_epi8(0x43));
  high = _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8((char)0x80), 0xF8);  // high | (codes & sign)
  *first = (u32x16)_mm512_unpacklo_epi8(low, high);
  *second = (u32x16)_mm512_unpackhi_epi8(low, high);
}
#else
// The same of either type.
MARTLET_INLINE void byte_pairs(int type, u32x16 words, u32x16 *first, u32x16 *second) {
  if (type == martlet_kv_e4m3)
    e4m3_pairs(words, first, second);
  else
    i8_pairs(words, first, second);
}
#endif

#if MARTLET_AVX2
// Two codes of each word, the first or the last two, as float32: as halves, whose exponent has one bit more and another bias, so that they are
// 2⁻⁸ of what the codes mean, subnormals too.
MARTLET_INLINE void e4m3_floats(int half, u32x16 words, f32x16 *first, f32x16 *second) {
  // Each code to the upper byte of 16 bits: the first codes of four words, then the second ones.
  const __m256i order = half == 0 ? _mm256_setr_epi8(-1, 0, -1, 4, -1, 8, -1, 12, -1, 1, -1, 5, -1, 9, -1, 13,
                                                     -1, 0, -1, 4, -1, 8, -1, 12, -1, 1, -1, 5, -1, 9, -1, 13)
                                  : _mm256_setr_epi8(-1, 2, -1, 6, -1, 10, -1, 14, -1, 3, -1, 7, -1, 11, -1, 15,
                                                     -1, 2, -1, 6, -1, 10, -1, 14, -1, 3, -1, 7, -1, 11, -1, 15);
#pragma clang loop unroll(full)
  for (int i = 0; i < 2; i++) {
    __m256i codes = _mm256_shuffle_epi8(i == 0 ? (__m256i)words.lo : (__m256i)words.hi, order);
    __m256i magnitude = _mm256_and_si256(_mm256_srli_epi16(codes, 1), _mm256_set1_epi16(0x3F80));
    __m256i is_nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3F80));
    __m256i halves = _mm256_or_si256(_mm256_and_si256(_mm256_srai_epi16(codes, 1), _mm256_set1_epi16((short)0xBF80)), is_nan);
    halves = _mm256_permute4x64_epi64(halves, 0xD8);
    __m256 a = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_set1_ps(0x1p8f));
    __m256 b = _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)), _mm256_set1_ps(0x1p8f));
    if (i == 0)
      first->lo = a, second->lo = b;
    else
      first->hi = a, second->hi = b;
  }
}
#endif

// Two numbers of each word as a pair of bf16: the first two for half 0, the last two for half 1.
MARTLET_INLINE u32x16 byte_pair(int type, int half, u32x16 words) {
  u32x16 pairs[2];
  byte_pairs(type, words, &pairs[0], &pairs[1]);
  return pairs[half];
}

// The same two as float32.
MARTLET_INLINE void byte_floats(int type, int half, u32x16 words, f32x16 numbers[2]) {
  if (type == martlet_kv_i8) {
    i32x16 w = (i32x16)words;
    numbers[0] = f32x16_from_i32(w << (24 - 16 * half) >> 24);
    numbers[1] = f32x16_from_i32(half == 0 ? w << 16 >> 24 : w >> 24);
    return;
  }
#if MARTLET_AVX2
  e4m3_floats(half, words, &numbers[0], &numbers[1]);
#else
  u32x16 pair = byte_pair(type, half, words);
  numbers[0] = bf16_pair_first(pair);
  numbers[1] = bf16_pair_second(pair);
#endif
}
