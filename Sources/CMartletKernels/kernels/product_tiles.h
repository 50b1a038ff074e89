// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Products of many tokens by AMX: one instruction multiplies 16 tokens × 32 inputs with 32 inputs × 16 rows of bfloat16, and adds in float32.
//
// The bits are those of product.h. The digits of an input and the codes of a weight are integers that bfloat16 has exactly; their products, and the sums
// of those, are integers, and exact in float32 as long as none passes 2²⁴. Of most formats none does: 32 · 16 · 32767 < 2²⁴. Of the others
// high digits, multiples of 256, and low ones have sums of their own, whose sum rounds once, as the integer does when it becomes a float.
//
// A step is what one scale covers: 32 inputs, or 16. Its turn loads the weights and both digits, multiplies, and stores the sums of the turn before,
// so that vectors finish the sums of one turn while tiles multiply two others. Turns run on from tile to tile and from group to group:
// a pipe that runs dry costs as much as two turns.

// One block of a group: the rows of a tile of weights, and its scales.
typedef struct tile_block {
  _Alignas(64) u16x32 pairs[16];  // code − offset as bfloat16
  block_scales scales;
} tile_block;

_Static_assert(sizeof(tile_block) * 8 <= martlet_product_unpacked_bytes, "the scratch memory holds a slab of each group");

// The sums of a turn: 16 tokens × 16 rows, of all digits or of the high ones, and of the low ones.
typedef struct tile_sums {
  _Alignas(64) float values[2][16][16];
} tile_sums;

// What _tile_loadconfig reads.
typedef struct tile_configuration {
  uint8_t palette, start_row, reserved[14];
  uint16_t column_bytes[16];
  uint8_t rows[16];
} tile_configuration;

// Tokens of a tile.
#define MARTLET_TILE_ROWS 16

// The greatest |code − offset|.
MARTLET_INLINE int greatest_code(int format) {
  switch (format) {
    case martlet_weight_mxfp4:
    case martlet_weight_nvfp4: return 12;
    case martlet_weight_iq4_nl: return 127;
    default: return code_offset(format) ? code_offset(format) : (1 << code_bits(format)) - 1;
  }
}

// Whether digits need two sums, so that all stay exact. (The high digit of −32767 is −32768.)
MARTLET_INLINE bool has_two_sums(int format) { return (32 / scale_count(format)) * greatest_code(format) > (1 << 24) / 32768; }

// The weights that codes say, code − offset, as bfloat16.
typedef struct code_values {
  u16x32 first, second;  // of the codes 0 to 31, and 32 to 63
} code_values;

MARTLET_INLINE code_values values_of_codes(int format) {
  code_values values;
  for (int i = 0; i < 64; i++) {
    float value = (float)(i - code_offset(format));
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    if (i < 32) values.first[i] = (uint16_t)(bits >> 16);
    else values.second[i - 32] = (uint16_t)(bits >> 16);
  }
  return values;
}

// A block of a slab; asks for the same of the slab that is `next`.
MARTLET_INLINE void unpack_tile_block(int format, const uint8_t *slab, int32_t b, const uint8_t *next, code_values values,
                                      tile_block *unpacked) {
  int64_t at = slab_header_bytes(format) + (int64_t)b * block_bytes(format);
  const uint8_t *block = slab + at;
  int offset = code_offset(format), bits = table_of_codes(format) && greatest_code(format) < 16 ? 5 : code_bits(format);
  prefetch_block(format, next + at);
  MARTLET_UNROLL for (int pair = 0; pair < 16; pair++) {
    i32x16 codes = load_pair(format, block, pair);
    if (bits <= 5 && greatest_code(format) < 32) {
      unpacked->pairs[pair] = (u16x32)_mm512_permutexvar_epi16((__m512i)codes, (__m512i)values.first);
    } else if (bits == 6) {
      unpacked->pairs[pair] = (u16x32)_mm512_permutex2var_epi16((__m512i)values.first, (__m512i)codes, (__m512i)values.second);
    } else {
      i32x16 low = (codes & 0xFFFF) - offset, high = (i32x16)((u32x16)codes >> 16) - offset;
      unpacked->pairs[pair] = (u16x32)(u32x16_bits(f32x16_from_i32(low)) >> 16 | (u32x16_bits(f32x16_from_i32(high)) & 0xFFFF0000u));
    }
  }
  unpacked->scales = load_scales(format, slab, block);
}

