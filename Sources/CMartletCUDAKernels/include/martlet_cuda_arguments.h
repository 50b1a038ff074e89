// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The arguments of the CUDA kernels: each kernel takes one of these structs by value.
//
// The same file is read by the host's C compiler and, as a header of the kernels, by NVRTC and by the emulator. So it includes nothing under NVRTC, and an
// address of device memory is a number of 64 bits: the host never follows it. Tensors are float32 unless said otherwise, and rows lie one behind the other.

#ifndef MARTLET_CUDA_ARGUMENTS_H
#define MARTLET_CUDA_ARGUMENTS_H

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

// Of device memory; 0 where there is nothing.
typedef uint64_t martlet_cuda_address;

// MARK: rows

// y = x · w / √(mean(x²) + epsilon). One block for each row. `output` may be `input`.
typedef struct martlet_cuda_rms_norm_arguments {
  martlet_cuda_address input, weight, output;  // [rows, columns], [columns], [rows, columns]
  int32_t rows, columns;
  float epsilon;
} martlet_cuda_rms_norm_arguments;

// y = (x − mean(x)) · w / √(variance(x) + epsilon) + b. `output` may be `input`.
typedef struct martlet_cuda_layer_norm_arguments {
  martlet_cuda_address input, weight, bias, output;
  int32_t rows, columns;
  float epsilon;
} martlet_cuda_layer_norm_arguments;

// accumulator += scale · addend, one fma for each value.
typedef struct martlet_cuda_add_arguments {
  martlet_cuda_address addend, accumulator;
  int64_t count;
  float scale;
} martlet_cuda_add_arguments;

// accumulator[r, :] += table[row(r), :], where row(r) is indices[r], or 0 without indices.
typedef struct martlet_cuda_add_rows_arguments {
  martlet_cuda_address table, indices, accumulator;  // indices: int32 [rows] or 0
  int32_t rows, columns;
} martlet_cuda_add_rows_arguments;

// accumulator[i, :] += addends[g, :], where offsets[g] ≤ i < offsets[g + 1]; offsets int32 [groups + 1], ascending, the first 0, the last rows.
typedef struct martlet_cuda_add_group_rows_arguments {
  martlet_cuda_address addends, offsets, accumulator;
  int32_t rows, columns, groups;
} martlet_cuda_add_group_rows_arguments;

// values = scale · values; under a cap above 0, cap · tanh(scale · values / cap).
typedef struct martlet_cuda_scale_arguments {
  martlet_cuda_address values;
  int64_t count;
  float scale, cap;
} martlet_cuda_scale_arguments;

// values[r, 0 ..< scaled] *= factors[indices[r]]; indices int32 [rows].
typedef struct martlet_cuda_scale_rows_arguments {
  martlet_cuda_address values, factors, indices;
  int32_t rows, columns, scaled;
} martlet_cuda_scale_rows_arguments;

enum {
  martlet_cuda_activation_silu = 0,
  martlet_cuda_activation_gelu_tanh = 1,
  martlet_cuda_activation_clamped = 2,
};

// output[r, i] = activation(gate_up[r, i]) · gate_up[r, width + i], as GatedActivation says.
typedef struct martlet_cuda_gated_activation_arguments {
  martlet_cuda_address gate_up, output;  // [rows, 2·width], [rows, width]
  int32_t rows, width, activation;
  float alpha, limit;  // of the clamped one
} martlet_cuda_gated_activation_arguments;

// values = ½x(1 + erf(x / √2)) of x = values + bias; bias [columns] or 0.
typedef struct martlet_cuda_gelu_arguments {
  martlet_cuda_address values, bias;
  int32_t rows, columns;
} martlet_cuda_gelu_arguments;

// output[i, :] = input[indices[i], :]; indices int32 [rows].
typedef struct martlet_cuda_gather_rows_arguments {
  martlet_cuda_address input, indices, output;
  int32_t rows, columns;
} martlet_cuda_gather_rows_arguments;

// Copies `width` values of each head of each row; strides in values. The addresses are those of the first head of the first row.
typedef struct martlet_cuda_copy_heads_arguments {
  martlet_cuda_address input, output;
  int64_t input_row_stride, input_head_stride, output_row_stride, output_head_stride;
  int32_t rows, heads, width;
} martlet_cuda_copy_heads_arguments;

enum {
  martlet_cuda_pooling_mean = 0,
  martlet_cuda_pooling_first = 1,
  martlet_cuda_pooling_last = 2,
};

