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
#if MARTLET_AVX512_MODEL
  return v;
#elif MARTLET_AVX512
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

// CALL(format) once for every format, with the last part of its name.
#define MARTLET_EACH_FORMAT(CALL) \
  CALL(f32) CALL(f16) CALL(bf16) CALL(e4m3) CALL(q4_0) CALL(q4_1) CALL(q5_0) CALL(q5_1) CALL(q8_0) CALL(q2_k) CALL(q3_k) CALL(q4_k) \
  CALL(q5_k) CALL(q6_k) CALL(iq4_nl) CALL(mxfp4) CALL(nvfp4)

// Whether values are floats, which are multiplied by the inputs as they are; codes are multiplied by coded inputs.
MARTLET_INLINE bool is_float(int format) { return format <= martlet_weight_e4m3; }

// Whether 8 blocks share halves that scale the scales of each.
MARTLET_INLINE bool has_slab_scales(int format) { return format >= martlet_weight_q2_k && format <= martlet_weight_q6_k; }

MARTLET_INLINE bool has_minimum(int format) {
  switch (format) {
    case martlet_weight_q4_1:
    case martlet_weight_q5_1:
    case martlet_weight_q2_k:
    case martlet_weight_q4_k:
    case martlet_weight_q5_k: return true;
    default: return false;
  }
}

// Scales of a block of 32 inputs, and its minimums if it has any: some formats have one for each 16.
MARTLET_INLINE int scale_count(int format) {
  switch (format) {
    case martlet_weight_q2_k:
    case martlet_weight_q3_k:
    case martlet_weight_q6_k:
    case martlet_weight_nvfp4: return 2;
    default: return 1;
  }
}

// Whether a row has a factor of its own, before its first block, that multiplies its output.
MARTLET_INLINE bool has_row_factor(int format) { return format == martlet_weight_nvfp4; }
MARTLET_INLINE int group_header_bytes(int format) { return has_row_factor(format) ? 64 : 0; }

// Bytes before the first block of 8.
MARTLET_INLINE int slab_header_bytes(int format) { return !has_slab_scales(format) ? 0 : has_minimum(format) ? 64 : 32; }

// Bytes of a block before its codes.
MARTLET_INLINE int block_header_bytes(int format) {
  return format == martlet_weight_mxfp4 ? 16 : has_minimum(format) && !has_slab_scales(format) ? 64 : 32;
}

MARTLET_INLINE int code_bits(int format) {
  switch (format) {
    case martlet_weight_q2_k: return 2;
    case martlet_weight_q3_k: return 3;
    case martlet_weight_q5_0:
    case martlet_weight_q5_1:
    case martlet_weight_q5_k: return 5;
    case martlet_weight_q6_k: return 6;
    case martlet_weight_q8_0: return 8;
    default: return 4;
  }
}

// One bit of 32 codes in 16 lanes takes 64 bytes.
MARTLET_INLINE int block_bytes(int format) { return block_header_bytes(format) + 64 * code_bits(format); }

// What a code of 0 stands below: a weight is scale · (code − offset).
MARTLET_INLINE int code_offset_bits(int format) {
  switch (format) {
    case martlet_weight_q3_k: return 2;
    case martlet_weight_q4_0: return 3;
    case martlet_weight_q5_0:
    case martlet_weight_mxfp4:
    case martlet_weight_nvfp4: return 4;
    case martlet_weight_q6_k: return 5;
    case martlet_weight_q8_0:
    case martlet_weight_iq4_nl: return 7;
    default: return -1;  // no offset
  }
}
MARTLET_INLINE int code_offset(int format) { return code_offset_bits(format) < 0 ? 0 : 1 << code_offset_bits(format); }

// Half of the powers of two that 16 exponents of e8m0 say: 2^(e − 128), because MXFP4's table has its values doubled. Exact, the last two subnormal.
MARTLET_INLINE f32x16 f32x16_load_half_e8m0(const uint8_t *p) {
  u32x16 e = __builtin_convertvector(u8x16_load(p), u32x16);
  return f32x16_from_bits(e < 2u ? (u32x16)(0x200000u) << e : (e - 1u) << 23);
}

// 2⁻⁸ of 16 e4m3, which is what their bits say as halves: sign, then the exponent with one bit more and another bias, subnormals too. Exact. There is
// no NaN among them: its codes are 480 here.
MARTLET_INLINE f32x16 f32x16_load_e4m3(const uint8_t *p) {
#if MARTLET_AVX512
  __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
  return (f32x16)_mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16((short)0xBF80)));
#elif MARTLET_AVX2
  __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
  __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16((short)0xBF80));
  __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves)), high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  u16x16 halves = ((u16x16)__builtin_convertvector((i8x16)u8x16_load(p), i16x16) << 7) & (u16x16)(0xBF80);
#if MARTLET_NEON
  return __builtin_convertvector((f16x16)halves, f32x16);
