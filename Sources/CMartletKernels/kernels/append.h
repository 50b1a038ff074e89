// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// One pass over a step's tokens: head norm and rotation of queries and keys, rounding or quantisation, and the store into pages of any
// layout.
//
// Two tasks never write the same byte: tokens that share a 32-bit lane of a packed layout are stored by their own bytes, and what follows a
// request's last token is zeroed by the task that owns this token.

// dims values of x to y: y = x · w / √(mean(x²) + ε), the sum by 16 lanes and their tree. dims is a multiple of 8.
MARTLET_INLINE void append_norm(const float *x, martlet_head_norm norm, int32_t dims, float *y) {
  f32x16 squares = f32x16_set(0);
  int32_t i = 0;
  for (; i + 16 <= dims; i += 16) {
    f32x16 v = f32x16_load(x + i);
    squares = f32x16_fma(v, v, squares);
  }
  if (i < dims) {
    float tail[16] = {0};
    for (int32_t j = i; j < dims; j++) tail[j - i] = x[j];
    f32x16 v = f32x16_load(tail);
    squares = f32x16_fma(v, v, squares);
  }
  float scale = 1.0f / __builtin_sqrtf(f32x16_sum(squares) / (float)dims + norm.epsilon);
  for (i = 0; i < dims; i++) y[i] = x[i] * scale * norm.weight[i];
}

// Rotates `dim` values by the angles whose (cosine, sine) are at `angles`: two products and one sum, each rounded.
MARTLET_INLINE void append_rotate(float *x, const float *angles, int32_t dim, bool is_neox) {
  int32_t half = dim / 2, step = is_neox ? 1 : 2, distance = is_neox ? half : 1;
  for (int32_t i = 0; i < half; i++) {
    float cosine = angles[2 * i], sine = angles[2 * i + 1];
    float *first = x + i * step, *second = first + distance;
    float x1 = *first, x2 = *second;
    *first = x1 * cosine - x2 * sine;
    *second = x2 * cosine + x1 * sine;
  }
}

// Where a token's (cosine, sine) of each pair are: its row of the table, or `gathered`, where pairs turn by positions of several axes.
MARTLET_INLINE const float *append_angles(const martlet_append_arguments *a, int32_t token, float *gathered) {
  if (!a->rope) return 0;
  size_t dim = (size_t)a->rope_dim;
  if (!a->rope_axes) return a->rope + (size_t)a->position_ids[token] * dim;
  for (size_t i = 0; i < dim / 2; i++) {
    int32_t position = a->position_ids[(size_t)a->rope_axes[i] * (size_t)a->axis_columns + (size_t)token];
    const float *pair = a->rope + (size_t)position * dim + 2 * i;
    gathered[2 * i] = pair[0], gathered[2 * i + 1] = pair[1];
  }
  return gathered;
}

// One query or key head, finished, to y.
MARTLET_INLINE void append_finish(
    const martlet_append_arguments *a, const float *x, martlet_head_norm norm, const float *angles, float *y) {
  int32_t dims = a->cache.head_dim;
  if (norm.weight)
    append_norm(x, norm, dims, y);
  else if (x != y)
    __builtin_memcpy(y, x, (size_t)dims * sizeof(float));
  if (angles) append_rotate(y + a->rope_first, angles, a->rope_dim, a->rope_is_neox);
}

// Bytes of a stored number.
MARTLET_INLINE int32_t kv_width(int32_t type) { return type == martlet_kv_f32 ? 4 : type <= martlet_kv_bf16 ? 2 : 1; }

// 16 values from x + i, zeros from dims on.
MARTLET_INLINE f32x16 append_load(const float *x, int32_t i, int32_t dims) {
  if (i + 16 <= dims) return f32x16_load(x + i);
  float padded[16] = {0};
  for (int32_t j = i; j < dims; j++) padded[j - i] = x[j];
  return f32x16_load(padded);
}

// dims float32 values rounded to f16 or bf16. `rounded` has room for dims rounded up to 16.
MARTLET_INLINE void append_round(int32_t type, const float *x, int32_t dims, uint16_t *rounded) {
  for (int32_t i = 0; i < dims; i += 16) {
    f32x16 v = append_load(x, i, dims);
    u32x16 bits = type == martlet_kv_bf16 ? bf16_round(v) : f16_round(v);
    u16x16_store(rounded + i, __builtin_convertvector(bits, u16x16));
  }
}

// The same for e4m3: x · inverse, saturated.
MARTLET_INLINE void append_round_e4m3(const float *x, float inverse, int32_t dims, uint8_t *codes) {
  for (int32_t i = 0; i < dims; i += 16)
    u8x16_store(codes + i, __builtin_convertvector(e4m3_round(append_load(x, i, dims) * inverse), u8x16));
}

