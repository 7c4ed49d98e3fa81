// Confusion matrix of bilinearly upsampled logits: types and per-element maths of CPU and CUDA.
//
//   z[n,c,Y,X]   = bilinear(logits, align_corners = True)
//   counts[i, j] = number of pixels with label i and argmax_c z = j
#pragma once

#include "tensor_view.h"

namespace gioada {

struct UpsampleConfusionMatrix {
  TensorView logits;  // [N, C, h, w], any strides
  TensorView labels;  // [N, H, W], contiguous
  int64_t ignore_index;
  TensorView counts;  // int64 [C, C], rows ground truth; added to

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t in_height() const { return logits.shape[2]; }
  GIOADA_MEMBER int64_t in_width() const { return logits.shape[3]; }
  GIOADA_MEMBER int64_t height() const { return labels.shape[1]; }
  GIOADA_MEMBER int64_t width() const { return labels.shape[2]; }
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
