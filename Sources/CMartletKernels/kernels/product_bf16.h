// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Products in bfloat16 by AMX: inputs and weights are rounded to bfloat16, their products added in float32.
//
// The arithmetic of one output, the same for every number of tokens and threads, as the tiles have it (Intel's manual, TDPBF16PS):
//
//   weight = bf16(fma(scale, code + lift, base)), base = minimum − (offset + lift) · scale, lift = 128 or 256; of floats bf16(scale · value);
//            halves away from 0
//   y = 0
//   for each 32 inputs:  even = odd = 0
//     for each pair:     even = fma(input[2k], weight[2k], even); odd = fma(input[2k + 1], weight[2k + 1], odd)
//     y = y + (even + odd)
//   if the format has a factor for each row:  y = factor · y
//
// No scale is left to multiply sums with, which is what takes the time in product_tiles.h; what takes it here is to round the weights. So with up to two
// tiles of tokens a group's sums stay in tiles to the end, and vectors round a block while tiles multiply the one before; with more, a slab of all groups
// of a task is rounded once for all tokens.
//
// Tiles take subnormal numbers for 0, in their operands and sums.

// Two inputs of 16 rows as a row of a tile of weights: rounded to the nearest bfloat16, halves away from 0.
MARTLET_INLINE u16x32 rounded_pair(f32x16 even, f32x16 odd) {
  u32x16 low = (u32x16_bits(even) + 0x8000u) >> 16, high = u32x16_bits(odd) + 0x8000u;
  return (u16x32)(low | (high & 0xFFFF0000u));
}

// The lowest bit of a code in a float's fraction that stands above it: 2^(23 − bit) plus the code is a float without a conversion.
MARTLET_INLINE int bit_of_code(int format) { return greatest_raw_code(format) < 128 ? 16 : 15; }
MARTLET_INLINE float lift_of_code(int format) { return (float)(1 << (23 - bit_of_code(format))); }

// The codes of inputs 2·pair and 2·pair + 1, each plus lift_of_code.
MARTLET_INLINE void load_lifted_codes(int format, const uint8_t *block, int pair, f32x16 *even, f32x16 *odd) {
  const int bit = bit_of_code(format);
  const uint32_t lift = (uint32_t)(127 + 23 - bit) << 23;
  if (code_bits(format) == 4 && !table_of_codes(format)) {  // one instruction less than the other way
    u32x16 word = u32x16_load(block + block_header_bytes(format) + pair / 4 * 64);
    *even = f32x16_from_bits(((word << (uint32_t)(16 - pair % 4 * 4)) & 0xF0000u) | lift);
    *odd = f32x16_from_bits(((word >> (uint32_t)(pair % 4 * 4)) & 0xF0000u) | lift);
  } else {
    u32x16 codes = (u32x16)load_pair(format, block, pair);
    *even = f32x16_from_bits(((codes & 0xFFFFu) << (uint32_t)bit) | lift);
    *odd = f32x16_from_bits(((codes >> (uint32_t)(16 - bit)) & (0xFFFFu << bit)) | lift);
  }
}

// A block of 32 inputs of a slab.
MARTLET_INLINE void round_coded_block(int format, const uint8_t *slab, const uint8_t *block, u16x32 *pairs) {
  block_scales s = load_scales(format, slab, block);
  MARTLET_UNROLL for (int h = 0; h < scale_count(format); h++) {
    f32x16 below = f32x16_set(-(float)code_offset(format) - lift_of_code(format));
    f32x16 base = has_minimum(format) ? f32x16_fma(s.scale[h], below, s.minimum[h]) : s.scale[h] * below;
    MARTLET_UNROLL for (int i = 0; i < 16 / scale_count(format); i++) {
      int pair = h * 8 + i;
      f32x16 even, odd;
      load_lifted_codes(format, block, pair, &even, &odd);
      pairs[pair] = rounded_pair(f32x16_fma(s.scale[h], even, base), f32x16_fma(s.scale[h], odd, base));
    }
  }
}

// A float of a file as it may be rounded: of a NaN whose fraction is all ones the sum would pass the sign.
MARTLET_INLINE f32x16 quiet(f32x16 value) {
  i32x16 is_number = value == value;
  return f32x16_from_bits((u32x16)((i32x16)u32x16_bits(value) & is_number) | ((u32x16)~is_number & 0x7FC00000u));
}

