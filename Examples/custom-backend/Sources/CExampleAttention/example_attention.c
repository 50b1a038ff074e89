// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#include "example_attention.h"

#include <math.h>
#include <string.h>

// bf16 is the upper half of a float32; rounded to nearest, ties to even.
static uint16_t bf16_round(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return x != x ? (uint16_t)(bits >> 16 | 0x40) : (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float bf16_widen(uint16_t half) {
  uint32_t bits = (uint32_t)half << 16;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

// Where a token's first key head, or value head, begins: the page that the table names, the slot within it.
static uint8_t *slot(const example_cache *c, int32_t request, int32_t position, bool values) {
  int32_t page = c->page_table[request * c->table_width + position / c->page_size];
  int64_t width = (int64_t)c->kv_heads * (values ? c->value_head_dim : c->head_dim) * (c->is_bf16 ? 2 : 4);
  return c->pages + page * c->page_bytes + (values ? c->values_offset : 0) + position % c->page_size * width;
}

static float element(const example_cache *c, const uint8_t *start, int32_t index) {
  return c->is_bf16 ? bf16_widen(((const uint16_t *)(const void *)start)[index]) : ((const float *)(const void *)start)[index];
}

static void store(const example_cache *c, uint8_t *start, const float *x, int32_t count) {
  if (!c->is_bf16)
    memcpy(start, x, (size_t)count * sizeof(float));
  else
    for (int32_t i = 0; i < count; i++) ((uint16_t *)(void *)start)[i] = bf16_round(x[i]);
}

void example_append(
    const example_cache *c, const float *keys, const float *values, const int32_t *token_requests, const int32_t *token_positions,
    const int32_t *kv_lens, int32_t tokens) {
  int32_t key_width = c->kv_heads * c->head_dim, value_width = c->kv_heads * c->value_head_dim;
  for (int32_t t = 0; t < tokens; t++) {
    if (kv_lens[token_requests[t]] == 0) continue;  // a dummy, which fills a captured batch
    store(c, slot(c, token_requests[t], token_positions[t], false), keys + (int64_t)t * key_width, key_width);
    store(c, slot(c, token_requests[t], token_positions[t], true), values + (int64_t)t * value_width, value_width);
  }
}

// Whether query `query` (of its request's) at cache position `position` sees key `key`. Custom bits replace causal and window.
static bool sees(const example_attend_arguments *a, int32_t request, int32_t query, int32_t position, int32_t key) {
  if (a->mask_offsets && a->mask_offsets[request] >= 0) {
    int64_t words = (int64_t)(a->kv_lens[request] + 63) / 64 * 2;
    return (uint32_t)a->mask_words[a->mask_offsets[request] + query * words + key / 32] >> key % 32 & 1;
  }
  if (a->causal && key > position) return false;
  return a->window == 0 || (key > position - a->window && key < position + a->window);
}

void example_attend(const example_cache *c, const example_attend_arguments *a) {
  for (int32_t request = 0; request < a->requests; request++) {
    int32_t first = a->query_indptr[request], queries = a->query_indptr[request + 1] - first, keys = a->kv_lens[request];
    if (keys == 0) continue;  // a dummy
    for (int64_t row = (int64_t)first * a->heads; row < (int64_t)(first + queries) * a->heads; row++) {
      int32_t query = (int32_t)(row / a->heads) - first, head = (int32_t)(row % a->heads);
      int32_t kv_head = head / (a->heads / c->kv_heads), position = keys - queries + query;
      const float *q = a->queries + row * c->head_dim;
      float sink = a->sinks ? a->sinks[head] : -INFINITY, greatest = sink, sum = 0;
      for (int32_t key = 0; key < keys; key++) {
        a->scores[key] = -INFINITY;
        if (!sees(a, request, query, position, key)) continue;
        const uint8_t *k = slot(c, request, key, false);
        float dot = 0;
        for (int32_t i = 0; i < c->head_dim; i++) dot += q[i] * element(c, k, kv_head * c->head_dim + i);
        dot *= a->scale;
        a->scores[key] = a->soft_cap > 0 ? a->soft_cap * tanhf(dot / a->soft_cap) : dot;
        if (a->scores[key] > greatest) greatest = a->scores[key];
      }
      float *o = a->output + row * c->value_head_dim;
      memset(o, 0, (size_t)c->value_head_dim * sizeof(float));
      if (greatest > -INFINITY) sum = expf(sink - greatest);
      for (int32_t key = 0; key < keys; key++) {
        if (a->scores[key] == -INFINITY) continue;
        const uint8_t *v = slot(c, request, key, true);
        float p = expf(a->scores[key] - greatest);
        sum += p;
        for (int32_t i = 0; i < c->value_head_dim; i++) o[i] += p * element(c, v, kv_head * c->value_head_dim + i);
      }
      if (sum > 0)
        for (int32_t i = 0; i < c->value_head_dim; i++) o[i] /= sum;
      if (a->log_sum_exp) a->log_sum_exp[row] = sum > 0 ? greatest * 1.44269504f + log2f(sum) : -INFINITY;
    }
  }
}
