// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A whole group packed at once: the blocks of 16 rows, which lie in 16 places of the file, become the lanes of vectors.
//
// Sixteen bytes of each row are transposed to four words of each lane (`transpose.h`), their bytes in another order: the even inputs of eight in the
// low half of a word, the odd ones in the high half, as the fields of a packed word are. From there on a shift and a mask move the codes of
// 16 rows. `product_pack.h` does the same to one row alone, and what it writes is what is written here, bit for bit.

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

typedef uint8_t u8x64 __attribute__((ext_vector_type(64)));

// 32 inputs of 16 rows, a byte each: from the lowest on, the bytes of words[2·i] are inputs 8·i + 0, 4, 1, 5 and those of words[2·i + 1]
// 8·i + 2, 6, 3, 7.
typedef struct lane_bytes {
  u32x16 words[8];
} lane_bytes;

// The 16 bytes of each row that are inputs 16·half … 16·half + 15.
MARTLET_INLINE void load_lane_bytes(lane_bytes *bytes, int half, const uint8_t *const *rows, size_t offset) {
  u32x16 quarters[4];
  load_quarters(rows, offset, 4, quarters);
#define MARTLET_QUARTER(q) \
  q + 0, q + 4, q + 1, q + 5, q + 2, q + 6, q + 3, q + 7, q + 8, q + 12, q + 9, q + 13, q + 10, q + 14, q + 11, q + 15
  MARTLET_UNROLL for (int i = 0; i < 4; i++)
    quarters[i] = (u32x16)__builtin_shufflevector((u8x64)quarters[i], (u8x64)quarters[i], MARTLET_QUARTER(0), MARTLET_QUARTER(16),
                                                  MARTLET_QUARTER(32), MARTLET_QUARTER(48));
#undef MARTLET_QUARTER
  transpose_quarters(quarters, bytes->words + 4 * half);
}

// 32 bytes of each row.
MARTLET_INLINE lane_bytes load_32_lane_bytes(const uint8_t *const *rows, size_t offset) {
  lane_bytes bytes;
  load_lane_bytes(&bytes, 0, rows, offset);
  load_lane_bytes(&bytes, 1, rows, offset + 16);
  return bytes;
}

// bytes >> shift & mask, each for itself.
MARTLET_INLINE lane_bytes fields_of_bytes(lane_bytes bytes, int shift, uint8_t mask) {
  MARTLET_UNROLL for (int i = 0; i < 8; i++) bytes.words[i] = bytes.words[i] >> (uint32_t)shift & mask * 0x01010101u;
  return bytes;
}

// codes + (bytes >> shift & mask) << place, of codes that are 0 there.
MARTLET_INLINE lane_bytes with_fields(lane_bytes codes, lane_bytes bytes, int shift, uint8_t mask, int place) {
  bytes = fields_of_bytes(bytes, shift, mask);
  MARTLET_UNROLL for (int i = 0; i < 8; i++) codes.words[i] |= bytes.words[i] << (uint32_t)place;
  return codes;
}

// 16 bytes of each row, of which the low nibbles are inputs 0 … 15 and the high ones 16 … 31. `nearer`: 0 … 7 and 8 … 15 of 16 inputs for 8 bytes.
MARTLET_INLINE lane_bytes load_nibbles(const uint8_t *const *rows, size_t offset, bool nearer) {
  lane_bytes bytes, codes;
  load_lane_bytes(&bytes, 0, rows, offset);
  MARTLET_UNROLL for (int i = 0; i < 4; i++) {
    int low = nearer ? i / 2 * 4 + i % 2 : i, high = nearer ? low + 2 : low + 4;
    codes.words[low] = bytes.words[i] & 0x0F0F0F0Fu;
    codes.words[high] = bytes.words[i] >> 4u & 0x0F0F0F0Fu;
  }
  return codes;
}

