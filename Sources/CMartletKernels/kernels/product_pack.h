// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Between a GGUF row and a lane of a packed group: packing when a model is loaded, and reading one row back for an embedding.
//
// Only the order of the codes changes (and bytes are biased by 128), so that both directions are exact.

// One block of 32 inputs of one row.
typedef struct row_block {
  uint8_t codes[32];
  uint16_t scale, minimum;        // halves of Q4_0, Q4_1, Q5_0, Q8_0; of the 256 inputs in Q4_K and Q6_K
  uint8_t scale_code[2], minimum_code;  // Q4_K, Q6_K
} row_block;

MARTLET_INLINE uint16_t load_u16(const void *p) {
  uint16_t v;
  __builtin_memcpy(&v, p, 2);
  return v;
}
MARTLET_INLINE uint32_t load_u32(const void *p) {
  uint32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
}
MARTLET_INLINE uint64_t load_u64(const void *p) {
  uint64_t v;
  __builtin_memcpy(&v, p, 8);
  return v;
}
MARTLET_INLINE void store_u16(void *p, uint16_t v) { __builtin_memcpy(p, &v, 2); }
MARTLET_INLINE void store_u32(void *p, uint32_t v) { __builtin_memcpy(p, &v, 4); }

// Block `index` of a row as GGUF lays it out.
MARTLET_INLINE row_block read_file_block(int format, const uint8_t *row, int index) {
  row_block b = {};
  switch (format) {
    case martlet_weight_q4_0:  // d, 16 bytes: low nibbles are inputs 0…15, high ones 16…31
    case martlet_weight_q4_1:  // d, m, the same
    case martlet_weight_q5_0: {  // d, 32 fifth bits, the same
      int header = format == martlet_weight_q4_0 ? 2 : format == martlet_weight_q4_1 ? 4 : 6;
      const uint8_t *p = row + index * (header + 16);
      b.scale = load_u16(p);
      if (format == martlet_weight_q4_1) b.minimum = load_u16(p + 2);
      uint32_t fifth = format == martlet_weight_q5_0 ? load_u32(p + 2) : 0;
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
    case martlet_weight_q4_k: {  // d, dmin, 12 bytes of 6-bit scales and minimums, 4 times 32 bytes: low nibbles a block, high the next
      const uint8_t *p = row + index / 8 * 144, *s = p + 4, *q = p + 16 + index % 8 / 2 * 32;
      int j = index % 8;
      b.scale = load_u16(p);
      b.minimum = load_u16(p + 2);
      b.scale_code[0] = (uint8_t)(j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6 << 4));
      b.minimum_code = (uint8_t)(j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6 << 4));
      for (int i = 0; i < 32; i++) b.codes[i] = j % 2 == 0 ? q[i] & 15 : q[i] >> 4;
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

// Writes a block of one row into lane `lane` of a packed block; `slab` is where the block's 256 inputs begin.
MARTLET_INLINE void write_lane(int format, uint8_t *slab, uint8_t *block, int lane, const row_block *b) {
  uint8_t *codes = block + block_header_bytes(format) + lane * 4;
  if (format == martlet_weight_q4_k || format == martlet_weight_q6_k) {
    store_u16(slab + lane * 2, b->scale);
    block[lane] = b->scale_code[0];
    if (format == martlet_weight_q4_k) store_u16(slab + 32 + lane * 2, b->minimum);
    block[16 + lane] = format == martlet_weight_q4_k ? b->minimum_code : b->scale_code[1];
  } else {
    store_u16(block + lane * 2, b->scale);
    if (format == martlet_weight_q4_1) store_u16(block + 32 + lane * 2, b->minimum);
  }
  if (format == martlet_weight_q8_0) {
    for (int i = 0; i < 8; i++) {
      const uint8_t *c = b->codes + 4 * i;
      store_u32(codes + i * 64, (uint32_t)c[0] | (uint32_t)c[2] << 8 | (uint32_t)c[1] << 16 | (uint32_t)c[3] << 24);
    }
    return;
  }
  for (int i = 0; i < 4; i++) store_u32(codes + i * 64, nibble_word(load_u64(b->codes + 8 * i)));
  if (format == martlet_weight_q5_0) {
    uint32_t word = 0;
    for (int t = 0; t < 16; t++) word |= (uint32_t)(b->codes[2 * t] >> 4) << t | (uint32_t)(b->codes[2 * t + 1] >> 4) << (t + 16);
    store_u32(codes + 256, word);
  }
  if (format == martlet_weight_q6_k)
    for (int i = 0; i < 2; i++) {
      uint32_t word = 0;
      for (int t = 0; t < 8; t++)
        word |= (uint32_t)(b->codes[16 * i + 2 * t] >> 4) << (2 * t) | (uint32_t)(b->codes[16 * i + 2 * t + 1] >> 4) << (2 * t + 16);
      store_u32(codes + 256 + i * 64, word);
    }
}

// The same block again, out of its lane.
MARTLET_INLINE row_block read_lane(int format, const uint8_t *slab, const uint8_t *block, int lane) {
  row_block b = {};
  const uint8_t *codes = block + block_header_bytes(format) + lane * 4;
  if (format == martlet_weight_q4_k || format == martlet_weight_q6_k) {
    b.scale = load_u16(slab + lane * 2);
    if (format == martlet_weight_q4_k) b.minimum = load_u16(slab + 32 + lane * 2);
    b.scale_code[0] = block[lane];
    b.scale_code[1] = b.minimum_code = block[16 + lane];
  } else {
    b.scale = load_u16(block + lane * 2);
    if (format == martlet_weight_q4_1) b.minimum = load_u16(block + 32 + lane * 2);
  }
  for (int k = 0; k < 32; k++) {
    int half = k % 2 * 16;
    if (format == martlet_weight_q8_0) {
      b.codes[k] = (uint8_t)(load_u32(codes + k / 4 * 64) >> (half + k % 4 / 2 * 8));
    } else {
      uint32_t code = load_u32(codes + k / 8 * 64) >> (half + k % 8 / 2 * 4) & 15;
      if (format == martlet_weight_q5_0) code |= (load_u32(codes + 256) >> (half + k / 2) & 1) << 4;
      if (format == martlet_weight_q6_k) code |= (load_u32(codes + 256 + k / 16 * 64) >> (half + k % 16 / 2 * 2) & 3) << 4;
      b.codes[k] = (uint8_t)code;
    }
  }
  return b;
}

MARTLET_INLINE float f16_value(uint16_t half) { return f16_widen((u32x16)((uint32_t)half))[0]; }

MARTLET_INLINE void pack_group(int format, const martlet_pack_arguments *a, int32_t group) {
  uint8_t *packed = a->groups + group * a->group_bytes;
  int element = format == martlet_weight_f32 ? 4 : 2;
  for (int lane = 0; lane < 16 && group * 16 + lane < a->rows; lane++) {
    const uint8_t *row = a->file + (group * 16 + lane) * a->row_bytes;
    if (format <= martlet_weight_bf16) {
      for (int32_t k = 0; k < a->columns; k++)
        __builtin_memcpy(packed + ((int64_t)k * 16 + lane) * element, row + (int64_t)k * element, (size_t)element);
      continue;
    }
    uint8_t *slab = packed, *block = packed;
    for (int32_t index = 0; index < a->columns / 32; index++, block += block_bytes(format)) {
      if (index % 8 == 0) slab = block, block += slab_header_bytes(format);
      row_block b = read_file_block(format, row, index);
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
      case martlet_weight_f32: pack_group(martlet_weight_f32, a, group); break;
      case martlet_weight_f16:
      case martlet_weight_bf16: pack_group(martlet_weight_f16, a, group); break;
      case martlet_weight_q4_0: pack_group(martlet_weight_q4_0, a, group); break;
      case martlet_weight_q4_1: pack_group(martlet_weight_q4_1, a, group); break;
      case martlet_weight_q5_0: pack_group(martlet_weight_q5_0, a, group); break;
      case martlet_weight_q8_0: pack_group(martlet_weight_q8_0, a, group); break;
      case martlet_weight_q4_k: pack_group(martlet_weight_q4_k, a, group); break;
      case martlet_weight_q6_k: pack_group(martlet_weight_q6_k, a, group); break;
    }
  }
}

// One row of a packed weight in float32, by the format's own formula: at most one rounding where it subtracts or adds a minimum or
// where d·s·q needs more than 24 bits, as in the formats' description.
MARTLET_INLINE void dequantise_row(int format, const uint8_t *packed, int lane, int32_t columns, float scale, float *output) {
  if (format <= martlet_weight_bf16) {
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
  const uint8_t *slab = packed, *block = packed;
  for (int32_t index = 0; index < columns / 32; index++, block += block_bytes(format)) {
    if (index % 8 == 0) slab = block, block += slab_header_bytes(format);
    row_block b = read_lane(format, slab, block, lane);
    float d[2] = {f16_value(b.scale), 0}, minimum = 0;
    d[1] = d[0];
    if (format == martlet_weight_q4_1) minimum = f16_value(b.minimum);
    if (format == martlet_weight_q4_k) d[0] *= (float)b.scale_code[0], d[1] = d[0], minimum = -(f16_value(b.minimum) * (float)b.minimum_code);
    if (format == martlet_weight_q6_k) d[0] *= (float)(int8_t)b.scale_code[0], d[1] *= (float)(int8_t)b.scale_code[1];
    for (int k = 0; k < 32; k++) {
      float value = d[k / 16] * (float)(b.codes[k] - code_offset(format));
      if (has_minimum(format)) value += minimum;
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
    while (a->tokens[t] >= part->first_row + part->rows) part++;
    int32_t row = a->tokens[t] - part->first_row, lane = row % 16;
    const uint8_t *group = part->groups + row / 16 * part->group_bytes;
    float *output = a->output + (int64_t)t * a->columns;
    switch (part->format) {
      case martlet_weight_f32: dequantise_row(martlet_weight_f32, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_f16: dequantise_row(martlet_weight_f16, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_bf16: dequantise_row(martlet_weight_bf16, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_q4_0: dequantise_row(martlet_weight_q4_0, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_q4_1: dequantise_row(martlet_weight_q4_1, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_q5_0: dequantise_row(martlet_weight_q5_0, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_q8_0: dequantise_row(martlet_weight_q8_0, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_q4_k: dequantise_row(martlet_weight_q4_k, group, lane, a->columns, a->scale, output); break;
      case martlet_weight_q6_k: dequantise_row(martlet_weight_q6_k, group, lane, a->columns, a->scale, output); break;
    }
  }
}
