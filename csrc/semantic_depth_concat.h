// D_out's input, softmax of upsampled logits beside upsampled depth: types and per-element maths of
// CPU and CUDA.
//
//   out[n,c,Y,X] = softmax_c bilinear(logits), out[n,classes,Y,X] = bilinear(depth)
//   d/dz_c       = p_c (grad_c - sum_k p_k grad_k), with p = softmax(z), z = bilinear(logits)
#pragma once

#include "common.h"

namespace gioada {

struct SemanticDepthConcat {
  const void* logits;  // [batch, classes, in_height, in_width], any strides
  const void* depth;   // [batch, 1, in_height, in_width], any strides, or null: none
  FloatType type;      // of logits, depth and out
  int64_t logit_strides[4], depth_strides[4];  // in elements, in the order of the shape
  int64_t batch, classes, in_height, in_width, height, width;
  void* out;  // [batch, height, width, classes, and 1 for depth]
};

struct SemanticDepthConcatBackward {
  const void* grad;    // [batch, channels, height, width], any strides
  const void* logits;  // [batch, classes, in_height, in_width], any strides
  FloatType type;      // of grad and logits
  int64_t grad_strides[4], logit_strides[4];
  int64_t batch, channels, classes, in_height, in_width, height, width;
  float* grad_logits;  // [batch, in_height, in_width, classes], or null: not wanted
  float* grad_depth;   // [batch, in_height, in_width], or null
};

inline namespace GIOADA_ISA {

// d / d z_c; `mean` is sum_k p_k grad_k.
template <typename Real>
GIOADA_HD Real softmax_gradient(Real probability, Real grad, Real mean) {
  return probability * (grad - mean);
}

}  // namespace GIOADA_ISA
}  // namespace gioada
