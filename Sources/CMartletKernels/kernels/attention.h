// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Attention from query rows to pages, by online softmax over tiles of 64 tokens. Packed pages of a type that is multiplied as it is are read
// where they are, others brought tile by tile (attention_load.h).
//
// The key axis is cut at absolute positions: chunks of 512 tokens, tiles of 64. A row's state in a chunk, (m, d, o), starts empty and takes
// in the tiles that the row sees, in ascending order; chunk states are folded in ascending order by `fold_chunk`. What a row does not see
// (a token, a tile, a chunk) is left out of its arithmetic, not multiplied by zero. So a row's bits depend on that row and its keys alone,
// not on the task, the page size, the batch or the chunks of a prefill.
//
// Scores are in powers of two: t = q·k · scale · log₂e, p = 2^(t − m), where m follows the chunk's greatest t so far when that is more than 8
// above it: the output is seldom scaled anew. A soft cap makes t = cap · log₂e · tanh(q·k · scale / cap).
//
// Where p is rounded to bf16, it is first taken from the tile's own greatest t, a: u = 2^(t − a), so that the greatest weight of a tile, which
// counts most, is exactly 1. What the tile gives is multiplied by 2^(a − m) when it is added. Over many keys the other errors cancel; for a
// row that sees few, what rounding left of each weight is multiplied a second time.
//
// int8 values are codes times a scale s for each token. It enters as t + log₂ s, so that p is what codes are multiplied by, and leaves the sum
// again: d adds up p / s.
//
// A tile takes three passes over the task's rows: scores, probabilities, output. So what the rows share, its keys, then its values, stays in
// the first-level cache, whatever the rows themselves bring; and the exponentials, long chains of few instructions, overlap from row to row.
//
// What is rare (soft caps, int8's scales for each token, bits of custom masks) has a softmax of its own, the `special` one; what it shares with
// the other is the same code and gives the same bits.

// A worker's memory. Arrays of rows are used densely from their starts: with head dims below 576 their ends are never touched. Where there is
// room for 16 rows more, vectors of 16 rows may reach beyond the last.
typedef struct attend_scratch {
  _Alignas(64) float scores[martlet_attention_max_rows * martlet_kv_tile_size];    // of one tile, then its probabilities
  _Alignas(64) uint32_t residues[martlet_attention_max_rows * martlet_kv_tile_size];  // short rows: what rounding left of them
  float factors[martlet_attention_max_rows + 16];  // of what the tile gives
  bool is_short[martlet_attention_max_rows];       // rows of few keys: residues are multiplied too
  float chunk_d[martlet_attention_max_rows * 16];  // 16 partial sums each
  float chunk_m[martlet_attention_max_rows + 16];
  float m[martlet_attention_max_rows], d[martlet_attention_max_rows];
  int32_t key_first[martlet_attention_max_rows], key_end[martlet_attention_max_rows];  // the keys that a row sees
  _Alignas(64) uint32_t queries[martlet_attention_max_rows * martlet_attention_max_head_dim];
  _Alignas(64) float chunk_o[martlet_attention_max_rows * martlet_attention_max_head_dim];
  _Alignas(64) float o[martlet_attention_max_rows * martlet_attention_max_head_dim];
  int32_t row_index[martlet_attention_max_rows];  // token · heads + head
  uint64_t seen[martlet_attention_max_rows];      // which tokens of the tile a row sees
  load_scratch load;
} attend_scratch;
_Static_assert(sizeof(attend_scratch) <= martlet_attention_scratch_bytes, "a worker's scratch memory is too small");

// A row of at most so many keys is short.
enum { attention_short_row = 128 };

// What a task's loops share.
typedef struct attend_view {
  const martlet_attend_arguments *a;
  const martlet_attention_task *task;
  attend_scratch *scratch;
  const int32_t *table;  // the request's pages
  int32_t type;          // that is multiplied
  const uint32_t *bits;  // the request's mask, NULL where it has none
  int32_t bit_words;     // of a query
  int32_t key_count;     // of the request
  float scale;           // of scores, to powers of two; with a soft cap, to its argument
  float cap;             // in powers of two; 0 for none
  int32_t value_dims;    // of a value head
  int32_t stride;        // of rows of o: value_dims rounded up to 16
  int32_t segment;       // tokens of a tile that lie in one page
  bool is_direct;        // register tiles read the pages themselves
  bool is_bytes;         // of one-byte numbers, where all rows see a whole tile
  bool is_few;           // a register tile holds all rows: it asks for the next tile's keys and values while it multiplies
  bool lies_by_dim;      // queries are packed dim by dim for each register tile's rows, not row by row
  bool has_factors;      // int8: scores and probabilities are scaled by token
  bool has_short;        // some row is short
} attend_view;

// A tile as the register tiles read it.
typedef struct attend_source {
  const uint32_t *keys[4];  // the first lane of each 16 tokens
  size_t key_stride;        // from lane to lane
  tile_values values;
  bool is_seen;  // every row that sees some of the tile sees all of it; else the scratch memory says what each sees
  // `is_few`: where the next tile's lie; the same as these if there is none, or none that is read where it lies.
  const uint32_t *next_keys[4];
  tile_values next_values;
} attend_source;

MARTLET_INLINE float exp2_of(float x) { return f32x16_exp2(f32x16_set(x))[0]; }

// How many words a packed query is: a float for each dim, or a bf16 pair for each two.
MARTLET_INLINE int32_t query_words(int type, const attend_view *view) { return view->a->cache.head_dim / (MARTLET_IS_DOT(type) ? 2 : 1); }

