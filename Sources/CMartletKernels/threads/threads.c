// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// System calls that the worker pool needs.

#define _GNU_SOURCE
#include "martlet_threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

void martlet_futex_wait(const uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void martlet_futex_wake(const uint32_t *word, int32_t count) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0); }

int32_t martlet_affinity_count(void) {
  // The call itself and not glibc's wrapper: cpu_set_t ends at 1024 processors, this mask at 16384.
  unsigned long mask[256];
  long byte_count = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  int32_t count = 0;
  for (long i = 0; i < byte_count / (long)sizeof mask[0]; i++) count += __builtin_popcountl(mask[i]);
  return count > 0 ? count : 1;
}

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
