// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Attention over pages, on tensor cores, for prompts, chunks of them, drafts and single tokens alike.
//
// One arithmetic for every row. The key axis is cut at absolute positions into chunks of 512 keys, made of tiles of 64. A row's chunk begins with nothing;
// for each tile that the row sees any of, ascending:
//
//   scores   mma.m16n8k16 over the dims, ascending: for 16 dims, term i of the keys with term j of the query where i + j < terms
//   m        the greatest of m and the scores, as powers of two;  factor = 2^(m before − m)
//   p        2^(score − m); their sum by 16 lanes of 4 keys each and a tree;  d = d · factor + sum
//   o        o · factor, then mma.m16n8k16 over the keys, ascending, with the terms of p and of the values
//
// A tile that a row sees nothing of leaves its state as it is, to the bit, so that it does not matter whether it was left out. Chunks' states are folded in
// ascending order by `fold`, in a task that visits all chunks, and by the last block of a merge where each chunk had a task. Warps share out keys and dims,
// never rows, and 16 rows at a time or 64 are the same instructions for each of them.
//
// Heads of a group and tokens are rows of one tile, so that keys and values are read once for all of them. What rounding to bfloat16 leaves of queries,
// weights and stored numbers with more bits are further terms of bfloat16.

#include "pages.cuh"

constexpr int tile_keys = martlet_cuda_tile_size, score_stride = tile_keys + 4, weight_stride = tile_keys + 8;

struct attention_task {
  int32_t request, kv_head, first_row, row_count, first_chunk, end_chunk, merge, state_row;
};
struct attention_segment {
  int32_t request, first_row, row_count, merge, state_row, reserved[3];
};
struct attention_merge {
  int32_t state_row, chunk_count, row_count, reserved;
};

// MARK: shared memory

// Where things are in shared memory, in bytes, for `rows` rows at a time. The host counts the same bytes (martlet_cuda_launch_attend).
struct attention_memory {
  int32_t key_terms, value_terms;     // of bfloat16 that a stored number becomes
  int32_t key_stride, value_stride;   // values from token to token: 8 more than dims, so that eight rows of a matrix lie in different banks
  int32_t queries, keys, values, scores, weights, floats, integers;

  MARTLET_DEVICE attention_memory(const martlet_cuda_attend_arguments &a, int32_t rows) {
    const martlet_cuda_paged_kv &cache = a.cache;
    int32_t stored = cache.type == martlet_cuda_kv_f32 ? 3 : cache.type == martlet_cuda_kv_f16 ? 2 : 1;
    value_terms = stored < a.terms ? stored : a.terms;
    key_terms = a.key_rope ? a.terms : value_terms;
    key_stride = (cache.head_dim + 15) / 16 * 16 + 8;
    value_stride = cache.value_head_dim + 8;
    bool values_are_keys = cache.values_offset == 0;
    queries = 0;
    keys = queries + a.terms * rows * key_stride * 2;
    values = values_are_keys ? keys : keys + key_terms * tile_keys * key_stride * 2;
    scores = values_are_keys ? keys + key_terms * tile_keys * key_stride * 2 : values + value_terms * tile_keys * value_stride * 2;
    if (values_are_keys) value_terms = key_terms, value_stride = key_stride;
    weights = scores + rows * score_stride * 4;
    floats = weights + a.terms * rows * weight_stride * 2;
    integers = floats + (5 * rows + 2 * tile_keys) * 4;
  }
};

// MARK: states

// (m, d) of a chunk into a row's (M, D): what both o are multiplied with before they are added. A state without keys has d = 0 and changes nothing.
MARTLET_DEVICE void fold(float &into_m, float &into_d, float m, float d, float &into_weight, float &weight) {
  into_weight = 1, weight = 0;
  if (d == 0) return;
  if (into_d == 0) {
    into_m = m, into_d = d, into_weight = 0, weight = 1;
    return;
  }
  float greatest = greater(into_m, m);
  into_weight = exp2_exact(into_m - greatest), weight = exp2_exact(m - greatest);
  into_m = greatest;
  into_d = into_d * into_weight + d * weight;
}

// o as `fold` says: a part that counts nothing may hold anything.
MARTLET_DEVICE float folded(float into_o, float into_weight, float o, float weight) {
  if (weight == 0) return into_o;
  if (into_weight == 0 && weight == 1) return o;
  return into_o * into_weight + o * weight;
}

