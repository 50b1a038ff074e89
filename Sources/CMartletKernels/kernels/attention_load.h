// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Brings one tile, 64 tokens of keys and values of one head, from pages of any layout and type to where register tiles read it.
//
// A tile is brought once for all rows of a task, in packed form of the type that is multiplied: bf16 where there are dot products of it; else
// float32 for many rows, and for few the cache's own type or, of one-byte numbers, bf16. All of this is exact, so that a row has the same bits
// from pages of every layout; only keys that are rotated as they are read are rounded, once, after the rotation in float32. What of the tile
// lies in pages without a visible token is not read, and what stands in its place is not multiplied.

// A worker's memory for one tile.
typedef struct load_scratch {
  _Alignas(64) uint32_t keys[martlet_attention_max_head_dim * martlet_kv_tile_size];    // [lanes][64]
  _Alignas(64) uint32_t values[martlet_kv_tile_size * martlet_attention_max_head_dim];  // [64 / tokens of a lane][value_stride]
  // 16 tokens, while they are rotated: dims, and cosines and sines.
  _Alignas(64) float turned[martlet_attention_max_head_dim * 16];
  _Alignas(64) float angles[martlet_attention_max_head_dim * 16];
  // int8: what a token's scores are multiplied by, log₂ of its values' scale, and the inverse of that; where weights are pairs of bf16, the
  // inverses of 16 pairs' firsts, then of their seconds.
  _Alignas(64) float score_factors[martlet_kv_tile_size];
  _Alignas(64) float value_logs[martlet_kv_tile_size];
  _Alignas(64) float value_inverses[martlet_kv_tile_size];
} load_scratch;

// What is brought.
typedef struct load_place {
  const martlet_attend_arguments *a;
  const int32_t *table;  // of the request
  load_scratch *scratch;
  int32_t kv_head;
  int32_t key_count;    // of the request
  int32_t start;        // the tile's first token
  int32_t first, last;  // the first and the last that some row sees
  int32_t type;         // that is multiplied
  int32_t value_stride;
  float scale;  // goes into score_factors
} load_place;

// Where each token's first number of the head lies; a row of zeros where nothing is read.
typedef struct load_tokens {
  const uint8_t *keys[martlet_kv_tile_size], *values[martlet_kv_tile_size];
} load_tokens;

static const _Alignas(64) uint8_t load_zeros[martlet_attention_max_head_dim * 4] = {0};

// A number's place from that of its token, in numbers.
MARTLET_INLINE int64_t load_dim(const martlet_kv_plane *plane, int32_t dim) {
  return dim / plane->dim_group * plane->dim_stride + dim % plane->dim_group;
}

// One word made of neighbours: `count` numbers of `width` bytes along dims of one token, or along tokens.
MARTLET_INLINE uint32_t load_word(const uint8_t *const *numbers, int width) {
  uint32_t word = 0;
  for (int i = 0; i < 4 / width; i++) __builtin_memcpy((uint8_t *)&word + i * width, numbers[i], (size_t)width);
  return word;
}

// Up to four words of keys, `lane` … `lane` + `words` − 1, of the 16 tokens from `token` of the tile on.
MARTLET_INLINE void load_key_words(
    int width, const martlet_paged_kv *cache, const load_tokens *tokens, int token, int lane, int words, u32x16 out[4]) {
  const martlet_kv_plane *plane = &cache->keys;
  int group = 4 / width;
  if (plane->dim_group == group && plane->token_stride == group && plane->token_group == 1 && cache->page_size % 16 == 0) {
    // Packed: neighbouring tokens' words side by side.
    const uint8_t *p = tokens->keys[token] + (int64_t)lane * plane->dim_stride * width;
    int64_t step = tokens->keys[token] == load_zeros ? 0 : plane->dim_stride * width;
    if (step == 0) p = load_zeros;
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) out[i] = u32x16_load(p + (i < words ? i : 0) * step);
  } else if (plane->dim_group == 1 && plane->dim_stride == 1) {
    if (words >= 4)
      load_transposed(tokens->keys + token, (size_t)lane * 4, 4, out);
    else
      load_transposed(tokens->keys + token, (size_t)lane * 4, 2, out);
  } else {
    for (int i = 0; i < words; i++) {
      uint32_t row[16];
      for (int t = 0; t < 16; t++) {
        const uint8_t *base = tokens->keys[token + t], *numbers[4];
        for (int j = 0; j < group; j++)
          numbers[j] = base == load_zeros ? base : base + load_dim(plane, (lane + i) * group + j) * width;
        row[t] = load_word(numbers, width);
      }
      out[i] = u32x16_load(row);
    }
  }
}

