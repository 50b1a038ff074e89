// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Tests the emulator, not kernels: its instructions against the PTX ISA's tables (8.0, "Matrix fragments for mma.m16n8k16", "ldmatrix", "cvt", "fma"), which
// are written down here once more, and every fault that it is there to find, each in a kernel that has it.
//
// The program brings kernels of its own, so that it links with emulator.cpp alone. The exit status is 1 if anything differs.

#define MARTLET_EMULATED 1

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "martlet_cuda_emulator.h"
#include "../../../Sources/CMartletCUDAKernels/kernels/ptx.cuh"

namespace {

int failures;

void expect(bool is_right, const char *what) {
  if (!is_right) failures++;
  std::printf("%-70s %s\n", what, is_right ? "ok" : "WRONG");
}

uint64_t random_state = 1;
uint32_t random_bits() {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 32);
}

// MARK: kernels

struct Arguments {
  uint64_t input, output;
};

float bf16_value(uint16_t bits) { return float_of_bits((uint32_t)bits << 16); }

// A [16][16], B [16][8] (row k), C [16][8], all as their halves; C float.
void run_multiply(const void *p) {
  const auto &a = *(const Arguments *)p;
  global<const uint16_t> values(a.input);
  global<float> sums(a.output);
  int lane = thread_index(), group_id = lane >> 2, thread_in_group = lane % 4;
  uint16_t av[8], bv[4];
  float c[4];
  // "row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise; col = (threadID_in_group * 2) + (i & 0x1) for ai where i < 4,
  //  + 8 for ai where i >= 4"
  for (int i = 0; i < 8; i++) {
    int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? group_id : group_id + 8;
    int col = i < 4 ? thread_in_group * 2 + (i & 1) : thread_in_group * 2 + (i & 1) + 8;
    av[i] = values[row * 16 + col];
  }
  // "row = (threadID_in_group * 2) + (i & 0x1) for bi where i < 2, + 8 for bi where i >= 2; col = groupID"
  for (int i = 0; i < 4; i++) {
    int row = i < 2 ? thread_in_group * 2 + (i & 1) : thread_in_group * 2 + (i & 1) + 8;
    bv[i] = values[256 + row * 8 + group_id];
  }
  // "row = groupID for ci where i < 2, groupID + 8 for ci where i >= 2; col = (threadID_in_group * 2) + (i & 0x1)"
  auto place = [&](int i) { return (i < 2 ? group_id : group_id + 8) * 8 + thread_in_group * 2 + (i & 1); };
  for (int i = 0; i < 4; i++) c[i] = sums[place(i)];
  uint32_t registers[4];
  for (int i = 0; i < 4; i++) registers[i] = av[2 * i] | (uint32_t)av[2 * i + 1] << 16;
  multiply_bf16(c, registers, bv[0] | (uint32_t)bv[1] << 16, bv[2] | (uint32_t)bv[3] << 16);
  for (int i = 0; i < 4; i++) sums[place(i)] = c[i];
}

// Four matrices of 8 × 8 from shared memory whose rows lie 24 values apart; each lane's four registers to output, and of the transposed ones.
void run_load_matrices(const void *p) {
  const auto &a = *(const Arguments *)p;
  global<const uint16_t> values(a.input);
  global<uint32_t> registers(a.output);
  shared<uint16_t> rows(0, 32 * 24);
  int lane = thread_index();
  for (int i = 0; i < 24; i++) rows[lane * 24 + i] = values[lane * 24 + i];
  barrier();
  uint32_t tile[4];
  load_matrices(tile, rows, lane * 24 + 8);
  for (int i = 0; i < 4; i++) registers[lane * 8 + i] = tile[i];
  load_matrices_transposed(tile, rows, lane * 24 + 8);
  for (int i = 0; i < 4; i++) registers[lane * 8 + 4 + i] = tile[i];
}

void run_lanes(const void *p) {
  const auto &a = *(const Arguments *)p;
  global<uint32_t> output(a.output);
  int lane = thread_index();
  output[lane] = shuffle_xor((uint32_t)lane, 5);
  output[32 + lane] = shuffle((uint32_t)lane * 3, (lane + 1) % 32);
  output[64 + lane] = ballot(lane % 3 == 0);
}