// What a row's o is multiplied with in the end, and its log-sum-exp. The sink is counted here, once. Of a row without keys the factor is 0.
MARTLET_DEVICE float finish_row(const martlet_cuda_attend_arguments &a, int32_t index, float m, float d, float &log_sum_exp) {
  float weight = 1;
  bool is_empty = d == 0;
  if (a.sinks) {
    float sink = (float)((double)global<const float>(a.sinks)[index % a.heads] * 1.4426950408889634);
    if (is_empty) {
      m = sink, d = sink > -infinity() ? 1.0f : 0.0f;
    } else {
      float greatest = greater(m, sink);
      weight = exp2_exact(m - greatest);
      d = d * weight + exp2_exact(sink - greatest);
      m = greatest;
    }
  }
  log_sum_exp = d == 0 ? -infinity() : m + log2_exact(d);
  return is_empty ? 0.0f : weight / d * (a.cache.type == martlet_cuda_kv_e4m3 ? a.cache.value_scale : 1.0f);
}

MARTLET_DEVICE void write_output(const martlet_cuda_attend_arguments &a, int32_t index, int32_t dim, float o, float factor) {
  int64_t at = (int64_t)index * a.cache.value_head_dim + dim;
  float x = factor == 0 ? 0.0f : o * factor;
  if (a.output_is_e4m3) global<uint8_t>(a.output)[at] = e4m3_of_float(x * a.output_scale);
  else global<float>(a.output)[at] = x;
}

// What a row is called outside a task: token · heads + head.
MARTLET_DEVICE int32_t row_index(const martlet_cuda_attend_arguments &a, int32_t request, int32_t kv_head, int32_t row) {
  int32_t group = a.heads / a.cache.kv_heads;
  return (global<const int32_t>(a.query_indptr)[request] + row / group) * a.heads + kv_head * group + row % group;
}

// This block's chunk of a merge is in `states`; the last block folds them all and writes the merge's rows, from `first_row` of the request on.
MARTLET_DEVICE void finish_merge(
    const martlet_cuda_attend_arguments &a, int32_t merge_index, int32_t request, int32_t kv_head, int32_t first_row, shared<int32_t> is_last) {
  attention_merge merge = global<const attention_merge>(a.merges)[merge_index];
  global<int32_t> finished(a.finished);
  fence();
  barrier();
  if (thread_index() == 0) is_last[0] = atomic_add(finished, merge_index, 1) == merge.chunk_count - 1;
  barrier();
  int32_t folds = is_last[0];
  barrier();
  if (!folds) return;
  fence();
  global<const float> states(a.states);
  int32_t dims = a.cache.value_head_dim;
  for (int32_t i = thread_index(); i < merge.row_count * dims; i += 256) {
    int32_t row = i / dims, dim = i % dims;
    float m = -infinity(), d = 0, o = 0;
    for (int32_t chunk = 0; chunk < merge.chunk_count; chunk++) {
      int64_t state = ((int64_t)merge.state_row + chunk * merge.row_count + row) * (dims + 2);
      float into_weight, weight;
      fold(m, d, load_fresh(states, state), load_fresh(states, state + 1), into_weight, weight);
      o = folded(o, into_weight, load_fresh(states, state + 2 + dim), weight);
    }
    int32_t index = row_index(a, request, kv_head, first_row + row);
    float log_sum_exp, factor = finish_row(a, index, m, d, log_sum_exp);
    write_output(a, index, dim, o, factor);
    if (dim == 0 && a.log_sum_exp) global<float>(a.log_sum_exp)[index] = log_sum_exp;
  }
  if (thread_index() == 0) finished[merge_index] = 0;
}

// MARK: tiles of keys and values

// Reads what is stored: one plane of the pages of a request.
struct tile_reader {
  const martlet_cuda_attend_arguments &a;
  int32_t request, kv_head, key_count;

  // Bytes from the start of all pages to the page of a key; negative where there is none.
  MARTLET_DEVICE int64_t page_of(int32_t key) const {
    if (key >= key_count) return -1;
    int32_t page = global<const int32_t>(a.cache.page_table)[(int64_t)request * a.cache.table_width + key / a.cache.page_size];
    return page < 0 ? -1 : page * a.cache.page_bytes;
  }