// The same for int8: code = rint(x · (127 / amax)), and the scale amax / 127 is returned. A head that is 0 has scale 0 (so does one whose
// 127 / amax would be no number, below 4e-37); one with an infinity or a NaN has scale NaN and codes 0.
MARTLET_INLINE float append_round_i8(const float *x, int32_t dims, int8_t *codes) {
  u32x16 greatest = (u32x16)(0);
  for (int32_t i = 0; i < dims; i += 16) {
    // Without their sign, the bits of floats are ordered as integers, infinity and NaN on top.
    u32x16 magnitude = u32x16_bits(append_load(x, i, dims)) & 0x7FFFFFFFu;
    greatest = magnitude > greatest ? magnitude : greatest;
  }
  uint32_t bits = __builtin_reduce_max(greatest);
  float amax;
  __builtin_memcpy(&amax, &bits, 4);
  float inverse = 127.0f / amax;
  bool coded = bits < 0x7F800000u && inverse <= __FLT_MAX__;
  for (int32_t i = 0; i < dims; i += 16) {
    i32x16 nearest = (i32x16)u32x16_bits(append_load(x, i, dims) * inverse + MARTLET_ROUNDER) - (i32x16)(0x4B400000);
    *(i8x16_unaligned *)(codes + i) = __builtin_convertvector(coded ? nearest : (i32x16)(0), i8x16);
  }
  return coded ? amax / 127.0f : bits < 0x7F800000u ? 0.0f : __builtin_nanf("");
}

// `width`-byte elements of one token and head to their places. The common strides have loops of their own.
MARTLET_INLINE void append_scatter(
    uint8_t *base, const martlet_kv_plane *plane, int64_t token, int64_t head, int32_t dims, int32_t width, const void *elements) {
  base += (head * plane->head_stride + token / plane->token_group * plane->token_stride + token % plane->token_group) * width;
  int64_t stride = plane->dim_stride;
  if (plane->dim_group == 1 && stride == 1) {
    __builtin_memcpy(base, elements, (size_t)dims * (size_t)width);
  } else if (plane->dim_group * width == 4 && dims % plane->dim_group == 0) {
    // Whole 32-bit lanes of this token.
    int32_t lanes = dims * width / 4;
    for (int32_t i = 0; i < lanes; i++) __builtin_memcpy(base + i * stride * width, (const uint8_t *)elements + 4 * i, 4);
  } else if (plane->dim_group == 1 && width == 2) {
    for (int32_t i = 0; i < dims; i++) __builtin_memcpy(base + i * stride * 2, (const uint8_t *)elements + 2 * i, 2);
  } else if (plane->dim_group == 1 && width == 1) {
    for (int32_t i = 0; i < dims; i++) base[i * stride] = ((const uint8_t *)elements)[i];
  } else {
    for (int32_t i = 0; i < dims; i++) {
      int64_t offset = i / plane->dim_group * stride + i % plane->dim_group;
      __builtin_memcpy(base + offset * width, (const uint8_t *)elements + (int64_t)i * width, (size_t)width);
    }
  }
}

// One head of keys or values as its page has it, in `elements`; the scale of int8 is returned, 0 of other types.
MARTLET_INLINE float append_code(int32_t type, const float *x, float inverse, int32_t dims, void *elements) {
  switch (type) {
    case martlet_kv_f32: __builtin_memcpy(elements, x, (size_t)dims * sizeof(float)); return 0;
    case martlet_kv_e4m3: append_round_e4m3(x, inverse, dims, elements); return 0;
    case martlet_kv_i8: return append_round_i8(x, dims, elements);
    default: append_round(type, x, dims, elements); return 0;
  }
}

// One head of keys or values, rounded or quantised, and stored; `inverse` is 1 / scale of e4m3, `scales` the plane's of int8.
MARTLET_INLINE void append_store(
    const martlet_paged_kv *cache, const martlet_kv_plane *plane, uint8_t *base, float *scales, int64_t slot, int64_t head, int32_t dims,
    float inverse, const float *x) {
  float elements[martlet_attention_max_head_dim];
  float scale = append_code(cache->type, x, inverse, dims, elements);
  if (cache->type == martlet_kv_i8) scales[head * cache->scale_head_stride + slot * cache->scale_token_stride] = scale;
  append_scatter(base, plane, slot, head, dims, kv_width(cache->type), elements);
}

// Whether a page is packed, so that 16 neighbouring tokens can be stored by whole vectors.
MARTLET_INLINE bool append_is_packed(const martlet_paged_kv *cache) {
  int32_t group = 4 / kv_width(cache->type);
  return cache->page_size % 16 == 0 && cache->keys.dim_group == group && cache->keys.token_stride == group &&
         cache->keys.token_group == 1 && cache->values.token_group == group && cache->values.dim_stride == group &&
         cache->values.dim_group == 1 && cache->head_dim % 16 == 0 && cache->value_head_dim % 16 == 0;
}

