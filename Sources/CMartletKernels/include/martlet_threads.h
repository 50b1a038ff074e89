// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The thin shim for what Swift cannot reach on Linux: futex, processor affinity, thread names, the pause instruction.

#ifndef MARTLET_THREADS_H
#define MARTLET_THREADS_H

#include <stdint.h>

// One task of a kernel. `worker` counts the threads of the pool from 0; `scratch` is that worker's own memory.
typedef void (*martlet_task_function)(const void *arguments, int32_t task, int32_t worker, void *scratch);

// Sleeps until someone wakes `word`, unless it no longer holds `expected`. May return early: callers look again.
void martlet_futex_wait(const uint32_t *word, uint32_t expected);

// Wakes at most `count` threads that sleep on `word`.
void martlet_futex_wake(const uint32_t *word, int32_t count);

// Words of a mask of processors: glibc's cpu_set_t ends at 1024 processors, this at 16384.
enum { martlet_affinity_words = 256 };

// The processors that this thread may run on, at least 1.
int32_t martlet_affinity_count(void);

// The same as bits, mask[martlet_affinity_words]; processor 0's where the system does not say.
void martlet_get_affinity(uint64_t *mask);

// Has a thread of this process run on these processors alone. 0, or the error's number.
int32_t martlet_set_affinity(uintptr_t thread, const uint64_t *mask);

// The name that tools show for the calling thread; the first 15 bytes count.
void martlet_set_thread_name(const char *name);

// Keeps every signal away from the calling thread, so that handlers run on threads the application made.
void martlet_block_signals(void);

// What distinguishes the calling thread from every other live one; never 0.
uintptr_t martlet_thread_id(void);

// Gives the processor to a thread that wants it, if there is one.
void martlet_yield(void);

// Tells the processor that this is a spin loop.
static inline void martlet_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");  // `yield` does nothing on most cores; `isb` takes about as long as x86's pause
#endif
}

#endif