void run_copies(const void *p) {
  const auto &a = *(const Arguments *)p;
  global<const uint8_t> input(a.input);
  global<uint32_t> output(a.output);
  shared<uint32_t> words(0, 64 * 8);
  int thread = thread_index();
  copy_async_16(words, thread * 4, input, thread * 16, true);
  commit_copies();
  copy_async_16(words, 256 + thread * 4, input, 0, false);
  commit_copies();
  wait_copies<1>();
  output[thread] = words[thread * 4];
  wait_copies<0>();
  barrier();
  output[64 + thread] = words[(63 - thread) * 4 + 3];
  output[128 + thread] = words[256 + (63 - thread) * 4];
}

void run_atomics(const void *p) {
  const auto &a = *(const Arguments *)p;
  global<int32_t> counter(a.output);
  atomic_add(counter, 0, thread_index());
  counter[1] = block_x();  // the last block to run
}

// Faults.

void run_missing_barrier(const void *) {
  shared<float> values(0, 64);
  values[thread_index()] = 1;
  float x = values[63 - thread_index()];
  (void)x;
}
void run_warp_barrier_between_warps(const void *) {
  shared<float> values(0, 64);
  values[thread_index()] = 1;
  warp_barrier();
  float x = values[63 - thread_index()];
  (void)x;
}
void run_warp_barrier_in_warp(const void *) {
  shared<float> values(0, 32);
  values[thread_index()] = 1;
  warp_barrier();
  float x = values[31 - thread_index()];
  warp_barrier();
  values[thread_index()] = x;
}
void run_write_after_read(const void *) {
  shared<float> values(0, 64);
  values[thread_index()] = 1;
  barrier();
  float x = values[63 - thread_index()];
  values[thread_index()] = x;
}
void run_two_writers(const void *) { shared<float>(0, 1)[0] = (float)thread_index(); }
void run_early_read(const void *p) {
  global<const uint8_t> input(((const Arguments *)p)->input);
  shared<uint32_t> words(0, 256);
  copy_async_16(words, thread_index() * 4, input, thread_index() * 16, true);
  commit_copies();
  wait_copies<1>();
  uint32_t x = words[thread_index() * 4];
  (void)x;
}
void run_copy_without_barrier(const void *p) {
  global<const uint8_t> input(((const Arguments *)p)->input);
  shared<uint32_t> words(0, 256);
  copy_async_16(words, thread_index() * 4, input, thread_index() * 16, true);
  commit_copies();
  wait_copies<0>();
  uint32_t x = words[(63 - thread_index()) * 4];
  (void)x;
}
void run_copy_never_awaited(const void *p) {
  global<const uint8_t> input(((const Arguments *)p)->input);
  copy_async_16(shared<uint32_t>(0, 256), thread_index() * 4, input, thread_index() * 16, true);
}
void run_copy_not_aligned(const void *p) {
  global<const uint8_t> input(((const Arguments *)p)->input);
  copy_async_16(shared<uint32_t>(0, 256), thread_index() * 4, input, thread_index() * 16 + 4, thread_index() < 60);
  commit_copies();
  wait_copies<0>();
}
void run_unwritten(const void *) {
  float x = shared<float>(0, 64)[thread_index()];
  (void)x;
}
void run_outside_global(const void *p) { global<float>(((const Arguments *)p)->output)[1024] = 1; }
void run_before_global(const void *p) { global<float>(((const Arguments *)p)->output)[-1] = 1; }
void run_null(const void *) { global<float>(0)[0] = 1; }
void run_odd_address(const void *p) { global<words4>(((const Arguments *)p)->output + 8)[0] = {}; }
void run_outside_array(const void *) { shared<float>(0, 32)[thread_index()] = 1; }
void run_outside_shared(const void *) { shared<float>(0, 4096)[2048 + thread_index()] = 1; }
void run_parted_warp(const void *) {
  if (thread_index() % 32 < 16) shuffle_xor(1, 1);
  else shuffle_xor(1, 2);
}
void run_missing_lane(const void *) {
  if (thread_index() != 40) shuffle_xor(1, 1);
}
void run_missing_at_barrier(const void *) {
  if (thread_index() < 32) barrier();
}
void run_two_barriers(const void *) {
  if (thread_index() < 32) barrier();
  else barrier();
}

}  // namespace

