// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What the processor can do at best: the loops that a roofline is measured with. They compute nothing that anybody wants.

#ifndef MARTLET_CEILINGS_H
#define MARTLET_CEILINGS_H

#include <stdint.h>

#include "martlet_threads.h"

// One task is `passes` passes over the loop's operands: registers, 8 KiB in the first-level cache, or a slice of memory.
typedef struct martlet_ceiling_arguments {
  int64_t passes;
  const uint8_t *data;     // of `read`: the slices of all tasks, one after another; of `decode_*`: 8 KiB
  int64_t bytes_per_task;  // of `read`: a multiple of 512
  int32_t rows;            // of `decode_*`: how many query rows each number is multiplied with, 1 to 6
} martlet_ceiling_arguments;

// A function is NULL where the variant has no such instruction, or no register tile of six rows. Results go to the first 64 bytes of the
// worker's scratch memory, so that no loop is without effect.
typedef struct martlet_ceiling_kernels {
  int64_t operations_f32, operations_bf16, operations_bf16_tiles, operations_i16, operations_i8;  // of one pass, multiplications and additions counted apart
  martlet_task_function multiply_f32;                                      // fused multiply-adds of float32
  martlet_task_function multiply_bf16;                                     // dot products of bf16 pairs
  martlet_task_function multiply_bf16_tiles;                               // products of bf16 tiles
  martlet_task_function multiply_i16;                                      // dot products of int16 pairs
  martlet_task_function multiply_i8;                                       // dot products of four int8
  martlet_task_function decode_e4m3;  // 8 KiB of e4m3 as attention multiplies it, with `rows` rows: 8192 · 2 · rows operations a pass
  martlet_task_function decode_i8;    // the same of int8
  martlet_task_function read;         // one pass reads the task's slice once
} martlet_ceiling_kernels;

#endif