// output[s, :] is made of input[starts[s] ..< starts[s + 1], :]; starts int32 [rows + 1]. Sums are in double, in the order of the rows.
typedef struct martlet_cuda_pool_rows_arguments {
  martlet_cuda_address input, starts, output;
  int32_t rows, columns, method;
} martlet_cuda_pool_rows_arguments;

// values[r, :] /= max(|values[r, :]|, 1e-12), in double.
typedef struct martlet_cuda_unit_rows_arguments {
  martlet_cuda_address values;
  int32_t rows, columns;
} martlet_cuda_unit_rows_arguments;

// chosen[r] = the index of the greatest of values[r, :], of equals the lowest; NaN is never chosen, and a row of NaN gives 0. int32 [rows].
typedef struct martlet_cuda_argmax_arguments {
  martlet_cuda_address values, chosen;
  int32_t rows, columns;
} martlet_cuda_argmax_arguments;

// MARK: products

// The formats of weights. Their order is that of CMartletKernels.
typedef enum martlet_cuda_format {
  martlet_cuda_f32,
  martlet_cuda_f16,
  martlet_cuda_bf16,
  martlet_cuda_e4m3,
  martlet_cuda_q4_0,
  martlet_cuda_q4_1,
  martlet_cuda_q5_0,
  martlet_cuda_q5_1,
  martlet_cuda_q8_0,
  martlet_cuda_q2_k,
  martlet_cuda_q3_k,
  martlet_cuda_q4_k,
  martlet_cuda_q5_k,
  martlet_cuda_q6_k,
  martlet_cuda_iq4_nl,
  martlet_cuda_mxfp4,
  martlet_cuda_nvfp4,
  martlet_cuda_format_count,
} martlet_cuda_format;

// A packed weight is a run of groups of 16 rows. A group is block after block of 32 inputs, and a block lies as the lanes of a warp multiply it:
//
//   A lane's 16 codes of a block are those of mma.m16n8k16's A, of inputs 0…15 and then of 16…31: code e of half h is row L/4 + 8·((e/2)%2), input
//   16·h + 2·(L%4) + e%2 + 8·(e/4), of lane L. They lie in planes, the low bits first: each plane is its lanes one after another.
//
//   format  before 8 blocks       a block of 16 rows × 32 inputs                              bytes
//   Q4_0                          f16 d[16]; 4 bits                                             288
//   Q4_1                          f16 d[16], f16 m[16]; 4 bits                                  320
//   Q5_0                          f16 d[16]; 4 bits, 1 bit                                      352
//   Q5_1                          f16 d[16], f16 m[16]; 4 bits, 1 bit                           384
//   Q8_0                          f16 d[16]; 8 bits, each plus 128                              544
//   Q2_K    f16 d[16], dmin[16]   u8 s[2][16], each with its m in the high half; 2 bits         168
//   Q3_K    f16 d[16]             i8 s[2][16]; 2 bits, 1 bit                                    228
//   Q4_K    f16 d[16], dmin[16]   u8 s[16], u8 m[16]; 4 bits                                    296
//   Q5_K    f16 d[16], dmin[16]   u8 s[16], u8 m[16]; 4 bits, 1 bit                             360
//   Q6_K    f16 d[16]             i8 s[2][16]; 4 bits, 2 bits                                   420
//   IQ4_NL                        f16 d[16]; 4 bits, places in its table                        288
//   MXFP4                         e8m0 d[16]; 4 bits of e2m1                                    272
//   NVFP4   once: f32 d[16]       e4m3 s[2][16]; 4 bits of e2m1                                 288
//   E4M3    once for 4 blocks: f32 d[16]; 8 bits                                                528
//   F32, F16, BF16                32 or 16 bits of each value                             2048, 1024
//
// Rows and inputs that fill up the last group and block are zero. Every block begins at a multiple of 16 bytes, and headers before blocks do.
enum {
  martlet_cuda_group_rows = 16,
  martlet_cuda_block_inputs = 32,
  martlet_cuda_token_tile = 8,    // tokens that lie together in coded inputs
  martlet_cuda_slabs = 8,         // parts of k whose sums are added at the end, in ascending order
  martlet_cuda_most_terms = 3,
};