const std::vector<emulator::Kernel> &emulator::kernels() {
  static const std::vector<Kernel> all = {
      {"multiply", 32, run_multiply},
      {"load_matrices", 32, run_load_matrices},
      {"lanes", 32, run_lanes},
      {"copies", 64, run_copies},
      {"atomics", 64, run_atomics},
      {"missing_barrier", 64, run_missing_barrier},
      {"warp_barrier_between_warps", 64, run_warp_barrier_between_warps},
      {"warp_barrier_in_warp", 32, run_warp_barrier_in_warp},
      {"write_after_read", 64, run_write_after_read},
      {"two_writers", 64, run_two_writers},
      {"early_read", 64, run_early_read},
      {"copy_without_barrier", 64, run_copy_without_barrier},
      {"copy_never_awaited", 64, run_copy_never_awaited},
      {"copy_not_aligned", 64, run_copy_not_aligned},
      {"unwritten", 64, run_unwritten},
      {"outside_global", 64, run_outside_global},
      {"before_global", 64, run_before_global},
      {"null", 64, run_null},
      {"odd_address", 64, run_odd_address},
      {"outside_array", 64, run_outside_array},
      {"outside_shared", 64, run_outside_shared},
      {"parted_warp", 64, run_parted_warp},
      {"missing_lane", 64, run_missing_lane},
      {"missing_at_barrier", 64, run_missing_at_barrier},
      {"two_barriers", 64, run_two_barriers},
  };
  return all;
}

namespace {

struct Run {
  martlet_emulator *emulator;
  uint64_t input, output;

  explicit Run(uint64_t seed) : emulator(martlet_emulator_create(seed)) {
    input = martlet_emulator_allocate(emulator, 4096);
    output = martlet_emulator_allocate(emulator, 4096);
  }
  ~Run() { martlet_emulator_destroy(emulator); }

  bool launch(const char *name, uint32_t blocks = 1) {
    Arguments arguments{input, output};
    void *parameters[] = {&arguments};
    int32_t kernel = martlet_emulator_kernel(name);
    uint32_t threads = kernel < 0 ? 0 : (uint32_t)emulator::kernels()[(size_t)kernel].threads;
    return martlet_emulator_launch(emulator, kernel, blocks, 1, 1, threads, 1, 1, 4096, parameters);
  }
};

void check_multiply() {
  Run run(7);
  auto *values = (uint16_t *)run.input;
  auto *sums = (float *)run.output;
  double expected[128], scale[128];
  for (int i = 0; i < 256 + 128; i++) values[i] = (uint16_t)((random_bits() & 0x80FF) | (0x3F00 + (random_bits() % 3 << 7)));
  for (int i = 0; i < 128; i++) sums[i] = (float)(random_bits() % 1000) * 0.37f;
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 8; column++) {
      double sum = sums[row * 8 + column], greatest = std::fabs(sum);
      for (int k = 0; k < 16; k++) {
        double product = (double)bf16_value(values[row * 16 + k]) * (double)bf16_value(values[256 + k * 8 + column]);
        sum += product;
        greatest += std::fabs(product);
      }
      expected[row * 8 + column] = sum, scale[row * 8 + column] = greatest;
    }
  bool is_right = run.launch("multiply");
  for (int i = 0; i < 128; i++) is_right &= std::fabs(sums[i] - expected[i]) <= 0x1p-23 * scale[i];
  expect(is_right, "mma.m16n8k16 of bf16 has the fragments of the document");
}

