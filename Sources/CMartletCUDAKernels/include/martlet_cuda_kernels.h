// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The CUDA kernels: their sources as text in the binary, which of them holds which kernel, and how each is launched.
//
// Sources include no header of CUDA's. NVRTC compiles one program for each (source, definition) of the table, with every file whose name ends in `.h` or
// `.cuh` as a header under its name, for `sm_XX`, and with the options of martlet_cuda_option_at.
//
// A kernel has one parameter, a struct of martlet_cuda_arguments.h, and uses dynamic shared memory only. Threads are one row: blocks have no y and z.
// The functions martlet_cuda_launch_… say for given arguments what is launched; where a grid is empty (`grid_x` is 0) nothing is.

#ifndef MARTLET_CUDA_KERNELS_H
#define MARTLET_CUDA_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "martlet_cuda_arguments.h"

#ifdef __cplusplus
extern "C" {
#endif

// MARK: tables

// Kernels that are there once: name, source, threads of a block, the struct of its arguments.
#define MARTLET_CUDA_KERNELS(X) \
  X(rms_norm, "rows.cu", 256) \
  X(layer_norm, "rows.cu", 256) \
  X(add, "rows.cu", 256) \
  X(add_rows, "rows.cu", 256) \
  X(add_group_rows, "rows.cu", 256) \
  X(scale, "rows.cu", 256) \
  X(scale_rows, "rows.cu", 256) \
  X(gated_activation, "rows.cu", 256) \
  X(gelu, "rows.cu", 256) \
  X(gather_rows, "rows.cu", 256) \
  X(copy_heads, "rows.cu", 256) \
  X(pool_rows, "rows.cu", 256) \
  X(unit_rows, "rows.cu", 256) \
  X(argmax, "rows.cu", 256) \
  X(pack, "weights.cu", 256) \
  X(embed, "weights.cu", 256) \
  X(code_inputs, "weights.cu", 256) \
  X(append, "append.cu", 256)

// Kernels of attention, by the rows of a task that a block takes at a time and the dims of a value head that it has registers for.
#define MARTLET_CUDA_ATTEND_KERNELS(X) X(16, 64) X(16, 128) X(16, 256) X(16, 576) X(64, 64) X(64, 128) X(64, 256)

// Kernels that are there for every format of weights.
#define MARTLET_CUDA_FORMATS(X) \
  X(f32) X(f16) X(bf16) X(e4m3) X(q4_0) X(q4_1) X(q5_0) X(q5_1) X(q8_0) X(q2_k) X(q3_k) X(q4_k) X(q5_k) X(q6_k) X(iq4_nl) X(mxfp4) X(nvfp4)

#define MARTLET_CUDA_ID(name, source, threads) martlet_cuda_kernel_##name,
#define MARTLET_CUDA_ATTEND_ID(rows, dims) martlet_cuda_kernel_attend_##rows##_##dims,
#define MARTLET_CUDA_FEW_ID(format) martlet_cuda_kernel_product_few_##format,
#define MARTLET_CUDA_SOME_ID(format) martlet_cuda_kernel_product_some_##format,
#define MARTLET_CUDA_MANY_ID(format) martlet_cuda_kernel_product_many_##format,
typedef enum martlet_cuda_kernel_id {
  MARTLET_CUDA_KERNELS(MARTLET_CUDA_ID)
  MARTLET_CUDA_ATTEND_KERNELS(MARTLET_CUDA_ATTEND_ID)
  MARTLET_CUDA_FORMATS(MARTLET_CUDA_FEW_ID)
  MARTLET_CUDA_FORMATS(MARTLET_CUDA_SOME_ID)
  MARTLET_CUDA_FORMATS(MARTLET_CUDA_MANY_ID)
  martlet_cuda_kernel_count,
} martlet_cuda_kernel_id;
#undef MARTLET_CUDA_ID
#undef MARTLET_CUDA_ATTEND_ID
#undef MARTLET_CUDA_FEW_ID
#undef MARTLET_CUDA_SOME_ID
#undef MARTLET_CUDA_MANY_ID

typedef struct martlet_cuda_kernel {
  const char *name;        // what cuModuleGetFunction is asked for: "martlet_rms_norm"
  const char *source;      // the file that NVRTC compiles
  const char *definition;  // for NVRTC's -D: "MARTLET_FORMAT=q4_k"; "" for none
  int32_t threads;         // of a block
  int32_t argument_bytes;  // of its struct
  bool is_hot;             // what a step's time goes to: it may not spill registers
} martlet_cuda_kernel;

// `id` is a martlet_cuda_kernel_id.
martlet_cuda_kernel martlet_cuda_kernel_at(int32_t id);

typedef struct martlet_cuda_source {
  const char *name;
  const char *text;  // of `count` bytes, and a 0 behind them
  size_t count;
} martlet_cuda_source;

size_t martlet_cuda_source_count(void);
martlet_cuda_source martlet_cuda_source_at(size_t index);

// Options of every compilation, beside the architecture and the definition. No multiplication and addition is contracted unless the source says so:
// results have the same bits in kernels that share a function, and in the emulator.
size_t martlet_cuda_option_count(void);
const char *martlet_cuda_option_at(size_t index);

// MARK: launches

typedef struct martlet_cuda_launch {
  int32_t kernel;  // martlet_cuda_kernel_id
  uint32_t grid_x, grid_y, grid_z;
  uint32_t block_x;       // threads
  uint32_t shared_bytes;  // dynamic; above 48 KiB the function must be told first (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
} martlet_cuda_launch;

martlet_cuda_launch martlet_cuda_launch_rms_norm(const martlet_cuda_rms_norm_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_layer_norm(const martlet_cuda_layer_norm_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_add(const martlet_cuda_add_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_add_rows(const martlet_cuda_add_rows_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_add_group_rows(const martlet_cuda_add_group_rows_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_scale(const martlet_cuda_scale_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_scale_rows(const martlet_cuda_scale_rows_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_gated_activation(const martlet_cuda_gated_activation_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_gelu(const martlet_cuda_gelu_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_gather_rows(const martlet_cuda_gather_rows_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_copy_heads(const martlet_cuda_copy_heads_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_pool_rows(const martlet_cuda_pool_rows_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_unit_rows(const martlet_cuda_unit_rows_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_argmax(const martlet_cuda_argmax_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_pack(const martlet_cuda_pack_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_embed(const martlet_cuda_embed_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_code_inputs(const martlet_cuda_code_inputs_arguments *arguments);
martlet_cuda_launch martlet_cuda_launch_append(const martlet_cuda_append_arguments *arguments);

// Which of a format's three kernels: few up to 8 tokens, some up to 32, else many. Their bits are the same, and nothing but time depends on the choice.
martlet_cuda_launch martlet_cuda_launch_product(const martlet_cuda_product_arguments *arguments, int32_t format);

// `most_rows` is the greatest row_count of the tasks, `most_shared_bytes` what a block of the device can have. The kernel takes 64 rows at a time where there
// are more than 16 and it has the memory, else 16; its bits are the same. Where shared_bytes is more than the device has, the shape is an obstacle, which
// martlet_cuda_attend_shared_bytes tells before.
martlet_cuda_launch martlet_cuda_launch_attend(const martlet_cuda_attend_arguments *arguments, int32_t most_rows, int32_t most_shared_bytes);

// Shared memory that attention over a cache's shape takes, 16 rows at a time.
int32_t martlet_cuda_attend_shared_bytes(const martlet_cuda_paged_kv *cache, int32_t terms, bool rotates_keys);

// MARK: sizes

// Bytes of one packed group of 16 rows.
int64_t martlet_cuda_group_bytes(int32_t format, int32_t columns);

// Terms of inputs that a format's product multiplies: 1 where `exact` is false (activations and weights are rounded to bfloat16, codes are exact all the
// same); else 2 with codes, 3 with floats.
int32_t martlet_cuda_product_terms(int32_t format, bool exact);

// Bytes of coded inputs.
int64_t martlet_cuda_input_bytes(int32_t tokens, int32_t columns, int32_t terms);

#ifdef __cplusplus
}
#endif

#endif
