// Gradient of a bilinear resize. The block of a strip sums the gradients of its pixels for each of
// its input points (partial sums); a last kernel adds up the partial sums of the strips around each
// point. Both sums run in a fixed order.
#pragma once

#include "cuda/bilinear.h"

namespace gioada {
namespace cuda {

// Gradient of one input point of a strip, from the chunk of blockDim.x pixel columns that starts at
// column `chunk`: the sum of the columns' gradients times the point's interpolation weights.
__device__ __forceinline__ float gather_point(const float* grads,    // [columns of the chunk]
                                              const float* fracs_x,  // [columns of the chunk]
                                              const StripCells& at, int64_t chunk, int point,
                                              int points, const Axis& columns) {
  const int64_t from = max(columns.begin_of(at.first + point - 1), max(chunk, at.x_begin));
  const int64_t middle = columns.begin_of(at.first + point);
  const int64_t to = point < points - 1 ? columns.begin_of(at.first + point + 1) : middle;
  const int64_t stop = min(to, min(at.x_end, chunk + blockDim.x));
  float sum = 0.f;
  for (int64_t px = from; px < stop; ++px) {
    const float frac_x = fracs_x[px - chunk];
    sum += grads[px - chunk] * (px < middle ? frac_x : 1.f - frac_x);
  }
  return sum;
}

constexpr int kGradientThreads = 128;

// One thread per element of the gradients adds up the partial sums of a point: it lies in up to two
// strips above and two below.
static __global__ void __launch_bounds__(kGradientThreads)
    gradient_kernel(const CellStrips strips,
                    const float* __restrict__ partial,  // [strips, 2, cells + 1, channels]
                    const float* __restrict__ scale,    // [1] factor, or null
                    const TensorView logits,            // [N, C, h, w] gradient, or none
                    const TensorView depth,             // [N, 1, h, w] gradient, or none
                    int64_t elements, int64_t channels, int64_t in_height, int64_t in_width) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kGradientThreads + threadIdx.x;
  if (i >= elements) return;
  const int64_t classes = logits ? logits.shape[1] : 0;
  const int64_t c = i % channels, point = i / channels;
  const int64_t x = point % in_width, y = point / in_width % in_height;
  const int64_t n = point / (in_width * in_height);
  float sum = 0.f;
  for (int side = 1; side >= 0; --side) {
    const int64_t cell_row = y - side;
    if (cell_row < 0 || cell_row >= strips.cell_rows) continue;
    for (int64_t s = max((x - 1) / strips.cells, int64_t(0)); s <= x / strips.cells; ++s) {
      if (s >= strips.in_row) continue;
      const int64_t strip = (n * strips.cell_rows + cell_row) * strips.in_row + s;
      const int64_t at = x - s * strips.cells;
      sum += partial[((strip * 2 + side) * (strips.cells + 1) + at) * channels + c];
    }
  }
  if (scale != nullptr) sum *= *scale;
  float* out = c < classes ? logits.as<float>() + point * classes + c : depth.as<float>() + point;
  *out = sum;
}

// Number of channels in the gradients that exist: of the logits, of depth or of both.
__host__ __device__ __forceinline__ int64_t channels_of(const TensorView& logits,
                                                        const TensorView& depth) {
  return (logits ? logits.shape[1] : 0) + (depth ? 1 : 0);
}

// Fills the gradients that exist. `kernel` is the name in error messages.
inline void launch_gradient(const char* kernel, const CellStrips& strips,
                            const float* partial,      // [strips, 2, cells + 1, channels]
                            const float* scale,        // [1] factor, or null
                            const TensorView& logits,  // [N, C, h, w] gradient, or none
                            const TensorView& depth,   // [N, 1, h, w] gradient, or none
                            cudaStream_t stream) {
  const TensorView& either = logits ? logits : depth;
  const int64_t in_height = either.shape[2], in_width = either.shape[3];
  const int64_t channels = channels_of(logits, depth);
  const int64_t elements = either.shape[0] * in_height * in_width * channels;
  const dim3 grid = checked_grid(kernel, divide_up(elements, kGradientThreads));
  gradient_kernel<<<grid, kGradientThreads, 0, stream>>>(strips, partial, scale, logits, depth,
                                                         elements, channels, in_height, in_width);
  check_launch(kernel);
}

}  // namespace cuda
}  // namespace gioada