// The words of 16 dims (8 at the end) of values of the 4 / `width` tokens from `token` of the tile on.
MARTLET_INLINE u32x16 load_value_words(int width, const martlet_paged_kv *cache, const load_tokens *tokens, int token, int dim) {
  const martlet_kv_plane *plane = &cache->values;
  const uint8_t *const *rows = tokens->values + token;
  int group = 4 / width, dims = cache->value_head_dim - dim < 16 ? 8 : 16;
  uint32_t padded[16] = {0};
  if (plane->token_group == group && plane->dim_stride == group && plane->dim_group == 1 && cache->page_size % group == 0) {
    // Packed: neighbouring dims' words side by side.
    const uint8_t *p = rows[0] == load_zeros ? load_zeros : rows[0] + (size_t)dim * 4;
    if (dims == 16) return u32x16_load(p);
    __builtin_memcpy(padded, p, 32);
  } else if (plane->dim_group == 1 && plane->dim_stride == 1) {
    size_t offset = (size_t)dim * (size_t)width;
    if (dims == 16) {
      if (width == 2)
        return __builtin_convertvector(u16x16_load(rows[0] + offset), u32x16) |
               __builtin_convertvector(u16x16_load(rows[1] + offset), u32x16) << 16;
      u32x16 words = (u32x16)(0);
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++) words |= __builtin_convertvector(u8x16_load(rows[i] + offset), u32x16) << (uint32_t)(8 * i);
      return words;
    }
    for (int i = 0; i < 8; i++) {
      const uint8_t *numbers[4];
      for (int j = 0; j < group; j++) numbers[j] = rows[j] + offset + (size_t)(i * width);
      padded[i] = load_word(numbers, width);
    }
  } else {
    for (int i = 0; i < dims; i++) {
      const uint8_t *numbers[4];
      for (int j = 0; j < group; j++) numbers[j] = rows[j] == load_zeros ? rows[j] : rows[j] + load_dim(plane, dim + i) * width;
      padded[i] = load_word(numbers, width);
    }
  }
  return u32x16_load(padded);
}

// The numbers of each word as float32, exactly; how many there are is 4 / their width.
MARTLET_INLINE void load_numbers(int32_t type, u32x16 words, f32x16 out[4]) {
  switch (type) {
    case martlet_kv_f32: out[0] = f32x16_from_bits(words); break;
    case martlet_kv_f16: f16_pair_split(words, &out[0], &out[1]); break;
    case martlet_kv_bf16:
      out[0] = bf16_pair_first(words);
      out[1] = bf16_pair_second(words);
      break;
    default:
      byte_floats(type, 0, words, out);
      byte_floats(type, 1, words, out + 2);
  }
}

// Asks for `bytes` bytes from p on.
MARTLET_INLINE void load_ask(const uint8_t *p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 3);
}

// Asks for int8's scales of the next tile, which lie apart from its numbers. Zen 5, decode of 8 requests of 4096 tokens, 32 heads on 8 of 128
// dims, one thread: 4.6 ms without, 3.8 with.
MARTLET_INLINE void load_ask_scales(const load_place *place) {
  const martlet_paged_kv *cache = &place->a->cache;
  int32_t page_size = cache->page_size, first = place->start + martlet_kv_tile_size, end = first + martlet_kv_tile_size;
  if (end > place->key_count) end = place->key_count;
  for (int32_t token = first, stop; token < end; token = stop) {
    int32_t entry = place->table[token / page_size], slot = token % page_size;
    stop = token - slot + page_size < end ? token - slot + page_size : end;
    if (entry < 0) continue;
    const uint8_t *page = cache->pages + (size_t)entry * (size_t)cache->page_bytes;
    int64_t at = (int64_t)place->kv_head * cache->scale_head_stride + (int64_t)slot * cache->scale_token_stride;
    int64_t count = (int64_t)(stop - token) * cache->scale_token_stride;
    load_ask(page + cache->key_scales_offset + at * 4, count * 4);
    load_ask(page + cache->value_scales_offset + at * 4, count * 4);
  }
}

