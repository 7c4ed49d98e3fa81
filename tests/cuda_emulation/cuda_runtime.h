// The part of CUDA that the kernels use, for a C++ compiler. build.py includes this file first and
// rewrites launches and `__shared__`. Without __CUDA_ARCH__, csrc takes its portable code paths.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__  // g++ knows no barriers

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }  // the emulator reports bad launches
inline const char* cudaGetErrorString(cudaError_t) { return ""; }

namespace emulation {

// Indices of the running thread.
struct Indices {
  dim3 thread, block, block_size, grid_size;
};
extern Indices now;

// `place` is the source line.
void barrier(bool of_warp, const char* place);

// Whether test_broken_kernels.py has chosen this change to a kernel.
bool broken(int change);

void run(const char* kernel, dim3 grid, dim3 block, size_t dynamic_shared, const void* arguments,
         size_t arguments_size, void (*body)(const void*));

// kernel<<<grid, block, dynamic_shared, stream>>>(arguments): `body` has captured the arguments and
// calls the kernel.
template <typename Body>
void launch(const char* kernel, const Body& body, dim3 grid, dim3 block, size_t dynamic_shared = 0,
            cudaStream_t = nullptr) {
  run(kernel, grid, block, dynamic_shared, &body, sizeof body,
      [](const void* p) { (*static_cast<const Body*>(p))(); });
}

// Memory of a `__shared__` variable of this block. A size of 0 is the launch's dynamic size.
void* shared_memory(const char* name, size_t size, size_t alignment);

template <typename Variable>
Variable& shared(const char* name) {
  return *static_cast<Variable*>(shared_memory(name, sizeof(Variable), alignof(Variable)));
}
template <typename Element>
Element* dynamic_shared(const char* name) {
  return static_cast<Element*>(shared_memory(name, 0, alignof(Element)));
}

}  // namespace emulation

#define threadIdx (::emulation::now.thread)
#define blockIdx (::emulation::now.block)
#define blockDim (::emulation::now.block_size)
#define gridDim (::emulation::now.grid_size)

#define EMULATION_TEXT_OF(line) #line
#define EMULATION_TEXT(line) EMULATION_TEXT_OF(line)
#define EMULATION_PLACE __FILE__ ":" EMULATION_TEXT(__LINE__)
#define __syncthreads() ::emulation::barrier(false, EMULATION_PLACE)
#define __syncwarp() ::emulation::barrier(true, EMULATION_PLACE)

unsigned atomicAdd(unsigned* address, unsigned value);
unsigned long long atomicAdd(unsigned long long* address, unsigned long long value);

// As on a GPU, the product is rounded first, so that the error grows with x.
inline float __expf(float x) { return exp2f(x * 1.4426950408889634f); }
inline float __fdividef(float x, float y) { return x / y; }

template <typename A, typename B>
std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <typename A, typename B>
std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}
