// Instance or group norm, activation, residual and reflection padding: arguments, and maths per
// element for CPU and CUDA.
//
//   z   = (x - mean) rstd              statistics of each image and group, biased variance
//   a   = z weight + bias              of each channel
//   y   = act(a) + residual            act(a) = a where a > 0, else negative_slope a; or a gate(a)
//   out = y, padded by reflection
//
//   gy  = sum of grad over the pixel and the copies of it that padding made
//   gz  = weight gy act'(a)
//   gx  = rstd (gz - mean(gz) - z mean(gz z))             means over each image and group
//   gradients of weight and bias: sums of gy act'(a) z and of gy act'(a) over images and pixels
//
// Statistics and sums are made for each channel; those of a group's channels are then combined and
// written to each of them, so that all passes over pixels work per channel.
#pragma once

#include <array>
#include <cmath>

#include "tensor_view.h"

namespace gioada {

enum class NormActivation : int { leaky_relu, silu, gelu };

inline std::array<const char*, 3> enum_names(NormActivation) {
  return {"leaky_relu", "silu", "gelu"};
}

struct InstanceNormAct {
  TensorView x;         // [N, C, H, W], channels-last
  TensorView residual;  // [N, C, H, W], rows [W, C] dense, other strides arbitrary; or none
  TensorView weight;    // float32 [C]; or none: 1
  TensorView bias;      // float32 [C]; or none: 0
  NormActivation activation;
  float negative_slope;  // of leaky_relu. 0: ReLU, 1: no activation
  int64_t groups;        // divides C
  int64_t pad;
  double eps;
  TensorView out;   // [N, C, H + 2 pad, W + 2 pad], channels-last, same type as x
  TensorView mean;  // float32 [N, C]
  TensorView rstd;  // float32 [N, C]

  GIOADA_MEMBER int64_t batch() const { return x.shape[0]; }
  GIOADA_MEMBER int64_t channels() const { return x.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return x.shape[2]; }
  GIOADA_MEMBER int64_t width() const { return x.shape[3]; }
  GIOADA_MEMBER int64_t group_size() const { return channels() / groups; }
};

struct InstanceNormActBackward {
  TensorView grad;    // [N, C, H + 2 pad, W + 2 pad], channels-last
  TensorView x;       // [N, C, H, W], channels-last
  TensorView mean;    // float32 [N, C]
  TensorView rstd;    // float32 [N, C]
  TensorView weight;  // as in InstanceNormAct, and so on
  TensorView bias;
  NormActivation activation;
  float negative_slope;
  int64_t groups;
  int64_t pad;
  TensorView grad_x;         // [N, C, H, W], channels-last
  TensorView grad_residual;  // [N, C, H, W], channels-last; or none: not needed
  TensorView grad_affine;    // float32 [2, C] of weight and bias; or none: not needed

  GIOADA_MEMBER int64_t batch() const { return x.shape[0]; }
  GIOADA_MEMBER int64_t channels() const { return x.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return x.shape[2]; }
  GIOADA_MEMBER int64_t width() const { return x.shape[3]; }
  GIOADA_MEMBER int64_t group_size() const { return channels() / groups; }
};

// What the loops over elements are compiled for, so that a plain norm does no more than it must.
template <bool kHasAffine, NormActivation kActivationKind>
struct NormVariant {
  static constexpr bool kAffine = kHasAffine;  // multiplies by weight and adds bias
  static constexpr NormActivation kActivation = kActivationKind;
};

inline namespace GIOADA_ISA {

// 1 / sqrt(variance + eps). 0 for a constant channel with eps = 0, so that z is 0 and not 0 / 0.
GIOADA_HD float reciprocal_deviation(double variance, double eps) {
  return variance + eps == 0. ? 0.f : static_cast<float>(1. / sqrt(variance + eps));
}

// 1 - normal_cdf(|a|), from e = exp(-a^2 / 2); absolute error 1e-9 before rounding. The formula
// is 7.1.26 (erf) of Abramowitz and Stegun, Handbook of Mathematical Functions, with two more
// coefficients, chosen to minimise the largest error.
template <typename Real>
GIOADA_HD Real normal_tail(Real magnitude, Real e) {
  const Real t = 1.f / (magnitude * 0.31819806f + 1.f);
  Real p = t * 0.046284914f - 0.24705261f;
  p = p * t + 0.428584784f;
  p = p * t - 0.187902316f;
  p = p * t + 0.230085835f;
  p = p * t + 0.100504532f;
  p = p * t + 0.129494861f;
  return p * t * e;
}

template <typename Real>
struct Gate {
  Real value, slope;
};

// SiLU and GELU are a gate(a): gate is the logistic function, or the normal distribution's.
// `exp_nonpositive` computes exp(x) for x <= 0.
template <NormActivation kActivation, typename Real, typename Exp>
GIOADA_HD Gate<Real> gate(Real a, const Exp& exp_nonpositive) {
  const Real magnitude = a < 0.f ? -a : a;
  if constexpr (kActivation == NormActivation::silu) {
    const Real e = exp_nonpositive(-magnitude);
    const Real upper = 1.f / (1.f + e), lower = e * upper;
    return {a < 0.f ? lower : upper, upper * lower};
  } else {
    const Real e = exp_nonpositive(magnitude * magnitude * -0.5f);
    const Real tail = normal_tail(magnitude, e);
    return {a < 0.f ? tail : 1.f - tail, e * 0.398942280f};  // 1 / sqrt(2 pi)
  }
}

template <NormActivation kActivation, typename Real, typename Exp>
GIOADA_HD Real activate(Real a, float negative_slope, const Exp& exp_nonpositive) {
  if constexpr (kActivation == NormActivation::leaky_relu) {
    return a > 0.f ? a : negative_slope * a;
  } else {
    return a * gate<kActivation>(a, exp_nonpositive).value;
  }
}

// grad times d act / d a. For leaky_relu only the sign of `a` matters, so that it may be x - mean.
template <NormActivation kActivation, typename Real, typename Exp>
GIOADA_HD Real activation_gradient(Real a, Real grad, float negative_slope,
                                   const Exp& exp_nonpositive) {
  if constexpr (kActivation == NormActivation::leaky_relu) {
    return a > 0.f ? grad : negative_slope * grad;
  } else {
    const Gate<Real> g = gate<kActivation>(a, exp_nonpositive);
    return grad * (a * g.slope + g.value);
  }
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

// Calls function(NormVariant<...>{}) with what these arguments need.
template <typename Arguments, typename Function>
void with_norm_variant(const Arguments& op, const Function& function) {
  using Kind = NormActivation;
  if (op.activation == Kind::silu) {
    function(NormVariant<true, Kind::silu>{});
  } else if (op.activation == Kind::gelu) {
    function(NormVariant<true, Kind::gelu>{});
  } else if (op.weight || op.bias) {
    function(NormVariant<true, Kind::leaky_relu>{});
  } else {
    function(NormVariant<false, Kind::leaky_relu>{});
  }
}

}  // namespace GIOADA_ISA
}  // namespace gioada
