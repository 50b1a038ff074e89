// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The attention kernels: the append of a step's keys and values to their pages, and the attention over those pages.

#ifndef MARTLET_ATTENTION_H
#define MARTLET_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#include "martlet_threads.h"

enum {
  martlet_kv_chunk_size = 512,      // tokens of a chunk: states of chunks are what merges fold
  martlet_kv_tile_size = 64,        // tokens of a tile: one step of the online softmax
  martlet_attention_max_rows = 96,  // of a task
  martlet_attention_max_head_dim = 576,
  martlet_attention_scratch_bytes = 5 << 18,  // what a worker's scratch memory must hold
};

// The type of a stored key or value.
typedef enum martlet_kv_type { martlet_kv_f32, martlet_kv_f16, martlet_kv_bf16, martlet_kv_e4m3, martlet_kv_i8 } martlet_kv_type;

// Where (token, head, dim) lies in a page, in elements from the start of the page's keys or of its values.
typedef struct martlet_kv_plane {
  int64_t head_stride, token_stride, dim_stride;  // the last two from group to group
  int32_t token_group, dim_group;                 // neighbours that lie side by side
} martlet_kv_plane;

// The pages of one layer, and which page holds what.
typedef struct martlet_paged_kv {
  uint8_t *pages;
  int64_t page_bytes;
  int64_t values_offset;      // bytes from the start of a page to its values; 0 where they are the first dims of its keys
  // i8: bytes from the start of a page to the float32 scales of its keys and of its values, floats from head to head and token to token.
  int64_t key_scales_offset, value_scales_offset, scale_head_stride, scale_token_stride;
  const int32_t *page_table;  // [requests, table_width]; a negative entry is a page that is not there
  int32_t table_width;
  int32_t type;  // martlet_kv_type
  int32_t page_size, kv_heads, head_dim, value_head_dim;
  martlet_kv_plane keys, values;
  float key_scale, value_scale;  // e4m3: what is stored is x / scale; not looked at otherwise
} martlet_paged_kv;

// Normalisation of heads; weight NULL where there is none.
typedef struct martlet_head_norm {
  const float *weight;  // [head_dim]
  float epsilon;
} martlet_head_norm;

// Normalises and rotates a step's queries and keys and stores its keys and values. One task takes `tokens_per_task` tokens, and zeroes
// what follows a request's last token in that token's page if the token is among them. Tokens of a request of length 0 are left out.
typedef struct martlet_append_arguments {
  martlet_paged_kv cache;
  // The first head of the first token, and floats from one token to the next. query NULL: no queries to finish; key NULL: nothing to append,
  // and `cache` tells only head_dim; value NULL: values are the first dims of the keys.
  const float *query, *key, *value;
  int64_t query_stride, key_stride, value_stride;
  float *queries;       // [tokens, heads·head_dim]
  const float *rope;    // [positions, rope_dim / 2, 2], cosine and sine; NULL for no rotation
  martlet_head_norm query_norm, key_norm;
  const int32_t *query_indptr, *kv_lens, *token_requests, *token_positions, *position_ids;
  // Positions of three axes: [rope_dim / 2], the row of position_ids, whose rows lie axis_columns apart, that each pair turns by. NULL: the first.
  const int32_t *rope_axes;
  int32_t axis_columns;
  int32_t tokens, tokens_per_task, heads, rope_dim;
  int32_t rope_first;  // the first dim that is rotated
  bool rope_is_neox;  // pairs (i, i + rope_dim / 2), else (2i, 2i + 1)
  bool rotates_keys;
} martlet_append_arguments;

// A block of query rows of one request and key/value head against a run of chunks. row = token · group + head of the group.
typedef struct martlet_attention_task {
  int32_t request, kv_head, first_row, row_count, first_chunk, end_chunk;
  int32_t merge;      // −1: the task writes the output itself; else its one chunk's state goes to `states`
  int32_t state_row;
} martlet_attention_task;

// `merge` of a cascade task: its rows are those of `state_row` segments from segment `first_row` on, all of which see the whole chunk;
// `request` is the one whose pages are read.
enum { martlet_attention_cascade = -2 };

// Rows of one request in a cascade task. Their states of the task's chunk go to `states` from `state_row` on.
typedef struct martlet_attention_segment {
  int32_t request, first_row, row_count, merge, state_row, reserved[3];
} martlet_attention_segment;

typedef struct martlet_attention_merge {
  int32_t state_row, chunk_count, row_count, reserved;
} martlet_attention_merge;

// Attends from queries to pages. One task is one martlet_attention_task.
typedef struct martlet_attend_arguments {
  martlet_paged_kv cache;
  const float *queries;  // [tokens, heads·head_dim]
  void *output;          // [tokens, heads·value_head_dim]: float32, or e4m3 of the output times output_scale
  float *log_sum_exp;    // [tokens, heads], base 2; NULL if not wanted
  const int32_t *query_indptr, *kv_lens;
  const martlet_attention_task *tasks;
  const martlet_attention_segment *segments;
  const martlet_attention_merge *merges;
  float *states;      // rows of (m, d, o[value_head_dim])
  int32_t *finished;  // [merges], zero before and after
  // Custom masks: a request's bits, ⌈key length / 64⌉ · 2 words to a query, begin at word mask_offsets[request]; negative: no bits.
  const uint32_t *mask_words;
  const int32_t *mask_offsets;  // NULL where no request has bits
  const float *sinks;           // [heads]: one more logit each; NULL for none
  const float *key_rope;        // [positions, key_rope_dim / 2, 2]: rotates keys as they are read; NULL where they are stored as they are
  int32_t heads;
  int32_t window;  // how many keys a query sees to a side, itself included; 0 for all
  int32_t key_rope_dim, key_rope_first;
  float scale;
  float soft_cap;  // 0 for none
  float output_scale;
  bool causal;
  bool key_rope_is_neox;
  bool rounds_queries_to_e4m3;
  bool output_is_e4m3;
} martlet_attend_arguments;

// Reads stored keys of one head of one request as float32. One task takes `tokens_per_task` tokens.
typedef struct martlet_gather_arguments {
  martlet_paged_kv cache;
  float *output;           // [tokens, dims]
  int32_t request, head;
  int32_t first_position;  // of the first token
  int32_t tokens, tokens_per_task;
  int32_t first_dim, dims;
} martlet_gather_arguments;

typedef struct martlet_attention_kernels {
  martlet_task_function append;
  martlet_task_function attend;
  martlet_task_function gather;
} martlet_attention_kernels;

#endif
