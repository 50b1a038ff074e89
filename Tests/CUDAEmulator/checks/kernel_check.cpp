// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Runs the CUDA kernels on the emulator and compares them with float64, written down here without any tiles, lanes or packed orders.
//
// Sizes are mostly no multiples of anything, so that wrong tails show; memory begins as NaN, so that reading on spoils a result, and reading or writing
// outside an allocation is the emulator's error. A row's bits must not depend on its neighbours, nor on the order that the seed chooses.
//
//   kernel_check [PART…]    rows, products, append, attention; none means all. The exit status is 1 if anything differs.
//   kernel_check products FORMAT, kernel_check attention CASE    those of one name.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "martlet_cuda_emulator.h"
#include "../../../Sources/CMartletCUDAKernels/include/martlet_cuda_kernels.h"

namespace {

int failures, comparisons;
std::string chosen_case;  // of products or attention; empty: all

// MARK: numbers

uint64_t random_state = 1;
uint64_t random_bits() {  // splitmix64
  uint64_t z = random_state += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}
float random_float(float scale) { return scale * ((float)(random_bits() >> 40) * 0x1p-23f - 1); }
int random_below(int count) { return (int)(random_bits() % (uint64_t)count); }

std::vector<float> random_floats(size_t count, float scale = 1) {
  std::vector<float> values(count);
  for (float &value : values) value = random_float(scale);
  return values;
}

double half_value(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double magnitude = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(fraction + 1024, exponent - 25);
  return bits >> 15 ? -magnitude : magnitude;
}
double bf16_value(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}
double e4m3_value(uint8_t bits) {
  int exponent = bits >> 3 & 15, fraction = bits & 7;
  double magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(fraction + 8, exponent - 10);
  if ((bits & 127) == 127) magnitude = NAN;
  return bits >> 7 ? -magnitude : magnitude;
}
double e2m1_value(int code) {
  static const double magnitudes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return code & 8 ? -magnitudes[code & 7] : magnitudes[code & 7];
}
// A half that is a scale: about 0.001 to 0.1.
uint16_t random_half() { return (uint16_t)(0x1400 + random_below(0x1A00)); }

// MARK: the emulator

// One emulator; memory of vectors.
class Device {
 public:
  explicit Device(uint64_t seed) : emulator(martlet_emulator_create(seed)) {}
  ~Device() { martlet_emulator_destroy(emulator); }
  Device(const Device &) = delete;

  template <typename T>
  uint64_t make(const std::vector<T> &values) {
    uint64_t address = martlet_emulator_allocate(emulator, values.size() * sizeof(T));
    if (!values.empty()) std::memcpy((void *)address, values.data(), values.size() * sizeof(T));
    return address;
  }
  uint64_t room(size_t bytes) { return martlet_emulator_allocate(emulator, bytes); }
  template <typename T>
  std::vector<T> read(uint64_t address, size_t count) {
    std::vector<T> values(count);
    if (count) std::memcpy(values.data(), (void *)address, count * sizeof(T));
    return values;
  }

  template <typename Arguments>
  void run(const martlet_cuda_launch &launch, Arguments arguments) {
    if (launch.grid_x == 0) return;
    const char *name = martlet_cuda_kernel_at(launch.kernel).name;
    void *parameters[] = {&arguments};
    int32_t kernel = martlet_emulator_kernel(name);
    if (!martlet_emulator_launch(
            emulator, kernel, launch.grid_x, launch.grid_y, launch.grid_z, launch.block_x, 1, 1, launch.shared_bytes, parameters)) {
      std::printf("%s  WRONG\n", martlet_emulator_error(emulator));
      failures++;
    }
  }

