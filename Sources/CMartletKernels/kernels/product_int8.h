// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Products of inputs that are 8-bit integers: four of a row's inputs are multiplied with four codes of a weight by one instruction where the processor
// has one.
//
// The arithmetic of one output, the same for every number of tokens and threads:
//
//   minimum = that of the format, or −offset · scale
//   y = 0
//   for each slab of 256 inputs:                     p = q = 0
//     for each scale's run of inputs (32, or 16):    p = fma(scale, float(Σ code · low digit), p)
//                                                    p = fma(minimum, float(Σ low digit + 128 · high digit), p)
//     for each quad that has high digits:            q = fma(scale, float(Σ code · high digit), q)
//     y = fma(input scale, fma(128, q, p), y)
//   if the format has a factor for each row:         y = factor · y
//
// The sums Σ are integers below 2²⁰ (32 · 255 · 127), exact in any order. (quantise_int8.h tells which quads have high digits.)
//
// One way for few tokens and for many: a slab of a group is unpacked to quads of codes, and used for MARTLET_PRODUCT_ROWS tokens at a time. Few tokens
// take group by group, as the weights lie in memory; of many a slab of all groups, whose inputs stay in the second cache.

// A slab of a group, unpacked.
typedef struct int8_weights {
  u32x16 quads[64];  // codes, unsigned bytes; on NEON signed ones where they are over 127
  f32x16 scale[16], minimum[16];  // of 32 inputs each, or of 16
} int8_weights;

_Static_assert(sizeof(int8_weights) <= martlet_product_unpacked_bytes, "the scratch memory holds a slab");

// How sums of bytes are added up: by what instructions there are, and by how great codes are, the kinds that a variant tells apart.
//
//   VNNI, plain C   each quad to 32 bits at once; one kind
//   AVX2, AVX-512   vpmaddubsw adds two products in 16 bits, which hold 8, 4 or 2 such sums of codes up to 15, 31 or 63 (2 · 15 · 127 · 8 < 2¹⁵);
//                   codes over 63 are two of four bits
//   NEON            four sums of two products, of two quads, in 16 bits, of codes up to 63; of signed ones over that those of one quad
MARTLET_INLINE int kind_of_codes(int format) {
#if MARTLET_NEON
  return greatest_raw_code(format) <= 63 ? 63 : 255;
#elif (MARTLET_AVX2 || MARTLET_AVX512) && !MARTLET_VNNI
  int greatest = greatest_raw_code(format);
  // A run of 16 inputs is four quads.
  return greatest <= 15 && scale_count(format) == 1 ? 15 : greatest <= 31 ? 31 : greatest <= 63 ? 63 : 255;
#else
  return (void)format, 255;
#endif
}

// What a byte of 0 stands below.
MARTLET_INLINE int offset_of_bytes(int format) {
#if MARTLET_NEON
  if (kind_of_codes(format) == 255) return code_offset(format) - 128;
#endif
  return code_offset(format);
}

MARTLET_INLINE i32x16 broadcast_quad(const int8_t *digits) {
  int32_t quad;
  __builtin_memcpy(&quad, digits, 4);
  return i32x16_set(quad);
}

#if (MARTLET_AVX2 || MARTLET_AVX512) && !MARTLET_VNNI
// acc + the sums of two products of bytes, unsigned by signed.
MARTLET_INLINE i16x32 i16x32_dot_bytes(i16x32 acc, u32x16 codes, i32x16 digits) {
#if MARTLET_AVX512
  return acc + (i16x32)_mm512_maddubs_epi16((__m512i)codes, (__m512i)digits);
#else
  acc.lo += (i16x16)_mm256_maddubs_epi16((__m256i)codes.lo, (__m256i)digits.lo);
  acc.hi += (i16x16)_mm256_maddubs_epi16((__m256i)codes.hi, (__m256i)digits.hi);
  return acc;
#endif
}

// `quads` quads from place `first` on times those of `rows` tokens: sum += each. As many pairs of products are added up in 16 bits as they hold.
MARTLET_INLINE void dot_quads(int kind, int rows, const u32x16 *codes, int quads, const martlet_int8_slab *in, int32_t first, i32x16 *sum) {
  const int run = kind == 31 ? 4 : kind == 63 ? 2 : 8, digits_of_code = kind == 255 ? 2 : 1;
  MARTLET_UNROLL for (int start = 0; start < quads; start += run)
    MARTLET_UNROLL for (int digit = 0; digit < digits_of_code; digit++) {
      i16x32 acc[MARTLET_PRODUCT_ROWS];
      MARTLET_UNROLL for (int r = 0; r < rows; r++) acc[r] = (i16x32)(0);
      MARTLET_UNROLL for (int i = start; i < start + run && i < quads; i++) {
        u32x16 w = codes[i];
        if (digits_of_code == 2) w = (digit == 0 ? w : w >> 4u) & 0x0F0F0F0Fu;
        MARTLET_UNROLL for (int r = 0; r < rows; r++)
          acc[r] = (i16x32)i32x16_here((i32x16)i16x32_dot_bytes(acc[r], w, broadcast_quad(in[r].low + (first + i) * 4)));
      }
      MARTLET_UNROLL for (int r = 0; r < rows; r++) sum[r] = i32x16_dot_i16(sum[r], (i32x16)acc[r], i32x16_set(digit == 0 ? 0x10001 : 0x100010));
    }
}

