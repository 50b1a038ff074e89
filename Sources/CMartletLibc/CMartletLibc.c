// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What is short is in the header.
#include "CMartletLibc.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int martlet_spawn(const char *program, char *const arguments[], int standardError, int32_t *process) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t usual, none;
  pid_t started = 0;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, standardError, 2);
  posix_spawnattr_init(&attributes);
  // What this process ignores would be ignored there too.
  sigemptyset(&usual);
  sigaddset(&usual, SIGINT);
  sigaddset(&usual, SIGTERM);
  posix_spawnattr_setsigdefault(&attributes, &usual);
  // Nor may it be held back there because the thread that starts it, such as a pool's, holds signals back.
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  int failure = posix_spawn(&started, program, &files, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  *process = (int32_t)started;
  return failure;
}

void martlet_ignore_interrupts(bool ignored) { signal(SIGINT, ignored ? SIG_IGN : SIG_DFL); }

int martlet_wait(int32_t process, int *endedBySignal) {
  int status = 0;
  while (waitpid((pid_t)process, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  *endedBySignal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}