 private:
  martlet_emulator *emulator;
};

template <typename T>
void expect_equal(const std::string &what, const std::vector<T> &values, const std::vector<T> &expected) {
  comparisons++;
  if (values.size() == expected.size() && std::memcmp(values.data(), expected.data(), values.size() * sizeof(T)) == 0) return;
  size_t i = 0;
  while (i < values.size() && i < expected.size() && std::memcmp(&values[i], &expected[i], sizeof(T)) == 0) i++;
  std::printf("%s: value %zu is %g, not %g  WRONG\n", what.c_str(), i, (double)values[i], (double)expected[i]);
  failures++;
}

// |value − expected| ≤ tolerance · scale(i); the scale defaults to |expected|.
void expect_close(
    const std::string &what, const std::vector<float> &values, const std::vector<double> &expected, double tolerance,
    const std::vector<double> &scales = {}) {
  comparisons++;
  for (size_t i = 0; i < expected.size(); i++) {
    double scale = scales.empty() ? std::fabs(expected[i]) : scales[i];
    double error = std::fabs(values[i] - expected[i]) / (scale > 0 ? scale : 1e-30);
    if (values[i] == expected[i]) error = 0;
    if (!(error <= tolerance)) {
      std::printf("%s: value %zu is %.9g, not %.9g (%.2g of its scale)  WRONG\n", what.c_str(), i, (double)values[i], expected[i], error);
      failures++;
      return;
    }
  }
}

// MARK: rows

constexpr uint64_t seeds[] = {1, 2};

void check_rows(int rows, int columns, uint64_t seed) {
  Device device(seed);
  random_state = 100 + (uint64_t)columns;
  std::string at = " [" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
  size_t count = (size_t)rows * (size_t)columns;
  std::vector<float> x = random_floats(count, 3), w = random_floats((size_t)columns), b = random_floats((size_t)columns), other = random_floats(count);
  auto row_of = [&](size_t i) { return i / (size_t)columns; };
  auto column_of = [&](size_t i) { return i % (size_t)columns; };
  std::vector<double> expected(count), scales(count);
  auto each = [&](const std::function<double(size_t)> &value) {
    for (size_t i = 0; i < count; i++) expected[i] = value(i);
  };
  // Mean, mean of squares, variance of each row.
  std::vector<double> mean((size_t)rows), squares((size_t)rows), variance((size_t)rows);
  for (size_t i = 0; i < count; i++) mean[row_of(i)] += x[i] / (double)columns, squares[row_of(i)] += (double)x[i] * x[i] / columns;
  for (size_t i = 0; i < count; i++) variance[row_of(i)] += (x[i] - mean[row_of(i)]) * (x[i] - mean[row_of(i)]) / columns;

  uint64_t input = device.make(x), weight = device.make(w), bias = device.make(b), output = device.room(count * 4);
  {
    martlet_cuda_rms_norm_arguments a = {input, weight, output, rows, columns, 1e-5f};
    device.run(martlet_cuda_launch_rms_norm(&a), a);
    each([&](size_t i) { return x[i] * w[column_of(i)] / std::sqrt(squares[row_of(i)] + 1e-5); });
    expect_close("rms_norm" + at, device.read<float>(output, count), expected, 1e-6);
    a.output = device.make(x), a.input = a.output;
    device.run(martlet_cuda_launch_rms_norm(&a), a);
    expect_equal("rms_norm in place" + at, device.read<float>(a.output, count), device.read<float>(output, count));
    // Alone, the last row has the bits that it has among others.
    a = {device.make(std::vector<float>(x.end() - columns, x.end())), weight, device.room((size_t)columns * 4), 1, columns, 1e-5f};
    device.run(martlet_cuda_launch_rms_norm(&a), a);
    expect_equal("rms_norm alone" + at, device.read<float>(a.output, (size_t)columns), device.read<float>(output + (count - (size_t)columns) * 4, (size_t)columns));
  }
  {
    martlet_cuda_layer_norm_arguments a = {input, weight, bias, output, rows, columns, 1e-5f};
    device.run(martlet_cuda_launch_layer_norm(&a), a);
    each([&](size_t i) {
      double value = (x[i] - mean[row_of(i)]) * w[column_of(i)] / std::sqrt(variance[row_of(i)] + 1e-5);
      scales[i] = std::fabs(value) + std::fabs(b[column_of(i)]) + 1e-3;
      return value + b[column_of(i)];
    });
    expect_close("layer_norm" + at, device.read<float>(output, count), expected, 3e-6, scales);
  }
  {
    martlet_cuda_unit_rows_arguments a = {device.make(x), rows, columns};
    device.run(martlet_cuda_launch_unit_rows(&a), a);
    each([&](size_t i) { return x[i] / std::sqrt(squares[row_of(i)] * columns); });
    expect_close("unit_rows" + at, device.read<float>(a.values, count), expected, 1e-7);
  }
  {
    martlet_cuda_add_arguments a = {device.make(other), device.make(x), (int64_t)count, 0.7f};
    device.run(martlet_cuda_launch_add(&a), a);
    each([&](size_t i) { return (double)(float)std::fma((double)other[i], (double)0.7f, (double)x[i]); });
    expect_close("add" + at, device.read<float>(a.accumulator, count), expected, 1e-6);
    a.scale = 1, a.accumulator = device.make(x);
    device.run(martlet_cuda_launch_add(&a), a);
    std::vector<float> sums(count);
    for (size_t i = 0; i < count; i++) sums[i] = x[i] + other[i];
    expect_equal("add, scale 1" + at, device.read<float>(a.accumulator, count), sums);
  }
  for (float cap : {0.0f, 2.5f}) {
    martlet_cuda_scale_arguments a = {device.make(x), (int64_t)count, 0.37f, cap};
    device.run(martlet_cuda_launch_scale(&a), a);
    each([&](size_t i) { return cap > 0 ? cap * std::tanh((double)0.37f * x[i] / cap) : (double)0.37f * x[i]; });
    expect_close("scale" + at, device.read<float>(a.values, count), expected, 6e-7);
  }
  std::vector<int32_t> indices((size_t)rows);
  for (int32_t &index : indices) index = random_below(rows);
  uint64_t places = device.make(indices);
  {
    std::vector<float> factors = random_floats((size_t)rows);
    int scaled = columns / 2 + 1;
    martlet_cuda_scale_rows_arguments a = {device.make(x), device.make(factors), places, rows, columns, scaled};
    device.run(martlet_cuda_launch_scale_rows(&a), a);
    std::vector<float> products = x;
    for (size_t i = 0; i < count; i++)
      if ((int)column_of(i) < scaled) products[i] *= factors[(size_t)indices[row_of(i)]];
    expect_equal("scale_rows" + at, device.read<float>(a.values, count), products);
  }
  for (bool chooses : {false, true}) {
    martlet_cuda_add_rows_arguments a = {device.make(other), chooses ? places : 0, device.make(x), rows, columns};
    device.run(martlet_cuda_launch_add_rows(&a), a);
    std::vector<float> sums = x;
    for (size_t i = 0; i < count; i++) sums[i] += other[(chooses ? (size_t)indices[row_of(i)] : 0) * (size_t)columns + column_of(i)];
    expect_equal("add_rows" + at, device.read<float>(a.accumulator, count), sums);
  }
  {
    std::vector<int32_t> offsets = {0, 0, rows / 3, rows / 3, rows, rows};
    martlet_cuda_add_group_rows_arguments a = {device.make(random_floats((size_t)columns * 5)), device.make(offsets), device.make(x), rows, columns, 5};
    device.run(martlet_cuda_launch_add_group_rows(&a), a);
    std::vector<float> sums = x, addends = device.read<float>(a.addends, (size_t)columns * 5);
    for (size_t i = 0; i < count; i++) sums[i] += addends[((int)row_of(i) < rows / 3 ? 1 : 3) * (size_t)columns + column_of(i)];
    expect_equal("add_group_rows" + at, device.read<float>(a.accumulator, count), sums);
  }
  for (int activation = 0; activation < 3; activation++) {
    std::vector<float> gate_up = random_floats(2 * count, 9);
    gate_up[0] = -120, gate_up[(size_t)columns] = 1;
    martlet_cuda_gated_activation_arguments a = {device.make(gate_up), output, rows, columns, activation, 1.702f, 7};
    device.run(martlet_cuda_launch_gated_activation(&a), a);
    each([&](size_t i) {
      double g = gate_up[2 * row_of(i) * (size_t)columns + column_of(i)], u = gate_up[(2 * row_of(i) + 1) * (size_t)columns + column_of(i)];
      scales[i] = std::fabs(u);
      if (activation == martlet_cuda_activation_silu) return g / (1 + std::exp(-g)) * u;
      if (activation == martlet_cuda_activation_gelu_tanh)
        return 0.5 * g * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g))) * u;
      g = std::fmin(g, 7), u = std::fmax(std::fmin(u, 7), -7);
      scales[i] = std::fabs(u + 1);
      return g / (1 + std::exp(-(double)1.702f * g)) * (u + 1);
    });
    for (double &scale : scales) scale = scale * 9 + 1e-6;
    expect_close("gated_activation " + std::to_string(activation) + at, device.read<float>(output, count), expected, 4e-7, scales);
  }
  for (bool has_bias : {false, true}) {
    martlet_cuda_gelu_arguments a = {device.make(x), has_bias ? bias : 0, rows, columns};
    device.run(martlet_cuda_launch_gelu(&a), a);
    each([&](size_t i) {
      double value = has_bias ? (double)(x[i] + b[column_of(i)]) : x[i];
      return 0.5 * value * std::erfc(-value / std::sqrt(2.0));
    });
    expect_close("gelu" + at, device.read<float>(a.values, count), expected, 2e-6);
  }
  {
    martlet_cuda_gather_rows_arguments a = {input, places, output, rows, columns};
    device.run(martlet_cuda_launch_gather_rows(&a), a);
    std::vector<float> gathered(count);
    for (size_t i = 0; i < count; i++) gathered[i] = x[(size_t)indices[row_of(i)] * (size_t)columns + column_of(i)];
    expect_equal("gather_rows" + at, device.read<float>(output, count), gathered);
  }
  if (columns % 5 == 0) {
    int width = columns / 5 - 1;
    martlet_cuda_copy_heads_arguments a = {input + 4, output, columns, columns / 5, 3 * width, width, rows, 3, width};
    device.run(martlet_cuda_launch_copy_heads(&a), a);
    std::vector<float> copied((size_t)rows * 3 * (size_t)width);
    for (size_t i = 0; i < copied.size(); i++) {
      size_t row = i / (3 * (size_t)width), head = i / (size_t)width % 3;
      copied[i] = x[row * (size_t)columns + head * (size_t)(columns / 5) + 1 + i % (size_t)width];
    }
    expect_equal("copy_heads" + at, device.read<float>(output, copied.size()), copied);
  }
  if (rows >= 3) {
    std::vector<int32_t> starts = {0, 1, rows - 1, rows};
    for (int method = 0; method < 3; method++) {
      martlet_cuda_pool_rows_arguments a = {input, device.make(starts), output, 3, columns, method};
      device.run(martlet_cuda_launch_pool_rows(&a), a);
      std::vector<float> pooled((size_t)columns * 3);
      for (size_t i = 0; i < pooled.size(); i++) {
        int first = starts[row_of(i)], end = starts[row_of(i) + 1];
        double sum = 0;
        for (int r = first; r < end; r++) sum += x[(size_t)r * (size_t)columns + column_of(i)];
        int chosen = method == martlet_cuda_pooling_first ? first : end - 1;
        pooled[i] = method == martlet_cuda_pooling_mean ? (float)(sum / (end - first)) : x[(size_t)chosen * (size_t)columns + column_of(i)];
      }
      expect_equal("pool_rows" + at, device.read<float>(output, pooled.size()), pooled);
    }
  }
  {
    std::vector<float> values = x;
    std::vector<int32_t> chosen((size_t)rows);
    for (int r = 0; r < rows; r++) {
      float *row = values.data() + (size_t)r * (size_t)columns;
      if (r % 4 == 1) row[columns - 1] = 50, row[columns / 2] = 50;           // a tie
      if (r % 4 == 2) row[0] = row[random_below(columns)] = NAN;              // the first has nothing before it that is greater
      if (r % 4 == 3) std::fill(row, row + columns, r % 8 == 3 ? NAN : -INFINITY);
      int best = -1;
      for (int i = 0; i < columns; i++)
        if (row[i] == row[i] && (best < 0 || row[i] > row[best])) best = i;
      chosen[(size_t)r] = best < 0 ? 0 : best;
    }
    martlet_cuda_argmax_arguments a = {device.make(values), device.room((size_t)rows * 4), rows, columns};
    device.run(martlet_cuda_launch_argmax(&a), a);
    expect_equal("argmax" + at, device.read<int32_t>(a.chosen, (size_t)rows), chosen);
  }
}

