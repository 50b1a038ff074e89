// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The loops of a roofline: as many independent sums as hide the latency of their instruction, and a result that somebody could look at.

// Sums of 16 lanes. AVX-512 has 32 registers, and 4 or 5 cycles of latency in two units ask for 10; AVX2 has 16 registers of half the
// width, NEON 32 of a quarter.
#if MARTLET_AVX512
#define MARTLET_CEILING_SUMS 20
#elif MARTLET_AVX2
#define MARTLET_CEILING_SUMS 6
#elif MARTLET_NEON
#define MARTLET_CEILING_SUMS 5
#else
#define MARTLET_CEILING_SUMS 3
#endif

#define MARTLET_CEILING(name, pass) \
  static void name(const void *arguments, int32_t task, int32_t worker, void *scratch) { \
    const martlet_ceiling_arguments *a = arguments; \
    (void)task, (void)worker; \
    f32x16 sums[MARTLET_CEILING_SUMS], all = f32x16_set(0); \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < MARTLET_CEILING_SUMS; i++) sums[i] = f32x16_set((float)i); \
    _Pragma("clang loop unroll(disable)") for (int64_t n = 0; n < a->passes; n++) { \
      _Pragma("clang loop unroll(full)") for (int i = 0; i < MARTLET_CEILING_SUMS; i++) pass; \
    } \
    _Pragma("clang loop unroll(full)") for (int i = 0; i < MARTLET_CEILING_SUMS; i++) all += sums[i]; \
    f32x16_store(scratch, all); \
  }

MARTLET_CEILING(ceiling_f32, sums[i] = f32x16_fma(sums[i], f32x16_set(1.0000001f), f32x16_set(1e-9f)))
#if MARTLET_AVX512 && MARTLET_DOT_BF16
MARTLET_CEILING(ceiling_bf16, sums[i] = bf16_pair_dot(sums[i], (u32x16)(0x3F803F80u), (u32x16)(0x33803380u)))
#endif
#if MARTLET_VNNI
MARTLET_CEILING(
    ceiling_i16, sums[i] = (f32x16)_mm512_dpwssd_epi32((__m512i)sums[i], _mm512_set1_epi32(0x00010001), _mm512_set1_epi32(0x00010001)))
MARTLET_CEILING(
    ceiling_i8, sums[i] = (f32x16)_mm512_dpbusd_epi32((__m512i)sums[i], _mm512_set1_epi32(0x01010101), _mm512_set1_epi32(0x01010101)))
#endif
#undef MARTLET_CEILING

#if MARTLET_TILES
// Products of tiles that are in registers: four sums hide the latency of one, which is that of three and a half.
#define MARTLET_CEILING_TILE_OPERATIONS (4 * MARTLET_TILE_ROWS * 32 * 16 * 2)
MARTLET_TILE_TARGET static void ceiling_bf16_tiles(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_ceiling_arguments *a = arguments;
  _Alignas(64) float sums[4][MARTLET_TILE_ROWS][16];
  _Alignas(64) uint16_t ones[MARTLET_TILE_ROWS][32];
  (void)task, (void)worker;
  for (int i = 0; i < MARTLET_TILE_ROWS; i++)
    for (int k = 0; k < 32; k++) ones[i][k] = 0x3F80;
  configure_bf16_tiles(MARTLET_TILE_ROWS);
  _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3);
  _tile_loadd(4, ones, 64), _tile_loadd(5, ones, 64), _tile_loadd(6, ones, 64), _tile_loadd(7, ones, 64);
  _Pragma("clang loop unroll(disable)") for (int64_t n = 0; n < a->passes; n++) {
    _tile_dpbf16ps(0, 4, 6), _tile_dpbf16ps(1, 5, 6), _tile_dpbf16ps(2, 4, 7), _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums[0], 64), _tile_stored(1, sums[1], 64), _tile_stored(2, sums[2], 64), _tile_stored(3, sums[3], 64);
  release_tiles();
  f32x16_store(scratch, (f32x16_load(sums[0][0]) + f32x16_load(sums[1][1])) + (f32x16_load(sums[2][2]) + f32x16_load(sums[3][3])));
}
#endif