// The sums of four products.
MARTLET_INLINE i32x16 dot_quad(int kind, u32x16 codes, i32x16 digits) {
  const i16x32 zero = (i16x32)(0);
  const i32x16 none = i32x16_set(0), one = i32x16_set(0x10001), sixteen = i32x16_set(0x100010);
  if (kind < 255) return i32x16_dot_i16(none, (i32x16)i16x32_dot_bytes(zero, codes, digits), one);
  i32x16 low = i32x16_dot_i16(none, (i32x16)i16x32_dot_bytes(zero, codes & 0x0F0F0F0Fu, digits), one);
  return i32x16_dot_i16(low, (i32x16)i16x32_dot_bytes(zero, (codes >> 4u) & 0x0F0F0F0Fu, digits), sixteen);
}
#elif MARTLET_NEON
// Four lanes of acc + a · x + b · y, of signed bytes. Of codes of at most six bits 16 bits hold the sums of both, 4 · 63 · 127.
MARTLET_INLINE int32x4_t dot_two_quads(int32x4_t acc, int8x16_t a, int8x16_t x, int8x16_t b, int8x16_t y) {
  int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(x)), vget_low_s8(b), vget_low_s8(y));
  int16x8_t high = vmlal_high_s8(vmull_high_s8(a, x), b, y);
  return vpadalq_s16(acc, vpaddq_s16(low, high));
}

// The same of one quad: 2 · 128 · 127 < 2¹⁵.
MARTLET_INLINE int32x4_t dot_one_quad(int32x4_t acc, int8x16_t a, int8x16_t x) {
  return vpadalq_s16(acc, vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(x)), vmull_high_s8(a, x)));
}

#define MARTLET_OF_FOUR(v, part) ((int8x16_t)(v).part)
MARTLET_INLINE i32x16 i32x16_dot_one_quad(i32x16 acc, u32x16 codes, i32x16 digits) {
  acc.lo.lo = dot_one_quad(acc.lo.lo, MARTLET_OF_FOUR(codes, lo.lo), MARTLET_OF_FOUR(digits, lo.lo));
  acc.lo.hi = dot_one_quad(acc.lo.hi, MARTLET_OF_FOUR(codes, lo.hi), MARTLET_OF_FOUR(digits, lo.lo));
  acc.hi.lo = dot_one_quad(acc.hi.lo, MARTLET_OF_FOUR(codes, hi.lo), MARTLET_OF_FOUR(digits, lo.lo));
  acc.hi.hi = dot_one_quad(acc.hi.hi, MARTLET_OF_FOUR(codes, hi.hi), MARTLET_OF_FOUR(digits, lo.lo));
  return acc;
}

MARTLET_INLINE i32x16 i32x16_dot_two_quads(i32x16 acc, u32x16 a, i32x16 x, u32x16 b, i32x16 y) {
  int8x16_t p = MARTLET_OF_FOUR(x, lo.lo), q = MARTLET_OF_FOUR(y, lo.lo);
  acc.lo.lo = dot_two_quads(acc.lo.lo, MARTLET_OF_FOUR(a, lo.lo), p, MARTLET_OF_FOUR(b, lo.lo), q);
  acc.lo.hi = dot_two_quads(acc.lo.hi, MARTLET_OF_FOUR(a, lo.hi), p, MARTLET_OF_FOUR(b, lo.hi), q);
  acc.hi.lo = dot_two_quads(acc.hi.lo, MARTLET_OF_FOUR(a, hi.lo), p, MARTLET_OF_FOUR(b, hi.lo), q);
  acc.hi.hi = dot_two_quads(acc.hi.hi, MARTLET_OF_FOUR(a, hi.hi), p, MARTLET_OF_FOUR(b, hi.hi), q);
  return acc;
}
#undef MARTLET_OF_FOUR