// Tile registers. With one sum a turn uses 0, 4, 5 and 6 or, the next, 2, 1, 3 and 7; with two, sums 0 and 1 or 2 and 3, digits 4 and 5, weights 6.
MARTLET_TILE_TARGET static __attribute__((noinline)) void configure_tiles(int scales, bool two_sums, int32_t rows) {
  tile_configuration c = {.palette = 1};
  int step_bytes = 64 / scales;
  for (int i = 0; i < 8; i++) {
    bool weights = i >= 6, digits = i == 4 || i == 5 || (!two_sums && (i == 1 || i == 3));
    c.column_bytes[i] = (uint16_t)(digits ? step_bytes : 64);
    c.rows[i] = (uint8_t)(weights ? step_bytes / 4 : rows);
  }
  _tile_loadconfig(&c);
}

MARTLET_TILE_TARGET static __attribute__((noinline)) void release_tiles(void) { _tile_release(); }

// The first token of the tile that begins with token t: the last of several begins sooner, so that it is whole.
MARTLET_INLINE int32_t first_of_tile(int32_t t, int32_t count) {
  return t + MARTLET_TILE_ROWS <= count ? t : count - MARTLET_TILE_ROWS;
}

// p += what a turn, the slab's step `step`, has added up of its block. Of the 16 rows `valid` exist.
MARTLET_TILE_TARGET MARTLET_INLINE void finish_turn(int scales, bool minimum, bool two_sums, int32_t valid, const tile_sums *sums,
                                                    const tile_block *block, int step, const martlet_digit_slab *in, f32x16 *p) {
  int h = step % scales;
  f32x16 scale = block->scales.scale[h], least = block->scales.minimum[h];
  MARTLET_UNROLL for (int r = 0; r < MARTLET_TILE_ROWS; r++) {
    f32x16 sum = f32x16_load(sums->values[0][r]);
    if (two_sums) sum += f32x16_load(sums->values[1][r]);
    p[r] = f32x16_fma(scale, sum, p[r]);
    if (minimum) {
      const martlet_digit_slab *row = in + (r < valid ? r : 0);
      p[r] = f32x16_fma(least, f32x16_set(scales == 1 ? row->sums[step] : (float)row->sums16[step]), p[r]);
    }
  }
}

// Multiplies the digits of a step with its weights; even and odd turns use tiles of their own.
MARTLET_TILE_TARGET MARTLET_INLINE void multiply_turn(bool two_sums, bool odd, const uint16_t *digits, const void *weights) {
  const size_t stride = sizeof(martlet_digit_slab);
  if (two_sums) {
    _tile_loadd(6, weights, 64), _tile_loadd(4, digits, stride), _tile_loadd(5, digits + 32, stride);
    if (odd) _tile_zero(2), _tile_zero(3), _tile_dpbf16ps(2, 4, 6), _tile_dpbf16ps(3, 5, 6);
    else _tile_zero(0), _tile_zero(1), _tile_dpbf16ps(0, 4, 6), _tile_dpbf16ps(1, 5, 6);
  } else if (odd) {
    _tile_loadd(7, weights, 64), _tile_loadd(1, digits, stride), _tile_loadd(3, digits + 32, stride);
    _tile_zero(2), _tile_dpbf16ps(2, 1, 7), _tile_dpbf16ps(2, 3, 7);
  } else {
    _tile_loadd(6, weights, 64), _tile_loadd(4, digits, stride), _tile_loadd(5, digits + 32, stride);
    _tile_zero(0), _tile_dpbf16ps(0, 4, 6), _tile_dpbf16ps(0, 5, 6);
  }
}