// MARK: products

const char *const format_names[] = {"F32", "F16", "BF16", "E4M3", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
                                    "IQ4_NL", "MXFP4", "NVFP4"};
static_assert(sizeof format_names / sizeof format_names[0] == martlet_cuda_format_count);

struct Block {
  int values, bytes;
};
Block block_of(int format) {
  switch (format) {
    case martlet_cuda_f32: return {1, 4};
    case martlet_cuda_f16:
    case martlet_cuda_bf16: return {1, 2};
    case martlet_cuda_e4m3: return {1, 1};
    case martlet_cuda_mxfp4: return {32, 17};
    case martlet_cuda_q4_0:
    case martlet_cuda_iq4_nl: return {32, 18};
    case martlet_cuda_q4_1: return {32, 20};
    case martlet_cuda_q5_0: return {32, 22};
    case martlet_cuda_q5_1: return {32, 24};
    case martlet_cuda_q8_0: return {32, 34};
    case martlet_cuda_nvfp4: return {64, 36};
    case martlet_cuda_q2_k: return {256, 84};
    case martlet_cuda_q3_k: return {256, 110};
    case martlet_cuda_q4_k: return {256, 144};
    case martlet_cuda_q5_k: return {256, 176};
    default: return {256, 210};
  }
}

// A block of a file with random codes and reasonable scales.
void random_block(int format, uint8_t *p) {
  Block block = block_of(format);
  for (int i = 0; i < block.bytes; i++) p[i] = (uint8_t)random_bits();
  auto half = [&](int at) {
    uint16_t bits = random_half();
    std::memcpy(p + at, &bits, 2);
  };
  float value = random_float(1);
  switch (format) {
    case martlet_cuda_f32: std::memcpy(p, &value, 4); break;
    case martlet_cuda_f16: half(0), p[1] |= (uint8_t)(random_bits() & 0x80); break;
    case martlet_cuda_bf16: p[1] = (uint8_t)(0x3C + random_below(4) + (random_bits() & 0x80)); break;
    case martlet_cuda_e4m3:
      if ((p[0] & 127) == 127) p[0] = 1;
      break;
    case martlet_cuda_mxfp4: p[0] = (uint8_t)(115 + random_below(8)); break;
    case martlet_cuda_nvfp4:
      for (int i = 0; i < 4; i++) p[i] = i == 3 && random_below(4) == 0 ? 0x7F : (uint8_t)(0x10 + random_below(0x20));
      break;
    case martlet_cuda_q4_1:
    case martlet_cuda_q5_1: half(0), half(2); break;
    case martlet_cuda_q2_k: half(80), half(82); break;
    case martlet_cuda_q3_k: half(108); break;
    case martlet_cuda_q4_k:
    case martlet_cuda_q5_k: half(0), half(2); break;
    case martlet_cuda_q6_k: half(208); break;
    default: half(0);
  }
}