// int8's scales of the tokens of every page of which some row sees a token. Codes of scale 0 are 0, so that 1 does as well. Below 2⁻¹¹⁰ sums
// would overflow: such values count as if their scale were that. A scale that is not a number, of such values or of a slot that nobody
// wrote, makes NaN of what sees it and of nothing else.
MARTLET_INLINE void load_token_scales(const load_place *place) {
  const martlet_paged_kv *cache = &place->a->cache;
  load_scratch *scratch = place->scratch;
  load_ask_scales(place);
  _Alignas(64) float keys[martlet_kv_tile_size] = {0}, values[martlet_kv_tile_size] = {0};
  int32_t page_size = cache->page_size, entry = place->first / page_size;
  for (int32_t page_start = entry * page_size; page_start <= place->last; page_start += page_size, entry++) {
    if (place->table[entry] < 0) continue;
    const uint8_t *page = cache->pages + (size_t)place->table[entry] * (size_t)cache->page_bytes;
    const float *key_scales = (const float *)(const void *)(page + cache->key_scales_offset) + place->kv_head * cache->scale_head_stride;
    const float *value_scales = (const float *)(const void *)(page + cache->value_scales_offset) + place->kv_head * cache->scale_head_stride;
    int32_t first = page_start > place->start ? page_start : place->start;
    int32_t end = page_start + page_size < place->start + martlet_kv_tile_size ? page_start + page_size : place->start + martlet_kv_tile_size;
    for (int32_t token = first; token < end; token++) {
      keys[token - place->start] = key_scales[(token - page_start) * cache->scale_token_stride];
      values[token - place->start] = value_scales[(token - page_start) * cache->scale_token_stride];
    }
  }
  for (int i = 0; i < martlet_kv_tile_size; i += 16) {
    f32x16 scale = f32x16_load(values + i);
    i32x16 is_scale = (scale >= 0.0f) & (scale <= __FLT_MAX__);
    scale = scale == 0.0f ? f32x16_set(1) : scale;
    scale = (is_scale & (scale < 0x1p-110f)) ? f32x16_set(0x1p-110f) : scale;
    f32x16_store(scratch->score_factors + i, f32x16_load(keys + i) * place->scale);
    f32x16_store(scratch->value_logs + i, is_scale ? f32x16_log2(scale) : f32x16_set(__builtin_nanf("")));
    f32x16_store(scratch->value_inverses + i, is_scale ? 1.0f / scale : f32x16_set(1));
  }
  if (!MARTLET_IS_DOT(place->type)) return;
  for (int i = 0; i < martlet_kv_tile_size; i += 32) {
    f32x16 a = f32x16_load(scratch->value_inverses + i), b = f32x16_load(scratch->value_inverses + i + 16);
    f32x16_store(scratch->value_inverses + i,
                 __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
    f32x16_store(scratch->value_inverses + i + 16,
                 __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31));
  }
}

