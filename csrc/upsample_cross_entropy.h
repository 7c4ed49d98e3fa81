// Cross-entropy of bilinearly upsampled logits: arguments, and maths per element for
// CPU and CUDA.
//
//   z[n,c,Y,X] = bilinear(logits)
//   loss       = sum_valid weight[y] (logsumexp_c z - z[y]) / sum_valid weight[y]
//   dloss/dz_c = weight[y] (softmax_c - [c = y]) / sum_valid weight[y]
#pragma once

#include "tensor_view.h"

namespace gioada {

struct UpsampleCrossEntropy {
  TensorView logits;  // [N, C, h, w], any strides
  TensorView labels;  // [N, H, W], contiguous
  TensorView weight;  // float32 [C], or none: all ones
  int64_t ignore_index;
  Axis rows, columns;
  TensorView loss;  // float32 []
  TensorView grad;  // float32 [N, C, h, w], channels-last; or none: not needed

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t in_height() const { return rows.in; }
  GIOADA_MEMBER int64_t in_width() const { return columns.in; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
};

inline namespace GIOADA_ISA {

// d loss / d z_c, not yet divided by the sum of weights: exponential = exp(z_c), scaled = weight[y]
// / sum_k exp(z_k), weight_if_label = weight[y] if c is the label, else 0.
template <typename Real>
GIOADA_HD Real logit_gradient(Real exponential, Real scaled, Real weight_if_label) {
  return exponential * scaled - weight_if_label;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
