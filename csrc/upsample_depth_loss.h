// L1 or berHu loss of bilinearly upsampled depth: arguments, and maths per element for
// CPU and CUDA.
//
//   e[n,Y,X] = bilinear(depth) - target
//   loss     = sum_valid f(e) / number of valid pixels
//   L1       : f(e) = |e|
//   berHu    : f(e) = |e| up to c, (e^2 + c^2) / 2c above; c = max_valid |e| / 5, a constant in the
//              gradient
#pragma once

#include <array>
#include <cfloat>
#include <cmath>

#include "tensor_view.h"

namespace gioada {

enum class DepthLossKind : int { l1, berhu };

inline std::array<const char*, 2> enum_names(DepthLossKind) { return {"l1", "berhu"}; }

struct UpsampleDepthLoss {
  TensorView depth;   // [N, 1, h, w], any strides
  TensorView target;  // [N, 1, H, W], contiguous
  TensorView valid;   // bool [N, 1, H, W], contiguous; or none: all are valid
  DepthLossKind kind;
  Axis rows, columns;
  TensorView loss;  // float32 []
  TensorView grad;  // float32 [N, 1, h, w], contiguous; or none: not needed

  GIOADA_MEMBER bool berhu() const { return kind == DepthLossKind::berhu; }
  GIOADA_MEMBER int64_t batch() const { return depth.shape[0]; }
  GIOADA_MEMBER int64_t in_height() const { return rows.in; }
  GIOADA_MEMBER int64_t in_width() const { return columns.in; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
};

inline namespace GIOADA_ISA {

// Threshold c of berHu and its inverse. With c = infinity, berHu is L1.
struct Threshold {
  float c, inverse;
};

GIOADA_HD Threshold threshold_of(bool berhu, float largest_error) {
  if (!berhu) return {INFINITY, 0.f};
  const float c = fmaxf(largest_error / 5.f, FLT_MIN);  // avoids 1 / 0 if all errors are 0
  return {c, 1.f / c};
}

// f(e) and its derivative; Real is float or a vector of floats. Above c, berHu is computed as
// |e| + (|e| - c)^2 / 2c, which overflows only if f(e) does.
template <typename Real>
GIOADA_HD void depth_error(Real e, const Threshold& threshold, Real* loss, Real* slope) {
  const Real zero = Real{}, one = zero + 1.f;
  const Real magnitude = e < zero ? -e : e;
  const Real excess = magnitude > threshold.c ? magnitude - threshold.c : zero;
  const Real ratio = excess * threshold.inverse;
  const Real sign = e > zero ? one : (e < zero ? -one : zero);
  *loss = magnitude + excess * (ratio * 0.5f);
  *slope = sign + sign * ratio;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
