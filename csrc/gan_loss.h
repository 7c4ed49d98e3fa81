// Mean loss of every map of discriminator logits against a constant target.
//
//   t = 1 or 0, s = 1 or -1 for real or fake; l = mean of
//   lsgan: (x - t)^2    bce: log(1 + exp(-s x))    hinge: max(0, 1 - s x)    linear: -s x
#pragma once

#include <vector>

#include "common.h"

namespace gioada {

enum class GanKind : int { lsgan = 0, bce = 1, hinge = 2, linear = 3 };

struct GanLoss {
  std::vector<const void*> logits;  // [maps] each contiguous, of any shape
  std::vector<int64_t> elements;    // [maps] number of logits
  std::vector<int64_t> real;        // [maps] 0 or 1
  FloatType type;                   // of the logits
  GanKind kind;
  float* loss;  // [maps]
};

struct GanLossBackward {
  std::vector<const void*> logits;  // as above
  std::vector<int64_t> elements;
  std::vector<int64_t> real;
  FloatType type;  // of logits and gradients
  GanKind kind;
  const float* grad_loss;   // [maps]
  std::vector<void*> grad;  // [maps] each contiguous
};

}  // namespace gioada
