// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The names of kernels/ptx.cuh for the emulator. Instructions are as the PTX ISA describes them; the tables of fragments are written out in ptx_check.cpp,
// by which they are tested.

#ifndef MARTLET_EMULATED_PTX_H
#define MARTLET_EMULATED_PTX_H

#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>

#include "emulator.h"

#define MARTLET_DEVICE inline
#define MARTLET_UNROLL
#define MARTLET_UNROLL_SOME
#define MARTLET_CONSTANT static const
#define MARTLET_KERNEL(name, threads) static void martlet_##name

// MARK: who

MARTLET_DEVICE int32_t thread_index() { return emulator::machine->thread().index; }
MARTLET_DEVICE int32_t block_x() { return (int32_t)emulator::machine->block_index(0); }
MARTLET_DEVICE int32_t block_y() { return (int32_t)emulator::machine->block_index(1); }
MARTLET_DEVICE int32_t grid_x() { return (int32_t)emulator::machine->grid_size(0); }

// MARK: memory

template <typename T>
struct global {
  uint64_t begin;
  const emulator::Allocation *allocation;

  explicit global(martlet_cuda_address address)
      : begin(address), allocation(address ? emulator::machine->allocation_of(address) : nullptr) {}
  explicit operator bool() const { return begin != 0; }

  T &operator[](int64_t i) const { return *(T *)checked(begin + (uint64_t)i * sizeof(T), sizeof(T)); }
  martlet_cuda_address address(int64_t i) const { return begin + (uint64_t)i * sizeof(T); }

  uint64_t checked(uint64_t address, uint64_t count) const {
    if (!allocation || address < allocation->begin || address + count > allocation->end)
      emulator::machine->fail(
          allocation ? "reaches for " + std::to_string(count) + " bytes at byte " + std::to_string((int64_t)(address - allocation->begin))
                  + " of an allocation of " + std::to_string(allocation->end - allocation->begin) + " bytes"
                     : "reaches for an address in no allocation (" + std::to_string(begin) + ")");
    if (address % count != 0)
      emulator::machine->fail("reaches for " + std::to_string(count) + " bytes at an address that is no multiple of them");
    return address;
  }
};

// A value of shared memory, which is read and written by the emulator's leave.
template <typename T>
struct SharedValue {
  uint32_t offset;

  operator T() const {
    T value;
    emulator::machine->read_shared(offset, sizeof(T), &value, emulator::machine->thread());
    return value;
  }
  T operator=(T value) const {
    emulator::machine->write_shared(offset, sizeof(T), &value);
    return value;
  }
  T operator=(const SharedValue &other) const { return *this = (T)other; }
};

template <typename T>
struct shared {
  uint32_t offset, count;

  shared(int32_t offset, int32_t count) : offset((uint32_t)offset), count((uint32_t)count) {
    if ((uint32_t)offset % sizeof(T) != 0) emulator::machine->fail("shared memory at byte " + std::to_string(offset) + " is not aligned");
  }
  SharedValue<T> operator[](int32_t i) const { return {at<T>(i)}; }
  template <typename Vector>
  Vector load(int32_t i) const {
    return SharedValue<Vector>{at<Vector>(i)};
  }
  template <typename Vector>
  void store(int32_t i, Vector vector) const {
    SharedValue<Vector>{at<Vector>(i)} = vector;
  }
  template <typename Vector>
  uint32_t at(int32_t i) const {
    if (i < 0 || (uint64_t)(uint32_t)i * sizeof(T) + sizeof(Vector) > (uint64_t)count * sizeof(T))
      emulator::machine->fail("reaches for value " + std::to_string(i) + " of " + std::to_string(count) + " at byte " + std::to_string(offset)
                              + " of shared memory");
    uint32_t byte = offset + (uint32_t)i * sizeof(T);
    if (byte % sizeof(Vector) != 0)
      emulator::machine->fail("reaches for " + std::to_string(sizeof(Vector)) + " bytes at byte " + std::to_string(byte) + " of shared memory");
    return byte;
  }
};

MARTLET_DEVICE float load_fresh(global<const float> from, int64_t i) { return from[i]; }

MARTLET_DEVICE int32_t atomic_add(global<int32_t> to, int64_t i, int32_t value) {
  int32_t before = to[i];
  to[i] = (int32_t)((uint32_t)before + (uint32_t)value);
  return before;
}

MARTLET_DEVICE void fence() {}

// MARK: threads meet

using emulator::Site;

MARTLET_DEVICE void barrier(Site site = Site::here()) { emulator::machine->meet_block(site); }
MARTLET_DEVICE void warp_barrier(Site site = Site::here()) {
  emulator::machine->meet_warp("a warp's barrier", site, 0xFFFFFFFF, nullptr, nullptr);
}