  // Element (key, dim) of a plane that begins at byte `plane_start` of its page, without the scales of int8 and e4m3.
  MARTLET_DEVICE float stored(const martlet_cuda_kv_plane &plane, int64_t plane_start, int32_t key, int32_t dim) const {
    int64_t at = plane_offset(plane, key % a.cache.page_size, kv_head, dim);
    global<const uint8_t> bytes(a.cache.pages);
    switch (a.cache.type) {
      case martlet_cuda_kv_f32: return global<const float>(bytes.address(plane_start))[at];
      case martlet_cuda_kv_f16: return float_of_f16(global<const uint16_t>(bytes.address(plane_start))[at]);
      case martlet_cuda_kv_bf16: return float_of_bf16(global<const uint16_t>(bytes.address(plane_start))[at]);
      case martlet_cuda_kv_e4m3: return float_of_e4m3(bytes[plane_start + at]);
      default: return (float)(int8_t)bytes[plane_start + at];
    }
  }

  // The same of a key that is rotated as it is read.
  MARTLET_DEVICE float rotated(int64_t page, int32_t key, int32_t dim) const {
    float x = stored(a.cache.keys, page, key, dim);
    int32_t i = dim - a.key_rope_first, half = a.key_rope_dim / 2;
    if (i < 0 || i >= a.key_rope_dim) return x;
    int32_t pair = a.key_rope_is_neox ? i % half : i / 2;
    bool is_first = a.key_rope_is_neox ? i < half : i % 2 == 0;
    int32_t distance = a.key_rope_is_neox ? half : 1;
    float other = stored(a.cache.keys, page, key, is_first ? dim + distance : dim - distance);
    int64_t angle = ((int64_t)key * half + pair) * 2;
    global<const float> angles(a.key_rope);
    float first = is_first ? x : other, second = is_first ? other : x;
    rotate_pair(first, second, angles[angle], angles[angle + 1]);
    return is_first ? first : second;
  }

  // Whether 16 bytes of a plane are 8 numbers as they are multiplied.
  MARTLET_DEVICE bool is_direct(const martlet_cuda_kv_plane &plane, int64_t start) const {
    return a.cache.type == martlet_cuda_kv_bf16 && plane.dim_group == 1 && plane.dim_stride == 1 && plane.token_group == 1 && plane.token_stride % 8 == 0
      && plane.head_stride % 8 == 0 && a.cache.page_bytes % 16 == 0 && start % 16 == 0 && a.cache.pages % 16 == 0;
  }

  // The tile from key `first` on to shared memory: `terms` planes of 64 tokens, zeros where there is no token or dim. The copy may be under way.
  MARTLET_DEVICE void load(bool of_keys, int32_t first, int32_t memory, int32_t terms, int32_t stride) const {
    const martlet_cuda_kv_plane &plane = of_keys ? a.cache.keys : a.cache.values;
    int64_t start = of_keys ? 0 : a.cache.values_offset;
    int32_t dims = of_keys ? a.cache.head_dim : a.cache.value_head_dim, padded = stride - 8;
    bool rotates = of_keys && a.key_rope;
    shared<uint16_t> tile(memory, terms * tile_keys * stride);
    if (is_direct(plane, start) && !rotates) {
      for (int32_t i = thread_index(); i < tile_keys * (padded / 8); i += 256) {
        int32_t token = i / (padded / 8), dim = i % (padded / 8) * 8, key = first + token;
        int64_t page = page_of(key);
        bool reads = page >= 0 && dim < dims;
        int64_t byte = reads ? page + start + plane_offset(plane, key % a.cache.page_size, kv_head, dim) * 2 : 0;
        copy_async_16(tile, token * stride + dim, global<const uint8_t>(a.cache.pages), byte, reads);
      }
      return;
    }
    for (int32_t i = thread_index(); i < tile_keys * padded; i += 256) {
      int32_t token = i / padded, dim = i % padded, key = first + token;
      int64_t page = page_of(key);
      float x = 0;
      if (page >= 0 && dim < dims) x = rotates ? rotated(page, key, dim) : stored(plane, page + start, key, dim);
      uint16_t split[martlet_cuda_most_terms];
      split_to_terms(x, split);
      MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
        if (term < terms) tile[(term * tile_keys + token) * stride + dim] = split[term];
    }
  }

