// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// MARK: pages

// A cache's layout as KVLayout makes it, and pages in an order of their own.
enum PageOrder { nhd, hnd, packed, latent };
const char *const page_orders[] = {"NHD", "HND", "packed", "latent"};
const char *const kv_names[] = {"f32", "f16", "bf16", "e4m3", "i8"};

int kv_bytes(int type) { return type == martlet_cuda_kv_f32 ? 4 : type <= martlet_cuda_kv_bf16 ? 2 : 1; }

martlet_cuda_paged_kv make_layout(int type, PageOrder order, int page_size, int kv_heads, int head_dim, int value_dim) {
  martlet_cuda_paged_kv c = {};
  c.type = type, c.page_size = page_size, c.kv_heads = kv_heads, c.head_dim = head_dim, c.value_head_dim = value_dim;
  c.key_scale = 1, c.value_scale = 1;
  if (type == martlet_cuda_kv_e4m3) c.key_scale = 0.5f, c.value_scale = 0.25f;
  auto plane = [&](int dims) {
    martlet_cuda_kv_plane p = {};
    p.token_group = p.dim_group = 1;
    if (order == nhd) p.head_stride = dims, p.token_stride = kv_heads * dims, p.dim_stride = 1;
    else p.head_stride = page_size * dims, p.token_stride = dims, p.dim_stride = 1;
    return p;
  };
  c.keys = plane(head_dim), c.values = plane(value_dim);
  if (order == packed) {
    int g = 4 / kv_bytes(type);
    c.keys.token_stride = g, c.keys.dim_stride = page_size * g, c.keys.dim_group = g;
    c.values.token_stride = value_dim * g, c.values.dim_stride = g, c.values.token_group = g;
  }
  if (order == latent) c.values = c.keys, c.value_scale = c.key_scale;
  c.values_offset = order == latent ? 0 : (int64_t)page_size * kv_heads * head_dim * kv_bytes(type);
  c.page_bytes = (int64_t)page_size * kv_heads * (head_dim + (order == latent ? 0 : value_dim)) * kv_bytes(type);
  if (type == martlet_cuda_kv_i8) {
    c.key_scales_offset = (c.page_bytes + 3) / 4 * 4;
    c.value_scales_offset = c.key_scales_offset + (order == latent ? 0 : 4 * page_size * kv_heads);
    c.scale_head_stride = page_size, c.scale_token_stride = 1;
    c.page_bytes = c.value_scales_offset + 4 * page_size * kv_heads;
  }
  return c;
}

// Pages of several requests, shuffled, as a host reads them.
struct Pages {
  martlet_cuda_paged_kv layout;
  std::vector<int32_t> table;  // [requests, width]
  std::vector<uint8_t> bytes;

  Pages(const martlet_cuda_paged_kv &of, const std::vector<int> &lengths) : layout(of) {
    int width = 1, total = 0;
    for (int length : lengths) {
      int pages = (length + of.page_size - 1) / of.page_size;
      width = pages > width ? pages : width, total += pages;
    }
    std::vector<int32_t> ids((size_t)total + 1);
    for (size_t i = 0; i < ids.size(); i++) ids[i] = (int32_t)i;
    for (size_t i = ids.size(); i > 1; i--) std::swap(ids[i - 1], ids[(size_t)random_below((int)i)]);
    layout.table_width = width + 1;
    table.assign(lengths.size() * (size_t)layout.table_width, -1);
    size_t next = 0;
    for (size_t r = 0; r < lengths.size(); r++)
      for (int p = 0; p < (lengths[r] + of.page_size - 1) / of.page_size; p++) table[r * (size_t)layout.table_width + (size_t)p] = ids[next++];
    bytes.assign(ids.size() * (size_t)of.page_bytes, 0xFF);
  }

  int64_t page(int request, int key) const { return table[(size_t)(request * layout.table_width + key / layout.page_size)] * layout.page_bytes; }
  int64_t place(const martlet_cuda_kv_plane &plane, int key, int head, int dim) const {
    int token = key % layout.page_size;
    return head * plane.head_stride + token / plane.token_group * plane.token_stride + token % plane.token_group + dim / plane.dim_group * plane.dim_stride
      + dim % plane.dim_group;
  }
  // Byte of an element, and of the scale of its token and head.
  int64_t at(bool of_keys, int request, int key, int head, int dim) const {
    return page(request, key) + (of_keys ? 0 : layout.values_offset) + place(of_keys ? layout.keys : layout.values, key, head, dim) * kv_bytes(layout.type);
  }
  int64_t scale_at(bool of_keys, int request, int key, int head) const {
    return page(request, key) + (of_keys ? layout.key_scales_offset : layout.value_scales_offset)
      + 4 * (head * layout.scale_head_stride + key % layout.page_size * layout.scale_token_stride);
  }
  // What is stored means.
  double value(bool of_keys, int request, int key, int head, int dim) const {
    const uint8_t *p = bytes.data() + at(of_keys, request, key, head, dim);
    uint16_t half;
    float number;
    switch (layout.type) {
      case martlet_cuda_kv_f32: std::memcpy(&number, p, 4); return number;
      case martlet_cuda_kv_f16: std::memcpy(&half, p, 2); return half_value(half);
      case martlet_cuda_kv_bf16: std::memcpy(&half, p, 2); return bf16_value(half);
      case martlet_cuda_kv_e4m3: return e4m3_value(*p) * (double)(of_keys ? layout.key_scale : layout.value_scale);
      default: std::memcpy(&number, bytes.data() + scale_at(of_keys, request, key, head), 4); return (double)(int8_t)*p * number;
    }
  }
};

