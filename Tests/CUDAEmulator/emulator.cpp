// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

#include "emulator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "martlet_cuda_emulator.h"

// Saves what a function must leave as it was, and the stack pointer to *save; goes on with another stack.
extern "C" void martlet_emulator_switch(void **save, void *load);

#if defined(__x86_64__)
asm(R"(
.text
.type martlet_emulator_switch, @function
martlet_emulator_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size martlet_emulator_switch, . - martlet_emulator_switch
)");
constexpr int saved_words = 6;  // below the address that is returned to
#elif defined(__aarch64__)
asm(R"(
.text
.type martlet_emulator_switch, @function
martlet_emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size martlet_emulator_switch, . - martlet_emulator_switch
)");
#else
#error "the emulator switches stacks on x86-64 and arm64"
#endif

namespace emulator {

thread_local Machine *machine = nullptr;

namespace {
constexpr size_t stack_bytes = 96 * 1024;
constexpr uint32_t most_shared_bytes = 227 * 1024;
constexpr uint64_t alignment = 256;
}  // namespace

Machine::~Machine() {
  for (auto &[begin, allocation] : allocations) std::free((void *)begin);
}

// MARK: memory

uint64_t Machine::allocate(size_t byte_count) {
  size_t room = (byte_count + alignment) / alignment * alignment;  // a byte more, so that the end lies in no other allocation
  void *memory = std::aligned_alloc(alignment, room);
  if (!memory) return 0;
  std::memset(memory, 0xFF, room);
  uint64_t begin = (uint64_t)memory;
  allocations[begin] = {begin, begin + byte_count};
  return begin;
}

bool Machine::free(uint64_t address) {
  auto found = allocations.find(address);
  if (found == allocations.end()) {
    error = "no allocation begins at address " + std::to_string(address);
    return false;
  }
  std::free((void *)address);
  allocations.erase(found);
  return true;
}

const Allocation *Machine::allocation_of(uint64_t address) const {
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return nullptr;
  const Allocation &allocation = std::prev(next)->second;
  return address <= allocation.end ? &allocation : nullptr;
}

bool Machine::is_before(const Access &access, const Thread &now) const {
  if (access.thread == now.index || access.block_time < block_time) return true;
  return access.thread / warp_lanes == now.warp() && access.warp_time < warp_times[(size_t)now.warp()];
}

void Machine::read_shared(uint32_t offset, uint32_t count, void *bytes, const Thread &by) {
  if ((uint64_t)offset + count > shared.size())
    fail("reads shared memory at bytes " + std::to_string(offset) + " … of " + std::to_string(shared.size()));
  Access access{block_time, warp_times[(size_t)by.warp()], by.index};
  for (uint32_t i = offset; i < offset + count; i++) {
    SharedByte &byte = shared_bytes[i];
    if (byte.writer.block_time < block_start) fail("reads byte " + std::to_string(i) + " of shared memory, which nobody wrote");
    if (byte.is_under_way) fail("reads byte " + std::to_string(i) + " of shared memory before its copy was waited for");
    if (!is_before(byte.writer, by))
      fail("reads byte " + std::to_string(i) + " of shared memory, which thread " + std::to_string(byte.writer.thread)
           + " writes without a barrier between");
    if (byte.reader.block_time == block_time && byte.reader.thread / warp_lanes != by.warp()) byte.other_reader = byte.reader;
    byte.reader = access;
  }
  std::memcpy(bytes, shared.data() + offset, count);
}

void Machine::write_shared(uint32_t offset, uint32_t count, const void *bytes) {
  if ((uint64_t)offset + count > shared.size())
    fail("writes shared memory at bytes " + std::to_string(offset) + " … of " + std::to_string(shared.size()));
  const Thread &by = *running;
  Access access{block_time, warp_times[(size_t)by.warp()], by.index};
  for (uint32_t i = offset; i < offset + count; i++) {
    SharedByte &byte = shared_bytes[i];
    if (byte.writer.block_time >= block_start) {
      if (byte.is_under_way) fail("writes byte " + std::to_string(i) + " of shared memory before a copy to it was waited for");
      if (!is_before(byte.writer, by))
        fail("writes byte " + std::to_string(i) + " of shared memory, which thread " + std::to_string(byte.writer.thread)
             + " writes without a barrier between");
    }
    for (const Access *reader : {&byte.reader, &byte.other_reader})
      if (reader->block_time >= block_start && !is_before(*reader, by))
        fail("writes byte " + std::to_string(i) + " of shared memory, which thread " + std::to_string(reader->thread)
             + " reads without a barrier between");
    byte.writer = access;
    byte.is_under_way = false;
  }
  std::memcpy(shared.data() + offset, bytes, count);
}

// MARK: copies

void Machine::copy_async(uint32_t offset, const uint8_t *source) {
  if (offset % 16 != 0 || (uint64_t)source % 16 != 0)
    fail("copies 16 bytes that are not aligned to 16: to byte " + std::to_string(offset) + " of shared memory");
  uint8_t poison[16];
  std::memset(poison, 0xFF, sizeof poison);
  write_shared(offset, 16, poison);
  for (uint32_t i = offset; i < offset + 16; i++) shared_bytes[i].is_under_way = true;
  running->copies.push_back({offset, source});
}

void Machine::commit_copies() {
  running->groups.push_back(std::move(running->copies));
  running->copies.clear();
}

void Machine::wait_copies(size_t pending) {
  auto &groups = running->groups;
  while (groups.size() > pending) {
    for (const Copy &copy : groups.front()) {
      static const uint8_t zeros[16] = {};
      for (uint32_t i = copy.offset; i < copy.offset + 16; i++) shared_bytes[i].is_under_way = false;
      write_shared(copy.offset, 16, copy.source ? copy.source : zeros);
    }
    groups.erase(groups.begin());
  }
}

// MARK: fibers

uint64_t Machine::random() {  // splitmix64
  uint64_t z = random_state += 0x9E3779B97F4A7C15;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
  z = (z ^ z >> 27) * 0x94D049BB133111EB;
  return z ^ z >> 31;
}

void Machine::shuffle(std::vector<int> &order) {
  for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random() % i]);
}