// The task's queries as they are multiplied, row after row, or those of each register tile dim by dim.
MARTLET_INLINE void pack_queries(int type, const attend_view *view) {
  const martlet_attend_arguments *a = view->a;
  int32_t dims = a->cache.head_dim, words = query_words(type, view);
  for (int32_t row = 0; row < view->task->row_count; row++) {
    const float *q = a->queries + (size_t)view->scratch->row_index[row] * (size_t)dims;
    // Tokens lie far apart, and no hardware guesses where the next one is.
    if (row + 8 < view->task->row_count) {
      const float *later = a->queries + (size_t)view->scratch->row_index[row + 8] * (size_t)dims;
      for (int32_t i = 0; i < dims; i += 16) __builtin_prefetch(later + i, 0, 3);
    }
    float rounded[martlet_attention_max_head_dim];
    if (a->rounds_queries_to_e4m3) {
      for (int32_t i = 0; i < dims; i += 8) {
        float eight[16] = {0};
        __builtin_memcpy(eight, q + i, 8 * sizeof(float));
        f32x16_store(eight, e4m3_widen(e4m3_round(f32x16_load(eight))));
        __builtin_memcpy(rounded + i, eight, 8 * sizeof(float));
      }
      q = rounded;
    }
    uint32_t one[martlet_attention_max_head_dim], *packed = view->lies_by_dim ? one : view->scratch->queries + (size_t)row * (size_t)words;
    if (MARTLET_IS_DOT(type)) {
      int32_t i = 0;
      for (; i + 32 <= dims; i += 32) u32x16_store(packed + i / 2, bf16_pairs(f32x16_load(q + i), f32x16_load(q + i + 16)));
      for (; i < dims; i += 2) packed[i / 2] = bf16_round(f32x16_set(q[i]))[0] | bf16_round(f32x16_set(q[i + 1]))[0] << 16;
    } else if (!view->lies_by_dim) {
      __builtin_memcpy(packed, q, (size_t)dims * sizeof(float));
    }
    if (!view->lies_by_dim) continue;
    const uint8_t *from = MARTLET_IS_DOT(type) ? (const uint8_t *)packed : (const uint8_t *)q;
    int32_t in_tile = row % MARTLET_ATTENTION_ROWS;
    uint32_t *by_dim = view->scratch->queries + (size_t)(row - in_tile) * (size_t)words + in_tile;
    for (int32_t i = 0; i < words; i++) __builtin_memcpy(by_dim + i * MARTLET_ATTENTION_ROWS, from + 4 * i, 4);
  }
}

// Whether scores become powers of two token by token, not by one scale.
MARTLET_INLINE bool scales_by_token(const attend_view *view) { return view->cap > 0 || view->has_factors; }

// Which of the tile's tokens 16·c … 16·c + 15 are among `seen`, as all bits of a lane or none.
MARTLET_INLINE i32x16 seen_lanes(uint64_t seen, int c) {
  const u32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return ((u32x16)((uint32_t)(seen >> 16 * c)) >> lane & 1u) != 0u;
}

// A row's scores under a soft cap, in powers of two.
static __attribute__((noinline)) void softmax_cap(const attend_view *view, float *scores) {
  for (int i = 0; i < martlet_kv_tile_size; i += 16) {
    f32x16 scale = view->has_factors ? f32x16_load(view->scratch->load.score_factors + i) : f32x16_set(view->scale);
    f32x16_store(scores + i, f32x16_tanh(f32x16_load(scores + i) * scale) * view->cap);
  }
}

// One row's scores, −∞ where the row does not see the token; powers of two where they are scaled by token. Not `special` ones are seen from
// token `first` to before `end` of the tile, special ones where `seen` says so. Written back if they are not what they were.
MARTLET_INLINE void softmax_scores(bool special, const attend_view *view, float *scores, int first, int end, uint64_t seen, f32x16 t[4]) {
  if (special && view->cap > 0) softmax_cap(view, scores);
  for (int c = 0; c < 4; c++) t[c] = f32x16_load(scores + 16 * c);
  bool changes = special ? seen != ~(uint64_t)0 : first > 0 || end < martlet_kv_tile_size;
  if (special && view->has_factors) {
    const load_scratch *load = &view->scratch->load;
    if (!(view->cap > 0))
      for (int c = 0; c < 4; c++) t[c] *= f32x16_load(load->score_factors + 16 * c);
    for (int c = 0; c < 4; c++) {
      t[c] += f32x16_load(load->value_logs + 16 * c);
      f32x16_store(scores + 16 * c, t[c]);
    }
  }
  if (!changes) return;
  const i32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (int c = 0; c < 4; c++) {
    i32x16 is_seen = special ? seen_lanes(seen, c) : (lane + 16 * c >= first) & (lane + 16 * c < end);
    t[c] = is_seen ? t[c] : f32x16_set(-__builtin_inff());
    f32x16_store(scores + 16 * c, t[c]);
  }
}