  // The scales of a tile's tokens in int8.
  MARTLET_DEVICE void load_scales(int32_t first, shared<float> key_scales, shared<float> value_scales) const {
    if (a.cache.type != martlet_cuda_kv_i8 || thread_index() >= tile_keys) return;
    int32_t token = thread_index(), key = first + token;
    int64_t page = page_of(key), at = kv_head * a.cache.scale_head_stride + key % a.cache.page_size * a.cache.scale_token_stride;
    global<const uint8_t> bytes(a.cache.pages);
    key_scales[token] = page < 0 ? 0.0f : global<const float>(bytes.address(page + a.cache.key_scales_offset))[at];
    value_scales[token] = page < 0 ? 0.0f : global<const float>(bytes.address(page + a.cache.value_scales_offset))[at];
  }
};

// MARK: rows

template <int row_tiles, int value_tiles>
struct attention_block {
  static constexpr int rows = 16 * row_tiles;

  const martlet_cuda_attend_arguments &a;
  const attention_task task;
  const attention_memory memory;
  const tile_reader reader;
  const int32_t warp, lane;
  shared<float> m, d, factors, all_m, all_d;        // of rows: of the chunk, of what is shrunk, of all chunks
  shared<float> key_scales, value_scales;           // of the tile's tokens, int8
  shared<int32_t> indices, firsts, ends, queries;   // of rows: what it is called, the keys that it sees, its query in the request
  shared<int32_t> flag;
  float o[row_tiles][value_tiles][4], all_o[row_tiles][value_tiles][4];  // of this lane: rows L/4 (+ 8), dims 8·(warp + 8·tile) + 2·(L%4) (+ 1)

  MARTLET_DEVICE attention_block(const martlet_cuda_attend_arguments &arguments, const attention_task &its_task)
      : a(arguments), task(its_task), memory(arguments, rows),
        reader{arguments, its_task.request, its_task.kv_head, global<const int32_t>(arguments.kv_lens)[its_task.request]},
        warp(thread_index() / 32), lane(thread_index() % 32),
        m(memory.floats, rows), d(memory.floats + 4 * rows, rows), factors(memory.floats + 8 * rows, rows), all_m(memory.floats + 12 * rows, rows),
        all_d(memory.floats + 16 * rows, rows), key_scales(memory.floats + 20 * rows, tile_keys),
        value_scales(memory.floats + 20 * rows + 4 * tile_keys, tile_keys), indices(memory.integers, rows), firsts(memory.integers + 4 * rows, rows),
        ends(memory.integers + 8 * rows, rows), queries(memory.integers + 12 * rows, rows), flag(memory.integers + 16 * rows, 1) {}

  // The row of a request that is row `row` of the task.
  MARTLET_DEVICE void find_row(int32_t row, int32_t &request, int32_t &request_row) const {
    request = task.request, request_row = task.first_row + row;
    if (task.merge != martlet_cuda_cascade) return;
    global<const attention_segment> segments(a.segments);
    for (int32_t i = task.first_row; i < task.first_row + task.state_row; i++) {
      attention_segment segment = segments[i];
      if (row < segment.row_count) {
        request = segment.request, request_row = segment.first_row + row;
        return;
      }
      row -= segment.row_count;
    }
  }

  MARTLET_DEVICE bool has_bits() const {
    return a.mask_offsets && task.merge != martlet_cuda_cascade && global<const int32_t>(a.mask_offsets)[task.request] >= 0;
  }

  // Rows first_row … of the task: who they are, what they see; those behind the last see nothing.
  MARTLET_DEVICE void prepare_rows(int32_t first_row, int32_t count) const {
    int32_t row = thread_index();
    if (row >= rows) return;
    indices[row] = -1;
    firsts[row] = 0;
    ends[row] = 0;
    queries[row] = 0;
    all_m[row] = -infinity();
    all_d[row] = 0;
    if (row >= count) return;
    int32_t request, request_row;
    find_row(first_row + row, request, request_row);
    global<const int32_t> indptr(a.query_indptr);
    int32_t key_count = global<const int32_t>(a.kv_lens)[request], token = request_row / (a.heads / a.cache.kv_heads);
    int32_t position = key_count - (indptr[request + 1] - indptr[request]) + token;
    bool bits = has_bits();
    int32_t first = a.window > 0 && !bits ? position - a.window + 1 : 0, end = a.causal && !bits ? position + 1 : key_count;
    // A window on both sides; the difference does not overflow where the sum could.
    if (!a.causal && a.window > 0 && !bits && key_count - position > a.window) end = position + a.window;
    indices[row] = row_index(a, request, task.kv_head, request_row);
    firsts[row] = first > 0 ? first : 0;
    ends[row] = end > 0 ? end : 0;
    queries[row] = token;
  }

