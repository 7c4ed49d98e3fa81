// Runs kernels on the CPU: blocks one after the other, the threads of a block as fibres that switch
// at barriers, both in a shuffled order. The kernels are compiled with -fsanitize=thread, without
// the sanitizer's library: its calls before each access to memory come here. They find races,
// misaligned accesses, accesses outside of every tensor and shared variable, and reads of memory
// that nothing has written. The first finding ends the kernel, before the access happens.

#include <dlfcn.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

namespace emulation {

Indices now;

namespace {

constexpr int kWarp = 32, kMaxThreads = 1024;
constexpr size_t kStack = 128 << 10;     // bytes per fibre
constexpr size_t kMaxShared = 48 << 10;  // bytes that every GPU has for a block
constexpr size_t kGap = 1 << 10;         // bytes between shared variables

// Who may have accessed an element while the running thread did.
enum Others : int8_t { nobody, of_warp, of_block, of_grid };

// The last write, or the last read, of an element of memory. Its time: the number of the block, and
// of barriers that the block and the warp had passed.
struct Access {
  uint32_t block = 0, phase = 0, warp_phase = 0;
  int16_t thread = 0;
  bool atomic = false;
  Others others = nobody;  // whose reads this one has replaced, with no barrier between
};
struct Element {
  Access write, reads;
};

// A tensor or a shared variable.
struct Region {
  std::string name;
  const char *begin, *end;
  size_t element_size;
  bool initialised;
  std::vector<Element> elements;
  std::vector<char> shared;  // memory of a shared variable