// Steps between neighbours of a format at x, and what is stored at the most.
double kv_error(int type, double x, double greatest_of_head) {
  switch (type) {
    case martlet_cuda_kv_f32: return std::fabs(x) * 1e-6 + 1e-7;
    case martlet_cuda_kv_f16: return std::fabs(x) * 0x1p-11 + 1e-6;
    case martlet_cuda_kv_bf16: return std::fabs(x) * 0x1.01p-8 + 1e-6;
    case martlet_cuda_kv_e4m3: return std::fabs(x) * 0x1.01p-4 + 0x1p-10;
    default: return greatest_of_head / 254 * 1.01 + 1e-6;
  }
}

// MARK: append

void check_append_of(int type, PageOrder order, int page_size, int kv_heads, int head_dim, int value_dim, bool has_norm, bool neox, bool has_axes, uint64_t seed) {
  Device device(seed);
  random_state = (uint64_t)(type * 100 + (int)order * 10 + head_dim);
  std::string what = std::string("append ") + kv_names[type] + " " + page_orders[order] + " " + std::to_string(page_size) + " of " + std::to_string(head_dim);
  int heads = 2 * kv_heads, tokens = 0;
  // (cached, new) of each request; the second is a dummy.
  const int cached[] = {3, 0, 0, 17}, fresh[] = {7, 1, 1, 20};
  std::vector<int> lengths;
  std::vector<int32_t> indptr = {0}, kv_lens, requests, positions;
  for (int r = 0; r < 4; r++) {
    bool is_dummy = r == 1;
    lengths.push_back(is_dummy ? 0 : cached[r] + fresh[r]);
    kv_lens.push_back(lengths.back());
    for (int i = 0; i < fresh[r]; i++) requests.push_back(r), positions.push_back(cached[r] + i);
    tokens += fresh[r];
    indptr.push_back(tokens);
  }
  Pages pages(make_layout(type, order, page_size, kv_heads, head_dim, value_dim), lengths);
  int rope_dim = head_dim / 4 * 2, rope_first = head_dim / 8 * 2, row = heads * head_dim + kv_heads * (head_dim + value_dim) + 3;
  std::vector<float> x = random_floats((size_t)(tokens * row), 2), rope, query_norm = random_floats((size_t)head_dim), key_norm = random_floats((size_t)head_dim);
  for (int p = 0; p < 80; p++)
    for (int i = 0; i < rope_dim / 2; i++) rope.push_back(std::cos((float)p * 0.3f / (float)(i + 1))), rope.push_back(std::sin((float)p * 0.3f / (float)(i + 1)));
  // A position for each of three axes; one row is used without axes.
  std::vector<int32_t> axes, ids((size_t)(3 * (tokens + 2)));
  for (int i = 0; i < rope_dim / 2; i++) axes.push_back(i % 3);
  for (int axis = 0; axis < 3; axis++)
    for (int t = 0; t < tokens; t++) ids[(size_t)(axis * (tokens + 2) + t)] = positions[(size_t)t] + axis;
  if (type == martlet_cuda_kv_i8)
    for (int i = 0; i < head_dim; i++) x[(size_t)(2 * row + heads * head_dim + i)] = 0;  // a head of zeros

  martlet_cuda_append_arguments a = {};
  uint64_t input = device.make(x);
  a.cache = pages.layout;
  a.cache.pages = device.make(pages.bytes), a.cache.page_table = device.make(pages.table);
  a.query = input, a.key = input + 4 * (uint64_t)(heads * head_dim);
  a.value = order == latent ? 0 : a.key + 4 * (uint64_t)(kv_heads * head_dim);
  a.query_stride = a.key_stride = a.value_stride = row;
  a.queries = device.room((size_t)(tokens * heads * head_dim) * 4);
  a.rope = device.make(rope);
  if (has_norm) a.query_norm = device.make(query_norm), a.key_norm = device.make(key_norm), a.query_epsilon = 1e-5f, a.key_epsilon = 1e-4f;
  a.query_indptr = device.make(indptr), a.kv_lens = device.make(kv_lens), a.token_requests = device.make(requests);
  a.token_positions = device.make(positions), a.position_ids = device.make(ids);
  if (has_axes) a.rope_axes = device.make(axes), a.axis_columns = tokens + 2;
  a.tokens = tokens, a.heads = heads, a.rope_dim = rope_dim, a.rope_first = rope_first, a.rope_is_neox = neox, a.rotates_keys = true;
  device.run(martlet_cuda_launch_append(&a), a);
  pages.bytes = device.read<uint8_t>(a.cache.pages, pages.bytes.size());
  std::vector<float> queries = device.read<float>(a.queries, (size_t)(tokens * heads * head_dim));

  auto finished = [&](int token, int from, const std::vector<float> &norm, double epsilon) {
    std::vector<double> y((size_t)head_dim);
    double squares = 0;
    for (int i = 0; i < head_dim; i++) y[(size_t)i] = x[(size_t)(token * row + from + i)], squares += y[(size_t)i] * y[(size_t)i];
    if (has_norm)
      for (int i = 0; i < head_dim; i++) y[(size_t)i] *= norm[(size_t)i] / std::sqrt(squares / head_dim + epsilon);
    for (int i = 0; i < rope_dim / 2; i++) {
      int position = ids[(size_t)((has_axes ? axes[(size_t)i] : 0) * (tokens + 2) + token)];
      size_t first = (size_t)(rope_first + (neox ? i : 2 * i)), second = (size_t)(rope_first + (neox ? i + rope_dim / 2 : 2 * i + 1));
      double c = rope[(size_t)(position * rope_dim + 2 * i)], s = rope[(size_t)(position * rope_dim + 2 * i + 1)], p = y[first], q = y[second];
      y[first] = p * c - q * s, y[second] = q * c + p * s;
    }
    return y;
  };
  auto greatest_of = [](const std::vector<double> &y) {
    double greatest = 0;
    for (double value : y) greatest = std::fmax(greatest, std::fabs(value));
    return greatest;
  };
  std::vector<float> got;
  std::vector<double> expected, scales;
  bool has_zero_codes = true;  // of heads that are 0, whose scale hides what their codes are
  for (int t = 0; t < tokens; t++) {
    if (kv_lens[(size_t)requests[(size_t)t]] == 0) continue;
    for (int h = 0; h < heads; h++) {
      std::vector<double> y = finished(t, h * head_dim, query_norm, 1e-5);
      for (int i = 0; i < head_dim; i++) {
        got.push_back(queries[(size_t)((t * heads + h) * head_dim + i)]), expected.push_back(y[(size_t)i]);
        scales.push_back(greatest_of(y) * 1e-6 + 1e-7);
      }
    }
    for (int h = 0; h < kv_heads; h++) {
      std::vector<double> y = finished(t, heads * head_dim + h * head_dim, key_norm, 1e-4), v;
      if (order != latent)
        for (int i = 0; i < value_dim; i++) v.push_back(x[(size_t)(t * row + heads * head_dim + kv_heads * head_dim + h * value_dim + i)]);
      for (bool of_keys : {true, false}) {
        const std::vector<double> &z = of_keys ? y : v;
        for (int i = 0; i < (int)z.size(); i++) {
          got.push_back((float)pages.value(of_keys, requests[(size_t)t], positions[(size_t)t], h, i));
          expected.push_back(z[(size_t)i]);
          if (greatest_of(z) == 0) has_zero_codes &= pages.bytes[(size_t)pages.at(of_keys, requests[(size_t)t], positions[(size_t)t], h, i)] == 0;
          scales.push_back(kv_error(type, z[(size_t)i], greatest_of(z)));
        }
      }
    }
  }
  expect_close(what, got, expected, 1, scales);

  // Behind a request's last token its page is zero; where it had tokens before, and in pages of nobody, nothing was written.
  bool is_zero = true, is_untouched = true;
  for (int r = 0; r < 4; r++) {
    int length = lengths[(size_t)r];
    for (int key = length; length > 0 && key % page_size != 0; key++)
      for (int h = 0; h < kv_heads; h++)
        for (bool of_keys : {true, false})
          for (int i = 0; i < (of_keys ? head_dim : order == latent ? 0 : value_dim); i++)
            for (int byte = 0; byte < kv_bytes(type); byte++) is_zero &= pages.bytes[(size_t)(pages.at(of_keys, r, key, h, i) + byte)] == 0;
    for (int key = 0; length > 0 && key < cached[r]; key++)
      for (int i = 0; i < head_dim; i++) is_untouched &= pages.bytes[(size_t)pages.at(true, r, key, 0, i)] == 0xFF;
  }
  comparisons++;
  if (!is_zero || !is_untouched || !has_zero_codes) {
    failures++;
    std::printf("%s: %s  WRONG\n", what.c_str(), !is_zero ? "a page's tail is not zero" : is_untouched ? "a head of zeros has codes" : "old tokens are overwritten");
  }
}

void check_append(uint64_t seed) {
  for (int type = 0; type < 5; type++) {
    check_append_of(type, nhd, 16, 3, 24, 16, true, true, false, seed);
    check_append_of(type, hnd, 8, 2, 72, 40, false, false, true, seed);
    check_append_of(type, packed, 32, 1, 64, 64, true, true, true, seed);
    check_append_of(type, latent, 16, 1, 48, 32, false, false, false, seed);
  }
}
