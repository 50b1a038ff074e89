// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Where keys and values lie in pages.

#ifndef MARTLET_PAGES_CUH
#define MARTLET_PAGES_CUH

#include "numbers.cuh"

// Elements from the start of a plane to (token, head, dim).
MARTLET_DEVICE int64_t plane_offset(const martlet_cuda_kv_plane &plane, int32_t token, int32_t head, int32_t dim) {
  int64_t offset = head * plane.head_stride;
  offset += plane.token_group == 1 ? token * plane.token_stride : token / plane.token_group * plane.token_stride + token % plane.token_group;
  offset += plane.dim_group == 1 ? dim * plane.dim_stride : dim / plane.dim_group * plane.dim_stride + dim % plane.dim_group;
  return offset;
}

// Bytes of a stored number.
MARTLET_DEVICE int32_t kv_width(int32_t type) { return type == martlet_cuda_kv_f32 ? 4 : type <= martlet_cuda_kv_bf16 ? 2 : 1; }

// Rotates the pair (first, second) by the angle of (cosine, sine): two products and one sum, each rounded.
MARTLET_DEVICE void rotate_pair(float &first, float &second, float cosine, float sine) {
  float x = first, y = second;
  first = x * cosine - y * sine;
  second = y * cosine + x * sine;
}

#endif
