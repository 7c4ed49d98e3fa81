// Cross-entropy of bilinearly upsampled logits: arguments, and maths per element for
// CPU and CUDA.
//
//   z[n,c,Y,X] = bilinear(logits)
//   loss[n,Y,X] = a (lse - z[y]) + b sum_c w[c] (lse - z[c]),    lse = logsumexp_c z, 0 if ignored
//   dloss/dz_c  = (a + b W) softmax_c - a [c = y] - b w[c],      W = sum_c w[c]
//   a = (1 - label_smoothing) w[y] pixel_weight,  b = label_smoothing / C pixel_weight
//
// A mean divides by the sum of w[y] pixel_weight over valid pixels, or by the number of all pixels.
#pragma once

#include "reduction.h"
#include "tensor_view.h"

namespace gioada {

enum class MeanOver : int { valid, all };

inline std::array<const char*, 2> enum_names(MeanOver) { return {"valid", "all"}; }

struct UpsampleCrossEntropy {
  TensorView logits;        // [N, C, h, w], any strides
  TensorView labels;        // [N, H, W], contiguous
  TensorView weight;        // w: float32 [C], or none: all ones
  TensorView pixel_weight;  // float32 [N, H, W], contiguous; or none: all ones
  int64_t ignore_index;
  float label_smoothing;
  Reduction reduction;
  MeanOver mean_over;
  Axis rows, columns;
  TensorView loss;  // float32 []; [N, H, W] if the reduction is none, then there is no gradient
  TensorView grad;  // float32 [N, C, h, w], channels-last; or none: not needed

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t in_height() const { return rows.in; }
  GIOADA_MEMBER int64_t in_width() const { return columns.in; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }

  GIOADA_MEMBER float weight_of(int64_t c) const {
    return weight ? weight.as<const float>()[c] : 1.f;
  }
  // b of a pixel of weight 1.
  GIOADA_MEMBER float uniform_weight() const {
    return label_smoothing / static_cast<float>(classes());
  }
  // Factor of the gradient and of the sum of losses; `weight` is the sum of w[y] pixel_weight.
  GIOADA_MEMBER double scale(double loss_sum, double weight_sum) const {
    const auto pixels = static_cast<double>(batch() * height() * width());
    return loss_scale(reduction, loss_sum, mean_over == MeanOver::all ? pixels : weight_sum);
  }
};

inline namespace GIOADA_ISA {

// Loss of a pixel. Logits count from any common origin: log_sum = lse, picked = z[y], and with
// label smoothing weighted = sum_c w[c] z[c].
template <bool kSmooth, typename Real>
GIOADA_HD Real cross_entropy(Real a, Real b, float weight_sum, Real log_sum, Real picked,
                             Real weighted) {
  Real loss = a * (log_sum - picked);
  if (kSmooth) loss += b * (weight_sum * log_sum - weighted);
  return loss;
}

// dloss/dz_c: exponential = exp(z_c), scaled = (a + b W) / sum_k exp(z_k), a_if_label = a if c is
// the label, else 0.
template <bool kSmooth, typename Real>
GIOADA_HD Real logit_gradient(Real exponential, Real scaled, Real a_if_label, Real b, float w_c) {
  const Real gradient = exponential * scaled - a_if_label;
  return kSmooth ? gradient - b * w_c : gradient;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
