// Confusion matrix of bilinearly upsampled logits: types and per-element maths of CPU and CUDA.
//
//   z[n,c,Y,X]   = bilinear(logits, align_corners = True)
//   counts[i, j] = number of pixels with label i and argmax_c z = j
#pragma once

#include "common.h"

namespace gioada {

struct UpsampleConfusionMatrix {
  const void* logits;  // [batch, classes, in_height, in_width], any strides
  FloatType logit_type;
  int64_t logit_strides[4];  // in elements, in the order of the shape
  const void* labels;        // [batch, height, width], contiguous
  LabelType label_type;
  int64_t ignore_index;
  int64_t batch, classes, in_height, in_width, height, width;
  int64_t* counts;  // [classes, classes] rows ground truth; added to
  // [1] index of the first label that is neither a class nor ignore_index, or -1; CPU only: on a
  // GPU, such a pixel is not counted, since raising would wait for the device
  int64_t* wrong_label;
};

inline namespace GIOADA_ISA {

// Linear interpolation, exact at both ends however far apart they are.
template <typename Real>
GIOADA_HD Real between(Real first, Real second, float weight_of_second) {
  return (1.f - weight_of_second) * first + weight_of_second * second;
}

// An infinity as a large number, which a weight of 0 takes to 0 and not to NaN: a class that was
// masked with -infinity never wins. NaN stays NaN.
GIOADA_HD float limited(float logit) {
  constexpr float kLargest = 0x1p126f;
  return logit > kLargest ? kLargest : logit < -kLargest ? -kLargest : logit;
}

// One class at a pixel's column, in the input rows above and below it; the other corners of the
// pixel's cell lie `right` and `down` of the first.
template <typename T>
GIOADA_HD void at_column(const T* corner, int64_t right, int64_t down, float weight_of_right,
                         float* above, float* below) {
  *above = between(limited(to_float(corner[0])), limited(to_float(corner[right])), weight_of_right);
  *below = between(limited(to_float(corner[down])), limited(to_float(corner[down + right])),
                   weight_of_right);
}

// Whether a class takes the place of the best one before it, as in torch.argmax: the first of
// equals stays, and NaN is larger than all numbers.
GIOADA_HD bool exceeds(float z, float best) { return z > best || (z != z && best == best); }

}  // namespace GIOADA_ISA
}  // namespace gioada
