// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Formats of weights: what a packed block is made of, and how its codes become tiles of the tensor cores. The layout is that of martlet_cuda_arguments.h.

#ifndef MARTLET_FORMATS_CUH
#define MARTLET_FORMATS_CUH

#include "numbers.cuh"

// MARK: what a format is

MARTLET_DEVICE constexpr bool is_float(int format) { return format <= martlet_cuda_bf16; }
MARTLET_DEVICE constexpr bool has_minimum(int format) {
  return format == martlet_cuda_q4_1 || format == martlet_cuda_q5_1 || format == martlet_cuda_q2_k || format == martlet_cuda_q4_k
    || format == martlet_cuda_q5_k;
}
MARTLET_DEVICE constexpr bool is_k(int format) { return format >= martlet_cuda_q2_k && format <= martlet_cuda_q6_k; }
MARTLET_DEVICE constexpr bool is_e2m1(int format) { return format == martlet_cuda_mxfp4 || format == martlet_cuda_nvfp4; }

// Scales of a block of 32 inputs.
MARTLET_DEVICE constexpr int scale_count(int format) {
  return format == martlet_cuda_q2_k || format == martlet_cuda_q3_k || format == martlet_cuda_q6_k || format == martlet_cuda_nvfp4 ? 2 : 1;
}

// Bits of a code that lie in a plane of their own: those of the first plane, and of the second.
MARTLET_DEVICE constexpr int low_bits(int format) {
  switch (format) {
    case martlet_cuda_f32: return 32;
    case martlet_cuda_f16:
    case martlet_cuda_bf16: return 16;
    case martlet_cuda_e4m3:
    case martlet_cuda_q8_0: return 8;
    case martlet_cuda_q2_k:
    case martlet_cuda_q3_k: return 2;
    default: return 4;
  }
}
MARTLET_DEVICE constexpr int high_bits(int format) {
  switch (format) {
    case martlet_cuda_q3_k:
    case martlet_cuda_q5_0:
    case martlet_cuda_q5_1:
    case martlet_cuda_q5_k: return 1;
    case martlet_cuda_q6_k: return 2;
    default: return 0;
  }
}

// What is taken off a code.
MARTLET_DEVICE constexpr int code_offset(int format) {
  switch (format) {
    case martlet_cuda_q4_0: return 8;
    case martlet_cuda_q5_0: return 16;
    case martlet_cuda_q8_0: return 128;
    case martlet_cuda_q3_k: return 4;
    case martlet_cuda_q6_k: return 32;
    default: return 0;
  }
}

// Bytes before the codes of a block.
MARTLET_DEVICE constexpr int header_bytes(int format) {
  if (is_float(format) || format == martlet_cuda_e4m3) return 0;
  if (format == martlet_cuda_mxfp4) return 16;
  return has_minimum(format) && !is_k(format) ? 64 : 32;
}
MARTLET_DEVICE constexpr int block_bytes(int format) { return header_bytes(format) + 64 * (low_bits(format) + high_bits(format)); }

// Blocks that share a header, and its bytes.
MARTLET_DEVICE constexpr int run_blocks(int format) { return is_k(format) ? 8 : format == martlet_cuda_e4m3 ? 4 : 1; }
MARTLET_DEVICE constexpr int run_header_bytes(int format) {
  if (format == martlet_cuda_e4m3) return 64;
  return is_k(format) ? (has_minimum(format) ? 64 : 32) : 0;
}
// Bytes before all blocks of a group.
MARTLET_DEVICE constexpr int group_header_bytes(int format) { return format == martlet_cuda_nvfp4 ? 64 : 0; }

MARTLET_DEVICE constexpr int64_t group_bytes(int format, int32_t columns) {
  int64_t blocks = (columns + 31) / 32;
  return group_header_bytes(format) + (blocks + run_blocks(format) - 1) / run_blocks(format) * run_header_bytes(format)
    + blocks * block_bytes(format);
}

// Bytes from the start of a group to a block, and to the header that it shares.
MARTLET_DEVICE constexpr int64_t block_at(int format, int32_t block) {
  return group_header_bytes(format) + (int64_t)(block / run_blocks(format) + 1) * run_header_bytes(format) + (int64_t)block * block_bytes(format);
}
MARTLET_DEVICE constexpr int64_t run_at(int format, int32_t block) {
  return block_at(format, block / run_blocks(format) * run_blocks(format)) - run_header_bytes(format);
}

// MARK: where a code is

// The lane of the warp, and which of its 16 codes, that has input `input` of row `row` of a block.
MARTLET_DEVICE int32_t lane_of(int32_t row, int32_t input) { return row % 8 * 4 + input % 8 / 2; }
MARTLET_DEVICE int32_t code_of(int32_t row, int32_t input) { return input / 16 * 8 + input % 16 / 8 * 4 + row / 8 * 2 + input % 2; }
MARTLET_DEVICE int32_t row_of(int32_t lane, int32_t code) { return lane / 4 + code / 2 % 2 * 8; }
MARTLET_DEVICE int32_t input_of(int32_t lane, int32_t code) { return code / 8 * 16 + lane % 4 * 2 + code % 2 + code % 8 / 4 * 8; }