#else
  return f16_widen(__builtin_convertvector(halves, u32x16));
#endif
#endif
}

typedef struct block_scales {
  f32x16 scale[2], minimum[2];
} block_scales;

// Every product here is exact: 11 bits of a half times at most 8 bits.
MARTLET_INLINE block_scales load_scales(int format, const uint8_t *slab, const uint8_t *block) {
  block_scales s = {};
  switch (format) {
    case martlet_weight_q4_1:
    case martlet_weight_q5_1:
      s.scale[0] = f32x16_load_f16(block);
      s.minimum[0] = f32x16_load_f16(block + 32);
      break;
    case martlet_weight_q2_k:
      for (int h = 0; h < 2; h++) {
        i32x16 codes = __builtin_convertvector(u8x16_load(block + h * 16), i32x16);
        s.scale[h] = f32x16_load_f16(slab) * f32x16_from_i32(codes & 15);
        s.minimum[h] = -(f32x16_load_f16(slab + 32) * f32x16_from_i32(codes >> 4));
      }
      break;
    case martlet_weight_q4_k:
    case martlet_weight_q5_k:
      s.scale[0] = f32x16_load_f16(slab) * f32x16_load_u8(block);
      s.minimum[0] = -(f32x16_load_f16(slab + 32) * f32x16_load_u8(block + 16));
      break;
    case martlet_weight_q3_k:
    case martlet_weight_q6_k:
      s.scale[0] = f32x16_load_f16(slab) * f32x16_load_i8(block);
      s.scale[1] = f32x16_load_f16(slab) * f32x16_load_i8(block + 16);
      break;
    case martlet_weight_mxfp4: s.scale[0] = f32x16_load_half_e8m0(block); break;
    case martlet_weight_nvfp4:
      s.scale[0] = f32x16_load_e4m3(block);
      s.scale[1] = f32x16_load_e4m3(block + 16);
      break;
    default: s.scale[0] = f32x16_load_f16(block);
  }
  return s;
}

// The values of IQ4_NL, each plus 128 as in Q8_0: -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113.
static const _Alignas(16) uint8_t iq4_nl_codes[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

// The values of e2m1, in which MXFP4 and NVFP4 have their codes, doubled, each plus 16: 0, 1, 2, 3, 4, 6, 8, 12, and the same below 0.
static const _Alignas(16) uint8_t e2m1_codes[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

// Where codes are places in a table, the table; NULL elsewhere.
MARTLET_INLINE const uint8_t *table_of_codes(int format) {
  switch (format) {
    case martlet_weight_iq4_nl: return iq4_nl_codes;
    case martlet_weight_mxfp4:
    case martlet_weight_nvfp4: return e2m1_codes;
    default: return NULL;
  }
}

// The greatest code, before an offset is taken from it.
MARTLET_INLINE int greatest_raw_code(int format) {
  const uint8_t *table = table_of_codes(format);
  return table == e2m1_codes ? 28 : table ? 241 : (1 << code_bits(format)) - 1;
}

// The fields of inputs 2·pair and 2·pair + 1, each moved to bit `to`. Width 2, 4 or 8.
MARTLET_INLINE u16x32 load_even_fields(int width, const uint8_t *words, int pair, int to) {
  u16x32 fields = (u16x32)u32x16_load(words + pair * width / 16 * 64);
  int from = pair * width % 16;
  fields = from < to ? fields << (u16x32)((uint16_t)(to - from)) : fields >> (u16x32)((uint16_t)(from - to));
  return from + width == 16 && to == 0 ? fields : fields & (u16x32)((uint16_t)(((1 << width) - 1) << to));
}

#if MARTLET_AVX512 || MARTLET_AVX2 || MARTLET_NEON
// codes[places], for places in all 64 bytes.
MARTLET_INLINE u16x32 u16x32_look_up(const uint8_t *codes, u16x32 places) {
#if MARTLET_AVX512
  __m512i table = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)codes));
  return (u16x32)_mm512_shuffle_epi8(table, (__m512i)places);
#elif MARTLET_AVX2
  __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)codes));
  u16x16 low = __builtin_shufflevector(places, places, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  u16x16 high = __builtin_shufflevector(places, places, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
  low = (u16x16)_mm256_shuffle_epi8(table, (__m256i)low), high = (u16x16)_mm256_shuffle_epi8(table, (__m256i)high);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
                                 26, 27, 28, 29, 30, 31);
#else
  typedef uint16_t u16x8 __attribute__((ext_vector_type(8)));
  uint8x16_t table = vld1q_u8(codes);
  places.lo.lo = (u16x8)vqtbl1q_u8(table, (uint8x16_t)places.lo.lo), places.lo.hi = (u16x8)vqtbl1q_u8(table, (uint8x16_t)places.lo.hi);
  places.hi.lo = (u16x8)vqtbl1q_u8(table, (uint8x16_t)places.hi.lo), places.hi.hi = (u16x8)vqtbl1q_u8(table, (uint8x16_t)places.hi.hi);
  return places;
#endif
}