// Where the tile's tokens lie, those of every page of which some row sees a token.
MARTLET_INLINE void load_find(const load_place *place, load_tokens *tokens) {
  const martlet_paged_kv *cache = &place->a->cache;
  int32_t width = kv_width(cache->type), page_size = cache->page_size;
  for (int i = 0; i < martlet_kv_tile_size; i++) tokens->keys[i] = tokens->values[i] = load_zeros;
  int32_t entry = place->first / page_size;
  for (int32_t page_start = entry * page_size; page_start <= place->last; page_start += page_size, entry++) {
    if (place->table[entry] < 0) continue;
    const uint8_t *page = cache->pages + (size_t)place->table[entry] * (size_t)cache->page_bytes;
    const uint8_t *keys = page + place->kv_head * cache->keys.head_stride * width;
    const uint8_t *values = page + cache->values_offset + place->kv_head * cache->values.head_stride * width;
    int32_t first = page_start > place->start ? page_start : place->start;
    int32_t end = page_start + page_size < place->start + martlet_kv_tile_size ? page_start + page_size : place->start + martlet_kv_tile_size;
    for (int32_t token = first; token < end; token++) {
      int32_t slot = token - page_start, i = token - place->start;
      const martlet_kv_plane *plane = &cache->keys;
      int64_t at = plane->token_group == 1 ? slot * plane->token_stride
                                           : slot / plane->token_group * plane->token_stride + slot % plane->token_group;
      tokens->keys[i] = keys + at * width;
      plane = &cache->values;
      at = plane->token_group == 1 ? slot * plane->token_stride
                                   : slot / plane->token_group * plane->token_stride + slot % plane->token_group;
      tokens->values[i] = values + at * width;
    }
  }
}

// Asks for the next tile while this one is computed; without this a tile's memory is waited for as it is brought. Zen 5, decode of 8 requests
// of 4096 tokens, 32 heads on 8 of 128 dims, one thread: NHD bf16 20 ms before, 14 after; HND e4m3 17 and 11, packed int8 13 and 11.
MARTLET_INLINE void load_ask_ahead(const load_place *place, const martlet_paged_kv *cache, int32_t width) {
  int32_t first = place->start + martlet_kv_tile_size, end = first + martlet_kv_tile_size, page_size = cache->page_size;
  if (end > place->key_count) end = place->key_count;
  int32_t group = 4 / width;
  const martlet_kv_plane *k = &cache->keys, *v = &cache->values;
  for (int32_t token = first, stop; token < end; token = stop) {
    int32_t entry = place->table[token / page_size], slot = token % page_size;
    stop = token - slot + page_size;
    if (stop > end) stop = end;
    if (entry < 0) continue;
    const uint8_t *page = cache->pages + (size_t)entry * (size_t)cache->page_bytes;
    const uint8_t *keys = page + place->kv_head * k->head_stride * width;
    const uint8_t *values = page + cache->values_offset + place->kv_head * v->head_stride * width;
    int64_t count = stop - token;
    if (k->dim_group == 1 && k->dim_stride == 1 && k->token_group == 1)
      for (int64_t i = 0; i < count; i++) load_ask(keys + (slot + i) * k->token_stride * width, cache->head_dim * width);
    else if (k->dim_group == group && k->token_stride == group)
      for (int64_t i = 0; i < cache->head_dim / group; i++) load_ask(keys + (slot * group + i * k->dim_stride) * width, count * 4);
    if (v->dim_group == 1 && v->dim_stride == 1 && v->token_group == 1)
      for (int64_t i = 0; i < count; i++) load_ask(values + (slot + i) * v->token_stride * width, cache->value_head_dim * width);
    else if (v->token_group == group && v->dim_stride == group && v->token_stride == (int64_t)cache->value_head_dim * group)
      load_ask(values + (int64_t)slot * cache->value_head_dim * width, count * cache->value_head_dim * width);
  }
}

// The words of one-byte or wider numbers as they are multiplied: as float32, one word for each number; as pairs of bf16; or as they are. How
// many words each becomes is `load_parts`.
MARTLET_INLINE int load_parts(int type, bool as_floats) { return as_floats ? 4 / kv_width(type) : type >= martlet_kv_e4m3 ? 2 : 1; }

MARTLET_INLINE void load_multiplied(int type, bool as_floats, u32x16 words, u32x16 out[4]) {
  if (as_floats) {
    f32x16 numbers[4];
    load_numbers(type, words, numbers);
    for (int i = 0; i < load_parts(type, true); i++) out[i] = u32x16_bits(numbers[i]);
  } else if (type >= martlet_kv_e4m3) {
    byte_pairs(type, words, &out[0], &out[1]);
  } else {
    out[0] = words;
  }
}

