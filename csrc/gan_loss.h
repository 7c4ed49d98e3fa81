// Mean loss of discriminator logits against a constant target, one mean for each map.
//
//   t = 1 or 0, s = 1 or -1 for real or fake; loss = mean of
//   lsgan: (x - t)^2    bce: log(1 + exp(-s x))    hinge: max(0, 1 - s x)    linear: -s x
//
// linear is the hinge loss of a generator.
#pragma once

#include <array>
#include <vector>

#include "tensor_view.h"

namespace gioada {

enum class GanKind : int { lsgan, bce, hinge, linear };

inline std::array<const char*, 4> enum_names(GanKind) {
  return {"lsgan", "bce", "hinge", "linear"};
}

struct GanLoss {
  std::vector<TensorView> logits;  // maps of any shape, each contiguous
  std::vector<bool> real;          // [maps] whether the target is real
  GanKind kind;
  TensorView loss;  // float32 [maps]
};

struct GanLossBackward {
  std::vector<TensorView> logits;  // as above
  TensorView grad_loss;            // float32 [maps]
  std::vector<bool> real;
  GanKind kind;
  std::vector<TensorView> grad;  // shapes and type of the logits, each contiguous
};

}  // namespace gioada
