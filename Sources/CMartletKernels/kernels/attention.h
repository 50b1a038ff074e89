// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Attention from query rows to packed pages, by online softmax over tiles of 64 tokens.
//
// The key axis is cut at absolute positions: chunks of 512 tokens, tiles of 64. A row's state in a chunk, (m, d, o), starts empty and takes
// in the tiles that the row sees, in ascending order; chunk states are folded in ascending order by `fold_chunk`. What a row does not see
// (a token, a tile, a chunk) is left out of its arithmetic, not multiplied by zero. So a row's bits depend on that row and its keys alone,
// not on the task, the page size, the batch or the chunks of a prefill.
//
// Scores are in powers of two: t = q·k · scale · log₂e, p = 2^(t − m), and m is a maximum that is followed lazily: it moves only when a
// tile exceeds it by more than 8, so p stays below 2⁸ and o is seldom rescaled.

// The maximum may lag behind by this many powers of two.
#define MARTLET_LAZY_MAXIMUM 8.0f

// A worker's memory. Arrays of rows are used densely from their starts: with head dims below 512 their ends are never touched.
typedef struct attend_scratch {
  _Alignas(64) float scores[MARTLET_ATTENTION_ROWS * martlet_kv_tile_size];  // of one register tile, then its probabilities
  float chunk_d[martlet_attention_max_rows * 16];                       // 16 partial sums each
  float chunk_m[martlet_attention_max_rows];
  float m[martlet_attention_max_rows], d[martlet_attention_max_rows];
  int32_t key_first[martlet_attention_max_rows], key_end[martlet_attention_max_rows];  // the keys that a row sees
  _Alignas(64) uint32_t queries[martlet_attention_max_rows * martlet_attention_max_head_dim];
  _Alignas(64) float chunk_o[martlet_attention_max_rows * martlet_attention_max_head_dim];
  _Alignas(64) float o[martlet_attention_max_rows * martlet_attention_max_head_dim];
} attend_scratch;
_Static_assert(sizeof(attend_scratch) <= martlet_attention_scratch_bytes, "a worker's scratch memory is too small");

// What a task's loops share.
typedef struct attend_view {
  const martlet_attend_arguments *a;
  const martlet_attention_task *task;
  attend_scratch *scratch;
  float scale;         // of scores, to powers of two
  int32_t lanes;       // of a query or key head
  int32_t value_dims;  // of a value head
  int32_t stride;      // of rows of o: value_dims rounded up to 16
  int32_t segment;     // tokens of a tile that lie in one page
} attend_view;

MARTLET_INLINE float exp2_of(float x) { return f32x16_exp2(f32x16_set(x))[0]; }