// The same of `count` floats from value `first` of a run on; zeros fill up the 32.
MARTLET_INLINE void round_floats(int format, const uint8_t *run, int32_t first, int32_t count, u16x32 *pairs) {
  f32x16 scale = run_scale(format, run), zero = f32x16_set(0);
  const uint8_t *values = run + run_header_bytes(format);
  if (count == 32) {
    MARTLET_UNROLL for (int k = 0; k < 32; k += 2)
      pairs[k / 2] = rounded_pair(quiet(scale * load_floats(format, values, first + k)), quiet(scale * load_floats(format, values, first + k + 1)));
  } else {
    for (int k = 0; k < 32; k += 2)
      pairs[k / 2] = rounded_pair(k < count ? quiet(scale * load_floats(format, values, first + k)) : zero,
                                  k + 1 < count ? quiet(scale * load_floats(format, values, first + k + 1)) : zero);
  }
}

// Block `b` of a group's slab of `inputs` inputs. Asks for the same of the slab that is `next`.
MARTLET_INLINE void round_block(int format, const uint8_t *slab, int32_t b, int32_t inputs, const uint8_t *next, u16x32 *pairs) {
  if (is_float(format)) {
    // Runs begin at multiples of 32; a run that is cut short is a row's last.
    int32_t run = b * 32 / run_of_floats(format), first = b * 32 - run * run_of_floats(format), left = inputs - b * 32;
    int64_t bytes = martlet_packed_group_bytes(format, run_of_floats(format));
    __builtin_prefetch(next + run * bytes);
    round_floats(format, slab + run * bytes, first, left < 32 ? left : 32, pairs);
  } else {
    int64_t at = slab_header_bytes(format) + (int64_t)b * block_bytes(format);
    prefetch_block(format, next + at);
    round_coded_block(format, slab, slab + at, pairs);
  }
}

// Tiles 0 to 3 have sums, 4 and 5 inputs, 6 and 7 weights. Of at most two tiles of tokens, the first in 0 and 4, the second has what is left.
MARTLET_TILE_TARGET static __attribute__((noinline)) void configure_bf16_tiles(int32_t tokens) {
  tile_configuration c = {.palette = 1};
  int32_t second = tokens > MARTLET_TILE_ROWS ? tokens - MARTLET_TILE_ROWS : MARTLET_TILE_ROWS;
  if (tokens > MARTLET_TILE_ROWS) tokens = MARTLET_TILE_ROWS;
  for (int i = 0; i < 8; i++) c.column_bytes[i] = 64, c.rows[i] = (uint8_t)(i >= 6 ? 16 : i == 1 || i == 5 ? second : tokens);
  _tile_loadconfig(&c);
}

// y[group][token][16] += one slab, for one or two groups and one or two tiles of tokens.
MARTLET_TILE_TARGET MARTLET_INLINE void multiply_bf16(bool two_groups, bool two_tiles, const u16x32 *weights, int32_t blocks,
                                                      const martlet_bf16_slab *in, int64_t group_stride, float *y) {
  const size_t stride = sizeof(martlet_bf16_slab);
  const uint16_t *first = in->values, *second = in[MARTLET_TILE_ROWS].values;
  float *z = y + group_stride;
  _tile_loadd(0, y, 64);
  if (two_tiles) _tile_loadd(1, y + 256, 64);
  if (two_groups) _tile_loadd(2, z, 64);
  if (two_groups && two_tiles) _tile_loadd(3, z + 256, 64);
  for (int32_t b = 0; b < blocks; b++) {
    _tile_loadd(6, weights + b * 16, 64);
    _tile_loadd(4, first + b * 32, stride);
    _tile_dpbf16ps(0, 4, 6);
    if (two_tiles) {
      _tile_loadd(5, second + b * 32, stride);
      _tile_dpbf16ps(1, 5, 6);
    }
    if (two_groups) {
      _tile_loadd(7, weights + 128 + b * 16, 64);
      _tile_dpbf16ps(2, 4, 7);
    }
    if (two_groups && two_tiles) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, y, 64);
  if (two_tiles) _tile_stored(1, y + 256, 64);
  if (two_groups) _tile_stored(2, z, 64);
  if (two_groups && two_tiles) _tile_stored(3, z + 256, 64);
}

// y[groups][count][16] += one slab.
MARTLET_TILE_TARGET static __attribute__((noinline)) void multiply_bf16_slab(const u16x32 *weights, int32_t blocks, int32_t groups,
                                                                             const martlet_bf16_slab *in, int32_t count, float *y) {
  int64_t stride = (int64_t)count * 16;
  int32_t t = 0;
  if (count >= MARTLET_TILE_ROWS) configure_bf16_tiles(MARTLET_TILE_ROWS);
  for (; t + 2 * MARTLET_TILE_ROWS <= count; t += 2 * MARTLET_TILE_ROWS) {
    int32_t g = 0;
    for (; g + 2 <= groups; g += 2) multiply_bf16(true, true, weights + g * 128, blocks, in + t, stride, y + g * stride + t * 16);
    if (g < groups) multiply_bf16(false, true, weights + g * 128, blocks, in + t, stride, y + g * stride + t * 16);
  }
  for (; t < count; t += MARTLET_TILE_ROWS) {
    if (count - t < MARTLET_TILE_ROWS) configure_bf16_tiles(count - t);
    int32_t g = 0;
    for (; g + 2 <= groups; g += 2) multiply_bf16(true, false, weights + g * 128, blocks, in + t, stride, y + g * stride + t * 16);
    if (g < groups) multiply_bf16(false, false, weights + g * 128, blocks, in + t, stride, y + g * stride + t * 16);
  }
}