MARTLET_TILE_TARGET MARTLET_INLINE void store_turn(bool two_sums, bool odd, tile_sums *sums) {
  if (odd) _tile_stored(2, sums->values[0], 64);
  else _tile_stored(0, sums->values[0], 64);
  if (two_sums && odd) _tile_stored(3, sums->values[1], 64);
  if (two_sums && !odd) _tile_stored(1, sums->values[1], 64);
}

// y[group][token][16] += one slab of `groups` unpacked groups for `count` tokens, at least a tile.
MARTLET_TILE_TARGET MARTLET_INLINE void multiply_tiles(int scales, bool minimum, bool two_sums, const tile_block *unpacked, int32_t blocks,
                                                       int32_t groups, const martlet_digit_slab *slabs, int32_t count, float *y) {
  tile_sums sums[2];
  const int steps = blocks * scales;
  // The turn that is multiplied next, two ahead of the one that is finished.
  int32_t next_token = 0, next_group = 0;
  int next_step = 0;
  const martlet_digit_slab *next_in = slabs + first_of_tile(0, count);
  const tile_block *next_block = unpacked;
#define MARTLET_MULTIPLY(odd) \
  do { \
    multiply_turn(two_sums, odd, next_in->digits + next_step / scales * 64 + next_step % scales * 16, \
                  next_block[next_step / scales].pairs + next_step % scales * (16 / scales)); \
    if (++next_step == steps) { \
      next_step = 0; \
      if (++next_group == groups) next_group = 0, next_token = next_token + MARTLET_TILE_ROWS < count ? next_token + MARTLET_TILE_ROWS : 0; \
      next_in = slabs + first_of_tile(next_token, count), next_block = unpacked + next_group * 8; \
    } \
  } while (0)
  MARTLET_MULTIPLY(false);
  MARTLET_MULTIPLY(true);
  store_turn(two_sums, false, sums);
  bool is_odd = false;
  // Tile by tile, so that its digits stay in the first cache while the groups' weights come from the second.
  for (int32_t t = 0; t < count; t += MARTLET_TILE_ROWS) {
    int32_t first = first_of_tile(t, count), valid = count - first;
    const martlet_digit_slab *in = slabs + first;
    for (int32_t group = 0; group < groups; group++) {
      const tile_block *block = unpacked + group * 8;
      f32x16 p[MARTLET_TILE_ROWS];
      MARTLET_UNROLL for (int r = 0; r < MARTLET_TILE_ROWS; r++) p[r] = f32x16_set(0);
      for (int step = 0; step < steps; step++) {
        if (is_odd) {
          MARTLET_MULTIPLY(true);
          store_turn(two_sums, false, sums);
          finish_turn(scales, minimum, two_sums, MARTLET_TILE_ROWS, sums + 1, block + step / scales, step, in, p);
        } else {
          MARTLET_MULTIPLY(false);
          store_turn(two_sums, true, sums + 1);
          finish_turn(scales, minimum, two_sums, MARTLET_TILE_ROWS, sums, block + step / scales, step, in, p);
        }
        is_odd = !is_odd;
      }
      // Rows before t were the tile's before.
      float *z = y + ((int64_t)group * count + first) * 16;
      MARTLET_UNROLL for (int r = 0; r < MARTLET_TILE_ROWS; r++)
        if (r >= t - first && r < valid) f32x16_store(z + r * 16, f32x16_fma(f32x16_set(in[r].scale), p[r], f32x16_load(z + r * 16)));
    }
  }
#undef MARTLET_MULTIPLY
}