// What rounding to pairs left of 16 weights, the `c`-th of their tile.
MARTLET_INLINE f32x16 residue_of(f32x16 p, const u32x16 pairs[2], int c) {
  // Firsts and seconds of eight pairs, in turn.
  u32x16 half = c % 2 == 0 ? __builtin_shufflevector(pairs[c / 2], pairs[c / 2], 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7)
                           : __builtin_shufflevector(pairs[c / 2], pairs[c / 2], 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
  const u32x16 shift = {16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0, 16, 0};
  return p - f32x16_from_bits(half << shift & 0xFFFF0000u);
}

// What takes int8's scale out of the tile's weights, in the order in which `load_token_scales` keeps it; 0 for tokens that the row does not
// see, whose scale may be anything.
MARTLET_INLINE f32x16 inverse_of(bool as_pairs, const attend_view *view, uint64_t seen, int c) {
  f32x16 inverses = f32x16_load(view->scratch->load.value_inverses + 16 * c);
  if (seen == ~(uint64_t)0) return inverses;
  i32x16 is_seen = seen_lanes(seen, c);
  if (as_pairs) {
    const u32x16 lane = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    is_seen = ((u32x16)((uint32_t)(seen >> c / 2 * 32)) >> (lane + (uint32_t)(c % 2)) & 1u) != 0u;
  }
  return is_seen ? inverses : f32x16_set(0);
}

// The row's greatest score moves from m to `greatest`: what the chunk has added up so far follows.
MARTLET_INLINE void softmax_shrink(const attend_view *view, int32_t row, float m, float greatest) {
  attend_scratch *scratch = view->scratch;
  scratch->chunk_m[row] = greatest;
  if (m == -__builtin_inff()) return;
  float *d = scratch->chunk_d + 16 * row, *o = scratch->chunk_o + (size_t)row * (size_t)view->stride;
  f32x16 shrink = f32x16_exp2(f32x16_set(m - greatest));
  f32x16_store(d, f32x16_load(d) * shrink);
  for (int32_t i = 0; i < view->stride; i += 16) f32x16_store(o + i, f32x16_load(o + i) * shrink);
}

// The sum of 64 rounded weights, in 16 parts; of int8's, over what is left when the scales are taken out again.
MARTLET_INLINE f32x16 softmax_sum(bool has_factors, const attend_view *view, const u32x16 pairs[2], uint64_t seen) {
  f32x16 sum = f32x16_set(0);
  if (!has_factors) {
    const u32x16 ones = (u32x16)(0x3F803F80u);
    return bf16_pair_dot(bf16_pair_dot(sum, ones, pairs[0]), ones, pairs[1]);
  }
  for (int c = 0; c < 4; c++)
    sum = f32x16_fma(c % 2 == 0 ? bf16_pair_first(pairs[c / 2]) : bf16_pair_second(pairs[c / 2]), inverse_of(true, view, seen, c), sum);
  return sum;
}

// One row's weights, from scores that are no greater than `from` where the weights become pairs of bf16. Their sum is taken over them as they
// are multiplied, so that o ÷ d is a mean of values whose weights add up to 1.
MARTLET_INLINE void softmax_weights(
    bool as_pairs, bool has_factors, const attend_view *view, int32_t row, float scale, float from, float factor, uint64_t seen) {
  attend_scratch *scratch = view->scratch;
  float *scores = scratch->scores + row * martlet_kv_tile_size, *d = scratch->chunk_d + 16 * row;
  f32x16 p[4];
  for (int c = 0; c < 4; c++) {
    f32x16 x = f32x16_fma(f32x16_load(scores + 16 * c), f32x16_set(scale), f32x16_set(-from));
    p[c] = as_pairs ? f32x16_exp2_short(x) : f32x16_exp2_normal(x);
  }
  if (!as_pairs) {
    for (int c = 0; c < 4; c++) f32x16_store(scores + 16 * c, p[c]);
    if (has_factors)
      for (int c = 0; c < 4; c++) p[c] *= inverse_of(false, view, seen, c);
    f32x16_store(d, f32x16_load(d) + ((p[0] + p[1]) + (p[2] + p[3])));
    return;
  }
  u32x16 pairs[2] = {bf16_pairs(p[0], p[1]), bf16_pairs(p[2], p[3])};
  u32x16_store(scores, pairs[0]);
  u32x16_store(scores + 16, pairs[1]);
  f32x16 sum = softmax_sum(has_factors, view, pairs, seen);
  if (scratch->is_short[row]) {
    for (int c = 0; c < 4; c++) p[c] = residue_of(p[c], pairs, c);
    uint32_t *residues = scratch->residues + row * martlet_kv_tile_size;
    for (int c = 0; c < 2; c++) u32x16_store(residues + 16 * c, pairs[c] = bf16_pairs(p[2 * c], p[2 * c + 1]));
    sum += softmax_sum(has_factors, view, pairs, seen);
  }
  f32x16_store(d, f32x16_fma(sum, f32x16_set(factor), f32x16_load(d)));
}

// The scores of up to 16 rows become weights, in place, and the rows' states follow. Each sees something of the tile, unless `special`.
MARTLET_INLINE void softmax_rows(bool as_pairs, bool special, const attend_view *view, int32_t row, int count, int32_t start) {
  attend_scratch *scratch = view->scratch;
  const float scale = special && scales_by_token(view) ? 1 : view->scale;
  const uint64_t *seen = scratch->seen + row;
  f32x16 lanes[16];
  for (int i = 0; i < count; i++) {
    f32x16 t[4];
    int first = scratch->key_first[row + i] - start, end = scratch->key_end[row + i] - start;
    softmax_scores(special, view, scratch->scores + (row + i) * martlet_kv_tile_size, first, end, special ? seen[i] : 0, t);
    lanes[i] = f32x16_max(f32x16_max(t[0], t[1]), f32x16_max(t[2], t[3]));
  }
  for (int i = count; i < 16; i++) lanes[i] = f32x16_set(0);
  f32x16 greatest = f32x16_greatest_of_each(lanes) * scale, m = f32x16_load(scratch->chunk_m + row);
  i32x16 grows = ~(greatest <= m + 8);
  if (__builtin_reduce_or(grows)) {
    for (int i = 0; i < count; i++)
      if (grows[i] && !(special && seen[i] == 0)) softmax_shrink(view, row + i, m[i], greatest[i]);
    m = grows ? greatest : m;
  }

  _Alignas(64) float from[16];
  f32x16_store(from, as_pairs ? greatest : m);
  float *factors = scratch->factors + row;
  if (as_pairs) f32x16_store(factors, f32x16_exp2_short(greatest - m));
  for (int i = 0; i < count; i++) {
    if (special && seen[i] == 0)
      factors[i] = 0;
    else
      softmax_weights(as_pairs, special && view->has_factors, view, row + i, scale, from[i], factors[i], special ? seen[i] : 0);
  }
}

// The row's weights of the tile, or what rounding left of them.
MARTLET_INLINE const uint32_t *attend_weights(const attend_view *view, int32_t row, bool residues) {
  const attend_scratch *scratch = view->scratch;
  const uint32_t *weights = residues ? scratch->residues : (const uint32_t *)(const void *)scratch->scores;
  return weights + row * martlet_kv_tile_size;
}

// What the weights of `rows` rows, or their residues, make of the tile's values goes into their rows of o.
MARTLET_INLINE void attend_output(
    int type, int rows, const attend_view *view, int32_t row, bool residues, const tile_values *values, const tile_seen *seen,
    const tile_values *ask) {
  const int columns = MARTLET_TILE_COLUMNS(type, rows);
  const uint32_t *p = attend_weights(view, row, residues);
  const float *factors = MARTLET_IS_DOT(type) ? view->scratch->factors + row : NULL;
  float *o = view->scratch->chunk_o + (size_t)row * (size_t)view->stride;
  int dim = 0;
  for (; dim + 16 * columns <= view->stride; dim += 16 * columns)
    tile_output(type, rows, columns, p, values, seen, dim, ask, factors, o, (size_t)view->stride);
  if (columns > 1)
    for (; dim + 16 <= view->stride; dim += 16)
      tile_output(type, rows, 1, p, values, seen, dim, ask, factors, o, (size_t)view->stride);
}

// What a register tile asks for while it multiplies the columns seen[0], seen[1] …: in ask[c] the first lines, as the result how many lanes
// further the next ones lie. A page's keys of one head lie in one piece. If the columns are only some of a page's, that piece is asked for in
// the order of memory; else the next columns are, which is the same.
MARTLET_INLINE size_t attend_ask(
    int columns, int lanes, const attend_view *view, const attend_source *source, const int seen[4], const uint32_t *ask[4]) {
  const int page_columns = view->segment / 16;
  if (columns == 4 || columns >= page_columns || view->a->cache.page_size > martlet_kv_tile_size) {
    for (int c = 0; c < columns; c++) ask[c] = source->next_keys[seen[c]];
    return source->key_stride;
  }
  const int first = seen[0] / page_columns * page_columns;
  for (int c = 0; c < columns; c++) ask[c] = source->next_keys[first] + (seen[0] - first) * lanes * 16 + 16 * c;
  return (size_t)(16 * columns);
}

// The packed queries of `rows` rows from `row` on, of one register tile.
MARTLET_INLINE tile_rows attend_queries(int type, int rows, bool lies_by_dim, const attend_view *view, int32_t row) {
  size_t words = (size_t)query_words(type, view);
  if (!lies_by_dim) {
    const uint32_t *first = view->scratch->queries + (size_t)row * words;
    return (tile_rows){first, rows > 3 ? read_again(first + 3 * words) : first, words, 1};
  }
  int32_t in_tile = row % MARTLET_ATTENTION_ROWS;
  const uint32_t *first = view->scratch->queries + (size_t)(row - in_tile) * words + in_tile;
  return (tile_rows){first, first + 3, 1, MARTLET_ATTENTION_ROWS};
}

// What `rows` rows from `row` on, of one register tile, see of a tile; false if they see nothing.
MARTLET_INLINE bool attend_seen(int type, int rows, const attend_view *view, int32_t row, const attend_source *source, tile_seen *seen) {
  *seen = (tile_seen){view->scratch->seen + row, ~(uint64_t)0, ~(uint64_t)0};
  if (source->is_seen) return true;
  seen->some = 0;
  for (int i = 0; i < rows; i++) {
    seen->whole &= seen->rows[i];
    seen->some |= seen->rows[i];
  }
  if (MARTLET_LANE(type) == 2) seen->whole = (seen->whole & seen->whole >> 1 & 0x5555555555555555u) * 3;
  return seen->some != 0;
}

// Scores of rows `row ..< row + rows` of the task, which lie in one register tile.
MARTLET_INLINE void attend_scores(int type, int rows, bool asks, const attend_view *view, int32_t row, const attend_source *source) {
  tile_seen visible;
  if (!attend_seen(type, rows, view, row, source, &visible)) return;
  // Scores of the columns of 16 tokens from the first that some row sees to the last. A register tile's other columns are computed from a
  // page that exists, and masked.
  const int columns = MARTLET_TILE_COLUMNS(type, rows), half = columns == 4 && !asks ? 2 : columns;
  const int lanes = view->a->cache.head_dim / MARTLET_LANE(type);
  int first_column = __builtin_ctzll(visible.some) / 16, end_column = (63 - __builtin_clzll(visible.some)) / 16 + 1;
  const tile_rows q = attend_queries(type, rows, MARTLET_LIES_BY_DIM(type, asks), view, row);
  float *scores = view->scratch->scores + row * martlet_kv_tile_size;
  for (int column = first_column / half * half; column < end_column; column += columns) {
    const uint32_t *k[4], *ask[4];
    int seen[4];
    for (int c = 0; c < columns; c++) {
      seen[c] = column + c >= first_column && column + c < end_column ? column + c : first_column;
      k[c] = source->keys[seen[c]];
    }
    size_t ask_stride = asks ? attend_ask(columns, lanes, view, source, seen, ask) : 0;
    if (half < columns && end_column - column <= half)
      tile_scores(type, rows, half, q, k, source->key_stride, lanes, NULL, 0, scores + 16 * column);
    else
      tile_scores(type, rows, columns, q, k, source->key_stride, lanes, asks ? ask : NULL, ask_stride, scores + 16 * column);
  }
}

// What the rows' weights, or their residues, make of the tile's values.
MARTLET_INLINE void attend_values(
    int type, int rows, bool asks, bool residues, const attend_view *view, int32_t row, const attend_source *source) {
  tile_seen seen;
  if (!attend_seen(type, rows, view, row, source, &seen)) return;
  attend_output(type, rows, view, row, residues, &source->values, &seen, asks ? &source->next_values : NULL);
}

MARTLET_INLINE void attend_softmax(bool as_pairs, bool special, const attend_view *view, int32_t row, int32_t end, int32_t start) {
  for (; row < end; row += 16) softmax_rows(as_pairs, special, view, row, end - row < 16 ? end - row : 16, start);
}

// Pointers into pages that register tiles read themselves, whose lanes hold `group` numbers; only pages that hold a token from `first` to
// `last` are looked up.
MARTLET_INLINE void attend_pages(
    int group, const attend_view *view, int32_t start, int32_t first, int32_t last, const uint32_t **keys, tile_values *values) {
  const martlet_paged_kv *cache = &view->a->cache;
  values->segment_shift = __builtin_ctz((unsigned)view->segment);
  values->stride = (size_t)view->value_dims;
  size_t key_plane = (size_t)view->task->kv_head * (size_t)cache->page_size * (size_t)(cache->head_dim / group);
  size_t value_plane = (size_t)view->task->kv_head * (size_t)(cache->page_size / group) * (size_t)view->value_dims;
  for (int32_t token = first / view->segment * view->segment; token <= last; token += view->segment) {
    // A custom mask may leave a hole, which is not read: the address is that of another page.
    int32_t entry = view->table[token / cache->page_size];
    const uint8_t *page = cache->pages + (size_t)(entry < 0 ? 0 : entry) * (size_t)cache->page_bytes;
    size_t slot = (size_t)(token % cache->page_size);
    int32_t segment = (token - start) / view->segment;
    for (int32_t c = 0; c < view->segment / 16; c++)
      keys[segment * view->segment / 16 + c] = (const uint32_t *)(const void *)page + key_plane + slot + 16 * c;
    values->segments[segment] = (const uint32_t *)(const void *)(page + cache->values_offset) + value_plane +
                                slot / (size_t)group * (size_t)view->value_dims;
  }
}

// There is no next tile to ask for.
MARTLET_INLINE void attend_ask_itself(attend_source *source) {
  __builtin_memcpy(source->next_keys, source->keys, sizeof source->keys);
  source->next_values = source->values;
}

// The tile where it lies, and where the next one lies if it is to be asked for.
MARTLET_INLINE void attend_direct(int group, const attend_view *view, int32_t start, int32_t first, int32_t last, attend_source *source) {
  source->key_stride = (size_t)view->a->cache.page_size;
  attend_pages(group, view, start, first, last, source->keys, &source->values);
  if (!view->is_few) return;
  attend_ask_itself(source);
  int32_t next = start + martlet_kv_tile_size, end = view->scratch->key_end[view->task->row_count - 1];
  if (next < end && next < view->task->end_chunk * martlet_kv_chunk_size)
    attend_pages(
        group, view, next, next, (end < next + martlet_kv_tile_size ? end : next + martlet_kv_tile_size) - 1, source->next_keys,
        &source->next_values);
}

MARTLET_INLINE load_place attend_place(const attend_view *view, int32_t start, int32_t first, int32_t last) {
  return (load_place){
      .a = view->a, .table = view->table, .scratch = &view->scratch->load, .kv_head = view->task->kv_head, .key_count = view->key_count,
      .start = start, .first = first, .last = last, .type = view->type, .value_stride = view->stride, .scale = view->scale};
}

// The tile brought to the worker's memory.
MARTLET_INLINE void attend_brought(const attend_view *view, int32_t start, int32_t first, int32_t last, attend_source *source) {
  load_scratch *scratch = &view->scratch->load;
  load_place place = attend_place(view, start, first, last);
  load_tile(&place);
  for (int c = 0; c < 4; c++) source->keys[c] = scratch->keys + 16 * c;
  source->key_stride = martlet_kv_tile_size;
  source->values = (tile_values){.segments = {scratch->values}, .segment_shift = 6, .stride = (size_t)view->stride};
  attend_ask_itself(source);
}

// The tokens of the tile that a row sees, as bits.
MARTLET_INLINE uint64_t seen_of(const attend_view *view, int32_t row, int32_t start) {
  int32_t first = view->scratch->key_first[row] - start, end = view->scratch->key_end[row] - start;
  if (first < 0) first = 0;
  if (end > martlet_kv_tile_size) end = martlet_kv_tile_size;
  if (first >= end) return 0;
  uint64_t seen = ~(uint64_t)0 << first & ~(uint64_t)0 >> (martlet_kv_tile_size - end);
  if (view->bits) {
    int32_t group = view->a->heads / view->a->cache.kv_heads;
    const uint32_t *words = view->bits + (size_t)((view->task->first_row + row) / group) * (size_t)view->bit_words + start / 32;
    seen &= words[0] | (uint64_t)words[1] << 32;
  }
  return seen;
}

// The rows `row ..< end` go through a product one register tile after the other; of residues, those that are short. Where the next ones end.
MARTLET_INLINE int32_t next_rows(const attend_view *view, bool residues, int32_t *row, int32_t end) {
  const bool *is_short = view->scratch->is_short;
  if (residues)
    while (*row < end && !is_short[*row]) ++*row;
  int32_t stop = (*row / MARTLET_ATTENTION_ROWS + 1) * MARTLET_ATTENTION_ROWS;
  if (stop > end) stop = end;
  if (residues)
    for (int32_t i = *row; i < stop; i++)
      if (!is_short[i]) stop = i;
  return stop;
}

// A tile's two products, for each number of rows that a register tile may have less one. They are functions of their own, so that compilers
// neither take minutes over one large function nor run out of registers in it.
typedef struct attend_products {
  void (*scores[MARTLET_ATTENTION_ROWS])(const attend_view *view, int32_t row, const attend_source *source);
  void (*values[MARTLET_ATTENTION_ROWS])(const attend_view *view, bool residues, int32_t row, const attend_source *source);
} attend_products;

#if MARTLET_ATTENTION_ROWS == 6
#define MARTLET_OF_ROWS(of, ...) \
  of(1, __VA_ARGS__) of(2, __VA_ARGS__) of(3, __VA_ARGS__) of(4, __VA_ARGS__) of(5, __VA_ARGS__) of(6, __VA_ARGS__)
#else
#define MARTLET_OF_ROWS(of, ...) of(1, __VA_ARGS__) of(2, __VA_ARGS__)
#endif
#define MARTLET_FUNCTIONS(rows, name, type, is_few) \
  static __attribute__((noinline)) void attend_scores_##name##_##rows(const attend_view *view, int32_t row, const attend_source *source) { \
    attend_scores(type, rows, is_few, view, row, source); \
  } \
  static __attribute__((noinline)) void attend_values_##name##_##rows( \
      const attend_view *view, bool residues, int32_t row, const attend_source *source) { \
    attend_values(type, rows, is_few, residues, view, row, source); \
  }