// The words that load_even_fields reads, of codes below 2^width.
MARTLET_INLINE void store_even_fields(int width, uint8_t *packed, lane_bytes codes) {
  u32x16 kept = (u32x16)(0);
  MARTLET_UNROLL for (int i = 0; i < 4; i++) {
    u32x16 first = codes.words[2 * i], second = codes.words[2 * i + 1], word;
    switch (width) {
      case 8:
        u32x16_store(packed + i * 128, (first & 0x00FF00FFu) | (second & 0x00FF00FFu) << 8u);
        u32x16_store(packed + i * 128 + 64, (first >> 8u & 0x00FF00FFu) | (second & 0xFF00FF00u));
        break;
      case 4: u32x16_store(packed + i * 64, first | second << 4u); break;
      case 2:
        word = first | second << 2u;
        word = (word | word >> 4u) & 0x00FF00FFu;
        if (i % 2 == 0) kept = word;
        else u32x16_store(packed + i / 2 * 64, kept | word << 8u);
        break;
    }
  }
}

// Inputs 2·pair and 2·pair + 1, in the lowest byte of each half.
MARTLET_INLINE u32x16 pair_of_bytes(lane_bytes codes, int pair) {
  return codes.words[pair / 4 * 2 + pair % 2] >> (uint32_t)(pair % 4 / 2 * 8) & 0x00FF00FFu;
}

// The words that load_odd_fields reads.
MARTLET_INLINE void store_odd_fields(int width, uint8_t *packed, lane_bytes codes) {
  int fields = 15 / width;
  u32x16 last = pair_of_bytes(codes, 15);
  MARTLET_UNROLL for (int i = 0; i < width; i++) {
    u32x16 word = (last >> (uint32_t)i & 0x00010001u) << 15u;
    MARTLET_UNROLL for (int j = 0; j < fields; j++) word |= pair_of_bytes(codes, i * fields + j) << (uint32_t)(j * width);
    u32x16_store(packed + i * 64, word);
  }
}

MARTLET_INLINE void store_codes(int format, uint8_t *packed, lane_bytes codes) {
  if (code_bits(format) % 2 == 0) store_even_fields(code_bits(format), packed, codes);
  else store_odd_fields(code_bits(format), packed, codes);
}

// The lowest byte, or two, of each lane.
MARTLET_INLINE void store_lane_u8(uint8_t *packed, u32x16 lanes) { u8x16_store(packed, __builtin_convertvector(lanes, u8x16)); }
MARTLET_INLINE void store_lane_u16(uint8_t *packed, u32x16 lanes) { u16x16_store(packed, __builtin_convertvector(lanes, u16x16)); }

// The lowest byte of each lane, then the second.
MARTLET_INLINE void store_two_lane_bytes(uint8_t *packed, u32x16 lanes) {
  store_lane_u8(packed, lanes);
  store_lane_u8(packed + 16, lanes >> 8u);
}

// Four bytes of each row.
MARTLET_INLINE u32x16 load_lane_words(const uint8_t *const *rows, size_t offset) {
  u32x16 lanes;
  MARTLET_UNROLL for (int lane = 0; lane < 16; lane++) lanes[lane] = load_u32(rows[lane] + offset);
  return lanes;
}

// Two bytes of each row.
MARTLET_INLINE void copy_lane_halves(uint8_t *packed, const uint8_t *const *rows, size_t offset) {
  MARTLET_UNROLL for (int lane = 0; lane < 16; lane++) store_u16(packed + 2 * lane, load_u16(rows[lane] + offset));
}

// Fifth bits of inputs 0 … 31, one word of each row, put above four.
MARTLET_INLINE lane_bytes with_fifth_bits(lane_bytes codes, u32x16 fifths) {
  MARTLET_UNROLL for (int i = 0; i < 8; i++) {
    // Bits 0, 1, 4 and 5 of this shift are those of the word's inputs. The product moves them to bits 4, 20, 12 and 28, and what else it adds
    // never carries so far.
    u32x16 bits = fifths >> (uint32_t)(i / 2 * 8 + i % 2 * 2) & 0x33u;
    codes.words[i] |= bits * (1u << 4 | 1u << 19 | 1u << 8 | 1u << 23) & 0x10101010u;
  }
  return codes;
}

