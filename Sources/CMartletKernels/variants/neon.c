// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// NEON, which every arm64 processor has: 32 registers of 4 floats, so a 16-lane vector is four of them.

#include "tables.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define MARTLET_NAME "neon"
#define MARTLET_DESCRIPTION "arm64 with NEON"
#define MARTLET_TABLE martlet_neon_table
#define MARTLET_NEON 1
#define MARTLET_FMA 1
#define MARTLET_DOT_BF16 0

#include "variant.h"
#endif