#define MARTLET_SCORES(rows, name) attend_scores_##name##_##rows,
#define MARTLET_VALUES(rows, name) attend_values_##name##_##rows,
#define MARTLET_PRODUCTS(name, type, is_few) \
  MARTLET_OF_ROWS(MARTLET_FUNCTIONS, name, type, is_few) \
  static const attend_products attend_##name = {{MARTLET_OF_ROWS(MARTLET_SCORES, name)}, {MARTLET_OF_ROWS(MARTLET_VALUES, name)}};
// For tasks of many rows, which are multiplied as float32 or as pairs: see `load_type`.
MARTLET_PRODUCTS(many_f32, martlet_kv_f32, false)
#if MARTLET_DOT_BF16
MARTLET_PRODUCTS(many_bf16, martlet_kv_bf16, false)
#endif
// For tasks of few, a single register tile, which asks for the next tile on the way.
MARTLET_PRODUCTS(few_f32, martlet_kv_f32, true)
MARTLET_PRODUCTS(few_f16, martlet_kv_f16, true)
MARTLET_PRODUCTS(few_bf16, martlet_kv_bf16, true)
// One-byte numbers where they lie, of a tile that all rows see.
MARTLET_PRODUCTS(few_e4m3, martlet_kv_e4m3, true)
MARTLET_PRODUCTS(few_i8, martlet_kv_i8, true)
#undef MARTLET_PRODUCTS
#undef MARTLET_VALUES
#undef MARTLET_SCORES
#undef MARTLET_FUNCTIONS
#undef MARTLET_OF_ROWS

