// Loss of bilinearly upsampled depth: arguments, and maths per element for CPU and CUDA.
//
//   z[n,Y,X] = bilinear(depth), e = z - target; e = log(z / target) for silog
//   l1       : f(e) = |e|
//   berhu    : f(e) = |e| up to c, (e^2 + c^2) / 2c above; c = max_valid |e| / 5, a constant in the
//              gradient
//   l2       : f(e) = e^2
//   silog    : f(e) = (e - m)^2 + (1 - lambda) m^2, m = mean_valid e
//   loss     = sum_valid weight f(e) / sum_valid weight, the sum alone, or weight f(e) per pixel
//
// The mean of silog's f(e) is mean(e^2) - lambda mean(e)^2, without its cancellation.
#pragma once

#include <array>
#include <cfloat>
#include <cmath>

#include "reduction.h"
#include "tensor_view.h"

namespace gioada {

enum class DepthLossKind : int { l1, berhu, l2, silog };

inline std::array<const char*, 4> enum_names(DepthLossKind) {
  return {"l1", "berhu", "l2", "silog"};
}

struct UpsampleDepthLoss {
  TensorView depth;         // [N, 1, h, w], any strides
  TensorView target;        // [N, 1, H, W], contiguous
  TensorView valid;         // bool [N, 1, H, W], contiguous; or none: all are valid
  TensorView pixel_weight;  // float32 [N, 1, H, W], contiguous; or none: all ones
  DepthLossKind kind;
  Reduction reduction;  // silog: only mean
  float silog_lambda;
  Axis rows, columns;
  TensorView loss;  // float32 [], or [N, 1, H, W] for Reduction::none
  TensorView grad;  // float32 [N, 1, h, w], contiguous; or none: not needed

  GIOADA_MEMBER bool logarithmic() const { return kind == DepthLossKind::silog; }
  // Whether f depends on all errors: a pass over them comes first.
  GIOADA_MEMBER bool needs_statistic() const {
    return kind == DepthLossKind::berhu || logarithmic();
  }
  GIOADA_MEMBER int64_t batch() const { return depth.shape[0]; }
  GIOADA_MEMBER int64_t in_height() const { return rows.in; }
  GIOADA_MEMBER int64_t in_width() const { return columns.in; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
};

inline namespace GIOADA_ISA {

// f of l1, berhu and l2: f(e) = linear |e| + max(|e| - c, 0)^2 curvature / 2.
// f of silog: f(e) = (e - mean)^2 + offset mean / 2, where offset = 2 (1 - lambda) mean.
struct Curve {
  float linear, c, curvature;
  float mean, offset;
};

// `statistic` is the largest |e| for berhu, the mean error for silog.
GIOADA_HD Curve curve_of(const UpsampleDepthLoss& op, float statistic) {
  if (op.kind == DepthLossKind::l1) return {1.f, INFINITY, 0.f, 0.f, 0.f};
  if (op.kind == DepthLossKind::l2) return {0.f, 0.f, 2.f, 0.f, 0.f};
  if (op.kind == DepthLossKind::silog) {
    return {0.f, 0.f, 2.f, statistic, 2.f * (1.f - op.silog_lambda) * statistic};
  }
  const float c = fmaxf(statistic / 5.f, FLT_MIN);  // avoids 1 / 0 if all errors are 0
  return {1.f, c, 1.f / c, 0.f, 0.f};
}

// f(e) and its derivative; Real is float or a vector of floats. BerHu above c is computed in a form
// that overflows only if f(e) does.
template <typename Real>
GIOADA_HD void depth_error(Real e, const Curve& curve, Real* loss, Real* slope) {
  const Real zero = Real{};
  const Real magnitude = e < zero ? -e : e;
  const Real excess = magnitude > curve.c ? magnitude - curve.c : zero;
  const Real ratio = excess * curve.curvature;
  const Real steepness = ratio + curve.linear;
  *loss = curve.linear * magnitude + excess * (ratio * 0.5f);
  *slope = e > zero ? steepness : (e < zero ? -steepness : zero);
}

// Error of silog. NaN unless both are positive; `log` is for positive, normal numbers.
template <typename Real, typename Log>
GIOADA_HD Real log_ratio(Real depth, Real target, const Log& log) {
  const Real zero = Real{}, ratio = depth / target;
  return (target > zero) & (ratio >= FLT_MIN) ? log(ratio) : zero + NAN;
}

// f(e) of silog and its derivative with respect to depth.
template <typename Real>
GIOADA_HD void log_error(Real e, Real depth, const Curve& curve, Real* loss, Real* slope) {
  const Real deviation = e - curve.mean;
  *loss = deviation * deviation + 0.5f * curve.offset * curve.mean;
  *slope = (2.f * deviation + curve.offset) / depth;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