MARTLET_INLINE void dot_quads(int kind, int rows, const u32x16 *codes, int quads, const martlet_int8_slab *in, int32_t first, i32x16 *sum) {
  MARTLET_UNROLL_PAIRS for (int i = 0; i < quads; i += 2) {
    u32x16 a = codes[i], b = codes[i + 1];
    MARTLET_UNROLL for (int r = 0; r < rows; r++) {
      i32x16 x = broadcast_quad(in[r].low + (first + i) * 4), y = broadcast_quad(in[r].low + (first + i + 1) * 4);
      if (kind < 255) sum[r] = i32x16_dot_two_quads(sum[r], a, x, b, y);
      else sum[r] = i32x16_dot_one_quad(i32x16_dot_one_quad(sum[r], a, x), b, y);
      sum[r] = i32x16_here(sum[r]);
    }
  }
}

MARTLET_INLINE i32x16 dot_quad(int kind, u32x16 codes, i32x16 digits) {
  return (void)kind, i32x16_dot_one_quad(i32x16_set(0), codes, digits);
}
#else
MARTLET_INLINE i32x16 i32x16_dot_bytes(i32x16 acc, u32x16 codes, i32x16 digits) {
#if MARTLET_VNNI
  return (i32x16)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)codes, (__m512i)digits);
#else
  for (uint32_t shift = 0; shift < 32; shift += 8) acc += (i32x16)(codes >> shift & 0xFFu) * ((i32x16)((u32x16)digits << (24 - shift)) >> 24);
  return acc;
#endif
}

MARTLET_INLINE void dot_quads(int kind, int rows, const u32x16 *codes, int quads, const martlet_int8_slab *in, int32_t first, i32x16 *sum) {
  (void)kind;
  MARTLET_UNROLL for (int i = 0; i < quads; i++) {
    u32x16 w = codes[i];
    MARTLET_UNROLL for (int r = 0; r < rows; r++)
      sum[r] = i32x16_here(i32x16_dot_bytes(sum[r], w, broadcast_quad(in[r].low + (first + i) * 4)));
  }
}

MARTLET_INLINE i32x16 dot_quad(int kind, u32x16 codes, i32x16 digits) { return (void)kind, i32x16_dot_bytes(i32x16_set(0), codes, digits); }
#endif

// Up to 8 blocks; asks for those of the slab that is `next`.
MARTLET_INLINE void unpack_int8_slab(int format, const uint8_t *slab, int32_t blocks, const uint8_t *next, int8_weights *unpacked) {
  const uint8_t *block = slab + slab_header_bytes(format);
  const int scales = scale_count(format);
  for (int32_t b = 0; b < blocks; b++, block += block_bytes(format)) {
    prefetch_block(format, next + (block - slab));
    MARTLET_UNROLL for (int quad = 0; quad < 8; quad++) {
      u32x16 codes = load_quad(format, block, quad);
      unpacked->quads[b * 8 + quad] = code_offset(format) != offset_of_bytes(format) ? codes ^ 0x80808080u : codes;
    }
    block_scales s = load_scales(format, slab, block);
    MARTLET_UNROLL for (int h = 0; h < scales; h++) {
      unpacked->scale[b * scales + h] = s.scale[h];
      unpacked->minimum[b * scales + h] = has_minimum(format) ? s.minimum[h] : s.scale[h] * (float)-offset_of_bytes(format);
    }
  }
}

// y[rows][16] += one slab for `rows` neighbouring tokens. Formats of one kind share it.
MARTLET_INLINE void tile_int8(int scales, int kind, int rows, const int8_weights *w, int32_t blocks, const martlet_int8_slab *in, float *y) {
  const int quads = 8 / scales;
  f32x16 p[MARTLET_PRODUCT_ROWS];
  MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_set(0);
  for (int32_t run = 0; run < blocks * scales; run++) {
    i32x16 sum[MARTLET_PRODUCT_ROWS];
    MARTLET_UNROLL for (int r = 0; r < rows; r++) sum[r] = i32x16_set(0);
    dot_quads(kind, rows, w->quads + run * quads, quads, in, run * quads, sum);
    MARTLET_UNROLL for (int r = 0; r < rows; r++) p[r] = f32x16_fma(w->scale[run], f32x16_from_i32(sum[r]), p[r]);
    MARTLET_UNROLL for (int r = 0; r < rows; r++)
      p[r] = f32x16_fma(w->minimum[run], f32x16_set(scales == 1 ? in[r].sums[run] : in[r].sums16[run]), p[r]);
  }
  MARTLET_UNROLL for (int r = 0; r < rows; r++) {
    f32x16 q = f32x16_set(0);
    MARTLET_UNROLL for (int i = 0; i < martlet_wide_quads; i++) {
      int place = in[r].places[i];
      q = f32x16_fma(w->scale[place / quads], f32x16_from_i32(dot_quad(kind, w->quads[place], broadcast_quad(in[r].high[i]))), q);
    }
    p[r] = f32x16_fma(f32x16_set(128), q, p[r]);
    f32x16_store(y + r * 16, f32x16_fma(f32x16_set(in[r].scale), p[r], f32x16_load(y + r * 16)));
  }
}

