// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The two products of attention over packed pages, as register tiles: scores = queries · keysᵀ and output += probabilities · values.
//
// Each number of a result is one chain of fused multiply-adds in ascending order of dims (scores) or of tokens (output), whatever tile
// computes it: a row's bits do not depend on the rows beside it. Tokens that a row does not see never enter its chain.
//
// A packed page holds 32-bit lanes: one float32, two neighbours (dims for keys, tokens for values) of f16 or bf16, or four of e4m3 or int8.
// These are widened exactly in registers, once for all rows; with MARTLET_DOT_BF16 bf16 pairs are multiplied by one instruction as they are,
// and one-byte numbers are widened to such pairs. The chains are the same, so one-byte numbers give the bits that bf16 pages of them would.

// Rows of a register tile, and 16-lane columns beside few and beside many rows, so that the accumulators fill but do not leave the
// registers: AVX-512 has 32 of 16 lanes (6 × 4 accumulators, 4 columns, 1 broadcast), AVX2 16 of 8 (6 × 1, 1, 1), arm64 32 of 4
// (6 × 1, 1, 1), SSE 16 of 4 (2 × 1, 1, 1). What one-byte numbers are widened to takes registers too.
#if MARTLET_AVX512
#define MARTLET_ATTENTION_ROWS 6
#define MARTLET_TILE_COLUMNS(type, rows) (MARTLET_LANE(type) == 4 && (rows) > 4 ? 2 : 4)
#elif defined(__aarch64__)
#define MARTLET_ATTENTION_ROWS 6
#define MARTLET_TILE_COLUMNS(type, rows) ((rows) == 1 ? (MARTLET_LANE(type) == 4 ? 2 : 4) : (rows) == 2 && MARTLET_LANE(type) < 4 ? 2 : 1)
#elif MARTLET_AVX2
#define MARTLET_ATTENTION_ROWS 6
#define MARTLET_TILE_COLUMNS(type, rows) ((rows) == 1 ? (MARTLET_LANE(type) == 4 ? 2 : 4) : (rows) <= 3 && MARTLET_LANE(type) < 4 ? 2 : 1)
#else
#define MARTLET_ATTENTION_ROWS 2
#define MARTLET_TILE_COLUMNS(type, rows) ((rows) == 1 && MARTLET_LANE(type) < 4 ? 2 : 1)
#endif

// Whether inner loops take two lanes at a time. AVX2 has two multiply-adds to three other instructions, and a processor that runs two threads
// on a core feeds each with three a cycle: Zen 3, a prompt of 2048 tokens, 32 heads on 8 of 128 dims, bf16, one thread beside a neighbour:
// 554 ms one by one, 519 by twos.
#if MARTLET_AVX2
#define MARTLET_TAKES_TWO(type, rows) ((type) == martlet_kv_f32 && (rows) == MARTLET_ATTENTION_ROWS)
#else
#define MARTLET_TAKES_TWO(type, rows) 0
#endif

// Whether the queries of a register tile's rows lie dim by dim, not row by row: then one pointer serves them all, for the same reason, and where
// rows are few, so that the pointers to what is asked for do not leave the registers. Not for many rows of AVX-512: packing would take longer.
#define MARTLET_LIES_BY_DIM(type, is_few) (MARTLET_ATTENTION_ROWS == 6 && ((is_few) || MARTLET_TAKES_TWO(type, 6)))

// Whether numbers of this type are multiplied as bf16 pairs.
#define MARTLET_IS_DOT(type) (MARTLET_DOT_BF16 && (type) >= martlet_kv_bf16)
// Neighbours in a 32-bit lane.
#define MARTLET_LANE(type) ((type) == martlet_kv_f32 ? 1 : (type) < martlet_kv_e4m3 ? 2 : 4)
// Words of a row, its query or its weights, that are multiplied with a lane: a float32 for each number, or a bf16 pair for each two.
#define MARTLET_WORDS(type) (MARTLET_IS_DOT(type) ? MARTLET_LANE(type) / 2 : MARTLET_LANE(type))

