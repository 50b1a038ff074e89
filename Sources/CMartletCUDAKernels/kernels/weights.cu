// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Weights on their way from a file to products, rows of them as embeddings, and the rows that products multiply.

#include "formats.cuh"

// MARK: blocks of a file

MARTLET_DEVICE uint32_t file_u16(global<const uint8_t> file, int64_t byte) { return file[byte] | (uint32_t)file[byte + 1] << 8; }
MARTLET_DEVICE uint32_t file_u32(global<const uint8_t> file, int64_t byte) { return file_u16(file, byte) | file_u16(file, byte + 2) << 16; }

// Code `i` of block `block` of 32 of the row that begins at byte `row`, as GGUF lays it out.
template <int format>
MARTLET_DEVICE uint32_t code_of_file(const martlet_cuda_pack_arguments &a, global<const uint8_t> file, int64_t row, int32_t block, int32_t i) {
  int64_t at = row + block * a.block_bytes;
  if constexpr (is_float(format) || format == martlet_cuda_e4m3) {
    at = row + ((int64_t)block * 32 + i) * a.block_bytes;
    if constexpr (format == martlet_cuda_f32) return file_u32(file, at);
    else if constexpr (format == martlet_cuda_e4m3) return file[at];
    else return file_u16(file, at);
  } else if constexpr (format == martlet_cuda_q8_0) {  // d, 32 signed bytes
    return file[at + 2 + i] ^ 0x80u;
  } else if constexpr (format == martlet_cuda_mxfp4) {
    // An exponent, then 16 bytes whose low nibbles are inputs 0…15, high ones 16…31. With the exponent apart, each byte is two neighbours.
    if (a.scale_codes) return file[at + i / 2] >> i % 2 * 4 & 15u;
    return file[at + 1 + i % 16] >> i / 16 * 4 & 15u;
  } else if constexpr (format == martlet_cuda_nvfp4) {
    // Four scales, then for each 16 inputs 8 bytes whose low nibbles are inputs 0…7, high ones 8…15. With the scales apart, each byte is two neighbours.
    int32_t run = block % 2 * 2 + i / 16, input = i % 16;
    at = row + block / 2 * a.block_bytes;
    if (a.scale_codes) return file[at + run * 8 + input / 2] >> input % 2 * 4 & 15u;
    return file[at + 4 + run * 8 + input % 8] >> input / 8 * 4 & 15u;
  } else if constexpr (!is_k(format)) {
    // d, m where there are minimums, 32 fifth bits where there are, 16 bytes: low nibbles are inputs 0…15, high ones 16…31.
    constexpr int halves = has_minimum(format) ? 4 : 2, header = halves + (high_bits(format) ? 4 : 0);
    uint32_t code = file[at + header + i % 16] >> i / 16 * 4 & 15u;
    if constexpr (high_bits(format) == 1) code |= (file[at + halves + i / 8] >> i % 8 & 1u) << 4;
    return code;
  } else {
    int32_t j = block % 8;
    at = row + block / 8 * a.block_bytes;
    if constexpr (format == martlet_cuda_q2_k) {  // 16 bytes of scale and minimum, 2 times 32 bytes: lowest bit pairs a block, next the next, d, dmin
      return file[at + 16 + j / 4 * 32 + i] >> j % 4 * 2 & 3u;
    } else if constexpr (format == martlet_cuda_q3_k) {  // 32 bytes of third bits: bit j for block j, 64 of bit pairs as in Q2_K, 12 of 6-bit scales, d
      return (file[at + 32 + j / 4 * 32 + i] >> j % 4 * 2 & 3u) | (file[at + i] >> j & 1u) << 2;
    } else if constexpr (format == martlet_cuda_q6_k) {  // 128 bytes of nibbles, 64 of bits 5 and 6, 16 signed scales, d; each half of 128 inputs alike
      int32_t half = j / 4, quarter = j % 4;
      uint32_t low = file[at + half * 64 + quarter % 2 * 32 + i] >> quarter / 2 * 4 & 15u;
      return low | (file[at + 128 + half * 32 + i] >> 2 * quarter & 3u) << 4;
    } else {  // d, dmin, 12 bytes of scales and minimums, of Q5_K 32 of fifth bits: bit j for block j; 4 times 32 bytes: low nibbles a block, high the next
      constexpr int fifths = high_bits(format) ? 32 : 0;
      uint32_t code = file[at + 16 + fifths + j / 2 * 32 + i] >> j % 2 * 4 & 15u;
      if constexpr (fifths > 0) code |= (file[at + 16 + i] >> j & 1u) << 4;
      return code;
    }
  }
}

