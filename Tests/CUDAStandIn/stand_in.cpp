// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#include "martlet_cuda_stand_in.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "martlet_cuda_emulator.h"
#include "martlet_cuda_kernels.h"

namespace {

// CUresult.
enum {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  invalid_device = 101,
  invalid_image = 200,
  invalid_context = 201,
  invalid_handle = 400,
  not_found = 500,
  illegal_address = 700,
  launch_failed = 719,
  not_permitted = 800,
  capture_unsupported = 900,
};

struct Device {
  const char *name;
  int major, minor;
  size_t byte_count;
  size_t used = 0;
  int references = 0;
  int failure = 0;  // of a kernel: the context is lost
  martlet_emulator *emulator = nullptr;
  std::map<uint64_t, size_t> memory;
};

using Work = std::function<int()>;

struct Stream {
  Device *device;
  bool is_capturing = false;
  std::vector<Work> pending, captured;
};

struct Graph {
  Device *device;
  std::vector<Work> work;
};

struct Function {
  Device *device;
  int32_t kernel;  // the emulator's
  size_t argument_bytes;
  unsigned shared_bytes = 48 << 10;
};

struct Module {
  Device *device;
};

std::mutex mutex;
constexpr int device_count = 3, first_handle = 70;  // a handle is not the ordinal
Device devices[device_count] = {
    {"Stand-in 9.0", 9, 0, size_t(1) << 30}, {"Stand-in 8.6", 8, 6, size_t(16) << 20}, {"Stand-in 7.5", 7, 5, size_t(16) << 20}};
std::map<void *, size_t> pinned;
std::set<Stream *> streams;
std::set<Graph *> graphs, executables;
std::set<Module *> modules;
std::map<std::pair<Module *, std::string>, Function *> functions;  // each module has its own, with its own attributes

thread_local Device *current = nullptr;
thread_local std::map<std::string, int> failures;

/// What a call returns before it does anything.
int planned_failure(const char *call) {
  auto found = failures.find(call);
  if (found == failures.end()) return success;
  int result = found->second;
  failures.erase(found);
  return result;
}

/// Opens a call that needs a context.
#define BEGIN(name) \
  if (int planned = planned_failure(name)) return planned; \
  std::lock_guard<std::mutex> guard(mutex); \
  if (!current || current->references == 0) return invalid_context; \
  if (current->failure) return current->failure;

#define BEGIN_WITHOUT_CONTEXT(name) \
  if (int planned = planned_failure(name)) return planned; \
  std::lock_guard<std::mutex> guard(mutex);

/// Whether bytes lie within one allocation.
bool holds(Device *device, uint64_t address, size_t count) {
  auto after = device->memory.upper_bound(address);
  if (after == device->memory.begin()) return false;
  --after;
  return address + count <= after->first + after->second;
}

bool is_pinned(const void *address, size_t count) {
  auto after = pinned.upper_bound(const_cast<void *>(address));
  if (after == pinned.begin()) return false;
  --after;
  return static_cast<const char *>(address) + count <= static_cast<char *>(after->first) + after->second;
}

int run(Stream *stream) {
  std::vector<Work> work;
  work.swap(stream->pending);
  for (Work &each : work) {
    if (int result = each()) {
      stream->device->failure = result;
      return result;
    }
  }
  return success;
}

int run_all(Device *device) {
  for (Stream *stream : streams) {
    if (stream->device == device && !stream->is_capturing) {
      if (int result = run(stream)) return result;
    }
  }
  return success;
}

int put(Stream *stream, Work work) {
  (stream->is_capturing ? stream->captured : stream->pending).push_back(std::move(work));
  return success;
}

Stream *stream_of(uintptr_t handle) {
  Stream *stream = reinterpret_cast<Stream *>(handle);
  return streams.count(stream) && stream->device == current ? stream : nullptr;
}

// MARK: the driver's functions

int cu_init(unsigned flags) {
  BEGIN_WITHOUT_CONTEXT("cuInit")
  return flags == 0 ? success : invalid_value;
}

int cu_driver_get_version(int *version) {
  *version = 13000;
  return success;
}

int cu_get_error_name(int error, const char **text) {
  switch (error) {
    case invalid_value: *text = "CUDA_ERROR_INVALID_VALUE"; break;
    case out_of_memory: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case 100: *text = "CUDA_ERROR_NO_DEVICE"; break;
    case invalid_image: *text = "CUDA_ERROR_INVALID_IMAGE"; break;
    case invalid_context: *text = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case invalid_handle: *text = "CUDA_ERROR_INVALID_HANDLE"; break;
    case not_found: *text = "CUDA_ERROR_NOT_FOUND"; break;
    case launch_failed: *text = "CUDA_ERROR_LAUNCH_FAILED"; break;
    default: *text = nullptr; return invalid_value;
  }
  return success;
}

int cu_get_error_string(int error, const char **text) {
  *text = error == 100 ? "no CUDA-capable device is detected" : error == launch_failed ? "unspecified launch failure" : nullptr;
  return *text ? success : invalid_value;
}

int cu_device_get_count(int *count) {
  *count = device_count;
  return success;
}

int cu_device_get(int *device, int ordinal) {
  if (ordinal < 0 || ordinal >= device_count) return invalid_device;
  *device = first_handle + ordinal;
  return success;
}

Device *device_of(int handle) {
  return handle >= first_handle && handle < first_handle + device_count ? &devices[handle - first_handle] : nullptr;
}

int cu_device_get_name(char *name, int count, int handle) {
  Device *device = device_of(handle);
  if (!device) return invalid_device;
  snprintf(name, size_t(count), "%s", device->name);
  return success;
}

int cu_device_get_attribute(int *value, int attribute, int handle) {
  Device *device = device_of(handle);
  if (!device) return invalid_device;
  switch (attribute) {
    case 75: *value = device->major; break;
    case 76: *value = device->minor; break;
    case 16: *value = 4; break;
    case 97: *value = device->major == 9 ? 227 << 10 : 99 << 10; break;
    default: return invalid_value;
  }
  return success;
}

int cu_device_total_mem(size_t *count, int handle) {
  Device *device = device_of(handle);
  if (!device) return invalid_device;
  *count = device->byte_count;
  return success;
}

int cu_primary_context_retain(uintptr_t *context, int handle) {
  BEGIN_WITHOUT_CONTEXT("cuDevicePrimaryCtxRetain")
  Device *device = device_of(handle);
  if (!device) return invalid_device;
  if (device->references++ == 0) {
    device->emulator = martlet_emulator_create(1);
    device->failure = 0;
  }
  *context = reinterpret_cast<uintptr_t>(device);
  return success;
}

int cu_primary_context_release(int handle) {
  BEGIN_WITHOUT_CONTEXT("cuDevicePrimaryCtxRelease")
  Device *device = device_of(handle);
  if (!device || device->references == 0) return invalid_context;
  if (--device->references == 0) {
    martlet_emulator_destroy(device->emulator);
    device->memory.clear();
    device->used = 0;
  }
  return success;
}

int cu_context_set_current(uintptr_t context) {
  BEGIN_WITHOUT_CONTEXT("cuCtxSetCurrent")
  Device *device = reinterpret_cast<Device *>(context);
  if (device < devices || device >= devices + device_count) return invalid_context;
  current = device;
  return success;
}

int cu_context_synchronize() {
  BEGIN("cuCtxSynchronize")
  return run_all(current);
}

int cu_mem_get_info(size_t *free, size_t *total) {
  BEGIN("cuMemGetInfo")
  *free = current->byte_count - current->used;
  *total = current->byte_count;
  return success;
}

int cu_mem_alloc(uint64_t *address, size_t count) {
  BEGIN("cuMemAlloc")
  if (count == 0) return invalid_value;
  if (count > current->byte_count - current->used) return out_of_memory;
  *address = martlet_emulator_allocate(current->emulator, count);
  if (*address == 0) return out_of_memory;
  current->memory[*address] = count;
  current->used += count;
  return success;
}

int cu_mem_free(uint64_t address) {
  BEGIN("cuMemFree")
  auto found = current->memory.find(address);
  if (found == current->memory.end()) return invalid_value;
  if (int result = run_all(current)) return result;
  current->used -= found->second;
  current->memory.erase(found);
  return martlet_emulator_free(current->emulator, address) ? success : invalid_value;
}

int cu_mem_alloc_host(void **address, size_t count) {
  BEGIN("cuMemAllocHost")
  if (count == 0) return invalid_value;
  *address = aligned_alloc(4096, (count + 4095) / 4096 * 4096);
  if (!*address) return out_of_memory;
  memset(*address, 0xA5, count);
  pinned[*address] = count;
  return success;
}

int cu_mem_free_host(void *address) {
  BEGIN("cuMemFreeHost")
  if (pinned.erase(address) == 0) return invalid_value;
  free(address);
  return success;
}

int cu_memset_d8_async(uint64_t address, unsigned char value, size_t count, uintptr_t handle) {
  BEGIN("cuMemsetD8Async")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (!holds(current, address, count)) return invalid_value;
  return put(stream, [=] {
    memset(reinterpret_cast<void *>(address), value, count);
    return int(success);
  });
}

int cu_memcpy_htod_async(uint64_t destination, const void *source, size_t count, uintptr_t handle) {
  BEGIN("cuMemcpyHtoDAsync")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (!holds(current, destination, count)) return invalid_value;
  // Memory that is not pinned is staged before the call returns, and no graph can have it.
  if (!is_pinned(source, count)) {
    if (stream->is_capturing) return capture_unsupported;
    std::vector<char> stage(static_cast<const char *>(source), static_cast<const char *>(source) + count);
    return put(stream, [destination, stage] {
      memcpy(reinterpret_cast<void *>(destination), stage.data(), stage.size());
      return int(success);
    });
  }
  return put(stream, [=] {
    memcpy(reinterpret_cast<void *>(destination), source, count);
    return int(success);
  });
}

int cu_memcpy_dtoh_async(void *destination, uint64_t source, size_t count, uintptr_t handle) {
  BEGIN("cuMemcpyDtoHAsync")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (!holds(current, source, count)) return invalid_value;
  return put(stream, [=] {
    memcpy(destination, reinterpret_cast<void *>(source), count);
    return int(success);
  });
}

int cu_memcpy_dtod_async(uint64_t destination, uint64_t source, size_t count, uintptr_t handle) {
  BEGIN("cuMemcpyDtoDAsync")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (!holds(current, source, count) || !holds(current, destination, count)) return invalid_value;
  return put(stream, [=] {
    memcpy(reinterpret_cast<void *>(destination), reinterpret_cast<void *>(source), count);
    return int(success);
  });
}

int cu_stream_create(uintptr_t *handle, unsigned flags) {
  BEGIN("cuStreamCreate")
  if (flags > 1) return invalid_value;
  Stream *stream = new Stream{current};
  streams.insert(stream);
  *handle = reinterpret_cast<uintptr_t>(stream);
  return success;
}

int cu_stream_destroy(uintptr_t handle) {
  BEGIN("cuStreamDestroy")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  // A driver lets the work end, and gives the stream up after it.
  int result = run(stream);
  streams.erase(stream);
  delete stream;
  return result;
}

int cu_stream_synchronize(uintptr_t handle) {
  BEGIN("cuStreamSynchronize")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (stream->is_capturing) return capture_unsupported;
  return run(stream);
}

int cu_module_load_data(uintptr_t *handle, const void *image) {
  BEGIN("cuModuleLoadData")
  if (strncmp(static_cast<const char *>(image), martlet_stand_in_image(), strlen(martlet_stand_in_image())) != 0) return invalid_image;
  Module *module = new Module{current};
  modules.insert(module);
  *handle = reinterpret_cast<uintptr_t>(module);
  return success;
}

int cu_module_unload(uintptr_t handle) {
  BEGIN("cuModuleUnload")
  Module *module = reinterpret_cast<Module *>(handle);
  if (modules.erase(module) == 0) return invalid_handle;
  for (auto entry = functions.begin(); entry != functions.end();) {
    if (entry->first.first != module) {
      ++entry;
      continue;
    }
    delete entry->second;
    entry = functions.erase(entry);
  }
  delete module;
  return success;
}

int cu_module_get_function(uintptr_t *handle, uintptr_t module, const char *name) {
  BEGIN("cuModuleGetFunction")
  if (modules.count(reinterpret_cast<Module *>(module)) == 0) return invalid_handle;
  Function *&function = functions[{reinterpret_cast<Module *>(module), name}];
  if (!function) {
    int32_t kernel = martlet_emulator_kernel(name);
    size_t argument_bytes = 0;
    for (int32_t id = 0; id < martlet_cuda_kernel_count; id++) {
      martlet_cuda_kernel entry = martlet_cuda_kernel_at(id);
      if (strcmp(entry.name, name) == 0) argument_bytes = size_t(entry.argument_bytes);
    }
    if (kernel < 0 || argument_bytes == 0) {
      functions.erase({reinterpret_cast<Module *>(module), name});
      return not_found;
    }
    function = new Function{current, kernel, argument_bytes};
  }
  *handle = reinterpret_cast<uintptr_t>(function);
  return success;
}

Function *function_of(uintptr_t handle) {
  for (auto &entry : functions) {
    if (entry.second == reinterpret_cast<Function *>(handle) && entry.second->device == current) return entry.second;
  }
  return nullptr;
}

unsigned most_shared_bytes(const Device *device) { return device->major == 9 ? 227 << 10 : 99 << 10; }

int cu_func_set_attribute(uintptr_t handle, int attribute, int value) {
  BEGIN("cuFuncSetAttribute")
  Function *function = function_of(handle);
  if (!function) return invalid_handle;
  if (attribute != 8 || value < 0 || unsigned(value) > most_shared_bytes(current)) return invalid_value;
  function->shared_bytes = unsigned(value);
  return success;
}

int cu_launch_kernel(
    uintptr_t handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
    unsigned shared_bytes, uintptr_t stream_handle, void **arguments, void **extra) {
  BEGIN("cuLaunchKernel")
  Function *function = function_of(handle);
  Stream *stream = stream_of(stream_handle);
  if (!function || !stream) return invalid_handle;
  if (!grid_x || !grid_y || !grid_z || grid_y > 65535 || grid_z > 65535 || !block_x || !block_y || !block_z) return invalid_value;
  if (size_t(block_x) * block_y * block_z > 1024 || shared_bytes > function->shared_bytes || extra || !arguments) return invalid_value;
  const char *bytes = static_cast<const char *>(arguments[0]);
  std::vector<char> argument(bytes, bytes + function->argument_bytes);
  martlet_emulator *emulator = current->emulator;
  int32_t kernel = function->kernel;
  return put(stream, [=]() mutable {
    void *pointers[1] = {argument.data()};
    if (martlet_emulator_launch(emulator, kernel, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, pointers)) {
      return int(success);
    }
    fprintf(stderr, "the emulator: %s\n", martlet_emulator_error(emulator));
    return int(launch_failed);
  });
}

int cu_stream_begin_capture(uintptr_t handle, int mode) {
  BEGIN("cuStreamBeginCapture")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (mode < 0 || mode > 2 || stream->is_capturing) return invalid_value;
  stream->is_capturing = true;
  stream->captured.clear();
  return success;
}

int cu_stream_end_capture(uintptr_t handle, uintptr_t *graph_handle) {
  BEGIN("cuStreamEndCapture")
  Stream *stream = stream_of(handle);
  if (!stream) return invalid_handle;
  if (!stream->is_capturing) return invalid_value;
  stream->is_capturing = false;
  Graph *graph = new Graph{current};
  graph->work.swap(stream->captured);
  graphs.insert(graph);
  *graph_handle = reinterpret_cast<uintptr_t>(graph);
  return success;
}

int cu_graph_instantiate(uintptr_t *executable_handle, uintptr_t handle, unsigned long long flags) {
  BEGIN("cuGraphInstantiateWithFlags")
  Graph *graph = reinterpret_cast<Graph *>(handle);
  if (graphs.count(graph) == 0) return invalid_handle;
  if (flags != 0) return invalid_value;
  Graph *executable = new Graph(*graph);
  executables.insert(executable);
  *executable_handle = reinterpret_cast<uintptr_t>(executable);
  return success;
}

int cu_graph_launch(uintptr_t handle, uintptr_t stream_handle) {
  BEGIN("cuGraphLaunch")
  Graph *executable = reinterpret_cast<Graph *>(handle);
  Stream *stream = stream_of(stream_handle);
  if (executables.count(executable) == 0 || !stream) return invalid_handle;
  for (const Work &work : executable->work) put(stream, work);
  return success;
}

int destroy(std::set<Graph *> &all, uintptr_t handle) {
  Graph *graph = reinterpret_cast<Graph *>(handle);
  if (all.erase(graph) == 0) return invalid_handle;
  delete graph;
  return success;
}

int cu_graph_destroy(uintptr_t handle) {
  BEGIN("cuGraphDestroy")
  return destroy(graphs, handle);
}

int cu_graph_exec_destroy(uintptr_t handle) {
  BEGIN("cuGraphExecDestroy")
  return destroy(executables, handle);
}

struct Entry {
  const char *name;
  void *function;
};

#define ENTRY(name, function) {name, reinterpret_cast<void *>(&function)}
const Entry entries[] = {
    ENTRY("cuInit", cu_init),
    ENTRY("cuDriverGetVersion", cu_driver_get_version),
    ENTRY("cuGetErrorName", cu_get_error_name),
    ENTRY("cuGetErrorString", cu_get_error_string),
    ENTRY("cuDeviceGetCount", cu_device_get_count),
    ENTRY("cuDeviceGet", cu_device_get),
    ENTRY("cuDeviceGetName", cu_device_get_name),
    ENTRY("cuDeviceGetAttribute", cu_device_get_attribute),
    ENTRY("cuDeviceTotalMem", cu_device_total_mem),
    ENTRY("cuDevicePrimaryCtxRetain", cu_primary_context_retain),
    ENTRY("cuDevicePrimaryCtxRelease", cu_primary_context_release),
    ENTRY("cuCtxSetCurrent", cu_context_set_current),
    ENTRY("cuCtxSynchronize", cu_context_synchronize),
    ENTRY("cuMemGetInfo", cu_mem_get_info),
    ENTRY("cuMemAlloc", cu_mem_alloc),
    ENTRY("cuMemFree", cu_mem_free),
    ENTRY("cuMemAllocHost", cu_mem_alloc_host),
    ENTRY("cuMemFreeHost", cu_mem_free_host),
    ENTRY("cuMemsetD8Async", cu_memset_d8_async),
    ENTRY("cuMemcpyHtoDAsync", cu_memcpy_htod_async),
    ENTRY("cuMemcpyDtoHAsync", cu_memcpy_dtoh_async),
    ENTRY("cuMemcpyDtoDAsync", cu_memcpy_dtod_async),
    ENTRY("cuStreamCreate", cu_stream_create),
    ENTRY("cuStreamDestroy", cu_stream_destroy),
    ENTRY("cuStreamSynchronize", cu_stream_synchronize),
    ENTRY("cuModuleLoadData", cu_module_load_data),
    ENTRY("cuModuleUnload", cu_module_unload),
    ENTRY("cuModuleGetFunction", cu_module_get_function),
    ENTRY("cuFuncSetAttribute", cu_func_set_attribute),
    ENTRY("cuLaunchKernel", cu_launch_kernel),
    ENTRY("cuStreamBeginCapture", cu_stream_begin_capture),
    ENTRY("cuStreamEndCapture", cu_stream_end_capture),
    ENTRY("cuGraphInstantiateWithFlags", cu_graph_instantiate),
    ENTRY("cuGraphLaunch", cu_graph_launch),
    ENTRY("cuGraphDestroy", cu_graph_destroy),
    ENTRY("cuGraphExecDestroy", cu_graph_exec_destroy),
};

int get_proc_address(const char *name, void **function, int version, uint64_t flags, int *status) {
  *function = nullptr;
  *status = 1;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
  if (int planned = planned_failure("cuGetProcAddress_v2")) return planned;
  if (flags != 0 || version != 12000) return invalid_value;
  for (const Entry &entry : entries) {
    if (strcmp(entry.name, name) == 0) {
      *function = entry.function;
      *status = 0;
      return success;
    }
  }
  return not_found;
}

}  // namespace

extern "C" void *martlet_stand_in_proc_address(void) { return reinterpret_cast<void *>(&get_proc_address); }

extern "C" void martlet_stand_in_fail(const char *call, int32_t result) { failures[call] = result; }

extern "C" const char *martlet_stand_in_image(void) { return "stand-in for a cubin"; }

extern "C" int64_t martlet_stand_in_live_count(void) {
  std::lock_guard<std::mutex> guard(mutex);
  size_t count = pinned.size() + streams.size() + graphs.size() + executables.size() + modules.size();
  for (const Device &device : devices) count += device.memory.size();
  return int64_t(count);
}
