// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// MARK: attention

struct AttentionTaskRow {
  int32_t request, kv_head, first_row, row_count, first_chunk, end_chunk, merge, state_row;
};
struct AttentionSegmentRow {
  int32_t request, first_row, row_count, merge, state_row, reserved[3];
};
struct AttentionMergeRow {
  int32_t state_row, chunk_count, row_count, reserved;
};

struct AttentionCase {
  const char *name;
  int type;
  PageOrder order;
  int page_size, kv_heads, group, head_dim, value_dim;
  std::vector<int> cached, fresh;
  int window = 0;
  bool causal = true, has_bits = false, has_sinks = false, e4m3_output = false, rounds_queries = false, rotates_keys = false;
  float soft_cap = 0;
  int terms = 2;
};

// How the work is cut into tasks.
enum Cut { whole, split, rows_of_7, cascade };

void check_attention_case(const AttentionCase &c, uint64_t seed) {
  random_state = (uint64_t)(c.type * 1000 + c.head_dim);
  int requests = (int)c.cached.size(), heads = c.kv_heads * c.group, tokens = 0;
  std::vector<int> lengths;
  std::vector<int32_t> indptr = {0}, kv_lens;
  for (int r = 0; r < requests; r++) {
    lengths.push_back(c.cached[(size_t)r] + c.fresh[(size_t)r]), kv_lens.push_back(lengths.back());
    tokens += c.fresh[(size_t)r];
    indptr.push_back(tokens);
  }
  Pages pages(make_layout(c.type, c.order, c.page_size, c.kv_heads, c.head_dim, c.value_dim), lengths);
  const martlet_cuda_paged_kv &layout = pages.layout;
  bool is_latent = c.order == latent;
  // Stored numbers; slots behind the last token stay NaN.
  for (int r = 0; r < requests; r++)
    for (int key = 0; key < lengths[(size_t)r]; key++)
      for (int h = 0; h < c.kv_heads; h++)
        for (bool of_keys : {true, false}) {
          if (!of_keys && is_latent) continue;
          for (int i = 0; i < (of_keys ? c.head_dim : c.value_dim); i++) {
            uint8_t *p = pages.bytes.data() + pages.at(of_keys, r, key, h, i);
            float x = random_float(of_keys ? 1.5f : 1);
            uint16_t half;
            switch (c.type) {
              case martlet_cuda_kv_f32: std::memcpy(p, &x, 4); break;
              case martlet_cuda_kv_f16: half = (uint16_t)(0x3000 + random_below(0x0E00) + (int)(random_bits() & 0x8000)), std::memcpy(p, &half, 2); break;
              case martlet_cuda_kv_bf16: half = (uint16_t)(0x3E00 + random_below(0x01A0) + (int)(random_bits() & 0x8000)), std::memcpy(p, &half, 2); break;
              case martlet_cuda_kv_e4m3: *p = (uint8_t)(0x20 + random_below(0x20) + (int)(random_bits() & 0x80)); break;
              default: *p = (uint8_t)(random_below(255) - 127);
            }
          }
          float scale = (of_keys ? 1.5f : 1) / 127 * (0.5f + (float)random_below(100) / 100);
          if (c.type == martlet_cuda_kv_i8) std::memcpy(pages.bytes.data() + pages.scale_at(of_keys, r, key, h), &scale, 4);
          if (c.type == martlet_cuda_kv_i8 && is_latent) std::memcpy(pages.bytes.data() + pages.scale_at(false, r, key, h), &scale, 4);
        }
  // Pages wholly before every query's window have been returned.
  if (c.window > 0 && c.causal)
    for (int r = 0; r < requests; r++)
      for (int p = 0; (p + 1) * c.page_size <= c.cached[(size_t)r] - c.window + 1; p++) pages.table[(size_t)(r * layout.table_width + p)] |= (int32_t)0x80000000;
  auto page_is_there = [&](int r, int key) { return pages.table[(size_t)(r * layout.table_width + key / c.page_size)] >= 0; };

  std::vector<float> q = random_floats((size_t)(tokens * heads * c.head_dim), c.rounds_queries ? 2 : 1.5f), sinks = random_floats((size_t)heads, 2), rope;
  float scale = 1 / std::sqrt((float)c.head_dim);
  int rope_dim = c.head_dim / 4 * 2, rope_first = c.head_dim - rope_dim, longest = 0;
  for (int length : lengths) longest = length > longest ? length : longest;
  for (int p = 0; p < longest; p++)
    for (int i = 0; i < rope_dim / 2; i++) rope.push_back(std::cos((float)p * 0.3f / (float)(i + 1))), rope.push_back(std::sin((float)p * 0.3f / (float)(i + 1)));
  // Bits of every other request.
  std::vector<uint32_t> words;
  std::vector<int32_t> offsets;
  for (int r = 0; r < requests; r++) {
    int per_query = (lengths[(size_t)r] + 63) / 64 * 2;
    offsets.push_back(c.has_bits && r % 2 == 0 ? (int32_t)words.size() : -1);
    if (offsets.back() < 0) continue;
    for (int t = 0; t < c.fresh[(size_t)r]; t++)
      for (int w = 0; w < per_query; w++) {
        uint32_t bits = 0;
        for (int b = 0; b < 32; b++)
          if (w * 32 + b < lengths[(size_t)r] && t != 1) bits |= (uint32_t)(random_below(3) == 0) << b;  // query 1 sees nothing
        words.push_back(bits);
      }
  }

  // The truth.
  size_t count = (size_t)(tokens * heads * c.value_dim);
  std::vector<double> expected(count), expected_sums((size_t)(tokens * heads)), scales(count);
  for (int r = 0; r < requests; r++)
    for (int t = 0; t < c.fresh[(size_t)r]; t++)
      for (int h = 0; h < heads; h++) {
        int position = c.cached[(size_t)r] + t, index = (indptr[(size_t)r] + t) * heads + h, kv_head = h / c.group;
        std::vector<double> scores;
        std::vector<int> keys;
        for (int key = 0; key < lengths[(size_t)r]; key++) {
          bool sees = true;
          if (offsets[(size_t)r] >= 0) {
            int per_query = (lengths[(size_t)r] + 63) / 64 * 2;
            sees = words[(size_t)(offsets[(size_t)r] + t * per_query + key / 32)] >> key % 32 & 1;
          } else {
            if (c.causal && key > position) sees = false;
            if (c.window > 0 && key <= position - c.window) sees = false;
            if (c.window > 0 && key >= position + c.window) sees = false;
          }
          if (!sees || !page_is_there(r, key)) continue;
          std::vector<double> k((size_t)c.head_dim);
          for (int i = 0; i < c.head_dim; i++) k[(size_t)i] = pages.value(true, r, key, kv_head, i);
          for (int i = 0; c.rotates_keys && i < rope_dim / 2; i++) {
            double cosine = rope[(size_t)(key * rope_dim + 2 * i)], sine = rope[(size_t)(key * rope_dim + 2 * i + 1)];
            double &x = k[(size_t)(rope_first + i)], &y = k[(size_t)(rope_first + rope_dim / 2 + i)], first = x;
            x = first * cosine - y * sine, y = y * cosine + first * sine;
          }
          double score = 0;
          for (int i = 0; i < c.head_dim; i++) {
            double x = q[(size_t)(index * c.head_dim + i)];
            if (c.rounds_queries) {  // to the nearest of e4m3
              double best = 0;
              for (int code = 0; code < 0x7F; code++)
                if (std::fabs(e4m3_value((uint8_t)code) - std::fabs(x)) < std::fabs(best - std::fabs(x))) best = e4m3_value((uint8_t)code);
              x = x < 0 ? -best : best;
            }
            score += x * k[(size_t)i];
          }
          score *= (double)scale;
          if (c.soft_cap > 0) score = c.soft_cap * std::tanh(score / c.soft_cap);
          scores.push_back(score), keys.push_back(key);
        }
        double greatest = c.has_sinks ? sinks[(size_t)h] : -INFINITY, sum = 0, norm = 0;
        for (double score : scores) greatest = std::fmax(greatest, score);
        for (double score : scores) sum += std::exp(score - greatest);
        if (c.has_sinks) sum += std::exp(sinks[(size_t)h] - greatest);
        for (int i = 0; i < c.value_dim; i++) {
          double o = 0;
          for (size_t n = 0; n < keys.size(); n++) o += std::exp(scores[n] - greatest) / sum * pages.value(is_latent, r, keys[n], kv_head, i);
          expected[(size_t)(index * c.value_dim + i)] = o, norm += o * o;
        }
        for (int i = 0; i < c.value_dim; i++) scales[(size_t)(index * c.value_dim + i)] = std::sqrt(norm / c.value_dim) + 1e-30;
        expected_sums[(size_t)index] = sum > 0 ? (greatest + std::log(sum)) / std::log(2.0) : -INFINITY;
      }

  std::vector<float> first_output;
  for (Cut cut : {whole, split, rows_of_7, cascade}) {
    Device device(seed + (uint64_t)cut);
    std::string what = std::string("attention ") + c.name + " " + kv_names[c.type] + " " + page_orders[c.order]
      + (cut == whole ? ", whole" : cut == split ? ", split" : cut == cascade ? ", cascade" : ", few rows");
    std::vector<AttentionTaskRow> tasks;
    std::vector<AttentionSegmentRow> segments;
    std::vector<AttentionMergeRow> merges;
    int states = 0;
    for (int r = 0; r < requests; r++)
      for (int h = 0; h < c.kv_heads; h++) {
        int rows = c.fresh[(size_t)r] * c.group, chunks = (lengths[(size_t)r] + 511) / 512, size = cut == rows_of_7 ? 7 : 90;
        for (int row = 0; row < rows; row += size) {
          int n = rows - row < size ? rows - row : size;
          if (cut == whole || cut == rows_of_7) {
            tasks.push_back({r, h, row, n, 0, chunks, -1, 0});
            continue;
          }
          // Of a cascade two merges, of unequal halves of the rows, whose states of a chunk that every row sees whole come from one task.
          int pieces = cut == cascade && n > 2 ? 2 : 1, first_merge = (int)merges.size();
          const int piece_rows[2] = {pieces == 2 ? n / 3 : n, n - n / 3}, piece_first[2] = {row, row + n / 3};
          for (int piece = 0; piece < pieces; piece++) merges.push_back({states, chunks, piece_rows[piece], 0}), states += chunks * piece_rows[piece];
          for (int chunk = 0; chunk < chunks; chunk++) {
            bool is_seen = c.window == 0 && !c.has_bits && (!c.causal || (chunk + 1) * 512 <= c.cached[(size_t)r]) && (chunk + 1) * 512 <= lengths[(size_t)r];
            bool is_shared = cut == cascade && is_seen;
            if (is_shared) tasks.push_back({r, h, (int32_t)segments.size(), n, chunk, chunk + 1, martlet_cuda_cascade, pieces});
            for (int piece = 0; piece < pieces; piece++) {
              int merge = first_merge + piece, state = merges[(size_t)merge].state_row + chunk * piece_rows[piece];
              if (is_shared) segments.push_back({r, piece_first[piece], piece_rows[piece], merge, state, {}});
              else tasks.push_back({r, h, piece_first[piece], piece_rows[piece], chunk, chunk + 1, merge, state});
            }
          }
        }
      }
    martlet_cuda_attend_arguments a = {};
    a.cache = layout;
    a.cache.pages = device.make(pages.bytes), a.cache.page_table = device.make(pages.table);
    a.queries = device.make(q), a.output = device.room(count * (c.e4m3_output ? 1 : 4)), a.log_sum_exp = device.room((size_t)(tokens * heads) * 4);
    a.query_indptr = device.make(indptr), a.kv_lens = device.make(kv_lens);
    a.tasks = device.make(tasks), a.segments = device.make(segments), a.merges = device.make(merges);
    a.states = device.room((size_t)states * (size_t)(c.value_dim + 2) * 4);
    std::vector<int32_t> zeros(merges.size(), 0);
    a.finished = device.make(zeros);
    if (c.has_bits) a.mask_words = device.make(words), a.mask_offsets = device.make(offsets);
    if (c.has_sinks) a.sinks = device.make(sinks);
    if (c.rotates_keys) a.key_rope = device.make(rope), a.key_rope_dim = rope_dim, a.key_rope_first = rope_first, a.key_rope_is_neox = 1;
    a.task_count = (int32_t)tasks.size(), a.heads = heads, a.window = c.window, a.causal = c.causal;
    a.rounds_queries_to_e4m3 = c.rounds_queries, a.output_is_e4m3 = c.e4m3_output, a.output_scale = c.e4m3_output ? 64 : 1;
    a.terms = c.terms, a.scale = scale, a.soft_cap = c.soft_cap;
    device.run(martlet_cuda_launch_attend(&a, cut == rows_of_7 ? 7 : 90, 227 * 1024), a);

    std::vector<float> output, sums = device.read<float>(a.log_sum_exp, (size_t)(tokens * heads));
    if (c.e4m3_output) {
      for (uint8_t code : device.read<uint8_t>(a.output, count)) output.push_back((float)e4m3_value(code) / 64);
    } else {
      output = device.read<float>(a.output, count);
    }
    if (cut == whole) {
      double tolerance = c.e4m3_output ? 0.3 : c.terms == 3 ? 4e-6 : c.terms == 2 ? 4e-5 : 1e-2;
      expect_close(what, output, expected, tolerance, scales);
      expect_close(what + ", log-sum-exp", sums, expected_sums, c.terms == 1 ? 2e-2 : 1e-5, std::vector<double>(sums.size(), 1));
      first_output = output;
    } else {
      expect_equal(what, output, first_output);
    }
    expect_equal(what + ", counters", device.read<int32_t>(a.finished, zeros.size()), zeros);
  }
}