  Region(const char* name, const void* memory, size_t size, size_t element_size, bool initialised)
      : name(name),
        begin(static_cast<const char*>(memory)),
        end(begin + size),
        element_size(element_size),
        initialised(initialised),
        elements((size + element_size - 1) / element_size) {}
  bool contains(const char* p, size_t size) const { return p >= begin && p + size <= end; }
};
std::vector<Region> regions;
size_t last_region = 0;

enum class State { ready, at_barrier, at_warp_barrier, done };
struct Thread {
  State state;
  const char* place;  // of the barrier
  bool started;
  jmp_buf context;
  dim3 index;
};
Thread threads[kMaxThreads];
int thread_count, current = -1;
std::vector<int> ready;  // threads that run before the scheduler does
jmp_buf scheduler;
char* const stacks = static_cast<char*>(mmap(nullptr, kStack* kMaxThreads, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));

const char* kernel;
void (*body)(const void*);
const void* arguments;
size_t arguments_size, dynamic_shared_size;
uint32_t block = 0, first_block;  // counted since the start; the first one of the launch
uint32_t phase, warp_phase[kMaxThreads / kWarp];

std::string finding;
std::mt19937_64 generator;
int change = -1;

void switch_from(jmp_buf context);

void run_thread() {
  body(arguments);
  threads[current].state = State::done;
  switch_from(threads[current].context);
}

// Leaves a fibre, or the scheduler, for the next thread that is ready, else for the scheduler. Only
// the start of a fibre needs a ucontext, whose switches are system calls.
void switch_from(jmp_buf context) {
  if (_setjmp(context) != 0) return;
  current = -1;
  if (ready.empty()) _longjmp(scheduler, 1);
  current = ready.back();
  ready.pop_back();
  Thread& thread = threads[current];
  now.thread = thread.index;
  if (std::exchange(thread.started, true)) _longjmp(thread.context, 1);
  static ucontext_t start;
  getcontext(&start);
  start.uc_stack.ss_sp = stacks + current * kStack;
  start.uc_stack.ss_size = kStack;
  makecontext(&start, run_thread, 0);
  setcontext(&start);
}

std::ostream& operator<<(std::ostream& out, const dim3& i) {
  return out << "(" << i.x << ", " << i.y << ", " << i.z << ")";
}

// Records what is wrong, with the code's offset in this library, and ends the kernel.
template <typename... Parts>
void fail(const void* code, const Parts&... what) {
  std::ostringstream text;
  text << kernel << ": ";
  (text << ... << what) << "; block " << now.block;
  if (current >= 0) text << ", thread " << now.thread;
  Dl_info library;
  if (code != nullptr && dladdr(code, &library) != 0) {
    // The call ends before its return address.
    text << "@" << static_cast<const char*>(code) - static_cast<char*>(library.dli_fbase) - 1;
  }
  finding = text.str();
  ready.clear();
  if (current >= 0) switch_from(threads[current].context);
}

// Who made an access that no barrier orders before those of the running thread.
Others unordered(const Access& a) {
  if (a.block < first_block) return nobody;
  if (a.block != block || a.others == of_grid) return of_grid;
  if (a.phase != phase) return nobody;
  const int warp = current / kWarp;
  if (a.thread / kWarp != warp || a.others == of_block) return of_block;
  if (a.warp_phase != warp_phase[warp]) return nobody;
  return a.thread != current || a.others == of_warp ? of_warp : nobody;
}

// Index of the region with these bytes, or the number of regions.
size_t region_of(const char* p, size_t size) {
  if (last_region < regions.size() && regions[last_region].contains(p, size)) return last_region;
  size_t i = 0;
  while (i < regions.size() && !regions[i].contains(p, size)) ++i;
  return i;
}

// The distance of an address from the nearest region.
std::string position_of(const char* p) {
  std::ostringstream text;
  ptrdiff_t least = PTRDIFF_MAX;
  for (const Region& r : regions) {
    const ptrdiff_t distance = p < r.begin ? r.begin - p : p - r.end;
    if (distance >= least) continue;
    least = distance;
    text.str("");
    text << distance << (p < r.begin ? " bytes before " : " bytes behind ") << r.name;
  }
  return text.str();
}

void access(const void* address, size_t size, bool write, bool atomic, const void* code) {
  const char* p = static_cast<const char*>(address);
  const auto in = [p](const void* begin, size_t bytes) {
    return p >= begin && p < static_cast<const char*>(begin) + bytes;
  };
  if (current < 0 || in(stacks, kStack * kMaxThreads)) return;
  const char* what = write ? "write of " : "read of ";
  last_region = region_of(p, size);
  if (last_region == regions.size()) {
    if (in(arguments, arguments_size) || in(&now, sizeof now)) return;
    fail(code, "out of bounds: ", what, size, " bytes, ", position_of(p));
  }
  Region& region = regions[last_region];
  const size_t first = (p - region.begin) / region.element_size;
  const size_t last = (p + size - 1 - region.begin) / region.element_size;
  if (reinterpret_cast<uintptr_t>(p) % std::min<size_t>(size, 16) != 0) {
    fail(code, "misaligned: ", what, size, " bytes of ", region.name, ", element ", first);
  }
  const Access here = {block, phase, warp_phase[current / kWarp], int16_t(current), atomic};
  for (size_t i = first; i <= last; ++i) {
    Element& element = region.elements[i];
    const bool after_write =
        unordered(element.write) != nobody && !(atomic && element.write.atomic);
    const Others readers = unordered(element.reads);
    if (after_write || (write && readers != nobody)) {
      const Access& other = after_write ? element.write : element.reads;
      fail(code, "race: ", what, region.name, ", element ", i, ", after a ",
           after_write ? "write" : "read", " by thread ", other.thread, " of ",
           other.block == block ? "this block" : "another block");
    }
    if (!region.initialised && element.write.block == 0 && (!write || atomic)) {
      fail(code, "unwritten: read of ", region.name, ", element ", i);
    }
    if (write) {
      element.write = here;
    } else {
      element.reads = here;
      element.reads.others = readers;
    }
  }
}

// Opens a barrier if all threads in [begin, end) wait there, except for those that have returned.
bool open(int begin, int end, State barrier) {
  const char* place = nullptr;
  bool returned = false, diverged = false;
  for (int t = begin; t < end; ++t) {
    const Thread& thread = threads[t];
    returned = returned || thread.state == State::done;
    if (thread.state == State::done) continue;
    if (thread.state != barrier) return false;
    diverged = diverged || (place != nullptr && strcmp(place, thread.place) != 0);
    place = thread.place;
  }
  if (place == nullptr) return false;
  if (diverged) fail(nullptr, "divergent barrier: not all threads wait at ", place);
  if (returned) fail(nullptr, "divergent barrier: threads returned before ", place);
  for (int t = begin; t < end; ++t) {
    if (threads[t].state == barrier) threads[t].state = State::ready;
  }
  return true;
}

// Opens barriers. Returns whether any thread can run.
bool open_barriers() {
  bool opened = false;
  for (int begin = 0; begin < thread_count; begin += kWarp) {
    if (!open(begin, std::min(begin + kWarp, thread_count), State::at_warp_barrier)) continue;
    ++warp_phase[begin / kWarp];
    opened = true;
  }
  if (!opened && open(0, thread_count, State::at_barrier)) {
    ++phase;
    opened = true;
  }
  for (int t = 0; t < thread_count && !opened && finding.empty(); ++t) {
    if (threads[t].state == State::done) continue;
    fail(nullptr, "divergent barrier: threads wait for ever at ", threads[t].place);
  }
  return opened && finding.empty();
}

void run_block() {
  ++block;
  phase = 0;
  std::fill_n(warp_phase, kMaxThreads / kWarp, 0);
  const dim3 size = now.block_size;
  for (int t = 0; t < thread_count; ++t) {
    Thread& thread = threads[t];
    thread.state = State::ready;
    thread.started = false;
    thread.index = dim3(t % size.x, t / size.x % size.y, t / size.x / size.y);
  }
  do {
    for (int t = 0; t < thread_count; ++t) {
      if (threads[t].state == State::ready) ready.push_back(t);
    }
    std::shuffle(ready.begin(), ready.end(), generator);
    switch_from(scheduler);
  } while (finding.empty() && open_barriers());
  const auto shared = [](const Region& region) { return !region.shared.empty(); };
  regions.erase(std::remove_if(regions.begin(), regions.end(), shared), regions.end());
}

}  // namespace

void* shared_memory(const char* name, size_t size, size_t alignment) {
  size_t used = 0;
  for (Region& region : regions) {
    if (region.shared.empty()) continue;
    if (region.name == name) return region.shared.data();
    used += region.end - region.begin;
  }
  if (size == 0) size = dynamic_shared_size;
  if (used + size > kMaxShared) fail(nullptr, "too large: shared memory up to ", name);
  std::vector<char> memory(size + kGap, '\xff');  // NaN
  regions.emplace_back(name, memory.data(), size, alignment, false);
  regions.back().shared = std::move(memory);
  return regions.back().shared.data();
}

void barrier(bool of_warp, const char* place) {
  Thread& thread = threads[current];
  thread.state = of_warp ? State::at_warp_barrier : State::at_barrier;
  thread.place = place;
  switch_from(thread.context);
}

bool broken(int change) { return change == emulation::change; }

void run(const char* kernel, dim3 grid, dim3 block_size, size_t dynamic_shared,
         const void* arguments, size_t arguments_size, void (*body)(const void*)) {
  if (!finding.empty()) return;  // of an earlier kernel
  emulation::kernel = kernel;
  emulation::body = body;
  emulation::arguments = arguments;
  emulation::arguments_size = arguments_size;
  dynamic_shared_size = dynamic_shared;
  now.block_size = block_size;
  now.grid_size = grid;
  first_block = block + 1;
  thread_count = static_cast<int>(block_size.x * block_size.y * block_size.z);
  std::vector<unsigned> order(size_t(grid.x) * grid.y * grid.z);
  if (order.empty() || grid.y > 0xffff || grid.z > 0xffff || thread_count < 1 ||
      thread_count > kMaxThreads) {
    fail(nullptr, "invalid launch: grid ", grid, ", block of ", block_size);
  }
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), generator);
  for (unsigned b : order) {
    if (!finding.empty()) return;
    now.block = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
    run_block();
  }
}

}  // namespace emulation