// A lane's part of a plane is `bits` / 2 words, or half of one. Neighbouring codes are in the two halves of a word, so that one mask gives a pair; of single
// bits, in the two bytes of a half. Planes of more than 16 bytes to a lane are split into such of 16.
MARTLET_DEVICE constexpr int plane_word(int bits, int code) { return bits <= 2 ? 0 : bits == 4 ? code / 8 : bits == 8 ? code / 4 : bits == 16 ? code / 2 : code; }
MARTLET_DEVICE constexpr int plane_shift(int bits, int code) {
  switch (bits) {
    case 1: return code / 2 + code % 2 * 8;
    case 2: return code / 2 * 2 + code % 2 * 16;
    case 4: return code % 8 / 2 * 4 + code % 2 * 16;
    case 8: return code % 4 / 2 * 8 + code % 2 * 16;
    case 16: return code % 2 * 16;
    default: return 0;
  }
}

// Bytes from the start of a plane to a word of a lane; of single bits a half of 16 bits.
MARTLET_DEVICE constexpr int plane_at(int bits, int lane, int word) {
  if (bits == 1) return lane * 2;
  if (bits <= 8) return lane * 2 * bits + word * 4;
  return word / 4 * 512 + lane * 16 + word % 4 * 4;
}

// MARK: numbers of a block

// What multiplies the codes of a row and what is added to each, for the halves of a block (the same where a block has one scale).
struct row_scales {
  float scale[2], minimum[2];
};

template <int format>
MARTLET_DEVICE row_scales load_scales(global<const uint8_t> groups, int64_t group, int32_t block, int32_t row) {
  auto half = [&](int64_t byte) { return float_of_f16(global<const uint16_t>(groups.address(byte))[row]); };
  int64_t header = group + block_at(format, block), run = group + run_at(format, block);
  row_scales s = {{1, 1}, {0, 0}};
  if constexpr (format == martlet_cuda_e4m3) {
    s.scale[0] = global<const float>(groups.address(run))[row];
  } else if constexpr (format == martlet_cuda_mxfp4) {
    // Half a power of two, because codes are doubled.
    uint32_t exponent = groups[header + row];
    s.scale[0] = float_of_bits(exponent >= 2 ? (exponent - 1) << 23 : 0x00200000u << exponent);
  } else if constexpr (format == martlet_cuda_nvfp4) {
    float factor = 0.5f * global<const float>(groups.address(group))[row];
    MARTLET_UNROLL for (int h = 0; h < 2; h++) s.scale[h] = float_of_e4m3(groups[header + 16 * h + row]) * factor;
  } else if constexpr (is_k(format)) {
    float d = half(run);
    if constexpr (format == martlet_cuda_q2_k) {
      float dmin = half(run + 32);
      MARTLET_UNROLL for (int h = 0; h < 2; h++) {
        uint32_t code = groups[header + 16 * h + row];
        s.scale[h] = d * (float)(code & 15u), s.minimum[h] = -(dmin * (float)(code >> 4));
      }
    } else if constexpr (has_minimum(format)) {
      s.scale[0] = d * (float)groups[header + row], s.minimum[0] = -(half(run + 32) * (float)groups[header + 16 + row]);
    } else {
      MARTLET_UNROLL for (int h = 0; h < 2; h++) s.scale[h] = d * (float)(int8_t)groups[header + 16 * h + row];
    }
  } else if constexpr (!is_float(format)) {
    s.scale[0] = half(header);
    if constexpr (has_minimum(format)) s.minimum[0] = half(header + 32);
  }
  if constexpr (scale_count(format) == 1) s.scale[1] = s.scale[0], s.minimum[1] = s.minimum[0];
  return s;
}

MARTLET_CONSTANT int8_t iq4_nl_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// A code of e2m1, doubled: ±0, 1, 2, 3, 4, 6, 8, 12.
MARTLET_DEVICE float doubled_e2m1(uint32_t code) {
  // The bits below the sign are those of a float 2¹²⁶ times smaller.
  float magnitude = float_of_bits((code & 7u) << 22) * 0x1p127f;
  return code & 8u ? -magnitude : magnitude;
}

// The number that a code stands for, before scale and minimum.
template <int format>
MARTLET_DEVICE float number_of_code(uint32_t code) {
  if constexpr (format == martlet_cuda_f32) return float_of_bits(code);
  else if constexpr (format == martlet_cuda_f16) return float_of_f16((uint16_t)code);
  else if constexpr (format == martlet_cuda_bf16) return float_of_bf16(code);
  else if constexpr (format == martlet_cuda_e4m3) return float_of_e4m3(code);
  else if constexpr (format == martlet_cuda_iq4_nl) return (float)iq4_nl_values[code];
  else if constexpr (is_e2m1(format)) return doubled_e2m1(code);
  else return float_of_bits(0x4B000000u | code) - (float)(0x800000 + code_offset(format));
}

// MARK: tiles

// A lane's codes of a block, as they lie in memory.
template <int format>
struct lane_codes {
  uint32_t low[low_bits(format) <= 2 ? 1 : low_bits(format) / 2];
  uint32_t high;
};

