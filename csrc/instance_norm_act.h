// Instance norm, activation, residual and reflection padding: arguments, and maths per
// element for CPU and CUDA.
//
//   z   = (x - mean) rstd              statistics of each image and channel, biased variance
//   y   = act(z) + residual            act(z) = z where z > 0, else negative_slope z
//   out = y, padded by reflection
//
//   gy   = sum of grad over the pixel and the copies of it that padding made
//   gz   = gy act'(z)
//   gx   = rstd (gz - mean(gz) - z mean(gz z))
#pragma once

#include <cmath>

#include "tensor_view.h"

namespace gioada {

struct InstanceNormAct {
  TensorView x;          // [N, C, H, W], channels-last
  TensorView residual;   // [N, C, H, W], rows [W, C] dense, other strides arbitrary; or none
  float negative_slope;  // 0: ReLU, 1: no activation
  int64_t pad;
  double eps;
  TensorView out;   // [N, C, H + 2 pad, W + 2 pad], channels-last, same type as x
  TensorView mean;  // float32 [N, C]
  TensorView rstd;  // float32 [N, C]

  GIOADA_MEMBER int64_t batch() const { return x.shape[0]; }
  GIOADA_MEMBER int64_t channels() const { return x.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return x.shape[2]; }
  GIOADA_MEMBER int64_t width() const { return x.shape[3]; }
};

struct InstanceNormActBackward {
  TensorView grad;  // [N, C, H + 2 pad, W + 2 pad], channels-last
  TensorView x;     // [N, C, H, W], channels-last
  TensorView mean;  // float32 [N, C]
  TensorView rstd;  // float32 [N, C]
  float negative_slope;
  int64_t pad;
  TensorView grad_x;         // [N, C, H, W], channels-last
  TensorView grad_residual;  // [N, C, H, W], channels-last; or none: not needed

  GIOADA_MEMBER int64_t batch() const { return x.shape[0]; }
  GIOADA_MEMBER int64_t channels() const { return x.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return x.shape[2]; }
  GIOADA_MEMBER int64_t width() const { return x.shape[3]; }
};

inline namespace GIOADA_ISA {

// 1 / sqrt(variance + eps). 0 for a constant channel with eps = 0, so that z is 0 and not 0 / 0.
GIOADA_HD float reciprocal_deviation(double variance, double eps) {
  return variance + eps == 0. ? 0.f : static_cast<float>(1. / sqrt(variance + eps));
}

template <typename Real>
GIOADA_HD Real activate(Real z, float negative_slope) {
  return z > 0.f ? z : negative_slope * z;
}

// grad times d act / d z. `z` may be x - mean: only its sign matters.
template <typename Real>
GIOADA_HD Real activation_gradient(Real z, Real grad, float negative_slope) {
  return z > 0.f ? grad : negative_slope * grad;
}

// d loss / d x from gz and centred = x - mean. mean_gz is mean(gz), slope is rstd mean(gz z).
template <typename Real>
GIOADA_HD Real norm_gradient(Real gz, Real centred, Real rstd, Real mean_gz, Real slope) {
  return rstd * ((gz - mean_gz) - centred * slope);
}

// Source of a padded index in [0, size + 2 pad): the index that reflection padding copies there.
GIOADA_HD int64_t reflect(int64_t padded, int64_t size, int64_t pad) {
  const int64_t index = padded < pad ? pad - padded : padded - pad;
  return index < size ? index : 2 * (size - 1) - index;
}

// The inverse of reflect: the padded index of a copy of `index`, or -1 if there is no such copy.
// Copy 0 is the index itself, copies 1 and 2 are its reflections at the low and at the high end.
constexpr int kPaddedCopies = 3;

GIOADA_HD int64_t padded_copy_of(int copy, int64_t index, int64_t size, int64_t pad) {
  if (copy == 0) return pad + index;
  const int64_t from_end = size - 1 - index;
  if (copy == 1) return index >= 1 && index <= pad ? pad - index : -1;
  return from_end >= 1 && from_end <= pad ? pad + size - 1 + from_end : -1;
}

// Merges count, mean and sum of squared deviations of a set of values into the totals (Chan et
// al.).
GIOADA_HD void merge_moments(double count, double mean, double squares, double* total_count,
                             double* total_mean, double* total_squares) {
  const double both = *total_count + count;
  if (both == 0.) return;
  const double delta = mean - *total_mean, share = count / both;
  *total_mean += delta * share;
  *total_squares += squares + delta * delta * (*total_count * share);
  *total_count = both;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
