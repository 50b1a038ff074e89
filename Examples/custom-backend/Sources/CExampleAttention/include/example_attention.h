// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// A small attention kernel of one's own: plain C over NHD pages of float32 or bf16.

#ifndef EXAMPLE_ATTENTION_H
#define EXAMPLE_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

// One layer's pages: keys `[token][head][dim]`, then values, in float32 or bf16.
typedef struct example_cache {
  uint8_t *pages;
  int64_t page_bytes, values_offset;
  const int32_t *page_table;  // [requests, table_width]
  int32_t table_width, page_size, kv_heads, head_dim, value_head_dim;
  bool is_bf16;
} example_cache;

// Stores each token's keys and values, rounded to the cache's type, at its cache position. Tokens of a request without keys are dummies, which
// have no pages.
void example_append(
    const example_cache *cache, const float *keys, const float *values, const int32_t *token_requests, const int32_t *token_positions,
    const int32_t *kv_lens, int32_t tokens);

typedef struct example_attend_arguments {
  const float *queries;        // [tokens, heads, head_dim]
  float *output;               // [tokens, heads, value_head_dim]
  float *log_sum_exp;          // [tokens, heads], base 2; NULL if not wanted
  const int32_t *query_indptr, *kv_lens;
  const float *sinks;          // [heads]; NULL for none
  const int32_t *mask_words, *mask_offsets;  // custom bits; NULL for none
  int32_t requests, heads, window;           // window 0: none
  float scale, soft_cap;                     // soft_cap 0: none
  bool causal;
  float *scores;               // room for the longest request's keys
} example_attend_arguments;

// One row after the other: scores, their softmax, the weighted sum of values.
void example_attend(const example_cache *cache, const example_attend_arguments *arguments);

#endif
