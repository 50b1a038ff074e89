// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#ifndef MARTLET_ATTENTION_H
#define MARTLET_ATTENTION_H

#include <stdint.h>

typedef struct martlet_attention_kernels {
  int32_t placeholder;
} martlet_attention_kernels;

#endif
