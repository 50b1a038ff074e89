// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The kernels as C++, in one file: their names are theirs alone.

#define MARTLET_EMULATED 1

// Sums are as the sources have them, as NVRTC is told, too.
#pragma STDC FP_CONTRACT OFF

#include "../../Sources/CMartletCUDAKernels/include/martlet_cuda_kernels.h"
#include "../../Sources/CMartletCUDAKernels/kernels/ptx.cuh"  // with all that it includes, which belongs in no namespace

namespace {
#include "../../Sources/CMartletCUDAKernels/kernels/rows.cu"
#include "../../Sources/CMartletCUDAKernels/kernels/weights.cu"
#include "../../Sources/CMartletCUDAKernels/kernels/product.cu"
#include "../../Sources/CMartletCUDAKernels/kernels/append.cu"
#include "../../Sources/CMartletCUDAKernels/kernels/attention.cu"

// Calls a kernel with a copy of its struct, as a launch does.
template <auto kernel>
struct Call;
template <typename Arguments, void (*kernel)(const Arguments)>
struct Call<kernel> {
  static void run(const void *argument) { kernel(*(const Arguments *)argument); }
};
}  // namespace

namespace emulator {

const std::vector<Kernel> &kernels() {
#define NAMED(name, threads) {"martlet_" #name, threads, Call<martlet_##name>::run},
#define KERNEL(name, source, threads) NAMED(name, threads)
#define ATTEND(rows, dims) NAMED(attend_##rows##_##dims, 256)
#define FEW(format) NAMED(product_few_##format, 256)
#define SOME(format) NAMED(product_some_##format, 256)
#define MANY(format) NAMED(product_many_##format, 128)
  static const std::vector<Kernel> all = {MARTLET_CUDA_KERNELS(KERNEL) MARTLET_CUDA_ATTEND_KERNELS(ATTEND) MARTLET_CUDA_FORMATS(FEW)
                                              MARTLET_CUDA_FORMATS(SOME) MARTLET_CUDA_FORMATS(MANY)};
  return all;
}

}  // namespace emulator
