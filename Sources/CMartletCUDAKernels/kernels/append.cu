// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// One pass over a step's tokens: head norm and rotation of queries and keys, rounding or quantisation, and the store into pages of any layout.
//
// A warp has one head of one token, query or key with its value. No two warps write the same byte: tokens that share a word of a packed layout are stored
// by their own bytes, and what follows a request's last token is zeroed by the warps of this token.

#include "pages.cuh"

// One query or key head, normalised and rotated, in `row`.
MARTLET_DEVICE void finish_head(
    const martlet_cuda_append_arguments &a, global<const float> x, int64_t from, global<const float> norm, float epsilon, bool rotates, int32_t token,
    shared<float> row) {
  int32_t lane = thread_index() % 32, dims = a.cache.head_dim;
  float scale = 1;
  if (norm) {
    float squares = 0;
    for (int32_t i = lane; i < dims; i += 32) squares = fused(x[from + i], x[from + i], squares);
    scale = 1.0f / square_root(warp_sum(squares) / (float)dims + epsilon);
  }
  for (int32_t i = lane; i < dims; i += 32) row[i] = norm ? x[from + i] * scale * norm[i] : x[from + i];
  if (rotates && a.rope) {
    global<const float> angles(a.rope);
    global<const int32_t> axes(a.rope_axes), positions(a.position_ids);
    int32_t half = a.rope_dim / 2;
    warp_barrier();
    for (int32_t i = lane; i < half; i += 32) {
      int64_t position = positions[axes ? (int64_t)axes[i] * a.axis_columns + token : token];
      int64_t at = (position * half + i) * 2;
      int32_t first = a.rope_first + (a.rope_is_neox ? i : 2 * i), second = first + (a.rope_is_neox ? half : 1);
      float x1 = row[first], x2 = row[second];
      rotate_pair(x1, x2, angles[at], angles[at + 1]);
      row[first] = x1;
      row[second] = x2;
    }
  }
  warp_barrier();
}

// One head of keys or values, `row`, to its place in the page that begins at byte `page`. `inverse` is 1 / scale of e4m3; `scales` is the byte of int8's.
MARTLET_DEVICE void store_head(
    const martlet_cuda_paged_kv &cache, const martlet_cuda_kv_plane &plane, int64_t page, int64_t scales, int32_t slot, int32_t head, int32_t dims,
    float inverse, shared<float> row) {
  int32_t lane = thread_index() % 32;
  global<uint8_t> bytes(cache.pages);
  global<uint16_t> halves(bytes.address(page));
  global<float> floats(bytes.address(page));
  bool is_coded = true;
  if (cache.type == martlet_cuda_kv_i8) {
    // Code = rint(x · (127 / amax)), scale = amax / 127. A head that is 0 has scale 0 (so does one whose 127 / amax would be no number); one with an
    // infinity or a NaN has scale NaN and codes 0. Without their sign, the bits of floats are ordered as integers, infinity and NaN on top.
    uint32_t greatest = 0;
    for (int32_t i = lane; i < dims; i += 32) {
      uint32_t bits = bits_of_float(row[i]) & 0x7FFFFFFFu;
      greatest = bits > greatest ? bits : greatest;
    }
    MARTLET_UNROLL for (int lanes = 16; lanes > 0; lanes /= 2) {
      uint32_t other = shuffle_xor(greatest, lanes);
      greatest = other > greatest ? other : greatest;
    }
    inverse = 127.0f / float_of_bits(greatest);
    is_coded = greatest < 0x7F800000u && inverse < infinity();
    float scale = is_coded ? float_of_bits(greatest) / 127.0f : greatest < 0x7F800000u ? 0.0f : not_a_number();
    if (lane == 0) global<float>(bytes.address(scales))[head * cache.scale_head_stride + slot * cache.scale_token_stride] = scale;
  }
  for (int32_t i = lane; i < dims; i += 32) {
    float x = row[i];
    int64_t at = plane_offset(plane, slot, head, i);
    switch (cache.type) {
      case martlet_cuda_kv_f32: floats[at] = x; break;
      case martlet_cuda_kv_f16: halves[at] = f16_of_float(x); break;
      case martlet_cuda_kv_bf16: halves[at] = bf16_of_float(x); break;
      case martlet_cuda_kv_e4m3: bytes[page + at] = e4m3_of_float(x * inverse); break;
      default: bytes[page + at] = is_coded ? (uint8_t)(bits_of_float(x * inverse + MARTLET_ROUNDER) - 0x4B400000u) : 0;
    }
  }
}