// acc + a.second · b.second + a.first · b.first of bf16 pairs, each sum rounded once (the products are exact): what the dot product
// instruction does, except that it takes subnormal numbers for zeros.
MARTLET_INLINE f32x16 bf16_pair_dot(f32x16 acc, u32x16 a, u32x16 b) {
#if MARTLET_AVX512 && MARTLET_DOT_BF16
  return (f32x16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
  acc = f32x16_fma(bf16_pair_second(a), bf16_pair_second(b), acc);
  return f32x16_fma(bf16_pair_first(a), bf16_pair_first(b), acc);
#endif
}

// The two halves of each lane as float32, exactly.
MARTLET_INLINE void f16_pair_split(u32x16 pairs, f32x16 *first, f32x16 *second) {
#if MARTLET_AVX512
  *first = (f32x16)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)pairs));
  *second = (f32x16)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)(pairs >> 16)));
#elif MARTLET_AVX2
  // Firsts to the lower half of each 128 bits, seconds to the upper; then the middle two quarters change places.
  const __m256i sort = _mm256_setr_epi8(
      0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  __m256i a = _mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)pairs.lo, sort), 0xD8);
  __m256i b = _mm256_permute4x64_epi64(_mm256_shuffle_epi8((__m256i)pairs.hi, sort), 0xD8);
  first->lo = _mm256_cvtph_ps(_mm256_castsi256_si128(a));
  first->hi = _mm256_cvtph_ps(_mm256_castsi256_si128(b));
  second->lo = _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1));
  second->hi = _mm256_cvtph_ps(_mm256_extracti128_si256(b, 1));
#elif MARTLET_NEON
  *first = __builtin_convertvector((f16x16)__builtin_convertvector(pairs, u16x16), f32x16);
  *second = __builtin_convertvector((f16x16)__builtin_convertvector(pairs >> 16, u16x16), f32x16);
#else
  *first = f16_widen(pairs & 0xFFFFu);
  *second = f16_widen(pairs >> 16);
#endif
}

MARTLET_INLINE void pair_split(int type, u32x16 pairs, f32x16 *first, f32x16 *second) {
  if (type == martlet_kv_bf16) {
    *first = bf16_pair_first(pairs);
    *second = bf16_pair_second(pairs);
  } else {
    f16_pair_split(pairs, first, second);
  }
}

// Whether the seconds of pairs are split off from pairs read again, when the firsts are done with, so that the two are never in registers
// together. For f16 AVX does both at once.
#if MARTLET_NEON
#define MARTLET_SPLIT_TWICE(type) 1
#else
#define MARTLET_SPLIT_TWICE(type) ((type) == martlet_kv_bf16)
#endif

// What a column of 16 lanes holds: the lanes themselves, and, unless they are multiplied as pairs, their numbers as float32, seconds too where a
// lane has two.
MARTLET_INLINE void column_read(int type, const uint32_t *p, u32x16 *raw, f32x16 *first, f32x16 *second) {
  *raw = u32x16_load(p);
  if (type == martlet_kv_f32)
    *first = f32x16_from_bits(*raw);
  else if (!MARTLET_IS_DOT(type))
    pair_split(type, *raw, first, second);
}

// Makes the compiler forget that it has read what p points to, so that it reads it again instead of keeping it: where accumulators fill
// the registers, keeping is a store and a load more.
MARTLET_INLINE const uint32_t *read_again(const uint32_t *p) {
#if MARTLET_AVX2 || MARTLET_AVX512 || MARTLET_NEON
  __asm__("" : "+r"(p));
#endif
  return p;
}

// Where the words of a register tile's rows lie, of their queries or weights: those of row i begin at first + i·stride and lie `word_stride`
// apart. The fourth row has a pointer of its own, where the stride is not known when this is compiled: an address of x86 reaches one or two such
// strides from a pointer, not three.
typedef struct tile_rows {
  const uint32_t *first, *fourth;
  size_t stride, word_stride;
} tile_rows;

// The same from `words` words further on.
MARTLET_INLINE tile_rows tile_rows_from(tile_rows x, size_t words) {
  return (tile_rows){x.first + words * x.word_stride, x.fourth + words * x.word_stride, x.stride, x.word_stride};
}

// The `word`-th word of row i in all lanes.
MARTLET_INLINE u32x16 tile_word(tile_rows x, int i, int word) {
  return (u32x16)((i < 3 ? x.first : x.fourth)[(size_t)(i % 3) * x.stride + (size_t)word * x.word_stride]);
}