// log₂ x for x > 0, in double by an odd series, so that no library's version decides its bits.
MARTLET_INLINE float log2_of(float x) {
  if (!(x > 0) || x > __FLT_MAX__) return x;  // NaN and infinity stay; sums of probabilities are never 0 here
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  int32_t exponent = (int32_t)(bits >> 23) - 127;
  bits = (bits & 0x007FFFFFu) | 0x3F800000u;
  __builtin_memcpy(&x, &bits, 4);
  double mantissa = x;
  if (mantissa > 1.4142135623730951) mantissa /= 2, exponent++;
  // ln((1 + z) / (1 − z)) = 2 (z + z³/3 + z⁵/5 + …), |z| ≤ 0.172: the next term is below 1e-12.
  double z = (mantissa - 1) / (mantissa + 1), square = z * z, sum = 1.0 / 13;
  for (int k = 11; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return (float)(exponent + 2.8853900817779268 * z * sum);
}

// Query rows to register tiles: for each MARTLET_ATTENTION_ROWS rows, dim by dim (or pair of dims), the rows' numbers side by side.
MARTLET_INLINE void pack_queries(int type, const attend_view *view) {
  const martlet_attend_arguments *a = view->a;
  const martlet_attention_task *task = view->task;
  int32_t dims = a->cache.head_dim, group = a->heads / a->cache.kv_heads;
  int32_t numbers = MARTLET_IS_DOT(type) ? dims / 2 : dims;
  for (int32_t row = 0; row < task->row_count; row++) {
    int32_t token = a->query_indptr[task->request] + (task->first_row + row) / group;
    int32_t head = task->kv_head * group + (task->first_row + row) % group;
    const float *q = a->queries + ((size_t)token * (size_t)a->heads + (size_t)head) * (size_t)dims;
    uint32_t *packed = view->scratch->queries + (row / MARTLET_ATTENTION_ROWS * numbers) * MARTLET_ATTENTION_ROWS +
                       row % MARTLET_ATTENTION_ROWS;
    // Vectorised, this becomes gathers and scatters, which are slower than the single loads and stores.
#pragma clang loop vectorize(disable)
    for (int32_t i = 0; i < numbers; i++) {
      if (MARTLET_IS_DOT(type)) {
        u32x16 first = bf16_round(f32x16_set(q[2 * i])), second = bf16_round(f32x16_set(q[2 * i + 1]));
        packed[i * MARTLET_ATTENTION_ROWS] = first[0] | second[0] << 16;
      } else {
        __builtin_memcpy(packed + i * MARTLET_ATTENTION_ROWS, q + i, 4);
      }
    }
  }
}

// One row's scores become probabilities, in place, and the row's state follows. Tokens outside `first ..< end` of the tile are not seen.
MARTLET_INLINE void softmax_row(int type, const attend_view *view, int32_t row, int first, int end, float *scores) {
  attend_scratch *scratch = view->scratch;
  f32x16 t[4];
  for (int c = 0; c < 4; c++) t[c] = f32x16_load(scores + 16 * c) * view->scale;
  if (first > 0 || end < martlet_kv_tile_size) {
    const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int c = 0; c < 4; c++)
      t[c] = ((lane + 16 * c >= first) & (lane + 16 * c < end)) ? t[c] : f32x16_set(-__builtin_inff());
  }

  float m = scratch->chunk_m[row];
  float *d = scratch->chunk_d + 16 * row;
  f32x16 greatest = f32x16_max(f32x16_max(t[0], t[1]), f32x16_max(t[2], t[3]));
  if (__builtin_reduce_or(greatest > m + MARTLET_LAZY_MAXIMUM)) {
    float risen = f32x16_greatest(greatest);
    if (m > -__builtin_inff()) {
      float *o = scratch->chunk_o + (size_t)row * (size_t)view->stride;
      f32x16 shrink = f32x16_exp2(f32x16_set(m - risen));
      f32x16_store(d, f32x16_load(d) * shrink);
      for (int32_t i = 0; i < view->stride; i += 16) f32x16_store(o + i, f32x16_load(o + i) * shrink);
    }
    scratch->chunk_m[row] = m = risen;
  }

  f32x16 p[4];
  for (int c = 0; c < 4; c++) p[c] = f32x16_exp2_normal(t[c] - m);
  for (int c = 0; c < 4; c++) {
    if (MARTLET_IS_DOT(type)) {
      // The sum is taken over the rounded probabilities, so that o ÷ d is a mean of values whose weights add up to 1.
#if MARTLET_AVX512 && MARTLET_DOT_BF16
      u16x16 rounded = (u16x16)_mm512_cvtneps_pbh((__m512)p[c]);
#else
      u16x16 rounded = __builtin_convertvector(bf16_round(p[c]), u16x16);
#endif
      u16x16_store((uint16_t *)(void *)scores + 16 * c, rounded);
      p[c] = f32x16_from_bits(__builtin_convertvector(rounded, u32x16) << 16);
    } else {
      f32x16_store(scores + 16 * c, p[c]);
    }
  }
  f32x16_store(d, f32x16_load(d) + ((p[0] + p[1]) + (p[2] + p[3])));
}