MARTLET_DEVICE float scale_of_part(const martlet_cuda_pack_arguments &a, int32_t row, int32_t column) {
  if (!a.scales) return 1;
  return global<const float>(a.scales)[(row + a.first_row) / a.rows_of_a_scale * (int64_t)a.scale_columns
                                       + (a.scale_columns == 1 ? 0 : column / a.columns_of_a_scale)];
}

// What lies before a block's codes, and before those of the blocks that share a header, for row `lane` of the group.
template <int format>
MARTLET_DEVICE void pack_header(
    const martlet_cuda_pack_arguments &a, global<const uint8_t> file, global<uint8_t> groups, int64_t group, int32_t block, int32_t row, int32_t lane) {
  bool is_row = row < a.rows, is_first = block % run_blocks(format) == 0;
  int64_t header = group + block_at(format, block), run = group + run_at(format, block), from = row * a.row_bytes;
  auto store = [&](int64_t to, uint32_t half) { global<uint16_t>(groups.address(to))[lane] = (uint16_t)half; };
  auto half_at = [&](int64_t byte) { return is_row ? file_u16(file, byte) : 0u; };
  if constexpr (format == martlet_cuda_e4m3) {
    if (is_first) global<float>(groups.address(run))[lane] = is_row ? scale_of_part(a, row, block * 32) : 0.0f;
  } else if constexpr (format == martlet_cuda_mxfp4) {
    uint8_t exponent = 0;
    if (is_row) exponent = a.scale_codes ? global<const uint8_t>(a.scale_codes)[row * a.scale_code_row_bytes + block] : file[from + block * a.block_bytes];
    groups[header + lane] = exponent;
  } else if constexpr (format == martlet_cuda_nvfp4) {
    if (block == 0) global<float>(groups.address(group))[lane] = is_row ? scale_of_part(a, row, 0) : 0.0f;
    for (int32_t h = 0; h < 2; h++) {
      uint8_t scale = 0;
      if (is_row && a.scale_codes) {
        scale = global<const uint8_t>(a.scale_codes)[row * a.scale_code_row_bytes + 2 * block + h];
      } else if (is_row) {
        // GGUF's scales have no sign, whatever the bit says, and 0x7F is 0.
        scale = file[from + block / 2 * a.block_bytes + block % 2 * 2 + h] & 0x7F;
        scale = scale == 0x7F ? 0 : scale;
      }
      groups[header + 16 * h + lane] = scale;
    }
  } else if constexpr (is_k(format)) {
    int32_t j = block % 8;
    int64_t at = from + block / 8 * a.block_bytes;
    constexpr int halves = format == martlet_cuda_q2_k ? 80 : format == martlet_cuda_q3_k ? 108 : format == martlet_cuda_q6_k ? 208 : 0;
    if (is_first) {
      store(run, half_at(at + halves));
      if constexpr (has_minimum(format)) store(run + 32, half_at(at + halves + 2));
    }
    uint32_t first = 0, second = 0;
    if (is_row) {
      if constexpr (format == martlet_cuda_q2_k) {
        first = file[at + 2 * j], second = file[at + 2 * j + 1];
      } else if constexpr (format == martlet_cuda_q6_k) {
        first = file[at + 192 + 2 * j], second = file[at + 192 + 2 * j + 1];
      } else if constexpr (format == martlet_cuda_q3_k) {
        // Scale n: nibble n of the 8 bytes' low, then high nibbles; bits 5 and 6 are pair n / 4 of byte n % 4.
        auto scale = [&](int32_t n) {
          uint32_t low = n < 8 ? file[at + 96 + n] & 15u : file[at + 96 + n - 8] >> 4, high = file[at + 104 + n % 4] >> n / 4 * 2 & 3u;
          return (low | high << 4) - 32u;
        };
        first = scale(2 * j), second = scale(2 * j + 1);
      } else {
        int64_t s = at + 4;
        first = j < 4 ? file[s + j] & 63u : (file[s + j + 4] & 15u) | file[s + j - 4] >> 6 << 4;
        second = j < 4 ? file[s + j + 4] & 63u : (uint32_t)file[s + j + 4] >> 4 | file[s + j] >> 6 << 4;
      }
    }
    groups[header + lane] = (uint8_t)first;
    groups[header + 16 + lane] = (uint8_t)second;
  } else if constexpr (!is_float(format)) {
    store(header, half_at(from + block * a.block_bytes));
    if constexpr (has_minimum(format)) store(header + 32, half_at(from + block * a.block_bytes + 2));
  }
}