void Machine::enter() {
  Machine *here = machine;
  kernels()[(size_t)here->kernel].run(here->argument);
  Thread &thread = *here->running;
  if (!thread.copies.empty() || !thread.groups.empty()) {
    for (const auto &group : thread.groups)
      if (!group.empty()) here->fail("ends before its copies were waited for");
    if (!thread.copies.empty()) here->fail("ends before its copies were waited for");
  }
  thread.state = State::done;
  here->suspend();
}

void Machine::resume(Thread &thread) {
  running = &thread;
  martlet_emulator_switch(&scheduler_stack_pointer, thread.stack_pointer);
}

void Machine::suspend() { martlet_emulator_switch(&running->stack_pointer, scheduler_stack_pointer); }

void Machine::fail(const std::string &words) {
  has_failed = true;
  error = "kernel " + kernels()[(size_t)kernel].name + ", block (" + std::to_string(block_indices[0]) + ", " + std::to_string(block_indices[1])
    + ", " + std::to_string(block_indices[2]) + "), thread " + std::to_string(running->index) + ": " + words;
  suspend();
  std::abort();  // nobody goes on with a block that failed
}

void Machine::meet_block(Site site) {
  running->state = State::at_block_barrier;
  running->instruction = "barrier";
  running->site = site;
  suspend();
}

void Machine::meet_warp(const char *instruction, Site site, uint32_t mask, Collective collective, void *deposit) {
  if (!(mask >> running->lane() & 1)) fail(std::string(instruction) + " for lanes that it is none of: " + describe(*running));
  running->state = State::at_collective;
  running->instruction = instruction;
  running->site = site;
  running->mask = mask;
  running->collective = collective;
  running->deposit = deposit;
  suspend();
}

std::string Machine::describe(const Thread &thread) const {
  if (thread.state == State::done) return "has ended";
  const char *name = std::strrchr(thread.site.file, '/');
  return std::string("is at ") + thread.instruction + " (" + (name ? name + 1 : thread.site.file) + ":" + std::to_string(thread.site.line) + ")";
}

