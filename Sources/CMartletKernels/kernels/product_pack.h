// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Between a GGUF row and a lane of a packed group: packing when a model is loaded, and reading one row back for an embedding.
//
// Only the order of the codes changes (and bytes are biased by 128), so that both directions are exact. Groups of 16 rows are packed at once
// (`product_rows.h`); the way of one row, code by code, is for a last group that has fewer and for blocks whose scales lie apart.

// One block of 32 inputs of one row.
typedef struct row_block {
  uint8_t codes[32];
  uint16_t scale, minimum;                  // halves, of the 256 inputs in the formats with K
  uint8_t scale_code[2], minimum_code[2];   // formats with K; NVFP4's scales; MXFP4's exponent is the first scale code
} row_block;

// A block of MXFP4: an exponent, then 16 bytes whose low nibbles are inputs 0…15, high ones 16…31. With the exponent apart, each byte is two neighbours.
MARTLET_INLINE row_block read_mxfp4_block(const uint8_t *block, const uint8_t *exponent) {
  row_block b = {.scale_code = {exponent ? *exponent : *block}};
  for (int i = 0; i < 16; i++) {
    if (exponent) b.codes[2 * i] = block[i] & 15, b.codes[2 * i + 1] = block[i] >> 4;
    else b.codes[i] = block[1 + i] & 15, b.codes[i + 16] = block[1 + i] >> 4;
  }
  return b;
}

// Half a block of NVFP4: four scales, then for each 8 bytes whose low nibbles are inputs 0…7, high ones 8…15. With the scales apart, each byte is two
// neighbours.
//
// GGUF's scales have no sign, whatever the bit says, and 0x7F is 0; those apart are e4m3, and a NaN among them is the row's factor (`pack_row_factors`).
MARTLET_INLINE row_block read_nvfp4_block(const uint8_t *block, int half, const uint8_t *scales) {
  row_block b = {};
  for (int h = 0; h < 2; h++) {
    const uint8_t *p = scales ? block + (2 * half + h) * 8 : block + 4 + (2 * half + h) * 8;
    uint8_t scale = scales ? scales[2 * half + h] : block[2 * half + h];
    b.scale_code[h] = scales ? scale : scale == 0x7F ? 0 : scale & 0x7F;
    for (int i = 0; i < 8; i++) {
      if (scales) b.codes[16 * h + 2 * i] = p[i] & 15, b.codes[16 * h + 2 * i + 1] = p[i] >> 4;
      else b.codes[16 * h + i] = p[i] & 15, b.codes[16 * h + 8 + i] = p[i] >> 4;
    }
  }
  return b;
}

