// Class predictions of bilinearly upsampled logits: arguments, and maths per element for CPU and
// CUDA.
//
//   z[n,c,Y,X]         = bilinear(logits)
//   predictions[n,Y,X] = argmax_c z
#pragma once

#include "tensor_view.h"

namespace gioada {

struct UpsampleArgmax {
  TensorView logits;  // [N, C, h, w], any strides
  Axis rows, columns;
  TensorView predictions;  // [N, H, W], contiguous: int64, int32 or uint8

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
};

inline namespace GIOADA_ISA {

// Linear interpolation. Exact at both ends, however much they differ.
template <typename Real>
GIOADA_HD Real lerp(Real first, Real second, float frac) {
  return (1.f - frac) * first + frac * second;
}

// Clamps infinities to a large finite number, because 0 times infinity would be NaN: a class masked
// with -infinity never wins. NaN stays NaN.
GIOADA_HD float clamp_finite(float logit) {
  constexpr float kMax = 0x1p126f;
  return logit > kMax ? kMax : logit < -kMax ? -kMax : logit;
}

// Interpolates one class to a pixel's column, in the input rows above and below the pixel. `corner`
// is the top left corner of the pixel's cell; `right` and `down` are offsets to the other corners.
template <typename T>
GIOADA_HD void at_column(const T* corner, int64_t right, int64_t down, float frac, float* above,
                         float* below) {
  *above = lerp(clamp_finite(to_float(corner[0])), clamp_finite(to_float(corner[right])), frac);
  *below = lerp(clamp_finite(to_float(corner[down])), clamp_finite(to_float(corner[down + right])),
                frac);
}

// Whether a class replaces the best one so far, as in torch.argmax: the first of equals wins, and
// NaN is larger than any number.
GIOADA_HD bool exceeds(float z, float best) { return z > best || (z != z && best == best); }

}  // namespace GIOADA_ISA
}  // namespace gioada
