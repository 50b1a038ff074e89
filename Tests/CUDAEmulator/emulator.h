// Copyright the Martlet authors. Licensed under the Apache License 2.0; see LICENSE.txt.

// What the emulator is inside: a block of threads, each a fiber, and the memory that they share.
//
// One block runs at a time. A thread runs until it meets an instruction that needs others, leaves what it gives there, and waits; when all who must take
// part have come, the instruction is done for all of them at once. So every instruction that joins lanes is one function over all lanes.

#ifndef MARTLET_EMULATOR_H
#define MARTLET_EMULATOR_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace emulator {

// Where an instruction stands in a kernel's source.
struct Site {
  const char *file;
  int line;

  static Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator==(const Site &other) const { return line == other.line && std::string(file) == other.file; }
};

struct Allocation {
  uint64_t begin, end;
};

constexpr int warp_lanes = 32;

// A copy to shared memory that is under way.
struct Copy {
  uint32_t offset;
  const uint8_t *source;  // of 16 bytes; null: zeros
};

struct Thread;

// An instruction that joins lanes of a warp: `lanes[i]` is what lane i left, null where it takes no part.
using Collective = void (*)(void *const lanes[warp_lanes]);

enum class State { ready, at_collective, at_block_barrier, done };

struct Thread {
  void *stack_pointer;
  int index;
  State state;
  // What it waits at.
  const char *instruction;
  Site site;
  uint32_t mask;
  Collective collective;
  void *deposit;
  std::vector<Copy> copies;       // since the last commit
  std::vector<std::vector<Copy>> groups;  // committed, oldest first

  int warp() const { return index / warp_lanes; }
  int lane() const { return index % warp_lanes; }
};

// Who was at a byte of shared memory, and when: an access is before another if a barrier of the block, or of the warp that both are of, is between them.
struct Access {
  uint32_t block_time = 0, warp_time = 0;
  int thread = -1;
};

struct SharedByte {
  Access writer, reader, other_reader;  // two readers of different warps
  bool is_under_way = false;            // a copy that was not waited for
};

class Machine {
 public:
  explicit Machine(uint64_t seed) : random_state(seed) {}
  ~Machine();

  uint64_t allocate(size_t byte_count);
  bool free(uint64_t address);
  bool launch(int32_t kernel, const uint32_t grid[3], const uint32_t block[3], uint32_t shared_byte_count, void *const *arguments);

  // For kernels, by the thread that runs.
  Thread &thread() { return *running; }
  uint32_t block_index(int axis) const { return block_indices[axis]; }
  uint32_t grid_size(int axis) const { return grid_sizes[axis]; }
  int thread_count() const { return (int)threads.size(); }

  void meet_block(Site site);
  void meet_warp(const char *instruction, Site site, uint32_t mask, Collective collective, void *deposit);
  // The fiber does not come back.
  [[noreturn]] void fail(const std::string &words);

  // Bytes offset ..< offset + count of shared memory, as the running thread, or the lane whose row an instruction reads, sees them.
  void read_shared(uint32_t offset, uint32_t count, void *bytes, const Thread &by);
  void write_shared(uint32_t offset, uint32_t count, const void *bytes);
  void copy_async(uint32_t offset, const uint8_t *source);
  void commit_copies();
  void wait_copies(size_t pending);

  // The allocation that an address lies in or ends; null where there is none.
  const Allocation *allocation_of(uint64_t address) const;

  std::string error;

 private:
  uint64_t random();
  void shuffle(std::vector<int> &order);
  bool run_block();
  bool resolve_collective(int warp);
  void resume(Thread &thread);
  void suspend();
  bool is_before(const Access &access, const Thread &now) const;
  std::string describe(const Thread &thread) const;
  std::string deadlock() const;
  static void enter();

  uint64_t random_state;
  std::map<uint64_t, Allocation> allocations;  // by begin

  // Of the launch that runs.
  int32_t kernel = -1;
  const void *argument = nullptr;
  uint32_t block_indices[3] = {}, grid_sizes[3] = {};
  std::vector<Thread> threads;
  std::vector<uint8_t> stacks;
  Thread *running = nullptr;
  void *scheduler_stack_pointer = nullptr;
  bool has_failed = false;
  std::vector<uint8_t> shared;
  std::vector<SharedByte> shared_bytes;
  uint32_t block_time = 0, block_start = 0;
  std::vector<uint32_t> warp_times;
};

// The machine that runs on this thread of the host.
extern thread_local Machine *machine;

// A kernel as the emulator calls it.
struct Kernel {
  std::string name;
  int32_t threads;
  void (*run)(const void *argument);
};

const std::vector<Kernel> &kernels();

}  // namespace emulator

#endif