// Block `index` of a row as GGUF lays it out.
MARTLET_INLINE row_block read_file_block(int format, const uint8_t *row, int index) {
  row_block b = {};
  switch (format) {
    case martlet_weight_q4_0:  // d, 16 bytes: low nibbles are inputs 0…15, high ones 16…31
    case martlet_weight_iq4_nl:  // the same
    case martlet_weight_q4_1:    // d, m, the same
    case martlet_weight_q5_0:    // d, 32 fifth bits, the same
    case martlet_weight_q5_1: {  // d, m, 32 fifth bits, the same
      int halves = has_minimum(format) ? 4 : 2, header = halves + (code_bits(format) == 5 ? 4 : 0);
      const uint8_t *p = row + index * (header + 16);
      b.scale = load_u16(p);
      if (has_minimum(format)) b.minimum = load_u16(p + 2);
      uint32_t fifth = code_bits(format) == 5 ? load_u32(p + halves) : 0;
      for (int i = 0; i < 16; i++) {
        b.codes[i] = (uint8_t)((p[header + i] & 15) | ((fifth >> i & 1) << 4));
        b.codes[i + 16] = (uint8_t)((p[header + i] >> 4) | ((fifth >> (i + 16) & 1) << 4));
      }
      break;
    }
    case martlet_weight_q8_0: {  // d, 32 signed bytes
      const uint8_t *p = row + index * 34;
      b.scale = load_u16(p);
      for (int i = 0; i < 32; i++) b.codes[i] = p[2 + i] ^ 0x80;
      break;
    }
    case martlet_weight_q2_k: {  // 16 bytes of scale and minimum, 2 times 32 bytes: lowest bit pairs a block, next the next, d, dmin
      int j = index % 8;
      const uint8_t *p = row + index / 8 * 84, *q = p + 16 + j / 4 * 32;
      b.scale = load_u16(p + 80);
      b.minimum = load_u16(p + 82);
      for (int h = 0; h < 2; h++) b.scale_code[h] = p[2 * j + h] & 15, b.minimum_code[h] = p[2 * j + h] >> 4;
      for (int i = 0; i < 32; i++) b.codes[i] = q[i] >> (j % 4 * 2) & 3;
      break;
    }
    case martlet_weight_q3_k: {  // 32 bytes of third bits: bit j for block j, 64 of bit pairs as in Q2_K, 12 of 6-bit scales, d
      int j = index % 8;
      const uint8_t *p = row + index / 8 * 110, *q = p + 32 + j / 4 * 32, *s = p + 96;
      b.scale = load_u16(p + 108);
      for (int h = 0; h < 2; h++) {  // scale n: nibble n of the 8 bytes' low, then high nibbles; bits 5 and 6 are pair n / 4 of byte n % 4
        int n = 2 * j + h, low = n < 8 ? s[n] & 15 : s[n - 8] >> 4, high = s[8 + n % 4] >> (n / 4 * 2) & 3;
        b.scale_code[h] = (uint8_t)((low | high << 4) - 32);
      }
      for (int i = 0; i < 32; i++) b.codes[i] = (uint8_t)((q[i] >> (j % 4 * 2) & 3) | (p[i] >> j & 1) << 2);
      break;
    }
    case martlet_weight_q4_k:    // d, dmin, 12 bytes of 6-bit scales and minimums, 4 times 32 bytes: low nibbles a block, high the next
    case martlet_weight_q5_k: {  // the same, and before the nibbles 32 bytes of fifth bits: bit j for block j
      int fifths = code_bits(format) == 5 ? 32 : 0, j = index % 8;
      const uint8_t *p = row + index / 8 * (144 + fifths), *s = p + 4, *q = p + 16 + fifths + j / 2 * 32;
      b.scale = load_u16(p);
      b.minimum = load_u16(p + 2);
      b.scale_code[0] = (uint8_t)(j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6 << 4));
      b.minimum_code[0] = (uint8_t)(j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6 << 4));
      for (int i = 0; i < 32; i++) {
        b.codes[i] = j % 2 == 0 ? q[i] & 15 : q[i] >> 4;
        if (fifths > 0) b.codes[i] |= (uint8_t)((p[16 + i] >> j & 1) << 4);
      }
      break;
    }
    case martlet_weight_q6_k: {  // 128 bytes of nibbles, 64 of bits 5 and 6, 16 signed scales, d; each half of 128 inputs alike
      int half = index % 8 / 4, quarter = index % 4;
      const uint8_t *p = row + index / 8 * 210, *low = p + half * 64 + quarter % 2 * 32, *high = p + 128 + half * 32;
      b.scale = load_u16(p + 208);
      b.scale_code[0] = p[192 + index % 8 * 2];
      b.scale_code[1] = p[192 + index % 8 * 2 + 1];
      for (int i = 0; i < 32; i++)
        b.codes[i] = (uint8_t)((quarter < 2 ? low[i] & 15 : low[i] >> 4) | ((high[i] >> (2 * quarter) & 3) << 4));
      break;
    }
  }
  return b;
}

