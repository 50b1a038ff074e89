// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The body of a variant: included once by each variant file after its macros. Defines the table `MARTLET_TABLE`.

#include "attention.h"
#include "../kernels/tensor.h"
#include "../kernels/encoder.h"
#include "../kernels/experts.h"
#include "../kernels/gather.h"
#include "../kernels/product_codes.h"
#include "../kernels/product_rows.h"
#include "../kernels/product_pack.h"
#include "../kernels/quantise.h"
#include "../kernels/product.h"
#include "../kernels/ceilings.h"

// The kernels of a table: its rows_of_a_digit_tile, and whose attention it has.
#define MARTLET_KERNELS(digit_rows, append_kernel, attend_kernel)                                                                      \
  .tensor = {.rms_norm = rms_norm, .add = add, .add_row = add_row, .add_group_rows = add_group_rows, .scale = scale,                   \
             .scale_rows = scale_rows, .gated_activation = gated_activation, .gather_rows = gather_rows, .copy_heads = copy_heads,     \
             .route = route, .combine = combine, .layer_norm = layer_norm, .gelu = gelu, .add_chosen_rows = add_chosen_rows,           \
             .pool_rows = pool_rows, .unit_rows = unit_rows},                                                                          \
  .attention = {.append = append_kernel, .attend = attend_kernel, .gather = gather_keys},                                              \
  .product = {.few_rows = MARTLET_FEW_ROWS, .rows_of_a_tile = MARTLET_PRODUCT_ROWS, .rows_of_a_digit_tile = digit_rows, .pack = pack,   \
              .code_inputs = code_inputs, .pick_slabs = pick_slabs, .product = product, .grouped_product = grouped_product,            \
              .embed = embed},                                                                                                         \
  .ceilings = MARTLET_CEILINGS(digit_rows)

const martlet_kernel_table MARTLET_TABLE = {.name = MARTLET_NAME, .description = MARTLET_DESCRIPTION, MARTLET_KERNELS(0, append, attend)};