// Adds to the sums what one lane of each column, at lanes[c], gives with the words that each row has for it.
MARTLET_INLINE void tile_step(int type, int rows, int columns, const uint32_t *const *lanes, tile_rows x, f32x16 sum[][4]) {
  if (MARTLET_LANE(type) == 4) {  // column by column
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++)
#pragma clang loop unroll(full)
      for (int half = 0; half < 2; half++) {
        u32x16 pairs = (u32x16)(0);
        f32x16 numbers[2] = {(f32x16)(0), (f32x16)(0)};
        if (MARTLET_IS_DOT(type))
          pairs = byte_pair(type, half, u32x16_load(lanes[c]));
        else
          byte_floats(type, half, u32x16_load(read_again(lanes[c])), numbers);
#pragma clang loop unroll(full)
        for (int j = 0; j < (MARTLET_IS_DOT(type) ? 1 : 2); j++)
#pragma clang loop unroll(full)
          for (int i = 0; i < rows; i++) {
            u32x16 word = tile_word(x, i, half * MARTLET_WORDS(type) / 2 + j);
            sum[i][c] = MARTLET_IS_DOT(type) ? bf16_pair_dot(sum[i][c], word, pairs) : f32x16_fma(f32x16_from_bits(word), numbers[j], sum[i][c]);
          }
      }
    return;
  }
  f32x16 first[4], second[4];
  u32x16 raw[4];
#pragma clang loop unroll(full)
  for (int c = 0; c < columns; c++) column_read(type, lanes[c], &raw[c], &first[c], &second[c]);
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) {
    u32x16 word = tile_word(x, i, 0);
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++)
      sum[i][c] = MARTLET_IS_DOT(type) ? bf16_pair_dot(sum[i][c], word, raw[c]) : f32x16_fma(f32x16_from_bits(word), first[c], sum[i][c]);
  }
  if (MARTLET_WORDS(type) == 1) return;
  if (MARTLET_SPLIT_TWICE(type))
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++) pair_split(type, u32x16_load(read_again(lanes[c])), &first[c], &second[c]);
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) {
    f32x16 word = f32x16_from_bits(tile_word(x, i, 1));
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++) sum[i][c] = f32x16_fma(word, second[c], sum[i][c]);
  }
}

// scores[i·64 + 16·c + lane] = Σ q[i] · k[token] over all dims, for `rows` rows and `columns` columns of 16 tokens.
//
// The queries hold MARTLET_WORDS for each lane; keys[c] is the first lane of column c, whose lanes for the next dims follow `stride` further.
// Where `ask` is not NULL, the line at ask[c] is asked for with the first lane, and with each next the one `ask_stride` further.
MARTLET_INLINE void tile_scores(
    int type, int rows, int columns, tile_rows q, const uint32_t *const *keys, size_t stride, int lanes, const uint32_t *const *ask,
    size_t ask_stride, float *scores) {
  f32x16 sum[MARTLET_ATTENTION_ROWS][4];
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++) sum[i][c] = f32x16_set(0);
  const int count = MARTLET_TAKES_TWO(type, rows) ? 2 : 1;  // that divides the lanes
#pragma clang loop unroll(disable)
  for (int lane = 0; lane < lanes; lane += count) {
#pragma clang loop unroll(full)
    for (int j = 0; j < count; j++) {
      const uint32_t *column[4];
#pragma clang loop unroll(full)
      for (int c = 0; c < columns; c++) {
        column[c] = keys[c] + (size_t)(lane + j) * stride;
        if (ask) __builtin_prefetch(ask[c] + (size_t)(lane + j) * ask_stride, 0, 2);
      }
      tile_step(type, rows, columns, column, tile_rows_from(q, (size_t)(j * MARTLET_WORDS(type))), sum);
    }
    q = tile_rows_from(q, (size_t)(count * MARTLET_WORDS(type)));
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++) f32x16_store(scores + i * martlet_kv_tile_size + 16 * c, sum[i][c]);
}

// Where the values of a tile lie: `segments[s]` is the first lane of token s << segment_shift of the tile, in rows of `stride` lanes, one row
// for each MARTLET_LANE tokens.
typedef struct tile_values {
  const uint32_t *segments[4];
  int segment_shift;  // log₂ of a segment's tokens
  size_t stride;
} tile_values;