// The low nibbles of 8 codes as one word: even codes in the low half, odd codes in the high half.
//
// Even codes are the fields at bits 0, 16, 32, 48; the product moves field i to bit 48 + 4i. No two of its terms overlap below it, so
// that nothing carries.
MARTLET_INLINE uint32_t nibble_word(uint64_t codes) {
  const uint64_t mask = 0x000F000F000F000F, gather = 1ull << 48 | 1ull << 36 | 1ull << 24 | 1ull << 12;
  uint64_t even = (codes & mask) * gather >> 48, odd = (codes >> 8 & mask) * gather >> 48;
  return (uint32_t)(even | odd << 16);
}

// Writes one lane of the words that load_even_fields reads; `bit` is where the fields lie in the codes.
MARTLET_INLINE void write_even_fields(int width, int bit, uint8_t *words, const uint8_t *codes) {
  for (int i = 0; i < width; i++) {
    uint32_t word = 0;
    if (width == 4) {  // most of what there is to pack
      word = nibble_word(load_u64(codes + 8 * i));
    } else {
      for (int k = 0; k < 32 / width; k++)
        word |= (uint32_t)(codes[i * (32 / width) + k] >> bit & ((1 << width) - 1)) << (k % 2 * 16 + k / 2 * width);
    }
    store_u32(words + i * 64, word);
  }
}

MARTLET_INLINE uint32_t read_even_field(int width, const uint8_t *words, int k) {
  int pair = k / 2;
  return load_u32(words + pair * width / 16 * 64) >> (k % 2 * 16 + pair * width % 16) & ((1u << width) - 1);
}

// The same for load_odd_fields.
MARTLET_INLINE void write_odd_fields(int width, uint8_t *words, const uint8_t *codes) {
  int fields = 15 / width;
  for (int i = 0; i < width; i++) {
    uint32_t word = (uint32_t)(codes[30] >> i & 1) << 15 | (uint32_t)(codes[31] >> i & 1) << 31;
    for (int j = 0; j < fields; j++) {
      const uint8_t *pair = codes + 2 * (i * fields + j);
      word |= ((uint32_t)pair[0] | (uint32_t)pair[1] << 16) << (j * width);
    }
    store_u32(words + i * 64, word);
  }
}

MARTLET_INLINE uint32_t read_odd_field(int width, const uint8_t *words, int k) {
  int fields = 15 / width, pair = k / 2, half = k % 2 * 16;
  if (pair < 15) return load_u32(words + pair / fields * 64) >> (half + pair % fields * width) & ((1u << width) - 1);
  uint32_t code = 0;
  for (int i = 0; i < width; i++) code |= (load_u32(words + i * 64) >> (half + 15) & 1) << i;
  return code;
}

// Writes a block of one row into lane `lane` of a packed block; `slab` is where the block's 256 inputs begin.
MARTLET_INLINE void write_lane(int format, uint8_t *slab, uint8_t *block, int lane, const row_block *b) {
  uint8_t *halves = has_slab_scales(format) ? slab : block, *words = block + block_header_bytes(format) + lane * 4;
  if (format == martlet_weight_mxfp4) block[lane] = b->scale_code[0];
  else if (format == martlet_weight_nvfp4) block[lane] = b->scale_code[0], block[16 + lane] = b->scale_code[1];
  else store_u16(halves + lane * 2, b->scale);
  if (has_minimum(format)) store_u16(halves + 32 + lane * 2, b->minimum);
  if (has_slab_scales(format)) {
    bool two = scale_count(format) == 2;
    block[lane] = b->scale_code[0];
    block[16 + lane] = two ? b->scale_code[1] : b->minimum_code[0];
    if (two && has_minimum(format)) block[lane] |= b->minimum_code[0] << 4, block[16 + lane] |= b->minimum_code[1] << 4;
  }
  switch (code_bits(format)) {
    case 3:
    case 5: write_odd_fields(code_bits(format), words, b->codes); break;
    case 6: write_even_fields(4, 0, words, b->codes), write_even_fields(2, 4, words + 256, b->codes); break;
    default: write_even_fields(code_bits(format), 0, words, b->codes);
  }
}

