// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The allocation functions of the test binary: each counts, then calls glibc's own under its other name, so that free needs no part in this.

#include "martlet_allocation_counter.h"

#include <errno.h>
#include <stddef.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define MARTLET_SANITIZED 1
#endif
#endif

static _Thread_local bool counting;
static _Thread_local uint64_t count;

void martlet_allocation_counter_begin(void) {
  count = 0;
  counting = true;
}

uint64_t martlet_allocation_counter_end(void) {
  counting = false;
  return count;
}

#if defined(__GLIBC__) && !defined(MARTLET_SANITIZED)

bool martlet_allocation_counter_is_present(void) { return true; }

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t number, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
  if (counting) count++;
  return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
  if (counting) count++;
  return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size) {
  if (counting) count++;
  return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  if (counting) count++;
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
  if (counting) count++;
  if (alignment % sizeof(void *) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  void *result = __libc_memalign(alignment, size);
  if (!result) return ENOMEM;
  *memory = result;
  return 0;
}

#else

bool martlet_allocation_counter_is_present(void) { return false; }

#endif