// The tile as it is multiplied.
MARTLET_INLINE void load_plain(int type, bool as_floats, const load_place *place) {
  // A copy, so that stores to the scratch memory cannot change it.
  const martlet_paged_kv copy = place->a->cache, *cache = &copy;
  const int width = kv_width(type), group = 4 / width, parts = load_parts(type, as_floats);
  load_tokens tokens;
  load_find(place, &tokens);
  load_ask_ahead(place, cache, width);
  int first = (place->first - place->start) / 16 * 16, end = place->last - place->start + 1;
  int lanes = cache->head_dim / group;
  for (int token = first; token < end; token += 16)
    for (int lane = 0; lane < lanes; lane += 4) {
      int words = lanes - lane < 4 ? lanes - lane : 4;
      u32x16 w[4], multiplied[4];
      load_key_words(width, cache, &tokens, token, lane, words, w);
      for (int i = 0; i < words; i++) {
        uint32_t *out = place->scratch->keys + (lane + i) * parts * martlet_kv_tile_size + token;
        load_multiplied(type, as_floats, w[i], multiplied);
        for (int j = 0; j < parts; j++) u32x16_store(out + j * martlet_kv_tile_size, multiplied[j]);
      }
    }

  first = (place->first - place->start) / group * group;
  size_t stride = (size_t)place->value_stride;
  for (int token = first; token < end; token += group)
    for (int dim = 0; dim < cache->value_head_dim; dim += 16) {
      u32x16 multiplied[4];
      load_multiplied(type, as_floats, load_value_words(width, cache, &tokens, token, dim), multiplied);
      uint32_t *out = place->scratch->values + (size_t)(token / group * parts) * stride + dim;
      for (int j = 0; j < parts; j++) u32x16_store(out + (size_t)j * stride, multiplied[j]);
    }
}

// Whether the cache is packed, so that register tiles can read the pages themselves: no rotation to come, and no page that ends within 16
// tokens.
MARTLET_INLINE bool load_is_packed(const martlet_attend_arguments *a) {
  const martlet_paged_kv *cache = &a->cache;
  if (a->key_rope || cache->page_size % 16 != 0) return false;
  if (cache->page_size > 16 && cache->page_size % 32 != 0) return false;
  if (cache->page_size > 32 && cache->page_size % 64 != 0) return false;
  int32_t group = 4 / kv_width(cache->type);
  int64_t size = cache->page_size;
  const martlet_kv_plane *keys = &cache->keys, *values = &cache->values;
  return keys->head_stride == size * cache->head_dim && keys->token_stride == group && keys->dim_stride == size * group &&
         keys->token_group == 1 && keys->dim_group == group && values->head_stride == size * cache->value_head_dim &&
         values->token_stride == (int64_t)cache->value_head_dim * group && values->dim_stride == group && values->token_group == group &&
         values->dim_group == 1;
}

// What `load_plain` does, from packed pages: word by word in the order of memory.
MARTLET_INLINE void load_packed(int type, bool as_floats, const load_place *place) {
  const martlet_paged_kv copy = place->a->cache, *cache = &copy;
  const int width = kv_width(type), group = 4 / width, parts = load_parts(type, as_floats);
  const int page_size = cache->page_size, segment = page_size < martlet_kv_tile_size ? page_size : martlet_kv_tile_size;
  const int lanes = cache->head_dim / group, dims = cache->value_head_dim;
  const size_t stride = (size_t)place->value_stride;
  load_ask_ahead(place, cache, width);
  for (int token = place->first / segment * segment; token <= place->last; token += segment) {
    int32_t entry = place->table[token / page_size];
    if (entry < 0) continue;
    const uint8_t *page = cache->pages + (size_t)entry * (size_t)cache->page_bytes;
    const int slot = token % page_size, at = token - place->start;
    u32x16 multiplied[4];
    const uint32_t *keys = (const uint32_t *)(const void *)page + (size_t)place->kv_head * (size_t)(page_size * lanes) + slot;
    for (int lane = 0; lane < lanes; lane++, keys += page_size)
      for (int i = 0; i < segment; i += 16) {
        load_multiplied(type, as_floats, u32x16_load(keys + i), multiplied);
        uint32_t *out = place->scratch->keys + lane * parts * martlet_kv_tile_size + at + i;
        for (int j = 0; j < parts; j++) u32x16_store(out + j * martlet_kv_tile_size, multiplied[j]);
      }
    const uint32_t *values = (const uint32_t *)(const void *)(page + cache->values_offset) +
                             (size_t)(place->kv_head * (page_size / group) + slot / group) * (size_t)dims;
    for (int row = 0; row < segment / group; row++, values += dims)
      for (int dim = 0; dim < dims; dim += 16) {
        uint32_t padded[16] = {0};
        if (dims - dim < 16) __builtin_memcpy(padded, values + dim, 32);
        load_multiplied(type, as_floats, u32x16_load(dims - dim < 16 ? padded : values + dim), multiplied);
        uint32_t *out = place->scratch->values + (size_t)((at / group + row) * parts) * stride + dim;
        for (int j = 0; j < parts; j++) u32x16_store(out + (size_t)j * stride, multiplied[j]);
      }
  }
}

