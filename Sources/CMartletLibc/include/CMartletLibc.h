// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.
//
// The platform's C library under one name: Swift knows it as Glibc, Musl, Bionic or Darwin, and every file would have to ask which. Below, what
// Swift cannot import from a header: macros that are no constants, and functions with a variable number of arguments.
#ifndef MARTLET_LIBC_H
#define MARTLET_LIBC_H

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/// Why the last call failed, for `strerror`.
static inline int martlet_errno(void) { return errno; }

/// Opens a file that is there for reading. Never waits: a named pipe is opened and can be refused. -1 and `martlet_errno` where it fails.
static inline int martlet_open_for_reading(const char *path) { return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); }

static inline bool martlet_is_regular_file(const struct stat *status) { return S_ISREG(status->st_mode); }
static inline bool martlet_is_directory(const struct stat *status) { return S_ISDIR(status->st_mode); }

/// A private map of a file's first bytes that are only read; NULL and `martlet_errno` where it fails.
static inline void *martlet_map_file(int descriptor, size_t byteCount) {
  void *address = mmap(NULL, byteCount, PROT_READ, MAP_PRIVATE, descriptor, 0);
  return address == MAP_FAILED ? NULL : address;
}

static inline ptrdiff_t martlet_page_size(void) { return sysconf(_SC_PAGESIZE); }

/// Gives the memory of a map's pages back; they stay readable, and are read from the file again when they are needed. `address` begins a page.
static inline void martlet_give_pages_back(void *address, size_t byteCount) {
#ifdef __linux__
  madvise(address, byteCount, MADV_DONTNEED);
#else
  (void)address;
  (void)byteCount;
#endif
}

/// Zeroed memory of whole pages, given back with `munmap`; NULL and `martlet_errno` where it fails.
static inline void *martlet_map_memory(size_t byteCount) {
  void *address = mmap(NULL, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return address == MAP_FAILED ? NULL : address;
}

/// Asks for huge pages: a wish, which only Linux hears.
static inline void martlet_wish_for_huge_pages(void *address, size_t byteCount) {
#ifdef MADV_HUGEPAGE
  madvise(address, byteCount, MADV_HUGEPAGE);
#else
  (void)address;
  (void)byteCount;
#endif
}

/// Has the system give pages now that would be given when they are first written to. What they hold stays; `address` begins a page, and nobody
/// else writes to them meanwhile.
static inline void martlet_populate_pages(void *address, size_t byteCount) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(address, byteCount, MADV_POPULATE_WRITE) == 0) return;
#endif
  // Linux before 5.14.
  volatile char *bytes = (volatile char *)address;
  size_t step = (size_t)martlet_page_size();
  for (size_t i = 0; i < byteCount; i += step) bytes[i] = bytes[i];
}

/// Starts a thread with a stack of 8 MiB, as glibc's are and others' are not, that runs `body(argument)`. 0, or the error's number. A thread is a number: `pthread_t` is an integer to Swift in one library
/// and a pointer in another.
static inline int martlet_thread_start(uintptr_t *thread, void *(*body)(void *), void *argument) {
  pthread_t started;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, (size_t)8 << 20);
  int failure = pthread_create(&started, &attributes, body, argument);
  pthread_attr_destroy(&attributes);
  if (failure == 0) *thread = (uintptr_t)started;
  return failure;
}
/// Waits until the thread has ended.
static inline void martlet_thread_join(uintptr_t thread) { pthread_join((pthread_t)thread, NULL); }
/// Lets the thread end when it likes: nobody will wait for it.
static inline void martlet_thread_detach(uintptr_t thread) { pthread_detach((pthread_t)thread); }

/// Opens a file for lines that are written behind what it has, and makes it where it is not there. -1 and `martlet_errno` where it fails.
static inline int martlet_open_for_appending(const char *path) { return open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600); }

/// A pipe that no other program inherits: where it is read, and where it is written. 0, or -1 and `martlet_errno`.
static inline int martlet_pipe(int ends[2]) {
  if (pipe(ends) != 0) return -1;
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  return 0;
}

/// Starts a program with this environment and its standard error where `standardError` is; interrupts and requests to end do there what they
/// usually do. 0, or the error's number.
int martlet_spawn(const char *program, char *const arguments[], int standardError, int32_t *process);
/// Whether an interrupt (Ctrl-C) does nothing here, while another process has the terminal.
void martlet_ignore_interrupts(bool ignored);
/// Waits until the process has ended, and returns its status; -1 where there is none such. `endedBySignal` is 0 where it ended by itself.
int martlet_wait(int32_t process, int *endedBySignal);

#endif
