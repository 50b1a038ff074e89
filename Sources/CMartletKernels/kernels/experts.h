// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Which experts a row asks, and the sum of what they answer. A row's result depends on that row alone.

// Index of the highest value among first ..< end, of equals the lowest.
MARTLET_INLINE int32_t highest(const float *values, int32_t first, int32_t end) {
  int32_t best = first;
  for (int32_t i = first + 1; i < end; i++)
    if (values[i] > values[best]) best = i;
  return best;
}

static void score_experts(const float *outputs, int32_t count, int32_t scoring, float *scores) {
  float most = outputs[highest(outputs, 0, count)];
  f32x16 sums = f32x16_set(0);
  for (int32_t i = 0; i < count; i += 16) {
    int32_t left = count - i;
    f32x16 x = left < 16 ? f32x16_load_first(outputs + i, left) : f32x16_load(outputs + i), y;
    if (scoring == martlet_expert_sigmoid) y = 1.0f / (1.0f + f32x16_exp(-x));
    else y = f32x16_exp(x - most);
    if (left < 16) f32x16_store_first(scores + i, y, left), y = f32x16_load_first(scores + i, left);
    else f32x16_store(scores + i, y);
    sums += y;
  }
  if (scoring == martlet_expert_sigmoid) return;
  float sum = f32x16_sum(sums);
  for (int32_t i = 0; i < count; i++) scores[i] /= sum;
}

// Takes the experts of all but the best groups out of the choice.
static void choose_groups(const martlet_route_arguments *a, float *choice) {
  float groups[martlet_most_experts];
  int32_t size = a->experts / a->groups;
  for (int32_t g = 0; g < a->groups; g++) {
    const float *of = choice + g * size;
    int32_t best = highest(of, 0, size);
    groups[g] = of[best];
    if (a->sums_best_two && size > 1) {
      float second = -__builtin_inff();
      for (int32_t i = 0; i < size; i++)
        if (i != best && of[i] > second) second = of[i];
      groups[g] += second;
    }
  }
  for (int32_t n = 0; n < a->used_groups; n++) {
    int32_t best = highest(groups, 0, a->groups);
    // NaN is not above infinity: a group that was taken is never found again.
    groups[best] = -__builtin_inff();
    for (int32_t i = best * size; i < (best + 1) * size; i++) choice[i + martlet_most_experts] = choice[i];
  }
}

static void route(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_route_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    float scores[martlet_most_experts], choices[2 * martlet_most_experts], *choice = choices;
    score_experts(a->outputs + (size_t)row * (size_t)a->experts, a->experts, a->scoring, scores);
    for (int32_t i = 0; i < a->experts; i++) choice[i] = a->bias ? scores[i] + a->bias[i] : scores[i];
    if (a->groups > 1) {
      for (int32_t i = 0; i < a->experts; i++) choice[martlet_most_experts + i] = -__builtin_inff();
      choose_groups(a, choice);
      choice += martlet_most_experts;
    }
    int32_t *chosen = a->chosen + (size_t)row * (size_t)a->used;
    float *weights = a->weights + (size_t)row * (size_t)a->used, sum = 0;
    for (int32_t n = 0; n < a->used; n++) {
      int32_t best = -1;
      for (int32_t i = 0; i < a->experts; i++) {
        int taken = 0;
        for (int32_t j = 0; j < n; j++) taken |= chosen[j] == i;
        if (!taken && (best < 0 || choice[i] > choice[best])) best = i;
      }
      chosen[n] = best;
      weights[n] = scores[best];
      sum += scores[best];
    }
    float scale = a->normalizes ? a->scale / (sum + 1e-20f) : a->scale;
    for (int32_t n = 0; n < a->used; n++) weights[n] *= scale;
  }
}

static void combine(const void *arguments, int32_t task, int32_t worker, void *scratch) {
  const martlet_combine_arguments *a = arguments;
  row_range rows = rows_of_task(task, a->rows_per_task, a->rows);
  int32_t whole = a->columns & ~15, tail = a->columns & 15;
  (void)worker, (void)scratch;
  for (int32_t row = rows.first; row < rows.end; row++) {
    const int32_t *places = a->places + (size_t)row * (size_t)a->used;
    const float *weights = a->weights + (size_t)row * (size_t)a->used;
    float *y = a->output + (size_t)row * (size_t)a->columns;
    for (int32_t i = 0; i < whole; i += 16) {
      f32x16 sum = f32x16_set(0);
      for (int32_t j = 0; j < a->used; j++)
        sum = f32x16_fma(f32x16_load(a->input + (size_t)places[j] * (size_t)a->columns + i), f32x16_set(weights[j]), sum);
      f32x16_store(y + i, sum);
    }
    if (tail) {
      f32x16 sum = f32x16_set(0);
      for (int32_t j = 0; j < a->used; j++)
        sum = f32x16_fma(f32x16_load_first(a->input + (size_t)places[j] * (size_t)a->columns + whole, tail), f32x16_set(weights[j]), sum);
      f32x16_store_first(y + whole, sum, tail);
    }
  }
}