  // The rows' queries as terms of bfloat16; zeros for rows and dims that are none. `indices` are there.
  MARTLET_DEVICE void load_queries() const {
    int32_t stride = memory.key_stride, padded = stride - 8, dims = a.cache.head_dim;
    shared<uint16_t> terms(memory.queries, a.terms * rows * stride);
    global<const float> from(a.queries);
    for (int32_t i = thread_index(); i < rows * padded; i += 256) {
      int32_t row = i / padded, dim = i % padded, index = indices[row];
      float x = index >= 0 && dim < dims ? from[(int64_t)index * dims + dim] : 0.0f;
      if (a.rounds_queries_to_e4m3) x = float_of_e4m3(e4m3_of_float(x));
      uint16_t split[martlet_cuda_most_terms];
      split_to_terms(x, split);
      MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
        if (term < a.terms) terms[(term * rows + row) * stride + dim] = split[term];
    }
  }

  // MARK: a tile

  // This warp's 8 keys times all rows, to `scores`.
  MARTLET_DEVICE void multiply_keys(int32_t count) const {
    int32_t stride = memory.key_stride, padded = stride - 8;
    shared<uint16_t> queries_of(memory.queries, a.terms * rows * stride), keys(memory.keys, memory.key_terms * tile_keys * stride);
    shared<float> scores(memory.scores, rows * score_stride);
    float sums[row_tiles][4] = {};
    for (int32_t dim = 0; dim < padded; dim += 32) {
      uint32_t key[martlet_cuda_most_terms][4];
      // Four matrices of 8 keys and 8 dims; beyond the last dim any that is there, which is not used.
      int32_t key_dim = dim + lane / 8 * 8;
      MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
        if (term < memory.key_terms)
          load_matrices(key[term], keys, (term * tile_keys + warp * 8 + lane % 8) * stride + (key_dim < padded ? key_dim : 0));
      MARTLET_UNROLL for (int half = 0; half < 2; half++) {
        if (dim + 16 * half >= padded) break;
        MARTLET_UNROLL for (int tile = 0; tile < row_tiles; tile++) {
          if (tile * 16 >= count) break;
          uint32_t query[martlet_cuda_most_terms][4];
          MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
            if (term < a.terms)
              load_matrices(query[term], queries_of, (term * rows + tile * 16 + lane % 16) * stride + dim + 16 * half + lane / 16 * 8);
          MARTLET_UNROLL for (int i = 0; i < martlet_cuda_most_terms; i++)
            MARTLET_UNROLL for (int j = 0; i + j < martlet_cuda_most_terms; j++)
              if (i < memory.key_terms && i + j < a.terms) multiply_bf16(sums[tile], query[j], key[i][2 * half], key[i][2 * half + 1]);
        }
      }
    }
    MARTLET_UNROLL for (int tile = 0; tile < row_tiles; tile++)
      MARTLET_UNROLL for (int e = 0; e < 4; e++)
        scores[(tile * 16 + lane / 4 + e / 2 * 8) * score_stride + warp * 8 + lane % 4 * 2 + e % 2] = sums[tile][e];
  }