// The same block again, out of its lane.
MARTLET_INLINE row_block read_lane(int format, const uint8_t *slab, const uint8_t *block, int lane) {
  row_block b = {};
  const uint8_t *halves = has_slab_scales(format) ? slab : block, *words = block + block_header_bytes(format) + lane * 4;
  if (format == martlet_weight_mxfp4) b.scale_code[0] = block[lane];
  else if (format == martlet_weight_nvfp4) b.scale_code[0] = block[lane], b.scale_code[1] = block[16 + lane];
  else b.scale = load_u16(halves + lane * 2);
  if (has_minimum(format)) b.minimum = load_u16(halves + 32 + lane * 2);
  if (has_slab_scales(format)) {
    bool two = scale_count(format) == 2, shared = two && has_minimum(format);
    b.scale_code[0] = shared ? block[lane] & 15 : block[lane];
    b.scale_code[1] = shared ? block[16 + lane] & 15 : block[16 + lane];
    b.minimum_code[0] = shared ? block[lane] >> 4 : block[16 + lane];
    b.minimum_code[1] = block[16 + lane] >> 4;
  }
  for (int k = 0; k < 32; k++) {
    uint32_t code;
    switch (code_bits(format)) {
      case 3:
      case 5: code = read_odd_field(code_bits(format), words, k); break;
      case 6: code = read_even_field(4, words, k) | read_even_field(2, words + 256, k) << 4; break;
      default: code = read_even_field(code_bits(format), words, k);
    }
    b.codes[k] = table_of_codes(format) ? table_of_codes(format)[code] : (uint8_t)code;
  }
  return b;
}

MARTLET_INLINE float half_e8m0_value(uint8_t exponent) {
  uint8_t exponents[16] = {exponent};
  return f32x16_load_half_e8m0(exponents)[0];
}

MARTLET_INLINE float e4m3_value(uint8_t code) {
  uint8_t codes[16] = {code};
  return f32x16_load_e4m3(codes)[0] * 0x1p8f;
}

MARTLET_INLINE float f16_value(uint16_t half) { return f16_widen((u32x16)((uint32_t)half))[0]; }

// Inputs first ..< first + count of a group's rows, values that are copied as they are, to `packed`.
MARTLET_INLINE void pack_values(int element, const martlet_pack_arguments *a, int32_t group, int32_t first, int32_t count, uint8_t *packed) {
  const uint8_t *file = a->file + group * 16 * a->row_bytes + first * a->block_bytes;
  int lanes = a->rows - group * 16 < 16 ? a->rows - group * 16 : 16;
  int32_t done = 0;
  if (lanes == 16 && a->block_bytes == element) {
    const uint8_t *rows[16];
    for (int lane = 0; lane < 16; lane++) rows[lane] = file + lane * a->row_bytes;
    done = count / (16 / element) * (16 / element);
    pack_values_of_rows(element, packed, rows, done);
  }
  // In a matrix that lies transposed neighbouring rows are neighbours in memory, so that those are the inner loop.
  for (int32_t k = done; k < count; k++)
    for (int lane = 0; lane < lanes; lane++)
      __builtin_memcpy(packed + ((int64_t)k * 16 + lane) * element, file + lane * a->row_bytes + k * a->block_bytes, (size_t)element);
}

MARTLET_INLINE float packed_scale(const martlet_pack_arguments *a, int32_t row, int32_t column) {
  if (!a->scales) return 1;
  return a->scales[row / a->rows_of_a_scale * (int64_t)a->scale_columns + (a->scale_columns == 1 ? 0 : column / a->columns_of_a_scale)];
}

