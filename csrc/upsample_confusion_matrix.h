// Confusion matrix of bilinearly upsampled logits: arguments of the kernels. The predictions are
// those of upsample_argmax.
//
//   z[n,c,Y,X]   = bilinear(logits)
//   counts[i, j] = number of pixels with label i and argmax_c z = j
#pragma once

#include "tensor_view.h"

namespace gioada {

struct UpsampleConfusionMatrix {
  TensorView logits;  // [N, C, h, w], any strides
  TensorView labels;  // [N, H, W], contiguous
  int64_t ignore_index;
  Axis rows, columns;
  TensorView counts;  // int64 [C, C], rows: labels, columns: predictions; the kernel adds to it

  GIOADA_MEMBER int64_t batch() const { return logits.shape[0]; }
  GIOADA_MEMBER int64_t classes() const { return logits.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return rows.out; }
  GIOADA_MEMBER int64_t width() const { return columns.out; }
};

}  // namespace gioada