// The values of a block in the order of the row, as WeightFormat and GGUF describe them.
void block_values(int format, const uint8_t *p, double *y) {
  auto half = [&](int at) {
    uint16_t bits;
    std::memcpy(&bits, p + at, 2);
    return half_value(bits);
  };
  uint32_t fifth;
  float value;
  uint16_t bits;
  switch (format) {
    case martlet_cuda_f32: std::memcpy(&value, p, 4), y[0] = value; return;
    case martlet_cuda_f16: y[0] = half(0); return;
    case martlet_cuda_bf16: std::memcpy(&bits, p, 2), y[0] = bf16_value(bits); return;
    case martlet_cuda_e4m3: y[0] = e4m3_value(p[0]); return;
    case martlet_cuda_q4_0:
      for (int i = 0; i < 16; i++) y[i] = half(0) * ((p[2 + i] & 15) - 8), y[16 + i] = half(0) * ((p[2 + i] >> 4) - 8);
      return;
    case martlet_cuda_q4_1:
      for (int i = 0; i < 16; i++) y[i] = half(0) * (p[4 + i] & 15) + half(2), y[16 + i] = half(0) * (p[4 + i] >> 4) + half(2);
      return;
    case martlet_cuda_q5_0:
      std::memcpy(&fifth, p + 2, 4);
      for (int i = 0; i < 32; i++) y[i] = half(0) * ((int)((i < 16 ? p[6 + i] & 15 : p[6 + i - 16] >> 4) + (fifth >> i & 1) * 16) - 16);
      return;
    case martlet_cuda_q5_1:
      std::memcpy(&fifth, p + 4, 4);
      for (int i = 0; i < 32; i++) y[i] = half(0) * (double)((i < 16 ? p[8 + i] & 15 : p[8 + i - 16] >> 4) + (fifth >> i & 1) * 16) + half(2);
      return;
    case martlet_cuda_q8_0:
      for (int i = 0; i < 32; i++) y[i] = half(0) * (int8_t)p[2 + i];
      return;
    case martlet_cuda_iq4_nl: {
      static const int table[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
      for (int i = 0; i < 16; i++) y[i] = half(0) * table[p[2 + i] & 15], y[16 + i] = half(0) * table[p[2 + i] >> 4];
      return;
    }
    case martlet_cuda_mxfp4:
      for (int i = 0; i < 16; i++)
        y[i] = std::ldexp(e2m1_value(p[1 + i] & 15), p[0] - 127), y[16 + i] = std::ldexp(e2m1_value(p[1 + i] >> 4), p[0] - 127);
      return;
    case martlet_cuda_nvfp4:
      for (int run = 0; run < 4; run++) {
        double s = p[run] == 0x7F ? 0 : e4m3_value(p[run] & 0x7F);
        for (int i = 0; i < 8; i++)
          y[run * 16 + i] = s * e2m1_value(p[4 + run * 8 + i] & 15), y[run * 16 + 8 + i] = s * e2m1_value(p[4 + run * 8 + i] >> 4);
      }
      return;
    case martlet_cuda_q2_k:  // each 128 values: four times 32 by pairs of bits of 32 bytes
      for (int n = 0; n < 256; n++) {
        int code = p[16 + n / 128 * 32 + n % 32] >> n % 128 / 32 * 2 & 3, scales = p[n / 16];
        y[n] = half(80) * (scales & 15) * code - half(82) * (scales >> 4);
      }
      return;
    case martlet_cuda_q3_k: {
      // Twelve bytes hold sixteen numbers of six bits: bytes 0…7 the low nibbles of numbers 0…7 and 8…15, bytes 8…11 four pairs of high bits each.
      int scales[16];
      for (int n = 0; n < 16; n++) {
        int low = n < 8 ? p[96 + n] & 15 : p[96 + n - 8] >> 4;
        scales[n] = (low | (p[104 + n % 4] >> 2 * (n / 4) & 3) << 4) - 32;
      }
      for (int n = 0; n < 256; n++) {
        int code = p[32 + n / 128 * 32 + n % 32] >> n % 128 / 32 * 2 & 3, third = p[n % 32] >> n / 32 & 1;
        y[n] = half(108) * scales[n / 16] * (code + 4 * third - 4);
      }
      return;
    }
    case martlet_cuda_q4_k:
    case martlet_cuda_q5_k: {
      const uint8_t *s = p + 4, *codes = p + (format == martlet_cuda_q4_k ? 16 : 48);
      for (int n = 0; n < 256; n++) {
        int j = n / 32;
        int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4, minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
        int code = j % 2 == 0 ? codes[n / 64 * 32 + n % 32] & 15 : codes[n / 64 * 32 + n % 32] >> 4;
        if (format == martlet_cuda_q5_k) code += (p[16 + n % 32] >> j & 1) * 16;
        y[n] = half(0) * scale * code - half(2) * minimum;
      }
      return;
    }
    default:  // Q6_K: each 128 values: 64 bytes of nibbles, 32 of pairs of high bits
      for (int n = 0; n < 256; n++) {
        int of = n % 128, quarter = of / 32, low = p[n / 128 * 64 + of % 64];
        int code = (quarter < 2 ? low & 15 : low >> 4) | (p[128 + n / 128 * 32 + of % 32] >> 2 * quarter & 3) << 4;
        y[n] = half(208) * (int8_t)p[192 + n / 16] * (code - 32);
      }
  }
}

// A weight of random blocks: its bytes, what they mean, and what is apart.
struct Matrix {
  int format, rows, columns;
  std::vector<uint8_t> bytes, scale_codes;
  std::vector<float> scales;
  std::vector<double> values;
  int64_t row_bytes, block_bytes;
  bool lies_apart = false;
  int rows_of_a_scale = 1, columns_of_a_scale = 128;
};

Matrix random_matrix(int format, int rows, int columns, bool lies_apart) {
  Block block = block_of(format);
  Matrix m{};
  m.format = format, m.rows = rows, m.columns = columns;
  m.block_bytes = block.bytes, m.row_bytes = columns / block.values * block.bytes;
  m.values.resize((size_t)rows * (size_t)columns);
  m.bytes.resize((size_t)(rows * m.row_bytes));
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < columns / block.values; i++) {
      uint8_t *p = m.bytes.data() + r * m.row_bytes + (int64_t)i * block.bytes;
      random_block(format, p);
      block_values(format, p, m.values.data() + (size_t)r * (size_t)columns + (size_t)(i * block.values));
    }
  if (!lies_apart) return m;
  m.lies_apart = true;
  if (format == martlet_cuda_e4m3) {
    int columns_of_scales = (columns + 127) / 128;
    m.rows_of_a_scale = 3;
    m.scales = random_floats((size_t)((rows + 2) / 3 * columns_of_scales));
    for (int r = 0; r < rows; r++)
      for (int k = 0; k < columns; k++) m.values[(size_t)(r * columns + k)] *= m.scales[(size_t)(r / 3 * columns_of_scales + k / 128)];
    return m;
  }
  // MXFP4 and NVFP4 with scales apart: nibbles of neighbours side by side.
  int run = format == martlet_cuda_mxfp4 ? 32 : 16;
  m.block_bytes = format == martlet_cuda_mxfp4 ? 16 : 32, m.row_bytes = columns / 2;
  m.bytes.assign((size_t)(rows * columns / 2), 0);
  m.scale_codes.resize((size_t)(rows * (columns / run)));
  if (format == martlet_cuda_nvfp4) m.scales = {0.37f}, m.rows_of_a_scale = rows;
  for (size_t i = 0; i < m.bytes.size(); i++) m.bytes[i] = (uint8_t)random_bits();
  for (uint8_t &code : m.scale_codes)
    code = (uint8_t)(format == martlet_cuda_mxfp4 ? 115 + random_below(8) : (0x10 + random_below(0x20)) | (random_below(2) << 7));
  for (int i = 0; i < rows * columns; i++) {
    uint8_t scale = m.scale_codes[(size_t)(i / run)];
    double factor = format == martlet_cuda_mxfp4 ? std::ldexp(1, scale - 127) : e4m3_value(scale) * (double)0.37f;
    m.values[(size_t)i] = factor * e2m1_value(m.bytes[(size_t)(i / 2)] >> i % 2 * 4 & 15);
  }
  return m;
}

