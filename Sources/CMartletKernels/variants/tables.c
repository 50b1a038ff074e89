// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Which variants exist, and which of them this machine can run.

#include "tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Whether the processor has tiles of bfloat16 and the system lets this process use them. Linux lets nobody who has not asked: a thread that
// does has 8 KB more to be kept when it is not running. What is granted holds for all of the process's threads.
static bool may_use_tiles(void) {
#if defined(__linux__)
  uint32_t a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const uint32_t tiles_and_bf16 = 1u << 24 | 1u << 22;
  if ((d & tiles_and_bf16) != tiles_and_bf16) return false;
  enum { request_permission = 0x1023, tile_data = 18 };  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}
#endif

const martlet_kernel_table *const *martlet_kernel_tables(int32_t *count) {
  static const martlet_kernel_table *const tables[] = {
#if defined(__x86_64__)
      &martlet_avx512amx_table, &martlet_avx512bf16_table, &martlet_avx512_table, &martlet_avx2_table,
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
  bool bf16 = avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  if (table == &martlet_avx512bf16_table) return bf16;
  if (table == &martlet_avx512amx_table) return bf16 && may_use_tiles();
#else
  (void)table;  // NEON is part of arm64
#endif
  return true;
}
