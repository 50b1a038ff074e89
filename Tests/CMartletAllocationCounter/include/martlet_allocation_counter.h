// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// Counts the heap allocations of one thread, for tests: linked into the test binary, its malloc and the like stand before glibc's.

#ifndef MARTLET_ALLOCATION_COUNTER_H
#define MARTLET_ALLOCATION_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

// Whether allocations are seen here: with glibc, and without a sanitizer, which has an allocator of its own.
bool martlet_allocation_counter_is_present(void);
// Starts counting this thread's allocations from 0.
void martlet_allocation_counter_begin(void);
// Stops counting and returns how many there were.
uint64_t martlet_allocation_counter_end(void);

#endif
