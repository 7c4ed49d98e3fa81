// What the CUDA kernels of the bilinear family share.
#pragma once

#include "common.h"
#include "cuda/launch.h"

namespace gioada {
namespace cuda {

// Class of a pixel, or -1 where it does not count.
template <typename Op>
__device__ __forceinline__ int read_class(const Op& op, int64_t pixel) {
  const int64_t label = op.label_type == LabelType::uint8
                            ? static_cast<const uint8_t*>(op.labels)[pixel]
                            : static_cast<const int64_t*>(op.labels)[pixel];
  return class_of(label, op.ignore_index, op.classes);
}

// The four corners of a cell in the logits, class by class.
template <typename T>
struct Corners {
  const T* above;       // upper left
  int64_t right, down;  // offsets of the others
  int64_t class_stride;

  __device__ __forceinline__ void interpolate(int64_t c, float upper, float* z, float* step) const {
    const T* p = above + c * class_stride;
    const float left = 1.f - upper;
    *z = left * to_float(p[0]) + upper * to_float(p[right]);
    *step = left * to_float(p[down]) + upper * to_float(p[down + right]) - *z;
  }
};

}  // namespace cuda
}  // namespace gioada