// Zeroes the slots of a page from `first` on, of one head of one plane, and their scales.
MARTLET_DEVICE void zero_slots(
    const martlet_cuda_paged_kv &cache, const martlet_cuda_kv_plane &plane, int64_t page, int64_t scales, int32_t first, int32_t head, int32_t dims) {
  int32_t lane = thread_index() % 32, width = kv_width(cache.type);
  global<uint8_t> bytes(cache.pages);
  for (int32_t slot = first; slot < cache.page_size; slot++) {
    for (int32_t i = lane; i < dims; i += 32) {
      int64_t at = page + plane_offset(plane, slot, head, i) * width;
      if (width == 4) global<uint32_t>(bytes.address(at))[0] = 0;
      else if (width == 2) global<uint16_t>(bytes.address(at))[0] = 0;
      else bytes[at] = 0;
    }
    if (cache.type == martlet_cuda_kv_i8 && lane == 0)
      global<float>(bytes.address(scales))[head * cache.scale_head_stride + slot * cache.scale_token_stride] = 0;
  }
}

MARTLET_KERNEL(append, 256)(const martlet_cuda_append_arguments a) {
  const martlet_cuda_paged_kv &cache = a.cache;
  global<const float> query(a.query), key(a.key), value(a.value), query_norm(a.query_norm), key_norm(a.key_norm);
  int32_t token = block_x(), warp = thread_index() / 32, lane = thread_index() % 32, head = block_y() * 8 + warp, dims = cache.head_dim;
  shared<float> row(warp * martlet_cuda_most_head_dim * 4, martlet_cuda_most_head_dim);
  int32_t request = global<const int32_t>(a.token_requests)[token];
  if (global<const int32_t>(a.kv_lens)[request] == 0) return;

  if (query) {
    if (head < a.heads) {
      finish_head(a, query, token * a.query_stride + (int64_t)head * dims, query_norm, a.query_epsilon, true, token, row);
      global<float> queries(a.queries);
      for (int32_t i = lane; i < dims; i += 32) queries[((int64_t)token * a.heads + head) * dims + i] = row[i];
      return;
    }
    head -= a.heads;
  }
  if (!key || head >= cache.kv_heads) return;

  int32_t position = global<const int32_t>(a.token_positions)[token], slot = position % cache.page_size;
  int64_t entry = (int64_t)request * cache.table_width + position / cache.page_size;
  int64_t page = global<const int32_t>(cache.page_table)[entry] * cache.page_bytes;
  bool is_last = token + 1 == global<const int32_t>(a.query_indptr)[request + 1];
  int64_t key_scales = page + cache.key_scales_offset, values = page + cache.values_offset, value_scales = page + cache.value_scales_offset;
  finish_head(a, key, token * a.key_stride + (int64_t)head * dims, key_norm, a.key_epsilon, a.rotates_keys, token, row);
  store_head(cache, cache.keys, page, key_scales, slot, head, dims, 1.0f / cache.key_scale, row);
  if (is_last) zero_slots(cache, cache.keys, page, key_scales, slot + 1, head, dims);
  if (!value) return;

  warp_barrier();
  int64_t from = token * a.value_stride + (int64_t)head * cache.value_head_dim;
  for (int32_t i = lane; i < cache.value_head_dim; i += 32) row[i] = value[from + i];
  warp_barrier();
  store_head(cache, cache.values, values, value_scales, slot, head, cache.value_head_dim, 1.0f / cache.value_scale, row);
  if (is_last) zero_slots(cache, cache.values, values, value_scales, slot + 1, head, cache.value_head_dim);
}