static const attend_products *const attend_products_of_many[] = {
    [martlet_kv_f32] = &attend_many_f32,
#if MARTLET_DOT_BF16
    [martlet_kv_bf16] = &attend_many_bf16,
#endif
};
static const attend_products *const attend_products_of_few[] = {
    [martlet_kv_f32] = &attend_few_f32,   [martlet_kv_f16] = &attend_few_f16, [martlet_kv_bf16] = &attend_few_bf16,
    [martlet_kv_e4m3] = &attend_few_e4m3, [martlet_kv_i8] = &attend_few_i8,
};

// The scores of rows `row ..< end`, one register tile after the other.
MARTLET_INLINE void attend_all_scores(
    const attend_products *products, const attend_view *view, int32_t row, int32_t end, const attend_source *source) {
  for (int32_t stop; stop = next_rows(view, false, &row, end), row < end; row = stop) products->scores[stop - row - 1](view, row, source);
}

// What the weights of rows `row ..< end`, or the residues of those that are short, make of the tile's values.
MARTLET_INLINE void attend_all_values(
    const attend_products *products, const attend_view *view, bool residues, int32_t row, int32_t end, const attend_source *source) {
  for (int32_t stop; stop = next_rows(view, residues, &row, end), row < end; row = stop)
    products->values[stop - row - 1](view, residues, row, source);
}