// Packed pages come here only to be widened; others in any case.
MARTLET_INLINE void load_widened(int type, bool as_floats, const load_place *place) {
  if (load_is_packed(place->a))
    load_packed(type, as_floats, place);
  else
    load_plain(type, as_floats, place);
}

// The tile with its keys rotated by their cache positions, in float32; as bf16 pairs, or as float32.
MARTLET_INLINE void load_turned(int width, bool as_pairs, const load_place *place) {
  const martlet_attend_arguments *a = place->a;
  const martlet_paged_kv copy = a->cache, *cache = &copy;
  load_scratch *scratch = place->scratch;
  int group = 4 / width, dims = cache->head_dim, rope_dim = a->key_rope_dim, half = rope_dim / 2;
  int step = a->key_rope_is_neox ? 1 : 2, distance = a->key_rope_is_neox ? half : 1;
  load_tokens tokens;
  load_find(place, &tokens);
  int first = (place->first - place->start) / 16 * 16, end = place->last - place->start + 1;
  for (int token = first; token < end; token += 16) {
    const uint8_t *rows[16];
    for (int i = 0; i < 16; i++)
      rows[i] = tokens.keys[token + i] == load_zeros || place->start + token + i > place->last
                    ? load_zeros
                    : (const uint8_t *)(const void *)(a->key_rope + (size_t)(place->start + token + i) * (size_t)rope_dim);
    for (int i = 0; i < rope_dim; i += 4) {
      u32x16 w[4];
      load_transposed(rows, (size_t)i * 4, rope_dim - i < 4 ? 2 : 4, w);
      for (int j = 0; j < 4 && i + j < rope_dim; j++) u32x16_store(scratch->angles + (i + j) * 16, w[j]);
    }
    int lanes = dims / group;
    for (int lane = 0; lane < lanes; lane += 4) {
      int words = lanes - lane < 4 ? lanes - lane : 4;
      u32x16 w[4];
      load_key_words(width, cache, &tokens, token, lane, words, w);
      for (int i = 0; i < words; i++) {
        f32x16 parts[4];
        load_numbers(cache->type, w[i], parts);
        for (int j = 0; j < group; j++) f32x16_store(scratch->turned + ((lane + i) * group + j) * 16, parts[j]);
      }
    }
    for (int i = 0; i < half; i++) {
      f32x16 cosine = f32x16_load(scratch->angles + 32 * i), sine = f32x16_load(scratch->angles + 32 * i + 16);
      float *one = scratch->turned + 16 * (a->key_rope_first + i * step), *other = one + 16 * distance;
      f32x16 x1 = f32x16_load(one), x2 = f32x16_load(other);
      f32x16_store(one, x1 * cosine - x2 * sine);
      f32x16_store(other, x2 * cosine + x1 * sine);
    }
    for (int dim = 0; dim < dims; dim += as_pairs ? 2 : 1) {
      f32x16 x = f32x16_load(scratch->turned + 16 * dim);
      if (as_pairs) {
        u32x16 pairs = bf16_round(x) | bf16_round(f32x16_load(scratch->turned + 16 * dim + 16)) << 16;
        u32x16_store(scratch->keys + dim / 2 * martlet_kv_tile_size + token, pairs);
      } else {
        f32x16_store(scratch->keys + dim * martlet_kv_tile_size + token, x);
      }
    }
  }

  first = (place->first - place->start) / 4 * 4;
  size_t stride = (size_t)place->value_stride;
  for (int token = first; token < end; token += group)
    for (int dim = 0; dim < cache->value_head_dim; dim += 16) {
      u32x16 w = load_value_words(width, cache, &tokens, token, dim);
      uint32_t *out = scratch->values + dim;
      if (!as_pairs) {
        f32x16 parts[4];
        load_numbers(cache->type, w, parts);
        for (int j = 0; j < group; j++) f32x16_store(out + (size_t)(token + j) * stride, parts[j]);
      } else if (width == 2) {
        u32x16_store(out + (size_t)(token / 2) * stride, w);
      } else {
        u32x16 low, high;
        byte_pairs(cache->type, w, &low, &high);
        u32x16_store(out + (size_t)(token / 2) * stride, low);
        u32x16_store(out + (size_t)(token / 2 + 1) * stride, high);
      }
    }
}