// A group's product with at most two tiles of tokens: sums[count][16]. Its sums stay in tiles to the end; while tiles multiply a block, vectors unpack
// the next.
MARTLET_TILE_TARGET MARTLET_INLINE void multiply_group(int format, const martlet_product_arguments *a, const uint8_t *group, const uint8_t *next_group,
                                                       int32_t token, int32_t count, u16x32 *weights, float *sums) {
  const size_t stride = sizeof(martlet_bf16_slab);
  const martlet_bf16_slab *in = (const martlet_bf16_slab *)a->slabs + token;
  const uint8_t *slab = group + group_header_bytes(format);
  bool two = count > MARTLET_TILE_ROWS;
  _tile_zero(0), _tile_zero(1);
  int odd = 0;
  for (int32_t start = 0; start < a->columns; start += martlet_product_slab, in += a->slab_stride) {
    int32_t inputs = a->columns - start < martlet_product_slab ? a->columns - start : martlet_product_slab;
    int64_t slab_bytes = martlet_packed_group_bytes(format, inputs) - group_header_bytes(format);
    const uint8_t *next = start + inputs < a->columns ? slab + slab_bytes : next_group;
    for (int32_t b = 0; b * 32 < inputs; b++, odd ^= 16) {
      round_block(format, slab, b, inputs, next, weights + odd);
      _tile_loadd(6, weights + odd, 64);
      _tile_loadd(4, in->values + b * 32, stride);
      _tile_dpbf16ps(0, 4, 6);
      if (two) {
        _tile_loadd(5, in[MARTLET_TILE_ROWS].values + b * 32, stride);
        _tile_dpbf16ps(1, 5, 6);
      }
    }
    slab += slab_bytes;
  }
  _tile_stored(0, sums, 64);
  if (two) _tile_stored(1, sums + MARTLET_TILE_ROWS * 16, 64);
}

// The product of a task, for any number of tokens and any format.
MARTLET_TILE_TARGET MARTLET_INLINE void rounded(int format, const martlet_product_arguments *a, const martlet_product_part *part, int32_t first,
                                                int32_t end, int32_t token, int32_t count, void *scratch) {
  u16x32 *weights = scratch;  // [groups][128]
  float *sums = (float *)((uint8_t *)scratch + (size_t)(end - first) * martlet_product_unpacked_bytes);  // [groups][tokens][16]
  int32_t groups = end - first;
  if (count <= 2 * MARTLET_TILE_ROWS) {
    configure_bf16_tiles(count);
    for (int32_t group = 0; group < groups; group++) {
      const uint8_t *packed = part->groups + (first + group) * part->group_bytes;
      multiply_group(format, a, packed, packed + part->group_bytes, token, count, weights, sums + (int64_t)group * count * 16);
    }
  } else {
    __builtin_memset(sums, 0, (size_t)groups * (size_t)count * 16 * sizeof(float));
    int64_t offset = group_header_bytes(format);
    for (int32_t start = 0, index = 0; start < a->columns; start += martlet_product_slab, index++) {
      int32_t inputs = a->columns - start < martlet_product_slab ? a->columns - start : martlet_product_slab;
      int64_t slab_bytes = martlet_packed_group_bytes(format, inputs) - group_header_bytes(format);
      for (int32_t group = 0; group < groups; group++) {
        const uint8_t *slab = part->groups + (first + group) * part->group_bytes + offset;
        const uint8_t *next = next_slab(slab, slab_bytes, part->group_bytes, group, 0, groups);
        for (int32_t b = 0; b * 32 < inputs; b++) round_block(format, slab, b, inputs, next, weights + group * 128 + b * 16);
      }
      multiply_bf16_slab(weights, (inputs + 31) / 32, groups, (const martlet_bf16_slab *)a->slabs + (int64_t)index * a->slab_stride + token, count, sums);
      offset += slab_bytes;
    }
  }
  release_tiles();
  store_sums(format, a, part, first, end, token, count, sums);
}

#define MARTLET_ROUNDED_OF(name) MARTLET_TILE_PRODUCT_OF(rounded, name)
MARTLET_EACH_FORMAT(MARTLET_ROUNDED_OF)