// The row of lanes that holds token `token` (an even one where lanes hold two).
MARTLET_INLINE const uint32_t *tile_value_row(int type, const tile_values *values, int token) {
  const uint32_t *segment = values->segments[token >> values->segment_shift];
  return segment + (size_t)((token & ((1 << values->segment_shift) - 1)) / MARTLET_LANE(type)) * values->stride;
}

// A register tile's sums before a tile of keys: zeros if what the tile gives is multiplied by factors, else what the output has so far.
MARTLET_INLINE void tile_begin(
    int rows, int columns, f32x16 sum[][4], int dim, const float *factors, const float *output, size_t output_stride) {
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++)
      sum[i][c] = factors ? f32x16_set(0) : f32x16_load(output + (size_t)i * output_stride + (size_t)(dim + 16 * c));
}

// A register tile's sums to the output, as they are, or times a factor for each row and added.
MARTLET_INLINE void tile_add(
    int rows, int columns, const f32x16 sum[][4], int dim, const float *factors, float *output, size_t output_stride) {
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++)
#pragma clang loop unroll(full)
    for (int c = 0; c < columns; c++) {
      float *out = output + (size_t)i * output_stride + (size_t)(dim + 16 * c);
      f32x16_store(out, factors ? f32x16_fma(sum[i][c], f32x16_set(factors[i]), f32x16_load(out)) : sum[i][c]);
    }
}

// The first line to ask for while a register tile multiplies `columns` columns from dim `dim` on, from token `token` of the tile on; with each
// row of lanes, so many lines from 16 · columns lanes further. A segment's values lie in one piece, and this is their order in memory: whole
// rows of lanes in turn would leave gaps, which memory is slow to read. Zen 3, decode of 8 requests of 4096 tokens, 32 heads on 8 of 128
// dims, bf16, one thread: 19.8 ms with gaps in values and in keys, 10.5 without.
MARTLET_INLINE const uint32_t *tile_ask_row(int type, int columns, const tile_values *ask, int token, int dim) {
  const int size = 1 << ask->segment_shift, row = (token & (size - 1)) / MARTLET_LANE(type);
  return ask->segments[token >> ask->segment_shift] + (size_t)(dim * (size / MARTLET_LANE(type)) + row * 16 * columns);
}

// Adds Σ p[i][token] · v[token][dim] to the sums, for the tokens `first ..< end` of the tile, whole lanes, which every row sees.
MARTLET_INLINE void tile_take(
    int type, int rows, int columns, const uint32_t *p, const tile_values *values, int first, int end, int dim, const tile_values *ask,
    f32x16 sum[][4]) {
  for (int start = first, stop; start < end; start = stop) {
    stop = ((start >> values->segment_shift) + 1) << values->segment_shift;
    if (stop > end) stop = end;
    const uint32_t *v = tile_value_row(type, values, start) + dim;
    const uint32_t *asked = ask ? tile_ask_row(type, columns, ask, start, dim) : NULL;
    tile_rows x = tile_rows_from(
        (tile_rows){p, p + 3 * martlet_kv_tile_size, martlet_kv_tile_size, 1}, (size_t)(start / MARTLET_LANE(type) * MARTLET_WORDS(type)));
    int count = (stop - start) / MARTLET_LANE(type);
    if (MARTLET_TAKES_TWO(type, rows) && !ask)
#pragma clang loop unroll(disable)
      for (; count >= 2; count -= 2) {
        tile_step(type, rows, columns, (const uint32_t *[]){v}, x, sum);
        tile_step(type, rows, columns, (const uint32_t *[]){v + values->stride}, tile_rows_from(x, 1), sum);
        v += 2 * values->stride;
        x = tile_rows_from(x, 2);
      }
#pragma clang loop unroll(disable)
    for (; count > 0; count--) {
      const uint32_t *column[4];
#pragma clang loop unroll(full)
      for (int c = 0; c < columns; c++) {
        column[c] = v + 16 * c;
        if (ask) __builtin_prefetch(asked + 16 * c, 0, 2);
      }
      tile_step(type, rows, columns, column, x, sum);
      v += values->stride;
      if (ask) asked += 16 * columns;
      x = tile_rows_from(x, MARTLET_WORDS(type));
    }
  }
}