// A block of 32 inputs of a format without slabs, `offset` bytes into the rows.
MARTLET_INLINE void pack_rows_of_block(int format, uint8_t *packed, const uint8_t *const *rows, size_t offset) {
  lane_bytes codes;
  uint8_t *words = packed + block_header_bytes(format);
  if (format == martlet_weight_q8_0) {
    copy_lane_halves(packed, rows, offset);
    codes = load_32_lane_bytes(rows, offset + 2);
    MARTLET_UNROLL for (int i = 0; i < 8; i++) codes.words[i] ^= 0x80808080u;
  } else if (format == martlet_weight_mxfp4) {
    for (int lane = 0; lane < 16; lane++) packed[lane] = rows[lane][offset];
    codes = load_nibbles(rows, offset + 1, false);
  } else {
    size_t header = has_minimum(format) ? 4 : 2;
    if (has_minimum(format)) {
      u32x16 halves = load_lane_words(rows, offset);
      store_lane_u16(packed, halves);
      store_lane_u16(packed + 32, halves >> 16u);
    } else {
      copy_lane_halves(packed, rows, offset);
    }
    codes = load_nibbles(rows, offset + header + (code_bits(format) == 5 ? 4 : 0), false);
    if (code_bits(format) == 5) codes = with_fifth_bits(codes, load_lane_words(rows, offset + header));
  }
  store_codes(format, words, codes);
}

// Two blocks of NVFP4: four scales, whose sign counts for nothing and among which 0x7F is 0, then the nibbles.
MARTLET_INLINE void pack_rows_of_nvfp4(uint8_t *packed, const uint8_t *const *rows, size_t offset) {
  u32x16 scales = load_lane_words(rows, offset);
  // The sum's sign is set where the low bits are all ones and the sign was not.
  u32x16 ones = (scales & 0x7F7F7F7Fu) + 0x01010101u & ~scales & 0x80808080u;
  scales &= 0x7F7F7F7Fu & ~(ones - (ones >> 7u));
  MARTLET_UNROLL for (int b = 0; b < 2; b++, packed += block_bytes(martlet_weight_nvfp4)) {
    store_two_lane_bytes(packed, scales >> (uint32_t)(16 * b));
    store_codes(martlet_weight_nvfp4, packed + 32, load_nibbles(rows, offset + 4 + (size_t)b * 16, true));
  }
}