template <typename T>
struct ShuffleDeposit {
  T value, result;
  int32_t from;
};

template <typename T>
void emulated_shuffle(void *const lanes[32]) {
  for (int lane = 0; lane < 32; lane++) {
    auto *here = (ShuffleDeposit<T> *)lanes[lane];
    here->result = ((ShuffleDeposit<T> *)lanes[here->from & 31])->value;
  }
}

template <typename T>
T shuffle_xor(T value, int32_t lanes, Site site = Site::here()) {
  ShuffleDeposit<T> deposit{value, value, emulator::machine->thread().lane() ^ lanes};
  emulator::machine->meet_warp("a shuffle", site, 0xFFFFFFFF, emulated_shuffle<T>, &deposit);
  return deposit.result;
}

template <typename T>
T shuffle(T value, int32_t lane, Site site = Site::here()) {
  ShuffleDeposit<T> deposit{value, value, lane};
  emulator::machine->meet_warp("a shuffle", site, 0xFFFFFFFF, emulated_shuffle<T>, &deposit);
  return deposit.result;
}

struct BallotDeposit {
  bool condition;
  uint32_t result;
};

MARTLET_DEVICE void emulated_ballot(void *const lanes[32]) {
  uint32_t bits = 0;
  for (int lane = 0; lane < 32; lane++) bits |= (uint32_t)((BallotDeposit *)lanes[lane])->condition << lane;
  for (int lane = 0; lane < 32; lane++) ((BallotDeposit *)lanes[lane])->result = bits;
}

MARTLET_DEVICE uint32_t ballot(bool condition, Site site = Site::here()) {
  BallotDeposit deposit{condition, 0};
  emulator::machine->meet_warp("a ballot", site, 0xFFFFFFFF, emulated_ballot, &deposit);
  return deposit.result;
}

// MARK: copies

template <typename T>
void copy_async_16(shared<T> to, int32_t i, global<const uint8_t> from, int64_t byte, bool reads) {
  const uint8_t *source = reads ? (const uint8_t *)from.checked(from.begin + (uint64_t)byte, 16) : nullptr;
  emulator::machine->copy_async(to.template at<words4>(i), source);
}

MARTLET_DEVICE void commit_copies() { emulator::machine->commit_copies(); }

template <int pending>
void wait_copies() {
  emulator::machine->wait_copies(pending);
}

// MARK: tensor cores

struct MatricesDeposit {
  emulator::Thread *thread;
  uint32_t offset;
  uint32_t tile[4];
};

template <bool is_transposed>
void emulated_load_matrices(void *const lanes[32]) {
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t values[8][8];
    for (int row = 0; row < 8; row++) {
      auto *given = (MatricesDeposit *)lanes[8 * matrix + row];
      emulator::machine->read_shared(given->offset, 16, values[row], *given->thread);
    }
    for (int lane = 0; lane < 32; lane++) {
      int major = lane / 4, minor = lane % 4 * 2;
      uint32_t low = is_transposed ? values[minor][major] : values[major][minor];
      uint32_t high = is_transposed ? values[minor + 1][major] : values[major][minor + 1];
      ((MatricesDeposit *)lanes[lane])->tile[matrix] = low | high << 16;
    }
  }
}

template <bool is_transposed>
void emulated_load_matrices(uint32_t tile[4], shared<uint16_t> rows, int32_t i, Site site) {
  MatricesDeposit deposit{&emulator::machine->thread(), rows.at<words4>(i), {}};
  emulator::machine->meet_warp("ldmatrix", site, 0xFFFFFFFF, emulated_load_matrices<is_transposed>, &deposit);
  std::memcpy(tile, deposit.tile, sizeof deposit.tile);
}

MARTLET_DEVICE void load_matrices(uint32_t tile[4], shared<uint16_t> rows, int32_t i, Site site = Site::here()) {
  emulated_load_matrices<false>(tile, rows, i, site);
}
MARTLET_DEVICE void load_matrices_transposed(uint32_t tile[4], shared<uint16_t> rows, int32_t i, Site site = Site::here()) {
  emulated_load_matrices<true>(tile, rows, i, site);
}

MARTLET_DEVICE float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

struct MultiplyDeposit {
  float *sum;
  const uint32_t *a;
  uint32_t b[2];
};