// Formats of one kind share it.
#define MARTLET_TILES_OF(name, scales, minimum, two_sums)                                                                            \
  MARTLET_TILE_TARGET static __attribute__((noinline)) void name(const tile_block *unpacked, int32_t blocks, int32_t groups,         \
                                                                 const martlet_digit_slab *slabs, int32_t count, float *y) {         \
    multiply_tiles(scales, minimum, two_sums, unpacked, blocks, groups, slabs, count, y);                                            \
  }
MARTLET_TILES_OF(digit_tiles, 1, false, false)
MARTLET_TILES_OF(digit_tiles_with_minimum, 1, true, false)
MARTLET_TILES_OF(digit_tiles_with_two_scales, 2, false, false)
MARTLET_TILES_OF(digit_tiles_with_two_of_both, 2, true, false)
MARTLET_TILES_OF(digit_tiles_with_two_sums, 1, false, true)
MARTLET_TILES_OF(digit_tiles_with_minimum_and_two_sums, 1, true, true)

// One group for at most a tile of tokens, y[count][16]: while tiles multiply a turn, vectors finish the one before the last and unpack the next block,
// which takes as long.
MARTLET_TILE_TARGET MARTLET_INLINE void digits_of_group(int format, const martlet_product_arguments *a, const uint8_t *group, int64_t group_bytes,
                                                        int32_t token, int32_t count, float *y) {
  const int scales = scale_count(format), turns_of_slab = 8 * scales;
  const bool two_sums = has_two_sums(format);
  const code_values values = values_of_codes(format);
  tile_block ring[4];
  tile_sums sums[2];
  if (count < MARTLET_TILE_ROWS) __builtin_memset(sums, 0, sizeof sums);  // rows that do not exist are added up, too
  const martlet_digit_slab *slabs = (const martlet_digit_slab *)a->slabs + token, *finished = slabs;
  const uint8_t *slab = group + group_header_bytes(format);
  const int64_t slab_bytes = martlet_packed_group_bytes(format, martlet_product_slab) - group_header_bytes(format);
  const int32_t blocks = a->columns / 32, turns = blocks * scales;
  f32x16 p[MARTLET_TILE_ROWS];
  MARTLET_UNROLL for (int r = 0; r < MARTLET_TILE_ROWS; r++) p[r] = f32x16_set(0);
  unpack_tile_block(format, slab, 0, slab + slab_bytes, values, ring);
  for (int32_t turn = 0; turn < turns + 2; turn++) {
    if (turn < turns) {
      const uint16_t *digits = (slabs + turn / turns_of_slab * (int64_t)a->slab_stride)->digits + turn / scales % 8 * 64 + turn % scales * 16;
      const void *weights = ring[turn / scales % 4].pairs + turn % scales * (16 / scales);
      if (turn % 2) multiply_turn(two_sums, true, digits, weights);
      else multiply_turn(two_sums, false, digits, weights);
    }
    if (turn >= 1 && turn <= turns) {
      if (turn % 2) store_turn(two_sums, false, sums);
      else store_turn(two_sums, true, sums + 1);
    }
    if (turn >= 2) {
      int32_t last = turn - 2;
      finish_turn(scales, has_minimum(format), two_sums, count, sums + last % 2, ring + last / scales % 4, last % turns_of_slab, finished, p);
      if (last % turns_of_slab == turns_of_slab - 1 || last == turns - 1) {
        MARTLET_UNROLL for (int r = 0; r < MARTLET_TILE_ROWS; r++) {
          if (r < count) f32x16_store(y + r * 16, f32x16_fma(f32x16_set(finished[r].scale), p[r], f32x16_load(y + r * 16)));
          p[r] = f32x16_set(0);
        }
        finished += a->slab_stride;
      }
    }
    int32_t next = turn / scales + 1;
    if (turn % scales == scales - 1 && next < blocks) {
      if (next % 8 == 0) slab += slab_bytes;
      const uint8_t *ahead = next / 8 * 8 + 8 < blocks ? slab + slab_bytes : group + group_bytes + group_header_bytes(format);
      unpack_tile_block(format, slab, next % 8, ahead, values, ring + next % 4);
    }
  }
}