// Codes of e4m3 and their scales. Products multiply by 2⁻⁸ of a code, so that scales are 2⁸ times what they are in the file. They know no NaN: a run
// with one gets NaN as its scale, and the outputs of the row are NaN, as they should be.
MARTLET_INLINE void pack_e4m3(const martlet_pack_arguments *a, int32_t group, uint8_t *packed) {
  for (int32_t first = 0; first < a->columns; first += martlet_scaled_run) {
    int32_t count = a->columns - first < martlet_scaled_run ? a->columns - first : martlet_scaled_run;
    pack_values(1, a, group, first, count, packed + 64);
    u8x16 greatest = (u8x16)(0);
    for (int32_t k = 0; k < count; k++) {
      u8x16 magnitude = u8x16_load(packed + 64 + k * 16) & (uint8_t)0x7F;
      greatest = magnitude > greatest ? magnitude : greatest;
    }
    for (int lane = 0; lane < 16 && group * 16 + lane < a->rows; lane++) {
      float scale = greatest[lane] == 0x7F ? __builtin_nanf("") : 0x1p8f * packed_scale(a, group * 16 + lane, first);
      __builtin_memcpy(packed + lane * 4, &scale, 4);
    }
    packed += 64 + count * 16;
  }
}

// What multiplies the outputs of NVFP4's rows: products take doubled codes and 2⁻⁸ of the blocks' scales, so that a factor is 2⁷ times what it is in the
// file. Of a row with a scale that is NaN it is NaN.
MARTLET_INLINE void pack_row_factors(const martlet_pack_arguments *a, int32_t group, uint8_t *packed) {
  for (int lane = 0; lane < 16 && group * 16 + lane < a->rows; lane++) {
    float factor = 0x1p7f * packed_scale(a, group * 16 + lane, 0);
    const uint8_t *codes = a->scale_codes ? a->scale_codes + (group * 16 + lane) * a->scale_code_row_bytes : NULL;
    for (int32_t i = 0; codes && i < a->columns / 16; i++)
      if ((codes[i] & 0x7F) == 0x7F) factor = __builtin_nanf("");
    __builtin_memcpy(packed + lane * 4, &factor, 4);
  }
}

MARTLET_INLINE void pack_group(int format, const martlet_pack_arguments *a, int32_t group) {
  uint8_t *packed = a->groups + group * a->group_bytes;
  if (is_float(format)) {
    if (format == martlet_weight_e4m3) pack_e4m3(a, group, packed);
    else pack_values(format == martlet_weight_f32 ? 4 : 2, a, group, 0, a->columns, packed);
    return;
  }
  if (has_row_factor(format)) pack_row_factors(a, group, packed);
  packed += group_header_bytes(format);
  if (group * 16 + 16 <= a->rows && !a->scale_codes) {
    const uint8_t *rows[16];
    for (int lane = 0; lane < 16; lane++) rows[lane] = a->file + (group * 16 + lane) * a->row_bytes;
    pack_rows(format, packed, rows, (size_t)a->block_bytes, a->columns);
    return;
  }
  for (int lane = 0; lane < 16 && group * 16 + lane < a->rows; lane++) {
    const uint8_t *row = a->file + (group * 16 + lane) * a->row_bytes;
    const uint8_t *apart = a->scale_codes ? a->scale_codes + (group * 16 + lane) * a->scale_code_row_bytes : NULL;
    uint8_t *slab = packed, *block = packed;
    for (int32_t index = 0; index < a->columns / 32; index++, block += block_bytes(format)) {
      if (index % 8 == 0) slab = block, block += slab_header_bytes(format);
      row_block b;
      switch (format) {
        case martlet_weight_mxfp4: b = read_mxfp4_block(row + index * a->block_bytes, apart ? apart + index : NULL); break;
        case martlet_weight_nvfp4:
          b = read_nvfp4_block(row + index / 2 * a->block_bytes, index % 2, apart ? apart + index / 2 * 4 : NULL);
          break;
        default: b = read_file_block(format, row, index);
      }
      write_lane(format, slab, block, lane, &b);
    }
  }
}

static void pack(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_pack_arguments *a = arguments;
  int32_t count = (a->rows + 15) / 16, first = task * a->groups_per_task, end = first + a->groups_per_task;
  if (end > count) end = count;
  (void)worker, (void)scratch;
  for (int32_t group = first; group < end; group++) {
    switch (a->format) {
#define MARTLET_PACK(name) case martlet_weight_##name: pack_group(martlet_weight_##name, a, group); break;
      MARTLET_EACH_FORMAT(MARTLET_PACK)
    }
  }
}

