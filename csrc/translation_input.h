// Input of the translation network: arguments, and maths per element.
//
//   out[n,Y,X,:3] = image / 127.5 - 1;  out[n,Y,X,3] = depth;  out[n,Y,X,4:] = one-hot label
#pragma once

#include "tensor_view.h"

namespace gioada {

struct TranslationInput {
  TensorView image;   // uint8 [N, 3, H, W], any strides
  TensorView depth;   // [N, 1, H, W], any strides
  TensorView labels;  // [N, H, W], contiguous
  TensorView out;     // [N, 4 + C, H, W], channels-last

  GIOADA_MEMBER int64_t batch() const { return out.shape[0]; }
  GIOADA_MEMBER int64_t channels() const { return out.shape[1]; }
  GIOADA_MEMBER int64_t height() const { return out.shape[2]; }
  GIOADA_MEMBER int64_t width() const { return out.shape[3]; }
};

inline namespace GIOADA_ISA {

constexpr int64_t kDepthChannel = 3, kFirstClassChannel = 4;

GIOADA_HD float normalised(uint8_t value) { return static_cast<float>(value) / 127.5f - 1.f; }

}  // namespace GIOADA_ISA
}  // namespace gioada