// One tile of 64 tokens against the rows that see something of it: neighbours, because what a row sees moves on with the row, except under
// a custom mask.
MARTLET_INLINE void attend_tile(bool as_pairs, bool special, const attend_view *view, int32_t start) {
  attend_scratch *scratch = view->scratch;
  int32_t row = 0, end = view->task->row_count, first, last;
  attend_source source = {0};
  if (special) {
    uint64_t some = 0, all = ~(uint64_t)0;
    for (int32_t i = 0; i < end; i++) {
      scratch->seen[i] = seen_of(view, i, start);
      some |= scratch->seen[i];
      all &= scratch->seen[i];
    }
    if (some == 0) return;
    while (scratch->seen[row] == 0) row++;
    while (scratch->seen[end - 1] == 0) end--;
    first = start + __builtin_ctzll(some);
    last = start + 63 - __builtin_clzll(some);
    source.is_seen = all == ~(uint64_t)0;
  } else {
    while (row < end && scratch->key_end[row] <= start) row++;
    while (row < end && scratch->key_first[end - 1] >= start + martlet_kv_tile_size) end--;
    if (row == end) return;
    first = scratch->key_first[row] > start ? scratch->key_first[row] : start;
    last = (scratch->key_end[end - 1] < start + martlet_kv_tile_size ? scratch->key_end[end - 1] : start + martlet_kv_tile_size) - 1;
    source.is_seen = scratch->key_first[end - 1] <= start && scratch->key_end[row] >= start + martlet_kv_tile_size;
    if (!source.is_seen)
      for (int32_t i = row; i < end; i++) scratch->seen[i] = seen_of(view, i, start);
  }
  const attend_products *products = (view->is_few ? attend_products_of_few : attend_products_of_many)[view->type];
  if (view->is_bytes && row == 0 && end == view->task->row_count && source.is_seen) {
    products = attend_products_of_few[view->a->cache.type];
    attend_direct(4, view, start, first, last, &source);
    load_place place = attend_place(view, start, first, last);
    if (view->has_factors) load_token_scales(&place);
  } else if (view->is_direct) {
    attend_direct(MARTLET_LANE(view->type), view, start, first, last, &source);
  } else {
    attend_brought(view, start, first, last, &source);
  }
  attend_all_scores(products, view, row, end, &source);
  attend_softmax(as_pairs, special, view, row, end, start);
  attend_all_values(products, view, false, row, end, &source);
  if (as_pairs && view->has_short) attend_all_values(products, view, true, row, end, &source);
}

// The task's rows against one chunk: chunk_m, chunk_d and chunk_o from empty.
MARTLET_INLINE void attend_chunk(bool as_pairs, bool special, const attend_view *view, int32_t chunk) {
  attend_scratch *scratch = view->scratch;
  int32_t rows = view->task->row_count;
  for (int32_t row = 0; row < rows; row++) scratch->chunk_m[row] = -__builtin_inff();
  __builtin_memset(scratch->chunk_d, 0, (size_t)rows * 16 * sizeof(float));
  __builtin_memset(scratch->chunk_o, 0, (size_t)rows * (size_t)view->stride * sizeof(float));
  int32_t start = chunk * martlet_kv_chunk_size, end = start + martlet_kv_chunk_size;
  if (end > scratch->key_end[rows - 1]) end = scratch->key_end[rows - 1];
  for (; start < end; start += martlet_kv_tile_size) attend_tile(as_pairs, special, view, start);
}