// One row of a packed weight in float32, by the format's own formula: at most one rounding where it subtracts or adds a minimum or
// where d·s·q needs more than 24 bits, as in the formats' description.
MARTLET_INLINE void dequantise_row(int format, const uint8_t *packed, int lane, int32_t columns, float scale, float *output) {
  if (format == martlet_weight_e4m3) {
    for (int32_t k = 0; k < columns; k++) {
      int32_t run = k / martlet_scaled_run, place = k % martlet_scaled_run;
      const uint8_t *start = packed + run * (int64_t)(64 + martlet_scaled_run * 16);
      float factor;
      __builtin_memcpy(&factor, start + lane * 4, 4);
      // The power of two goes back first, so that only the file's own product rounds.
      output[k] = e4m3_value(start[64 + place * 16 + lane]) * (factor * 0x1p-8f) * scale;
    }
    return;
  }
  if (is_float(format)) {
    for (int32_t k = 0; k < columns; k++) {
      int64_t at = (int64_t)k * 16 + lane;
      float value;
      if (format == martlet_weight_f32) __builtin_memcpy(&value, packed + at * 4, 4);
      else if (format == martlet_weight_f16) value = f16_value(load_u16(packed + at * 2));
      else value = f32x16_from_bits((u32x16)((uint32_t)load_u16(packed + at * 2) << 16))[0];
      output[k] = value * scale;
    }
    return;
  }
  float factor = 1;
  if (has_row_factor(format)) {
    __builtin_memcpy(&factor, packed + lane * 4, 4);
    factor *= 0x1p-7f;
  }
  const uint8_t *slab = packed + group_header_bytes(format), *block = slab;
  for (int32_t index = 0; index < columns / 32; index++, block += block_bytes(format)) {
    if (index % 8 == 0) slab = block, block += slab_header_bytes(format);
    row_block b = read_lane(format, slab, block, lane);
    float d[2], m[2];
    for (int h = 0; h < 2; h++) {
      bool is_signed = !has_minimum(format);
      switch (format) {
        case martlet_weight_mxfp4: d[h] = half_e8m0_value(b.scale_code[0]); break;
        case martlet_weight_nvfp4: d[h] = e4m3_value(b.scale_code[h]) / 2; break;
        default: d[h] = f16_value(b.scale);
      }
      m[h] = f16_value(b.minimum);
      if (!has_slab_scales(format)) continue;
      int of = scale_count(format) == 2 ? h : 0;
      d[h] *= is_signed ? (float)(int8_t)b.scale_code[of] : (float)b.scale_code[of];
      m[h] = -(m[h] * (float)b.minimum_code[of]);
    }
    for (int k = 0; k < 32; k++) {
      float value = d[k / 16] * (float)(b.codes[k] - code_offset(format));
      if (has_minimum(format)) value += m[k / 16];
      if (has_row_factor(format)) value *= factor;
      output[index * 32 + k] = value * scale;
    }
  }
}

static void embed(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_embed_arguments *a = arguments;
  int32_t first = task * a->tokens_per_task, end = first + a->tokens_per_task;
  if (end > a->count) end = a->count;
  (void)worker, (void)scratch;
  for (int32_t t = first; t < end; t++) {
    const martlet_product_part *part = a->parts;
    while (a->tokens[t] < part->first_row || a->tokens[t] >= part->first_row + part->rows) part++;
    int32_t row = a->tokens[t] - part->first_row, lane = row % 16;
    const uint8_t *group = part->groups + row / 16 * part->group_bytes;
    float *output = a->output + (int64_t)t * a->columns;
    switch (part->format) {
#define MARTLET_EMBED(name) \
  case martlet_weight_##name: dequantise_row(martlet_weight_##name, group, lane, a->columns, a->scale, output); break;
      MARTLET_EACH_FORMAT(MARTLET_EMBED)
    }
  }
}
