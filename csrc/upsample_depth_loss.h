// L1 or berHu loss of bilinearly upsampled depth: types and per-element maths of CPU and CUDA.
//
//   e[n,Y,X] = bilinear(depth, align_corners = True) - target
//   loss     = sum_valid f(e) / number of valid pixels
//   L1       : f(e) = |e|
//   berHu    : f(e) = |e| up to c, (e^2 + c^2) / 2c above; c = max_valid |e| / 5, a constant in the
//              gradient
#pragma once

#include <cfloat>
#include <cmath>

#include "common.h"

namespace gioada {

struct UpsampleDepthLoss {
  const void* depth;  // [batch, in_height, in_width], any strides
  FloatType depth_type;
  int64_t depth_strides[3];  // in elements, in the order of the shape
  const void* target;        // [batch, height, width], contiguous
  FloatType target_type;
  const uint8_t* valid;  // [batch, height, width], contiguous; or null: all pixels are
  bool berhu;            // or L1
  int64_t batch, in_height, in_width, height, width;
  float* loss;  // [1]
  float* grad;  // [batch, in_height, in_width], or null: not wanted
};

inline namespace GIOADA_ISA {

// Threshold c of berHu, and its inverse. An infinite one makes berHu L1.
struct Threshold {
  float c, inverse;
};

GIOADA_HD Threshold threshold_of(bool berhu, float largest_error) {
  if (!berhu) return {INFINITY, 0.f};
  const float c = fmaxf(largest_error / 5.f, FLT_MIN);  // no division by 0 where all errors are 0
  return {c, 1.f / c};
}

// f(e) and its derivative; Real is float or a vector of floats. Above c, berHu is
// |e| + (|e| - c)^2 / 2c: nothing overflows that f(e) itself does not.
template <typename Real>
GIOADA_HD void depth_error(Real e, const Threshold& threshold, Real* loss, Real* slope) {
  const Real zero = Real{}, one = zero + 1.f;
  const Real size = e < zero ? -e : e;
  const Real excess = size > threshold.c ? size - threshold.c : zero;
  const Real ratio = excess * threshold.inverse;
  const Real sign = e > zero ? one : (e < zero ? -one : zero);
  *loss = size + excess * (ratio * 0.5f);
  *slope = sign + sign * ratio;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