#define CODE __builtin_return_address(0)

unsigned atomicAdd(unsigned* address, unsigned value) {
  emulation::access(address, sizeof value, true, true, CODE);
  return std::exchange(*address, *address + value);
}
unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  emulation::access(address, sizeof value, true, true, CODE);
  return std::exchange(*address, *address + value);
}

// The calls that -fsanitize=thread inserts.
#define HOOKS(size)                                                                             \
  void __tsan_read##size(void* p) { emulation::access(p, size, false, false, CODE); }           \
  void __tsan_write##size(void* p) { emulation::access(p, size, true, false, CODE); }           \
  void __tsan_unaligned_read##size(void* p) { emulation::access(p, size, false, false, CODE); } \
  void __tsan_unaligned_write##size(void* p) { emulation::access(p, size, true, false, CODE); }
extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, size_t size) { emulation::access(p, size, false, false, CODE); }
void __tsan_write_range(void* p, size_t size) { emulation::access(p, size, true, false, CODE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}

// For Python.
#define EXPORT extern "C" __attribute__((visibility("default")))

// Adds memory that kernels may access.
EXPORT void emulation_add(const char* name, const void* memory, size_t size, size_t element_size,
                          int initialised) {
  emulation::regions.emplace_back(name, memory, size, element_size, initialised);
}

// Forgets all memory. Returns the finding since the last call, or "".
EXPORT const char* emulation_finish() {
  static std::string text;
  text = std::exchange(emulation::finding, "");
  emulation::regions.clear();
  return text.c_str();
}

EXPORT void emulation_seed(uint64_t seed) { emulation::generator.seed(seed); }

// Chooses the change to the kernels that is in force; -1: none.
EXPORT void emulation_break(int change) { emulation::change = change; }