#endif

// The values of inputs 2·pair and 2·pair + 1, whose places in a table are 4-bit fields. One look-up serves two pairs: the low halves of a word's bytes are
// pairs 0 and 2 of it, the high ones 1 and 3, and the compiler sees that both are the same.
MARTLET_INLINE u16x32 look_up_pair(const uint8_t *table, const uint8_t *words, int pair) {
#if MARTLET_AVX512 || MARTLET_AVX2 || MARTLET_NEON
  u16x32 word = (u16x32)u32x16_load(words + pair / 4 * 64);
  if (pair % 2 == 1) word = word >> (u16x32)(4);
  u16x32 found = u16x32_look_up(table, word & (u16x32)(0x0F0F));
  return pair % 4 < 2 ? found & (u16x32)(0xFF) : found >> (u16x32)(8);
#else
  u16x32 places = load_even_fields(4, words, pair, 0);
  uint16_t found[32];
  __builtin_memcpy(found, &places, 64);
  MARTLET_UNROLL for (int i = 0; i < 32; i++) found[i] = table[found[i]];
  __builtin_memcpy(&places, found, 64);
  return places;
#endif
}

// load_even_fields for width 3 or 5. One shift and one mask for all pairs but the last: a word for the odd bits alone would take a second shift,
// a second mask and an or for each.
MARTLET_INLINE u16x32 load_odd_fields(int width, const uint8_t *words, int pair, int to) {
  int fields = 15 / width;
  if (pair < 15) {
    u16x32 word = (u16x32)u32x16_load(words + pair / fields * 64);
    int from = pair % fields * width;
    word = from < to ? word << (u16x32)((uint16_t)(to - from)) : word >> (u16x32)((uint16_t)(from - to));
    return word & (u16x32)((uint16_t)(((1 << width) - 1) << to));
  }
  u16x32 last = (u16x32)u32x16_load(words) >> (u16x32)(15);
  MARTLET_UNROLL for (int i = 1; i < width; i++)
    last |= ((u16x32)u32x16_load(words + i * 64) >> (u16x32)((uint16_t)(15 - i))) & (u16x32)((uint16_t)(1 << i));
  return last << (u16x32)((uint16_t)to);
}

// The codes of inputs 2·pair and 2·pair + 1 as int16 pairs. `pair` is a constant after unrolling.
MARTLET_INLINE i32x16 load_pair(int format, const uint8_t *block, int pair) {
  const uint8_t *words = block + block_header_bytes(format);
  switch (code_bits(format)) {
    case 3:
    case 5: return (i32x16)load_odd_fields(code_bits(format), words, pair, 0);
    case 6: return (i32x16)(load_even_fields(4, words, pair, 0) | load_even_fields(2, words + 256, pair, 4));
    default:
      return (i32x16)(table_of_codes(format) ? look_up_pair(table_of_codes(format), words, pair)
                                             : load_even_fields(code_bits(format), words, pair, 0));
  }
}

// codes[places] of each byte.
MARTLET_INLINE u32x16 look_up_bytes(const uint8_t *codes, u32x16 places) {
#if MARTLET_AVX512 || MARTLET_AVX2 || MARTLET_NEON
  return (u32x16)u16x32_look_up(codes, (u16x32)places);
#else
  uint8_t bytes[64];
  __builtin_memcpy(bytes, &places, 64);
  for (int i = 0; i < 64; i++) bytes[i] = codes[bytes[i]];
  __builtin_memcpy(&places, bytes, 64);
  return places;
#endif
}

// The codes of a quad of a block, 0 to 7, as four bytes: of the pairs 4i and 4i + 2, or 4i + 1 and 4i + 3 (martlet_int8_slab). `quad` is a constant after
// unrolling.
MARTLET_INLINE u32x16 load_quad(int format, const uint8_t *block, int quad) {
  const uint8_t *words = block + block_header_bytes(format);
  const int bits = code_bits(format), pair = quad / 2 * 4 + quad % 2;
  switch (bits) {
    case 2:
    case 8: return (u32x16)(load_even_fields(bits, words, pair, 0) | load_even_fields(bits, words, pair + 2, 8));
    case 3:
    case 5: return (u32x16)(load_odd_fields(bits, words, pair, 0) | load_odd_fields(bits, words, pair + 2, 8));
    default: {
      u32x16 nibbles = (u32x16_load(words + quad / 2 * 64) >> (uint32_t)(quad % 2 * 4)) & 0x0F0F0F0Fu;
      if (table_of_codes(format)) return look_up_bytes(table_of_codes(format), nibbles);
      if (bits == 4) return nibbles;
      return nibbles | (u32x16)(load_even_fields(2, words + 256, pair, 4) | load_even_fields(2, words + 256, pair + 2, 12));
    }
  }
}
