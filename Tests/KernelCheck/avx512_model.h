// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What the AVX-512 variants call of AVX-512, in plain C: so that their source can be checked on processors without it. Only the compiler's
// own work, vectors of 16 lanes as it writes them for AVX-512, is left to processors that have it.
//
// Included before everything else (clang -include), with Sources/CMartletKernels/variants/avx512.c and avx512bf16.c. Behaviour is that of the
// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, with the rounding mode that programs start with.

#ifndef MARTLET_AVX512_MODEL
#define MARTLET_AVX512_MODEL 1

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

// The bits of a register as lanes of one type or another.
typedef union model_register {
  __m512i i;
  __m512 f;
  uint8_t u8[64];
  int8_t i8[64];
  uint16_t u16[32];
  int16_t i16[32];
  uint32_t u32[16];
  int32_t i32[16];
  float f32[16];
} model_register;

#define MODEL static inline __attribute__((unused, target("avx2,f16c")))
#define EACH(lanes) for (int i = 0; i < (lanes); i++)

// MARK: Integers

MODEL __m512i model_set1_epi16(short value) {
  model_register r;
  EACH(32) r.i16[i] = value;
  return r.i;
}

MODEL __m512i model_set1_epi8(char value) {
  model_register r;
  EACH(64) r.i8[i] = (int8_t)value;
  return r.i;
}

MODEL __m512i model_set1_epi32(int value) {
  model_register r;
  EACH(16) r.i32[i] = value;
  return r.i;
}

MODEL __m512i model_broadcast_i32x4(__m128i value) {
  model_register r;
  EACH(4) memcpy(r.u32 + 4 * i, &value, 16);
  return r.i;
}

MODEL __m512i model_add_epi16(__m512i a, __m512i b) {
  model_register x = {a}, y = {b};
  EACH(32) x.u16[i] = (uint16_t)(x.u16[i] + y.u16[i]);
  return x.i;
}

MODEL __m512i model_and_si512(__m512i a, __m512i b) {
  model_register x = {a}, y = {b};
  EACH(16) x.u32[i] &= y.u32[i];
  return x.i;
}

MODEL __m512i model_srai_epi16(__m512i a, unsigned count) {
  model_register x = {a};
  EACH(32) x.i16[i] = (int16_t)(x.i16[i] >> count);
  return x.i;
}

// Each bit is that of `table` which the three bits above it number.
MODEL __m512i model_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table) {
  model_register x = {a}, y = {b}, z = {c}, r = {0};
  EACH(16)
    for (int bit = 0; bit < 32; bit++) {
      uint32_t number = (x.u32[i] >> bit & 1) << 2 | (y.u32[i] >> bit & 1) << 1 | (z.u32[i] >> bit & 1);
      r.u32[i] |= ((uint32_t)table >> number & 1) << bit;
    }
  return r.i;
}

// Bytes from the same 16 bytes; 0 where the place's highest bit is set.
MODEL __m512i model_shuffle_epi8(__m512i a, __m512i places) {
  model_register x = {a}, y = {places}, r;
  EACH(64) r.u8[i] = y.u8[i] & 0x80 ? 0 : x.u8[i / 16 * 16 + y.u8[i] % 16];
  return r.i;
}

MODEL __m512i model_mask_permutexvar_epi16(__m512i otherwise, __mmask32 mask, __m512i places, __m512i a) {
  model_register x = {a}, y = {places}, r = {otherwise};
  EACH(32)
    if (mask >> i & 1) r.u16[i] = x.u16[y.u16[i] % 32];
  return r.i;
}

MODEL __m512i model_mask_mov_epi16(__m512i otherwise, __mmask32 mask, __m512i a) {
  model_register x = {a}, r = {otherwise};
  EACH(32)
    if (mask >> i & 1) r.u16[i] = x.u16[i];
  return r.i;
}

// Of 128 bytes, `a` and then `b`.
MODEL __m512i model_permutex2var_epi8(__m512i a, __m512i places, __m512i b) {
  model_register x = {a}, y = {b}, z = {places}, r;
  EACH(64) r.u8[i] = z.u8[i] & 64 ? y.u8[z.u8[i] % 64] : x.u8[z.u8[i] % 64];
  return r.i;
}

