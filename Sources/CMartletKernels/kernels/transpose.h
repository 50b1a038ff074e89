// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Rows of 16 tokens to vectors that hold the same words of all of them, as packed pages do.

typedef uint32_t u32x4 __attribute__((ext_vector_type(4)));
typedef uint32_t u32x8 __attribute__((ext_vector_type(8)));
typedef u32x4 u32x4_unaligned __attribute__((aligned(1), may_alias));

// `words` (2 or 4) words from p.
MARTLET_INLINE u32x4 load_quarter(const uint8_t *p, int words) {
  if (words >= 4) return *(const u32x4_unaligned *)p;
  u32x4 two = {0};
  __builtin_memcpy(&two, p, 8);
  return two;
}

// Four words of each of 16 rows, four rows to a vector: quarter q of quarters[i] is of row 4·q + i. `words`, 2 or 4, is how many exist.
MARTLET_INLINE void load_quarters(const uint8_t *const *rows, size_t offset, int words, u32x16 quarters[4]) {
#pragma clang loop unroll(full)
  for (int i = 0; i < 4; i++) {
    u32x4 of_row[4];
#pragma clang loop unroll(full)
    for (int j = 0; j < 4; j++) of_row[j] = load_quarter(rows[4 * j + i] + offset, words);
    u32x8 low = __builtin_shufflevector(of_row[0], of_row[1], 0, 1, 2, 3, 4, 5, 6, 7);
    u32x8 high = __builtin_shufflevector(of_row[2], of_row[3], 0, 1, 2, 3, 4, 5, 6, 7);
    quarters[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  }
}

// Those to four vectors: out[w] holds word w of rows 0 … 15.
MARTLET_INLINE void transpose_quarters(const u32x16 a[4], u32x16 out[4]) {
  // A transposition of 4 × 4 words in each quarter, which holds rows 4·quarter … 4·quarter + 3.
#define MARTLET_LOW(x, y) __builtin_shufflevector(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define MARTLET_HIGH(x, y) __builtin_shufflevector(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define MARTLET_LOW_PAIRS(x, y) __builtin_shufflevector(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define MARTLET_HIGH_PAIRS(x, y) __builtin_shufflevector(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
  u32x16 t0 = MARTLET_LOW(a[0], a[1]), t1 = MARTLET_HIGH(a[0], a[1]), t2 = MARTLET_LOW(a[2], a[3]), t3 = MARTLET_HIGH(a[2], a[3]);
  out[0] = MARTLET_LOW_PAIRS(t0, t2);
  out[1] = MARTLET_HIGH_PAIRS(t0, t2);
  out[2] = MARTLET_LOW_PAIRS(t1, t3);
  out[3] = MARTLET_HIGH_PAIRS(t1, t3);
#undef MARTLET_LOW
#undef MARTLET_HIGH
#undef MARTLET_LOW_PAIRS
#undef MARTLET_HIGH_PAIRS
}

// Four words of each of 16 rows to four vectors: out[w] holds word w of rows 0 … 15. `words`, 2 or 4, is how many exist.
MARTLET_INLINE void load_transposed(const uint8_t *const *rows, size_t offset, int words, u32x16 out[4]) {
  u32x16 quarters[4];
  load_quarters(rows, offset, words, quarters);
  transpose_quarters(quarters, out);
}