void check_attention(uint64_t seed) {
  using std::vector;
  auto run = [&](AttentionCase c) {
    if (chosen_case.empty() || chosen_case == c.name) check_attention_case(c, seed);
  };
  // Prompts, chunks of prompts and single tokens together; groups that fill no tile; a key length at a chunk's end.
  AttentionCase base{"causal", martlet_cuda_kv_bf16, hnd, 16, 2, 3, 64, 64, {0, 511, 1030}, {37, 1, 1}};
  run(base);
  base.kv_heads = 1;
  for (int type = 0; type < 5; type++) {
    AttentionCase c = base;
    c.type = type, c.terms = type == martlet_cuda_kv_f32 ? 3 : 2, c.cached = {0, 70}, c.fresh = {9, 2};
    c.name = "types", c.order = nhd, c.kv_heads = 2, c.head_dim = 40, c.value_dim = 24, run(c);
    c.name = "packed", c.order = packed, c.page_size = 32, c.cached = {0, 511}, c.fresh = {3, 2}, run(c);
    c.name = "latent", c.order = latent, c.kv_heads = 1, c.group = 5, c.head_dim = 48, c.value_dim = 32, run(c);
  }
  AttentionCase c = base;
  c.name = "one term", c.terms = 1, c.cached = {70}, c.fresh = {20}, run(c);
  c = base, c.name = "window", c.window = 70, c.has_sinks = true, c.cached = {0, 600}, c.fresh = {90, 3}, run(c);
  c = base, c.name = "full", c.causal = false, c.soft_cap = 5, c.cached = {0, 0}, c.fresh = {70, 3}, run(c);
  c = base, c.name = "around", c.causal = false, c.window = 20, c.cached = {0}, c.fresh = {130}, run(c);
  c = base, c.name = "bits", c.has_bits = true, c.cached = {5, 9, 510}, c.fresh = {30, 3, 4}, run(c);
  c = base, c.name = "e4m3 output", c.e4m3_output = true, c.rounds_queries = true, c.cached = {30}, c.fresh = {9}, run(c);
  c = base, c.name = "deferred rotation", c.rotates_keys = true, c.cached = {30}, c.fresh = {40}, run(c);
  c = base, c.name = "128 dims", c.head_dim = 128, c.value_dim = 128, c.cached = {100}, c.fresh = {20}, run(c);
  c = base, c.name = "256 dims", c.head_dim = 256, c.value_dim = 256, c.kv_heads = 1, c.cached = {60}, c.fresh = {10}, run(c);
  c = base, c.name = "576 dims", c.order = latent, c.head_dim = 576, c.value_dim = 512, c.kv_heads = 1, c.group = 7, c.cached = {60}, c.fresh = {3}, run(c);
}