// Sixteen tokens' elements of one head, rows[token], to the packed keys of their page: `lanes` words of each, a multiple of 4, from word to
// word `stride` bytes.
MARTLET_INLINE void append_packed_keys(const uint8_t *const *rows, int32_t lanes, int64_t stride, uint8_t *out) {
  for (int32_t lane = 0; lane < lanes; lane += 4) {
    u32x16 words[4];
    load_transposed(rows, (size_t)lane * 4, 4, words);
    for (int32_t i = 0; i < 4; i++) u32x16_store(out + (lane + i) * stride, words[i]);
  }
}

// The same to packed values: a word holds one dim of 4 / `width` neighbouring tokens; from one such group to the next `stride` bytes.
MARTLET_INLINE void append_packed_values(const uint8_t *const *rows, int32_t width, int32_t dims, int64_t stride, uint8_t *out) {
  for (int token = 0; token < 16; token += 4 / width, out += stride)
    for (int32_t dim = 0; dim < dims; dim += 16) {
      size_t offset = (size_t)(dim * width);
      u32x16 words = (u32x16)(0);
      if (width == 4)
        words = u32x16_load(rows[token] + offset);
      else if (width == 2)
        words = __builtin_convertvector(u16x16_load(rows[token] + offset), u32x16) |
                __builtin_convertvector(u16x16_load(rows[token + 1] + offset), u32x16) << 16;
      else
        for (int i = 0; i < 4; i++)
          words |= __builtin_convertvector(u8x16_load(rows[token + i] + offset), u32x16) << (uint32_t)(8 * i);
      u32x16_store(out + dim * 4, words);
    }
}

// Zeroes the slots from `first` to the page's end, every head and dim of one plane, and their scales.
MARTLET_INLINE void append_zero(
    const martlet_paged_kv *cache, const martlet_kv_plane *plane, uint8_t *base, float *scales, int64_t first, int32_t dims) {
  size_t width = (size_t)kv_width(cache->type);
  int64_t end = cache->page_size;
  for (int64_t head = 0; head < cache->kv_heads; head++) {
    if (cache->type == martlet_kv_i8)
      for (int64_t token = first; token < end; token++) scales[head * cache->scale_head_stride + token * cache->scale_token_stride] = 0;
    uint8_t *start = base + (size_t)(head * plane->head_stride) * width;
    if (plane->token_group == 1 && plane->token_stride == plane->dim_group) {
      // Packed keys: the slots of one group of dims are one run.
      size_t run = (size_t)(end - first) * (size_t)plane->dim_group * width;
      for (int64_t group = 0; group * plane->dim_group < dims; group++)
        __builtin_memset(start + (size_t)(group * plane->dim_stride + first * plane->token_stride) * width, 0, run);
      continue;
    }
    bool whole_rows = plane->dim_group == 1 && plane->dim_stride == plane->token_group;  // packed values, NHD, HND
    int64_t token = first;
    while (token < end) {
      uint8_t *slot = start + (size_t)(token / plane->token_group * plane->token_stride + token % plane->token_group) * width;
      if (whole_rows && token % plane->token_group == 0 && token + plane->token_group <= end) {
        __builtin_memset(slot, 0, (size_t)dims * (size_t)plane->token_group * width);
        token += plane->token_group;
      } else {
        for (int64_t i = 0; i < dims; i++) {
          uint8_t *element = slot + (size_t)(i / plane->dim_group * plane->dim_stride + i % plane->dim_group) * width;
          if (width == 1)
            *element = 0;
          else
            __builtin_memset(element, 0, width == 2 ? 2 : 4);
        }
        token++;
      }
    }
  }
}

