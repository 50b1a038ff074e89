// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Products with weights that stay coded: the packed order of weights, the coded inputs, and the kernels' arguments.
//
// A packed weight is a run of groups, one for every 16 rows (outputs). A group lies in memory as the kernel reads it: block after block
// of 32 inputs, and inside a block the 16 rows are the lanes of every vector. Codes keep their file's width:
//
//   bits  words of 32 bits a lane. Pair t is inputs 2t and 2t + 1; the low half of a word has codes of even inputs, the high half of
//         odd ones, so that (word >> shift) & mask is the pair that a dot product of int16 pairs takes.
//    4    4 words: in word i bits 4j … 4j+3 of each half are pair 4i + j
//    2    2 words: in word i bits 2j, 2j+1 of each half are pair 8i + j
//    8    8 words: in word i the bytes of each half are pairs 2i and 2i + 1
//    5    5 words: in word i bits 5j … 5j+4 of each half are pair 3i + j; bit 15 is bit i of pair 15
//    3    3 words: in word i bits 3j … 3j+2 of each half are pair 5i + j; bit 15 is bit i of pair 15
//    6    the low 4 bits as above, then the high 2
//
//   format  before 8 blocks       a block of 16 rows × 32 inputs              bytes  file's bytes
//   Q4_0                          f16 d[16], 4-bit codes                        288      288
//   Q4_1                          f16 d[16], f16 m[16], 4-bit codes             320      320
//   Q5_0                          f16 d[16], 5-bit codes                        352      352
//   Q5_1                          f16 d[16], f16 m[16], 5-bit codes             384      384
//   Q8_0                          f16 d[16], 8-bit codes, each plus 128         544      544
//   Q2_K    f16 d[16], dmin[16]   u8 (s + 16 m)[2][16], 2-bit codes             168      168
//   Q3_K    f16 d[16]             i8 s[2][16], 3-bit codes                      228      220
//   Q4_K    f16 d[16], dmin[16]   u8 s[16], u8 m[16], 4-bit codes               296      288
//   Q5_K    f16 d[16], dmin[16]   u8 s[16], u8 m[16], 5-bit codes               360      352
//   Q6_K    f16 d[16]             i8 s[2][16], 6-bit codes                      420      420
//   IQ4_NL                        f16 d[16], 4-bit places in its table          288      288
//   MXFP4                         e8m0 d[16], 4-bit places in its table         272      272
//   NVFP4   once: f32 d[16]       e4m3 s[2][16], 4-bit places in MXFP4's table  288      288
//   F32, F16, BF16: [inputs][16 rows] in the file's type
//   E4M3: for every 128 inputs f32 d[16], then [inputs][16 rows] of codes
//
// Rows that fill up the last group are zero and are never written out.

#ifndef MARTLET_PRODUCT_H
#define MARTLET_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "martlet_tensor.h"
#include "martlet_threads.h"

typedef enum martlet_weight_format {
  martlet_weight_f32,
  martlet_weight_f16,
  martlet_weight_bf16,
  martlet_weight_e4m3,
  martlet_weight_q4_0,
  martlet_weight_q4_1,
  martlet_weight_q5_0,
  martlet_weight_q5_1,
  martlet_weight_q8_0,
  martlet_weight_q2_k,
  martlet_weight_q3_k,
  martlet_weight_q4_k,
  martlet_weight_q5_k,
  martlet_weight_q6_k,
  martlet_weight_iq4_nl,
  martlet_weight_mxfp4,
  martlet_weight_nvfp4,
} martlet_weight_format;

enum {
  martlet_product_lanes = 16,   // rows of a group
  martlet_product_block = 32,   // inputs of a block
  martlet_product_slab = 256,   // inputs that share one scale when they are coded, and one partial sum
  martlet_scaled_run = 128,     // inputs of E4M3 that share a scale
};

// What inputs are coded as.
typedef enum martlet_input_coding {
  // For products with integer codes. Both say the same numbers, and products make the same bits of them; weights of floats read the inputs themselves.
  martlet_input_codes,   // martlet_input_slab
  martlet_input_digits,  // martlet_digit_slab: for tiles, which multiply bfloat16
  // For products with weights of any format, which are rounded, too: another arithmetic (kernels/product_bf16.h).
  martlet_input_bf16,    // martlet_bf16_slab
  // For products with integer codes in a third arithmetic (kernels/product_int8.h); weights of floats read the inputs themselves.
  martlet_input_int8,    // martlet_int8_slab
} martlet_input_coding;

// 256 inputs of one token (fewer in a row's last slab) as 16-bit integers: input k is about scale · codes[k].
typedef struct martlet_input_slab {
  int16_t codes[martlet_product_slab];
  int32_t sums16[martlet_product_slab / 16];  // of 16 codes each
  float sums[martlet_product_slab / 32];      // of 32 codes each, exact
  float scale;
  float unused[7];  // 640 bytes: ten cache lines, not a power of two, so that neighbours do not fall on the same cache sets
} martlet_input_slab;