#define MARTLET_CHUNK(name, as_pairs, special) \
  static __attribute__((noinline)) void name(const attend_view *view, int32_t chunk) { attend_chunk(as_pairs, special, view, chunk); }
MARTLET_CHUNK(attend_chunk_floats, false, false)
MARTLET_CHUNK(attend_special_chunk_floats, false, true)
#if MARTLET_DOT_BF16
MARTLET_CHUNK(attend_chunk_pairs, true, false)
MARTLET_CHUNK(attend_special_chunk_pairs, true, true)
#endif
#undef MARTLET_CHUNK

typedef void (*attend_chunk_function)(const attend_view *view, int32_t chunk);

// For the type that is multiplied.
MARTLET_INLINE attend_chunk_function attend_chunk_of(int32_t type, bool special) {
#if MARTLET_DOT_BF16
  if (MARTLET_IS_DOT(type)) return special ? attend_special_chunk_pairs : attend_chunk_pairs;
#endif
  (void)type;
  return special ? attend_special_chunk_floats : attend_chunk_floats;
}

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

// The output of row `index` (token · heads + head) from its state: the sink is counted here, once.
MARTLET_INLINE void write_row(const attend_view *view, int32_t index, float m, float d, const float *o) {
  const martlet_attend_arguments *a = view->a;
  float weight = 1;
  bool is_empty = d == 0;
  if (a->sinks) {
    float sink = (float)((double)a->sinks[index % a->heads] * 1.4426950408889634);
    if (is_empty) {
      m = sink;
      d = sink > -__builtin_inff() ? 1 : 0;
    } else {
      float greatest = m > sink ? m : sink;
      weight = exp2_of(m - greatest);
      d = d * weight + exp2_of(sink - greatest);
      m = greatest;
    }
  }
  if (a->log_sum_exp) a->log_sum_exp[index] = d == 0 ? -__builtin_inff() : m + log2_of(d);

  float factor = weight / d * (a->cache.type == martlet_kv_e4m3 ? a->cache.value_scale : 1);
  size_t start = (size_t)index * (size_t)view->value_dims;
  for (int32_t i = 0; i < view->value_dims; i += 16) {
    // Rows of o have room for whole vectors; outputs end with 8 dims where their number is no multiple of 16.
    f32x16 x = is_empty ? f32x16_set(0) : f32x16_load(o + i) * factor;
    size_t count = view->value_dims - i < 16 ? 8 : 16;
    if (a->output_is_e4m3) {
      u8x16 codes = __builtin_convertvector(e4m3_round(x * a->output_scale), u8x16);
      if (count == 16)
        u8x16_store((uint8_t *)a->output + start + i, codes);
      else
        __builtin_memcpy((uint8_t *)a->output + start + i, &codes, 8);
    } else if (count == 16) {
      f32x16_store((float *)a->output + start + i, x);
    } else {
      __builtin_memcpy((float *)a->output + start + i, &x, 8 * sizeof(float));
    }
  }
}

// What a row is called outside a task: token · heads + head.
MARTLET_INLINE int32_t row_index(const martlet_attend_arguments *a, int32_t request, int32_t kv_head, int32_t row) {
  int32_t group = a->heads / a->cache.kv_heads;
  return (a->query_indptr[request] + row / group) * a->heads + kv_head * group + row % group;
}

// One chunk of a merge is ready, in `states`; the last one folds them all and writes the merge's rows, from `first_row` of the request on.
MARTLET_INLINE void finish_merge(const attend_view *view, int32_t merge_index, int32_t request, int32_t first_row) {
  const martlet_attend_arguments *a = view->a;
  const martlet_attention_merge *merge = &a->merges[merge_index];
  // Releases this task's state and, for the last one, acquires all others'.
  if (__atomic_add_fetch(&a->finished[merge_index], 1, __ATOMIC_ACQ_REL) < merge->chunk_count) return;
  size_t width = (size_t)view->value_dims + 2;
  for (int32_t row = 0; row < merge->row_count; row++) {
    float m = -__builtin_inff(), d = 0;
    for (int32_t chunk = 0; chunk < merge->chunk_count; chunk++) {
      const float *state = a->states + ((size_t)merge->state_row + (size_t)(chunk * merge->row_count + row)) * width;
      fold_chunk(&m, &d, view->scratch->o, state[0], state[1], state + 2, view->value_dims);
    }
    write_row(view, row_index(a, request, view->task->kv_head, first_row + row), m, d, view->scratch->o);
  }
  a->finished[merge_index] = 0;
}

// Whether a row sees few keys: of a custom mask those whose bits are set, so that it does not matter how many keys the request has by now.
MARTLET_INLINE bool sees_few(const attend_view *view, int32_t token, int32_t first, int32_t end) {
  if (!view->bits) return end - (first > 0 ? first : 0) <= attention_short_row;
  const uint32_t *words = view->bits + (size_t)token * (size_t)view->bit_words;
  int32_t count = 0;
  for (int32_t i = 0; i < view->bit_words && count <= attention_short_row; i++) count += __builtin_popcount(words[i]);
  return count <= attention_short_row;
}

// `count` rows of a request, first in the task at `row`: what they are called and which keys they see.
MARTLET_INLINE void prepare_rows(const attend_view *view, int32_t request, int32_t first_row, int32_t row, int32_t count) {
  const martlet_attend_arguments *a = view->a;
  attend_scratch *scratch = view->scratch;
  int32_t group = a->heads / a->cache.kv_heads, key_count = a->kv_lens[request];
  int32_t queries = a->query_indptr[request + 1] - a->query_indptr[request];
  int32_t token = first_row / group, head = first_row % group;
  for (int32_t i = 0; i < count; i++, row++) {
    int32_t position = key_count - queries + token;
    int32_t first = a->window > 0 && !view->bits ? position - a->window + 1 : 0, end = a->causal && !view->bits ? position + 1 : key_count;
    // A window on both sides; the difference does not overflow where the sum could.
    if (!a->causal && a->window > 0 && !view->bits && key_count - position > a->window) end = position + a->window;
    scratch->is_short[row] = sees_few(view, token, first, end);
    scratch->row_index[row] = (a->query_indptr[request] + token) * a->heads + view->task->kv_head * group + head;
    scratch->key_end[row] = end > 0 ? end : 0;
    scratch->key_first[row] = first > 0 ? first : 0;
    scratch->m[row] = -__builtin_inff();
    scratch->d[row] = 0;
    if (++head == group) token++, head = 0;
  }
}

