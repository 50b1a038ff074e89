// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Products with packed weights, by one arithmetic for any number of tokens (martlet_cuda_product_arguments says which).
//
// Weights and inputs lie in memory as the tensor cores' registers take them, so that a lane reads 4 to 16 bytes beside its neighbour's and nothing is
// shuffled. Weights are read once for every 8, 32 or 64 tokens and are unpacked in registers: `multiply_block` is the one place where anything is
// multiplied, and the kernels differ in who holds what.
//
//   few, some   a block of 8 warps has 16 rows and 8 or 32 tokens; each warp has a slab of k, and their sums meet in shared memory.
//   many        a block of 4 warps has 128 rows and 64 tokens. Inputs come through shared memory, three blocks of k ahead; sums of slabs are added there.

#include "formats.cuh"

// What is multiplied: term i of a weight with term j of an input where i + j < terms.
template <int format>
MARTLET_DEVICE void multiply_half(float sum[4], const weight_tiles<format> &weights, int half, const words4 *inputs, int32_t terms) {
  MARTLET_UNROLL for (int i = 0; i < weight_terms(format); i++)
    MARTLET_UNROLL for (int j = 0; j < martlet_cuda_most_terms; j++)
      if (i + j < martlet_cuda_most_terms && i + j < terms)
        multiply_bf16(sum, weights.term[i][half], inputs[j].word[2 * half], inputs[j].word[2 * half + 1]);
}

// sum += a block of 16 rows × 32 inputs times a tile of 8 tokens. `inputs` are the terms of the lane's inputs; scales are those of the rows L/4 and L/4 + 8.
template <int format>
MARTLET_DEVICE void multiply_block(
    float sum[4], const weight_tiles<format> &weights, const row_scales scales[2], const words4 *inputs, int32_t terms) {
  if constexpr (is_float(format)) {
    MARTLET_UNROLL for (int half = 0; half < 2; half++) multiply_half<format>(sum, weights, half, inputs, terms);
  } else {
    constexpr int runs = scale_count(format), halves = 2 / runs;
    MARTLET_UNROLL for (int run = 0; run < runs; run++) {
      float products[4] = {0, 0, 0, 0};
      MARTLET_UNROLL for (int h = 0; h < halves; h++) multiply_half<format>(products, weights, run * halves + h, inputs, terms);
      MARTLET_UNROLL for (int e = 0; e < 4; e++) sum[e] = fused(scales[e / 2].scale[run], products[e], sum[e]);
      if constexpr (has_minimum(format)) {
        // The sum of a token's inputs is their product with ones.
        const uint32_t ones[4] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
        float sums[4] = {0, 0, 0, 0};
        MARTLET_UNROLL for (int h = 0; h < halves; h++)
          MARTLET_UNROLL for (int j = 0; j < martlet_cuda_most_terms; j++)
            if (j < terms) multiply_bf16(sums, ones, inputs[j].word[2 * (run * halves + h)], inputs[j].word[2 * (run * halves + h) + 1]);
        MARTLET_UNROLL for (int e = 0; e < 4; e++) sum[e] = fused(scales[e / 2].minimum[run], sums[e], sum[e]);
      }
    }
  }
}

// An output, once all slabs are added.
MARTLET_DEVICE void write_output(const martlet_cuda_product_arguments &a, int32_t row, int32_t token, float sum) {
  if (row >= a.rows || token >= a.tokens) return;
  global<const float> bias(a.bias);
  global<float> output(a.output);
  int64_t at = token * a.output_stride + row;
  if (bias) sum += bias[row];
  output[at] = a.adds ? fused(a.addition_scale, sum, output[at]) : sum;
}

// The place in a warp's sums, value e of lane L at 32·e + L, of row `row` of 16 and token `token` of 8.
MARTLET_DEVICE int32_t sum_at(int32_t row, int32_t token) { return (row / 8 * 2 + token % 2) * 32 + row % 8 * 4 + token / 2; }

// MARK: few tokens

template <int format, int tiles>
MARTLET_DEVICE void product_few(const martlet_cuda_product_arguments &a) {
  global<const uint8_t> groups(a.groups);
  global<const words4> inputs(a.inputs);
  shared<float> sums(0, 8 * tiles * 128);
  int32_t warp = thread_index() / 32, lane = thread_index() % 32;
  int32_t blocks = (a.columns + 31) / 32, slab = (blocks + martlet_cuda_slabs - 1) / martlet_cuda_slabs;
  int32_t end = (warp + 1) * slab < blocks ? (warp + 1) * slab : blocks;
  int32_t first_tile = block_y() * tiles, tile_count = (a.tokens + 7) / 8;
  int64_t group = block_x() * group_bytes(format, a.columns);

  float sum[tiles][4] = {};
  MARTLET_UNROLL_SOME for (int32_t block = warp * slab; block < end; block++) {
    weight_tiles<format> weights = unpack<format>(load_codes<format>(groups, group, block, lane));
    row_scales scales[2] = {load_scales<format>(groups, group, block, lane / 4), load_scales<format>(groups, group, block, lane / 4 + 8)};
    MARTLET_UNROLL for (int tile = 0; tile < tiles; tile++) {
      if (first_tile + tile >= tile_count) break;
      words4 terms[martlet_cuda_most_terms] = {};
      int64_t at = ((int64_t)(first_tile + tile) * blocks + block) * a.stored_terms;
      MARTLET_UNROLL for (int j = 0; j < martlet_cuda_most_terms; j++)
        if (j < a.terms) terms[j] = inputs[(at + j) * 32 + lane];
      multiply_block<format>(sum[tile], weights, scales, terms, a.terms);
    }
  }
  MARTLET_UNROLL for (int tile = 0; tile < tiles; tile++)
    MARTLET_UNROLL for (int e = 0; e < 4; e++) sums[(warp * tiles + tile) * 128 + e * 32 + lane] = sum[tile][e];
  barrier();
  for (int32_t i = thread_index(); i < tiles * 128; i += 256) {
    int32_t row = i % 16, token = i / 16, at = token / 8 * 128 + sum_at(row, token % 8);
    float total = sums[at];
    for (int32_t s = 1; s * slab < blocks; s++) total += sums[s * tiles * 128 + at];
    write_output(a, block_x() * 16 + row, first_tile * 8 + token, total);
  }
}