// The same in two digits: code = high + low with high a multiple of 256 and 0 ≤ low < 256, each of which bfloat16 has exactly.
typedef struct martlet_digit_slab {
  uint16_t digits[2 * martlet_product_slab];  // bfloat16: for every 32 inputs their high digits, then their low ones
  int32_t sums16[martlet_product_slab / 16];
  float sums[martlet_product_slab / 32];
  float scale;
  float unused[7];  // 1152 bytes: whole cache lines, not a power of two
} martlet_digit_slab;

// 256 inputs of one token as bfloat16; zeros fill up the last 32 of a row.
typedef struct martlet_bf16_slab {
  uint16_t values[martlet_product_slab];
  uint16_t unused[32];  // 576 bytes: whole cache lines, not a power of two
} martlet_bf16_slab;

// Quads of a slab that have a second digit.
enum { martlet_wide_quads = 5 };

// 256 inputs of one token (fewer in a row's last slab) as 8-bit integers, and those of the widest quads as 15-bit ones: input k is about
// scale · (low + 128 · high), |low| ≤ 127, |high| ≤ 127.
//
// A quad is what one dot product of bytes takes: of every 8 inputs 0, 4, 1 and 5 are one, 2, 6, 3 and 7 the next, in this order. A packed word of 4-bit
// codes is two quads.
typedef struct martlet_int8_slab {
  int8_t low[martlet_product_slab];  // quad behind quad
  int8_t high[martlet_wide_quads][4];
  float sums16[martlet_product_slab / 16];  // of 16 inputs' low + 128 · high, exact
  float sums[martlet_product_slab / 32];    // of 32
  float scale;
  uint8_t places[martlet_wide_quads];  // which of the slab's quads have the high digits
  uint8_t unused[67];  // 448 bytes: whole cache lines, not a power of two
} martlet_int8_slab;

static inline size_t martlet_slab_bytes(int32_t coding) {
  switch (coding) {
    case martlet_input_int8: return sizeof(martlet_int8_slab);
    case martlet_input_digits: return sizeof(martlet_digit_slab);
    case martlet_input_bf16: return sizeof(martlet_bf16_slab);
    default: return sizeof(martlet_input_slab);
  }
}

// Codes `rows_per_task` rows. Columns must be a multiple of 32, except of bfloat16.
//
// Rows may become what is coded on the way, each in the worker's scratch memory, which then holds `columns` floats: by the arithmetic of
// the kernel whose arguments are here, of which the rows and the output are not read.
typedef struct martlet_code_inputs_arguments {
  const float *input;  // [rows, columns], or NULL
  const martlet_rms_norm_arguments *norm;           // in the place of an input, or NULL
  const martlet_gated_activation_arguments *gated;  // likewise
  void *slabs;         // [slabs of a row, rows] of the coding
  int32_t rows, columns, rows_per_task;
  int32_t coding;      // martlet_input_coding
} martlet_code_inputs_arguments;

// output[s, i] = slabs[s, indices[i]]: rows that were coded once, as often as they are multiplied.
typedef struct martlet_pick_slabs_arguments {
  const void *slabs;       // [slabs of a row, rows] of the coding
  const int32_t *indices;  // [count]
  void *output;            // [slabs of a row, count]
  int32_t slab_count, rows, count, count_per_task;
  int32_t coding;          // martlet_input_coding
} martlet_pick_slabs_arguments;

// One weight among those that a product stacks by rows, or a piece of one. The groups of parts follow each other; their rows may lie in another order.
typedef struct martlet_product_part {
  const uint8_t *groups;  // packed
  int64_t group_bytes;
  int32_t format;       // martlet_weight_format
  int32_t rows;
  int32_t first_row;    // among the rows of all parts
  int32_t first_group;  // among the groups of all parts
} martlet_product_part;

// output[t, n] = Σₖ input[t, k] · weight[n, k]. Task i computes groups (i mod c)·groups_per_task … for the tokens
// (i div c)·tokens_per_task …, where c = ceil(group_count / groups_per_task).
// Scratch: martlet_product_scratch_bytes(coding, groups_per_task, tokens_per_task).
typedef struct martlet_product_arguments {
  const martlet_product_part *parts;
  const float *input;                // [tokens, columns]; read by F32, F16, BF16 and E4M3, unless the coding is bf16
  const void *slabs;                 // [slabs of a row, slab_stride] of the coding, the first `tokens` of each; read by the integer formats, bf16 by all
  float *output;                     // [tokens, rows]
  const float *bias;                 // [rows], added to the sums; NULL: nothing is
  float addition_scale;              // where `adds` is set: output += addition_scale · sums
  bool adds;
  int32_t part_count, tokens, columns, rows;
  int32_t slab_stride;               // tokens, or more where others' slabs lie between
  int32_t group_count, groups_per_task, tokens_per_task;
  int32_t coding;                    // martlet_input_coding
} martlet_product_arguments;

