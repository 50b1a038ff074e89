// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Which variants exist, and which of them this machine can run.

#include "tables.h"

const martlet_kernel_table *const *martlet_kernel_tables(int32_t *count) {
  static const martlet_kernel_table *const tables[] = {
#if defined(__x86_64__)
      &martlet_avx512bf16_table, &martlet_avx512_table, &martlet_avx2_table,
#elif defined(__aarch64__)
      &martlet_neon_table,
#endif
      &martlet_portable_table, &martlet_bf16_model_table,
  };
  *count = sizeof tables / sizeof tables[0];
  return tables;
}

bool martlet_kernel_table_is_supported(const martlet_kernel_table *table) {
#if defined(__x86_64__)
  // The builtins ask the operating system too (XCR0), not only the processor.
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
              __builtin_cpu_supports("bmi2");
#if MARTLET_AVX512_MODEL
  return avx2;
#endif
  if (table == &martlet_avx2_table) return avx2;
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (table == &martlet_avx512_table) return avx512;
  if (table == &martlet_avx512bf16_table)
    return avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
#else
  (void)table;  // NEON is part of arm64
#endif
  return true;
}