// What the rows of a register tile see of a tile's tokens, as bits.
typedef struct tile_seen {
  const uint64_t *rows;  // what each row sees; not read if every row sees all
  uint64_t whole;        // the tokens of the lanes that every row sees whole
  uint64_t some;         // the tokens of which some row sees one; not 0
} tile_seen;

// The first token from `token` on whose bit is set, 64 if there is none.
MARTLET_INLINE int tile_next(uint64_t bits, int token) {
  if (token >= 64) return 64;
  bits &= ~(uint64_t)0 << token;
  return bits ? __builtin_ctzll(bits) : 64;
}

// What `tile_take` does, for the one lane of token `token`, of which each row takes in what it sees and leaves out the rest, whatever it holds.
MARTLET_INLINE void tile_take_seen(
    int type, int rows, int columns, const uint32_t *p, const tile_values *values, int token, const uint64_t *seen, int dim,
    f32x16 sum[][4]) {
  const uint32_t *v = tile_value_row(type, values, token) + dim, *x = p + (MARTLET_IS_DOT(type) ? token / 2 : token);
  f32x16 even[4], odd[4];
  u32x16 raw[4];
#pragma clang loop unroll(full)
  for (int c = 0; c < columns; c++) column_read(type, v + 16 * c, &raw[c], &even[c], &odd[c]);
#pragma clang loop unroll(full)
  for (int i = 0; i < rows; i++) {
    const uint32_t *weights = x + i * martlet_kv_tile_size;
    uint32_t pair = (uint32_t)(seen[i] >> token);
    bool sees_first = pair & 1, sees_second = MARTLET_LANE(type) == 2 && (pair & 2);
    if (MARTLET_IS_DOT(type)) {
      uint32_t mask = (sees_first ? 0xFFFFu : 0u) | (sees_second ? 0xFFFF0000u : 0u);
#pragma clang loop unroll(full)
      for (int c = 0; c < columns; c++) sum[i][c] = bf16_pair_dot(sum[i][c], (u32x16)(weights[0] & mask), raw[c] & mask);
    } else {
      if (sees_first)
#pragma clang loop unroll(full)
        for (int c = 0; c < columns; c++) sum[i][c] = f32x16_fma(f32x16_from_bits((u32x16)(weights[0])), even[c], sum[i][c]);
      if (sees_second)
#pragma clang loop unroll(full)
        for (int c = 0; c < columns; c++) sum[i][c] = f32x16_fma(f32x16_from_bits((u32x16)(weights[1])), odd[c], sum[i][c]);
    }
  }
}

// output[i·output_stride + 16·c + lane] += Σ p[i][token] · v[token][dim], for the tokens of the tile that row i sees, in ascending order. p[i]
// is p + i·64: float32 for each token, or bf16 pairs for each two tokens. `dim` is the first of 16·columns dims. Where `ask` is not NULL, its
// values in the same places are asked for on the way. Where `factors` is not NULL, the tile's sum is taken by itself and row i's is multiplied
// by factors[i] before it is added.
MARTLET_INLINE void tile_output(
    int type, int rows, int columns, const uint32_t *p, const tile_values *values, const tile_seen *seen, int dim, const tile_values *ask,
    const float *factors, float *output, size_t output_stride) {
  f32x16 sum[MARTLET_ATTENTION_ROWS][4];
  tile_begin(rows, columns, sum, dim, factors, output, output_stride);
  for (int token = __builtin_ctzll(seen->some) / MARTLET_LANE(type) * MARTLET_LANE(type), end; token < martlet_kv_tile_size;) {
    if (seen->whole >> token & 1) {
      end = tile_next(~seen->whole, token);
      tile_take(type, rows, columns, p, values, token, end, dim, ask, sum);
    } else {
      end = token + MARTLET_LANE(type);
      if (MARTLET_LANE(type) < 4) tile_take_seen(type, rows, columns, p, values, token, seen->rows, dim, sum);
    }
    // Pages of tokens that no row sees are not known.
    token = tile_next(seen->some, end) / MARTLET_LANE(type) * MARTLET_LANE(type);
  }
  tile_add(rows, columns, (const f32x16(*)[4])sum, dim, factors, output, output_stride);
}