// Several products in one run: product i has the tasks first_tasks[i] ..< first_tasks[i + 1].
typedef struct martlet_grouped_product_arguments {
  const martlet_product_arguments *products;
  const int32_t *first_tasks;  // [count], ascending, the first 0
  int32_t count;
} martlet_grouped_product_arguments;

// output[t, :] = scale · weight[tokens[t], :], dequantised as the format says.
typedef struct martlet_embed_arguments {
  const martlet_product_part *parts;
  const int32_t *tokens;
  float *output;  // [count, columns]
  float scale;
  int32_t part_count, count, columns, tokens_per_task;
} martlet_embed_arguments;

// Packs `groups_per_task` groups of a weight into zeroed memory.
//
// A row is as in GGUF, its blocks (of formats without blocks: its values) `block_bytes` apart. MXFP4 and NVFP4 may have the scales of their blocks apart:
// a block is then 16 bytes, or 32 of NVFP4, in each the nibbles of two neighbours, the low one first.
typedef struct martlet_pack_arguments {
  const uint8_t *file;
  uint8_t *groups;
  int64_t row_bytes, block_bytes, group_bytes;
  int32_t format, rows, columns, groups_per_task;
  // MXFP4: e8m0 [rows, columns / 32]; NVFP4: e4m3 [rows, columns / 16]; rows `scale_code_row_bytes` apart. NULL where each block has its own.
  const uint8_t *scale_codes;
  int64_t scale_code_row_bytes;
  // E4M3 and NVFP4: [_, scale_columns], one for rows_of_a_scale × columns_of_a_scale values; NULL: all 1. NVFP4 has one column of them.
  const float *scales;
  int32_t scale_columns, rows_of_a_scale;
  int32_t columns_of_a_scale;    // a multiple of martlet_scaled_run, unless scale_columns is 1
} martlet_pack_arguments;

typedef struct martlet_product_kernels {
  int32_t few_rows;              // of codes and int8: up to so many tokens belong to one task
  int32_t rows_of_a_tile;        // of codes and int8: more are best shared out by multiples of it
  int32_t rows_of_a_digit_tile;  // the same of digits and bf16; 0 where the variant has no tiles, and takes neither
  martlet_task_function pack, code_inputs, pick_slabs, product, grouped_product, embed;
} martlet_product_kernels;

// Bytes of one packed group of 16 rows.
static inline int64_t martlet_packed_group_bytes(int32_t format, int32_t columns) {
  int64_t blocks = columns / 32;
  switch (format) {
    case martlet_weight_f32: return (int64_t)columns * 64;
    case martlet_weight_f16:
    case martlet_weight_bf16: return (int64_t)columns * 32;
    case martlet_weight_e4m3: return (int64_t)columns * 16 + (columns + martlet_scaled_run - 1) / martlet_scaled_run * 64;
    case martlet_weight_q4_0:
    case martlet_weight_iq4_nl: return blocks * 288;
    case martlet_weight_mxfp4: return blocks * 272;
    case martlet_weight_nvfp4: return blocks * 288 + 64;
    case martlet_weight_q4_1: return blocks * 320;
    case martlet_weight_q5_0: return blocks * 352;
    case martlet_weight_q5_1: return blocks * 384;
    case martlet_weight_q8_0: return blocks * 544;
    case martlet_weight_q2_k: return blocks * 160 + blocks / 8 * 64;
    case martlet_weight_q3_k: return blocks * 224 + blocks / 8 * 32;
    case martlet_weight_q4_k: return blocks * 288 + blocks / 8 * 64;
    case martlet_weight_q5_k: return blocks * 352 + blocks / 8 * 64;
    case martlet_weight_q6_k: return blocks * 416 + blocks / 8 * 32;
    default: return 0;
  }
}

// One unpacked slab of floats or of integer codes, and a row of 16 sums for every token and group.
enum { martlet_product_unpacked_bytes = martlet_product_slab * martlet_product_lanes * 4 };

// With digits and bf16, which are for tiles, a slab of every group of the task is unpacked before it is used.
static inline int64_t martlet_product_scratch_bytes(int32_t coding, int32_t groups_per_task, int32_t tokens_per_task) {
  bool is_for_tiles = coding == martlet_input_digits || coding == martlet_input_bf16;
  return (int64_t)martlet_product_unpacked_bytes * (is_for_tiles ? groups_per_task : 1)
    + (int64_t)groups_per_task * tokens_per_task * martlet_product_lanes * 4;
}

#endif
