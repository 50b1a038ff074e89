// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#include "martlet_cuda_kernels.h"

// #embed is C23's, and clang knows it in every dialect: no script makes arrays of the files, and the target is built anew when one changes.
#pragma clang diagnostic ignored "-Wc23-extensions"

// MARK: sources

static const char martlet_cuda_arguments_h[] = {
#embed "include/martlet_cuda_arguments.h" suffix(, 0)
};
static const char ptx_cuh[] = {
#embed "kernels/ptx.cuh" suffix(, 0)
};
static const char numbers_cuh[] = {
#embed "kernels/numbers.cuh" suffix(, 0)
};
static const char formats_cuh[] = {
#embed "kernels/formats.cuh" suffix(, 0)
};
static const char pages_cuh[] = {
#embed "kernels/pages.cuh" suffix(, 0)
};
static const char rows_cu[] = {
#embed "kernels/rows.cu" suffix(, 0)
};
static const char weights_cu[] = {
#embed "kernels/weights.cu" suffix(, 0)
};
static const char product_cu[] = {
#embed "kernels/product.cu" suffix(, 0)
};
static const char append_cu[] = {
#embed "kernels/append.cu" suffix(, 0)
};
static const char attention_cu[] = {
#embed "kernels/attention.cu" suffix(, 0)
};

static const martlet_cuda_source sources[] = {
    {"martlet_cuda_arguments.h", martlet_cuda_arguments_h, sizeof martlet_cuda_arguments_h - 1},
    {"ptx.cuh", ptx_cuh, sizeof ptx_cuh - 1},
    {"numbers.cuh", numbers_cuh, sizeof numbers_cuh - 1},
    {"formats.cuh", formats_cuh, sizeof formats_cuh - 1},
    {"pages.cuh", pages_cuh, sizeof pages_cuh - 1},
    {"rows.cu", rows_cu, sizeof rows_cu - 1},
    {"weights.cu", weights_cu, sizeof weights_cu - 1},
    {"product.cu", product_cu, sizeof product_cu - 1},
    {"append.cu", append_cu, sizeof append_cu - 1},
    {"attention.cu", attention_cu, sizeof attention_cu - 1},
};

size_t martlet_cuda_source_count(void) { return sizeof sources / sizeof sources[0]; }
martlet_cuda_source martlet_cuda_source_at(size_t index) { return sources[index]; }

static const char *const options[] = {"--std=c++17", "--fmad=false", "--device-as-default-execution-space"};

size_t martlet_cuda_option_count(void) { return sizeof options / sizeof options[0]; }
const char *martlet_cuda_option_at(size_t index) { return options[index]; }

// MARK: kernels