// The states of `count` rows of the task after one chunk, from `row` on, to `states` from `state_row` on.
MARTLET_INLINE void store_states(const attend_view *view, int32_t row, int32_t count, int32_t state_row) {
  const attend_scratch *scratch = view->scratch;
  for (int32_t i = 0; i < count; i++, row++) {
    float *state = view->a->states + ((size_t)state_row + (size_t)i) * ((size_t)view->value_dims + 2);
    state[0] = scratch->chunk_m[row];
    state[1] = f32x16_sum(f32x16_load(scratch->chunk_d + 16 * row));
    __builtin_memcpy(state + 2, scratch->chunk_o + (size_t)row * (size_t)view->stride, (size_t)view->value_dims * sizeof(float));
  }
}

static void attend(const void *arguments, int32_t task_index, int32_t worker, void *scratch_memory) {
  const martlet_attend_arguments *a = arguments;
  const martlet_attention_task *task = &a->tasks[task_index];
  const martlet_paged_kv *cache = &a->cache;
  attend_scratch *scratch = scratch_memory;
  (void)worker;
  int32_t type = load_type(a, task->row_count);
  // Powers of two, or, under a soft cap, what its tanh takes.
  float scale = cache->type == martlet_kv_e4m3 ? a->scale * cache->key_scale : a->scale;
  scale = a->soft_cap > 0 ? scale / a->soft_cap : (float)((double)scale * 1.4426950408889634);
  attend_view view = {
      .a = a,
      .task = task,
      .scratch = scratch,
      .type = type,
      .table = cache->page_table + (size_t)task->request * (size_t)cache->table_width,
      .key_count = a->kv_lens[task->request],
      .scale = scale,
      .cap = a->soft_cap > 0 ? (float)((double)a->soft_cap * 1.4426950408889634) : 0,
      .value_dims = cache->value_head_dim,
      .stride = (cache->value_head_dim + 15) / 16 * 16,
      .segment = cache->page_size < martlet_kv_tile_size ? cache->page_size : martlet_kv_tile_size,
      .is_direct = type == cache->type && cache->value_head_dim % 16 == 0 && load_is_packed(a),
      .is_bytes = cache->type >= martlet_kv_e4m3 && task->row_count <= MARTLET_ATTENTION_ROWS && cache->value_head_dim % 16 == 0 &&
                  load_is_packed(a),
      .is_few = task->row_count <= MARTLET_ATTENTION_ROWS,
      .has_factors = cache->type == martlet_kv_i8,
  };
  bool is_cascade = task->merge == martlet_attention_cascade;
  if (a->mask_offsets && !is_cascade && a->mask_offsets[task->request] >= 0) {
    view.bits = a->mask_words + a->mask_offsets[task->request];
    view.bit_words = (view.key_count + 63) / 64 * 2;
  }

  if (is_cascade) {
    int32_t row = 0;
    for (int32_t i = task->first_row; i < task->first_row + task->state_row; i++) {
      prepare_rows(&view, a->segments[i].request, a->segments[i].first_row, row, a->segments[i].row_count);
      row += a->segments[i].row_count;
    }
  } else {
    prepare_rows(&view, task->request, task->first_row, 0, task->row_count);
  }
  for (int32_t row = 0; row < task->row_count; row++) view.has_short |= scratch->is_short[row];
  view.lies_by_dim = MARTLET_LIES_BY_DIM(type, view.is_few);
  if (MARTLET_IS_DOT(type))
    pack_queries(martlet_kv_bf16, &view);
  else
    pack_queries(martlet_kv_f32, &view);

  attend_chunk_function attend_one_chunk = attend_chunk_of(type, scales_by_token(&view) || view.bits || !(view.scale > 0));
  if (is_cascade) {
    attend_one_chunk(&view, task->first_chunk);
    int32_t row = 0;
    for (int32_t i = task->first_row; i < task->first_row + task->state_row; i++) {
      const martlet_attention_segment *segment = &a->segments[i];
      store_states(&view, row, segment->row_count, segment->state_row);
      finish_merge(&view, segment->merge, segment->request, segment->first_row);
      row += segment->row_count;
    }
  } else if (task->merge >= 0) {
    attend_one_chunk(&view, task->first_chunk);
    store_states(&view, 0, task->row_count, task->state_row);
    finish_merge(&view, task->merge, task->request, task->first_row);
  } else if (task->end_chunk - task->first_chunk == 1) {  // nothing to fold
    attend_one_chunk(&view, task->first_chunk);
    for (int32_t row = 0; row < task->row_count; row++)
      write_row(&view, scratch->row_index[row], scratch->chunk_m[row], f32x16_sum(f32x16_load(scratch->chunk_d + 16 * row)),
                scratch->chunk_o + (size_t)row * (size_t)view.stride);
  } else {
    for (int32_t chunk = task->first_chunk; chunk < task->end_chunk; chunk++) {
      attend_one_chunk(&view, chunk);
      for (int32_t row = 0; row < task->row_count; row++) {
        size_t start = (size_t)row * (size_t)view.stride;
        float d = f32x16_sum(f32x16_load(scratch->chunk_d + 16 * row));
        fold_chunk(
            &scratch->m[row], &scratch->d[row], scratch->o + start, scratch->chunk_m[row], d, scratch->chunk_o + start, view.value_dims);
      }
    }
    for (int32_t row = 0; row < task->row_count; row++)
      write_row(&view, scratch->row_index[row], scratch->m[row], scratch->d[row], scratch->o + (size_t)row * (size_t)view.stride);
  }
}