// Brings rows of a weight, as they lie in their file, into the order above. One warp for each block of each group.
//
// A row is as in GGUF, its blocks (of formats without blocks: its values) `block_bytes` apart. MXFP4 and NVFP4 may have the scales of their blocks apart:
// a block is then 16 bytes, or 32 of NVFP4, in each the nibbles of two neighbours, the low one first.
typedef struct martlet_cuda_pack_arguments {
  martlet_cuda_address file, groups;
  int64_t row_bytes, block_bytes;
  // MXFP4: e8m0 [rows, columns / 32]; NVFP4: e4m3 [rows, columns / 16]; rows `scale_code_row_bytes` apart. 0 where each block has its own.
  martlet_cuda_address scale_codes;
  int64_t scale_code_row_bytes;
  // E4M3 and NVFP4: [_, scale_columns], one for rows_of_a_scale × columns_of_a_scale values; 0: all 1. NVFP4 has one column of them.
  martlet_cuda_address scales;
  int32_t scale_columns, rows_of_a_scale, columns_of_a_scale;  // a multiple of 128, unless scale_columns is 1
  int32_t format, rows, columns;
  int32_t first_row;  // of these rows among those of the weight's scales: file and groups begin there
} martlet_cuda_pack_arguments;

// Rows as products read them: x is a sum of `terms` numbers of bfloat16, each what the ones before left, rounded.
//
// Tile after tile of 8 tokens, in each block after block of 32 inputs, in each term after term 512 bytes: lane L has 8 bfloat16 of token L/4, as
// mma.m16n8k16's B takes them: number e of half h is input 16·h + 2·(L%4) + e%2 + 8·(e/2). Tokens and inputs that fill up tile and block are zero.
// What is coded is a row, or made of one on the way, to the bits of the kernel that does it alone.
typedef struct martlet_cuda_code_inputs_arguments {
  martlet_cuda_address input, output;
  martlet_cuda_address rows;  // int32 [tokens], the row of `input` of each token; 0: token t is row t
  int64_t input_stride;       // values from row to row
  int32_t tokens, columns, terms;
} martlet_cuda_code_inputs_arguments;

// output[t, first_row + n] = Σₖ input[t, k] · weight[n, k], or added to what is there.
//
// One arithmetic for every number of tokens: k is cut into martlet_cuda_slabs slabs of ⌈blocks / 8⌉ blocks. A slab's sum begins with 0 and goes up in k, by
// mma.m16n8k16 with the weights as A and the tokens as B: for 32 inputs (16 where a scale is for 16) the products of codes and terms are added from 0,
// the codes' higher terms last, and then sum = fma(scale, products, sum), and sum = fma(minimum, sum of the inputs, sum) where the format has
// minimums. Floats have no scale, and their sums are mma's alone. The sums of slabs are added in ascending order.
typedef struct martlet_cuda_product_arguments {
  martlet_cuda_address groups, inputs;  // packed; coded
  martlet_cuda_address output;          // of the weight's first row, for the first token
  martlet_cuda_address bias;            // [rows], added to the sums; or 0
  int64_t output_stride;                // values from token to token
  int32_t rows, columns, tokens;
  int32_t stored_terms;                 // of the inputs
  int32_t terms;                        // that are multiplied, at most stored_terms: term i of a weight with term j of an input where i + j < terms
  int32_t adds;                         // output += addition_scale · (sums + bias)
  float addition_scale;
} martlet_cuda_product_arguments;

// output[t, :] = scale · weight[tokens[t], :]; tokens int32 [count].
typedef struct martlet_cuda_embed_arguments {
  martlet_cuda_address groups, tokens, output;
  int32_t format, count, columns;
  int32_t first_row, rows;  // tokens outside first_row ..< first_row + rows are left alone: they are another part's
  float scale;
} martlet_cuda_embed_arguments;

// MARK: attention

typedef enum martlet_cuda_kv_type {
  martlet_cuda_kv_f32,
  martlet_cuda_kv_f16,
  martlet_cuda_kv_bf16,
  martlet_cuda_kv_e4m3,
  martlet_cuda_kv_i8,
} martlet_cuda_kv_type;

// Where (token, head, dim) lies in a page, in elements from the start of the page's keys or of its values.
typedef struct martlet_cuda_kv_plane {
  int64_t head_stride, token_stride, dim_stride;  // the last two from group to group
  int32_t token_group, dim_group;                 // neighbours that lie side by side
} martlet_cuda_kv_plane;