// The keys and values of 16 tokens of one request that fill slots `slot` … `slot` + 15 of one packed page: the bytes that storing them one by
// one gives.
static __attribute__((noinline)) void append_sixteen(
    const martlet_append_arguments *a, int32_t token, int32_t page, int32_t slot, float inverse_key, float inverse_value) {
  const martlet_paged_kv *cache = &a->cache;
  int32_t width = kv_width(cache->type);
  uint8_t *keys = cache->pages + (size_t)page * (size_t)cache->page_bytes, *values = keys + cache->values_offset;
  float *key_scales = (float *)(void *)(keys + cache->key_scales_offset);
  float *value_scales = (float *)(void *)(keys + cache->value_scales_offset);
  float finished[martlet_attention_max_head_dim];
  _Alignas(64) uint8_t elements[16][martlet_attention_max_head_dim * 4];
  const uint8_t *rows[16];
  // Of one head after the other, so that the angles of 16 tokens lie ready.
  float gathered[16][martlet_attention_max_head_dim];
  const float *angles[16];
  for (int i = 0; i < 16; i++) {
    rows[i] = elements[i];
    angles[i] = a->rotates_keys ? append_angles(a, token + i, gathered[i]) : 0;
  }
  for (int64_t head = 0; head < cache->kv_heads; head++) {
    int64_t scale_at = head * cache->scale_head_stride + slot * cache->scale_token_stride;
    for (int i = 0; i < 16; i++) {
      const float *key = a->key + (token + i) * a->key_stride + head * cache->head_dim;
      append_finish(a, key, a->key_norm, angles[i], finished);
      float scale = append_code(cache->type, finished, inverse_key, cache->head_dim, elements[i]);
      if (cache->type == martlet_kv_i8) key_scales[scale_at + i * cache->scale_token_stride] = scale;
    }
    append_packed_keys(
        rows, cache->head_dim * width / 4, cache->keys.dim_stride * width, keys + head * cache->keys.head_stride * width + slot * 4);
    for (int i = 0; i < 16; i++) {
      const float *value = a->value + (token + i) * a->value_stride + head * cache->value_head_dim;
      float scale = append_code(cache->type, value, inverse_value, cache->value_head_dim, elements[i]);
      if (cache->type == martlet_kv_i8) value_scales[scale_at + i * cache->scale_token_stride] = scale;
    }
    append_packed_values(
        rows, width, cache->value_head_dim, cache->values.token_stride * width,
        values + (head * cache->values.head_stride + slot / cache->values.token_group * cache->values.token_stride) * width);
  }
}

static void append(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_append_arguments *a = arguments;
  const martlet_paged_kv *cache = &a->cache;
  int32_t head_dim = cache->head_dim, value_dim = cache->value_head_dim;
  int32_t first = task * a->tokens_per_task, end = first + a->tokens_per_task;
  if (end > a->tokens) end = a->tokens;
  float inverse_key = 1.0f / cache->key_scale, inverse_value = 1.0f / cache->value_scale;
  bool is_packed = a->key && a->value && append_is_packed(cache);
  int32_t stored = first;  // tokens before it have their keys and values in their page
  (void)worker, (void)scratch;

  for (int32_t token = first; token < end; token++) {
    int32_t request = a->token_requests[token];
    if (a->kv_lens[request] == 0) continue;
    float gathered[martlet_attention_max_head_dim];
    const float *angles = append_angles(a, token, gathered);
    if (a->query) {
      const float *query = a->query + token * a->query_stride;
      float *finished = a->queries + (size_t)token * (size_t)a->heads * (size_t)head_dim;
      for (int32_t head = 0; head < a->heads; head++)
        append_finish(a, query + (size_t)head * head_dim, a->query_norm, angles, finished + (size_t)head * head_dim);
    }
    if (!a->key) continue;

    int32_t position = a->token_positions[token];
    int32_t page = a->cache.page_table[(size_t)request * (size_t)cache->table_width + (size_t)(position / cache->page_size)];
    int32_t slot = position % cache->page_size;
    uint8_t *keys = cache->pages + (size_t)page * (size_t)cache->page_bytes;
    uint8_t *values = keys + cache->values_offset;
    float *key_scales = (float *)(void *)(keys + cache->key_scales_offset), *value_scales = (float *)(void *)(keys + cache->value_scales_offset);
    const float *key = a->key + token * a->key_stride, *value = a->value ? a->value + token * a->value_stride : 0;
    if (is_packed && token >= stored && slot % 16 == 0 && token + 16 <= end && a->token_requests[token + 15] == request &&
        a->token_positions[token + 15] == position + 15) {
      append_sixteen(a, token, page, slot, inverse_key, inverse_value);
      stored = token + 16;
    }
    for (int32_t head = 0; token >= stored && head < cache->kv_heads; head++) {
      float finished[martlet_attention_max_head_dim];
      append_finish(a, key + (size_t)head * head_dim, a->key_norm, a->rotates_keys ? angles : 0, finished);
      append_store(cache, &cache->keys, keys, key_scales, slot, head, head_dim, inverse_key, finished);
      if (value)
        append_store(cache, &cache->values, values, value_scales, slot, head, value_dim, inverse_value, value + (size_t)head * value_dim);
    }
    if (token + 1 == a->query_indptr[request + 1]) {
      append_zero(cache, &cache->keys, keys, key_scales, slot + 1, head_dim);
      if (value) append_zero(cache, &cache->values, values, value_scales, slot + 1, value_dim);
    }
  }
}
