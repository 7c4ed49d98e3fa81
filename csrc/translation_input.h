// Input of the translation network: types and per-element maths.
//
//   out[n,Y,X,:3] = image / 127.5 - 1;  out[n,Y,X,3] = depth;  out[n,Y,X,4:] = one-hot label
#pragma once

#include "common.h"

namespace gioada {

struct TranslationInput {
  const uint8_t* image;      // [batch, 3, height, width], any strides
  int64_t image_strides[4];  // in elements, in the order of the shape
  const void* depth;         // [batch, 1, height, width], any strides
  FloatType depth_type;
  int64_t depth_strides[4];
  const void* labels;  // [batch, height, width], contiguous
  LabelType label_type;
  int64_t batch, classes, height, width;
  void* out;  // [batch, height, width, 4 + classes]
  FloatType out_type;
};

inline namespace GIOADA_ISA {

constexpr int64_t kDepthChannel = 3, kFirstClassChannel = 4;

GIOADA_HD float normalised(uint8_t value) { return static_cast<float>(value) / 127.5f - 1.f; }

}  // namespace GIOADA_ISA
}  // namespace gioada