#define MARTLET_LOAD(name, work) \
  static __attribute__((noinline)) void name(const load_place *place) { work; }
MARTLET_LOAD(load_words, load_plain(martlet_kv_f32, false, place))
MARTLET_LOAD(load_pairs, load_plain(martlet_kv_bf16, false, place))
MARTLET_LOAD(load_e4m3, load_widened(martlet_kv_e4m3, false, place))
MARTLET_LOAD(load_i8, load_widened(martlet_kv_i8, false, place))
MARTLET_LOAD(load_f16_floats, load_widened(martlet_kv_f16, true, place))
#if !MARTLET_DOT_BF16
MARTLET_LOAD(load_bf16_floats, load_widened(martlet_kv_bf16, true, place))
MARTLET_LOAD(load_e4m3_floats, load_widened(martlet_kv_e4m3, true, place))
MARTLET_LOAD(load_i8_floats, load_widened(martlet_kv_i8, true, place))
#endif
MARTLET_LOAD(load_turned_floats, load_turned(kv_width(place->a->cache.type), false, place))
MARTLET_LOAD(load_turned_pairs, load_turned(kv_width(place->a->cache.type), true, place))
#undef MARTLET_LOAD

// The type that keys, values and queries are multiplied in by a task of `rows` rows. What is no dot product is widened to float32, exactly: by
// the register tiles where they are few, once for all of them where a tile is turned anyway or rows are many.
MARTLET_INLINE int32_t load_type(const martlet_attend_arguments *a, int32_t rows) {
  int32_t type = a->cache.type >= martlet_kv_e4m3 ? (int32_t)martlet_kv_bf16 : a->cache.type;
  return !MARTLET_IS_DOT(type) && (a->key_rope || rows > MARTLET_ATTENTION_ROWS) ? (int32_t)martlet_kv_f32 : type;
}

MARTLET_INLINE void load_tile(const load_place *place) {
  const martlet_attend_arguments *a = place->a;
  int32_t type = a->cache.type;
  if (type == martlet_kv_i8) load_token_scales(place);
  if (a->key_rope) {
    if (MARTLET_IS_DOT(place->type))
      load_turned_pairs(place);
    else
      load_turned_floats(place);
  } else if (type == martlet_kv_f32) {
    load_words(place);
  } else if (place->type != martlet_kv_f32) {
    type == martlet_kv_e4m3 ? load_e4m3(place) : type == martlet_kv_i8 ? load_i8(place) : load_pairs(place);
  } else {
    switch (type) {
#if !MARTLET_DOT_BF16
      case martlet_kv_bf16: load_bf16_floats(place); break;
      case martlet_kv_e4m3: load_e4m3_floats(place); break;
      case martlet_kv_i8: load_i8_floats(place); break;
#endif
      default: load_f16_floats(place);
    }
  }
}