// The product of a task with digits, for any number of tokens. Floats have none.
MARTLET_TILE_TARGET MARTLET_INLINE void digits(int format, const martlet_product_arguments *a, const martlet_product_part *part, int32_t first,
                                               int32_t end, int32_t token, int32_t count, void *scratch) {
  if (is_float(format)) return;
  tile_block *unpacked = scratch;  // [groups][8]
  float *sums = (float *)((uint8_t *)scratch + (size_t)(end - first) * martlet_product_unpacked_bytes);  // [groups][tokens][16]
  int32_t groups = end - first;
  __builtin_memset(sums, 0, (size_t)groups * (size_t)count * 16 * sizeof(float));
  configure_tiles(scale_count(format), has_two_sums(format), count < MARTLET_TILE_ROWS ? count : MARTLET_TILE_ROWS);
  if (count <= MARTLET_TILE_ROWS) {
    for (int32_t group = 0; group < groups; group++)
      digits_of_group(format, a, part->groups + (first + group) * part->group_bytes, part->group_bytes, token, count,
                      sums + (int64_t)group * count * 16);
  } else {
    // The slabs of all groups are unpacked before they are multiplied, so that a tile's digits are read once for all of them.
    const code_values values = values_of_codes(format);
    int64_t offset = group_header_bytes(format);
    for (int32_t start = 0, index = 0; start < a->columns; start += martlet_product_slab, index++) {
      int32_t inputs = a->columns - start < martlet_product_slab ? a->columns - start : martlet_product_slab, blocks = inputs / 32;
      int64_t slab_bytes = martlet_packed_group_bytes(format, inputs) - group_header_bytes(format);
      for (int32_t group = 0; group < groups; group++) {
        const uint8_t *slab = part->groups + (first + group) * part->group_bytes + offset;
        const uint8_t *next = next_slab(slab, slab_bytes, part->group_bytes, group, 0, groups);
        for (int32_t b = 0; b < blocks; b++) unpack_tile_block(format, slab, b, next, values, unpacked + group * 8 + b);
      }
      const martlet_digit_slab *in = (const martlet_digit_slab *)a->slabs + (int64_t)index * a->slab_stride + token;
      bool minimum = has_minimum(format);
      if (scale_count(format) == 2 && minimum) digit_tiles_with_two_of_both(unpacked, blocks, groups, in, count, sums);
      else if (scale_count(format) == 2) digit_tiles_with_two_scales(unpacked, blocks, groups, in, count, sums);
      else if (has_two_sums(format) && minimum) digit_tiles_with_minimum_and_two_sums(unpacked, blocks, groups, in, count, sums);
      else if (has_two_sums(format)) digit_tiles_with_two_sums(unpacked, blocks, groups, in, count, sums);
      else if (minimum) digit_tiles_with_minimum(unpacked, blocks, groups, in, count, sums);
      else digit_tiles(unpacked, blocks, groups, in, count, sums);
      offset += slab_bytes;
    }
  }
  release_tiles();
  store_sums(format, a, part, first, end, token, count, sums);
}

// digits_q4_0(…) and its like, of a function that takes the format first.
#define MARTLET_TILE_PRODUCT_OF(function, name)                                                                                                    \
  MARTLET_TILE_TARGET static __attribute__((noinline)) void function##_##name(const martlet_product_arguments *a, const martlet_product_part *part, \
                                                                              int32_t first, int32_t end, int32_t token, int32_t count,            \
                                                                              void *scratch) {                                                     \
    function(martlet_weight_##name, a, part, first, end, token, count, scratch);                                                                   \
  }
#define MARTLET_DIGITS_OF(name) MARTLET_TILE_PRODUCT_OF(digits, name)
MARTLET_EACH_FORMAT(MARTLET_DIGITS_OF)
