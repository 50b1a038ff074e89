// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The attention of a variant, `append` and `attend`, and what it needs: included once by each variant file after its macros.

#include "../kernels/vector.h"
#include "../kernels/math.h"
#include "../kernels/eight_bits.h"
#include "../kernels/transpose.h"
#include "../kernels/append.h"
#include "../kernels/attention_tile.h"
#include "../kernels/attention_load.h"
#include "../kernels/attention.h"