// Of each 16 bytes the first eight, or the last: one of `a`, one of `b` in turn.
MODEL __m512i model_unpack_epi8(__m512i a, __m512i b, int first) {
  model_register x = {a}, y = {b}, r;
  EACH(64) r.u8[i] = (i % 2 == 0 ? x : y).u8[i / 16 * 16 + first + i % 16 / 2];
  return r.i;
}

MODEL __m512i model_unpacklo_epi8(__m512i a, __m512i b) { return model_unpack_epi8(a, b, 0); }
MODEL __m512i model_unpackhi_epi8(__m512i a, __m512i b) { return model_unpack_epi8(a, b, 8); }

// −128 stays what it is.
MODEL __m512i model_abs_epi8(__m512i a) {
  model_register x = {a};
  EACH(64) x.u8[i] = (uint8_t)(x.i8[i] < 0 ? -x.i8[i] : x.i8[i]);
  return x.i;
}

MODEL __mmask64 model_movepi8_mask(__m512i a) {
  model_register x = {a};
  uint64_t mask = 0;
  EACH(64) mask |= (uint64_t)(x.u8[i] >> 7) << i;
  return mask;
}

MODEL __m512i model_mask_mov_epi8(__m512i otherwise, __mmask64 mask, __m512i a) {
  model_register x = {a}, r = {otherwise};
  EACH(64)
    if (mask >> i & 1) r.u8[i] = x.u8[i];
  return r.i;
}

MODEL __mmask32 model_cmpeq_epi16_mask(__m512i a, __m512i b) {
  model_register x = {a}, y = {b};
  uint32_t mask = 0;
  EACH(32) mask |= (uint32_t)(x.u16[i] == y.u16[i]) << i;
  return mask;
}

MODEL __mmask32 model_testn_epi16_mask(__m512i a, __m512i b) {
  model_register x = {a}, y = {b};
  uint32_t mask = 0;
  EACH(32) mask |= (uint32_t)((x.u16[i] & y.u16[i]) == 0) << i;
  return mask;
}

MODEL __m512i model_dpwssd_epi32(__m512i sum, __m512i a, __m512i b) {
  model_register r = {sum}, x = {a}, y = {b};
  EACH(32) r.u32[i / 2] += (uint32_t)(x.i16[i] * y.i16[i]);
  return r.i;
}

MODEL __m512i model_madd_epi16(__m512i a, __m512i b) { return model_dpwssd_epi32(model_set1_epi32(0), a, b); }

// Two products of unsigned bytes by signed ones, whose sum stays within 16 bits by saturation.
MODEL __m512i model_maddubs_epi16(__m512i a, __m512i b) {
  model_register r, x = {a}, y = {b};
  EACH(32) {
    int sum = x.u8[2 * i] * y.i8[2 * i] + x.u8[2 * i + 1] * y.i8[2 * i + 1];
    r.i16[i] = (int16_t)(sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum);
  }
  return r.i;
}

// Unsigned bytes by signed ones.
MODEL __m512i model_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) {
  model_register r = {sum}, x = {a}, y = {b};
  EACH(64) r.u32[i / 4] += (uint32_t)(x.u8[i] * y.i8[i]);
  return r.i;
}

// The low half of each lane.
MODEL __m256i model_cvtepi32_epi16(__m512i a) {
  model_register x = {a};
  uint16_t halves[16];
  EACH(16) halves[i] = (uint16_t)x.u32[i];
  __m256i r;
  memcpy(&r, halves, sizeof r);
  return r;
}

// MARK: Floats

MODEL __m512 model_cvtph_ps(__m256i halves) {
  model_register r;
  __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(halves)), high = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
  memcpy(r.f32, &low, 32);
  memcpy(r.f32 + 8, &high, 32);
  return r.f;
}

// To a multiple of 2^−(how / 16); of `how` only rounding to nearest, the default, is known here.
MODEL __m512 model_roundscale_ps(__m512 a, int how) {
  model_register x = {.f = a};
  EACH(16) x.f32[i] = ldexpf(rintf(ldexpf(x.f32[i], how >> 4)), -(how >> 4));
  return x.f;
}