  // Scores become weights; 16 threads to a row, 4 keys to a thread.
  MARTLET_DEVICE void weigh(int32_t first_key, int32_t count) const {
    float scale = a.cache.type == martlet_cuda_kv_e4m3 ? a.scale * a.cache.key_scale : a.scale;
    scale = a.soft_cap > 0 ? scale / a.soft_cap : (float)((double)scale * 1.4426950408889634);
    float cap = (float)((double)a.soft_cap * 1.4426950408889634);
    bool has_scales = a.cache.type == martlet_cuda_kv_i8, bits = has_bits();
    global<const uint32_t> words(a.mask_words);
    int64_t first_word = bits ? global<const int32_t>(a.mask_offsets)[task.request] : 0;
    int32_t query_words = (reader.key_count + 63) / 64 * 2;
    shared<float> scores(memory.scores, rows * score_stride);
    shared<uint16_t> weights(memory.weights, a.terms * rows * weight_stride);
    int32_t column = thread_index() % 16 * 4;
    for (int32_t row = thread_index() / 16; row < rows && row / 16 * 16 < count; row += 16) {
      int32_t first = firsts[row], end = ends[row];
      float t[4], greatest = -infinity();
      MARTLET_UNROLL for (int i = 0; i < 4; i++) {
        int32_t key = first_key + column + i;
        bool is_seen = key >= first && key < end;
        if (is_seen && bits) is_seen = words[first_word + (int64_t)queries[row] * query_words + key / 32] >> key % 32 & 1u;
        float x = scores[row * score_stride + column + i] * scale;
        if (has_scales) x *= key_scales[column + i];
        if (a.soft_cap > 0) x = tanh_exact(x) * cap;
        t[i] = is_seen ? x : -infinity();
        greatest = greater(greatest, t[i]);
      }
      MARTLET_UNROLL for (int lanes = 8; lanes > 0; lanes /= 2) greatest = greater(greatest, shuffle_xor(greatest, lanes));
      float before = m[row], sum_before = d[row], factor = 1, sum = 0, p[4] = {0, 0, 0, 0};
      bool sees = greatest > -infinity();
      greatest = greater(greatest, before);
      if (sees) {
        factor = before > -infinity() ? exp2_fast(before - greatest) : 0.0f;
        MARTLET_UNROLL for (int i = 0; i < 4; i++) p[i] = exp2_fast(t[i] - greatest);
      }
      sum = (p[0] + p[1]) + (p[2] + p[3]);
      MARTLET_UNROLL for (int lanes = 8; lanes > 0; lanes /= 2) sum += shuffle_xor(sum, lanes);
      warp_barrier();  // all have read m and d
      if (column == 0) {
        factors[row] = factor;
        m[row] = greatest;
        d[row] = sees ? sum_before * factor + sum : sum_before;
      }
      MARTLET_UNROLL for (int i = 0; i < 4; i++) {
        uint16_t split[martlet_cuda_most_terms];
        split_to_terms(has_scales && p[i] > 0 ? p[i] * value_scales[column + i] : p[i], split);
        MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
          if (term < a.terms) weights[(term * rows + row) * weight_stride + column + i] = split[term];
      }
    }
  }