// All tokens of the task in tiles.
#define MARTLET_INT8_TILE(rows) tile_int8(scales, kind, rows, w, blocks, in + t, y + t * 16)
#define MARTLET_INT8_TILES(name, scales_of_block, kind_of_its_codes)                                                              \
  static void name(const int8_weights *w, int32_t blocks, const martlet_int8_slab *in, int32_t count, float *y) {                 \
    enum { scales = scales_of_block, kind = kind_of_its_codes };                                                                  \
    for (int32_t t = 0; t < count; t += MARTLET_PRODUCT_ROWS) MARTLET_TILE_SWITCH(count - t, MARTLET_INT8_TILE)                   \
  }
MARTLET_INT8_TILES(int8_tiles, 1, 255)
#if MARTLET_NEON
MARTLET_INT8_TILES(int8_tiles_up_to_63, 1, 63)
MARTLET_INT8_TILES(int8_tiles_with_two_scales, 2, 63)
#elif (MARTLET_AVX2 || MARTLET_AVX512) && !MARTLET_VNNI
MARTLET_INT8_TILES(int8_tiles_up_to_15, 1, 15)
MARTLET_INT8_TILES(int8_tiles_up_to_31, 1, 31)
MARTLET_INT8_TILES(int8_tiles_with_two_scales_up_to_31, 2, 31)
MARTLET_INT8_TILES(int8_tiles_with_two_scales, 2, 63)
#else
MARTLET_INT8_TILES(int8_tiles_with_two_scales, 2, 255)
#endif

MARTLET_INLINE void tiles_of_int8(int format, const int8_weights *w, int32_t blocks, const martlet_int8_slab *in, int32_t count, float *y) {
#if MARTLET_NEON
  if (scale_count(format) == 1 && kind_of_codes(format) == 63) return int8_tiles_up_to_63(w, blocks, in, count, y);
#elif (MARTLET_AVX2 || MARTLET_AVX512) && !MARTLET_VNNI
  if (scale_count(format) == 2 && kind_of_codes(format) == 31) return int8_tiles_with_two_scales_up_to_31(w, blocks, in, count, y);
  if (scale_count(format) == 1 && kind_of_codes(format) == 31) return int8_tiles_up_to_31(w, blocks, in, count, y);
  if (scale_count(format) == 1 && kind_of_codes(format) == 15) return int8_tiles_up_to_15(w, blocks, in, count, y);
#endif
  if (scale_count(format) == 2) return int8_tiles_with_two_scales(w, blocks, in, count, y);
  int8_tiles(w, blocks, in, count, y);
}

// The product of a task, for any number of tokens. Floats have none.
MARTLET_INLINE void product_int8(int format, const martlet_product_arguments *a, const martlet_product_part *part, int32_t first, int32_t end,
                                 int32_t token, int32_t count, void *scratch) {
  int8_weights *unpacked = scratch;
  float *sums = (float *)((uint8_t *)scratch + martlet_product_unpacked_bytes);  // [groups][tokens][16], or of few tokens those of one group
  const bool group_by_group = count <= MARTLET_FEW_ROWS;
  const int32_t slabs = (a->columns + martlet_product_slab - 1) / martlet_product_slab;
  const int64_t whole_slab = martlet_packed_group_bytes(format, martlet_product_slab) - group_header_bytes(format);
  __builtin_memset(sums, 0, (size_t)(group_by_group ? 1 : end - first) * (size_t)count * 16 * sizeof(float));
  int32_t group = first, index = 0;
  while (group < end && index < slabs) {
    int32_t inputs = a->columns - index * martlet_product_slab < martlet_product_slab ? a->columns - index * martlet_product_slab : martlet_product_slab;
    const uint8_t *slab = part->groups + group * part->group_bytes + group_header_bytes(format) + index * whole_slab;
    const uint8_t *next = group_by_group ? slab + whole_slab : next_slab(slab, whole_slab, part->group_bytes, group, first, end);
    unpack_int8_slab(format, slab, inputs / 32, next, unpacked);
    float *y = group_by_group ? sums : sums + (int64_t)(group - first) * count * 16;
    tiles_of_int8(format, unpacked, inputs / 32, (const martlet_int8_slab *)a->slabs + (int64_t)index * a->slab_stride + token, count, y);
    if (!group_by_group) {
      if (++group == end) group = first, index++;
    } else if (++index == slabs) {
      store_sums(format, a, part, group, group + 1, token, count, sums);
      __builtin_memset(sums, 0, (size_t)count * 16 * sizeof(float));
      index = 0, group++;
    }
  }
  if (!group_by_group) store_sums(format, a, part, first, end, token, count, sums);
}
