// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Stands in for libcuda where there is no GPU: the functions that Martlet calls, with the signatures and the manners that NVIDIA's "CUDA Driver API"
// gives them for CUDA 12, over the emulator of Martlet's kernels. Tests drive the code with it that drives a GPU.
//
// It is as unhelpful as a driver may be. What is put on a stream runs when somebody waits for it and not before, so that whoever reads without waiting reads
// what was there; a call on a thread without a context, a handle that is none, a copy out of bounds, a kernel that asks for more shared memory than it may,
// each gets the error that the documentation names. After a kernel that failed, every call of its context fails.
//
// There are three GPUs: cuda:0 of compute capability 9.0 with 1 GiB, cuda:1 of 8.6 with 16 MiB, cuda:2 of 7.5, which the kernels are not for. Threads may
// call at the same time; they take turns.

#ifndef MARTLET_CUDA_STAND_IN_H
#define MARTLET_CUDA_STAND_IN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// cuGetProcAddress_v2.
void *martlet_stand_in_proc_address(void);

/// Makes the next call of this name ("cuMemAlloc") on this thread return this CUresult and do nothing else. For "cuGetProcAddress_v2" it is the next
/// look-up.
void martlet_stand_in_fail(const char *call, int32_t result);

/// What begins the images that cuModuleLoadData takes; others are CUDA_ERROR_INVALID_IMAGE. A module has all kernels of the emulator.
const char *martlet_stand_in_image(void);

/// Allocations of all GPUs and of pinned memory, streams, modules and graphs that are there.
int64_t martlet_stand_in_live_count(void);

#ifdef __cplusplus
}
#endif

#endif