uint64_t pack(Device &device, const Matrix &m) {
  martlet_cuda_pack_arguments a = {};
  a.file = device.make(m.bytes);
  a.groups = device.room((size_t)(martlet_cuda_group_bytes(m.format, m.columns) * ((m.rows + 15) / 16)));
  a.row_bytes = m.row_bytes, a.block_bytes = m.block_bytes;
  a.format = m.format, a.rows = m.rows, a.columns = m.columns;
  if (!m.scale_codes.empty()) {
    a.scale_codes = device.make(m.scale_codes);
    a.scale_code_row_bytes = (int64_t)m.scale_codes.size() / m.rows;
  }
  if (!m.scales.empty()) {
    a.scales = device.make(m.scales);
    a.rows_of_a_scale = m.rows_of_a_scale, a.columns_of_a_scale = 128;
    a.scale_columns = m.format == martlet_cuda_nvfp4 ? 1 : (m.columns + 127) / 128;
  }
  device.run(martlet_cuda_launch_pack(&a), a);
  return a.groups;
}

void check_product(int format, int rows, int columns, bool lies_apart, uint64_t seed) {
  if (!chosen_case.empty() && chosen_case != format_names[format]) return;
  random_state = (uint64_t)(1000 * format + columns);
  Device device(seed);
  Matrix m = random_matrix(format, rows, columns, lies_apart);
  std::string at = std::string(" ") + format_names[format] + (lies_apart ? " apart" : "") + " [" + std::to_string(rows) + ", " + std::to_string(columns) + "]";
  uint64_t groups = pack(device, m);

  {
    std::vector<int32_t> tokens = {rows - 1, 0, rows / 2, 1 + rows};  // the last is another part's
    uint64_t output = device.room(4 * (size_t)columns * 4);
    martlet_cuda_embed_arguments a = {groups, device.make(tokens), output, format, 4, columns, 0, rows, 1.5f};
    device.run(martlet_cuda_launch_embed(&a), a);
    std::vector<double> expected;
    for (int i = 0; i < 3; i++)
      for (int k = 0; k < columns; k++) expected.push_back(1.5 * m.values[(size_t)(tokens[(size_t)i] * columns + k)]);
    std::vector<double> scales(expected.size(), 0);
    double greatest = 0;
    for (double value : expected) greatest = std::fmax(greatest, std::fabs(value));
    for (size_t i = 0; i < scales.size(); i++) scales[i] = std::fabs(expected[i]) + 0.1 * greatest;  // what minimums cancel
    expect_close("embed" + at, device.read<float>(output, expected.size()), expected, 3e-7, scales);
    std::vector<float> untouched = device.read<float>(output + 3 * (size_t)columns * 4, 1);
    if (untouched[0] == untouched[0]) failures++, std::printf("embed%s wrote a row of another part  WRONG\n", at.c_str());
  }

  constexpr int most = 70;
  std::vector<float> x = random_floats((size_t)(most * columns), 2);
  std::vector<double> expected((size_t)(most * rows)), scales((size_t)(most * rows));
  for (int t = 0; t < most; t++)
    for (int r = 0; r < rows; r++)
      for (int k = 0; k < columns; k++) {
        double product = m.values[(size_t)(r * columns + k)] * x[(size_t)(t * columns + k)];
        expected[(size_t)(t * rows + r)] += product, scales[(size_t)(t * rows + r)] += std::fabs(product);
      }
  for (bool exact : {true, false}) {
    int32_t terms = martlet_cuda_product_terms(format, exact), stored = exact ? 3 : 1;
    std::vector<float> all;
    for (int tokens : {most, 1, 5, 9, 30}) {
      int first = most - tokens;
      martlet_cuda_code_inputs_arguments c = {};
      c.input = device.make(std::vector<float>(x.begin() + first * columns, x.end()));
      c.output = device.room((size_t)martlet_cuda_input_bytes(tokens, columns, stored));
      c.input_stride = columns, c.tokens = tokens, c.columns = columns, c.terms = stored;
      device.run(martlet_cuda_launch_code_inputs(&c), c);
      martlet_cuda_product_arguments a = {};
      a.groups = groups, a.inputs = c.output, a.output = device.room((size_t)(tokens * (rows + 3)) * 4);
      a.output_stride = rows + 3, a.rows = rows, a.columns = columns, a.tokens = tokens, a.stored_terms = stored, a.terms = terms;
      device.run(martlet_cuda_launch_product(&a, format), a);
      std::vector<float> padded = device.read<float>(a.output, (size_t)(tokens * (rows + 3))), output;
      for (int t = 0; t < tokens; t++) output.insert(output.end(), padded.begin() + t * (rows + 3), padded.begin() + t * (rows + 3) + rows);
      if (tokens == most) {
        all = output;
        // Two terms of 8 bits leave 2⁻¹⁷ of an input, three nothing but float32's own rounding of sums; one leaves 2⁻⁹ of an input, and of a float's weight.
        double tolerance = terms == 3 ? 1e-6 : terms == 2 ? 1.2e-5 : format <= martlet_cuda_f16 ? 8e-3 : 4e-3;
        expect_close("product" + at + (exact ? "" : " bf16"), output, expected, tolerance, scales);
      } else {
        // The same rows among fewer have the same bits.
        expect_equal("product" + at + " of " + std::to_string(tokens), output, std::vector<float>(all.begin() + first * rows, all.end()));
      }
      if (tokens == 9) {
        std::vector<float> bias = random_floats((size_t)rows), before = random_floats(padded.size()), wanted = before;
        a.bias = device.make(bias), a.adds = 1, a.addition_scale = 0.25f, a.output = device.make(before);
        device.run(martlet_cuda_launch_product(&a, format), a);
        for (int t = 0; t < tokens; t++)
          for (int r = 0; r < rows; r++) {
            float &value = wanted[(size_t)(t * (rows + 3) + r)];
            value = std::fma(0.25f, output[(size_t)(t * rows + r)] + bias[(size_t)r], value);
          }
        expect_equal("product" + at + " with bias, added", device.read<float>(a.output, wanted.size()), wanted);
      }
    }
  }
  if (format == martlet_cuda_bf16) {
    // Chosen rows are coded as the rows themselves are.
    std::vector<int32_t> chosen = {3, 0, 3, 69, 12, 7, 7, 8, 9, 10, 11};
    std::vector<float> gathered;
    for (int row : chosen) gathered.insert(gathered.end(), x.begin() + row * columns, x.begin() + (row + 1) * columns);
    size_t bytes = (size_t)martlet_cuda_input_bytes(11, columns, 2);
    martlet_cuda_code_inputs_arguments c = {device.make(x), device.room(bytes), device.make(chosen), columns, 11, columns, 2};
    device.run(martlet_cuda_launch_code_inputs(&c), c);
    martlet_cuda_code_inputs_arguments d = {device.make(gathered), device.room(bytes), 0, columns, 11, columns, 2};
    device.run(martlet_cuda_launch_code_inputs(&d), d);
    expect_equal("code_inputs of chosen rows" + at, device.read<uint8_t>(c.output, bytes), device.read<uint8_t>(d.output, bytes));
  }
}

