// Input of D_out, softmax of upsampled logits and upsampled depth: arguments, and maths per element
// for CPU and CUDA.
//
//   out[n,c,Y,X] = softmax_c bilinear(logits), out[n,classes,Y,X] = bilinear(depth)
//   dloss/dz_c   = p_c (grad_c - sum_k p_k grad_k), with p = softmax(z), z = bilinear(logits)
#pragma once

#include "tensor_view.h"

namespace gioada {

struct SemanticDepthConcat {
  TensorView logits;  // [N, C, h, w], any strides
  TensorView depth;   // [N, 1, h, w], any strides; or none
  Axis rows, columns;
  TensorView out;  // [N, C + 1, H, W], or [N, C, H, W] without depth; channels-last

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t in_height() const { return rows.in; }
  GIOADA_MEMBER int64_t in_width() const { return columns.in; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
  GIOADA_MEMBER int64_t channels() const { return out.shape[1]; }
};

struct SemanticDepthConcatBackward {
  TensorView grad;    // [N, C + 1, H, W], or [N, C, H, W] without depth; any strides
  TensorView logits;  // [N, C, h, w], any strides
  Axis rows, columns;
  TensorView grad_logits;  // float32 [N, C, h, w], channels-last; or none: not needed
  TensorView grad_depth;   // float32 [N, 1, h, w], contiguous; or none: not needed

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t in_height() const { return rows.in; }
  GIOADA_MEMBER int64_t in_width() const { return columns.in; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
  GIOADA_MEMBER int64_t channels() const { return grad.shape[1]; }
};

inline namespace GIOADA_ISA {

// d loss / d z_c; `mean` is sum_k p_k grad_k.
template <typename Real>
GIOADA_HD Real softmax_gradient(Real probability, Real grad, Real mean) {
  return probability * (grad - mean);
}

}  // namespace GIOADA_ISA
}  // namespace gioada