std::string Machine::deadlock() const {
  std::string words = "threads wait for each other:";
  for (size_t first = 0; first < threads.size();) {
    size_t end = first + 1;
    std::string what = describe(threads[first]);
    while (end < threads.size() && describe(threads[end]) == what) end++;
    words += " " + std::to_string(first) + "–" + std::to_string(end - 1) + " " + what + ";";
    first = end;
    if (words.size() > 600) return words + " …";
  }
  words.pop_back();
  return words;
}

// Does the instruction that a lane of the warp waits at, where all of its lanes have come.
bool Machine::resolve_collective(int warp) {
  size_t first = (size_t)warp * warp_lanes, end = std::min(first + warp_lanes, threads.size());
  for (size_t i = first; i < end; i++) {
    Thread &one = threads[i];
    if (one.state != State::at_collective) continue;
    void *lanes[warp_lanes] = {};
    bool is_whole = true;
    for (size_t lane = 0; lane < warp_lanes && is_whole; lane++) {
      if (!(one.mask >> lane & 1)) continue;
      is_whole = first + lane < end;
      if (!is_whole) break;
      const Thread &other = threads[first + lane];
      is_whole = other.state == State::at_collective && other.mask == one.mask && other.collective == one.collective && other.site == one.site;
      lanes[lane] = other.deposit;
    }
    if (!is_whole) continue;
    running = &one;
    if (!one.collective)
      warp_times[(size_t)warp]++;  // the warp's barrier
    else
      one.collective(lanes);
    for (size_t lane = 0; lane < warp_lanes; lane++)
      if (one.mask >> lane & 1) threads[first + lane].state = State::ready;
    return true;
  }
  return false;
}

bool Machine::run_block() {
  block_start = ++block_time;
  std::memset(shared.data(), 0xFF, shared.size());
  std::fill(warp_times.begin(), warp_times.end(), 1);
  for (size_t i = 0; i < threads.size(); i++) {
    Thread &thread = threads[i];
    thread.index = (int)i;
    thread.state = State::ready;
    thread.copies.clear();
    thread.groups.clear();
    auto *top = (uint64_t *)((uint64_t)(stacks.data() + (i + 1) * stack_bytes) / 64 * 64);
#if defined(__x86_64__)
    *--top = 0;                   // as if called: the stack is aligned to 16 before the address to return to
    *--top = (uint64_t)&Machine::enter;
    for (int word = 0; word < saved_words; word++) *--top = 0;
#else
    top -= 20;
    std::memset(top, 0, 160);
    top[11] = (uint64_t)&Machine::enter;
#endif
    thread.stack_pointer = top;
  }

  std::vector<int> warps(warp_times.size()), lanes(warp_lanes);
  for (size_t i = 0; i < warps.size(); i++) warps[i] = (int)i;
  for (int i = 0; i < warp_lanes; i++) lanes[(size_t)i] = i;
  for (;;) {
    bool goes_on = false;
    shuffle(warps);
    for (int warp : warps) {
      // A warp runs for a while before others do, as far as it can: a random while, so that warps drift apart and together.
      uint64_t most = random() % 64 + 1;
      shuffle(lanes);
      for (uint64_t turn = 0; turn < most; turn++) {
        bool ran = false;
        for (int lane : lanes) {
          size_t index = (size_t)(warp * warp_lanes + lane);
          if (index >= threads.size() || threads[index].state != State::ready) continue;
          resume(threads[index]);
          if (has_failed) return false;
          ran = true;
        }
        if (resolve_collective(warp)) ran = true;
        if (has_failed) return false;
        goes_on |= ran;
        if (!ran) break;
      }
    }
    if (goes_on) continue;

    bool all_done = true, all_at_barrier = true;
    for (const Thread &thread : threads) {
      all_done &= thread.state == State::done;
      all_at_barrier &= thread.state == State::at_block_barrier && thread.site == threads[0].site;
    }
    if (all_done) return true;
    if (!all_at_barrier) {
      error = "kernel " + kernels()[(size_t)kernel].name + ", block (" + std::to_string(block_indices[0]) + ", "
        + std::to_string(block_indices[1]) + ", " + std::to_string(block_indices[2]) + "): " + deadlock();
      return false;
    }
    block_time++;
    for (Thread &thread : threads) thread.state = State::ready;
  }
}

