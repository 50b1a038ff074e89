// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Runs Martlet's CUDA kernels on the processor: the same sources, compiled as C++, one fiber for each thread of a block.
//
// It finds what a test on a processor can find: addresses outside their allocation or shared memory, reads of memory that nobody wrote, threads that
// meet in shared memory without a barrier between them, copies that are read before they were waited for, warps that part before an instruction that needs
// them whole, barriers that not every thread reaches, results that depend on the order of blocks and warps, which the seed chooses. It says nothing of
// speed, and of the memory model it knows barriers only.
//
// An emulator belongs to one thread at a time. Nothing here crashes for a wrong kernel: the launch returns false, and the error is a sentence.

#ifndef MARTLET_CUDA_EMULATOR_H
#define MARTLET_CUDA_EMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct martlet_emulator martlet_emulator;

/// An emulator without memory. The seed chooses the order of blocks, warps and lanes.
martlet_emulator *martlet_emulator_create(uint64_t seed);

/// Frees it and all its memory.
void martlet_emulator_destroy(martlet_emulator *emulator);

/// Memory for kernels, aligned to 256 bytes, filled with 0xFF: as floats NaN, as integers −1. The address is also one of the host's, which may read and write
/// there between launches. 0 where the system has no memory. Of 0 bytes an address that nothing can be read at.
uint64_t martlet_emulator_allocate(martlet_emulator *emulator, size_t byte_count);

/// False, and an error, where no allocation begins at `address`.
bool martlet_emulator_free(martlet_emulator *emulator, uint64_t address);

/// The number of a kernel; −1 where there is none of this name.
int32_t martlet_emulator_kernel(const char *name);

/// Runs a kernel to its end. `arguments` is what cuLaunchKernel takes: one pointer to each parameter; Martlet's kernels have one, a struct.
/// False, and an error, where the kernel did what no kernel may; memory is then as it was left.
bool martlet_emulator_launch(
    martlet_emulator *emulator, int32_t kernel, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z, uint32_t block_x, uint32_t block_y,
    uint32_t block_z, uint32_t shared_byte_count, void *const *arguments);

/// What went wrong last, in words; empty where nothing did. Good until the next call.
const char *martlet_emulator_error(const martlet_emulator *emulator);

#ifdef __cplusplus
}
#endif

#endif