#if MARTLET_ATTENTION_ROWS == 6
// One-byte numbers in the first-level cache as they are multiplied, each with `rows` rows: what a decode step does with them at least.
MARTLET_INLINE void ceiling_decode(int type, int rows, const martlet_ceiling_arguments *a, void *scratch) {
  static const uint32_t ones[4] = {0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u};
  f32x16 sums[MARTLET_ATTENTION_ROWS][4], all = f32x16_set(0);
  const int columns = MARTLET_TILE_COLUMNS(type, rows) < 2 ? 1 : 2;
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = f32x16_set(0);
#pragma clang loop unroll(disable)
  for (int64_t n = 0; n < a->passes; n++) {
#pragma clang loop unroll(disable)
    for (int at = 0; at < 8192; at += 64 * columns) {
      const uint32_t *lanes[2];
#pragma clang loop unroll(full)
      for (int c = 0; c < columns; c++) lanes[c] = (const uint32_t *)(const void *)(a->data + at + 64 * c);
      const uint32_t *x = read_again(ones);
      tile_step(type, rows, columns, lanes, (tile_rows){x, x, 0, 1}, sums);
    }
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) all += sums[i][0] + sums[i][1];
  f32x16_store(scratch, all);
}

#define MARTLET_CEILING(name, type) \
  static void name(const void *arguments, int32_t task, int32_t worker, void *scratch) { \
    const martlet_ceiling_arguments *a = arguments; \
    (void)task, (void)worker; \
    switch (a->rows) { \
      case 1: ceiling_decode(type, 1, a, scratch); break; \
      case 2: ceiling_decode(type, 2, a, scratch); break; \
      case 3: ceiling_decode(type, 3, a, scratch); break; \
      case 4: ceiling_decode(type, 4, a, scratch); break; \
      case 5: ceiling_decode(type, 5, a, scratch); break; \
      default: ceiling_decode(type, 6, a, scratch); \
    } \
  }
MARTLET_CEILING(ceiling_decode_e4m3, martlet_kv_e4m3)
MARTLET_CEILING(ceiling_decode_i8, martlet_kv_i8)
#endif
#undef MARTLET_CEILING

// Reads the task's slice, front to back, as two streams of whole lines.
static void ceiling_read(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_ceiling_arguments *a = arguments;
  (void)worker;
  const uint8_t *slice = a->data + (size_t)task * (size_t)a->bytes_per_task;
  int64_t half = a->bytes_per_task / 2;
  u32x16 bits[4] = {(u32x16)(0), (u32x16)(0), (u32x16)(0), (u32x16)(0)};
  for (int64_t n = 0; n < a->passes; n++) {
#pragma clang loop unroll(disable)
    for (int64_t at = 0; at < half; at += 256) {
#pragma clang loop unroll(full)
      for (int i = 0; i < 4; i++) bits[i] |= u32x16_load(slice + at + 64 * i) | u32x16_load(slice + half + at + 64 * i);
    }
  }
  u32x16_store(scratch, (bits[0] | bits[1]) | (bits[2] | bits[3]));
}

// What the variant has of them, for its table.
#if MARTLET_AVX512 && MARTLET_DOT_BF16
#define MARTLET_CEILING_BF16 .multiply_bf16 = ceiling_bf16,
#else
#define MARTLET_CEILING_BF16
#endif
#if MARTLET_TILES
#define MARTLET_CEILING_TILES(digit_rows) \
  .operations_bf16_tiles = MARTLET_CEILING_TILE_OPERATIONS, .multiply_bf16_tiles = (digit_rows) > 0 ? ceiling_bf16_tiles : 0,
#else
#define MARTLET_CEILING_TILES(digit_rows)
#endif
#if MARTLET_VNNI
#define MARTLET_CEILING_INTEGERS .multiply_i16 = ceiling_i16, .multiply_i8 = ceiling_i8,
#else
#define MARTLET_CEILING_INTEGERS
#endif
#if MARTLET_ATTENTION_ROWS == 6
#define MARTLET_CEILING_DECODE .decode_e4m3 = ceiling_decode_e4m3, .decode_i8 = ceiling_decode_i8,
#else
#define MARTLET_CEILING_DECODE
#endif
// Tiles are the variant's of a table that has tiles of digits.
#define MARTLET_CEILINGS(digit_rows) \
  { \
    .operations_f32 = MARTLET_CEILING_SUMS * 16 * 2, .operations_bf16 = MARTLET_CEILING_SUMS * 16 * 4, \
    .operations_i16 = MARTLET_CEILING_SUMS * 16 * 4, .operations_i8 = MARTLET_CEILING_SUMS * 16 * 8, .multiply_f32 = ceiling_f32, \
    MARTLET_CEILING_BF16 MARTLET_CEILING_TILES(digit_rows) MARTLET_CEILING_INTEGERS MARTLET_CEILING_DECODE \
    .read = ceiling_read, \
  }