// The sixteen products are exact in double, and are added there; one rounding to float32 at the end.
MARTLET_DEVICE void emulated_multiply_bf16(void *const lanes[32]) {
  auto value = [](uint32_t word, int half) { return float_of_bits(half ? word & 0xFFFF0000u : word << 16); };
  float a[16][16], b[8][16];
  for (int lane = 0; lane < 32; lane++) {
    auto *given = (MultiplyDeposit *)lanes[lane];
    int group = lane / 4, pair = lane % 4 * 2;
    for (int e = 0; e < 8; e++) a[group + e / 2 % 2 * 8][pair + e % 2 + e / 4 * 8] = value(given->a[e / 2], e % 2);
    for (int e = 0; e < 4; e++) b[group][pair + e % 2 + e / 2 * 8] = value(given->b[e / 2], e % 2);
  }
  for (int lane = 0; lane < 32; lane++) {
    float *sum = ((MultiplyDeposit *)lanes[lane])->sum;
    for (int e = 0; e < 4; e++) {
      const float *row = a[lane / 4 + e / 2 * 8], *column = b[lane % 4 * 2 + e % 2];
      double total = sum[e];
      for (int k = 0; k < 16; k++) total += (double)row[k] * (double)column[k];
      sum[e] = (float)total;
    }
  }
}

MARTLET_DEVICE void multiply_bf16(float sum[4], const uint32_t a[4], uint32_t b0, uint32_t b1, Site site = Site::here()) {
  MultiplyDeposit deposit{sum, a, {b0, b1}};
  emulator::machine->meet_warp("mma", site, 0xFFFFFFFF, emulated_multiply_bf16, &deposit);
}

// MARK: numbers

MARTLET_DEVICE uint32_t bits_of_float(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
MARTLET_DEVICE float fused(float a, float b, float c) { return std::fma(a, b, c); }
MARTLET_DEVICE float square_root(float x) { return std::sqrt(x); }
MARTLET_DEVICE double square_root(double x) { return std::sqrt(x); }

MARTLET_DEVICE float exp2_fast(float x) {
  float power = std::exp2(std::fabs(x) < 0x1p-126f ? 0.0f : x);
  return power < 0x1p-126f ? 0.0f : power;
}

// cvt.rn.bf16.f32: the nearest, ties to even; NaN is 0x7FFF.
MARTLET_DEVICE uint16_t emulated_bf16(float value) {
  uint32_t bits = bits_of_float(value);
  if (value != value) return 0x7FFF;
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

MARTLET_DEVICE uint32_t bf16_pair(float low, float high) { return emulated_bf16(low) | (uint32_t)emulated_bf16(high) << 16; }

// In double products of two bfloat16 are exact, and a sum that float32 and then bfloat16 would round twice is rounded to an odd float32 before.
MARTLET_DEVICE uint16_t emulated_fused_bf16(uint16_t a, uint16_t b, uint16_t c) {
  double product = (double)float_of_bits((uint32_t)a << 16) * (double)float_of_bits((uint32_t)b << 16), addend = float_of_bits((uint32_t)c << 16);
  double sum = product + addend, lost = std::fabs(product) > std::fabs(addend) ? addend - (sum - product) : product - (sum - addend);
  float nearest = (float)sum;
  double rest = (sum - (double)nearest) + lost;
  if (rest != 0 && rest == rest && std::isfinite(nearest)) {
    float towards = (rest > 0) == (nearest > 0) ? nearest : std::nextafter(nearest, 0.0f);  // rounded down, with a bit that says so
    nearest = float_of_bits(bits_of_float(towards) | 1u);
  }
  return emulated_bf16(nearest);
}

MARTLET_DEVICE uint32_t fused_bf16_pairs(uint32_t a, uint32_t b, uint32_t c) {
  return emulated_fused_bf16((uint16_t)a, (uint16_t)b, (uint16_t)c)
    | (uint32_t)emulated_fused_bf16((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)) << 16;
}

MARTLET_DEVICE float float_of_f16(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023u;
  if (exponent == 31) return float_of_bits(sign | 0x7F800000u | (fraction ? 0x400000u | fraction << 13 : 0));
  float magnitude = exponent == 0 ? (float)fraction * 0x1p-24f : float_of_bits((exponent + 112) << 23 | fraction << 13);
  return sign ? -magnitude : magnitude;
}

// cvt.rn.f16.f32: the nearest, ties to even; too great ones are infinite, NaN is 0x7FFF.
MARTLET_DEVICE uint16_t f16_of_float(float value) {
  uint32_t sign = bits_of_float(value) >> 16 & 0x8000u;
  float magnitude = std::fabs(value);
  if (value != value) return 0x7FFF;
  if (magnitude >= 65520.0f) return (uint16_t)(sign | 0x7C00);
  // Adding a power of two leaves the bits that a half has: the float's own rounding is the half's.
  uint32_t exponent = bits_of_float(magnitude) >> 23;
  if (exponent < 113) return (uint16_t)(sign | (bits_of_float(magnitude + 0.5f) - 0x3F000000u));
  uint32_t bits = bits_of_float(magnitude);
  bits = (bits + 0xFFFu + (bits >> 13 & 1)) >> 13;
  return (uint16_t)(sign | (bits - (112u << 10)));
}

#endif
