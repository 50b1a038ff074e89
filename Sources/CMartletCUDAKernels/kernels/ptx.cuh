// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What kernels know of the machine: who they are, memory, and the instructions that C++ has no words for, one thin function each (PTX ISA 8.0).
//
// No header of CUDA's is needed. With MARTLET_EMULATED the same names are calls into the emulator (Tests/CUDAEmulator/emulated_ptx.h), which checks what
// they are used for; so kernels reach memory through `global` and `shared` only, and lanes meet in the functions of this file only.

#ifndef MARTLET_PTX_CUH
#define MARTLET_PTX_CUH

#include "martlet_cuda_arguments.h"

// Vectors for loads of 8 and 16 bytes.
struct alignas(8) words2 {
  uint32_t word[2];
};
struct alignas(16) words4 {
  uint32_t word[4];
};

#ifdef MARTLET_EMULATED
#include "emulated_ptx.h"
#else

#define MARTLET_DEVICE __device__ __forceinline__
#define MARTLET_UNROLL _Pragma("unroll")
#define MARTLET_UNROLL_SOME _Pragma("unroll 4")
// A table that all threads read.
#define MARTLET_CONSTANT __device__ const
// One block to a processor is enough: without the number the assembler spills a few registers so that more fit.
#define MARTLET_KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads, 1) martlet_##name

// MARK: who

MARTLET_DEVICE int32_t thread_index() { return (int32_t)threadIdx.x; }
MARTLET_DEVICE int32_t block_x() { return (int32_t)blockIdx.x; }
MARTLET_DEVICE int32_t block_y() { return (int32_t)blockIdx.y; }
MARTLET_DEVICE int32_t grid_x() { return (int32_t)gridDim.x; }

// MARK: memory

// Device memory at an address of the arguments.
template <typename T>
struct global {
  T *values;

  MARTLET_DEVICE explicit global(martlet_cuda_address address) : values((T *)address) {}
  MARTLET_DEVICE explicit operator bool() const { return values != nullptr; }
  MARTLET_DEVICE T &operator[](int64_t i) const { return values[i]; }
  MARTLET_DEVICE martlet_cuda_address address(int64_t i) const { return (martlet_cuda_address)(values + i); }
};

extern __shared__ __align__(16) unsigned char martlet_shared_memory[];

// `count` values of the block's shared memory from byte `offset` on.
template <typename T>
struct shared {
  T *values;

  MARTLET_DEVICE shared(int32_t offset, int32_t) : values((T *)(martlet_shared_memory + offset)) {}
  MARTLET_DEVICE T &operator[](int32_t i) const { return values[i]; }
  // A vector that begins at value i.
  template <typename Vector>
  MARTLET_DEVICE Vector load(int32_t i) const { return *(const Vector *)(values + i); }
  template <typename Vector>
  MARTLET_DEVICE void store(int32_t i, Vector vector) const { *(Vector *)(values + i) = vector; }
  MARTLET_DEVICE uint32_t address(int32_t i) const { return (uint32_t)__cvta_generic_to_shared(values + i); }
};

// A float that another block may have written since this one began.
MARTLET_DEVICE float load_fresh(global<const float> from, int64_t i) { return *(const volatile float *)(from.values + i); }

// Adds, and gives what was there.
MARTLET_DEVICE int32_t atomic_add(global<int32_t> to, int64_t i, int32_t value) { return atomicAdd(to.values + i, value); }

// What this thread wrote to device memory before is seen by whoever sees what it writes after.
MARTLET_DEVICE void fence() { __threadfence(); }

// MARK: threads meet

MARTLET_DEVICE void barrier() { __syncthreads(); }
MARTLET_DEVICE void warp_barrier() { __syncwarp(); }

template <typename T>
MARTLET_DEVICE T shuffle_xor(T value, int32_t lanes) { return __shfl_xor_sync(0xFFFFFFFFu, value, lanes); }
template <typename T>
MARTLET_DEVICE T shuffle(T value, int32_t lane) { return __shfl_sync(0xFFFFFFFFu, value, lane); }
// Bit i is lane i's condition.
MARTLET_DEVICE uint32_t ballot(bool condition) { return __ballot_sync(0xFFFFFFFFu, condition); }

// MARK: copies to shared memory that the thread does not wait for

// 16 bytes from byte `byte` of device memory to value i; zeros where `reads` is false, and nothing is read. Both are aligned to 16 bytes.
template <typename T>
MARTLET_DEVICE void copy_async_16(shared<T> to, int32_t i, global<const uint8_t> from, int64_t byte, bool reads) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to.address(i)), "l"(from.values + (reads ? byte : 0)), "r"(reads ? 16 : 0)
               : "memory");
}

// The copies of this thread since the last commit are one group.
MARTLET_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `pending` of this thread's groups are under way. Others see what was copied after a barrier.
template <int pending>
MARTLET_DEVICE void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

// MARK: tensor cores

// Four matrices of 8 rows of 8 values of 16 bits: lane 8·m + r gives the first value of row r of matrix m; lane L gets values 2·(L%4) and the next of row
// L/4 of matrix m in tile[m].
MARTLET_DEVICE void load_matrices(uint32_t tile[4], shared<uint16_t> rows, int32_t i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(tile[0]), "=r"(tile[1]), "=r"(tile[2]), "=r"(tile[3])
               : "r"(rows.address(i))
               : "memory");
}

// The same of each matrix transposed.
MARTLET_DEVICE void load_matrices_transposed(uint32_t tile[4], shared<uint16_t> rows, int32_t i) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(tile[0]), "=r"(tile[1]), "=r"(tile[2]), "=r"(tile[3])
               : "r"(rows.address(i))
               : "memory");
}

// sum[16 × 8] += a[16 × 16] · b[16 × 8] of bfloat16, in float32.
MARTLET_DEVICE void multiply_bf16(float sum[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// MARK: numbers

MARTLET_DEVICE float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
MARTLET_DEVICE uint32_t bits_of_float(float value) { return __float_as_uint(value); }
MARTLET_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
MARTLET_DEVICE float square_root(float x) { return __fsqrt_rn(x); }
MARTLET_DEVICE double square_root(double x) { return __dsqrt_rn(x); }

// 2ˣ with a relative error of at most 2⁻²²; results below 2⁻¹²⁶ are 0.
MARTLET_DEVICE float exp2_fast(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

// Two floats rounded to bfloat16, ties to even: `low` in the low half.
MARTLET_DEVICE uint32_t bf16_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// a · b + c of two bfloat16 each, rounded once, subnormals kept.
MARTLET_DEVICE uint32_t fused_bf16_pairs(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t pair;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
  return pair;
}

// Rounded to float16, ties to even.
MARTLET_DEVICE uint16_t f16_of_float(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

MARTLET_DEVICE float float_of_f16(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

#endif
#endif
