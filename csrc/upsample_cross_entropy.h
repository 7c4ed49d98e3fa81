// Cross-entropy of bilinearly upsampled logits: types and per-element maths of CPU and CUDA.
//
//   z[n,c,Y,X] = bilinear(logits, align_corners = True)
//   loss       = sum_valid weight[y] (logsumexp_c z - z[y]) / sum_valid weight[y]
//   dloss/dz_c = weight[y] (softmax_c - [c = y]) / sum_valid weight[y]
#pragma once

#include "common.h"

namespace gioada {

struct UpsampleCrossEntropy {
  const void* logits;  // [batch, classes, in_height, in_width], any strides
  FloatType logit_type;
  int64_t logit_strides[4];  // in elements, in the order of the shape
  const void* labels;        // [batch, height, width], contiguous
  LabelType label_type;
  const float* weight;  // [classes], or null: all ones
  int64_t ignore_index;
  int64_t batch, classes, in_height, in_width, height, width;
  float* loss;  // [1]
  float* grad;  // [batch, in_height, in_width, classes], or null: not wanted
  // [1] index of the first label that is neither a class nor ignore_index, or -1; CPU only: on a
  // GPU, such a label makes the loss NaN, since raising would wait for the device
  int64_t* wrong_label;
};

inline namespace GIOADA_ISA {

// d loss / d z_c before division by the sum of weights; `scaled` is weight[y] / sum_c exp.
template <typename Real>
GIOADA_HD Real logit_gradient(Real exponential, Real scaled, Real weight_if_label) {
  return exponential * scaled - weight_if_label;
}

}  // namespace GIOADA_ISA
}  // namespace gioada