bool Machine::launch(int32_t id, const uint32_t grid[3], const uint32_t block[3], uint32_t shared_byte_count, void *const *arguments) {
  error.clear();
  if (id < 0 || (size_t)id >= kernels().size()) {
    error = "there is no kernel " + std::to_string(id);
    return false;
  }
  const Kernel &called = kernels()[(size_t)id];
  if (block[0] != (uint32_t)called.threads || block[1] != 1 || block[2] != 1) {
    error = "kernel " + called.name + " takes blocks of " + std::to_string(called.threads) + " × 1 × 1 threads, not " + std::to_string(block[0])
      + " × " + std::to_string(block[1]) + " × " + std::to_string(block[2]);
    return false;
  }
  if (shared_byte_count > most_shared_bytes) {
    error = "kernel " + called.name + ": a block has at most " + std::to_string(most_shared_bytes) + " bytes of shared memory, not "
      + std::to_string(shared_byte_count);
    return false;
  }
  if (grid[0] < 1 || grid[1] < 1 || grid[2] < 1 || grid[0] > 0x7FFFFFFF || grid[1] > 65535 || grid[2] > 65535) {
    error = "kernel " + called.name + ": no grid is " + std::to_string(grid[0]) + " × " + std::to_string(grid[1]) + " × "
      + std::to_string(grid[2]) + " blocks";
    return false;
  }
  kernel = id;
  argument = arguments[0];
  has_failed = false;
  threads.resize(block[0]);
  if (stacks.size() < block[0] * stack_bytes) stacks.resize(block[0] * stack_bytes);
  warp_times.assign((block[0] + warp_lanes - 1) / warp_lanes, 0);
  shared.assign(shared_byte_count, 0xFF);
  shared_bytes.assign(shared_byte_count, {});
  for (int axis = 0; axis < 3; axis++) grid_sizes[axis] = grid[axis];

  std::vector<int> blocks(size_t(grid[0]) * grid[1] * grid[2]);
  for (size_t i = 0; i < blocks.size(); i++) blocks[i] = (int)i;
  shuffle(blocks);
  Machine *before = machine;
  machine = this;
  bool is_right = true;
  for (int index : blocks) {
    block_indices[0] = (uint32_t)index % grid[0];
    block_indices[1] = (uint32_t)index / grid[0] % grid[1];
    block_indices[2] = (uint32_t)index / grid[0] / grid[1];
    if (!(is_right = run_block())) break;
  }
  machine = before;
  return is_right;
}

}  // namespace emulator

// MARK: the C interface

struct martlet_emulator {
  emulator::Machine machine;
  explicit martlet_emulator(uint64_t seed) : machine(seed) {}
};

martlet_emulator *martlet_emulator_create(uint64_t seed) { return new martlet_emulator(seed); }

void martlet_emulator_destroy(martlet_emulator *e) { delete e; }

uint64_t martlet_emulator_allocate(martlet_emulator *e, size_t byte_count) { return e->machine.allocate(byte_count); }

bool martlet_emulator_free(martlet_emulator *e, uint64_t address) {
  e->machine.error.clear();
  return e->machine.free(address);
}

int32_t martlet_emulator_kernel(const char *name) {
  const auto &all = emulator::kernels();
  for (size_t i = 0; i < all.size(); i++)
    if (all[i].name == name) return (int32_t)i;
  return -1;
}

bool martlet_emulator_launch(
    martlet_emulator *e, int32_t kernel, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z, uint32_t block_x, uint32_t block_y,
    uint32_t block_z, uint32_t shared_byte_count, void *const *arguments) {
  const uint32_t grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
  return e->machine.launch(kernel, grid, block, shared_byte_count, arguments);
}

const char *martlet_emulator_error(const martlet_emulator *e) { return e->machine.error.c_str(); }