#define KERNEL(name, source, threads) {"martlet_" #name, source, "", threads, (int32_t)sizeof(martlet_cuda_##name##_arguments), false},
#define ATTEND(rows, dims) \
  {"martlet_attend_" #rows "_" #dims, "attention.cu", "", 256, (int32_t)sizeof(martlet_cuda_attend_arguments), true},
#define FEW(format) \
  {"martlet_product_few_" #format, "product.cu", "MARTLET_FORMAT=" #format, 256, (int32_t)sizeof(martlet_cuda_product_arguments), true},
#define SOME(format) \
  {"martlet_product_some_" #format, "product.cu", "MARTLET_FORMAT=" #format, 256, (int32_t)sizeof(martlet_cuda_product_arguments), true},
#define MANY(format) \
  {"martlet_product_many_" #format, "product.cu", "MARTLET_FORMAT=" #format, 128, (int32_t)sizeof(martlet_cuda_product_arguments), true},

static const martlet_cuda_kernel kernels[] = {
    MARTLET_CUDA_KERNELS(KERNEL)          // each with the struct of its name
    MARTLET_CUDA_ATTEND_KERNELS(ATTEND)
    MARTLET_CUDA_FORMATS(FEW)
    MARTLET_CUDA_FORMATS(SOME)
    MARTLET_CUDA_FORMATS(MANY)
};
_Static_assert(sizeof kernels / sizeof kernels[0] == martlet_cuda_kernel_count, "every kernel has its row");

martlet_cuda_kernel martlet_cuda_kernel_at(int32_t id) { return kernels[id]; }

// MARK: sizes

int64_t martlet_cuda_group_bytes(int32_t format, int32_t columns) {
  int64_t blocks = ((int64_t)columns + martlet_cuda_block_inputs - 1) / martlet_cuda_block_inputs;
  switch (format) {
    case martlet_cuda_f32: return blocks * 2048;
    case martlet_cuda_f16:
    case martlet_cuda_bf16: return blocks * 1024;
    case martlet_cuda_e4m3: return blocks * 512 + (blocks + 3) / 4 * 64;
    case martlet_cuda_q4_0:
    case martlet_cuda_iq4_nl: return blocks * 288;
    case martlet_cuda_mxfp4: return blocks * 272;
    case martlet_cuda_nvfp4: return blocks * 288 + 64;
    case martlet_cuda_q4_1: return blocks * 320;
    case martlet_cuda_q5_0: return blocks * 352;
    case martlet_cuda_q5_1: return blocks * 384;
    case martlet_cuda_q8_0: return blocks * 544;
    case martlet_cuda_q2_k: return blocks * 160 + blocks / 8 * 64;
    case martlet_cuda_q3_k: return blocks * 224 + blocks / 8 * 32;
    case martlet_cuda_q4_k: return blocks * 288 + blocks / 8 * 64;
    case martlet_cuda_q5_k: return blocks * 352 + blocks / 8 * 64;
    case martlet_cuda_q6_k: return blocks * 416 + blocks / 8 * 32;
    default: return 0;
  }
}

int32_t martlet_cuda_product_terms(int32_t format, bool exact) {
  if (!exact) return 1;
  return format <= martlet_cuda_bf16 ? 3 : 2;
}

int64_t martlet_cuda_input_bytes(int32_t tokens, int32_t columns, int32_t terms) {
  int64_t tiles = ((int64_t)tokens + martlet_cuda_token_tile - 1) / martlet_cuda_token_tile;
  int64_t blocks = ((int64_t)columns + martlet_cuda_block_inputs - 1) / martlet_cuda_block_inputs;
  return tiles * blocks * terms * 512;
}

// MARK: launches

static uint32_t parts(int64_t count, int64_t size) { return (uint32_t)((count + size - 1) / size); }

// A block for each row.
static martlet_cuda_launch row_launch(int32_t kernel, int32_t rows, uint32_t shared_bytes) {
  return (martlet_cuda_launch){kernel, (uint32_t)rows, 1, 1, (uint32_t)kernels[kernel].threads, shared_bytes};
}

// 256 threads for so many values, up to a grid that fills every device.
static martlet_cuda_launch value_launch(int32_t kernel, int64_t count) {
  uint32_t blocks = parts(count, 256);
  return (martlet_cuda_launch){kernel, blocks < 4096 ? blocks : 4096, 1, 1, 256, 0};
}

#define ROWS(name, shared_bytes) \
  martlet_cuda_launch martlet_cuda_launch_##name(const martlet_cuda_##name##_arguments *a) { \
    return row_launch(martlet_cuda_kernel_##name, a->rows, shared_bytes); \
  }
ROWS(rms_norm, 32)
ROWS(layer_norm, 32)
ROWS(unit_rows, 64)
ROWS(add_rows, 0)
ROWS(add_group_rows, 0)
ROWS(scale_rows, 0)
ROWS(gated_activation, 0)
ROWS(gelu, 0)
ROWS(gather_rows, 0)
ROWS(copy_heads, 0)
ROWS(pool_rows, 0)
ROWS(argmax, 64)

martlet_cuda_launch martlet_cuda_launch_add(const martlet_cuda_add_arguments *a) { return value_launch(martlet_cuda_kernel_add, a->count); }
martlet_cuda_launch martlet_cuda_launch_scale(const martlet_cuda_scale_arguments *a) { return value_launch(martlet_cuda_kernel_scale, a->count); }

martlet_cuda_launch martlet_cuda_launch_embed(const martlet_cuda_embed_arguments *a) { return row_launch(martlet_cuda_kernel_embed, a->count, 0); }

martlet_cuda_launch martlet_cuda_launch_pack(const martlet_cuda_pack_arguments *a) {
  return (martlet_cuda_launch){martlet_cuda_kernel_pack, parts(a->rows, martlet_cuda_group_rows), parts(a->columns, 8 * martlet_cuda_block_inputs), 1, 256, 0};
}

martlet_cuda_launch martlet_cuda_launch_code_inputs(const martlet_cuda_code_inputs_arguments *a) {
  return (martlet_cuda_launch){
      martlet_cuda_kernel_code_inputs, parts(a->tokens, martlet_cuda_token_tile), parts(a->columns, 8 * martlet_cuda_block_inputs), 1, 256, 0};
}

martlet_cuda_launch martlet_cuda_launch_product(const martlet_cuda_product_arguments *a, int32_t format) {
  uint32_t groups = parts(a->rows, martlet_cuda_group_rows), tiles = parts(a->tokens, martlet_cuda_token_tile);
  if (tiles <= 1) return (martlet_cuda_launch){martlet_cuda_kernel_product_few_f32 + format, tiles ? groups : 0, 1, 1, 256, 8 * 128 * 4};
  if (tiles <= 4) return (martlet_cuda_launch){martlet_cuda_kernel_product_some_f32 + format, groups, 1, 1, 256, 8 * 4 * 128 * 4};
  // Three stages of a block of 64 tokens, and the sums of 128 rows.
  uint32_t shared_bytes = 3 * 8 * 512 * (uint32_t)a->terms + 4 * 2 * 8 * 128 * 4;
  return (martlet_cuda_launch){martlet_cuda_kernel_product_many_f32 + format, parts(groups, 8), parts(tiles, 8), 1, 128, shared_bytes};
}

martlet_cuda_launch martlet_cuda_launch_append(const martlet_cuda_append_arguments *a) {
  int32_t heads = (a->query ? a->heads : 0) + (a->key ? a->cache.kv_heads : 0);
  return (martlet_cuda_launch){martlet_cuda_kernel_append, (uint32_t)a->tokens, parts(heads, 8), 1, 256, 8 * martlet_cuda_most_head_dim * 4};
}

// What attention_memory of attention.cu lays out.
static int32_t attend_shared_bytes(const martlet_cuda_paged_kv *cache, int32_t terms, bool rotates_keys, int32_t rows) {
  int32_t stored = cache->type == martlet_cuda_kv_f32 ? 3 : cache->type == martlet_cuda_kv_f16 ? 2 : 1;
  int32_t value_terms = stored < terms ? stored : terms, key_terms = rotates_keys ? terms : value_terms;
  int32_t key_stride = (cache->head_dim + 15) / 16 * 16 + 8, value_stride = cache->value_head_dim + 8, tile = martlet_cuda_tile_size;
  int32_t tiles = key_terms * tile * key_stride * 2 + (cache->values_offset == 0 ? 0 : value_terms * tile * value_stride * 2);
  int32_t of_a_row = terms * key_stride * 2 + (tile + 4) * 4 + terms * (tile + 8) * 2 + 5 * 4 + 4 * 4;
  return rows * of_a_row + tiles + 2 * tile * 4 + 4;
}

int32_t martlet_cuda_attend_shared_bytes(const martlet_cuda_paged_kv *cache, int32_t terms, bool rotates_keys) {
  return attend_shared_bytes(cache, terms, rotates_keys, 16);
}

martlet_cuda_launch martlet_cuda_launch_attend(const martlet_cuda_attend_arguments *a, int32_t most_rows, int32_t most_shared_bytes) {
  int32_t dims = a->cache.value_head_dim, shared_bytes = attend_shared_bytes(&a->cache, a->terms, a->key_rope != 0, 64), kernel;
  if (most_rows > 16 && dims <= 256 && shared_bytes <= most_shared_bytes) {
    kernel = dims <= 64 ? martlet_cuda_kernel_attend_64_64 : dims <= 128 ? martlet_cuda_kernel_attend_64_128 : martlet_cuda_kernel_attend_64_256;
  } else {
    shared_bytes = attend_shared_bytes(&a->cache, a->terms, a->key_rope != 0, 16);
    kernel = dims <= 64    ? martlet_cuda_kernel_attend_16_64
             : dims <= 128 ? martlet_cuda_kernel_attend_16_128
             : dims <= 256 ? martlet_cuda_kernel_attend_16_256
                           : martlet_cuda_kernel_attend_16_576;
  }
  return (martlet_cuda_launch){kernel, (uint32_t)a->task_count, 1, 1, 256, (uint32_t)shared_bytes};
}