// MARK: many tokens

constexpr int many_groups = 2, many_tiles = 8, many_stages = 3;  // groups of a warp, tiles of a block, blocks of k in shared memory

template <int format>
MARTLET_DEVICE void product_many(const martlet_cuda_product_arguments &a) {
  global<const uint8_t> groups(a.groups), inputs(a.inputs);
  int32_t warp = thread_index() / 32, lane = thread_index() % 32;
  int32_t blocks = (a.columns + 31) / 32, slab = (blocks + martlet_cuda_slabs - 1) / martlet_cuda_slabs;
  int32_t group_count = (a.rows + 15) / 16, first_group = (block_x() * 4 + warp) * many_groups;
  int32_t tile_count = (a.tokens + 7) / 8, first_tile = block_y() * many_tiles;
  int32_t vectors = many_tiles * a.terms * 32;  // of 16 bytes in a stage
  shared<words4> stages(0, many_stages * vectors);
  shared<float> totals(many_stages * vectors * 16, 4 * many_groups * many_tiles * 128);

  auto load_stage = [&](int32_t block) {
    for (int32_t i = thread_index(); i < vectors; i += 128) {
      int32_t tile = i / 32 / a.terms, term = i / 32 % a.terms;
      int64_t at = (((int64_t)(first_tile + tile) * blocks + block) * a.stored_terms + term) * 32 + i % 32;
      copy_async_16(stages, block % many_stages * vectors + i, inputs, at * 16, first_tile + tile < tile_count);
    }
  };

  float sum[many_groups][many_tiles][4] = {};
  MARTLET_UNROLL for (int32_t block = 0; block < many_stages - 1; block++) {
    if (block < blocks) load_stage(block);
    commit_copies();
  }
  for (int32_t block = 0; block < blocks; block++) {
    wait_copies<many_stages - 2>();
    barrier();  // the stage is there for all, and all are done with the one that is loaded next
    if (block + many_stages - 1 < blocks) load_stage(block + many_stages - 1);
    commit_copies();

    MARTLET_UNROLL for (int g = 0; g < many_groups; g++) {
      if (first_group + g >= group_count) break;
      int64_t group = (first_group + g) * group_bytes(format, a.columns);
      weight_tiles<format> weights = unpack<format>(load_codes<format>(groups, group, block, lane));
      row_scales scales[2] = {load_scales<format>(groups, group, block, lane / 4), load_scales<format>(groups, group, block, lane / 4 + 8)};
      MARTLET_UNROLL for (int tile = 0; tile < many_tiles; tile++) {
        words4 terms[martlet_cuda_most_terms] = {};
        MARTLET_UNROLL for (int j = 0; j < martlet_cuda_most_terms; j++)
          if (j < a.terms) terms[j] = stages[block % many_stages * vectors + (tile * a.terms + j) * 32 + lane];
        multiply_block<format>(sum[g][tile], weights, scales, terms, a.terms);
      }
    }

    if ((block + 1) % slab != 0 && block + 1 != blocks) continue;
    MARTLET_UNROLL for (int g = 0; g < many_groups; g++)
      MARTLET_UNROLL for (int tile = 0; tile < many_tiles; tile++)
        MARTLET_UNROLL for (int e = 0; e < 4; e++) {
          int32_t at = ((warp * many_groups + g) * many_tiles + tile) * 128 + e * 32 + lane;
          totals[at] = block < slab ? sum[g][tile][e] : totals[at] + sum[g][tile][e];
          sum[g][tile][e] = 0;
        }
  }
  wait_copies<0>();
  warp_barrier();
  for (int32_t i = lane; i < many_groups * many_tiles * 128; i += 32) {
    int32_t row = i % (16 * many_groups), token = i / (16 * many_groups), g = row / 16;
    float total = totals[((warp * many_groups + g) * many_tiles + token / 8) * 128 + sum_at(row % 16, token % 8)];
    write_output(a, first_group * 16 + row, first_tile * 8 + token, total);
  }
}

// MARK: kernels

#define MARTLET_PRODUCT_KERNELS(format)                                                                                                     \
  MARTLET_KERNEL(product_few_##format, 256)(const martlet_cuda_product_arguments a) { product_few<martlet_cuda_##format, 1>(a); }           \
  MARTLET_KERNEL(product_some_##format, 256)(const martlet_cuda_product_arguments a) { product_few<martlet_cuda_##format, 4>(a); }          \
  MARTLET_KERNEL(product_many_##format, 128)(const martlet_cuda_product_arguments a) { product_many<martlet_cuda_##format>(a); }
// The format's name is a definition, which must be replaced before it is joined to anything.
#define MARTLET_PRODUCT_KERNELS_OF(format) MARTLET_PRODUCT_KERNELS(format)

#ifdef MARTLET_FORMAT
MARTLET_PRODUCT_KERNELS_OF(MARTLET_FORMAT)
#else
MARTLET_CUDA_FORMATS(MARTLET_PRODUCT_KERNELS)
#endif