// 256 inputs of a format whose scales have scales, as read_file_block reads them.
MARTLET_INLINE void pack_rows_of_slab(int format, uint8_t *packed, const uint8_t *const *rows, size_t offset) {
  uint8_t *block = packed + slab_header_bytes(format);
  int size = block_bytes(format);
  u32x16 s[4];
  lane_bytes low, more;
  switch (format) {
    case martlet_weight_q2_k:
      copy_lane_halves(packed, rows, offset + 80);
      copy_lane_halves(packed + 32, rows, offset + 82);
      load_transposed(rows, offset, 4, s);
      for (int j = 0; j < 8; j++, block += size) {
        if (j % 4 == 0) low = load_32_lane_bytes(rows, offset + 16 + (size_t)j * 8);
        store_two_lane_bytes(block, s[j / 2] >> (uint32_t)(j % 2 * 16));
        store_even_fields(2, block + 32, fields_of_bytes(low, j % 4 * 2, 3));
      }
      break;
    case martlet_weight_q3_k: {
      // The 12 bytes of scales begin in the middle of a word: 16 bytes from their first on would reach beyond the row.
      load_transposed(rows, offset + 94, 4, s);
      store_lane_u16(packed, s[3] >> 16u);
      u32x16 nibbles[2] = {s[0] >> 16u | s[1] << 16u, s[1] >> 16u | s[2] << 16u}, pairs = s[2] >> 16u | s[3] << 16u;
      more = load_32_lane_bytes(rows, offset);
      for (int j = 0; j < 8; j++, block += size) {
        if (j % 4 == 0) low = load_32_lane_bytes(rows, offset + 32 + (size_t)j * 8);
        for (int h = 0; h < 2; h++) {
          int n = 2 * j + h;
          u32x16 scale = nibbles[n / 4 % 2] >> (uint32_t)(n % 4 * 8 + n / 8 * 4) & 15u;
          scale |= (pairs >> (uint32_t)(n % 4 * 8 + n / 4 * 2) & 3u) << 4u;
          store_lane_u8(block + 16 * h, scale - 32u);
        }
        store_odd_fields(3, block + 32, with_fields(fields_of_bytes(low, j % 4 * 2, 3), more, j, 1, 2));
      }
      break;
    }
    case martlet_weight_q4_k:
    case martlet_weight_q5_k: {
      size_t fifths = code_bits(format) == 5 ? 32 : 0;
      load_transposed(rows, offset, 4, s);
      store_lane_u16(packed, s[0]);
      store_lane_u16(packed + 32, s[0] >> 16u);
      u32x16 scales[2] = {s[1] & 0x3F3F3F3Fu, (s[3] & 0x0F0F0F0Fu) | (s[1] >> 2u & 0x30303030u)};
      u32x16 minimums[2] = {s[2] & 0x3F3F3F3Fu, (s[3] >> 4u & 0x0F0F0F0Fu) | (s[2] >> 2u & 0x30303030u)};
      if (fifths > 0) more = load_32_lane_bytes(rows, offset + 16);
      for (int j = 0; j < 8; j += 2) {
        low = load_32_lane_bytes(rows, offset + 16 + fifths + (size_t)j * 16);
        MARTLET_UNROLL for (int h = 0; h < 2; h++, block += size) {
          store_lane_u8(block, scales[j / 4] >> (uint32_t)((j + h) % 4 * 8));
          store_lane_u8(block + 16, minimums[j / 4] >> (uint32_t)((j + h) % 4 * 8));
          lane_bytes codes = fields_of_bytes(low, 4 * h, 15);
          if (fifths > 0) store_odd_fields(5, block + 32, with_fields(codes, more, j + h, 1, 4));
          else store_even_fields(4, block + 32, codes);
        }
      }
      break;
    }
    case martlet_weight_q6_k:
      copy_lane_halves(packed, rows, offset + 208);
      load_transposed(rows, offset + 192, 4, s);
      for (int half = 0; half < 2; half++, block += 2 * size) {
        more = load_32_lane_bytes(rows, offset + 128 + (size_t)half * 32);
        MARTLET_UNROLL for (int i = 0; i < 2; i++, block += size) {
          // The low nibbles of the half's block i, the high ones of its block i + 2.
          low = load_32_lane_bytes(rows, offset + (size_t)(half * 64 + i * 32));
          MARTLET_UNROLL for (int j = i; j < 4; j += 2) {
            uint8_t *to = block + (j - i) * size;
            store_two_lane_bytes(to, s[half * 2 + j / 2] >> (uint32_t)(j % 2 * 16));
            store_even_fields(4, to + 32, fields_of_bytes(low, j / 2 * 4, 15));
            store_even_fields(2, to + 32 + 256, fields_of_bytes(more, j * 2, 3));
          }
        }
      }
      break;
  }
}

// Packs 16 rows of a format with blocks, `file_block_bytes` from a block to the next. Not what comes before a group's first block.
MARTLET_INLINE void pack_rows(int format, uint8_t *packed, const uint8_t *const *rows, size_t file_block_bytes, int32_t columns) {
  int32_t inputs = has_slab_scales(format) ? 256 : format == martlet_weight_nvfp4 ? 64 : 32;
  int32_t size = slab_header_bytes(format) + inputs / 32 * block_bytes(format);
  size_t offset = 0;
  for (int32_t i = 0; i < columns / inputs; i++, packed += size, offset += file_block_bytes) {
    if (has_slab_scales(format)) pack_rows_of_slab(format, packed, rows, offset);
    else if (format == martlet_weight_nvfp4) pack_rows_of_nvfp4(packed, rows, offset);
    else pack_rows_of_block(format, packed, rows, offset);
  }
}

// The first `count` inputs of floats and of E4M3, `element` bytes each: a multiple of what 16 bytes hold.
MARTLET_INLINE void pack_values_of_rows(int element, uint8_t *packed, const uint8_t *const *rows, int32_t count) {
  for (int32_t k = 0; k < count; k += 16 / element) {
    u32x16 words[4];
    load_transposed(rows, (size_t)(k * element), 4, words);
    MARTLET_UNROLL for (int i = 0; i < 16 / element; i++, packed += element * 16) {
      u32x16 lanes = words[i * element / 4] >> (uint32_t)(i * element % 4 * 8);
      switch (element) {
        case 4: u32x16_store(packed, lanes); break;
        case 2: store_lane_u16(packed, lanes); break;
        default: store_lane_u8(packed, lanes);
      }
    }
  }
}