template <int format>
MARTLET_DEVICE void pack_block(const martlet_cuda_pack_arguments &a, int32_t number, int32_t block, int32_t lane) {
  global<const uint8_t> file(a.file);
  global<uint8_t> groups(a.groups);
  int64_t group = number * group_bytes(format, a.columns);
  constexpr int low = low_bits(format), high = high_bits(format);
  uint32_t words[low <= 2 ? 1 : low / 2] = {}, high_words = 0;
  MARTLET_UNROLL for (int code = 0; code < 16; code++) {
    int32_t row = number * 16 + row_of(lane, code), input = input_of(lane, code);
    // What is no value says 0: codes their offset, others zero bits.
    uint32_t bits = (uint32_t)code_offset(format);
    if (row < a.rows && block * 32 + input < a.columns) bits = code_of_file<format>(a, file, row * a.row_bytes, block, input);
    constexpr uint32_t mask = low == 32 ? 0xFFFFFFFFu : (1u << low % 32) - 1;
    words[plane_word(low, code)] |= (bits & mask) << plane_shift(low, code);
    if constexpr (high > 0) high_words |= bits >> low << plane_shift(high, code);
  }
  int64_t plane = group + block_at(format, block) + header_bytes(format);
  MARTLET_UNROLL for (int word = 0; word < (low <= 2 ? 1 : low / 2); word++)
    global<uint32_t>(groups.address(plane + plane_at(low, lane, word)))[0] = words[word];
  if constexpr (high == 1) global<uint16_t>(groups.address(plane + 64 * low + plane_at(1, lane, 0)))[0] = (uint16_t)high_words;
  if constexpr (high == 2) global<uint32_t>(groups.address(plane + 64 * low + plane_at(2, lane, 0)))[0] = high_words;
  if (lane < 16) pack_header<format>(a, file, groups, group, block, number * 16 + lane, lane);
}

// The function of a format that only the arguments know.
#define MARTLET_FOR_FORMAT(format, call)                      \
  switch (format) {                                           \
    case martlet_cuda_f32: call(martlet_cuda_f32); break;     \
    case martlet_cuda_f16: call(martlet_cuda_f16); break;     \
    case martlet_cuda_bf16: call(martlet_cuda_bf16); break;   \
    case martlet_cuda_e4m3: call(martlet_cuda_e4m3); break;   \
    case martlet_cuda_q4_0: call(martlet_cuda_q4_0); break;   \
    case martlet_cuda_q4_1: call(martlet_cuda_q4_1); break;   \
    case martlet_cuda_q5_0: call(martlet_cuda_q5_0); break;   \
    case martlet_cuda_q5_1: call(martlet_cuda_q5_1); break;   \
    case martlet_cuda_q8_0: call(martlet_cuda_q8_0); break;   \
    case martlet_cuda_q2_k: call(martlet_cuda_q2_k); break;   \
    case martlet_cuda_q3_k: call(martlet_cuda_q3_k); break;   \
    case martlet_cuda_q4_k: call(martlet_cuda_q4_k); break;   \
    case martlet_cuda_q5_k: call(martlet_cuda_q5_k); break;   \
    case martlet_cuda_q6_k: call(martlet_cuda_q6_k); break;   \
    case martlet_cuda_iq4_nl: call(martlet_cuda_iq4_nl); break; \
    case martlet_cuda_mxfp4: call(martlet_cuda_mxfp4); break; \
    case martlet_cuda_nvfp4: call(martlet_cuda_nvfp4); break; \
  }

