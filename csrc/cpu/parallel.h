// Memory and the parallel loop of the CPU kernels.
#pragma once

#include <cstdlib>
#include <new>

#include "common.h"

#if defined(__SANITIZE_THREAD__)
#include <atomic>
#include <thread>
#include <vector>
#elif defined(_OPENMP)
#include <omp.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace gioada {
inline namespace GIOADA_ISA {

// Uninitialised memory, aligned to a cache line.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(std::aligned_alloc(64, (size * sizeof(T) + 127) / 64 * 64))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

// Asks the system for huge pages for a large result that has not been written yet: page faults of
// 4 KiB pages can cost more than the kernel that fills them. PyTorch's allocator does the same
// under THP_MEM_ALLOC_ENABLE=1. The system may decline.
static inline void prefer_huge_pages(void* data, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = 4096;
  constexpr int64_t kMinBytes = 4 << 20;  // contains a whole huge page at any alignment
  if (bytes < kMinBytes) return;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

#ifdef __SANITIZE_THREAD__
// Calls body(thread) on threads of its own. ThreadSanitizer does not see how the threads of
// OpenMP's runtime wait for each other, and would report every loop.
template <typename Body>
static void on_threads(int threads, const Body& body) {
  std::vector<std::thread> others;
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(body, thread);
  body(0);
  for (std::thread& other : others) other.join();
}
#endif

// Calls body(i, thread) for all i in [0, count) on at most `threads` threads. The caller passes
// torch.get_num_threads(), so that torch.set_num_threads takes effect in any OpenMP runtime. `body`
// must not throw, and its result must not depend on `thread`.
template <typename Body>
static void parallel_for(int64_t count, int threads, const Body& body) {
#if defined(__SANITIZE_THREAD__)
  if (threads > 1 && count > 1) {
    std::atomic<int64_t> next{0};
    on_threads(threads, [&](int thread) {
      // relaxed: the counter alone must not make the iterations look ordered
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i, thread);
    });
    return;
  }
#elif defined(_OPENMP)
  if (threads > 1 && count > 1) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < count; ++i) body(i, omp_get_thread_num());
    return;
  }
#endif
  for (int64_t i = 0; i < count; ++i) body(i, 0);
}

// Splits [0, count) into one range per thread and calls body(begin, end, thread). Equal counts give
// equal ranges: the data that a thread touched in the previous loop may still be in its cache, and
// threads write to different pages. For iterations of about equal cost.
template <typename Body>
static void parallel_ranges(int64_t count, int threads, const Body& body) {
#if defined(__SANITIZE_THREAD__)
  if (threads > 1 && count > 1) {
    on_threads(threads, [&](int thread) {
      body(count * thread / threads, count * (thread + 1) / threads, thread);
    });
    return;
  }
#elif defined(_OPENMP)
  if (threads > 1 && count > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num(), all = omp_get_num_threads();
      body(count * thread / all, count * (thread + 1) / all, thread);
    }
    return;
  }
#endif
  body(int64_t(0), count, 0);
}

// Number of threads that get a task.
static inline int worker_count(int threads, int64_t tasks) {
  return threads < tasks ? threads : static_cast<int>(tasks);
}

static inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