void check_load_matrices() {
  Run run(8);
  auto *values = (uint16_t *)run.input;
  auto *registers = (uint32_t *)run.output;
  for (int i = 0; i < 32 * 24; i++) values[i] = (uint16_t)random_bits();
  bool is_right = run.launch("load_matrices"), is_transposed_right = is_right;
  for (int lane = 0; lane < 32; lane++)
    for (int matrix = 0; matrix < 4; matrix++)
      for (int half = 0; half < 2; half++) {
        // "each row needs to be stored in contiguous memory, 8 addresses to a matrix; thread i holds elements 2 (i mod 4) and the next of row i / 4"
        auto element = [&](int row, int column) { return values[(matrix * 8 + row) * 24 + 8 + column]; };
        int row = lane / 4, column = lane % 4 * 2 + half;
        is_right &= (uint16_t)(registers[lane * 8 + matrix] >> 16 * half) == element(row, column);
        is_transposed_right &= (uint16_t)(registers[lane * 8 + 4 + matrix] >> 16 * half) == element(column, row);
      }
  expect(is_right, "ldmatrix.x4 deals rows as the document has it");
  expect(is_transposed_right, "ldmatrix.x4.trans deals columns");
}

void check_lanes() {
  Run run(9);
  auto *output = (uint32_t *)run.output;
  bool is_right = run.launch("lanes");
  uint32_t bits = 0;
  for (uint32_t lane = 0; lane < 32; lane++) bits |= (lane % 3 == 0 ? 1u : 0u) << lane;
  for (uint32_t lane = 0; lane < 32; lane++)
    is_right &= output[lane] == (lane ^ 5) && output[32 + lane] == (lane + 1) % 32 * 3 && output[64 + lane] == bits;
  expect(is_right, "shuffles and ballots");
}

void check_copies() {
  Run run(10);
  auto *input = (uint32_t *)run.input, *output = (uint32_t *)run.output;
  for (int i = 0; i < 256; i++) input[i] = random_bits();
  bool is_right = run.launch("copies");
  for (int i = 0; i < 64; i++) is_right &= output[i] == input[i * 4] && output[64 + i] == input[(63 - i) * 4 + 3] && output[128 + i] == 0;
  expect(is_right, "copies land at their wait, and copies of nothing are zeros");
}

void check_atomics() {
  bool differs = false, is_right = true;
  int32_t first = -1;
  for (uint64_t seed = 1; seed <= 8; seed++) {
    Run run(seed);
    auto *output = (int32_t *)run.output;
    output[0] = 0;
    is_right &= run.launch("atomics", 20) && output[0] == 20 * 63 * 32;
    if (first < 0) first = output[1];
    differs |= output[1] != first;
  }
  expect(is_right, "atomic additions of all blocks are there");
  expect(differs, "the order of blocks is the seed's");
}

// The nearest of a format's values to x, ties to even, found by looking: `value` gives the magnitude of a code, codes ascend.
uint32_t nearest_code(double x, uint32_t greatest, double (*value)(uint32_t)) {
  uint32_t low = 0, high = greatest;
  double magnitude = std::fabs(x);
  while (high - low > 1) {
    uint32_t middle = (low + high) / 2;
    if (value(middle) <= magnitude) low = middle;
    else high = middle;
  }
  double below = magnitude - value(low), above = value(high) - magnitude;
  uint32_t code = below < above ? low : above < below ? high : low % 2 == 0 ? low : high;
  return code;
}

double bf16_magnitude(uint32_t code) {
  return code == 0x7F80 ? 0x1p128 : std::ldexp((double)((code & 127) + (code >= 128 ? 128 : 0)), (int)(code < 128 ? 1 : code / 128) - 127 - 7);
}
double f16_magnitude(uint32_t code) {
  return code == 0x7C00 ? 65536 : std::ldexp((double)((code & 1023) + (code >= 1024 ? 1024 : 0)), (int)(code < 1024 ? 1 : code / 1024) - 15 - 10);
}