// Rows `row ..< row + rows` of the task, which lie in one register tile and all see something of the tile that begins at token `start`.
MARTLET_INLINE void attend_rows(
    int type, int rows, const attend_view *view, int32_t row, int32_t start, const uint32_t *const *keys, const tile_values *values) {
  attend_scratch *scratch = view->scratch;
  const int32_t *key_first = scratch->key_first + row, *key_end = scratch->key_end + row;
  int first[MARTLET_ATTENTION_ROWS], end[MARTLET_ATTENTION_ROWS];
  for (int i = 0; i < rows; i++) {
    first[i] = key_first[i] > start ? key_first[i] - start : 0;
    end[i] = key_end[i] - start < martlet_kv_tile_size ? key_end[i] - start : martlet_kv_tile_size;
  }

  // Scores of the columns of 16 tokens that some row sees; the first row begins and the last row ends the furthest out. A register
  // tile's other columns are computed from a page that exists, and masked.
  const int columns = MARTLET_TILE_COLUMNS(rows);
  int first_column = first[0] / 16, end_column = (end[rows - 1] + 15) / 16;
  int32_t tile_row = row / MARTLET_ATTENTION_ROWS;
  int32_t numbers = MARTLET_IS_DOT(type) ? view->lanes : view->lanes * MARTLET_LANE(type);
  const uint32_t *q = scratch->queries + (size_t)(tile_row * numbers) * MARTLET_ATTENTION_ROWS + row % MARTLET_ATTENTION_ROWS;
  for (int column = first_column / columns * columns; column < end_column; column += columns) {
    const uint32_t *k[4];
    for (int c = 0; c < columns; c++)
      k[c] = keys[column + c >= first_column && column + c < end_column ? column + c : first_column];
    tile_scores(type, rows, columns, q, k, (size_t)view->a->cache.page_size, view->lanes, scratch->scores + 16 * column);
  }

  for (int i = 0; i < rows; i++) softmax_row(type, view, row + i, first[i], end[i], scratch->scores + i * martlet_kv_tile_size);

  // The tokens that every row sees, in whole lanes, go through the register tile; what single rows see before and after does not.
  int whole_first = (first[rows - 1] + MARTLET_LANE(type) - 1) / MARTLET_LANE(type) * MARTLET_LANE(type);
  int whole_end = end[0] / MARTLET_LANE(type) * MARTLET_LANE(type);
  if (whole_end < whole_first) whole_end = whole_first;
  const uint32_t *p = (const uint32_t *)(const void *)scratch->scores;
  float *o = scratch->chunk_o + (size_t)row * (size_t)view->stride;
  for (int i = 0; i < rows; i++) {
    int stop = whole_first < end[i] ? whole_first : end[i];
    tile_output_edge(
        type, p + i * martlet_kv_tile_size, values, first[i], stop, 0, view->value_dims, o + (size_t)i * (size_t)view->stride);
  }
  if (whole_first < whole_end) {
    int dim = 0;
    for (; dim + 16 * columns <= view->value_dims; dim += 16 * columns)
      tile_output(type, rows, columns, p, values, whole_first, whole_end, dim, o, (size_t)view->stride);
    if (columns > 1)
      for (; dim + 16 <= view->value_dims; dim += 16)
        tile_output(type, rows, 1, p, values, whole_first, whole_end, dim, o, (size_t)view->stride);
    if (dim < view->value_dims)
      for (int i = 0; i < rows; i++)
        tile_output_edge(
            type, p + i * martlet_kv_tile_size, values, whole_first, whole_end, dim, view->value_dims,
            o + (size_t)i * (size_t)view->stride);
  }
  for (int i = 0; i < rows; i++) {
    int resume = whole_end > first[i] ? whole_end : first[i];
    tile_output_edge(
        type, p + i * martlet_kv_tile_size, values, resume, end[i], 0, view->value_dims, o + (size_t)i * (size_t)view->stride);
  }
}

