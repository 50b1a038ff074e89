// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// System calls that the worker pool needs.

#define _GNU_SOURCE
#include "martlet_threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void martlet_futex_wait(const uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void martlet_futex_wake(const uint32_t *word, int32_t count) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0); }

int32_t martlet_affinity_count(void) {
  uint64_t mask[martlet_affinity_words];
  martlet_get_affinity(mask);
  int32_t count = 0;
  for (int i = 0; i < martlet_affinity_words; i++) count += __builtin_popcountll(mask[i]);
  return count;
}

void martlet_get_affinity(uint64_t *mask) {
  memset(mask, 0, martlet_affinity_words * sizeof *mask);
  // The call itself and not the library's wrapper, which knows smaller masks only.
  if (syscall(SYS_sched_getaffinity, 0, martlet_affinity_words * sizeof *mask, mask) <= 0) mask[0] = 1;
}

int32_t martlet_set_affinity(uintptr_t thread, const uint64_t *mask) {
  return pthread_setaffinity_np((pthread_t)thread, martlet_affinity_words * sizeof *mask, (const cpu_set_t *)mask);
}

void martlet_yield(void) { sched_yield(); }

void martlet_set_thread_name(const char *name) {
  char truncated[16] = {0};
  for (int i = 0; i < 15 && name[i]; i++) truncated[i] = name[i];
  pthread_setname_np(pthread_self(), truncated);
}

void martlet_block_signals(void) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
}

uintptr_t martlet_thread_id(void) { return (uintptr_t)pthread_self(); }