void check_conversions() {
  bool is_bf16 = true, is_f16 = true, is_wide = true, is_fused = true;
  for (uint32_t code = 0; code < 0x7C00; code++) is_wide &= float_of_f16((uint16_t)code) == f16_magnitude(code) && float_of_f16((uint16_t)(code | 0x8000)) == -f16_magnitude(code);
  is_wide &= std::isinf(float_of_f16(0x7C00)) && std::isnan(float_of_f16(0x7E01));
  for (int turn = 0; turn < 200000; turn++) {
    float x = float_of_bits(random_bits());
    if (turn % 2) x = float_of_bits((random_bits() & 0x80FFE000u) | (0x38000000u + (random_bits() % 0x0F000000u & 0xFFFFF000u)));  // halves and ties between
    if (turn % 5 == 0) x = float_of_bits(bits_of_float(x) & 0xFFFF8000u);                                                          // ties of bf16
    if (!(std::fabs(x) <= 3.4e38f)) continue;
    uint32_t sign = std::signbit(x) ? 0x8000u : 0;
    is_bf16 &= (bf16_pair(0, x) >> 16) == (nearest_code(x, 0x7F80, bf16_magnitude) | sign);
    uint32_t half = std::fabs(x) >= 65536 ? 0x7C00u : nearest_code(x, 0x7C00, f16_magnitude);
    is_f16 &= f16_of_float(x) == (half | sign);
  }
  for (int turn = 0; turn < 200000; turn++) {
    auto value = [] { return (uint16_t)((random_bits() & 0x80FF) | (0x3C00 + (random_bits() % 12 << 7))); };
    uint16_t a = value(), b = value(), c = value();
    // Exact in double: exponents are no further apart than its bits.
    double sum = (double)bf16_value(a) * (double)bf16_value(b) + (double)bf16_value(c);
    uint32_t expected = nearest_code(sum, 0x7F80, bf16_magnitude) | (std::signbit(sum) ? 0x8000u : 0);
    is_fused &= fused_bf16_pairs(a | 0x3F800000u, b, c) == expected;
  }
  expect(is_bf16, "cvt.rn.bf16x2.f32 rounds to the nearest, ties to even");
  expect(is_f16, "cvt.rn.f16.f32 rounds to the nearest, ties to even");
  expect(is_wide, "cvt.f32.f16 is exact");
  expect(is_fused, "fma.rn.bf16x2 rounds once");
  bool is_power = exp2_fast(-INFINITY) == 0 && std::isinf(exp2_fast(INFINITY)) && exp2_fast(0) == 1 && exp2_fast(-127) == 0 && std::isnan(exp2_fast(NAN));
  for (int turn = 0; turn < 10000; turn++) {
    float x = (float)(int32_t)random_bits() * 0x1p-31f * 120;
    is_power &= std::fabs(exp2_fast(x) / std::exp2((double)x) - 1) <= 0x1p-22;
  }
  expect(is_power, "ex2.approx.ftz is within its error");
}

void check_fault(const char *kernel, const char *words) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Run run(seed);
    if (run.launch(kernel) || !std::strstr(martlet_emulator_error(run.emulator), words)) {
      std::printf("%s, seed %d: \"%s\" lacks \"%s\"\n", kernel, (int)seed, martlet_emulator_error(run.emulator), words);
      expect(false, kernel);
      return;
    }
  }
  expect(true, kernel);
}

}  // namespace

int main() {
  check_multiply();
  check_load_matrices();
  check_lanes();
  check_copies();
  check_atomics();
  check_conversions();
  // The one that comes first finds nothing, or the other's value: that is the seed's.
  check_fault("missing_barrier", " of shared memory, which ");
  check_fault("warp_barrier_between_warps", " of shared memory, which ");
  check_fault("write_after_read", "without a barrier between");
  check_fault("two_writers", "without a barrier between");
  check_fault("early_read", "before its copy was waited for");
  check_fault("copy_without_barrier", " of shared memory");
  check_fault("copy_never_awaited", "ends before its copies were waited for");
  check_fault("copy_not_aligned", "no multiple of them");
  check_fault("unwritten", "which nobody wrote");
  check_fault("outside_global", "of an allocation of 4096 bytes");
  check_fault("before_global", "at byte -4 of an allocation");
  check_fault("null", "an address in no allocation");
  check_fault("odd_address", "no multiple of them");
  check_fault("outside_array", " of 32 at byte 0");
  check_fault("outside_shared", "of 4096");
  check_fault("parted_warp", "threads wait for each other");
  check_fault("missing_lane", "threads wait for each other");
  check_fault("missing_at_barrier", "threads wait for each other");
  check_fault("two_barriers", "threads wait for each other");
  Run run(1);
  expect(run.launch("warp_barrier_in_warp"), "a warp's barrier orders its lanes");
  expect(!run.launch("no such kernel") && !martlet_emulator_free(run.emulator, 12345), "what is not there is an error");
  return failures != 0;
}