MARTLET_KERNEL(pack, 256)(const martlet_cuda_pack_arguments a) {
  int32_t blocks = (a.columns + 31) / 32, block = block_y() * 8 + thread_index() / 32;
  if (block >= blocks) return;
#define MARTLET_PACK(format) pack_block<format>(a, block_x(), block, thread_index() % 32)
  MARTLET_FOR_FORMAT(a.format, MARTLET_PACK)
#undef MARTLET_PACK
}

// MARK: embeddings

// A word or half of a plane that has a code, and the code.
template <int bits>
MARTLET_DEVICE uint32_t packed_code(global<const uint8_t> groups, int64_t plane, int32_t lane, int32_t code) {
  int64_t at = plane + plane_at(bits, lane, plane_word(bits, code));
  uint32_t word = bits == 1 ? (uint32_t)global<const uint16_t>(groups.address(at))[0] : global<const uint32_t>(groups.address(at))[0];
  return word >> plane_shift(bits, code) & (bits == 32 ? 0xFFFFFFFFu : (1u << bits % 32) - 1);
}

template <int format>
MARTLET_DEVICE void embed_row(const martlet_cuda_embed_arguments &a, int32_t row, int64_t output_row) {
  global<const uint8_t> groups(a.groups);
  global<float> output(a.output);
  int64_t group = row / 16 * group_bytes(format, a.columns);
  constexpr int low = low_bits(format), high = high_bits(format);
  for (int32_t column = thread_index(); column < a.columns; column += 256) {
    int32_t block = column / 32, lane = lane_of(row % 16, column % 32), code = code_of(row % 16, column % 32);
    int64_t plane = group + block_at(format, block) + header_bytes(format);
    uint32_t bits = packed_code<low>(groups, plane, lane, code);
    if constexpr (high > 0) bits |= packed_code<high>(groups, plane + 64 * low, lane, code) << low;
    row_scales s = load_scales<format>(groups, group, block, row % 16);
    int half = column % 32 / 16;
    float number = number_of_code<format>(bits);
    float value = has_minimum(format) ? fused(s.scale[half], number, s.minimum[half]) : s.scale[half] * number;
    output[output_row + column] = a.scale * value;
  }
}

MARTLET_KERNEL(embed, 256)(const martlet_cuda_embed_arguments a) {
  int32_t row = global<const int32_t>(a.tokens)[block_x()] - a.first_row;
  if (row < 0 || row >= a.rows) return;
#define MARTLET_EMBED(format) embed_row<format>(a, row, (int64_t)block_x() * a.columns)
  MARTLET_FOR_FORMAT(a.format, MARTLET_EMBED)
#undef MARTLET_EMBED
}

// MARK: inputs

MARTLET_KERNEL(code_inputs, 256)(const martlet_cuda_code_inputs_arguments a) {
  global<const float> input(a.input);
  global<const int32_t> rows(a.rows);
  global<words4> output(a.output);
  int32_t blocks = (a.columns + 31) / 32, block = block_y() * 8 + thread_index() / 32, lane = thread_index() % 32;
  if (block >= blocks) return;
  int32_t token = block_x() * 8 + lane / 4;
  int64_t row = 0;
  if (token < a.tokens) row = (rows ? rows[token] : token) * a.input_stride;
  words4 terms[martlet_cuda_most_terms];
  MARTLET_UNROLL for (int pair = 0; pair < 4; pair++) {
    uint16_t split[2][martlet_cuda_most_terms];
    MARTLET_UNROLL for (int i = 0; i < 2; i++) {
      int32_t k = block * 32 + pair / 2 * 16 + pair % 2 * 8 + lane % 4 * 2 + i;
      split_to_terms(token < a.tokens && k < a.columns ? input[row + k] : 0.0f, split[i]);
    }
    MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
      terms[term].word[pair] = split[0][term] | (uint32_t)split[1][term] << 16;
  }
  int64_t to = ((int64_t)block_x() * blocks + block) * a.terms;
  MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
    if (term < a.terms) output[(to + term) * 32 + lane] = terms[term];
}
