// Checked launches of the CUDA kernels.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace gioada {
namespace cuda {

inline void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(kernel) + ": " + cudaGetErrorString(error));
  }
}

inline int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// A grid of x * y * z blocks. Throws an error that names the kernel if CUDA cannot launch the grid.
inline dim3 checked_grid(const char* kernel, int64_t x, int64_t y = 1, int64_t z = 1) {
  constexpr int64_t kMaxX = 0x7fffffff, kMaxYZ = 0xffff;
  if (x > kMaxX || y > kMaxYZ || z > kMaxYZ) {
    const auto size = [](int64_t a, int64_t b, int64_t c) {
      return std::to_string(a) + " x " + std::to_string(b) + " x " + std::to_string(c);
    };
    throw std::runtime_error(std::string(kernel) + ": the tensors need a grid of " + size(x, y, z) +
                             " blocks, CUDA launches at most " + size(kMaxX, kMaxYZ, kMaxYZ));
  }
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

}  // namespace cuda
}  // namespace gioada
