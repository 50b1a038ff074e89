// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// The thin shim for what Swift cannot reach on Linux: futex, processor affinity, huge pages.

#ifndef MARTLET_THREADS_H
#define MARTLET_THREADS_H

#include <stdint.h>

// One task of a kernel. `worker` counts the threads of the pool from 0; `scratch` is that worker's own memory.
typedef void (*martlet_task_function)(const void *arguments, int32_t task, int32_t worker, void *scratch);

#endif