// What that rounding takes away; 0 of infinities.
MODEL __m512 model_reduce_ps(__m512 a, int how) {
  model_register x = {.f = a}, y = {.f = model_roundscale_ps(a, how)};
  EACH(16) x.f32[i] = isinf(x.f32[i]) ? 0 : x.f32[i] - y.f32[i];
  return x.f;
}

// a · 2^⌊b⌋, rounded once; of numbers other than 0.
MODEL __m512 model_scalef_ps(__m512 a, __m512 b) {
  model_register x = {.f = a}, y = {.f = b};
  EACH(16)
    x.f32[i] = isnan(y.f32[i]) ? y.f32[i] : (float)ldexp(x.f32[i], (int)fmaxf(-2000, fminf(2000, floorf(y.f32[i]))));
  return x.f;
}

MODEL float model_flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }

// The nearest bf16, ties to even; subnormal numbers are taken for zeros, NaNs made quiet.
MODEL uint16_t model_bf16(float x) {
  uint32_t bits;
  x = model_flushed(x);
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(isnan(x) ? bits >> 16 | 0x40 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// The second's 16 in the low half of the register.
MODEL __m512i model_cvtne2ps_pbh(__m512 a, __m512 b) {
  model_register x = {.f = a}, y = {.f = b}, r;
  EACH(32) r.u16[i] = i < 16 ? model_bf16(y.f32[i]) : model_bf16(x.f32[i - 16]);
  return r.i;
}

// Of each pair the second product first, each sum rounded to nearest; subnormal numbers are taken for zeros and made zeros.
MODEL __m512 model_dpbf16_ps(__m512 sum, __m512i a, __m512i b) {
  model_register r = {.f = sum}, x = {a}, y = {b};
  EACH(16) {
    float s = model_flushed(r.f32[i]);
    for (int second = 1; second >= 0; second--) {
      uint32_t pair[2] = {(uint32_t)x.u16[2 * i + second] << 16, (uint32_t)y.u16[2 * i + second] << 16};
      float p[2];
      memcpy(p, pair, sizeof p);
      s = model_flushed(fmaf(model_flushed(p[0]), model_flushed(p[1]), s));
    }
    r.f32[i] = s;
  }
  return r.f;
}

// MARK: Tiles

// The configuration of palette 1, and the eight registers, of this thread.
typedef struct model_tiles {
  uint16_t column_bytes[8];
  uint8_t rows[8], values[8][16][64];
} model_tiles;

static _Thread_local model_tiles model_tile_state __attribute__((unused));

MODEL void model_tile_loadconfig(const void *configuration) {
  const uint8_t *bytes = configuration;
  memset(&model_tile_state, 0, sizeof model_tile_state);
  memcpy(model_tile_state.column_bytes, bytes + 16, sizeof model_tile_state.column_bytes);
  memcpy(model_tile_state.rows, bytes + 48, sizeof model_tile_state.rows);
}

MODEL void model_tile_zero(int tile) { memset(model_tile_state.values[tile], 0, sizeof model_tile_state.values[tile]); }

MODEL void model_tile_loadd(int tile, const void *from, size_t stride) {
  model_tile_zero(tile);
  EACH(model_tile_state.rows[tile])
    memcpy(model_tile_state.values[tile][i], (const uint8_t *)from + (size_t)i * stride, model_tile_state.column_bytes[tile]);
}

MODEL void model_tile_stored(int tile, void *to, size_t stride) {
  EACH(model_tile_state.rows[tile])
    memcpy((uint8_t *)to + (size_t)i * stride, model_tile_state.values[tile][i], model_tile_state.column_bytes[tile]);
}

// Row by row of a, each pair with the row of b that has the pair's number: the first of all pairs added up, and the second, then both sums to what is
// there, each rounded to nearest; subnormal numbers are taken for zeros and made zeros.
MODEL void model_tile_dpbf16ps(int sum, int a, int b) {
  model_tiles *s = &model_tile_state;
  for (int row = 0; row < s->rows[sum]; row++)
    for (int lane = 0; lane < s->column_bytes[sum] / 4; lane++) {
      float sums[2] = {0, 0}, total;
      for (int pair = 0; pair < s->column_bytes[a] / 4; pair++)
        for (int i = 0; i < 2; i++) {
          uint16_t x, y;
          memcpy(&x, s->values[a][row] + 4 * pair + 2 * i, 2);
          memcpy(&y, s->values[b][pair] + 4 * lane + 2 * i, 2);
          uint32_t bits[2] = {(uint32_t)x << 16, (uint32_t)y << 16};
          float p[2];
          memcpy(p, bits, sizeof p);
          sums[i] = model_flushed(fmaf(model_flushed(p[0]), model_flushed(p[1]), sums[i]));
        }
      memcpy(&total, s->values[sum][row] + 4 * lane, 4);
      total = model_flushed(model_flushed(total) + model_flushed(sums[0] + sums[1]));
      memcpy(s->values[sum][row] + 4 * lane, &total, 4);
    }
}

// Of 32 values, or of 64 in two registers, those at the places that the low bits say.
MODEL __m512i model_permutexvar_epi16(__m512i places, __m512i values) {
  model_register p = {places}, x = {values}, r;
  EACH(32) r.u16[i] = x.u16[p.u16[i] & 31];
  return r.i;
}

MODEL __m512i model_permutex2var_epi16(__m512i first, __m512i places, __m512i second) {
  model_register p = {places}, x = {first}, y = {second}, r;
  EACH(32) r.u16[i] = p.u16[i] & 32 ? y.u16[p.u16[i] & 31] : x.u16[p.u16[i] & 31];
  return r.i;
}

#undef EACH
#undef MODEL

// Some of these are macros of the compiler's own header.
#undef _tile_dpbf16ps
#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _mm512_cmpeq_epi16_mask
#undef _mm512_reduce_ps
#undef _mm512_roundscale_ps
#undef _mm512_ternarylogic_epi32
#define __m512bh __m512i
#define _mm512_abs_epi8 model_abs_epi8
#define _mm512_add_epi16 model_add_epi16
#define _mm512_and_si512 model_and_si512
#define _mm512_broadcast_i32x4 model_broadcast_i32x4
#define _mm512_cmpeq_epi16_mask model_cmpeq_epi16_mask
#define _mm512_cvtepi32_epi16 model_cvtepi32_epi16
#define _mm512_cvtne2ps_pbh model_cvtne2ps_pbh
#define _mm512_cvtph_ps model_cvtph_ps
#define _mm512_dpbf16_ps model_dpbf16_ps
#define _mm512_dpbusd_epi32 model_dpbusd_epi32
#define _mm512_dpwssd_epi32 model_dpwssd_epi32
#define _mm512_madd_epi16 model_madd_epi16
#define _mm512_maddubs_epi16 model_maddubs_epi16
#define _mm512_mask_mov_epi16 model_mask_mov_epi16
#define _mm512_mask_mov_epi8 model_mask_mov_epi8
#define _mm512_mask_permutexvar_epi16 model_mask_permutexvar_epi16
#define _mm512_movepi8_mask model_movepi8_mask
#define _mm512_permutex2var_epi16 model_permutex2var_epi16
#define _mm512_permutex2var_epi8 model_permutex2var_epi8
#define _mm512_permutexvar_epi16 model_permutexvar_epi16
#define _mm512_reduce_ps model_reduce_ps
#define _mm512_roundscale_ps model_roundscale_ps
#define _mm512_scalef_ps model_scalef_ps
#define _mm512_set1_epi16 model_set1_epi16
#define _mm512_set1_epi32 model_set1_epi32
#define _mm512_set1_epi8 model_set1_epi8
#define _mm512_shuffle_epi8 model_shuffle_epi8
#define _mm512_srai_epi16 model_srai_epi16
#define _mm512_ternarylogic_epi32 model_ternarylogic_epi32
#define _mm512_testn_epi16_mask model_testn_epi16_mask
#define _mm512_unpackhi_epi8 model_unpackhi_epi8
#define _tile_dpbf16ps model_tile_dpbf16ps
#define _tile_loadconfig model_tile_loadconfig
#define _tile_loadd model_tile_loadd
#define _tile_release() ((void)0)
#define _tile_stored model_tile_stored
#define _tile_zero model_tile_zero
#define _mm512_unpacklo_epi8 model_unpacklo_epi8

#endif