// One tile of 64 tokens against the rows that see something of it. They are neighbours, because what a row sees moves on with the row.
MARTLET_INLINE void attend_tile(int type, const attend_view *view, int32_t start) {
  const martlet_attend_arguments *a = view->a;
  const martlet_paged_kv *cache = &a->cache;
  const attend_scratch *scratch = view->scratch;
  int32_t row = 0, end = view->task->row_count;
  while (row < end && scratch->key_end[row] <= start) row++;
  while (row < end && scratch->key_first[end - 1] >= start + martlet_kv_tile_size) end--;
  if (row == end) return;

  // Only pages that hold a visible token are looked up: others may be gone.
  int32_t first = scratch->key_first[row] > start ? scratch->key_first[row] : start;
  int32_t last = (scratch->key_end[end - 1] < start + martlet_kv_tile_size ? scratch->key_end[end - 1] : start + martlet_kv_tile_size) - 1;
  const int32_t *table = cache->page_table + (size_t)view->task->request * (size_t)cache->table_width;
  const uint32_t *keys[4] = {0};
  tile_values values = {.segment_size = view->segment, .stride = (size_t)view->value_dims};
  size_t key_plane = (size_t)view->task->kv_head * (size_t)cache->page_size * (size_t)view->lanes;
  size_t value_plane =
      (size_t)view->task->kv_head * (size_t)(cache->page_size / MARTLET_LANE(type)) * (size_t)view->value_dims;
  for (int32_t token = first / view->segment * view->segment; token <= last; token += view->segment) {
    const uint8_t *page = cache->pages + (size_t)table[token / cache->page_size] * (size_t)cache->page_bytes;
    size_t slot = (size_t)(token % cache->page_size);
    int32_t segment = (token - start) / view->segment;
    for (int32_t c = 0; c < view->segment / 16; c++)
      keys[segment * view->segment / 16 + c] = (const uint32_t *)(const void *)page + key_plane + slot + 16 * c;
    values.segments[segment] = (const uint32_t *)(const void *)(page + cache->values_offset) + value_plane +
                               slot / MARTLET_LANE(type) * (size_t)view->value_dims;
  }

  for (int32_t stop; row < end; row = stop) {
    stop = (row / MARTLET_ATTENTION_ROWS + 1) * MARTLET_ATTENTION_ROWS;
    if (stop > end) stop = end;
    switch (stop - row) {
      case 1: attend_rows(type, 1, view, row, start, keys, &values); break;
      case 2: attend_rows(type, 2, view, row, start, keys, &values); break;
#if MARTLET_ATTENTION_ROWS > 2
      case 3: attend_rows(type, 3, view, row, start, keys, &values); break;
      case 4: attend_rows(type, 4, view, row, start, keys, &values); break;
      case 5: attend_rows(type, 5, view, row, start, keys, &values); break;
      case 6: attend_rows(type, 6, view, row, start, keys, &values); break;
#endif
    }
  }
}

// The task's rows against one chunk: chunk_m, chunk_d and chunk_o from empty.
MARTLET_INLINE void attend_chunk(int type, const attend_view *view, int32_t chunk) {
  attend_scratch *scratch = view->scratch;
  int32_t rows = view->task->row_count;
  for (int32_t row = 0; row < rows; row++) scratch->chunk_m[row] = -__builtin_inff();
  __builtin_memset(scratch->chunk_d, 0, (size_t)rows * 16 * sizeof(float));
  __builtin_memset(scratch->chunk_o, 0, (size_t)rows * (size_t)view->stride * sizeof(float));
  int32_t start = chunk * martlet_kv_chunk_size, end = start + martlet_kv_chunk_size;
  if (end > scratch->key_end[rows - 1]) end = scratch->key_end[rows - 1];
  for (; start < end; start += martlet_kv_tile_size) attend_tile(type, view, start);
}

// A function of its own for each type, so that the register tiles are compiled for it.
static __attribute__((noinline)) void attend_chunk_f32(const attend_view *view, int32_t chunk) { attend_chunk(martlet_kv_f32, view, chunk); }
static __attribute__((noinline)) void attend_chunk_f16(const attend_view *view, int32_t chunk) { attend_chunk(martlet_kv_f16, view, chunk); }
static __attribute__((noinline)) void attend_chunk_bf16(const attend_view *view, int32_t chunk) { attend_chunk(martlet_kv_bf16, view, chunk); }

// (m, d, o) of a chunk into a row's state (M, D, O): the only way in which chunk states meet. A state without keys has d = 0.
MARTLET_INLINE void fold_chunk(float *into_m, float *into_d, float *into_o, float m, float d, const float *o, int32_t dims) {
  if (d == 0) return;
  if (*into_d == 0) {
    *into_m = m;
    *into_d = d;
    __builtin_memcpy(into_o, o, (size_t)dims * sizeof(float));
    return;
  }
  float greatest = *into_m > m ? *into_m : m;
  float into_weight = exp2_of(*into_m - greatest), weight = exp2_of(m - greatest);
  *into_m = greatest;
  *into_d = *into_d * into_weight + d * weight;
  for (int32_t i = 0; i < dims; i++) into_o[i] = into_o[i] * into_weight + o[i] * weight;
}

// The output of one of the task's rows from its state.
MARTLET_INLINE void write_row(const attend_view *view, int32_t row, float m, float d, const float *o) {
  const martlet_attend_arguments *a = view->a;
  const martlet_attention_task *task = view->task;
  int32_t group = a->heads / a->cache.kv_heads;
  int32_t token = a->query_indptr[task->request] + (task->first_row + row) / group;
  int32_t head = task->kv_head * group + (task->first_row + row) % group;
  size_t index = (size_t)token * (size_t)a->heads + (size_t)head;
  float *output = a->output + index * (size_t)view->value_dims;
  for (int32_t i = 0; i < view->value_dims; i++) output[i] = d == 0 ? 0 : o[i] / d;
  if (a->log_sum_exp) a->log_sum_exp[index] = d == 0 ? -__builtin_inff() : m + log2_of(d);
}