  // o = o · factor + weights · values, in this warp's dims.
  MARTLET_DEVICE void multiply_values(int32_t count) {
    int32_t stride = memory.value_stride, tiles = a.cache.value_head_dim / 8;
    shared<uint16_t> values(memory.values, memory.value_terms * tile_keys * stride), weights(memory.weights, a.terms * rows * weight_stride);
    MARTLET_UNROLL for (int tile = 0; tile < row_tiles; tile++) {
      if (tile * 16 >= count) break;
      MARTLET_UNROLL for (int e = 0; e < 4; e++) {
        float factor = factors[tile * 16 + lane / 4 + e / 2 * 8];
        MARTLET_UNROLL for (int n = 0; n < value_tiles; n++) o[tile][n][e] *= factor;
      }
    }
    for (int32_t key = 0; key < tile_keys; key += 16) {
      uint32_t value[value_tiles][martlet_cuda_most_terms][2];
      MARTLET_UNROLL for (int n = 0; n < value_tiles; n += 2) {
        if (warp + 8 * n >= tiles) break;
        // Two matrices of 8 keys for each of two tiles of dims; where there is no second tile, the first once more.
        int32_t second = n + 1 < value_tiles && warp + 8 * (n + 1) < tiles ? n + 1 : n;
        int32_t dim = (warp + 8 * (lane < 16 ? n : second)) * 8;
        MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++) {
          if (term >= memory.value_terms) break;
          uint32_t matrices[4];
          load_matrices_transposed(matrices, values, (term * tile_keys + key + lane % 16) * stride + dim);
          MARTLET_UNROLL for (int i = 0; i < 4; i++)
            if (n + i / 2 < value_tiles) value[n + i / 2][term][i % 2] = matrices[i];
        }
      }
      MARTLET_UNROLL for (int tile = 0; tile < row_tiles; tile++) {
        if (tile * 16 >= count) break;
        uint32_t weight[martlet_cuda_most_terms][4];
        MARTLET_UNROLL for (int term = 0; term < martlet_cuda_most_terms; term++)
          if (term < a.terms) load_matrices(weight[term], weights, (term * rows + tile * 16 + lane % 16) * weight_stride + key + lane / 16 * 8);
        MARTLET_UNROLL for (int n = 0; n < value_tiles; n++) {
          if (warp + 8 * n >= tiles) break;
          MARTLET_UNROLL for (int i = 0; i < martlet_cuda_most_terms; i++)
            MARTLET_UNROLL for (int j = 0; i + j < martlet_cuda_most_terms; j++)
              if (i < memory.value_terms && i + j < a.terms) multiply_bf16(o[tile][n], weight[j], value[n][i][0], value[n][i][1]);
        }
      }
    }
  }

  // MARK: a chunk's end

  // Does something with every element of o that this lane has: body(row tile, n, e, row, dim).
  template <typename Body>
  MARTLET_DEVICE void for_elements(int32_t count, Body body) {
    int32_t tiles = a.cache.value_head_dim / 8;
    MARTLET_UNROLL for (int tile = 0; tile < row_tiles; tile++)
      MARTLET_UNROLL for (int n = 0; n < value_tiles; n++)
        MARTLET_UNROLL for (int e = 0; e < 4; e++) {
          int32_t row = tile * 16 + lane / 4 + e / 2 * 8;
          if (row < count && warp + 8 * n < tiles) body(tile, n, e, row, (warp + 8 * n) * 8 + lane % 4 * 2 + e % 2);
        }
  }

  MARTLET_DEVICE void begin_chunk() {
    if (thread_index() < rows) {
      m[thread_index()] = -infinity();
      d[thread_index()] = 0;
    }
    MARTLET_UNROLL for (int tile = 0; tile < row_tiles; tile++)
      MARTLET_UNROLL for (int n = 0; n < value_tiles; n++)
        MARTLET_UNROLL for (int e = 0; e < 4; e++) o[tile][n][e] = 0;
  }

  // The chunk's states into those of all chunks.
  MARTLET_DEVICE void fold_chunk(int32_t count) {
    for_elements(count, [&](int tile, int n, int e, int32_t row, int32_t) {
      float into_m = all_m[row], into_d = all_d[row], into_weight, weight;
      fold(into_m, into_d, m[row], d[row], into_weight, weight);
      all_o[tile][n][e] = folded(all_o[tile][n][e], into_weight, o[tile][n][e], weight);
    });
    barrier();
    if (thread_index() < rows) {
      int32_t row = thread_index();
      float into_m = all_m[row], into_d = all_d[row], into_weight, weight;
      fold(into_m, into_d, m[row], d[row], into_weight, weight);
      all_m[row] = into_m;
      all_d[row] = into_d;
    }
    barrier();
  }

  // Rows' chunk states to where their merge finds them; row `first_row` of the task is row 0.
  MARTLET_DEVICE void store_states(int32_t first_row, int32_t count) {
    global<float> states(a.states);
    global<const attention_segment> segments(a.segments);
    int32_t width = a.cache.value_head_dim + 2;
    auto state_of = [&](int32_t row) {
      row += first_row;
      if (task.merge != martlet_cuda_cascade) return (int64_t)(task.state_row + row) * width;
      int32_t i = task.first_row;
      while (row >= segments[i].row_count) row -= segments[i++].row_count;
      return (int64_t)(segments[i].state_row + row) * width;
    };
    for_elements(count, [&](int tile, int n, int e, int32_t row, int32_t dim) { states[state_of(row) + 2 + dim] = o[tile][n][e]; });
    if (thread_index() < count) {
      states[state_of(thread_index())] = m[thread_index()];
      states[state_of(thread_index()) + 1] = d[thread_index()];
    }
  }

  MARTLET_DEVICE void write_rows(int32_t count) {
    for_elements(count, [&](int tile, int n, int e, int32_t row, int32_t dim) {
      float log_sum_exp, factor = finish_row(a, indices[row], all_m[row], all_d[row], log_sum_exp);
      write_output(a, indices[row], dim, all_o[tile][n][e], factor);
      if (dim == 0 && a.log_sum_exp) global<float>(a.log_sum_exp)[indices[row]] = log_sum_exp;
    });
  }

  // MARK: all of it

  // Rows first_row … of the task, `count` of them, against its chunks.
  MARTLET_DEVICE void attend_rows(int32_t first_row, int32_t count) {
    prepare_rows(first_row, count);
    barrier();
    load_queries();
    // The tiles that any row sees: what lies before and behind them is left out.
    int32_t first_seen = 0x7FFFFFFF, end_seen = 0;
    for (int32_t row = 0; row < count; row++) {
      int32_t first = firsts[row], end = ends[row];
      if (first < end && first < first_seen) first_seen = first;
      if (first < end && end > end_seen) end_seen = end;
    }
    int32_t tile = task.first_chunk * (martlet_cuda_chunk_size / tile_keys), end = task.end_chunk * (martlet_cuda_chunk_size / tile_keys);
    if (first_seen / tile_keys > tile) tile = first_seen / tile_keys;
    if ((end_seen + tile_keys - 1) / tile_keys < end) end = (end_seen + tile_keys - 1) / tile_keys;
    bool values_are_keys = a.cache.values_offset == 0;

    MARTLET_UNROLL for (int t = 0; t < row_tiles; t++)
      MARTLET_UNROLL for (int n = 0; n < value_tiles; n++)
        MARTLET_UNROLL for (int e = 0; e < 4; e++) all_o[t][n][e] = 0;
    begin_chunk();
    if (tile < end) reader.load(true, tile * tile_keys, memory.keys, memory.key_terms, memory.key_stride);
    commit_copies();
    for (; tile < end; tile++) {
      if (!values_are_keys) reader.load(false, tile * tile_keys, memory.values, memory.value_terms, memory.value_stride);
      commit_copies();
      reader.load_scales(tile * tile_keys, key_scales, value_scales);
      wait_copies<1>();
      barrier();  // keys are there, and queries, and states
      multiply_keys(count);
      barrier();  // scores are there, and nobody reads keys
      bool loads_next = tile + 1 < end;
      if (loads_next && !values_are_keys) reader.load(true, (tile + 1) * tile_keys, memory.keys, memory.key_terms, memory.key_stride);
      commit_copies();
      weigh(tile * tile_keys, count);
      wait_copies<1>();
      barrier();  // weights and values are there
      multiply_values(count);
      barrier();  // nobody reads values, weights, factors
      if (loads_next && values_are_keys) {
        reader.load(true, (tile + 1) * tile_keys, memory.keys, memory.key_terms, memory.key_stride);
        commit_copies();
      }
      bool ends_chunk = !loads_next || (tile + 1) % (martlet_cuda_chunk_size / tile_keys) == 0;
      if (ends_chunk && task.merge == -1) {
        fold_chunk(count);
        begin_chunk();
      }
    }
    wait_copies<0>();
    barrier();
    if (task.merge == -1) write_rows(count);
    else store_states(first_row, count);
    barrier();
  }

  MARTLET_DEVICE void run() {
    for (int32_t row = 0; row < task.row_count; row += rows) attend_rows(row, task.row_count - row < rows ? task.row_count - row : rows);
    if (task.merge >= 0) {
      finish_merge(a, task.merge, task.request, task.kv_head, task.first_row, flag);
    } else if (task.merge == martlet_cuda_cascade) {
      global<const attention_segment> segments(a.segments);
      for (int32_t i = task.first_row; i < task.first_row + task.state_row; i++)
        finish_merge(a, segments[i].merge, segments[i].request, task.kv_head, segments[i].first_row, flag);
    }
  }
};

#define MARTLET_ATTEND_KERNEL(rows, dims)                                                                                 \
  MARTLET_KERNEL(attend_##rows##_##dims, 256)(const martlet_cuda_attend_arguments a) {                                    \
    attention_block<rows / 16, dims / 64>(a, global<const attention_task>(a.tasks)[block_x()]).run();                     \
  }
MARTLET_ATTEND_KERNEL(16, 64)
MARTLET_ATTEND_KERNEL(16, 128)
MARTLET_ATTEND_KERNEL(16, 256)
MARTLET_ATTEND_KERNEL(16, 576)
MARTLET_ATTEND_KERNEL(64, 64)
MARTLET_ATTEND_KERNEL(64, 128)
MARTLET_ATTEND_KERNEL(64, 256)
