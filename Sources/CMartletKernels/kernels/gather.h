// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Reads stored keys back as float32, whatever their type and layout: the numbers that attention reads.

// `dims` numbers of one token and head from their places to `elements`, side by side.
MARTLET_INLINE void gather_elements(
    const uint8_t *base, const martlet_kv_plane *plane, int32_t first, int32_t dims, int32_t width, uint8_t *elements) {
  if (plane->dim_group == 1 && plane->dim_stride == 1) {
    __builtin_memcpy(elements, base + (int64_t)first * width, (size_t)dims * (size_t)width);
    return;
  }
  for (int32_t i = 0; i < dims; i++) {
    int32_t dim = first + i;
    int64_t offset = dim / plane->dim_group * plane->dim_stride + dim % plane->dim_group;
    __builtin_memcpy(elements + i * width, base + offset * width, (size_t)width);
  }
}

// 16 numbers as float32, exactly but for the scales of e4m3 and int8, which round once.
MARTLET_INLINE f32x16 gather_widen(int32_t type, const uint8_t *elements, float scale) {
  switch (type) {
    case martlet_kv_f32: return f32x16_load(elements);
    case martlet_kv_f16: return f16_widen(__builtin_convertvector(u16x16_load(elements), u32x16));
    case martlet_kv_bf16: return f32x16_from_bits(__builtin_convertvector(u16x16_load(elements), u32x16) << 16);
    case martlet_kv_e4m3: return e4m3_widen(__builtin_convertvector(u8x16_load(elements), u32x16)) * scale;
    default: return __builtin_convertvector(*(const i8x16_unaligned *)elements, f32x16) * scale;
  }
}

static void gather_keys(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_gather_arguments *a = arguments;
  const martlet_paged_kv *cache = &a->cache;
  const martlet_kv_plane *plane = &cache->keys;
  int32_t width = kv_width(cache->type), first = task * a->tokens_per_task, end = first + a->tokens_per_task;
  if (end > a->tokens) end = a->tokens;
  const int32_t *table = cache->page_table + (int64_t)a->request * cache->table_width;
  (void)worker, (void)scratch;
  // 16 numbers more, which the last vector may read.
  uint8_t elements[(martlet_attention_max_head_dim + 16) * 4] = {0};
  for (int32_t token = first; token < end; token++) {
    int32_t position = a->first_position + token, slot = position % cache->page_size;
    const uint8_t *page = cache->pages + (int64_t)table[position / cache->page_size] * cache->page_bytes;
    int64_t place = a->head * plane->head_stride + slot / plane->token_group * plane->token_stride + slot % plane->token_group;
    gather_elements(page + place * width, plane, a->first_dim, a->dims, width, elements);
    float scale = cache->key_scale;
    if (cache->type == martlet_kv_i8) {
      int64_t scale_place = a->head * cache->scale_head_stride + slot * cache->scale_token_stride;
      __builtin_memcpy(&scale, page + cache->key_scales_offset + 4 * scale_place, sizeof scale);
    }
    float *output = a->output + (int64_t)token * a->dims;
    int32_t dim = 0;
    for (; dim + 16 <= a->dims; dim += 16) f32x16_store(output + dim, gather_widen(cache->type, elements + dim * width, scale));
    if (dim == a->dims) continue;
    float rest[16];
    f32x16_store(rest, gather_widen(cache->type, elements + dim * width, scale));
    __builtin_memcpy(output + dim, rest, (size_t)(a->dims - dim) * sizeof(float));
  }
}