template <int bits, int count>
MARTLET_DEVICE void load_plane(global<const uint8_t> groups, int64_t plane, int32_t lane, uint32_t (&words)[count]) {
  static_assert(count == (bits <= 2 ? 1 : bits / 2), "a lane has 16 codes");
  int64_t at = plane + plane_at(bits, lane, 0);
  if constexpr (bits == 2) {
    words[0] = global<const uint32_t>(groups.address(at))[0];
  } else if constexpr (bits == 4) {
    words2 loaded = global<const words2>(groups.address(at))[0];
    MARTLET_UNROLL for (int i = 0; i < 2; i++) words[i] = loaded.word[i];
  } else {
    MARTLET_UNROLL for (int part = 0; part < count / 4; part++) {
      words4 loaded = global<const words4>(groups.address(at + part * 512))[0];
      MARTLET_UNROLL for (int i = 0; i < 4; i++) words[4 * part + i] = loaded.word[i];
    }
  }
}

template <int format>
MARTLET_DEVICE lane_codes<format> load_codes(global<const uint8_t> groups, int64_t group, int32_t block, int32_t lane) {
  int64_t plane = group + block_at(format, block) + header_bytes(format);
  lane_codes<format> codes;
  load_plane<low_bits(format)>(groups, plane, lane, codes.low);
  codes.high = 0;
  if constexpr (high_bits(format) == 1) {
    codes.high = global<const uint16_t>(groups.address(plane + 64 * low_bits(format) + plane_at(1, lane, 0)))[0];
  } else if constexpr (high_bits(format) == 2) {
    uint32_t words[1];
    load_plane<2>(groups, plane + 64 * low_bits(format), lane, words);
    codes.high = words[0];
  }
  return codes;
}

// Terms of bfloat16 that say a format's numbers exactly (of float32, but for what is too small for bfloat16).
MARTLET_DEVICE constexpr int weight_terms(int format) { return format == martlet_cuda_f32 ? 3 : format == martlet_cuda_f16 ? 2 : 1; }

// A's tiles of both halves of a block.
template <int format>
struct weight_tiles {
  uint32_t term[weight_terms(format)][2][4];
};

// Codes 2·pair and 2·pair + 1, one in each half of the word.
template <int format>
MARTLET_DEVICE uint32_t code_pair(const lane_codes<format> &codes, int pair) {
  constexpr int low = low_bits(format), high = high_bits(format);
  constexpr uint32_t mask = (1u << low) - 1;
  uint32_t word = codes.low[plane_word(low, 2 * pair)] >> plane_shift(low, 2 * pair) & (mask | mask << 16);
  if constexpr (high == 1) {
    uint32_t bits = codes.high >> pair;
    word |= (bits & 1u) << low | (bits & 0x100u) << (low + 8);
  } else if constexpr (high == 2) {
    word |= (codes.high >> plane_shift(2, 2 * pair) & 0x00030003u) << low;
  }
  return word;
}

template <int format>
MARTLET_DEVICE weight_tiles<format> unpack(const lane_codes<format> &codes) {
  weight_tiles<format> tiles;
  MARTLET_UNROLL for (int pair = 0; pair < 8; pair++) {
    int half = pair / 4, word = pair % 4;
    if constexpr (format == martlet_cuda_bf16) {
      tiles.term[0][half][word] = codes.low[pair];
    } else if constexpr (format == martlet_cuda_f32 || format == martlet_cuda_f16) {
      uint32_t bits[2];
      if constexpr (format == martlet_cuda_f32) bits[0] = codes.low[2 * pair], bits[1] = codes.low[2 * pair + 1];
      else bits[0] = codes.low[pair] & 0xFFFFu, bits[1] = codes.low[pair] >> 16;
      uint16_t terms[2][weight_terms(format)];
      MARTLET_UNROLL for (int i = 0; i < 2; i++) split_to_terms(number_of_code<format>(bits[i]), terms[i]);
      MARTLET_UNROLL for (int i = 0; i < weight_terms(format); i++) tiles.term[i][half][word] = terms[0][i] | (uint32_t)terms[1][i] << 16;
    } else {
      uint32_t both = code_pair<format>(codes, pair);
      if constexpr (is_e2m1(format)) {
        // The bits below the sign are those of a bfloat16 2¹²⁶ times smaller.
        uint32_t bits = (both & 0x00080008u) << 12 | (both & 0x00070007u) << 6;
        tiles.term[0][half][word] = fused_bf16_pairs(bits, 0x7F007F00u, 0x80008000u);
      } else if constexpr (low_bits(format) + high_bits(format) <= 6 && format != martlet_cuda_iq4_nl) {
        // 128 plus the code is a bfloat16 without a conversion.
        constexpr uint32_t below = 0xC300u + (uint32_t)code_offset(format);
        tiles.term[0][half][word] = fused_bf16_pairs(0x43004300u | both, 0x3F803F80u, below | below << 16);
      } else {
        tiles.term[0][half][word] = bf16_pair(number_of_code<format>(both & 0xFFFFu), number_of_code<format>(both >> 16));
      }
    }
  }
  return tiles;
}

#endif