void check_products(uint64_t seed) {
  for (int format = 0; format < martlet_cuda_format_count; format++) {
    bool is_float = format <= martlet_cuda_e4m3, is_k = format >= martlet_cuda_q2_k && format <= martlet_cuda_q6_k;
    for (int columns : {is_float ? 70 : is_k ? 256 : 64, is_float ? 300 : is_k ? 768 : 320})
      check_product(format, columns < 300 ? 20 : 37, columns, false, seed);
  }
  check_product(martlet_cuda_e4m3, 20, 300, true, seed);
  check_product(martlet_cuda_mxfp4, 20, 96, true, seed);
  check_product(martlet_cuda_nvfp4, 20, 128, true, seed);
  // More rows than a block of the kernel for many tokens has, and slabs of several blocks of k.
  check_product(martlet_cuda_q4_0, 150, 576, false, seed);
}

#include "append_check.h"
#include "attention_check.h"

}  // namespace

int main(int count, char **names) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (count == 3 && (std::strcmp(names[1], "products") == 0 || std::strcmp(names[1], "attention") == 0)) chosen_case = names[2];
  struct Part {
    const char *name;
    void (*check)(uint64_t seed);
  };
  const Part parts[] = {
      {"rows",
       [](uint64_t seed) {
         for (int columns : {1, 5, 70, 256, 1000})
           for (int rows : {1, 9}) check_rows(rows, columns, seed);
       }},
      {"products", check_products},
      {"append", check_append},
      {"attention", check_attention},
  };
  for (const Part &part : parts) {
    bool is_chosen = count == 1;
    for (int i = 1; i < count; i++) is_chosen |= std::strcmp(names[i], part.name) == 0;
    if (!is_chosen) continue;
    int before = failures;
    comparisons = 0;
    for (uint64_t seed : seeds) part.check(seed);
    std::printf("cuda: %-12s %d comparisons%s\n", part.name, comparisons, failures == before ? "" : ", and some are WRONG");
  }
  return failures != 0;
}