// Folds the chunk states of a merge, whose last task has finished, and writes its rows.
MARTLET_INLINE void finish_merge(const attend_view *view, const martlet_attention_merge *merge) {
  size_t width = (size_t)view->value_dims + 2;
  for (int32_t row = 0; row < merge->row_count; row++) {
    float m = -__builtin_inff(), d = 0;
    for (int32_t chunk = 0; chunk < merge->chunk_count; chunk++) {
      const float *state = view->a->states + ((size_t)merge->state_row + (size_t)(chunk * merge->row_count + row)) * width;
      fold_chunk(&m, &d, view->scratch->o, state[0], state[1], state + 2, view->value_dims);
    }
    write_row(view, row, m, d, view->scratch->o);
  }
}

static void attend(const void *arguments, int32_t task_index, int32_t worker, void *scratch_memory) {
  const martlet_attend_arguments *a = arguments;
  const martlet_attention_task *task = &a->tasks[task_index];
  const martlet_paged_kv *cache = &a->cache;
  attend_scratch *scratch = scratch_memory;
  (void)worker;
  attend_view view = {
      .a = a,
      .task = task,
      .scratch = scratch,
      .scale = (float)((double)a->scale * 1.4426950408889634),
      .lanes = cache->head_dim / MARTLET_LANE(cache->type),
      .value_dims = cache->value_head_dim,
      .stride = (cache->value_head_dim + 15) / 16 * 16,
      .segment = cache->page_size < martlet_kv_tile_size ? cache->page_size : martlet_kv_tile_size,
  };

  int32_t group = a->heads / cache->kv_heads, key_count = a->kv_lens[task->request];
  int32_t queries = a->query_indptr[task->request + 1] - a->query_indptr[task->request];
  for (int32_t row = 0; row < task->row_count; row++) {
    int32_t position = key_count - queries + (task->first_row + row) / group;
    int32_t first = a->window > 0 ? position - a->window + 1 : 0, end = a->causal ? position + 1 : key_count;
    scratch->key_end[row] = end > 0 ? end : 0;
    scratch->key_first[row] = first > 0 ? first : 0;
    scratch->m[row] = -__builtin_inff();
    scratch->d[row] = 0;
  }
  if (cache->type == martlet_kv_bf16)
    pack_queries(martlet_kv_bf16, &view);
  else
    pack_queries(martlet_kv_f32, &view);  // f16 keys are widened: queries stay float32

  for (int32_t chunk = task->first_chunk; chunk < task->end_chunk; chunk++) {
    if (cache->type == martlet_kv_f32)
      attend_chunk_f32(&view, chunk);
    else if (cache->type == martlet_kv_f16)
      attend_chunk_f16(&view, chunk);
    else
      attend_chunk_bf16(&view, chunk);
    for (int32_t row = 0; row < task->row_count; row++) {
      float m = scratch->chunk_m[row], d = f32x16_sum(f32x16_load(scratch->chunk_d + 16 * row));
      const float *o = scratch->chunk_o + (size_t)row * (size_t)view.stride;
      if (task->merge < 0) {
        fold_chunk(
            &scratch->m[row], &scratch->d[row], scratch->o + (size_t)row * (size_t)view.stride, m, d, o, view.value_dims);
      } else {
        float *state = a->states + ((size_t)task->state_row + (size_t)row) * ((size_t)view.value_dims + 2);
        state[0] = m;
        state[1] = d;
        __builtin_memcpy(state + 2, o, (size_t)view.value_dims * sizeof(float));
      }
    }
  }

  if (task->merge < 0) {
    for (int32_t row = 0; row < task->row_count; row++)
      write_row(&view, row, scratch->m[row], scratch->d[row], scratch->o + (size_t)row * (size_t)view.stride);
    return;
  }
  const martlet_attention_merge *merge = &a->merges[task->merge];
  // Releases this task's state and, for the last one, acquires all others'.
  if (__atomic_add_fetch(&a->finished[task->merge], 1, __ATOMIC_ACQ_REL) == merge->chunk_count) {
    finish_merge(&view, merge);
    a->finished[task->merge] = 0;
  }
}