// The pages of one layer, and which page holds what: KVLayout.
typedef struct martlet_cuda_paged_kv {
  martlet_cuda_address pages;
  martlet_cuda_address page_table;  // int32 [requests, table_width]; a negative entry is a page that is not there
  int64_t page_bytes;
  int64_t values_offset;  // bytes from the start of a page to its values; 0 where they are the first dims of its keys
  // i8: bytes from the start of a page to the float32 scales of its keys and of its values, floats from head to head and token to token.
  int64_t key_scales_offset, value_scales_offset, scale_head_stride, scale_token_stride;
  martlet_cuda_kv_plane keys, values;
  int32_t table_width;
  int32_t type;  // martlet_cuda_kv_type
  int32_t page_size, kv_heads, head_dim, value_head_dim;
  float key_scale, value_scale;  // e4m3: what is stored is x / scale; not looked at otherwise
} martlet_cuda_paged_kv;

// AttentionKernels.append: one warp for each token and head, of queries and then of keys and values.
typedef struct martlet_cuda_append_arguments {
  martlet_cuda_paged_kv cache;
  // The first head of the first token, and floats from one token to the next. query 0: no queries to finish; key 0: nothing to append,
  // and `cache` tells only head_dim; value 0: values are the first dims of the keys.
  martlet_cuda_address query, key, value;
  int64_t query_stride, key_stride, value_stride;
  martlet_cuda_address queries;  // [tokens, heads·head_dim]
  martlet_cuda_address rope;     // [positions, rope_dim / 2, 2], cosine and sine; 0 for no rotation
  martlet_cuda_address query_norm, key_norm;  // [head_dim]; 0 for none
  martlet_cuda_address query_indptr, kv_lens, token_requests, token_positions, position_ids;  // int32
  // Positions of three axes: int32 [rope_dim / 2], the row of position_ids, whose rows lie axis_columns apart, that each pair turns by; 0: the first.
  martlet_cuda_address rope_axes;
  int32_t axis_columns;
  int32_t tokens, heads;
  int32_t rope_dim, rope_first;  // how many dims are rotated, and the first of them
  int32_t rope_is_neox;          // pairs (i, i + rope_dim / 2), else (2i, 2i + 1)
  int32_t rotates_keys;
  float query_epsilon, key_epsilon;
} martlet_cuda_append_arguments;

enum {
  martlet_cuda_chunk_size = 512,  // AttentionWork.chunkSize
  martlet_cuda_tile_size = 64,    // AttentionWork.tileSize
  martlet_cuda_most_head_dim = 576,
  martlet_cuda_cascade = -2,      // AttentionTask.cascade
};

// AttentionKernels.attend: one block for each task. Tasks, segments and merges lie as AttentionWork has them.
typedef struct martlet_cuda_attend_arguments {
  martlet_cuda_paged_kv cache;
  martlet_cuda_address queries;      // [tokens, heads·head_dim]
  martlet_cuda_address output;       // [tokens, heads·value_head_dim]: float32, or e4m3 of the output times output_scale
  martlet_cuda_address log_sum_exp;  // [tokens, heads], base 2; 0 if not wanted
  martlet_cuda_address query_indptr, kv_lens;  // int32
  martlet_cuda_address tasks, segments, merges;
  martlet_cuda_address states;    // rows of (m, d, o[value_head_dim])
  martlet_cuda_address finished;  // int32 [merges], zero before and after
  // Custom masks: a request's bits, ⌈key length / 64⌉ · 2 words to a query, begin at word mask_offsets[request]; negative: no bits.
  martlet_cuda_address mask_words, mask_offsets;  // 0 where no request has bits
  martlet_cuda_address sinks;                     // [heads]: one more logit each; 0 for none
  martlet_cuda_address key_rope;                  // [positions, key_rope_dim / 2, 2]: rotates keys as they are read; 0: they are stored as they are
  int32_t task_count, heads;
  int32_t window;  // how many keys a query sees to a side, itself included; 0 for all
  int32_t key_rope_dim, key_rope_first, key_rope_is_neox;
  int32_t causal, rounds_queries_to_e4m3, output_is_e4m3;
  // Numbers of bfloat16 that queries and weights become, and stored numbers of more bits: term i of one is multiplied with term j of the other where
  // i + j < terms. 3 gives float32's precision, 2 is what narrower caches deserve, 1 is the fastest.
  int32_t terms;
  float scale;
  float soft_cap;  // 0 for none
  float output_scale;
} martlet_cuda_attend_arguments;

#endif
